package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/controller"
	"understudy/internal/streaming/metadata"
	"understudy/internal/streaming/wire"
)

// DescribeProducers (key 61), version 0 (KIP-664): the producers that a partition's log
// remembers, from whoever hosts a replica.

func (b *Broker) registerDescribeProducers() { b.server.Handle(61, 0, 0, b.handleDescribeProducers) }

func (b *Broker) handleDescribeProducers(request *wire.Request) {
	body := request.Body.(*kmsg.DescribeProducersRequest)
	response := respond[*kmsg.DescribeProducersResponse](request)
	image := b.metadata.Image()
	for i := range body.Topics {
		topic := kmsg.NewDescribeProducersResponseTopic()
		topic.Topic = body.Topics[i].Topic
		for _, number := range body.Topics[i].Partitions {
			topic.Partitions = append(topic.Partitions, b.describeProducers(image, cluster.TopicPartition{Topic: topic.Topic, Partition: number}))
		}
		response.Topics = append(response.Topics, topic)
	}
	request.Reply(response)
}

func (b *Broker) describeProducers(image *metadata.Image, tp cluster.TopicPartition) kmsg.DescribeProducersResponseTopicPartition {
	answer := kmsg.NewDescribeProducersResponseTopicPartition()
	answer.Partition = tp.Partition
	var refused error
	log := b.logs.Get(tp)
	switch invalid := controller.ValidateTopicName(tp.Topic); {
	case invalid != nil:
		refused, answer.ErrorMessage = kerr.InvalidTopicException, messageOf(invalid)
	case !known(image, tp):
		refused = kerr.UnknownTopicOrPartition
		if image.Topic(tp.Topic) == nil {
			answer.ErrorMessage = &kerr.UnknownTopicOrPartition.Description
		}
	case log == nil || !b.replicas.Hosted(tp):
		refused = kerr.NotLeaderForPartition
	}
	if refused != nil {
		answer.ErrorCode = b.code(refused)
		return answer
	}
	for _, state := range log.Producers() {
		producer := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
		producer.ProducerID, producer.ProducerEpoch, producer.LastSequence = state.ProducerID, int32(state.Epoch), state.LastSequence
		producer.LastTimestamp, producer.CoordinatorEpoch = state.LastTimestampMs, state.CoordinatorEpoch
		producer.CurrentTxnStartOffset = int64(state.TxnFirstOffset)
		answer.ActiveProducers = append(answer.ActiveProducers, producer)
	}
	return answer
}
