package znode

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/watch"
)

// twin is the dumb model of Machine: a map by full path, cloned before every request and put back when one fails.
type twin struct {
	nodes    map[string]twinNode
	sessions map[jute.SessionID]SessionInfo
	zxid     jute.Zxid
	events   []string
}

type twinNode struct {
	data             []byte
	acl              []jute.ACL
	stat             jute.Stat // Cversion counts creates
	children         []string
	ephemeral, boxed bool
}

func newTwin() *twin {
	t := &twin{nodes: map[string]twinNode{}, sessions: map[jute.SessionID]SessionInfo{}, zxid: 1 << 32}
	t.nodes["/"] = twinNode{data: []byte{}, acl: jute.OpenACL, children: []string{"zookeeper"}}
	t.nodes["/zookeeper"] = twinNode{data: []byte{}, acl: jute.OpenACL, children: []string{"config", "quota"}}
	t.nodes["/zookeeper/config"] = twinNode{data: []byte{}, acl: jute.ReadOnlyACL, stat: jute.Stat{Aversion: -1}}
	t.nodes["/zookeeper/quota"] = twinNode{data: []byte{}, acl: jute.OpenACL}
	return t
}

func (t *twin) stat(path string) jute.Stat {
	n := t.nodes[path]
	s := n.stat
	s.NumChildren = int32(len(n.children))
	s.Cversion = 2*s.Cversion - s.NumChildren
	s.DataLength = int32(len(n.data))
	return s
}

func (t *twin) note(event jute.EventType, path string, acl []jute.ACL) {
	t.events = append(t.events, fmt.Sprint(event, path, t.zxid, acl))
}

func parentOf(path string) string { return canonical(path[:strings.LastIndexByte(path, '/')]) }

func (t *twin) allowed(path string, perm int32, auth []jute.ID) bool {
	for _, a := range t.nodes[path].acl {
		if a.Perms&perm == 0 {
			continue
		}
		if a.ID.Scheme == "world" || slices.Contains(auth, a.ID) {
			return true
		}
	}
	return false
}

func (t *twin) create(op jute.OpCode, r jute.CreateRequest, session jute.SessionID, auth []jute.ID, now int64) (string, jute.Code) {
	if r.Flags < 0 || r.Flags > 4 {
		return "", jute.BadArguments
	}
	if !strings.Contains(r.Path, "/") || strings.Contains(r.Path, "\x00") {
		return "", jute.BadArguments
	}
	acl, code := resolveACL(r.ACL, auth)
	if code != 0 {
		return "", code
	}
	parentPath := parentOf(r.Path)
	parent, has := t.nodes[parentPath]
	if !has {
		return "", jute.NoNode
	}
	if !t.allowed(parentPath, jute.PermCreate, auth) {
		return "", jute.NoAuth
	}
	path := r.Path
	if r.Flags == 2 || r.Flags == 3 {
		path += fmt.Sprintf("%010d", parent.stat.Cversion)
	}
	if !twinValid(path) {
		return "", jute.BadArguments
	}
	if _, has := t.nodes[path]; has {
		return "", jute.NodeExists
	}
	if parent.ephemeral {
		return "", jute.NoChildrenForEphemerals
	}
	n := twinNode{data: bytes.Clone(r.Data), acl: acl, boxed: op == jute.OpCreateContainer}
	n.stat = jute.Stat{Czxid: t.zxid, Mzxid: t.zxid, Pzxid: t.zxid, Ctime: now, Mtime: now}
	if (r.Flags == 1 || r.Flags == 3) && !n.boxed {
		n.ephemeral, n.stat.EphemeralOwner = true, session
	}
	parent.stat.Cversion++
	parent.stat.Pzxid = t.zxid
	parent.children = append(slices.Clone(parent.children), path[strings.LastIndexByte(path, '/')+1:])
	t.nodes[path], t.nodes[parentPath] = n, parent
	t.note(jute.EventCreated, path, n.acl)
	t.note(jute.EventChildrenChanged, parentPath, parent.acl)
	return path, 0
}

func twinValid(path string) bool {
	if path == "/" {
		return true
	}
	if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "\x00\x01\x7f\u0080\ue000\ufffd\U0001F600") {
		return false
	}
	for _, part := range strings.Split(path[1:], "/") {
		if part == "" || part == "." || part == ".." {
			return false
		}
	}
	return true
}

func (t *twin) delete(path string, version int32, auth []jute.ID) jute.Code {
	if !strings.Contains(path, "/") || strings.Contains(path, "\x00") || slices.Contains([]string{"/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"}, path) {
		return jute.BadArguments
	}
	parentPath := parentOf(path)
	if _, has := t.nodes[parentPath]; !has {
		return jute.NoNode
	}
	if !t.allowed(parentPath, jute.PermDelete, auth) {
		return jute.NoAuth
	}
	n, has := t.nodes[path]
	switch {
	case !has:
		return jute.NoNode
	case version != -1 && version != n.stat.Version:
		return jute.BadVersion
	case len(n.children) > 0:
		return jute.NotEmpty
	}
	t.drop(path)
	return 0
}

func (t *twin) drop(path string) {
	parentPath := parentOf(path)
	n, parent := t.nodes[path], t.nodes[parentPath]
	name := path[strings.LastIndexByte(path, '/')+1:]
	parent.children = slices.DeleteFunc(slices.Clone(parent.children), func(s string) bool { return s == name })
	parent.stat.Pzxid = t.zxid
	t.nodes[parentPath] = parent
	delete(t.nodes, path)
	t.note(jute.EventDeleted, path, n.acl)
	t.note(jute.EventChildrenChanged, parentPath, parent.acl)
}

func (t *twin) versioned(path string, perm, version int32, auth []jute.ID, current func(twinNode) int32) jute.Code {
	n, has := t.nodes[path]
	switch {
	case !has:
		return jute.NoNode
	case !t.allowed(path, perm, auth):
		return jute.NoAuth
	case version != -1 && version != current(n):
		return jute.BadVersion
	}
	return 0
}

func dataVersion(n twinNode) int32 { return n.stat.Version }

// one performs a single operation and gives its entry for a multi's reply, its body for a reply of its own, and its code.
func (t *twin) one(o randomOp, r *Request, now int64) (entry, body []byte, code jute.Code) {
	header := jute.MultiHeader{Type: o.op}
	switch o.op {
	case jute.OpCreate, jute.OpCreate2, jute.OpCreateContainer:
		path, code := t.create(o.op, o.create, r.Session, r.Auth, now)
		if code != 0 {
			return nil, nil, code
		}
		body = jute.AppendString(nil, path)
		if o.op != jute.OpCreate {
			header.Type = jute.OpCreate2
			s := t.stat(path)
			body = s.Append(body)
		}
	case jute.OpDelete:
		if code = t.delete(o.path, o.version, r.Auth); code != 0 {
			return nil, nil, code
		}
	case jute.OpSetData, jute.OpCheck, jute.OpSetACL:
		if !twinValid(o.path) {
			return nil, nil, jute.BadArguments
		}
		n := t.nodes[o.path]
		switch o.op {
		case jute.OpCheck:
			code = t.versioned(o.path, jute.PermRead, o.version, r.Auth, dataVersion)
		case jute.OpSetData:
			if code = t.versioned(o.path, jute.PermWrite, o.version, r.Auth, dataVersion); code == 0 {
				n.data, n.stat.Mzxid, n.stat.Mtime = bytes.Clone(o.data), t.zxid, now
				n.stat.Version++
				t.nodes[o.path] = n
				t.note(jute.EventDataChanged, o.path, n.acl)
			}
		case jute.OpSetACL:
			acl, bad := resolveACL(o.acl, r.Auth)
			if bad != 0 {
				return nil, nil, bad
			}
			code = t.versioned(o.path, jute.PermAdmin, o.version, r.Auth, func(n twinNode) int32 { return n.stat.Aversion })
			if code == 0 {
				n.acl = acl
				n.stat.Aversion++
				t.nodes[o.path] = n
			}
		}
		if code != 0 {
			return nil, nil, code
		}
		if o.op != jute.OpCheck {
			s := t.stat(o.path)
			body = s.Append(nil)
		}
	}
	return append(header.Append(nil), body...), body, 0
}

func (t *twin) op(o randomOp, r *Request, now int64) (reply []byte, code jute.Code) {
	t.zxid++
	if o.op != jute.OpMulti {
		_, reply, code = t.one(o, r, now)
		return reply, code
	}
	before := maps.Clone(t.nodes)
	for i, sub := range o.subs {
		entry, _, code := t.one(sub, r, now)
		if code != 0 {
			t.nodes, t.events = before, nil
			return appendFailedMulti(nil, len(o.subs), i, code), 0
		}
		reply = append(reply, entry...)
	}
	return jute.MultiEnd.Append(reply), 0
}

func (t *twin) end(id jute.SessionID) {
	t.zxid++
	for _, path := range slices.Sorted(maps.Keys(t.nodes)) {
		if t.nodes[path].stat.EphemeralOwner == id {
			t.drop(path)
		}
	}
	delete(t.sessions, id)
}

// randomOp is a generated write, decoded and encodable.
type randomOp struct {
	op      jute.OpCode
	create  jute.CreateRequest
	path    string
	data    []byte
	acl     []jute.ACL
	version int32
	subs    []randomOp
}

func (o *randomOp) body() []byte {
	switch o.op {
	case jute.OpCreate, jute.OpCreate2, jute.OpCreateContainer:
		return o.create.Append(nil)
	case jute.OpDelete, jute.OpCheck:
		return (&jute.PathVersionRequest{Path: o.path, Version: o.version}).Append(nil)
	case jute.OpSetData:
		return (&jute.SetDataRequest{Path: o.path, Data: o.data, Version: o.version}).Append(nil)
	case jute.OpSetACL:
		return (&jute.SetACLRequest{Path: o.path, ACL: o.acl, Version: o.version}).Append(nil)
	}
	var body []byte
	for i := range o.subs {
		h := jute.MultiHeader{Type: o.subs[i].op, Err: -1}
		body = append(h.Append(body), o.subs[i].body()...)
	}
	return jute.MultiEnd.Append(body)
}

var (
	alice = DigestID("alice:secret")
	bob   = DigestID("bob:secret")
)

type generator struct{ *rand.Rand }

func (g generator) path() string {
	odd := []string{"", "/", "a", "/a/", "//a", "/a//b", "/.", "/a/..", "/zookeeper", "/zookeeper/quota", "/zookeeper/config",
		"/nul\x00", "/\x01", "/\x7f", "/\u0080", "/\ue000", "/\U0001F600", "/\xff", "/ä"}
	if g.Intn(20) == 0 {
		return odd[g.Intn(len(odd))]
	}
	path := ""
	for range 1 + g.Intn(3) {
		path += "/" + string(rune('a'+g.Intn(4)))
		if g.Intn(40) == 0 {
			path += fmt.Sprintf("%010d", g.Intn(5))
		}
	}
	return path
}

func (g generator) bytes() []byte {
	switch g.Intn(12) {
	case 0:
		return nil
	case 1:
		return []byte{}
	case 2:
		return bytes.Repeat([]byte("x"), g.Intn(3000))
	case 3:
		return bytes.Repeat([]byte("y"), g.Intn(100_000))
	}
	return bytes.Repeat([]byte("z"), g.Intn(40))
}

func (g generator) acl() []jute.ACL {
	switch g.Intn(24) {
	case 0:
		return nil
	case 1:
		return []jute.ACL{{Perms: 31, ID: jute.ID{Scheme: "nonsense", ID: "x"}}}
	case 2, 3:
		return []jute.ACL{{Perms: int32(g.Intn(32)), ID: jute.ID{Scheme: "auth"}}, jute.ReadOnlyACL[0]}
	case 4, 5:
		return []jute.ACL{{Perms: int32(g.Intn(32)), ID: bob}, {Perms: 31, ID: alice}}
	}
	return jute.OpenACL
}

func (g generator) version() int32 {
	if g.Intn(3) > 0 {
		return -1
	}
	return int32(g.Intn(4))
}

func (g generator) op(multi bool) randomOp {
	o := randomOp{path: g.path(), version: g.version()}
	switch n := g.Intn(22); {
	case n < 9:
		o.op = []jute.OpCode{jute.OpCreate, jute.OpCreate, jute.OpCreate2, jute.OpCreateContainer}[g.Intn(4)]
		o.create = jute.CreateRequest{Path: o.path, Data: g.bytes(), ACL: g.acl(), Flags: jute.CreateFlags(g.Intn(4))}
		if o.op == jute.OpCreateContainer && g.Intn(10) > 0 {
			o.create.Flags = 4
		}
		if !multi && g.Intn(30) == 0 {
			o.create.Flags = 7
		}
		if multi && o.create.ACL == nil { // would be a fault of the whole
			o.create.ACL = []jute.ACL{}
		}
	case n < 14:
		o.op = jute.OpDelete
	case n < 18:
		o.op, o.data = jute.OpSetData, g.bytes()
	case n < 19:
		if multi {
			o.op = jute.OpCheck
			break
		}
		o.op, o.acl = jute.OpSetACL, g.acl()
	default:
		if multi {
			o.op = jute.OpCheck
			break
		}
		o.op = jute.OpMulti
		for range g.Intn(5) {
			o.subs = append(o.subs, g.op(true))
		}
	}
	return o
}

// run drives a machine and its twin with the same random requests and compares everything they say.
func run(t *testing.T, seed int64, requests int, between func(m *Machine, step int) *Machine) *Machine {
	t.Helper()
	g := generator{rand.New(rand.NewSource(seed))}
	m, model := New(), newTwin()
	step := 0
	apply := func(r Request) Result {
		var got Result
		encoded := (&Batch{TimeMs: int64(1000 + step), Requests: []Request{r}}).Append(nil)
		b, err := DecodeBatch(encoded)
		if err != nil {
			t.Fatal(err)
		}
		m.Apply(1, &b, func(_ int, res *Result) {
			got = *res
			got.Events = slices.Clone(res.Events)
		})
		for i := range encoded {
			encoded[i] = 0xAA // nothing may alias the entry after Apply
		}
		return got
	}
	for ; step < requests; step++ {
		now := int64(1000 + step)
		session := jute.SessionID(1 + g.Intn(4))
		model.events = nil
		var want Result
		r := Request{Session: session, Generation: model.sessions[session].Generation}
		_, alive := model.sessions[session]
		switch n := g.Intn(60); {
		case n == 0 && alive:
			r.Kind = []Kind{KindCloseSession, KindExpire}[g.Intn(2)]
			model.end(session)
			want.ClosedSession = true
		case n < 4 || !alive:
			r.Kind, r.TimeoutMs, r.Password, r.Owner = KindCreateSession, 4000, []byte("0123456789abcdef"), 7
			if alive {
				r.Kind = KindReattach
				s := model.sessions[session]
				s.Generation++
				model.sessions[session] = s
			} else {
				model.zxid++
				model.sessions[session] = SessionInfo{Generation: 1}
			}
		default:
			o := g.op(false)
			r.Kind, r.Op, r.Body = KindOp, o.op, o.body()
			switch g.Intn(4) {
			case 0:
				r.Auth = []jute.ID{{Scheme: "ip", ID: "127.0.0.1"}, alice}
			case 1:
				r.Auth = []jute.ID{bob, alice}
			case 2:
				r.Auth = []jute.ID{bob}
			}
			want.Reply, want.Code = model.op(o, &r, now)
		}
		got := apply(r)
		if got.Code != want.Code || !bytes.Equal(got.Reply, want.Reply) || got.Zxid != model.zxid || got.Skipped ||
			got.SessionMoved || got.ClosedSession != want.ClosedSession {
			t.Fatalf("seed %d step %d %v %v: got %v %x zxid %#x, want %v %x zxid %#x", seed, step, r.Kind, r.Op,
				got.Code, got.Reply, got.Zxid, want.Code, want.Reply, model.zxid)
		}
		var events []string
		for _, e := range got.Events {
			events = append(events, fmt.Sprint(e.Type, e.Path, e.Zxid, e.ACL))
		}
		if !slices.Equal(events, model.events) {
			t.Fatalf("seed %d step %d %v: events %v, want %v", seed, step, r.Op, events, model.events)
		}
		if between != nil {
			m = between(m, step)
		}
		if step%50 == 0 || step == requests-1 {
			compareAll(t, m, model, g)
		}
	}
	return m
}

// compareAll compares every read of every node.
func compareAll(t *testing.T, m *Machine, model *twin, g generator) {
	t.Helper()
	auth := []jute.ID{alice}
	size := int64(0)
	for path, n := range model.nodes {
		size += int64(textUnits(path) + len(n.data))
		stat := model.stat(path)
		body := (&jute.PathWatchRequest{Path: path, Watch: true}).Append(nil)
		want := stat.Append(jute.AppendBuffer(nil, n.data))
		wantCode, wantKind := jute.OK, watch.Data
		if !model.allowed(path, jute.PermRead, auth) {
			want, wantCode, wantKind = nil, jute.NoAuth, watch.None
		}
		reply, code, reg := m.HandleRead(jute.OpGetData, body, auth, 1)
		if code != wantCode || !bytes.Equal(reply, want) || reg.Kind != wantKind {
			t.Fatalf("getData %q: %v %x, want %v %x", path, code, reply, wantCode, want)
		}
		children, _ := m.Children(path)
		if !slices.Equal(children, n.children) && len(children)+len(n.children) > 0 {
			t.Fatalf("children of %q: %v, want %v", path, children, n.children)
		}
		if acl, _, _ := m.GetACL(path); !slices.Equal(acl, n.acl) {
			t.Fatalf("ACL of %q: %v, want %v", path, acl, n.acl)
		}
	}
	if m.NodeCount() != len(model.nodes)+1 || m.ApproximateDataSize() != size {
		t.Fatalf("%d nodes of %d bytes, want %d of %d", m.NodeCount(), m.ApproximateDataSize(), len(model.nodes)+1, size)
	}
	ephemerals := 0
	for id := range model.sessions {
		var want []string
		for path, n := range model.nodes {
			if n.stat.EphemeralOwner == id {
				want = append(want, path)
			}
		}
		slices.Sort(want)
		ephemerals += len(want)
		if got := m.Ephemerals(id, ""); !slices.Equal(got, want) {
			t.Fatalf("ephemerals of %d: %v, want %v", id, got, want)
		}
	}
	if m.EphemeralCount() != ephemerals {
		t.Fatalf("%d ephemerals, want %d", m.EphemeralCount(), ephemerals)
	}
	if path := g.path(); model.nodes[canonical(path)].acl == nil {
		if _, code, reg := m.HandleRead(jute.OpGetChildren, (&jute.PathWatchRequest{Path: path, Watch: true}).Append(nil), auth, 1); code != jute.NoNode || reg.Kind != watch.None {
			t.Fatalf("getChildren of missing %q: %v %v", path, code, reg)
		}
	}
}

func TestMachineMatchesTwin(t *testing.T) {
	for seed := range int64(8) {
		run(t, seed, 2000, nil)
	}
}

// TestMachineMatchesTwinThroughSnapshots restores, freezes and thaws all the time.
func TestMachineMatchesTwinThroughSnapshots(t *testing.T) {
	var open *Snapshot
	var sum uint64
	m := run(t, 99, 1800, func(m *Machine, step int) *Machine {
		switch step % 60 {
		case 10:
			open, sum = m.Freeze(), m.Checksum()
		case 40: // thirty requests later the frozen state must be what it was
			var buf bytes.Buffer
			if _, err := open.WriteTo(&buf); err != nil {
				t.Fatal(err)
			}
			open.Close()
			before, err := Restore(&buf)
			if err != nil {
				t.Fatal(err)
			}
			if got := before.Checksum(); got != sum {
				t.Fatalf("step %d: restored checksum %x, frozen %x", step, got, sum)
			}
			if buf.Len() != 0 {
				t.Fatalf("%d bytes left over", buf.Len())
			}
		case 50:
			return restored(t, m)
		}
		return m
	})
	// The same requests on a machine that was never restored.
	if want := run(t, 99, 1800, nil); m.Checksum() != want.Checksum() {
		t.Fatal("a machine restored from snapshots differs from one that was not")
	}
}

func restored(t *testing.T, m *Machine) *Machine {
	t.Helper()
	var buf bytes.Buffer
	s := m.Freeze()
	defer s.Close()
	n, err := s.WriteTo(&buf)
	if err != nil || n != int64(buf.Len()) {
		t.Fatal(n, buf.Len(), err)
	}
	again, err := Restore(&buf)
	if err != nil {
		t.Fatal(err)
	}
	if again.Checksum() != m.Checksum() {
		t.Fatal("the restored machine has another checksum")
	}
	return again
}
