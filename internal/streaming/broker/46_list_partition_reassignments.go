package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/wire"
)

// ListPartitionReassignments (key 46), version 0, served by the active controller.

func (b *Broker) registerListPartitionReassignments() {
	b.server.Handle(46, 0, 0, b.handleListPartitionReassignments)
}

func (b *Broker) handleListPartitionReassignments(request *wire.Request) {
	b.controller.ListPartitionReassignments(request.Body.(*kmsg.ListPartitionReassignmentsRequest),
		func(response *kmsg.ListPartitionReassignmentsResponse) {
			if response.ErrorCode == 0 && response.ErrorMessage == nil {
				response.ErrorMessage = kmsg.StringPtr("") // ApiError.NONE says so much
			}
			request.Reply(response)
		})
}
