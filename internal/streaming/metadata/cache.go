package metadata

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
)

// maxPartitions bounds a partition number, so that a nonsensical one cannot make us
// allocate a topic of two thousand million entries.
const maxPartitions = 1 << 20

// Cache holds the present Image.
type Cache struct {
	image atomic.Pointer[Image]
	mu    sync.Mutex // serialises updates
}

// Change says what an update did.
type Change struct {
	Image             *Image // after the update
	Topics            []string
	Removed           []cluster.TopicPartition
	Joined, Left      []cluster.BrokerID
	BrokersChanged    bool // also when only an endpoint or a rack did
	ControllerChanged bool
}

// New returns a cache that knows nothing.
func New() *Cache {
	c := &Cache{}
	c.image.Store(&Image{controllerID: cluster.NoBroker, superseded: make(chan struct{})})
	return c
}

// Image returns the present state.
func (c *Cache) Image() *Image { return c.image.Load() }

// Changed returns a channel that is closed at the next change. To miss none, take it before
// the image: or use WaitFor.
func (c *Cache) Changed() <-chan struct{} { return c.Image().superseded }

// WaitFor waits until an image satisfies the condition, and returns it; or ctx's error.
func (c *Cache) WaitFor(ctx context.Context, condition func(*Image) bool) (*Image, error) {
	for {
		image := c.Image()
		if condition(image) {
			return image, nil
		}
		select {
		case <-image.superseded:
		case <-ctx.Done():
			return image, context.Cause(ctx)
		}
	}
}

// ApplyUpdateMetadata carries out an UpdateMetadata whose broker and controller epochs the
// caller has checked: it replaces the live brokers and merges the partitions; a leader of -2
// removes. A topic with the zero id keeps the id that we know (Apache's cache forgets it, and
// then answers UNKNOWN_TOPIC_ID). The request is not kept.
func (c *Cache) ApplyUpdateMetadata(request *kmsg.UpdateMetadataRequest) Change {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.Image()
	d := newDraft(before)
	var change Change

	d.image.controllerID = max(cluster.BrokerID(request.ControllerID), cluster.NoBroker)
	d.image.controllerEpoch = cluster.ControllerEpoch(request.ControllerEpoch)
	change.ControllerChanged = d.image.controllerID != before.controllerID
	c.replaceBrokers(d, request, &change)

	for at := range request.TopicStates { // version 5 and later
		topic := &request.TopicStates[at]
		change.Topics = append(change.Topics, topic.Topic)
		if id := cluster.TopicID(topic.TopicID); !id.IsZero() && !onlyDeletions(topic.PartitionStates) {
			d.identify(topic.Topic, id)
		}
		for p := range topic.PartitionStates {
			merge(d, topic.Topic, &topic.PartitionStates[p])
		}
		// Once more: a topic whose last partition went and came in one request is a new entry.
		if id := cluster.TopicID(topic.TopicID); !id.IsZero() && d.image.Topic(topic.Topic) != nil {
			d.identify(topic.Topic, id)
		}
	}
	for p := range request.PartitionStates { // up to version 4
		state := &request.PartitionStates[p]
		if len(change.Topics) == 0 || change.Topics[len(change.Topics)-1] != state.Topic {
			change.Topics = append(change.Topics, state.Topic)
		}
		merge(d, state.Topic, state)
	}
	change.Removed = d.removed
	change.Image = d.image
	c.publish(before, d.image)
	return change
}

// OverlayLeaderAndISR takes over leaders, epochs and in-sync sets from a LeaderAndIsr for
// partitions that the image has: never a partition on its own, because a topic of which only
// some partitions were known would look smaller than it is. An older leader epoch than the
// image's changes nothing.
func (c *Cache) OverlayLeaderAndISR(request *kmsg.LeaderAndISRRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.Image()
	d := newDraft(before)
	changed := false
	for at := range request.TopicStates {
		topic := &request.TopicStates[at]
		known := before.Topic(topic.Topic)
		if known == nil {
			continue
		}
		if id := cluster.TopicID(topic.TopicID); !id.IsZero() && !known.ID.IsZero() && id != known.ID {
			continue // another incarnation of the topic: UpdateMetadata will tell
		}
		for p := range topic.PartitionStates {
			changed = overlay(d, before, topic.Topic, &topic.PartitionStates[p]) || changed
		}
	}
	for p := range request.PartitionStates {
		state := &request.PartitionStates[p]
		changed = overlay(d, before, state.Topic, state) || changed
	}
	if changed {
		c.publish(before, d.image)
	}
}

func (c *Cache) publish(before, after *Image) {
	c.image.Store(after)
	close(before.superseded)
}

func (c *Cache) replaceBrokers(d *draft, request *kmsg.UpdateMetadataRequest, change *Change) {
	brokers := liveBrokers(request)
	before := d.image.brokers
	d.image.brokers = brokers
	for i := range brokers {
		old, found := (&Image{brokers: before}).Broker(brokers[i].ID)
		if !found {
			change.Joined = append(change.Joined, brokers[i].ID)
		} else if old.Rack != brokers[i].Rack || !slices.Equal(old.Endpoints, brokers[i].Endpoints) {
			change.BrokersChanged = true
		}
	}
	for i := range before {
		if !d.image.Alive(before[i].ID) {
			change.Left = append(change.Left, before[i].ID)
		}
	}
	change.BrokersChanged = change.BrokersChanged || len(change.Joined) > 0 || len(change.Left) > 0
}

// securityProtocols are Kafka's numbers (SecurityProtocol).
var securityProtocols = [...]string{"PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"}

func protocolName(id int16) string {
	if id < 0 || int(id) >= len(securityProtocols) {
		return "UNKNOWN"
	}
	return securityProtocols[id]
}

// liveBrokers translates the request's brokers, sorted by id. Up to version 2 an endpoint
// has no listener name: then it is the protocol's.
func liveBrokers(request *kmsg.UpdateMetadataRequest) []cluster.Broker {
	brokers := make([]cluster.Broker, 0, len(request.LiveBrokers))
	for i := range request.LiveBrokers {
		live := &request.LiveBrokers[i]
		broker := cluster.Broker{ID: cluster.BrokerID(live.ID), Epoch: cluster.UnknownBrokerEpoch}
		if live.Rack != nil {
			broker.Rack = *live.Rack
		}
		if request.Version == 0 {
			broker.Endpoints = []cluster.Endpoint{{Listener: "PLAINTEXT", Protocol: "PLAINTEXT", Host: live.Host, Port: live.Port}}
		}
		for _, endpoint := range live.Endpoints {
			protocol := protocolName(endpoint.SecurityProtocol)
			listener := endpoint.ListenerName
			if listener == "" {
				listener = protocol
			}
			broker.Endpoints = append(broker.Endpoints, cluster.Endpoint{Listener: listener, Protocol: protocol, Host: endpoint.Host, Port: endpoint.Port})
		}
		brokers = append(brokers, broker)
	}
	slices.SortFunc(brokers, func(a, b cluster.Broker) int { return int(a.ID) - int(b.ID) })
	return slices.CompactFunc(brokers, func(a, b cluster.Broker) bool { return a.ID == b.ID })
}

func onlyDeletions(states []kmsg.UpdateMetadataRequestTopicPartition) bool {
	for i := range states {
		if cluster.BrokerID(states[i].Leader) != cluster.LeaderDuringDelete {
			return false
		}
	}
	return true
}

func merge(d *draft, topic string, state *kmsg.UpdateMetadataRequestTopicPartition) {
	if cluster.BrokerID(state.Leader) == cluster.LeaderDuringDelete {
		d.remove(topic, state.Partition)
		return
	}
	if state.Partition < 0 || state.Partition >= maxPartitions {
		return
	}
	d.set(topic, state.Partition, &Partition{
		PartitionState: cluster.PartitionState{
			Leader:          cluster.BrokerID(state.Leader),
			LeaderEpoch:     cluster.LeaderEpoch(state.LeaderEpoch),
			ISR:             brokerIDs(state.ISR),
			ControllerEpoch: cluster.ControllerEpoch(state.ControllerEpoch),
			PartitionEpoch:  cluster.PartitionEpoch(state.ZKVersion),
		},
		Replicas: brokerIDs(state.Replicas),
		Offline:  brokerIDs(state.OfflineReplicas),
	})
}

func overlay(d *draft, before *Image, topic string, state *kmsg.LeaderAndISRRequestTopicPartition) bool {
	known, found := before.Partition(cluster.TopicPartition{Topic: topic, Partition: state.Partition})
	if !found || cluster.LeaderEpoch(state.LeaderEpoch) <= known.LeaderEpoch {
		return false
	}
	d.set(topic, state.Partition, &Partition{
		PartitionState: cluster.PartitionState{
			Leader:          cluster.BrokerID(state.Leader),
			LeaderEpoch:     cluster.LeaderEpoch(state.LeaderEpoch),
			ISR:             brokerIDs(state.ISR),
			Recovery:        cluster.LeaderRecoveryState(state.LeaderRecoveryState),
			ControllerEpoch: cluster.ControllerEpoch(state.ControllerEpoch),
			PartitionEpoch:  cluster.PartitionEpoch(state.ZKVersion),
		},
		Replicas: brokerIDs(state.Replicas),
		Offline:  known.Offline,
	})
	return true
}

func brokerIDs(ids []int32) []cluster.BrokerID {
	if len(ids) == 0 {
		return nil
	}
	brokers := make([]cluster.BrokerID, len(ids))
	for i, id := range ids {
		brokers[i] = cluster.BrokerID(id)
	}
	return brokers
}
