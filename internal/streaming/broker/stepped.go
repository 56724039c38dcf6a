package broker

import (
	"errors"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/config"
	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/group"
	"understudy/internal/streaming/metadata"
	"understudy/internal/streaming/replication"
	"understudy/internal/streaming/wire"
)

// SteppedConfig is what a stepped broker is made of.
type SteppedConfig struct {
	ID          cluster.BrokerID
	Epoch       func() cluster.BrokerEpoch // of the present registration
	Metadata    *metadata.Cache
	Replication replication.Config // Self, Epoch and Metadata are filled in
	Stepping    replication.Stepping
	Groups      group.Config // Log and Partitions are filled in
	UUID        func() [16]byte
	// OffsetsPartitions is how many partitions the offsets topic is created with.
	OffsetsPartitions int32
	FetchMaxBytes     int32
	FetchSessions     int
	Logger            *slog.Logger
}

// Stepped is what a broker does upon requests, without sockets, session, controller and
// goroutines: the simulator (sim/) carries the requests and drives Replicas and Groups. Those
// handlers that need the controller or the ensemble are not to be called.
type Stepped struct {
	Replicas *replication.Stepped
	Groups   *group.Stepped
	broker   *Broker
}

// NewStepped returns a broker that only moves when it is told to.
func NewStepped(cfg SteppedConfig) *Stepped {
	b := New(Config{Broker: &config.Broker{
		ID: cfg.ID, OffsetsTopicPartitions: cfg.OffsetsPartitions, FetchMaxBytes: cfg.FetchMaxBytes, MaxFetchSessions: cfg.FetchSessions,
	}, Logger: cfg.Logger})
	b.metadata = cfg.Metadata
	b.now = cfg.Stepping.Clock
	cfg.Replication.Self, cfg.Replication.Epoch, cfg.Replication.Metadata = cfg.ID, cfg.Epoch, cfg.Metadata
	b.logs = cfg.Replication.Logs
	s := &Stepped{broker: b, Replicas: replication.NewStepped(cfg.Replication, cfg.Stepping)}
	b.replicas = s.Replicas.Manager
	b.fetches = newFetchSessions(cfg.FetchSessions)
	b.created = newAutoCreator(b)
	b.created.never = true
	cfg.Groups.Log, cfg.Groups.Partitions = groupLog{b.replicas}, b.offsetsPartitions
	s.Groups = group.NewStepped(cfg.Groups, group.Stepping{Clock: cfg.Stepping.Clock, UUID: cfg.UUID})
	b.groups = s.Groups.Coordinator
	b.replicas.OnRoleChange(group.Topic, b.groups.OnRoleChange)
	b.server = wire.NewServer(wire.ServerOptions{Logger: b.logger})
	b.registerHandlers()
	return s
}

// errConnectionClosed: the handler closed the connection instead of answering.
var errConnectionClosed = errors.New("the broker closed the connection")

// Serve carries a request to its handler and the answer to done, which is called once. Later
// connections have higher numbers. hangUp says that the connection is gone.
func (s *Stepped) Serve(request kmsg.Request, clientID string, connection uint64, done func(kmsg.Response, error)) (hangUp func()) {
	hangUp, err := s.broker.server.Carry(request, clientID, s.listener(), connection, func(outcome wire.Outcome) {
		if outcome.Closed {
			done(nil, errConnectionClosed)
			return
		}
		done(outcome.Response, nil)
	})
	if err != nil {
		done(nil, err)
		return func() {}
	}
	return hangUp
}

// listener is the one that all connections of a stepped broker come in on.
func (s *Stepped) listener() string { return "PLAINTEXT" }
