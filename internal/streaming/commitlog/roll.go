package commitlog

import (
	"fmt"
	"math"
	"slices"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/record"
)

// maybeRollLocked returns the segment to append to, a new one if the active one is full or
// old (log-format.md 3).
func (l *Log) maybeRollLocked(incoming int64, last cluster.Offset, maxTimestamp int64, config *LogConfig, nowMs int64) (*segment, error) {
	active := l.activeLocked()
	due, err := l.rollDueLocked(active, incoming, last, maxTimestamp, config, nowMs)
	if err != nil {
		return nil, err
	}
	if !due {
		return active, nil
	}
	return l.rollLocked(l.published.end, nowMs)
}

func (l *Log) activeLocked() *segment {
	return l.published.segments[len(l.published.segments)-1]
}

func (l *Log) rollDueLocked(active *segment, incoming int64, last cluster.Offset, maxTimestamp int64, config *LogConfig, nowMs int64) (bool, error) {
	size := active.size.Load()
	if last-active.base > math.MaxInt32 {
		return true, nil
	}
	if size == 0 {
		return false, nil
	}
	if size+incoming > config.SegmentBytes || size+incoming > math.MaxInt32 || active.indexesFull(config.SegmentIndexBytes) {
		return true, nil
	}
	if err := l.learnFirstTimestamp(active); err != nil {
		return false, err
	}
	age := nowMs - active.createdMs
	if active.firstTimestamp >= 0 && maxTimestamp >= 0 {
		age = maxTimestamp - active.firstTimestamp
	}
	return age > config.SegmentMs-l.jitter(config), nil
}

// jitter spreads the partitions' rolls by time. It is a fixed share of segment.jitter.ms
// for each partition, so that it needs no state.
func (l *Log) jitter(config *LogConfig) int64 {
	jitterMax := min(config.SegmentJitterMs, config.SegmentMs)
	if jitterMax <= 0 {
		return 0
	}
	return int64(uint32(cluster.JavaStringHash(l.tp.String()))) % jitterMax
}

// learnFirstTimestamp reads the first batch's header of a segment found at start.
func (l *Log) learnFirstTimestamp(active *segment) error {
	if active.hasFirst {
		return nil
	}
	err := active.scan(l.files, active.size.Load(), func(scanner *headerScanner) error {
		first, _, err := scanner.find(0, func(record.Batch) bool { return true })
		active.firstTimestamp = first.maxTimestamp
		return err
	})
	if err != nil {
		return l.storageError(err)
	}
	active.hasFirst = true
	return nil
}

// rollLocked closes the active segment and starts one at base. The flush that makes the
// old one durable, and moves the recovery point, runs in the background.
func (l *Log) rollLocked(base cluster.Offset, nowMs int64) (*segment, error) {
	old := l.activeLocked()
	if old.base == base {
		return old, nil // empty: nothing to roll
	}
	if err := old.flushIndexes(l.files, true); err != nil {
		return nil, l.fail(err)
	}
	if err := l.takeSnapshotLocked(base, false); err != nil {
		return nil, l.fail(err)
	}
	fresh := newSegment(l.path, base)
	fresh.createdMs = nowMs
	if err := fresh.createFiles(l.files); err != nil {
		return nil, l.fail(err)
	}
	p := &l.published
	p.Lock()
	p.segments = append(slices.Clone(p.segments), fresh)
	p.activeSize = 0
	p.Unlock()
	if !l.writer.flushAsked {
		l.writer.flushAsked = true
		l.background(l, choreFlush)
	}
	l.dir.logger.Debug("segment rolled", "topic", l.tp.Topic, "partition", l.tp.Partition, "base", base)
	return fresh, nil
}

// takeSnapshotLocked writes the producers' state as of the log's end, named by offset.
func (l *Log) takeSnapshotLocked(offset cluster.Offset, durable bool) error {
	producers := &l.writer.producers
	if len(producers.hidden) > 0 || slices.Contains(producers.snapshots, offset) {
		return nil
	}
	path := l.filePath(offsetName(offset, snapshotSuffix))
	if err := writeFile(l.files.fs, path, producers.encode(), durable); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	l.addSnapshotLocked(offset)
	return nil
}

func (l *Log) addSnapshotLocked(offset cluster.Offset) {
	snapshots := &l.writer.producers.snapshots
	if at, found := slices.BinarySearch(*snapshots, offset); !found {
		*snapshots = slices.Insert(*snapshots, at, offset)
	}
}

// trimSnapshotsLocked deletes the snapshots for which drop says so, and those of no use:
// that do not stand at a segment's base, are not the newest, and lie below the recovery
// point on disk, where a start after a crash would begin.
func (l *Log) trimSnapshotsLocked(drop func(cluster.Offset) bool) {
	bases := make(map[cluster.Offset]bool, len(l.published.segments))
	for _, s := range l.published.segments {
		bases[s.base] = true
	}
	snapshots := l.writer.producers.snapshots
	recoveryPoint := l.dir.recoveryPoints.onDisk(l.tp)
	kept := snapshots[:0]
	for i, offset := range snapshots {
		if !drop(offset) && (bases[offset] || i == len(snapshots)-1 || offset >= recoveryPoint) {
			kept = append(kept, offset)
			continue
		}
		path := l.filePath(offsetName(offset, snapshotSuffix))
		if err := l.files.fs.Remove(path); err != nil {
			l.dir.logger.Warn("old producer snapshot not removed", "path", path, "error", err)
		}
	}
	l.writer.producers.snapshots = kept
}

func never(cluster.Offset) bool { return false }
