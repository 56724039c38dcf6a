package record

import (
	"encoding/binary"
	"iter"

	"understudy/internal/streaming/cluster"
)

// Header is one header of a record.
type Header struct {
	Key   string
	Value []byte // nil is null
}

// Record is one record of a batch. Its slices point into the batch, or into the buffer it
// was decompressed to.
type Record struct {
	Offset      cluster.Offset
	TimestampMs int64
	Key         []byte // nil is null
	Value       []byte // nil is null, a tombstone in a compacted topic
	Headers     []Header
}

// Records walks the batch's records, decompressing at most limit bytes. It stops after the
// first error. The records stay valid after the walk.
func (b Batch) Records(limit int) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		payload := b.Payload()
		if b.Codec() != None {
			var err error
			if payload, err = b.Codec().Decompress(nil, payload, limit); err != nil {
				yield(Record{}, err)
				return
			}
		}
		for i := range b.Count() {
			body, rest, err := cutRecord(payload, i)
			if err != nil {
				yield(Record{}, err)
				return
			}
			record, err := b.decodeRecord(body)
			if !yield(record, err) || err != nil {
				return
			}
			payload = rest
		}
		if len(payload) != 0 {
			yield(Record{}, invalid("%d bytes follow the batch's %d records", len(payload), b.Count()))
		}
	}
}

func cutRecord(payload []byte, index int32) (body, rest []byte, err error) {
	length, width := binary.Varint(payload)
	if width <= 0 || length < minimumRecordLength || length > int64(len(payload)-width) {
		return nil, nil, invalid("record %d does not fit into its batch", index)
	}
	end := width + int(length)
	return payload[width:end:end], payload[end:], nil
}

// decodeRecord reads one record:
//
//	int8 attributes, varint timestampDelta, varint offsetDelta, varint keyLength, key,
//	varint valueLength, value, varint headerCount, headers
func (b Batch) decodeRecord(body []byte) (Record, error) {
	reader := recordReader{data: body[1:]} // attributes are unused
	timestampDelta := reader.varint()
	offsetDelta := reader.varint()
	record := Record{
		Offset:      b.BaseOffset() + cluster.Offset(offsetDelta),
		TimestampMs: b.BaseTimestamp() + timestampDelta,
		Key:         reader.bytes(),
		Value:       reader.bytes(),
	}
	if b.TimestampType() == LogAppendTime {
		record.TimestampMs = b.MaxTimestamp()
	}
	headers := reader.varint()
	// Each header takes two bytes at least, so this bounds the allocation.
	if headers < 0 || headers > int64(len(reader.data)/2) {
		reader.failed = true
	}
	if headers > 0 && !reader.failed {
		record.Headers = make([]Header, 0, headers)
		for range headers {
			key := reader.bytes()
			record.Headers = append(record.Headers, Header{Key: string(key), Value: reader.bytes()})
			if key == nil {
				reader.failed = true // a header's key is never null
			}
		}
	}
	switch {
	case reader.failed || len(reader.data) != 0:
		return Record{}, invalid("record at offset delta %d is malformed", offsetDelta)
	case offsetDelta < 0 || offsetDelta > int64(b.LastOffsetDelta()):
		return Record{}, invalid("record's offset delta %d is outside its batch", offsetDelta)
	}
	return record, nil
}

// recordReader reads the fields of a record; after a failure it gives zeros.
type recordReader struct {
	data   []byte
	failed bool
}

func (r *recordReader) varint() int64 {
	value, width := binary.Varint(r.data)
	if width <= 0 {
		r.failed = true
		r.data = nil
		return 0
	}
	r.data = r.data[width:]
	return value
}

func (r *recordReader) bytes() []byte {
	length := r.varint()
	if length == -1 || r.failed {
		return nil
	}
	if length < -1 || length > int64(len(r.data)) {
		r.failed = true
		r.data = nil
		return nil
	}
	value := r.data[:length:length]
	r.data = r.data[length:]
	return value
}
