package znode

import (
	"bytes"
	"slices"
	"strings"

	"understudy/internal/coordination/jute"
)

// createSession makes a session with the id that the proposer chose. Ids are unique; one that is taken is a fault of
// the proposer, and refused.
func (m *Machine) createSession(r *Request) {
	if r.Session == 0 || m.sessions.get(r.Session) != nil {
		m.result.Code = jute.SystemError
		return
	}
	m.takeZxid()
	m.storeSession(&session{
		id: r.Session, timeoutMs: r.TimeoutMs, graceMs: r.GraceMs, password: bytes.Clone(r.Password),
		owner: r.Owner, generation: 1,
	})
}

// reattach is the log entry that orders a client's coming back against its expiry. It takes no zxid.
func (m *Machine) reattach(r *Request) {
	before := m.sessions.get(r.Session)
	if before == nil || !bytes.Equal(before.password, r.Password) {
		m.result.Code = jute.SessionExpired
		return
	}
	m.storeSession(&session{
		id: r.Session, timeoutMs: r.TimeoutMs, graceMs: r.GraceMs, password: before.password,
		owner: r.Owner, generation: before.generation + 1,
	})
}

func (m *Machine) storeSession(s *session) {
	m.sessions.put(s)
	m.result.Generation, m.result.TimeoutMs, m.result.GraceMs = s.generation, s.timeoutMs, s.graceMs
	m.result.Owner, m.result.Password = s.owner, s.password
}

func (m *Machine) closeSession(r *Request) {
	if m.ownedSession(r) {
		m.endSession(m.sessions.get(r.Session))
	}
}

func (m *Machine) expire(r *Request) {
	s := m.sessions.get(r.Session)
	if s == nil || s.generation != r.Generation {
		m.result.Skipped = true
		return
	}
	m.endSession(s)
}

// endSession removes a session and its ephemerals, in the order of their paths and under one zxid. No ACL is asked.
func (m *Machine) endSession(s *session) {
	m.takeZxid()
	type ephemeral struct {
		path string
		id   nodeID
	}
	var gone []ephemeral
	for id := range m.sessions.ephemerals[s.id] {
		gone = append(gone, ephemeral{m.tree.path(id), id})
	}
	slices.SortFunc(gone, func(a, b ephemeral) int { return strings.Compare(a.path, b.path) })
	for _, e := range gone {
		m.performDelete(e.id, e.path)
	}
	m.sessions.remove(s.id)
	m.result.ClosedSession = true
	m.result.Generation, m.result.Owner = s.generation, s.owner
	m.result.TimeoutMs, m.result.GraceMs = s.timeoutMs, s.graceMs
}

// connectionLost is a state of the session until it is re-attached. It takes no zxid.
func (m *Machine) connectionLost(r *Request, timeMs int64) {
	before := m.sessions.get(r.Session)
	if before == nil || before.generation != r.Generation || before.lost {
		m.result.Skipped = true
		return
	}
	after := *before
	after.lost, after.lostAtMs = true, timeMs
	m.storeSession(&after)
}

// deleteContainer removes a container that is still as the reaper saw it. One that is not takes no zxid.
func (m *Machine) deleteContainer(path string) {
	id := m.tree.lookup(path)
	if id == 0 || !ValidPath(path) || !m.reapable(id) {
		m.result.Skipped = true
		return
	}
	m.takeZxid()
	m.performDelete(id, path)
}

// reapable reports whether a node is a container that had children and has none.
func (m *Machine) reapable(id nodeID) bool {
	n := m.tree.node(id)
	return n.flags&flagContainer != 0 && n.numChildren == 0 && n.counter > 0
}

// ReapCandidates lists at most limit containers that were used and are empty now, sorted by path. The time is for nodes
// with a time to live, which are not enabled.
func (m *Machine) ReapCandidates(_ int64, limit int) []string {
	var paths []string
	for id := range m.containers {
		if m.reapable(id) {
			paths = append(paths, m.tree.path(id))
		}
	}
	slices.Sort(paths)
	return paths[:min(len(paths), max(limit, 0))]
}
