package broker

import (
	"bytes"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/group/classic"
	"understudy/internal/streaming/wire"
)

// JoinGroup (key 11), versions 0 to 9. v1 rebalance timeout; v4 MEMBER_ID_REQUIRED
// (KIP-394); v5 static members (KIP-345); v7 protocol type in the answer; v8 reason; v9
// SkipAssignment (KIP-814).

func (b *Broker) registerJoinGroup() { b.server.Handle(11, 0, 9, b.handleJoinGroup) }

func (b *Broker) handleJoinGroup(request *wire.Request) {
	body := request.Body.(*kmsg.JoinGroupRequest)
	join := &classic.JoinRequest{
		MemberID: body.MemberID, InstanceID: body.InstanceID, ClientID: request.ClientID, ClientHost: clientHost(request),
		SessionTimeout:     time.Duration(body.SessionTimeoutMillis) * time.Millisecond,
		RebalanceTimeout:   time.Duration(body.RebalanceTimeoutMillis) * time.Millisecond,
		ProtocolType:       body.ProtocolType,
		RequireKnownMember: request.Version >= 4 && body.InstanceID == nil,
		SkipAssignment:     request.Version >= 9,
	}
	if request.Version < 1 || join.RebalanceTimeout < 0 {
		join.RebalanceTimeout = join.SessionTimeout
	}
	for i := range body.Protocols {
		// The group keeps the metadata; the request's buffer serves another request soon.
		join.Protocols = append(join.Protocols, classic.Protocol{Name: body.Protocols[i].Name, Metadata: bytes.Clone(body.Protocols[i].Metadata)})
	}
	b.groups.Join(body.Group, join, func(result classic.JoinResult) {
		request.Reply(joinResponse(request, &result))
	})
}

func joinResponse(request *wire.Request, result *classic.JoinResult) *kmsg.JoinGroupResponse {
	response := respond[*kmsg.JoinGroupResponse](request)
	response.MemberID = result.MemberID
	if result.Err != nil {
		response.ErrorCode, response.Generation = result.Err.Code, -1
		return response
	}
	response.Generation, response.ProtocolType, response.Protocol = result.Generation, &result.ProtocolType, &result.Protocol
	response.LeaderID, response.SkipAssignment = result.Leader, result.SkipAssignment
	for i := range result.Members {
		member := kmsg.NewJoinGroupResponseMember()
		member.MemberID, member.InstanceID, member.ProtocolMetadata = result.Members[i].MemberID, result.Members[i].InstanceID, result.Members[i].Metadata
		response.Members = append(response.Members, member)
	}
	return response
}
