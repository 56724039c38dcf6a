package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/group/classic"
	"understudy/internal/streaming/wire"
)

// Heartbeat (key 12), versions 0 to 4. v3 instance id (KIP-345).

func (b *Broker) registerHeartbeat() { b.server.Handle(12, 0, 4, b.handleHeartbeat) }

func (b *Broker) handleHeartbeat(request *wire.Request) {
	body := request.Body.(*kmsg.HeartbeatRequest)
	response := respond[*kmsg.HeartbeatResponse](request)
	response.ErrorCode = codeOf(b.groups.Heartbeat(body.Group, &classic.HeartbeatRequest{
		MemberID: body.MemberID, InstanceID: body.InstanceID, Generation: body.Generation,
	}))
	request.Reply(response)
}
