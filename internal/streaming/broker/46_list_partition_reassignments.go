package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
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
			response.ErrorMessage = saidOfReassignments(response.ErrorCode, response.ErrorMessage)
			request.Reply(response)
		})
}

// saidOfReassignments is the message of the whole answer: ApiError.NONE has one, too.
func saidOfReassignments(code int16, message *string) *string {
	switch {
	case message != nil:
		return message
	case code == 0:
		return kmsg.StringPtr("")
	case code == kerr.NotController.Code:
		return messageOf(errNotController)
	}
	return nil
}
