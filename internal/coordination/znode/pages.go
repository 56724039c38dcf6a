package znode

import (
	"fmt"
	"math/bits"
	"sync/atomic"
)

// Nodes are records in pages of 64 KiB that hold no Go pointers, so that a million of them cost the garbage collector
// nothing. A page is cut into slots of one size class; a record larger than half a page has a page to itself. A record
// is named by its node id, which never changes, and found through a table of places, because a record that grows moves.
//
// A freeze copies the two tables of slices (pages and places), not what they point to. From then on the first write to a
// page copies it (writable), as long as a freeze that saw the page is open.
const (
	pageBytes       = 64 << 10
	slotUnit        = 8                  // slots begin and end at multiples of it
	placeOffsetBits = 13                 // pageBytes / slotUnit
	pagesMax        = 1 << (32 - 13)     // 32 GiB of records
	placesPerPage   = pageBytes / 4      // node ids per page of the place table
	exactClasses    = 64                 // slots of 8, 16, … 512 bytes
	slotBytesMax    = pageBytes / 2      // larger records have a page of their own
	ownPage         = uint8(0xff)        // class of such a page
	classCount      = exactClasses + 6*8 // then eight per doubling up to slotBytesMax
)

// nodeID names a node as long as it exists. 0 is none, rootID is "/".
type nodeID uint32

const rootID nodeID = 1

// place says where a record is: page number << placeOffsetBits | offset / slotUnit.
type place uint32

// frozenPages is a readable set of records: the live one, or a snapshot's.
type frozenPages struct {
	pages  [][]byte
	places [][]place
}

// record gives the bytes of a node's slot.
func (f *frozenPages) record(id nodeID) []byte {
	p := f.places[id/placesPerPage][id%placesPerPage]
	return f.pages[p>>placeOffsetBits][(p&(1<<placeOffsetBits-1))*slotUnit:]
}

// pageInfo is what the allocator knows of a page. It is never shared with a freeze.
type pageInfo struct {
	generation uint64 // of the last freeze when the page was made or copied
	class      uint8
	live       uint16   // used slots
	partialAt  int32    // position in the class's list of pages with free slots, or -1
	free       []uint64 // a bit per slot
}

// pageStore allocates records.
type pageStore struct {
	frozenPages
	info      []pageInfo
	freePages []uint32
	partial   [classCount][]uint32

	placeGenerations []uint64 // per page of places, as pageInfo.generation
	freeIDs          []nodeID
	nextID           nodeID

	generation uint64    // number of freezes so far
	open       []*freeze // those that may still be read
}

// freeze marks a moment whose pages somebody may be reading.
type freeze struct {
	generation uint64 // pages with a lower one belong to it
	closed     atomic.Bool
}

func newPageStore() pageStore { return pageStore{nextID: rootID} }

// freeze makes the present contents readable beside further writes until the freeze is closed.
func (s *pageStore) freeze() (frozenPages, *freeze) {
	s.generation++
	f := &freeze{generation: s.generation}
	s.open = append(s.open, f)
	return frozenPages{
		pages:  append([][]byte(nil), s.pages...),
		places: append([][]place(nil), s.places...),
	}, f
}

// mustCopy reports whether a page last made or copied at generation belongs to an open freeze too.
func (s *pageStore) mustCopy(generation uint64) bool {
	stillOpen := s.open[:0]
	needed := false
	for _, f := range s.open {
		if f.closed.Load() {
			continue
		}
		stillOpen = append(stillOpen, f)
		needed = needed || f.generation > generation
	}
	clear(s.open[len(stillOpen):])
	s.open = stillOpen
	return needed
}

// writable gives a node's record for writing in place.
func (s *pageStore) writable(id nodeID) []byte {
	p := s.places[id/placesPerPage][id%placesPerPage]
	page := uint32(p >> placeOffsetBits)
	s.makeWritable(page)
	return s.pages[page][(p&(1<<placeOffsetBits-1))*slotUnit:]
}

func (s *pageStore) makeWritable(page uint32) {
	info := &s.info[page]
	if info.generation == s.generation {
		return
	}
	if s.mustCopy(info.generation) {
		s.pages[page] = append(make([]byte, 0, len(s.pages[page])), s.pages[page]...)
	}
	info.generation = s.generation
}

func (s *pageStore) setPlace(id nodeID, p place) {
	n := id / placesPerPage
	for int(n) >= len(s.places) {
		s.places = append(s.places, make([]place, placesPerPage))
		s.placeGenerations = append(s.placeGenerations, s.generation)
	}
	if s.placeGenerations[n] != s.generation {
		if s.mustCopy(s.placeGenerations[n]) {
			s.places[n] = append(make([]place, 0, placesPerPage), s.places[n]...)
		}
		s.placeGenerations[n] = s.generation
	}
	s.places[n][id%placesPerPage] = p
}

// add stores a new record and gives it an id.
func (s *pageStore) add(record []byte) nodeID {
	id := s.nextID
	if n := len(s.freeIDs); n > 0 {
		id, s.freeIDs = s.freeIDs[n-1], s.freeIDs[:n-1]
	} else {
		s.nextID++
	}
	s.put(id, record)
	return id
}

// put writes a record into a new slot.
func (s *pageStore) put(id nodeID, record []byte) {
	p := s.allocate(len(record))
	page := uint32(p >> placeOffsetBits)
	copy(s.pages[page][(p&(1<<placeOffsetBits-1))*slotUnit:], record)
	s.setPlace(id, p)
}

// replace writes a changed record, in place if it fits its slot's class. record must not alias the slot.
func (s *pageStore) replace(id nodeID, record []byte) {
	p := s.places[id/placesPerPage][id%placesPerPage]
	page := uint32(p >> placeOffsetBits)
	class := s.info[page].class
	fits := class == sizeClass(len(record))
	if class == ownPage {
		fits = fits && len(record) == len(s.pages[page])
	}
	if fits {
		copy(s.writable(id), record)
		return
	}
	s.put(id, record)
	s.release(p)
}

// remove drops a record and its id.
func (s *pageStore) remove(id nodeID) {
	s.release(s.places[id/placesPerPage][id%placesPerPage])
	s.setPlace(id, 0)
	s.freeIDs = append(s.freeIDs, id)
}

// sizeClass gives the class of slots that hold size bytes.
func sizeClass(size int) uint8 {
	if size > slotBytesMax {
		return ownPage
	}
	if size <= exactClasses*slotUnit {
		return uint8((max(size, 1) - 1) / slotUnit)
	}
	// Eight steps per doubling: (512, 1024] in steps of 64, (1024, 2048] in steps of 128, …
	doubling := bits.Len(uint(size-1)) - 10
	step := 64 << doubling
	return uint8(exactClasses + doubling*8 + (size-1-(512<<doubling))/step)
}

// classBytes is the size of a class's slots.
func classBytes(class uint8) int {
	if class < exactClasses {
		return (int(class) + 1) * slotUnit
	}
	doubling := (int(class) - exactClasses) / 8
	return 512<<doubling + ((int(class)-exactClasses)%8+1)*(64<<doubling)
}

func (s *pageStore) allocate(size int) place {
	class := sizeClass(size)
	if class == ownPage {
		page := s.newPage(class, size)
		s.info[page].live = 1
		return place(page << placeOffsetBits)
	}
	if len(s.partial[class]) == 0 {
		page := s.newPage(class, pageBytes)
		slots := pageBytes / classBytes(class)
		free := make([]uint64, (slots+63)/64)
		for slot := range slots {
			free[slot/64] |= 1 << (slot % 64)
		}
		s.info[page].free = free
		s.addPartial(page)
	}
	page := s.partial[class][len(s.partial[class])-1]
	info := &s.info[page]
	slot := takeLowest(info.free)
	info.live++
	if int(info.live) == pageBytes/classBytes(class) {
		s.dropPartial(page)
	}
	s.makeWritable(page)
	return place(page<<placeOffsetBits | uint32(slot*classBytes(class)/slotUnit))
}

func takeLowest(free []uint64) int {
	for i, word := range free {
		if word != 0 {
			bit := bits.TrailingZeros64(word)
			free[i] = word &^ (1 << bit)
			return i*64 + bit
		}
	}
	panic("znode: a page in the list of pages with free slots has none")
}

func (s *pageStore) newPage(class uint8, size int) uint32 {
	info := pageInfo{generation: s.generation, class: class, partialAt: -1}
	if n := len(s.freePages); n > 0 {
		page := s.freePages[n-1]
		s.freePages = s.freePages[:n-1]
		s.pages[page], s.info[page] = make([]byte, size), info
		return page
	}
	if len(s.pages) == pagesMax {
		panic(fmt.Sprintf("znode: the tree needs more than %d pages of %d bytes", pagesMax, pageBytes))
	}
	s.pages = append(s.pages, make([]byte, size))
	s.info = append(s.info, info)
	return uint32(len(s.pages) - 1)
}

// release frees a slot, and its page when that was the last one.
func (s *pageStore) release(p place) {
	page := uint32(p >> placeOffsetBits)
	info := &s.info[page]
	info.live--
	if info.live == 0 {
		s.dropPartial(page)
		s.pages[page], s.info[page] = nil, pageInfo{partialAt: -1}
		s.freePages = append(s.freePages, page)
		return
	}
	slot := int(p&(1<<placeOffsetBits-1)) * slotUnit / classBytes(info.class)
	info.free[slot/64] |= 1 << (slot % 64)
	if info.partialAt < 0 {
		s.addPartial(page)
	}
}

func (s *pageStore) addPartial(page uint32) {
	class := s.info[page].class
	s.info[page].partialAt = int32(len(s.partial[class]))
	s.partial[class] = append(s.partial[class], page)
}

func (s *pageStore) dropPartial(page uint32) {
	at := s.info[page].partialAt
	if at < 0 {
		return
	}
	list := s.partial[s.info[page].class]
	last := list[len(list)-1]
	list[at] = last
	s.info[last].partialAt = at
	s.info[page].partialAt = -1
	s.partial[s.info[page].class] = list[:len(list)-1]
}

// bytes is the memory the records take, free slots included.
func (s *pageStore) bytes() (total int64) {
	for _, page := range s.pages {
		total += int64(len(page))
	}
	return total + int64(len(s.places))*pageBytes
}
