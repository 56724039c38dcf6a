package zkclient

import "understudy/internal/coordination/jute"

// watchList is one of the three lists that setWatches carries.
type watchList int

const (
	dataWatches  watchList = iota // on a node that existed
	existWatches                  // on a node that did not
	childWatches
	watchLists
)

// setWatchesBytesMax is where Java's client cuts setWatches into another packet.
const setWatchesBytesMax = 128 << 10

// watchSet remembers the one-shot watches that servers hold for this client, by the
// server's full path, to set them again on another connection.
type watchSet struct {
	lists [watchLists]map[string]struct{}
}

func (w *watchSet) init() {
	for i := range w.lists {
		w.lists[i] = make(map[string]struct{})
	}
}

// answered notes the watch that a read left behind: a failed getData or getChildren
// leaves none, exists on a missing node does.
func (w *watchSet) answered(op *Op, chroot string, code jute.Code) {
	if !op.Watch {
		return
	}
	list := dataWatches
	switch op.Code {
	case jute.OpExists:
		if code == jute.NoNode {
			list, code = existWatches, jute.OK
		}
	case jute.OpGetData:
	case jute.OpGetChildren2:
		list = childWatches
	default:
		return
	}
	if code == jute.OK {
		w.lists[list][fullPath(chroot, op.Path)] = struct{}{}
	}
}

// fired forgets the watches that an event used up.
func (w *watchSet) fired(t EventType, path string) {
	switch t {
	case NodeCreated, NodeDataChanged:
		delete(w.lists[dataWatches], path)
		delete(w.lists[existWatches], path)
	case NodeChildrenChanged:
		delete(w.lists[childWatches], path)
	case NodeDeleted:
		for i := range w.lists {
			delete(w.lists[i], path)
		}
	}
}

// restore makes the requests that set everything again on a new connection; the server
// answers at once with events for what changed after lastZxid.
func (w *watchSet) restore(lastZxid jute.Zxid) []*call {
	var calls []*call
	var request *jute.SetWatches
	bytes := 0
	for i := range w.lists {
		for path := range w.lists[i] {
			if request == nil || bytes+len(path) > setWatchesBytesMax {
				// Null lists are not what Java's client sends, nor what every server takes.
				request = &jute.SetWatches{RelativeZxid: lastZxid, Data: []string{}, Exist: []string{}, Child: []string{}}
				calls = append(calls, &call{xid: jute.XidSetWatches, watches: request})
				bytes = 0
			}
			list := [watchLists]*[]string{&request.Data, &request.Exist, &request.Child}[i]
			*list = append(*list, path)
			bytes += 4 + len(path)
		}
	}
	return calls
}
