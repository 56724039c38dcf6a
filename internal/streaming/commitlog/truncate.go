package commitlog

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/record"

	"github.com/twmb/franz-go/pkg/kerr"
)

// TruncateTo removes everything at and above an offset; at or above the end it only trims
// the epoch cache (which must happen, see UnifiedLog.truncateTo). An offset within a batch
// removes the whole batch.
func (l *Log) TruncateTo(offset cluster.Offset) error {
	if err := l.Failed(); err != nil {
		return err
	}
	if offset < 0 {
		return fmt.Errorf("commitlog: truncate %s to negative offset %d: %w", l.tp, offset, kerr.OffsetOutOfRange)
	}
	return l.examining(func() error { return l.truncateTo(offset) })
}

func (l *Log) truncateTo(offset cluster.Offset) error {
	if l.truncateEpochsOnly(offset) {
		return nil
	}
	l.flushing.Lock() // a flush under way must not move the recovery point above the cut
	defer l.flushing.Unlock()
	if l.truncateEpochsOnly(offset) {
		return nil
	}
	l.writer.Lock()
	defer l.writer.Unlock()
	from := l.published.end
	if offset >= from {
		return nil
	}
	offset = l.beforeDoubt(offset)
	if offset < l.published.segments[0].base {
		return l.restartLocked(offset)
	}
	if err := l.truncateLocked(offset); err != nil {
		return err
	}
	l.dir.logger.Info("log truncated", "topic", l.tp.Topic, "partition", l.tp.Partition, "from", from, "to", l.published.end)
	return nil
}

// beforeDoubt moves a cut where an epoch begins right behind a damaged stretch to before the
// stretch. What is damaged there may be of the later epoch, of which the epoch cache made from
// the other batches knows no more; then it is not what the leader has at these offsets.
func (l *Log) beforeDoubt(offset cluster.Offset) cluster.Offset {
	for _, d := range l.Damages() {
		if d.Next == offset && l.epochs.forOffset(offset) != l.epochs.forOffset(offset-1) {
			return d.First
		}
	}
	return offset
}

// truncateEpochsOnly serves a truncation at or above the end, without waiting for a flush.
func (l *Log) truncateEpochsOnly(offset cluster.Offset) bool {
	l.writer.Lock()
	defer l.writer.Unlock()
	if offset < l.published.end {
		return false
	}
	if l.epochs.truncateFromEnd(l.published.end) {
		l.background(l, choreFiles)
	}
	return true
}

func (l *Log) truncateLocked(offset cluster.Offset) error {
	keep := view{segments: l.published.segments}.floor(offset) + 1
	active := l.published.segments[keep-1]
	size, end, err := l.findCut(active, keep == len(l.published.segments), offset)
	if err != nil {
		return l.lookError(err)
	}
	if err := l.lowerRecoveryPointLocked(end); err != nil {
		return l.fail(err)
	}
	dropped := l.published.segments[keep:]
	l.published.Lock()
	p := &l.published
	p.segments = slices.Clone(p.segments[:keep])
	p.activeSize, p.end = size, end
	p.start = min(p.start, end)
	p.highWatermark = min(p.highWatermark, end)
	p.Unlock()
	l.hints.clear()
	l.settleTailLocked()
	l.writer.truncations++
	l.writer.dirty = true
	l.lowerSynced(end)

	if err := l.dropSegmentsLocked(dropped); err != nil {
		return l.fail(err)
	}
	if err := l.cutSegmentLocked(active, size, end); err != nil {
		return l.fail(err)
	}
	if l.epochs.truncateFromEnd(end) {
		l.background(l, choreFiles)
	}
	if err := l.reloadProducersLocked(end); err != nil {
		return l.fail(err)
	}
	return nil
}

// findCut finds where a segment has to be cut for the log to end at an offset or, if that
// is within a batch, before the batch.
func (l *Log) findCut(s *segment, active bool, offset cluster.Offset) (size int64, end cluster.Offset, err error) {
	limit := s.size.Load()
	if active {
		limit = l.published.activeSize
	}
	entry, err := s.lookupOffset(l.files, offset)
	if err != nil {
		return 0, 0, err
	}
	err = s.scan(l.files, limit, func(scanner *headerScanner) error {
		batch, ok, err := scanner.find(min(entry.position, limit), func(header record.Batch) bool { return header.LastOffset() >= offset })
		size, end = batch.position, offset
		if ok {
			end = min(offset, batch.base)
		}
		return err
	})
	for _, d := range s.integrity.damages() { // a cut within a damaged stretch takes it all
		if d.First <= offset && offset < d.Next {
			size, end = d.From, min(end, d.First)
		}
	}
	return size, end, err
}

func (l *Log) cutSegmentLocked(s *segment, size int64, end cluster.Offset) error {
	file, err := l.files.acquire(&s.log)
	if err != nil {
		return err
	}
	err = file.Truncate(size)
	l.files.release(&s.log)
	if err != nil {
		return fmt.Errorf("truncate %s: %w", s.log.path(), err)
	}
	s.size.Store(size)
	s.integrity.truncate(size)
	s.dataSynced = false
	s.hasFirst = s.hasFirst && size > 0
	if err := s.truncateIndexes(l.files, end); err != nil {
		return err
	}
	if err := s.truncateTxnIndex(l.files, end); err != nil {
		return err
	}
	return l.resumeIndexes(s, size)
}

// resumeIndexes makes up for what the index files do not tell about the stretch behind
// their last entry: the bytes since then, and the largest timestamp.
func (l *Log) resumeIndexes(s *segment, size int64) error {
	entry, err := s.lookupPosition(l.files, size)
	if err != nil {
		return err
	}
	s.sinceEntry = size - entry.position
	return s.scan(l.files, size, func(scanner *headerScanner) error {
		_, _, err := scanner.find(entry.position, func(header record.Batch) bool {
			s.index.Lock()
			if timestamp := header.MaxTimestamp(); timestamp > s.index.maxTimestamp {
				s.index.maxTimestamp, s.index.maxOffset = timestamp, header.LastOffset()
			}
			s.index.maxKnown = true
			s.index.Unlock()
			return false
		})
		return err
	})
}

// lowerRecoveryPointLocked writes the checkpoint before data below the recovery point is
// replaced: after a crash it must be looked at again.
func (l *Log) lowerRecoveryPointLocked(offset cluster.Offset) error {
	if offset >= l.writer.recoveryPoint {
		return nil
	}
	l.writer.recoveryPoint = offset
	l.dir.recoveryPoints.set(l.tp, offset)
	return l.dir.recoveryPoints.write(true)
}

// TruncateFullyAndStartAt removes everything and goes on at an offset.
func (l *Log) TruncateFullyAndStartAt(offset cluster.Offset) error {
	if err := l.Failed(); err != nil {
		return err
	}
	l.flushing.Lock()
	defer l.flushing.Unlock()
	l.writer.Lock()
	defer l.writer.Unlock()
	return l.restartLocked(offset)
}

func (l *Log) restartLocked(offset cluster.Offset) error {
	if err := l.lowerRecoveryPointLocked(min(offset, l.published.segments[0].base)); err != nil {
		return l.fail(err)
	}
	old := l.published.segments
	// The old files go first: one of them may have the new one's name.
	if err := l.dropSegmentsLocked(old); err != nil {
		return l.fail(err)
	}
	fresh := newSegment(l.path, offset)
	fresh.createdMs = l.nowMs()
	if err := fresh.createFiles(l.files); err != nil {
		return l.fail(err)
	}
	p := &l.published
	p.Lock()
	p.segments, p.activeSize = []*segment{fresh}, 0
	p.start, p.end, p.highWatermark = offset, offset, offset
	p.hasUnstable = false
	p.Unlock()
	l.hints.clear()
	l.settleTailLocked()
	l.writer.truncations++
	l.writer.dirty = true
	l.lowerSynced(offset)
	l.writer.recoveryPoint = offset
	l.dir.recoveryPoints.set(l.tp, offset)
	l.dir.starts.remove(l.tp)
	l.epochs.clear()
	l.trimSnapshotsLocked(func(cluster.Offset) bool { return true })
	l.writer.producers = producerTable{snapshots: l.writer.producers.snapshots}
	l.background(l, choreFiles)
	l.dir.logger.Info("log restarted", "topic", l.tp.Topic, "partition", l.tp.Partition, "at", offset)
	return nil
}

// AdvanceStart raises the log start offset (DeleteRecords, or a leader's higher one); whole
// segments below it go at the next retention run. A start that is not higher is ignored;
// OFFSET_OUT_OF_RANGE above the end. Above the high watermark is for the caller to refuse.
func (l *Log) AdvanceStart(offset cluster.Offset) error {
	if err := l.Failed(); err != nil {
		return err
	}
	l.writer.Lock()
	defer l.writer.Unlock()
	p := &l.published
	if offset > p.end {
		return fmt.Errorf("commitlog: start of %s cannot move to %d, above the end %d: %w", l.tp, offset, p.end, kerr.OffsetOutOfRange)
	}
	if offset <= p.start {
		return nil
	}
	p.Lock()
	p.start = offset
	p.highWatermark = max(p.highWatermark, offset)
	p.Unlock()
	if l.epochs.truncateFromStart(offset) {
		l.background(l, choreFiles)
	}
	l.dir.starts.set(l.tp, offset)
	return nil
}

// dropSegmentsLocked renames the files of segments that are no longer published, and hands
// them over for removal. Readers that hold one keep it.
func (l *Log) dropSegmentsLocked(dropped []*segment) error {
	for _, s := range dropped {
		s.forget(l.files)
		for _, suffix := range []string{logSuffix, indexSuffix, timeIndexSuffix, txnIndexSuffix} {
			if suffix == txnIndexSuffix && !s.hasTxnIndex.Load() {
				continue
			}
			path := l.filePath(offsetName(s.base, suffix))
			err := l.files.fs.Rename(path, path+deletedSuffix)
			if errors.Is(err, fs.ErrNotExist) {
				continue // an index that was not there
			}
			if err != nil {
				return err
			}
			l.dir.remover.later(path+deletedSuffix, l.config.Load().FileDeleteDelayMs)
		}
	}
	return nil
}

// reloadProducersLocked makes the producers' state be that of the log's new end.
func (l *Log) reloadProducersLocked(end cluster.Offset) error {
	l.trimSnapshotsLocked(func(offset cluster.Offset) bool { return offset > end })
	if err := l.loadProducersLocked(end); err != nil {
		return err
	}
	l.publishUnstableLocked()
	return nil
}
