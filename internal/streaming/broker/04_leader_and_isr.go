package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/wire"
)

// LeaderAndIsr (key 4), versions 0 to 7: the controller gives this broker's replicas their
// roles. v1 IsNew; v2 broker epoch; v5 topic ids; v6 leader recovery state (KIP-704); v7
// KRaft flag.

func (b *Broker) registerLeaderAndISR() { b.server.Handle(4, 0, 7, b.handleLeaderAndISR) }

func (b *Broker) handleLeaderAndISR(request *wire.Request) {
	body := request.Body.(*kmsg.LeaderAndISRRequest)
	response := b.replicas.LeaderAndISR(body)
	if response.ErrorCode == 0 {
		// Before the answer: who hears of it must not be told the old leader here.
		b.metadata.OverlayLeaderAndISR(body)
	}
	request.Reply(response)
}
