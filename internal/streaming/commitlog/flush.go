package commitlog

import (
	"fmt"
	"slices"

	"understudy/internal/streaming/cluster"
)

// Flush makes everything appended so far durable and moves the recovery point, together
// with a producer snapshot: a restart after a crash begins at both.
func (l *Log) Flush() error {
	if err := l.Failed(); err != nil {
		return err
	}
	l.flushing.Lock()
	defer l.flushing.Unlock()
	return l.flush(false)
}

// flush does the work of Flush under the flushing lock. closing adds what a clean close
// leaves: the last entries of the time indexes.
func (l *Log) flush(closing bool) error {
	plan, err := l.planFlush(closing)
	if err != nil {
		return l.fail(err)
	}
	if plan.nothing {
		return l.smallFiles()
	}
	if err := l.syncSegments(plan.segments, true); err != nil {
		return l.fail(err)
	}
	if plan.snapshot != nil {
		path := l.filePath(offsetName(plan.target, snapshotSuffix))
		if err := writeFile(l.files.fs, path, plan.snapshot, true); err != nil {
			return l.fail(fmt.Errorf("write %s: %w", path, err))
		}
	}
	if err := l.writeSmallFiles(true); err != nil {
		return l.fail(err)
	}
	if err := l.syncNames(); err != nil {
		return l.fail(err)
	}
	l.finishFlush(plan, closing)
	return nil
}

func (l *Log) smallFiles() error {
	if err := l.writeSmallFiles(true); err != nil {
		return l.fail(err)
	}
	return nil
}

// flushPlan is what a flush makes durable, captured at one moment.
type flushPlan struct {
	nothing  bool
	target   cluster.Offset
	segments []*segment
	inactive []*segment
	snapshot []byte // nil if there is one at target already
}

func (l *Log) planFlush(closing bool) (flushPlan, error) {
	l.writer.Lock()
	defer l.writer.Unlock()
	w := &l.writer
	w.flushAsked, w.unflushed = false, 0
	plan := flushPlan{target: l.published.end}
	plan.nothing = plan.target == w.recoveryPoint && !(closing && w.dirty)
	if plan.nothing {
		return plan, nil
	}
	last := len(l.published.segments) - 1
	for i, s := range l.published.segments {
		if s.dataSynced {
			continue
		}
		if err := s.flushIndexes(l.files, closing || i < last); err != nil {
			return plan, err
		}
		plan.segments = append(plan.segments, s)
		if i < last {
			plan.inactive = append(plan.inactive, s)
		}
	}
	if len(w.producers.hidden) == 0 && !slices.Contains(w.producers.snapshots, plan.target) {
		plan.snapshot = w.producers.encode()
	}
	return plan, nil
}

// syncSegments fsyncs segments' data, and their indexes if asked. Segments deleted
// meanwhile need none.
func (l *Log) syncSegments(segments []*segment, indexes bool) error {
	for _, s := range segments {
		if err := syncCached(l.files, &s.log); err != nil {
			if isForgotten(err) {
				continue
			}
			return err
		}
		if !indexes {
			continue
		}
		for _, sync := range []func(*fileCache) error{s.index.offsets.sync, s.index.times.sync, s.syncTxnIndex} {
			if err := sync(l.files); err != nil && !isForgotten(err) {
				return err
			}
		}
	}
	return nil
}

// syncNames makes the names in the partition's directory durable, and its own.
func (l *Log) syncNames() error {
	if err := l.files.fs.SyncDir(l.path); err != nil {
		return err
	}
	l.writer.Lock()
	known := l.writer.namesSynced
	l.writer.Unlock()
	if known {
		return nil
	}
	if err := l.files.fs.SyncDir(l.dir.path); err != nil {
		return err
	}
	l.writer.Lock()
	l.writer.namesSynced = true
	l.writer.Unlock()
	return nil
}

func (l *Log) finishFlush(plan flushPlan, closing bool) {
	l.writer.Lock()
	l.writer.dirty = l.writer.dirty && !closing
	for _, s := range plan.inactive {
		s.dataSynced = true
	}
	for _, s := range plan.segments {
		s.namesSynced = true
	}
	if plan.snapshot != nil {
		l.addSnapshotLocked(plan.target)
	}
	l.trimSnapshotsLocked(never)
	l.writer.recoveryPoint = max(l.writer.recoveryPoint, plan.target)
	truncations := l.writer.truncations
	l.writer.Unlock()
	l.dir.recoveryPoints.set(l.tp, plan.target)
	l.raiseSynced(plan.target, truncations)
}

// SyncTo returns when everything below an offset has been fsynced; callers share fsyncs:
// while one is under way, all who come wait together for the next. It is an error if the
// log ends below the offset.
func (l *Log) SyncTo(offset cluster.Offset) error { return l.syncTo(offset, nil) }

// SyncInTurn is SyncTo for a log that many producers append to: it may wait for other logs of
// the directory first, and its fsync covers what comes meanwhile.
func (l *Log) SyncInTurn(offset cluster.Offset) error { return l.syncTo(offset, &l.dir.turns) }

func (l *Log) syncTo(offset cluster.Offset, turns *syncTurns) error {
	s := &l.synced
	s.Lock()
	defer s.Unlock()
	for s.offset < offset {
		if err := l.Failed(); err != nil {
			return err
		}
		if end := l.EndOffset(); end < offset {
			return fmt.Errorf("commitlog: sync %s to %d: it ends at %d", l.tp, offset, end)
		}
		if s.running {
			s.turn.Wait()
			continue
		}
		s.running = true
		s.Unlock()
		end, truncations, err := l.syncDataIn(turns)
		if err == nil {
			l.raiseSynced(end, truncations)
		}
		s.Lock()
		s.running = false
		s.turn.Broadcast()
		if err != nil {
			return err
		}
	}
	return nil
}

// SyncedOffset is the offset below which everything has been fsynced.
func (l *Log) SyncedOffset() cluster.Offset {
	l.synced.Lock()
	defer l.synced.Unlock()
	return l.synced.offset
}

// syncDataIn is syncData when it is the log's turn, if there are turns.
func (l *Log) syncDataIn(turns *syncTurns) (end cluster.Offset, truncations uint64, err error) {
	if turns == nil {
		return l.syncData()
	}
	defer turns.end(turns.begin(l.unsyncedBytes()))
	if err := l.Failed(); err != nil { // another log's fsync, while this one waited
		return 0, 0, err
	}
	now := l.view()
	l.synced.base, l.synced.size = now.segments[len(now.segments)-1].base, now.activeSize
	return l.syncData()
}

// unsyncedBytes is about how much an fsync would cover. The caller is the one who fsyncs.
func (l *Log) unsyncedBytes() int64 {
	now := l.view()
	if now.segments[len(now.segments)-1].base == l.synced.base {
		return max(now.activeSize-l.synced.size, 0)
	}
	return now.activeSize
}

// syncData fsyncs the batches of the log: what a recovery after a power failure needs to
// find them again, and no more.
func (l *Log) syncData() (end cluster.Offset, truncations uint64, err error) {
	l.writer.Lock()
	end, truncations = l.published.end, l.writer.truncations
	var segments []*segment
	named := l.writer.namesSynced
	for _, s := range l.published.segments {
		if !s.dataSynced {
			segments = append(segments, s)
			named = named && s.namesSynced
		}
	}
	l.writer.Unlock()
	if err := l.syncSegments(segments, false); err != nil {
		return 0, 0, l.fail(err)
	}
	if named {
		return end, truncations, nil
	}
	if err := l.syncNames(); err != nil {
		return 0, 0, l.fail(err)
	}
	l.writer.Lock()
	defer l.writer.Unlock()
	for _, s := range segments {
		s.namesSynced = true
	}
	return end, truncations, nil
}

// raiseSynced notes an fsync of everything below an offset, unless the log was truncated
// since it was begun.
func (l *Log) raiseSynced(offset cluster.Offset, truncations uint64) {
	l.writer.Lock()
	defer l.writer.Unlock()
	if truncations != l.writer.truncations {
		return
	}
	l.synced.Lock()
	defer l.synced.Unlock()
	l.synced.offset = max(l.synced.offset, offset)
}

// lowerSynced is for truncation; the caller holds the writer lock.
func (l *Log) lowerSynced(end cluster.Offset) {
	l.synced.Lock()
	defer l.synced.Unlock()
	l.synced.offset = min(l.synced.offset, end)
	l.synced.turn.Broadcast() // those who wait for more learn that it is gone
}
