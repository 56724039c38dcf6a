package wire

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// firstAllocation is how much is allocated for a frame on the strength of its announced
// size alone; a larger frame's buffer grows as its bytes come in, so that a peer has to
// send what it makes us allocate. A thousand connections that announce much and send nothing
// cost as many times this.
const firstAllocation = 64 << 10

// frameSizeError is an announced size that is negative or above the bound.
type frameSizeError struct {
	size  int32
	limit int32
}

func (e *frameSizeError) Error() string {
	if e.size < 0 {
		return fmt.Sprintf("frame of %d bytes announced: this is not the Kafka protocol", e.size)
	}
	return fmt.Sprintf("frame of %d bytes announced, at most %d are allowed", e.size, e.limit)
}

// peekFrameSize returns the checked size of the frame that comes next and leaves the reader
// where it is. io.EOF means the end at a frame's boundary.
func peekFrameSize(reader *bufio.Reader, limit int32) (int32, error) {
	prefix, err := reader.Peek(4)
	if err != nil {
		if err == io.EOF && len(prefix) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return 0, err
	}
	size := int32(binary.BigEndian.Uint32(prefix))
	if size < 0 || size > limit {
		return 0, &frameSizeError{size: size, limit: limit}
	}
	return size, nil
}

// readFrame reads one frame without its size field. It appends to buffer[:0] and returns
// io.EOF only at a frame's boundary.
func readFrame(reader *bufio.Reader, limit int32, buffer []byte) ([]byte, error) {
	size, err := peekFrameSize(reader, limit)
	if err != nil {
		return nil, err
	}
	_, _ = reader.Discard(4)

	frame := buffer[:0]
	for missing := int(size); missing > 0; {
		chunk := min(missing, max(firstAllocation, len(frame)))
		frame = slices.Grow(frame, chunk)
		chunk = min(missing, cap(frame)-len(frame))
		n, err := io.ReadFull(reader, frame[len(frame):len(frame)+chunk])
		frame = frame[:len(frame)+n]
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		missing -= n
	}
	return frame, nil
}
