package znode_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/watch"
	"understudy/internal/coordination/znode"
)

// TestAgainstTheOriginal sends the same random requests, pipelined by nobody, to a fresh Apache ZooKeeper and to a
// Machine with a watch table, and compares every reply and every event. Zxids are compared as distances from the first
// one, so what takes a zxid is compared too.
//
//	UNDERSTUDY_FRESH_ZOOKEEPER=127.0.0.1:2181 go test -run Original ./internal/coordination/znode
func TestAgainstTheOriginal(t *testing.T) {
	address := os.Getenv("UNDERSTUDY_FRESH_ZOOKEEPER")
	if address == "" {
		t.Skip("UNDERSTUDY_FRESH_ZOOKEEPER does not name an Apache ZooKeeper server that was just started on an empty directory")
	}
	rng := rand.New(rand.NewSource(time.Now().UnixNano()))
	if text := os.Getenv("UNDERSTUDY_SEED"); text != "" {
		var seed int64
		_, _ = fmt.Sscan(text, &seed)
		rng = rand.New(rand.NewSource(seed))
	}
	ours := &model{machine: znode.New(), table: watch.New[int](), events: map[int][]string{}}
	theirs := map[int]*peer{}
	for i := range 3 {
		theirs[i] = ours.join(t, address, i)
	}
	for step := range 6000 {
		i := rng.Intn(3)
		if rng.Intn(400) == 0 {
			if want, got := theirs[i].do(t, jute.OpCloseSession, nil), ours.do(i, jute.OpCloseSession, nil); got != want {
				t.Fatalf("step %d close: got %s, want %s", step, got, want)
			}
			delete(theirs, i)
			compareEvents(t, step, theirs, ours, true) // the original deletes in the order of a hash set
			theirs[i] = ours.join(t, address, i)
			continue
		}
		op, body, what := randomRequest(rng)
		want, got := theirs[i].do(t, op, body), ours.do(i, op, body)
		if got != want {
			t.Fatalf("step %d connection %d %v %s:\n got  %s\n want %s", step, i, op, what, got, want)
		}
		compareEvents(t, step, theirs, ours, false)
	}
}

func compareEvents(t *testing.T, step int, theirs map[int]*peer, ours *model, anyOrder bool) {
	t.Helper()
	for i, p := range theirs {
		p.do(t, jute.OpPing, nil)
		if anyOrder {
			slices.Sort(p.events)
			slices.Sort(ours.events[i])
		}
		if !slices.Equal(p.events, ours.events[i]) {
			t.Fatalf("step %d connection %d: events\n got  %q\n want %q", step, i, ours.events[i], p.events)
		}
		p.events, ours.events[i] = nil, nil
	}
}

// model is our side: what a server makes of a Machine and a Table.
type model struct {
	machine  *znode.Machine
	table    *watch.Table[int]
	sessions [3]jute.SessionID
	auth     [3][]jute.ID
	events   map[int][]string
	names    map[jute.SessionID]string
}

func (m *model) apply(r znode.Request) (res znode.Result) {
	m.machine.Apply(0, &znode.Batch{Requests: []znode.Request{r}}, func(_ int, got *znode.Result) {
		res = *got
		for _, e := range got.Events {
			for _, i := range m.table.Fire(nil, e.Type, e.Path) {
				if e.ReadableBy(m.auth[i]) {
					m.events[i] = append(m.events[i], fmt.Sprint(e.Type, " ", e.Path, " ", e.Zxid))
				}
			}
		}
	})
	return res
}

// join makes connection i on both sides.
func (m *model) join(t *testing.T, address string, i int) *peer {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	p := &peer{conn: c, model: m}
	p.send((&jute.ConnectRequest{TimeoutMs: 40_000, Password: make([]byte, 16)}).Append(nil))
	d := jute.NewDecoder(p.receive(t))
	var r jute.ConnectResponse
	r.Decode(&d)
	if m.sessions[i] = r.SessionID; d.Err() != nil || r.SessionID == 0 {
		t.Fatal(r, d.Err())
	}
	if m.names == nil {
		m.names = map[jute.SessionID]string{}
	}
	m.names[r.SessionID] = fmt.Sprint("session of ", i)
	m.apply(znode.Request{Kind: znode.KindCreateSession, Session: r.SessionID})
	m.auth[i] = []jute.ID{{Scheme: "ip", ID: "127.0.0.1"}}
	if i < 2 {
		user := []string{"alice:secret", "bob:secret"}[i]
		m.auth[i] = append(m.auth[i], znode.DigestID(user))
		p.do(t, jute.OpAuth, (&jute.AuthPacket{Scheme: "digest", Auth: []byte(user)}).Append(nil))
	}
	return p
}

func (m *model) do(i int, op jute.OpCode, body []byte) string {
	d := jute.NewDecoder(body)
	code, reply := jute.OK, []byte(nil)
	switch op {
	case jute.OpCloseSession:
		r := m.apply(znode.Request{Kind: znode.KindCloseSession, Session: m.sessions[i], Generation: 1})
		m.table.RemoveAll(i)
		m.events[i] = nil
		return m.show(op, r.Code, r.Zxid, nil)
	case jute.OpAddWatch:
		var r jute.AddWatchRequest
		r.Decode(&d)
		if code = m.table.AddWatch(&r, i); code == jute.OK {
			reply = (&jute.ErrorResponse{}).Append(nil)
		}
	case jute.OpCheckWatches, jute.OpRemoveWatches:
		var r jute.WatcherRequest
		r.Decode(&d)
		if op == jute.OpCheckWatches {
			code = m.table.Check(r.Type, r.Path, i)
		} else {
			code = m.table.Remove(r.Type, r.Path, i)
		}
	case jute.OpSetWatches2:
		var r jute.SetWatches
		r.Decode(&d)
		for _, e := range m.table.Restore(nil, &r, i, m.machine.NodeZxids) {
			m.events[i] = append(m.events[i], fmt.Sprint(e.Type, " ", e.Path, " ", -1))
		}
	case jute.OpExists, jute.OpGetData, jute.OpGetACL, jute.OpGetChildren, jute.OpGetChildren2, jute.OpMultiRead,
		jute.OpGetEphemerals, jute.OpGetAllChildrenNum:
		var reg znode.WatchRegistration
		reply, code, reg = m.machine.HandleRead(op, body, m.auth[i], m.sessions[i])
		m.table.Add(reg.Kind, reg.Path, i)
	default:
		r := m.apply(znode.Request{Kind: znode.KindOp, Session: m.sessions[i], Generation: 1, Op: op, Body: body, Auth: m.auth[i]})
		return m.show(op, r.Code, r.Zxid, r.Reply)
	}
	return m.show(op, code, m.machine.LastZxid(), reply)
}

// peer is a connection to the original.
type peer struct {
	conn   net.Conn
	model  *model
	events []string
}

func (p *peer) send(payload []byte) {
	frame := jute.EndFrame(append(jute.BeginFrame(nil), payload...), 0)
	_, _ = p.conn.Write(frame)
}

func (p *peer) receive(t *testing.T) []byte {
	t.Helper()
	_ = p.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	var size [4]byte
	if _, err := io.ReadFull(p.conn, size[:]); err != nil {
		t.Fatal(err)
	}
	payload := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(p.conn, payload); err != nil {
		t.Fatal(err)
	}
	return payload
}

func (p *peer) do(t *testing.T, op jute.OpCode, body []byte) string {
	t.Helper()
	p.send(append((&jute.RequestHeader{Xid: 7, Type: op}).Append(nil), body...))
	for {
		d := jute.NewDecoder(p.receive(t))
		var h jute.ReplyHeader
		h.Decode(&d)
		if h.Xid != jute.XidNotification {
			return p.model.show(op, h.Err, h.Zxid, d.Rest())
		}
		var e jute.WatcherEvent
		e.Decode(&d)
		p.events = append(p.events, fmt.Sprint(e.Type, " ", e.Path, " ", int64(h.Zxid)))
	}
}

// show writes a reply without what must differ: times, and the order of lists.
func (m *model) show(op jute.OpCode, code jute.Code, zxid jute.Zxid, reply []byte) string {
	d := jute.NewDecoder(reply)
	text := fmt.Sprintf("%v zxid %d", code, zxid)
	if code == jute.OK && len(reply) > 0 {
		text += m.body(op, &d)
	}
	if d.Err() != nil || len(d.Rest()) > 0 {
		text += fmt.Sprintf(" %v, %x left", d.Err(), d.Rest())
	}
	return text
}

func (m *model) body(op jute.OpCode, d *jute.Decoder) string {
	stat := func() string {
		var s jute.Stat
		s.Decode(d)
		changed := s.Ctime > s.Mtime
		s.Ctime, s.Mtime = 0, 0
		return fmt.Sprintf(" %+v %v %s", s, changed, m.names[s.EphemeralOwner])
	}
	names := func() string {
		list := d.Strings()
		slices.Sort(list)
		return fmt.Sprintf(" %q", list)
	}
	switch op {
	case jute.OpCreate:
		return " " + d.String()
	case jute.OpCreate2, jute.OpCreateContainer:
		return " " + d.String() + stat()
	case jute.OpExists, jute.OpSetData, jute.OpSetACL:
		return stat()
	case jute.OpGetData:
		data := d.BufferView()
		return fmt.Sprintf(" %v %q%s", data == nil, data, stat())
	case jute.OpGetChildren, jute.OpGetEphemerals:
		return names()
	case jute.OpGetChildren2:
		return names() + stat()
	case jute.OpGetACL:
		return fmt.Sprint(" ", jute.DecodeACLs(d), stat())
	case jute.OpGetAllChildrenNum, jute.OpAddWatch:
		return fmt.Sprint(" ", d.Int32())
	case jute.OpMulti, jute.OpMultiRead:
		text := ""
		jute.EachMulti(d, func(h jute.MultiHeader) bool {
			text += fmt.Sprint(" | ", int32(h.Type), " ", int32(h.Err))
			switch h.Type {
			case jute.OpError:
				text += fmt.Sprint(" ", d.Int32())
			case jute.OpDelete, jute.OpCheck:
			default:
				text += m.body(h.Type, d)
			}
			return true
		})
		return text
	}
	return ""
}

func randomRequest(rng *rand.Rand) (op jute.OpCode, body []byte, what string) {
	name := func() string { return string(rune('a' + rng.Intn(3))) }
	path := func() string {
		odd := []string{"", "/", "a", "/a/", "//a", "/a//b", "/.", "/a/..", "/zookeeper", "/zookeeper/quota", "/zookeeper/config",
			"/nul\x00", "/\x01", "/\x7f", "/\u0080", "/\ue000", "/ä", "/a.b", "/..c", "a/b"}
		if rng.Intn(12) == 0 {
			return odd[rng.Intn(len(odd))]
		}
		p := ""
		for range 1 + rng.Intn(3) {
			p += "/" + name()
		}
		return p
	}
	data := func() []byte {
		switch rng.Intn(4) {
		case 0:
			return nil
		case 1:
			return []byte{}
		}
		return []byte(strings.Repeat("d", rng.Intn(9)))
	}
	single := true
	acl := func() []jute.ACL {
		alice, bob := znode.DigestID("alice:secret"), znode.DigestID("bob:secret")
		perms := int32(rng.Intn(32))
		switch rng.Intn(30) {
		case 0:
			if single { // in a multi the original answers a null list with -5 for the whole
				return nil
			}
		case 1:
			return []jute.ACL{}
		case 2:
			return []jute.ACL{{Perms: 31, ID: jute.ID{Scheme: "nonsense", ID: "x"}}}
		case 3:
			return []jute.ACL{{Perms: perms, ID: jute.ID{Scheme: "auth"}}, jute.ReadOnlyACL[0]}
		case 4:
			return []jute.ACL{{Perms: perms, ID: bob}, {Perms: 31, ID: alice}, {Perms: perms, ID: bob}}
		case 5:
			ips := []string{"127.0.0.1", "127.0.0.0/8", "10.0.0.0/8", "1.2.3", "::1", "1.2.3.4/40", "0.0.0.0/0"}
			return []jute.ACL{{Perms: 31, ID: jute.ID{Scheme: "ip", ID: ips[rng.Intn(len(ips))]}}, {Perms: 31, ID: alice}}
		case 6:
			ids := []string{"a:b", "a", "a:", "a:b:", ":b", "a:b:c", ""}
			return []jute.ACL{{Perms: 31, ID: jute.ID{Scheme: "digest", ID: ids[rng.Intn(len(ids))]}}, jute.OpenACL[0]}
		case 7:
			return []jute.ACL{{Perms: 31, ID: jute.ID{Scheme: "world", ID: "me"}}}
		}
		return jute.OpenACL
	}
	version := func() int32 { return int32(rng.Intn(5)) - 1 - int32(rng.Intn(3)/2) }
	flag := func() jute.CreateFlags { return []jute.CreateFlags{0, 0, 0, 1, 2, 3, 0, 1, 2, 3, 9, 5}[rng.Intn(12)] }
	record := func(op jute.OpCode) []byte {
		p := path()
		what += fmt.Sprintf("%d(%q) ", op, p)
		switch op {
		case jute.OpCreate, jute.OpCreate2:
			r := jute.CreateRequest{Path: p, Data: data(), ACL: acl(), Flags: flag()}
			what += fmt.Sprint(r.Flags, r.ACL == nil, r.ACL)
			return r.Append(nil)
		case jute.OpCreateContainer:
			return (&jute.CreateRequest{Path: p, Data: data(), ACL: acl(), Flags: jute.FlagContainer}).Append(nil)
		case jute.OpDelete, jute.OpCheck:
			return (&jute.PathVersionRequest{Path: p, Version: max(version(), -1)}).Append(nil)
		case jute.OpSetData:
			return (&jute.SetDataRequest{Path: p, Data: data(), Version: max(version(), -1)}).Append(nil)
		case jute.OpSetACL:
			return (&jute.SetACLRequest{Path: p, ACL: acl(), Version: max(version(), -1)}).Append(nil)
		case jute.OpAddWatch:
			return (&jute.AddWatchRequest{Path: p, Mode: jute.AddWatchMode(rng.Intn(3))}).Append(nil)
		case jute.OpCheckWatches, jute.OpRemoveWatches:
			return (&jute.WatcherRequest{Path: p, Type: jute.WatcherType(rng.Intn(7))}).Append(nil)
		case jute.OpSetWatches2:
			lists := [][]string{{}, {}, {}, {}, {}}
			for i := range lists {
				for range rng.Intn(2) {
					lists[i] = append(lists[i], "/"+name())
				}
			}
			return (&jute.SetWatches{RelativeZxid: jute.Zxid(rng.Intn(3000)), Data: lists[0], Exist: lists[1], Child: lists[2],
				Persistent: lists[3], PersistentRecursive: lists[4]}).Append(nil)
		case jute.OpGetACL, jute.OpGetAllChildrenNum:
			return (&jute.PathRequest{Path: p}).Append(nil)
		case jute.OpGetEphemerals:
			return (&jute.PathRequest{Path: []string{"", "/", "/a", "/c/b", p}[rng.Intn(5)]}).Append(nil)
		}
		return (&jute.PathWatchRequest{Path: p, Watch: rng.Intn(2) == 0}).Append(nil)
	}
	many := func(ops ...jute.OpCode) (body []byte) {
		single = false
		for range rng.Intn(5) {
			op := ops[rng.Intn(len(ops))]
			body = append((&jute.MultiHeader{Type: op, Err: -1}).Append(body), record(op)...)
		}
		return jute.MultiEnd.Append(body)
	}
	ops := []jute.OpCode{1, 1, 1, 1, 15, 15, 19, 2, 2, 2, 5, 5, 5, 5, 7, 14, 14, 14, 3, 3, 4, 4, 6, 8, 8, 12, 22, 103, 104, 106, 17, 18, 105, 16, -2}
	switch op = ops[rng.Intn(len(ops))]; op {
	case jute.OpMulti:
		return op, many(1, 1, 15, 19, 2, 5, 5, 13), what
	case jute.OpMultiRead:
		return op, many(4, 8), what
	case jute.OpReconfig:
		return op, (&jute.ReconfigRequest{Joining: "x", CurrentConfigID: -1}).Append(nil), what
	case -2: // a request that ends early
		op = ops[rng.Intn(18)]
		return op, []byte{0, 0, 0, 9, '/'}, "cut short"
	}
	return op, record(op), what
}
