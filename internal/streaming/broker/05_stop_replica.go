package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/wire"
)

// StopReplica (key 5), versions 0 to 4: the controller stops or deletes replicas. v1 broker
// epoch; v3 leader epoch and deletion per partition (KIP-570); v4 KRaft flag, which package
// wire decodes in Kafka's order.

func (b *Broker) registerStopReplica() { b.server.Handle(5, 0, 4, b.handleStopReplica) }

func (b *Broker) handleStopReplica(request *wire.Request) {
	body := request.Body.(*kmsg.StopReplicaRequest)
	if !b.tooLate(request, body.BrokerEpoch, body.ControllerEpoch) {
		request.Reply(b.replicas.StopReplica(body))
	}
}
