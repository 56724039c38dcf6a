package replication

import (
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A topic with flush.messages=1 is durable: an acknowledgement with acks=all means that every
// in-sync replica has fsynced the records. Kafka fsyncs inside each append; here appends go
// on while an fsync is under way, and the next one covers them all (group commit).
//
//   - The leader's high watermark does not pass what it has fsynced (partition.Replica.Synced).
//   - A follower fsyncs what a response brought before its next fetch, whose offset says that
//     it has it; and what it finds in its log, which may be no further than the page cache,
//     before its first.

// setDurableLocked follows the topic's configuration. The caller then calls syncSoonLocked.
func (m *Manager) setDurableLocked(h *hosted, flushMessages int64) {
	durable := flushMessages == 1
	h.durable.Store(durable)
	h.replica.SetDurable(durable, h.log.SyncedOffset())
}

// syncSoonLocked sees to it that what is in a durable leader's log gets fsynced. One goroutine
// per partition does it, for as long as there is something to fsync.
func (m *Manager) syncSoonLocked(h *hosted) {
	if !h.durable.Load() || h.syncing || !h.replica.IsLeader() || h.log.SyncedOffset() >= h.log.EndOffset() {
		return
	}
	if m.stepped != nil {
		h.syncing = true // Stepped.Sync does it
		return
	}
	m.syncs.Lock()
	defer m.syncs.Unlock()
	if m.syncs.closed {
		return
	}
	m.goroutines.Add(1)
	h.syncing = true
	go func() {
		defer m.goroutines.Done()
		for m.syncOnce(h, m.gather(h)) {
		}
	}()
}

// gatherMax bounds how long an fsync waits for more appends, and gatherFsyncs does in fsyncs.
const (
	gatherMax    = 5 * time.Millisecond
	gatherFsyncs = 2
)

// worthwhile is how many appends make an fsync worth while: its fixed part then is a fraction of
// what the appends themselves cost.
const worthwhile = 4

// syncGroup is who shares the next fsync. Where an fsync takes no longer than a producer takes to
// send again, beginning each as soon as there is anything to fsync gives each append one of its
// own, and the processor goes into fsyncs. So after an fsync the next waits for some of those seen
// to be at work together: for half of them, so that the others go on meanwhile, or for as many as
// are worth while; while they come in quicker succession than fsyncs would, and not beyond the
// bounds above. A producer alone waits for nobody.
type syncGroup struct {
	arrived  int           // appends since the last fsync began
	last     time.Time     // when the last of them came
	expected int           // how many appends the next fsync waits for
	took     time.Duration // the last fsync
	until    time.Time     // when it is too late to wait
	enough   chan struct{} // closed when those expected have come; nil unless somebody waits
}

func (g *syncGroup) arrive() {
	g.arrived++
	g.last = time.Now()
	if g.enough != nil && g.arrived >= g.expected {
		close(g.enough)
		g.enough = nil
	}
}

// synced notes an fsync that has just ended.
func (g *syncGroup) synced(appends int, took time.Duration) {
	together := appends + g.arrived // those that came meanwhile
	g.expected = min(together, max(worthwhile, (together+1)/2))
	g.took = took
	g.last = time.Now()
	g.until = g.last.Add(min(gatherFsyncs*took, gatherMax))
}

// patience is how long it makes sense to wait for another append.
func (g *syncGroup) patience() time.Duration {
	if g.arrived >= g.expected {
		return 0
	}
	return min(time.Until(g.until), time.Until(g.last.Add(g.took)))
}

// gather waits for the appends that are to share an fsync, and counts them.
func (m *Manager) gather(h *hosted) (appends int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := &h.group
	for wait := g.patience(); wait > 0 && m.stop.Err() == nil; wait = g.patience() {
		enough := make(chan struct{})
		g.enough = enough
		h.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-enough:
		case <-timer.C:
		case <-m.stop.Done():
		}
		timer.Stop()
		h.mu.Lock()
		g.enough = nil
	}
	appends, g.arrived = g.arrived, 0
	return appends
}

// syncOnce fsyncs what is in the log now, that many appends, and says whether there is more.
func (m *Manager) syncOnce(h *hosted, appends int) (more bool) {
	began := time.Now()
	err := h.log.SyncTo(h.log.EndOffset())
	took := time.Since(began)
	effects := takeEffects()
	defer func() { m.run(effects) }() // after the lock
	h.mu.Lock()
	defer h.mu.Unlock()
	h.group.synced(appends, took)
	if err != nil && h.log.Failed() != nil {
		h.syncing = false
		m.offlineLocked(h, err, effects)
		return false
	}
	// Any other error says that the log was cut meanwhile: look again.
	env := m.environment(h)
	synced := h.log.SyncedOffset()
	if h.replica.Synced(synced, &env) {
		h.highWatermarkMovedLocked(effects)
	}
	h.syncing = h.durable.Load() && h.replica.IsLeader() && synced < h.log.EndOffset() && m.stop.Err() == nil
	return h.syncing
}

// syncFollowed fsyncs the durable logs that have grown since the last fetch, side by side.
// It runs on the fetcher's goroutine: the next request waits for it.
func (f *fetcher) syncFollowed() {
	f.mu.Lock()
	states := f.unsynced
	f.unsynced = nil
	f.mu.Unlock()
	if len(states) == 0 {
		return
	}
	errs := make([]error, len(states))
	var syncing sync.WaitGroup
	for i, state := range states {
		sync := func() { errs[i] = state.host.log.SyncTo(state.host.log.EndOffset()) }
		if i == len(states)-1 || f.m.stepped != nil {
			sync() // the usual case is one partition
			continue
		}
		syncing.Go(sync)
	}
	syncing.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, state := range states {
		if errs[i] != nil && !state.removed {
			f.partFailedLocked(state, errs[i]) // delayed, and noted again after that
		}
	}
}

// buildSynced makes the next request once there is nothing left to fsync: partitions may come
// meanwhile.
func (f *fetcher) buildSynced() *kmsg.FetchRequest {
	for {
		f.syncFollowed()
		f.mu.Lock()
		if len(f.unsynced) == 0 {
			defer f.mu.Unlock()
			return f.buildLocked()
		}
		f.mu.Unlock()
	}
}

// noteUnsyncedLocked has syncFollowed look at a partition before the next request.
func (f *fetcher) noteUnsyncedLocked(state *fetchState) {
	if state.host.durable.Load() && state.host.log.SyncedOffset() < state.next.offset {
		f.unsynced = append(f.unsynced, state)
	}
}
