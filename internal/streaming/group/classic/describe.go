package classic

import "github.com/twmb/franz-go/pkg/kerr"

// Description is what DescribeGroups tells.
type Description struct {
	State        State
	ProtocolType string
	Protocol     string // "" unless Stable
	Members      []MemberDescription
}

// MemberDescription is one member of a Description. Metadata and Assignment are there only
// in a Stable group.
type MemberDescription struct {
	MemberID   string
	InstanceID *string
	ClientID   string
	ClientHost string
	Metadata   []byte
	Assignment []byte
}

// Describe returns the group's present state.
func (g *Group) Describe() Description {
	description := Description{State: g.state, ProtocolType: g.protocolType}
	for _, m := range g.members {
		member := MemberDescription{MemberID: m.id, InstanceID: m.instanceID, ClientID: m.clientID, ClientHost: m.clientHost}
		if g.state == Stable {
			member.Metadata, member.Assignment = m.metadata(g.protocol), m.assignment
		}
		description.Members = append(description.Members, member)
	}
	if g.state == Stable {
		description.Protocol = g.protocol
	}
	return description
}

// Abandon answers everything that waits with an error: the group moves to another
// coordinator, and this copy of it is finished.
func (g *Group) Abandon(code *kerr.Error, out *Effects) {
	for _, m := range g.members {
		g.answerJoin(m, JoinResult{Err: code}, out)
		g.answerSync(m, SyncResult{Err: code}, out)
	}
	g.state = Dead
}
