package broker

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/replication"
	"understudy/internal/streaming/wire"
)

// ListOffsets (key 2), versions 0 to 9: the first and last offset of a partition, or the
// first at or after a time. v0 answers a list, of which we give one entry at most; v2
// isolation level; v4 leader epochs; v5 OFFSET_NOT_AVAILABLE; v7 -3, the record with the
// largest timestamp; v8 -4, the first offset that is here and not in tiered storage; v9 -5,
// the last offset in tiered storage, of which we have none.

func (b *Broker) registerListOffsets() { b.server.Handle(2, 0, 9, b.handleListOffsets) }

const (
	latestTimestamp       = -1
	maxTimestamp          = -3
	earliestLocal         = -4
	latestTieredTimestamp = -5
)

// timestampVersions is the first version that knows a special timestamp.
var timestampVersions = map[int64]int16{latestTimestamp: 0, -2: 0, maxTimestamp: 7, cluster.EpochBeginTimestamp: 7, earliestLocal: 8, latestTieredTimestamp: 9}

func (b *Broker) handleListOffsets(request *wire.Request) {
	body := request.Body.(*kmsg.ListOffsetsRequest)
	refused := map[int]error{}
	var parts []replication.ListOffsetsPart
	times := map[cluster.TopicPartition]int{}
	for i := range body.Topics {
		for _, partition := range body.Topics[i].Partitions {
			times[cluster.TopicPartition{Topic: body.Topics[i].Topic, Partition: partition.Partition}]++
		}
	}
	for i := range body.Topics {
		for _, partition := range body.Topics[i].Partitions {
			part := replication.ListOffsetsPart{
				TP:                 cluster.TopicPartition{Topic: body.Topics[i].Topic, Partition: partition.Partition},
				CurrentLeaderEpoch: cluster.LeaderEpoch(partition.CurrentLeaderEpoch),
				Timestamp:          partition.Timestamp,
			}
			if request.Version < 4 {
				part.CurrentLeaderEpoch = cluster.NoLeaderEpoch
			}
			since, known := timestampVersions[partition.Timestamp]
			switch {
			case times[part.TP] > 1 && request.Version > 0:
				refused[len(parts)] = kerr.InvalidRequest
			case partition.Timestamp < 0 && (!known || request.Version < since):
				refused[len(parts)] = kerr.UnsupportedVersion
			}
			parts = append(parts, part)
		}
	}
	results := b.replicas.ListOffsets(cluster.BrokerID(body.ReplicaID), body.IsolationLevel, parts)

	response := respond[*kmsg.ListOffsetsResponse](request)
	at := 0
	for i := range body.Topics {
		topic := kmsg.NewListOffsetsResponseTopic()
		topic.Topic = body.Topics[i].Topic
		for _, asked := range body.Topics[i].Partitions {
			result := results[at]
			switch {
			case refused[at] != nil:
				result = replication.ListOffsetsResult{Err: refused[at]}
			case asked.Timestamp == latestTieredTimestamp && result.Err == nil:
				result.Offset, result.Timestamp, result.LeaderEpoch = cluster.NoOffset, -1, cluster.NoLeaderEpoch
			}
			at++
			topic.Partitions = append(topic.Partitions, b.listedOffset(request.Version, asked, result))
		}
		response.Topics = append(response.Topics, topic)
	}
	request.Reply(response)
}

func (b *Broker) listedOffset(version int16, asked kmsg.ListOffsetsRequestTopicPartition, result replication.ListOffsetsResult) kmsg.ListOffsetsResponseTopicPartition {
	answer := kmsg.NewListOffsetsResponseTopicPartition()
	answer.Partition = asked.Partition
	answer.Timestamp, answer.Offset, answer.LeaderEpoch = -1, -1, -1
	if result.Err != nil {
		if errors.Is(result.Err, kerr.OffsetNotAvailable) && version < 5 {
			result.Err = kerr.LeaderNotAvailable
		}
		answer.ErrorCode = b.code(result.Err)
		if result.Offset > 0 { // a replica whose log lacks records tells where it ends
			answer.Timestamp, answer.Offset, answer.LeaderEpoch = result.Timestamp, int64(result.Offset), int32(result.LeaderEpoch)
		}
		return answer
	}
	answer.Timestamp, answer.Offset, answer.LeaderEpoch = result.Timestamp, int64(result.Offset), int32(result.LeaderEpoch)
	if version == 0 && result.Offset >= 0 && asked.MaxNumOffsets > 0 {
		answer.OldStyleOffsets = []int64{int64(result.Offset)}
	}
	return answer
}
