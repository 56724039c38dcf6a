package controller

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
)

// The versions that inter.broker.protocol.version 3.9 dictates: control requests are sent
// without asking the receiver what it serves.
const (
	leaderAndISRVersion   = 7
	updateMetadataVersion = 8
	stopReplicaVersion    = 4
)

// Send is one request to one broker. Requests to a broker leave in the order in which they
// stand in Effects; those to different brokers in parallel, so the order between brokers
// only says whose is queued first.
type Send struct {
	To      cluster.BrokerID
	Request kmsg.Request
}

// outbox collects what is to be told until flush turns it into requests built from the
// state as it is then. Anything told by LeaderAndIsr is also told to every broker by
// UpdateMetadata (Kafka: AbstractControllerBrokerRequestBatch).
type outbox struct {
	leaderAndISR map[cluster.BrokerID]map[*partition]bool // value: isNew, sticky
	leading      map[cluster.BrokerID]int                 // how many of the new leaders are on the broker
	metadata     map[*partition]struct{}
	metadataAll  bool                                     // UpdateMetadata to all brokers
	metadataTo   map[cluster.BrokerID]bool                // to these; value: with every partition
	stop         map[cluster.BrokerID]map[*partition]bool // value: delete
}

func (o *outbox) empty() bool {
	return len(o.leaderAndISR) == 0 && !o.metadataAll && len(o.metadataTo) == 0 && len(o.stop) == 0
}

// tellLeader queues a partition for LeaderAndIsr to those of ids that are registered.
func (c *Core) tellLeader(ids []cluster.BrokerID, p *partition, isNew bool) {
	if !p.known {
		return
	}
	for _, id := range ids {
		if !c.registered(id) {
			continue
		}
		if c.out.leaderAndISR == nil {
			c.out.leaderAndISR = map[cluster.BrokerID]map[*partition]bool{}
			c.out.leading = map[cluster.BrokerID]int{}
		}
		if c.out.leaderAndISR[id] == nil {
			c.out.leaderAndISR[id] = map[*partition]bool{}
		}
		c.out.leaderAndISR[id][p] = c.out.leaderAndISR[id][p] || isNew
		if p.state.Leader == id {
			c.out.leading[id]++
		}
	}
	c.tellEveryone(p)
}

// tellEveryone queues partitions for UpdateMetadata to all registered brokers.
func (c *Core) tellEveryone(parts ...*partition) {
	c.out.metadataAll = true
	if c.out.metadata == nil {
		c.out.metadata = map[*partition]struct{}{}
	}
	for _, p := range parts {
		c.out.metadata[p] = struct{}{}
	}
}

// tellMetadata queues an UpdateMetadata to one broker: with every partition, or with none
// (brokers and controller only).
func (c *Core) tellMetadata(id cluster.BrokerID, everything bool) {
	if c.out.metadataTo == nil {
		c.out.metadataTo = map[cluster.BrokerID]bool{}
	}
	c.out.metadataTo[id] = c.out.metadataTo[id] || everything
}

// tellStop queues a StopReplica; the delete flag is sticky.
func (c *Core) tellStop(id cluster.BrokerID, p *partition, deleteReplica bool) {
	if !c.registered(id) {
		return
	}
	if c.out.stop == nil {
		c.out.stop = map[cluster.BrokerID]map[*partition]bool{}
	}
	if c.out.stop[id] == nil {
		c.out.stop[id] = map[*partition]bool{}
	}
	c.out.stop[id][p] = c.out.stop[id][p] || deleteReplica
}

// flush appends the requests: every LeaderAndIsr first, the brokers with the most new
// leaders ahead, then every UpdateMetadata, then StopReplica. For each broker that is
// Kafka's order; across brokers it brings the new leaders up first.
func (c *Core) flush() {
	out := &c.out
	if !out.empty() {
		c.flushLeaderAndISR(out)
		c.flushMetadata(out)
		c.flushStop(out)
	}
	c.out = outbox{}
}

func sortedPartitions[V any](set map[*partition]V) []*partition {
	list := make([]*partition, 0, len(set))
	for p := range set {
		list = append(list, p)
	}
	slices.SortFunc(list, comparePartitions)
	return list
}

func comparePartitions(a, b *partition) int {
	switch {
	case a.tp.Less(b.tp):
		return -1
	case b.tp.Less(a.tp):
		return 1
	}
	return 0
}

func (c *Core) send(to cluster.BrokerID, request kmsg.Request) {
	c.effects.Sends = append(c.effects.Sends, Send{to, request})
}

func (c *Core) flushLeaderAndISR(out *outbox) {
	order := make([]cluster.BrokerID, 0, len(out.leaderAndISR))
	for _, id := range c.brokerIDs() {
		if len(out.leaderAndISR[id]) > 0 {
			order = append(order, id)
		}
	}
	slices.SortStableFunc(order, func(a, b cluster.BrokerID) int { return out.leading[b] - out.leading[a] })
	for _, id := range order {
		c.send(id, c.leaderAndISRRequest(id, out.leaderAndISR[id]))
	}
}

func (c *Core) leaderAndISRRequest(to cluster.BrokerID, set map[*partition]bool) *kmsg.LeaderAndISRRequest {
	request := kmsg.NewPtrLeaderAndISRRequest()
	request.Version = leaderAndISRVersion
	request.ControllerID = int32(c.self)
	request.ControllerEpoch = int32(c.epoch)
	request.BrokerEpoch = int64(c.brokers[to].Epoch)
	leaders := map[cluster.BrokerID]struct{}{}
	var current *kmsg.LeaderAndISRRequestTopicState
	for _, p := range sortedPartitions(set) {
		if current == nil || current.Topic != p.tp.Topic {
			request.TopicStates = append(request.TopicStates, kmsg.LeaderAndISRRequestTopicState{Topic: p.tp.Topic, TopicID: p.topic.id})
			current = &request.TopicStates[len(request.TopicStates)-1]
		}
		current.PartitionStates = append(current.PartitionStates, kmsg.LeaderAndISRRequestTopicPartition{
			Topic:               p.tp.Topic,
			Partition:           p.tp.Partition,
			ControllerEpoch:     int32(p.state.ControllerEpoch),
			Leader:              int32(p.state.Leader),
			LeaderEpoch:         int32(p.state.LeaderEpoch),
			ISR:                 int32s(p.state.ISR),
			ZKVersion:           int32(p.state.PartitionEpoch),
			Replicas:            int32s(p.assignment.Replicas),
			AddingReplicas:      int32s(p.assignment.Adding),
			RemovingReplicas:    int32s(p.assignment.Removing),
			IsNew:               set[p],
			LeaderRecoveryState: int8(p.state.Recovery),
		})
		leaders[p.state.Leader] = struct{}{}
	}
	for _, id := range c.brokerIDs() {
		if _, leads := leaders[id]; !leads {
			continue
		}
		if endpoint, ok := c.brokers[id].Endpoint(c.listener); ok {
			request.LiveLeaders = append(request.LiveLeaders, kmsg.LeaderAndISRRequestLiveLeader{
				BrokerID: int32(id), Host: endpoint.Host, Port: endpoint.Port,
			})
		}
	}
	return request
}

func int32s(ids []cluster.BrokerID) []int32 {
	out := make([]int32, len(ids))
	for i, id := range ids {
		out[i] = int32(id)
	}
	return out
}

// flushMetadata sends the same partitions and brokers to everyone; the slices are shared
// between the requests, which nobody changes.
func (c *Core) flushMetadata(out *outbox) {
	if !out.metadataAll && len(out.metadataTo) == 0 {
		return
	}
	live := c.liveBrokers()
	common := c.metadataStates(sortedPartitions(out.metadata))
	var all []kmsg.UpdateMetadataRequestTopicState
	for _, id := range c.brokerIDs() {
		everything, alone := out.metadataTo[id]
		if !alone && !out.metadataAll {
			continue
		}
		states := common
		if everything {
			if all == nil {
				all = c.allMetadataStates()
			}
			states = all
		}
		request := kmsg.NewPtrUpdateMetadataRequest()
		request.Version = updateMetadataVersion
		request.ControllerID = int32(c.self)
		request.ControllerEpoch = int32(c.epoch)
		request.BrokerEpoch = int64(c.brokers[id].Epoch)
		request.TopicStates = states
		request.LiveBrokers = live
		c.send(id, request)
	}
}

func (c *Core) allMetadataStates() []kmsg.UpdateMetadataRequestTopicState {
	var parts []*partition
	c.eachPartition(func(p *partition) { parts = append(parts, p) })
	return c.metadataStates(parts)
}

// metadataStates describes partitions, which must be sorted. A partition without a state
// node is left out; one that is being deleted has leader -2.
func (c *Core) metadataStates(parts []*partition) []kmsg.UpdateMetadataRequestTopicState {
	states := []kmsg.UpdateMetadataRequestTopicState{}
	var current *kmsg.UpdateMetadataRequestTopicState
	for _, p := range parts {
		if !p.known {
			continue
		}
		if current == nil || current.Topic != p.tp.Topic {
			states = append(states, kmsg.UpdateMetadataRequestTopicState{Topic: p.tp.Topic, TopicID: p.topic.id})
			current = &states[len(states)-1]
		}
		state := kmsg.UpdateMetadataRequestTopicPartition{
			Topic:           p.tp.Topic,
			Partition:       p.tp.Partition,
			ControllerEpoch: int32(p.state.ControllerEpoch),
			Leader:          int32(p.state.Leader),
			LeaderEpoch:     int32(p.state.LeaderEpoch),
			ISR:             int32s(p.state.ISR),
			ZKVersion:       int32(p.state.PartitionEpoch),
			Replicas:        int32s(p.assignment.Replicas),
			OfflineReplicas: c.offlineReplicas(p),
		}
		if p.topic.deletion != nil { // Kafka: LeaderAndIsr.duringDelete, which begins its epochs again
			state.Leader, state.LeaderEpoch, state.ZKVersion = int32(cluster.LeaderDuringDelete), 0, 0
		}
		current.PartitionStates = append(current.PartitionStates, state)
	}
	return states
}

func (c *Core) offlineReplicas(p *partition) []int32 {
	online := c.online(p.tp)
	out := []int32{}
	for _, id := range p.assignment.Replicas {
		if !online(id) {
			out = append(out, int32(id))
		}
	}
	return out
}

var protocolIDs = map[string]int16{"PLAINTEXT": 0, "SSL": 1, "SASL_PLAINTEXT": 2, "SASL_SSL": 3}

// liveBrokers is the complete list that replaces the receivers' own: every registered broker.
func (c *Core) liveBrokers() []kmsg.UpdateMetadataRequestLiveBroker {
	out := make([]kmsg.UpdateMetadataRequestLiveBroker, 0, len(c.brokers))
	for _, id := range c.brokerIDs() {
		b := c.brokers[id]
		live := kmsg.UpdateMetadataRequestLiveBroker{ID: int32(id)}
		for _, endpoint := range b.Endpoints {
			live.Endpoints = append(live.Endpoints, kmsg.UpdateMetadataRequestLiveBrokerEndpoint{
				Port: endpoint.Port, Host: endpoint.Host, ListenerName: endpoint.Listener,
				SecurityProtocol: protocolIDs[endpoint.Protocol],
			})
		}
		if b.Rack != "" {
			live.Rack = kmsg.StringPtr(b.Rack)
		}
		out = append(out, live)
	}
	return out
}

func (c *Core) flushStop(out *outbox) {
	for _, id := range c.brokerIDs() {
		if len(out.stop[id]) == 0 {
			continue
		}
		request := kmsg.NewPtrStopReplicaRequest()
		request.Version = stopReplicaVersion
		request.ControllerID = int32(c.self)
		request.ControllerEpoch = int32(c.epoch)
		request.BrokerEpoch = int64(c.brokers[id].Epoch)
		var current *kmsg.StopReplicaRequestTopic
		for _, p := range sortedPartitions(out.stop[id]) {
			if current == nil || current.Topic != p.tp.Topic {
				request.Topics = append(request.Topics, kmsg.StopReplicaRequestTopic{Topic: p.tp.Topic})
				current = &request.Topics[len(request.Topics)-1]
			}
			epoch := p.state.LeaderEpoch
			switch {
			case p.topic.deletion != nil:
				epoch = cluster.EpochDuringDelete
			case !p.known:
				epoch = cluster.NoLeaderEpoch
			}
			current.PartitionStates = append(current.PartitionStates, kmsg.StopReplicaRequestTopicPartitionState{
				Partition: p.tp.Partition, LeaderEpoch: int32(epoch), Delete: out.stop[id][p],
			})
		}
		c.send(id, request)
	}
}
