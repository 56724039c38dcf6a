package commitlog

import (
	"errors"

	"understudy/internal/streaming/cluster"
)

// deleteOld removes the segments that retention by time or size, or the log start offset,
// has left behind (log-format.md 8): oldest first, only below the high watermark. A
// topic whose cleanup.policy lacks delete loses only what lies below its start.
func (l *Log) deleteOld(nowMs int64) error {
	return l.examining(func() error { return l.deleteOldOnce(nowMs) })
}

func (l *Log) deleteOldOnce(nowMs int64) error {
	if !l.configured.Load() || l.Failed() != nil {
		return nil
	}
	config := l.config.Load()
	l.writer.Lock()
	defer l.writer.Unlock()
	count, err := l.countOldLocked(config, nowMs)
	if err != nil || count == 0 {
		return err
	}
	segments := l.published.segments
	if count == len(segments) {
		// The active segment is due too: go on in a new one.
		if _, err := l.rollLocked(l.published.end, nowMs); err != nil {
			return err
		}
		segments = l.published.segments
	}
	dropped, kept := segments[:count], segments[count:]
	p := &l.published
	p.Lock()
	from := p.start
	p.segments = kept
	p.start = max(p.start, kept[0].base)
	start := p.start
	p.Unlock()
	l.hints.clear()
	if l.epochs.truncateFromStart(start) {
		l.background(l, choreFiles)
	}
	if err := l.dropSegmentsLocked(dropped); err != nil {
		return l.fail(err)
	}
	l.trimSnapshotsLocked(func(offset cluster.Offset) bool { return offset < kept[0].base })
	if start == kept[0].base {
		l.dir.starts.remove(l.tp) // the files say it
	} else {
		l.dir.starts.set(l.tp, start)
	}
	l.dir.logger.Info("old segments deleted", "topic", l.tp.Topic, "partition", l.tp.Partition, "segments", count, "from", from, "to", start)
	return nil
}

// countOldLocked is the number of segments, from the first, that may go. It counts the
// active one only if it holds something.
func (l *Log) countOldLocked(config *LogConfig, nowMs int64) (int, error) {
	now := l.view()
	highWatermark := l.HighWatermark()
	excess := int64(-1)
	if config.Delete && config.RetentionBytes >= 0 {
		excess = -config.RetentionBytes
		for i := range now.segments {
			excess += now.limit(i)
		}
	}
	count := 0
	for i, s := range now.segments {
		size := now.limit(i)
		if size == 0 && i == len(now.segments)-1 || now.endOf(i) > highWatermark {
			break
		}
		old := now.endOf(i) <= now.start
		if !old && excess >= 0 && excess-size >= 0 {
			old = true
		}
		if !old && config.Delete && config.RetentionMs >= 0 {
			age, err := l.segmentAge(s, nowMs)
			if err != nil {
				return 0, l.lookError(err)
			}
			old = age > config.RetentionMs
		}
		if !old {
			break
		}
		excess -= size
		count++
	}
	return count, nil
}

// segmentAge is the time since the segment's largest timestamp; without timestamps, since
// the file was last written.
func (l *Log) segmentAge(s *segment, nowMs int64) (int64, error) {
	timestamp, err := s.largestTimestamp(l.files)
	if err != nil {
		return 0, err
	}
	if timestamp >= 0 {
		return nowMs - timestamp, nil
	}
	info, err := l.files.fs.Stat(s.log.path())
	if err != nil {
		return 0, err
	}
	return nowMs - info.ModTime().UnixMilli(), nil
}

func isForgotten(err error) bool { return errors.Is(err, errForgotten) }
