package watch

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"understudy/internal/coordination/jute"
)

func TestFire(t *testing.T) {
	type add struct {
		kind Kind
		path string
		w    int
	}
	for _, c := range []struct {
		name  string
		adds  []add
		event jute.EventType
		path  string
		want  []int
		left  int // registrations, as the gauge counts them
	}{
		{"data watch is told of a change once", []add{{Data, "/a", 1}}, jute.EventDataChanged, "/a", []int{1}, 0},
		{"data and exists are one", []add{{Data, "/a", 1}, {Exists, "/a", 1}}, jute.EventDataChanged, "/a", []int{1}, 0},
		{"exists watch waits for a create", []add{{Exists, "/a", 1}}, jute.EventCreated, "/a", []int{1}, 0},
		{"data watch does not see children", []add{{Data, "/a", 1}}, jute.EventChildrenChanged, "/a", nil, 1},
		{"child watch does not see data", []add{{Child, "/a", 1}}, jute.EventDataChanged, "/a", nil, 1},
		{"child watch sees children", []add{{Child, "/a", 1}}, jute.EventChildrenChanged, "/a", []int{1}, 0},
		{"delete: data manager first, each once, both consumed",
			[]add{{Child, "/a", 2}, {Child, "/a", 1}, {Data, "/a", 1}}, jute.EventDeleted, "/a", []int{1, 2}, 0},
		{"another path", []add{{Data, "/a", 1}}, jute.EventDataChanged, "/ab", nil, 1},
		{"persistent stays", []add{{Persistent, "/a", 1}}, jute.EventChildrenChanged, "/a", []int{1}, 2},
		{"persistent is not recursive", []add{{Persistent, "/a", 1}}, jute.EventDataChanged, "/a/b", nil, 2},
		{"persistent and data: one event, data consumed", []add{{Persistent, "/a", 1}, {Data, "/a", 1}},
			jute.EventDeleted, "/a", []int{1}, 2},
		{"recursive sees below", []add{{PersistentRecursive, "/a", 1}}, jute.EventCreated, "/a/b/c", []int{1}, 1},
		{"recursive sees itself", []add{{PersistentRecursive, "/a", 1}}, jute.EventDeleted, "/a", []int{1}, 1},
		{"recursive does not see children changed", []add{{PersistentRecursive, "/a", 1}}, jute.EventChildrenChanged, "/a", nil, 1},
		{"recursive at the root", []add{{PersistentRecursive, "/", 1}}, jute.EventDataChanged, "/x", []int{1}, 1},
		{"recursive does not match a prefix of a name", []add{{PersistentRecursive, "/a", 1}}, jute.EventCreated, "/ab", nil, 1},
		{"nearest ancestor first, each once", []add{{PersistentRecursive, "/", 3}, {PersistentRecursive, "/a", 1},
			{PersistentRecursive, "/", 1}, {Data, "/a/b", 2}, {Data, "/a/b", 1}},
			jute.EventDataChanged, "/a/b", []int{2, 1, 3}, 3},
	} {
		table := New[int]()
		for _, a := range c.adds {
			table.Add(a.kind, a.path, a.w)
		}
		if got := table.Fire(nil, c.event, c.path); !slices.Equal(got, c.want) {
			t.Errorf("%s: told %v, want %v", c.name, got, c.want)
		}
		if table.Count() != c.left {
			t.Errorf("%s: %d registrations left, want %d", c.name, table.Count(), c.left)
		}
	}
}

func TestCheckAndRemove(t *testing.T) {
	table := New[string]()
	table.Add(Data, "/a", "w")
	table.Add(Child, "/a", "w")
	table.Add(Persistent, "/a", "w")
	table.Add(PersistentRecursive, "/b", "w")
	for _, step := range []struct {
		remove bool
		which  jute.WatcherType
		path   string
		want   jute.Code
	}{
		{false, jute.WatcherData, "/a", jute.OK},
		{false, jute.WatcherPersistentRecursive, "/a", jute.NoWatcher},
		{false, jute.WatcherAny, "/c", jute.NoWatcher},
		{false, 0, "/a", jute.MarshallingError},
		{true, 6, "/a", jute.MarshallingError},
		{true, jute.WatcherData, "/a", jute.OK},
		{true, jute.WatcherData, "/a", jute.NoWatcher},
		{false, jute.WatcherChildren, "/a", jute.OK},
		{true, jute.WatcherPersistent, "/a", jute.OK},
		{true, jute.WatcherAny, "/a", jute.OK},
		{false, jute.WatcherAny, "/a", jute.NoWatcher},
		{true, jute.WatcherPersistentRecursive, "/b", jute.OK},
	} {
		call, name := table.Check, "check"
		if step.remove {
			call, name = table.Remove, "remove"
		}
		if got := call(step.which, step.path, "w"); got != step.want {
			t.Errorf("%s %d of %s: %v, want %v", name, step.which, step.path, got, step.want)
		}
	}
	if table.Count() != 0 || len(table.paths) != 0 || len(table.watchers) != 0 {
		t.Errorf("an empty table keeps %d paths and %d watchers", len(table.paths), len(table.watchers))
	}
	if code := table.AddWatch(&jute.AddWatchRequest{Path: "/a", Mode: 2}, "w"); code != jute.MarshallingError {
		t.Errorf("addWatch of mode 2: %v", code)
	}
}

func TestRestore(t *testing.T) {
	nodes := map[string][2]jute.Zxid{"/old": {5, 5}, "/changed": {11, 5}, "/grown": {5, 11}}
	node := func(path string) (jute.Zxid, jute.Zxid, bool) {
		z, exists := nodes[path]
		return z[0], z[1], exists
	}
	table := New[int]()
	all := []string{"/old", "/changed", "/grown", "/gone"}
	events, code := table.Restore(nil, &jute.SetWatches{
		RelativeZxid: 10, Data: all, Exist: all, Child: all, Persistent: []string{"/gone"}, PersistentRecursive: []string{"/old"},
	}, 1, node)
	var got []string
	for _, e := range events {
		got = append(got, fmt.Sprint(e.Type, " ", e.Path))
	}
	want := []string{
		"NodeDataChanged /changed", "NodeDeleted /gone", "NodeCreated /old", "NodeCreated /changed", "NodeCreated /grown",
		"NodeChildrenChanged /grown", "NodeDeleted /gone",
	}
	if !slices.Equal(got, want) || code != jute.OK {
		t.Errorf("missed %q, %v, want %q", got, code, want)
	}
	for path, want := range map[string]modes{
		"/old": modeData | modeChild | modeRecursive, "/changed": modeChild, "/grown": modeData, "/gone": modeData | modePersistent,
	} {
		if r := table.watchers[1].byPath[path]; r == nil || r.modes != want {
			t.Errorf("%s: %+v, want modes %b", path, r, want)
		}
	}
}

// A null list ends it: what comes before has been dealt with, what comes after is not looked at.
func TestRestoreOfANullList(t *testing.T) {
	none := func(string) (jute.Zxid, jute.Zxid, bool) { return 0, 0, false }
	a := []string{"/a"}
	for name, c := range map[string]struct {
		request jute.SetWatches
		events  int
		modes   modes
	}{
		"data":       {jute.SetWatches{Exist: a, Child: a, Persistent: a, PersistentRecursive: a}, 0, 0},
		"exist":      {jute.SetWatches{Data: a, Child: a, Persistent: a, PersistentRecursive: a}, 1, 0},
		"child":      {jute.SetWatches{Data: a, Exist: a, Persistent: a, PersistentRecursive: a}, 1, modeData},
		"persistent": {jute.SetWatches{Data: a, Exist: a, Child: a, PersistentRecursive: a}, 2, modeData},
		"recursive":  {jute.SetWatches{Data: a, Exist: a, Child: a, Persistent: a}, 2, modeData | modePersistent},
	} {
		table := New[int]()
		events, code := table.Restore(nil, &c.request, 1, none)
		var got modes
		if h := table.watchers[1]; h != nil {
			got = h.byPath["/a"].modes
		}
		if code != jute.MarshallingError || len(events) != c.events || got != c.modes {
			t.Errorf("%s: %v, %d events, modes %b; want %d, %b", name, code, len(events), got, c.events, c.modes)
		}
	}
}

// twin is the dumb model: sets of registrations, as ZooKeeper's two managers keep them.
type twin struct{ data, child map[key]modes }

type key struct {
	path string
	w    int
}

func (m *twin) fire(event jute.EventType, path string) []int {
	told := map[int]bool{}
	visit := func(manager map[key]modes, path string, all bool) {
		for k, have := range manager {
			if k.path != path || !all && have&modeRecursive == 0 {
				continue
			}
			told[k.w] = true
			if all {
				if have &^= modeData | modeChild; have == 0 {
					delete(manager, k)
				} else {
					manager[k] = have
				}
			}
		}
	}
	if event != jute.EventChildrenChanged {
		visit(m.data, path, true)
		for up := path; up != "/"; {
			up = up[:max(strings.LastIndexByte(up, '/'), 1)]
			visit(m.data, up, false)
		}
	}
	if event == jute.EventDeleted || event == jute.EventChildrenChanged {
		visit(m.child, path, true)
	}
	var list []int
	for w := range told {
		list = append(list, w)
	}
	slices.Sort(list)
	return list
}

func TestTableMatchesTwin(t *testing.T) {
	paths := []string{"/", "/a", "/a/b", "/a/b/c", "/ab", "/d"}
	for seed := range int64(30) {
		rng := rand.New(rand.NewSource(seed))
		table, model := New[int](), &twin{map[key]modes{}, map[key]modes{}}
		for step := range 2000 {
			path, w := paths[rng.Intn(len(paths))], rng.Intn(5)
			k := key{path, w}
			switch rng.Intn(12) {
			case 0:
				table.RemoveAll(w)
				for _, manager := range []map[key]modes{model.data, model.child} {
					for k := range manager {
						if k.w == w {
							delete(manager, k)
						}
					}
				}
			case 1:
				which := jute.WatcherType(1 + rng.Intn(5))
				match, _ := typeModes(which)
				want := jute.NoWatcher
				for _, manager := range []map[key]modes{model.data, model.child} {
					if manager[k]&match != 0 {
						want = jute.OK
						if manager[k] &^= match; manager[k] == 0 {
							delete(manager, k)
						}
					}
				}
				if got := table.Remove(which, path, w); got != want {
					t.Fatalf("seed %d step %d: remove %v, want %v", seed, step, got, want)
				}
			case 2, 3, 4, 5:
				event := jute.EventType(1 + rng.Intn(4))
				got := table.Fire(nil, event, path)
				slices.Sort(got)
				if want := model.fire(event, path); !slices.Equal(got, want) {
					t.Fatalf("seed %d step %d: %v %s told %v, want %v", seed, step, event, path, got, want)
				}
			default:
				kind := Kind(1 + rng.Intn(5))
				table.Add(kind, path, w)
				if m := modesOf[kind]; m&(modeData|modePersistent|modeRecursive) != 0 {
					model.data[k] |= m
				}
				if m := modesOf[kind]; m&(modeChild|modePersistent) != 0 {
					model.child[k] |= m
				}
			}
			if table.Count() != len(model.data)+len(model.child) {
				t.Fatalf("seed %d step %d: %d registrations, want %d", seed, step, table.Count(), len(model.data)+len(model.child))
			}
		}
		if s := table.Summary(); s.Watches != len(model.data) {
			t.Fatalf("seed %d: summary %+v, want %d watches", seed, s, len(model.data))
		}
	}
}

func BenchmarkAddAndFire(b *testing.B) {
	table := New[int]()
	paths := make([]string, 1024)
	for i := range paths {
		paths[i] = fmt.Sprintf("/brokers/topics/t%d", i)
	}
	var told []int
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		path := paths[i%len(paths)]
		table.Add(Data, path, i%8)
		told = table.Fire(told[:0], jute.EventDataChanged, path)
	}
}
