package record

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/snappy"
)

// Snappy comes in the framing of the xerial library:
//
//	magic 82 'S' 'N' 'A' 'P' 'P' 'Y' 00, int32 version 1, int32 compatible version 1,
//	then blocks: int32 length, raw snappy block
//
// Some clients send one raw block without the framing.
var xerialMagic = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

const (
	xerialHeaderSize = 16
	xerialBlockSize  = 32 << 10 // of input; what snappy-java uses
)

var errXerialBlock = errors.New("block length does not fit")

func decompressSnappy(dst, src []byte, limit int) ([]byte, error) {
	if !bytes.HasPrefix(src, xerialMagic) {
		return appendSnappyBlock(dst, src, limit)
	}
	if len(src) < xerialHeaderSize {
		return dst, errXerialBlock
	}
	start := len(dst)
	src = src[xerialHeaderSize:]
	for len(src) > 0 {
		// A concatenation of streams repeats the header (SnappyInputStream accepts it).
		if bytes.HasPrefix(src, xerialMagic) && len(src) >= xerialHeaderSize {
			src = src[xerialHeaderSize:]
			continue
		}
		if len(src) < 4 {
			return dst[:start], errXerialBlock
		}
		length := binary.BigEndian.Uint32(src)
		src = src[4:]
		if uint64(length) > uint64(len(src)) {
			return dst[:start], errXerialBlock
		}
		var err error
		if dst, err = appendSnappyBlock(dst, src[:length], limit-(len(dst)-start)); err != nil {
			return dst[:start], err
		}
		src = src[length:]
	}
	return dst, nil
}

func appendSnappyBlock(dst, block []byte, limit int) ([]byte, error) {
	size, err := snappy.DecodedLen(block)
	if err != nil {
		return dst, err
	}
	if size > limit {
		return dst, tooLarge(limit)
	}
	// A snappy copy element yields at most 64 bytes from 2 or more, so a block that
	// announces far more than its length can hold is refused before memory is taken.
	if size > 64*len(block) {
		return dst, snappy.ErrCorrupt
	}
	start := len(dst)
	if cap(dst)-start < size {
		grown := make([]byte, start, start+size)
		copy(grown, dst)
		dst = grown
	}
	if _, err := snappy.Decode(dst[start:start+size], block); err != nil {
		return dst[:start], err
	}
	return dst[:start+size], nil
}

func compressSnappy(dst, src []byte) []byte {
	dst = append(dst, xerialMagic...)
	dst = binary.BigEndian.AppendUint32(dst, 1)
	dst = binary.BigEndian.AppendUint32(dst, 1)
	for len(src) > 0 {
		chunk := src[:min(len(src), xerialBlockSize)]
		src = src[len(chunk):]
		block := s2.EncodeSnappy(nil, chunk)
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(block)))
		dst = append(dst, block...)
	}
	return dst
}
