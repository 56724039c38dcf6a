package wire

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ErrClientClosed is the cause of death of a client that its owner closed.
var ErrClientClosed = errors.New("connection closed by us")

// ErrTooManyInFlight refuses a request: the peer does not answer as fast as it is asked.
var ErrTooManyInFlight = errors.New("too many requests in flight on one connection")

const (
	defaultMaxInFlight      = 4096
	defaultMaxResponseBytes = 512 << 20
)

// ClientOptions tune a Client; the zero value will do.
type ClientOptions struct {
	ClientID string
	// DialContext opens the connection; nil: TCP. The address is resolved at each dial.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
	// MaxInFlight bounds the requests not yet answered (4096); one more is refused with
	// ErrTooManyInFlight.
	MaxInFlight int
	// MaxResponseBytes bounds a response's frame (512 MiB); a larger one ends the connection.
	MaxResponseBytes int32
	// ReuseBuffer is for a client that has one request in flight at a time: byte fields of a
	// response are then valid until the next request is started, and not longer.
	ReuseBuffer bool
}

// A reused buffer holds a follower's largest response (replica.fetch.response.max.bytes is
// 10 MiB); a larger one is not kept, and none is kept for long that is mostly empty.
const (
	reusedBytesMax   = 16 << 20
	reusedBytesSmall = 64 << 10 // kept in any case
	reusedIdleFrames = 64       // in a row that fill less than a quarter
)

// reusedBuffer decides what becomes of a buffer after each response.
type reusedBuffer struct {
	buffer []byte
	idle   int
}

func (r *reusedBuffer) put(frame []byte) {
	if r.idle++; 4*len(frame) >= cap(frame) {
		r.idle = 0
	}
	r.buffer = frame
	if cap(frame) > reusedBytesMax || cap(frame) > reusedBytesSmall && r.idle >= reusedIdleFrames {
		r.buffer, r.idle = nil, 0
	}
}

// Client is one connection to a broker. All methods may be called concurrently.
type Client struct {
	conn             net.Conn
	clientID         string
	maxInFlight      int
	maxResponseBytes int32
	reuseBuffer      bool
	closed           chan struct{} // closed when the connection is known dead
	wake             chan struct{} // capacity 1: something is to be written

	mu struct {
		sync.Mutex
		correlationID int32
		out           []byte    // frames to be written, in order
		pending       []pending // requests without an answer, in order; from head on
		head          int
		err           error // why the connection ended; set before closed is closed
	}
	versions struct {
		sync.Mutex
		table map[int16]VersionRange
	}
}

// VersionRange is what a broker says it serves of one API key.
type VersionRange struct{ Min, Max int16 }

type pending struct {
	correlationID int32
	response      kmsg.Response // nil: no response will come (acks=0)
	done          func(kmsg.Response, error)
}

// Dial connects to a broker. ctx bounds the dialling only.
func Dial(ctx context.Context, addr string, options ClientOptions) (*Client, error) {
	dial := options.DialContext
	if dial == nil {
		dial = (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext
	}
	conn, err := dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return NewClient(conn, options), nil
}

// NewClient makes a client of an open connection, which it then owns.
func NewClient(conn net.Conn, options ClientOptions) *Client {
	c := &Client{
		conn:             conn,
		clientID:         options.ClientID,
		maxInFlight:      options.MaxInFlight,
		maxResponseBytes: options.MaxResponseBytes,
		reuseBuffer:      options.ReuseBuffer,
		closed:           make(chan struct{}),
		wake:             make(chan struct{}, 1),
	}
	if c.maxInFlight == 0 {
		c.maxInFlight = defaultMaxInFlight
	}
	if c.maxResponseBytes == 0 {
		c.maxResponseBytes = defaultMaxResponseBytes
	}
	go c.writeLoop()
	go c.readLoop()
	return c
}

// Do sends a request, whose version the caller has set, and waits for the response. When ctx
// ends first the response is thrown away when it comes; the connection lives on.
func (c *Client) Do(ctx context.Context, request kmsg.Request) (kmsg.Response, error) {
	type outcome struct {
		response kmsg.Response
		err      error
	}
	answered := make(chan outcome, 1)
	c.Start(request, func(response kmsg.Response, err error) { answered <- outcome{response, err} })
	select {
	case o := <-answered:
		return o.response, o.err
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for %s to answer %s: %w", c.conn.RemoteAddr(), kmsg.NameForKey(request.Key()), context.Cause(ctx))
	}
}

// Start sends a request and calls done exactly once: with the response, or with why there is
// none. done runs on the connection's reading goroutine, in the order of the requests, and
// must not block; if the connection is dead already it runs before Start returns. The
// request is encoded before Start returns. Byte fields of the response alias a buffer that
// is the response's own.
func (c *Client) Start(request kmsg.Request, done func(kmsg.Response, error)) {
	entry := pending{done: done}
	if produce, ok := request.(*kmsg.ProduceRequest); !ok || produce.Acks != 0 {
		entry.response = request.ResponseKind()
	}

	c.mu.Lock()
	err := c.mu.err
	if err == nil && len(c.mu.pending)-c.mu.head >= c.maxInFlight {
		err = ErrTooManyInFlight
	}
	if err != nil {
		c.mu.Unlock()
		done(nil, err)
		return
	}
	c.mu.correlationID++
	entry.correlationID = c.mu.correlationID
	c.mu.out = appendRequest(c.mu.out, request, entry.correlationID, c.clientID)
	if entry.response != nil {
		if c.mu.head > 0 && len(c.mu.pending) == cap(c.mu.pending) {
			kept := copy(c.mu.pending, c.mu.pending[c.mu.head:])
			clear(c.mu.pending[kept:])
			c.mu.pending, c.mu.head = c.mu.pending[:kept], 0
		}
		c.mu.pending = append(c.mu.pending, entry)
	}
	c.mu.Unlock()

	select {
	case c.wake <- struct{}{}:
	default:
	}
	if entry.response == nil {
		done(nil, nil)
	}
}

// Versions asks the broker once which versions it serves, by API key.
func (c *Client) Versions(ctx context.Context) (map[int16]VersionRange, error) {
	c.versions.Lock()
	defer c.versions.Unlock()
	if c.versions.table != nil {
		return c.versions.table, nil
	}
	request := kmsg.NewPtrApiVersionsRequest()
	request.ClientSoftwareName, request.ClientSoftwareVersion = "understudy", "1"
	request.SetVersion(3)
	response, err := c.Do(ctx, request)
	if err != nil {
		return nil, err
	}
	versions := response.(*kmsg.ApiVersionsResponse)
	if versions.ErrorCode != 0 {
		return nil, fmt.Errorf("%s refused ApiVersions with error code %d", c.conn.RemoteAddr(), versions.ErrorCode)
	}
	table := make(map[int16]VersionRange, len(versions.ApiKeys))
	for _, api := range versions.ApiKeys {
		table[api.ApiKey] = VersionRange{Min: api.MinVersion, Max: api.MaxVersion}
	}
	c.versions.table = table
	return table, nil
}

// NegotiateMax returns the highest version of a key that both the broker and limit allow.
func (c *Client) NegotiateMax(ctx context.Context, key, limit int16) (int16, error) {
	table, err := c.Versions(ctx)
	if err != nil {
		return 0, err
	}
	served, ok := table[key]
	if !ok || served.Min > limit {
		return 0, fmt.Errorf("%s serves no version of %s up to %d", c.conn.RemoteAddr(), kmsg.NameForKey(key), limit)
	}
	return min(limit, served.Max), nil
}

// Closed is closed at once when the connection ends, whatever the reason.
func (c *Client) Closed() <-chan struct{} { return c.closed }

// Err says why the connection ended; nil while it lives.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.err
}

// RemoteAddr is the peer's address.
func (c *Client) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// LocalAddr is our address on this connection.
func (c *Client) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// Close ends the connection; requests without an answer get ErrClientClosed.
func (c *Client) Close() { c.fail(ErrClientClosed) }

// fail ends the connection once; the read loop then fails what is pending.
func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.err != nil {
		return
	}
	c.mu.err = err
	c.mu.out = nil
	close(c.closed)
	_ = c.conn.Close()
}

// writeLoop writes everything that gathered while the last write was under way.
func (c *Client) writeLoop() {
	var spare []byte
	for {
		select {
		case <-c.wake:
		case <-c.closed:
			return
		}
		c.mu.Lock()
		out := c.mu.out
		c.mu.out = spare[:0]
		c.mu.Unlock()
		if len(out) == 0 {
			spare = out
			continue
		}
		if _, err := c.conn.Write(out); err != nil {
			c.fail(err)
			return
		}
		spare = nil
		if cap(out) <= 64<<10 {
			spare = out
		}
	}
}

// readLoop takes responses off the connection until it ends, and then fails the rest.
func (c *Client) readLoop() {
	reader := bufio.NewReaderSize(c.conn, 32<<10)
	var reused reusedBuffer
	for {
		frame, err := readFrame(reader, c.maxResponseBytes, reused.buffer)
		if err == nil {
			err = c.deliver(frame)
		}
		if c.reuseBuffer {
			reused.put(frame)
		}
		if err != nil {
			c.fail(err)
			c.failPending()
			return
		}
	}
}

// deliver hands one response to the oldest request.
func (c *Client) deliver(frame []byte) error {
	if len(frame) < 4 {
		return errShort
	}
	correlationID := int32(binary.BigEndian.Uint32(frame))
	entry, ok := c.popPending()
	if !ok {
		return fmt.Errorf("response %d without a request", correlationID)
	}
	if entry.correlationID != correlationID {
		err := fmt.Errorf("response %d came where %d was due", correlationID, entry.correlationID)
		entry.done(nil, err)
		return err
	}
	if err := readResponse(entry.response, frame[4:]); err != nil {
		err = fmt.Errorf("decoding the answer to %s: %w", kmsg.NameForKey(entry.response.Key()), err)
		entry.done(nil, err)
		return err
	}
	entry.done(entry.response, nil)
	return nil
}

func (c *Client) popPending() (pending, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.head == len(c.mu.pending) {
		return pending{}, false
	}
	entry := c.mu.pending[c.mu.head]
	c.mu.pending[c.mu.head] = pending{}
	c.mu.head++
	if c.mu.head == len(c.mu.pending) {
		c.mu.pending, c.mu.head = c.mu.pending[:0], 0
	}
	return entry, true
}

// failPending tells every request without an answer that none will come. Nothing is added
// to the queue any more, because mu.err is set.
func (c *Client) failPending() {
	err := c.Err()
	for {
		entry, ok := c.popPending()
		if !ok {
			return
		}
		entry.done(nil, err)
	}
}
