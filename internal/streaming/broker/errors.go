package broker

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/replication"
	"understudy/internal/streaming/wire"
)

// code turns an error into the protocol's code: the one place of this half where that is
// done. An error that maps to nothing becomes UNKNOWN_SERVER_ERROR and is logged.
func (b *Broker) code(err error) int16 {
	if err == nil {
		return 0
	}
	var protocol *kerr.Error
	switch {
	case errors.As(err, &protocol):
		return protocol.Code
	case errors.Is(err, context.DeadlineExceeded):
		return kerr.RequestTimedOut.Code
	}
	b.logger.Error("unexpected error while answering a request", "error", err)
	return kerr.UnknownServerError.Code
}

// hinted reports whether an error is one with which a client is told the leader (KIP-951).
func hinted(err error, also *kerr.Error) bool {
	return errors.Is(err, kerr.NotLeaderForPartition) || also != nil && errors.Is(err, also)
}

// leaderEndpoints collects the addresses of leaders that clients are told of in errors.
type leaderEndpoints struct {
	b        *Broker
	listener string
	brokers  []leaderEndpoint
}

type leaderEndpoint struct {
	id   cluster.BrokerID
	host string
	port int32
	rack string
}

// add notes a leader's address, once, if it is alive and has the listener.
func (l *leaderEndpoints) add(hint replication.LeaderHint) {
	for i := range l.brokers {
		if l.brokers[i].id == hint.Leader {
			return
		}
	}
	broker, found := l.b.metadata.Image().Broker(hint.Leader)
	if !found {
		return
	}
	if endpoint, found := broker.Endpoint(l.listener); found {
		l.brokers = append(l.brokers, leaderEndpoint{id: hint.Leader, host: endpoint.Host, port: endpoint.Port, rack: broker.Rack})
	}
}

// rackOrNil is a rack as responses carry it.
func rackOrNil(rack string) *string {
	if rack == "" {
		return nil
	}
	return &rack
}

// respond starts a response of the type that belongs to a request.
func respond[T any](request *wire.Request) T { return request.Body.ResponseKind().(T) }
