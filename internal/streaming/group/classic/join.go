package classic

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// JoinRequest asks to be, or to stay, a member.
type JoinRequest struct {
	Token            Token
	MemberID         string // "" for a new member
	NewMemberID      string // the id for a new member; its randomness comes from the caller
	InstanceID       *string
	ClientID         string
	ClientHost       string
	RebalanceTimeout time.Duration
	SessionTimeout   time.Duration
	ProtocolType     string
	Protocols        []Protocol
	// RequireKnownMember makes a new dynamic member come again with the id it is given, so
	// that a client that vanishes meanwhile leaves nothing behind (KIP-394, version 4).
	RequireKnownMember bool
	// SkipAssignment says that the client understands that answer (KIP-814, version 9).
	SkipAssignment bool
}

// JoinResult answers a JoinRequest.
type JoinResult struct {
	Err            *kerr.Error
	MemberID       string
	Generation     int32
	ProtocolType   string
	Protocol       string
	Leader         string
	SkipAssignment bool
	Members        []JoinMember // for the leader only
}

// JoinMember is what the leader is told of a member.
type JoinMember struct {
	MemberID   string
	InstanceID *string
	Metadata   []byte
}

// Join handles a JoinRequest.
func (g *Group) Join(now time.Time, r *JoinRequest, out *Effects) {
	refuse := func(code *kerr.Error) {
		out.reply(r.Token, JoinResult{Err: code, MemberID: r.MemberID})
	}
	switch {
	case r.SessionTimeout < g.settings.MinSessionTimeout || r.SessionTimeout > g.settings.MaxSessionTimeout:
		refuse(kerr.InvalidSessionTimeout)
	case !g.hasRoom(r.MemberID):
		if m := g.byID[r.MemberID]; m != nil {
			g.remove(m, now, out) // the group shrinks to its limit
		}
		refuse(kerr.GroupMaxSizeReached)
	case g.state == Dead:
		refuse(kerr.CoordinatorNotAvailable)
	case !g.accepts(r.ProtocolType, r.Protocols):
		refuse(kerr.InconsistentGroupProtocol)
	case r.MemberID == "" && r.InstanceID != nil:
		g.joinStatic(now, r, out)
	case r.MemberID == "":
		g.joinNew(now, r, out)
	default:
		g.joinKnown(now, r, out)
	}
	if g.state == PreparingRebalance {
		g.maybeCompleteJoin(now, out)
	}
}

// hasRoom applies group.max.size. In a join phase only those who wait count: the others may
// not come back.
func (g *Group) hasRoom(memberID string) bool {
	m := g.byID[memberID]
	switch g.state {
	case PreparingRebalance:
		return m != nil && m.join != nil || g.waitingJoins() < g.settings.MaxSize
	case CompletingRebalance, Stable:
		return m != nil || len(g.members) < g.settings.MaxSize
	default:
		return true
	}
}

func (g *Group) waitingJoins() (count int) {
	for _, m := range g.members {
		if m.join != nil {
			count++
		}
	}
	return count
}

// accepts checks the protocols: not none, and one in common with all members.
func (g *Group) accepts(protocolType string, protocols []Protocol) bool {
	if protocolType == "" || len(protocols) == 0 {
		return false
	}
	if len(g.members) == 0 {
		return true
	}
	if protocolType != g.protocolType {
		return false
	}
	for i := range protocols {
		if g.allSupport(protocols[i].Name) {
			return true
		}
	}
	return false
}

func (g *Group) allSupport(protocol string) bool {
	for _, m := range g.members {
		if !m.supports(protocol) {
			return false
		}
	}
	return true
}

func (g *Group) joinNew(now time.Time, r *JoinRequest, out *Effects) {
	if !r.RequireKnownMember {
		g.admit(r.NewMemberID, now, r, out)
		return
	}
	g.pending[r.NewMemberID] = now.Add(r.SessionTimeout)
	g.schedule(g.pending[r.NewMemberID])
	out.reply(r.Token, JoinResult{Err: kerr.MemberIDRequired, MemberID: r.NewMemberID})
}

// admit makes a new member and starts a rebalance, or joins the one under way.
func (g *Group) admit(memberID string, now time.Time, r *JoinRequest, out *Effects) {
	m := &member{
		id: memberID, instanceID: r.InstanceID, clientID: r.ClientID, clientHost: r.ClientHost,
		fresh: true,
	}
	if len(g.members) == 0 {
		g.protocolType = r.ProtocolType
	}
	if g.state == PreparingRebalance && g.initial {
		g.newMember = true
	}
	g.add(m)
	g.update(m, r, out)
	m.deadline = now.Add(newMemberJoinTimeout)
	g.schedule(m.deadline)
	g.maybePrepareRebalance(now, out)
}

// update takes over what the member asks for now. A join that still waits is replaced.
func (g *Group) update(m *member, r *JoinRequest, out *Effects) {
	g.answerJoin(m, JoinResult{Err: kerr.RebalanceInProgress}, out)
	m.protocols = r.Protocols
	m.rebalanceTimeout, m.sessionTimeout = r.RebalanceTimeout, r.SessionTimeout
	m.join = &waitingJoin{r.Token}
}

func (g *Group) rejoin(m *member, now time.Time, r *JoinRequest, out *Effects) {
	g.update(m, r, out)
	g.maybePrepareRebalance(now, out)
}

func (g *Group) joinKnown(now time.Time, r *JoinRequest, out *Effects) {
	if _, pending := g.pending[r.MemberID]; pending && r.InstanceID == nil {
		g.admit(r.MemberID, now, r, out)
		return
	}
	if code := g.validateMember(r.MemberID, r.InstanceID); code != nil {
		out.reply(r.Token, JoinResult{Err: code, MemberID: r.MemberID})
		return
	}
	m := g.byID[r.MemberID]
	switch {
	case g.state == PreparingRebalance:
		g.rejoin(m, now, r, out)
	case g.state == CompletingRebalance && m.matches(r.Protocols):
		// The answer to the first request was lost: give it again.
		out.reply(r.Token, g.currentGeneration(m))
	case g.state == CompletingRebalance:
		g.rejoin(m, now, r, out)
	case g.state == Stable && (g.leader == m.id || !m.matches(r.Protocols)):
		g.rejoin(m, now, r, out)
	case g.state == Stable:
		result := g.currentGeneration(m)
		out.reply(r.Token, result)
		g.extendSession(m, now)
	default:
		out.reply(r.Token, JoinResult{Err: kerr.UnknownMemberID, MemberID: r.MemberID})
	}
}

// currentGeneration is the answer to a member for the generation that stands.
func (g *Group) currentGeneration(m *member) JoinResult {
	result := JoinResult{
		MemberID: m.id, Generation: g.generation, ProtocolType: g.protocolType, Protocol: g.protocol, Leader: g.leader,
	}
	if m.id == g.leader {
		result.Members = g.joinMembers()
	}
	return result
}

func (g *Group) joinMembers() []JoinMember {
	members := make([]JoinMember, len(g.members))
	for i, m := range g.members {
		members[i] = JoinMember{MemberID: m.id, InstanceID: m.instanceID, Metadata: m.metadata(g.protocol)}
	}
	return members
}

// joinStatic handles a static member without a member id: the first time, or started again.
func (g *Group) joinStatic(now time.Time, r *JoinRequest, out *Effects) {
	m := g.static[*r.InstanceID]
	if m == nil {
		g.admit(r.NewMemberID, now, r, out)
		return
	}
	oldLeader := g.leader
	before := *m
	g.renameStatic(m, r.NewMemberID, kerr.FencedInstanceID, out)
	switch g.state {
	case Stable:
		m.protocols = r.Protocols
		protocol := g.selectProtocol()
		if protocol != g.protocol {
			g.rejoin(m, now, r, out)
			return
		}
		m.rebalanceTimeout, m.sessionTimeout = r.RebalanceTimeout, r.SessionTimeout
		g.extendSession(m, now)
		g.persistRejoinedStatic(now, m, before, oldLeader, r, out)
	case CompletingRebalance, PreparingRebalance:
		g.extendSession(m, now)
		g.rejoin(m, now, r, out)
	default:
		// A member in an empty or dead group cannot be.
		panic("classic: group " + g.id + " has a static member in state " + g.state.String())
	}
}

// renameStatic gives a static member's place to its new incarnation. The old one is fenced.
func (g *Group) renameStatic(m *member, newID string, code *kerr.Error, out *Effects) {
	g.answerJoin(m, JoinResult{Err: code}, out)
	g.answerSync(m, SyncResult{Err: code}, out)
	oldID := m.id
	delete(g.byID, oldID)
	m.id = newID
	g.byID[newID] = m
	if g.unsynced[oldID] {
		delete(g.unsynced, oldID)
		g.unsynced[newID] = true
	}
	if g.leader == oldID {
		g.leader = newID
	}
}

// persistRejoinedStatic answers a static member that came back into a stable group without
// a rebalance, once its new id is durable. A leader that understands SkipAssignment gets the
// members but must not assign; an older one is told its former id as the leader's, so that
// it takes itself for a follower (KIP-345, KIP-814).
func (g *Group) persistRejoinedStatic(now time.Time, m *member, before member, oldLeader string, r *JoinRequest, out *Effects) {
	memberID, generation := m.id, g.generation
	out.write(Write{
		Records:      []Record{g.metadataRecord(g.assignments())},
		Acknowledged: true,
		complete: func(now time.Time, err error, out *Effects) {
			code := groupWriteError(err)
			if code != nil {
				if g.byID[memberID] == m && g.generation == generation && g.state == Stable {
					g.renameStatic(m, before.id, kerr.UnknownMemberID, out)
					m.protocols, m.rebalanceTimeout, m.sessionTimeout = before.protocols, before.rebalanceTimeout, before.sessionTimeout
				}
				out.reply(r.Token, JoinResult{Err: code, MemberID: r.MemberID})
				return
			}
			switch {
			case g.state == Dead:
				out.reply(r.Token, JoinResult{Err: kerr.NotCoordinator, MemberID: r.MemberID})
				return
			case g.byID[memberID] != m || g.generation != generation:
				out.reply(r.Token, JoinResult{Err: kerr.UnknownMemberID, MemberID: memberID})
				return
			}
			result := JoinResult{
				MemberID: memberID, Generation: generation, ProtocolType: g.protocolType, Protocol: g.protocol, Leader: oldLeader,
			}
			if before.id == oldLeader && r.SkipAssignment {
				result.Leader, result.SkipAssignment, result.Members = memberID, true, g.joinMembers()
			}
			out.reply(r.Token, result)
		},
	})
}

func (g *Group) assignments() map[string][]byte {
	assignments := make(map[string][]byte, len(g.members))
	for _, m := range g.members {
		assignments[m.id] = m.assignment
	}
	return assignments
}

func (g *Group) answerJoin(m *member, result JoinResult, out *Effects) {
	if m.join == nil {
		return
	}
	if result.MemberID == "" {
		result.MemberID = m.id
	}
	out.reply(m.join.token, result)
	m.join = nil
}
