package replication

import (
	"sync"
	"sync/atomic"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/partition"
)

// Standing is what a fetch session (KIP-227) leaves with the manager between its requests: the
// partitions in which there was nothing to tell. They are quiet: each stands in its
// partition's list of waiters and costs nothing until something happens there. Then it is
// stirred, and the session's next fetch, or the one that waits, looks at it again. So a fetch
// costs what its busy partitions cost, whatever the session holds.
//
//	named → quiet, by the fetch that names it and finds nothing (settle)
//	quiet → stirred, by an append, a high watermark, a change of role or of the ISR (stir)
//	stirred → named, by the next fetch (TakeStirred)
//	quiet, stirred → named, by a fetch that names it all the same (begin)
//	quiet, stirred → gone, by Forget
//
// A follower's silence about a quiet partition says that it is at the log's end, still. The
// leader takes that down when it matters, at the next append (attest): only then can a
// follower be behind, and from then on the lag time counts.
//
// Locks: turn, hosted.mu, mu, in this order. The zero value is an empty session.
type Standing struct {
	lastFetch atomic.Int64 // partition.Instant of the session's last request

	turn   sync.Mutex // serialises what links and unlinks parts, apart from stir
	closed bool       // guarded by turn

	mu struct {
		sync.Mutex
		op      *fetchOp        // the fetch that waits, if one does
		stirred []*StandingPart // quiet no more, and nobody has looked yet
		seen    []*StandingPart // the waiting fetch has taken them over since
	}
}

// StandingPart is one partition of a session. The zero value, with its Session set, is ready;
// it must not be copied.
type StandingPart struct {
	Session *Standing
	Owner   any // whatever the session's owner wants to find again in TakeStirred

	waiter  waiter // in a partition's list while quiet; host is guarded by Session.turn
	replica cluster.BrokerID

	// Guarded by Session.mu.
	part  FetchPart // as it was when it fell quiet
	state standingState
}

type standingState uint8

const (
	named   standingState = iota
	quiet                 // in a partition's list
	stirred               // in Session.mu.stirred or seen
)

// Quiet says whether a fetch need not name the partition.
func (p *StandingPart) Quiet() bool {
	p.Session.mu.Lock()
	defer p.Session.mu.Unlock()
	return p.state == quiet
}

// TakeStirred hands over the parts that were stirred since the last call. The next fetch must
// name them.
func (s *Standing) TakeStirred() []*StandingPart {
	s.mu.Lock()
	defer s.mu.Unlock()
	var taken []*StandingPart
	for _, list := range [][]*StandingPart{s.mu.seen, s.mu.stirred} {
		for _, p := range list {
			if p.state == stirred {
				p.state = named
				taken = append(taken, p)
			}
		}
	}
	s.mu.stirred, s.mu.seen = nil, nil
	return taken
}

// begin notes a request: what it names is neither quiet nor stirred, or the fetch would get it
// twice.
func (s *Standing) begin(request *FetchRequest, now partition.Instant) {
	s.lastFetch.Store(int64(now))
	s.turn.Lock()
	defer s.turn.Unlock()
	for i := range request.Parts {
		if p := request.Parts[i].Standing; p != nil {
			p.unlink()
		}
	}
}

// Forget takes the part out of the session.
func (p *StandingPart) Forget() {
	p.Session.turn.Lock()
	defer p.Session.turn.Unlock()
	p.unlink()
}

// Close keeps parts from falling quiet again; the owner then forgets each.
func (s *Standing) Close() {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.closed = true
}

// unlink is called with the session's turn.
func (p *StandingPart) unlink() {
	h := p.waiter.host
	if h == nil {
		return
	}
	h.mu.Lock()
	p.waiter.unlinkLocked()
	h.mu.Unlock()
	p.waiter.host = nil
	p.Session.mu.Lock()
	p.state = named
	p.Session.mu.Unlock()
}

// stir ends the part's quiet. It is called with the partition's mu, by which the part has
// just left the list of waiters.
func (p *StandingPart) stir(effects *effects) {
	s := p.Session
	s.mu.Lock()
	if p.state == quiet {
		p.state = stirred
		s.mu.stirred = append(s.mu.stirred, p)
	}
	op := s.mu.op
	s.mu.Unlock()
	if op != nil {
		effects.fetches = append(effects.fetches, op)
	}
}

// settle takes the parts in which there is nothing to tell out of the op, after its first
// look.
func (op *fetchOp) settle(views []view) []view {
	s := op.request.Standing
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.closed {
		return views
	}
	kept := 0
	for i := range views {
		part := &op.request.Parts[i]
		if part.Standing != nil && part.Standing.settle(op, part, &views[i]) {
			continue
		}
		op.request.Parts[kept], views[kept] = *part, views[i]
		kept++
	}
	clear(op.request.Parts[kept:])
	op.request.Parts = op.request.Parts[:kept]
	return views[:kept]
}

// settle lets the part fall quiet if the client knows all there is: the records, the high
// watermark and the log start; and if, for a follower, its fetches change nothing either. A
// consumer that may be sent to a nearer replica is not told by events when one has come up.
func (p *StandingPart) settle(op *fetchOp, part *FetchPart, v *view) bool {
	h := v.host
	if v.err != nil || v.diverging != nil || op.request.NearRack != "" || v.limit > part.FetchOffset ||
		v.highWatermark != part.KnownHighWatermark || v.logStart != part.KnownLogStart {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.usableLocked() != nil || h.replica.CheckEpoch(part.CurrentLeaderEpoch) != nil ||
		h.replica.Readable() != v.highWatermark || h.log.StartOffset() != v.logStart {
		return false
	}
	if op.isFollower() && (h.log.EndOffset() != part.FetchOffset || !h.replica.Settled(op.request.Replica)) {
		return false
	}
	p.waiter = waiter{standing: p, host: h, offset: part.FetchOffset, bound: op.bound()}
	p.waiter.linkLocked()
	p.Session.mu.Lock()
	defer p.Session.mu.Unlock()
	p.replica, p.part, p.state = op.request.Replica, *part, quiet
	return true
}

// attach makes the op the one that stirred parts wake; false if one was stirred already.
func (s *Standing) attach(op *fetchOp) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.mu.stirred) > 0 {
		return false
	}
	s.mu.op = op
	return true
}

func (s *Standing) detach(op *fetchOp) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.op == op {
		s.mu.op = nil
	}
}

// absorb makes stirred parts parts of the op that waits, and returns all of its parts. The new
// ones are linked before anybody looks at them, so that no event goes by unseen.
func (op *fetchOp) absorb() []FetchPart {
	op.mu.Lock()
	defer op.mu.Unlock()
	s := op.request.Standing
	if s == nil || op.gone || op.answered.Load() {
		return op.request.Parts
	}
	first := len(op.request.Parts)
	s.mu.Lock()
	for _, p := range s.mu.stirred {
		if p.state == stirred {
			op.request.Parts = append(op.request.Parts, p.part)
		}
	}
	s.mu.seen = append(s.mu.seen, s.mu.stirred...)
	s.mu.stirred = nil
	s.mu.Unlock()
	parts := op.request.Parts
	for i := range parts[first:] {
		part := &parts[first+i]
		h := op.m.host(part.TP)
		if h == nil {
			continue // the look finds out
		}
		w := &waiter{op: op, host: h, offset: part.FetchOffset, bound: op.bound()}
		h.mu.Lock()
		w.linkLocked()
		h.mu.Unlock()
		op.absorbed = append(op.absorbed, w)
	}
	return parts
}

// attest tells a leader's replica, before its log grows, until when its quiet followers were
// at the end.
func (l *waitList) attest(replica *partition.Replica) {
	for w := l.head; w != nil; w = w.next {
		if p := w.standing; p != nil && w.bound == untilLogEnd {
			replica.Attest(p.replica, partition.Instant(p.Session.lastFetch.Load()))
		}
	}
}

// stirAll ends the quiet of all sessions' parts here: something changed that no offset tells.
func (l *waitList) stirAll(effects *effects) {
	for w := l.head; w != nil; {
		next := w.next
		if w.standing != nil {
			w.unlinkLocked()
			w.standing.stir(effects)
		}
		w = next
	}
}
