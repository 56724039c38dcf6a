package znode

import "math/bits"

// nameIndex finds a node by its parent and its name. It holds ids only: names are compared in the records. It consists
// of many small tables that grow each for itself, so that no create ever waits for a million entries to move.
//
// A table is open addressing with linear probing; a byte of the hash per entry (a tag) keeps nearly every comparison
// with a wrong record away.
type nameIndex struct {
	tables [indexTables]indexTable
}

const (
	indexTables   = 1024
	indexTableMin = 8

	tagEmpty   = 0
	tagRemoved = 1
	tagUsed    = 0x80 // or'ed with seven bits of the hash
)

type indexTable struct {
	tags []uint8
	ids  []nodeID
	used int // live entries
	full int // live and removed ones
}

// hashName hashes (parent, name) by multiply-and-fold steps of eight bytes.
func hashName(parent nodeID, name string) uint64 {
	const k0, k1 = 0x9e3779b97f4a7c15, 0xd6e8feb86659fd93
	h := (uint64(parent) + k1) * k0
	size := len(name)
	for len(name) >= 8 {
		word := uint64(name[0]) | uint64(name[1])<<8 | uint64(name[2])<<16 | uint64(name[3])<<24 |
			uint64(name[4])<<32 | uint64(name[5])<<40 | uint64(name[6])<<48 | uint64(name[7])<<56
		h = fold(h^word, k0)
		name = name[8:]
	}
	var word uint64
	for i := 0; i < len(name); i++ {
		word |= uint64(name[i]) << (8 * i)
	}
	return fold(fold(h^word, k1)^uint64(size), k0)
}

func fold(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

func (x *nameIndex) table(hash uint64) *indexTable { return &x.tables[hash>>54] }

func tagOf(hash uint64) uint8 { return uint8(hash>>47) | tagUsed }

// find gives the child of parent with that name, or 0.
func (x *nameIndex) find(records *frozenPages, parent nodeID, name string) nodeID {
	hash := hashName(parent, name)
	t := x.table(hash)
	if len(t.tags) == 0 {
		return 0
	}
	mask, tag := uint64(len(t.tags)-1), tagOf(hash)
	for at := hash & mask; ; at = (at + 1) & mask {
		switch t.tags[at] {
		case tagEmpty:
			return 0
		case tag:
			record := records.record(t.ids[at])
			if link(record, atParentLink) == parent && recordName(record) == name {
				return t.ids[at]
			}
		}
	}
}

// insert adds a node that is not in the index.
func (x *nameIndex) insert(records *frozenPages, parent nodeID, name string, id nodeID) {
	hash := hashName(parent, name)
	t := x.table(hash)
	if t.full+1 > len(t.tags)*7/8 {
		t.rebuild(records)
	}
	t.place(hash, id)
	t.used++
}

func (t *indexTable) place(hash uint64, id nodeID) {
	mask := uint64(len(t.tags) - 1)
	at := hash & mask
	for t.tags[at] >= tagUsed {
		at = (at + 1) & mask
	}
	if t.tags[at] == tagEmpty {
		t.full++
	}
	t.tags[at], t.ids[at] = tagOf(hash), id
}

// rebuild makes room: twice as much if the table is full of live entries, and none of the removed ones stay.
func (t *indexTable) rebuild(records *frozenPages) {
	size := max(len(t.tags), indexTableMin)
	if t.used+1 > size*5/8 {
		size *= 2
	}
	old := *t
	t.tags, t.ids, t.full = make([]uint8, size), make([]nodeID, size), 0
	for at, tag := range old.tags {
		if tag >= tagUsed {
			id := old.ids[at]
			record := records.record(id)
			t.place(hashName(link(record, atParentLink), recordName(record)), id)
		}
	}
}

// remove drops a node that is in the index. Its record must still be there.
func (x *nameIndex) remove(parent nodeID, name string, id nodeID) {
	hash := hashName(parent, name)
	t := x.table(hash)
	mask := uint64(len(t.tags) - 1)
	at := hash & mask
	for t.tags[at] < tagUsed || t.ids[at] != id {
		at = (at + 1) & mask
	}
	t.used--
	if t.tags[(at+1)&mask] == tagEmpty { // nobody probes past it
		t.tags[at] = tagEmpty
		t.full--
		return
	}
	t.tags[at] = tagRemoved
}
