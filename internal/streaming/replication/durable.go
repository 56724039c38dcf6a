package replication

import (
	"sync"

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
		for m.syncOnce(h) {
		}
	}()
}

// syncOnce fsyncs what is in the log now, and says whether there is more.
func (m *Manager) syncOnce(h *hosted) (more bool) {
	err := h.log.SyncInTurn(h.log.EndOffset())
	effects := takeEffects()
	defer func() { m.run(effects) }() // after the lock
	h.mu.Lock()
	defer h.mu.Unlock()
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
