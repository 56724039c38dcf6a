package main

import (
	"container/heap"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync/atomic"
	"time"

	"understudy/internal/coordination/jute"
	"understudy/internal/streaming/cluster"
)

// world is one simulated cluster and its clock.
type world struct {
	seed     uint64
	config   config
	schedule []action
	end      time.Duration // an earlier end than the config's: nothing is looked at then
	chance   *rand.Rand
	now      time.Duration
	queue    eventQueue
	serial   uint64
	steps    int
	progress atomic.Int64 // steps, for the watchdog
	out      io.Writer    // trace; nil: none
	logger   *slog.Logger

	coordinator *coordinator
	brokers     []*broker
	clients     []*client
	members     []*member
	network     *network
	check       *checker
	calm        bool // no more faults
	beyond      bool // it ended because only replicas without power were left in an ISR
	admin       jute.SessionID
	topics      int                             // created
	served      map[cluster.TopicPartition]bool // partitions that have clients
	uuids       uint64                          // of members
	commits     int                             // of offsets
	glances     uint64                          // of the checker
}

// config is what a seed decides about a run.
type config struct {
	brokers, partitions, factor int
	minISR                      int
	duration                    time.Duration
	faultEvery                  time.Duration
	lagTime                     time.Duration
	sessionTimeout              time.Duration
	power                       bool // power losses instead of kills, sometimes
	cuts, pauses, kills, expiry bool
	breakOneIn                  int // connections break once in so many messages
	slowOneIn                   int
	slowMax                     time.Duration
	meddling                    bool // somebody deletes /controller
	stops                       bool // controlled shutdowns
	moves                       bool // reassignments
	disk                        bool // damaged files, failed fsyncs, full disks
	durable                     bool // acks=all means fsynced: power may go anywhere, any time
	flushBytes                  int64
	segmentBytes                int64
	members, static             int           // consumers of the group, those of them that are static
	retention                   time.Duration // of some offsets; 0: they do not expire
	deposes                     bool          // leaders are killed one after the other
	topics                      bool          // one is created, grows, and is deleted, again and again
}

func drawConfig(chance *rand.Rand) config {
	c := config{
		brokers: 3, partitions: 1 + chance.IntN(2), factor: 3, minISR: 1 + chance.IntN(2),
		duration:       time.Duration(5+chance.IntN(10)) * time.Second,
		faultEvery:     time.Duration(100+chance.IntN(900)) * time.Millisecond,
		lagTime:        time.Duration(300+chance.IntN(700)) * time.Millisecond,
		sessionTimeout: time.Duration(400+chance.IntN(1200)) * time.Millisecond,
		power:          chance.IntN(2) == 0,
		cuts:           chance.IntN(4) > 0, pauses: chance.IntN(3) > 0, kills: chance.IntN(4) > 0, expiry: chance.IntN(3) > 0,
		breakOneIn: 30 + chance.IntN(600), slowOneIn: 10 + chance.IntN(200),
		flushBytes:   int64(300 + chance.IntN(20000)),
		segmentBytes: int64(600 + chance.IntN(8000)),
	}
	c.slowMax = []time.Duration{50 * time.Millisecond, 400 * time.Millisecond, 3 * time.Second}[chance.IntN(3)]
	c.meddling, c.stops, c.moves = chance.IntN(3) == 0, chance.IntN(3) == 0, chance.IntN(3) == 0
	c.durable = c.power && chance.IntN(2) == 0
	if chance.IntN(4) == 0 {
		c.slowOneIn = 5 + chance.IntN(10)
	}
	if chance.IntN(3) == 0 {
		c.brokers++
	}
	if chance.IntN(5) == 0 {
		c.factor = 2
		c.minISR = 1
	}
	c.disk = chance.IntN(3) == 0
	if chance.IntN(3) > 0 {
		c.members = 1 + chance.IntN(3)
		c.static = chance.IntN(c.members + 1)
		c.partitions = 1 + chance.IntN(3)
		if chance.IntN(3) == 0 {
			c.retention = 5 * time.Second
		}
	}
	return c
}

// beyondModel ends a run in which a request under way took the last replica with everything
// out of the ISR just as the rest lost power.
type beyondModel struct{}

// violation is the end of a run that failed.
type violation struct {
	invariant string
	text      string
	at        time.Duration
	step      int
}

func (v *violation) describe() string {
	return fmt.Sprintf("%s (at %v, step %d)", v.text, v.at, v.step)
}

// configOf is what a seed decides before its run begins.
func configOf(seed uint64, scale float64) (config, []action) {
	chance := rand.New(rand.NewPCG(seed, 0xc0f1))
	c := drawConfig(chance)
	c.duration = time.Duration(float64(c.duration) * scale)
	schedule := c.draw(chance)
	topics := rand.New(rand.NewPCG(seed, 0x70b1c)) // of its own, so that the seeds that failed are drawn as ever
	c.topics = topics.IntN(3) == 0
	schedule = append(schedule, c.drawTopics(topics)...)
	return c, append(schedule, c.drawDepositions(rand.New(rand.NewPCG(seed, 0xde905e)))...)
}

func newWorld(seed uint64, out io.Writer, scale float64) *world {
	w := &world{seed: seed, served: map[cluster.TopicPartition]bool{}, chance: rand.New(rand.NewPCG(seed, 0x5eed)), out: out, logger: slog.New(slog.DiscardHandler)}
	w.config, w.schedule = configOf(seed, scale)
	w.end = time.Hour
	if out != nil {
		w.logger = slog.New(&traceHandler{w: w})
		w.trace("config", "%+v", w.config)
	}
	w.check = newChecker(w)
	w.network = newNetwork(w)
	w.coordinator = newCoordinator(w)
	return w
}

// run simulates a cluster to its end and returns the invariant that failed, or nil.
func run(seed uint64, out io.Writer, scale float64) (failure *violation, w *world) {
	w = newWorld(seed, out, scale)
	return w.run(), w
}

// run is the whole life of a world, watched.
func (w *world) run() *violation { return w.watched(w.live) }

func (w *world) live() (failure *violation) {
	defer func() {
		if raised := recover(); raised != nil {
			if _, ok := raised.(beyondModel); ok {
				w.beyond = true
				w.trace("beyond", "more was lost than the fault model allows: the run ends here")
				return
			}
			v, ok := raised.(*violation)
			if !ok {
				v = &violation{"panic", fmt.Sprintf("%v\n%s", raised, debug.Stack()), w.now, w.steps}
			}
			failure = v
			w.trace("VIOLATION", "%s: %s", v.invariant, v.describe())
		}
	}()
	w.begin()
	w.advance(min(w.config.duration, w.end))
	if w.end < w.config.duration {
		return nil
	}
	w.heal()
	w.advance(w.config.duration + 20*time.Second)
	w.check.final()
	return nil
}

// stepsMax is far above what any run takes.
const stepsMax = 3_000_000

func (w *world) advance(until time.Duration) {
	for len(w.queue) > 0 && w.queue[0].at <= until {
		if w.calm && w.settled() {
			return
		}
		next := heap.Pop(&w.queue).(*event)
		w.now = next.at
		if w.steps++; w.steps > stepsMax {
			w.fail(noProgress, "%d steps: something goes round in circles", w.steps)
		}
		w.progress.Store(int64(w.steps))
		next.do()
	}
	w.now = until
}

func (w *world) fail(invariant, format string, args ...any) {
	panic(&violation{invariant, fmt.Sprintf(format, args...), w.now, w.steps})
}

func (w *world) trace(what, format string, args ...any) {
	if w.out != nil {
		fmt.Fprintf(w.out, "%10.3fms %-12s %s\n", float64(w.now)/1e6, what, fmt.Sprintf(format, args...))
	}
}

// event is something that happens at a time; equal times in the order of their making.
type event struct {
	at     time.Duration
	serial uint64
	do     func()
}

func (w *world) after(delay time.Duration, do func()) { w.at(w.now+delay, do) }

func (w *world) at(at time.Duration, do func()) {
	w.serial++
	heap.Push(&w.queue, &event{max(at, w.now), w.serial, do})
}

// between draws a duration.
func (w *world) between(low, high time.Duration) time.Duration {
	return low + time.Duration(w.chance.Int64N(int64(high-low)+1))
}

// look draws a number for a glance of the checker, whose looking must not change a run.
func (w *world) look(n int) int {
	w.glances++
	return int(w.glances * 2654435761 % uint64(n))
}

func (w *world) oneIn(n int) bool { return n > 0 && w.chance.IntN(n) == 0 }

type eventQueue []*event

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].serial < q[j].serial
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(*event)) }
func (q *eventQueue) Pop() any {
	old := *q
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return last
}
