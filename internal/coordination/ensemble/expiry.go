package ensemble

import (
	"sync"
	"time"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/session"
	"understudy/internal/coordination/znode"
)

type sessionID = jute.SessionID

// sessions is this member's part in keeping sessions alive: everywhere it collects touches and
// reports them to the leader; on the leader it runs the clock.
type sessions struct {
	m       *Member
	start   time.Time
	wake    *mailbox[func()] // changes of the leadership, carried out by run
	touches [touchShards]touchShard
	mu      struct {
		sync.Mutex
		clock *session.Clock // nil: not the leader
		term  uint64
	}
}

// touchShards spreads the touches of all connections over locks.
const touchShards = 16

type touchShard struct {
	sync.Mutex
	seen map[sessionID]time.Duration
}

func newSessions(m *Member) *sessions {
	s := &sessions{m: m, start: m.config.now(), wake: newMailbox[func()]()}
	for i := range s.touches {
		s.touches[i].seen = make(map[sessionID]time.Duration)
	}
	return s
}

// now is the monotonic time that the clock counts in.
func (s *sessions) now() time.Duration { return s.m.config.now().Sub(s.start) }

func (s *sessions) shard(id sessionID) *touchShard {
	return &s.touches[(uint64(id)*0x9E3779B97F4A7C15)>>60]
}

func (s *sessions) touch(id sessionID) {
	now := s.now()
	shard := s.shard(id)
	shard.Lock()
	shard.seen[id] = now
	shard.Unlock()
}

func (m *Member) reportInterval() time.Duration { return min(m.config.TickTime/2, reportIntervalMax) }

// run reports touches, wakes the clock when it is due, and carries out changes of leadership.
func (s *sessions) run(stop <-chan struct{}) {
	report := time.NewTicker(s.m.reportInterval())
	defer report.Stop()
	reap := time.NewTicker(s.m.config.ContainerCheckInterval)
	defer reap.Stop()
	due := time.NewTimer(time.Hour)
	defer due.Stop()
	for {
		due.Reset(s.untilNext())
		select {
		case <-stop:
			return
		case <-report.C:
			s.report()
		case <-due.C:
			s.expire()
		case <-reap.C:
			s.reap()
		case <-s.wake.wake:
			s.takeChanges()
		}
	}
}

// takeChanges carries out what was queued for the clock.
func (s *sessions) takeChanges() {
	for _, f := range s.wake.take() {
		f()
	}
}

func (s *sessions) untilNext() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.clock == nil {
		return time.Hour
	}
	return max(s.mu.clock.Next(s.now()), time.Millisecond)
}

// report sends the touches since the last report to the leader. If there is none they are
// forgotten: a new leader gives full timeouts. If they cannot be sent they are kept.
func (s *sessions) report() {
	view := s.m.view.Load()
	if view.leader == 0 {
		s.collect()
		return
	}
	seen := s.collect()
	if len(seen) == 0 {
		return
	}
	now := s.now()
	touches := make([]touch, 0, len(seen))
	for id, at := range seen {
		touches = append(touches, touch{id, now - at})
	}
	if view.leader == s.m.config.ID {
		s.touched(touches)
		return
	}
	if !s.m.carrier.send(view.leader, encodedFrame(frameTouches, appendTouches(nil, touches))) {
		s.keep(seen)
	}
}

func (s *sessions) collect() map[sessionID]time.Duration {
	all := make(map[sessionID]time.Duration)
	for i := range s.touches {
		shard := &s.touches[i]
		shard.Lock()
		for id, at := range shard.seen {
			all[id] = at
		}
		clear(shard.seen)
		shard.Unlock()
	}
	return all
}

func (s *sessions) keep(seen map[sessionID]time.Duration) {
	for id, at := range seen {
		shard := s.shard(id)
		shard.Lock()
		shard.seen[id] = max(shard.seen[id], at)
		shard.Unlock()
	}
}

// touched takes a report on the leader.
func (s *sessions) touched(touches []touch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.clock == nil {
		return
	}
	now := s.now()
	for _, t := range touches {
		s.mu.clock.Touch(t.session, now-t.age)
	}
}

// lead starts the clock: every session gets its full timeout, every lost connection its full
// grace, the sessions of dead members theirs. Under the tree's read lock, so that what apply
// does afterwards is not missed.
func (s *sessions) lead(term uint64, dead []znode.MemberID) {
	s.wake.put(func() {
		s.m.treeMu.RLock()
		defer s.m.treeMu.RUnlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		if view := s.m.view.Load(); view.term != term || view.leader != s.m.config.ID {
			return // resigned meanwhile
		}
		now := s.now()
		clock := session.New(session.Config{
			Bucket:      min(s.m.config.TickTime, expiryBucketMax),
			MemberGrace: memberDeathGrace,
			Lateness:    200 * time.Millisecond,
			Retry:       time.Second,
		})
		s.m.machine.Sessions(func(info znode.SessionInfo) bool {
			clock.Put(clockSession(info.ID, info.Generation, info.TimeoutMs, info.GraceMs, info.Owner, info.ConnectionLost), now)
			return true
		})
		for _, member := range dead {
			clock.MemberLost(member, now, now)
		}
		s.mu.clock, s.mu.term = clock, term
	})
}

func (s *sessions) resign() {
	s.mu.Lock()
	s.mu.clock = nil
	s.mu.Unlock()
}

func clockSession(id sessionID, generation uint64, timeoutMs, graceMs int32, owner znode.MemberID, lost bool) session.Session {
	return session.Session{
		ID: id, Generation: generation, Owner: owner, Lost: lost,
		Timeout: time.Duration(timeoutMs) * time.Millisecond,
		Grace:   time.Duration(graceMs) * time.Millisecond,
	}
}

// onClock runs f with the leader's clock, if this member leads; the changed deadlines count
// from the next wake-up on.
func (s *sessions) onClock(f func(c *session.Clock, now time.Duration)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.clock != nil {
		f(s.mu.clock, s.now())
	}
}

func (s *sessions) setQuorum(has bool) {
	s.onClock(func(c *session.Clock, now time.Duration) { c.SetQuorum(has, now) })
	s.wake.ring()
}

func (s *sessions) memberLost(member znode.MemberID) {
	// Through the queue: a leader that is just beginning has its clock by then. The member may
	// be back before that, so the time of the evidence counts.
	died := s.now()
	s.wake.put(func() {
		s.onClock(func(c *session.Clock, now time.Duration) { c.MemberLost(member, died, now) })
	})
}

// proposed notes the re-attaches that this leader just proposed: the clock stops for them.
func (s *sessions) proposed(requests []znode.Request) {
	for i := range requests {
		if requests[i].Kind == znode.KindReattach {
			s.onClock(func(c *session.Clock, _ time.Duration) { c.ReattachBegins(requests[i].Session) })
		}
	}
}

// ended notes a request that apply skipped as a duplicate.
func (s *sessions) ended(req *znode.Request) {
	if req.Kind == znode.KindReattach {
		s.onClock(func(c *session.Clock, now time.Duration) { c.ReattachEnds(req.Session, now) })
	}
}

// applied follows the log: under the tree's write lock. It returns a session whose end was
// this leader's decision.
func (s *sessions) applied(req *znode.Request, r *znode.Result) (e expiredSession, ok bool) {
	if req.Kind == znode.KindOp || req.Kind == znode.KindDeleteContainer {
		return e, false
	}
	s.onClock(func(c *session.Clock, now time.Duration) {
		switch {
		case r.ClosedSession:
			e.id, e.reason = req.Session, c.Proposed(req.Session)
			if e.reason == "" {
				e.reason = session.ReasonTimeout // decided by the leader before
			}
			ok = req.Kind == znode.KindExpire
			c.Remove(req.Session)
		case req.Kind == znode.KindReattach && (r.Code != jute.OK || r.SessionMoved || r.Skipped):
			c.ReattachEnds(req.Session, now)
		case r.Code != jute.OK || r.SessionMoved || r.Skipped:
		case req.Kind == znode.KindCreateSession || req.Kind == znode.KindReattach:
			c.Put(clockSession(r.Session, r.Generation, r.TimeoutMs, r.GraceMs, r.Owner, false), now)
		case req.Kind == znode.KindConnectionLost:
			c.ConnectionLost(req.Session, req.Generation, now)
			s.wake.ring()
		}
	})
	return e, ok
}

// expire proposes the end of the sessions that are over.
func (s *sessions) expire() {
	var requests []znode.Request
	s.mu.Lock()
	term := s.mu.term
	if s.mu.clock != nil {
		for _, e := range s.mu.clock.Expired(s.now()) {
			requests = append(requests, znode.Request{Kind: znode.KindExpire, Session: e.Session, Generation: e.Generation})
		}
	}
	s.mu.Unlock()
	s.decide(term, requests)
}

func (s *sessions) decide(term uint64, requests []znode.Request) {
	if len(requests) > 0 {
		s.m.events.put(func(l *loop) { l.proposeDecisions(term, requests) })
	}
}

// reap proposes the removal of empty containers and of TTL nodes that ran out.
func (s *sessions) reap() {
	s.mu.Lock()
	leading, term := s.mu.clock != nil, s.mu.term
	s.mu.Unlock()
	if !leading {
		return
	}
	var requests []znode.Request
	s.m.View(func(machine *znode.Machine) {
		for _, path := range machine.ReapCandidates(s.m.config.wall(s.m.config.now()).UnixMilli(), s.m.config.ContainerMaxPerCheck) {
			requests = append(requests, znode.Request{Kind: znode.KindDeleteContainer, Path: path})
		}
	})
	s.decide(term, requests)
}
