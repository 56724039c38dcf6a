package commitlog

import (
	"errors"
	"fmt"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/record"
)

// TimestampOffset is the answer to a search by time.
type TimestampOffset struct {
	TimestampMs int64
	Offset      cluster.Offset
	LeaderEpoch cluster.LeaderEpoch
}

// OffsetForTimestamp finds the first record whose timestamp is at least timestampMs.
func (l *Log) OffsetForTimestamp(timestampMs int64) (found TimestampOffset, ok bool, err error) {
	err = l.examining(func() error {
		found, ok, err = l.offsetForTimestamp(timestampMs)
		return err
	})
	return found, ok, err
}

func (l *Log) offsetForTimestamp(timestampMs int64) (found TimestampOffset, ok bool, err error) {
	if err := l.Failed(); err != nil {
		return found, false, err
	}
	now := l.view()
	for i := now.floor(now.start); i < len(now.segments); i++ {
		s := now.segments[i]
		largest, err := s.largestTimestamp(l.files)
		if errors.Is(err, errForgotten) {
			continue // deleted meanwhile: it is below the new start
		}
		if err != nil {
			return found, false, l.lookError(err)
		}
		if largest < timestampMs {
			continue
		}
		found, ok, err = l.searchSegment(s, now, i, timestampMs)
		if errors.Is(err, errForgotten) {
			continue // the same, a moment later
		}
		if ok || err != nil {
			return found, ok, err
		}
	}
	return found, false, nil
}

// MaxTimestampOffset finds the first record with the largest timestamp.
func (l *Log) MaxTimestampOffset() (found TimestampOffset, ok bool, err error) {
	err = l.examining(func() error {
		found, ok, err = l.maxTimestampOffset()
		return err
	})
	return found, ok, err
}

func (l *Log) maxTimestampOffset() (found TimestampOffset, ok bool, err error) {
	now := l.view()
	largest := record.NoTimestamp
	for _, s := range now.segments[now.floor(now.start):] {
		timestamp, err := s.largestTimestamp(l.files)
		if err != nil && !errors.Is(err, errForgotten) {
			return found, false, l.lookError(err)
		}
		largest = max(largest, timestamp)
	}
	if largest < 0 {
		return found, false, l.Failed()
	}
	return l.offsetForTimestamp(largest)
}

func (l *Log) searchSegment(s *segment, now view, i int, timestampMs int64) (found TimestampOffset, ok bool, err error) {
	after, err := s.lookupTime(l.files, timestampMs)
	if err == nil && after.timestamp != record.NoTimestamp {
		err = s.checkTime(l.files, after)
	}
	if err != nil {
		return found, false, l.lookError(err)
	}
	target := max(after.offset, now.start)
	entry, err := s.lookupOffset(l.files, target)
	if err != nil {
		return found, false, l.storageError(err)
	}
	limit := now.limit(i)
	err = s.scan(l.files, limit, func(scanner *headerScanner) error {
		position := min(entry.position, limit)
		if position > 0 { // an index that leads past what it is asked for is not believed
			first, there, err := scanner.find(position, func(record.Batch) bool { return true })
			if err != nil || !there || first.base > target {
				position = 0
			}
		}
		for !ok {
			candidate, more, err := scanner.find(position, func(header record.Batch) bool {
				return header.MaxTimestamp() >= timestampMs && header.LastOffset() >= now.start
			})
			if err != nil || !more {
				return err
			}
			if found, ok, err = searchBatch(scanner, candidate, timestampMs, now.start); err != nil {
				return err
			}
			position = candidate.position + candidate.size
		}
		return nil
	})
	if err != nil {
		return found, false, fmt.Errorf("commitlog: search %s by time: %w", l.tp, err)
	}
	return found, ok, nil
}

// searchBatch looks into a batch for the first record old enough; compressed ones are
// decompressed for it.
func searchBatch(scanner *headerScanner, candidate located, timestampMs int64, start cluster.Offset) (found TimestampOffset, ok bool, err error) {
	data := make([]byte, candidate.size)
	if n, err := scanner.file.ReadAt(data, candidate.position); n < len(data) {
		return found, false, fmt.Errorf("read %s: %w", scanner.path(), err)
	}
	batch := record.Batch(data)
	for r, err := range batch.Records(decompressedMax) {
		if err != nil {
			return found, false, scanner.corrupt(candidate.position, err)
		}
		if r.TimestampMs >= timestampMs && r.Offset >= start {
			return TimestampOffset{r.TimestampMs, r.Offset, batch.LeaderEpoch()}, true, nil
		}
	}
	return found, false, nil
}
