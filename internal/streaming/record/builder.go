package record

import (
	"encoding/binary"
	"fmt"

	"understudy/internal/streaming/cluster"
)

// BuilderOptions are the header fields of a batch to build. Start from DefaultOptions: the
// zero value would name producer 0.
type BuilderOptions struct {
	BaseOffset    cluster.Offset
	LeaderEpoch   cluster.LeaderEpoch
	Codec         Codec
	Level         int // of compression; 0 is the codec's default
	TimestampType TimestampType
	ProducerID    int64
	ProducerEpoch int16
	BaseSequence  int32
	Transactional bool
	Control       bool
}

// DefaultOptions is an uncompressed batch of no producer.
func DefaultOptions() BuilderOptions {
	return BuilderOptions{
		LeaderEpoch:   cluster.NoLeaderEpoch,
		ProducerID:    NoProducerID,
		ProducerEpoch: NoProducerEpoch,
		BaseSequence:  NoSequence,
	}
}

// Builder makes one batch out of records. It is used once, by one goroutine.
type Builder struct {
	options       BuilderOptions
	payload       []byte
	count         int32
	lastDelta     int32
	baseTimestamp int64
	maxTimestamp  int64
}

// NewBuilder starts a batch.
func NewBuilder(options BuilderOptions) *Builder {
	return &Builder{options: options, lastDelta: -1, maxTimestamp: NoTimestamp}
}

// Append adds a record at the next offset. A nil key or value is null.
func (b *Builder) Append(timestampMs int64, key, value []byte, headers ...Header) {
	b.AppendAt(b.lastDelta+1, timestampMs, key, value, headers...)
}

// AppendAt adds a record at an offset delta greater than the last one's, for batches with
// holes such as compaction leaves.
func (b *Builder) AppendAt(offsetDelta int32, timestampMs int64, key, value []byte, headers ...Header) {
	if offsetDelta <= b.lastDelta {
		panic(fmt.Sprintf("record: offset delta %d follows %d", offsetDelta, b.lastDelta))
	}
	if b.count == 0 {
		b.baseTimestamp = timestampMs
	}
	b.maxTimestamp = max(b.maxTimestamp, timestampMs)
	b.count++
	b.lastDelta = offsetDelta

	timestampDelta := timestampMs - b.baseTimestamp
	length := 1 + varintSize(timestampDelta) + varintSize(int64(offsetDelta)) +
		bytesSize(key) + bytesSize(value) + varintSize(int64(len(headers)))
	for _, header := range headers {
		length += varintSize(int64(len(header.Key))) + len(header.Key) + bytesSize(header.Value)
	}
	b.payload = binary.AppendVarint(b.payload, int64(length))
	b.payload = append(b.payload, 0)
	b.payload = binary.AppendVarint(b.payload, timestampDelta)
	b.payload = binary.AppendVarint(b.payload, int64(offsetDelta))
	b.payload = appendBytes(b.payload, key)
	b.payload = appendBytes(b.payload, value)
	b.payload = binary.AppendVarint(b.payload, int64(len(headers)))
	for _, header := range headers {
		b.payload = binary.AppendVarint(b.payload, int64(len(header.Key)))
		b.payload = append(b.payload, header.Key...)
		b.payload = appendBytes(b.payload, header.Value)
	}
}

// Count is the number of records so far.
func (b *Builder) Count() int { return int(b.count) }

// Size is the size of the batch so far, before compression.
func (b *Builder) Size() int { return HeaderSize + len(b.payload) }

// Build gives the finished batch.
func (b *Builder) Build() (Batch, error) {
	lastDelta := max(b.lastDelta, 0)
	return assemble(b.options, header{
		lastOffsetDelta: lastDelta, baseTimestamp: b.baseTimestamp, maxTimestamp: b.maxTimestamp, count: b.count,
	}, b.payload)
}

type header struct {
	lastOffsetDelta int32
	baseTimestamp   int64
	maxTimestamp    int64
	count           int32
}

func assemble(options BuilderOptions, fields header, payload []byte) (Batch, error) {
	capacity := HeaderSize
	if options.Codec == None {
		capacity += len(payload)
	}
	data := make([]byte, HeaderSize, capacity)
	data, err := options.Codec.Compress(data, payload, options.Level)
	if err != nil {
		return nil, fmt.Errorf("record: compress a batch: %w", err)
	}
	if len(data)-LengthOverhead > 1<<31-1 {
		return nil, invalid("batch of %d bytes exceeds the format's limit", len(data))
	}
	attributes := uint16(options.Codec)
	if options.TimestampType == LogAppendTime {
		attributes |= appendTimeBit
	}
	if options.Transactional {
		attributes |= transactionalBit
	}
	if options.Control {
		attributes |= controlBit
	}
	binary.BigEndian.PutUint64(data[baseOffsetAt:], uint64(options.BaseOffset))
	binary.BigEndian.PutUint32(data[batchLengthAt:], uint32(len(data)-LengthOverhead))
	binary.BigEndian.PutUint32(data[leaderEpochAt:], uint32(options.LeaderEpoch))
	data[magicAt] = CurrentMagic
	binary.BigEndian.PutUint16(data[attributesAt:], attributes)
	binary.BigEndian.PutUint32(data[lastOffsetDeltaAt:], uint32(fields.lastOffsetDelta))
	binary.BigEndian.PutUint64(data[baseTimestampAt:], uint64(fields.baseTimestamp))
	binary.BigEndian.PutUint64(data[maxTimestampAt:], uint64(fields.maxTimestamp))
	binary.BigEndian.PutUint64(data[producerIDAt:], uint64(options.ProducerID))
	binary.BigEndian.PutUint16(data[producerEpochAt:], uint16(options.ProducerEpoch))
	binary.BigEndian.PutUint32(data[baseSequenceAt:], uint32(options.BaseSequence))
	binary.BigEndian.PutUint32(data[recordCountAt:], uint32(fields.count))
	batch := Batch(data)
	batch.RenewCRC()
	return batch, nil
}

// Recompress gives the batch with its records in another codec and everything else
// unchanged, for topics that fix compression.type. At most limit bytes are decompressed.
func (b Batch) Recompress(codec Codec, level, limit int) (Batch, error) {
	payload, err := b.Codec().Decompress(nil, b.Payload(), limit)
	if err != nil {
		return nil, err
	}
	data := make([]byte, HeaderSize, HeaderSize+len(payload)/2)
	copy(data, b[:HeaderSize])
	if data, err = codec.Compress(data, payload, level); err != nil {
		return nil, fmt.Errorf("record: recompress a batch: %w", err)
	}
	binary.BigEndian.PutUint32(data[batchLengthAt:], uint32(len(data)-LengthOverhead))
	binary.BigEndian.PutUint16(data[attributesAt:], uint16(b.Attributes()&^codecMask|int16(codec)))
	batch := Batch(data)
	batch.RenewCRC()
	return batch, nil
}

func appendBytes(dst, value []byte) []byte {
	if value == nil {
		return binary.AppendVarint(dst, -1)
	}
	dst = binary.AppendVarint(dst, int64(len(value)))
	return append(dst, value...)
}

func bytesSize(value []byte) int {
	if value == nil {
		return 1
	}
	return varintSize(int64(len(value))) + len(value)
}

func varintSize(value int64) int {
	zigzag := uint64(value)<<1 ^ uint64(value>>63)
	size := 1
	for zigzag >= 0x80 {
		zigzag >>= 7
		size++
	}
	return size
}
