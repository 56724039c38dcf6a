package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var (
	errHandlerClosed = errors.New("closed by a handler")
	errServerClosed  = errors.New("server closed")
	errIdle          = errors.New("idle for too long")
)

// readBufferBytes is what a connection reads ahead; it serves small requests, large ones
// are read straight into their own buffer.
const readBufferBytes = 16 << 10

// pooledFrameBytes is the size from which a Produce or Fetch frame comes out of the pool.
const pooledFrameBytes = 4 << 10

// conn is one connection of a server: a reading goroutine that decodes and calls handlers,
// and a writing goroutine that sends the answers in the order of the requests.
type conn struct {
	server   *Server
	socket   net.Conn
	listener string
	ip       string
	number   uint64
	wake     chan struct{} // capacity 1: the head of the queue has its answer, or the state changed

	mu struct {
		sync.Mutex
		room     sync.Cond  // signalled when the queue shrinks or the connection ends
		queue    []*Request // read and not yet written, in order; from head on
		head     int
		inFlight int   // bytes of the frames in the queue
		err      error // why the connection ended
		draining bool  // no more reading; end when the queue is empty
	}
}

func newConn(server *Server, socket net.Conn, listener, ip string, number uint64) *conn {
	c := &conn{server: server, socket: socket, listener: listener, ip: ip, number: number, wake: make(chan struct{}, 1)}
	c.mu.room.L = &c.mu
	return c
}

// drain ends the connection once everything read has been answered.
func (c *conn) drain() {
	c.mu.Lock()
	c.mu.draining = true
	c.mu.room.Broadcast()
	c.mu.Unlock()
	_ = c.socket.SetReadDeadline(time.Unix(1, 0))
	c.signal()
}

// close ends the connection now. Requests without an answer are told.
func (c *conn) close(err error) {
	c.mu.Lock()
	if c.mu.err != nil {
		c.mu.Unlock()
		return
	}
	c.mu.err = err
	var told []func()
	for _, request := range c.mu.queue[c.mu.head:] {
		if request.onClose != nil {
			told = append(told, request.onClose)
			request.onClose = nil
		}
	}
	c.mu.room.Broadcast()
	c.mu.Unlock()
	_ = c.socket.Close()
	c.signal()
	for _, f := range told {
		f()
	}
}

func (c *conn) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// finish records a request's answer and wakes the writer if it is next.
func (c *conn) finish(r *Request, a answer) {
	c.mu.Lock()
	if r.finished {
		c.mu.Unlock()
		panic(fmt.Sprintf("wire: %s answered twice", kmsg.NameForKey(r.Key)))
	}
	r.finished = true
	r.onClose = nil
	frame := r.frame
	r.frame = nil
	dead := c.mu.err != nil
	next := false
	if !dead {
		r.answer = a
		next = c.mu.head < len(c.mu.queue) && c.mu.queue[c.mu.head] == r
	}
	c.mu.Unlock()
	putBuffer(frame)
	if dead {
		discard(a)
	}
	if next {
		c.signal()
	}
}

func discard(a answer) {
	if a.raw != nil {
		a.raw.Release()
	}
	putBuffer(a.encoded)
}

// readLoop reads and handles requests until the connection ends.
func (c *conn) readLoop() {
	<-c.server.enabled
	err := c.serve()
	c.mu.Lock()
	draining := c.mu.draining
	c.mu.Unlock()
	if draining {
		return // the writer ends the connection
	}
	c.report(err)
	c.close(err)
}

func (c *conn) serve() error {
	reader := bufio.NewReaderSize(c.socket, readBufferBytes)
	var idle idleDeadline
	var clientID string
	for {
		if !c.waitForRoom() {
			return errServerClosed
		}
		idle.renew(c.socket, c.server.options.MaxIdle)
		if reader.Buffered() == 0 {
			if err := c.awaitFrame(reader, &idle); err != nil {
				return err
			}
		}
		request, err := c.readRequest(reader, clientID)
		if err != nil {
			return err
		}
		clientID = request.ClientID
		if request.Body == nil {
			continue // answered here
		}
		if err := c.dispatch(request); err != nil {
			return err
		}
	}
}

// waitForRoom holds the reader back while too much is in flight. It reports false when the
// connection is to be read no further.
func (c *conn) waitForRoom() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.mu.err == nil && !c.mu.draining {
		count := len(c.mu.queue) - c.mu.head
		if count < c.server.options.MaxInFlight && (count == 0 || c.mu.inFlight < c.server.options.MaxInFlightBytes) {
			return true
		}
		c.mu.room.Wait()
	}
	return false
}

// idleDeadline renews a connection's read deadline, not at each request but when a quarter
// of the time has passed.
type idleDeadline struct{ set time.Time }

func (d *idleDeadline) renew(socket net.Conn, limit time.Duration) {
	now := time.Now()
	if now.Sub(d.set) > limit/4 {
		d.set = now
		_ = socket.SetReadDeadline(now.Add(limit))
	}
}

// awaitFrame waits for the first byte of the next frame. A connection that waits for an
// answer is not idle.
func (c *conn) awaitFrame(reader *bufio.Reader, idle *idleDeadline) error {
	for {
		_, err := reader.Peek(1)
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		c.mu.Lock()
		busy, draining := len(c.mu.queue) > c.mu.head, c.mu.draining
		c.mu.Unlock()
		if !busy || draining {
			return errIdle
		}
		idle.renew(c.socket, c.server.options.MaxIdle)
	}
}

// readRequest reads one frame and decodes it. The request has no body if it was answered
// here.
func (c *conn) readRequest(reader *bufio.Reader, clientID string) (*Request, error) {
	buffer, err := c.frameBuffer(reader)
	if err != nil {
		return nil, err
	}
	frame, err := readFrame(reader, c.server.options.MaxRequestBytes, *buffer)
	if err != nil {
		return nil, err
	}
	*buffer = frame
	request := &Request{Listener: c.listener, RemoteAddr: c.socket.RemoteAddr(), Connection: c.number, conn: c, frame: buffer, bytes: len(frame)}
	if err := c.decode(request, frame, clientID); err != nil {
		return nil, &requestError{key: request.Key, version: request.Version, err: err}
	}
	return request, nil
}

// frameBuffer chooses the buffer of the frame that comes next by the size and key that it
// begins with. Only Produce and Fetch get one from the pool: nobody keeps parts of those.
func (c *conn) frameBuffer(reader *bufio.Reader) (*[]byte, error) {
	size, err := peekFrameSize(reader, c.server.options.MaxRequestBytes)
	if err != nil || size < pooledFrameBytes {
		return new([]byte), err
	}
	start, err := reader.Peek(6)
	if err != nil {
		return nil, err
	}
	if key := binary.BigEndian.Uint16(start[4:]); key == keyProduce || key == keyFetch {
		return getBuffer(0), nil
	}
	return new([]byte), nil
}

// decode fills in a request from its frame.
func (c *conn) decode(request *Request, frame []byte, clientID string) (err error) {
	defer func() {
		if cause := recover(); cause != nil { // kmsg met something that it did not expect
			err = fmt.Errorf("decoding panicked: %v", cause)
		}
	}()
	head, rest, err := readFixedHeader(frame)
	if err != nil {
		return err
	}
	request.Key, request.Version, request.CorrelationID = head.key, head.version, head.correlationID
	api := c.server.apis[head.key]
	if api == nil {
		return errors.New("unknown API key")
	}
	if head.version < api.Min || head.version > api.Max {
		if head.key == keyApiVersions {
			request.ClientID = clientID
			c.enqueue(request)
			request.refuseApiVersions(api.API)
			return nil
		}
		return errors.New("version not supported")
	}
	body := api.body(head.version)
	if head.key != keyControlledShutdown || head.version > 0 {
		if request.ClientID, rest, err = readClientID(rest, clientID); err != nil {
			return err
		}
		if body.IsFlexible() {
			if rest, err = skipTags(rest); err != nil {
				return err
			}
		}
	}
	if err := readBody(body, rest); err != nil {
		return err
	}
	request.Body = body
	return nil
}

// refuseApiVersions answers an ApiVersions of a version that we do not know: with version 0,
// which every client can read, and the range that we do know (KIP-511).
func (r *Request) refuseApiVersions(served API) {
	response := kmsg.NewPtrApiVersionsResponse()
	response.ErrorCode = kerr.UnsupportedVersion.Code
	response.ApiKeys = []kmsg.ApiVersionsResponseApiKey{{ApiKey: served.Key, MinVersion: served.Min, MaxVersion: served.Max}}
	r.replyAs(response)
}

func (c *conn) enqueue(request *Request) {
	c.mu.Lock()
	if c.mu.head > 0 && len(c.mu.queue) == cap(c.mu.queue) {
		kept := copy(c.mu.queue, c.mu.queue[c.mu.head:])
		clear(c.mu.queue[kept:])
		c.mu.queue, c.mu.head = c.mu.queue[:kept], 0
	}
	c.mu.queue = append(c.mu.queue, request)
	c.mu.inFlight += request.bytes
	c.mu.Unlock()
}

// dispatch calls the handler. A handler that panics costs its connection, not the broker.
func (c *conn) dispatch(request *Request) (err error) {
	c.enqueue(request)
	defer func() {
		if cause := recover(); cause != nil {
			c.server.logger.Error("a request handler panicked", "api", kmsg.NameForKey(request.Key), "version", request.Version,
				"peer", c.ip, "cause", fmt.Sprint(cause), "stack", string(debug.Stack()))
			err = errHandlerClosed
		}
	}()
	c.server.apis[request.Key].handle(request)
	return nil
}

// writeLoop sends answers in order until the connection ends, and then releases what will
// not be sent.
func (c *conn) writeLoop() {
	var batch []answer
	for range c.wake {
		for {
			var ended bool
			batch, ended = c.takeReady(batch[:0])
			if ended {
				c.release()
				return
			}
			if len(batch) == 0 {
				break
			}
			if err := c.write(batch); err != nil {
				c.close(err)
			}
		}
	}
}

// takeReady removes the answered requests from the front of the queue.
func (c *conn) takeReady(batch []answer) ([]answer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.err != nil {
		return batch, true
	}
	for c.mu.head < len(c.mu.queue) && c.mu.queue[c.mu.head].finished {
		request := c.mu.queue[c.mu.head]
		c.mu.queue[c.mu.head] = nil
		c.mu.head++
		c.mu.inFlight -= request.bytes
		if request.answer.encoded != nil {
			batch = append(batch, request.answer)
		}
	}
	if c.mu.head == len(c.mu.queue) {
		c.mu.queue, c.mu.head = c.mu.queue[:0], 0
		if c.mu.draining && len(batch) == 0 {
			c.mu.err = errServerClosed
			_ = c.socket.Close()
			return batch, true
		}
	}
	c.mu.room.Signal()
	return batch, false
}

// write sends answers: runs of encoded ones in one write, raw ones by themselves. All are
// released, sent or not.
func (c *conn) write(batch []answer) error {
	_ = c.socket.SetWriteDeadline(time.Now().Add(c.server.options.MaxIdle))
	var err error
	for len(batch) > 0 {
		run := 0
		for run < len(batch) && batch[run].raw == nil {
			run++
		}
		if run == 0 {
			if err == nil {
				err = c.writeRaw(batch[0])
			}
			discard(batch[0])
			batch = batch[1:]
			continue
		}
		if err == nil {
			err = c.writeEncoded(batch[:run])
		}
		for _, a := range batch[:run] {
			discard(a)
		}
		batch = batch[run:]
	}
	return err
}

func (c *conn) writeEncoded(run []answer) error {
	if len(run) == 1 {
		_, err := c.socket.Write(*run[0].encoded)
		return err
	}
	buffers := make(net.Buffers, len(run))
	for i, a := range run {
		buffers[i] = *a.encoded
	}
	_, err := buffers.WriteTo(c.socket)
	return err
}

func (c *conn) writeRaw(a answer) error {
	want := int64(len(*a.encoded) + a.raw.Size())
	sent, err := a.raw.WriteTo(c.socket, *a.encoded)
	if err == nil && sent != want {
		err = fmt.Errorf("sent %d bytes of a response of %d", sent, want)
	}
	return err
}

// release gives back the answers that will not be sent.
func (c *conn) release() {
	c.mu.Lock()
	queue := c.mu.queue[c.mu.head:]
	c.mu.queue, c.mu.head = nil, 0
	var answers []answer
	for _, request := range queue {
		if request.finished {
			answers = append(answers, request.answer)
			request.answer = answer{}
		}
	}
	c.mu.Unlock()
	for _, a := range answers {
		discard(a)
	}
}

// requestError is a frame that could not be understood.
type requestError struct {
	key, version int16
	err          error
}

func (e *requestError) Error() string {
	return fmt.Sprintf("request with API key %d version %d: %v", e.key, e.version, e.err)
}

// report logs why a connection ended if it is worth a line: what a peer did wrong, not that
// it left.
func (c *conn) report(err error) {
	var size *frameSizeError
	var request *requestError
	switch {
	case errors.As(err, &size), errors.As(err, &request):
		c.server.peers.warn(c.ip, "connection closed: invalid request", "peer", c.socket.RemoteAddr().String(), "listener", c.listener, "error", err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, errHandlerClosed), errors.Is(err, errServerClosed), errors.Is(err, errIdle):
		c.server.logger.Debug("connection closed", "peer", c.socket.RemoteAddr().String(), "listener", c.listener, "reason", err)
	default:
		c.server.peers.warn(c.ip, "connection closed", "peer", c.socket.RemoteAddr().String(), "listener", c.listener, "error", err)
	}
}
