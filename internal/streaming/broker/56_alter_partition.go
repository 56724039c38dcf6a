package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/wire"
)

// AlterPartition (key 56), versions 0 to 3, served by the active controller: leaders change
// their ISRs through it. v1 leader recovery state (KIP-704), v2 topic ids (KIP-841), v3
// epochs of the ISR's members (KIP-903).

func (b *Broker) registerAlterPartition() { b.server.Handle(56, 0, 3, b.handleAlterPartition) }

func (b *Broker) handleAlterPartition(request *wire.Request) {
	body := request.Body.(*kmsg.AlterPartitionRequest)
	b.controller.AlterPartition(body,
		func(response *kmsg.AlterPartitionResponse) { request.Reply(response) })
}
