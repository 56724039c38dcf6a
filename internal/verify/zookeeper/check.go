package zookeeper

import (
	"slices"
	"strings"
	"time"

	"understudy/internal/verify"
)

// The rules; docs/verify.md says what each of them means to an operator.
const (
	ruleProtocol        = "protocol"
	ruleLinearizable    = "not-linearizable"
	ruleSessionOrder    = "session-order"
	ruleZxidBack        = "zxid-went-back"
	ruleStaleRead       = "stale-read"
	ruleAppliedTwice    = "applied-twice"
	ruleUnwritten       = "unwritten-value"
	ruleSequenceTwice   = "sequence-doubled"
	ruleSequenceOrder   = "sequence-order"
	ruleSessionReused   = "session-id-reused"
	ruleExpiredEarly    = "session-expired-early"
	ruleEphemeralGone   = "ephemeral-vanished"
	ruleEphemeralGhost  = "ephemeral-ghost"
	ruleEphemeralOwner  = "ephemeral-owner"
	ruleWatchUnset      = "watch-fired-unset"
	ruleWatchMissed     = "watch-missed"
	ruleEventLate       = "event-after-newer-state"
	ruleEventOrder      = "event-order"
	ruleEventSeenBefore = "event-of-seen-change"
)

// Check judges a history. The search for a linearization takes at most bound; what it could
// not decide by then is in the report as undecided.
func Check(h *History, bound time.Duration) *verify.Report {
	report := &verify.Report{}
	x := newIndex(h)
	tally(h, report)
	checkProtocol(h, report)
	checkSessionOrder(h, x, report)
	checkValues(h, x, report)
	checkSequences(h, report)
	checkSessions(x, report)
	checkEphemerals(h, x, report)
	checkWatches(h, x, report)
	checkLinearizable(h, bound, report)
	return report
}

func tally(h *History, report *verify.Report) {
	counts := map[string]int{}
	servers := map[string]bool{}
	for _, entries := range h.Clients {
		for i := range entries {
			counts[entries[i].Kind]++
			servers[entries[i].Server] = true
			if entries[i].Kind == kindOp && entries[i].Outcome == outcomeOpen {
				counts["open"]++
			}
		}
	}
	report.Fact("operations", counts[kindOp])
	report.Fact("of them without a clear answer", counts["open"])
	report.Fact("connections lost or dropped", counts[kindLost])
	report.Fact("sessions found expired", counts[kindExpired])
	report.Fact("watch events", counts[kindEvent])
}

func checkProtocol(h *History, report *verify.Report) {
	for _, entries := range h.Clients {
		for i := range entries {
			if entries[i].Kind == kindProtocol {
				report.Add(ruleProtocol, "session", entries[i].Text, entries[i].String())
			}
		}
	}
}

// The kinds of changes.
const (
	created = "NodeCreated"
	changed = "NodeDataChanged"
	deleted = "NodeDeleted"
)

// change is one that is known to have been made, and when in the order of the ensemble.
type change struct {
	zxid  int64
	kind  string
	entry *Entry
}

// life is what is known of a session.
type life struct {
	id        int64
	first     *Entry
	timeoutMs int64
	answered  []*Entry // operations with a reply, in order
	lastWrite *Entry   // the last one that was applied
	end       *Entry   // closeSession, expired or abandoned; nil: none of them
}

// index is what several checks look up.
type index struct {
	changes  map[string][]change // known ones of each znode, by zxid
	children map[string][]change // known creations and deletions below each znode, by zxid
	removals map[string][]*Entry // operations that may have removed a znode, known or open
	lives    map[int64]*life
	order    []int64          // of the lives, for reports that do not depend on chance
	floor    map[*Entry]int64 // the highest zxid that the session had seen when this reply came, itself included
	reused   []*Entry         // attachments to a session that another client had
}

func newIndex(h *History) *index {
	x := &index{
		changes: map[string][]change{}, children: map[string][]change{}, removals: map[string][]*Entry{},
		lives: map[int64]*life{}, floor: map[*Entry]int64{},
	}
	for _, entries := range h.Clients {
		x.addLives(entries)
	}
	h.each(func(e *Entry) { x.addChanges(e, &e.Request) })
	x.addClosings(h)
	for _, known := range []map[string][]change{x.changes, x.children} {
		for _, list := range known {
			slices.SortFunc(list, func(a, b change) int { return int(a.zxid - b.zxid) })
		}
	}
	return x
}

// addLives follows the sessions of one client.
func (x *index) addLives(entries []Entry) {
	floor := map[int64]int64{}
	for i := range entries {
		e := &entries[i]
		if e.Session == 0 {
			continue
		}
		l := x.lives[e.Session]
		if l == nil {
			l = &life{id: e.Session, first: e}
			x.lives[e.Session] = l
			x.order = append(x.order, e.Session)
		}
		if l.first.Client != e.Client {
			if e.Kind == kindAttached {
				x.reused = append(x.reused, e)
			}
			continue
		}
		switch {
		case e.Kind == kindAttached:
			l.timeoutMs = e.TimeoutMs
		case e.Kind == kindExpired, e.Kind == kindAbandoned, e.Kind == kindOp && e.Name == opClose:
			l.end = e
		}
		if e.Kind != kindOp || e.Return == 0 {
			continue
		}
		floor[e.Session] = max(floor[e.Session], e.Zxid)
		x.floor[e] = floor[e.Session]
		l.answered = append(l.answered, e)
		if e.write() && e.Outcome == outcomeOK {
			l.lastWrite = e
		}
	}
}

func (x *index) addChanges(e *Entry, r *Request) {
	if r.Name == opMulti {
		for i := range r.Ops {
			x.addChanges(e, &r.Ops[i])
		}
		return
	}
	if r.Name == opDelete && (e.Outcome == outcomeOK || e.Outcome == outcomeOpen) {
		x.removals[r.Path] = append(x.removals[r.Path], e)
	}
	if e.Outcome != outcomeOK || e.Zxid <= 0 {
		return
	}
	switch r.Name {
	case opCreate:
		path := r.Path
		if r.Sequential {
			path = e.Created
		}
		x.add(path, change{e.Zxid, created, e})
	case opDelete:
		x.add(r.Path, change{e.Zxid, deleted, e})
	case opSetData:
		x.changes[r.Path] = append(x.changes[r.Path], change{e.Zxid, changed, e})
	}
}

// add enters a creation or deletion.
func (x *index) add(path string, c change) {
	x.changes[path] = append(x.changes[path], c)
	parent := path[:max(0, strings.LastIndexByte(path, '/'))]
	x.children[parent] = append(x.children[parent], c)
}

// addClosings enters the deletions of ephemerals by closeSession, whose zxid the reply tells.
func (x *index) addClosings(h *History) {
	h.each(func(e *Entry) {
		if !e.Ephemeral || e.Outcome != outcomeOK {
			return
		}
		l := x.lives[e.Session]
		if l.end == nil {
			return
		}
		x.removals[e.Path] = append(x.removals[e.Path], l.end)
		if l.end.Kind == kindOp && l.end.Outcome == outcomeOK && l.end.Zxid > e.Zxid {
			x.add(e.Path, change{l.end.Zxid, deleted, l.end})
		}
	})
}

// lastBefore is the last known change up to a zxid.
func lastBefore(changes []change, zxid int64) *change {
	i, _ := slices.BinarySearchFunc(changes, zxid+1, func(c change, target int64) int { return int(c.zxid - target) })
	if i == 0 {
		return nil
	}
	return &changes[i-1]
}

// firstAfter is the first known change after a zxid.
func firstAfter(changes []change, zxid int64) *change {
	i, _ := slices.BinarySearchFunc(changes, zxid+1, func(c change, target int64) int { return int(c.zxid - target) })
	if i == len(changes) {
		return nil
	}
	return &changes[i]
}
