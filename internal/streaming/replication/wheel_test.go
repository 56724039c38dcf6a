package replication

import (
	"math/rand/v2"
	"testing"
	"time"
)

type wheelProbe struct {
	entry   wheelEntry
	fired   int64
	removed bool
}

func (p *wheelProbe) expire() {}

// TestWheelFiresWhenDue turns the wheel by hand and compares it with the deadlines.
func TestWheelFiresWhenDue(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	now := int64(0)
	w := newWheelAt(func() time.Duration { return time.Duration(now) * wheelTick })
	var probes []*wheelProbe
	for now < 5*wheelSlots {
		if now < 4*wheelSlots {
			probe := &wheelProbe{}
			probes = append(probes, probe)
			w.add(&probe.entry, probe, time.Duration(random.Int64N(wheelSlots*3/2))*wheelTick/2)
			if random.IntN(4) == 0 {
				victim := probes[random.IntN(len(probes))]
				victim.removed = victim.removed || victim.fired == 0
				w.remove(&victim.entry)
			}
		}
		now += random.Int64N(8)
		if random.IntN(50) == 0 {
			now += wheelSlots / 3 // a late turn
		}
		for _, due := range w.advance(now, nil) {
			probe := due.(*wheelProbe)
			if probe.removed || probe.fired != 0 || probe.entry.deadline > now {
				t.Fatalf("at %d: fired wrongly: %+v", now, probe)
			}
			probe.fired = now
		}
	}
	w.advance(now+2*wheelSlots, nil)
	for _, probe := range probes {
		if probe.entry.queued {
			t.Fatalf("never fired: deadline %d", probe.entry.deadline)
		}
	}
}

type wheelSignal chan struct{}

func (s wheelSignal) expire() { close(s) }

func TestWheelGoroutineWakes(t *testing.T) {
	m := newTestCluster(t, 1, nil).brokers[1].manager
	var late, soon wheelEntry
	lateSignal, soonSignal := make(wheelSignal), make(wheelSignal)
	m.wheel.add(&late, lateSignal, time.Hour)
	m.wheel.add(&soon, soonSignal, time.Millisecond)
	<-soonSignal
	m.wheel.remove(&late)
}
