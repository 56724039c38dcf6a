package broker

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/wire"
)

// InitProducerId (key 22), versions 0 to 5. v3 the producer's present id and epoch (of
// transactional producers, KIP-360); v4 PRODUCER_FENCED; v5 as v4. A producer without a
// transactional id gets a new id and epoch 0. There are no transactions yet: see
// FindCoordinator.

func (b *Broker) registerInitProducerID() { b.server.Handle(22, 0, 5, b.handleInitProducerID) }

// producerIDWait is how long a producer is kept waiting for the controller's next block.
// Kafka answers COORDINATOR_LOAD_IN_PROGRESS at once, and the client waits and asks again.
const producerIDWait = time.Second

func (b *Broker) handleInitProducerID(request *wire.Request) {
	body := request.Body.(*kmsg.InitProducerIDRequest)
	switch {
	case (body.ProducerID == -1) != (body.ProducerEpoch == -1) && request.Version >= 3:
		b.replyInitProducerID(request, -1, kerr.InvalidRequest)
		return
	case body.TransactionalID == nil:
	case *body.TransactionalID == "":
		b.replyInitProducerID(request, -1, kerr.InvalidRequest)
		return
	default:
		b.logger.Info("producer refused", "client", request.ClientID, "transactionalId", *body.TransactionalID, "reason", noTransactions)
		b.replyInitProducerID(request, -1, kerr.TransactionalIDAuthorizationFailed)
		return
	}
	if id, ok := b.producerIDs.TryNext(); ok {
		b.replyInitProducerID(request, id, nil)
		return
	}
	go func() { // bounded by what the connections may have in flight
		ctx, cancel := context.WithTimeout(context.Background(), producerIDWait)
		defer cancel()
		id, err := b.producerIDs.Next(ctx)
		b.replyInitProducerID(request, id, err)
	}()
}

func (b *Broker) replyInitProducerID(request *wire.Request, id int64, err error) {
	response := respond[*kmsg.InitProducerIDResponse](request)
	response.ProducerID, response.ProducerEpoch = id, 0
	if err != nil {
		response.ProducerID, response.ProducerEpoch, response.ErrorCode = -1, -1, b.code(err)
	}
	request.Reply(response)
}
