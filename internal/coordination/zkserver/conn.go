package zkserver

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/znode"
)

const (
	// pendingMax and pendingBytesMax bound the requests read and not answered: beyond, the reader waits.
	pendingMax      = 8192
	pendingBytesMax = 8 << 20
	// outputSoftBytes is where the reader waits for the client to take its replies.
	outputSoftBytes = 1 << 20
	// outputHardBytes is what the apply loop may add for a client that does not read before the connection is closed.
	outputHardBytes = 64 << 20
	outputBytesKept = 64 << 10
)

// conn is one client connection. The fields above mu belong to the reader, unless they say otherwise.
type conn struct {
	server   *Server
	number   uint64 // in the order of their coming
	net      net.Conn
	addr     netip.Addr
	inMemory bool   // does not count as a connection from addr
	remote   string // "/127.0.0.1:50306", as ZooKeeper prints it
	opened   time.Time
	in       frameReader
	touched  bool    // input came since the last touch
	current  request // what view answers

	// Bound once, so that a request costs no closure.
	view    func(*znode.Machine)
	idle    func()
	barrier func(ok bool)

	synced    chan bool     // barrier's answer
	ready     chan struct{} // closed when the handshake is answered
	wake      chan struct{} // one token: the writer has something to do
	done      chan struct{} // closed with the connection
	stepped   bool          // a Stepped moves it: nothing here may wait
	unwatched bool          // no watch may be added any more; guarded by Server.watches

	mu struct {
		sync.Mutex
		out     []byte // frames that no write has taken yet
		spare   []byte
		writing bool       // somebody is in a write and will look at out again
		moved   *sync.Cond // out or queue got shorter, or the connection closed
		queue   requestQueue
		unsent  bool // in Server.unsent, or its writer has been woken and not written yet
		last    bool // the last reply is in out: flush it and close
		closed  bool

		handshake  *handshake // waits for its log entry
		machine    *znode.Machine
		session    jute.SessionID
		generation uint64
		timeoutMs  int32
		graceMs    int32
		ended      bool      // the session is over
		auth       []jute.ID // replaced as a whole, never changed

		stats connStats
	}
}

// request is one request that has been read.
type request struct {
	xid      int32
	op       jute.OpCode
	waits    bool      // a write whose outcome is awaited; otherwise performed when it is at the head
	final    bool      // the connection closes after its reply
	code     jute.Code // what to answer, where that was known at once
	body     []byte    // of the queue's own once it is queued
	auth     []jute.ID // of the moment
	received time.Time
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{
		server: s, number: s.accepted.Add(1), net: nc, opened: time.Now(),
		in:     frameReader{r: nc, limit: s.config.MaxFrameBytes},
		synced: make(chan bool, 1), ready: make(chan struct{}),
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	_, c.inMemory = nc.(*pipeEnd)
	c.remote = "/" + nc.RemoteAddr().String()
	if at, err := netip.ParseAddrPort(nc.RemoteAddr().String()); err == nil {
		c.addr = at.Addr().Unmap()
		c.remote = fmt.Sprintf("/%v", netip.AddrPortFrom(c.addr, at.Port()))
	}
	c.view, c.idle = c.performCurrent, c.beforeRead
	c.barrier = func(ok bool) { c.synced <- ok }
	c.mu.moved = sync.NewCond(&c.mu)
	c.mu.auth = []jute.ID{{Scheme: znode.SchemeIP, ID: c.addr.String()}}
	c.mu.stats.reset()
	return c
}

// run is the reader.
func (c *conn) run() {
	_ = c.net.SetReadDeadline(time.Now().Add(sessionlessTimeout))
	err := c.greet()
	for err == nil {
		var frame []byte
		if frame, err = c.in.next(c.idle); err == nil {
			err = c.take(frame)
		}
	}
	c.ended(err)
}

// errLast ends the reader where the connection closes by itself once its output is written.
var errLast = errors.New("last reply given")

// ended closes the connection for what ended the reader. Only the peer's own end of the connection starts the clock of
// fast expiry, never ours.
func (c *conn) ended(err error) {
	if errors.Is(err, errLast) {
		c.flush() // whoever writes the last reply closes
		return
	}
	c.mu.Lock()
	session, generation := c.mu.session, c.mu.generation
	byPeer := !c.mu.closed && !c.mu.last && isPeerEnd(err)
	fast := byPeer && c.mu.graceMs > 0 && session != 0 && !c.mu.ended
	c.mu.Unlock()
	if errors.Is(err, errRefused) || errors.Is(err, errFrameLength) {
		c.server.warn("zookeeper client refused", "client", c.remote, "session", sessionText(session), "err", err)
	}
	c.close(err.Error())
	if fast {
		c.server.log.Info("connection of a fast session lost", "session", sessionText(session), "client", c.remote, "err", err)
		c.server.member.ConnectionLost(session, generation)
	}
}

// errRefused marks what a client is refused for, so that its operator finds a line about it: the protocol has no code
// for it, only the end of the connection.
var errRefused = errors.New("refused")

func isPeerEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, io.ErrClosedPipe) // the in-memory connection
}

// beforeRead is called when the input has run dry: what has been answered goes out now, and the session's sign of life
// with it.
func (c *conn) beforeRead() {
	c.flush()
	c.touched = true
}

// take deals with one frame.
func (c *conn) take(frame []byte) error {
	d := jute.NewDecoder(frame)
	var header jute.RequestHeader
	header.Decode(&d)
	if err := d.Err(); err != nil {
		return fmt.Errorf("%w: request without a header: %w", errRefused, err)
	}
	if err := c.admit(); err != nil {
		return err
	}
	c.current = request{xid: header.Xid, op: header.Type, body: d.Rest(), auth: c.mu.auth, received: c.current.received}
	if c.touched {
		c.touched = false
		c.current.received = time.Now()
		c.server.member.Touch(c.mu.session) // both are set once, before this goroutine goes on
	}
	return c.dispatch()
}

// admit waits until the connection may have one more request.
func (c *conn) admit() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.stats.received++
	if len(c.mu.out) > outputSoftBytes && !c.mu.writing {
		c.mu.Unlock()
		c.flush()
		c.mu.Lock()
	}
	for !c.mu.closed && (c.mu.queue.full() || (c.mu.writing && len(c.mu.out) > outputSoftBytes)) {
		c.mu.moved.Wait()
	}
	if c.mu.closed {
		return net.ErrClosed
	}
	return nil
}

// close ends the connection now, whoever calls; the session lives on. It may be called under the tree's lock.
func (c *conn) close(why string) {
	c.mu.Lock()
	if c.mu.closed {
		c.mu.Unlock()
		return
	}
	c.mu.closed = true
	session := c.mu.session
	c.mu.out, c.mu.spare = nil, nil
	c.mu.moved.Broadcast()
	c.mu.Unlock()
	close(c.done)
	c.server.forget(c, session) // first: who sees the end of the connection may count on its watches being gone
	c.net.Close()
	if session != 0 {
		c.server.log.Debug("zookeeper client connection closed", "session", sessionText(session), "client", c.remote, "why", why)
	}
}

// attached reports whether the handshake is through.
func (c *conn) attached() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.session != 0
}

// writeLoop is the writer: it sends what the apply loop has appended.
func (c *conn) writeLoop() {
	for {
		select {
		case <-c.wake:
			c.flush()
		case <-c.done:
			return
		}
	}
}

func (c *conn) wakeWriter() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// flush writes until the output is empty, unless another goroutine is at it, which then does.
func (c *conn) flush() {
	c.mu.Lock()
	if c.mu.writing {
		c.mu.Unlock()
		return
	}
	c.mu.writing = true
	for len(c.mu.out) > 0 && !c.mu.closed {
		buf := c.mu.out
		c.mu.out, c.mu.spare = c.mu.spare[:0], nil
		c.server.stats.flushed(&c.mu.stats, time.Now())
		c.mu.Unlock()
		_, err := c.net.Write(buf)
		if err != nil {
			c.ended(fmt.Errorf("writing to the client: %w", err))
		}
		c.mu.Lock()
		if cap(buf) <= outputBytesKept {
			c.mu.spare = buf
		}
		c.mu.moved.Broadcast()
	}
	c.mu.writing, c.mu.unsent = false, false // all is written: what comes next needs another wake-up
	last := c.mu.last
	c.mu.Unlock()
	if last {
		c.close("last reply given")
	}
}

// reply appends a reply; the body is in the wire's form, nil when there is only the header. c.mu is held.
func (c *conn) replyLocked(r *request, zxid jute.Zxid, code jute.Code, body []byte) {
	if c.mu.closed || c.mu.last {
		return
	}
	start := len(c.mu.out)
	out := jute.BeginFrame(c.mu.out)
	header := jute.ReplyHeader{Xid: r.xid, Zxid: zxid, Err: code}
	out = header.Append(out)
	if code == jute.OK {
		out = append(out, body...)
	}
	c.mu.out = jute.EndFrame(out, start)
	c.mu.stats.replied(r, zxid)
}

// requestQueue is a FIFO of requests that reuses its memory.
type requestQueue struct {
	requests []request
	head     int
	bytes    int
}

func (q *requestQueue) len() int        { return len(q.requests) - q.head }
func (q *requestQueue) full() bool      { return q.len() >= pendingMax || q.bytes >= pendingBytesMax }
func (q *requestQueue) first() *request { return &q.requests[q.head] }

func (q *requestQueue) push(r request) {
	if q.head > 0 && len(q.requests) == cap(q.requests) && q.head >= len(q.requests)/2 {
		n := copy(q.requests, q.requests[q.head:])
		clear(q.requests[n:])
		q.requests, q.head = q.requests[:n], 0
	}
	q.requests = append(q.requests, r)
	q.bytes += len(r.body)
}

func (q *requestQueue) pop() {
	q.bytes -= len(q.requests[q.head].body)
	q.requests[q.head] = request{}
	if q.head++; q.head == len(q.requests) {
		q.requests, q.head = q.requests[:0], 0
	}
}

func sessionText(id jute.SessionID) string { return fmt.Sprintf("0x%x", uint64(id)) }
