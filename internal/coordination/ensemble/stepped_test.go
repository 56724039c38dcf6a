package ensemble

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/wal"
	"understudy/internal/coordination/znode"
	"understudy/internal/vfs"
)

// steppedCluster moves three members on one goroutine: every part in turn, frames at once.
type steppedCluster struct {
	now     time.Time
	latency time.Duration // of each frame
	members []*Stepped    // by id, from 1; nil: it does not run
	disks   []*vfs.Mem
	frames  []steppedFrame // under way
	trace   []string
}

type steppedFrame struct {
	due     time.Time
	deliver func()
}

func newSteppedCluster(t *testing.T) *steppedCluster {
	t.Helper()
	c := &steppedCluster{now: time.Unix(1_700_000_000, 0), members: make([]*Stepped, 3)}
	for range c.members {
		c.disks = append(c.disks, vfs.NewMem())
	}
	for id := range znode.MemberID(3) {
		c.start(t, id+1)
	}
	return c
}

// start starts a member on its disk and connects it.
func (c *steppedCluster) start(t *testing.T, id znode.MemberID) *Stepped {
	t.Helper()
	s, err := NewStepped(Config{ID: id, Peers: map[znode.MemberID]string{1: "", 2: "", 3: ""}, Dir: "/data", FS: c.disks[id-1]}, Surroundings{
		Now: func() time.Time { return c.now }, Wall: func() time.Time { return c.now },
		Send: func(to znode.MemberID, frame []byte, label string) bool {
			if c.members[to-1] == nil {
				return false
			}
			c.trace = append(c.trace, fmt.Sprintf("%d->%d %s", id, to, label))
			c.frames = append(c.frames, steppedFrame{c.now.Add(c.latency), func() {
				if c.members[to-1] == nil {
					return
				}
				if err := c.members[to-1].Receive(id, frame); err != nil {
					t.Errorf("frame %s from %d to %d: %v", label, id, to, err)
				}
			}})
			return true
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	c.members[id-1] = s
	for _, peer := range c.members {
		if peer != nil && peer != s {
			s.StreamUp(peer.config.ID, peer.Incarnation(), s.Incarnation())
			s.PeerStreamUp(peer.config.ID, peer.Incarnation())
			peer.StreamUp(id, s.Incarnation(), s.Incarnation())
			peer.PeerStreamUp(id, s.Incarnation())
		}
	}
	return s
}

// kill ends a member as kill -9 would: the others' streams end, and its address refuses.
func (c *steppedCluster) kill(id znode.MemberID) {
	c.members[id-1].Abandon()
	c.members[id-1] = nil
	c.disks[id-1] = c.disks[id-1].Clone()
	for _, peer := range c.members {
		if peer != nil {
			peer.StreamDown(id)
			peer.PeerStreamDown(id)
			peer.Refused(id)
		}
	}
}

// run lets all run until a condition holds; false if it does not within ten seconds.
func (c *steppedCluster) run(t *testing.T, until func() bool) bool {
	for step := range 2000 {
		c.now = c.now.Add(raftTick / 10)
		for _, m := range c.members {
			if m == nil {
				continue
			}
			m.Round(step%10 == 0)
			for turns := 0; m.Work() != (Work{}); turns++ {
				if turns > 1000 {
					t.Fatalf("the member does not come to rest: %+v", m.Work())
				}
				m.Round(false)
				m.WriteLog()
				m.Apply()
				m.Sessions()
				m.TellServing()
				m.Beside(0)
			}
		}
		frames := c.frames
		c.frames = nil
		for _, f := range frames {
			if f.due.After(c.now) {
				c.frames = append(c.frames, f)
				continue
			}
			f.deliver()
		}
		if until() {
			return true
		}
	}
	return false
}

// leader is the member that leads, and that all that run follow and serve under.
func (c *steppedCluster) leader() (leader *Stepped) {
	for _, m := range c.members {
		if m == nil || m.Ended() {
			continue
		}
		id := m.view.Load().leader
		if !m.Serving() || id == 0 || c.members[id-1] == nil || leader != nil && leader.config.ID != id {
			return nil
		}
		leader = c.members[id-1]
	}
	return leader
}

func (c *steppedCluster) awaitLeader(t *testing.T) *Stepped {
	t.Helper()
	if !c.run(t, func() bool { return c.leader() != nil }) {
		t.Fatal("nobody was elected in ten seconds")
	}
	return c.leader()
}

// write has a member create sessions, one after the other, and waits until all have applied them.
func (c *steppedCluster) write(t *testing.T, m *Stepped, sessions ...jute.SessionID) {
	t.Helper()
	for _, id := range sessions {
		m.Submit(znode.Request{Kind: znode.KindCreateSession, Session: id, Password: make([]byte, 16), TimeoutMs: 1_000_000, Owner: m.config.ID}, nil)
		if !c.run(t, func() bool { return c.all(func(m *Stepped) bool { _, ok := m.machine.Session(id); return ok }) }) {
			t.Fatalf("session %d is not everywhere", id)
		}
	}
}

// all says whether a condition holds at all members that run.
func (c *steppedCluster) all(holds func(*Stepped) bool) bool {
	for _, m := range c.members {
		if m != nil && !holds(m) {
			return false
		}
	}
	return true
}

// TestSteppedMembersAgree elects a leader and writes through every member, twice with the same
// outcome to the last frame.
func TestSteppedMembersAgree(t *testing.T) {
	var traces []string
	for range 2 {
		c := newSteppedCluster(t)
		c.awaitLeader(t)
		for i, m := range c.members {
			m.Submit(znode.Request{Kind: znode.KindCreateSession, Session: jute.SessionID(i + 1), Password: make([]byte, 16), TimeoutMs: 10_000, Owner: m.config.ID}, nil)
		}
		agreed := func() bool {
			for _, m := range c.members {
				if m.machine.SessionCount() != 3 || m.machine.Checksum() != c.members[0].machine.Checksum() {
					return false
				}
			}
			return true
		}
		if !c.run(t, agreed) {
			t.Fatal("the members do not agree about three sessions")
		}
		traces = append(traces, fmt.Sprint(c.trace))
		for _, m := range c.members {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if traces[0] != traces[1] {
		t.Error("the same steps sent other frames the second time")
	}
}

// TestBarrierIsNotAnsweredByAFormerLife: the leader's answer to a question that this member
// asked before it was restarted may come late, and says less than a barrier of now needs.
func TestBarrierIsNotAnsweredByAFormerLife(t *testing.T) {
	c := newSteppedCluster(t)
	m := c.members[0]
	before := m.loop.barriers.context
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := NewStepped(m.config, m.around)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Abandon()
	l := again.loop
	if d := l.barriers.context - before; d < 1<<20 || -d < 1<<20 {
		t.Errorf("the contexts begin at %d after %d", l.barriers.context, before)
	}
	l.leader = 2
	l.barriers.enqueue(l, func(bool) {})
	for _, context := range []uint64{0, 1, before + 1, l.barriers.first - 1, l.barriers.context + 1} {
		l.barriers.confirmed(l, raft.ReadState{Index: 7, RequestCtx: binary.LittleEndian.AppendUint64(nil, context)})
		if len(l.barriers.asked) != 1 {
			t.Errorf("context %d answers a barrier that asked with %d", context, l.barriers.context)
		}
	}
	l.barriers.confirmed(l, raft.ReadState{Index: 7, RequestCtx: binary.LittleEndian.AppendUint64(nil, l.barriers.first)})
	if len(l.barriers.asked) != 0 {
		t.Error("its own context does not answer it")
	}
}

// TestDamagedEntryStopsTheMember: raft panics with the log's error where it cannot read an entry.
func TestDamagedEntryStopsTheMember(t *testing.T) {
	m := newSteppedCluster(t).members[0]
	func() {
		defer m.loop.recoverRaft()
		panic(error(&wal.CorruptionError{File: "/data/log/00000001.wal", Offset: 77, Cause: "a bit"}))
	}()
	if !errors.Is(m.Failure(), wal.ErrCorrupt) {
		t.Errorf("the member stopped with %v", m.Failure())
	}
}

// TestRelayedReadIndexStaysHere: raft hands on another member's MsgReadIndex to the leader it
// knows, and the receiver would close the stream over a message that is not its sender's.
func TestRelayedReadIndexStaysHere(t *testing.T) {
	c := newSteppedCluster(t)
	from, to := uint64(3), uint64(2)
	c.members[0].loop.dispatch(&pb.Message{Type: pb.MsgReadIndex.Enum(), From: &from, To: &to})
	if len(c.trace) > 0 {
		t.Errorf("sent %v", c.trace)
	}
}

// TestLateSecondSnapshot: a second snapshot is installed before the apply loop came to the first,
// whose file is gone by then.
func TestLateSecondSnapshot(t *testing.T) {
	m := newSteppedCluster(t).members[0]
	first, second := wal.SnapshotID{Index: 5, Term: 1}, wal.SnapshotID{Index: 9, Term: 1}
	for _, id := range []wal.SnapshotID{first, second} {
		frozen := m.machine.Freeze()
		err := m.log.SaveSnapshot(id, func(w io.Writer) error {
			_, err := frozen.WriteTo(w)
			return err
		})
		frozen.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []wal.SnapshotID{first, second} {
		if err := m.applier.restore(id); err != nil {
			t.Fatal(err)
		}
	}
	if index, _ := m.Applied(); index != second.Index {
		t.Errorf("applied is %d", index)
	}
	index, term := second.Index+2, uint64(1)
	if err := m.applier.apply(&pb.Entry{Index: &index, Term: &term}); err == nil {
		t.Error("an entry was left out and nobody noticed")
	}
}

// TestDamagedSnapshotIsWrittenAnew: the file was damaged after it was written, and the member
// that it is sent to refuses it.
func TestDamagedSnapshotIsWrittenAnew(t *testing.T) {
	m := newSteppedCluster(t).members[0]
	id := wal.SnapshotID{Index: 5, Term: 1}
	m.applier.applied.Store(id.Index)
	m.applier.term.Store(id.Term)
	work := func() {
		for m.Work().Apply || m.Work().Besides > 0 {
			m.Apply()
			m.Beside(0)
		}
	}
	m.applier.put(applyItem{anew: true})
	work()
	if err := m.log.CheckSnapshot(id); err != nil {
		t.Fatal(err)
	}
	f, err := m.config.FS.OpenFile("/data/snapshot/0000000000000005.snapshot")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0xff}, 40); err != nil {
		t.Fatal(err)
	}
	if err := m.log.CheckSnapshot(id); !errors.Is(err, wal.ErrCorrupt) {
		t.Fatalf("the damage is not noticed: %v", err)
	}
	two := uint64(2)
	m.around.SendSnapshot = func(_ znode.MemberID, _, _ []byte, done func(error)) { done(errors.New("refused")) }
	m.sendSnapshot(&pb.Message{Type: pb.MsgSnap.Enum(), To: &two, Snapshot: &pb.Snapshot{}})
	work()
	if err := m.log.CheckSnapshot(id); err != nil {
		t.Errorf("the snapshot is still damaged: %v", err)
	}
}

// TestOldRefusalIsNoEvidence: a member's address refused before it was up; since then it has been
// cut off from this one, which knows nothing of it.
func TestOldRefusalIsNoEvidence(t *testing.T) {
	c := newSteppedCluster(t)
	l := c.members[0].loop
	l.linkChanged(linkEvent{peer: 2, change: linkOutDown})
	l.linkChanged(linkEvent{peer: 2, change: linkInDown})
	p := l.peers[2]
	p.out, p.in = false, 0
	l.linkChanged(linkEvent{peer: 2, change: linkRefused})
	if !p.dead(l.now) {
		t.Error("nobody listens at a closed peer's address, and it is not dead")
	}
	l.now = l.now.Add(redialMax)
	l.linkChanged(linkEvent{peer: 2, change: linkRefused}) // again
	l.now = l.now.Add(3 * redialMax)
	if !p.dead(l.now) {
		t.Error("it has refused twice, and is not dead")
	}
	l.now = l.now.Add(time.Minute)
	if p.dead(l.now) {
		t.Error("a refusal a minute ago is taken for evidence")
	}
}
