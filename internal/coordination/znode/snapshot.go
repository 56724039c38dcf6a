package znode

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/crc64"
	"io"
	"slices"

	"understudy/internal/coordination/jute"
)

// A snapshot is the state as a stream. The stream is cut into blocks, each with its checksum, so that a reader parses
// nothing that is damaged:
//
//	magic "usznode\n" | version   4 bytes
//	blocks: length   4 bytes, 1 to 64 KiB | CRC-32C of the content   4 bytes | content
//	end:    length 0 | CRC-64 (ECMA) of all contents, which is the state's Checksum   8 bytes
//
// Fixed numbers are big-endian; in the contents numbers are varints (zigzag for signed ones) and "bytes" is a length and
// the bytes. The contents:
//
//	raft term | zxid
//	count × (member | incarnation | next sequence), ordered by member
//	count × (session id   8 bytes | timeout | grace | password bytes | owner | generation | lost   1 byte | lost at),
//	    ordered by id
//	nodes depth first from the root, each before its children and these in the order of their creation:
//	    name bytes | flags   1 byte
//	    [flagParent: number of children | counter | pzxid]
//	    [flagACL: number of the list; one more than the highest so far is followed by the list: count ×
//	        (perms | scheme bytes | id bytes)]
//	    the rest of the record as in record.go
const (
	snapshotMagic   = "usznode\n"
	snapshotVersion = 1
	blockBytesMax   = 64 << 10
)

var (
	blockTable    = crc32.MakeTable(crc32.Castagnoli)
	checksumTable = crc64.MakeTable(crc64.ECMA)
)

// ErrSnapshotVersion says that a snapshot was written by a newer version of the program, ErrSnapshotDamaged that one is
// not what was written.
var (
	ErrSnapshotVersion = errors.New("znode: snapshot has an unknown version")
	ErrSnapshotDamaged = errors.New("znode: snapshot is damaged")
)

// state is all that members agree about, in a form that Apply does not change.
type state struct {
	frozenPages
	acls     [][]jute.ACL
	sessions []*session
	origins  map[MemberID]origin
	lastZxid jute.Zxid
	raftTerm uint64
}

// Snapshot is a frozen state. It must be closed; it is not for use by several goroutines at once.
type Snapshot struct {
	state  state
	freeze *freeze
}

// Freeze gives the state as it is now, to be written while Apply goes on. It takes microseconds; what Apply changes
// afterwards is copied first, in pieces of 64 KiB, until the snapshot is closed.
func (m *Machine) Freeze() *Snapshot {
	pages, f := m.tree.freeze()
	origins := make(map[MemberID]origin, len(m.origins))
	for member, o := range m.origins {
		origins[member] = o
	}
	return &Snapshot{freeze: f, state: state{
		frozenPages: pages, acls: m.acls.freeze(), sessions: m.sessions.freeze(), origins: origins,
		lastZxid: m.lastZxid, raftTerm: m.raftTerm,
	}}
}

// LastZxid is the last zxid of the frozen state.
func (s *Snapshot) LastZxid() jute.Zxid { return s.state.lastZxid }

// Close lets the machine write in place again. It may be called more than once.
func (s *Snapshot) Close() {
	if s.freeze != nil {
		s.freeze.closed.Store(true)
		s.freeze, s.state = nil, state{}
	}
}

// WriteTo writes the snapshot; it can be called again.
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) {
	if s.freeze == nil {
		return 0, errors.New("znode: snapshot is closed")
	}
	out := &blockWriter{w: w}
	header := binary.BigEndian.AppendUint32([]byte(snapshotMagic), snapshotVersion)
	out.write(header)
	checksum := s.state.stream(out.block)
	out.write(binary.BigEndian.AppendUint64([]byte{0, 0, 0, 0}, checksum))
	return out.written, out.err
}

// Checksum is a hash of the whole state, equal on members that have applied the same entries. It walks everything.
func (m *Machine) Checksum() uint64 {
	live := state{
		frozenPages: m.tree.frozenPages, acls: m.acls.lists, sessions: m.sessions.freeze(), origins: m.origins,
		lastZxid: m.lastZxid, raftTerm: m.raftTerm,
	}
	return live.stream(func([]byte) bool { return true })
}

// blockWriter writes blocks and remembers the first error.
type blockWriter struct {
	w       io.Writer
	written int64
	err     error
}

func (b *blockWriter) write(p []byte) {
	if b.err != nil {
		return
	}
	n, err := b.w.Write(p)
	b.written += int64(n)
	b.err = err
}

func (b *blockWriter) block(content []byte) bool {
	var header [8]byte
	binary.BigEndian.PutUint32(header[:], uint32(len(content)))
	binary.BigEndian.PutUint32(header[4:], crc32.Checksum(content, blockTable))
	b.write(header[:])
	b.write(content)
	return b.err == nil
}

// stream hands the contents to block, in pieces of at most blockBytesMax, until it returns false, and gives their
// checksum.
func (s *state) stream(block func([]byte) bool) (checksum uint64) {
	buf := make([]byte, 0, 4096) // grows to 2*blockBytesMax in a large tree
	flush := func(all bool) bool {
		for len(buf) >= blockBytesMax || all && len(buf) > 0 {
			content := buf[:min(len(buf), blockBytesMax)]
			checksum = crc64.Update(checksum, checksumTable, content)
			if !block(content) {
				return false
			}
			buf = buf[:copy(buf, buf[len(content):])]
		}
		return true
	}
	buf = binary.AppendUvarint(buf, s.raftTerm)
	buf = binary.AppendUvarint(buf, uint64(s.lastZxid))
	buf = s.appendOrigins(buf)
	sessions := sortSessions(slices.Clone(s.sessions))
	buf = binary.AppendUvarint(buf, uint64(len(sessions)))
	for _, each := range sessions {
		buf = each.append(buf)
		if !flush(false) {
			return checksum
		}
	}
	acls := aclNumbers{lists: s.acls, numbers: map[aclID]uint64{}}
	for id := rootID; id != 0; id = s.following(id, rootID) {
		buf = s.appendNode(buf, id, &acls)
		if !flush(false) {
			return checksum
		}
	}
	flush(true)
	return checksum
}

func (s *state) appendOrigins(dst []byte) []byte {
	members := make([]MemberID, 0, len(s.origins))
	for member := range s.origins {
		members = append(members, member)
	}
	slices.Sort(members)
	dst = binary.AppendUvarint(dst, uint64(len(members)))
	for _, member := range members {
		o := s.origins[member]
		dst = binary.AppendUvarint(dst, uint64(member))
		dst = binary.AppendUvarint(dst, o.incarnation)
		dst = binary.AppendUvarint(dst, o.next)
	}
	return dst
}

func (s *session) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.id))
	dst = binary.AppendVarint(dst, int64(s.timeoutMs))
	dst = binary.AppendVarint(dst, int64(s.graceMs))
	dst = appendBytes(dst, s.password)
	dst = binary.AppendUvarint(dst, uint64(s.owner))
	dst = binary.AppendUvarint(dst, s.generation)
	dst = jute.AppendBool(dst, s.lost)
	return binary.AppendVarint(dst, s.lostAtMs)
}

// aclNumbers numbers lists of ACLs in the order in which a stream meets them; the members' own numbers may differ.
type aclNumbers struct {
	lists   [][]jute.ACL
	numbers map[aclID]uint64
}

func (s *state) appendNode(dst []byte, id nodeID, acls *aclNumbers) []byte {
	n := s.node(id)
	dst = appendBytes(dst, n.name)
	dst = append(dst, n.flags)
	if n.flags&flagParent != 0 {
		dst = binary.AppendUvarint(dst, uint64(n.numChildren))
		dst = binary.AppendUvarint(dst, uint64(n.counter))
		dst = binary.AppendUvarint(dst, uint64(n.pzxid))
	}
	if n.flags&flagACL != 0 {
		dst = acls.append(dst, n.acl)
		n.flags &^= flagACL
	}
	return n.appendBody(dst, 0)
}

func (a *aclNumbers) append(dst []byte, id aclID) []byte {
	number, known := a.numbers[id]
	if known {
		return binary.AppendUvarint(dst, number)
	}
	number = uint64(len(a.numbers) + 1)
	a.numbers[id] = number
	dst = binary.AppendUvarint(dst, number)
	list := a.lists[id]
	dst = binary.AppendUvarint(dst, uint64(len(list)))
	for _, entry := range list {
		dst = binary.AppendVarint(dst, int64(entry.Perms))
		dst = appendBytes(appendBytes(dst, entry.ID.Scheme), entry.ID.ID)
	}
	return dst
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrSnapshotDamaged, fmt.Errorf(format, args...))
}
