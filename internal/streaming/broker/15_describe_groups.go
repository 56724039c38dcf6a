package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/wire"
)

// DescribeGroups (key 15), versions 0 to 5. v3 authorized operations; v4 instance id. A group that does not exist is Dead, without error.

func (b *Broker) registerDescribeGroups() { b.server.Handle(15, 0, 5, b.handleDescribeGroups) }

func (b *Broker) handleDescribeGroups(request *wire.Request) {
	body := request.Body.(*kmsg.DescribeGroupsRequest)
	response := respond[*kmsg.DescribeGroupsResponse](request)
	for _, id := range body.Groups {
		described := b.describeGroup(id)
		if body.IncludeAuthorizedOperations && described.ErrorCode == 0 {
			described.AuthorizedOperations = groupOperations
		}
		response.Groups = append(response.Groups, described)
	}
	request.Reply(response)
}

func (b *Broker) describeGroup(id string) kmsg.DescribeGroupsResponseGroup {
	answer := kmsg.NewDescribeGroupsResponseGroup()
	answer.Group = id
	description, err := b.groups.Describe(id)
	if err != nil {
		answer.ErrorCode = err.Code
		return answer
	}
	answer.State, answer.ProtocolType, answer.Protocol = description.State.String(), description.ProtocolType, description.Protocol
	for i := range description.Members {
		from := &description.Members[i]
		member := kmsg.NewDescribeGroupsResponseGroupMember()
		member.MemberID, member.InstanceID, member.ClientID, member.ClientHost = from.MemberID, from.InstanceID, from.ClientID, from.ClientHost
		member.ProtocolMetadata, member.MemberAssignment = from.Metadata, from.Assignment
		answer.Members = append(answer.Members, member)
	}
	return answer
}
