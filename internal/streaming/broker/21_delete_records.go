package broker

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/replication"
	"understudy/internal/streaming/wire"
)

// DeleteRecords (key 21), versions 0 to 2: raises the log start offsets of partitions, and
// answers when all live replicas have followed. v2 is flexible.

func (b *Broker) registerDeleteRecords() { b.server.Handle(21, 0, 2, b.handleDeleteRecords) }

func (b *Broker) handleDeleteRecords(request *wire.Request) {
	body := request.Body.(*kmsg.DeleteRecordsRequest)
	topics := merged(body.Topics, func(topic *kmsg.DeleteRecordsRequestTopic) (string, *[]kmsg.DeleteRecordsRequestTopicPartition) {
		return topic.Topic, &topic.Partitions
	}, func(partition *kmsg.DeleteRecordsRequestTopicPartition) int32 { return partition.Partition })
	response := respond[*kmsg.DeleteRecordsResponse](request)
	response.Topics = make([]kmsg.DeleteRecordsResponseTopic, len(topics))
	var parts []replication.DeleteRecordsPart
	var answers []*kmsg.DeleteRecordsResponseTopicPartition // of parts, by index
	image := b.metadata.Image()
	for i := range topics {
		topic := &response.Topics[i]
		topic.Default()
		topic.Topic = topics[i].Topic
		topic.Partitions = make([]kmsg.DeleteRecordsResponseTopicPartition, len(topics[i].Partitions))
		for j := range topics[i].Partitions {
			asked, answer := &topics[i].Partitions[j], &topic.Partitions[j]
			answer.Default()
			answer.Partition, answer.LowWatermark = asked.Partition, int64(cluster.NoOffset)
			tp := cluster.TopicPartition{Topic: topic.Topic, Partition: asked.Partition}
			switch {
			case !known(image, tp):
				answer.ErrorCode = kerr.UnknownTopicOrPartition.Code
			case isInternalTopic(tp.Topic):
				answer.ErrorCode = kerr.InvalidTopicException.Code
			default:
				parts = append(parts, replication.DeleteRecordsPart{TP: tp, Before: cluster.Offset(asked.Offset)})
				answers = append(answers, answer)
			}
		}
	}
	timeout := time.Duration(max(body.TimeoutMillis, 0)) * time.Millisecond
	b.replicas.DeleteRecords(parts, timeout, func(results []replication.DeleteRecordsResult) {
		for i := range results {
			answers[i].ErrorCode, answers[i].LowWatermark = b.code(results[i].Err), int64(results[i].LowWatermark)
		}
		request.Reply(response)
	})
}
