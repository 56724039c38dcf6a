package commitlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/record"

	"github.com/twmb/franz-go/pkg/kerr"
)

// windowSize is how many batches of a producer are remembered: as many as a producer may
// have in flight, so that a retry of any of them is recognised.
const windowSize = 5

// producerBatch is one remembered batch.
type producerBatch struct {
	lastSequence int32
	offsetDelta  int32
	lastOffset   cluster.Offset
	timestamp    int64
}

func (b producerBatch) firstSequence() int32 {
	return record.SubtractSequence(b.lastSequence, b.offsetDelta)
}

func (b producerBatch) firstOffset() cluster.Offset {
	return b.lastOffset - cluster.Offset(b.offsetDelta)
}

// producer is what the log knows of one producer id (ProducerStateEntry).
type producer struct {
	id               int64
	epoch            int16
	coordinatorEpoch int32
	lastTimestamp    int64
	txnFirst         cluster.Offset // of its open transaction, or NoOffset
	seenMs           int64          // when this process last heard of it; not persisted
	// window holds the last batches of this epoch, oldest first.
	window [windowSize]producerBatch
	length int8
}

func newProducer(id int64, epoch int16) *producer {
	return &producer{id: id, epoch: epoch, coordinatorEpoch: -1, lastTimestamp: record.NoTimestamp, txnFirst: cluster.NoOffset}
}

func (p *producer) batches() []producerBatch { return p.window[:p.length] }

func (p *producer) lastSequence() int32 {
	if p.length == 0 {
		return record.NoSequence
	}
	return p.window[p.length-1].lastSequence
}

func (p *producer) remember(batch producerBatch) {
	if p.length == windowSize {
		copy(p.window[:], p.window[1:])
		p.length--
	}
	p.window[p.length] = batch
	p.length++
}

// transaction is one that is open (last is NoOffset) or whose marker is at last but not
// below the high watermark yet. Either holds the last stable offset back.
type transaction struct {
	producerID  int64
	first, last cluster.Offset
}

// producerTable is the producers' state in a log (ProducerStateManager), under the log's
// writer lock.
type producerTable struct {
	producers    map[int64]*producer
	transactions []transaction // by first offset
	// snapshots are the offsets of the .snapshot files, ascending.
	snapshots []cluster.Offset
	// hidden are the damages whose batches the state lacks: what a producer sent last may be
	// among them. While there are any, no snapshot is taken.
	hidden []Damage
}

// mayLack says whether a damage may hide a producer's latest batch or, where a batch was refused
// for its sequence, an earlier one that it repeats.
func (t *producerTable) mayLack(id int64, refused error) (Damage, bool) {
	if len(t.hidden) == 0 {
		return Damage{}, false
	}
	if errors.Is(refused, kerr.OutOfOrderSequenceNumber) {
		return t.hidden[0], true
	}
	last := cluster.NoOffset
	if known := t.producers[id]; known != nil && known.length > 0 {
		last = known.window[known.length-1].lastOffset
	}
	for _, d := range t.hidden {
		if d.Next > last {
			return d, true
		}
	}
	return Damage{}, false
}

// duplicate looks for a retry of a remembered batch.
func (t *producerTable) duplicate(batch record.Batch) (producerBatch, bool) {
	known := t.producers[batch.ProducerID()]
	if known == nil || known.epoch != batch.ProducerEpoch() {
		return producerBatch{}, false
	}
	for _, earlier := range known.batches() {
		if earlier.lastSequence == batch.LastSequence() && earlier.firstSequence() == batch.BaseSequence() {
			return earlier, true
		}
	}
	return producerBatch{}, false
}

// check applies the rules for a leader's append (log-format.md 7). It changes nothing.
func (t *producerTable) check(batch record.Batch, origin Origin) error {
	id, epoch := batch.ProducerID(), batch.ProducerEpoch()
	known := t.producers[id]
	if known == nil {
		return nil
	}
	if epoch < known.epoch {
		return fmt.Errorf("epoch %d of producer %d is older than the known %d: %w", epoch, id, known.epoch, kerr.InvalidProducerEpoch)
	}
	if batch.Control() {
		return t.checkMarker(batch, known)
	}
	if origin == Client {
		if err := known.checkSequence(batch); err != nil {
			return err
		}
	}
	if known.txnFirst != cluster.NoOffset && !batch.Transactional() {
		return fmt.Errorf("producer %d has a transaction open and wrote a batch outside it: %w", id, kerr.InvalidTxnState)
	}
	return nil
}

func (t *producerTable) checkMarker(batch record.Batch, known *producer) error {
	marker, ok, err := batch.Marker()
	if err != nil || !ok {
		return err
	}
	if marker.CoordinatorEpoch < known.coordinatorEpoch {
		return fmt.Errorf("marker of coordinator epoch %d after %d: %w",
			marker.CoordinatorEpoch, known.coordinatorEpoch, kerr.TransactionCoordinatorFenced)
	}
	return nil
}

func (p *producer) checkSequence(batch record.Batch) error {
	first := batch.BaseSequence()
	if batch.ProducerEpoch() != p.epoch {
		if first != 0 && p.epoch != record.NoProducerEpoch {
			return fmt.Errorf("producer %d starts epoch %d with sequence %d, not 0: %w",
				p.id, batch.ProducerEpoch(), first, kerr.OutOfOrderSequenceNumber)
		}
		return nil
	}
	last := p.lastSequence()
	if last == record.NoSequence && first == 0 || last != record.NoSequence && first == record.AddSequence(last, 1) {
		return nil
	}
	return fmt.Errorf("producer %d sent sequence %d after %d: %w", p.id, first, last, kerr.OutOfOrderSequenceNumber)
}

// completed is a transaction that a marker has ended.
type completed struct {
	transaction
	aborted bool
	// lastStable is where the last stable offset stands without this transaction.
	lastStable cluster.Offset
}

// note records a batch that is in the log, by its header; marker says what a control batch
// does. It reports the transaction that a marker ended.
func (t *producerTable) note(header record.Batch, marker *record.Marker, nowMs int64) (ended completed, ok bool) {
	id := header.ProducerID()
	if id < 0 {
		return completed{}, false
	}
	if t.producers == nil {
		t.producers = make(map[int64]*producer)
	}
	known := t.producers[id]
	if known == nil {
		known = newProducer(id, header.ProducerEpoch())
		t.producers[id] = known
	}
	if known.epoch != header.ProducerEpoch() {
		known.epoch, known.length = header.ProducerEpoch(), 0
	}
	known.lastTimestamp, known.seenMs = header.MaxTimestamp(), nowMs
	if header.Control() {
		if marker == nil {
			return completed{}, false
		}
		return t.end(known, header, *marker)
	}
	if header.BaseSequence() != record.NoSequence {
		known.remember(producerBatch{header.LastSequence(), header.LastOffsetDelta(), header.LastOffset(), header.MaxTimestamp()})
	}
	if header.Transactional() && known.txnFirst == cluster.NoOffset {
		known.txnFirst = header.BaseOffset()
		t.addTransaction(transaction{id, known.txnFirst, cluster.NoOffset})
	}
	return completed{}, false
}

func (t *producerTable) addTransaction(opened transaction) {
	at, _ := slices.BinarySearchFunc(t.transactions, opened.first, func(x transaction, first cluster.Offset) int {
		return int(min(max(x.first-first, -1), 1))
	})
	t.transactions = slices.Insert(t.transactions, at, opened)
}

func (t *producerTable) end(known *producer, header record.Batch, marker record.Marker) (completed, bool) {
	known.coordinatorEpoch = max(known.coordinatorEpoch, marker.CoordinatorEpoch)
	if known.txnFirst == cluster.NoOffset {
		return completed{}, false
	}
	ended := completed{transaction: transaction{known.id, known.txnFirst, header.LastOffset()}, aborted: marker.Type == record.Abort}
	ended.lastStable = ended.last + 1
	known.txnFirst = cluster.NoOffset
	for i := range t.transactions {
		switch open := &t.transactions[i]; {
		case open.producerID == ended.producerID && open.first == ended.first:
			open.last = ended.last
		case open.last == cluster.NoOffset:
			ended.lastStable = min(ended.lastStable, open.first)
		}
	}
	return ended, true
}

// firstUnstable is the first offset of the oldest transaction that is open or whose marker
// is not below the high watermark; those below are dropped.
func (t *producerTable) firstUnstable(highWatermark cluster.Offset) (cluster.Offset, bool) {
	t.transactions = slices.DeleteFunc(t.transactions, func(x transaction) bool {
		return x.last != cluster.NoOffset && x.last < highWatermark
	})
	if len(t.transactions) == 0 {
		return 0, false
	}
	return t.transactions[0].first, true
}

// expire forgets producers that have not written for the expiration time, by the
// timestamps in the log and by this process's own clock: a log of old timestamps, or one
// just loaded, keeps its producers long enough for their retries.
func (t *producerTable) expire(nowMs, expirationMs int64) {
	maps.DeleteFunc(t.producers, func(_ int64, p *producer) bool {
		return p.txnFirst == cluster.NoOffset && nowMs-p.lastTimestamp >= expirationMs && nowMs-p.seenMs >= expirationMs
	})
}

// A .snapshot file:
//
//	int16 version 1, uint32 crc (CRC-32C of everything from offset 6 on), int32 count,
//	entries of 46 bytes: int64 producerId, int16 epoch, int32 lastSequence,
//	int64 lastOffset, int32 offsetDelta, int64 timestamp, int32 coordinatorEpoch,
//	int64 currentTxnFirstOffset (-1: none)
//
// Kafka writes one entry for each producer, its last batch, and forgets the rest of the
// window: after a restart a retry of an earlier batch is refused or, from a new producer
// instance, stored twice. We write an entry for each batch of the window, oldest first.
// Kafka's reader puts entries into a map by producer id, so the last one wins there, and
// the file means to it what its own would; the transaction's first offset stands in the
// last entry only, because that reader would register it for each.
const (
	snapshotVersion    = 1
	snapshotHeaderSize = 10
	snapshotEntrySize  = 46
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (t *producerTable) encode() []byte {
	out := make([]byte, snapshotHeaderSize, snapshotHeaderSize+len(t.producers)*2*snapshotEntrySize)
	count := uint32(0)
	for _, id := range slices.Sorted(maps.Keys(t.producers)) {
		p := t.producers[id]
		if p.length == 0 {
			// Only a marker was seen at this epoch.
			out = appendSnapshotEntry(out, p, producerBatch{record.NoSequence, 0, cluster.NoOffset, p.lastTimestamp}, p.txnFirst)
			count++
		}
		for i, batch := range p.batches() {
			txnFirst := cluster.NoOffset
			if i == int(p.length)-1 {
				txnFirst, batch.timestamp = p.txnFirst, p.lastTimestamp
			}
			out = appendSnapshotEntry(out, p, batch, txnFirst)
			count++
		}
	}
	binary.BigEndian.PutUint16(out, snapshotVersion)
	binary.BigEndian.PutUint32(out[6:], count)
	binary.BigEndian.PutUint32(out[2:], crc32.Checksum(out[6:], castagnoli))
	return out
}

func appendSnapshotEntry(out []byte, p *producer, batch producerBatch, txnFirst cluster.Offset) []byte {
	out = binary.BigEndian.AppendUint64(out, uint64(p.id))
	out = binary.BigEndian.AppendUint16(out, uint16(p.epoch))
	out = binary.BigEndian.AppendUint32(out, uint32(batch.lastSequence))
	out = binary.BigEndian.AppendUint64(out, uint64(batch.lastOffset))
	out = binary.BigEndian.AppendUint32(out, uint32(batch.offsetDelta))
	out = binary.BigEndian.AppendUint64(out, uint64(batch.timestamp))
	out = binary.BigEndian.AppendUint32(out, uint32(p.coordinatorEpoch))
	return binary.BigEndian.AppendUint64(out, uint64(txnFirst))
}

var errSnapshotSize = errors.New("its size does not fit its number of entries")

// decodeProducers reads a .snapshot file.
func decodeProducers(data []byte, nowMs int64) (map[int64]*producer, error) {
	if len(data) < snapshotHeaderSize {
		return nil, errSnapshotSize
	}
	if version := binary.BigEndian.Uint16(data); version != snapshotVersion {
		return nil, fmt.Errorf("its version is %d, not %d", version, snapshotVersion)
	}
	if computed, stated := crc32.Checksum(data[6:], castagnoli), binary.BigEndian.Uint32(data[2:]); computed != stated {
		return nil, fmt.Errorf("its checksum is %#x where it says %#x", computed, stated)
	}
	count := int64(binary.BigEndian.Uint32(data[6:]))
	data = data[snapshotHeaderSize:]
	if int64(len(data)) != count*snapshotEntrySize {
		return nil, errSnapshotSize
	}
	producers := make(map[int64]*producer)
	for ; len(data) > 0; data = data[snapshotEntrySize:] {
		id, epoch := int64(binary.BigEndian.Uint64(data)), int16(binary.BigEndian.Uint16(data[8:]))
		p := producers[id]
		if p == nil || p.epoch != epoch {
			p = newProducer(id, epoch)
			producers[id] = p
		}
		batch := producerBatch{
			lastSequence: int32(binary.BigEndian.Uint32(data[10:])),
			lastOffset:   cluster.Offset(binary.BigEndian.Uint64(data[14:])),
			offsetDelta:  int32(binary.BigEndian.Uint32(data[22:])),
			timestamp:    int64(binary.BigEndian.Uint64(data[26:])),
		}
		p.coordinatorEpoch = int32(binary.BigEndian.Uint32(data[34:]))
		p.txnFirst = cluster.Offset(binary.BigEndian.Uint64(data[38:]))
		p.lastTimestamp, p.seenMs = batch.timestamp, nowMs
		if batch.lastSequence >= 0 && batch.offsetDelta >= 0 {
			p.remember(batch)
		}
	}
	return producers, nil
}

// adopt takes the producers of a snapshot, and their open transactions.
func (t *producerTable) adopt(producers map[int64]*producer) {
	t.producers, t.transactions = producers, nil
	for _, id := range slices.Sorted(maps.Keys(producers)) {
		if p := producers[id]; p.txnFirst != cluster.NoOffset {
			t.addTransaction(transaction{id, p.txnFirst, cluster.NoOffset})
		}
	}
}
