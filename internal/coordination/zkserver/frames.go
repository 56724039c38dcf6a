package zkserver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	inputBytesMin  = 2 << 10
	inputBytesKept = 64 << 10 // an input buffer is not kept larger, nor made larger at once than what has come
)

var errFrameLength = errors.New("frame length")

// frameReader cuts the input into frames. It reads as much as there is with one call and grows with what really
// comes, not with the length that was announced.
type frameReader struct {
	r          io.Reader
	limit      int
	buf        []byte
	start, end int
	filled     bool // the last read took all the room there was
}

// next gives the next frame's payload, valid until the following call. Before it reads from the connection it calls idle.
func (f *frameReader) next(idle func()) ([]byte, error) {
	if err := f.need(4, idle); err != nil {
		return nil, err
	}
	n, err := f.length()
	if err != nil {
		return nil, err
	}
	f.start += 4
	if err := f.need(n, idle); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	frame := f.buf[f.start : f.start+n : f.start+n]
	f.start += n
	return frame, nil
}

// length of the frame at start.
func (f *frameReader) length() (int, error) {
	n := binary.BigEndian.Uint32(f.buf[f.start:])
	if n > uint32(f.limit) {
		return 0, fmt.Errorf("%w %d is out of range, at most %d is allowed", errFrameLength, int32(n), f.limit)
	}
	return int(n), nil
}

// peek gives the first n bytes without taking them.
func (f *frameReader) peek(n int) ([]byte, error) {
	if err := f.need(n, func() {}); err != nil {
		return nil, err
	}
	return f.buf[f.start : f.start+n], nil
}

// need reads until n bytes are there.
func (f *frameReader) need(n int, idle func()) error {
	for f.end-f.start < n {
		idle()
		f.room(n)
		got, err := f.r.Read(f.buf[f.end:])
		f.end += got
		f.filled = f.end == len(f.buf)
		if got == 0 && err != nil {
			return err
		}
	}
	return nil
}

// room makes space to read into. The buffer doubles when it is full of a frame that needs more, or when the last read
// has filled it (the client sends many at once), and goes back when a large frame has passed.
func (f *frameReader) room(n int) {
	have := f.end - f.start
	size := len(f.buf)
	switch {
	case size == 0:
		size = inputBytesMin
	case have == size, f.filled && size < inputBytesKept:
		size = min(2*size, max(f.limit+4, inputBytesKept))
	case have == 0 && size > inputBytesKept && n <= inputBytesKept:
		size = inputBytesKept
	}
	f.filled = false
	switch {
	case size != len(f.buf):
		buf := make([]byte, size)
		copy(buf, f.buf[f.start:f.end])
		f.buf = buf
	case f.start+n <= size && f.end < size:
		return
	default:
		copy(f.buf, f.buf[f.start:f.end])
	}
	f.start, f.end = 0, have
}
