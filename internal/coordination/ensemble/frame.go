package ensemble

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"time"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/znode"
)

// Members speak over TCP, one stream per direction and pair; all integers are little-endian.
//
//	hello  = magic "USTDYRFT" | version u16 | purpose u8 | status u8 | from u64 | to u64
//	         | members u64 | incarnation u64 | crc u32                                 48 bytes
//	frame  = bytes u32 | crc u32 | type u8 | payload            bytes = 1 + len(payload)
//
// The dialler says hello first and the acceptor answers with its own; status is 0 or says why
// the acceptor closes now. crc is CRC-32C (of a frame: over type and payload). Anything that
// does not fit closes the connection.
//
//	type 1 raft      one raftpb.Message
//	type 2 forward   term u64 | znode.Batch      a member's requests for the leader of term
//	type 3 refused   term u64                    the leader did not take a forward: send again
//	type 4 touches   count × (session u64 | age in ms u32)
//	type 5 snapshot  size u64 | one raftpb.Message (MsgSnap without data); size bytes of the
//	                 snapshot's file follow, outside the framing, and one byte 1 answers
//	type 6 term ask  incarnation u64             a recovering member asks (recovery.go)
//	type 7 term said incarnation u64 | term u64  the answer, with the asker's incarnation
//
// members is a hash of the members' numbers: two ensembles that got each other's addresses do
// not mix. Addresses are not part of it, as the same member may be known by several.
const (
	helloMagic   = "USTDYRFT"
	helloVersion = 1
	helloBytes   = 48
	frameHeader  = 8
)

type purpose uint8

const (
	purposeStream   purpose = 1
	purposeSnapshot purpose = 2
)

type helloStatus uint8

const (
	helloWelcome      helloStatus = 0
	helloOtherMembers helloStatus = 1
	helloNotMe        helloStatus = 2
	helloVersionWrong helloStatus = 3
)

func (s helloStatus) String() string {
	switch s {
	case helloWelcome:
		return "welcome"
	case helloOtherMembers:
		return "it belongs to an ensemble of other members; compare the server.N lines"
	case helloNotMe:
		return "another member answers at that address; compare the server.N lines"
	case helloVersionWrong:
		return "it speaks another version of the members' protocol"
	}
	return fmt.Sprintf("unknown status %d", uint8(s))
}

type hello struct {
	version     uint16
	purpose     purpose
	status      helloStatus
	from, to    znode.MemberID
	members     uint64
	incarnation uint64
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errGarbage       = errors.New("not the members' protocol")
	errFrameChecksum = errors.New("frame checksum does not match")
)

func (h hello) append(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, helloMagic...)
	dst = binary.LittleEndian.AppendUint16(dst, h.version)
	dst = append(dst, byte(h.purpose), byte(h.status))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.from))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.to))
	dst = binary.LittleEndian.AppendUint64(dst, h.members)
	dst = binary.LittleEndian.AppendUint64(dst, h.incarnation)
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

func parseHello(data []byte) (hello, error) {
	if len(data) != helloBytes || string(data[:8]) != helloMagic {
		return hello{}, errGarbage
	}
	if crc32.Checksum(data[:helloBytes-4], castagnoli) != binary.LittleEndian.Uint32(data[helloBytes-4:]) {
		return hello{}, errFrameChecksum
	}
	return hello{
		version:     binary.LittleEndian.Uint16(data[8:]),
		purpose:     purpose(data[10]),
		status:      helloStatus(data[11]),
		from:        znode.MemberID(binary.LittleEndian.Uint64(data[12:])),
		to:          znode.MemberID(binary.LittleEndian.Uint64(data[20:])),
		members:     binary.LittleEndian.Uint64(data[28:]),
		incarnation: binary.LittleEndian.Uint64(data[36:]),
	}, nil
}

func readHello(r io.Reader) (hello, error) {
	var data [helloBytes]byte
	if _, err := io.ReadFull(r, data[:]); err != nil {
		return hello{}, err
	}
	return parseHello(data[:])
}

// membersHash identifies an ensemble by its members' numbers.
func membersHash(ids []znode.MemberID) uint64 {
	h := uint64(14695981039346656037) // FNV-1a
	for _, id := range ids {
		for shift := 0; shift < 64; shift += 8 {
			h = (h ^ uint64(byte(id>>shift))) * 1099511628211
		}
	}
	return h
}

type frameType uint8

const (
	frameRaft     frameType = 1
	frameForward  frameType = 2
	frameRefused  frameType = 3
	frameTouches  frameType = 4
	frameSnapshot frameType = 5
	frameTermAsk  frameType = 6
	frameTermSaid frameType = 7
)

func beginFrame(dst []byte, t frameType) []byte {
	return append(dst, 0, 0, 0, 0, 0, 0, 0, 0, byte(t))
}

// endFrame fills in the header of the frame that began at start.
func endFrame(dst []byte, start int) []byte {
	body := dst[start+frameHeader:]
	binary.LittleEndian.PutUint32(dst[start:], uint32(len(body)))
	binary.LittleEndian.PutUint32(dst[start+4:], crc32.Checksum(body, castagnoli))
	return dst
}

// readFrame reads one frame. The payload is the caller's. Memory is taken as the bytes
// arrive, so that an announced length costs nothing.
func readFrame(r io.Reader) (frameType, []byte, error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, err
	}
	n := binary.LittleEndian.Uint32(header[:])
	if n == 0 || n > frameBytesMax {
		return 0, nil, fmt.Errorf("frame of %d bytes announced, allowed are %d", n, frameBytesMax)
	}
	body, err := readAtMost(r, int(n))
	if err != nil {
		return 0, nil, err
	}
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(header[4:]) {
		return 0, nil, errFrameChecksum
	}
	return frameType(body[0]), body[1:], nil
}

func readAtMost(r io.Reader, n int) ([]byte, error) {
	const step = 1 << 20
	body := make([]byte, min(n, step))
	read := 0
	for {
		m, err := io.ReadFull(r, body[read:])
		read += m
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if read == n {
			return body, nil
		}
		body = slices.Grow(body, min(n-read, read))[:read+min(n-read, read)]
	}
}

// forwarded is a decoded forward frame. encoded is its batch as it came, which the leader
// stamps and proposes without encoding it again.
type forwarded struct {
	term    uint64
	batch   znode.Batch
	encoded []byte
}

func appendForward(dst []byte, term uint64, encoded []byte) []byte {
	start := len(dst)
	dst = beginFrame(dst, frameForward)
	dst = binary.LittleEndian.AppendUint64(dst, term)
	dst = append(dst, encoded...)
	return endFrame(dst, start)
}

func parseForward(payload []byte, from znode.MemberID) (forwarded, error) {
	if len(payload) < 8 {
		return forwarded{}, io.ErrUnexpectedEOF
	}
	f := forwarded{term: binary.LittleEndian.Uint64(payload), encoded: payload[8:]}
	var err error
	if f.batch, err = znode.DecodeBatch(f.encoded); err != nil {
		return forwarded{}, err
	}
	if f.batch.Origin != from || len(f.batch.Requests) == 0 {
		return forwarded{}, fmt.Errorf("a forward of %d requests of member %d came from member %d", len(f.batch.Requests), f.batch.Origin, from)
	}
	return f, nil
}

func appendRefused(dst []byte, term uint64) []byte {
	start := len(dst)
	dst = beginFrame(dst, frameRefused)
	dst = binary.LittleEndian.AppendUint64(dst, term)
	return endFrame(dst, start)
}

func parseRefused(payload []byte) (term uint64, err error) {
	if len(payload) != 8 {
		return 0, io.ErrUnexpectedEOF
	}
	return binary.LittleEndian.Uint64(payload), nil
}

// touch is one session's last sign of life, as an age: clocks of machines are not compared.
type touch struct {
	session jute.SessionID
	age     time.Duration
}

const touchBytes = 12

func appendTouches(dst []byte, touches []touch) []byte {
	start := len(dst)
	dst = beginFrame(dst, frameTouches)
	for _, t := range touches {
		dst = binary.LittleEndian.AppendUint64(dst, uint64(t.session))
		dst = binary.LittleEndian.AppendUint32(dst, uint32(min(t.age.Milliseconds(), 1<<32-1)))
	}
	return endFrame(dst, start)
}

func parseTouches(payload []byte) ([]touch, error) {
	if len(payload)%touchBytes != 0 {
		return nil, io.ErrUnexpectedEOF
	}
	touches := make([]touch, 0, len(payload)/touchBytes)
	for ; len(payload) > 0; payload = payload[touchBytes:] {
		touches = append(touches, touch{
			session: jute.SessionID(binary.LittleEndian.Uint64(payload)),
			age:     time.Duration(binary.LittleEndian.Uint32(payload[8:])) * time.Millisecond,
		})
	}
	return touches, nil
}
