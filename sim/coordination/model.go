package coordination

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/znode"
)

// treeModel is the tree as the clients' writes make it, by a model that is as simple as can be
// and shares nothing with package znode. It believes the codes, and knows what follows from them.
type treeModel struct {
	w     *world
	nodes map[string]*modelNode
	due   map[string]int // events that the present request must give
}

type modelNode struct {
	data         string
	version      int32
	owner        jute.SessionID
	zxid         jute.Zxid // of the last change of the data
	czxid, pzxid jute.Zxid // of its creation; of the last change of its children
	creates      int32     // of children
	changes      int32     // of the list of children
}

// childChanged notes the creation or the end of a child.
func (t *treeModel) childChanged(path string, zxid jute.Zxid, created bool) {
	n := t.nodes[parentOf(path)]
	if n == nil {
		return // the root
	}
	n.pzxid = zxid
	n.changes++
	if created {
		n.creates++
	}
}

func (t *treeModel) hasChildren(path string) bool {
	for other := range t.nodes {
		if strings.HasPrefix(other, path+"/") {
			return true
		}
	}
	return false
}

// justify makes sure that a write that was refused had to be.
func (t *treeModel) justify(req *znode.Request, code jute.Code) {
	d := jute.NewDecoder(req.Body)
	right := true
	switch req.Op {
	case jute.OpCreate:
		var create jute.CreateRequest
		create.Decode(&d)
		parent := t.nodes[parentOf(create.Path)]
		switch code {
		case jute.NodeExists:
			right = t.nodes[create.Path] != nil && !create.Flags.Sequential()
		case jute.NoNode:
			right = parent == nil && parentOf(create.Path) != "/"
		case jute.NoChildrenForEphemerals:
			right = parent != nil && parent.owner != 0
		default:
			right = false
		}
	case jute.OpSetData:
		var set jute.SetDataRequest
		set.Decode(&d)
		right = t.versionRefused(set.Path, set.Version, code)
	case jute.OpDelete:
		var del jute.PathVersionRequest
		del.Decode(&d)
		if code == jute.NotEmpty {
			right = t.nodes[del.Path] != nil && t.hasChildren(del.Path)
		} else {
			right = t.versionRefused(del.Path, del.Version, code)
		}
	}
	if !right {
		t.w.fail("tree-model", "%s %q is refused with %v for no reason", req.Op, req.Body, code)
	}
}

func (t *treeModel) versionRefused(path string, version int32, code jute.Code) bool {
	n := t.nodes[path]
	return code == jute.NoNode && n == nil || code == jute.BadVersion && n != nil && version >= 0 && version != n.version
}

func newTreeModel(w *world) *treeModel {
	return &treeModel{w: w, nodes: map[string]*modelNode{}, due: map[string]int{}}
}

// apply follows a request that counts.
func (t *treeModel) apply(req *znode.Request, r *znode.Result) {
	clear(t.due)
	t.change(req, r)
	for _, e := range r.Events {
		t.due[eventName(e.Type, e.Path)]--
	}
	for what, n := range t.due {
		if n != 0 {
			t.w.fail("tree-model", "event %s is given %d times too rarely by %+v %+v", what, n, req, r)
		}
	}
}

func eventName(e jute.EventType, path string) string { return fmt.Sprint(int(e), " ", path) }

// happens notes events that are due.
func (t *treeModel) happens(e jute.EventType, path string) {
	t.due[eventName(e, path)]++
	if e == jute.EventCreated || e == jute.EventDeleted {
		t.due[eventName(jute.EventChildrenChanged, parentOf(path))]++
	}
}

func parentOf(path string) string { return path[:max(strings.LastIndexByte(path, '/'), 1)] }

func (t *treeModel) change(req *znode.Request, r *znode.Result) {
	switch {
	case r.ClosedSession:
		for _, path := range slices.Sorted(maps.Keys(t.nodes)) {
			if t.nodes[path].owner == req.Session {
				t.happens(jute.EventDeleted, path)
				delete(t.nodes, path)
				t.childChanged(path, r.Zxid, false)
			}
		}
		return
	case req.Kind != znode.KindOp || r.SessionMoved || r.Code == jute.SessionExpired:
		return
	case r.Code != jute.OK:
		t.justify(req, r.Code)
		return
	}
	d := jute.NewDecoder(req.Body)
	if req.Op != jute.OpMulti {
		t.one(req, r, req.Op, &d)
		return
	}
	var first jute.MultiHeader
	reply := jute.NewDecoder(r.Reply)
	first.Decode(&reply)
	failed := first.Type == jute.OpError
	if refused := t.refused(d); failed && !refused {
		t.w.fail("tree-model", "multi %q is refused for no reason: %q", req.Body, r.Reply)
	} else if !failed && refused {
		t.w.fail("tree-model", "multi %q succeeds, and one of it must not", req.Body)
	}
	if failed {
		return
	}
	for {
		var h jute.MultiHeader
		h.Decode(&d)
		if h.Done || d.Err() != nil {
			return
		}
		t.one(req, r, h.Type, &d)
	}
}

// refused says whether something in a multi cannot be done after what stands before it.
func (t *treeModel) refused(d jute.Decoder) bool {
	trial := &treeModel{w: t.w, nodes: make(map[string]*modelNode, len(t.nodes))}
	for path, n := range t.nodes {
		same := *n
		trial.nodes[path] = &same
	}
	for {
		var h jute.MultiHeader
		h.Decode(&d)
		if h.Done || d.Err() != nil {
			return false
		}
		if !trial.try(h.Type, &d) {
			return true
		}
	}
}

// try does an operation of a multi if it can be done.
func (t *treeModel) try(op jute.OpCode, d *jute.Decoder) bool {
	if op == jute.OpCreate {
		var create jute.CreateRequest
		create.Decode(d)
		parent := parentOf(create.Path)
		path := t.named(&create)
		if t.nodes[path] != nil || parent != "/" && (t.nodes[parent] == nil || t.nodes[parent].owner != 0) {
			return false
		}
		n := &modelNode{}
		if create.Flags.Ephemeral() {
			n.owner = 1
		}
		t.nodes[path] = n
		t.childChanged(path, 0, true)
		return true
	}
	var path string
	var version int32
	if op == jute.OpSetData {
		var set jute.SetDataRequest
		set.Decode(d)
		path, version = set.Path, set.Version
	} else {
		var r jute.PathVersionRequest
		r.Decode(d)
		path, version = r.Path, r.Version
	}
	n := t.nodes[path]
	if n == nil || version >= 0 && version != n.version || op == jute.OpDelete && t.hasChildren(path) {
		return false
	}
	switch op {
	case jute.OpSetData:
		n.version++
	case jute.OpDelete:
		delete(t.nodes, path)
	}
	return true
}

// named is the path of the node that a create makes: a sequential one's ends with the number of
// creates in its parent so far (PrepRequestProcessor).
func (t *treeModel) named(create *jute.CreateRequest) string {
	if n := t.nodes[parentOf(create.Path)]; create.Flags.Sequential() && n != nil {
		return fmt.Sprintf("%s%010d", create.Path, n.creates)
	}
	return create.Path
}

func (t *treeModel) one(req *znode.Request, r *znode.Result, op jute.OpCode, d *jute.Decoder) {
	switch op {
	case jute.OpCreate:
		var create jute.CreateRequest
		create.Decode(d)
		path := t.named(&create)
		if create.Flags.Sequential() && req.Op != jute.OpMulti {
			var made jute.PathResponse
			reply := jute.NewDecoder(r.Reply)
			made.Decode(&reply)
			if made.Path != path {
				t.w.fail("tree-model", "create of %s sequential made %s instead of %s", create.Path, made.Path, path)
			}
		}
		parent := parentOf(path)
		if t.nodes[path] != nil || parent != "/" && (t.nodes[parent] == nil || t.nodes[parent].owner != 0) {
			t.w.fail("tree-model", "create of %s succeeds, its parent is %+v and it was %+v", path, t.nodes[parent], t.nodes[path])
		}
		n := &modelNode{data: string(create.Data), zxid: r.Zxid, czxid: r.Zxid, pzxid: r.Zxid}
		if create.Flags.Ephemeral() {
			n.owner = req.Session
		}
		t.nodes[path] = n
		t.childChanged(path, r.Zxid, true)
		t.happens(jute.EventCreated, path)
	case jute.OpCheck:
		var check jute.PathVersionRequest
		check.Decode(d)
	case jute.OpSetData:
		var set jute.SetDataRequest
		set.Decode(d)
		n := t.nodes[set.Path]
		if n == nil || set.Version >= 0 && set.Version != n.version {
			t.w.fail("tree-model", "setData of %s with version %d succeeds, it was %+v", set.Path, set.Version, n)
		}
		n.data, n.zxid = string(set.Data), r.Zxid
		n.version++
		t.happens(jute.EventDataChanged, set.Path)
	case jute.OpDelete:
		var del jute.PathVersionRequest
		del.Decode(d)
		n := t.nodes[del.Path]
		if n == nil || del.Version >= 0 && del.Version != n.version {
			t.w.fail("tree-model", "delete of %s with version %d succeeds, it was %+v", del.Path, del.Version, n)
		}
		if t.hasChildren(del.Path) {
			t.w.fail("tree-model", "delete of %s succeeds, and it has children", del.Path)
		}
		delete(t.nodes, del.Path)
		t.childChanged(del.Path, r.Zxid, false)
		t.happens(jute.EventDeleted, del.Path)
	}
}

// compare holds the whole tree against the model.
func (t *treeModel) compare(m *znode.Machine) {
	paths := []string{}
	var walk func(path string)
	walk = func(path string) {
		names, _ := m.Children(path)
		for _, name := range names {
			child := strings.TrimSuffix(path, "/") + "/" + name
			if child == "/zookeeper" {
				continue
			}
			paths = append(paths, child)
			walk(child)
		}
	}
	walk("/")
	slices.Sort(paths)
	if want := slices.Sorted(maps.Keys(t.nodes)); !slices.Equal(paths, want) {
		t.w.fail("tree-model", "the tree has %v, the writes make %v", paths, want)
	}
	for _, path := range paths {
		data, stat, _ := m.GetData(path)
		got := modelNode{
			data: string(data), version: stat.Version, owner: stat.EphemeralOwner, zxid: stat.Mzxid,
			czxid: stat.Czxid, pzxid: stat.Pzxid, creates: t.nodes[path].creates, changes: stat.Cversion,
		}
		if got != *t.nodes[path] {
			t.w.fail("tree-model", "%s is %s, the writes make %s", path, fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", *t.nodes[path]))
		}
	}
}
