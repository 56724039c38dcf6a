package zkserver

import (
	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/znode"
)

// Applied implements ensemble.Observer: called by the apply loop under the tree's write lock, in log order. Events are
// queued before the change's own reply.
func (s *Server) Applied(req *znode.Request, res *znode.Result, done any) {
	for i := range res.Events {
		s.notify(&res.Events[i])
	}
	c, _ := done.(*conn)
	switch req.Kind {
	case znode.KindCreateSession, znode.KindReattach:
		s.sessionApplied(res, c)
		return
	}
	if c != nil {
		c.applied(res)
	}
	if res.ClosedSession {
		if other := s.bySession(res.Session); other != nil && other != c {
			other.sessionOver()
			other.close("session ended")
		}
	}
}

// Flush has the writers send what Applied has appended since the last time: one wake-up, and most often one write, for
// all that a log entry held for a connection. The apply loop calls it after each entry.
func (s *Server) Flush() {
	for i, c := range s.unsent {
		c.wakeWriter()
		s.unsent[i] = nil
	}
	s.unsent = s.unsent[:0]
}

// Reset implements ensemble.Observer: the tree was replaced. What watchers have missed cannot be told, so every client
// starts anew and catches up with setWatches.
func (s *Server) Reset() { s.closeAll("tree replaced by a snapshot", func(*conn) bool { return true }) }

// Dropped implements ensemble.Observer: a write's outcome will never be known. Only a lost connection says that.
func (s *Server) Dropped(done any) {
	if c, ok := done.(*conn); ok {
		c.close("outcome of a write unknown")
	}
}

// notify appends an event to the output of all who watch for it and may know of it.
func (s *Server) notify(event *znode.Event) {
	s.watches.Lock()
	s.watches.fired = s.watches.table.Fire(s.watches.fired[:0], event.Type, event.Path)
	s.watches.Unlock()
	fired := s.watches.fired // nobody else touches it: there is one apply loop
	if len(fired) == 0 {
		return
	}
	s.event = appendEvent(s.event[:0], &jute.WatcherEvent{Type: event.Type, State: jute.StateSyncConnected, Path: event.Path}, event.Zxid)
	for i, c := range fired {
		c.notify(event, s.event)
		fired[i] = nil
	}
}

func (c *conn) notify(event *znode.Event, frame []byte) {
	c.mu.Lock()
	if c.mu.closed || c.mu.last || !event.ReadableBy(c.mu.auth) {
		c.mu.Unlock()
		return
	}
	c.mu.out = append(c.mu.out, frame...)
	c.appendedAndUnlock()
}

// appendedAndUnlock sees to it that what the apply loop has appended goes out. It unlocks c.mu.
func (c *conn) appendedAndUnlock() {
	slow := len(c.mu.out) > outputHardBytes
	if !c.mu.unsent {
		c.mu.unsent = true
		c.server.unsent = append(c.server.unsent, c)
	}
	c.mu.Unlock()
	if slow {
		c.server.warn("zookeeper client does not read, connection closed", "client", c.remote, "unsentBytesMax", outputHardBytes)
		c.close("client does not read")
	}
}

// applied answers the write at the head of the queue and performs the reads behind it.
func (c *conn) applied(res *znode.Result) {
	c.mu.Lock()
	if c.mu.closed || c.mu.queue.len() == 0 {
		c.mu.Unlock()
		return
	}
	r := c.mu.queue.first()
	switch {
	case !r.waits:
		c.mu.Unlock()
		c.server.log.Error("a write was applied out of turn", "session", sessionText(res.Session), "zxid", res.Zxid)
		c.close("a write was applied out of turn")
		return
	case res.SessionMoved:
		c.mu.Unlock()
		c.close("the session has moved to another connection")
		return
	}
	c.replyLocked(r, res.Zxid, res.Code, res.Reply)
	c.mu.ended = c.mu.ended || res.ClosedSession
	c.mu.last = c.mu.last || r.final
	c.mu.queue.pop()
	for c.mu.queue.len() > 0 && !c.mu.queue.first().waits {
		c.performLocked(c.mu.machine, c.mu.queue.first())
		c.mu.queue.pop()
	}
	c.mu.moved.Signal()
	c.appendedAndUnlock()
}

// sessionOver notes that there is nothing left to lose with the connection.
func (c *conn) sessionOver() {
	c.mu.Lock()
	c.mu.ended = true
	c.mu.Unlock()
}

// sessionApplied finishes a handshake, ours or another member's: the connection that had the session here has lost it.
func (s *Server) sessionApplied(res *znode.Result, c *conn) {
	if res.Code == jute.OK && !res.SessionMoved {
		if old := s.bySession(res.Session); old != nil && old != c {
			old.close("session re-attached by another connection")
		}
	}
	if c != nil {
		c.greeted(res)
	}
}
