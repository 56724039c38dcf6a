package zkclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"understudy/internal/coordination/ensemble"
	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/zkserver"
)

// The tests run against an ensemble member in this process, or, to compare, against any ZooKeeper:
//
//	UNDERSTUDY_ZOOKEEPER=127.0.0.1:2181 go test ./internal/coordination/zkclient
func liveServers(t testing.TB) string {
	if servers := os.Getenv("UNDERSTUDY_ZOOKEEPER"); servers != "" {
		return servers
	}
	return startServer(t).addr
}

// server is a coordinator of one member.
type server struct {
	*zkserver.Server
	member *ensemble.Member
	addr   string
}

func startServer(t testing.TB) *server {
	t.Helper()
	member, err := ensemble.Start(context.Background(), ensemble.Config{Dir: t.TempDir(), TickTime: 500 * time.Millisecond, Logger: logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	s, err := zkserver.New(zkserver.Config{Member: member, TickTime: 500 * time.Millisecond, MaxClientConnections: -1, MaxSessionTimeout: time.Minute, Logger: logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(ln)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := errors.Join(s.Close(ctx), member.Stop(ctx)); err != nil {
			t.Error(err)
		}
	})
	return &server{s, member, ln.Addr().String()}
}

func logger(t testing.TB) *slog.Logger {
	if !testing.Verbose() {
		return nil
	}
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func connect(t testing.TB, cfg Config) *Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cfg.Logger = logger(t)
	c, err := Connect(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Abandon)
	return c
}

func mustDo(t testing.TB, c *Client, op Op) Result {
	t.Helper()
	r := c.Do(context.Background(), op)
	if r.Err != nil {
		t.Fatalf("%v %s: %v", op.Code, op.Path, r.Err)
	}
	return r
}

// root makes a fresh node to test under, and a client chrooted there.
func root(t testing.TB, cfg Config) Config {
	t.Helper()
	c := connect(t, cfg)
	r := mustDo(t, c, CreateSequential("/understudy-", nil))
	cfg.Servers += r.Path
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestOperations(t *testing.T) {
	cfg := root(t, Config{Servers: liveServers(t), SessionTimeout: 6 * time.Second, FastExpiryGrace: 100 * time.Millisecond})
	c := connect(t, cfg)
	ctx := context.Background()

	if r := mustDo(t, c, Create("/a", []byte("one"), Persistent)); r.Path != "/a" {
		t.Errorf("created %q", r.Path)
	}
	if r := c.Do(ctx, Create("/a", nil, Persistent)); !errors.Is(r.Err, jute.NodeExists) {
		t.Errorf("create twice: %v", r.Err)
	}
	if r := mustDo(t, c, SetData("/a", []byte("two"), 0)); r.Stat.Version != 1 || r.Stat.Mzxid != r.Zxid {
		t.Errorf("setData: %+v", r)
	}
	if r := mustDo(t, c, GetData("/a", false)); !bytes.Equal(r.Data, []byte("two")) || r.Stat.DataLength != 3 {
		t.Errorf("getData: %+v", r)
	}
	mustDo(t, c, Create("/null", nil, Persistent))
	mustDo(t, c, Create("/empty", []byte{}, Ephemeral))
	if r := mustDo(t, c, GetData("/null", false)); r.Data != nil {
		t.Errorf("null data came back as %v", r.Data)
	}
	if r := mustDo(t, c, GetData("/empty", false)); r.Data == nil || r.Stat.EphemeralOwner != c.Session().ID {
		t.Errorf("empty data came back as null, or wrong owner: %+v", r)
	}
	if r := mustDo(t, c, Children("/", false)); len(r.Children) != 3 {
		t.Errorf("children: %v", r.Children)
	}
	if r := mustDo(t, c, Sync("/")); r.Path != "/" {
		t.Errorf("sync: %+v", r)
	}
	r := c.Do(ctx, Multi(Create("/m", []byte("x"), Persistent), SetData("/m", []byte("y"), 0), Check("/a", 1), Delete("/null", AnyVersion)))
	if r.Err != nil || len(r.Results) != 4 || r.Results[1].Stat.Czxid != r.Zxid || r.Results[0].Path != "/m" {
		t.Errorf("multi: %+v", r)
	}
	r = c.Do(ctx, Multi(Check("/a", 1), Create("/a", nil, Persistent), Delete("/m", 0)))
	if !errors.Is(r.Err, jute.NodeExists) || r.Results[0].Err != nil || !errors.Is(r.Results[2].Err, jute.RuntimeInconsistency) {
		t.Errorf("failing multi: %+v", r)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = connect(t, cfg)
	if r := c.Do(ctx, Exists("/empty", false)); !errors.Is(r.Err, jute.NoNode) {
		t.Errorf("the ephemeral survived Close: %+v", r)
	}
}

func TestPipelineInOrder(t *testing.T) {
	cfg := root(t, Config{Servers: liveServers(t), MaxInFlight: 16})
	c := connect(t, cfg)
	var ops []Op
	for i := range 500 {
		ops = append(ops, CreateSequential("/n", []byte{byte(i)}), GetData(fmt.Sprintf("/n%010d", i), false))
	}
	last := jute.Zxid(0)
	for i, r := range c.DoAll(context.Background(), ops) {
		if r.Err != nil || r.Zxid < last {
			t.Fatalf("op %d: %+v after zxid %x", i, r, last)
		}
		if i%2 == 1 && r.Data[0] != byte(i/2) {
			t.Fatalf("op %d: data %v", i, r.Data)
		}
		last = r.Zxid
	}
}

// proxy is a connection that tests can cut.
type proxy struct {
	mu    sync.Mutex
	conns []net.Conn
	off   atomic.Bool
	dials atomic.Int32
}

func (p *proxy) dial(ctx context.Context, addr string) (net.Conn, error) {
	p.dials.Add(1)
	if p.off.Load() {
		return nil, errors.New("switched off")
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err == nil {
		p.mu.Lock()
		p.conns = append(p.conns, conn)
		p.mu.Unlock()
	}
	return conn, err
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

func TestReattachRestoresWatches(t *testing.T) {
	servers := liveServers(t)
	cfg := root(t, Config{Servers: servers})
	other := connect(t, cfg)
	mustDo(t, other, Create("/data", nil, Persistent))
	mustDo(t, other, Create("/parent", nil, Persistent))
	mustDo(t, other, Create("/gone", nil, Persistent))

	var p proxy
	events := make(chan Event, 100)
	states := make(chan State, 100)
	cfg.Dial, cfg.OnEvent, cfg.OnState = p.dial, func(e Event) { events <- e }, func(s State) { states <- s }
	c := connect(t, cfg)
	id := c.Session().ID
	mustDo(t, c, GetData("/data", true))
	mustDo(t, c, GetData("/gone", true))
	mustDo(t, c, Children("/parent", true))
	if r := c.Do(context.Background(), Exists("/missing", true)); !errors.Is(r.Err, jute.NoNode) {
		t.Fatal(r.Err)
	}
	mustDo(t, other, Delete("/gone", AnyVersion))
	if e := <-events; e.Type != NodeDeleted || e.Path != "/gone" {
		t.Fatalf("event %+v", e)
	}

	p.off.Store(true)
	p.cut()
	for s := range states {
		if s == Disconnected {
			break
		}
	}
	mustDo(t, other, SetData("/data", []byte("x"), AnyVersion))
	p.off.Store(false)
	if r := mustDo(t, c, GetData("/data", false)); string(r.Data) != "x" { // waited for the connection
		t.Errorf("read %q", r.Data)
	}
	if c.Session().ID != id {
		t.Error("another session")
	}
	select {
	case e := <-events:
		if e.Type != NodeDataChanged || e.Path != "/data" {
			t.Errorf("event %+v", e)
		}
	default:
		t.Error("the event of the change meanwhile did not come before the reply")
	}
	mustDo(t, other, Create("/missing", nil, Persistent))
	mustDo(t, other, Create("/parent/child", nil, Persistent))
	if e := <-events; e.Type != NodeCreated || e.Path != "/missing" {
		t.Errorf("event %+v", e)
	}
	if e := <-events; e.Type != NodeChildrenChanged || e.Path != "/parent" {
		t.Errorf("event %+v", e)
	}
}

func TestConnectionLossIsReported(t *testing.T) {
	cfg := root(t, Config{Servers: liveServers(t), MaxInFlight: 10})
	var p proxy
	cfg.Dial = p.dial
	c := connect(t, cfg)
	mustDo(t, c, Create("/x", nil, Persistent))
	ops := make([]Op, 5000)
	for i := range ops {
		ops[i] = SetData("/x", []byte{1}, AnyVersion)
	}
	answered := make(chan struct{})
	c.Start(ops[0], func(Result) { close(answered) })
	go func() { <-answered; p.cut() }()
	lost := 0
	for i, r := range c.DoAll(context.Background(), ops) {
		switch {
		case errors.Is(r.Err, ErrConnectionLoss):
			lost++
		case r.Err != nil:
			t.Fatal(r.Err)
		case lost > 0:
			t.Fatalf("op %d was executed after a lost one", i)
		}
	}
	r := mustDo(t, c, GetData("/x", false))
	applied := int(r.Stat.Version) - 1
	if applied < len(ops)-lost || applied > len(ops)-lost+10 {
		t.Errorf("%d applied, %d of %d lost, at most 10 in flight", applied, lost, len(ops))
	}
	t.Logf("%d of %d lost", lost, len(ops))
}

func TestResumeAndCloseSession(t *testing.T) {
	cfg := root(t, Config{Servers: liveServers(t), SessionTimeout: 30 * time.Second})
	c := connect(t, cfg)
	mustDo(t, c, CreateEphemeral("/e", nil))
	session := c.Session()
	c.Abandon()
	if r := c.Do(context.Background(), Exists("/e", false)); !errors.Is(r.Err, ErrClosed) {
		t.Errorf("after Abandon: %v", r.Err)
	}
	resumed := cfg
	resumed.Resume = &session
	c = connect(t, resumed)
	if c.Session().ID != session.ID {
		t.Fatal("not resumed")
	}
	mustDo(t, c, Exists("/e", false))
	c.Abandon()
	ctx := context.Background()
	if err := CloseSession(ctx, cfg, session); err != nil {
		t.Fatal(err)
	}
	if err := CloseSession(ctx, cfg, session); err != nil {
		t.Fatalf("closing a closed one: %v", err)
	}
	if _, err := Connect(ctx, resumed); !errors.Is(err, ErrSessionExpired) {
		t.Errorf("resumed a closed session: %v", err)
	}
	c = connect(t, cfg)
	if r := c.Do(ctx, Exists("/e", false)); !errors.Is(r.Err, jute.NoNode) {
		t.Errorf("the ephemeral survived: %+v", r)
	}
}

func TestExpiry(t *testing.T) {
	cfg := root(t, Config{Servers: liveServers(t), SessionTimeout: 4 * time.Second})
	states := make(chan State, 100)
	cfg.OnState = func(s State) { states <- s }
	c := connect(t, cfg)
	// Somebody else resumes our session and closes it: we find out by the handshake.
	if err := CloseSession(context.Background(), cfg, c.Session()); err != nil {
		t.Fatal(err)
	}
	for s := range states {
		if s == Expired {
			break
		}
	}
	if r := c.Do(context.Background(), Exists("/", false)); !errors.Is(r.Err, ErrSessionExpired) {
		t.Errorf("after expiry: %v", r.Err)
	}
}

func BenchmarkGetData(b *testing.B) {
	cfg := root(b, Config{Servers: liveServers(b), MaxInFlight: 128})
	c := connect(b, cfg)
	mustDo(b, c, Create("/x", make([]byte, 100), Persistent))
	ops := make([]Op, b.N)
	for i := range ops {
		ops[i] = GetData("/x", false)
	}
	b.ResetTimer()
	for _, r := range c.DoAll(context.Background(), ops) {
		if r.Err != nil {
			b.Fatal(r.Err)
		}
	}
}

func BenchmarkSetData(b *testing.B) {
	cfg := root(b, Config{Servers: liveServers(b), MaxInFlight: 128})
	c := connect(b, cfg)
	mustDo(b, c, Create("/x", make([]byte, 100), Persistent))
	ops := make([]Op, b.N)
	for i := range ops {
		ops[i] = SetData("/x", make([]byte, 100), -1)
	}
	b.ResetTimer()
	for _, r := range c.DoAll(context.Background(), ops) {
		if r.Err != nil {
			b.Fatal(r.Err)
		}
	}
}

func BenchmarkGetDataOneAtATime(b *testing.B) {
	cfg := root(b, Config{Servers: liveServers(b)})
	c := connect(b, cfg)
	mustDo(b, c, Create("/x", make([]byte, 100), Persistent))
	b.ResetTimer()
	for range b.N {
		mustDo(b, c, GetData("/x", false))
	}
}
