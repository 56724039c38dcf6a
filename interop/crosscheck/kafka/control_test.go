package kafka

import (
	"math"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// What brokers and the controller tell each other. The generator takes nobody's place: the
// epochs are stale, or what is said is so already, or it is about what does not exist.

func (g *generator) staleController() int32 {
	return pick[int32](g, g.controllerEpoch-1, g.controllerEpoch-1, 0, -1, math.MinInt32)
}

func (g *generator) staleBroker(id int32) int64 {
	return pick[int64](g, 0, 1, -2, g.brokerEpochs[id]-1)
}

// control says in whose name and to whom a control request goes; one of the two epochs is stale.
func (g *generator) control() (controllerEpoch int32, brokerEpoch int64) {
	if g.bool() {
		return g.staleController(), pick[int64](g, g.brokerEpochs[int32(g.target)], -1)
	}
	return g.controllerEpoch, g.staleBroker(int32(g.target))
}

func (g *generator) leaderAndISR() kmsg.Request {
	request := kmsg.NewPtrLeaderAndISRRequest()
	request.ControllerID = pick[int32](g, 1, 1, 77)
	request.ControllerEpoch, request.BrokerEpoch = g.control()
	if g.version < 2 { // no broker epoch
		request.ControllerEpoch = g.staleController()
	}
	again := g.version >= 2 && g.chance(2) && !g.cluster()
	if again { // as the controller would say it after a failover
		request.ControllerID, request.ControllerEpoch, request.BrokerEpoch = 1, g.controllerEpoch, g.brokerEpochs[1]
		g.asController = true
	}
	topic := g.existing()
	state := kmsg.NewLeaderAndISRRequestTopicState()
	state.Topic, state.TopicID = topic.name, topic.id
	if again && g.chance(4) {
		state.TopicID = [16]byte{8, 8}
	}
	for number := range min(topic.partitions, 2) {
		partition := kmsg.NewLeaderAndISRRequestTopicPartition()
		partition.Topic, partition.Partition = topic.name, number
		partition.ControllerEpoch, partition.Leader, partition.ISR, partition.Replicas = g.controllerEpoch, 1, []int32{1}, []int32{1}
		partition.LeaderEpoch = pick[int32](g, 0, 0, -1)
		state.PartitionStates = append(state.PartitionStates, partition)
		if g.version < 2 {
			request.PartitionStates = append(request.PartitionStates, partition)
		}
	}
	request.TopicStates = append(request.TopicStates, state)
	request.LiveLeaders = []kmsg.LeaderAndISRRequestLiveLeader{{BrokerID: 1, Host: "127.0.0.1", Port: g.ports[1]}}
	return request
}

func (g *generator) stopReplica() kmsg.Request {
	request := kmsg.NewPtrStopReplicaRequest()
	request.ControllerID = pick[int32](g, 1, 1, 77)
	request.ControllerEpoch, request.BrokerEpoch = g.control()
	if g.version < 1 {
		request.ControllerEpoch = g.staleController()
	}
	topic := g.existing()
	name, epoch := topic.name, int32(-1)
	if g.version >= 1 && g.chance(3) && !g.cluster() { // of what it does not host, all epochs right
		name, epoch = pick(g, "no-such-topic", "other"), pick[int32](g, -1, -2, 0, 5)
		request.ControllerID, request.ControllerEpoch, request.BrokerEpoch = 1, g.controllerEpoch, g.brokerEpochs[1]
		g.asController = true
	}
	request.DeletePartitions = g.bool()
	entry := kmsg.NewStopReplicaRequestTopic()
	entry.Topic, entry.Partition, entry.Partitions = name, 0, []int32{0, 5}
	for _, number := range entry.Partitions {
		state := kmsg.NewStopReplicaRequestTopicPartitionState()
		state.Partition, state.LeaderEpoch, state.Delete = number, epoch, g.bool()
		entry.PartitionStates = append(entry.PartitionStates, state)
	}
	request.Topics = append(request.Topics, entry)
	return request
}

func (g *generator) updateMetadata() kmsg.Request {
	request := kmsg.NewPtrUpdateMetadataRequest()
	request.ControllerID = pick[int32](g, 1, 1, 77)
	request.ControllerEpoch, request.BrokerEpoch = g.control()
	if g.version < 5 {
		request.ControllerEpoch = g.staleController()
	}
	if g.version >= 5 && g.chance(2) && !g.cluster() {
		request.ControllerID, request.ControllerEpoch, request.BrokerEpoch = 1, g.controllerEpoch, g.brokerEpochs[1]
		g.asController = true
	}
	for id, port := range g.ports {
		broker := kmsg.NewUpdateMetadataRequestLiveBroker()
		broker.ID, broker.Host, broker.Port = id, "127.0.0.1", port
		broker.Endpoints = []kmsg.UpdateMetadataRequestLiveBrokerEndpoint{{Port: port, Host: "127.0.0.1", ListenerName: "PLAINTEXT"}}
		request.LiveBrokers = append(request.LiveBrokers, broker)
	}
	return request
}

func (g *generator) controlledShutdown() kmsg.Request {
	request := kmsg.NewPtrControlledShutdownRequest()
	request.BrokerID, request.BrokerEpoch = pick[int32](g, 77, -1, 0), pick[int64](g, -1, 0, 5)
	if g.version >= 2 && g.bool() {
		request.BrokerID, request.BrokerEpoch = 1, g.staleBroker(1)
	}
	return request
}

func (g *generator) alterPartition() kmsg.Request {
	request := kmsg.NewPtrAlterPartitionRequest()
	request.BrokerID, request.BrokerEpoch = 1, g.brokerEpochs[1]
	switch g.rng.IntN(6) {
	case 0:
		request.BrokerID = pick[int32](g, 77, -1)
	case 1:
		request.BrokerEpoch = pick(g, g.staleBroker(1), -1)
	}
	request.Topics = some(g, func() kmsg.AlterPartitionRequestTopic {
		known := g.existing()
		topic := kmsg.NewAlterPartitionRequestTopic()
		topic.Topic, topic.TopicID = known.name, known.id
		if g.chance(4) {
			topic.Topic, topic.TopicID = "no-such-topic", g.topicID()
		}
		if g.version >= 2 {
			topic.Topic = ""
		}
		topic.Partitions = one(func() kmsg.AlterPartitionRequestTopicPartition {
			partition := kmsg.NewAlterPartitionRequestTopicPartition()
			partition.Partition = g.partition(known.name)
			partition.LeaderEpoch = pick[int32](g, 0, -1, 5, 1)
			partition.PartitionEpoch = pick[int32](g, 50, 1, -1)
			if g.cluster() {
				partition.PartitionEpoch = pick[int32](g, 500, -1) // the right one would change what the leader knows
			}
			partition.NewISR = pick(g, []int32{1}, []int32{}, []int32{1, 77}, []int32{77})
			for _, id := range partition.NewISR {
				member := kmsg.NewAlterPartitionRequestTopicPartitionNewEpochISR()
				member.BrokerID, member.BrokerEpoch = id, pick[int64](g, -1, g.brokerEpochs[1], 0)
				partition.NewEpochISR = append(partition.NewEpochISR, member)
			}
			partition.LeaderRecoveryState = pick[int8](g, 0, 0, 1)
			return partition
		})
		return topic
	})
	return request
}

func (g *generator) allocateProducerIDs() kmsg.Request {
	request := kmsg.NewPtrAllocateProducerIDsRequest()
	request.BrokerID, request.BrokerEpoch = 1, g.brokerEpochs[1]
	switch g.rng.IntN(4) {
	case 0:
		request.BrokerID = pick[int32](g, 77, -1)
	case 1:
		request.BrokerEpoch = pick(g, g.staleBroker(1), -1)
	}
	return request
}
