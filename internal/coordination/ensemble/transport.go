package ensemble

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/raft/v3/raftpb"

	"understudy/internal/coordination/znode"
)

const (
	dialTimeout     = time.Second
	helloTimeout    = time.Second
	redialMax       = 250 * time.Millisecond
	peerQueueBytes  = 32 << 20 // queued for one peer; beyond, raft's messages are dropped (raft resends)
	acceptedMax     = 64       // inbound connections at once, beyond they are closed
	refusalLogEvery = 10 * time.Second
)

// transport carries frames among the members. What arrives and what happens to the streams is
// told to the handler, from the streams' own goroutines.
type transport struct {
	self        znode.MemberID
	members     uint64
	incarnation uint64
	logger      *slog.Logger
	listener    net.Listener
	handler     transportHandler
	peers       map[znode.MemberID]*peer
	stallAfter  time.Duration // a write that takes longer ends the stream
	seam        seam

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     struct {
		sync.Mutex
		accepted    map[net.Conn]struct{}
		lastRefusal map[string]time.Time
	}
}

// seam lets a test drop (0) or double (2) frames on their way out; nil passes each once.
type seam func(to znode.MemberID, t frameType) (copies int)

// transportHandler is the member behind the transport.
type transportHandler interface {
	// frame takes an incoming frame; an error closes the stream. It may block: that is the
	// back-pressure on the sender.
	frame(from znode.MemberID, t frameType, payload []byte) error
	// snapshot takes an incoming snapshot stream after its frame.
	snapshot(from znode.MemberID, payload []byte, body io.Reader) error
	// linkChanged reports a stream's begin or end, or a refused dial.
	linkChanged(e linkEvent)
}

type linkChange uint8

const (
	linkOutUp   linkChange = iota + 1 // our stream to the peer stands
	linkOutDown                       // it broke
	linkInUp                          // the peer's stream to us stands
	linkInDown
	linkRefused // dialling was refused: nobody listens there
)

type linkEvent struct {
	peer        znode.MemberID
	change      linkChange
	incarnation uint64 // of the peer, with linkOutUp and linkInUp
	stream      uint64 // number of our stream, with linkOutUp
}

func newTransport(self znode.MemberID, peers map[znode.MemberID]string, incarnation uint64, logger *slog.Logger, h transportHandler) *transport {
	t := &transport{
		self: self, members: membersHash(memberIDs(peers)), incarnation: incarnation, logger: logger,
		handler: h, peers: make(map[znode.MemberID]*peer), stallAfter: 5 * time.Second,
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.mu.accepted = make(map[net.Conn]struct{})
	t.mu.lastRefusal = make(map[string]time.Time)
	for id, addr := range peers {
		if id != self {
			t.peers[id] = &peer{t: t, id: id, addr: addr, queue: newMailbox[frameBody](), kick: make(chan struct{}, 1)}
		}
	}
	return t
}

func (t *transport) start(listener net.Listener) {
	t.listener = listener
	if listener != nil {
		t.wg.Go(t.accept)
	}
	for _, p := range t.peers {
		t.wg.Go(p.run)
	}
}

// stop closes everything at once and waits.
func (t *transport) stop() {
	t.cancel()
	if t.listener != nil {
		_ = t.listener.Close()
	}
	t.mu.Lock()
	for conn := range t.mu.accepted {
		_ = conn.Close()
	}
	t.mu.Unlock()
	t.wg.Wait()
}

// send queues a frame for a peer; false if there is no stream or no room.
func (t *transport) send(to znode.MemberID, body frameBody) bool {
	p, ok := t.peers[to]
	return ok && p.send(body)
}

// frameBody is a frame to be sent: a raft message, which the peer's own goroutine encodes, or
// an encoded frame.
type frameBody struct {
	message *pb.Message
	encoded []byte
	kind    frameType
	bytes   int
}

func raftFrame(m *pb.Message) frameBody {
	bytes := 64
	for _, e := range m.GetEntries() {
		bytes += len(e.GetData()) + 32
	}
	return frameBody{message: m, kind: frameRaft, bytes: bytes}
}

func encodedFrame(t frameType, encoded []byte) frameBody {
	return frameBody{encoded: encoded, kind: t, bytes: len(encoded)}
}

func (b frameBody) append(dst []byte) ([]byte, error) {
	if b.message == nil {
		return append(dst, b.encoded...), nil
	}
	start := len(dst)
	dst, err := proto.MarshalOptions{}.MarshalAppend(beginFrame(dst, frameRaft), b.message)
	if err != nil {
		return dst, err
	}
	return endFrame(dst, start), nil
}

// peer is our stream to one other member.
type peer struct {
	t       *transport
	id      znode.MemberID
	addr    string
	queue   *mailbox[frameBody]
	kick    chan struct{} // dial now
	streams uint64
	mu      struct {
		sync.Mutex
		up    bool
		bytes int // queued
	}
}

func (p *peer) send(body frameBody) bool {
	copies := 1
	if p.t.seam != nil {
		copies = p.t.seam(p.id, body.kind)
	}
	p.mu.Lock()
	if !p.mu.up || p.mu.bytes+body.bytes > peerQueueBytes {
		p.mu.Unlock()
		return false
	}
	p.mu.bytes += copies * body.bytes
	p.mu.Unlock()
	for range copies {
		p.queue.put(body)
	}
	return true
}

// run keeps a stream to the peer: dial, say hello, write until it breaks, and again. The name
// is resolved at each dial.
func (p *peer) run() {
	wait := time.Duration(0)
	for p.t.ctx.Err() == nil {
		conn, answer, err := p.connect()
		if err == nil {
			p.stream(conn, answer.incarnation)
			wait = 0
			continue
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			p.t.handler.linkChanged(linkEvent{peer: p.id, change: linkRefused})
		} else {
			p.t.refused("ensemble member not reached", p.addr, err)
		}
		p.pause(wait)
		wait = min(max(2*wait, 5*time.Millisecond), redialMax)
	}
}

func (p *peer) pause(wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.kick:
	case <-p.t.ctx.Done():
	}
}

func (p *peer) connect() (net.Conn, hello, error) {
	return p.t.dial(p.id, p.addr, purposeStream)
}

// dial opens a connection to a member and exchanges hellos.
func (t *transport) dial(to znode.MemberID, addr string, why purpose) (net.Conn, hello, error) {
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(t.ctx, "tcp", addr)
	if err != nil {
		return nil, hello{}, err
	}
	release := context.AfterFunc(t.ctx, func() { _ = conn.Close() })
	answer, err := t.greet(conn, to, why)
	release()
	if err != nil {
		_ = conn.Close()
		return nil, hello{}, err
	}
	return conn, answer, nil
}

func (t *transport) greet(conn net.Conn, to znode.MemberID, why purpose) (hello, error) {
	_ = conn.SetDeadline(time.Now().Add(helloTimeout))
	mine := hello{version: helloVersion, purpose: why, from: t.self, to: to, members: t.members, incarnation: t.incarnation}
	if _, err := conn.Write(mine.append(nil)); err != nil {
		return hello{}, err
	}
	answer, err := readHello(conn)
	switch {
	case err != nil:
		return hello{}, err
	case answer.status != helloWelcome:
		return hello{}, errors.New(answer.status.String())
	case answer.from != to:
		return hello{}, fmt.Errorf("member %d answers at the address of member %d", answer.from, to)
	}
	return answer, conn.SetDeadline(time.Time{})
}

// stream writes queued frames until the connection breaks.
func (p *peer) stream(conn net.Conn, incarnation uint64) {
	stop := context.AfterFunc(p.t.ctx, func() { _ = conn.Close() })
	defer stop()
	p.streams++
	p.setUp(true)
	p.t.handler.linkChanged(linkEvent{peer: p.id, change: linkOutUp, incarnation: incarnation, stream: p.streams})
	closed := make(chan struct{})
	p.t.wg.Go(func() {
		// The peer never writes on this stream: a read ends when the connection does.
		defer close(closed)
		var one [1]byte
		_, _ = conn.Read(one[:])
		_ = conn.Close()
	})
	p.write(conn, closed)
	p.setUp(false)
	_ = conn.Close()
	<-closed
	p.t.handler.linkChanged(linkEvent{peer: p.id, change: linkOutDown})
}

// setUp opens or closes the queue; what was queued for a broken stream is thrown away.
func (p *peer) setUp(up bool) {
	p.mu.Lock()
	p.mu.up = up
	p.mu.Unlock()
	p.took(p.queue.take())
}

func (p *peer) took(bodies []frameBody) {
	n := 0
	for _, b := range bodies {
		n += b.bytes
	}
	p.mu.Lock()
	p.mu.bytes = max(0, p.mu.bytes-n)
	p.mu.Unlock()
}

func (p *peer) write(conn net.Conn, closed <-chan struct{}) {
	var buffer []byte
	for {
		select {
		case <-closed:
			return
		case <-p.queue.wake:
		}
		bodies := p.queue.take()
		for len(bodies) > 0 {
			n := 0
			buffer = buffer[:0]
			for n < len(bodies) && (n == 0 || len(buffer) < 1<<20) {
				var err error
				if buffer, err = bodies[n].append(buffer); err != nil {
					return
				}
				n++
			}
			_ = conn.SetWriteDeadline(time.Now().Add(p.t.stallAfter))
			_, err := conn.Write(buffer)
			p.took(bodies[:n])
			bodies = bodies[n:]
			if err != nil {
				p.took(bodies)
				return
			}
		}
		if cap(buffer) > 2<<20 {
			buffer = nil
		}
	}
}

// accept serves the listener until it closes.
func (t *transport) accept() {
	for {
		conn, err := t.listener.Accept()
		if err != nil {
			if t.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(10 * time.Millisecond) // out of descriptors, most likely
			continue
		}
		if !t.track(conn) {
			_ = conn.Close()
			continue
		}
		t.wg.Go(func() {
			defer t.untrack(conn)
			if err := t.serve(conn); err != nil && t.ctx.Err() == nil {
				host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
				t.refused("ensemble connection closed", host, err)
			}
		})
	}
}

func (t *transport) track(conn net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil || len(t.mu.accepted) >= acceptedMax {
		return false
	}
	t.mu.accepted[conn] = struct{}{}
	return true
}

func (t *transport) untrack(conn net.Conn) {
	_ = conn.Close()
	t.mu.Lock()
	delete(t.mu.accepted, conn)
	t.mu.Unlock()
}

// refused logs a refusal, each cause's address at most once per refusalLogEvery.
func (t *transport) refused(what, addr string, err error) {
	t.mu.Lock()
	now := time.Now()
	recent := now.Sub(t.mu.lastRefusal[addr]) < refusalLogEvery
	if !recent {
		if len(t.mu.lastRefusal) > 1000 {
			clear(t.mu.lastRefusal)
		}
		t.mu.lastRefusal[addr] = now
	}
	t.mu.Unlock()
	if !recent && t.ctx.Err() == nil {
		t.logger.Warn(what, "address", addr, "error", err)
	}
}

// serve handles one accepted connection. Its error is what closed it; an ordinary end is nil.
func (t *transport) serve(conn net.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(helloTimeout))
	h, err := readHello(conn)
	if err != nil {
		return err
	}
	status := t.judge(h)
	answer := hello{version: helloVersion, purpose: h.purpose, status: status, from: t.self, to: h.from, members: t.members, incarnation: t.incarnation}
	if _, err := conn.Write(answer.append(nil)); err != nil {
		return err
	}
	if status != helloWelcome {
		return fmt.Errorf("hello of member %d refused: %s", h.from, status)
	}
	_ = conn.SetDeadline(time.Time{})
	if h.purpose == purposeSnapshot {
		return t.serveSnapshot(conn, h.from)
	}
	return t.serveStream(conn, h)
}

func (t *transport) judge(h hello) helloStatus {
	_, known := t.peers[h.from]
	switch {
	case h.version != helloVersion || (h.purpose != purposeStream && h.purpose != purposeSnapshot):
		return helloVersionWrong
	case h.members != t.members || !known:
		return helloOtherMembers
	case h.to != t.self:
		return helloNotMe
	}
	return helloWelcome
}

func (t *transport) serveStream(conn net.Conn, h hello) error {
	select {
	case t.peers[h.from].kick <- struct{}{}: // it is there: do not wait with our own stream
	default:
	}
	t.handler.linkChanged(linkEvent{peer: h.from, change: linkInUp, incarnation: h.incarnation})
	defer t.handler.linkChanged(linkEvent{peer: h.from, change: linkInDown})
	in := bufio.NewReaderSize(conn, 64<<10)
	for {
		kind, payload, err := readFrame(in)
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil
			}
			return err
		}
		if err := t.handler.frame(h.from, kind, payload); err != nil {
			return fmt.Errorf("frame of type %d from member %d: %w", kind, h.from, err)
		}
	}
}

// serveSnapshot takes one snapshot. The limit is on progress, not on the whole.
func (t *transport) serveSnapshot(conn net.Conn, from znode.MemberID) error {
	body := &progressReader{conn: conn, patience: t.stallAfter}
	kind, payload, err := readFrame(body)
	if err != nil {
		return err
	}
	if kind != frameSnapshot {
		return fmt.Errorf("frame of type %d on a snapshot stream", kind)
	}
	if err := t.handler.snapshot(from, payload, body); err != nil {
		return err
	}
	_ = conn.SetWriteDeadline(time.Now().Add(t.stallAfter))
	_, err = conn.Write([]byte{1})
	return err
}

// progressReader reads with a deadline that moves with each read.
type progressReader struct {
	conn     net.Conn
	patience time.Duration
}

func (r *progressReader) Read(p []byte) (int, error) {
	_ = r.conn.SetReadDeadline(time.Now().Add(r.patience))
	return r.conn.Read(p)
}

type progressWriter struct {
	conn     net.Conn
	patience time.Duration
}

func (w *progressWriter) Write(p []byte) (int, error) {
	_ = w.conn.SetWriteDeadline(time.Now().Add(w.patience))
	return w.conn.Write(p)
}

// sendSnapshot streams a snapshot on a connection of its own, waits for the answer and calls
// done.
func (t *transport) sendSnapshot(to znode.MemberID, frame []byte, body io.Reader, patience time.Duration, done func(error)) {
	done(t.streamSnapshot(to, frame, body, patience))
}

func (t *transport) streamSnapshot(to znode.MemberID, frame []byte, body io.Reader, patience time.Duration) error {
	p := t.peers[to]
	conn, _, err := t.dial(to, p.addr, purposeSnapshot)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(t.ctx, func() { _ = conn.Close() })
	defer stop()
	defer conn.Close()
	out := &progressWriter{conn: conn, patience: t.stallAfter}
	if _, err := out.Write(frame); err != nil {
		return err
	}
	if _, err := io.CopyBuffer(out, struct{ io.Reader }{body}, make([]byte, 256<<10)); err != nil {
		return err
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	var one [1]byte
	if _, err := io.ReadFull(conn, one[:]); err != nil {
		return fmt.Errorf("the receiver did not take the snapshot: %w", err)
	}
	return nil
}
