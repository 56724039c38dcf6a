package main

import (
	"math/rand/v2"
	"slices"
	"time"

	"understudy/internal/streaming/cluster"
)

// A partition's leaders are killed one after the other, each soon after it has become one: some
// before they have appended anything, some before anybody has what they have appended. What the
// last one had committed by then nobody may lose.

// drawDepositions draws them, for some runs.
func (c *config) drawDepositions(chance *rand.Rand) (all []action) {
	between := func(low, high time.Duration) time.Duration {
		return low + time.Duration(chance.Int64N(int64(high-low)+1))
	}
	c.deposes = c.kills && chance.IntN(4) < 3-c.minISR // one alone commits nothing where two have to be in sync
	for at := between(time.Second, 3*time.Second); c.deposes && at < c.duration; at += between(time.Second, 3*time.Second) {
		all = append(all, action{at: at, kind: actDepose, who: chance.IntN(c.partitions), other: 3, span: time.Second, seed: chance.Uint64()})
	}
	return all
}

// depose kills count leaders of a partition, if there are as many within a while. Until then the
// one that is going to be elected is mostly paused: it lacks what others have, and what it appends
// then is of a newer epoch.
func (w *world) depose(p *partitionTruth, count int, span time.Duration, chance *rand.Rand) {
	until, last := w.now+span, cluster.NoLeaderEpoch
	var watch func()
	watch = func() {
		if count == 0 || w.now > until || w.calm || p.doomed {
			return
		}
		for _, b := range w.brokers {
			if !b.up || b.rep == nil {
				continue
			}
			if d, hosted := b.rep.Describe(p.tp); hosted && d.IsLeader && d.LeaderEpoch > last && count > 0 {
				last = d.LeaderEpoch
				count--
				w.deposeSoon(p, b, d.Replicas, count == 0, chance)
			}
		}
		w.after(time.Millisecond, watch)
	}
	watch()
}

func (w *world) deposeSoon(p *partitionTruth, leader *broker, replicas []cluster.BrokerID, final bool, chance *rand.Rand) {
	delay := time.Duration(chance.IntN(200_000)) * time.Microsecond
	if odd := chance.IntN(4) == 0; odd != final { // the last one has mostly no time to append
		delay = time.Duration(chance.IntN(5_000)) * time.Microsecond
	}
	pause := delay + time.Duration(chance.IntN(40_000))*time.Microsecond
	if next := slices.IndexFunc(replicas, func(id cluster.BrokerID) bool { return id != leader.id && w.brokers[id-1].up }); next >= 0 && chance.IntN(4) > 0 {
		w.brokers[replicas[next]-1].pause(pause)
	}
	incarnation := leader.incarnation
	w.after(delay, func() {
		if leader.incarnation == incarnation && !w.check.fragile() {
			w.trace("depose", "leader %d of %v", leader.id, p)
			leader.kill(false)
		}
	})
}
