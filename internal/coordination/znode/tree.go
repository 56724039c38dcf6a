package znode

import (
	"encoding/binary"
	"strings"

	"understudy/internal/coordination/jute"
)

// tree is the nodes and their index. It checks nothing: what is done to it has been checked.
type tree struct {
	pageStore
	index   nameIndex
	count   int   // nodes, the root once
	size    int64 // lengths of all paths ("/" as 1) and data
	scratch []byte
}

func newTree() *tree {
	t := &tree{pageStore: newPageStore()}
	root := node{flags: flagParent, data: []byte{}}
	t.add(root.appendRecord(nil)) // gets rootID
	t.count, t.size = 1, 1
	return t
}

// lookup finds a node by its path; "" is the root, as in ZooKeeper's table of nodes. A path that is not well-formed is
// simply not there.
func (t *tree) lookup(path string) nodeID {
	if path == "" || path == "/" {
		return rootID
	}
	if path[0] != '/' {
		return 0
	}
	id := rootID
	for rest := path[1:]; ; {
		slash := strings.IndexByte(rest, '/')
		if slash < 0 {
			return t.index.find(&t.frozenPages, id, rest)
		}
		if id = t.index.find(&t.frozenPages, id, rest[:slash]); id == 0 {
			return 0
		}
		rest = rest[slash+1:]
	}
}

// path builds a node's path from its ancestors' names.
func (f *frozenPages) path(id nodeID) string {
	if id == rootID {
		return "/"
	}
	size := 0
	for up := id; up != rootID; {
		record := f.record(up)
		size += len(recordName(record)) + 1
		up = link(record, atParentLink)
	}
	path := make([]byte, size)
	for up := id; up != rootID; {
		record := f.record(up)
		name := recordName(record)
		size -= len(name)
		copy(path[size:], name)
		size--
		path[size] = '/'
		up = link(record, atParentLink)
	}
	return string(path)
}

func (f *frozenPages) node(id nodeID) (n node) {
	n.decodeRecord(f.record(id))
	return n
}

// firstChild and nextSibling walk a node's children in the order of their creation.
func (f *frozenPages) firstChild(id nodeID) nodeID {
	record := f.record(id)
	if record[0]&flagParent == 0 {
		return 0
	}
	return link(record, atFirstChild)
}

func (f *frozenPages) nextSibling(id nodeID) nodeID { return link(f.record(id), atNext) }

// following gives the node after id in depth-first order within the subtree of top, or 0 at its end.
func (f *frozenPages) following(id, top nodeID) nodeID {
	if child := f.firstChild(id); child != 0 {
		return child
	}
	for id != top {
		record := f.record(id)
		if next := link(record, atNext); next != 0 {
			return next
		}
		id = link(record, atParentLink)
	}
	return 0
}

// update writes a changed node.
func (t *tree) update(id nodeID, n *node) {
	t.scratch = n.appendRecord(t.scratch[:0])
	t.replace(id, t.scratch)
}

// insert adds n, which has its name and values but no links, as the last child of parent. The parent's counter and
// pzxid are the caller's.
func (t *tree) insert(parent nodeID, n *node) nodeID {
	t.makeParent(parent)
	first := link(t.record(parent), atFirstChild)
	n.parent, n.next, n.previous = parent, 0, 0
	if first != 0 {
		n.previous = link(t.record(first), atPrevious)
	}
	t.scratch = n.appendRecord(t.scratch[:0])
	id := t.add(t.scratch)
	if first == 0 {
		setLink(t.writable(id), atPrevious, id)
		setLink(t.writable(parent), atFirstChild, id)
	} else {
		setLink(t.writable(n.previous), atNext, id)
		setLink(t.writable(first), atPrevious, id)
	}
	record := t.writable(parent)
	setInt32(record, atNumChildren, int32At(record, atNumChildren)+1)
	t.index.insert(&t.frozenPages, parent, n.name, id)
	t.count++
	return id
}

// makeParent gives a record the fields of a node with children.
func (t *tree) makeParent(id nodeID) {
	if t.record(id)[0]&flagParent != 0 {
		return
	}
	n := t.node(id)
	n.flags |= flagParent // pzxid is czxid already
	t.update(id, &n)
}

// touchChildren notes in a node that its children have changed.
func (t *tree) touchChildren(id nodeID, counter int32, zxid jute.Zxid) {
	record := t.writable(id)
	setInt32(record, atCounter, counter)
	binary.LittleEndian.PutUint64(record[atPzxid:], uint64(zxid))
}

// counter is the create counter of a node that is a parent.
func (t *tree) counter(id nodeID) int32 { return int32At(t.record(id), atCounter) }

// removeLeaf takes a node without children out of the tree.
func (t *tree) removeLeaf(id nodeID) {
	record := t.record(id)
	parent, next, previous := link(record, atParentLink), link(record, atNext), link(record, atPrevious)
	t.index.remove(parent, recordName(record), id)
	first := link(t.record(parent), atFirstChild)
	switch {
	case first == id: // its previous is the last one
		setLink(t.writable(parent), atFirstChild, next)
		if next != 0 {
			setLink(t.writable(next), atPrevious, previous)
		}
	case next == 0: // the last one
		setLink(t.writable(previous), atNext, 0)
		setLink(t.writable(first), atPrevious, previous)
	default:
		setLink(t.writable(previous), atNext, next)
		setLink(t.writable(next), atPrevious, previous)
	}
	up := t.writable(parent)
	setInt32(up, atNumChildren, int32At(up, atNumChildren)-1)
	t.remove(id)
	t.count--
}
