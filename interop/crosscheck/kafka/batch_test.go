package kafka

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/record"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// batches decodes what is whole in the records of an answer. The rest is the last one's tail.
type batchView struct {
	BaseOffset           int64
	Length               int32
	PartitionLeaderEpoch int32
	Magic                int8
	CRCHolds             bool
	Attributes           int16
	LastOffsetDelta      int32
	FirstTimestamp       int64
	MaxTimestamp         int64
	ProducerID           int64
	ProducerEpoch        int16
	BaseSequence         int32
	Count                int32
	Payload              []byte
}

func batches(records []byte) []batchView {
	var out []batchView
	for len(records) >= record.HeaderSize {
		var batch kmsg.RecordBatch
		size := 12 + int(int32(binary.BigEndian.Uint32(records[8:])))
		if size < record.HeaderSize || size > len(records) {
			break
		}
		if batch.ReadFrom(records[:size]) != nil {
			break
		}
		out = append(out, batchView{
			BaseOffset: batch.FirstOffset, Length: batch.Length, PartitionLeaderEpoch: batch.PartitionLeaderEpoch, Magic: batch.Magic,
			CRCHolds:   crc32.Checksum(records[21:size], castagnoli) == uint32(batch.CRC),
			Attributes: batch.Attributes, LastOffsetDelta: batch.LastOffsetDelta, FirstTimestamp: batch.FirstTimestamp, MaxTimestamp: batch.MaxTimestamp,
			ProducerID: batch.ProducerID, ProducerEpoch: batch.ProducerEpoch, BaseSequence: batch.FirstSequence, Count: batch.NumRecords, Payload: batch.Records,
		})
		records = records[size:]
	}
	if len(records) > 0 {
		out = append(out, batchView{BaseOffset: -1, Payload: records})
	}
	return out
}

// endsWithPart reports whether records are whole batches up to a length and then less than one.
func endsWithPart(records []byte, length int) bool {
	at := 0
	for at < length && len(records)-at >= 12 {
		at += 12 + int(int32(binary.BigEndian.Uint32(records[at+8:])))
	}
	if at != length {
		return false
	}
	rest := records[at:]
	return len(rest) < 12 || 12+int(int32(binary.BigEndian.Uint32(rest[8:]))) > len(rest)
}

// batch compares two batches; the payload of one that the broker stamped may differ in times.
func (c *comparison) batch(path string, a, b *batchView) {
	payloads := bytes.Equal(a.Payload, b.Payload)
	left, right := *a, *b
	left.Payload, right.Payload = nil, nil
	if left.ProducerID > 0 && right.ProducerID > 0 && c.bindings.bind(producerID, left.ProducerID, right.ProducerID) {
		right.ProducerID = left.ProducerID
	}
	const logAppendTime = 1 << 3
	if apart := left.MaxTimestamp - right.MaxTimestamp; left.Attributes&logAppendTime != 0 && max(apart, -apart) < 60_000 {
		right.MaxTimestamp, right.FirstTimestamp = left.MaxTimestamp, left.FirstTimestamp
	}
	if own := time.Now().Add(-time.Hour).UnixMilli(); left.FirstTimestamp > own && right.FirstTimestamp > own {
		// The coordinator's own: its records hold times and member ids.
		payloads = len(left.Payload) == len(right.Payload)
		right.FirstTimestamp, right.MaxTimestamp = left.FirstTimestamp, left.MaxTimestamp
		right.BaseSequence = left.BaseSequence // 0 in Apache's for commits, where there is no producer
	}
	if show(left) != show(right) || !payloads {
		c.differ(path, *a, *b)
	}
}

// batchSpec is a batch to be produced, right or wrong.
type batchSpec struct {
	count         int
	valueBytes    int
	codec         record.Codec
	producerID    int64
	epoch         int16
	sequence      int32
	firstTime     int64
	transactional bool
	control       bool
	appendTime    bool
	nullKeys      bool
	spoil         func(batch []byte) []byte // after the checksum
	edit          func(batch []byte)        // before the checksum
}

func (s batchSpec) build() []byte {
	options := record.DefaultOptions()
	options.Codec, options.Transactional, options.Control = s.codec, s.transactional, s.control
	options.ProducerID, options.ProducerEpoch, options.BaseSequence = s.producerID, s.epoch, s.sequence
	if s.appendTime {
		options.TimestampType = record.LogAppendTime
	}
	builder := record.NewBuilder(options)
	for i := range s.count {
		key := []byte{'k', byte('0' + i%10)}
		if s.nullKeys {
			key = nil
		}
		builder.Append(s.firstTime+int64(i), key, bytes.Repeat([]byte{byte('a' + i%26)}, s.valueBytes), record.Header{Key: "h", Value: []byte("v")})
	}
	batch, err := builder.Build()
	if err != nil {
		panic(err)
	}
	out := []byte(batch)
	if s.edit != nil {
		s.edit(out)
		resum(out)
	}
	if s.spoil != nil {
		out = s.spoil(out)
	}
	return out
}

func resum(batch []byte) {
	binary.BigEndian.PutUint32(batch[17:], crc32.Checksum(batch[21:], castagnoli))
}

// translateBatches replaces the producer ids of sound batches.
func (b *bindings) translateBatches(records []byte) []byte {
	records = bytes.Clone(records)
	for rest := records; len(rest) >= record.HeaderSize && rest[16] == 2; {
		size := 12 + int(int32(binary.BigEndian.Uint32(rest[8:])))
		if size < record.HeaderSize || size > len(rest) {
			break
		}
		batch := rest[:size]
		sound := crc32.Checksum(batch[21:], castagnoli) == binary.BigEndian.Uint32(batch[17:])
		id := int64(binary.BigEndian.Uint64(batch[43:]))
		if known, found := b.forward[producerID][show(id)]; found {
			binary.BigEndian.PutUint64(batch[43:], uint64(known.(int64)))
			if sound {
				resum(batch)
			}
		}
		rest = rest[size:]
	}
	return records
}
