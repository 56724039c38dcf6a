package znode

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"hash/crc64"
	"io"
	"math"
	"strings"

	"understudy/internal/coordination/jute"
)

// Restore reads what WriteTo wrote, to its end, and checks all of it. It reads exactly the snapshot's bytes from r.
func Restore(r io.Reader) (*Machine, error) {
	blocks := &blockReader{r: r}
	if err := blocks.readHeader(); err != nil {
		return nil, err
	}
	restorer := restorer{m: newMachine(), in: snapshotReader{r: bufio.NewReaderSize(blocks, blockBytesMax)}}
	restorer.restore()
	if blocks.err != nil && blocks.err != io.EOF { //nolint:errorlint // what is damaged may wrap io.EOF; the end is io.EOF itself
		return nil, blocks.err
	}
	if err := restorer.in.err; err != nil {
		return nil, err
	}
	if err := blocks.readEnd(restorer.in.r); err != nil {
		return nil, err
	}
	restorer.m.findQuotas()
	return restorer.m, nil
}

// blockReader gives the checked contents of the blocks one after the other.
type blockReader struct {
	r        io.Reader
	content  []byte // of the present block, what has not been read
	buf      []byte
	checksum uint64
	err      error // io.EOF after the end mark
}

func (b *blockReader) readHeader() error {
	header := make([]byte, len(snapshotMagic)+4)
	if _, err := io.ReadFull(b.r, header); err != nil {
		return damaged("its header cannot be read: %w", err)
	}
	if string(header[:len(snapshotMagic)]) != snapshotMagic {
		return damaged("it begins with %q", header[:len(snapshotMagic)])
	}
	if version := binary.BigEndian.Uint32(header[len(snapshotMagic):]); version != snapshotVersion {
		return fmt.Errorf("%w: %d, this program knows %d", ErrSnapshotVersion, version, snapshotVersion)
	}
	return nil
}

// Read implements io.Reader.
func (b *blockReader) Read(p []byte) (int, error) {
	for len(b.content) == 0 {
		if b.err == nil {
			b.err = b.next()
		}
		if b.err != nil {
			return 0, b.err
		}
	}
	n := copy(p, b.content)
	b.content = b.content[n:]
	return n, nil
}

func (b *blockReader) next() error {
	var header [8]byte
	if _, err := io.ReadFull(b.r, header[:]); err != nil {
		return damaged("a block's header cannot be read: %w", err)
	}
	size := binary.BigEndian.Uint32(header[:])
	if size == 0 {
		return b.end(header)
	}
	if size > blockBytesMax {
		return damaged("a block of %d bytes is announced", size)
	}
	if b.buf == nil {
		b.buf = make([]byte, blockBytesMax)
	}
	b.content = b.buf[:size]
	if _, err := io.ReadFull(b.r, b.content); err != nil {
		b.content = nil
		return damaged("a block cannot be read: %w", err)
	}
	if crc32.Checksum(b.content, blockTable) != binary.BigEndian.Uint32(header[4:]) {
		b.content = nil
		return damaged("a block's checksum is wrong")
	}
	b.checksum = crc64.Update(b.checksum, checksumTable, b.content)
	return nil
}

func (b *blockReader) end(header [8]byte) error {
	var rest [4]byte
	if _, err := io.ReadFull(b.r, rest[:]); err != nil {
		return damaged("its end cannot be read: %w", err)
	}
	if binary.BigEndian.Uint64(append(header[4:], rest[:]...)) != b.checksum {
		return damaged("its checksum is wrong")
	}
	return io.EOF
}

// readEnd checks that the contents end where the last node did.
func (b *blockReader) readEnd(rest *bufio.Reader) error {
	switch _, err := rest.ReadByte(); {
	case err == nil:
		return damaged("something follows the last node")
	case err != io.EOF:
		return err
	}
	return nil
}

// snapshotReader decodes numbers and bytes of the contents, with a sticky error.
type snapshotReader struct {
	r   *bufio.Reader
	err error
}

func (r *snapshotReader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *snapshotReader) uvarint() uint64 {
	if r.err != nil {
		return 0
	}
	v, err := binary.ReadUvarint(r.r)
	if err != nil {
		r.fail(damaged("a number cannot be read: %w", err))
		return 0
	}
	return v
}

func (r *snapshotReader) varint() int64 { return unzigzag(r.uvarint()) }

func (r *snapshotReader) varint32() int32 {
	v := r.varint()
	if int64(int32(v)) != v {
		r.fail(damaged("number %d does not fit 32 bits", v))
		return 0
	}
	return int32(v)
}

// positive32 reads an unsigned number that is an int32 elsewhere.
func (r *snapshotReader) positive32() int32 {
	v := r.uvarint()
	if v > math.MaxInt32 {
		r.fail(damaged("number %d does not fit 31 bits", v))
		return 0
	}
	return int32(v)
}

func (r *snapshotReader) zxid() jute.Zxid {
	v := r.uvarint()
	if v > math.MaxInt64 {
		r.fail(damaged("zxid %#x does not fit 63 bits", v))
		return 0
	}
	return jute.Zxid(v)
}

func (r *snapshotReader) fixed(dst []byte) {
	if r.err != nil {
		return
	}
	if _, err := io.ReadFull(r.r, dst); err != nil {
		r.fail(damaged("it ends early: %w", err))
	}
}

func (r *snapshotReader) byte() byte {
	var b [1]byte
	r.fixed(b[:])
	return b[0]
}

// bytes appends a length's worth of bytes to dst, in steps, so that only what is there is ever allocated.
func (r *snapshotReader) bytes(dst []byte) []byte {
	for size := r.uvarint(); size > 0 && r.err == nil; {
		step := int(min(size, blockBytesMax))
		at := len(dst)
		dst = append(dst, make([]byte, step)...)
		r.fixed(dst[at:])
		size -= uint64(step)
	}
	return dst
}

// restorer builds a machine from the contents of a snapshot.
type restorer struct {
	m    *Machine
	in   snapshotReader
	acls []aclID // by number, from 1
	open []openParent
	name []byte
	data []byte
}

// openParent is a node on the way to the present one, and how many of its children are still to come.
type openParent struct {
	id       nodeID
	left     int32
	pathSize int
}

func (r *restorer) restore() {
	r.m.raftTerm = r.in.uvarint()
	r.m.lastZxid = r.in.zxid()
	for count := r.in.uvarint(); count > 0 && r.in.err == nil; count-- {
		member := MemberID(r.in.uvarint())
		r.m.origins[member] = origin{incarnation: r.in.uvarint(), next: r.in.uvarint()}
	}
	for count := r.in.uvarint(); count > 0 && r.in.err == nil; count-- {
		r.restoreSession()
	}
	r.restoreRoot()
	for r.in.err == nil && len(r.open) > 0 {
		top := &r.open[len(r.open)-1]
		if top.left == 0 {
			r.open = r.open[:len(r.open)-1]
			continue
		}
		top.left--
		r.restoreNode(top.id, top.pathSize)
	}
}

func (r *restorer) restoreSession() {
	var id [8]byte
	r.in.fixed(id[:])
	s := &session{
		id: jute.SessionID(binary.BigEndian.Uint64(id[:])), timeoutMs: r.in.varint32(), graceMs: r.in.varint32(),
		password: r.in.bytes(nil), owner: MemberID(r.in.uvarint()), generation: r.in.uvarint(),
		lost: r.in.byte() != 0, lostAtMs: r.in.varint(),
	}
	if r.m.sessions.get(s.id) != nil {
		r.in.fail(damaged("session %#x is there twice", s.id))
	}
	if r.in.err == nil {
		r.m.sessions.put(s)
	}
}

// restoreRoot fills the root that a new tree has.
func (r *restorer) restoreRoot() {
	n, children := r.readNode()
	if r.in.err != nil {
		return
	}
	if n.name != "" || n.flags&flagParent == 0 || n.owner != 0 {
		r.in.fail(damaged("its first node is not a root"))
		return
	}
	r.m.tree.update(rootID, &n)
	r.m.tree.size += int64(len(n.data))
	r.open = append(r.open, openParent{rootID, children, 0})
}

func (r *restorer) restoreNode(parent nodeID, parentPathSize int) {
	n, children := r.readNode()
	if r.in.err != nil {
		return
	}
	t := r.m.tree
	switch {
	case n.name == "" || strings.ContainsAny(n.name, "/\x00"):
		r.in.fail(damaged("a node has the name %q", n.name))
		return
	case t.index.find(&t.frozenPages, parent, n.name) != 0:
		r.in.fail(damaged("a node has two children called %q", n.name))
		return
	case n.owner != 0 && (children != 0 || r.m.sessions.get(n.owner) == nil):
		r.in.fail(damaged("an ephemeral node has children or belongs to no session (%#x)", n.owner))
		return
	}
	id := t.insert(parent, &n)
	pathSize := parentPathSize + 1 + textUnits(n.name)
	t.size += int64(pathSize + len(n.data))
	if n.owner != 0 {
		r.m.sessions.addEphemeral(n.owner, id)
	}
	if n.flags&flagContainer != 0 {
		r.m.containers[id] = struct{}{}
	}
	if children > 0 {
		r.open = append(r.open, openParent{id, children, pathSize})
	}
}

// readNode reads a node without its links, and how many children follow. name and data are valid until the next one.
func (r *restorer) readNode() (n node, children int32) {
	in := &r.in
	r.name = in.bytes(r.name[:0])
	n.name = string(r.name)
	n.flags = in.byte()
	if n.flags&^(flagParent|flagACL|flagChanged|flagEphemeral|flagNullData|flagContainer) != 0 {
		in.fail(damaged("a node has unknown flags %#x", n.flags))
	}
	if n.flags&flagParent != 0 {
		children, n.counter, n.pzxid = in.positive32(), in.positive32(), in.zxid()
	}
	if n.flags&flagACL != 0 {
		n.acl = r.readACL()
	}
	n.czxid, n.ctime = in.zxid(), in.varint()
	if n.flags&flagChanged != 0 {
		n.version, n.mzxid, n.mtime, n.aversion = in.varint32(), in.zxid(), in.varint(), in.varint32()
	}
	if n.flags&flagEphemeral != 0 {
		var owner [8]byte
		in.fixed(owner[:])
		n.owner = jute.SessionID(binary.LittleEndian.Uint64(owner[:]))
		if n.owner == 0 {
			in.fail(damaged("an ephemeral node has no owner"))
		}
	}
	if n.flags&flagNullData == 0 {
		if r.data = in.bytes(r.data[:0]); r.data == nil {
			r.data = []byte{}
		}
		n.data = r.data
	}
	return n, children
}

// readACL reads the number of a list, and the list where it comes for the first time, and counts the use.
func (r *restorer) readACL() aclID {
	number := r.in.uvarint()
	switch {
	case r.in.err != nil:
		return 0
	case number >= 1 && number <= uint64(len(r.acls)):
		id := r.acls[number-1]
		r.m.acls.uses[id]++
		return id
	case number != uint64(len(r.acls))+1:
		r.in.fail(damaged("list of ACLs %d comes after %d", number, len(r.acls)))
		return 0
	}
	var list []jute.ACL
	for count := r.in.uvarint(); count > 0 && r.in.err == nil; count-- {
		list = append(list, jute.ACL{
			Perms: r.in.varint32(), ID: jute.ID{Scheme: string(r.in.bytes(nil)), ID: string(r.in.bytes(nil))},
		})
	}
	if r.in.err != nil {
		return 0
	}
	id := r.m.acls.acquire(list)
	if id == openACL || r.m.acls.uses[id] > 1 {
		r.in.fail(damaged("list of ACLs %d is one of those before", number))
	}
	r.acls = append(r.acls, id)
	return id
}
