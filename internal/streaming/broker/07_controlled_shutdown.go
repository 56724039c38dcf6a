package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/wire"
)

// ControlledShutdown (key 7), versions 0 to 3, served by the active controller: it moves
// leadership away from the broker that asks. v2 carries the broker's epoch.

func (b *Broker) registerControlledShutdown() { b.server.Handle(7, 0, 3, b.handleControlledShutdown) }

func (b *Broker) handleControlledShutdown(request *wire.Request) {
	body := request.Body.(*kmsg.ControlledShutdownRequest)
	if body.Version < 2 {
		body.BrokerEpoch = -1
	}
	b.controller.ControlledShutdown(body, func(response *kmsg.ControlledShutdownResponse) {
		if response.ErrorCode == kerr.NotController.Code {
			response.ErrorCode = kerr.StaleControllerEpoch.Code // a ControllerMovedException in Apache's broker
		}
		request.Reply(response)
	})
}
