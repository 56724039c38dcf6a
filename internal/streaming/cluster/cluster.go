// Package cluster is the vocabulary of the streaming half: the identifiers, epochs and
// small value types that several of its packages speak of, and nothing else. It has no
// behaviour beyond comparing, printing and parsing them.
//
// The integer types are distinct so that the compiler refuses a leader epoch where a
// controller epoch belongs. Sources: Kafka 3.9, ZooKeeper mode.
package cluster

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strconv"
)

// BrokerID identifies a broker (broker.id).
type BrokerID int32

const (
	// NoBroker says that there is none: a partition without a leader, an unknown controller.
	NoBroker BrokerID = -1
	// LeaderDuringDelete is the leader that UpdateMetadata names for a partition that is
	// being deleted (Kafka: LeaderAndIsr.LeaderDuringDelete).
	LeaderDuringDelete BrokerID = -2
)

// BrokerEpoch is the czxid of the broker's registration znode: it identifies one
// incarnation of a broker. UnknownBrokerEpoch is "not given" on the wire.
type BrokerEpoch int64

// UnknownBrokerEpoch is the wire value for a broker epoch that the sender does not state.
const UnknownBrokerEpoch BrokerEpoch = -1

// ControllerEpoch is the value of /controller_epoch; each elected controller has a larger one.
type ControllerEpoch int32

// LeaderEpoch grows with every election of a partition leader, ISR removal by the
// controller and reassignment step; not with an ISR change asked for by the leader.
type LeaderEpoch int32

const (
	// NoLeaderEpoch is the leader epoch of a replica that never had one, and the wire
	// value for "unknown".
	NoLeaderEpoch LeaderEpoch = -1
	// EpochDuringDelete is the leader epoch in StopReplica for a topic that is being deleted.
	EpochDuringDelete LeaderEpoch = -2
)

// EpochBeginTimestamp is a special timestamp of ListOffsets, between our own brokers: any replica
// tells the debugging replica where the latest leader epoch began that it led from records on that
// earlier leaders had left. The epoch stands in the answer's LeaderEpoch, its first offset in
// Offset, the epoch of the record before that in Timestamp; all are -1 where none is known.
const EpochBeginTimestamp = -1001

// PartitionEpoch is the data version of the partition's state znode: it grows with every
// change of leader or ISR.
type PartitionEpoch int32

// Offset is the position of a record in a partition. Ends are exclusive: the log end
// offset is the offset that the next record will get.
type Offset int64

// NoOffset is the wire value for an offset that is not known.
const NoOffset Offset = -1

// TopicID is a topic's UUID; the zero value means "no id".
type TopicID [16]byte

// NewTopicID returns a random version 4 UUID. Kafka avoids ids whose text begins with a
// dash, so that command lines can carry them (org.apache.kafka.common.Uuid.randomUuid).
func NewTopicID() TopicID {
	for {
		var id TopicID
		if _, err := rand.Read(id[:]); err != nil {
			panic(fmt.Sprintf("cluster: no randomness: %v", err))
		}
		id[6] = id[6]&0x0f | 0x40
		id[8] = id[8]&0x3f | 0x80
		if id.String()[0] != '-' {
			return id
		}
	}
}

// IsZero reports whether there is no id.
func (id TopicID) IsZero() bool { return id == TopicID{} }

// String is Kafka's text form: URL-safe base64 without padding, 22 characters.
func (id TopicID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// ParseTopicID reads Kafka's text form.
func ParseTopicID(text string) (TopicID, error) {
	var id TopicID
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(raw) != len(id) {
		return id, fmt.Errorf("topic id %q is not 22 characters of URL-safe base64", text)
	}
	copy(id[:], raw)
	return id, nil
}

// TopicPartition names one partition.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// String is Kafka's directory form, "topic-0".
func (tp TopicPartition) String() string {
	return tp.Topic + "-" + strconv.Itoa(int(tp.Partition))
}

// Less orders partitions by topic, then number.
func (tp TopicPartition) Less(other TopicPartition) bool {
	if tp.Topic != other.Topic {
		return tp.Topic < other.Topic
	}
	return tp.Partition < other.Partition
}

// Endpoint is one advertised listener of a broker.
type Endpoint struct {
	Listener string // listener name, e.g. "PLAINTEXT"
	Protocol string // security protocol, e.g. "PLAINTEXT"
	Host     string // without brackets, also for IPv6
	Port     int32
}

// Broker is one registered broker.
type Broker struct {
	ID        BrokerID
	Epoch     BrokerEpoch // UnknownBrokerEpoch where the source does not tell (UpdateMetadata)
	Endpoints []Endpoint
	Rack      string // "" if none
	Stop      StopKind
}

// StopKind is what a broker says in its registration of how the process before its present one
// ended. After anything but a clean stop the tails of its logs may be missing.
type StopKind uint8

const (
	StopUntold StopKind = iota // Apache's broker does not say
	StopClean
	StopUnclean
)

// Endpoint returns the broker's endpoint for a listener name.
func (b *Broker) Endpoint(listener string) (Endpoint, bool) {
	for _, endpoint := range b.Endpoints {
		if endpoint.Listener == listener {
			return endpoint, true
		}
	}
	return Endpoint{}, false
}

// LeaderRecoveryState says whether a leader came out of an unclean election (KIP-704).
type LeaderRecoveryState int8

const (
	Recovered  LeaderRecoveryState = 0
	Recovering LeaderRecoveryState = 1
)

// PartitionState is the committed leadership of a partition: the content of its state
// znode and that znode's version.
type PartitionState struct {
	Leader          BrokerID
	LeaderEpoch     LeaderEpoch
	ISR             []BrokerID // in order of joining; never sorted
	Recovery        LeaderRecoveryState
	ControllerEpoch ControllerEpoch // of the controller that wrote it
	PartitionEpoch  PartitionEpoch
	// AsOf is the newest registration that the controller knew of when it decided on this; 0: not
	// told, as by Apache's controllers. The write may reach the ensemble after newer ones.
	AsOf BrokerEpoch
}

// JavaStringHash is Java's String.hashCode over UTF-16 units. It decides the coordinator
// partition of a group or transactional id and the fetcher of a partition, so it must agree
// with Kafka's.
func JavaStringHash(text string) int32 {
	var hash int32
	for _, r := range text {
		if r > 0xffff {
			r -= 0x10000
			hash = 31*hash + 0xd800 + r>>10
			r = 0xdc00 + r&0x3ff
		}
		hash = 31*hash + r
	}
	return hash
}

// InternalPartition returns the partition of an internal topic that a key belongs to:
// abs(hash) mod count, with Kafka's abs (Utils.abs: the smallest integer becomes 0).
func InternalPartition(key string, partitionCount int32) int32 {
	hash := JavaStringHash(key)
	if hash == -1<<31 {
		hash = 0
	}
	if hash < 0 {
		hash = -hash
	}
	return hash % partitionCount
}
