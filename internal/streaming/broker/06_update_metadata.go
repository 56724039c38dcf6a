package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/wire"
)

// UpdateMetadata (key 6), versions 0 to 8: the controller tells every broker the state of the
// cluster. v5 broker epoch, partitions by topic; v7 topic ids; v8 KRaft flag.

func (b *Broker) registerUpdateMetadata() { b.server.Handle(6, 0, 8, b.handleUpdateMetadata) }

func (b *Broker) handleUpdateMetadata(request *wire.Request) {
	body := request.Body.(*kmsg.UpdateMetadataRequest)
	if b.tooLate(request, body.BrokerEpoch, body.ControllerEpoch) {
		return
	}
	response := respond[*kmsg.UpdateMetadataResponse](request)
	err := b.replicas.CheckControl(cluster.BrokerEpoch(body.BrokerEpoch), cluster.ControllerEpoch(body.ControllerEpoch))
	if err != nil {
		response.ErrorCode = b.code(err)
		request.Reply(response)
		return
	}
	change := b.metadata.ApplyUpdateMetadata(body)
	b.logger.Debug("metadata updated", "partitions", change.Image.PartitionCount(), "brokers", len(change.Image.Brokers()),
		"controller", int32(change.Image.ControllerID()), "topics", len(change.Topics))
	b.metadataChanged(change)
	request.Reply(response)
}
