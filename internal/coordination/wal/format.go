package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	pb "go.etcd.io/raft/v3/raftpb"
)

const (
	segmentMagic   = "USTDYWAL"
	segmentVersion = 1
	segmentHeader  = 16

	frameMark   = 0x31465355 // "USF1"
	frameHeader = 20

	recordHeader = 8
	sectorBytes  = 512
)

type recordType uint8

const (
	recordEntry     recordType = 1
	recordHardState recordType = 2
	recordBase      recordType = 3
	recordReset     recordType = 4
)

const (
	entryPayload     = 17 // before the data
	hardStatePayload = 24
	positionPayload  = 16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrCorrupt marks damage that is not a torn write. The message says where.
var ErrCorrupt = errors.New("corrupt")

// CorruptionError says where a file is damaged.
type CorruptionError struct {
	File   string
	Offset int64
	Cause  string
}

func (e *CorruptionError) Error() string {
	return fmt.Sprintf("wal: %s is corrupt at offset %d: %s; restore the file, or in an ensemble with a healthy majority remove this member's data directory and let it copy the others' state", e.File, e.Offset, e.Cause)
}

// Is makes errors.Is(err, ErrCorrupt) hold.
func (e *CorruptionError) Is(target error) bool { return target == ErrCorrupt }

func appendSegmentHeader(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, segmentMagic...)
	dst = binary.LittleEndian.AppendUint32(dst, segmentVersion)
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

// checkSegmentHeader tells a short or damaged header (ok false) from one of a foreign version.
func checkSegmentHeader(data []byte) (ok bool, err error) {
	if len(data) < segmentHeader || string(data[:8]) != segmentMagic {
		return false, nil
	}
	if crc32.Checksum(data[:12], castagnoli) != binary.LittleEndian.Uint32(data[12:]) {
		return false, nil
	}
	if v := binary.LittleEndian.Uint32(data[8:]); v != segmentVersion {
		return false, fmt.Errorf("wal: segment format version %d is not known (this program writes %d); it was written by a newer understudy", v, segmentVersion)
	}
	return true, nil
}

// beginFrame reserves a frame's header; endFrame fills it in.
func beginFrame(dst []byte) []byte { return append(dst, make([]byte, frameHeader)...) }

func endFrame(frame []byte, sequence uint64) {
	binary.LittleEndian.PutUint32(frame, frameMark)
	binary.LittleEndian.PutUint64(frame[4:], sequence)
	binary.LittleEndian.PutUint32(frame[12:], uint32(len(frame)-frameHeader))
	binary.LittleEndian.PutUint32(frame[16:], crc32.Checksum(frame[:16], castagnoli))
}

func beginRecord(dst []byte, t recordType) []byte {
	return append(dst, 0, 0, 0, 0, 0, 0, 0, 0, byte(t))
}

func endRecord(dst []byte, start int) []byte {
	body := dst[start+recordHeader:]
	binary.LittleEndian.PutUint32(dst[start:], uint32(len(body)))
	binary.LittleEndian.PutUint32(dst[start+4:], crc32.Checksum(body, castagnoli))
	return dst
}

func appendEntryRecord(dst []byte, e *pb.Entry) []byte {
	start := len(dst)
	dst = beginRecord(dst, recordEntry)
	dst = binary.LittleEndian.AppendUint64(dst, e.GetIndex())
	dst = binary.LittleEndian.AppendUint64(dst, e.GetTerm())
	dst = append(dst, byte(e.GetType()))
	dst = append(dst, e.GetData()...)
	return endRecord(dst, start)
}

func appendHardStateRecord(dst []byte, term, vote, commit uint64) []byte {
	start := len(dst)
	dst = beginRecord(dst, recordHardState)
	dst = binary.LittleEndian.AppendUint64(dst, term)
	dst = binary.LittleEndian.AppendUint64(dst, vote)
	dst = binary.LittleEndian.AppendUint64(dst, commit)
	return endRecord(dst, start)
}

func appendPositionRecord(dst []byte, t recordType, index, term uint64) []byte {
	start := len(dst)
	dst = beginRecord(dst, t)
	dst = binary.LittleEndian.AppendUint64(dst, index)
	dst = binary.LittleEndian.AppendUint64(dst, term)
	return endRecord(dst, start)
}

// record is one decoded record: its type, its payload (aliasing the input) and the number of
// bytes it takes.
type record struct {
	kind    recordType
	payload []byte
	size    int
}

var errShort = errors.New("record is cut off")

// parseRecord decodes the record at the start of data.
func parseRecord(data []byte) (record, error) {
	if len(data) < recordHeader+1 {
		return record{}, errShort
	}
	n := binary.LittleEndian.Uint32(data)
	if n == 0 || uint64(n) > uint64(len(data)-recordHeader) {
		return record{}, errShort
	}
	body := data[recordHeader : recordHeader+int(n)]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(data[4:]) {
		return record{}, errors.New("record checksum does not match")
	}
	r := record{kind: recordType(body[0]), payload: body[1:], size: recordHeader + int(n)}
	switch want := len(r.payload); {
	case r.kind == recordEntry && want >= entryPayload:
	case r.kind == recordHardState && want == hardStatePayload:
	case (r.kind == recordBase || r.kind == recordReset) && want == positionPayload:
	default:
		return record{}, fmt.Errorf("record of type %d with %d bytes is not known", r.kind, want)
	}
	return r, nil
}

// entry decodes an entry record; the data is copied, so that a cached entry does not hold a
// whole segment in memory.
func (r record) entry() *pb.Entry {
	index := binary.LittleEndian.Uint64(r.payload)
	term := binary.LittleEndian.Uint64(r.payload[8:])
	kind := pb.EntryType(r.payload[16])
	e := &pb.Entry{Index: &index, Term: &term, Type: &kind}
	if data := r.payload[entryPayload:]; len(data) > 0 {
		e.Data = bytes.Clone(data)
	}
	return e
}

func (r record) position() (index, term uint64) {
	return binary.LittleEndian.Uint64(r.payload), binary.LittleEndian.Uint64(r.payload[8:])
}

// parseFrameHeader returns the sequence and the length of a frame's records.
func parseFrameHeader(data []byte) (sequence uint64, n int, ok bool) {
	if len(data) < frameHeader || binary.LittleEndian.Uint32(data) != frameMark {
		return 0, 0, false
	}
	if crc32.Checksum(data[:16], castagnoli) != binary.LittleEndian.Uint32(data[16:]) {
		return 0, 0, false
	}
	return binary.LittleEndian.Uint64(data[4:]), int(binary.LittleEndian.Uint32(data[12:])), true
}

// parseFrame decodes the frame at the start of data and calls visit for each record with its
// offset in data, after all of them were found whole.
func parseFrame(data []byte, sequence uint64, visit func(offset int, r record) error) (size int, err error) {
	got, n, ok := parseFrameHeader(data)
	if !ok {
		return 0, errors.New("no frame header")
	}
	if got != sequence {
		return 0, fmt.Errorf("frame %d where %d should be", got, sequence)
	}
	if n > len(data)-frameHeader {
		return 0, errors.New("frame is cut off")
	}
	end := frameHeader + n
	for at := frameHeader; at < end; {
		r, err := parseRecord(data[at:end])
		if err != nil {
			return 0, err
		}
		at += r.size
	}
	for at := frameHeader; at < end; {
		r, _ := parseRecord(data[at:end])
		if err := visit(at, r); err != nil {
			return 0, &refusedError{at: at, cause: err}
		}
		at += r.size
	}
	return end, nil
}

// refusedError is a whole record that does not fit what came before it.
type refusedError struct {
	at    int
	cause error
}

func (e *refusedError) Error() string { return e.cause.Error() }

// looksTorn judges the tail of the last segment, beginning with a bad frame at file offset
// base: true if a crash explains it.
func looksTorn(tail []byte, base int64) bool {
	if _, n, ok := parseFrameHeader(tail); ok && n > len(tail)-frameHeader {
		return true // the file ends inside the frame
	}
	if len(tail) < frameHeader {
		return true
	}
	return hasZeroSector(tail, base)
}

// hasZeroSector looks for a sector (or the part of one that lies in data) of zeros: what a
// file system shows where the size became durable and the data did not.
func hasZeroSector(data []byte, base int64) bool {
	for at := 0; at < len(data); {
		end := at + sectorBytes - int((base+int64(at))%sectorBytes)
		if end > len(data) {
			end = len(data)
		}
		if end-at >= 8 && len(bytes.TrimLeft(data[at:end], "\x00")) == 0 {
			return true
		}
		at = end
	}
	return false
}

// laterFrame looks for the header of a valid later frame in data.
func laterFrame(data []byte, after uint64) (offset int, found bool) {
	var mark [4]byte
	binary.LittleEndian.PutUint32(mark[:], frameMark)
	for at := 0; ; {
		i := bytes.Index(data[at:], mark[:])
		if i < 0 {
			return 0, false
		}
		at += i
		if sequence, _, ok := parseFrameHeader(data[at:]); ok && sequence > after {
			return at, true
		}
		at++
	}
}
