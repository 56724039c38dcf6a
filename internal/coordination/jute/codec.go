package jute

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"
)

// AppendInt32 appends a jute int.
func AppendInt32(dst []byte, v int32) []byte { return binary.BigEndian.AppendUint32(dst, uint32(v)) }

// AppendInt64 appends a jute long.
func AppendInt64(dst []byte, v int64) []byte { return binary.BigEndian.AppendUint64(dst, uint64(v)) }

// AppendBool appends a jute boolean.
func AppendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// AppendBuffer appends a jute buffer; nil is null.
func AppendBuffer(dst, v []byte) []byte {
	if v == nil {
		return AppendInt32(dst, -1)
	}
	return append(AppendInt32(dst, int32(len(v))), v...)
}

// AppendString appends a ustring.
func AppendString(dst []byte, v string) []byte {
	return append(AppendInt32(dst, int32(len(v))), v...)
}

// AppendStrings appends a vector of ustrings; nil is null.
func AppendStrings(dst []byte, v []string) []byte {
	if v == nil {
		return AppendInt32(dst, -1)
	}
	dst = AppendInt32(dst, int32(len(v)))
	for _, s := range v {
		dst = AppendString(dst, s)
	}
	return dst
}

// Decoder reads jute values from a byte slice. After the first error every read gives a zero value and the error
// stays. The zero Decoder is an empty input.
type Decoder struct {
	buf []byte
	err error
}

// NewDecoder reads from buf, which must not change while views into it (BufferView, StringView) are in use.
func NewDecoder(buf []byte) Decoder { return Decoder{buf: buf} }

// Err is the first error.
func (d *Decoder) Err() error { return d.err }

// Rest is what has not been read yet.
func (d *Decoder) Rest() []byte { return d.buf }

// Skip passes over n bytes.
func (d *Decoder) Skip(n int) { d.take(n) }

// Fail makes err the decoder's error unless it has one.
func (d *Decoder) Fail(err error) {
	if d.err == nil {
		d.err = err
		d.buf = nil
	}
}

func (d *Decoder) take(n int) []byte {
	if d.err != nil {
		return nil
	}
	if n > len(d.buf) {
		d.Fail(fmt.Errorf("jute: record ends early: %d bytes wanted, %d left", n, len(d.buf)))
		return nil
	}
	v := d.buf[:n:n]
	d.buf = d.buf[n:]
	return v
}

// Byte reads one byte.
func (d *Decoder) Byte() byte {
	if v := d.take(1); v != nil {
		return v[0]
	}
	return 0
}

// Bool reads a boolean: any byte but 0 is true.
func (d *Decoder) Bool() bool { return d.Byte() != 0 }

// Int32 reads an int.
func (d *Decoder) Int32() int32 {
	if v := d.take(4); v != nil {
		return int32(binary.BigEndian.Uint32(v))
	}
	return 0
}

// Int64 reads a long.
func (d *Decoder) Int64() int64 {
	if v := d.take(8); v != nil {
		return int64(binary.BigEndian.Uint64(v))
	}
	return 0
}

// length reads the length of a buffer or string; null is -1.
func (d *Decoder) length() int {
	n := d.Int32()
	if n < -1 {
		d.Fail(fmt.Errorf("jute: unreasonable length = %d", n))
		return -1
	}
	return int(n)
}

// BufferView reads a buffer without copying: the result aliases the input; null is nil.
func (d *Decoder) BufferView() []byte {
	n := d.length()
	if n < 0 || d.err != nil {
		return nil
	}
	if n == 0 {
		return []byte{}
	}
	return d.take(n)
}

// Buffer reads a buffer into memory of its own; null is nil.
func (d *Decoder) Buffer() []byte {
	v := d.BufferView()
	if v == nil {
		return nil
	}
	return append(make([]byte, 0, len(v)), v...)
}

// StringView reads a ustring without copying: the result aliases the input and is valid only as long as that does not
// change. It exists for paths that are looked up and thrown away.
func (d *Decoder) StringView() string {
	v := d.BufferView()
	return unsafe.String(unsafe.SliceData(v), len(v))
}

// PathView is StringView for a path, and tells whether it is null: ZooKeeper's servers have no path then to look at.
func (d *Decoder) PathView() (path string, null bool) {
	v := d.BufferView()
	return unsafe.String(unsafe.SliceData(v), len(v)), v == nil && d.err == nil
}

// String reads a ustring; null is "".
func (d *Decoder) String() string { return string(d.BufferView()) }

// Count reads the element count of a vector whose elements take at least minBytes each, and fails if that many cannot
// be there. Null is -1; any other negative count means none, as in Java (BinaryInputArchive).
func (d *Decoder) Count(minBytes int) int {
	n := d.Int32()
	if n < -1 {
		n = 0
	}
	if n > 0 && int64(n)*int64(minBytes) > int64(len(d.buf)) {
		d.Fail(fmt.Errorf("jute: unreasonable length = %d", n))
		return -1
	}
	if d.err != nil {
		return -1
	}
	return int(n)
}

// Strings reads a vector of ustrings; null is nil.
func (d *Decoder) Strings() []string {
	n := d.Count(4)
	if n < 0 {
		return nil
	}
	v := make([]string, 0, min(n, 1024))
	for range n {
		v = append(v, d.String())
		if d.err != nil {
			return nil
		}
	}
	return v
}

// FrameLength reads the length in front of a frame and refuses one that no client may send. limit <= 0 means
// DefaultMaxBuffer.
func FrameLength(prefix [4]byte, limit int) (int, error) {
	if limit <= 0 {
		limit = DefaultMaxBuffer
	}
	n := binary.BigEndian.Uint32(prefix[:])
	if n > math.MaxInt32 || int(n) > limit {
		return 0, fmt.Errorf("jute: frame of %d bytes announced, the limit is %d", int32(n), limit)
	}
	return int(n), nil
}

// BeginFrame reserves the length in front of a frame in dst; EndFrame fills it in. start is len(dst) before BeginFrame.
func BeginFrame(dst []byte) []byte { return append(dst, 0, 0, 0, 0) }

// EndFrame writes the length of the frame that began at start.
func EndFrame(dst []byte, start int) []byte {
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-4))
	return dst
}
