package group

import (
	"slices"
	"time"
)

// Stepping is what the owner of a stepped coordinator provides.
type Stepping struct {
	Clock func() time.Time // this broker's; only grows
	UUID  func() [16]byte  // the random part of member ids
}

// Stepped is a coordinator without goroutines and timers: whoever owns it hands in the time.
// One thread calls it. It is how the simulator (sim/) runs this package; the same calls on
// the same clock have the same outcome.
type Stepped struct {
	*Coordinator
	stepping Stepping
	loading  []*steppedLoad // in the order of their elections
}

// steppedLoad is a shard that is being loaded.
type steppedLoad struct {
	shard   *shard
	reading reading
	begun   time.Time
	wait    time.Time // not before: the last attempt failed
}

// NewStepped returns a coordinator that only moves when its methods are called. LoadBufferBytes
// is how much one Load reads.
func NewStepped(config Config, stepping Stepping) *Stepped {
	s := &Stepped{Coordinator: newCoordinator(config), stepping: stepping}
	s.now = stepping.Clock
	s.Coordinator.stepped = s
	return s
}

func (s *Stepped) elected(shard *shard) {
	s.loading = append(s.loading, &steppedLoad{shard: shard, reading: reading{image: newImage()}, begun: s.now()})
}

// Load takes each loading shard one read further.
func (s *Stepped) Load() {
	for _, l := range slices.Clone(s.loading) {
		if !s.now().Before(l.wait) && s.loadSome(l) {
			s.loading = slices.DeleteFunc(s.loading, func(other *steppedLoad) bool { return other == l })
		}
	}
}

func (s *Stepped) loadSome(l *steppedLoad) (over bool) {
	done, err := l.shard.readSome(&l.reading)
	switch {
	case l.shard.isClosed():
		return true
	case err != nil: // from the start again, as load does
		l.shard.logger().Warn("group coordinator could not load, trying again", "error", err)
		l.reading, l.wait = reading{image: newImage()}, s.now().Add(loadRetryFirst)
		return false
	case done:
		l.shard.loaded(l.reading.image, l.begun)
	}
	return done
}

// Tick does what is due in the groups.
func (s *Stepped) Tick() {
	for _, shard := range s.allShards() {
		shard.tick()
	}
}

// ExpireOffsets is the check that an ordinary coordinator makes every ExpiryInterval.
func (s *Stepped) ExpireOffsets() { s.expire() }

// Loading says whether any partition is being loaded.
func (s *Stepped) Loading() bool { return len(s.loading) > 0 }
