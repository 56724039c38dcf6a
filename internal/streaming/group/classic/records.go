package classic

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
)

// Record is one record of __consumer_offsets; a nil Value is a tombstone.
type Record struct {
	Key, Value []byte
}

// Versions of the schemas that are written (Kafka from inter.broker.protocol.version 2.3
// on), and the newest that are read.
const (
	offsetKeyVersion       = 1
	groupKeyVersion        = 2
	offsetValueVersion     = 3
	offsetValueWithExpiry  = 1 // the only version with an expiry of its own
	groupValueVersion      = 3
	newestValueVersionRead = 4
)

// KeyKind says what a record of __consumer_offsets is about.
type KeyKind uint8

const (
	// OtherKey is a record of groups that a ZooKeeper-mode broker does not have (KIP-848,
	// share groups): skipped.
	OtherKey KeyKind = iota
	OffsetKey
	GroupKey
)

// Key is the decoded key of a record.
type Key struct {
	Kind      KeyKind
	Group     string
	Topic     string // OffsetKey only
	Partition int32  // OffsetKey only
}

// DecodeKey reads a record's key:
//
//	int16 version 0 or 1: string group, string topic, int32 partition
//	int16 version 2:      string group
func DecodeKey(data []byte) (Key, error) {
	if len(data) < 2 {
		return Key{}, errors.New("key of a __consumer_offsets record is shorter than its version")
	}
	switch version := int16(binary.BigEndian.Uint16(data)); version {
	case 0, offsetKeyVersion:
		var key kmsg.OffsetCommitKey
		if err := key.ReadFrom(data); err != nil {
			return Key{}, fmt.Errorf("offset commit key: %w", err)
		}
		return Key{Kind: OffsetKey, Group: key.Group, Topic: key.Topic, Partition: key.Partition}, nil
	case groupKeyVersion:
		var key kmsg.GroupMetadataKey
		if err := key.ReadFrom(data); err != nil {
			return Key{}, fmt.Errorf("group metadata key: %w", err)
		}
		return Key{Kind: GroupKey, Group: key.Group}, nil
	default:
		return Key{Kind: OtherKey}, nil
	}
}

func encodeOffsetKey(group string, tp TopicPartition) []byte {
	key := kmsg.OffsetCommitKey{Version: offsetKeyVersion, Group: group, Topic: tp.Topic, Partition: tp.Partition}
	return key.AppendTo(nil)
}

func encodeGroupKey(group string) []byte {
	key := kmsg.GroupMetadataKey{Version: groupKeyVersion, Group: group}
	return key.AppendTo(nil)
}

// DecodeOffset reads the value of an offset's record.
func DecodeOffset(data []byte) (Offset, error) {
	if err := checkValueVersion(data); err != nil {
		return Offset{}, fmt.Errorf("offset commit value: %w", err)
	}
	var value kmsg.OffsetCommitValue
	if err := value.ReadFrom(data); err != nil {
		return Offset{}, fmt.Errorf("offset commit value: %w", err)
	}
	// kmsg leaves 0 where a version lacks a field; 0 would be an expiry long past.
	if value.Version != offsetValueWithExpiry {
		value.ExpireTimestamp = NoTimestamp
	}
	if value.Version < offsetValueVersion {
		value.LeaderEpoch = int32(cluster.NoLeaderEpoch)
	}
	return Offset{
		Offset: value.Offset, LeaderEpoch: value.LeaderEpoch, Metadata: value.Metadata,
		CommitMs: value.CommitTimestamp, ExpireMs: value.ExpireTimestamp,
	}, nil
}

// encodeOffset writes the newest version, or the one that can say when the offset expires.
func encodeOffset(offset *Offset) []byte {
	value := kmsg.OffsetCommitValue{
		Version: offsetValueVersion, Offset: offset.Offset, LeaderEpoch: offset.LeaderEpoch, Metadata: offset.Metadata,
		CommitTimestamp: offset.CommitMs, ExpireTimestamp: offset.ExpireMs,
	}
	if offset.ExpireMs != NoTimestamp {
		value.Version = offsetValueWithExpiry
	}
	return value.AppendTo(nil)
}

// DecodeGroup reads the value of a group's record.
func DecodeGroup(data []byte) (*kmsg.GroupMetadataValue, error) {
	if err := checkValueVersion(data); err != nil {
		return nil, fmt.Errorf("group metadata value: %w", err)
	}
	var value kmsg.GroupMetadataValue
	if err := value.ReadFrom(data); err != nil {
		return nil, fmt.Errorf("group metadata value: %w", err)
	}
	// As above: the schema's defaults for what a version lacks.
	if value.Version < 2 {
		value.CurrentStateTimestamp = -1
	}
	for i := range value.Members {
		if value.Version < 1 {
			value.Members[i].RebalanceTimeoutMillis = -1
		}
	}
	return &value, nil
}

func checkValueVersion(data []byte) error {
	if len(data) < 2 {
		return errors.New("shorter than its version")
	}
	if version := int16(binary.BigEndian.Uint16(data)); version < 0 || version > newestValueVersionRead {
		return fmt.Errorf("version %d is not known", version)
	}
	return nil
}

// subscribedTopics reads the topics from a member's metadata of the "consumer" protocol
// type. ok is false if it cannot be read (another client's own format):
//
//	int16 version, int32 count, string topic…, more that does not matter here
func subscribedTopics(metadata []byte) (topics []string, ok bool) {
	if len(metadata) < 6 {
		return nil, false
	}
	count := int32(binary.BigEndian.Uint32(metadata[2:]))
	rest := metadata[6:]
	if count < 0 || int(count) > len(rest)/2 {
		return nil, count == -1
	}
	for range count {
		if len(rest) < 2 {
			return nil, false
		}
		length := int(int16(binary.BigEndian.Uint16(rest)))
		if length < 0 || length > len(rest)-2 {
			return nil, false
		}
		topics = append(topics, string(rest[2:2+length]))
		rest = rest[2+length:]
	}
	return topics, true
}
