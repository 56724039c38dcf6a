package replication

import (
	"context"
	"sync"
	"time"
)

// wheel is the one timer for everything that waits: a hashed timing wheel (Varghese and
// Lauck, scheme 6). Adding and removing cost a few pointers; one goroutine sleeps until the
// next slot with something in it, and not at all while the wheel is empty. An entry fires
// between its deadline and one tick after.
type wheel struct {
	since  func() time.Duration // the time that has passed, on a clock that only grows
	wakeUp chan struct{}        // capacity 1: something is due earlier than the goroutine sleeps

	mu      sync.Mutex
	slots   [wheelSlots]*wheelEntry // doubly linked lists by deadline modulo wheelSlots
	current int64                   // ticks up to and including this one have been handled
	alarm   int64                   // the tick that the goroutine sleeps to; 0: no sleep ends by itself
}

const (
	wheelSlots = 512
	wheelTick  = 5 * time.Millisecond
)

// expirer is told, without any lock, that its time is up.
type expirer interface{ expire() }

// wheelEntry is embedded in what waits. The zero value is in no wheel.
type wheelEntry struct {
	owner      expirer
	deadline   int64
	prev, next *wheelEntry
	queued     bool
}

func newWheelAt(since func() time.Duration) *wheel {
	return &wheel{since: since, wakeUp: make(chan struct{}, 1)}
}

func (w *wheel) tickNow() int64 { return int64(w.since() / wheelTick) }

// add makes owner.expire run after a delay, unless remove comes first.
func (w *wheel) add(entry *wheelEntry, owner expirer, delay time.Duration) {
	w.mu.Lock()
	// One more tick, because the present one has begun; and never a tick already handled.
	deadline := max(int64((w.since()+delay)/wheelTick)+1, w.current+1)
	entry.owner, entry.deadline, entry.queued = owner, deadline, true
	slot := &w.slots[deadline%wheelSlots]
	entry.prev, entry.next = nil, *slot
	if *slot != nil {
		(*slot).prev = entry
	}
	*slot = entry
	early := w.alarm == 0 || deadline < w.alarm
	if early {
		w.alarm = deadline
	}
	w.mu.Unlock()
	if early {
		select {
		case w.wakeUp <- struct{}{}:
		default:
		}
	}
}

// remove takes an entry out, if it is still in.
func (w *wheel) remove(entry *wheelEntry) {
	w.mu.Lock()
	w.removeLocked(entry)
	w.mu.Unlock()
}

func (w *wheel) removeLocked(entry *wheelEntry) {
	if !entry.queued {
		return
	}
	entry.queued = false
	if entry.prev != nil {
		entry.prev.next = entry.next
	} else {
		w.slots[entry.deadline%wheelSlots] = entry.next
	}
	if entry.next != nil {
		entry.next.prev = entry.prev
	}
	entry.prev, entry.next = nil, nil
}

func (w *wheel) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var due []expirer
	for {
		due = w.advance(w.tickNow(), due[:0])
		for i, owner := range due {
			owner.expire()
			due[i] = nil
		}
		timer.Reset(w.sleep())
		select {
		case <-timer.C:
		case <-w.wakeUp:
		case <-ctx.Done():
			return
		}
	}
}

// advance takes out what is due at now.
func (w *wheel) advance(now int64, due []expirer) []expirer {
	w.mu.Lock()
	defer w.mu.Unlock()
	from := max(w.current+1, now-wheelSlots+1) // every slot once is enough, however late we are
	for tick := from; tick <= now; tick++ {
		for entry := w.slots[tick%wheelSlots]; entry != nil; {
			next := entry.next
			if entry.deadline <= now {
				w.removeLocked(entry)
				due = append(due, entry.owner)
			}
			entry = next
		}
	}
	w.current = max(w.current, now)
	return due
}

// sleep returns how long nothing can be due.
func (w *wheel) sleep() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ahead := int64(1); ahead <= wheelSlots; ahead++ {
		tick := w.current + ahead
		if w.slots[tick%wheelSlots] != nil {
			w.alarm = tick
			return max(time.Duration(tick)*wheelTick-w.since(), 0)
		}
	}
	w.alarm = 0
	return time.Hour
}
