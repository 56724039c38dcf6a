// Package session is the raft leader's clock for sessions: who has been silent for too long,
// and who lost its connection and did not come back. It decides, and mutates nothing but
// itself: what it returns is proposed to the log, conditional on the session's generation, and
// the log may refuse.
//
// Ordinary expiry is ZooKeeper's (ExpiryQueue): deadlines are rounded up to buckets, so that a
// touch costs a map operation and expiry looks at one bucket at a time. A session dies between
// its timeout and its timeout plus one bucket after the last sign of life.
//
// Fast expiry is ours, for sessions that asked for it (Grace > 0): a lost connection starts a
// clock of Grace; the death of the member that held the connection one of MemberGrace. These
// clocks stand still while a re-attach is pending and while there is no quorum, and begin
// again in full afterwards.
//
// A caller that was paused (SIGSTOP, a slow machine) has heard nothing meanwhile, so it must
// not conclude anything from the silence: Expired notices that it was called late and shifts
// all deadlines by the delay.
//
// The package is deterministic: time comes in, as a duration since some fixed moment of a
// monotonic clock. It is not locked.
package session

import (
	"slices"
	"time"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/znode"
)

// Reason says why a session is to be expired, in the words of the log line.
type Reason string

// The reasons.
const (
	ReasonTimeout        Reason = "timeout"
	ReasonConnectionLost Reason = "connection-lost"
)

// Expiry is a decision: expire the session if it still has this generation.
type Expiry struct {
	Session    jute.SessionID
	Generation uint64
	Reason     Reason
}

// Session is what the clock must know of one.
type Session struct {
	ID         jute.SessionID
	Generation uint64
	Timeout    time.Duration
	Grace      time.Duration // 0: ordinary expiry only
	Owner      znode.MemberID
	Lost       bool // its connection is gone already
}

// Config has the units of the clock.
type Config struct {
	Bucket      time.Duration // granularity of ordinary expiry
	MemberGrace time.Duration // for sessions whose member died
	// Lateness beyond which a call of Expired counts as after a pause.
	Lateness time.Duration
	// Retry is when an expiry that nothing came of is decided again.
	Retry time.Duration
}

// entry is one session's state. Deadlines are in the clock's own time, see clockTime.
type entry struct {
	Session
	put      time.Duration // when it was put in, in real time
	seen     time.Duration // last sign of life
	bucket   int64         // the bucket of its deadline
	fast     time.Duration // length of the running fast clock; 0: none
	fastEnd  time.Duration // its deadline
	pending  int           // re-attaches under way
	proposed Reason        // decided; "" if not
}

// Clock holds the sessions' deadlines.
type Clock struct {
	config   Config
	sessions map[jute.SessionID]*entry
	buckets  map[int64]map[jute.SessionID]*entry
	next     int64                     // the next bucket to look at
	fast     map[jute.SessionID]*entry // those with a fast clock
	quorum   bool

	// The clock's own time is real time minus all pauses: shift is their sum, pauseFrom and
	// pauseTo bound the last one.
	ran                bool
	lastRun            time.Duration
	shift              time.Duration
	pauseFrom, pauseTo time.Duration
	shiftBefore        time.Duration
}

// New makes an empty clock that has a quorum.
func New(config Config) *Clock {
	return &Clock{
		config:   config,
		sessions: make(map[jute.SessionID]*entry),
		buckets:  make(map[int64]map[jute.SessionID]*entry),
		fast:     make(map[jute.SessionID]*entry),
		quorum:   true,
	}
}

// clockTime turns a real time into the clock's own: what was seen during the last pause was
// seen at its beginning.
func (c *Clock) clockTime(t time.Duration) time.Duration {
	switch {
	case t >= c.pauseTo:
		return t - c.shift
	case t > c.pauseFrom:
		return c.pauseFrom - c.shiftBefore
	}
	return t - c.shiftBefore
}

// Len is the number of sessions.
func (c *Clock) Len() int { return len(c.sessions) }

// Put takes in a session that is new, has been re-attached, or was found by a new leader: it
// gets its full timeout, and if its connection is lost its full grace.
func (c *Clock) Put(s Session, now time.Duration) {
	if !c.ran { // a pause may come before the first look
		c.ran, c.lastRun = true, now
	}
	c.Remove(s.ID)
	e := &entry{Session: s, put: now, seen: c.clockTime(now)}
	c.sessions[s.ID] = e
	c.schedule(e)
	if s.Lost {
		c.startFast(e, s.Grace, now)
	}
}

// Remove forgets a session that ended.
func (c *Clock) Remove(id jute.SessionID) {
	e, ok := c.sessions[id]
	if !ok {
		return
	}
	c.unschedule(e)
	delete(c.fast, id)
	delete(c.sessions, id)
}

// Touch notes a sign of life at the time seen, which may lie in the past. One that was
// decided about is past saving (ZooKeeper: it is closing).
func (c *Clock) Touch(id jute.SessionID, seen time.Duration) {
	e, ok := c.sessions[id]
	if !ok || e.proposed != "" {
		return
	}
	if t := c.clockTime(seen); t > e.seen {
		e.seen = t
		c.schedule(e)
	}
}

// ConnectionLost starts the grace of a session of this generation that asked for it.
func (c *Clock) ConnectionLost(id jute.SessionID, generation uint64, now time.Duration) {
	if e, ok := c.sessions[id]; ok && e.Generation == generation && !e.Lost {
		e.Lost = true
		c.startFast(e, e.Grace, now)
	}
}

// MemberLost says that a member was found dead at the time died: the sessions that were
// connected there by then and asked for fast expiry have MemberGrace to show up elsewhere.
// Those put in later are connected to its next life.
func (c *Clock) MemberLost(member znode.MemberID, died, now time.Duration) {
	for _, e := range c.sessions {
		if e.Owner == member && e.fast == 0 && e.put <= died {
			c.startFast(e, c.config.MemberGrace, now)
		}
	}
}

// startFast starts a fast clock, if the session asked for fast expiry.
func (c *Clock) startFast(e *entry, length time.Duration, now time.Duration) {
	if e.Grace <= 0 {
		return
	}
	e.fast = length
	e.fastEnd = c.clockTime(now) + length
	c.fast[e.ID] = e
}

// ReattachBegins stops the fast clock of a session; ReattachEnds (one that failed; one that
// succeeded is a Put) lets it begin again.
func (c *Clock) ReattachBegins(id jute.SessionID) {
	if e, ok := c.sessions[id]; ok {
		e.pending++
	}
}

// ReattachEnds is the end of a re-attach that did not change the session.
func (c *Clock) ReattachEnds(id jute.SessionID, now time.Duration) {
	if e, ok := c.sessions[id]; ok && e.pending > 0 {
		e.pending--
		if e.pending == 0 && e.fast > 0 {
			e.fastEnd = c.clockTime(now) + e.fast
		}
	}
}

// SetQuorum says whether the leader hears a quorum. Without it nobody could re-attach, so the
// fast clocks stand still and begin again with the next one.
func (c *Clock) SetQuorum(has bool, now time.Duration) {
	if has && !c.quorum {
		for _, e := range c.fast {
			e.fastEnd = c.clockTime(now) + e.fast
		}
	}
	c.quorum = has
}

// Expired returns the sessions that are over, ordered by id, each once; one that is still
// there after Retry is returned again.
func (c *Clock) Expired(now time.Duration) []Expiry {
	c.noticePause(now)
	t := c.clockTime(now)
	var out []Expiry
	decide := func(e *entry, reason Reason) {
		e.proposed = reason
		out = append(out, Expiry{e.ID, e.Generation, reason})
		e.seen = t + c.config.Retry - e.Timeout // its deadline is the next attempt
		c.schedule(e)
	}
	for _, e := range c.fast {
		if c.quorum && e.pending == 0 && e.proposed == "" && e.fastEnd <= t {
			decide(e, ReasonConnectionLost)
		}
	}
	for ; c.next*int64(c.config.Bucket) <= int64(t); c.next++ {
		for _, e := range c.buckets[c.next] {
			if e.proposed == "" {
				decide(e, ReasonTimeout)
			} else {
				decide(e, e.proposed)
			}
		}
	}
	slices.SortFunc(out, func(a, b Expiry) int {
		if a.Session < b.Session {
			return -1
		}
		return 1
	})
	return out
}

// noticePause shifts the clock if the call comes much later than the wake-up that Next named.
func (c *Clock) noticePause(now time.Duration) {
	if late := now - c.lastRun - c.config.Bucket; c.ran && late > c.config.Lateness {
		c.pauseFrom, c.pauseTo = c.lastRun, now
		c.shiftBefore = c.shift
		c.shift += late
	}
	c.ran, c.lastRun = true, now
}

// Next is how long after now Expired should be called again: never later than one bucket.
func (c *Clock) Next(now time.Duration) time.Duration {
	t := c.clockTime(now)
	wait := time.Duration(c.next*int64(c.config.Bucket)) - t
	if c.quorum {
		for _, e := range c.fast {
			if e.pending == 0 && e.proposed == "" {
				wait = min(wait, e.fastEnd-t)
			}
		}
	}
	return min(max(wait, 0), c.config.Bucket)
}

// Proposed is the reason for which a session was decided about, "" if it was not.
func (c *Clock) Proposed(id jute.SessionID) Reason {
	if e, ok := c.sessions[id]; ok {
		return e.proposed
	}
	return ""
}

// schedule puts an entry into the bucket of its deadline: ((seen + timeout) / bucket + 1).
func (c *Clock) schedule(e *entry) {
	bucket := int64(e.seen+e.Timeout)/int64(c.config.Bucket) + 1
	if bucket < c.next {
		bucket = c.next
	}
	if bucket == e.bucket {
		return
	}
	c.unschedule(e)
	e.bucket = bucket
	members := c.buckets[bucket]
	if members == nil {
		members = make(map[jute.SessionID]*entry)
		c.buckets[bucket] = members
	}
	members[e.ID] = e
}

func (c *Clock) unschedule(e *entry) {
	members := c.buckets[e.bucket]
	delete(members, e.ID)
	if len(members) == 0 {
		delete(c.buckets, e.bucket)
	}
}
