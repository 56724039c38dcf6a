package ensemble

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/znode"
)

// cluster is an ensemble of members of this process on loopback.
type cluster struct {
	t       testing.TB
	members map[znode.MemberID]*node
	configs map[znode.MemberID]Config
}

// node is a running member with its observer.
type node struct {
	*Member
	*recorder
}

// recorder is an Observer that hands out results by token and notes everything, what is logged, too.
type recorder struct {
	mu      sync.Mutex
	changed *sync.Cond
	applied int
	resets  int
	reaped  int
	serves  bool
	ended   map[jute.SessionID]bool
	logged  map[string]int // how often, by message
}

func newRecorder() *recorder {
	r := &recorder{ended: make(map[jute.SessionID]bool), logged: make(map[string]int)}
	r.changed = sync.NewCond(&r.mu)
	return r
}

// outcome is what became of a submitted request.
type outcome struct {
	znode.Result
	dropped bool
}

func (r *recorder) Applied(req *znode.Request, res *znode.Result, token any) {
	r.mu.Lock()
	r.applied++
	if res.ClosedSession {
		r.ended[req.Session] = true
	}
	if req.Kind == znode.KindDeleteContainer && res.Code == jute.OK && !res.Skipped {
		r.reaped++
	}
	r.changed.Broadcast()
	r.mu.Unlock()
	if c, ok := token.(chan outcome); ok {
		out := *res
		out.Events = nil
		c <- outcome{Result: out}
	}
}

func (r *recorder) Reset() {
	r.mu.Lock()
	r.resets++
	r.changed.Broadcast()
	r.mu.Unlock()
}

func (r *recorder) Dropped(token any) {
	if c, ok := token.(chan outcome); ok {
		c <- outcome{dropped: true}
	}
}

// note changes what is recorded.
func (r *recorder) note(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	r.changed.Broadcast()
}

// journal is a log that the recorder follows.
type journal struct {
	slog.Handler
	r *recorder
}

func (j journal) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

func (j journal) Handle(ctx context.Context, record slog.Record) error {
	j.r.note(func() { j.r.logged[record.Message]++ })
	if !j.Handler.Enabled(ctx, record.Level) {
		return nil
	}
	return j.Handler.Handle(ctx, record)
}

func (j journal) WithAttrs(attrs []slog.Attr) slog.Handler {
	return journal{j.Handler.WithAttrs(attrs), j.r}
}

func (j journal) WithGroup(name string) slog.Handler { return journal{j.Handler.WithGroup(name), j.r} }

// until waits for a condition on what was recorded.
func (r *recorder) until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	timer := time.AfterFunc(30*time.Second, func() { r.mu.Lock(); r.changed.Broadcast(); r.mu.Unlock() })
	defer timer.Stop()
	begin := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for !cond() {
		if time.Since(begin) > 29*time.Second {
			t.Fatalf("waited too long: %s", what)
		}
		r.changed.Wait()
	}
}

func testLogger(t testing.TB, id znode.MemberID) *slog.Logger {
	level := slog.LevelWarn
	if os.Getenv("ENSEMBLE_LOG") != "" {
		level = slog.LevelInfo
	}
	if os.Getenv("ENSEMBLE_LOG") == "debug" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("on", uint64(id))
}

// newCluster starts n members; adjust may change their configuration.
func newCluster(t testing.TB, n int, adjust ...func(*Config)) *cluster {
	t.Helper()
	c := &cluster{t: t, members: make(map[znode.MemberID]*node), configs: make(map[znode.MemberID]Config)}
	peers := make(map[znode.MemberID]string)
	dir := t.TempDir()
	for i := range n {
		peers[znode.MemberID(i+1)] = freeAddr(t)
	}
	for id := range peers {
		config := Config{
			ID: id, Peers: peers, Dir: filepath.Join(dir, fmt.Sprint(id)),
			TickTime: 100 * time.Millisecond, Logger: testLogger(t, id),
		}
		for _, f := range adjust {
			f(&config)
		}
		c.configs[id] = config
	}
	for id := range peers {
		c.start(id)
	}
	t.Cleanup(func() {
		var wg sync.WaitGroup
		for _, m := range c.members {
			wg.Go(m.kill)
		}
		wg.Wait()
	})
	return c
}

// freeAddr finds a port that is free now and stays so while its member is down: the kernel gives
// none below 32768 to outgoing connections.
func freeAddr(t testing.TB) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 15000+rand.IntN(17000)))
		if err != nil {
			continue
		}
		defer l.Close()
		return l.Addr().String()
	}
	t.Fatal("no free port")
	return ""
}

func (c *cluster) start(id znode.MemberID) *node {
	c.t.Helper()
	config := c.configs[id]
	r := newRecorder()
	config.Observer = r
	config.Logger = slog.New(journal{config.Logger.Handler(), r})
	m, err := Start(context.Background(), config)
	if err != nil {
		c.t.Fatal(err)
	}
	n := &node{m, r}
	c.members[id] = n
	m.OnServing(func(on bool) { r.note(func() { r.serves = on }) })
	return n
}

// kill ends a member as kill -9 would.
func (c *cluster) kill(id znode.MemberID) {
	c.members[id].kill()
	delete(c.members, id)
}

// leader waits until all running members serve and agree on a leader.
func (c *cluster) leader() *node {
	c.t.Helper()
	for begin := time.Now(); time.Since(begin) < 30*time.Second; {
		leaders := map[znode.MemberID]bool{}
		for _, m := range c.members {
			m.until(c.t, "the member serves", func() bool { return m.serves })
			leaders[m.view.Load().leader] = true
		}
		if len(leaders) == 1 {
			for id := range leaders {
				if m := c.members[id]; m != nil {
					return m
				}
			}
		}
		for _, m := range c.members { // which those answer that have heard of the next leader
			m.sync(c.t)
		}
	}
	c.t.Fatal("no leader that all agree on")
	return nil
}

// sync waits for a barrier; false if the member does not serve.
func (n *node) sync(t testing.TB) bool {
	t.Helper()
	done := make(chan bool, 1)
	n.Barrier(nil, func(ok bool) { done <- ok })
	select {
	case ok := <-done:
		return ok
	case <-time.After(30 * time.Second):
		t.Fatal("a barrier is not answered")
		return false
	}
}

// follower is a running member that does not lead.
func (c *cluster) follower() *node {
	leader := c.leader()
	for id := znode.MemberID(1); id <= 9; id++ {
		if m := c.members[id]; m != nil && m != leader {
			return m
		}
	}
	c.t.Fatal("no follower")
	return nil
}

// submit sends a request and returns where its outcome arrives.
func (n *node) submit(req znode.Request) chan outcome {
	c := make(chan outcome, 1)
	n.Submit(req, c)
	return c
}

func await(t testing.TB, c chan outcome) outcome {
	t.Helper()
	select {
	case o := <-c:
		return o
	case <-time.After(30 * time.Second):
		t.Fatal("no outcome")
		return outcome{}
	}
}

var testPassword = []byte("0123456789abcdef")

// session opens a session on this member.
func (n *node) session(t testing.TB, id jute.SessionID, timeout, grace time.Duration) (generation uint64) {
	t.Helper()
	o := await(t, n.submit(n.createSession(id, timeout, grace)))
	if o.Code != jute.OK || o.dropped {
		t.Fatalf("session 0x%x not opened: %+v", id, o)
	}
	return o.Generation
}

func (n *node) createSession(id jute.SessionID, timeout, grace time.Duration) znode.Request {
	return znode.Request{
		Kind: znode.KindCreateSession, Session: id, Password: testPassword, Owner: n.config.ID,
		TimeoutMs: int32(timeout.Milliseconds()), GraceMs: int32(grace.Milliseconds()),
	}
}

// create makes a znode.
func create(session jute.SessionID, generation uint64, path, data string, flags jute.CreateFlags) znode.Request {
	r := jute.CreateRequest{Path: path, Data: []byte(data), ACL: jute.OpenACL, Flags: flags}
	return znode.Request{Kind: znode.KindOp, Session: session, Generation: generation, Op: jute.OpCreate, Body: r.Append(nil)}
}

func (n *node) checksum() (index uint64, sum uint64) {
	n.View(func(m *znode.Machine) { index, sum = n.applier.applied.Load(), m.Checksum() })
	return
}

// agree waits until all running members have applied the same and compares their states.
func (c *cluster) agree() {
	c.t.Helper()
	leader := c.leader()
	for begin := time.Now(); time.Since(begin) < 30*time.Second; {
		leader.sync(c.t)
		index, sum := leader.checksum()
		same := true
		for id, m := range c.members {
			m.sync(c.t)
			i, s := m.checksum()
			if i == index && s != sum {
				c.t.Fatalf("member %d has another state than the leader at entry %d", id, index)
			}
			same = same && i == index
		}
		if same {
			return
		}
	}
	c.t.Fatal("members do not arrive at the same entry")
}
