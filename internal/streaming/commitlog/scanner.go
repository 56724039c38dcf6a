package commitlog

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/record"

	"github.com/twmb/franz-go/pkg/kerr"
)

// ErrCorrupt is the mark of every error that says a file's content is damaged.
var ErrCorrupt = errors.New("log is corrupt")

// CorruptionError says where a segment is damaged. It is ErrCorrupt, and answers a fetch
// as CORRUPT_MESSAGE.
type CorruptionError struct {
	Path     string // of the segment file
	Position int64
	Cause    error
}

func (e *CorruptionError) Error() string {
	return fmt.Sprintf("commitlog: %s is corrupt at byte %d: %v", e.Path, e.Position, e.Cause)
}

// Unwrap gives the marks and the cause.
func (e *CorruptionError) Unwrap() []error { return []error{ErrCorrupt, kerr.CorruptMessage, e.Cause} }

var errTorn = errors.New("the file ends within a batch")

const (
	scanChunk      = 4 << 10  // for lookups: covers an index interval
	replayChunk    = 64 << 10 // for walks over whole stretches
	recoveryBuffer = 256 << 10
)

var scanBuffers = sync.Pool{New: func() any { b := make([]byte, scanChunk); return &b }}

// headerScanner reads the headers of a segment's batches, a chunk of file at a time.
type headerScanner struct {
	file   io.ReaderAt
	path   func() string
	limit  int64 // end of the valid bytes
	chunk  []byte
	start  int64 // position of the chunk
	filled int
	// damaged are the stretches that walks pass over.
	damaged []Damage
}

// over is the position itself or, if a damaged stretch begins there, its end.
func (s *headerScanner) over(position int64) int64 {
	for i := range s.damaged {
		if s.damaged[i].From == position {
			position = s.damaged[i].To
		}
	}
	return position
}

// at returns the header of the batch at a position (its Payload is not there) and the
// batch's size. The header is valid until the next call. io.EOF at the limit.
func (s *headerScanner) at(position int64) (header record.Batch, size int64, err error) {
	if position == s.limit {
		return nil, 0, io.EOF
	}
	if position+record.HeaderSize > s.limit {
		return nil, 0, s.corrupt(position, errTorn)
	}
	if position < s.start || position+record.HeaderSize > s.start+int64(s.filled) {
		want := s.chunk[:min(int64(len(s.chunk)), s.limit-position)]
		n, err := s.file.ReadAt(want, position)
		if n < record.HeaderSize {
			if err == nil || err == io.EOF {
				return nil, 0, s.corrupt(position, errTorn)
			}
			return nil, 0, fmt.Errorf("read %s: %w", s.path(), err)
		}
		s.start, s.filled = position, n
	}
	header = record.Batch(s.chunk[position-s.start:][:record.HeaderSize])
	total, err := record.PeekSize(header)
	if err != nil {
		return nil, 0, s.corrupt(position, err)
	}
	if magic := header.Magic(); magic != record.CurrentMagic {
		return nil, 0, s.corrupt(position, fmt.Errorf("record format %d is not supported", magic))
	}
	if int64(total) > s.limit-position {
		return nil, 0, s.corrupt(position, errTorn)
	}
	if total < record.HeaderSize {
		return nil, 0, s.corrupt(position, fmt.Errorf("batch length %d", total))
	}
	return header, int64(total), nil
}

func (s *headerScanner) corrupt(position int64, cause error) error {
	return &CorruptionError{Path: s.path(), Position: position, Cause: cause}
}

// located is a batch that a search found.
type located struct {
	position         int64
	size             int64
	base, lastOffset cluster.Offset
	maxTimestamp     int64
}

// find returns the first batch at or after position from whose header match accepts;
// ok is false if none does.
func (s *headerScanner) find(from int64, match func(record.Batch) bool) (found located, ok bool, err error) {
	for position := from; ; {
		position = s.over(position)
		header, size, err := s.at(position)
		if errors.Is(err, io.EOF) {
			return located{position: position}, false, nil
		}
		if err != nil {
			return located{}, false, err
		}
		if match(header) {
			return located{position, size, header.BaseOffset(), header.LastOffset(), header.MaxTimestamp()}, true, nil
		}
		position += size
	}
}

// scan runs f with a scanner over the segment's first limit bytes.
func (s *segment) scan(files *fileCache, limit int64, f func(*headerScanner) error) error {
	file, err := files.acquire(&s.log)
	if err != nil {
		return err
	}
	defer files.release(&s.log)
	buffer := scanBuffers.Get().(*[]byte)
	defer scanBuffers.Put(buffer)
	return f(&headerScanner{file: file, path: s.log.path, limit: limit, chunk: *buffer, damaged: s.integrity.damages()})
}

// walk calls f for the header of each batch from a position on, reading in large chunks.
func (s *segment) walk(files *fileCache, from, limit int64, f func(header record.Batch, position, size int64, file io.ReaderAt) error) error {
	file, err := files.acquire(&s.log)
	if err != nil {
		return err
	}
	defer files.release(&s.log)
	scanner := &headerScanner{file: file, path: s.log.path, limit: limit, chunk: make([]byte, min(replayChunk, max(limit-from, record.HeaderSize))),
		damaged: s.integrity.damages()}
	for position := from; ; {
		position = scanner.over(position)
		header, size, err := scanner.at(position)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f(header, position, size, file); err != nil {
			return err
		}
		position += size
	}
}

// WholeBatches measures the whole batches that data begins with, and says which offset follows
// them.
func WholeBatches(data []byte) (next cluster.Offset, size int) {
	for batch, err := range record.All(data) {
		if err != nil {
			break
		}
		next = batch.NextOffset()
		size += len(batch)
	}
	return next, size
}
