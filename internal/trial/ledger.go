// Package trial runs a producer and a consumer against a cluster while faults strike it, and
// gives an account of what the clients noticed: how long each partition went without an
// acknowledgement, and whether any acknowledged record was lost, doubled or reordered. The
// clients are franz-go's, so that the account does not rest on our own client code. The demo,
// the benchmarks and the interoperability tests share it.
package trial

import (
	"fmt"
	"hash/crc32"
	"slices"
	"sync"
)

// Place is where a record stands.
type Place struct {
	Partition int32
	Offset    int64
}

func (p Place) String() string { return fmt.Sprintf("partition %d offset %d", p.Partition, p.Offset) }

// entry is what the ledger knows of one record.
type entry struct {
	checksum uint32
	acked    bool
	ackedAt  Place
	read     bool
	readAt   Place
}

// Account sums up a ledger. Lost, Doubled, Reordered and Corrupted must be zero.
type Account struct {
	Sent         int `json:"sent"`
	Acknowledged int `json:"acknowledged"`
	Read         int `json:"read"`
	Lost         int `json:"lost"`         // acknowledged and never read
	Doubled      int `json:"doubled"`      // extra offsets at which a record stands again
	Reordered    int `json:"out_of_order"` // read after a record of its partition that was sent later
	Corrupted    int `json:"corrupted"`    // read with other bytes than were sent, or at another place than acknowledged
	// Examples names the first few findings.
	Examples []string `json:"examples,omitempty"`
	// Places are the first few places that the findings are about, for a look into the logs.
	Places []Place `json:"-"`
}

// Clean reports whether nothing was lost, doubled, reordered or corrupted.
func (a Account) Clean() bool {
	return a.Lost == 0 && a.Doubled == 0 && a.Reordered == 0 && a.Corrupted == 0
}

// point enters places of findings.
func (a *Account) point(places ...Place) {
	const enough = 40
	for _, place := range places {
		if len(a.Places) < enough && !slices.Contains(a.Places, place) {
			a.Places = append(a.Places, place)
		}
	}
}

// Ledger keeps account of records by their number in the order of sending. Its methods may be
// called concurrently.
type Ledger struct {
	mu       sync.Mutex
	records  []entry
	sightsOf map[int32]map[int64]int // partition -> offset -> record number
	strange  []string                // readings of something that was never sent, or of other bytes
	corrupt  int
	acked    int
	sighted  int
}

// NewLedger returns an empty ledger.
func NewLedger() *Ledger {
	return &Ledger{sightsOf: map[int32]map[int64]int{}}
}

// Send enters a record about to be sent and returns its number.
func (l *Ledger) Send(value []byte) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, entry{checksum: crc32.ChecksumIEEE(value)})
	return len(l.records) - 1
}

// Acknowledge enters the acknowledgement of a record.
func (l *Ledger) Acknowledge(number int, partition int32, offset int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	record := &l.records[number]
	if !record.acked {
		l.acked++
	}
	record.acked, record.ackedAt = true, Place{partition, offset}
}

// Read enters a reading. Reading the same offset again (after a rebalance, say) changes nothing.
func (l *Ledger) Read(number int, value []byte, partition int32, offset int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if number < 0 || number >= len(l.records) {
		l.oddity(fmt.Sprintf("partition %d offset %d holds record %d, which was never sent", partition, offset, number))
		return
	}
	record := &l.records[number]
	if crc32.ChecksumIEEE(value) != record.checksum {
		l.oddity(fmt.Sprintf("record %d was read with other bytes than were sent, partition %d offset %d", number, partition, offset))
	}
	offsets := l.sightsOf[partition]
	if offsets == nil {
		offsets = map[int64]int{}
		l.sightsOf[partition] = offsets
	}
	if before, seen := offsets[offset]; seen && before != number {
		l.oddity(fmt.Sprintf("partition %d offset %d was read as record %d and as record %d", partition, offset, before, number))
	}
	offsets[offset] = number
	if !record.read {
		record.read, record.readAt = true, Place{partition, offset}
		l.sighted++
	}
}

func (l *Ledger) oddity(text string) {
	l.corrupt++
	if len(l.strange) < 5 {
		l.strange = append(l.strange, text)
	}
}

// Forget drops every reading, so that what is read from now on must be complete by itself:
// a record that was read once may have gone since. An account of before is lost with them.
func (l *Ledger) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.records {
		l.records[i].read = false
	}
	l.sightsOf, l.sighted = map[int32]map[int64]int{}, 0
	l.strange, l.corrupt = nil, 0
}

// Outstanding counts acknowledged records that were not read yet.
func (l *Ledger) Outstanding() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	missing := 0
	for i := range l.records {
		if l.records[i].acked && !l.records[i].read {
			missing++
		}
	}
	return missing
}

// Progress returns the numbers of records acknowledged and read so far.
func (l *Ledger) Progress() (acknowledged, read int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked, l.sighted
}

// Account sums up.
func (l *Ledger) Account() Account {
	l.mu.Lock()
	defer l.mu.Unlock()
	account := Account{Sent: len(l.records), Corrupted: l.corrupt, Examples: slices.Clone(l.strange)}
	example := func(format string, args ...any) {
		if len(account.Examples) < 10 {
			account.Examples = append(account.Examples, fmt.Sprintf(format, args...))
		}
	}
	for number := range l.records {
		record := &l.records[number]
		if record.acked {
			account.Acknowledged++
		}
		if record.read {
			account.Read++
		}
		switch {
		case record.acked && !record.read:
			account.Lost++
			example("record %d was acknowledged at %v and never read", number, record.ackedAt)
			account.point(record.ackedAt)
		case record.acked && l.sightsOf[record.ackedAt.Partition][record.ackedAt.Offset] != number:
			account.Corrupted++
			example("record %d was acknowledged at %v and read at %v", number, record.ackedAt, record.readAt)
			account.point(record.ackedAt, record.readAt)
		}
	}
	l.accountOrder(&account, example)
	return account
}

// accountOrder walks each partition in offset order: the producer sends in order, so record
// numbers must grow, and each must occur once.
func (l *Ledger) accountOrder(account *Account, example func(string, ...any)) {
	seen := make(map[int]Place, len(l.records))
	for partition, offsets := range l.sightsOf {
		ordered := make([]int64, 0, len(offsets))
		for offset := range offsets {
			ordered = append(ordered, offset)
		}
		slices.Sort(ordered)
		highest := -1
		for _, offset := range ordered {
			number := offsets[offset]
			if first, again := seen[number]; again {
				account.Doubled++
				example("record %d stands at %v and at %v", number, first, Place{partition, offset})
				account.point(first, Place{partition, offset})
				continue
			}
			seen[number] = Place{partition, offset}
			if number < highest {
				account.Reordered++
				example("record %d stands behind record %d, %v", number, highest, Place{partition, offset})
				account.point(Place{partition, offset})
			}
			highest = max(highest, number)
		}
	}
}
