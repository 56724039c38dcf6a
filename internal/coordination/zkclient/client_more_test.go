package zkclient

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/znode"
)

func TestParseServers(t *testing.T) {
	for _, test := range []struct {
		text, chroot string
		servers      []string
		fails        bool
	}{
		{text: "a:1,b:2", servers: []string{"a:1", "b:2"}},
		{text: "a, b:2 /chroot", servers: []string{"a:2181", "b:2"}, chroot: "/chroot"},
		{text: "a/x/y/", servers: []string{"a:2181"}, chroot: "/x/y"},
		{text: "a/", servers: []string{"a:2181"}},
		{text: "[::1]:2182,[::1],::1", servers: []string{"[::1]:2182", "[::1]:2181", "[::1]:2181"}},
		{text: "fe80::1%eth0", servers: []string{"[fe80::1%eth0]:2181"}},
		{text: "", fails: true},
		{text: "/chroot", fails: true},
		{text: "a//b", fails: true},
		{text: "[::1:2181", fails: true},
	} {
		servers, chroot, err := parseServers(test.text)
		if (err != nil) != test.fails || !slices.Equal(servers, test.servers) || (!test.fails && chroot != test.chroot) {
			t.Errorf("%q: %v %q %v", test.text, servers, chroot, err)
		}
	}
}

func TestChroot(t *testing.T) {
	for _, test := range []struct{ chroot, path, full string }{
		{"", "/", "/"}, {"", "/a", "/a"}, {"/c", "/", "/c"}, {"/c", "/a/b", "/c/a/b"},
	} {
		if full := fullPath(test.chroot, test.path); full != test.full {
			t.Errorf("%+v: %s", test, full)
		}
		if path, err := stripChroot(test.chroot, test.full); err != nil || path != test.path {
			t.Errorf("%+v: %s %v", test, path, err)
		}
	}
	for _, outside := range []string{"/", "/d", "/cc"} {
		if _, err := stripChroot("/c", outside); err == nil {
			t.Errorf("%s is not below /c", outside)
		}
	}
}

func TestInMemoryConnection(t *testing.T) {
	s := startServer(t)
	dial := func(context.Context, string) (net.Conn, error) { return s.Pipe() }
	c := connect(t, root(t, Config{Servers: "memory", Dial: dial, FastExpiryGrace: 100 * time.Millisecond}))
	if c.Session().Grace != 100*time.Millisecond {
		t.Errorf("grace %v", c.Session().Grace)
	}
	ops := []Op{Create("/big", make([]byte, 700_000), Persistent)} // larger than what the pipe holds
	for range 10 {
		ops = append(ops, GetData("/big", false))
	}
	for _, r := range c.DoAll(context.Background(), ops) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// A killed process is noticed when its socket closes, not when its session's timer runs out.
func TestFastExpiry(t *testing.T) {
	s := startServer(t)
	events := make(chan Event, 1)
	watcher := connect(t, Config{Servers: s.addr, SessionTimeout: 30 * time.Second, OnEvent: func(e Event) { events <- e }})
	victim := connect(t, Config{Servers: s.addr, SessionTimeout: 30 * time.Second, FastExpiryGrace: 100 * time.Millisecond})
	mustDo(t, victim, CreateEphemeral("/victim", nil))
	mustDo(t, watcher, Exists("/victim", true))
	killed := time.Now()
	victim.Abandon()
	select {
	case e := <-events:
		if e.Type != NodeDeleted {
			t.Errorf("%+v", e)
		}
		t.Logf("noticed after %v", time.Since(killed))
	case <-time.After(20 * time.Second):
		t.Fatal("not noticed before the ordinary timeout")
	}
}

// A client that comes back within the grace keeps its session.
func TestFastExpiryIsCalledOffByAReattach(t *testing.T) {
	s := startServer(t)
	var p proxy
	c := connect(t, Config{Servers: s.addr, SessionTimeout: 30 * time.Second, FastExpiryGrace: 500 * time.Millisecond, Dial: p.dial})
	id := c.Session().ID
	mustDo(t, c, CreateEphemeral("/mine", nil))
	for range 5 {
		p.cut()
		for r := (Result{Err: ErrConnectionLoss}); r.Err != nil; {
			if r = c.Do(context.Background(), Exists("/mine", false)); r.Err != nil && !errors.Is(r.Err, ErrConnectionLoss) {
				t.Fatal(r.Err)
			}
		}
	}
	if c.Session().ID != id {
		t.Error("another session")
	}
}

// Cut off for longer than it was promised, a client says so, goes on trying, and finds out.
func TestDoubtfulThenConnectedOrExpired(t *testing.T) {
	s := startServer(t)
	for _, test := range []struct {
		name  string
		grace time.Duration
		end   State
	}{{"without fast expiry", 0, Connected}, {"with fast expiry", 50 * time.Millisecond, Expired}} {
		t.Run(test.name, func(t *testing.T) {
			var p proxy
			states := make(chan State, 100)
			c := connect(t, Config{Servers: s.addr, SessionTimeout: time.Second, FastExpiryGrace: test.grace,
				Dial: p.dial, OnState: func(s State) { states <- s }})
			other := connect(t, Config{Servers: s.addr})
			await := func(want ...State) {
				t.Helper()
				for _, w := range want {
					if got := <-states; got != w {
						t.Fatalf("state %v, expected %v", got, w)
					}
				}
			}
			await(Connected)
			p.off.Store(true)
			if test.grace == 0 {
				// A second client holds the session in the meantime, so that it does not expire.
				session := c.Session()
				p.cut()
				connect(t, Config{Servers: s.addr, SessionTimeout: 30 * time.Second, Resume: &session})
			} else {
				p.cut()
			}
			await(Disconnected, Doubtful)
			if test.grace > 0 { // the server's own clock has the last word
				for {
					if r := other.Do(context.Background(), Sync("/")); r.Err != nil {
						t.Fatal(r.Err)
					}
					gone := true
					for _, id := range sessions(s) {
						gone = gone && id != c.Session().ID
					}
					if gone {
						break
					}
				}
			}
			p.off.Store(false)
			await(test.end)
		})
	}
}

func TestStartFromCallbackAndPanicOfDo(t *testing.T) {
	c := connect(t, Config{Servers: liveServers(t)})
	panicked := make(chan any, 1)
	nested := make(chan Result, 1)
	c.Start(Exists("/", false), func(Result) {
		defer func() { panicked <- recover() }()
		c.Start(Exists("/zookeeper", false), func(r Result) { nested <- r })
		c.Do(context.Background(), Exists("/", false))
	})
	if <-panicked == nil {
		t.Error("Do in a callback should panic")
	}
	if r := <-nested; r.Err != nil {
		t.Error(r.Err)
	}
}

// An event is delivered before the replies that follow it on the wire.
func TestEventsAreDeliveredInOrderWithReplies(t *testing.T) {
	var events atomic.Int32
	cfg := root(t, Config{Servers: liveServers(t), OnEvent: func(Event) { events.Add(1) }})
	c := connect(t, cfg)
	mustDo(t, c, Create("/x", nil, Persistent))
	for i := range int32(200) {
		r := c.DoAll(context.Background(), []Op{GetData("/x", true), SetData("/x", nil, i)})
		if r[1].Err != nil || events.Load() != i+1 {
			t.Fatalf("round %d: %v, %d events", i, r[1].Err, events.Load())
		}
	}
}

func TestContextEndsWait(t *testing.T) {
	s := startServer(t)
	var p proxy
	c := connect(t, Config{Servers: s.addr, Dial: p.dial})
	p.off.Store(true)
	p.cut()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	for r := c.Do(ctx, Create("/never", nil, Persistent)); !errors.Is(r.Err, context.DeadlineExceeded); {
		if r = c.Do(ctx, Create("/never", nil, Persistent)); r.Err == nil {
			t.Fatal("executed without a connection")
		}
	}
	p.off.Store(false)
	if r := c.Do(context.Background(), Exists("/never", false)); !errors.Is(r.Err, jute.NoNode) {
		t.Errorf("a request whose caller had gone was sent: %v", r.Err)
	}
	if _, err := Connect(ctx, Config{Servers: "127.0.0.1:1"}); err == nil || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("connected to nothing: %v", err)
	}
}

func TestManyWatchesAreRestoredInSeveralRequests(t *testing.T) {
	var w watchSet
	w.init()
	for i := range 10_000 {
		w.answered(&Op{Code: jute.OpGetData, Path: fmt.Sprintf("/some/quite/long/path/number/%d", i), Watch: true}, "", jute.OK)
	}
	calls := w.restore(7)
	total := 0
	for _, call := range calls {
		body := call.watches.AppendOneShot(nil)
		if len(body) > setWatchesBytesMax+1000 || call.watches.RelativeZxid != 7 {
			t.Errorf("%d bytes", len(body))
		}
		total += len(call.watches.Data)
	}
	if total != 10_000 || len(calls) < 3 {
		t.Errorf("%d watches in %d requests", total, len(calls))
	}
}

// serveBytes answers a handshake and then sends data.
func serveBytes(data []byte) func(context.Context, string) (net.Conn, error) {
	return func(context.Context, string) (net.Conn, error) {
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			var size [4]byte
			if _, err := io.ReadFull(server, size[:]); err != nil {
				return
			}
			if _, err := io.CopyN(io.Discard, server, int64(binary.BigEndian.Uint32(size[:]))); err != nil {
				return
			}
			response := jute.ConnectResponse{TimeoutMs: 4000, SessionID: 1, Password: make([]byte, 16), HasReadOnly: true}
			_, _ = server.Write(frame(nil, response.Append))
			go func() { _, _ = io.Copy(io.Discard, server) }()
			_, _ = server.Write(data)
		}()
		return client, nil
	}
}

// Whatever a server sends, the client neither panics nor hangs, and every call has a result.
func FuzzReplies(f *testing.F) {
	header := jute.ReplyHeader{Xid: 1, Zxid: 5}
	var stat jute.Stat
	f.Add(frame(nil, func(b []byte) []byte { return stat.Append(header.Append(b)) }))
	f.Add(frame(nil, func(b []byte) []byte { return stat.Append(jute.AppendBuffer(header.Append(b), []byte("data"))) }))
	event := jute.WatcherEvent{Type: 1, State: 3, Path: "/a"}
	notification := jute.ReplyHeader{Xid: -1, Zxid: 5}
	f.Add(frame(nil, func(b []byte) []byte { return event.Append(notification.Append(b)) }))
	f.Add([]byte{0x7f, 0xff, 0xff, 0xff, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := newClient(Config{Servers: "fuzz/chroot", Dial: serveBytes(data)})
		if err != nil {
			t.Fatal(err)
		}
		go c.deliver()
		go c.run()
		results := make(chan Result, 10)
		for _, op := range []Op{GetData("/a", true), Children("/", true), Multi(Create("/a", nil, 0), Check("/b", 1)), Create("/a", nil, 0), Exists("/", true)} {
			c.Start(op, func(r Result) { results <- r })
		}
		for range 5 {
			select {
			case <-results:
			case <-time.After(10 * time.Second):
				t.Fatal("a call has no result")
			}
		}
		c.Abandon()
		<-c.ended
	})
}

// What a result is decoded from may be anything.
func FuzzDecodeResult(f *testing.F) {
	var stat jute.Stat
	f.Add(uint8(0), stat.Append(jute.AppendBuffer(nil, []byte("x"))))
	f.Add(uint8(1), stat.Append(jute.AppendStrings(nil, []string{"a", "b"})))
	f.Add(uint8(2), jute.MultiEnd.Append(nil))
	ops := []Op{GetData("/", false), Children("/", false), Multi(Create("/a", nil, 0), SetData("/b", nil, 0)), Create("/a", nil, 0), Sync("/")}
	f.Fuzz(func(_ *testing.T, which uint8, body []byte) {
		var r Result
		d := jute.NewDecoder(body)
		_ = decodeResult(&d, jute.OK, &ops[int(which)%len(ops)], "/chroot", &r)
	})
}

func sessions(s *server) (ids []jute.SessionID) {
	s.member.View(func(m *znode.Machine) {
		m.Sessions(func(info znode.SessionInfo) bool {
			ids = append(ids, info.ID)
			return true
		})
	})
	return ids
}
