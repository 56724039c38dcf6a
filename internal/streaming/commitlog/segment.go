package commitlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"sync/atomic"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/record"
)

// segment is a stretch of a log: a file of batches with its indexes. The last segment of a
// log is the active one, which grows; the others change only by truncation and deletion.
type segment struct {
	base cluster.Offset
	log  cachedFile
	// size is the number of valid bytes in the file. It is written under the log's writer
	// lock. For the active segment readers use the size published with the end offset.
	size atomic.Int64

	hasTxnIndex atomic.Bool
	integrity   integrity
	// timesChecked says that the time index was made by this process.
	timesChecked atomic.Bool

	// For the writer, under the log's writer lock.
	sinceEntry     int64 // bytes appended since the last offset index entry
	createdMs      int64
	firstTimestamp int64 // of the first batch (its maximum); meaningful if hasFirst
	hasFirst       bool
	namesSynced    bool // the directory was synced after the files were made
	dataSynced     bool // inactive, and everything was fsynced

	index struct {
		sync.RWMutex
		offsets entryFile
		times   entryFile
		// The largest timestamp and the last offset of the batch that has it. Unknown
		// (maxKnown false) until first asked for in segments found at start.
		maxKnown     bool
		maxTimestamp int64
		maxOffset    cluster.Offset
	}
}

func newSegment(dir string, base cluster.Offset) *segment {
	s := &segment{base: base, log: cachedFile{dir: dir, base: base, suffix: logSuffix}}
	s.index.offsets = entryFile{width: offsetEntrySize, file: cachedFile{dir: dir, base: base, suffix: indexSuffix}}
	s.index.times = entryFile{width: timeEntrySize, file: cachedFile{dir: dir, base: base, suffix: timeIndexSuffix}}
	s.index.maxTimestamp, s.index.maxOffset = record.NoTimestamp, base
	return s
}

// createFiles makes the segment's files, empty; Apache's broker rebuilds a segment whose
// .index is missing.
func (s *segment) createFiles(files *fileCache) error {
	for _, f := range []*cachedFile{&s.log, &s.index.offsets.file, &s.index.times.file} {
		file, err := files.acquire(f)
		if err != nil {
			return err
		}
		err = file.Truncate(0)
		files.release(f)
		if err != nil {
			return fmt.Errorf("create %s: %w", f.path(), err)
		}
	}
	s.index.maxKnown = true
	s.integrity.startOwn()
	s.timesChecked.Store(true)
	return nil
}

// forget closes the segment's files when nobody uses them, and makes the segment unusable.
func (s *segment) forget(files *fileCache) {
	files.forget(&s.log)
	files.forget(&s.index.offsets.file)
	files.forget(&s.index.times.file)
}

// noteBatch keeps the indexes up with a batch at a position, appended or found in
// recovery; interval is index.interval.bytes.
func (s *segment) noteBatch(files *fileCache, lastOffset cluster.Offset, maxTimestamp int64, position, size int64, interval int32) error {
	if !s.hasFirst {
		s.firstTimestamp, s.hasFirst = maxTimestamp, true
	}
	s.index.Lock()
	defer s.index.Unlock()
	if maxTimestamp > s.index.maxTimestamp {
		s.index.maxTimestamp, s.index.maxOffset = maxTimestamp, lastOffset
	}
	if s.sinceEntry > int64(interval) && position > 0 {
		var entry [offsetEntrySize]byte
		binary.BigEndian.PutUint32(entry[:], uint32(lastOffset-s.base))
		binary.BigEndian.PutUint32(entry[4:], uint32(position))
		if err := s.index.offsets.appendEntry(files, entry[:]); err != nil {
			return err
		}
		if err := s.noteTimeLocked(files); err != nil {
			return err
		}
		s.sinceEntry = 0
	}
	s.sinceEntry += size
	return nil
}

// noteTimeLocked adds the largest timestamp so far to the time index, if it is news.
func (s *segment) noteTimeLocked(files *fileCache) error {
	if s.index.maxTimestamp < 0 {
		return nil
	}
	last, ok, err := s.lastTimeLocked(files)
	if err != nil || ok && last.timestamp >= s.index.maxTimestamp {
		return err
	}
	var entry [timeEntrySize]byte
	binary.BigEndian.PutUint64(entry[:], uint64(s.index.maxTimestamp))
	binary.BigEndian.PutUint32(entry[8:], uint32(s.index.maxOffset-s.base))
	return s.index.times.appendEntry(files, entry[:])
}

func (s *segment) lastTimeLocked(files *fileCache) (timeEntry, bool, error) {
	count := s.index.times.count()
	if count == 0 {
		return timeEntry{}, false, nil
	}
	var entry [timeEntrySize]byte
	if err := s.index.times.read(files, entry[:], count-1); err != nil {
		return timeEntry{}, false, err
	}
	return decodeTimeEntry(entry[:], s.base), true, nil
}

// flushIndexes writes what the indexes hold in memory; final also adds the last word on
// timestamps, as a roll or a clean close does.
func (s *segment) flushIndexes(files *fileCache, final bool) error {
	s.index.Lock()
	defer s.index.Unlock()
	if final && s.index.maxKnown {
		if err := s.noteTimeLocked(files); err != nil {
			return err
		}
	}
	if err := s.index.offsets.flush(files); err != nil {
		return err
	}
	return s.index.times.flush(files)
}

// indexesFull reports whether the segment must be rolled before the next entry; the time
// index keeps a slot for the last word on timestamps.
func (s *segment) indexesFull(indexBytes int32) bool {
	s.index.RLock()
	defer s.index.RUnlock()
	return s.index.offsets.count() >= int(indexBytes)/offsetEntrySize ||
		s.index.times.count() >= int(indexBytes)/timeEntrySize-1
}

// lookupOffset returns the greatest index entry whose offset is at most offset; without
// one, the segment's beginning.
func (s *segment) lookupOffset(files *fileCache, offset cluster.Offset) (offsetEntry, error) {
	relative := min(offset-s.base, math.MaxInt32)
	if relative < 0 {
		return offsetEntry{offset: s.base}, nil
	}
	return s.lookup(files, func(entry []byte) bool {
		return binary.BigEndian.Uint32(entry) <= uint32(relative)
	})
}

// lookupPosition returns the greatest index entry whose position is at most position.
func (s *segment) lookupPosition(files *fileCache, position int64) (offsetEntry, error) {
	return s.lookup(files, func(entry []byte) bool {
		return int64(binary.BigEndian.Uint32(entry[4:])) <= position
	})
}

func (s *segment) lookup(files *fileCache, below func([]byte) bool) (offsetEntry, error) {
	s.index.RLock()
	defer s.index.RUnlock()
	buffer := searchBuffers.Get().(*searchBuffer)
	defer searchBuffers.Put(buffer)
	_, entry, err := s.index.offsets.search(files, buffer, below)
	if err != nil || entry == nil {
		return offsetEntry{offset: s.base}, err
	}
	return decodeOffsetEntry(entry, s.base), nil
}

// lookupTime returns the greatest time index entry below timestamp: nothing up to its
// offset is as young as timestamp. Without one, the segment's beginning.
func (s *segment) lookupTime(files *fileCache, timestamp int64) (timeEntry, error) {
	s.index.RLock()
	defer s.index.RUnlock()
	buffer := searchBuffers.Get().(*searchBuffer)
	defer searchBuffers.Put(buffer)
	_, entry, err := s.index.times.search(files, buffer, func(entry []byte) bool {
		return int64(binary.BigEndian.Uint64(entry)) < timestamp
	})
	if err != nil || entry == nil {
		return timeEntry{timestamp: record.NoTimestamp, offset: s.base}, err
	}
	return decodeTimeEntry(entry, s.base), nil
}

// largestTimestamp is the largest of the segment's timestamps, or NoTimestamp.
func (s *segment) largestTimestamp(files *fileCache) (int64, error) {
	s.index.RLock()
	known, timestamp := s.index.maxKnown, s.index.maxTimestamp
	s.index.RUnlock()
	if known {
		return timestamp, nil
	}
	s.index.RLock()
	last, ok, err := s.lastTimeLocked(files)
	s.index.RUnlock()
	if err == nil && ok {
		err = s.checkTime(files, last)
	}
	if err != nil {
		return record.NoTimestamp, err
	}
	s.index.Lock()
	defer s.index.Unlock()
	if err := s.loadMaxLocked(files); err != nil {
		return record.NoTimestamp, err
	}
	return s.index.maxTimestamp, nil
}

// checkTime compares a time index entry with the batch that it speaks of: one that a bit
// has flipped in would hide records from searches, or segments from retention.
func (s *segment) checkTime(files *fileCache, entry timeEntry) error {
	if s.timesChecked.Load() {
		return nil
	}
	position, err := s.lookupOffset(files, entry.offset)
	if err != nil {
		return err
	}
	limit := s.size.Load()
	return s.scan(files, limit, func(scanner *headerScanner) error {
		batch, ok, err := scanner.find(min(position.position, limit), func(header record.Batch) bool { return header.LastOffset() >= entry.offset })
		if err == nil && (!ok || batch.base > entry.offset || batch.maxTimestamp != entry.timestamp) {
			err = suspect(s, "its time index speaks of timestamp %d at offset %d", entry.timestamp, entry.offset)
		}
		return err
	})
}

// loadMaxLocked takes the largest timestamp from the time index's last entry, as Kafka
// does for segments that it did not write itself.
func (s *segment) loadMaxLocked(files *fileCache) error {
	if s.index.maxKnown {
		return nil
	}
	last, ok, err := s.lastTimeLocked(files)
	if err != nil {
		return err
	}
	if ok {
		s.index.maxTimestamp, s.index.maxOffset = last.timestamp, last.offset
	}
	s.index.maxKnown = true
	return nil
}

// rebuildIndexes makes the indexes anew from what a survey found and what was appended since.
func (s *segment) rebuildIndexes(files *fileCache, found *survey, interval int32, active bool) error {
	s.index.Lock()
	err := errors.Join(s.index.offsets.truncate(files, 0), s.index.times.truncate(files, 0))
	s.index.maxKnown, s.index.maxTimestamp, s.index.maxOffset = true, record.NoTimestamp, s.base
	s.index.Unlock()
	if err != nil {
		return err
	}
	s.timesChecked.Store(true)
	s.sinceEntry = 0
	for _, b := range found.batches {
		if err := s.noteBatch(files, b.last, b.timestamp, b.position, b.size, interval); err != nil {
			return err
		}
	}
	err = s.walk(files, found.limit, s.size.Load(), func(header record.Batch, position, size int64, _ io.ReaderAt) error {
		return s.noteBatch(files, header.LastOffset(), header.MaxTimestamp(), position, size, interval)
	})
	if err != nil {
		return err
	}
	return s.flushIndexes(files, !active)
}

// truncateIndexes drops the entries at and above an offset.
func (s *segment) truncateIndexes(files *fileCache, offset cluster.Offset) error {
	s.index.Lock()
	defer s.index.Unlock()
	relative := uint32(max(offset-s.base, 0))
	buffer := searchBuffers.Get().(*searchBuffer)
	defer searchBuffers.Put(buffer)
	count, _, err := s.index.offsets.search(files, buffer, func(entry []byte) bool {
		return binary.BigEndian.Uint32(entry) < relative
	})
	if err != nil {
		return err
	}
	if err := s.index.offsets.truncate(files, count); err != nil {
		return err
	}
	count, _, err = s.index.times.search(files, buffer, func(entry []byte) bool {
		return binary.BigEndian.Uint32(entry[8:]) < relative
	})
	if err != nil {
		return err
	}
	if err := s.index.times.truncate(files, count); err != nil {
		return err
	}
	s.index.maxKnown, s.index.maxTimestamp, s.index.maxOffset = false, record.NoTimestamp, s.base
	return s.loadMaxLocked(files)
}
