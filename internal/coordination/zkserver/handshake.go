package zkserver

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/znode"
)

const (
	passwordBytes = 16
	graceMin      = 20 * time.Millisecond
)

// handshake is a ConnectRequest on its way through the log.
type handshake struct {
	request jute.ConnectRequest
}

// greet reads the first bytes of a connection: a four-letter word, or the handshake.
func (c *conn) greet() error {
	word, err := c.in.peek(4)
	if err != nil {
		return err
	}
	if c.fourLetters(string(word)) {
		return errLast
	}
	if what := otherProtocol(word); what != "" {
		return fmt.Errorf("%w: this is %s, and this port speaks ZooKeeper's protocol", errRefused, what)
	}
	frame, err := c.in.next(func() {})
	if err != nil {
		return err
	}
	h, err := c.meet(frame)
	if err != nil {
		return err
	}
	if !c.server.waitServing(c.done) {
		return errNoQuorum
	}
	if err := c.waitZxid(h.request.LastZxidSeen); err != nil {
		return err
	}
	if err := c.attach(h); err != nil {
		return err
	}
	_ = c.net.SetReadDeadline(time.Time{})
	return nil
}

var errNoQuorum = errors.New("no quorum")

// meet decodes the handshake.
func (c *conn) meet(frame []byte) (*handshake, error) {
	h := &handshake{}
	d := jute.NewDecoder(frame)
	h.request.Decode(&d)
	if err := d.Err(); err != nil {
		return nil, fmt.Errorf("%w: handshake: %w", errRefused, err)
	}
	c.mu.Lock()
	c.mu.stats.received++
	c.mu.stats.lastOp = "SESS"
	c.mu.Unlock()
	return h, nil
}

// otherProtocol names what else begins with these bytes; as a frame's length they would be out of range.
func otherProtocol(first []byte) string {
	switch {
	case first[0] == 0x16 && first[1] == 3:
		return "TLS"
	case slices.Contains([]string{"GET ", "POST", "HEAD", "PUT ", "PRI "}, string(first)):
		return "HTTP"
	}
	return ""
}

// waitZxid holds a client that has seen more than this member has applied, for the moment that it takes to catch up.
// Serving it now would take it back in time.
func (c *conn) waitZxid(seen jute.Zxid) error {
	deadline := time.NewTimer(c.server.holdZxid)
	defer deadline.Stop()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		applied, caughtUp := c.caughtUp(seen)
		if caughtUp {
			return nil
		}
		select {
		case <-again.C:
		case <-deadline.C:
			return aheadOfUs(seen, applied)
		case <-c.done:
			return net.ErrClosed
		}
	}
}

// caughtUp says whether this member has applied what the client has seen.
func (c *conn) caughtUp(seen jute.Zxid) (applied jute.Zxid, yes bool) {
	c.server.member.View(func(m *znode.Machine) {
		applied = m.LastZxid()
		c.mu.Lock()
		c.mu.machine = m // a snapshot that replaces it closes this connection
		c.mu.Unlock()
	})
	return applied, seen <= applied
}

func aheadOfUs(seen, applied jute.Zxid) error {
	return fmt.Errorf("%w: it has seen zxid 0x%x, which is ahead of 0x%x here: this member lags, or the client comes from another ensemble",
		errRefused, uint64(seen), uint64(applied))
}

// attach creates or re-attaches the session through the log and waits for the outcome.
func (c *conn) attach(h *handshake) error {
	limit := time.NewTimer(c.attachBegins(h))
	defer limit.Stop()
	select {
	case <-c.ready:
	case <-c.done:
		return net.ErrClosed
	case <-limit.C:
		return errNoOutcome
	}
	return c.attachEnds()
}

var errNoOutcome = errors.New("handshake: no outcome")

// attachBegins submits the session's entry and says how long to wait for it.
func (c *conn) attachBegins(h *handshake) (patience time.Duration) {
	request := &h.request
	timeout := time.Duration(request.TimeoutMs) * time.Millisecond
	timeout = min(max(timeout, c.server.config.MinSessionTimeout), c.server.config.MaxSessionTimeout)
	entry := znode.Request{
		Kind: znode.KindReattach, Session: request.SessionID, Password: request.Password,
		TimeoutMs: int32(timeout.Milliseconds()), Owner: c.server.self,
	}
	if request.HasFastExpiry && request.GraceMs > 0 {
		grace := time.Duration(request.GraceMs) * time.Millisecond
		entry.GraceMs = int32(min(max(grace, graceMin), timeout).Milliseconds())
	}
	if request.SessionID == 0 {
		entry.Kind = znode.KindCreateSession
		entry.Session = c.server.newSessionID()
		entry.Password = make([]byte, passwordBytes)
		c.server.mustRandom(entry.Password)
	} else if old := c.server.bySession(request.SessionID); old != nil {
		// As upstream, before the password is looked at.
		old.close("session re-attached by another connection")
	}
	c.mu.Lock()
	c.mu.handshake = h
	c.mu.Unlock()
	c.server.member.Submit(entry, c)
	return timeout
}

// attachEnds is once the outcome is there: it ends the reader if the session was refused.
func (c *conn) attachEnds() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.last {
		return errLast
	}
	return nil
}

// greeted answers the handshake; called by the apply loop.
func (c *conn) greeted(res *znode.Result) {
	c.mu.Lock()
	h := c.mu.handshake
	if h == nil || c.mu.closed {
		c.mu.Unlock()
		return
	}
	c.mu.handshake = nil
	response := jute.ConnectResponse{Password: make([]byte, passwordBytes), HasReadOnly: h.request.HasReadOnly}
	if res.Code == jute.OK && !res.SessionMoved {
		c.mu.session, c.mu.generation = res.Session, res.Generation
		c.mu.timeoutMs, c.mu.graceMs = res.TimeoutMs, res.GraceMs
		response.TimeoutMs, response.SessionID, response.Password = res.TimeoutMs, res.Session, res.Password
		response.HasFastExpiry, response.GraceMs = h.request.HasFastExpiry && res.GraceMs > 0, res.GraceMs
	} else {
		c.mu.last = true
	}
	start := len(c.mu.out)
	c.mu.out = jute.EndFrame(response.Append(jute.BeginFrame(c.mu.out)), start)
	c.mu.stats.greeted(res.Zxid, h.request.SessionID == 0)
	session := c.mu.session
	if session != 0 {
		c.server.mu.Lock()
		c.server.mu.sessions[session] = c
		c.server.mu.Unlock()
	}
	close(c.ready)
	c.appendedAndUnlock()
}
