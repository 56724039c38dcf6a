package zkclient

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"understudy/internal/coordination/jute"
)

// link is one connection with the session attached.
type link struct {
	conn net.Conn
	r    *bufio.Reader
	// wake has room for one token: there may be something to send.
	wake chan struct{}
	stop chan struct{} // closed when the reader has ended

	pending  fifo        // sent, in order of their replies; guarded by Client.mu
	xid      int32       // writer's
	preface  []*call     // setWatches, to be sent before anything else; writer's
	pingDue  atomic.Bool // keepalive asks the writer for a ping
	lastSend atomic.Int64
	lastRecv atomic.Int64
}

// Clock readings are nanoseconds since start, on the monotonic clock.
var start = time.Now()

func monotonic() int64 { return int64(time.Since(start)) }

func (l *link) wakeWriter() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

var errServerExpired = errors.New("the server says the session has expired")

// run owns the connection for the client's whole life.
func (c *Client) run() {
	defer close(c.ended)
	defer c.mail.close()
	flaps := 0 // connections in a row that did not last
	for {
		if !c.pause(flaps) {
			return
		}
		l, err := c.attach()
		switch {
		case errors.Is(err, errServerExpired):
			c.log.Info("zookeeper session expired", "session", sessionText(c.Session().ID), "servers", c.cfg.Servers)
			c.finish(Expired, ErrSessionExpired)
			return
		case err != nil: // c.ctx has ended
			return
		}
		attached := time.Now()
		err = c.serve(l)
		if flaps++; time.Since(attached) > 100*time.Millisecond {
			flaps = 0
		}
		if !c.lost(l, err) {
			return
		}
	}
}

// pause before the next round of attempts after n useless ones: none at first, then short and random, so that a herd
// of clients does not hammer in step. False when the client is finished.
func (c *Client) pause(n int) bool {
	if n == 0 {
		return c.ctx.Err() == nil
	}
	most := min(5*time.Millisecond<<min(n, 10), 100*time.Millisecond)
	select {
	case <-time.After(most/2 + rand.N(most/2)):
		return true
	case <-c.ctx.Done():
		return false
	}
}

// attach tries the servers in turn until one attaches the session. The first round is immediate: each lost moment is
// one without coordination.
func (c *Client) attach() (*link, error) {
	for rounds := 0; ; rounds++ {
		if !c.pause(rounds) {
			return nil, c.ctx.Err()
		}
		for range c.servers {
			addr := c.servers[0]
			c.servers = append(c.servers[1:], addr)
			l, err := c.try(addr)
			if err == nil {
				return l, nil
			}
			if errors.Is(err, errServerExpired) || c.ctx.Err() != nil {
				return nil, err
			}
			c.mu.Lock()
			c.mu.refused = err
			c.mu.Unlock()
			c.log.Debug("zookeeper server refused", "server", addr, "err", err)
			if rounds == 1 { // once per outage, when it is more than a moment
				c.log.Warn("zookeeper server refused, trying on", "server", addr, "err", err)
			}
		}
	}
}

// try dials one server and shakes hands.
func (c *Client) try(addr string) (*link, error) {
	ctx, cancel := context.WithTimeout(c.ctx, c.cfg.ConnectTimeout)
	defer cancel()
	dial := c.cfg.Dial
	if dial == nil {
		dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		}
	}
	conn, err := dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	// Closing is what interrupts the handshake, whatever kind of connection it is.
	interrupt := context.AfterFunc(ctx, func() { conn.Close() })
	r := bufio.NewReaderSize(conn, 64<<10)
	l, err := c.handshake(conn, r, addr)
	if err == nil && !interrupt() {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		if ctx.Err() != nil && c.ctx.Err() == nil {
			err = fmt.Errorf("%s does not answer the handshake: %w", addr, ctx.Err())
		}
		return nil, err
	}
	return l, nil
}

func (c *Client) handshake(conn net.Conn, r *bufio.Reader, addr string) (*link, error) {
	c.mu.Lock()
	session, lastZxid := c.mu.session, c.mu.lastZxid
	c.mu.Unlock()
	request := jute.ConnectRequest{
		LastZxidSeen: lastZxid,
		TimeoutMs:    int32(c.cfg.SessionTimeout.Milliseconds()),
		SessionID:    session.ID,
		Password:     session.Password,
		HasReadOnly:  true,
	}
	if request.Password == nil {
		request.Password = make([]byte, 16)
	}
	if c.cfg.FastExpiryGrace > 0 {
		request.HasFastExpiry = true
		request.GraceMs = int32(c.cfg.FastExpiryGrace.Milliseconds())
	}
	if _, err := conn.Write(frame(nil, request.Append)); err != nil {
		return nil, err
	}
	body, err := readFrame(r, c.cfg.MaxReplyBytes)
	if err != nil {
		return nil, fmt.Errorf("handshake with %s: %w", addr, err)
	}
	var response jute.ConnectResponse
	d := jute.NewDecoder(body)
	response.Decode(&d)
	if err := d.Err(); err != nil {
		return nil, fmt.Errorf("handshake with %s: %w", addr, err)
	}
	if response.TimeoutMs <= 0 || response.SessionID == 0 || (session.ID != 0 && response.SessionID != session.ID) {
		if session.ID == 0 {
			return nil, fmt.Errorf("%s refuses a new session", addr)
		}
		return nil, errServerExpired
	}
	session = Session{
		ID:       response.SessionID,
		Password: append([]byte(nil), response.Password...),
		Timeout:  time.Duration(response.TimeoutMs) * time.Millisecond,
	}
	if request.HasFastExpiry && response.HasFastExpiry {
		session.Grace = time.Duration(response.GraceMs) * time.Millisecond
	}
	return c.attached(conn, r, session, addr)
}

// attached installs the new connection; from here on started calls are sent.
func (c *Client) attached(conn net.Conn, r *bufio.Reader, session Session, addr string) (*link, error) {
	l := &link{conn: conn, wake: make(chan struct{}, 1), stop: make(chan struct{}), r: r}
	l.lastSend.Store(monotonic())
	l.lastRecv.Store(monotonic())
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.final != nil {
		return nil, c.mu.final
	}
	l.preface = c.watches.restore(c.mu.lastZxid)
	if c.mu.doubt != nil {
		c.mu.doubt.Stop()
	}
	c.mu.session, c.mu.addr, c.mu.link, c.mu.refused = session, addr, l, nil
	c.setStateLocked(Connected)
	select {
	case c.nudge <- struct{}{}:
	default:
	}
	c.log.Info("zookeeper session attached", "session", sessionText(session.ID), "server", addr,
		"timeout", session.Timeout, "grace", session.Grace)
	return l, nil
}

// serve works the connection until it fails.
func (c *Client) serve(l *link) error {
	release := context.AfterFunc(c.ctx, func() { l.conn.Close() })
	defer release()
	var writer sync.WaitGroup
	writer.Go(func() {
		if err := c.writeLoop(l); err != nil {
			l.conn.Close() // the reader finds out
		}
	})
	l.wakeWriter()
	err := c.readLoop(l)
	l.conn.Close()
	close(l.stop)
	writer.Wait()
	return err
}

// lost gives the lost calls their result; false when the client is finished.
func (c *Client) lost(l *link, cause error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.link = nil
	if c.mu.final != nil {
		c.failLocked(&l.pending, c.mu.final)
		return false
	}
	session := c.mu.session
	c.log.Info("zookeeper connection lost", "session", sessionText(session.ID), "server", c.mu.addr, "err", cause)
	// The promise counts from the last sign of life, or, with fast expiry, from when the
	// server can have seen the connection go.
	left := session.Timeout - time.Duration(monotonic()-l.lastRecv.Load())
	if session.Grace > 0 {
		left = min(left, session.Grace)
	}
	c.mu.doubt = time.AfterFunc(max(left, 0), c.doubt)
	c.setStateLocked(Disconnected)
	c.failLocked(&l.pending, ErrConnectionLoss)
	return true
}

// doubt: disconnected for longer than the session was promised.
func (c *Client) doubt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.state == Disconnected {
		c.log.Warn("zookeeper session doubtful", "session", sessionText(c.mu.session.ID), "servers", c.cfg.Servers)
		c.setStateLocked(Doubtful)
	}
}

// keepalive asks for pings on an idle connection and closes a silent one. It is not the
// writer, which may be stuck in a write, nor the reader.
func (c *Client) keepalive() {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.nudge:
			ticker.Reset(max(min(c.Session().Timeout/12, time.Second), time.Millisecond))
		case <-ticker.C:
		}
		c.mu.Lock()
		l, timeout := c.mu.link, c.mu.session.Timeout
		c.mu.Unlock()
		if l == nil {
			continue
		}
		now := monotonic()
		if silent := time.Duration(now - l.lastRecv.Load()); silent > timeout*2/3 {
			c.log.Warn("zookeeper server silent", "server", c.ServerAddr(), "for", silent)
			l.conn.Close()
		} else if time.Duration(now-l.lastSend.Load()) >= min(timeout/4, 10*time.Second) {
			l.pingDue.Store(true)
			l.wakeWriter()
		}
	}
}

// writeLoop sends what is queued, as much as the window allows in one write.
func (c *Client) writeLoop(l *link) error {
	var buf []byte
	for {
		buf = c.gather(l, buf[:0])
		if len(buf) == 0 {
			select {
			case <-l.wake:
				continue
			case <-l.stop:
				return nil
			}
		}
		l.lastSend.Store(monotonic())
		if _, err := l.conn.Write(buf); err != nil {
			return err
		}
		if cap(buf) > 4*writeBytesMax {
			buf = nil
		}
	}
}

// gather encodes the requests whose turn it is and notes them as pending.
func (c *Client) gather(l *link, buf []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.link != l {
		return buf
	}
	for _, call := range l.preface {
		l.pending.push(call)
		buf = appendSetWatches(buf, call.watches)
	}
	l.preface = nil
	for c.mu.queue.len() > 0 && c.mu.inFlight < c.cfg.MaxInFlight && len(buf) < writeBytesMax {
		call := c.mu.queue.pop()
		if call.abandoned {
			continue
		}
		call.sent = true
		c.mu.inFlight++
		if l.xid++; l.xid <= 0 {
			l.xid = 1
		}
		call.xid = l.xid
		l.pending.push(call)
		buf = appendRequest(buf, call.xid, &call.op, c.chroot)
	}
	if l.pingDue.Swap(false) && len(buf) == 0 {
		buf = appendPing(buf)
	}
	return buf
}

// readLoop decodes replies and events and posts them in batches: one hand-over for all
// that came in with one read from the socket.
func (c *Client) readLoop(l *link) error {
	var batch []item
	for {
		body, err := readFrame(l.r, c.cfg.MaxReplyBytes)
		if err == nil {
			batch, err = c.receive(l, body, batch)
		}
		if err != nil || !frameBuffered(l.r) || len(batch) >= 256 {
			l.lastRecv.Store(monotonic())
			c.mail.put(batch)
			clear(batch)
			batch = batch[:0]
		}
		if err != nil {
			return err
		}
	}
}

// receive takes one frame; the items it leads to are appended to batch.
func (c *Client) receive(l *link, body []byte, batch []item) ([]item, error) {
	d := jute.NewDecoder(body)
	var header jute.ReplyHeader
	header.Decode(&d)
	if err := d.Err(); err != nil {
		return batch, err
	}
	switch header.Xid {
	case jute.XidNotification:
		event, err := decodeEvent(&d, header.Zxid)
		if err != nil {
			return batch, err
		}
		c.watches.fired(event.Type, event.Path)
		if event.Path, err = stripChroot(c.chroot, event.Path); err != nil {
			return batch, err
		}
		return append(batch, item{event: &event}), nil
	case jute.XidPing:
		return batch, nil
	}
	call, err := c.answered(l, header)
	if err != nil {
		return batch, err
	}
	if call.watches != nil { // setWatches
		if header.Err != jute.OK {
			return batch, fmt.Errorf("setWatches: %w", header.Err)
		}
		return batch, nil
	}
	call.result.Zxid = header.Zxid
	if err := decodeResult(&d, header.Err, &call.op, c.chroot, &call.result); err != nil {
		// What the server did is known, what it said is not: the call is lost with the rest.
		c.mu.Lock()
		defer c.mu.Unlock()
		rest := l.pending
		l.pending = fifo{}
		l.pending.push(call)
		for rest.len() > 0 {
			l.pending.push(rest.pop())
		}
		return batch, fmt.Errorf("reply to op %d: %w", call.op.Code, err)
	}
	c.watches.answered(&call.op, c.chroot, header.Err)
	return append(batch, item{call: call}), nil
}

// answered takes the call whose turn it is; a reply out of turn breaks the connection.
func (c *Client) answered(l *link, header jute.ReplyHeader) (*call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.pending.len() == 0 {
		return nil, fmt.Errorf("reply with xid %d that nothing waits for", header.Xid)
	}
	if want := l.pending.calls[l.pending.head].xid; want != header.Xid {
		return nil, fmt.Errorf("reply with xid %d out of order, %d is due", header.Xid, want)
	}
	c.mu.lastZxid = max(c.mu.lastZxid, header.Zxid)
	return l.pending.pop(), nil
}

// readFrame reads one frame into memory of its own, which results may keep.
func readFrame(r *bufio.Reader, limit int) ([]byte, error) {
	size, err := r.Peek(4)
	if err != nil {
		return nil, err
	}
	n := int32(binary.BigEndian.Uint32(size))
	if n < 0 || int(n) > limit {
		return nil, fmt.Errorf("frame of %d bytes announced, at most %d are taken", n, limit)
	}
	if _, err := r.Discard(4); err != nil {
		return nil, err
	}
	return readBody(r, int(n))
}

// readBody grows with what really comes, not with what was announced.
func readBody(r io.Reader, n int) ([]byte, error) {
	const step = 1 << 20
	body := make([]byte, min(n, step))
	for have := 0; ; {
		if _, err := io.ReadFull(r, body[have:]); err != nil {
			return nil, err
		}
		if have = len(body); have == n {
			return body, nil
		}
		more := min(n-have, max(step, have))
		body = slices.Grow(body, more)[:have+more]
	}
}

// frameBuffered reports whether a whole frame can be read without the socket.
func frameBuffered(r *bufio.Reader) bool {
	if r.Buffered() < 4 {
		return false
	}
	size, err := r.Peek(4)
	return err == nil && r.Buffered()-4 >= int(binary.BigEndian.Uint32(size))
}

func sessionText(id jute.SessionID) string { return fmt.Sprintf("0x%x", uint64(id)) }
