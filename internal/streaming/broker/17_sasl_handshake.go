package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/wire"
)

// SaslHandshake (key 17), versions 0 and 1. There are no SASL listeners; on the others it comes
// at the wrong time.

func (b *Broker) registerSASLHandshake() { b.server.Handle(17, 0, 1, b.handleSASLHandshake) }

func (b *Broker) handleSASLHandshake(request *wire.Request) {
	response := respond[*kmsg.SASLHandshakeResponse](request)
	response.ErrorCode = kerr.IllegalSaslState.Code
	request.Reply(response)
}
