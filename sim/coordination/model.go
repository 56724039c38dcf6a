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
	data    string
	version int32
	owner   jute.SessionID
	zxid    jute.Zxid
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
			}
		}
		return
	case req.Kind != znode.KindOp || r.SessionMoved || r.Code != jute.OK:
		return
	}
	d := jute.NewDecoder(req.Body)
	if req.Op != jute.OpMulti {
		t.one(req, r, req.Op, &d)
		return
	}
	if len(r.Events) == 0 {
		return // it failed
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

func (t *treeModel) one(req *znode.Request, r *znode.Result, op jute.OpCode, d *jute.Decoder) {
	switch op {
	case jute.OpCreate:
		var create jute.CreateRequest
		create.Decode(d)
		path := create.Path
		if create.Flags.Sequential() {
			var made jute.PathResponse
			reply := jute.NewDecoder(r.Reply)
			made.Decode(&reply)
			if !strings.HasPrefix(made.Path, path) || len(made.Path) != len(path)+10 {
				t.w.fail("tree-model", "create of %s sequential made %s", path, made.Path)
			}
			path = made.Path
		}
		parent := parentOf(path)
		if t.nodes[path] != nil || parent != "/" && t.nodes[parent] == nil {
			t.w.fail("tree-model", "create of %s succeeds, its parent is %+v and it was %+v", path, t.nodes[parent], t.nodes[path])
		}
		n := &modelNode{data: string(create.Data), zxid: r.Zxid}
		if create.Flags.Ephemeral() {
			n.owner = req.Session
		}
		t.nodes[path] = n
		t.happens(jute.EventCreated, path)
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
		delete(t.nodes, del.Path)
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
		got := modelNode{string(data), stat.Version, stat.EphemeralOwner, stat.Mzxid}
		if got != *t.nodes[path] {
			t.w.fail("tree-model", "%s is %s, the writes make %s", path, fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", *t.nodes[path]))
		}
	}
}
