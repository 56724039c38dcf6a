package replication

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
)

// Stepping is what the owner of a stepped manager provides.
type Stepping struct {
	Clock func() time.Time // this broker's; only grows
	// ListOffsets asks a leader; it stands for a request on the fetcher's connection.
	ListOffsets func(leader cluster.BrokerID, request *kmsg.ListOffsetsRequest) (*kmsg.ListOffsetsResponse, error)
}

// Stepped is a manager without goroutines, timers and sockets: whoever owns it hands in the
// time and carries the requests. One thread calls it. It is how the simulator (sim/) runs
// this package; the same calls on the same clock have the same outcome.
//
// What the goroutines of an ordinary manager do is here done by Tick (ticker and timing
// wheel), NextFetches and Fetched (the fetchers), NextAlterPartition and
// AlterPartitionAnswered (the channel to the controller).
type Stepped struct {
	*Manager
	alter   *alterPartitionChannel
	ticks   tickState
	links   map[fetcherKey]*steppedLink
	asked   []*pendingChange // the AlterPartition request under way; nil: none
	alterAt time.Time        // not before: the last attempt failed
}

// steppedLink is a fetcher's connection.
type steppedLink struct {
	sequence uint64 // of the request under way, or the last one
	waiting  bool   // there is one under way
	pausedTo time.Time
}

// NewStepped returns a manager that only moves when its methods are called.
func NewStepped(config Config, stepping Stepping) *Stepped {
	m := newManager(config, &stepping)
	s := &Stepped{Manager: m, alter: newAlterPartitionChannel(m), links: map[fetcherKey]*steppedLink{}}
	s.alter.version = alterPartitionVersion
	m.alter = s.alter
	s.ticks.lastISRCheck = m.now()
	return s
}

// Tick does what is due: pause detection, the ISR timer, and everything in the wheel whose
// time is up. Call it every 100 ms of the clock while the broker runs.
func (s *Stepped) Tick() {
	s.tickOnce(&s.ticks)
	for _, owner := range s.wheel.advance(s.wheel.tickNow(), nil) {
		owner.expire()
	}
}

// Sync fsyncs the durable logs that this broker leads and that have grown, once.
func (s *Stepped) Sync() {
	for _, h := range s.allHosts() {
		h.mu.Lock()
		due := h.syncing
		h.mu.Unlock()
		if due {
			s.syncOnce(h)
		}
	}
}

// Expire does the timing wheel's part of Tick.
func (s *Stepped) Expire() {
	for _, owner := range s.wheel.advance(s.wheel.tickNow(), nil) {
		owner.expire()
	}
}

// Unconfirmed says whether a pause waits for the ensemble's confirmation of the session, and
// which; Confirmed is that confirmation.
func (s *Stepped) Unconfirmed() (pause uint64, waits bool) {
	pause = s.right.pauses.Load()
	return pause, pause > s.right.pausesOver.Load()
}

// Confirmed: see Unconfirmed.
func (s *Stepped) Confirmed(pause uint64) { s.pauseConfirmed(pause) }

// SteppedFetch is a fetch request to be carried to a leader.
type SteppedFetch struct {
	Leader   cluster.BrokerID
	Number   int
	Sequence uint64
	Request  *kmsg.FetchRequest
}

// NextFetches returns the requests that the fetchers would send now. A fetcher has one under
// way, unless partitions have come that cannot wait for its answer: then it is abandoned.
func (s *Stepped) NextFetches() []SteppedFetch {
	var out []SteppedFetch
	keys := slices.SortedFunc(maps.Keys(s.fetchers.byKey), func(a, b fetcherKey) int {
		return cmp.Or(cmp.Compare(a.leader, b.leader), cmp.Compare(a.number, b.number))
	})
	now := s.clock()
	for _, key := range keys {
		f, link := s.fetchers.byKey[key], s.links[key]
		if link == nil {
			link = &steppedLink{}
			s.links[key] = link
		}
		if !f.anyReady() || now.Before(link.pausedTo) || link.waiting && !f.urgent {
			continue
		}
		if link.waiting {
			f.sessionEpoch = 0
		}
		link.waiting = true
		link.sequence++
		out = append(out, SteppedFetch{key.leader, key.number, link.sequence, f.buildSynced()})
	}
	return out
}

// Fetched hands in what became of a request. An answer to one that was abandoned is ignored.
func (s *Stepped) Fetched(fetch SteppedFetch, response *kmsg.FetchResponse, err error) {
	key := fetcherKey{fetch.Leader, fetch.Number}
	f, link := s.fetchers.byKey[key], s.links[key]
	if f == nil || link == nil || !link.waiting || link.sequence != fetch.Sequence {
		return
	}
	link.waiting = false
	if err == nil {
		err = f.process(context.Background(), response)
	}
	if err != nil {
		f.fail("fetch failed", err)
		link.pausedTo = s.clock().Add(min(s.config.FetchBackoff<<min(f.failures-1, 10), backoffMax))
	}
}

// NextAlterPartition returns the request to send to the controller now, or nil.
func (s *Stepped) NextAlterPartition() *kmsg.AlterPartitionRequest {
	if s.asked != nil || s.clock().Before(s.alterAt) {
		return nil
	}
	items := s.alter.takePending()
	if len(items) == 0 {
		return nil
	}
	s.asked = items
	return s.alter.build(items)
}

// AlterPartitionAnswered hands in what became of the request under way; what it leaves
// without an answer is sent again.
func (s *Stepped) AlterPartitionAnswered(response *kmsg.AlterPartitionResponse, err error) {
	items := s.asked
	if items == nil {
		return
	}
	s.asked = nil
	if err == nil {
		err = s.alter.accept(items, response)
	}
	if err != nil {
		s.alterAt = s.clock().Add(alterRetryMin)
	}
}

// ErrUnanswered is for requests that a simulated network lost.
var ErrUnanswered = errors.New("the request was not answered")
