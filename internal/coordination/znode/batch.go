package znode

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"understudy/internal/coordination/jute"
)

// The encoding of a Batch, which is what a log entry holds. Numbers are unsigned varints unless a width is given; a
// "bytes" is a length and the bytes.
//
//	byte version | int64 timeMs (8 bytes, big-endian, at a fixed place: see StampTime)
//	origin | incarnation | firstSequence | count | count × request
//
//	request: byte kind | byte fields (bit set = field present)
//	         [session 8 bytes] [generation] [xid zigzag] [op zigzag] [body bytes]
//	         [auth: count, count × (scheme bytes, id bytes)] [timeoutMs zigzag] [graceMs zigzag]
//	         [password bytes] [owner] [path bytes]
//
// A field that is not present is zero. The fields byte is followed by a second one, which has the rest of the bits. The
// identities of a request are most often those of the one before it; then only a bit says so.
const batchVersion = 1

const batchTimeAt = 1 // offset of timeMs

const (
	hasSession = 1 << iota
	hasGeneration
	hasXid
	hasOp
	hasBody
	hasAuth
	sameAuth
	hasTimeout
	hasGrace
	hasPassword
	hasOwner
	hasPath
	allRequestFields = 1<<iota - 1
)

// requestBytesMin is the least a request takes: kind and the two bytes of field bits.
const requestBytesMin = 3

// ErrBatchVersion says that an entry was written by a newer version of the program.
var ErrBatchVersion = errors.New("znode: log entry has an unknown version")

// Append encodes b.
func (b *Batch) Append(dst []byte) []byte {
	dst = append(dst, batchVersion)
	dst = binary.BigEndian.AppendUint64(dst, uint64(b.TimeMs))
	dst = binary.AppendUvarint(dst, uint64(b.Origin))
	dst = binary.AppendUvarint(dst, b.Incarnation)
	dst = binary.AppendUvarint(dst, b.FirstSequence)
	dst = binary.AppendUvarint(dst, uint64(len(b.Requests)))
	var before []jute.ID
	for i := range b.Requests {
		dst = b.Requests[i].append(dst, before)
		before = b.Requests[i].Auth
	}
	return dst
}

// StampTime sets TimeMs of an encoded Batch in place. It reports whether encoded can be one.
func StampTime(encoded []byte, timeMs int64) bool {
	if len(encoded) < batchTimeAt+8 || encoded[0] != batchVersion {
		return false
	}
	binary.BigEndian.PutUint64(encoded[batchTimeAt:], uint64(timeMs))
	return true
}

func (r *Request) append(dst []byte, authBefore []jute.ID) []byte {
	fields := r.fields(authBefore)
	dst = append(dst, byte(r.Kind), byte(fields), byte(fields>>8))
	if fields&hasSession != 0 {
		dst = binary.BigEndian.AppendUint64(dst, uint64(r.Session))
	}
	if fields&hasGeneration != 0 {
		dst = binary.AppendUvarint(dst, r.Generation)
	}
	if fields&hasXid != 0 {
		dst = binary.AppendVarint(dst, int64(r.Xid))
	}
	if fields&hasOp != 0 {
		dst = binary.AppendVarint(dst, int64(r.Op))
	}
	if fields&hasBody != 0 {
		dst = appendBytes(dst, r.Body)
	}
	if fields&hasAuth != 0 {
		dst = binary.AppendUvarint(dst, uint64(len(r.Auth)))
		for _, id := range r.Auth {
			dst = appendBytes(appendBytes(dst, id.Scheme), id.ID)
		}
	}
	if fields&hasTimeout != 0 {
		dst = binary.AppendVarint(dst, int64(r.TimeoutMs))
	}
	if fields&hasGrace != 0 {
		dst = binary.AppendVarint(dst, int64(r.GraceMs))
	}
	if fields&hasPassword != 0 {
		dst = appendBytes(dst, r.Password)
	}
	if fields&hasOwner != 0 {
		dst = binary.AppendUvarint(dst, uint64(r.Owner))
	}
	if fields&hasPath != 0 {
		dst = appendBytes(dst, r.Path)
	}
	return dst
}

func (r *Request) fields(authBefore []jute.ID) (fields int) {
	set := func(present bool, field int) {
		if present {
			fields |= field
		}
	}
	set(r.Session != 0, hasSession)
	set(r.Generation != 0, hasGeneration)
	set(r.Xid != 0, hasXid)
	set(r.Op != 0, hasOp)
	set(len(r.Body) > 0, hasBody)
	if len(r.Auth) > 0 {
		same := equalAuth(r.Auth, authBefore)
		set(same, sameAuth)
		set(!same, hasAuth)
	}
	set(r.TimeoutMs != 0, hasTimeout)
	set(r.GraceMs != 0, hasGrace)
	set(len(r.Password) > 0, hasPassword)
	set(r.Owner != 0, hasOwner)
	set(r.Path != "", hasPath)
	return fields
}

func equalAuth(a, b []jute.ID) bool {
	if len(a) != len(b) {
		return false
	}
	if len(a) > 0 && &a[0] == &b[0] {
		return true
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func appendBytes[B ~string | ~[]byte](dst []byte, v B) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(v))), v...)
}

// DecodeBatch decodes an entry. Bodies and passwords alias data.
func DecodeBatch(data []byte) (Batch, error) {
	var b Batch
	err := b.Decode(data)
	return b, err
}

// Decode is DecodeBatch into a Batch that is no longer in use, whose memory it uses again. After an error b is empty.
func (b *Batch) Decode(data []byte) error {
	requests := b.Requests[:0]
	*b = Batch{}
	if len(data) == 0 {
		return errors.New("znode: log entry is empty")
	}
	if data[0] != batchVersion {
		return fmt.Errorf("%w: %d, this program knows %d", ErrBatchVersion, data[0], batchVersion)
	}
	r := reader{buf: data[1:]}
	b.TimeMs = int64(r.fixed64())
	b.Origin = MemberID(r.uvarint())
	b.Incarnation = r.uvarint()
	b.FirstSequence = r.uvarint()
	count := r.count(requestBytesMin)
	if count > 0 {
		b.Requests = slices.Grow(requests, count)[:count] // bounded by the input, see reader.count
		clear(b.Requests)
	}
	var before []jute.ID
	for i := range b.Requests {
		b.Requests[i].decode(&r, before)
		before = b.Requests[i].Auth
	}
	if r.err == nil && len(r.buf) > 0 {
		r.fail("%d bytes left over", len(r.buf))
	}
	if r.err != nil {
		*b = Batch{}
		return fmt.Errorf("znode: log entry of %d bytes is damaged: %w", len(data), r.err)
	}
	return nil
}

func (r *Request) decode(in *reader, authBefore []jute.ID) {
	r.Kind = Kind(in.byte())
	fields := int(in.byte())
	fields |= int(in.byte()) << 8
	if fields&^allRequestFields != 0 {
		in.fail("request has unknown fields %#x", fields)
		return
	}
	if fields&hasSession != 0 {
		r.Session = jute.SessionID(in.fixed64())
	}
	if fields&hasGeneration != 0 {
		r.Generation = in.uvarint()
	}
	if fields&hasXid != 0 {
		r.Xid = in.varint32()
	}
	if fields&hasOp != 0 {
		r.Op = jute.OpCode(in.varint32())
	}
	if fields&hasBody != 0 {
		r.Body = in.bytes()
	}
	switch fields & (hasAuth | sameAuth) {
	case hasAuth:
		r.Auth = in.auth()
	case sameAuth:
		r.Auth = authBefore
	case hasAuth | sameAuth:
		in.fail("request has two lists of identities")
	}
	if fields&hasTimeout != 0 {
		r.TimeoutMs = in.varint32()
	}
	if fields&hasGrace != 0 {
		r.GraceMs = in.varint32()
	}
	if fields&hasPassword != 0 {
		r.Password = in.bytes()
	}
	if fields&hasOwner != 0 {
		r.Owner = MemberID(in.uvarint())
	}
	if fields&hasPath != 0 {
		r.Path = string(in.bytes())
	}
}

func (r *reader) auth() []jute.ID {
	n := r.count(2)
	if n == 0 {
		return nil
	}
	ids := make([]jute.ID, n) // bounded by the input, see count
	for i := range ids {
		ids[i] = jute.ID{Scheme: string(r.bytes()), ID: string(r.bytes())}
	}
	return ids
}

// reader decodes the formats of this package, with a sticky error.
type reader struct {
	buf []byte
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
		r.buf = nil
	}
}

func (r *reader) byte() byte {
	if len(r.buf) == 0 {
		r.fail("it ends early")
		return 0
	}
	v := r.buf[0]
	r.buf = r.buf[1:]
	return v
}

func (r *reader) fixed64() uint64 {
	if len(r.buf) < 8 {
		r.fail("it ends early")
		return 0
	}
	v := binary.BigEndian.Uint64(r.buf)
	r.buf = r.buf[8:]
	return v
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.buf)
	if n <= 0 {
		r.fail("it ends early or holds a number that is too long")
		return 0
	}
	r.buf = r.buf[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.buf)
	if n <= 0 {
		r.fail("it ends early or holds a number that is too long")
		return 0
	}
	r.buf = r.buf[n:]
	return v
}

func (r *reader) varint32() int32 {
	v := r.varint()
	if int64(int32(v)) != v {
		r.fail("number %d does not fit 32 bits", v)
		return 0
	}
	return int32(v)
}

// count reads a number of elements that take at least minBytes each and refuses one that cannot be there.
func (r *reader) count(minBytes int) int {
	n := r.uvarint()
	if n > uint64(len(r.buf)/minBytes) {
		r.fail("%d elements announced, %d bytes left", n, len(r.buf))
		return 0
	}
	return int(n)
}

// bytes reads a length and that many bytes, which alias the input. Empty is nil.
func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.buf)) {
		r.fail("%d bytes announced, %d left", n, len(r.buf))
		return nil
	}
	if n == 0 {
		return nil
	}
	v := r.buf[:n:n]
	r.buf = r.buf[n:]
	return v
}
