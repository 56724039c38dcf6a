package ensemble

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"iter"
	"reflect"
	"slices"
	"time"
	"unsafe"

	"go.etcd.io/raft/v3"

	"understudy/internal/coordination/wal"
	"understudy/internal/coordination/znode"
)

// Stepped is a member without timers and sockets, and with nothing that runs by itself: whoever
// owns it hands in the time, the frames and the state of the streams, and lets one part of it do
// one piece of its work at a time. The parts are those that Start runs beside each other; between
// two steps any other part's may come, which is how the simulator explores their interleavings.
// What works on the disk can be left in the middle as well: its file system calls Yield between
// two operations, and the step ends there. All of it is for one goroutine.
//
// raft draws its election timeouts from crypto/rand. Before each tick a Stepped puts one in its
// place that depends on member, incarnation, term, leader and role alone, from the same range.
type Stepped struct {
	*Member
	around   Surroundings
	items    []applyItem
	writing  *thread   // a round of the log writer that was left in the middle
	besides  []*thread // snapshots being written, sent or received
	receives []func()  // snapshots that wait for the one being received
	receiver *thread
	running  *thread
	reportAt time.Time
	reapAt   time.Time
	dueAt    time.Time
	started  bool
}

// Surroundings are what a Stepped has instead of the machine's clock and network.
type Surroundings struct {
	// Now is the monotonic clock, Wall the wall clock at the same moment.
	Now  func() time.Time
	Wall func() time.Time
	// Send queues an encoded frame for a peer; false if there is no stream or no room. label
	// says what it is, for traces.
	Send func(to znode.MemberID, frame []byte, label string) bool
	// SendSnapshot carries a snapshot's frame and file to a peer and calls done once.
	SendSnapshot func(to znode.MemberID, frame, file []byte, done func(error))
	// SegmentBytes and CacheBytes are the log's; 0 are its defaults.
	SegmentBytes int64
	// StalledAfter is when requests that do not come back applied are sent again; 0 is the
	// default.
	StalledAfter time.Duration
}

// NewStepped recovers a member's state from its directory, as Start does.
func NewStepped(config Config, around Surroundings) (*Stepped, error) {
	config.now = around.Now
	config.wall = func(time.Time) time.Time { return around.Wall() }
	config.segmentBytes, config.stalledAfter, config.stepped = around.SegmentBytes, around.StalledAfter, true
	if err := config.complete(); err != nil {
		return nil, err
	}
	s := &Stepped{Member: newMember(config), around: around}
	s.carrier = (*steppedCarrier)(s)
	s.beside = func(f func()) { s.besides = append(s.besides, newThread(f)) }
	if err := s.recover(); err != nil {
		return nil, err
	}
	s.loop.beforeTick = s.pinElectionTimeout
	now := around.Now()
	s.reportAt, s.reapAt, s.dueAt = now.Add(s.reportInterval()), now.Add(s.config.ContainerCheckInterval), now
	return s, nil
}

// steppedCarrier hands the frames out.
type steppedCarrier Stepped

func (c *steppedCarrier) send(to znode.MemberID, body frameBody) bool {
	frame, err := body.append(nil)
	if err != nil {
		return false
	}
	label := fmt.Sprint("frame ", body.kind)
	if body.message != nil {
		label = body.message.GetType().String()
	}
	return c.around.Send(to, frame, label)
}

func (c *steppedCarrier) sendSnapshot(to znode.MemberID, frame []byte, body io.Reader, _ time.Duration, done func(error)) {
	file, err := io.ReadAll(body)
	if err != nil {
		done(err)
		return
	}
	c.around.SendSnapshot(to, frame, file, done)
}

// Work is which parts of a Stepped have something to do. What time alone makes due is not
// among it: see RoundDue and SessionsDue.
type Work struct {
	Loop, Log, Apply, Sessions bool
	Serving                    bool // a change of it is to be told
	Writing                    bool // the log writer was left in the middle
	Besides                    int  // how many snapshots are being written, sent or received
}

// Work looks at the parts.
func (s *Stepped) Work() Work {
	if s.Ended() {
		return Work{}
	}
	return Work{
		Loop:     len(s.events.wake) > 0 || len(s.inbound) > 0 || !s.started,
		Log:      len(s.writer.queue.wake) > 0 || s.writing != nil,
		Writing:  s.writing != nil,
		Apply:    len(s.items) > 0 || len(s.applier.queue.wake) > 0,
		Sessions: len(s.sessions.wake.wake) > 0,
		Serving:  len(s.serving.changes.wake) > 0,
		Besides:  len(s.besides),
	}
}

// TickInterval is how often Round is to be called with ticked.
func (s *Stepped) TickInterval() time.Duration { return raftTick }

// RoundDue is how long until Round is due by time alone, beside the ticks.
func (s *Stepped) RoundDue() time.Duration { return s.loop.wait() }

// Round is one turn of the raft loop. What it gives raft and what raft wants done is all in
// memory; it is carried out by the other steps.
func (s *Stepped) Round(ticked bool) {
	if s.Ended() {
		return
	}
	defer s.loop.recoverRaft()
	drainWake(s.events.wake)
	if !s.started {
		s.started = true
		s.loop.begin()
	}
	s.loop.round(ticked, nil)
}

// TellServing tells the listeners of OnServing what has changed since the last time.
func (s *Stepped) TellServing() {
	if s.Ended() {
		return // Close says the last word
	}
	drainWake(s.serving.changes.wake)
	for _, on := range s.serving.changes.take() {
		s.tellServing(on)
	}
}

func drainWake(wake <-chan struct{}) {
	select {
	case <-wake:
	default:
	}
}

// WriteLog lets the log writer make what has queued up durable, and then answer.
func (s *Stepped) WriteLog() {
	if s.Ended() {
		return
	}
	if s.writing == nil {
		drainWake(s.writer.queue.wake)
		s.writing = newThread(func() { s.writer.round() })
	}
	if s.resume(s.writing) {
		s.writing = nil
	}
}

// thread is work that can be left in the middle.
type thread struct {
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
}

func newThread(work func()) *thread {
	t := &thread{}
	t.next, t.stop = iter.Pull(func(yield func(struct{}) bool) {
		t.yield = yield
		work()
	})
	return t
}

// resume lets t go on to its next Yield, or its end.
func (s *Stepped) resume(t *thread) (over bool) {
	s.running = t
	defer func() { s.running = nil }()
	_, more := t.next()
	return !more
}

// abandoned is what unwinds a thread that does not go on.
type abandoned struct{}

// Yield ends the present step if it is one of the log writer's or of a snapshot's; the next one
// goes on from here. Elsewhere it does nothing.
func (s *Stepped) Yield() {
	t := s.running
	if t != nil && !t.yield(struct{}{}) {
		panic(abandoned{})
	}
}

// Abandon lets go of what was left in the middle: the process is dead.
func (s *Stepped) Abandon() {
	for _, t := range append(s.besides, s.writing) {
		if t != nil {
			t.abandon()
		}
	}
	s.besides, s.writing, s.receives = nil, nil, nil
}

func (t *thread) abandon() {
	defer func() {
		if raised := recover(); raised != nil && raised != (abandoned{}) {
			panic(raised)
		}
	}()
	t.stop()
}

// Apply is one item of the apply loop: committed entries, a snapshot, or barriers.
func (s *Stepped) Apply() {
	drainWake(s.applier.queue.wake)
	s.items = append(s.items, s.applier.queue.take()...)
	if s.Ended() || len(s.items) == 0 {
		return
	}
	item := s.items[0]
	s.items = s.items[1:]
	if err := s.applier.take(item); err != nil {
		s.fail(err)
	}
}

// Sessions does what the sessions' goroutine has to do by now, and says when it is due again.
func (s *Stepped) Sessions() (next time.Duration) {
	if s.Ended() {
		return time.Hour
	}
	now := s.around.Now()
	if len(s.sessions.wake.wake) > 0 {
		drainWake(s.sessions.wake.wake)
		s.sessions.takeChanges()
	}
	if !now.Before(s.dueAt) {
		s.sessions.expire()
	}
	if !now.Before(s.reportAt) {
		s.sessions.report()
		s.reportAt = now.Add(s.reportInterval())
	}
	if !now.Before(s.reapAt) {
		s.sessions.reap()
		s.reapAt = now.Add(s.config.ContainerCheckInterval)
	}
	s.dueAt = now.Add(s.sessions.untilNext())
	return min(s.dueAt.Sub(now), s.reportAt.Sub(now), s.reapAt.Sub(now))
}

// Beside goes on with the i-th of what Work counts as Besides.
func (s *Stepped) Beside(i int) {
	if s.Ended() || i >= len(s.besides) {
		return
	}
	t := s.besides[i]
	if !s.resume(t) {
		return
	}
	s.besides = slices.DeleteFunc(s.besides, func(other *thread) bool { return other == t })
	if t == s.receiver {
		s.receiver = nil
		s.receiveNext()
	}
}

// Room says whether the raft loop can be given another frame.
func (s *Stepped) Room() bool { return len(s.inbound) < inboundMax }

// Receive takes one frame of a peer's stream; an error closes the stream.
func (s *Stepped) Receive(from znode.MemberID, frame []byte) error {
	kind, payload, err := readFrame(bytes.NewReader(frame))
	if err != nil {
		return err
	}
	in, err := s.takeFrame(from, kind, payload)
	if err == nil && in != nil {
		s.inbound <- *in
	}
	return err
}

// ReceiveSnapshot takes a snapshot's frame and file, one after the other as Besides. done is
// called once raft has it, or with what went wrong.
func (s *Stepped) ReceiveSnapshot(from znode.MemberID, frame, file []byte, done func(error)) {
	s.receives = append(s.receives, func() {
		if err := s.receiveSnapshot(from, frame, file, done); err != nil {
			done(err)
		}
	})
	s.receiveNext()
}

func (s *Stepped) receiveNext() {
	if s.receiver != nil || len(s.receives) == 0 {
		return
	}
	s.receiver = newThread(s.receives[0])
	s.receives = s.receives[1:]
	s.besides = append(s.besides, s.receiver)
}

func (s *Stepped) receiveSnapshot(from znode.MemberID, frame, file []byte, done func(error)) error {
	kind, payload, err := readFrame(bytes.NewReader(frame))
	if err != nil {
		return err
	}
	if kind != frameSnapshot {
		return fmt.Errorf("frame of type %d on a snapshot stream", kind)
	}
	message, size, err := parseSnapshotFrame(payload, from, s.config.ID)
	if err != nil {
		return err
	}
	if err := s.storeReceived(message, size, bytes.NewReader(file)); err != nil {
		return err
	}
	s.inbound <- inbound{from: from, message: message, delivered: func() { done(nil) }}
	return nil
}

// StreamUp and StreamDown tell of this member's stream to a peer, streams being counted from 1;
// PeerStreamUp and PeerStreamDown of a peer's to this one; Refused that nobody listens there.
func (s *Stepped) StreamUp(peer znode.MemberID, incarnation, stream uint64) {
	s.linkChanged(linkEvent{peer: peer, change: linkOutUp, incarnation: incarnation, stream: stream})
}

// StreamDown is the end of StreamUp.
func (s *Stepped) StreamDown(peer znode.MemberID) {
	s.linkChanged(linkEvent{peer: peer, change: linkOutDown})
}

// PeerStreamUp tells of a peer's stream to this member.
func (s *Stepped) PeerStreamUp(peer znode.MemberID, incarnation uint64) {
	s.linkChanged(linkEvent{peer: peer, change: linkInUp, incarnation: incarnation})
}

// PeerStreamDown is the end of PeerStreamUp.
func (s *Stepped) PeerStreamDown(peer znode.MemberID) {
	s.linkChanged(linkEvent{peer: peer, change: linkInDown})
}

// Refused tells that nobody listens at the peer's address.
func (s *Stepped) Refused(peer znode.MemberID) {
	s.linkChanged(linkEvent{peer: peer, change: linkRefused})
}

// HandOver begins what Stop does first; handed is closed once Close should follow.
func (s *Stepped) HandOver() (handed <-chan struct{}) {
	done := make(chan struct{})
	s.events.put(func(l *loop) { l.beginHandover(done) })
	return done
}

// Close is the rest of Stop.
func (s *Stepped) Close() error {
	s.end(nil)
	for _, t := range append(s.besides, s.writing) { // Stop waits for what is under way, too
		for t != nil && !s.resume(t) {
		}
	}
	s.besides, s.writing = nil, nil
	s.loop.barriers.fail()
	s.applier.failBarriers()
	s.drop(s.currentObserver(), s.forward.close())
	for _, f := range s.barriers.close() {
		f(false)
	}
	s.tellServing(false)
	if s.failure != nil {
		return errors.Join(s.failure, s.log.Abandon())
	}
	return s.log.Close()
}

// Log is the member's log, to be read.
func (s *Stepped) Log() *wal.Log { return s.log }

// Ended says that the member has stopped, and Failure why.
func (s *Stepped) Ended() bool { return s.stopped() }

// Failure is why the member stopped by itself.
func (s *Stepped) Failure() error { return s.failure }

// Leading says whether this member is raft's leader, and in which term.
func (s *Stepped) Leading() (leads bool, term uint64) {
	st := s.loop.node.BasicStatus()
	return st.RaftState == raft.StateLeader, st.GetTerm()
}

// Applied is the index of the last entry applied and its term.
func (s *Stepped) Applied() (index, term uint64) {
	return s.applier.applied.Load(), s.applier.term.Load()
}

// Pending is the number of the oldest request that was submitted here and is not applied here
// yet, and how many there are.
func (s *Stepped) Pending() (oldest uint64, count int) { return s.forward.oldest() }

// Committed is the index up to which raft knows entries to be committed.
func (s *Stepped) Committed() uint64 { return s.loop.node.BasicStatus().GetCommit() }

// pinElectionTimeout replaces the election timeout that raft drew by one that is the same in
// every run. raft has no way to hand one in.
func (s *Stepped) pinElectionTimeout() {
	st := s.loop.node.BasicStatus()
	h := fnv.New64a()
	_, _ = fmt.Fprint(h, st.ID, s.log.Incarnation(), st.GetTerm(), st.Lead, st.RaftState)
	timeout := reflect.ValueOf(s.loop.node).Elem().FieldByName("raft").Elem().FieldByName("randomizedElectionTimeout")
	*(*int)(unsafe.Pointer(timeout.UnsafeAddr())) = electionTicks + int(h.Sum64()%electionTicks)
}
