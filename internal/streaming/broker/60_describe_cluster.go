package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/wire"
)

// DescribeCluster (key 60), versions 0 and 1: the live brokers and the controller. v1 asks
// for an endpoint type; a ZooKeeper-mode broker has endpoints of brokers only.

func (b *Broker) registerDescribeCluster() { b.server.Handle(60, 0, 1, b.handleDescribeCluster) }

const (
	endpointTypeBroker     = 1
	endpointTypeController = 2
)

func (b *Broker) handleDescribeCluster(request *wire.Request) {
	body := request.Body.(*kmsg.DescribeClusterRequest)
	response := respond[*kmsg.DescribeClusterResponse](request)
	if request.Version >= 1 && body.EndpointType != endpointTypeBroker {
		response.ErrorCode = kerr.UnsupportedEndpointType.Code
		response.ErrorMessage = kmsg.StringPtr("Unsupported endpoint type.")
		if body.EndpointType == endpointTypeController {
			response.ErrorCode = kerr.MismatchedEndpointType.Code
			response.ErrorMessage = kmsg.StringPtr("The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER")
		}
		request.Reply(response)
		return
	}
	image := b.metadata.Image()
	response.EndpointType = endpointTypeBroker
	response.ClusterID = b.clusterID
	if body.IncludeClusterAuthorizedOperations {
		response.ClusterAuthorizedOperations = clusterOperations
	}
	response.ControllerID = int32(image.ControllerID())
	for i := range image.Brokers() {
		known := &image.Brokers()[i]
		endpoint, found := known.Endpoint(request.Listener)
		if !found {
			continue
		}
		broker := kmsg.NewDescribeClusterResponseBroker()
		broker.NodeID, broker.Host, broker.Port, broker.Rack = int32(known.ID), endpoint.Host, endpoint.Port, rackOrNil(known.Rack)
		response.Brokers = append(response.Brokers, broker)
	}
	request.Reply(response)
}
