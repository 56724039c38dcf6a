package broker

import (
	"bytes"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/group/classic"
	"understudy/internal/streaming/wire"
)

// SyncGroup (key 14), versions 0 to 5. v3 instance id (KIP-345); v5 protocol type and name,
// both of which must be given (KIP-559).

func (b *Broker) registerSyncGroup() { b.server.Handle(14, 0, 5, b.handleSyncGroup) }

func (b *Broker) handleSyncGroup(request *wire.Request) {
	body := request.Body.(*kmsg.SyncGroupRequest)
	if request.Version >= 5 && (body.ProtocolType == nil || body.Protocol == nil) {
		request.Reply(syncResponse(request, &classic.SyncResult{Err: kerr.InconsistentGroupProtocol}))
		return
	}
	sync := &classic.SyncRequest{
		MemberID: body.MemberID, InstanceID: body.InstanceID, Generation: body.Generation,
		ProtocolType: body.ProtocolType, Protocol: body.Protocol,
		Assignments: make(map[string][]byte, len(body.GroupAssignment)),
	}
	for i := range body.GroupAssignment {
		// The group keeps the assignments; the request's buffer serves another request soon.
		sync.Assignments[body.GroupAssignment[i].MemberID] = bytes.Clone(body.GroupAssignment[i].MemberAssignment)
	}
	b.groups.Sync(body.Group, sync, func(result classic.SyncResult) {
		request.Reply(syncResponse(request, &result))
	})
}

func syncResponse(request *wire.Request, result *classic.SyncResult) *kmsg.SyncGroupResponse {
	response := respond[*kmsg.SyncGroupResponse](request)
	response.ErrorCode = codeOf(result.Err)
	if result.Err == nil {
		response.ProtocolType, response.Protocol, response.MemberAssignment = &result.ProtocolType, &result.Protocol, result.Assignment
	}
	return response
}
