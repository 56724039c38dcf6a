package main

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"time"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/watch"
	"understudy/internal/coordination/zkclient"
	"understudy/internal/coordination/znode"
	"understudy/internal/streaming/registry"
)

// coordinator is the ensemble as one machine that applies at once. The twin gets the same
// entries.
type coordinator struct {
	w        *world
	machine  *znode.Machine
	twin     *znode.Machine
	watches  *watch.Table[jute.SessionID]
	sessions map[jute.SessionID]*zkSession
	order    []jute.SessionID // of sessions, by age
	lastID   jute.SessionID
	entries  int
}

// zkSession is what the coordinator knows of a broker's session.
type zkSession struct {
	id        jute.SessionID
	broker    *broker
	heard     time.Duration
	timeout   time.Duration
	doomed    time.Duration // fast expiry at this time; 0: none
	events    []zkclient.Event
	delivered int // how many of events have been handed to the broker
	sending   bool
}

func newCoordinator(w *world) *coordinator {
	c := &coordinator{
		w: w, machine: znode.New(), twin: znode.New(), watches: watch.New[jute.SessionID](),
		sessions: map[jute.SessionID]*zkSession{}, lastID: 0x100,
	}
	return c
}

var openAuth = []jute.ID{{Scheme: "ip", ID: "127.0.0.1"}}

func (c *coordinator) timeMs() int64 { return 1_700_000_000_000 + c.w.now.Milliseconds() }

// apply performs one request as a log entry of its own, on both machines.
func (c *coordinator) apply(request znode.Request) (result znode.Result) {
	batch := znode.Batch{TimeMs: c.timeMs(), Requests: []znode.Request{request}}
	entry := batch.Append(nil)
	decoded, err := znode.DecodeBatch(entry)
	if err != nil {
		c.w.fail("entry-codec", "%v", err)
	}
	var fired []znode.Event
	c.machine.Apply(1, &decoded, func(_ int, r *znode.Result) {
		result = *r
		fired = slices.Clone(r.Events)
	})
	again, _ := znode.DecodeBatch(slices.Clone(entry))
	c.twin.Apply(1, &again, nil)
	c.entries++
	if c.entries%64 == 0 {
		c.compare()
	}
	result.Events = nil
	for _, event := range fired {
		c.fire(event)
	}
	c.w.check.treeChanged(fired)
	return result
}

// compare checks the machines, and sometimes replaces the twin by a restored snapshot.
func (c *coordinator) compare() {
	if a, b := c.machine.Checksum(), c.twin.Checksum(); a != b {
		c.w.fail("identical-state", "after %d entries the machines differ: %x and %x", c.entries, a, b)
	}
	if !c.w.oneIn(3) {
		return
	}
	snapshot := c.machine.Freeze()
	var stored bytes.Buffer
	if _, err := snapshot.WriteTo(&stored); err != nil {
		c.w.fail("identical-state", "snapshot: %v", err)
	}
	snapshot.Close()
	restored, err := znode.Restore(&stored)
	if err != nil {
		c.w.fail("identical-state", "restore: %v", err)
	}
	c.twin = restored
	if a, b := c.machine.Checksum(), c.twin.Checksum(); a != b {
		c.w.fail("identical-state", "a restored snapshot differs after %d entries: %x and %x", c.entries, a, b)
	}
}

func (c *coordinator) fire(event znode.Event) {
	for _, id := range c.watches.Fire(nil, event.Type, event.Path) {
		if s := c.sessions[id]; s != nil {
			s.events = append(s.events, zkclient.Event{Type: event.Type, Path: event.Path, Zxid: event.Zxid})
			if s.broker.zk != nil && s.broker.session == id {
				c.deliver(s, s.broker.zk)
			}
		}
	}
}

// newSession begins a session for a broker.
func (c *coordinator) newSession(b *broker) jute.SessionID {
	c.lastID++
	id := c.lastID
	c.apply(znode.Request{Kind: znode.KindCreateSession, Session: id, TimeoutMs: int32(c.w.config.sessionTimeout.Milliseconds()), Password: []byte("secret"), Owner: 1})
	c.sessions[id] = &zkSession{id: id, broker: b, heard: c.w.now, timeout: c.w.config.sessionTimeout}
	c.order = append(c.order, id)
	return id
}

// expire ends a session.
func (c *coordinator) expire(s *zkSession, why string) {
	c.w.trace("session", "0x%x of broker %d ends: %s", s.id, s.broker.id, why)
	delete(c.sessions, s.id)
	c.order = slices.DeleteFunc(c.order, func(id jute.SessionID) bool { return id == s.id })
	c.watches.RemoveAll(s.id)
	c.apply(znode.Request{Kind: znode.KindExpire, Session: s.id, Generation: 1})
	c.w.check.sessionEnded(s.id)
}

// tick ends the sessions whose time is up.
func (c *coordinator) tick() {
	for _, id := range slices.Clone(c.order) {
		s := c.sessions[id]
		switch {
		case s == nil:
		case s.doomed > 0 && c.w.now >= s.doomed:
			c.expire(s, "connection lost")
		case c.w.now-s.heard > s.timeout:
			c.expire(s, "timeout")
		}
	}
	c.w.after(20*time.Millisecond, c.tick)
}

// store is the client of one session, at the coordinator's side of the network.
type store struct {
	c  *coordinator
	id jute.SessionID
}

func (s store) Session() zkclient.Session { return zkclient.Session{ID: s.id} }

func (s store) Do(_ context.Context, op zkclient.Op) zkclient.Result {
	if s.c.sessions[s.id] == nil {
		return zkclient.Result{Err: zkclient.ErrSessionExpired}
	}
	body := op.AppendBody(nil)
	switch op.Code {
	case jute.OpGetData, jute.OpExists, jute.OpGetChildren2:
		reply, code, reg := s.c.machine.HandleRead(op.Code, body, openAuth, s.id)
		if reg.Kind != watch.None {
			s.c.watches.Add(reg.Kind, strings.Clone(reg.Path), s.id)
		}
		return op.DecodeReply(code, slices.Clone(reply))
	}
	result := s.c.apply(znode.Request{Kind: znode.KindOp, Session: s.id, Generation: 1, Op: op.Code, Body: body, Auth: openAuth})
	return op.DecodeReply(result.Code, slices.Clone(result.Reply))
}

func (s store) DoAll(ctx context.Context, ops []zkclient.Op) []zkclient.Result {
	out := make([]zkclient.Result, len(ops))
	for i := range ops {
		out[i] = s.Do(ctx, ops[i])
	}
	return out
}

// as runs something with a session's registry, as a request of that session's broker.
func (c *coordinator) as(id jute.SessionID) *registry.Registry {
	if s := c.sessions[id]; s != nil {
		s.heard = c.w.now
		s.doomed = 0
	}
	return registry.New(store{c, id}, nil)
}

// deliver sends a session's events on its broker's connection: in order, each until it has
// arrived (a client that reconnects sets its watches again and is told what it missed).
func (c *coordinator) deliver(s *zkSession, l *link) {
	if s.sending || s.delivered == len(s.events) || l.conn == nil || l.conn.broken {
		return
	}
	carrier, upTo := l.conn, len(s.events)
	incarnation := s.broker.incarnation
	s.sending = true
	arrived := false
	carrier.carry(coordinatorNode, node(s.broker.id), func() {
		if s.broker.incarnation != incarnation || upTo <= s.delivered {
			return
		}
		arrived = true
		s.sending = false
		events := s.events[s.delivered:upTo]
		s.delivered = upTo
		c.w.inProcess(s.broker, 0, func() {
			for _, event := range events {
				s.broker.onWatch(s.id, event)
			}
		})
	})
	c.w.after(500*time.Millisecond, func() {
		if !arrived {
			s.sending = false
		}
	})
}
