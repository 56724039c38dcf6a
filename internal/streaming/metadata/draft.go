package metadata

import (
	"maps"
	"slices"

	"understudy/internal/streaming/cluster"
)

// draft is an image in the making: it starts as a shallow copy and copies each shard, and
// each topic in it, the first time that it is written to.
type draft struct {
	image      *Image
	ownTopics  [shardCount]bool
	ownNames   [shardCount]bool
	freshTopic map[string]*Topic // topics that this draft has copied or made
	removed    []cluster.TopicPartition
}

func newDraft(from *Image) *draft {
	image := *from
	image.superseded = make(chan struct{})
	return &draft{image: &image, freshTopic: map[string]*Topic{}}
}

func (d *draft) topics(name string) map[string]*Topic {
	at := nameShard(name)
	if !d.ownTopics[at] {
		d.ownTopics[at] = true
		if d.image.shards[at].topics == nil {
			d.image.shards[at].topics = map[string]*Topic{}
		} else {
			d.image.shards[at].topics = maps.Clone(d.image.shards[at].topics)
		}
	}
	return d.image.shards[at].topics
}

func (d *draft) names(id cluster.TopicID) map[cluster.TopicID]string {
	at := idShard(id)
	if !d.ownNames[at] {
		d.ownNames[at] = true
		if d.image.shards[at].names == nil {
			d.image.shards[at].names = map[cluster.TopicID]string{}
		} else {
			d.image.shards[at].names = maps.Clone(d.image.shards[at].names)
		}
	}
	return d.image.shards[at].names
}

// topic returns the draft's own copy of a topic, making it if it is missing.
func (d *draft) topic(name string) *Topic {
	if own := d.freshTopic[name]; own != nil {
		return own
	}
	own := &Topic{Name: name}
	topics := d.topics(name)
	if old := topics[name]; old != nil {
		own.ID, own.Partitions = old.ID, slices.Clone(old.Partitions)
	} else {
		d.image.topicCount++
	}
	topics[name] = own
	d.freshTopic[name] = own
	return own
}

// identify gives a topic its id. A topic that had another one was deleted and made anew
// without our having heard of it: its old partitions go.
func (d *draft) identify(name string, id cluster.TopicID) {
	topic := d.topic(name)
	if topic.ID == id {
		return
	}
	if !topic.ID.IsZero() {
		delete(d.names(topic.ID), topic.ID)
		for partition := range topic.Partitions {
			d.unset(topic, int32(partition))
		}
		topic.Partitions = nil
	}
	topic.ID = id
	d.names(id)[id] = name
}

// set inserts or replaces a partition.
func (d *draft) set(name string, partition int32, state *Partition) {
	topic := d.topic(name)
	if missing := int(partition) + 1 - len(topic.Partitions); missing > 0 {
		topic.Partitions = append(topic.Partitions, make([]*Partition, missing)...)
	}
	if topic.Partitions[partition] == nil {
		d.image.partitionCount++
	}
	topic.Partitions[partition] = state
}

// remove takes a partition away, and the topic with its last one.
func (d *draft) remove(name string, partition int32) {
	if d.image.Topic(name) == nil {
		return
	}
	topic := d.topic(name)
	if partition < 0 || int(partition) >= len(topic.Partitions) {
		return
	}
	d.unset(topic, partition)
	last := len(topic.Partitions)
	for last > 0 && topic.Partitions[last-1] == nil {
		last--
	}
	topic.Partitions = topic.Partitions[:last]
	if last > 0 {
		return
	}
	if !topic.ID.IsZero() {
		delete(d.names(topic.ID), topic.ID)
	}
	delete(d.topics(name), name)
	delete(d.freshTopic, name)
	d.image.topicCount--
}

func (d *draft) unset(topic *Topic, partition int32) {
	if topic.Partitions[partition] == nil {
		return
	}
	topic.Partitions[partition] = nil
	d.image.partitionCount--
	d.removed = append(d.removed, cluster.TopicPartition{Topic: topic.Name, Partition: partition})
}
