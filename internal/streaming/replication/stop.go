package replication

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/partition"
)

// StopReplica carries out the controller's request. Without delete only fetching stops: the
// partition keeps its role, as in Kafka. With delete the log goes, also one that no
// LeaderAndIsr has named yet.
func (m *Manager) StopReplica(request *kmsg.StopReplicaRequest) *kmsg.StopReplicaResponse {
	m.control.Lock()
	defer m.control.Unlock()
	response := request.ResponseKind().(*kmsg.StopReplicaResponse)
	brokerEpoch := cluster.BrokerEpoch(request.BrokerEpoch)
	if request.Version < 1 {
		brokerEpoch = cluster.UnknownBrokerEpoch
	}
	if err := m.checkControlLocked(brokerEpoch, cluster.ControllerEpoch(request.ControllerEpoch)); err != nil {
		response.ErrorCode = errorCode(err)
		return response
	}
	effects := takeEffects()
	var notifications []func()
	stop := func(topic string, number int32, epoch cluster.LeaderEpoch, remove bool) {
		tp := cluster.TopicPartition{Topic: topic, Partition: number}
		err := m.stopOne(tp, epoch, remove, effects)
		if change := m.roleChange(topic); change != nil && remove && err == nil {
			notifications = append(notifications, func() { change(number, max(epoch, cluster.NoLeaderEpoch), false) })
		}
		entry := kmsg.NewStopReplicaResponsePartition()
		entry.Topic, entry.Partition, entry.ErrorCode = topic, number, errorCode(err)
		response.Partitions = append(response.Partitions, entry)
	}
	for i := range request.Topics {
		topic := &request.Topics[i]
		switch {
		case request.Version == 0:
			stop(topic.Topic, topic.Partition, cluster.NoLeaderEpoch, request.DeletePartitions)
		case request.Version < 3:
			for _, number := range topic.Partitions {
				stop(topic.Topic, number, cluster.NoLeaderEpoch, request.DeletePartitions)
			}
		default:
			for _, state := range topic.PartitionStates {
				stop(topic.Topic, state.Partition, cluster.LeaderEpoch(state.LeaderEpoch), state.Delete)
			}
		}
	}
	m.run(effects)
	for _, notify := range notifications {
		notify()
	}
	if err := m.config.Logs.SecureDeletions(); err != nil {
		m.logger.Error("deletions of logs are not durable", "err", err)
		for i := range response.Partitions {
			response.Partitions[i].ErrorCode = kerr.KafkaStorageError.Code
		}
	}
	return response
}

func (m *Manager) stopOne(tp cluster.TopicPartition, epoch cluster.LeaderEpoch, remove bool, effects *effects) error {
	h := m.host(tp)
	if h == nil {
		if remove {
			return m.deleteLog(tp)
		}
		return nil
	}
	h.mu.Lock()
	current, offline := h.replica.LeaderEpoch(), h.offline
	h.mu.Unlock()
	if offline != nil {
		return kerr.KafkaStorageError
	}
	if err := partition.JudgeStop(current, epoch); err != nil {
		m.logger.Warn("stop replica refused", "topic", tp.Topic, "partition", tp.Partition, "leaderEpoch", epoch, "known", current, "err", err)
		return err
	}
	m.stopFetching(h)
	if !remove {
		h.mu.Lock()
		h.wakeAllLocked(effects)
		h.mu.Unlock()
		return nil
	}
	m.hosts.Lock()
	delete(m.hosts.byTP, tp)
	m.hosts.Unlock()
	h.role.Lock() // no append is under way below
	defer h.role.Unlock()
	h.mu.Lock()
	h.stopped = true
	h.releaseAllLocked(errNotLeader, effects)
	h.wakeAllLocked(effects)
	h.mu.Unlock()
	return m.deleteLog(tp)
}

func (m *Manager) deleteLog(tp cluster.TopicPartition) error {
	if err := m.config.Logs.Delete(tp); err != nil {
		m.logger.Error("log not deleted", "topic", tp.Topic, "partition", tp.Partition, "err", err)
		return kerr.KafkaStorageError
	}
	m.logger.Info("replica deleted", "topic", tp.Topic, "partition", tp.Partition)
	return nil
}
