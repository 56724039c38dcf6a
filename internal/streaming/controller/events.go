package controller

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
)

// The events as another shell than this package's (the simulator's) hands them to a Core.
// Translate makes those that stem from watches.

// Elected is the first event of a Core.
func Elected() Event { return elected{} }

// RebalanceTicked asks for leadership to go back to preferred replicas.
func RebalanceTicked() Event { return rebalanceTicked{} }

// InquiryTicked is what Effects.WakeAfter asks for.
func InquiryTicked() Event { return inquiryTicked{} }

// BrokerRefused is the evidence of refused connections, BrokerAnswered takes it back.
func BrokerRefused(id cluster.BrokerID, epoch cluster.BrokerEpoch) Event {
	return brokerRefused{id, epoch}
}

// BrokerAnswered: see BrokerRefused.
func BrokerAnswered(id cluster.BrokerID, epoch cluster.BrokerEpoch) Event {
	return brokerAnswered{id, epoch}
}

// Answered carries a broker's response to a request of the core; nil if the core does not
// want to know.
func Answered(id cluster.BrokerID, epoch cluster.BrokerEpoch, request kmsg.Request, response kmsg.Response) Event {
	switch response := response.(type) {
	case *kmsg.LeaderAndISRResponse:
		return leaderAndISRAnswered{id, epoch, response}
	case *kmsg.ListOffsetsResponse:
		if asksEpochBegins(request.(*kmsg.ListOffsetsRequest)) {
			return epochBeginsAnswered{id, epoch, response}
		}
		return logEndsAnswered{id, epoch, response}
	case *kmsg.StopReplicaResponse:
		return stopReplicaAnswered{id, epoch, request.(*kmsg.StopReplicaRequest), response}
	}
	return nil
}

// Requested is a request to the controller; the Step's effects, or those that follow, have
// its reply. nil for a request that is not the controller's to answer.
func Requested(request kmsg.Request) Event {
	switch request := request.(type) {
	case *kmsg.AlterPartitionRequest:
		return alterPartition{request}
	case *kmsg.ControlledShutdownRequest:
		return controlledShutdown{request}
	case *kmsg.AllocateProducerIDsRequest:
		return allocateProducerIDs{request}
	case *kmsg.ElectLeadersRequest:
		return electLeaders{request}
	case *kmsg.AlterPartitionAssignmentsRequest:
		return alterReassignments{request}
	case *kmsg.ListPartitionReassignmentsRequest:
		return listReassignments{request}
	}
	return nil
}

// NotController is the answer to a request by a broker that is not, or no longer, the
// controller.
func NotController(request kmsg.Request) kmsg.Response { return notControllerFor(request) }
