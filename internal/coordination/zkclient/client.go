package zkclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"understudy/internal/coordination/jute"
)

const (
	defaultSessionTimeout = 18 * time.Second
	defaultMaxInFlight    = 1000
	defaultMaxReplyBytes  = 64 << 20

	// writeBytesMax is where a burst of queued requests is cut into another write.
	writeBytesMax = 256 << 10
	// connectTimeoutMax is more than a server holds a handshake for want of a leader, and
	// little enough not to lose a session on a server that is paused.
	connectTimeoutMax = 3 * time.Second
	// closeWait bounds how long Close waits for the server to end the session.
	closeWait = 3 * time.Second
)

// Client is one session with an ensemble. Its methods may be called from any
// goroutine but the client's own event goroutine, which only Start, Session,
// State, ServerAddr and Abandon are for.
//
// Goroutines: run owns the connection (it dials, shakes hands, reads and
// decodes); one writer per connection; keepalive watches the clocks; deliver is
// the event goroutine. mu is the only lock, held for moments, never across I/O
// or a callback.
type Client struct {
	cfg     Config
	log     *slog.Logger
	servers []string
	chroot  string

	ctx    context.Context // ends when the client is to let go of its connection
	cancel context.CancelFunc
	mail   *mailbox
	ended  chan struct{} // closed when run has returned
	nudge  chan struct{} // tells keepalive that the timeouts changed

	// watches belongs to the goroutine run.
	watches watchSet
	// inCallback is true while the event goroutine is inside a callback.
	inCallback atomic.Bool

	mu struct {
		sync.Mutex
		state    State
		session  Session
		addr     string
		final    error         // not nil: the client is finished, Start fails with it
		link     *link         // nil while there is no connection
		queue    fifo          // started, not sent
		inFlight int           // sent, result not yet delivered; <= MaxInFlight
		lastZxid jute.Zxid     // highest in a reply; a server behind it must not serve us
		changed  chan struct{} // closed and renewed at each change of state
		closing  bool          // closeSession was sent: the next loss of connection is the end
		doubt    *time.Timer   // runs while disconnected: when it ends the session is doubtful
		refused  error         // why the last attempt to connect failed
	}
}

// call is one started request on its way.
type call struct {
	op     Op
	done   func(Result) // nil: nobody is told
	result Result
	sent   bool // counts in inFlight
	// abandoned: its caller has gone; not sent any more. Guarded by Client.mu.
	abandoned bool
	xid       int32
	watches   *jute.SetWatches // not nil: the client's own request, outside of the window
}

// Connect makes a client and waits until its session stands. It tries the servers
// until ctx ends; with Config.Resume it fails with ErrSessionExpired when that
// session is gone.
func Connect(ctx context.Context, cfg Config) (*Client, error) {
	c, err := newClient(cfg)
	if err != nil {
		return nil, err
	}
	go c.deliver()
	go c.run()
	go c.keepalive()
	if err := c.WaitConnected(ctx); err != nil {
		c.Abandon()
		return nil, err
	}
	return c, nil
}

func newClient(cfg Config) (*Client, error) {
	servers, chroot, err := parseServers(cfg.Servers)
	if err != nil {
		return nil, err
	}
	if cfg.SessionTimeout <= 0 {
		cfg.SessionTimeout = defaultSessionTimeout
	}
	if cfg.ConnectTimeout <= 0 {
		cfg.ConnectTimeout = min(max(cfg.SessionTimeout/time.Duration(len(servers)), time.Second), connectTimeoutMax)
	}
	if cfg.MaxInFlight <= 0 {
		cfg.MaxInFlight = defaultMaxInFlight
	}
	if cfg.MaxReplyBytes <= 0 {
		cfg.MaxReplyBytes = defaultMaxReplyBytes
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	// Every client starts elsewhere, so that a list shared by many does not
	// send them all to its first server.
	rand.Shuffle(len(servers), func(i, j int) { servers[i], servers[j] = servers[j], servers[i] })
	c := &Client{
		cfg: cfg, log: cfg.Logger, servers: servers, chroot: chroot,
		mail: newMailbox(), ended: make(chan struct{}), nudge: make(chan struct{}, 1),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.watches.init()
	c.mu.changed = make(chan struct{})
	if cfg.Resume != nil {
		c.mu.session = *cfg.Resume
	}
	return c, nil
}

// Session as it stands: id and password do not change in a client's life, the
// negotiated times may with each server it attaches to.
func (c *Client) Session() Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.session
}

// State at this moment; OnState tells about changes in order.
func (c *Client) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.state
}

// ServerAddr is the address of the server the client is or was last attached to.
func (c *Client) ServerAddr() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.addr
}

// WaitConnected returns nil once the session is attached, or why that will not happen:
// ErrSessionExpired, ErrClosed, or ctx's error with the last failure to connect.
func (c *Client) WaitConnected(ctx context.Context) error {
	for {
		c.mu.Lock()
		state, final, refused, changed := c.mu.state, c.mu.final, c.mu.refused, c.mu.changed
		c.mu.Unlock()
		switch {
		case state == Connected:
			return nil
		case final != nil:
			return final
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("no zookeeper server of %q answers: %w", c.cfg.Servers, errors.Join(ctx.Err(), refused))
		}
	}
}

// Start queues op and returns; done is called on the event goroutine with its
// result, exactly once. Requests are sent in the order in which they were started.
func (c *Client) Start(op Op, done func(Result)) {
	c.start(&call{op: op, done: done})
}

// Do executes op and waits for the result. When ctx ends first the result has
// ctx's error, and op may or may not be applied.
func (c *Client) Do(ctx context.Context, op Op) Result {
	return c.DoAll(ctx, []Op{op})[0]
}

// DoAll executes ops, pipelined in this order, and waits for all results. When the
// connection is lost every op not yet answered has the result ErrConnectionLoss, sent
// or not, and none is sent again.
func (c *Client) DoAll(ctx context.Context, ops []Op) []Result {
	c.mustNotBeInCallback("DoAll")
	results := make([]Result, len(ops))
	if len(ops) == 0 {
		return results
	}
	calls := make([]call, len(ops))
	finished := make(chan struct{})
	left := len(ops)
	last := func(Result) { // only ever called by the event goroutine
		if left--; left == 0 {
			close(finished)
		}
	}
	refs := make([]*call, len(ops))
	for i := range calls {
		calls[i] = call{op: ops[i], done: last}
		refs[i] = &calls[i]
	}
	c.start(refs...)
	select {
	case <-finished:
		for i := range calls {
			results[i] = calls[i].result
		}
	case <-ctx.Done():
		c.mu.Lock()
		for i := range calls {
			calls[i].abandoned = true
		}
		c.mu.Unlock()
		for i := range results {
			results[i].Err = ctx.Err()
		}
	}
	return results
}

func (c *Client) start(calls ...*call) {
	c.mu.Lock()
	if err := c.mu.final; err != nil {
		c.mu.Unlock()
		for _, call := range calls {
			call.result.Err = err
		}
		if !c.mail.putCalls(calls) { // the event goroutine has gone home
			go func() {
				for _, call := range calls {
					call.finish()
				}
			}()
		}
		return
	}
	for _, call := range calls {
		c.mu.queue.push(call)
	}
	l := c.mu.link
	c.mu.Unlock()
	if l != nil {
		l.wakeWriter()
	}
}

func (k *call) finish() {
	if k.done != nil {
		k.done(k.result)
	}
}

// Close ends the session on the server, so that its ephemeral znodes vanish now, and
// finishes the client. An error means that the server did not confirm it within
// a few seconds; the session then ends by its timeout.
func (c *Client) Close() error {
	c.mustNotBeInCallback("Close")
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	return c.closeSession(ctx)
}

func (c *Client) closeSession(ctx context.Context) error {
	result := c.Do(ctx, Op{Code: jute.OpCloseSession})
	for errors.Is(result.Err, ErrConnectionLoss) && ctx.Err() == nil {
		// Again does no harm: a session that is closed already is found expired.
		result = c.Do(ctx, Op{Code: jute.OpCloseSession})
	}
	c.finish(Closed, ErrClosed)
	<-c.ended
	if result.Err == nil || errors.Is(result.Err, ErrSessionExpired) || errors.Is(result.Err, ErrClosed) {
		return nil
	}
	return fmt.Errorf("closing zookeeper session 0x%x: %w", uint64(c.Session().ID), result.Err)
}

// Abandon closes the connection and finishes the client but leaves the session to
// its fate: it can be resumed until it expires.
func (c *Client) Abandon() { c.finish(Closed, ErrClosed) }

// CloseSession re-attaches to an old session and closes it. It is no error if the
// session is gone already.
func CloseSession(ctx context.Context, cfg Config, session Session) error {
	cfg.Resume = &session
	cfg.OnEvent, cfg.OnState = nil, nil
	c, err := Connect(ctx, cfg)
	if errors.Is(err, ErrSessionExpired) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("closing zookeeper session 0x%x: %w", uint64(session.ID), err)
	}
	return c.closeSession(ctx)
}

// setStateLocked announces a change of state. The final states stay.
func (c *Client) setStateLocked(state State) {
	if c.mu.state == state || c.mu.final != nil {
		return
	}
	c.mu.state = state
	close(c.mu.changed)
	c.mu.changed = make(chan struct{})
	c.mail.putState(state)
}

// finish ends the client: state and err are final, all that is under way fails with err.
func (c *Client) finish(state State, err error) {
	c.mu.Lock()
	if c.mu.final == nil {
		c.setStateLocked(state)
		c.mu.final = err
		if c.mu.doubt != nil {
			c.mu.doubt.Stop()
		}
		if c.mu.link == nil { // else run collects what was sent, in order
			c.failLocked(nil, err)
		}
	}
	c.mu.Unlock()
	c.cancel()
}

// failLocked gives err to the sent calls and to those queued behind them.
func (c *Client) failLocked(sent *fifo, err error) {
	var lost []*call
	for _, q := range []*fifo{sent, &c.mu.queue} {
		for q != nil && q.len() > 0 {
			call := q.pop()
			call.result = Result{Err: err}
			lost = append(lost, call)
		}
	}
	c.mail.putCalls(lost)
}

// mustNotBeInCallback panics where waiting would be for ever: the caller is the
// event goroutine, which would have to deliver what it waits for.
func (c *Client) mustNotBeInCallback(method string) {
	if !c.inCallback.Load() {
		return
	}
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, "zkclient.(*Client).deliver") {
			panic("zkclient: " + method + " called from a callback of the client would wait for itself; use Start or another goroutine")
		}
		if !more {
			return
		}
	}
}
