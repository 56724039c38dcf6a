package controller

import (
	"errors"
	"log/slog"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/registry"
)

// isrRequest is one partition of an AlterPartition, whatever its version.
type isrRequest struct {
	p        *partition // nil: unknown
	topic    int        // place in the response
	answer   int
	number   int32
	next     cluster.PartitionState
	expected cluster.PartitionEpoch
	epochs   []cluster.BrokerEpoch // of next.ISR; nil where the version has none
}

// onAlterPartition changes ISRs as their leaders ask (controller.md 14). The leader epoch
// stays, and only UpdateMetadata tells the others.
func (c *Core) onAlterPartition(request *kmsg.AlterPartitionRequest) {
	response := request.ResponseKind().(*kmsg.AlterPartitionResponse)
	sender := c.brokers[cluster.BrokerID(request.BrokerID)]
	if sender == nil || int64(sender.Epoch) != request.BrokerEpoch {
		response.ErrorCode = kerr.StaleBrokerEpoch.Code
		c.reply(response)
		return
	}
	asked := c.parseAlterPartition(request, response)
	var ops []registry.Op
	var writing []*isrRequest
	for _, r := range asked {
		err := c.checkISR(r, request.Version)
		switch {
		case errors.Is(err, errUnchanged):
			answerState(response, r)
		case err != nil:
			response.Topics[r.topic].Partitions[r.answer].ErrorCode = codeOf(err)
		default:
			writing = append(writing, r)
			ops = append(ops, registry.Op{
				Kind: registry.OpSet, Path: registry.StatePath(r.p.tp),
				Data: registry.EncodePartitionState(&r.next), Version: int32(r.p.state.PartitionEpoch),
			})
		}
	}
	c.execute(ops, func(results []registry.OpResult) {
		var stale []*partition
		for i, r := range writing {
			if results[i].Err != nil {
				response.Topics[r.topic].Partitions[r.answer].ErrorCode = kerr.InvalidUpdateVersion.Code
				stale = append(stale, r.p)
				continue
			}
			r.p.state = r.next
			r.p.state.PartitionEpoch = cluster.PartitionEpoch(results[i].Version)
			answerState(response, r)
			c.log(slog.LevelDebug, "isr changed", "topic", r.p.tp.Topic, "partition", r.p.tp.Partition,
				"isr", r.p.state.ISR, "partitionEpoch", r.p.state.PartitionEpoch)
		}
		for _, r := range asked {
			if r.p != nil {
				c.tellEveryone(r.p)
			}
		}
		c.reply(response)
		// What conflicted is read again, so that the leader's next try can succeed: it may
		// have been our own earlier write whose reply was lost.
		c.reread(stale, nil, func([]*partition) {
			c.completeReassignments(requestedPartitions(asked), nothing)
		})
	})
}

func requestedPartitions(asked []*isrRequest) []*partition {
	var out []*partition
	for _, r := range asked {
		if r.p != nil && r.p.assignment.Reassigning() {
			out = append(out, r.p)
		}
	}
	return out
}

func (c *Core) parseAlterPartition(request *kmsg.AlterPartitionRequest, response *kmsg.AlterPartitionResponse) []*isrRequest {
	var out []*isrRequest
	asOf := c.newestRegistration()
	for i, asked := range request.Topics {
		t := c.topics[asked.Topic]
		answered := kmsg.AlterPartitionResponseTopic{Topic: asked.Topic, TopidID: asked.TopicID}
		if request.Version > 1 {
			t = c.byTopicID[asked.TopicID]
		}
		for _, part := range asked.Partitions {
			answer := kmsg.NewAlterPartitionResponseTopicPartition()
			answer.Partition = part.Partition
			if t == nil && request.Version > 1 {
				answer.ErrorCode = kerr.UnknownTopicID.Code
				answered.Partitions = append(answered.Partitions, answer)
				continue
			}
			r := &isrRequest{topic: i, answer: len(answered.Partitions), number: part.Partition, expected: cluster.PartitionEpoch(part.PartitionEpoch)}
			if t != nil {
				r.p = t.partition(part.Partition)
			}
			r.next = cluster.PartitionState{
				Leader: cluster.BrokerID(request.BrokerID), LeaderEpoch: cluster.LeaderEpoch(part.LeaderEpoch),
				Recovery: cluster.LeaderRecoveryState(part.LeaderRecoveryState), ControllerEpoch: c.epoch, AsOf: asOf,
			}
			for _, id := range part.NewISR {
				r.next.ISR = append(r.next.ISR, cluster.BrokerID(id))
			}
			for _, member := range part.NewEpochISR {
				r.next.ISR = append(r.next.ISR, cluster.BrokerID(member.BrokerID))
				r.epochs = append(r.epochs, cluster.BrokerEpoch(member.BrokerEpoch))
			}
			answered.Partitions = append(answered.Partitions, answer)
			out = append(out, r)
		}
		response.Topics = append(response.Topics, answered)
	}
	return out
}

// errUnchanged: what is asked for is what there is; an idempotent retry.
var errUnchanged = errors.New("the state is as requested")

// checkISR refuses in the order in which Kafka does. The last check is ours: a member is
// refused whose epoch is neither unknown nor the registered one, so that a replica that has
// restarted since the leader saw its fetch cannot be counted as in sync.
func (c *Core) checkISR(r *isrRequest, version int16) error {
	if r.p == nil || !r.p.known || r.p.topic.deletion != nil {
		return kerr.UnknownTopicOrPartition
	}
	cached := &r.p.state
	switch {
	case r.expected > cached.PartitionEpoch || r.next.LeaderEpoch > cached.LeaderEpoch:
		return kerr.NotController // we may be the stale one
	case r.next.LeaderEpoch < cached.LeaderEpoch:
		return kerr.FencedLeaderEpoch
	case r.next.Leader == cached.Leader && slices.Equal(r.next.ISR, cached.ISR) && r.next.Recovery == cached.Recovery:
		return errUnchanged
	case r.expected < cached.PartitionEpoch:
		return kerr.InvalidUpdateVersion
	case r.next.Recovery == cluster.Recovering && len(r.next.ISR) > 1:
		return kerr.InvalidRequest
	case r.next.Recovery == cluster.Recovering && cached.Recovery == cluster.Recovered:
		return kerr.InvalidRequest
	case len(r.next.ISR) == 0:
		return kerr.InvalidRequest
	}
	for i, id := range r.next.ISR {
		stale := r.epochs != nil && r.epochs[i] != cluster.UnknownBrokerEpoch && c.registered(id) && r.epochs[i] != c.brokers[id].Epoch
		if stale || !c.live(id) {
			if version < 2 {
				return kerr.OperationNotAttempted
			}
			return kerr.IneligibleReplica
		}
	}
	if cached.ControllerEpoch > c.epoch {
		return kerr.NotController
	}
	return nil
}

func answerState(response *kmsg.AlterPartitionResponse, r *isrRequest) {
	answer := &response.Topics[r.topic].Partitions[r.answer]
	state := &r.p.state
	answer.LeaderID, answer.LeaderEpoch = int32(state.Leader), int32(state.LeaderEpoch)
	answer.ISR = int32s(state.ISR)
	answer.LeaderRecoveryState = int8(state.Recovery)
	answer.PartitionEpoch = int32(state.PartitionEpoch)
}

// onAllocateProducerIDs takes the next block; the node is conditional on its own version.
func (c *Core) onAllocateProducerIDs(request *kmsg.AllocateProducerIDsRequest) {
	response := request.ResponseKind().(*kmsg.AllocateProducerIDsResponse)
	b := c.brokers[cluster.BrokerID(request.BrokerID)]
	switch {
	case b == nil:
		response.ErrorCode = kerr.BrokerIDNotRegistered.Code
	case int64(b.Epoch) != request.BrokerEpoch:
		response.ErrorCode = kerr.StaleBrokerEpoch.Code
	}
	if response.ErrorCode != 0 {
		c.reply(response)
		return
	}
	c.allocateBlock(b.ID, 0, func(start int64, err error) {
		if err != nil {
			c.log(slog.LevelError, "cannot allocate producer ids", "error", err)
			response.ErrorCode = codeOf(err)
		} else {
			response.ProducerIDStart, response.ProducerIDLen = start, registry.ProducerIDBlockSize
		}
		c.reply(response)
	})
}

const allocationAttempts = 100

func (c *Core) allocateBlock(broker cluster.BrokerID, attempt int, done func(int64, error)) {
	if attempt == allocationAttempts {
		done(0, errors.New("too many conflicts on "+registry.PathProducerIDBlock))
		return
	}
	c.execute([]registry.Op{{Kind: registry.OpGet, Path: registry.PathProducerIDBlock}}, func(results []registry.OpResult) {
		if errors.Is(results[0].Err, registry.ErrNoNode) {
			c.forget([]registry.Op{{Kind: registry.OpCreate, Path: registry.PathProducerIDBlock}}, func() { c.allocateBlock(broker, attempt+1, done) })
			return
		}
		start, err := registry.NextProducerID(results[0].Data)
		if err != nil {
			done(0, err)
			return
		}
		write := registry.Op{Kind: registry.OpSet, Path: registry.PathProducerIDBlock, Data: registry.EncodeProducerIDBlock(broker, start), Version: results[0].Version}
		c.execute([]registry.Op{write}, func(results []registry.OpResult) {
			if results[0].Err != nil { // somebody else took it, or our own reply was lost: a block wasted, never given twice
				c.allocateBlock(broker, attempt+1, done)
				return
			}
			done(start, nil)
		})
	})
}
