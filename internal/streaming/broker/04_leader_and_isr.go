package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/wire"
)

// LeaderAndIsr (key 4), versions 0 to 7: the controller gives this broker's replicas their
// roles. v1 IsNew; v2 broker epoch; v5 topic ids; v6 leader recovery state (KIP-704); v7
// KRaft flag.

func (b *Broker) registerLeaderAndISR() { b.server.Handle(4, 0, 7, b.handleLeaderAndISR) }

func (b *Broker) handleLeaderAndISR(request *wire.Request) {
	body := request.Body.(*kmsg.LeaderAndISRRequest)
	if b.tooLate(request, body.BrokerEpoch, body.ControllerEpoch) {
		return
	}
	response := b.replicas.LeaderAndISR(body)
	if response.ErrorCode != 0 {
		refuseRoles(body, response)
	} else {
		// Before the answer: who hears of it must not be told the old leader here.
		b.metadata.OverlayLeaderAndISR(body)
	}
	request.Reply(response)
}

// refuseRoles repeats the error for each partition, as Apache's broker does
// (LeaderAndIsrRequest.getErrorResponse).
func refuseRoles(body *kmsg.LeaderAndISRRequest, response *kmsg.LeaderAndISRResponse) {
	refused := func(topic string, number int32) kmsg.LeaderAndISRResponseTopicPartition {
		answer := kmsg.NewLeaderAndISRResponseTopicPartition()
		answer.Topic, answer.Partition, answer.ErrorCode = topic, number, response.ErrorCode
		return answer
	}
	for i := range body.PartitionStates {
		response.Partitions = append(response.Partitions, refused(body.PartitionStates[i].Topic, body.PartitionStates[i].Partition))
	}
	for i := range body.TopicStates {
		topic := &body.TopicStates[i]
		answer := kmsg.NewLeaderAndISRResponseTopic()
		answer.TopicID = topic.TopicID
		for j := range topic.PartitionStates {
			if body.Version < 5 {
				response.Partitions = append(response.Partitions, refused(topic.Topic, topic.PartitionStates[j].Partition))
				continue
			}
			answer.Partitions = append(answer.Partitions, refused("", topic.PartitionStates[j].Partition))
		}
		response.Topics = append(response.Topics, answer)
	}
}
