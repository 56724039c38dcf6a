package classic

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// minimumRetry keeps a group of absent static members from trying to complete its join phase
// without pause, should they have asked for no rebalance timeout at all.
const minimumRetry = time.Second

func (g *Group) maybePrepareRebalance(now time.Time, out *Effects) {
	switch g.state {
	case Empty, CompletingRebalance, Stable:
		g.prepareRebalance(now, out)
	}
}

// prepareRebalance starts a join phase.
func (g *Group) prepareRebalance(now time.Time, out *Effects) {
	if g.state == CompletingRebalance {
		g.failSyncs(kerr.RebalanceInProgress, now, out)
	}
	g.endSyncPhase()
	g.initial, g.newMember = g.state == Empty, false
	if g.initial {
		// The members of a new group arrive one by one: wait a little for the others.
		g.joinDeadline = now.Add(g.settings.InitialRebalanceDelay)
		g.extension = max(g.rebalanceTimeout()-g.settings.InitialRebalanceDelay, 0)
	} else {
		g.joinDeadline = now.Add(g.rebalanceTimeout())
	}
	g.transition(PreparingRebalance, now)
	g.schedule(g.joinDeadline)
	g.maybeCompleteJoin(now, out)
}

// rebalanceTimeout is the longest that a member asked for.
func (g *Group) rebalanceTimeout() (longest time.Duration) {
	for _, m := range g.members {
		longest = max(longest, m.rebalanceTimeout)
	}
	return longest
}

// maybeCompleteJoin ends the join phase if everybody is there. The initial delay runs its
// course (unless it is none).
func (g *Group) maybeCompleteJoin(now time.Time, out *Effects) {
	if g.state != PreparingRebalance {
		return
	}
	if g.initial {
		if due(g.joinDeadline, now) {
			g.joinPhaseOver(now, out)
		}
		return
	}
	if g.waitingJoins() == len(g.members) && len(g.pending) == 0 {
		g.completeJoin(now, out)
	}
}

// joinPhaseOver is called at the join phase's deadline.
func (g *Group) joinPhaseOver(now time.Time, out *Effects) {
	if g.initial && g.newMember && g.extension > 0 {
		g.newMember = false
		delay := min(g.settings.InitialRebalanceDelay, g.extension)
		g.extension -= delay
		g.joinDeadline = now.Add(delay)
		g.schedule(g.joinDeadline)
		return
	}
	g.completeJoin(now, out)
}

// completeJoin begins a generation with those who came.
func (g *Group) completeJoin(now time.Time, out *Effects) {
	g.initial = false
	for i := 0; i < len(g.members); {
		if m := g.members[i]; m.join == nil && m.instanceID == nil {
			g.drop(m, kerr.UnknownMemberID, out)
		} else {
			i++
		}
	}
	if len(g.members) > 0 && !g.electLeader() {
		// Only static members are left, and none has come: their sessions decide.
		g.joinDeadline = now.Add(max(g.rebalanceTimeout(), minimumRetry))
		g.schedule(g.joinDeadline)
		return
	}
	g.generation++
	g.joinDeadline = time.Time{}
	if len(g.members) == 0 {
		g.becomeEmpty(now, out)
		return
	}
	g.protocol = g.selectProtocol()
	g.transition(CompletingRebalance, now)
	g.syncDeadline = now.Add(g.rebalanceTimeout())
	g.schedule(g.syncDeadline)
	for _, m := range g.members {
		g.unsynced[m.id] = true
		m.fresh = false
		g.answerJoin(m, g.currentGeneration(m), out)
		g.extendSession(m, now)
	}
}

// becomeEmpty persists that the group has no members; a failure is made good by the next
// change, or by the next coordinator's timers.
func (g *Group) becomeEmpty(now time.Time, out *Effects) {
	g.protocol, g.leader = "", ""
	g.transition(Empty, now)
	out.write(Write{Records: []Record{g.metadataRecord(nil)}, Acknowledged: true})
}

// electLeader makes sure that the leader is one who came; false if nobody came.
func (g *Group) electLeader() bool {
	if leader := g.byID[g.leader]; leader != nil && leader.join != nil {
		return true
	}
	for _, m := range g.members {
		if m.join != nil {
			g.leader = m.id
			return true
		}
	}
	return false
}

// selectProtocol lets each member vote for the first of its protocols that all support. The
// earliest in the first member's order wins a tie.
func (g *Group) selectProtocol() string {
	votes := map[string]int{}
	for _, m := range g.members {
		for i := range m.protocols {
			if g.allSupport(m.protocols[i].Name) {
				votes[m.protocols[i].Name]++
				break
			}
		}
	}
	best, bestVotes := "", 0
	for _, m := range g.members {
		for i := range m.protocols {
			if count := votes[m.protocols[i].Name]; count > bestVotes {
				best, bestVotes = m.protocols[i].Name, count
			}
		}
	}
	return best
}

// SyncRequest asks for the member's assignment; the leader's brings everybody's.
type SyncRequest struct {
	Token        Token
	MemberID     string
	InstanceID   *string
	Generation   int32
	ProtocolType *string // nil: not given
	Protocol     *string // nil: not given
	Assignments  map[string][]byte
}

// SyncResult answers a SyncRequest.
type SyncResult struct {
	Err          *kerr.Error
	ProtocolType string
	Protocol     string
	Assignment   []byte
}

// Sync handles a SyncRequest.
func (g *Group) Sync(now time.Time, r *SyncRequest, out *Effects) {
	if code := g.checkSync(r); code != nil {
		out.reply(r.Token, SyncResult{Err: code})
		return
	}
	m := g.byID[r.MemberID]
	g.synced(m)
	if g.state == Stable {
		out.reply(r.Token, g.assignmentOf(m))
		g.extendSession(m, now)
		return
	}
	g.answerSync(m, SyncResult{Err: kerr.RebalanceInProgress}, out)
	m.sync = r.Token
	if g.leader == m.id {
		g.persistAssignment(r.Assignments, out)
	}
}

func (g *Group) checkSync(r *SyncRequest) *kerr.Error {
	if g.state == Dead {
		return kerr.CoordinatorNotAvailable
	}
	if code := g.validateMember(r.MemberID, r.InstanceID); code != nil {
		return code
	}
	switch {
	case r.Generation != g.generation:
		return kerr.IllegalGeneration
	case r.ProtocolType != nil && *r.ProtocolType != g.protocolType,
		r.Protocol != nil && *r.Protocol != g.protocol:
		return kerr.InconsistentGroupProtocol
	case g.state == Empty:
		return kerr.UnknownMemberID
	case g.state == PreparingRebalance:
		return kerr.RebalanceInProgress
	}
	return nil
}

// persistAssignment writes the leader's assignment; the group is stable once it is durable,
// unless another rebalance has begun meanwhile.
func (g *Group) persistAssignment(assignments map[string][]byte, out *Effects) {
	generation := g.generation
	out.write(Write{
		Records:      []Record{g.metadataRecord(assignments)},
		Acknowledged: true,
		complete: func(now time.Time, err error, out *Effects) {
			if g.state != CompletingRebalance || g.generation != generation {
				return
			}
			if code := groupWriteError(err); code != nil {
				g.failSyncs(code, now, out)
				g.prepareRebalance(now, out)
				return
			}
			for _, m := range g.members {
				m.assignment = assignments[m.id]
				if m.sync != nil {
					g.answerSync(m, g.assignmentOf(m), out)
					g.extendSession(m, now)
				}
			}
			g.transition(Stable, now)
		},
	})
}

func (g *Group) assignmentOf(m *member) SyncResult {
	return SyncResult{ProtocolType: g.protocolType, Protocol: g.protocol, Assignment: m.assignment}
}

// synced notes that a member has sent its Sync; when all have, nothing is left to wait for.
func (g *Group) synced(m *member) {
	delete(g.unsynced, m.id)
	if len(g.unsynced) == 0 {
		g.syncDeadline = time.Time{}
	}
}

func (g *Group) endSyncPhase() {
	g.syncDeadline = time.Time{}
	clear(g.unsynced)
}

// syncPhaseOver removes those who joined and never asked for their assignment.
func (g *Group) syncPhaseOver(now time.Time, out *Effects) {
	for i := 0; i < len(g.members); {
		if m := g.members[i]; g.unsynced[m.id] {
			g.drop(m, kerr.UnknownMemberID, out)
		} else {
			i++
		}
	}
	g.prepareRebalance(now, out)
}

// failSyncs answers all waiting Syncs with an error and forgets the assignments.
func (g *Group) failSyncs(code *kerr.Error, now time.Time, out *Effects) {
	for _, m := range g.members {
		m.assignment = nil
		if m.sync != nil {
			g.answerSync(m, SyncResult{Err: code}, out)
			g.extendSession(m, now)
		}
	}
}

func (g *Group) answerSync(m *member, result SyncResult, out *Effects) {
	if m.sync == nil {
		return
	}
	out.reply(m.sync, result)
	m.sync = nil
}
