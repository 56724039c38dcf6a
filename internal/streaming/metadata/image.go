// Package metadata is what a broker knows of its cluster: the live brokers, the controller,
// and every partition's leader, replicas and in-sync set, as the controller tells it with
// UpdateMetadata (Kafka: ZkMetadataCache).
//
// The Cache hands out an Image, which never changes; readers take it without a lock and see
// one consistent state. An update copies only what it touches: topics stand in shards, so
// that an update costs its own size and not the cluster's.
//
// What LeaderAndIsr tells this broker about its own partitions is laid over the image at
// once (OverlayLeaderAndISR): the controller sends UpdateMetadata after it, and a client that
// asks in between would be sent back to a broker that is gone.
//
// Updates are serialised by the cache; nothing here blocks but WaitFor.
package metadata

import (
	"cmp"
	"iter"
	"slices"

	"understudy/internal/streaming/cluster"
)

// Image is one immutable state of the cluster's metadata. Nobody may change what it returns.
type Image struct {
	controllerID    cluster.BrokerID
	controllerEpoch cluster.ControllerEpoch
	brokers         []cluster.Broker // alive, by id
	shards          [shardCount]shard
	topicCount      int
	partitionCount  int
	superseded      chan struct{} // closed when there is a newer image
}

const shardCount = 256

// shard holds the topics whose name, and the ids whose bytes, fall into it.
type shard struct {
	topics map[string]*Topic
	names  map[cluster.TopicID]string
}

// Topic is one topic. Partitions is indexed by partition number; a nil entry is a partition
// that the controller has not told us about.
type Topic struct {
	Name       string
	ID         cluster.TopicID // zero if it has none
	Partitions []*Partition
}

// Partition is one partition's state.
type Partition struct {
	cluster.PartitionState
	Replicas []cluster.BrokerID // in the order of preference
	Offline  []cluster.BrokerID // replicas whose broker or log directory is down
}

// ControllerID is the active controller, or NoBroker.
func (i *Image) ControllerID() cluster.BrokerID { return i.controllerID }

// ControllerEpoch is the epoch of the controller that sent the last UpdateMetadata.
func (i *Image) ControllerEpoch() cluster.ControllerEpoch { return i.controllerEpoch }

// Brokers are the live brokers by id.
func (i *Image) Brokers() []cluster.Broker { return i.brokers }

// Broker returns a live broker.
func (i *Image) Broker(id cluster.BrokerID) (*cluster.Broker, bool) {
	at, found := slices.BinarySearchFunc(i.brokers, id, func(b cluster.Broker, id cluster.BrokerID) int {
		return cmp.Compare(b.ID, id)
	})
	if !found {
		return nil, false
	}
	return &i.brokers[at], true
}

// Alive reports whether a broker is live.
func (i *Image) Alive(id cluster.BrokerID) bool {
	_, found := i.Broker(id)
	return found
}

// Endpoint returns a live broker's endpoint on a listener.
func (i *Image) Endpoint(id cluster.BrokerID, listener string) (cluster.Endpoint, bool) {
	broker, found := i.Broker(id)
	if !found {
		return cluster.Endpoint{}, false
	}
	return broker.Endpoint(listener)
}

// Topic returns a topic, nil if there is none of that name.
func (i *Image) Topic(name string) *Topic { return i.shards[nameShard(name)].topics[name] }

// TopicName returns the name of the topic with an id.
func (i *Image) TopicName(id cluster.TopicID) (string, bool) {
	name, found := i.shards[idShard(id)].names[id]
	return name, found
}

// TopicID returns a topic's id; the zero id if the topic is unknown or has none.
func (i *Image) TopicID(name string) cluster.TopicID {
	if topic := i.Topic(name); topic != nil {
		return topic.ID
	}
	return cluster.TopicID{}
}

// Partition returns a partition's state.
func (i *Image) Partition(tp cluster.TopicPartition) (Partition, bool) {
	topic := i.Topic(tp.Topic)
	if topic == nil || tp.Partition < 0 || int(tp.Partition) >= len(topic.Partitions) || topic.Partitions[tp.Partition] == nil {
		return Partition{}, false
	}
	return *topic.Partitions[tp.Partition], true
}

// Topics yields every topic, in no particular order.
func (i *Image) Topics() iter.Seq[*Topic] {
	return func(yield func(*Topic) bool) {
		for at := range i.shards {
			for _, topic := range i.shards[at].topics {
				if !yield(topic) {
					return
				}
			}
		}
	}
}

// TopicCount and PartitionCount say how much there is.
func (i *Image) TopicCount() int { return i.topicCount }

// PartitionCount is the number of partitions of all topics.
func (i *Image) PartitionCount() int { return i.partitionCount }

// nameShard is FNV-1a folded to the number of shards.
func nameShard(name string) int {
	hash := uint32(2166136261)
	for at := 0; at < len(name); at++ {
		hash = (hash ^ uint32(name[at])) * 16777619
	}
	return int((hash ^ hash>>16) % shardCount)
}

// idShard uses a byte of the id that is random in every UUID version 4.
func idShard(id cluster.TopicID) int { return int(id[15]) % shardCount }
