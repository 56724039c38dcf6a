package replication

import (
	"context"

	"golang.org/x/sync/errgroup"

	"understudy/internal/streaming/commitlog"
)

// A leader that finds records in its log which earlier leaders had left uncommitted notes on disk
// where its leadership began, before it lets the high watermark move over them (partition's
// Unnoted says why). Nobody waits for that in a change of roles: appends and fetches go on, and the
// first record of its own epoch, once the in-sync set has it, makes the note unnecessary. So it
// is written behind the back of LeaderAndIsr, in a file of its own for each such partition, without
// an fsync unless the topic is durable: it has to outlive a kill, as records do.

// leadership is one that is to be noted.
type leadership struct {
	host  *hosted
	begin commitlog.EpochBegin
}

func (h *hosted) appendUnnotedLocked(list []leadership) []leadership {
	since, from, unnoted := h.replica.Unnoted()
	if !unnoted {
		return list
	}
	return append(list, leadership{h, commitlog.EpochBegin{Epoch: since, Before: h.log.EpochForOffset(from - 1), Start: from}})
}

// noteWriters bounds the notes that are written at once.
const noteWriters = 8

// noteLeaderships notes them on a goroutine of its own.
func (m *Manager) noteLeaderships(list []leadership) {
	switch {
	case len(list) == 0 || m.right.closed.Load():
	case m.stepped != nil:
		for _, l := range list {
			m.noteLeadership(l)
		}
	default:
		m.start(func(context.Context) {
			var group errgroup.Group
			group.SetLimit(noteWriters)
			for _, l := range list {
				group.Go(func() error { m.noteLeadership(l); return nil })
			}
			_ = group.Wait()
		})
	}
}

func (m *Manager) noteLeadership(l leadership) {
	h := l.host
	err := h.log.NoteEpochBegin(l.begin, h.durable.Load())
	effects := takeEffects()
	defer func() { m.run(effects) }() // after the lock
	h.mu.Lock()
	defer h.mu.Unlock()
	switch env := m.environment(h); {
	case h.stopped:
	case err != nil:
		m.offlineLocked(h, err, effects)
	case h.replica.Noted(l.begin.Epoch, &env):
		h.highWatermarkMovedLocked(effects)
	}
}
