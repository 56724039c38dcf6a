package commitlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"

	"understudy/internal/streaming/cluster"
)

// Index entries:
//
//	.index      int32 relative offset, int32 position    the last offset of the batch there
//	.timeindex  int64 timestamp, int32 relative offset   no batch up to there is younger
const (
	offsetEntrySize = 8
	timeEntrySize   = 12

	// indexTailBytes is what an index holds back in memory before it writes to its file.
	indexTailBytes = 4096
	// indexBlock is how many entries a search reads at once when it has narrowed down.
	indexBlock = 256
)

type offsetEntry struct {
	offset   cluster.Offset
	position int64
}

type timeEntry struct {
	timestamp int64
	offset    cluster.Offset
}

// entryFile is an index file: a sequence of entries of one size, of which the newest are
// held in memory until there are enough to write. Entries lost in a crash are those of
// batches past the recovery point, or are written by the flush that moves it.
//
// Its owner, segment, locks it.
type entryFile struct {
	file   cachedFile
	width  int
	onDisk int    // entries in the file
	tail   []byte // entries after those
}

func (e *entryFile) count() int { return e.onDisk + len(e.tail)/e.width }

// read fills into with entries from i on.
func (e *entryFile) read(files *fileCache, into []byte, i int) error {
	if i >= e.onDisk {
		copy(into, e.tail[(i-e.onDisk)*e.width:])
		return nil
	}
	file, err := files.acquire(&e.file)
	if err != nil {
		return err
	}
	defer files.release(&e.file)
	fromDisk := min(len(into), (e.onDisk-i)*e.width)
	if n, err := file.ReadAt(into[:fromDisk], int64(i)*int64(e.width)); n < fromDisk {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read %s: %w", e.file.path(), err)
	}
	copy(into[fromDisk:], e.tail)
	return nil
}

// searchBuffer is the room a search needs. Searches are on the read path, so it is pooled.
type searchBuffer [(indexBlock + 1) * timeEntrySize]byte

var searchBuffers = sync.Pool{New: func() any { return new(searchBuffer) }}

// search returns how many entries, from the first, satisfy below, which must hold for a
// prefix of them; and the last of those, in buffer.
func (e *entryFile) search(files *fileCache, buffer *searchBuffer, below func(entry []byte) bool) (count int, last []byte, err error) {
	low, high := 0, e.count()
	entry := buffer[:e.width]
	for high-low > indexBlock && err == nil {
		middle := int(uint(low+high) >> 1)
		if err = e.read(files, entry, middle); err == nil && below(entry) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	if err != nil {
		return 0, nil, err
	}
	from := max(low-1, 0) // the entry before, for last
	block := buffer[:(high-from)*e.width]
	if err := e.read(files, block, from); err != nil {
		return 0, nil, err
	}
	n := sort.Search(high-from, func(i int) bool { return !below(block[i*e.width:]) })
	if n == 0 {
		return from, nil, nil
	}
	return from + n, block[(n-1)*e.width : n*e.width], nil
}

// appendEntry adds an entry, and writes the tail to the file when it has grown enough.
func (e *entryFile) appendEntry(files *fileCache, entry []byte) error {
	e.tail = append(e.tail, entry...)
	if len(e.tail) >= indexTailBytes {
		return e.flush(files)
	}
	return nil
}

// flush writes the tail to the file.
func (e *entryFile) flush(files *fileCache) error {
	if len(e.tail) == 0 {
		return nil
	}
	file, err := files.acquire(&e.file)
	if err != nil {
		return err
	}
	defer files.release(&e.file)
	if _, err := file.WriteAt(e.tail, int64(e.onDisk)*int64(e.width)); err != nil {
		return fmt.Errorf("write %s: %w", e.file.path(), err)
	}
	e.onDisk += len(e.tail) / e.width
	e.tail = e.tail[:0]
	return nil
}

// truncate keeps the first count entries.
func (e *entryFile) truncate(files *fileCache, count int) error {
	if count >= e.onDisk {
		e.tail = e.tail[:min(len(e.tail), (count-e.onDisk)*e.width)]
		return nil
	}
	file, err := files.acquire(&e.file)
	if err != nil {
		return err
	}
	defer files.release(&e.file)
	if err := file.Truncate(int64(count) * int64(e.width)); err != nil {
		return fmt.Errorf("truncate %s: %w", e.file.path(), err)
	}
	e.onDisk, e.tail = count, e.tail[:0]
	return nil
}

func (e *entryFile) sync(files *fileCache) error { return syncCached(files, &e.file) }

func syncCached(files *fileCache, f *cachedFile) error {
	file, err := files.acquire(f)
	if err != nil {
		return err
	}
	defer files.release(f)
	if err := file.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", f.path(), err)
	}
	return nil
}

func decodeOffsetEntry(entry []byte, base cluster.Offset) offsetEntry {
	return offsetEntry{
		offset:   base + cluster.Offset(binary.BigEndian.Uint32(entry)),
		position: int64(binary.BigEndian.Uint32(entry[4:])),
	}
}

func decodeTimeEntry(entry []byte, base cluster.Offset) timeEntry {
	return timeEntry{
		timestamp: int64(binary.BigEndian.Uint64(entry)),
		offset:    base + cluster.Offset(binary.BigEndian.Uint32(entry[8:])),
	}
}

// validOffsetEntries counts the leading entries of an index that can be right: offsets and
// positions strictly increase and stay within the segment. A crash may leave zeros or
// anything else after them.
func validOffsetEntries(data []byte, base cluster.Offset, size int64) int {
	last := offsetEntry{offset: base - 1, position: 0}
	count := 0
	for ; len(data) >= offsetEntrySize; data = data[offsetEntrySize:] {
		entry := decodeOffsetEntry(data, base)
		if entry.offset <= last.offset || entry.position <= last.position || entry.position >= size {
			break
		}
		last = entry
		count++
	}
	return count
}

// validTimeEntries is the same for a time index, up to and including a bound.
func validTimeEntries(data []byte, base, bound cluster.Offset) int {
	last := timeEntry{timestamp: -1, offset: base - 1}
	count := 0
	for ; len(data) >= timeEntrySize; data = data[timeEntrySize:] {
		entry := decodeTimeEntry(data, base)
		if entry.timestamp <= last.timestamp || entry.offset < last.offset || entry.offset < base || entry.offset > bound {
			break
		}
		last = entry
		count++
	}
	return count
}
