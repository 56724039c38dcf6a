package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// action is one thing that is done to the cluster, by those who use it or by fate. All are
// drawn before a run begins, so that a failing run can be repeated without some of them.
type action struct {
	at    time.Duration
	kind  actionKind
	who   int           // broker (from 1) or client (from 0), as the kind says
	other int           // another node, or a number
	span  time.Duration // how long it lasts
	flag  bool
	seed  uint64 // for what is left to chance in it
}

type actionKind string

const (
	actKill     actionKind = "kill"     // broker who between two steps; flag: with its power
	actDie      actionKind = "die"      // broker who before its other-th disk operation from now; flag: with its power
	actBlackout actionKind = "blackout" // all brokers lose their power
	actPause    actionKind = "pause"    // broker who for span
	actCut      actionKind = "cut"      // the ways between nodes who and other, for span; seed: which
	actMeddle   actionKind = "meddle"   // somebody deletes /controller
	actStop     actionKind = "stop"     // controlled shutdown of broker who
	actMove     actionKind = "move"     // reassignment of partition who to replicas drawn by seed
	actExpire   actionKind = "expire"   // the session of broker who ends without a reason
	actMember   actionKind = "member"   // consumer who halts for span; flag: it leaves the group
	actDamage   actionKind = "damage"   // broker who is killed and a file of it spoiled
	actBadSync  actionKind = "badsync"  // the next fsync of a log at broker who fails
	actFull     actionKind = "full"     // the disk of broker who is full for span
	actTopic    actionKind = "topic"    // the disposable topic is created, gets a partition, or is deleted, as seed says
	actDepose   actionKind = "depose"   // other leaders of partition who, one after the other, soon after each has become one
	actProduce  actionKind = "produce"  // producer who gets other batches to send; seed: how large
)

func (a action) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%9.3fms %-9s", float64(a.at)/1e6, a.kind)
	switch a.kind {
	case actBlackout, actMeddle, actTopic:
	case actKill, actDie:
		fmt.Fprintf(&s, " broker %d", a.who)
		if a.kind == actDie {
			fmt.Fprintf(&s, " before disk operation %d from then", a.other)
		}
		if a.flag {
			s.WriteString(", power lost")
		}
	case actPause, actFull:
		fmt.Fprintf(&s, " broker %d for %v", a.who, a.span)
	case actCut:
		fmt.Fprintf(&s, " %v for %v", cutsOf(a), a.span)
	case actStop, actExpire, actDamage, actBadSync:
		fmt.Fprintf(&s, " broker %d", a.who)
	case actMove:
		fmt.Fprintf(&s, " partition %d", a.who)
	case actDepose:
		fmt.Fprintf(&s, " %d leaders of partition %d within %v", a.other, a.who, a.span)
	case actMember:
		fmt.Fprintf(&s, " %d halts for %v (leaves %v)", int(firstMember)+a.who, a.span, a.flag)
	case actProduce:
		fmt.Fprintf(&s, " client %d, %d batches", int(firstClient)+a.who, a.other)
	default:
		fmt.Fprintf(&s, " %d %d %v %v", a.who, a.other, a.span, a.flag)
	}
	return s.String()
}

// draw makes the whole schedule of a run.
func (c *config) draw(chance *rand.Rand) []action {
	var all []action
	between := func(low, high time.Duration) time.Duration {
		return low + time.Duration(chance.Int64N(int64(high-low)+1))
	}
	for at := time.Second; at < c.duration; at += between(c.faultEvery/4, c.faultEvery*2) {
		if a, any := c.drawFault(chance, between); any {
			a.at = at
			all = append(all, a)
		}
	}
	for at := 2 * time.Second; at < c.duration && c.members > 0; at += between(300*time.Millisecond, 3*time.Second) {
		all = append(all, action{at: at, kind: actMember, who: chance.IntN(c.members), span: between(20*time.Millisecond, 2*time.Second), flag: chance.IntN(3) == 0})
	}
	for client := range c.producers() {
		for at := between(0, 50*time.Millisecond); at < c.duration; at += between(20*time.Millisecond, 160*time.Millisecond) {
			all = append(all, action{at: at, kind: actProduce, who: client, other: 1 + chance.IntN(4), seed: chance.Uint64()})
		}
	}
	return all
}

// drawTopics draws what is done to the disposable topic.
func (c *config) drawTopics(chance *rand.Rand) (all []action) {
	for at := time.Second; c.topics && at < c.duration; at += time.Duration(100+chance.IntN(2400)) * time.Millisecond {
		all = append(all, action{at: at, kind: actTopic, seed: chance.Uint64()})
	}
	return all
}

// drawFault draws one fault, or none: not every run has every kind.
func (c *config) drawFault(chance *rand.Rand, between func(low, high time.Duration) time.Duration) (a action, any bool) {
	a = action{who: 1 + chance.IntN(c.brokers), seed: chance.Uint64()}
	switch chance.IntN(12) {
	case 0, 1:
		a.kind, a.flag, a.other = actKill, c.power && chance.IntN(2) == 0, 1+chance.IntN(40)
		switch {
		case c.durable && chance.IntN(2) == 0:
			a.kind = actBlackout
		case chance.IntN(2) == 0:
			a.kind = actDie
		}
		return a, c.kills
	case 2:
		a.kind, a.span = actPause, between(20*time.Millisecond, 1500*time.Millisecond)
		return a, c.pauses
	case 3, 4:
		a.kind, a.span = actCut, between(50*time.Millisecond, 2*time.Second)
		a.other = chance.IntN(c.brokers + 1) // the coordinator, or a broker
		if chance.IntN(4) == 0 {
			a.other = int(firstClient) + chance.IntN(c.clients())
		}
		return a, c.cuts && a.who != a.other
	case 5:
		a.kind = actExpire
		return a, c.expiry
	case 6:
		a.kind = actMeddle
		return a, c.meddling
	case 7:
		a.kind = actStop
		return a, c.stops
	case 8:
		a.kind = actDamage
		return a, c.disk
	case 9:
		a.kind = actBadSync
		return a, c.disk
	case 10:
		a.kind, a.span = actFull, between(20*time.Millisecond, 800*time.Millisecond)
		return a, c.disk
	default:
		a.kind, a.who = actMove, chance.IntN(c.partitions)
		return a, c.moves
	}
}

// cutsOf are the one-way cuts of an action: both ways, or one.
func cutsOf(a action) [][2]node {
	from, to := node(a.who), node(a.other)
	switch a.seed % 3 {
	case 0:
		return [][2]node{{from, to}, {to, from}}
	case 1:
		return [][2]node{{to, from}}
	default:
		return [][2]node{{from, to}}
	}
}

// perform does an action, unless the world is not as it needs it.
func (w *world) perform(a action) {
	switch a.kind {
	case actProduce:
		w.clients[w.producerAt(a.who)].offer(a.other, rand.New(rand.NewPCG(a.seed, 1)))
		return
	case actTopic:
		w.changeTopic(rand.New(rand.NewPCG(a.seed, 1)))
		return
	case actMember:
		m := w.members[a.who]
		if m.alive {
			m.halt(a.flag)
			w.after(a.span, func() {
				if !m.alive {
					m.start()
				}
			})
		}
		return
	}
	if w.check.fragile() {
		return
	}
	switch a.kind {
	case actKill:
		b := w.brokers[a.who-1]
		b.kill(a.flag && w.check.mayLosePower(b))
	case actDie:
		if b := w.brokers[a.who-1]; b.up && !b.paused {
			b.dieAt, b.dieByPower = b.diskOps+a.other, a.flag && w.check.mayLosePower(b)
		}
	case actBlackout:
		w.trace("blackout", "all brokers lose their power")
		for _, b := range w.brokers {
			b.kill(true)
		}
	case actPause:
		w.brokers[a.who-1].pause(a.span)
	case actCut:
		w.cut(cutsOf(a), a.span)
	case actMeddle:
		w.meddle()
	case actStop:
		if b := w.brokers[a.who-1]; b.registered && !b.paused && !b.expired {
			b.stop(3)
		}
	case actDamage:
		if b := w.brokers[a.who-1]; b.up && w.check.mayBeDamaged(b) && !w.check.mayBeChosen(b) {
			b.kill(false)
			b.damage(rand.New(rand.NewPCG(a.seed, 1)))
			b.wiped = true
		}
	case actBadSync:
		if b := w.brokers[a.who-1]; b.up && !w.config.durable && w.check.mayLosePower(b) || w.config.durable && b.up {
			b.diskFault.badSync = true
		}
	case actFull:
		if b := w.brokers[a.who-1]; b.up {
			b.diskFault.fullUntil = w.now + a.span
			w.trace("disk", "of broker %d is full for %v", b.id, a.span)
		}
	case actDepose:
		w.depose(w.check.parts[a.who], a.other, a.span, rand.New(rand.NewPCG(a.seed, 1)))
	case actMove:
		w.move(w.check.parts[a.who], rand.New(rand.NewPCG(a.seed, 1)))
	case actExpire:
		b := w.brokers[a.who-1]
		if s := w.coordinator.sessions[b.session]; s != nil && b.up {
			w.coordinator.expire(s, "by chance")
		}
	}
}
