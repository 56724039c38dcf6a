package record

import (
	"encoding/binary"

	"understudy/internal/streaming/cluster"
)

// ControlType says what a control record means.
type ControlType int16

const (
	Abort  ControlType = 0
	Commit ControlType = 1
)

// Marker is the content of a control record that ends a transaction: the batch's only one.
//
//	key:   int16 version 0, int16 type
//	value: int16 version 0, int32 coordinatorEpoch
type Marker struct {
	Type             ControlType
	CoordinatorEpoch int32
}

const (
	controlKeySize   = 4
	markerValueSize  = 6
	controlReadLimit = 1 << 20 // a control record has a few bytes
)

// Marker reads a control batch. ok is false for types other than Abort and Commit, which
// ZooKeeper-mode logs do not hold but later ones may.
func (b Batch) Marker() (marker Marker, ok bool, err error) {
	for record, err := range b.Records(controlReadLimit) {
		if err != nil {
			return Marker{}, false, err
		}
		if len(record.Key) < controlKeySize {
			return Marker{}, false, invalid("control record's key has %d bytes", len(record.Key))
		}
		marker.Type = ControlType(binary.BigEndian.Uint16(record.Key[2:]))
		if marker.Type != Abort && marker.Type != Commit {
			return marker, false, nil
		}
		if len(record.Value) < markerValueSize {
			return Marker{}, false, invalid("transaction marker's value has %d bytes", len(record.Value))
		}
		marker.CoordinatorEpoch = int32(binary.BigEndian.Uint32(record.Value[2:]))
		return marker, true, nil
	}
	return Marker{}, false, nil // compacted away
}

// BuildMarker makes the control batch that ends a producer's transaction.
func BuildMarker(marker Marker, producerID int64, producerEpoch int16, leaderEpoch cluster.LeaderEpoch, timestampMs int64) Batch {
	options := DefaultOptions()
	options.LeaderEpoch = leaderEpoch
	options.ProducerID, options.ProducerEpoch = producerID, producerEpoch
	options.Transactional, options.Control = true, true
	key := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(marker.Type))
	value := binary.BigEndian.AppendUint32([]byte{0, 0}, uint32(marker.CoordinatorEpoch))
	builder := NewBuilder(options)
	builder.Append(timestampMs, key, value)
	batch, err := builder.Build()
	if err != nil {
		panic("record: an uncompressed marker cannot fail: " + err.Error())
	}
	return batch
}
