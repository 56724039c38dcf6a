package znode

import (
	"bytes"
	"encoding/binary"
	"hash/crc64"
	"math/rand"
	"testing"
)

func checksumOf(content []byte) []byte {
	return binary.BigEndian.AppendUint64(nil, crc64.Checksum(content, checksumTable))
}

func TestSizeClasses(t *testing.T) {
	previous := uint8(0)
	for size := 1; size <= slotBytesMax; size++ {
		class := sizeClass(size)
		if class >= classCount || class < previous || classBytes(class) < size || classBytes(class)%slotUnit != 0 ||
			class > 0 && classBytes(class-1) >= size {
			t.Fatalf("size %d is in class %d of %d bytes", size, class, classBytes(class))
		}
		previous = class
	}
	if previous != classCount-1 || sizeClass(slotBytesMax+1) != ownPage {
		t.Fatalf("the last class is %d of %d", previous, classCount)
	}
}

// TestPageStoreMatchesMap drives the store and a map, with freezes that open and close in between.
func TestPageStoreMatchesMap(t *testing.T) {
	type frozen struct {
		pages frozenPages
		mark  *freeze
		want  map[nodeID][]byte
	}
	rng := rand.New(rand.NewSource(1))
	store, model := newPageStore(), map[nodeID][]byte{}
	var ids []nodeID
	var open []frozen
	record := func() []byte {
		sizes := []int{20, 150, 700, 5000, 40_000, 100_000}
		b := make([]byte, 1+rng.Intn(sizes[rng.Intn(len(sizes))]))
		rng.Read(b)
		return b
	}
	check := func(pages frozenPages, want map[nodeID][]byte) {
		t.Helper()
		for id, record := range want {
			if got := pages.record(id); !bytes.HasPrefix(got, record) {
				t.Fatalf("record %d is damaged", id)
			}
		}
	}
	for range 6_000 {
		switch n := rng.Intn(100); {
		case n < 45 || len(ids) == 0:
			r := record()
			id := store.add(r)
			if _, taken := model[id]; taken {
				t.Fatalf("id %d is given out twice", id)
			}
			model[id] = r
			ids = append(ids, id)
		case n < 65:
			id := ids[rng.Intn(len(ids))]
			model[id] = record()
			store.replace(id, model[id])
		case n < 80:
			id := ids[rng.Intn(len(ids))]
			in, changed := store.writable(id), bytes.Clone(model[id])
			in[0]++
			changed[0]++
			model[id] = changed
		case n < 98:
			at := rng.Intn(len(ids))
			store.remove(ids[at])
			delete(model, ids[at])
			ids[at] = ids[len(ids)-1]
			ids = ids[:len(ids)-1]
		case n == 98 && len(open) < 3:
			want := map[nodeID][]byte{}
			for id, r := range model {
				want[id] = r
			}
			pages, mark := store.freeze()
			open = append(open, frozen{pages, mark, want})
		case len(open) > 0:
			at := rng.Intn(len(open))
			check(open[at].pages, open[at].want)
			open[at].mark.closed.Store(true)
			open = append(open[:at], open[at+1:]...)
		}
	}
	check(store.frozenPages, model)
	for _, id := range ids {
		store.remove(id)
	}
	if store.bytes() != int64(len(store.places))*pageBytes {
		t.Errorf("an empty store keeps %d bytes", store.bytes())
	}
}

func TestNameIndexMatchesMap(t *testing.T) {
	tree := newTree()
	rng := rand.New(rand.NewSource(2))
	model := map[string]nodeID{}
	names := make([]string, 5000)
	for i := range names {
		b := make([]byte, 1+rng.Intn(30))
		for j := range b {
			b[j] = byte('a' + rng.Intn(26))
		}
		names[i] = string(b)
	}
	for range 40_000 {
		name := names[rng.Intn(len(names))]
		id := model[name]
		if got := tree.lookup("/" + name); got != id {
			t.Fatalf("%q is %d, want %d", name, got, id)
		}
		if id == 0 {
			model[name] = tree.insert(rootID, &node{name: name})
			continue
		}
		tree.removeLeaf(id)
		delete(model, name)
	}
	if tree.count != len(model)+1 {
		t.Errorf("%d nodes, want %d", tree.count, len(model)+1)
	}
}
