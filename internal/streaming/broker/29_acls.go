package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/wire"
)

// DescribeAcls, CreateAcls and DeleteAcls (keys 29 to 31), versions 0 to 3: there is no
// authorizer (a configuration that names one stops the start), which is what they answer.

func (b *Broker) registerDescribeACLs() { b.server.Handle(29, 0, 3, b.handleDescribeACLs) }
func (b *Broker) registerCreateACLs()   { b.server.Handle(30, 0, 3, b.handleCreateACLs) }
func (b *Broker) registerDeleteACLs()   { b.server.Handle(31, 0, 3, b.handleDeleteACLs) }

var (
	noAuthorizerOnBroker = kmsg.StringPtr("No Authorizer is configured on the broker")
	noAuthorizer         = kmsg.StringPtr("No Authorizer is configured.")
)

func (b *Broker) handleDescribeACLs(request *wire.Request) {
	response := respond[*kmsg.DescribeACLsResponse](request)
	response.ErrorCode, response.ErrorMessage = kerr.SecurityDisabled.Code, noAuthorizerOnBroker
	request.Reply(response)
}

func (b *Broker) handleCreateACLs(request *wire.Request) {
	body := request.Body.(*kmsg.CreateACLsRequest)
	response := respond[*kmsg.CreateACLsResponse](request)
	for range body.Creations {
		result := kmsg.NewCreateACLsResponseResult()
		result.ErrorCode, result.ErrorMessage = kerr.SecurityDisabled.Code, noAuthorizer
		response.Results = append(response.Results, result)
	}
	request.Reply(response)
}

func (b *Broker) handleDeleteACLs(request *wire.Request) {
	body := request.Body.(*kmsg.DeleteACLsRequest)
	response := respond[*kmsg.DeleteACLsResponse](request)
	for range body.Filters {
		result := kmsg.NewDeleteACLsResponseResult()
		result.ErrorCode, result.ErrorMessage = kerr.SecurityDisabled.Code, noAuthorizer
		response.Results = append(response.Results, result)
	}
	request.Reply(response)
}
