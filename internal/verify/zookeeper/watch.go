package zookeeper

import (
	"fmt"

	"understudy/internal/verify"
)

// registration is a one-shot watch that a session has set.
type registration struct {
	entry  *Entry
	path   string
	seen   int64 // the zxid up to which the reading that set it has shown changes
	absent bool  // it was set on a znode that did not exist
	// carried: the connection was lost since. The new server tells of a change by comparing
	// states; one that was made and undone meanwhile it cannot see.
	carried bool
	// reported: the event did not come in time, which is in the report.
	reported bool
}

// watcher follows one client's watches.
type watcher struct {
	x         *index
	report    *verify.Report
	data      map[string]*registration // getData and exists share one table, as on the server
	child     map[string]*registration
	floor     *Entry // the reply with the session's highest zxid
	lastEvent *Entry // the last event that told its zxid
	restoring bool   // the events until setWatches is answered come in no order
}

// checkWatches demands of each session: a watch fires at the first change and once; its event
// comes before any reply that shows a state as new as the change; events come in the order of
// the changes.
func checkWatches(h *History, x *index, report *verify.Report) {
	for _, entries := range h.Clients {
		w := &watcher{x: x, report: report}
		w.forget()
		for i := range entries {
			w.follow(&entries[i])
		}
	}
}

func (w *watcher) forget() {
	w.data, w.child = map[string]*registration{}, map[string]*registration{}
	w.floor, w.lastEvent, w.restoring = nil, nil, false
}

func (w *watcher) follow(e *Entry) {
	switch e.Kind {
	case kindExpired, kindAbandoned:
		w.forget()
	case kindLost:
		for _, table := range []map[string]*registration{w.data, w.child} {
			for _, r := range table {
				r.carried = true
			}
		}
	case kindAttached:
		w.restoring = len(w.data)+len(w.child) > 0
	case kindRestored:
		w.restoring = false
	case kindEvent:
		w.event(e)
	case kindOp:
		if e.Name == opClose {
			w.forget()
		} else if e.Return != 0 {
			w.reply(e)
		}
	}
}

// reply checks that all events up to a reply's zxid have come, and notes the watch it sets.
func (w *watcher) reply(e *Entry) {
	if w.floor == nil || e.Zxid > w.floor.Zxid {
		w.floor = e
	}
	for _, r := range w.data {
		w.overdue(r, w.x.changes[r.path], e)
	}
	for _, r := range w.child {
		w.overdue(r, w.x.children[r.path], e)
	}
	if !e.Watch {
		return
	}
	switch {
	case e.Outcome == outcomeOK && e.Name == opChildren:
		w.child[e.Path] = &registration{entry: e, path: e.Path, seen: e.Stat.Pzxid}
	case e.Outcome == outcomeOK:
		w.data[e.Path] = &registration{entry: e, path: e.Path, seen: e.Stat.Mzxid}
	case e.Outcome == outcomeNoNode && e.Name == opExists:
		w.data[e.Path] = &registration{entry: e, path: e.Path, seen: e.Zxid, absent: true}
	}
}

func (w *watcher) overdue(r *registration, changes []change, e *Entry) {
	if r.reported || r.absent && r.carried {
		return
	}
	missed := firstAfter(changes, r.seen)
	if missed == nil || missed.zxid > e.Zxid {
		return
	}
	r.reported = true
	w.report.Add(ruleWatchMissed, r.path, fmt.Sprintf("a watch had not fired for the change of zxid 0x%x when a reply with zxid 0x%x came", missed.zxid, e.Zxid), r.entry.String(), missed.entry.String(), e.String())
}

func (w *watcher) event(e *Entry) {
	var fired []*registration
	take := func(table map[string]*registration) {
		if r := table[e.Path]; r != nil {
			fired = append(fired, r)
			delete(table, e.Path)
		}
	}
	if e.Event != childrenChanged {
		take(w.data)
	}
	if e.Event == childrenChanged || e.Event == deleted {
		take(w.child)
	}
	if len(fired) == 0 {
		w.report.Add(ruleWatchUnset, e.Path, "an event for a watch that was not set, or had fired already", e.String())
	}
	if e.Zxid == 0 || w.restoring {
		return // the server does not tell, or tells what it has found by comparing
	}
	for _, r := range fired {
		w.firstChange(r, e)
	}
	if w.lastEvent != nil && e.Zxid < w.lastEvent.Zxid {
		w.report.Add(ruleEventOrder, e.Path, "an event of an earlier change came after one of a later", w.lastEvent.String(), e.String())
	}
	w.lastEvent = e
}

const childrenChanged = "NodeChildrenChanged"

// firstChange checks that an event is of the first change after the reading that set the
// watch, and came before its like was shown.
func (w *watcher) firstChange(r *registration, e *Entry) {
	if r.reported {
		return
	}
	changes := w.x.changes[r.path]
	if e.Event == childrenChanged {
		changes = w.x.children[r.path]
	}
	first := firstAfter(changes, r.seen)
	switch {
	case e.Zxid <= r.seen:
		w.report.Add(ruleEventSeenBefore, e.Path, "an event tells of a change that the reading which set the watch had shown", r.entry.String(), e.String())
	case first != nil && first.zxid < e.Zxid && !(r.absent && r.carried):
		w.report.Add(ruleWatchMissed, e.Path, fmt.Sprintf("an event is not of the first change, which has zxid 0x%x", first.zxid), r.entry.String(), first.entry.String(), e.String())
	case w.floor != nil && e.Zxid <= w.floor.Zxid:
		w.report.Add(ruleEventLate, e.Path, "an event came after a reply of the same session that was as new as the change", r.entry.String(), w.floor.String(), e.String())
	}
}
