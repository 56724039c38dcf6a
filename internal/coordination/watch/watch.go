// Package watch keeps who is to be told of which change: the watches of the connections of one server.
//
// A Table maps paths to watchers (connections; any comparable type) and back. ZooKeeper keeps two managers, data and
// child, and so does the Table, as bits of one registration: a data and an exists watch of one watcher on one path are
// the same thing, and one change gives a watcher at most one event however many of its registrations match. One-shot
// registrations are consumed by the first event of their manager at their path, also when the event is then withheld
// from the watcher for want of the READ permission: that is the caller's business.
//
// A watch belongs to a connection, not to a session. Watchers of one path are told in the order of their registration.
//
// The Table is not locked: the ensemble member uses it under the tree's lock (registering needs the same lock that a
// read runs under, plus one of its own among readers). The package is deterministic.
package watch

import (
	"strings"

	"understudy/internal/coordination/jute"
)

// Kind is what a registration waits for.
type Kind uint8

// The kinds of watches. Data and Exists are one registration in the data manager.
const (
	None                Kind = 0
	Data                Kind = 1 // getData; Created, DataChanged, Deleted; one-shot
	Exists              Kind = 2 // exists, also of a missing node; as Data
	Child               Kind = 3 // getChildren; ChildrenChanged, Deleted; one-shot
	Persistent          Kind = 4 // all four of the path, until removed
	PersistentRecursive Kind = 5 // Created, DataChanged, Deleted of the path and of everything below, until removed
)

type modes uint8

const (
	modeData modes = 1 << iota
	modeChild
	modePersistent
	modeRecursive
)

var modesOf = [...]modes{
	Data: modeData, Exists: modeData, Child: modeChild, Persistent: modePersistent, PersistentRecursive: modeRecursive,
}

// Table holds the registrations. The zero Table is not usable; see New.
type Table[W comparable] struct {
	paths    map[string]*place[W]
	watchers map[W]*holder[W]
	fires    uint64 // number of the current Fire; a holder stamped with it has been told
	// recursive counts the registrations with modeRecursive: without any, Fire does not look at ancestors.
	recursive int
	dataCount int // registrations in the data manager (persistent and recursive ones included)
	chldCount int // registrations in the child manager (persistent ones included)
}

// place is a watched path and its registrations in the order they came.
type place[W comparable] struct{ first, last *registration[W] }

// holder is a watcher and what it has registered.
type holder[W comparable] struct {
	watcher W
	told    uint64
	byPath  map[string]*registration[W]
}

// registration is one watcher at one path. It exists while it has a mode.
type registration[W comparable] struct {
	path       string
	holder     *holder[W]
	modes      modes
	prev, next *registration[W] // at the same place
}

// New makes an empty Table.
func New[W comparable]() *Table[W] {
	return &Table[W]{paths: map[string]*place[W]{}, watchers: map[W]*holder[W]{}}
}

// Add registers w at path. Adding what is there already changes nothing; different kinds add up.
func (t *Table[W]) Add(kind Kind, path string, w W) {
	if kind == None || int(kind) >= len(modesOf) {
		return
	}
	h := t.watchers[w]
	if h == nil {
		h = &holder[W]{watcher: w, byPath: map[string]*registration[W]{}}
		t.watchers[w] = h
	}
	r := h.byPath[path]
	if r == nil {
		r = t.link(h, path)
	}
	t.setModes(r, r.modes|modesOf[kind])
}

func (t *Table[W]) link(h *holder[W], path string) *registration[W] {
	p := t.paths[path]
	if p == nil {
		path = strings.Clone(path) // the caller's may be a view into a request
		p = &place[W]{}
		t.paths[path] = p
	} else {
		path = p.first.path
	}
	r := &registration[W]{path: path, holder: h, prev: p.last}
	if p.last == nil {
		p.first = r
	} else {
		p.last.next = r
	}
	p.last = r
	h.byPath[path] = r
	return r
}

// setModes changes what r waits for and drops it when that is nothing.
func (t *Table[W]) setModes(r *registration[W], to modes) {
	t.dataCount += count(to&^modeChild) - count(r.modes&^modeChild)
	t.chldCount += count(to&(modeChild|modePersistent)) - count(r.modes&(modeChild|modePersistent))
	t.recursive += count(to&modeRecursive) - count(r.modes&modeRecursive)
	r.modes = to
	if to == 0 {
		t.unlink(r)
	}
}

func count(m modes) int {
	if m != 0 {
		return 1
	}
	return 0
}

func (t *Table[W]) unlink(r *registration[W]) {
	p := t.paths[r.path]
	if r.prev == nil {
		p.first = r.next
	} else {
		r.prev.next = r.next
	}
	if r.next == nil {
		p.last = r.prev
	} else {
		r.next.prev = r.prev
	}
	if p.first == nil {
		delete(t.paths, r.path)
	}
	delete(r.holder.byPath, r.path)
	if len(r.holder.byPath) == 0 {
		delete(t.watchers, r.holder.watcher)
	}
}

// Fire appends to dst the watchers that are to be told of a change at path, each once, in the order in which they are
// to be told, and consumes the one-shot registrations the change meets. The order is ZooKeeper's: watchers of the data
// manager at the path, recursive ones of its ancestors from the nearest up, and for a deleted node then those of the
// child manager that have not been told yet.
//
// A create or delete is two calls: the node's event, then ChildrenChanged of its parent.
func (t *Table[W]) Fire(dst []W, event jute.EventType, path string) []W {
	if len(t.watchers) == 0 {
		return dst
	}
	t.fires++
	switch event {
	case jute.EventCreated, jute.EventDataChanged:
		dst = t.fireAt(dst, path, modeData|modePersistent|modeRecursive)
		return t.fireAbove(dst, path)
	case jute.EventDeleted:
		dst = t.fireAt(dst, path, modeData|modePersistent|modeRecursive)
		dst = t.fireAbove(dst, path)
		return t.fireAt(dst, path, modeChild|modePersistent)
	case jute.EventChildrenChanged:
		return t.fireAt(dst, path, modeChild|modePersistent)
	}
	return dst
}

func (t *Table[W]) fireAt(dst []W, path string, match modes) []W {
	p := t.paths[path]
	if p == nil {
		return dst
	}
	for r := p.first; r != nil; {
		next := r.next // r may be dropped below
		if r.modes&match != 0 {
			dst = t.tell(dst, r.holder)
			if once := match & (modeData | modeChild); r.modes&once != 0 {
				t.setModes(r, r.modes&^once)
			}
		}
		r = next
	}
	return dst
}

// fireAbove tells the recursive watchers of path's ancestors.
func (t *Table[W]) fireAbove(dst []W, path string) []W {
	for t.recursive > 0 && path != "/" && path != "" {
		slash := strings.LastIndexByte(path, '/')
		if slash < 0 {
			break
		}
		path = path[:max(slash, 1)]
		if p := t.paths[path]; p != nil {
			for r := p.first; r != nil; r = r.next {
				if r.modes&modeRecursive != 0 {
					dst = t.tell(dst, r.holder)
				}
			}
		}
	}
	return dst
}

func (t *Table[W]) tell(dst []W, h *holder[W]) []W {
	if h.told == t.fires {
		return dst
	}
	h.told = t.fires
	return append(dst, h.watcher)
}

// typeModes gives the modes a WatcherType of checkWatches and removeWatches means.
func typeModes(which jute.WatcherType) (modes, bool) {
	switch which {
	case jute.WatcherChildren:
		return modeChild, true
	case jute.WatcherData:
		return modeData, true
	case jute.WatcherAny:
		return modeData | modeChild | modePersistent | modeRecursive, true
	case jute.WatcherPersistent:
		return modePersistent, true
	case jute.WatcherPersistentRecursive:
		return modeRecursive, true
	}
	return 0, false
}

// Check answers checkWatches: OK if w has a watch of that type at path, NoWatcher if not, MarshallingError for a type
// that does not exist.
func (t *Table[W]) Check(which jute.WatcherType, path string, w W) jute.Code {
	code, _, _ := t.find(which, path, w)
	return code
}

// Remove answers removeWatches, as Check does, and drops what matched. No event results: the client library makes its
// own.
func (t *Table[W]) Remove(which jute.WatcherType, path string, w W) jute.Code {
	code, r, match := t.find(which, path, w)
	if code == jute.OK {
		t.setModes(r, r.modes&^match)
	}
	return code
}

func (t *Table[W]) find(which jute.WatcherType, path string, w W) (jute.Code, *registration[W], modes) {
	match, known := typeModes(which)
	if !known {
		return jute.MarshallingError, nil, 0
	}
	if h := t.watchers[w]; h != nil {
		if r := h.byPath[path]; r != nil && r.modes&match != 0 {
			return jute.OK, r, match
		}
	}
	return jute.NoWatcher, nil, 0
}

// RemoveAll drops every watch of w: its connection is gone.
func (t *Table[W]) RemoveAll(w W) {
	h := t.watchers[w]
	if h == nil {
		return
	}
	for _, r := range h.byPath { // order does not show: each removal is independent
		t.setModes(r, 0)
	}
}

// AddWatch answers addWatch. ZooKeeper checks neither the ACL nor the path here, only the mode.
func (t *Table[W]) AddWatch(r *jute.AddWatchRequest, w W) jute.Code {
	switch r.Mode {
	case jute.AddWatchPersistent:
		t.Add(Persistent, r.Path, w)
	case jute.AddWatchPersistentRecursive:
		t.Add(PersistentRecursive, r.Path, w)
	default:
		return jute.MarshallingError
	}
	return jute.OK
}

// NodeZxids looks up a node: its mzxid and pzxid, and whether it exists. (*znode.Machine).NodeZxids is one.
type NodeZxids func(path string) (mzxid, pzxid jute.Zxid, exists bool)

// Restore answers setWatches and setWatches2: it registers again the watches of a client that lost its connection, and
// appends to events what the client has missed since r.RelativeZxid. Those events go out before the reply, with zxid
// -1 and without a look at ACLs. A null list is MarshallingError, once the lists before it are dealt with (DataTree.setWatches).
func (t *Table[W]) Restore(events []jute.WatcherEvent, r *jute.SetWatches, w W, node NodeZxids) ([]jute.WatcherEvent, jute.Code) {
	restore := func(kind Kind, paths []string, happened func(path string) (jute.EventType, bool)) bool {
		for _, path := range paths {
			if event, missed := happened(path); missed {
				events = append(events, jute.WatcherEvent{Type: event, State: jute.StateSyncConnected, Path: path})
			} else {
				t.Add(kind, path, w)
			}
		}
		return paths != nil
	}
	nothing := func(string) (jute.EventType, bool) { return 0, false }
	whole := restore(Data, r.Data, func(path string) (jute.EventType, bool) {
		mzxid, _, exists := node(path)
		return deletedOr(jute.EventDataChanged, exists), !exists || mzxid > r.RelativeZxid
	}) && restore(Exists, r.Exist, func(path string) (jute.EventType, bool) {
		_, _, exists := node(path)
		return jute.EventCreated, exists
	}) && restore(Child, r.Child, func(path string) (jute.EventType, bool) {
		_, pzxid, exists := node(path)
		return deletedOr(jute.EventChildrenChanged, exists), !exists || pzxid > r.RelativeZxid
	}) && restore(Persistent, r.Persistent, nothing) && restore(PersistentRecursive, r.PersistentRecursive, nothing)
	if !whole {
		return events, jute.MarshallingError
	}
	return events, jute.OK
}

func deletedOr(event jute.EventType, exists bool) jute.EventType {
	if !exists {
		return jute.EventDeleted
	}
	return event
}

// Count is the number of registrations in both managers, as the watch_count gauge has it.
func (t *Table[W]) Count() int { return t.dataCount + t.chldCount }

// Summary counts what the four-letter word wchs shows: the data manager alone.
type Summary struct{ Watchers, Paths, Watches int }

// Summary counts watchers, paths and watches of the data manager. It walks the whole table.
func (t *Table[W]) Summary() Summary {
	s := Summary{Watches: t.dataCount}
	for _, h := range t.watchers {
		for _, r := range h.byPath {
			if r.modes&^modeChild != 0 {
				s.Watchers++
				break
			}
		}
	}
	for _, p := range t.paths {
		for r := p.first; r != nil; r = r.next {
			if r.modes&^modeChild != 0 {
				s.Paths++
				break
			}
		}
	}
	return s
}

// DataWatches calls visit for every watch of the data manager (wchc, wchp), in no particular order.
func (t *Table[W]) DataWatches(visit func(path string, w W)) {
	for path, p := range t.paths {
		for r := p.first; r != nil; r = r.next {
			if r.modes&^modeChild != 0 {
				visit(path, r.holder.watcher)
			}
		}
	}
}
