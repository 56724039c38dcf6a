package znode

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/watch"
)

// apply runs one request of term 1 at time 1000 and keeps its result.
func apply(m *Machine, r Request) Result {
	var got Result
	m.Apply(1, &Batch{TimeMs: 1000, Requests: []Request{r}}, func(_ int, res *Result) {
		got = *res
		got.Events = slices.Clone(res.Events)
	})
	return got
}

func withSession(t *testing.T) *Machine {
	t.Helper()
	m := New()
	r := apply(m, Request{Kind: KindCreateSession, Session: 1, TimeoutMs: 4000, Password: []byte("pw"), Owner: 3})
	if r.Code != jute.OK || r.Generation != 1 {
		t.Fatalf("%+v", r)
	}
	return m
}

func write(op jute.OpCode, body []byte, auth ...jute.ID) Request {
	return Request{Kind: KindOp, Session: 1, Generation: 1, Op: op, Body: body, Auth: auth}
}

func createBody(path, data string, flags jute.CreateFlags) []byte {
	return (&jute.CreateRequest{Path: path, Data: []byte(data), ACL: jute.OpenACL, Flags: flags}).Append(nil)
}

func mustCreate(t *testing.T, m *Machine, path string, flags jute.CreateFlags) string {
	t.Helper()
	op := jute.OpCreate
	if flags == jute.FlagContainer {
		op = jute.OpCreateContainer
	}
	r := apply(m, write(op, createBody(path, "", flags)))
	if r.Code != jute.OK {
		t.Fatalf("create %s: %v", path, r.Code)
	}
	d := jute.NewDecoder(r.Reply)
	return d.String()
}

func deleteBody(path string) []byte {
	return (&jute.PathVersionRequest{Path: path, Version: -1}).Append(nil)
}

// TestFreshTree holds the values that ZooKeeper 3.9.5 shows of an empty tree.
func TestFreshTree(t *testing.T) {
	m := New()
	for path, want := range map[string]jute.Stat{
		"/":                 {Cversion: -1, NumChildren: 1},
		"":                  {Cversion: -1, NumChildren: 1},
		"/zookeeper":        {Cversion: -2, NumChildren: 2},
		"/zookeeper/config": {Aversion: -1},
		"/zookeeper/quota":  {},
	} {
		if got, exists := m.Exists(path); !exists || got != want {
			t.Errorf("%q: %+v, want %+v", path, got, want)
		}
	}
	if m.NodeCount() != 5 || m.ApproximateDataSize() != 44 || m.LastZxid() != 0 {
		t.Errorf("%d nodes, size %d, zxid %d", m.NodeCount(), m.ApproximateDataSize(), m.LastZxid())
	}
	if code := m.CheckRead("/zookeeper/config", nil); code != jute.OK {
		t.Error(code)
	}
	if r := apply(withSession(t), write(jute.OpSetData, (&jute.SetDataRequest{Path: systemConfigPath, Version: -1}).Append(nil))); r.Code != jute.NoAuth {
		t.Error(r.Code)
	}
}

func TestSessionLife(t *testing.T) {
	m := withSession(t)
	mustCreate(t, m, "/b", jute.FlagEphemeral)
	mustCreate(t, m, "/a", jute.FlagEphemeral)
	zxid := m.LastZxid()

	if r := apply(m, Request{Kind: KindCreateSession, Session: 1}); r.Code != jute.SystemError || r.Zxid != zxid {
		t.Errorf("a second session of the same id: %+v", r)
	}
	if r := apply(m, Request{Kind: KindReattach, Session: 1, Password: []byte("no")}); r.Code != jute.SessionExpired {
		t.Errorf("re-attach with a wrong password: %+v", r)
	}
	if r := apply(m, Request{Kind: KindReattach, Session: 2, Password: []byte("pw")}); r.Code != jute.SessionExpired {
		t.Errorf("re-attach of nothing: %+v", r)
	}
	if r := apply(m, Request{Kind: KindConnectionLost, Session: 1, Generation: 1}); r.Skipped || r.Zxid != zxid {
		t.Errorf("connection lost: %+v", r)
	}
	if s, _ := m.Session(1); !s.ConnectionLost || s.LostAtMs != 1000 || s.Ephemerals != 2 {
		t.Errorf("%+v", s)
	}
	r := apply(m, Request{Kind: KindReattach, Session: 1, Password: []byte("pw"), TimeoutMs: 9000, GraceMs: 100, Owner: 5})
	if r.Code != jute.OK || r.Generation != 2 || r.TimeoutMs != 9000 || r.GraceMs != 100 || r.Zxid != zxid {
		t.Errorf("re-attach: %+v", r)
	}
	want := SessionInfo{ID: 1, TimeoutMs: 9000, GraceMs: 100, Password: []byte("pw"), Owner: 5, Generation: 2, Ephemerals: 2}
	if s, _ := m.Session(1); fmt.Sprint(s) != fmt.Sprint(want) {
		t.Errorf("%+v, want %+v", s, want)
	}

	// What the old owner, or an expirer that has not heard, still sends.
	if r := apply(m, write(jute.OpDelete, deleteBody("/a"))); !r.SessionMoved || r.Zxid != zxid || r.Reply != nil {
		t.Errorf("a stale write: %+v", r)
	}
	for _, kind := range []Kind{KindExpire, KindConnectionLost} {
		if r := apply(m, Request{Kind: kind, Session: 1, Generation: 1}); !r.Skipped {
			t.Errorf("stale kind %d: %+v", kind, r)
		}
	}
	if r := apply(m, Request{Kind: KindCloseSession, Session: 1, Generation: 1}); !r.SessionMoved {
		t.Errorf("a stale close: %+v", r)
	}

	r = apply(m, Request{Kind: KindExpire, Session: 1, Generation: 2})
	if !r.ClosedSession || r.Zxid != zxid+1 || m.SessionCount() != 0 || m.EphemeralCount() != 0 {
		t.Errorf("expiry: %+v", r)
	}
	var events []string
	for _, e := range r.Events {
		events = append(events, fmt.Sprint(e.Type, " ", e.Path, " ", e.Zxid-zxid))
	}
	if want := []string{"NodeDeleted /a 1", "NodeChildrenChanged / 1", "NodeDeleted /b 1", "NodeChildrenChanged / 1"}; !slices.Equal(events, want) {
		t.Errorf("events %q, want %q", events, want)
	}
	if r := apply(m, write(jute.OpDelete, deleteBody("/a"))); r.Code != jute.SessionExpired || r.Zxid != zxid+1 {
		t.Errorf("a write after the end: %+v", r)
	}
}

func TestForwardedRequestsAreAppliedOnce(t *testing.T) {
	m := withSession(t)
	send := func(origin MemberID, incarnation, first uint64, count int) (taken string) {
		b := Batch{Origin: origin, Incarnation: incarnation, FirstSequence: first}
		for range count {
			b.Requests = append(b.Requests, write(jute.OpCreate, createBody("/n", "", jute.FlagPersistentSequential)))
		}
		m.Apply(1, &b, func(_ int, r *Result) {
			if r.Skipped {
				taken += "-"
			} else {
				taken += "x"
			}
		})
		return taken
	}
	for _, step := range []struct {
		origin             MemberID
		incarnation, first uint64
		count              int
		want               string
		next               uint64
	}{
		{0, 0, 0, 2, "xx", 1},                            // without an origin: always
		{4, 9, 2, 1, "-", 1},                             // a gap at the start
		{4, 9, 1, 3, "xxx", 4},                           //
		{4, 9, 1, 3, "---", 4},                           // doubled
		{4, 9, 2, 4, "--xx", 6},                          // sent again from too early
		{4, 9, 7, 2, "--", 6},                            // 6 was dropped
		{5, 9, 1, 1, "x", 2},                             // another member
		{4, 8, 6, 1, "-", math.MaxUint64},                // an older incarnation
		{4, 10, 6, 1, "-", 1},                            // a newer one begins at 1
		{4, 10, 1, 1, "x", 2},                            //
		{4, 9, 6, 1, "-", math.MaxUint64},                // and ends the older one
		{4, 10, 0, 3, "--x", 3},                          // 0 is no sequence
		{6, 0, 1, 2, "xx", 3},                            // incarnation 0 is one like any other
		{6, 0, 1, 3, "--x", 4},                           //
		{6, math.MaxUint64, math.MaxUint64, 3, "--x", 2}, // sequences that wrap: ^0, 0, 1
	} {
		if got := send(step.origin, step.incarnation, step.first, step.count); got != step.want {
			t.Errorf("%+v: %s", step, got)
		}
		if got := m.NextSequence(step.origin, step.incarnation); got != step.next {
			t.Errorf("%+v: next is %d", step, got)
		}
	}
	again := restored(t, m)
	if again.NextSequence(4, 10) != 3 || again.NextSequence(4, 11) != 1 {
		t.Error("a snapshot forgets sequences")
	}
}

func TestZxid(t *testing.T) {
	m := New()
	take := func(term uint64) jute.Zxid {
		b := Batch{Requests: []Request{{Kind: KindCreateSession, Session: m.nextTestSession()}}}
		m.Apply(term, &b, nil)
		return m.LastZxid()
	}
	for _, step := range []struct {
		term uint64
		want jute.Zxid
	}{
		{2, 1<<32 | 1}, {2, 1<<32 | 2}, {7, 2<<32 | 1}, {3, 2<<32 | 2}, {8, 3<<32 | 1},
	} {
		if got := take(step.term); got != step.want {
			t.Errorf("term %d: %#x, want %#x", step.term, got, step.want)
		}
	}
	m.Apply(9, &Batch{}, nil)
	if m.LastZxid() != 4<<32 {
		t.Errorf("an empty entry of a new term: %#x", m.LastZxid())
	}
	m.lastZxid |= math.MaxUint32 - 1
	for _, want := range []jute.Zxid{4<<32 | math.MaxUint32, 5<<32 | 1, 5<<32 | 2} {
		if got := take(9); got != want {
			t.Errorf("at the end of the counter: %#x, want %#x", got, want)
		}
	}
}

func (m *Machine) nextTestSession() jute.SessionID { return jute.SessionID(m.SessionCount() + 1) }

func TestWhatTakesAZxid(t *testing.T) {
	undecodable := []byte{0, 0, 0, 9, 'x'}
	for _, c := range []struct {
		name  string
		r     Request
		code  jute.Code
		takes jute.Zxid
	}{
		{"a failed delete", write(jute.OpDelete, deleteBody("/none")), jute.NoNode, 1},
		{"a single op that does not decode", write(jute.OpDelete, undecodable), jute.MarshallingError, 0},
		{"setData that does not decode", write(jute.OpSetData, undecodable), jute.MarshallingError, 0},
		{"a multi that does not decode", write(jute.OpMulti, undecodable), jute.MarshallingError, 1},
		{"an empty multi", write(jute.OpMulti, jute.MultiEnd.Append(nil)), jute.OK, 1},
		{"reconfig", write(jute.OpReconfig, (&jute.ReconfigRequest{}).Append(nil)), jute.ReconfigDisabled, 1},
		{"createTTL", write(jute.OpCreateTTL, (&jute.CreateTTLRequest{CreateRequest: jute.CreateRequest{
			Path: "/t", ACL: jute.OpenACL, Flags: jute.FlagPersistentTTL}, TTLMs: 5}).Append(nil)), jute.Unimplemented, 1},
		{"createTTL of a mode without", write(jute.OpCreateTTL, (&jute.CreateTTLRequest{CreateRequest: jute.CreateRequest{
			Path: "/t", ACL: jute.OpenACL}, TTLMs: 5}).Append(nil)), jute.BadArguments, 1},
		{"create of an unknown mode", write(jute.OpCreate, createBody("/c", "", 7)), jute.BadArguments, 1},
		{"create with a time to live", write(jute.OpCreate, createBody("/c", "", jute.FlagPersistentTTL)), jute.Unimplemented, 1},
		{"a multi with a null ACL", write(jute.OpMulti, multiBody(jute.OpCreate, nullACLBody("/c", 0))), jute.MarshallingError, 0},
		{"a multi with an unknown mode and a null ACL", write(jute.OpMulti, multiBody(jute.OpCreate, nullACLBody("/c", 7))), jute.MarshallingError, 1},
		{"a multi with a time to live", write(jute.OpMulti, multiBody(jute.OpCreate, createBody("/c", "", jute.FlagPersistentTTL))), jute.MarshallingError, 1},
		{"check alone", write(jute.OpCheck, deleteBody("/")), jute.Unimplemented, 0},
		{"deleteContainer from a client", write(jute.OpDeleteContainer, deleteBody("/")), jute.Unimplemented, 0},
		{"a read", write(jute.OpGetData, nil), jute.Unimplemented, 0},
	} {
		m := withSession(t)
		before := m.LastZxid()
		r := apply(m, c.r)
		if r.Code != c.code || r.Zxid != before+c.takes || m.LastZxid() != r.Zxid {
			t.Errorf("%s: %v, zxid +%d; want %v, +%d", c.name, r.Code, r.Zxid-before, c.code, c.takes)
		}
	}
	m := New()
	if r := apply(m, Request{Kind: 77}); !r.Skipped {
		t.Errorf("an unknown kind: %+v", r)
	}
}

// A null path is not an empty one: ZooKeeper has nothing to look at where it needs one, and fails.
func TestNullPath(t *testing.T) {
	null := func(body []byte) []byte { // body's path is empty
		return append(jute.AppendInt32(nil, -1), body[4:]...)
	}
	version := (&jute.PathVersionRequest{Version: -1}).Append(nil)
	acls := (&jute.SetACLRequest{ACL: jute.OpenACL, Version: -1}).Append(nil)
	for _, c := range []struct {
		r    Request
		code jute.Code
	}{
		{write(jute.OpCreate, createBody("", "", 0)), jute.MarshallingError},
		{write(jute.OpCreate, createBody("", "", 7)), jute.BadArguments},
		{write(jute.OpDelete, version), jute.MarshallingError},
		{write(jute.OpSetData, (&jute.SetDataRequest{Version: -1}).Append(nil)), jute.BadArguments},
		{write(jute.OpSetACL, acls), jute.BadArguments},
		{write(jute.OpMulti, multiBody(jute.OpCheck, null(version))), jute.MarshallingError},
		{write(jute.OpMulti, multiBody(jute.OpSetData, null((&jute.SetDataRequest{Version: -1}).Append(nil)))), jute.MarshallingError},
	} {
		if c.r.Op != jute.OpMulti {
			c.r.Body = null(c.r.Body)
		}
		m := withSession(t)
		before := m.LastZxid()
		if r := apply(m, c.r); r.Code != c.code || r.Zxid != before+1 {
			t.Errorf("%v: %v, zxid +%d; want %v, +1", c.r.Op, r.Code, r.Zxid-before, c.code)
		}
	}
	m := withSession(t)
	for _, op := range []jute.OpCode{jute.OpExists, jute.OpGetData, jute.OpGetChildren, jute.OpGetChildren2, jute.OpGetACL, jute.OpGetAllChildrenNum} {
		body := null((&jute.PathWatchRequest{}).Append(nil))
		if _, code, _ := m.HandleRead(op, body, nil, 1); code != jute.MarshallingError {
			t.Errorf("%v: %v", op, code)
		}
	}
	if _, code, _ := m.HandleRead(jute.OpGetEphemerals, jute.AppendInt32(nil, -1), nil, 1); code != jute.OK {
		t.Errorf("getEphemerals: %v", code)
	}
}

// What a multiRead answers that fails as a whole.
func TestMultiReadThatFails(t *testing.T) {
	entry := func(op jute.OpCode, record []byte) []byte {
		header := jute.MultiHeader{Type: op, Err: -1}
		return append(header.Append(nil), record...)
	}
	read := entry(jute.OpGetChildren, (&jute.PathWatchRequest{Path: "/none"}).Append(nil))
	nullRead := entry(jute.OpGetData, append(jute.AppendInt32(nil, -1), 0))
	write := entry(jute.OpDelete, deleteBody("/a"))
	end := jute.MultiEnd.Append(nil)
	noNode := jute.ErrorResponse{Err: jute.NoNode}
	answered := noNode.Append((&jute.MultiHeader{Type: jute.OpError, Err: jute.NoNode}).Append(nil))
	for name, c := range map[string]struct{ body, reply []byte }{
		"writes":            {slices.Concat(write, end), end},
		"a read and writes": {slices.Concat(read, write, end), nil},
		"writes and a read": {slices.Concat(write, read, end), nil},
		"a null path":       {slices.Concat(read, nullRead, read, end), slices.Concat(answered, end)},
		"cut short":         {slices.Concat(read, read[:12]), nil},
		"an unknown op":     {slices.Concat(entry(77, nil), end), nil},
	} {
		reply, code, _ := withSession(t).HandleRead(jute.OpMultiRead, c.body, nil, 1)
		if code != jute.MarshallingError || !bytes.Equal(reply, c.reply) {
			t.Errorf("%s: %v %x, want %x", name, code, reply, c.reply)
		}
	}
}

func TestSizeCountsCharacters(t *testing.T) {
	m := withSession(t)
	before := m.ApproximateDataSize()
	mustCreate(t, m, "/日本", 0)
	if grown := m.ApproximateDataSize() - before; grown != 3 {
		t.Errorf("grown by %d", grown)
	}
}

func nullACLBody(path string, flags jute.CreateFlags) []byte {
	return (&jute.CreateRequest{Path: path, Flags: flags}).Append(nil)
}

// multiBody is a multi of one operation.
func multiBody(op jute.OpCode, record []byte) []byte {
	header := jute.MultiHeader{Type: op, Err: -1}
	return jute.MultiEnd.Append(append(header.Append(nil), record...))
}

// The operation says whether a node is a container, the mode whether it is ephemeral and what it is called; in a multi the
// mode has a say in which operation it is.
func TestOperationAndModeNeedNotMatch(t *testing.T) {
	ttlBody := func(path string, flags jute.CreateFlags) []byte {
		return jute.AppendInt64(createBody(path, "", flags), 5)
	}
	for _, c := range []struct {
		name      string
		r         Request
		path      string
		container bool
		owned     bool
		reply     jute.OpCode // of a multi
	}{
		{"create of a container", write(jute.OpCreate, createBody("/n", "", jute.FlagContainer)), "/n", false, false, 0},
		{"container of an ephemeral", write(jute.OpCreateContainer, createBody("/n", "", jute.FlagEphemeral)), "/n", true, false, 0},
		{"container of a sequence", write(jute.OpCreateContainer, createBody("/n", "", jute.FlagPersistentSequential)), "/n0000000000", true, false, 0},
		{"multi: create of a container", write(jute.OpMulti, multiBody(jute.OpCreate, createBody("/n", "", jute.FlagContainer))), "/n", true, false, jute.OpCreate2},
		{"multi: container of an ephemeral", write(jute.OpMulti, multiBody(jute.OpCreateContainer, createBody("/n", "", jute.FlagEphemeral))), "/n", true, false, jute.OpCreate2},
		{"multi: createTTL without one", write(jute.OpMulti, multiBody(jute.OpCreateTTL, ttlBody("/n", jute.FlagEphemeral))), "/n", false, true, jute.OpCreate},
	} {
		m := withSession(t)
		r := apply(m, c.r)
		stat, exists := m.Exists(c.path)
		if r.Code != jute.OK || !exists || stat.EphemeralOwner != 0 != c.owned {
			t.Errorf("%s: %v, exists %v, %+v", c.name, r.Code, exists, stat)
			continue
		}
		if _, container := m.containers[m.tree.lookup(c.path)]; container != c.container {
			t.Errorf("%s: container %v", c.name, container)
		}
		if d := jute.NewDecoder(r.Reply); c.reply != 0 && jute.OpCode(d.Int32()) != c.reply {
			t.Errorf("%s: the reply is of another operation: %x", c.name, r.Reply)
		}
	}
}

func TestMultiRefusesForeignOps(t *testing.T) {
	for _, op := range []jute.OpCode{jute.OpGetData, jute.OpSetACL, jute.OpReconfig, jute.OpMulti, jute.OpDeleteContainer, jute.OpCreateSession} {
		body := (&jute.MultiHeader{Type: op, Err: -1}).Append(nil)
		body = jute.MultiEnd.Append(append(body, make([]byte, 64)...))
		if r := apply(withSession(t), write(jute.OpMulti, body)); r.Code != jute.MarshallingError || r.Reply != nil {
			t.Errorf("%v: %+v", op, r)
		}
	}
}

func TestMultiSeesItself(t *testing.T) {
	m := withSession(t)
	body := []byte{}
	add := func(op jute.OpCode, record []byte) {
		body = append((&jute.MultiHeader{Type: op, Err: -1}).Append(body), record...)
	}
	add(jute.OpCreate, createBody("/a", "x", 0))
	add(jute.OpCreate2, createBody("/a/s", "", jute.FlagPersistentSequential))
	add(jute.OpCreate2, createBody("/a/s", "", jute.FlagPersistentSequential))
	add(jute.OpSetData, (&jute.SetDataRequest{Path: "/a", Data: []byte("yy"), Version: 0}).Append(nil))
	add(jute.OpCheck, (&jute.PathVersionRequest{Path: "/a", Version: 1}).Append(nil))
	add(jute.OpDelete, deleteBody("/a/s0000000000"))
	r := apply(m, write(jute.OpMulti, jute.MultiEnd.Append(body)))
	stat, _ := m.Exists("/a")
	z := r.Zxid
	want := jute.Stat{Czxid: z, Mzxid: z, Pzxid: z, Ctime: 1000, Mtime: 1000, Version: 1, Cversion: 3, DataLength: 2, NumChildren: 1}
	if r.Code != jute.OK || stat != want {
		t.Fatalf("%v, %+v, want %+v", r.Code, stat, want)
	}
	d := jute.NewDecoder(r.Reply)
	var types []jute.OpCode
	jute.EachMulti(&d, func(h jute.MultiHeader) bool {
		types = append(types, h.Type)
		switch h.Type {
		case jute.OpCreate:
			_ = d.String()
		case jute.OpCreate2:
			var c jute.Create2Response
			c.Decode(&d)
		case jute.OpSetData:
			d.Skip(jute.StatBytes)
		}
		return true
	})
	if d.Err() != nil || !slices.Equal(types, []jute.OpCode{1, 15, 15, 5, 13, 2}) || len(d.Rest()) != 0 {
		t.Errorf("%v %v", types, d.Err())
	}
	if len(r.Events) != 9 {
		t.Errorf("%d events", len(r.Events))
	}
}

// TestCreateCounterAtItsEnd: ZooKeeper's stored counter sticks at 2147483647, so the next sequential name is taken.
func TestCreateCounterAtItsEnd(t *testing.T) {
	m := withSession(t)
	mustCreate(t, m, "/q", 0)
	mustCreate(t, m, "/q/first", 0)
	m.tree.touchChildren(m.tree.lookup("/q"), math.MaxInt32-1, 5)
	if got := mustCreate(t, m, "/q/", jute.FlagPersistentSequential); got != "/q/2147483646" {
		t.Error(got)
	}
	if got := mustCreate(t, m, "/q/", jute.FlagPersistentSequential); got != "/q/2147483647" {
		t.Error(got)
	}
	if r := apply(m, write(jute.OpCreate, createBody("/q/", "", jute.FlagPersistentSequential))); r.Code != jute.NodeExists {
		t.Error(r.Code)
	}
	mustCreate(t, m, "/q/other", 0)
	if stat, _ := m.Exists("/q"); stat.Pzxid != m.LastZxid() {
		t.Error("pzxid does not move any more")
	}
	restored(t, m)
}

func TestContainersAreReaped(t *testing.T) {
	m := withSession(t)
	for _, path := range []string{"/c", "/b", "/never", "/full"} {
		mustCreate(t, m, path, jute.FlagContainer)
	}
	mustCreate(t, m, "/plain", 0)
	for _, path := range []string{"/b", "/c", "/full", "/plain"} {
		mustCreate(t, m, path+"/x", 0)
	}
	for _, path := range []string{"/b/x", "/c/x", "/plain/x"} {
		if r := apply(m, write(jute.OpDelete, deleteBody(path))); r.Code != jute.OK {
			t.Fatal(path, r.Code)
		}
	}
	if stat, _ := m.Exists("/c"); stat.EphemeralOwner != 0 {
		t.Errorf("a container shows owner %d", stat.EphemeralOwner)
	}
	m = restored(t, m)
	if got := m.ReapCandidates(0, 10); !slices.Equal(got, []string{"/b", "/c"}) {
		t.Errorf("candidates %q", got)
	}
	if got := m.ReapCandidates(0, 1); !slices.Equal(got, []string{"/b"}) {
		t.Errorf("candidates %q", got)
	}
	for path, reaped := range map[string]bool{"/c": true, "/full": false, "/never": false, "/plain": false, "/none": false, "": false} {
		before := m.LastZxid()
		r := apply(m, Request{Kind: KindDeleteContainer, Path: path})
		if r.Skipped == reaped || m.LastZxid() > before != reaped || len(r.Events) > 0 != reaped {
			t.Errorf("%q: %+v", path, r)
		}
	}
}

func TestReads(t *testing.T) {
	m := withSession(t)
	list := []jute.ACL{{Perms: jute.PermAll, ID: alice}, {Perms: jute.PermRead, ID: jute.ID{Scheme: "ip", ID: "10.0.0.0/8"}}}
	body := (&jute.CreateRequest{Path: "/a", Data: []byte("x"), ACL: list}).Append(nil)
	if r := apply(m, write(jute.OpCreate, body)); r.Code != jute.OK {
		t.Fatal(r.Code)
	}
	for _, path := range []string{"/e", "/e2", "/d"} {
		mustCreate(t, m, path, jute.FlagEphemeral)
	}
	near := jute.ID{Scheme: "ip", ID: "10.1.2.3"}
	far := jute.ID{Scheme: "ip", ID: "11.1.2.3"}
	for _, c := range []struct {
		op   jute.OpCode
		path string
		auth []jute.ID
		code jute.Code
		kind watch.Kind
	}{
		{jute.OpGetData, "/a", nil, jute.NoAuth, watch.None},
		{jute.OpGetData, "/a", []jute.ID{far}, jute.NoAuth, watch.None},
		{jute.OpGetData, "/a", []jute.ID{near}, jute.OK, watch.Data},
		{jute.OpGetData, "/a", []jute.ID{far, alice}, jute.OK, watch.Data},
		{jute.OpGetData, "/a", []jute.ID{{Scheme: "super"}}, jute.OK, watch.Data},
		{jute.OpGetData, "", nil, jute.OK, watch.Data},
		{jute.OpGetData, "abc", nil, jute.NoNode, watch.None},
		{jute.OpGetData, "/a/", nil, jute.NoNode, watch.None},
		{jute.OpExists, "/a", nil, jute.NoAuth, watch.None},
		{jute.OpExists, "/none", nil, jute.NoNode, watch.Exists},
		{jute.OpExists, "/e", nil, jute.OK, watch.Exists},
		{jute.OpExists, "/nul\x00", nil, jute.BadArguments, watch.None},
		{jute.OpGetChildren, "/none", nil, jute.NoNode, watch.None},
		{jute.OpGetChildren, "/", nil, jute.OK, watch.Child},
		{jute.OpGetChildren2, "/a", []jute.ID{near}, jute.OK, watch.Child},
		{jute.OpGetACL, "/a", nil, jute.NoAuth, watch.None},
		{jute.OpGetACL, "/a", []jute.ID{near}, jute.OK, watch.None},
		{jute.OpGetAllChildrenNum, "/a", nil, jute.NoAuth, watch.None},
		{jute.OpGetAllChildrenNum, "/none", nil, jute.NoNode, watch.None},
		{jute.OpSync, "/", nil, jute.Unimplemented, watch.None},
	} {
		request := jute.PathWatchRequest{Path: c.path, Watch: true}
		reply, code, reg := m.HandleRead(c.op, request.Append(nil), c.auth, 1)
		if code != c.code || reg.Kind != c.kind || reg.Kind != watch.None && reg.Path != c.path || code != jute.OK && len(reply) > 0 {
			t.Errorf("%v %q %v: %v, watch %v; want %v, %v", c.op, c.path, c.auth, code, reg, c.code, c.kind)
		}
		request.Watch = false
		if _, _, reg := m.HandleRead(c.op, request.Append(nil), c.auth, 1); reg.Kind != watch.None {
			t.Errorf("%v %q sets a watch nobody asked for", c.op, c.path)
		}
		if _, code, reg := m.HandleRead(c.op, []byte{0, 0}, c.auth, 1); c.op != jute.OpSync && (code != jute.MarshallingError || reg.Kind != watch.None) {
			t.Errorf("%v of garbage: %v", c.op, code)
		}
	}
	shown := func(auth ...jute.ID) []jute.ACL {
		reply, _, _ := m.HandleRead(jute.OpGetACL, (&jute.PathRequest{Path: "/a"}).Append(nil), auth, 1)
		d := jute.NewDecoder(reply)
		return jute.DecodeACLs(&d)
	}
	if got := shown(near); got[0].ID.ID != "alice:x" {
		t.Errorf("the password is shown: %v", got)
	}
	if got := shown(alice); got[0].ID != alice {
		t.Errorf("the password is hidden: %v", got)
	}
	ephemerals := func(prefix string) string {
		reply, _, _ := m.HandleRead(jute.OpGetEphemerals, (&jute.PathRequest{Path: prefix}).Append(nil), nil, 1)
		d := jute.NewDecoder(reply)
		return strings.Join(d.Strings(), " ")
	}
	for prefix, want := range map[string]string{"": "/d /e /e2", "/": "/d /e /e2", " /\t": "/d /e /e2", "/e": "/e /e2", "/x": "", "/ e": ""} {
		if got := ephemerals(prefix); got != want {
			t.Errorf("ephemerals of %q: %s", prefix, got)
		}
	}
	for path, want := range map[string]int32{"/": 7, "/zookeeper": 2, "/d": 0} {
		reply, _, _ := m.HandleRead(jute.OpGetAllChildrenNum, (&jute.PathRequest{Path: path}).Append(nil), nil, 1)
		if d := jute.NewDecoder(reply); d.Int32() != want {
			t.Errorf("below %q: %x, want %d", path, reply, want)
		}
	}
}

func TestMultiRead(t *testing.T) {
	m := withSession(t)
	mustCreate(t, m, "/a", 0)
	entry := func(op jute.OpCode, path string) []byte {
		r := jute.PathWatchRequest{Path: path, Watch: true}
		return r.Append((&jute.MultiHeader{Type: op, Err: -1}).Append(nil))
	}
	body := slices.Concat(entry(jute.OpGetData, "/a"), entry(jute.OpGetData, "/none"), entry(jute.OpGetChildren, "/zookeeper"), jute.MultiEnd.Append(nil))
	reply, code, reg := m.AppendRead([]byte("before"), jute.OpMultiRead, body, nil, 1)
	if code != jute.OK || reg.Kind != watch.None || !bytes.HasPrefix(reply, []byte("before")) {
		t.Fatal(code, reg)
	}
	stat, _ := m.Exists("/a")
	want := (&jute.MultiHeader{Type: jute.OpGetData}).Append([]byte("before"))
	want = (&jute.GetDataResponse{Data: []byte{}, Stat: stat}).Append(want)
	want = (&jute.ErrorResponse{Err: jute.NoNode}).Append((&jute.MultiHeader{Type: -1, Err: jute.NoNode}).Append(want))
	want = jute.AppendStrings((&jute.MultiHeader{Type: jute.OpGetChildren}).Append(want), []string{"config", "quota"})
	if want = jute.MultiEnd.Append(want); !bytes.Equal(reply, want) {
		t.Errorf("%x, want %x", reply, want)
	}
	for _, bad := range [][]byte{entry(jute.OpExists, "/a"), entry(jute.OpGetData, "/a"), nil} {
		if reply, code, _ := m.AppendRead([]byte("before"), jute.OpMultiRead, bad, nil, 1); code != jute.MarshallingError || string(reply) != "before" {
			t.Errorf("%x: %v %q", bad, code, reply)
		}
	}
}

func TestValidPath(t *testing.T) {
	for path, want := range map[string]bool{
		"/": true, "/a": true, "/a/b": true, "/a.b": true, "/..a": true, "/a/...": true, "/ä/日本": true, "/\u009f": false,
		"": false, "a": false, "/a/": false, "//": false, "/a//b": false, "/.": false, "/..": false, "/./a": false,
		"/a/..": false, "/a/../b": false, "/\x00": false, "/\x1f": false, "/\x7f": false, "/\ud7ff": true, "/\ue000": false,
		"/\uf8ff": false, "/\uf900": true, "/\uffef": true, "/\ufff0": false, "/\xff": false, "/\U00010000": false, "/ ": true,
	} {
		if got := ValidPath(path); got != want {
			t.Errorf("%q: %v", path, got)
		}
	}
}

func TestACLs(t *testing.T) {
	if id := DigestID("super:test"); id.ID != "super:D/InIHSb7yEEbrWz8b9l71RjZJU=" {
		t.Error(id)
	}
	if id := DigestID("foo"); id.ID != "foo:C+7Hteo/D9vJXQ3UfzxbwnXaijM=" {
		t.Error(id)
	}
	ip := jute.ID{Scheme: "ip", ID: "127.0.0.1"}
	for _, c := range []struct {
		id   jute.ID
		auth []jute.ID
		ok   bool
	}{
		{jute.ID{Scheme: "world", ID: "anyone"}, nil, true},
		{jute.ID{Scheme: "world", ID: "me"}, nil, false},
		{jute.ID{Scheme: "auth"}, nil, false},
		{jute.ID{Scheme: "auth"}, []jute.ID{ip}, false},
		{jute.ID{Scheme: "auth"}, []jute.ID{ip, alice}, true},
		{jute.ID{Scheme: "digest", ID: "a:b"}, nil, true},
		{jute.ID{Scheme: "digest", ID: "a:b:"}, nil, true},
		{jute.ID{Scheme: "digest", ID: "a"}, nil, false},
		{jute.ID{Scheme: "digest", ID: "a:"}, nil, false},
		{jute.ID{Scheme: "digest", ID: "a:b:c"}, nil, false},
		{jute.ID{Scheme: "ip", ID: "1.2.3.4"}, nil, true},
		{jute.ID{Scheme: "ip", ID: "1.2.3.4/24"}, nil, true},
		{jute.ID{Scheme: "ip", ID: "1.2.3.4/33"}, nil, false},
		{jute.ID{Scheme: "ip", ID: "1.2.3"}, nil, false},
		{jute.ID{Scheme: "ip", ID: "::1/64"}, nil, true},
		{jute.ID{Scheme: "super", ID: ""}, nil, false},
		{jute.ID{Scheme: "sasl", ID: "kafka"}, nil, false},
	} {
		if _, code := resolveACL([]jute.ACL{{Perms: 1, ID: c.id}}, c.auth); (code == jute.OK) != c.ok {
			t.Errorf("%v with %v: %v", c.id, c.auth, code)
		}
	}
	for expression, want := range map[string]bool{
		"10.0.0.1": true, "10.0.0.2": false, "10.0.0.0/8": true, "0.0.0.0/0": true, "::/0": false, "10.0.0.9/28": true,
	} {
		if got := ipMatches("10.0.0.1", expression); got != want {
			t.Errorf("10.0.0.1 and %s: %v", expression, got)
		}
	}
	twice := []jute.ACL{jute.ReadOnlyACL[0], {Perms: 31, ID: alice}, jute.ReadOnlyACL[0]}
	if got, _ := resolveACL(twice, nil); !slices.Equal(got, twice[:2]) {
		t.Errorf("%v", got)
	}
}

// TestACLTableForgets checks that lists nobody uses any more are dropped.
func TestACLTableForgets(t *testing.T) {
	m := withSession(t)
	mustCreate(t, m, "/a", 0)
	for i := range 100 {
		list := []jute.ACL{{Perms: 31, ID: jute.ID{Scheme: "world", ID: "anyone"}}, {Perms: int32(i % 32), ID: alice}}
		body := (&jute.SetACLRequest{Path: "/a", ACL: list, Version: -1}).Append(nil)
		if r := apply(m, write(jute.OpSetACL, body)); r.Code != jute.OK {
			t.Fatal(r.Code)
		}
	}
	if len(m.acls.byKey) != 2 || len(m.acls.lists) > 4 { // /zookeeper/config's and /a's
		t.Errorf("%d lists known, %d kept", len(m.acls.byKey), len(m.acls.lists))
	}
	if r := apply(m, write(jute.OpDelete, deleteBody("/a"))); r.Code != jute.OK || len(m.acls.byKey) != 1 {
		t.Errorf("%v, %d lists", r.Code, len(m.acls.byKey))
	}
}

func TestSnapshotDamage(t *testing.T) {
	m := run(t, 5, 300, nil)
	var buf bytes.Buffer
	s := m.Freeze()
	if _, err := s.WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := s.WriteTo(&buf); err == nil {
		t.Error("a closed snapshot can be written")
	}
	whole := buf.Bytes()
	step := max(1, len(whole)/2000)
	for at := 0; at < len(whole); at += step {
		broken := slices.Clone(whole)
		broken[at] ^= 0x10
		if _, err := Restore(bytes.NewReader(broken)); !errors.Is(err, ErrSnapshotDamaged) && !errors.Is(err, ErrSnapshotVersion) {
			t.Fatalf("byte %d of %d changed: %v", at, len(whole), err)
		}
		if _, err := Restore(bytes.NewReader(whole[:at])); !errors.Is(err, ErrSnapshotDamaged) {
			t.Fatalf("cut at %d of %d: %v", at, len(whole), err)
		}
	}
	newer := slices.Clone(whole)
	newer[len(snapshotMagic)+3]++
	if _, err := Restore(bytes.NewReader(newer)); !errors.Is(err, ErrSnapshotVersion) {
		t.Error(err)
	}
}
