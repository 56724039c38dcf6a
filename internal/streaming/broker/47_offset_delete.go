package broker

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/group/classic"
	"understudy/internal/streaming/metadata"
	"understudy/internal/streaming/wire"
)

// OffsetDelete (key 47), version 0 (KIP-496).

func (b *Broker) registerOffsetDelete() { b.server.Handle(47, 0, 0, b.handleOffsetDelete) }

func (b *Broker) handleOffsetDelete(request *wire.Request) {
	body := request.Body.(*kmsg.OffsetDeleteRequest)
	response := respond[*kmsg.OffsetDeleteResponse](request)
	image := b.metadata.Image()
	var partitions []cluster.TopicPartition
	var codes []*int16 // of partitions, by index
	unknown := emptyAndUnknown(image, body)
	body.Topics = merged(body.Topics, func(topic *kmsg.OffsetDeleteRequestTopic) (string, *[]kmsg.OffsetDeleteRequestTopicPartition) {
		return topic.Topic, &topic.Partitions
	}, func(partition *kmsg.OffsetDeleteRequestTopicPartition) int32 { return partition.Partition })
	response.Topics = make([]kmsg.OffsetDeleteResponseTopic, len(body.Topics))
	for i := range body.Topics {
		answer := &response.Topics[i]
		answer.Topic = body.Topics[i].Topic
		answer.Partitions = make([]kmsg.OffsetDeleteResponseTopicPartition, len(body.Topics[i].Partitions))
		for j := range body.Topics[i].Partitions {
			tp := cluster.TopicPartition{Topic: answer.Topic, Partition: body.Topics[i].Partitions[j].Partition}
			answer.Partitions[j].Partition = tp.Partition
			if !known(image, tp) {
				answer.Partitions[j].ErrorCode = kerr.UnknownTopicOrPartition.Code
				continue
			}
			partitions, codes = append(partitions, tp), append(codes, &answer.Partitions[j].ErrorCode)
		}
	}
	for _, name := range unknown {
		if !slices.ContainsFunc(response.Topics, func(topic kmsg.OffsetDeleteResponseTopic) bool { return topic.Topic == name }) {
			response.Topics = append(response.Topics, kmsg.OffsetDeleteResponseTopic{Topic: name})
		}
	}
	if body.Group == "" {
		response.ErrorCode, response.Topics = kerr.InvalidGroupID.Code, nil
		request.Reply(response)
		return
	}
	b.groups.DeleteOffsets(body.Group, partitions, func(result classic.OffsetDeleteResult) {
		if response.ErrorCode = codeOf(result.Err); result.Err != nil {
			response.Topics = nil
		} else {
			for i, code := range codes {
				*code = codeOf(result.Errs[i])
			}
		}
		request.Reply(response)
	})
}

// emptyAndUnknown are the topics without partitions that nobody knows: Apache's broker repeats
// them, and leaves out those that it knows.
func emptyAndUnknown(image *metadata.Image, body *kmsg.OffsetDeleteRequest) []string {
	var out []string
	for i := range body.Topics {
		if topic := &body.Topics[i]; len(topic.Partitions) == 0 && image.Topic(topic.Topic) == nil {
			out = append(out, topic.Topic)
		}
	}
	return out
}
