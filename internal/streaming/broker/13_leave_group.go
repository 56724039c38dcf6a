package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/group/classic"
	"understudy/internal/streaming/wire"
)

// LeaveGroup (key 13), versions 0 to 5. v3 several members, by id or instance id (KIP-345);
// v5 reason. Below v3 the one member's error is the whole answer's.

func (b *Broker) registerLeaveGroup() { b.server.Handle(13, 0, 5, b.handleLeaveGroup) }

func (b *Broker) handleLeaveGroup(request *wire.Request) {
	body := request.Body.(*kmsg.LeaveGroupRequest)
	members := []classic.LeaveRequest{{MemberID: body.MemberID}}
	if request.Version >= 3 {
		members = members[:0]
		for i := range body.Members {
			members = append(members, classic.LeaveRequest{MemberID: body.Members[i].MemberID, InstanceID: body.Members[i].InstanceID})
		}
	}
	results, err := b.groups.Leave(body.Group, members)
	response := respond[*kmsg.LeaveGroupResponse](request)
	response.ErrorCode = codeOf(err)
	switch {
	case err != nil:
	case request.Version < 3:
		response.ErrorCode = codeOf(results[0])
	default:
		for i := range members {
			member := kmsg.NewLeaveGroupResponseMember()
			member.MemberID, member.InstanceID, member.ErrorCode = members[i].MemberID, members[i].InstanceID, codeOf(results[i])
			response.Members = append(response.Members, member)
		}
	}
	request.Reply(response)
}
