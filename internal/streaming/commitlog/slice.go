package commitlog

import (
	"fmt"
	"io"
	"net"
	"slices"

	"understudy/internal/streaming/cluster"
	"understudy/internal/vfs"
)

// Slice is a run of whole batches in one segment file, which stays open until Close. Close
// must be called exactly once; other methods may be called from one goroutine at a time.
//
// The bytes are read when they are asked for. If the log is truncated in between, they
// may be cut short, which is an error; a follower that truncates serves only followers and
// consumers that check what they get.
type Slice struct {
	first, next cluster.Offset
	position    int64
	size        int
	file        vfs.File // nil for an empty slice
	cached      *cachedFile
	files       *fileCache
}

func emptySlice(at cluster.Offset) *Slice { return &Slice{first: at, next: at} }

// Size is the number of bytes; 0 for an empty slice.
func (s *Slice) Size() int { return s.size }

// FirstOffset is the base offset of the first batch, or the offset asked for where that is
// known to begin a batch; NextOffset is where to read on.
func (s *Slice) FirstOffset() cluster.Offset { return s.first }

// NextOffset is the offset after the last batch.
func (s *Slice) NextOffset() cluster.Offset { return s.next }

// AppendTo reads the bytes and appends them to dst.
func (s *Slice) AppendTo(dst []byte) ([]byte, error) {
	if s.size == 0 {
		return dst, nil
	}
	start := len(dst)
	dst = slices.Grow(dst, s.size)[:start+s.size]
	if n, err := s.file.ReadAt(dst[start:], s.position); n < s.size {
		return dst[:start], s.short(n, err)
	}
	return dst, nil
}

// ReadAll reads the bytes.
func (s *Slice) ReadAll() ([]byte, error) { return s.AppendTo(nil) }

// sendfileMin is the size from which sendfile beats reading and writing.
const sendfileMin = 32 << 10

// SendTo writes the bytes to a connection, by sendfile where the system has it. An error,
// or n < Size, means that the peer saw half a response: close the connection.
func (s *Slice) SendTo(conn net.Conn) (n int64, err error) {
	if s.size == 0 {
		return 0, nil
	}
	if s.size >= sendfileMin {
		if n, handled, err := s.sendfile(conn); handled {
			if err == nil && n < int64(s.size) {
				err = s.short(int(n), io.ErrUnexpectedEOF)
			}
			return n, err
		}
	}
	return s.copyTo(conn)
}

// copyTo writes the bytes through a buffer of bounded size.
func (s *Slice) copyTo(out io.Writer) (n int64, err error) {
	const bufferMax = 64 << 10
	buffer := make([]byte, min(s.size, bufferMax))
	for n < int64(s.size) {
		chunk := buffer[:min(int64(len(buffer)), int64(s.size)-n)]
		if got, err := s.file.ReadAt(chunk, s.position+n); got < len(chunk) {
			return n, s.short(int(n)+got, err)
		}
		written, err := out.Write(chunk)
		n += int64(written)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (s *Slice) short(n int, cause error) error {
	return fmt.Errorf("commitlog: read %d of %d bytes of %s at %d: %w", n, s.size, s.cached.path(), s.position, cause)
}

// Close lets go of the file.
func (s *Slice) Close() error {
	if s.file != nil {
		s.file = nil
		s.files.release(s.cached)
	}
	return nil
}
