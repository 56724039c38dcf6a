package ensemble

import (
	"fmt"
	"slices"
	"sync/atomic"

	pb "go.etcd.io/raft/v3/raftpb"

	"understudy/internal/coordination/session"
	"understudy/internal/coordination/wal"
	"understudy/internal/coordination/znode"
)

// applier is the goroutine that writes the tree. Its queue is bounded by raft (16 MiB of
// committed entries under way) and by the clients' barriers.
type applier struct {
	m       *Member
	queue   *mailbox[applyItem]
	applied atomic.Uint64
	term    atomic.Uint64 // of the last entry applied

	waiting []waitingBarrier // ordered by index

	entries, requests atomic.Uint64
	sinceEntries      uint64 // since the last snapshot
	sinceBytes        int64
	anew              bool // a snapshot is due whatever was applied since the last one
}

// applyItem is one of: committed entries and raft's answers to them; a snapshot to take the
// tree from; barriers to run at an index; an order to write a snapshot, as the last is damaged.
type applyItem struct {
	entries  []*pb.Entry
	answers  []*pb.Message
	restore  *wal.SnapshotID
	barriers []func(bool)
	index    uint64
	anew     bool
}

type waitingBarrier struct {
	index uint64
	run   []func(bool)
}

func (a *applier) put(item applyItem) { a.queue.put(item) }

func (a *applier) run(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			a.failBarriers()
			return
		case <-a.queue.wake:
		}
		for _, item := range a.queue.take() {
			if err := a.take(item); err != nil {
				a.m.fail(err)
				a.failBarriers()
				return
			}
		}
	}
}

func (a *applier) take(item applyItem) error {
	if item.restore != nil {
		if err := a.restore(*item.restore); err != nil {
			return err
		}
	}
	for _, e := range item.entries {
		if err := a.apply(e); err != nil {
			return err
		}
	}
	if len(item.barriers) > 0 {
		a.waiting = append(a.waiting, waitingBarrier{item.index, item.barriers})
		slices.SortStableFunc(a.waiting, func(x, y waitingBarrier) int { return int(int64(x.index) - int64(y.index)) })
	}
	a.runBarriers()
	if len(item.answers) > 0 {
		a.m.toRaft(item.answers)
	}
	a.anew = a.anew || item.anew
	a.maybeSnapshot()
	return nil
}

// apply performs one entry. Entries of raft itself (a new leader's empty one) change nothing.
func (a *applier) apply(e *pb.Entry) error {
	index := e.GetIndex()
	switch applied := a.applied.Load(); {
	case index <= applied:
		return nil
	case index > applied+1:
		return fmt.Errorf("ensemble: log entry %d is to be applied after entry %d", index, applied)
	}
	if e.GetType() == pb.EntryNormal && len(e.GetData()) > 0 {
		batch, err := znode.DecodeBatch(e.GetData())
		if err != nil {
			return fmt.Errorf("ensemble: log entry %d cannot be applied: %w", index, err)
		}
		a.applyBatch(e.GetTerm(), &batch)
		a.entries.Add(1)
		a.requests.Add(uint64(len(batch.Requests)))
	}
	a.term.Store(e.GetTerm())
	a.applied.Store(index)
	a.sinceEntries++
	a.sinceBytes += int64(len(e.GetData()))
	return nil
}

// flusher is an Observer that wants to know when a run of Applied calls has ended: Flush is
// called by the apply loop, without the tree's lock, so that it can act once for all of them.
type flusher interface{ Flush() }

// applyBatch runs a batch under the tree's write lock and tells observer and sessions.
func (a *applier) applyBatch(term uint64, b *znode.Batch) {
	m := a.m
	own := b.Origin == m.config.ID && b.Incarnation == m.forward.incarnation
	var expired []expiredSession
	gap := false

	m.treeMu.Lock()
	machine, observer := m.machine, m.observer
	next := machine.NextSequence(b.Origin, b.Incarnation)
	machine.Apply(term, b, func(i int, r *znode.Result) {
		req := &b.Requests[i]
		// Whether this one counts: it is not of a batch that comes too early, nor one that
		// was applied before.
		sequence := b.FirstSequence + uint64(i)
		if b.Origin != 0 && (b.FirstSequence > next || sequence < next) {
			gap = gap || b.FirstSequence > next
			m.sessions.ended(req)
			return
		}
		if e, ok := m.sessions.applied(req, r); ok {
			expired = append(expired, e)
		}
		var token any
		if own {
			token = m.forward.done(sequence)
		}
		if observer != nil {
			observer.Applied(req, r, token)
		}
	})
	m.treeMu.Unlock()
	if f, ok := observer.(flusher); ok {
		f.Flush()
	}

	for _, e := range expired {
		m.logger.Info("session expired", "session", fmt.Sprintf("0x%x", uint64(e.id)), "reason", string(e.reason))
	}
	if own {
		m.events.ring() // the window to the leader moved
	}
	if gap {
		origin := b.Origin
		m.events.put(func(l *loop) {
			l.forgetIntake(origin)
			if own {
				l.cursor.back(l)
			}
		})
	}
}

// restore replaces the tree by a snapshot's.
func (a *applier) restore(id wal.SnapshotID) error {
	if newest := a.m.log.NewestSnapshot(); newest.Index > id.Index {
		id = newest // installed meanwhile, and the older one's file is gone
	}
	if id.Index <= a.applied.Load() {
		return nil
	}
	machine, err := a.m.readSnapshot(id)
	if err != nil {
		return err
	}
	m := a.m
	m.treeMu.Lock()
	m.machine = machine
	if m.observer != nil {
		m.observer.Reset()
	}
	dropped := m.forward.skipTo(machine.NextSequence(m.config.ID, m.forward.incarnation))
	observer := m.observer
	m.treeMu.Unlock()
	a.term.Store(id.Term)
	a.applied.Store(id.Index)
	a.sinceEntries, a.sinceBytes = 0, 0
	m.drop(observer, dropped)
	m.events.ring()
	m.logger.Info("state replaced by a snapshot", "index", id.Index, "term", id.Term)
	return nil
}

func (a *applier) runBarriers() {
	applied := a.applied.Load()
	for len(a.waiting) > 0 && a.waiting[0].index <= applied {
		for _, f := range a.waiting[0].run {
			f(true)
		}
		a.waiting = a.waiting[1:]
	}
}

func (a *applier) failBarriers() {
	for _, item := range a.queue.take() {
		for _, f := range item.barriers {
			f(false)
		}
	}
	for _, w := range a.waiting {
		for _, f := range w.run {
			f(false)
		}
	}
	a.waiting = nil
}

// maybeSnapshot begins a snapshot when enough was applied since the last one and none is
// under way.
func (a *applier) maybeSnapshot() {
	m := a.m
	if a.sinceEntries < m.config.SnapshotEntries && a.sinceBytes < m.config.SnapshotBytes && !a.anew {
		return
	}
	a.anew = false // the one under way is newer than the damaged one, too
	if !m.snapshotting.CompareAndSwap(false, true) {
		return
	}
	a.sinceEntries, a.sinceBytes = 0, 0
	m.treeMu.Lock()
	frozen := m.machine.Freeze()
	m.treeMu.Unlock()
	id := wal.SnapshotID{Index: a.applied.Load(), Term: a.term.Load()}
	m.beside(func() {
		defer m.snapshotting.Store(false)
		m.saveSnapshot(id, frozen)
	})
}

// expiredSession is one whose end this leader decided, for the log.
type expiredSession struct {
	id     sessionID
	reason session.Reason
}
