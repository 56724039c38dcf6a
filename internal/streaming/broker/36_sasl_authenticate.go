package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/wire"
)

// SaslAuthenticate (key 36), versions 0 to 2: see SaslHandshake.

func (b *Broker) registerSASLAuthenticate() { b.server.Handle(36, 0, 2, b.handleSASLAuthenticate) }

func (b *Broker) handleSASLAuthenticate(request *wire.Request) {
	response := respond[*kmsg.SASLAuthenticateResponse](request)
	response.ErrorCode = kerr.IllegalSaslState.Code
	response.ErrorMessage = kmsg.StringPtr("SaslAuthenticate request received after successful authentication")
	response.SASLAuthBytes = []byte{}
	request.Reply(response)
}
