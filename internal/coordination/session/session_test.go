package session

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"understudy/internal/coordination/jute"
)

const ms = time.Millisecond

var testConfig = Config{Bucket: 100 * ms, MemberGrace: 300 * ms, Lateness: 200 * ms, Retry: time.Second}

// runTo calls Expired as the shell does, until now, and returns what expired when.
func runTo(c *Clock, from, to time.Duration) (when map[jute.SessionID]time.Duration, reasons map[jute.SessionID]Reason) {
	when, reasons = map[jute.SessionID]time.Duration{}, map[jute.SessionID]Reason{}
	for now := from; ; {
		for _, e := range c.Expired(now) {
			when[e.Session], reasons[e.Session] = now, e.Reason
			c.Remove(e.Session)
		}
		if now >= to {
			return when, reasons
		}
		now = min(to, now+max(c.Next(now), ms))
	}
}

func TestClock(t *testing.T) {
	ordinary := Session{ID: 1, Generation: 1, Timeout: 4000 * ms, Owner: 1}
	fast := Session{ID: 1, Generation: 1, Timeout: 4000 * ms, Grace: 500 * ms, Owner: 1}
	lost := fast
	lost.Lost = true
	tests := []struct {
		name   string
		script func(c *Clock)
		// the session must be gone between these, for this reason; 0 = not within 10 s
		earliest, latest time.Duration
		reason           Reason
	}{
		{"silent", func(c *Clock) { c.Put(ordinary, 0) }, 4000 * ms, 4100 * ms, ReasonTimeout},
		{"touched", func(c *Clock) {
			c.Put(ordinary, 0)
			runTo(c, 0, 3000*ms)
			c.Touch(1, 2500*ms)
			c.Touch(1, 1000*ms) // an older report changes nothing
		}, 6500 * ms, 6600 * ms, ReasonTimeout},
		{"no grace asked for", func(c *Clock) { c.Put(ordinary, 0); c.ConnectionLost(1, 1, 0); c.MemberLost(1, 0, 0) }, 4000 * ms, 4100 * ms, ReasonTimeout},
		{"connection lost", func(c *Clock) { c.Put(fast, 0); c.ConnectionLost(1, 1, 100*ms) }, 600 * ms, 602 * ms, ReasonConnectionLost},
		{"older connection lost", func(c *Clock) { c.Put(fast, 0); c.ConnectionLost(1, 0, 100*ms) }, 4000 * ms, 4100 * ms, ReasonTimeout},
		{"lost before this leader", func(c *Clock) { c.Put(lost, 0) }, 500 * ms, 502 * ms, ReasonConnectionLost},
		{"member lost", func(c *Clock) { c.Put(fast, 0); c.MemberLost(1, 100*ms, 100*ms) }, 400 * ms, 402 * ms, ReasonConnectionLost},
		{"another member lost", func(c *Clock) { c.Put(fast, 0); c.MemberLost(2, 100*ms, 100*ms) }, 4000 * ms, 4100 * ms, ReasonTimeout},
		{"connected to the member's next life", func(c *Clock) { c.Put(fast, 50*ms); c.MemberLost(1, 40*ms, 100*ms) }, 4000 * ms, 4200 * ms, ReasonTimeout},
		{"a touch does not save a lost one", func(c *Clock) { c.Put(lost, 0); c.Touch(1, 400*ms) }, 500 * ms, 502 * ms, ReasonConnectionLost},
		{"re-attached", func(c *Clock) {
			c.Put(lost, 0)
			runTo(c, 0, 400*ms)
			again := fast
			again.Generation = 2
			c.Put(again, 400*ms)
			c.ConnectionLost(1, 1, 450*ms) // of the generation before
		}, 4400 * ms, 4500 * ms, ReasonTimeout},
		{"re-attach under way, then failed", func(c *Clock) {
			c.Put(lost, 0)
			c.ReattachBegins(1)
			runTo(c, 0, 1000*ms)
			c.ReattachEnds(1, 1000*ms)
		}, 1500 * ms, 1502 * ms, ReasonConnectionLost},
		{"no quorum for a while", func(c *Clock) {
			c.Put(lost, 0)
			c.SetQuorum(false, 100*ms)
			runTo(c, 0, 2000*ms)
			c.SetQuorum(true, 2000*ms)
		}, 2500 * ms, 2502 * ms, ReasonConnectionLost},
		{"paused", func(c *Clock) {
			c.Put(ordinary, 0)
			runTo(c, 0, 1000*ms)
			c.Expired(9000 * ms) // 7.9 s late
			c.Touch(1, 0)
		}, 0, 0, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := New(testConfig)
			test.script(c)
			when, reasons := runTo(c, c.lastRun, 10*time.Second)
			at, gone := when[1]
			if test.latest == 0 {
				if gone {
					t.Fatalf("expired at %v", at)
				}
				return
			}
			if !gone || at < test.earliest || at > test.latest || reasons[1] != test.reason {
				t.Errorf("expired %v at %v for %q, want %v to %v for %q", gone, at, reasons[1], test.earliest, test.latest, test.reason)
			}
		})
	}
}

// TestTouchDuringPause: what others saw while this clock stood still counts from the end of
// the pause.
func TestTouchDuringPause(t *testing.T) {
	c := New(testConfig)
	c.Put(Session{ID: 1, Generation: 1, Timeout: 4 * time.Second}, 0)
	runTo(c, 0, time.Second)
	c.Expired(20 * time.Second)
	c.Touch(1, 15*time.Second) // within the pause: as if seen at its beginning, 1 s
	when, _ := runTo(c, 20*time.Second, 40*time.Second)
	if at := when[1]; at < 23900*ms || at > 24200*ms {
		t.Errorf("expired at %v", at)
	}
}

// TestPauseBeforeTheFirstLook: a leader that is paused as soon as it has its clock has heard nobody
// either.
func TestPauseBeforeTheFirstLook(t *testing.T) {
	c := New(testConfig)
	c.Put(Session{ID: 1, Generation: 1, Timeout: 4 * time.Second}, 0)
	if over := c.Expired(20 * time.Second); len(over) > 0 {
		t.Fatalf("expired after a pause: %+v", over)
	}
	when, _ := runTo(c, 20*time.Second, 40*time.Second)
	if at := when[1]; at < 23800*ms || at > 24300*ms {
		t.Errorf("expired at %v", at)
	}
}

func TestExpiryIsDecidedAgain(t *testing.T) {
	c := New(testConfig)
	c.Put(Session{ID: 1, Generation: 7, Timeout: time.Second}, 0)
	var at []time.Duration
	for now := time.Duration(0); now < 4*time.Second; now += 50 * ms {
		for _, e := range c.Expired(now) {
			if e != (Expiry{Session: 1, Generation: 7, Reason: ReasonTimeout}) {
				t.Errorf("%+v", e)
			}
			at = append(at, now)
		}
		if len(at) > 0 {
			c.Touch(1, now) // too late
		}
	}
	if len(at) != 3 || at[0] != 1100*ms || at[1] < 2100*ms || at[2] < 3100*ms {
		t.Errorf("decided at %v, want once per second from 1.1 s on", at)
	}
}

// TestAgainstTwin compares with the dumbest clock: a list of last signs of life.
func TestAgainstTwin(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 1))
		c := New(testConfig)
		seen, timeout := map[jute.SessionID]time.Duration{}, map[jute.SessionID]time.Duration{}
		for now := time.Duration(0); now < 60*time.Second; now += 100 * ms {
			for range 3 {
				id := jute.SessionID(random.IntN(30) + 1)
				switch _, there := seen[id]; {
				case !there:
					timeout[id] = time.Duration(random.IntN(20)+5) * 100 * ms
					seen[id] = now
					c.Put(Session{ID: id, Generation: 1, Timeout: timeout[id]}, now)
				case random.IntN(4) > 0:
					at := now - time.Duration(random.IntN(3))*100*ms
					seen[id] = max(seen[id], at)
					c.Touch(id, at)
				case random.IntN(4) == 0:
					delete(seen, id)
					c.Remove(id)
				}
			}
			got := map[jute.SessionID]bool{}
			for _, e := range c.Expired(now) {
				got[e.Session] = true
				c.Remove(e.Session)
			}
			for id, at := range seen {
				over := (at+timeout[id])/testConfig.Bucket+1 <= now/testConfig.Bucket
				if got[id] != over {
					t.Fatalf("seed %d at %v: session %d seen %v timeout %v: expired %v, twin says %v", seed, now, id, at, timeout[id], got[id], over)
				}
				if over {
					delete(seen, id)
				}
			}
		}
		if c.Len() != len(seen) {
			t.Fatal(fmt.Sprint(c.Len(), " sessions, twin has ", len(seen)))
		}
	}
}
