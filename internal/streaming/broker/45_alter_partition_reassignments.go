package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/wire"
)

// AlterPartitionReassignments (key 45), version 0, served by the active controller
// (KIP-455): starts, replaces or, with a null list, cancels reassignments. The answer comes
// when they have been started.

func (b *Broker) registerAlterPartitionReassignments() {
	b.server.Handle(45, 0, 0, b.handleAlterPartitionReassignments)
}

func (b *Broker) handleAlterPartitionReassignments(request *wire.Request) {
	body := request.Body.(*kmsg.AlterPartitionAssignmentsRequest)
	body.Topics = merged(body.Topics, func(topic *kmsg.AlterPartitionAssignmentsRequestTopic) (string, *[]kmsg.AlterPartitionAssignmentsRequestTopicPartition) {
		return topic.Topic, &topic.Partitions
	}, func(partition *kmsg.AlterPartitionAssignmentsRequestTopicPartition) int32 { return partition.Partition })
	b.controller.AlterPartitionReassignments(body,
		func(response *kmsg.AlterPartitionAssignmentsResponse) {
			response.ErrorMessage = saidOfReassignments(response.ErrorCode, response.ErrorMessage)
			request.Reply(response)
		})
}
