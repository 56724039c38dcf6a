package record

import (
	"encoding/binary"
)

// Check verifies a batch that Next returned: its checksum and that the header's fields
// agree with each other. The records themselves are looked at by CheckRecords. Followers
// and recovery check with this what a leader stored, compacted batches included, so a
// count of zero passes.
func (b Batch) Check() error {
	if computed := b.computeCRC(); computed != b.CRC() {
		return corrupt("checksum is %#x where the header says %#x", computed, b.CRC())
	}
	return b.CheckHeader()
}

// CheckHeader is Check without the checksum.
func (b Batch) CheckHeader() error {
	switch {
	case b.BaseOffset() < 0:
		return corrupt("base offset %d is negative", b.BaseOffset())
	case b.LastOffsetDelta() < 0:
		return corrupt("last offset delta %d is negative", b.LastOffsetDelta())
	case b.LastOffset() < 0:
		return corrupt("offsets from %d on overflow", b.BaseOffset())
	case b.Count() < 0:
		return corrupt("record count %d is negative", b.Count())
	case int64(b.Count()) > int64(b.LastOffsetDelta())+1:
		return corrupt("%d records in a batch of %d offsets", b.Count(), int64(b.LastOffsetDelta())+1)
	case !b.Codec().known():
		return corrupt("compression codec %d is unknown", b.Codec())
	}
	return nil
}

// CheckProduced verifies what a producer may send, beyond Check: LogValidator's rules for
// batches of client origin that do not depend on the topic's configuration.
func (b Batch) CheckProduced() error {
	switch {
	case b.BaseOffset() != 0:
		return invalid("base offset of a produced batch is %d, not 0", b.BaseOffset())
	case b.Count() <= 0:
		return invalid("batch states %d records", b.Count())
	case int64(b.LastOffsetDelta())+1 != int64(b.Count()):
		return invalid("batch has %d records and %d offsets", b.Count(), int64(b.LastOffsetDelta())+1)
	case b.Control():
		return invalid("clients may not write control records")
	case b.TimestampType() != CreateTime:
		return invalid("producers may not set the timestamp type to append time")
	case b.ProducerID() >= 0 && b.BaseSequence() < 0:
		return invalid("base sequence %d of producer %d is negative", b.BaseSequence(), b.ProducerID())
	case b.ProducerID() >= 0 && b.ProducerEpoch() < 0:
		return invalid("epoch %d of producer %d is negative", b.ProducerEpoch(), b.ProducerID())
	}
	return nil
}

// CheckFraming verifies that the records of an uncompressed batch tile its payload and are
// as many as the header says; it is a walk over their length fields. Compressed batches
// pass: their records are stored as they came.
func (b Batch) CheckFraming() error {
	if b.Codec() != None {
		return nil
	}
	payload := b.Payload()
	for i := range b.Count() {
		length, width := binary.Varint(payload)
		if width <= 0 || length < minimumRecordLength || length > int64(len(payload)-width) {
			return invalid("record %d of %d does not fit into its batch", i, b.Count())
		}
		payload = payload[width+int(length):]
	}
	if len(payload) != 0 {
		return invalid("%d bytes follow the batch's %d records", len(payload), b.Count())
	}
	return nil
}

// minimumRecordLength is an empty record's: attributes, two deltas, two null lengths and a
// header count of one byte each.
const minimumRecordLength = 6
