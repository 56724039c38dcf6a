package coordination

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// config is what a seed decides about a run, beside its schedule.
type config struct {
	members, clients   int
	duration, recovery time.Duration
	tick               time.Duration
	snapshotEntries    uint64
	keepEntries        uint64
	cacheBytes         int64
	segmentBytes       int64
	slowOneIn          int // frames that take long
	slowMax            time.Duration
	dropOneIn          int // frames between members; 0: never
	doubleOneIn        int
	fsyncMax           time.Duration
}

func drawConfig(seed uint64, scale float64) config {
	chance := rand.New(rand.NewPCG(seed, 0xc0f1))
	pick := func(of ...time.Duration) time.Duration { return of[chance.IntN(len(of))] }
	c := config{
		members: []int{3, 3, 3, 3, 3, 3, 3, 5, 5, 1}[chance.IntN(10)], clients: 2 + chance.IntN(4),
		duration:        time.Duration(float64(4+chance.IntN(6)) * scale * float64(time.Second)),
		recovery:        7 * time.Second,
		tick:            pick(100*time.Millisecond, 200*time.Millisecond),
		snapshotEntries: uint64(5 + chance.IntN(100)),
		keepEntries:     uint64(1 + chance.IntN(30)),
		cacheBytes:      int64(400 + chance.IntN(8000)),
		segmentBytes:    int64(500 + chance.IntN(8000)),
		slowOneIn:       20 + chance.IntN(400),
		slowMax:         pick(20*time.Millisecond, 100*time.Millisecond, 500*time.Millisecond),
		fsyncMax:        pick(500*time.Microsecond, 3*time.Millisecond, 20*time.Millisecond),
	}
	if chance.IntN(3) == 0 {
		c.dropOneIn, c.doubleOneIn = 50+chance.IntN(500), 50+chance.IntN(500)
	}
	return c
}

// Item is one thing of a schedule: a fault, or something that a client does. What it means in
// detail depends on the run it is put into, so that any part of a schedule is one, too.
type Item struct {
	At   time.Duration
	What string
	A, B int           // whom it concerns: members or clients, modulo their number
	For  time.Duration // how long
	N    uint64        // chance of its own
}

func (i Item) String() string {
	return fmt.Sprintf("%v %s %d %d %v %d", i.At, i.What, i.A, i.B, i.For, i.N)
}

// Schedule is the seed's own schedule, ordered by time.
func Schedule(seed uint64, scale float64) []Item {
	config := drawConfig(seed, scale)
	chance := rand.New(rand.NewPCG(seed, 0x5c4ed))
	var items []Item
	add := func(at time.Duration, what string, longest time.Duration) {
		items = append(items, Item{
			At: at, What: what, A: chance.IntN(60), B: chance.IntN(60),
			For: longest/20 + time.Duration(chance.Int64N(int64(longest))), N: chance.Uint64(),
		})
	}
	somewhen := func() time.Duration { return time.Duration(chance.Int64N(int64(config.duration))) }
	operations := int(config.duration.Seconds()*30) + chance.IntN(100)
	for range operations {
		add(somewhen(), "op", time.Second)
	}
	// Bursts: pipelined operations of one client.
	for range operations / 30 {
		at, client := somewhen(), chance.IntN(60)
		for range 2 + chance.IntN(8) {
			add(at, "op", time.Second)
			items[len(items)-1].A = client
		}
	}
	faults := chance.IntN(int(config.duration.Seconds()*4) + 2)
	weights := map[string]int{}
	for _, f := range faultKinds {
		weights[f.what] = f.weight
		if chance.IntN(3) == 0 {
			weights[f.what] = 0
		}
	}
	var bag []fault
	for _, f := range faultKinds {
		for range weights[f.what] {
			bag = append(bag, f)
		}
	}
	for range faults {
		if len(bag) > 0 {
			f := bag[chance.IntN(len(bag))]
			add(somewhen(), f.what, f.longest)
		}
	}
	slices.SortStableFunc(items, func(a, b Item) int { return int(a.At - b.At) })
	return items
}

type fault struct {
	what    string
	weight  int
	longest time.Duration
}

var faultKinds = []fault{
	{"kill", 4, 1500 * time.Millisecond},
	{"bounce", 3, 40 * time.Millisecond}, // back before others have forgotten what it asked
	{"kill-in-disk", 4, 800 * time.Millisecond},
	{"power", 4, 1500 * time.Millisecond},
	{"power-in-disk", 4, 800 * time.Millisecond},
	{"blackout", 2, 800 * time.Millisecond},
	{"pause", 4, 2500 * time.Millisecond},
	{"cut", 4, 2500 * time.Millisecond},
	{"isolate", 4, 4 * time.Second},
	{"break-stream", 3, time.Second},
	{"stop", 2, time.Second},
	{"fail-sync", 2, time.Second},
	{"disk-full", 1, time.Second},
	{"slow-disk", 2, time.Second},
	{"slow-net", 2, 2 * time.Second},
	{"flip", 1, time.Second},
	{"misdirect", 1, time.Second},
	{"clock", 3, time.Second},
	{"break-client", 8, time.Second},
	{"stall-client", 4, 2 * time.Second},
	{"mute-client", 4, 4 * time.Second},
	{"leave-client", 3, time.Second},
	{"drop-client", 2, time.Second},
	{"rob-client", 2, time.Second},
}

// perform does an item.
func (w *world) perform(i Item) {
	m, other := w.members[i.A%len(w.members)], w.members[i.B%len(w.members)]
	c := w.clients[i.A%len(w.clients)]
	if i.What != "op" {
		w.counts["faults"]++
		w.trace("fault", "%s", i)
	}
	switch i.What {
	case "op":
		c.operate(i.N)
	case "kill", "bounce":
		m.die(false, "killed")
		m.restartAfter(i.For)
	case "power":
		m.die(true, "lost power")
		m.restartAfter(i.For)
	case "kill-in-disk", "power-in-disk":
		m.disk.crashIn, m.disk.crashPower = 1+int(i.N%40), i.What == "power-in-disk"
	case "blackout":
		for _, m := range w.members {
			m.die(true, "lost power with all")
			m.restartAfter(w.between(0, i.For))
		}
	case "pause":
		m.pause(i.For)
	case "cut":
		if m != other {
			w.network.cutFor(m, other, i.For)
			if i.N%2 == 0 {
				w.network.cutFor(other, m, i.For)
			}
		}
	case "isolate":
		for _, other := range w.members {
			if other != m && i.N%8 != 0 {
				w.network.cutFor(m, other, i.For)
			}
			if other != m && i.N%8 != 1 {
				w.network.cutFor(other, m, i.For)
			}
		}
	case "break-stream":
		if s := w.network.streams[pair{m.index, other.index}]; s != nil {
			w.network.breakStream(s)
		}
	case "stop":
		m.stop(i.For)
	case "fail-sync":
		m.disk.failSyncs = 1
		m.disturbed()
	case "disk-full":
		m.disk.fullTo = w.now + i.For
		m.disturbed()
	case "slow-disk":
		m.disk.slowTo = w.now + i.For
		m.disturbed()
	case "slow-net":
		w.slowTo = w.now + i.For
		w.disturbAll()
	case "flip":
		if w.mayDamage(m) {
			m.disk.flip(i.N)
		}
	case "misdirect":
		if w.mayDamage(m) {
			m.disk.misdirect = 1 + i.N%1000
		}
	case "clock":
		m.wallOffset += time.Duration(i.N%240_000)*time.Millisecond - 2*time.Minute
	case "break-client":
		c.breakConnection(int(i.N % 3))
	case "stall-client":
		if c.conn != nil {
			c.conn.stallTo = w.now + i.For
			c.conn.disturbedAt = w.now + i.For
		}
	case "mute-client":
		c.mute(w.now + i.For)
	case "leave-client":
		c.leave()
	case "rob-client":
		c.robbed()
	case "drop-client":
		c.dropSession()
	}
}

// mayDamage says whether a member's disk may be damaged for good: only one of an ensemble's.
func (w *world) mayDamage(m *member) bool {
	if len(w.members) < 3 {
		return false
	}
	for _, other := range w.members {
		if other != m && other.disk.damaged {
			return false
		}
	}
	m.disk.damaged = true
	return true
}

// heal ends all faults: from here on everything is well, and what was broken may mend.
func (w *world) heal() {
	w.calm = true
	w.slowTo = 0
	w.network.healAll()
	for _, m := range w.members {
		m.disk.heal()
		m.resume()
		if !m.up {
			m.restartAfter(w.between(0, 100*time.Millisecond))
		}
	}
	for _, c := range w.clients {
		c.heal()
	}
	w.disturbAll()
	w.trace("calm", "everything is well from here on")
}

func (w *world) disturbAll() {
	for _, m := range w.members {
		m.disturbed()
	}
}
