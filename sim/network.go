package main

import (
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// isolated says whether a node is cut off from any other.
func (n *network) isolated(who node) bool {
	for cut := range n.cut {
		if cut[0] == who || cut[1] == who {
			return true
		}
	}
	return false
}

// node is who messages come from and go to.
type node int

const (
	coordinatorNode node = 0
	firstClient     node = 100
	firstMember     node = 200
)

var (
	errRefused = errors.New("connection refused")
	errTimeout = errors.New("no answer in time")
)

type network struct {
	w     *world
	cut   map[[2]node]bool
	conns uint64
}

func newNetwork(w *world) *network { return &network{w: w, cut: map[[2]node]bool{}} }

// conn is one connection: messages arrive in order, until it breaks.
type conn struct {
	n      *network
	id     uint64
	broken bool
	last   map[node]time.Duration // arrival of the last message, by receiver
	born   int                    // incarnation of the serving broker
}

// link is a client's way to a server: its present connection.
type link struct {
	n        *network
	from, to node
	conn     *conn
	served   uint64 // the newest connection on which a request has arrived
	serving  uint64 // the connection of the request that is being served
}

func (n *network) link(from, to node) *link { return &link{n: n, from: from, to: to} }

func (l *link) reset() { l.conn = nil }

// lost says whether the connection has broken.
func (l *link) lost() bool {
	server := l.n.w.processOf(l.to)
	return l.conn == nil || l.conn.broken || server != nil && l.conn.born != server.incarnation
}

// delay draws how long a message takes.
func (n *network) delay() time.Duration {
	w := n.w
	if !w.calm && w.oneIn(w.config.slowOneIn) {
		return w.between(5*time.Millisecond, w.config.slowMax)
	}
	return w.between(100*time.Microsecond, 3*time.Millisecond)
}

func (c *conn) carry(from, to node, arrive func()) {
	n := c.n
	if c.broken {
		return
	}
	at := max(n.w.now+n.delay(), c.last[to]+time.Microsecond)
	c.last[to] = at
	sender := n.w.processOf(from)
	step := uint64(0)
	if sender != nil {
		step = sender.stepNo
	}
	lost := !n.w.calm && n.w.oneIn(n.w.config.breakOneIn)
	n.w.at(at, func() {
		if sender != nil && sender.aborted[step] {
			c.broken = true
			return
		}
		if lost || n.cut[[2]node{from, to}] {
			// What was sent later on this connection does not arrive either.
			c.broken = true
			return
		}
		if c.broken {
			return
		}
		arrive()
	})
}

// call sends a request and hands its outcome to done, once, in the caller's context. serve
// runs in the server's; it replies at most once, whenever it likes.
func (l *link) call(timeout time.Duration, serve func(reply func(any)), done func(answer any, err error)) {
	n, w := l.n, l.n.w
	caller, server := w.processOf(l.from), w.processOf(l.to)
	if caller != nil && caller.dying {
		return
	}
	finished := false
	asker := 0
	if caller != nil {
		asker = caller.incarnation
	}
	var mine *conn
	finish := func(answer any, err error) {
		if finished || caller != nil && caller.incarnation != asker {
			return // the process that asked is gone
		}
		finished = true
		if err != nil && l.conn == mine {
			l.conn = nil
		}
		done(answer, err)
	}
	if l.lost() {
		if server != nil && !server.listening() {
			if n.cut[[2]node{l.from, l.to}] || n.cut[[2]node{l.to, l.from}] {
				w.inProcess(caller, timeout, func() { finish(nil, errTimeout) })
			} else {
				w.inProcess(caller, n.delay(), func() { finish(nil, errRefused) })
			}
			return
		}
		n.conns++
		l.conn = &conn{n: n, id: n.conns, last: map[node]time.Duration{}}
		if server != nil {
			l.conn.born = server.incarnation
		}
	}
	mine = l.conn
	born := mine.born
	mine.carry(l.from, l.to, func() {
		if l.to == coordinatorNode {
			// A session moves with its connection: what comes on a former one is refused.
			if mine.id < l.served {
				mine.broken = true
				return
			}
			l.served = mine.id
		}
		if server != nil && (server.incarnation != born || !server.up) {
			mine.broken = true // a reset
			w.inProcess(caller, n.delay(), func() { finish(nil, errRefused) })
			return
		}
		w.inProcess(server, 0, func() {
			l.serving = mine.id
			serve(func(answer any) {
				if server != nil && server.dying {
					return
				}
				mine.carry(l.to, l.from, func() { w.inProcess(caller, 0, func() { finish(answer, nil) }) })
			})
		})
	})
	w.inProcess(caller, timeout, func() { finish(nil, errTimeout) })
}

// inProcess runs something in a broker's context after a delay: not if that incarnation has
// ended, later if it is paused. nil stands for a process that has no faults.
func (w *world) inProcess(b *broker, delay time.Duration, do func()) {
	if b == nil {
		if delay == 0 {
			do()
		} else {
			w.after(delay, do)
		}
		return
	}
	incarnation := b.incarnation
	arrive := func() {
		if b.incarnation == incarnation && b.up {
			b.step(do)
		}
	}
	if delay == 0 {
		arrive()
	} else {
		w.after(delay, arrive)
	}
}

func (w *world) processOf(n node) *broker {
	if n >= 1 && int(n) <= len(w.brokers) {
		return w.brokers[n-1]
	}
	return nil
}

// requestOnWire and responseOnWire give what the other side decodes.
func requestOnWire[R kmsg.Request](request R) R {
	decoded := kmsg.RequestForKey(request.Key())
	decoded.SetVersion(request.GetVersion())
	if err := decoded.ReadFrom(request.AppendTo(nil)); err != nil {
		panic(err)
	}
	return decoded.(R)
}

func responseOnWire[R kmsg.Response](response R) R {
	decoded := kmsg.ResponseForKey(response.Key())
	decoded.SetVersion(response.GetVersion())
	if err := decoded.ReadFrom(response.AppendTo(nil)); err != nil {
		panic(err)
	}
	return decoded.(R)
}
