// Package record reads, checks, patches and builds Kafka's record batches, format 2, in
// the bytes they arrive and are stored in.
//
// A Batch is a view: a slice of exactly one complete batch. Nothing is copied or parsed
// ahead; accessors read the header where it stands, and setters patch it there. The base
// offset and the partition leader epoch lie outside the checksum, so that a leader assigns
// them without touching the rest; what lies inside (attributes, timestamps, sequence) is
// set by functions that renew the checksum.
//
// Formats 0 and 1 are not read: they are refused as Kafka 4 refuses them. All integers on
// the wire are big endian; times are milliseconds since 1970.
//
// The package is deterministic: no clock, no goroutine, no input or output.
package record

import (
	"encoding/binary"
	"hash/crc32"

	"understudy/internal/streaming/cluster"
)

// The header of a batch:
//
//	 0  baseOffset           int64
//	 8  batchLength          int32   bytes after this field
//	12  partitionLeaderEpoch int32
//	16  magic                int8    2
//	17  crc                  uint32  CRC-32C of everything from attributes on
//	21  attributes           int16
//	23  lastOffsetDelta      int32
//	27  baseTimestamp        int64   or the delete horizon, if attributes say so
//	35  maxTimestamp         int64
//	43  producerId           int64
//	51  producerEpoch        int16
//	53  baseSequence         int32
//	57  recordCount          int32
//	61  records              compressed as one blob, if attributes say so
const (
	baseOffsetAt      = 0
	batchLengthAt     = 8
	leaderEpochAt     = 12
	magicAt           = 16
	crcAt             = 17
	attributesAt      = 21
	lastOffsetDeltaAt = 23
	baseTimestampAt   = 27
	maxTimestampAt    = 35
	producerIDAt      = 43
	producerEpochAt   = 51
	baseSequenceAt    = 53
	recordCountAt     = 57

	// HeaderSize is the size of a batch without its records.
	HeaderSize = 61
	// LengthOverhead is what precedes the part of a batch that batchLength counts.
	LengthOverhead = 12
	// CurrentMagic is the record format this package speaks.
	CurrentMagic = 2
)

// Attribute bits of a batch.
const (
	codecMask         = 0x07
	appendTimeBit     = 0x08
	transactionalBit  = 0x10
	controlBit        = 0x20
	deleteHorizonBit  = 0x40
	maxSequenceNumber = 1<<31 - 1
)

// Sentinels of the format.
const (
	NoProducerID    int64 = -1
	NoProducerEpoch int16 = -1
	NoSequence      int32 = -1
	NoTimestamp     int64 = -1
)

// TimestampType says who set a batch's timestamps.
type TimestampType int8

const (
	CreateTime    TimestampType = 0 // the producer
	LogAppendTime TimestampType = 1 // the leader; maxTimestamp holds for all records
)

// String is the value of the configuration key message.timestamp.type.
func (t TimestampType) String() string {
	if t == LogAppendTime {
		return "LogAppendTime"
	}
	return "CreateTime"
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli) // hardware instruction where there is one

// Batch is one complete record batch. Accessors require what Next and Check establish: at
// least HeaderSize bytes, and the length that the header states.
type Batch []byte

// BaseOffset is the offset of the batch's first record as it was produced; compaction may
// have removed that record.
func (b Batch) BaseOffset() cluster.Offset {
	return cluster.Offset(binary.BigEndian.Uint64(b[baseOffsetAt:]))
}

// LastOffset is the offset of the batch's last record as it was produced.
func (b Batch) LastOffset() cluster.Offset {
	return b.BaseOffset() + cluster.Offset(b.LastOffsetDelta())
}

// NextOffset is the offset after the batch.
func (b Batch) NextOffset() cluster.Offset { return b.LastOffset() + 1 }

// LeaderEpoch is the epoch of the partition leader that appended the batch.
func (b Batch) LeaderEpoch() cluster.LeaderEpoch {
	return cluster.LeaderEpoch(binary.BigEndian.Uint32(b[leaderEpochAt:]))
}

// Magic is the record format.
func (b Batch) Magic() int8 { return int8(b[magicAt]) }

// CRC is the checksum that the header states.
func (b Batch) CRC() uint32 { return binary.BigEndian.Uint32(b[crcAt:]) }

// Attributes are the batch's flags as stored.
func (b Batch) Attributes() int16 { return int16(binary.BigEndian.Uint16(b[attributesAt:])) }

// Codec is the compression of the records.
func (b Batch) Codec() Codec { return Codec(b.Attributes() & codecMask) }

// TimestampType says who set the timestamps.
func (b Batch) TimestampType() TimestampType {
	if b.Attributes()&appendTimeBit != 0 {
		return LogAppendTime
	}
	return CreateTime
}

// Transactional reports whether the batch belongs to a transaction.
func (b Batch) Transactional() bool { return b.Attributes()&transactionalBit != 0 }

// Control reports whether the batch holds a control record.
func (b Batch) Control() bool { return b.Attributes()&controlBit != 0 }

// HasDeleteHorizon reports whether the log cleaner put a delete horizon in the place of
// the base timestamp.
func (b Batch) HasDeleteHorizon() bool { return b.Attributes()&deleteHorizonBit != 0 }

// LastOffsetDelta is the distance from the base offset to the last offset.
func (b Batch) LastOffsetDelta() int32 {
	return int32(binary.BigEndian.Uint32(b[lastOffsetDeltaAt:]))
}

// BaseTimestamp is what the records' timestamp deltas count from.
func (b Batch) BaseTimestamp() int64 { return int64(binary.BigEndian.Uint64(b[baseTimestampAt:])) }

// MaxTimestamp is the largest timestamp of the records.
func (b Batch) MaxTimestamp() int64 { return int64(binary.BigEndian.Uint64(b[maxTimestampAt:])) }

// ProducerID is the idempotent producer's id, or NoProducerID.
func (b Batch) ProducerID() int64 { return int64(binary.BigEndian.Uint64(b[producerIDAt:])) }

// ProducerEpoch is the producer's epoch.
func (b Batch) ProducerEpoch() int16 { return int16(binary.BigEndian.Uint16(b[producerEpochAt:])) }

// BaseSequence is the sequence number of the first record, or NoSequence.
func (b Batch) BaseSequence() int32 { return int32(binary.BigEndian.Uint32(b[baseSequenceAt:])) }

// LastSequence is the sequence number of the last record, or NoSequence.
func (b Batch) LastSequence() int32 {
	if base := b.BaseSequence(); base != NoSequence {
		return AddSequence(base, b.LastOffsetDelta())
	}
	return NoSequence
}

// Count is the number of records that the header states.
func (b Batch) Count() int32 { return int32(binary.BigEndian.Uint32(b[recordCountAt:])) }

// Payload is the records as stored, compressed or not.
func (b Batch) Payload() []byte { return b[HeaderSize:] }

// SetBaseOffset assigns the offset of the first record; it is outside the checksum.
func (b Batch) SetBaseOffset(offset cluster.Offset) {
	binary.BigEndian.PutUint64(b[baseOffsetAt:], uint64(offset))
}

// SetLeaderEpoch stamps the leader's epoch; it is outside the checksum.
func (b Batch) SetLeaderEpoch(epoch cluster.LeaderEpoch) {
	binary.BigEndian.PutUint32(b[leaderEpochAt:], uint32(epoch))
}

// SetLogAppendTime makes the append time hold for all records, and renews the checksum.
func (b Batch) SetLogAppendTime(timestampMs int64) {
	binary.BigEndian.PutUint16(b[attributesAt:], uint16(b.Attributes()|appendTimeBit))
	binary.BigEndian.PutUint64(b[maxTimestampAt:], uint64(timestampMs))
	b.RenewCRC()
}

// SetProducer sets the producer's id, epoch and the first record's sequence number, and
// renews the checksum.
func (b Batch) SetProducer(id int64, epoch int16, baseSequence int32) {
	binary.BigEndian.PutUint64(b[producerIDAt:], uint64(id))
	binary.BigEndian.PutUint16(b[producerEpochAt:], uint16(epoch))
	binary.BigEndian.PutUint32(b[baseSequenceAt:], uint32(baseSequence))
	b.RenewCRC()
}

// RenewCRC computes the checksum anew.
func (b Batch) RenewCRC() { binary.BigEndian.PutUint32(b[crcAt:], b.computeCRC()) }

func (b Batch) computeCRC() uint32 { return crc32.Checksum(b[attributesAt:], castagnoli) }

// AddSequence advances a sequence number, which wraps from 2^31-1 to 0.
func AddSequence(sequence, increment int32) int32 {
	if sequence > maxSequenceNumber-increment {
		return increment - (maxSequenceNumber - sequence) - 1
	}
	return sequence + increment
}

// SubtractSequence goes back by decrement, wrapping from 0 to 2^31-1.
func SubtractSequence(sequence, decrement int32) int32 {
	if sequence < decrement {
		return maxSequenceNumber - (decrement - sequence) + 1
	}
	return sequence - decrement
}
