package replication

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
)

// Manager hosts this broker's replicas.
type Manager struct{}

// New returns a manager that hosts nothing yet, and starts its goroutines.
func New(config Config) *Manager { return &Manager{} }

// LeaderAndISR carries out the controller's request. Requests of the three control APIs are
// serialised inside; the caller keeps their order of arrival.
func (m *Manager) LeaderAndISR(request *kmsg.LeaderAndISRRequest) *kmsg.LeaderAndISRResponse {
	return nil
}

// StopReplica carries out the controller's request.
func (m *Manager) StopReplica(request *kmsg.StopReplicaRequest) *kmsg.StopReplicaResponse { return nil }

// CheckControl is the common validation of control requests, for the broker's UpdateMetadata:
// nil, STALE_BROKER_EPOCH or STALE_CONTROLLER_EPOCH. A controller epoch that passes is
// remembered.
func (m *Manager) CheckControl(brokerEpoch cluster.BrokerEpoch, controllerEpoch cluster.ControllerEpoch) error {
	return nil
}

// Append appends for producers and coordinators. done runs exactly once, possibly before
// Append returns and possibly on another goroutine; the results are those of Parts by index
// and belong to the callee. With Acks 0 the results are those of the append itself.
func (m *Manager) Append(request AppendRequest, done func([]AppendResult)) {}

// Fetch reads for a consumer or a follower. done runs exactly once, possibly before Fetch
// returns and possibly on another goroutine; it owns the results and closes their slices.
// cancel (the connection is gone) makes it run soon, with what there is; it may be called
// at any time. done must not block.
func (m *Manager) Fetch(request FetchRequest, done func([]FetchResult)) (cancel func()) { return nil }

// ListOffsets answers by index. replica is ConsumerReplica, DebugReplica or a follower.
func (m *Manager) ListOffsets(replica cluster.BrokerID, isolation int8, parts []ListOffsetsPart) []ListOffsetsResult {
	return nil
}

// EndOffsetForLeaderEpoch answers OffsetForLeaderEpoch by index.
func (m *Manager) EndOffsetForLeaderEpoch(parts []EndOffsetPart) []EndOffsetResult { return nil }

// ReadLocal reads committed records of a partition that this broker leads, for a coordinator
// that loads its state: whole batches from an offset up to the high watermark. next is where to
// go on and end the high watermark: the load is complete when next reaches it.
func (m *Manager) ReadLocal(tp cluster.TopicPartition, from cluster.Offset, maxBytes int) (records []byte, next, end cluster.Offset, err error) {
	return nil, 0, 0, nil
}

// LeaderOf says who leads a partition: what the last LeaderAndIsr said if it is hosted here,
// else what the metadata cache says.
func (m *Manager) LeaderOf(tp cluster.TopicPartition) LeaderHint { return LeaderHint{} }

// Hosted reports whether this broker has a replica of the partition.
func (m *Manager) Hosted(tp cluster.TopicPartition) bool { return false }

// Describe returns a snapshot of one hosted partition; DescribeAll of all, in order.
func (m *Manager) Describe(tp cluster.TopicPartition) (PartitionDescription, bool) {
	return PartitionDescription{}, false
}

// DescribeAll returns a snapshot of every hosted partition, by topic and number.
func (m *Manager) DescribeAll() []PartitionDescription { return nil }

// OnRoleChange registers the coordinator of an internal topic. Register before the first
// LeaderAndISR.
func (m *Manager) OnRoleChange(topic string, change RoleChange) {}

// UpdateTopicConfig gives the logs of a topic another configuration (/config/changes).
func (m *Manager) UpdateTopicConfig(topic string) {}

// SuspendLeadership takes away this broker's right to act as a leader: its session is known
// to be gone. Waiting appends leave with NOT_LEADER_OR_FOLLOWER.
func (m *Manager) SuspendLeadership(reason string) {}

// ResumeLeadership gives it back for all partitions: the very session under which they were
// led is confirmed. After a new registration do not call it: LeaderAndIsr with the new broker
// epoch confirms each partition.
func (m *Manager) ResumeLeadership() {}

// Close stops fetching and acknowledging, answers what waits, and waits for the goroutines.
// The logs stay open; high watermarks are handed to them.
func (m *Manager) Close() {}
