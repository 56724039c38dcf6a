package ensemble

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/znode"
)

// TestLeaderIsReplacedByEvidence kills leaders, in virtual time: their sockets say that they are
// gone, and nobody waits for the election timeout, which begins at 500 ms.
func TestLeaderIsReplacedByEvidence(t *testing.T) {
	c := newSteppedCluster(t)
	for range 10 {
		id := c.awaitLeader(t).config.ID
		c.kill(id)
		begin := c.now
		leads := func(m *Stepped) bool { l, _ := m.Leading(); return l }
		if !c.run(t, func() bool { return !c.all(func(m *Stepped) bool { return !leads(m) }) }) {
			t.Fatal("no new leader")
		}
		if took := c.now.Sub(begin); took > 200*time.Millisecond {
			t.Errorf("%v without a leader", took)
		}
		c.start(t, id)
	}
}

// TestElectionOverLongDistances: answers take as long as the members are apart, and attempts that
// are repeated faster than that undo each other.
func TestElectionOverLongDistances(t *testing.T) {
	for _, ms := range []int{20, 60, 100, 150, 200} {
		latency := time.Duration(ms) * time.Millisecond
		t.Run(latency.String(), func(t *testing.T) {
			c := newSteppedCluster(t)
			c.latency = latency
			for range 5 {
				begin := c.now
				id := c.awaitLeader(t).config.ID
				t.Logf("%v without a leader", c.now.Sub(begin))
				c.kill(id)
				c.run(t, func() bool { return c.leader() == nil })
				c.start(t, id)
			}
		})
	}
}

// writer keeps creating nodes through one member, with several under way, as long as it lives,
// and remembers what was acknowledged.
type writer struct {
	prefix       string
	acknowledged []string
	unknown      int
	progress     *progress
}

// progress counts the acknowledgements of all writers of a round.
type progress struct {
	mu    sync.Mutex
	more  *sync.Cond
	count int
}

func newProgress() *progress {
	p := &progress{}
	p.more = sync.NewCond(&p.mu)
	return p
}

func (p *progress) add() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count++
	p.more.Broadcast()
}

// await waits for so many more.
func (p *progress) await(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n += p.count; p.count < n; {
		p.more.Wait()
	}
}

func (w *writer) run(t *testing.T, m *node, session jute.SessionID, stop <-chan struct{}) {
	open := await(t, m.submit(m.createSession(session, longTimeout, 0)))
	if open.dropped {
		return
	}
	type sent struct {
		path string
		c    chan outcome
	}
	var window []sent
	take := func() {
		s := window[0]
		window = window[1:]
		o := await(t, s.c)
		switch {
		case o.dropped:
			w.unknown++
		case o.Code == jute.OK:
			w.acknowledged = append(w.acknowledged, s.path)
			w.progress.add()
		default:
			t.Errorf("%s: %v", s.path, o.Code)
		}
	}
	for i := 0; ; i++ {
		select {
		case <-stop:
			for len(window) > 0 {
				take()
			}
			return
		default:
		}
		path := fmt.Sprintf("/%s-%06d", w.prefix, i)
		window = append(window, sent{path, m.submit(create(session, open.Generation, path, "x", 0))})
		if len(window) >= 16 {
			take()
		}
		if w.unknown > 0 { // the member is gone
			for len(window) > 0 {
				take()
			}
			return
		}
	}
}

// TestNothingAcknowledgedIsLost kills a random member (or all of them) again and again while
// every member writes; each write must be there once, in order.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	t.Run("3 members", func(t *testing.T) { testNothingIsLost(t, 3, 6) })
	t.Run("5 members", func(t *testing.T) { testNothingIsLost(t, 5, 3) })
}

func testNothingIsLost(t *testing.T, size, rounds int) {
	c := newCluster(t, size, func(config *Config) { config.SnapshotEntries, config.KeepEntries = 300, 50 })
	c.leader()
	random := rand.New(rand.NewPCG(1, 2))
	var all []*writer
	session := jute.SessionID(1)
	for round := range rounds {
		stop := make(chan struct{})
		written := newProgress()
		var wg sync.WaitGroup
		for id, m := range c.members {
			w := &writer{prefix: fmt.Sprintf("r%d-m%d", round, id), progress: written}
			all = append(all, w)
			session++
			mine := session
			wg.Go(func() { w.run(t, m, mine, stop) })
		}
		written.await(1000)
		victims := memberIDs(c.configs[1].Peers)
		minority := round%3 != 2
		if minority {
			random.Shuffle(size, func(i, j int) { victims[i], victims[j] = victims[j], victims[i] })
			victims = victims[:(size-1)/2]
		}
		for _, id := range victims {
			c.kill(id)
		}
		if minority {
			written.await(1000)
		}
		close(stop)
		wg.Wait()
		for _, id := range victims {
			c.start(id)
		}
		c.agree()
	}
	total := 0
	c.leader().View(func(machine *znode.Machine) {
		for _, w := range all {
			total += len(w.acknowledged)
			before := jute.Zxid(0)
			for _, path := range w.acknowledged {
				stat, ok := machine.Exists(path)
				if !ok {
					t.Fatalf("%s was acknowledged and is gone", path)
				}
				if stat.Czxid <= before {
					t.Fatalf("%s has zxid %#x, the one before it %#x", path, stat.Czxid, before)
				}
				before = stat.Czxid
			}
		}
	})
	t.Logf("%d writes acknowledged", total)
}

// TestForwardsApplyOnce drops and doubles forwarded batches, and changes the leader meanwhile:
// every write is applied exactly once, in order.
func TestForwardsApplyOnce(t *testing.T) {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(3, 4))
	c := newCluster(t, 5, func(config *Config) {
		config.stalledAfter = 50 * time.Millisecond
		config.seam = func(_ znode.MemberID, kind frameType) int {
			if kind != frameForward && kind != frameRefused {
				return 1
			}
			mu.Lock()
			defer mu.Unlock()
			switch random.IntN(10) {
			case 0:
				return 0
			case 1, 2:
				return 2
			}
			return 1
		}
	})
	leader := c.leader()
	m := c.follower()
	open := await(t, m.submit(m.createSession(7, longTimeout, 0)))
	// Three under way at a time, so that there are many batches to drop and double.
	var window []chan outcome
	next := 0
	take := func() {
		got := await(t, window[0])
		window = window[1:]
		d := jute.NewDecoder(got.Reply)
		if path := d.String(); got.Code != jute.OK || path != fmt.Sprintf("/s-%010d", next) {
			t.Fatalf("write %d: code %v, path %q", next, got.Code, path)
		}
		next++
	}
	for i := range 300 {
		window = append(window, m.submit(create(7, open.Generation, "/s-", fmt.Sprint(i), jute.FlagPersistentSequential)))
		if len(window) == 3 {
			take()
		}
		if i == 150 {
			c.kill(leader.config.ID)
		}
	}
	for len(window) > 0 {
		take()
	}
	c.start(leader.config.ID)
	c.agree()
}

// TestBehindTheLogCatchesUp restarts a member whose place in the log is gone while the others
// write.
func TestBehindTheLogCatchesUp(t *testing.T) {
	c := newCluster(t, 3, func(config *Config) { config.SnapshotEntries, config.KeepEntries = 200, 20 })
	leader, behind := c.leader(), c.follower()
	generation := leader.session(t, 1, longTimeout, 0)
	id := behind.config.ID
	c.kill(id)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if o := await(t, leader.submit(create(1, generation, fmt.Sprintf("/n%07d", i), "some data", 0))); o.Code != jute.OK {
				t.Errorf("write %d: %v", i, o.Code)
				return
			}
		}
	})
	leader.until(t, "the log begins behind the member", func() bool { return leader.logged["snapshot saved"] >= 2 })
	n := c.start(id)
	n.until(t, "a snapshot arrives", func() bool { return n.resets > 0 })
	at := 0
	n.note(func() { at = n.applied })
	n.until(t, "entries follow", func() bool { return n.applied >= at+50 })
	close(stop)
	wg.Wait()
	c.agree()
}

func TestQuorumLossStopsServing(t *testing.T) {
	c := newCluster(t, 3)
	leader := c.leader()
	changes := make(chan bool, 10)
	leader.OnServing(func(on bool) { changes <- on })
	if !<-changes {
		t.Fatal("the leader does not serve")
	}
	for id := range c.members {
		if id != leader.config.ID {
			c.kill(id)
		}
	}
	if <-changes {
		t.Error("serving again without a quorum")
	}
	failed := make(chan bool, 1)
	leader.Barrier(nil, func(ok bool) { failed <- !ok })
	if !<-failed {
		t.Error("a barrier passed without a quorum")
	}
	for id := range c.configs {
		if c.members[id] == nil {
			c.start(id)
		}
	}
	if !<-changes {
		t.Error("not serving with the quorum back")
	}
	c.agree()
}

// TestMemberThatLostItsDiskCatchesUp removes a member's directory: it comes back empty, and the
// others bring it up.
func TestMemberThatLostItsDiskCatchesUp(t *testing.T) {
	c := newCluster(t, 3)
	leader, victim := c.leader(), c.follower()
	generation := leader.session(t, 1, longTimeout, 0)
	for i := range 50 {
		if o := await(t, leader.submit(create(1, generation, fmt.Sprintf("/n%d", i), "x", 0))); o.Code != jute.OK {
			t.Fatal(o.Code)
		}
	}
	id := victim.config.ID
	c.kill(id)
	if err := os.RemoveAll(c.configs[id].Dir); err != nil {
		t.Fatal(err)
	}
	m := c.start(id)
	m.until(t, "the lost entries arrive", func() bool { return m.applied >= 51 || m.resets > 0 })
	c.agree()
}

// TestIsolatedMembers cuts members off, silently: nothing is refused, no stream breaks. A
// leader is replaced after the election timeout and gives up; a follower that comes back does
// not disturb the leader there is.
func TestIsolatedMembers(t *testing.T) {
	var isolated atomic.Uint64
	c := newCluster(t, 3, func(config *Config) {
		self := config.ID
		config.seam = func(to znode.MemberID, _ frameType) int {
			if cut := znode.MemberID(isolated.Load()); cut != 0 && (cut == to || cut == self) {
				return 0
			}
			return 1
		}
	})
	follower := c.follower()
	term := c.leader().Status().Term
	serves := make(chan bool, 10)
	follower.OnServing(func(on bool) { serves <- on })
	<-serves
	isolated.Store(uint64(follower.config.ID))
	if <-serves {
		t.Error("an isolated follower serves")
	}
	isolated.Store(0)
	if !<-serves {
		t.Error("a follower that is back does not serve")
	}
	if now := c.leader().Status().Term; now != term {
		t.Errorf("a follower that came back changed the term from %d to %d", term, now)
	}

	old := c.leader()
	generation := old.session(t, 1, longTimeout, 0)
	ended := make(chan bool, 10)
	old.OnServing(func(on bool) { ended <- on })
	<-ended
	isolated.Store(uint64(old.config.ID))
	lost := old.submit(create(1, generation, "/late", "", 0)) // under way, to nobody
	if <-ended {
		t.Error("an isolated leader serves")
	}
	var other *node
	for _, m := range c.members {
		if m != old {
			other = m
		}
	}
	if o := await(t, other.submit(create(1, generation, "/meanwhile", "", 0))); o.Code != jute.OK {
		t.Errorf("a write beside the isolated leader: %v", o.Code)
	}
	isolated.Store(0)
	if o := await(t, lost); o.Code != jute.OK {
		t.Errorf("the write under way: %+v", o)
	}
	c.agree()
}
