package classic

import (
	"bytes"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// member is one member of a group.
type member struct {
	id               string
	instanceID       *string // nil for dynamic members
	clientID         string
	clientHost       string
	rebalanceTimeout time.Duration
	sessionTimeout   time.Duration
	protocols        []Protocol // in order of preference
	assignment       []byte

	join *waitingJoin // not nil while a Join waits
	sync Token        // not nil while a Sync waits
	// fresh until its first generation: then it can expire while it waits.
	fresh    bool
	deadline time.Time // of the session; zero while a wait stands for the heartbeats
}

type waitingJoin struct {
	token Token
}

func restoreMember(from *kmsg.GroupMetadataValueMember, protocol string) *member {
	m := &member{
		id: from.MemberID, instanceID: from.InstanceID, clientID: from.ClientID, clientHost: from.ClientHost,
		sessionTimeout:   time.Duration(from.SessionTimeoutMillis) * time.Millisecond,
		rebalanceTimeout: time.Duration(from.RebalanceTimeoutMillis) * time.Millisecond,
		protocols:        []Protocol{{protocol, from.Subscription}},
		assignment:       from.Assignment,
	}
	if from.RebalanceTimeoutMillis < 0 {
		m.rebalanceTimeout = m.sessionTimeout
	}
	return m
}

// metadata is what the member said for a protocol.
func (m *member) metadata(protocol string) []byte {
	for i := range m.protocols {
		if m.protocols[i].Name == protocol {
			return m.protocols[i].Metadata
		}
	}
	return nil
}

func (m *member) supports(protocol string) bool {
	return slices.ContainsFunc(m.protocols, func(p Protocol) bool { return p.Name == protocol })
}

// matches reports whether a member that asks again asks for the same.
func (m *member) matches(protocols []Protocol) bool {
	return slices.EqualFunc(m.protocols, protocols, func(a, b Protocol) bool {
		return a.Name == b.Name && bytes.Equal(a.Metadata, b.Metadata)
	})
}

// add takes a member in. The first one decides the protocol type and leads.
func (g *Group) add(m *member) {
	if len(g.members) == 0 {
		g.leader = m.id
	}
	g.members = append(g.members, m)
	g.byID[m.id] = m
	if m.instanceID != nil {
		g.static[*m.instanceID] = m
	}
	delete(g.pending, m.id)
}

// drop takes a member out; what it waits for is answered with code.
func (g *Group) drop(m *member, code *kerr.Error, out *Effects) {
	g.answerJoin(m, JoinResult{Err: code}, out)
	g.answerSync(m, SyncResult{Err: code}, out)
	g.members = slices.DeleteFunc(g.members, func(other *member) bool { return other == m })
	delete(g.byID, m.id)
	delete(g.unsynced, m.id)
	if m.instanceID != nil && g.static[*m.instanceID] == m {
		delete(g.static, *m.instanceID)
	}
	if g.leader == m.id {
		g.leader = ""
		if len(g.members) > 0 {
			g.leader = g.members[0].id
		}
	}
}

// remove is drop with what follows from it for the group's state.
func (g *Group) remove(m *member, now time.Time, out *Effects) {
	g.drop(m, kerr.UnknownMemberID, out)
	switch g.state {
	case Stable, CompletingRebalance:
		g.prepareRebalance(now, out)
	case PreparingRebalance:
		g.maybeCompleteJoin(now, out)
	}
}

// extendSession gives the member its full session timeout from now.
func (g *Group) extendSession(m *member, now time.Time) {
	m.deadline = now.Add(m.sessionTimeout)
	g.schedule(m.deadline)
}

// expireMembers removes the members whose session is over. One that waits for the others
// cannot send heartbeats; unless it is fresh, the wait counts for them.
func (g *Group) expireMembers(now time.Time, out *Effects) {
	for _, m := range slices.Clone(g.members) {
		if !due(m.deadline, now) || g.byID[m.id] != m {
			continue
		}
		if !m.fresh && (m.join != nil || m.sync != nil) {
			m.deadline = time.Time{}
			continue
		}
		g.remove(m, now, out)
	}
}

func (g *Group) expirePending(now time.Time, out *Effects) {
	for _, id := range sortedKeys(g.pending) {
		if due(g.pending[id], now) {
			g.removePending(id, now, out)
		}
	}
}

func (g *Group) removePending(id string, now time.Time, out *Effects) {
	delete(g.pending, id)
	if g.state == PreparingRebalance {
		g.maybeCompleteJoin(now, out)
	}
}

// HeartbeatRequest says that a member is alive.
type HeartbeatRequest struct {
	MemberID   string
	InstanceID *string
	Generation int32
}

// Heartbeat extends the member's session and tells it of a rebalance; nil means none.
func (g *Group) Heartbeat(now time.Time, r *HeartbeatRequest) *kerr.Error {
	if g.state == Dead {
		return kerr.CoordinatorNotAvailable
	}
	if code := g.validateMember(r.MemberID, r.InstanceID); code != nil {
		return code
	}
	if r.Generation != g.generation {
		return kerr.IllegalGeneration
	}
	if g.state == Empty {
		return kerr.UnknownMemberID
	}
	g.extendSession(g.byID[r.MemberID], now)
	if g.state == PreparingRebalance {
		return kerr.RebalanceInProgress
	}
	return nil
}

// LeaveRequest names a member that leaves: by its id, or by its instance id alone.
type LeaveRequest struct {
	MemberID   string
	InstanceID *string
}

// Leave takes a member out; nil means it is gone.
func (g *Group) Leave(now time.Time, r *LeaveRequest, out *Effects) *kerr.Error {
	if g.state == Dead {
		return kerr.CoordinatorNotAvailable
	}
	memberID := r.MemberID
	if memberID == "" && r.InstanceID != nil {
		m := g.static[*r.InstanceID]
		if m == nil {
			return kerr.UnknownMemberID
		}
		memberID = m.id
	}
	if _, pending := g.pending[memberID]; pending { // whatever instance is named, as in Kafka
		g.removePending(memberID, now, out)
		return nil
	}
	if code := g.validateMember(memberID, r.InstanceID); code != nil {
		return code
	}
	g.remove(g.byID[memberID], now, out)
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	if len(m) == 0 {
		return nil
	}
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
