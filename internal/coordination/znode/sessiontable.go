package znode

import (
	"slices"

	"understudy/internal/coordination/jute"
)

// session is one value of a session's replicated state. It is replaced, never changed: a freeze shares it.
type session struct {
	id         jute.SessionID
	timeoutMs  int32
	graceMs    int32
	password   []byte
	owner      MemberID
	generation uint64
	lost       bool
	lostAtMs   int64
}

// sessionTable holds the sessions and which ephemerals are theirs.
type sessionTable struct {
	slots      []*session // nil is free
	at         map[jute.SessionID]int
	free       []int
	ephemerals map[jute.SessionID]map[nodeID]struct{} // from the nodes' owners; no entry for none
	count      int                                    // of ephemerals
}

func newSessionTable() sessionTable {
	return sessionTable{at: map[jute.SessionID]int{}, ephemerals: map[jute.SessionID]map[nodeID]struct{}{}}
}

func (t *sessionTable) get(id jute.SessionID) *session {
	if at, has := t.at[id]; has {
		return t.slots[at]
	}
	return nil
}

// put adds a session or replaces its value.
func (t *sessionTable) put(s *session) {
	if at, has := t.at[s.id]; has {
		t.slots[at] = s
		return
	}
	at := len(t.slots)
	if n := len(t.free); n > 0 {
		at, t.free = t.free[n-1], t.free[:n-1]
		t.slots[at] = s
	} else {
		t.slots = append(t.slots, s)
	}
	t.at[s.id] = at
}

func (t *sessionTable) remove(id jute.SessionID) {
	at := t.at[id]
	t.slots[at] = nil
	t.free = append(t.free, at)
	delete(t.at, id)
}

func (t *sessionTable) addEphemeral(owner jute.SessionID, id nodeID) {
	set := t.ephemerals[owner]
	if set == nil {
		set = map[nodeID]struct{}{}
		t.ephemerals[owner] = set
	}
	set[id] = struct{}{}
	t.count++
}

func (t *sessionTable) removeEphemeral(owner jute.SessionID, id nodeID) {
	set := t.ephemerals[owner]
	delete(set, id)
	t.count--
	if len(set) == 0 {
		delete(t.ephemerals, owner)
	}
}

// freeze gives the present values in no particular order, with nil for free slots.
func (t *sessionTable) freeze() []*session { return append([]*session(nil), t.slots...) }

// sortSessions brings what freeze gave into the order of ids.
func sortSessions(slots []*session) []*session {
	slots = slices.DeleteFunc(slots, func(s *session) bool { return s == nil })
	slices.SortFunc(slots, func(a, b *session) int {
		switch {
		case a.id < b.id:
			return -1
		case a.id > b.id:
			return 1
		}
		return 0
	})
	return slots
}
