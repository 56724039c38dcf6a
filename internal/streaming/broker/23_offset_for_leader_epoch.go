package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/replication"
	"understudy/internal/streaming/wire"
)

// OffsetForLeaderEpoch (key 23), versions 0 to 4: where a leader epoch ends in the leader's
// log, for consumers (KIP-320) and for followers that do not truncate on fetch. v1 the epoch
// in the answer; v2 current leader epoch; v3 replica id.

func (b *Broker) registerOffsetForLeaderEpoch() {
	b.server.Handle(23, 0, 4, b.handleOffsetForLeaderEpoch)
}

func (b *Broker) handleOffsetForLeaderEpoch(request *wire.Request) {
	body := request.Body.(*kmsg.OffsetForLeaderEpochRequest)
	var parts []replication.EndOffsetPart
	for i := range body.Topics {
		for _, partition := range body.Topics[i].Partitions {
			current := cluster.LeaderEpoch(partition.CurrentLeaderEpoch)
			if request.Version < 2 {
				current = cluster.NoLeaderEpoch
			}
			parts = append(parts, replication.EndOffsetPart{
				TP:                 cluster.TopicPartition{Topic: body.Topics[i].Topic, Partition: partition.Partition},
				CurrentLeaderEpoch: current,
				LeaderEpoch:        cluster.LeaderEpoch(partition.LeaderEpoch),
			})
		}
	}
	results := b.replicas.EndOffsetForLeaderEpoch(parts)

	response := respond[*kmsg.OffsetForLeaderEpochResponse](request)
	for i := range body.Topics {
		topic := kmsg.NewOffsetForLeaderEpochResponseTopic()
		topic.Topic = body.Topics[i].Topic
		for range body.Topics[i].Partitions {
			part, result := parts[0], results[0]
			parts, results = parts[1:], results[1:]
			answer := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			answer.Partition = part.TP.Partition
			answer.ErrorCode = b.code(result.Err)
			answer.LeaderEpoch, answer.EndOffset = -1, -1
			if result.Err == nil {
				answer.LeaderEpoch, answer.EndOffset = int32(result.Epoch), int64(result.EndOffset)
			}
			topic.Partitions = append(topic.Partitions, answer)
		}
		response.Topics = append(response.Topics, topic)
	}
	request.Reply(response)
}
