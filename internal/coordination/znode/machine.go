package znode

import (
	"math"

	"understudy/internal/coordination/jute"
)

// Machine is the replicated state. See the package comment for who may call what when.
type Machine struct {
	tree       *tree
	acls       aclTable
	sessions   sessionTable
	containers map[nodeID]struct{} // from the nodes' flags
	quotas     map[string]struct{} // paths with a quota; from the nodes below /zookeeper/quota
	origins    map[MemberID]origin
	lastZxid   jute.Zxid
	raftTerm   uint64 // highest one applied

	// What follows is of the request under way, and kept for its memory.
	result     Result
	events     []Event
	operations []operation
	changes    []change
	pending    map[string]view
	replies    []byte // block that replies are cut from
}

// origin is how far the forwarded requests of a member have come.
type origin struct{ incarnation, next uint64 }

// New makes the fresh tree: "/", /zookeeper, /zookeeper/config and /zookeeper/quota, no sessions, zxid 0.
func New() *Machine {
	m := newMachine()
	system := m.tree.insert(rootID, &node{name: "zookeeper", data: []byte{}})
	config := &node{name: "config", data: []byte{}, flags: flagChanged, aversion: -1, acl: m.acls.acquire(jute.ReadOnlyACL)}
	m.tree.insert(system, config)
	m.tree.insert(system, &node{name: "quota", data: []byte{}})
	m.tree.size += int64(len(systemPath) + len(systemConfigPath) + len(systemQuotaPath))
	return m
}

// newMachine makes a machine with nothing but the root.
func newMachine() *Machine {
	return &Machine{
		tree: newTree(), acls: newACLTable(), sessions: newSessionTable(),
		containers: map[nodeID]struct{}{}, quotas: map[string]struct{}{}, origins: map[MemberID]origin{},
		pending: map[string]view{},
	}
}

// Apply performs one log entry and calls emit (if there is one) once per request, in order.
func (m *Machine) Apply(raftTerm uint64, b *Batch, emit func(i int, r *Result)) {
	m.enterTerm(raftTerm)
	for i := range b.Requests {
		r := &b.Requests[i]
		m.result = Result{Session: r.Session, Events: m.events[:0]}
		if m.takeSequence(b, i) {
			m.applyRequest(r, b.TimeMs)
		} else {
			m.result.Skipped = true
		}
		if m.result.Zxid == 0 {
			m.result.Zxid = m.lastZxid
		}
		if emit != nil {
			emit(i, &m.result)
		}
		m.keepEvents()
	}
}

// keepEvents keeps the memory of the events for the next request, unless they were unusually many.
func (m *Machine) keepEvents() {
	clear(m.result.Events)
	m.events = m.result.Events[:0]
	if cap(m.events) > 4*keptOperations {
		m.events = nil
	}
}

func (m *Machine) applyRequest(r *Request, timeMs int64) {
	switch r.Kind {
	case KindOp:
		m.applyOp(r, timeMs)
	case KindCreateSession:
		m.createSession(r)
	case KindReattach:
		m.reattach(r)
	case KindCloseSession:
		m.closeSession(r)
	case KindExpire:
		m.expire(r)
	case KindConnectionLost:
		m.connectionLost(r, timeMs)
	case KindDeleteContainer:
		m.deleteContainer(r.Path)
	default:
		m.result.Skipped, m.result.Code = true, jute.Unimplemented
	}
}

// enterTerm begins a new epoch at the first entry of a higher raft term. As with ZooKeeper's NEWLEADER the last zxid is
// then the epoch's zeroth.
func (m *Machine) enterTerm(raftTerm uint64) {
	if raftTerm > m.raftTerm {
		m.raftTerm = raftTerm
		m.lastZxid = (m.lastZxid>>32 + 1) << 32
	}
}

// takeZxid gives the request under way its zxid. A full counter begins a new epoch.
func (m *Machine) takeZxid() jute.Zxid {
	if uint32(m.lastZxid) == math.MaxUint32 {
		m.lastZxid++ // counter 0 of the next epoch
	}
	m.lastZxid++
	m.result.Zxid = m.lastZxid
	return m.lastZxid
}

// takeSequence reports whether request i of b is the next one of its origin, and if so counts it.
func (m *Machine) takeSequence(b *Batch, i int) bool {
	if b.Origin == 0 {
		return true
	}
	o := m.origins[b.Origin]
	switch {
	case b.Incarnation < o.incarnation:
		return false
	case b.Incarnation > o.incarnation || o.next == 0:
		o = origin{incarnation: b.Incarnation, next: 1}
	}
	sequence := b.FirstSequence + uint64(i)
	taken := sequence == o.next
	if taken {
		o.next++
		m.origins[b.Origin] = o
	}
	return taken
}

// NextSequence is the sequence that Apply waits for from an incarnation of a member: what a member sends again from
// after a change of raft leader. A new incarnation begins at 1. All sequences of an incarnation that is over, because a
// later one has been applied, are behind: that is math.MaxUint64.
func (m *Machine) NextSequence(member MemberID, incarnation uint64) uint64 {
	switch o := m.origins[member]; {
	case incarnation < o.incarnation:
		return math.MaxUint64
	case incarnation > o.incarnation || o.next == 0:
		return 1
	default:
		return o.next
	}
}

// LastZxid is the last zxid given out.
func (m *Machine) LastZxid() jute.Zxid { return m.lastZxid }

// RaftTerm is the highest raft term applied.
func (m *Machine) RaftTerm() uint64 { return m.raftTerm }

func (m *Machine) event(event jute.EventType, path string, acl []jute.ACL) {
	m.result.Events = append(m.result.Events, Event{Type: event, Path: path, Zxid: m.result.Zxid, ACL: acl})
}

// replyBlockBytes is how much memory replies are cut from at a time; a write's reply is most often a Stat.
const replyBlockBytes = 8 << 10

// beginReply gives an empty slice with room for a usual reply; endReply makes what was appended to it the reply.
func (m *Machine) beginReply() []byte {
	if cap(m.replies)-len(m.replies) < 4*jute.StatBytes {
		m.replies = make([]byte, 0, replyBlockBytes)
	}
	return m.replies[len(m.replies):]
}

func (m *Machine) endReply(reply []byte) {
	if len(reply) <= cap(m.replies)-len(m.replies) { // it did not have to move
		m.replies = m.replies[:len(m.replies)+len(reply)]
	}
	m.result.Reply = reply[:len(reply):len(reply)]
}
