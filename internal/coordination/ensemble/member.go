package ensemble

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/wal"
	"understudy/internal/coordination/znode"
)

// Member is one running member of the ensemble.
type Member struct {
	config Config
	logger *slog.Logger
	log    *wal.Log

	// treeMu guards the tree and who observes it. The apply loop alone takes it to write.
	treeMu   sync.RWMutex
	machine  *znode.Machine
	observer Observer

	forward   *forwarder
	applier   *applier
	writer    *logWriter
	sessions  *sessions
	transport *transport // nil in a Stepped
	carrier   carrier    // the transport, as far as it sends
	loop      *loop
	beside    func(func()) // runs what takes long beside the rest

	events    *mailbox[event]
	barriers  *mailbox[func(bool)]
	inbound   chan inbound
	view      atomic.Pointer[raftView]
	receiving sync.Mutex // one incoming snapshot at a time

	snapshotting atomic.Bool
	abandoned    bool // set by kill: close as a crash would

	servingNow atomic.Bool
	serving    struct {
		sync.Mutex // held while listeners are called, which keeps them in order
		listeners  []func(bool)
		changes    *mailbox[bool]
	}

	stopping chan struct{} // closed when the end begins
	done     chan struct{} // closed when it is over
	stopOnce sync.Once
	failure  error // written before stopping is closed
	wg       sync.WaitGroup
}

// raftView is what others may know of the loop's state.
type raftView struct {
	leader znode.MemberID
	term   uint64
	state  raft.StateType
}

// carrier takes frames to other members: the transport, or whoever steps the member.
type carrier interface {
	// send queues a frame for a peer; false if there is no stream or no room.
	send(to znode.MemberID, body frameBody) bool
	// sendSnapshot sends a snapshot's frame and file, outside the streams, and calls done once
	// with what came of it.
	sendSnapshot(to znode.MemberID, frame []byte, body io.Reader, patience time.Duration, done func(error))
}

// Start opens the data directory, recovers the tree from snapshot and log, and joins the
// others. It returns as soon as the state is recovered; Serving tells when there is a leader.
func Start(ctx context.Context, config Config) (*Member, error) {
	if err := config.complete(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m := newMember(config)
	m.beside = m.wg.Go
	listener, err := m.listen()
	if err != nil {
		return nil, err
	}
	if err := m.recover(); err != nil {
		if listener != nil {
			_ = listener.Close()
		}
		return nil, err
	}
	m.start(listener)
	return m, nil
}

func newMember(config Config) *Member {
	m := &Member{
		config: config, logger: config.Logger, observer: config.Observer,
		events: newMailbox[event](), barriers: newMailbox[func(bool)](), inbound: make(chan inbound, inboundMax),
		stopping: make(chan struct{}), done: make(chan struct{}),
	}
	m.view.Store(&raftView{})
	m.serving.changes = newMailbox[bool]()
	return m
}

// inboundMax is how many frames wait for the raft loop before the streams are no longer read.
const inboundMax = 1024

// listen opens the raft port first: a port in use is the likeliest mistake, and nothing must
// have been touched by then.
func (m *Member) listen() (net.Listener, error) {
	if len(m.config.Peers) == 1 || m.config.Listener != nil {
		return m.config.Listener, nil
	}
	addr := m.config.Peers[m.config.ID]
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("ensemble: member %d cannot listen on its raft address %s: %w; free the port or change server.%d", m.config.ID, addr, err, m.config.ID)
	}
	return listener, nil
}

// recover opens the log, restores the newest snapshot and makes the RawNode.
func (m *Member) recover() (err error) {
	identity := wal.Identity{Member: uint64(m.config.ID)}
	for _, id := range memberIDs(m.config.Peers) {
		identity.Members = append(identity.Members, uint64(id))
	}
	var mark *wal.Recovery
	m.log, mark, err = m.openLog(wal.Options{
		Dir: m.config.Dir, FS: m.config.FS, Identity: identity,
		CacheBytes: m.config.CacheBytes, SegmentBytes: m.config.segmentBytes, Logger: m.logger,
		Now: func() time.Time { return m.config.wall(m.config.now()) }, Stepped: m.config.stepped,
	})
	if err != nil {
		return err
	}
	id := m.log.NewestSnapshot()
	m.machine = znode.New()
	if id.Index > 0 {
		if m.machine, err = m.readSnapshot(id); err != nil {
			_ = m.log.Abandon()
			return err
		}
	}
	m.forward = newForwarder(m.config.ID, m.log.Incarnation())
	m.applier = &applier{m: m, queue: newMailbox[applyItem]()}
	m.applier.term.Store(id.Term)
	m.applier.applied.Store(id.Index)
	m.writer = &logWriter{
		log: m.log, queue: newMailbox[*pb.Message](), toRaft: m.toRaft, toPeer: m.toPeer, fail: m.fail,
		restore: func(id wal.SnapshotID) { m.applier.put(applyItem{restore: &id}) },
	}
	m.sessions = newSessions(m)
	if m.carrier == nil {
		m.transport = newTransport(m.config.ID, m.config.Peers, m.log.Incarnation(), m.logger, m)
		m.transport.seam = m.config.seam
		m.transport.stallAfter = max(time.Second, time.Duration(m.config.SyncLimit)*m.config.TickTime)
		m.carrier = m.transport
	}
	node, err := raft.NewRawNode(&raft.Config{
		ID: uint64(m.config.ID), ElectionTick: electionTicks, HeartbeatTick: heartbeatTicks,
		Storage: m.log, Applied: id.Index, AsyncStorageWrites: true,
		MaxSizePerMsg: 1 << 20, MaxCommittedSizePerReady: 16 << 20,
		MaxUncommittedEntriesSize: uncommittedMax, MaxInflightMsgs: 256, MaxInflightBytes: 16 << 20,
		CheckQuorum: true, PreVote: true, ReadOnlyOption: raft.ReadOnlySafe,
		DisableProposalForwarding: true, StepDownOnRemoval: true, Logger: raftLogger{m.logger},
	})
	if err != nil {
		_ = m.log.Abandon()
		return err
	}
	m.loop = newLoop(m, node)
	if mark != nil {
		m.loop.recovery = &recovery{mark: *mark, terms: make(map[znode.MemberID]uint64), toldAt: m.loop.now}
	}
	return nil
}

func (m *Member) start(listener net.Listener) {
	m.wg.Go(func() { m.loop.run(m.stopping) })
	m.wg.Go(func() { m.writer.run(m.stopping) })
	m.wg.Go(func() { m.applier.run(m.stopping) })
	m.wg.Go(func() { m.sessions.run(m.stopping) })
	quit, notified := make(chan struct{}), make(chan struct{})
	go func() { defer close(notified); m.notify(quit) }()
	m.transport.start(listener)
	go m.finish(quit, notified)
}

// Submit hands a request to the log: FIFO per calling goroutine, applied exactly once. The
// outcome arrives at Observer.Applied with token, or at Observer.Dropped if it will never be
// known. Submit waits while too much is pending (64 MiB); it must not be called from Observer
// methods.
func (m *Member) Submit(req znode.Request, token any) {
	if !m.forward.add(req, token) {
		m.drop(m.currentObserver(), []any{token})
		return
	}
	m.events.ring()
}

// View calls f with the tree under its read lock: no entry is applied while f runs. f must not
// wait, and must not call View again.
func (m *Member) View(f func(*znode.Machine)) {
	m.treeMu.RLock()
	defer m.treeMu.RUnlock()
	f(m.machine)
}

// Barrier is sync: f(true) is called by the apply loop, without the tree's lock, once
// everything that was committed anywhere before this call has been applied here; f(false) if
// the member stops or the quorum is lost, perhaps from another goroutine. f must not wait.
// token is not used; a caller may give what f belongs to.
func (m *Member) Barrier(token any, f func(ok bool)) {
	if !m.barriers.put(f) {
		f(false)
		return
	}
	m.events.ring()
}

// Touch reports a sign of life of a session connected here. It is cheap.
func (m *Member) Touch(session jute.SessionID) { m.sessions.touch(session) }

// ConnectionLost reports that the peer of a connection ended it (EOF or RST, never our own
// close), for a session that asked for fast expiry.
func (m *Member) ConnectionLost(session jute.SessionID, generation uint64) {
	m.Submit(znode.Request{Kind: znode.KindConnectionLost, Session: session, Generation: generation}, nil)
}

// SetObserver sets the observer if Config had none, under the tree's write lock.
func (m *Member) SetObserver(o Observer) {
	m.treeMu.Lock()
	m.observer = o
	m.treeMu.Unlock()
}

func (m *Member) currentObserver() Observer {
	m.treeMu.RLock()
	defer m.treeMu.RUnlock()
	return m.observer
}

// drop tells the observer of requests whose outcome will never be known.
func (m *Member) drop(o Observer, tokens []any) {
	for _, token := range tokens {
		if token != nil && o != nil {
			o.Dropped(token)
		}
	}
}

// Status returns a picture of the member.
func (m *Member) Status() Status {
	view := m.view.Load()
	s := Status{
		ID: m.config.ID, Leader: view.leader, Term: view.term, Members: len(m.config.Peers),
		AppliedIndex: m.applier.applied.Load(), SnapshotIndex: m.log.NewestSnapshot().Index, LogBytes: m.log.Bytes(),
		Entries: m.applier.entries.Load(), Requests: m.applier.requests.Load(), Syncs: m.log.Syncs(),
	}
	s.FirstIndex, _ = m.log.FirstIndex()
	s.LastIndex, _ = m.log.LastIndex()
	_, s.Pending = m.forward.oldest()
	m.View(func(machine *znode.Machine) { s.AppliedZxid = machine.LastZxid() })
	m.askLoop(&s)
	switch {
	case !m.Serving():
		s.Mode = ModeLooking
	case len(m.config.Peers) == 1:
		s.Mode = ModeStandalone
	case view.leader == m.config.ID:
		s.Mode = ModeLeader
	default:
		s.Mode = ModeFollower
	}
	return s
}

// askLoop fills in what only the raft loop knows.
func (m *Member) askLoop(s *Status) {
	answered := make(chan Status, 1)
	if m.config.stepped {
		answered <- m.loop.status()
	} else {
		m.events.put(func(l *loop) { answered <- l.status() })
	}
	select {
	case a := <-answered:
		s.CommittedIndex, s.Followers, s.SyncedFollowers, s.Peers = a.CommittedIndex, a.Followers, a.SyncedFollowers, a.Peers
	case <-m.stopping:
	}
}

// Serving says whether clients may be served: there is a leader, and what was committed when
// this member found it has been applied here.
func (m *Member) Serving() bool { return m.servingNow.Load() }

// OnServing registers f, which is called with each change of Serving, in order: at once with
// the present value, later on a goroutine of the member's. f must not call OnServing.
func (m *Member) OnServing(f func(bool)) {
	m.serving.Lock()
	defer m.serving.Unlock()
	m.serving.listeners = append(m.serving.listeners, f)
	f(m.servingNow.Load())
}

// notify carries changes of serving to the listeners until quit; the last one is false.
func (m *Member) notify(quit <-chan struct{}) {
	for {
		select {
		case <-quit:
			m.tellServing(false)
			return
		case <-m.serving.changes.wake:
			for _, on := range m.serving.changes.take() {
				m.tellServing(on)
			}
		}
	}
}

func (m *Member) tellServing(on bool) {
	m.serving.Lock()
	defer m.serving.Unlock()
	if m.servingNow.Swap(on) == on {
		return
	}
	for _, f := range m.serving.listeners {
		f(on)
	}
}

// Done is closed when the member has stopped, by Stop or because its disk failed; Err then
// tells why (nil after Stop).
func (m *Member) Done() <-chan struct{} { return m.done }

// Err is the reason of the end, once Done is closed.
func (m *Member) Err() error {
	select {
	case <-m.done:
		return m.failure
	default:
		return nil
	}
}

// Addr is the raft listener's address, "" when standalone.
func (m *Member) Addr() string {
	if m.transport == nil || m.transport.listener == nil {
		return ""
	}
	return m.transport.listener.Addr().String()
}

// Incarnation is this start's number; it grows with every start.
func (m *Member) Incarnation() uint64 { return m.log.Incarnation() }

// Stop ends the member: a leader hands over first. It returns within ctx.
func (m *Member) Stop(ctx context.Context) error {
	if !m.stopped() {
		handed := make(chan struct{})
		m.events.put(func(l *loop) { l.beginHandover(handed) })
		select {
		case <-handed:
		case <-ctx.Done():
		case <-m.stopping:
		}
	}
	m.end(nil)
	select {
	case <-m.done:
		return m.failure
	case <-ctx.Done():
		return fmt.Errorf("ensemble: the member did not stop in time: %w", ctx.Err())
	}
}

// fail stops the member for good: its disk or its state is not to be trusted.
func (m *Member) fail(err error) {
	m.logger.Error("ensemble member stops", "error", err)
	m.end(err)
}

func (m *Member) end(err error) {
	m.stopOnce.Do(func() {
		m.failure = err
		close(m.stopping)
	})
}

func (m *Member) stopped() bool {
	select {
	case <-m.stopping:
		return true
	default:
		return false
	}
}

// finish waits for the end and cleans up: streams first, so that nothing is acknowledged any
// more; then the goroutines; the directory's lock last.
func (m *Member) finish(quit chan<- struct{}, notified <-chan struct{}) {
	<-m.stopping
	m.transport.stop()
	dropped := m.forward.close()
	m.wg.Wait()
	m.drop(m.currentObserver(), dropped)
	for _, f := range m.barriers.close() {
		f(false)
	}
	close(quit)
	<-notified
	closeLog := m.log.Close
	if m.abandoned || m.failure != nil {
		closeLog = m.log.Abandon
	}
	if err := closeLog(); err != nil && m.failure == nil && !m.abandoned {
		m.failure = err
	}
	close(m.done)
}

// kill ends the member as kill -9 would, for tests: nothing is handed over or written.
func (m *Member) kill() {
	m.stopOnce.Do(func() {
		m.abandoned = true
		m.failure = errors.New("killed")
		close(m.stopping)
	})
	<-m.done
}

func (m *Member) toRaft(messages []*pb.Message) {
	if len(messages) == 0 {
		m.events.ring()
		return
	}
	m.events.put(func(l *loop) {
		for _, message := range messages {
			l.step(message)
		}
	})
}

func (m *Member) toPeer(message *pb.Message) {
	m.carrier.send(znode.MemberID(message.GetTo()), raftFrame(message))
}

// frame takes a frame from another member, on its stream's goroutine.
func (m *Member) frame(from znode.MemberID, t frameType, payload []byte) error {
	in, err := m.takeFrame(from, t, payload)
	if err != nil || in == nil {
		return err
	}
	select {
	case m.inbound <- *in:
		return nil
	case <-m.stopping:
		return ErrStopped
	}
}

// takeFrame decodes a frame and deals with it, or returns what is to be queued for the raft
// loop.
func (m *Member) takeFrame(from znode.MemberID, t frameType, payload []byte) (*inbound, error) {
	switch t {
	case frameRaft:
		message, err := parseRaft(payload, from, m.config.ID)
		if err != nil {
			return nil, err
		}
		if message.GetType() == pb.MsgSnap {
			return nil, errors.New("a MsgSnap outside a snapshot stream")
		}
		return &inbound{from: from, message: message}, nil
	case frameForward:
		f, err := parseForward(payload, from)
		if err != nil {
			return nil, err
		}
		return &inbound{from: from, forward: &f}, nil
	case frameRefused:
		term, err := parseRefused(payload)
		if err != nil {
			return nil, err
		}
		m.events.put(func(l *loop) { l.cursor.refusedBy(l, from, term) })
		return nil, nil
	case frameTermAsk:
		incarnation, err := parseTermAsk(payload)
		if err != nil {
			return nil, err
		}
		m.events.put(func(l *loop) { l.sayTerm(from, incarnation) })
		return nil, nil
	case frameTermSaid:
		incarnation, term, err := parseTermSaid(payload)
		if err != nil {
			return nil, err
		}
		m.events.put(func(l *loop) { l.termSaid(from, incarnation, term) })
		return nil, nil
	case frameTouches:
		touches, err := parseTouches(payload)
		if err != nil {
			return nil, err
		}
		m.sessions.touched(touches)
		return nil, nil
	}
	return nil, fmt.Errorf("frame type %d is not known", t)
}

func (m *Member) linkChanged(e linkEvent) {
	m.events.put(func(l *loop) { l.linkChanged(e) })
}

// parseRaft decodes a raft message and refuses what raft would not survive.
func parseRaft(payload []byte, from, self znode.MemberID) (*pb.Message, error) {
	message := new(pb.Message)
	if err := proto.Unmarshal(payload, message); err != nil {
		return nil, err
	}
	if message.GetFrom() != uint64(from) || message.GetTo() != uint64(self) {
		return nil, fmt.Errorf("a raft message from %d to %d came from %d to %d", message.GetFrom(), message.GetTo(), from, self)
	}
	switch message.GetType() {
	case pb.MsgApp, pb.MsgAppResp, pb.MsgVote, pb.MsgVoteResp, pb.MsgPreVote, pb.MsgPreVoteResp, pb.MsgSnap,
		pb.MsgHeartbeat, pb.MsgHeartbeatResp, pb.MsgTimeoutNow, pb.MsgReadIndex, pb.MsgReadIndexResp:
	default:
		return nil, fmt.Errorf("raft message type %d does not travel", message.GetType())
	}
	if n := len(message.GetContext()); message.GetType() == pb.MsgHeartbeatResp && n != 0 && n != 8 {
		return nil, fmt.Errorf("heartbeat response with a context of %d bytes", n)
	}
	if n := len(message.GetEntries()); (message.GetType() == pb.MsgReadIndex || message.GetType() == pb.MsgReadIndexResp) && n != 1 {
		return nil, fmt.Errorf("%s with %d entries", message.GetType(), n)
	}
	for i, e := range message.GetEntries() {
		if message.GetType() == pb.MsgApp && e.GetIndex() != message.GetIndex()+uint64(i)+1 {
			return nil, fmt.Errorf("entry %d at place %d after %d", e.GetIndex(), i, message.GetIndex())
		}
	}
	return message, nil
}

// status is the loop's part of Status.
func (l *loop) status() (s Status) {
	s.CommittedIndex = l.node.BasicStatus().GetCommit()
	for _, id := range memberIDs(l.m.config.Peers) {
		if p := l.peers[id]; p != nil && p.out {
			s.Peers = append(s.Peers, id)
			s.Followers++
		}
	}
	if l.state != raft.StateLeader {
		s.Followers = 0
		return s
	}
	l.node.WithProgress(func(id uint64, _ raft.ProgressType, p trackerProgress) {
		if id != uint64(l.m.config.ID) && p.State == trackerReplicate {
			s.SyncedFollowers++
		}
	})
	return s
}
