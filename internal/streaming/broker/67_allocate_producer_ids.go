package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/wire"
)

// AllocateProducerIds (key 67), version 0, served by the active controller: blocks of a
// thousand producer ids for the brokers.

func (b *Broker) registerAllocateProducerIDs() {
	b.server.Handle(67, 0, 0, b.handleAllocateProducerIDs)
}

func (b *Broker) handleAllocateProducerIDs(request *wire.Request) {
	b.controller.AllocateProducerIDs(request.Body.(*kmsg.AllocateProducerIDsRequest),
		func(response *kmsg.AllocateProducerIDsResponse) { request.Reply(response) })
}
