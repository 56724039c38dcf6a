package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/group"
	"understudy/internal/streaming/wire"
)

// FindCoordinator (key 10), versions 0 to 6. v1 the kind of coordinator and a message; v4
// several keys (KIP-699); v5 as v4; v6 share groups, which ZooKeeper mode does not have.
//
// The offsets topic is created when it is first asked for; who asks waits a moment for its
// leaders, and then gets COORDINATOR_NOT_AVAILABLE and asks again.
//
// There are no transactions yet, and a client that wants them must fail for good and say
// why, which is the message's part. Java, franz-go and kafka-python (version 4 on) fail with
// UNSUPPORTED_VERSION and show the message; librdkafka (version 2) would ask again for ever
// upon any error but one about authorization, with which it shows the message too.

func (b *Broker) registerFindCoordinator() { b.server.Handle(10, 0, 6, b.handleFindCoordinator) }

const (
	groupCoordinator       = 0
	transactionCoordinator = 1
	shareCoordinator       = 2 // nobody has one in ZooKeeper mode
)

// noTransactions is what a client that wants transactions is told.
const noTransactions = "transactions are not supported by understudy yet: use an idempotent producer without transactional.id"

func (b *Broker) handleFindCoordinator(request *wire.Request) {
	body := request.Body.(*kmsg.FindCoordinatorRequest)
	if body.CoordinatorType == groupCoordinator && b.metadata.Image().Topic(group.Topic) == nil {
		b.created.create([]string{group.Topic}, func(errs map[string]error) {
			if err := errs[group.Topic]; err != nil && b.offsetsTopicComplaint.allow() {
				b.logger.Warn("cannot create the offsets topic", "topic", group.Topic, "error", err)
			}
			b.replyFindCoordinator(request, body)
		})
		return
	}
	b.replyFindCoordinator(request, body)
}

func (b *Broker) replyFindCoordinator(request *wire.Request, body *kmsg.FindCoordinatorRequest) {
	response := respond[*kmsg.FindCoordinatorResponse](request)
	if request.Version >= 4 {
		for _, key := range body.CoordinatorKeys {
			response.Coordinators = append(response.Coordinators, b.findCoordinator(request, body.CoordinatorType, key))
		}
		request.Reply(response)
		return
	}
	found := b.findCoordinator(request, body.CoordinatorType, body.CoordinatorKey)
	response.ErrorCode, response.ErrorMessage = found.ErrorCode, found.ErrorMessage
	if found.ErrorCode == 0 {
		response.ErrorMessage = kmsg.StringPtr("NONE")
	}
	response.NodeID, response.Host, response.Port = found.NodeID, found.Host, found.Port
	request.Reply(response)
}

func (b *Broker) findCoordinator(request *wire.Request, kind int8, key string) kmsg.FindCoordinatorResponseCoordinator {
	switch {
	case kind == groupCoordinator:
		tp := cluster.TopicPartition{Topic: group.Topic, Partition: b.groups.PartitionOf(key)}
		partition, found := b.metadata.Image().Partition(tp)
		if !found {
			return coordinatorError(key, kerr.CoordinatorNotAvailable, "")
		}
		return b.coordinatorAt(request, key, partition.Leader)
	case kind == transactionCoordinator && key != "" && request.Version < 4:
		return coordinatorError(key, kerr.TransactionalIDAuthorizationFailed, noTransactions)
	case kind == transactionCoordinator && key != "":
		return coordinatorError(key, kerr.UnsupportedVersion, noTransactions)
	case kind == shareCoordinator && request.Version >= 6:
		answer := coordinatorError(key, kerr.CoordinatorNotAvailable, "")
		answer.ErrorMessage = kmsg.StringPtr("")
		return answer
	default:
		return coordinatorError(key, kerr.InvalidRequest, "")
	}
}

// coordinatorAt names a broker, if it is alive and has the listener that was asked on.
func (b *Broker) coordinatorAt(request *wire.Request, key string, id cluster.BrokerID) kmsg.FindCoordinatorResponseCoordinator {
	endpoint, found := b.metadata.Image().Endpoint(id, request.Listener)
	if !found {
		return coordinatorError(key, kerr.CoordinatorNotAvailable, "")
	}
	answer := kmsg.NewFindCoordinatorResponseCoordinator()
	answer.Key, answer.NodeID, answer.Host, answer.Port = key, int32(id), endpoint.Host, endpoint.Port
	answer.ErrorMessage = kmsg.StringPtr("")
	return answer
}

func coordinatorError(key string, code *kerr.Error, message string) kmsg.FindCoordinatorResponseCoordinator {
	answer := kmsg.NewFindCoordinatorResponseCoordinator()
	answer.Key, answer.NodeID, answer.Port, answer.ErrorCode = key, -1, -1, code.Code
	if message == "" {
		message = code.Description
	}
	answer.ErrorMessage = &message
	return answer
}
