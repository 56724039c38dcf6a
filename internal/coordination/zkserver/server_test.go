package zkserver

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"understudy/internal/coordination/jute"
)

func TestHandshakeReplyHasTheReadOnlyByteOnlyIfAsked(t *testing.T) {
	_, _, addr := start(t, Config{})
	for _, test := range []struct {
		name    string
		request jute.ConnectRequest
		bytes   int
	}{
		{"java", jute.ConnectRequest{TimeoutMs: 5000, Password: make([]byte, 16), HasReadOnly: true}, 37},
		{"go-zookeeper", jute.ConnectRequest{TimeoutMs: 5000, Password: make([]byte, 16)}, 36},
		{"null password", jute.ConnectRequest{TimeoutMs: 5000, HasReadOnly: true}, 37},
		{"clickhouse", jute.ConnectRequest{TimeoutMs: 5000, Password: make([]byte, 16), HasReadOnly: true, ReadOnly: true}, 37},
		{"understudy", jute.ConnectRequest{TimeoutMs: 5000, Password: make([]byte, 16), HasReadOnly: true, HasFastExpiry: true, GraceMs: 100}, 46},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := dialRaw(t, addr)
			r.handshake(test.request)
			if r.handshakeBytes != test.bytes || r.session.ProtocolVersion != 0 || len(r.session.Password) != 16 || r.session.SessionID == 0 {
				t.Errorf("%d bytes, expected %d: %+v", r.handshakeBytes, test.bytes, r.session)
			}
			if test.request.HasFastExpiry && r.session.GraceMs != 100 {
				t.Errorf("grace %d", r.session.GraceMs)
			}
		})
	}
}

func TestHandshakeClampsTheTimeout(t *testing.T) {
	_, _, addr := start(t, Config{})
	for asked, granted := range map[int32]int32{1: 4000, -1: 4000, 10_000: 10_000, 1_000_000_000: 40_000} {
		r := dialRaw(t, addr)
		r.handshake(jute.ConnectRequest{TimeoutMs: asked, Password: make([]byte, 16)})
		if r.session.TimeoutMs != granted {
			t.Errorf("asked for %d, got %d instead of %d", asked, r.session.TimeoutMs, granted)
		}
	}
}

func TestReattach(t *testing.T) {
	_, _, addr := start(t, Config{})
	first := open(t, addr)
	first.do(jute.OpCreate, create("/e", "", jute.FlagEphemeral))
	again := jute.ConnectRequest{TimeoutMs: 8000, SessionID: first.session.SessionID, Password: first.session.Password, HasReadOnly: true}

	second := dialRaw(t, addr)
	second.handshake(again)
	if second.session.SessionID != first.session.SessionID || second.session.TimeoutMs != 8000 {
		t.Errorf("re-attached as %+v", second.session)
	}
	first.eof()
	if p := second.do(jute.OpExists, read("/e", false)); p.Err != jute.OK {
		t.Errorf("the ephemeral is gone: %v", p.Err)
	}

	wrong := again
	wrong.Password = make([]byte, 16)
	third := dialRaw(t, addr)
	third.handshake(wrong)
	if third.session.SessionID != 0 || third.session.TimeoutMs != 0 || !bytes.Equal(third.session.Password, make([]byte, 16)) || third.handshakeBytes != 37 {
		t.Errorf("wrong password: %+v", third.session)
	}
	third.eof()
	second.eof() // as upstream: before the password is looked at

	unknown := again
	unknown.SessionID++
	fourth := dialRaw(t, addr)
	fourth.handshake(unknown)
	if fourth.session.SessionID != 0 {
		t.Errorf("unknown session: %+v", fourth.session)
	}
	fourth.eof()
}

func TestClientAheadOfTheServerIsClosed(t *testing.T) {
	_, _, addr := start(t, Config{})
	r := dialRaw(t, addr)
	request := jute.ConnectRequest{TimeoutMs: 8000, LastZxidSeen: 1 << 40, Password: make([]byte, 16)}
	r.send(request.Append(nil))
	r.eof()
}

func TestClientAheadIsHeldUntilTheServerHasCaughtUp(t *testing.T) {
	s, m, addr := start(t, Config{})
	s.holdZxid = time.Minute
	writer := open(t, addr)
	zxid := writer.do(jute.OpCreate, create("/a", "", 0)).Zxid
	m.hold(true)
	writer.send(writer.request(jute.OpSetData, setData("/a", "x", -1)))
	r := dialRaw(t, addr)
	request := jute.ConnectRequest{TimeoutMs: 8000, LastZxidSeen: zxid + 1, Password: make([]byte, 16)}
	r.send(request.Append(nil))
	time.AfterFunc(50*time.Millisecond, func() { m.hold(false) })
	if _, err := r.frame(); err != nil {
		t.Errorf("the handshake was not held: %v", err)
	}
}

func TestRequestsInTheHandshakesBurstAreKept(t *testing.T) {
	_, _, addr := start(t, Config{})
	r := dialRaw(t, addr)
	request := jute.ConnectRequest{TimeoutMs: 8000, Password: make([]byte, 16), HasReadOnly: true}
	auth := jute.AuthPacket{Scheme: "digest", Auth: []byte("user:pass")}
	r.send(request.Append(nil),
		requestXid(jute.XidAuth, jute.OpAuth, auth.Append),
		requestXid(1, jute.OpCreate, create("/a", "x", 0)),
		requestXid(2, jute.OpGetData, read("/a", false)),
		requestXid(jute.XidPing, jute.OpPing, nil))
	if _, err := r.frame(); err != nil {
		t.Fatal(err)
	}
	for _, xid := range []int32{jute.XidAuth, 1, 2, jute.XidPing} {
		if p := r.reply(); p.Xid != xid || p.Err != jute.OK {
			t.Errorf("reply %+v, expected xid %d", p, xid)
		}
	}
}

// A read behind an own write sees it, and does not see the next own write, however late the log is.
func TestPipelinedReadsSeeTheirPlaceInTheOrder(t *testing.T) {
	_, m, addr := start(t, Config{})
	r := open(t, addr)
	r.do(jute.OpCreate, create("/a", "0", 0))
	m.hold(true)
	var frames [][]byte
	for i := 1; i <= 100; i++ {
		frames = append(frames, r.request(jute.OpSetData, setData("/a", fmt.Sprint(i), -1)), r.request(jute.OpGetData, read("/a", false)))
	}
	frames = append(frames, r.request(jute.OpSync, onlyPath("/")))
	r.send(frames...)
	m.hold(false)
	for i := 1; i <= 100; i++ {
		write, read := r.reply(), r.reply()
		d := jute.NewDecoder(read.body)
		if data := string(d.BufferView()); data != fmt.Sprint(i) || read.Zxid != write.Zxid {
			t.Fatalf("read %q at %x after write %d at %x", data, read.Zxid, i, write.Zxid)
		}
	}
	if p := r.reply(); p.Xid != r.xid {
		t.Errorf("sync: %+v", p)
	}
}

// Another session's slow commit does not hold up reads.
func TestReadsDoNotWaitForOthersWrites(t *testing.T) {
	_, m, addr := start(t, Config{})
	a, b := open(t, addr), open(t, addr)
	a.do(jute.OpCreate, create("/a", "0", 0))
	m.hold(true)
	a.send(a.request(jute.OpSetData, setData("/a", "1", -1)))
	p := b.do(jute.OpGetData, read("/a", false))
	d := jute.NewDecoder(p.body)
	if data := string(d.BufferView()); data != "0" {
		t.Errorf("read %q", data)
	}
	m.hold(false)
	a.reply()
}

func TestEventsComeBeforeTheChangesOwnReply(t *testing.T) {
	_, _, addr := start(t, Config{})
	r := open(t, addr)
	r.do(jute.OpCreate, create("/a", "", 0))
	r.do(jute.OpGetData, read("/a", true))
	r.do(jute.OpGetChildren, read("/", true))
	r.send(r.request(jute.OpDelete, remove("/a", -1)))
	first, second, third := r.reply(), r.reply(), r.reply()
	if e := first.event(t); e.Type != jute.EventDeleted || e.Path != "/a" || e.State != 3 {
		t.Errorf("first event %+v", e)
	}
	if e := second.event(t); e.Type != jute.EventChildrenChanged || e.Path != "/" {
		t.Errorf("second event %+v", e)
	}
	if third.Xid != r.xid || third.Zxid != first.Zxid {
		t.Errorf("reply %+v, event %+v", third, first)
	}
}

// Many clients set watches while others change: no event may precede the reply of the read that set its watch, and none
// may be lost: after an event, reading again shows a newer state.
func TestNoEventIsLostOrEarly(t *testing.T) {
	_, _, addr := start(t, Config{})
	w := open(t, addr)
	w.do(jute.OpCreate, create("/a", "", 0))
	const rounds = 300
	watched := make(chan error, 4)
	for range 4 {
		r := open(t, addr)
		go func() { watched <- follow(r, rounds) }()
	}
	for range rounds {
		w.do(jute.OpSetData, setData("/a", "", -1))
	}
	for range 4 {
		if err := <-watched; err != nil {
			t.Error(err)
		}
	}
}

func follow(r *raw, until int32) error {
	for {
		r.xid++
		r.send(requestXid(r.xid, jute.OpGetData, read("/a", true)))
		p := r.reply()
		if p.Xid != r.xid {
			return fmt.Errorf("event before the reply that set its watch: xid %d", p.Xid)
		}
		d := jute.NewDecoder(p.body)
		d.BufferView()
		var stat jute.Stat
		stat.Decode(&d)
		if stat.Version >= until {
			return nil
		}
		if p := r.reply(); p.Xid != jute.XidNotification || p.Zxid <= stat.Mzxid {
			return fmt.Errorf("expected an event after zxid %x: %+v", stat.Mzxid, p)
		}
	}
}

func TestUnknownAndInternalOpsAreRefused(t *testing.T) {
	_, _, addr := start(t, Config{})
	for _, op := range []jute.OpCode{0, 10, 999, jute.OpCheck, jute.OpCreateSession, jute.OpDeleteContainer, -5} {
		r := open(t, addr)
		p := r.do(op, remove("/", -1))
		if p.Err != jute.Unimplemented || p.Zxid != -1 || len(p.body) != 0 {
			t.Errorf("op %d: %+v", op, p)
		}
		r.eof()
	}
}

func TestCloseSession(t *testing.T) {
	_, _, addr := start(t, Config{})
	other, r := open(t, addr), open(t, addr)
	r.do(jute.OpCreate, create("/e", "", jute.FlagEphemeral))
	other.do(jute.OpExists, read("/e", true))
	if p := r.do(jute.OpCloseSession, nil); p.Err != jute.OK || len(p.body) != 0 {
		t.Errorf("%+v", p)
	}
	r.eof()
	if e := other.reply().event(t); e.Type != jute.EventDeleted {
		t.Errorf("event %+v", e)
	}
}

func TestExpiryClosesTheConnection(t *testing.T) {
	_, m, addr := start(t, Config{})
	r := open(t, addr)
	m.expire(r.session.SessionID)
	r.eof()
}

func TestAuthentication(t *testing.T) {
	_, _, addr := start(t, Config{SuperDigest: "super:D/InIHSb7yEEbrWz8b9l71RjZJU="})
	auth := func(scheme, id string) func([]byte) []byte {
		p := jute.AuthPacket{Scheme: scheme, Auth: []byte(id)}
		return p.Append
	}
	r := open(t, addr)
	if p := r.do(jute.OpAuth, auth("digest", "user:pass")); p.Err != jute.OK || p.Zxid != 0 {
		t.Errorf("%+v", p)
	}
	creator := jute.CreateRequest{Path: "/mine", ACL: []jute.ACL{{Perms: jute.PermAll, ID: jute.ID{Scheme: "auth"}}}}
	if p := r.do(jute.OpCreate, creator.Append); p.Err != jute.OK {
		t.Errorf("create with auth: %v", p.Err)
	}
	p := r.do(jute.OpWhoAmI, nil)
	var who jute.WhoAmIResponse
	d := jute.NewDecoder(p.body)
	who.Decode(&d)
	if fmt.Sprint(who.Clients) != "[{ip 127.0.0.1} {digest user}]" {
		t.Errorf("who am I: %v", who.Clients)
	}
	stranger := open(t, addr)
	if p := stranger.do(jute.OpGetData, read("/mine", true)); p.Err != jute.NoAuth {
		t.Errorf("a stranger reads: %v", p.Err)
	}
	if p := stranger.do(jute.OpAuth, auth("digest", "super:test")); p.Err != jute.OK {
		t.Errorf("%+v", p)
	}
	if p := stranger.do(jute.OpGetData, read("/mine", false)); p.Err != jute.OK {
		t.Errorf("super reads: %v", p.Err)
	}
	stranger.send(stranger.request(jute.OpAuth, auth("kerberos", "x")), stranger.request(jute.OpCreate, create("/never", "", 0)))
	if p := stranger.reply(); p.Err != jute.AuthFailed {
		t.Errorf("unknown scheme: %+v", p)
	}
	stranger.eof()
	if p := r.do(jute.OpExists, read("/never", false)); p.Err != jute.NoNode {
		t.Errorf("a request behind the refusal was executed")
	}
	if p := r.do(jute.OpSASL, func(b []byte) []byte { return jute.AppendBuffer(b, []byte{}) }); p.Err != jute.OK || !bytes.Equal(p.body, []byte{255, 255, 255, 255}) {
		t.Errorf("sasl: %+v", p)
	}
}

func TestWatchOperations(t *testing.T) {
	_, _, addr := start(t, Config{})
	r := open(t, addr)
	recursive := jute.AddWatchRequest{Path: "/a", Mode: jute.AddWatchPersistentRecursive}
	if p := r.do(jute.OpAddWatch, recursive.Append); p.Err != jute.OK || !bytes.Equal(p.body, []byte{0, 0, 0, 0}) {
		t.Errorf("addWatch: %+v", p)
	}
	for _, path := range []string{"/a", "/a/b"} {
		r.send(r.request(jute.OpCreate, create(path, "", 0)))
		if e := r.reply().event(t); e.Type != jute.EventCreated || e.Path != path {
			t.Errorf("event %+v", e)
		}
		r.reply()
	}
	which := jute.WatcherRequest{Path: "/a", Type: jute.WatcherPersistentRecursive}
	for _, step := range []struct {
		op   jute.OpCode
		code jute.Code
	}{{jute.OpCheckWatches, jute.OK}, {jute.OpRemoveWatches, jute.OK}, {jute.OpRemoveWatches, jute.NoWatcher}} {
		if p := r.do(step.op, which.Append); p.Err != step.code || len(p.body) != 0 {
			t.Errorf("%v: %+v", step.op, p)
		}
	}
	bad := jute.AddWatchRequest{Path: "/a", Mode: 7}
	if p := r.do(jute.OpAddWatch, bad.Append); p.Err != jute.MarshallingError {
		t.Errorf("bad mode: %+v", p)
	}
	set := jute.SetWatches{RelativeZxid: 1, Data: []string{"/a", "/gone"}, Exist: []string{"/later"}, Child: []string{"/a"}}
	r.send(requestXid(jute.XidSetWatches, jute.OpSetWatches, set.AppendOneShot))
	for _, want := range []string{"NodeDataChanged /a", "NodeDeleted /gone", "NodeChildrenChanged /a"} {
		p := r.reply()
		if e := p.event(t); fmt.Sprint(e.Type, " ", e.Path) != want || p.Zxid != -1 {
			t.Errorf("event %v, expected %s", e, want)
		}
	}
	if p := r.reply(); p.Xid != jute.XidSetWatches || p.Err != jute.OK {
		t.Errorf("setWatches: %+v", p)
	}
	r.send(r.request(jute.OpCreate, create("/later", "", 0)))
	if e := r.reply().event(t); e.Path != "/later" {
		t.Errorf("event %+v", e)
	}
}

func TestBadInputClosesTheConnectionAndTheServerGoesOn(t *testing.T) {
	_, _, addr := start(t, Config{})
	for name, input := range map[string]string{
		"garbage":         "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"2 GiB":           "\x7f\xff\xff\xff" + strings.Repeat("x", 100),
		"negative":        "\xff\xff\xff\xf0....",
		"empty frame":     "\x00\x00\x00\x00",
		"short handshake": "\x00\x00\x00\x08abcdefgh",
		"over the limit":  "\x00\x10\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			r := dialRaw(t, addr)
			if _, err := io.WriteString(r.conn, input); err != nil {
				t.Fatal(err)
			}
			r.eof()
		})
		if name == "short handshake" {
			continue // in a session it is a request like any other
		}
		t.Run(name+" in a session", func(t *testing.T) {
			r := open(t, addr)
			if _, err := io.WriteString(r.conn, input); err != nil {
				t.Fatal(err)
			}
			r.eof()
		})
	}
	r := open(t, addr)
	if p := r.do(jute.OpGetData, func(b []byte) []byte { return append(b, 0, 0, 0, 9, 'x') }); p.Err != jute.MarshallingError {
		t.Errorf("a short body: %+v", p)
	}
	if p := r.do(jute.OpCreate, func(b []byte) []byte { return append(b, 0, 0, 0, 9, 'x') }); p.Err != jute.MarshallingError {
		t.Errorf("a short body: %+v", p)
	}
	if p := r.do(jute.OpExists, read("/", false)); p.Err != jute.OK {
		t.Errorf("afterwards: %+v", p)
	}
}

func TestMaxClientConnectionsPerAddress(t *testing.T) {
	s, _, addr := start(t, Config{MaxClientConnections: 2})
	a, _ := open(t, addr), open(t, addr)
	dialRaw(t, addr).eof()
	if _, err := s.Pipe(); err != nil {
		t.Errorf("the in-memory connection counts: %v", err)
	}
	a.do(jute.OpCloseSession, nil)
	a.eof()
	for { // the place is free once the server has noticed
		r := dialRaw(t, addr)
		request := jute.ConnectRequest{TimeoutMs: 8000, Password: make([]byte, 16)}
		_, _ = r.conn.Write(append([]byte{0, 0, 0, 44}, request.Append(nil)...))
		if _, err := r.frame(); err == nil {
			return
		}
		r.conn.Close()
	}
}

func TestFastExpiryReportsOnlyThePeersEnd(t *testing.T) {
	s, m, addr := start(t, Config{})
	fast := jute.ConnectRequest{TimeoutMs: 8000, Password: make([]byte, 16), HasReadOnly: true, HasFastExpiry: true, GraceMs: 100}
	r := dialRaw(t, addr)
	r.handshake(fast)
	r.conn.Close()
	if id := <-m.lost; id != r.session.SessionID {
		t.Errorf("lost %x", id)
	}
	reset := dialRaw(t, addr)
	reset.handshake(fast)
	_ = reset.conn.(*net.TCPConn).SetLinger(0)
	reset.conn.Close()
	if id := <-m.lost; id != reset.session.SessionID {
		t.Errorf("lost %x", id)
	}
	pipe, err := s.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	inMemory := &raw{t: t, conn: pipe}
	inMemory.handshake(fast)
	pipe.Close()
	if id := <-m.lost; id != inMemory.session.SessionID {
		t.Errorf("lost %x", id)
	}

	slow, closing, ours := open(t, addr), dialRaw(t, addr), dialRaw(t, addr)
	closing.handshake(fast)
	ours.handshake(fast)
	slow.conn.Close()
	closing.do(jute.OpCloseSession, nil)
	closing.eof()
	m.setServing(false)
	ours.eof()
	m.setServing(true)
	last := dialRaw(t, addr)
	last.handshake(fast)
	last.conn.Close()
	if id := <-m.lost; id != last.session.SessionID {
		t.Errorf("reported %x, which was not the peer's doing", id)
	}
}

func TestLossOfQuorumClosesClientsAndHoldsHandshakes(t *testing.T) {
	s, m, addr := start(t, Config{})
	s.holdServing = time.Minute
	r := open(t, addr)
	m.setServing(false)
	r.eof()
	if got := fourLetter(t, addr, "srvr"); got != notServing+"\n" {
		t.Errorf("srvr: %q", got)
	}
	if got := fourLetter(t, addr, "ruok"); got != "imok" {
		t.Errorf("ruok: %q", got)
	}
	if got := fourLetter(t, addr, "isro"); got != "null" {
		t.Errorf("isro: %q", got)
	}
	waiting := dialRaw(t, addr)
	request := jute.ConnectRequest{TimeoutMs: 8000, Password: make([]byte, 16)}
	waiting.send(request.Append(nil))
	time.AfterFunc(30*time.Millisecond, func() { m.setServing(true) })
	if _, err := waiting.frame(); err != nil {
		t.Errorf("the handshake was not held: %v", err)
	}
}

func TestSlowReaderIsClosedAndOthersGoOn(t *testing.T) {
	_, _, addr := start(t, Config{})
	slow, writer := open(t, addr), open(t, addr)
	slow.do(jute.OpCreate, create("/big", strings.Repeat("x", 1<<20-1000), 0))
	for range 200 { // 200 MB of replies that nobody reads; the server must not keep them
		slow.send(slow.request(jute.OpGetData, read("/big", false)))
	}
	for range 100 {
		writer.do(jute.OpSetData, setData("/big", "y", -1))
	}
}

// A client that watches and does not read is closed once its events have become too many.
func TestWatcherThatDoesNotReadIsClosed(t *testing.T) {
	s, _, addr := start(t, Config{})
	slow, writer := open(t, addr), open(t, addr)
	path := "/" + strings.Repeat("long", 200_000)
	recursive := jute.AddWatchRequest{Path: "/", Mode: jute.AddWatchPersistentRecursive}
	slow.do(jute.OpAddWatch, recursive.Append)
	writer.do(jute.OpCreate, create(path, "", 0))
	changes := 0
	for s.bySession(slow.session.SessionID) != nil {
		if changes++; changes*len(path) > 2*outputHardBytes+(64<<20) {
			t.Fatal("the server keeps the events of a client that does not read")
		}
		writer.do(jute.OpSetData, setData(path, "", -1))
	}
	t.Logf("closed after %d events", changes)
}

func TestSessionIDsAreUniqueAndHaveTheMembersNumber(t *testing.T) {
	s, _, _ := start(t, Config{})
	seen := map[jute.SessionID]bool{}
	last := jute.SessionID(0)
	for range 100_000 {
		id := s.newSessionID()
		if seen[id] || id <= last || uint64(id)>>56 != 1 {
			t.Fatalf("id %x after %x", id, last)
		}
		seen[id], last = true, id
	}
}

func fourLetter(t testing.TB, addr, word string) string {
	t.Helper()
	r := dialRaw(t, addr)
	if _, err := io.WriteString(r.conn, word); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r.conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestWords(t *testing.T) {
	_, _, addr := start(t, Config{ClientAddr: "127.0.0.1:2181", DataDir: "/data", TickTime: 2 * time.Second})
	r := open(t, addr)
	r.do(jute.OpCreate, create("/e", "", jute.FlagEphemeral))
	r.do(jute.OpExists, read("/e", true))
	session := sessionText(r.session.SessionID)
	for word, wants := range map[string][]string{
		"srvr": {"Zookeeper version: 3.9.", "Latency min/avg/max: 0/0.0/0\n", "Connections: ", "Outstanding: 0\n", "Zxid: 0x", "Mode: standalone\n", "Node count: 6\n"},
		"stat": {"Clients:\n /127.0.0.1:", "](queued=0,recved="},
		"cons": {"sid=" + session + ",lop=EXIS,est=", ",to=10000,lcxid=0x2,lzxid=0x"},
		"mntr": {"zk_version\t3.9.", "zk_server_state\tstandalone\n", "zk_znode_count\t6\n", "zk_ephemerals_count\t1\n", "zk_watch_count\t1\n", "zk_num_alive_connections\t"},
		"dump": {"SessionTracker dump:\nSession Sets (1)/(1):\n1 expire at ", "Sessions with Ephemerals (1):\n" + session + ":\n\t/e\n", "sessionId: " + session},
		"conf": {"clientPort=2181\n", "dataDir=/data/version-2\n", "tickTime=2000\n", "minSessionTimeout=4000\nmaxSessionTimeout=40000\n", "serverId=0\n"},
		"wchs": {"1 connections watching 1 paths\nTotal watches:1\n"},
		"wchc": {session + "\n\t/e\n"},
		"wchp": {"/e\n\t" + session + "\n"},
		"envi": {"Environment:\nzookeeper.version=3.9.", "user.dir="},
	} {
		text := fourLetter(t, addr, word)
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in\n%s", word, want, text)
			}
		}
	}
	_, _, closed := start(t, Config{FourLetterWhitelist: []string{"srvr", "ruok"}})
	if text := fourLetter(t, closed, "stat"); text != "stat is not executed because it is not in the whitelist.\n" {
		t.Errorf("%q", text)
	}
}
