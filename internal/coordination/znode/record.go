package znode

import (
	"encoding/binary"
	"math"
	"unsafe"

	"understudy/internal/coordination/jute"
)

// A node's record. The links are at fixed places and are written in place; numbers after the name are varints (uvarint
// for zxids, zigzag for the rest), and a change of those writes the record anew.
//
//	 0 flags
//	 1 parent, next sibling, previous sibling   4 bytes each, little-endian, as all fixed fields
//	13 with flagParent: first child, number of children, create counter   4 bytes each; pzxid   8 bytes
//	   name length, name
//	   [flagACL: number of the list in the aclTable]
//	   czxid, ctime
//	   [flagChanged: version, mzxid, mtime, aversion]
//	   [flagEphemeral: owner   8 bytes]
//	   [not flagNullData: data length, data]
//
// Children are a ring in the order of their creation, but for the last one's next, which is 0; the first one's previous
// is the last one. A node that was never changed has no flagChanged: version 0, mzxid = czxid, mtime = ctime,
// aversion 0. One that never had a child has no flagParent: counter 0, pzxid = czxid.
const (
	flagParent = 1 << iota
	flagACL
	flagChanged
	flagEphemeral
	flagNullData
	flagContainer
)

const (
	atParentLink  = 1
	atNext        = 5
	atPrevious    = 9
	atFirstChild  = 13
	atNumChildren = 17
	atCounter     = 21
	atPzxid       = 25
	nameAtLeaf    = 13
	nameAtParent  = 33
)

// node is a decoded record. name and data alias the record.
type node struct {
	flags                  byte
	parent, next, previous nodeID
	firstChild             nodeID
	numChildren            int32
	counter                int32 // children ever created: what sequential names count by
	pzxid                  jute.Zxid
	name                   string
	acl                    aclID
	czxid, mzxid           jute.Zxid
	ctime, mtime           int64
	version, aversion      int32
	owner                  jute.SessionID
	data                   []byte // nil is null
}

func link(record []byte, at int) nodeID {
	return nodeID(binary.LittleEndian.Uint32(record[at:]))
}

func setLink(record []byte, at int, id nodeID) {
	binary.LittleEndian.PutUint32(record[at:], uint32(id))
}

func int32At(record []byte, at int) int32 { return int32(binary.LittleEndian.Uint32(record[at:])) }

func setInt32(record []byte, at int, v int32) {
	binary.LittleEndian.PutUint32(record[at:], uint32(v))
}

// recordName gives the name in a record without decoding the rest. It aliases the record, and is valid only until the
// record is written or moves: compare it, hash it or copy it at once.
func recordName(record []byte) string {
	at := nameAtLeaf
	if record[0]&flagParent != 0 {
		at = nameAtParent
	}
	size, n := uint64(record[at]), 1
	if size >= 0x80 {
		size, n = binary.Uvarint(record[at:])
	}
	name := record[at+n : at+n+int(size)]
	return unsafe.String(unsafe.SliceData(name), len(name))
}

// decodeRecord reads a record that this package has written.
func (n *node) decodeRecord(record []byte) {
	n.flags = record[0]
	n.parent, n.next, n.previous = link(record, atParentLink), link(record, atNext), link(record, atPrevious)
	n.name = recordName(record)
	at := nameAtLeaf
	if n.flags&flagParent != 0 {
		n.firstChild = link(record, atFirstChild)
		n.numChildren = int32At(record, atNumChildren)
		n.counter = int32At(record, atCounter)
		n.pzxid = jute.Zxid(binary.LittleEndian.Uint64(record[atPzxid:]))
		at = nameAtParent
	} else {
		n.firstChild, n.numChildren, n.counter = 0, 0, 0
	}
	rest := record[at+uvarintBytes(uint64(len(n.name)))+len(n.name):]
	take := func() uint64 {
		v, size := binary.Uvarint(rest)
		rest = rest[size:]
		return v
	}
	n.acl = 0
	if n.flags&flagACL != 0 {
		n.acl = aclID(take())
	}
	n.czxid = jute.Zxid(take())
	n.ctime = unzigzag(take())
	if n.flags&flagParent == 0 {
		n.pzxid = n.czxid
	}
	n.version, n.mzxid, n.mtime, n.aversion = 0, n.czxid, n.ctime, 0
	if n.flags&flagChanged != 0 {
		n.version = int32(unzigzag(take()))
		n.mzxid = jute.Zxid(take())
		n.mtime = unzigzag(take())
		n.aversion = int32(unzigzag(take()))
	}
	n.owner = 0
	if n.flags&flagEphemeral != 0 {
		n.owner = jute.SessionID(binary.LittleEndian.Uint64(rest))
		rest = rest[8:]
	}
	n.data = nil
	if n.flags&flagNullData == 0 {
		size := take()
		n.data = rest[:size:size]
	}
}

// appendRecord encodes n and sets the flags that follow from its values; flagParent, flagChanged and flagContainer are
// taken as they are.
func (n *node) appendRecord(dst []byte) []byte {
	n.setFlag(flagACL, n.acl != 0)
	n.setFlag(flagEphemeral, n.owner != 0)
	n.setFlag(flagNullData, n.data == nil)
	dst = append(dst, n.flags)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(n.parent))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(n.next))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(n.previous))
	if n.flags&flagParent != 0 {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(n.firstChild))
		dst = binary.LittleEndian.AppendUint32(dst, uint32(n.numChildren))
		dst = binary.LittleEndian.AppendUint32(dst, uint32(n.counter))
		dst = binary.LittleEndian.AppendUint64(dst, uint64(n.pzxid))
	}
	dst = appendBytes(dst, n.name)
	return n.appendBody(dst, uint64(n.acl))
}

// appendBody encodes what follows the name, with the list of ACLs under the number given.
func (n *node) appendBody(dst []byte, acl uint64) []byte {
	if n.flags&flagACL != 0 {
		dst = binary.AppendUvarint(dst, acl)
	}
	dst = binary.AppendUvarint(dst, uint64(n.czxid))
	dst = binary.AppendVarint(dst, n.ctime)
	if n.flags&flagChanged != 0 {
		dst = binary.AppendVarint(dst, int64(n.version))
		dst = binary.AppendUvarint(dst, uint64(n.mzxid))
		dst = binary.AppendVarint(dst, n.mtime)
		dst = binary.AppendVarint(dst, int64(n.aversion))
	}
	if n.flags&flagEphemeral != 0 {
		dst = binary.LittleEndian.AppendUint64(dst, uint64(n.owner))
	}
	if n.flags&flagNullData == 0 {
		dst = appendBytes(dst, n.data)
	}
	return dst
}

func (n *node) setFlag(flag byte, on bool) {
	n.flags &^= flag
	if on {
		n.flags |= flag
	}
}

// stat is what clients see. The number of changes to the children is not stored: 2 × creates - present ones.
func (n *node) stat() jute.Stat {
	return jute.Stat{
		Czxid: n.czxid, Mzxid: n.mzxid, Ctime: n.ctime, Mtime: n.mtime,
		Version: n.version, Cversion: 2*n.counter - n.numChildren, Aversion: n.aversion,
		EphemeralOwner: n.owner, DataLength: int32(len(n.data)), NumChildren: n.numChildren, Pzxid: n.pzxid,
	}
}

// nextCounter raises a create counter. It stays at its highest value, where ZooKeeper's stays too (DataTree.createNode
// only ever raises it): from there on sequential names under that parent repeat and are refused with NodeExists.
func nextCounter(counter int32) int32 {
	if counter == math.MaxInt32 {
		return counter
	}
	return counter + 1
}

func unzigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }

func uvarintBytes(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}
