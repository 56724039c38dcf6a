package commitlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/record"
	"understudy/internal/vfs"
)

// recoverSegment checks a segment's batches, checksums included, from the last place known
// to be durable on, and rebuilds the indexes from there. It returns the number of good
// bytes and where the segment ends; damage is not nil if there are bytes after those.
// After a crash (unclean) what other files say of the batches to be checked is forgotten,
// and read off the batches again: a truncation that had not reached the disk may have been
// undone, so that old batches stand where those files speak of new ones.
//
// latest is the leader epoch of the batch before the segment: the batches are believed, and not
// the epoch checkpoint, in which a wrong digit would have good batches cut off.
func (l *Log) recoverSegment(s *segment, recoveryPoint cluster.Offset, unclean bool, latest cluster.LeaderEpoch) (good int64, end cluster.Offset, damage error, err error) {
	file, err := l.files.acquire(&s.log)
	if err != nil {
		return 0, 0, nil, err
	}
	defer l.files.release(&s.log)
	reader := &batchReader{file: file, path: s.log.path, limit: s.size.Load(), buffer: make([]byte, min(recoveryBuffer, max(s.size.Load(), record.HeaderSize)))}

	position, err := l.trustedStart(s, reader, recoveryPoint)
	if err != nil {
		return 0, 0, nil, err
	}
	if position == 0 {
		if err := s.truncateIndexes(l.files, s.base); err != nil {
			return 0, 0, nil, err
		}
	}
	if unclean {
		l.epochs.truncateFromEnd(max(recoveryPoint, s.base))
		if err := s.truncateTxnIndex(l.files, recoveryPoint); err != nil {
			return 0, 0, nil, err
		}
	}
	checkedFrom, checkedFirst := position, cluster.Offset(-1)
	s.sinceEntry, s.hasFirst = 0, false
	interval := l.config.Load().IndexIntervalBytes
	end = s.base
	contiguous := true
	for position < reader.limit {
		header, size, err := reader.check(position)
		if err == nil {
			err = l.checkSuccession(reader, position, header, end, recoveryPoint, unclean, latest)
		}
		if err == nil && header.BaseOffset() > end && (position > checkedFrom || reader.fromStart) {
			// The base offset is under no checksum, and nothing follows the last batch that
			// would contradict it. Only what a compacted log was copied from has gaps, and
			// then more than this one.
			if unclean && contiguous && position+size == reader.limit {
				err = reader.corrupt(position, fmt.Errorf("batch at offset %d follows offset %d at once", header.BaseOffset(), end-1))
			}
			contiguous = false
		}
		if err != nil {
			if errors.Is(err, ErrCorrupt) && !errors.Is(err, errLegacyFormat) {
				s.integrity.note(stretch{checkedFrom, position, checkedFirst, end})
				return position, end, err, nil
			}
			return 0, 0, nil, err
		}
		if err := s.noteBatch(l.files, header.LastOffset(), header.MaxTimestamp(), position, size, interval); err != nil {
			return 0, 0, nil, err
		}
		latest = max(latest, header.LeaderEpoch())
		if checkedFirst < 0 {
			checkedFirst = header.BaseOffset()
		}
		if epoch := header.LeaderEpoch(); epoch > l.epochs.latest() {
			l.epochs.assign(epoch, header.BaseOffset())
		}
		end = header.NextOffset()
		position += size
	}
	s.hasFirst = s.hasFirst && reader.fromStart
	s.integrity.note(stretch{checkedFrom, position, checkedFirst, end})
	return position, end, nil, nil
}

// checkSuccession verifies that a batch can follow what the log holds before it. Leader
// epochs never decrease along a log: where they do, past the recovery point, a power
// failure has put pieces of two histories together.
func (l *Log) checkSuccession(reader *batchReader, position int64, header record.Batch, end, recoveryPoint cluster.Offset, unclean bool, latest cluster.LeaderEpoch) error {
	if header.BaseOffset() < end {
		return reader.corrupt(position, fmt.Errorf("batch at offset %d follows offset %d", header.BaseOffset(), end-1))
	}
	epoch := header.LeaderEpoch()
	if unclean && header.BaseOffset() >= recoveryPoint && epoch >= 0 && epoch < latest {
		return reader.corrupt(position, fmt.Errorf("batch of leader epoch %d follows epoch %d", epoch, latest))
	}
	return nil
}

// trustedStart finds a batch below the recovery point from which to check on, and cuts the
// indexes to what lies before it. It trusts an index entry only if the batch it points to
// is whole and covers it: after a crash an index may hold anything.
func (l *Log) trustedStart(s *segment, reader *batchReader, recoveryPoint cluster.Offset) (int64, error) {
	reader.fromStart = true
	if recoveryPoint <= s.base {
		return 0, nil
	}
	const indexBytesMax = 64 << 20
	if int64(s.index.offsets.onDisk)*offsetEntrySize > indexBytesMax {
		return 0, nil
	}
	data := make([]byte, s.index.offsets.onDisk*offsetEntrySize)
	if err := s.index.offsets.read(l.files, data, 0); err != nil {
		return 0, err
	}
	count := validOffsetEntries(data, s.base, reader.limit)
	for count > 0 && decodeOffsetEntry(data[(count-1)*offsetEntrySize:], s.base).offset >= recoveryPoint {
		count--
	}
	if count == 0 {
		return 0, nil
	}
	entry := decodeOffsetEntry(data[(count-1)*offsetEntrySize:], s.base)
	header, _, err := reader.check(entry.position)
	if err != nil && !errors.Is(err, ErrCorrupt) {
		return 0, err
	}
	points := err == nil && header.BaseOffset() <= entry.offset && header.BaseOffset() >= s.base
	if !points {
		return 0, nil
	}
	if err := s.index.offsets.truncate(l.files, count); err != nil {
		return 0, err
	}
	if err := l.trustTimes(s, entry.offset); err != nil {
		return 0, err
	}
	reader.fromStart = false
	return entry.position, nil
}

// trustTimes cuts the time index to the entries up to an offset, and takes the largest
// timestamp from it.
func (l *Log) trustTimes(s *segment, bound cluster.Offset) error {
	data := make([]byte, s.index.times.onDisk*timeEntrySize)
	if err := s.index.times.read(l.files, data, 0); err != nil {
		return err
	}
	if err := s.index.times.truncate(l.files, validTimeEntries(data, s.base, bound)); err != nil {
		return err
	}
	s.index.Lock()
	defer s.index.Unlock()
	return s.loadMaxLocked(l.files)
}

// batchReader reads and checks whole batches of a segment in sequence, through a buffer of
// fixed size: a damaged length must not make us allocate by it.
type batchReader struct {
	file   vfs.File
	path   func() string
	limit  int64
	buffer []byte
	start  int64 // position of the buffer's content
	filled int
	// fromStart says that the scan began with the segment's first batch.
	fromStart bool
}

var errLegacyFormat = errors.New("it holds messages of format 0 or 1, which are not supported: " +
	"rewrite the topic with a broker of version 3.x before moving its files")

func (r *batchReader) corrupt(position int64, cause error) error {
	return &CorruptionError{Path: r.path(), Position: position, Cause: cause}
}

// window returns n bytes at a position; n is at most the buffer's size.
func (r *batchReader) window(position int64, n int) ([]byte, error) {
	if position < r.start || position+int64(n) > r.start+int64(r.filled) {
		got, err := r.file.ReadAt(r.buffer[:min(int64(len(r.buffer)), r.limit-position)], position)
		if got < n {
			if err == nil || errors.Is(err, io.EOF) {
				return nil, r.corrupt(position, errTorn)
			}
			return nil, fmt.Errorf("read %s: %w", r.path(), err)
		}
		r.start, r.filled = position, got
	}
	return r.buffer[position-r.start:][:n], nil
}

// check returns the header of a batch whose checksum and structure are right.
func (r *batchReader) check(position int64) (header record.Batch, size int64, err error) {
	if position+record.HeaderSize > r.limit {
		return nil, 0, r.corrupt(position, errTorn)
	}
	data, err := r.window(position, record.HeaderSize)
	if err != nil {
		return nil, 0, err
	}
	total, err := record.PeekSize(data)
	if err != nil {
		return nil, 0, r.corrupt(position, err)
	}
	if int64(total) > r.limit-position {
		return nil, 0, r.corrupt(position, errTorn)
	}
	header = record.Batch(data)
	if magic := header.Magic(); magic != record.CurrentMagic {
		return nil, 0, r.corrupt(position, r.unknownMagic(position, total, magic))
	}
	if total < record.HeaderSize {
		return nil, 0, r.corrupt(position, fmt.Errorf("batch length %d", total))
	}
	if err := header.CheckHeader(); err != nil {
		return nil, 0, r.corrupt(position, err)
	}
	stated := header.CRC()
	const crcFrom = 21 // attributes on
	computed, err := r.checksum(crc32.MakeTable(crc32.Castagnoli), position+crcFrom, int64(total)-crcFrom)
	if err != nil {
		return nil, 0, err
	}
	if computed != stated {
		return nil, 0, r.corrupt(position, fmt.Errorf("checksum is %#x where the header says %#x", computed, stated))
	}
	if data, err = r.window(position, record.HeaderSize); err != nil {
		return nil, 0, err
	}
	return record.Batch(data), int64(total), nil
}

func (r *batchReader) checksum(table *crc32.Table, position, length int64) (uint32, error) {
	sum := uint32(0)
	for length > 0 {
		n := int(min(length, int64(len(r.buffer))))
		if within := r.start + int64(r.filled) - position; position >= r.start && within > 0 {
			n = int(min(length, within)) // what the buffer has already
		}
		data, err := r.window(position, n)
		if err != nil {
			return 0, err
		}
		sum = crc32.Update(sum, table, data)
		position += int64(n)
		length -= int64(n)
	}
	return sum, nil
}

// unknownMagic tells an old message, whose own checksum is right, from garbage: the one is
// somebody's data and must not be cut off.
func (r *batchReader) unknownMagic(position int64, total int, magic int8) error {
	const legacyCRCAt, legacyMagicAt = 12, 16
	if magic == 0 || magic == 1 {
		head, err := r.window(position, record.HeaderSize)
		if err != nil {
			return err
		}
		stated := binary.BigEndian.Uint32(head[legacyCRCAt:])
		computed, err := r.checksum(crc32.IEEETable, position+legacyMagicAt, int64(total)-legacyMagicAt)
		if err == nil && computed == stated {
			return errLegacyFormat
		}
	}
	return fmt.Errorf("magic %d is unknown", magic)
}
