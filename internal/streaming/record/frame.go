package record

import (
	"encoding/binary"
	"errors"
	"iter"

	"github.com/twmb/franz-go/pkg/kerr"
)

// PeekSize tells the full size of the batch that begins with header, which must hold the
// first LengthOverhead bytes or more. It bounds nothing but what the format demands: a
// caller that allocates by it checks it against a limit of its own first.
func PeekSize(header []byte) (int, error) {
	if len(header) < LengthOverhead {
		return 0, ErrIncomplete
	}
	length := int64(int32(binary.BigEndian.Uint32(header[batchLengthAt:])))
	if length < minimumLegacyLength {
		return 0, corrupt("batch length %d is less than the smallest message's %d", length, minimumLegacyLength)
	}
	return int(length) + LengthOverhead, nil
}

// minimumLegacyLength is the smallest size field of a format 0 message: a legacy message
// must get as far as being refused for its format.
const minimumLegacyLength = 14

// Next cuts the first batch off data. It checks the frame and the format only: the length
// fits and holds a header, the magic is 2. ErrIncomplete means that data ends too early.
func Next(data []byte) (batch Batch, rest []byte, err error) {
	size, err := PeekSize(data)
	if err != nil {
		return nil, data, err
	}
	if len(data) > magicAt {
		if err := checkMagic(int8(data[magicAt])); err != nil {
			return nil, data, err
		}
		if size < HeaderSize {
			return nil, data, corrupt("batch of %d bytes is smaller than its header", size)
		}
	}
	if len(data) < size {
		return nil, data, ErrIncomplete
	}
	return Batch(data[:size:size]), data[size:], nil
}

func checkMagic(magic int8) error {
	switch magic {
	case CurrentMagic:
		return nil
	case 0, 1:
		return &Error{Code: kerr.UnsupportedForMessageFormat,
			Reason: "message format " + string('0'+byte(magic)) + " is not supported, only format 2"}
	default:
		return corrupt("magic %d is unknown", magic)
	}
}

// All walks the batches in data in order. It stops after the first error; an incomplete
// batch at the end, which a byte-limited fetch may leave, is not one.
func All(data []byte) iter.Seq2[Batch, error] {
	return func(yield func(Batch, error) bool) {
		for len(data) > 0 {
			batch, rest, err := Next(data)
			if errors.Is(err, ErrIncomplete) {
				return
			}
			if !yield(batch, err) || err != nil {
				return
			}
			data = rest
		}
	}
}
