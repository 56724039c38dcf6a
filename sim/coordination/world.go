package coordination

import (
	"container/heap"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"time"
)

// Options of a run. The zero value is the seed's own schedule at full length, without a trace.
type Options struct {
	Trace io.Writer
	// Scale stretches or shortens the time with faults (1).
	Scale float64
	// Schedule, if not nil, takes the place of the seed's own (see Schedule).
	Schedule []Item
}

// Failure is the invariant that a run broke.
type Failure struct {
	Invariant string
	Text      string
	At        time.Duration
	Step      int
}

func (f *Failure) Error() string {
	return fmt.Sprintf("%s: %s (at %v, step %d)", f.Invariant, f.Text, f.At, f.Step)
}

// Result is what became of a run.
type Result struct {
	Failure *Failure // nil: all invariants held
	Steps   int
	Counts  map[string]int // what happened, to be summed up
}

// Run simulates one ensemble to its end.
func Run(seed uint64, o Options) Result {
	if o.Scale == 0 {
		o.Scale = 1
	}
	w := newWorld(seed, o)
	failure := w.run(o)
	return Result{failure, w.steps, w.counts}
}

// world is one simulated ensemble, its clients and its clock.
type world struct {
	seed   uint64
	config config
	chance *rand.Rand
	now    time.Duration
	queue  eventQueue
	serial uint64
	steps  int
	out    io.Writer
	logger *slog.Logger
	counts map[string]int

	members []*member
	clients []*client
	network *network
	check   *checker
	calm    bool // no more faults
	slowTo  time.Duration
}

func newWorld(seed uint64, o Options) *world {
	w := &world{
		seed: seed, chance: rand.New(rand.NewPCG(seed, 0xc0de)), out: o.Trace,
		logger: slog.New(slog.DiscardHandler), counts: map[string]int{},
	}
	w.config = drawConfig(seed, o.Scale)
	if w.out != nil {
		w.trace("config", "%+v", w.config)
	}
	w.check = newChecker(w)
	w.network = newNetwork(w)
	for i := range w.config.members {
		w.members = append(w.members, newMember(w, i))
	}
	for i := range w.config.clients {
		w.clients = append(w.clients, newClient(w, i))
	}
	return w
}

func (w *world) run(o Options) (failure *Failure) {
	defer func() {
		for _, m := range w.members {
			m.release()
		}
	}()
	defer func() {
		if raised := recover(); raised != nil {
			f, ok := raised.(*Failure)
			if !ok {
				f = &Failure{"panic", fmt.Sprintf("%v\n%s", raised, debug.Stack()), w.now, w.steps}
			}
			failure = f
			w.trace("VIOLATION", "%v", f)
		}
	}()
	schedule := o.Schedule
	if schedule == nil {
		schedule = Schedule(w.seed, o.Scale)
	}
	for _, m := range w.members {
		w.after(w.between(0, 20*time.Millisecond), func() { m.start() })
	}
	for _, c := range w.clients {
		w.after(w.between(0, 300*time.Millisecond), func() { c.begin() })
	}
	for _, item := range schedule {
		w.at(item.At, func() { w.perform(item) })
	}
	w.advance(w.config.duration)
	w.heal()
	w.advance(w.config.duration + w.config.recovery - stuckAfter)
	w.check.rememberPending()
	w.advance(w.config.duration + w.config.recovery)
	w.check.final()
	return nil
}

func (w *world) advance(until time.Duration) {
	for len(w.queue) > 0 && w.queue[0].at <= until {
		next := heap.Pop(&w.queue).(*event)
		w.now = next.at
		w.steps++
		next.do()
	}
	w.now = until
}

func (w *world) fail(invariant, format string, args ...any) {
	panic(&Failure{invariant, fmt.Sprintf(format, args...), w.now, w.steps})
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
