package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/wire"
)

// OffsetFetch (key 9), versions 1 to 9. v0 (offsets in ZooKeeper) is not served. v2 a null
// list means all partitions, and an error of its own; v5 leader epoch; v7 require stable
// (KIP-447: without transactions every offset is); v8 several groups (KIP-709); v9 member id
// and epoch of the new protocol, which ZooKeeper mode ignores.

func (b *Broker) registerOffsetFetch() { b.server.Handle(9, 1, 9, b.handleOffsetFetch) }

func (b *Broker) handleOffsetFetch(request *wire.Request) {
	body := request.Body.(*kmsg.OffsetFetchRequest)
	response := respond[*kmsg.OffsetFetchResponse](request)
	if request.Version >= 8 {
		for i := range body.Groups {
			response.Groups = append(response.Groups, b.fetchGroupOffsets(&body.Groups[i]))
		}
		request.Reply(response)
		return
	}
	var partitions []cluster.TopicPartition
	for _, topic := range mergeNumbered(body.Topics, func(topic *kmsg.OffsetFetchRequestTopic) (string, *[]int32) { return topic.Topic, &topic.Partitions }) {
		for _, partition := range topic.Partitions {
			partitions = append(partitions, cluster.TopicPartition{Topic: topic.Topic, Partition: partition})
		}
	}
	offsets, err := b.groups.FetchOffsets(body.Group, partitions, request.Version >= 2 && body.Topics == nil)
	if err != nil {
		response.ErrorCode = err.Code // which says it all, but in version 1 it has no place
		if request.Version < 2 {
			response.Topics = failedOffsets(body.Topics, err.Code)
		}
		request.Reply(response)
		return
	}
	for i := range offsets {
		if last := len(response.Topics) - 1; last < 0 || response.Topics[last].Topic != offsets[i].TP.Topic {
			topic := kmsg.NewOffsetFetchResponseTopic()
			topic.Topic = offsets[i].TP.Topic
			response.Topics = append(response.Topics, topic)
		}
		topic := &response.Topics[len(response.Topics)-1]
		partition := kmsg.NewOffsetFetchResponseTopicPartition()
		partition.Partition, partition.Offset, partition.LeaderEpoch = offsets[i].TP.Partition, offsets[i].Offset, offsets[i].LeaderEpoch
		partition.Metadata = &offsets[i].Metadata
		topic.Partitions = append(topic.Partitions, partition)
	}
	request.Reply(response)
}

func (b *Broker) fetchGroupOffsets(asked *kmsg.OffsetFetchRequestGroup) kmsg.OffsetFetchResponseGroup {
	var partitions []cluster.TopicPartition
	for _, topic := range mergeNumbered(asked.Topics, func(topic *kmsg.OffsetFetchRequestGroupTopic) (string, *[]int32) {
		return topic.Topic, &topic.Partitions
	}) {
		for _, partition := range topic.Partitions {
			partitions = append(partitions, cluster.TopicPartition{Topic: topic.Topic, Partition: partition})
		}
	}
	answer := kmsg.NewOffsetFetchResponseGroup()
	answer.Group = asked.Group
	offsets, err := b.groups.FetchOffsets(asked.Group, partitions, asked.Topics == nil)
	if err != nil {
		answer.ErrorCode = err.Code
		return answer
	}
	for i := range offsets {
		if last := len(answer.Topics) - 1; last < 0 || answer.Topics[last].Topic != offsets[i].TP.Topic {
			topic := kmsg.NewOffsetFetchResponseGroupTopic()
			topic.Topic = offsets[i].TP.Topic
			answer.Topics = append(answer.Topics, topic)
		}
		topic := &answer.Topics[len(answer.Topics)-1]
		partition := kmsg.NewOffsetFetchResponseGroupTopicPartition()
		partition.Partition, partition.Offset, partition.LeaderEpoch = offsets[i].TP.Partition, offsets[i].Offset, offsets[i].LeaderEpoch
		partition.Metadata = &offsets[i].Metadata
		topic.Partitions = append(topic.Partitions, partition)
	}
	return answer
}

// failedOffsets names what was asked for, as often as it was, where there is an error instead.
func failedOffsets(topics []kmsg.OffsetFetchRequestTopic, code int16) []kmsg.OffsetFetchResponseTopic {
	out := make([]kmsg.OffsetFetchResponseTopic, len(topics))
	for i := range topics {
		out[i].Topic = topics[i].Topic
		for _, number := range topics[i].Partitions {
			partition := kmsg.NewOffsetFetchResponseTopicPartition()
			partition.Partition, partition.Offset, partition.LeaderEpoch, partition.ErrorCode = number, -1, -1, code
			partition.Metadata = kmsg.StringPtr("")
			out[i].Partitions = append(out[i].Partitions, partition)
		}
	}
	return out
}

// mergeNumbered is merged for requests whose partitions are bare numbers.
func mergeNumbered[T any](topics []T, parts func(*T) (string, *[]int32)) []T {
	return merged(topics, parts, func(number *int32) int32 { return *number })
}
