package broker

import (
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/wire"
)

// ListGroups (key 16), versions 0 to 5: the groups that this broker coordinates. v4 filter
// by state (KIP-518); v5 filter by type: all are classic.

func (b *Broker) registerListGroups() { b.server.Handle(16, 0, 5, b.handleListGroups) }

func (b *Broker) handleListGroups(request *wire.Request) {
	body := request.Body.(*kmsg.ListGroupsRequest)
	response := respond[*kmsg.ListGroupsResponse](request)
	groups, err := b.groups.List()
	response.ErrorCode = codeOf(err)
	for i := range groups {
		if !passes(body.StatesFilter, groups[i].State.String()) || !passes(body.TypesFilter, "classic") {
			continue
		}
		listed := kmsg.NewListGroupsResponseGroup()
		listed.Group, listed.ProtocolType, listed.GroupState, listed.GroupType = groups[i].Group, groups[i].ProtocolType, groups[i].State.String(), "classic"
		response.Groups = append(response.Groups, listed)
	}
	request.Reply(response)
}

// passes reports whether a value is among those of a filter; an empty filter lets all pass.
func passes(filter []string, value string) bool {
	return len(filter) == 0 || slices.ContainsFunc(filter, func(allowed string) bool { return strings.EqualFold(allowed, value) })
}
