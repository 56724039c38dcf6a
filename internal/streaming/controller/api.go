package controller

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/coordination/zkclient"
	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/registry"
)

// Settings are the controller's tunables, from the broker's configuration.
type Settings struct {
	AutoLeaderRebalance     bool          // auto.leader.rebalance.enable
	LeaderImbalancePercent  int           // leader.imbalance.per.broker.percentage
	LeaderImbalanceInterval time.Duration // leader.imbalance.check.interval.seconds
	UncleanLeaderElection   bool          // unclean.leader.election.enable, the broker's default
	DeleteTopics            bool          // delete.topic.enable
	// UncleanStopPatience is how long a partition whose in-sync replicas have all stopped
	// uncleanly waits for those of them that are not back; 0: 10 s. See uncleanstop.go.
	UncleanStopPatience time.Duration
	SocketTimeout       time.Duration // controller.socket.timeout.ms: one dial
	RequestTimeout      time.Duration // request.timeout.ms: one request to a broker
}

// Config of a Controller.
type Config struct {
	Self     cluster.BrokerID
	Registry *registry.Registry
	// Register enters the broker under /brokers/ids again after a new session, before the
	// controller takes part in an election. It is called on the controller's goroutine.
	Register func(ctx context.Context) error
	// Listener is the name of the listener through which brokers are told
	// (control.plane.listener.name or the inter-broker listener).
	Listener string
	// Dial opens connections to brokers; nil: TCP.
	Dial     func(ctx context.Context, network, address string) (net.Conn, error)
	Settings Settings
	Logger   *slog.Logger
	// OnChange, if given, is told when this broker becomes or ceases to be the controller.
	OnChange func(active bool, epoch cluster.ControllerEpoch)
}

// SessionChange is what happened to the broker's ZooKeeper session.
type SessionChange int

const (
	// SessionExpired: the session is gone, and /controller with it.
	SessionExpired SessionChange = iota + 1
	// SessionRenewed: the registry has been attached to a new client.
	SessionRenewed
)

// New makes a controller that takes part in no election before Start.
func New(config Config) *Controller { return newController(config) }

// Start begins to take part in elections. The broker must be registered already.
func (c *Controller) Start() { c.start() }

// Stop resigns, and returns when all goroutines have ended or ctx has. It does not delete
// /controller: that goes with the session, which the broker closes last.
func (c *Controller) Stop(ctx context.Context) error { return c.stop(ctx) }

// Active reports whether this broker is the controller.
func (c *Controller) Active() bool { return c.active.Load() }

// Epoch is the epoch of this broker's last election, 0 if there was none.
func (c *Controller) Epoch() cluster.ControllerEpoch { return cluster.ControllerEpoch(c.epoch.Load()) }

// OnZkEvent takes a watch event of the broker's client. It does not block.
func (c *Controller) OnZkEvent(event zkclient.Event) { c.onZkEvent(event) }

// OnSession takes a change of the broker's session. It does not block.
func (c *Controller) OnSession(change SessionChange) { c.onSession(change) }

// AlterPartition, ControlledShutdown, AllocateProducerIDs and ElectLeaders process a request
// as the active controller; done is called exactly once, from any goroutine, also when the
// controller resigns or stops meanwhile (NOT_CONTROLLER).

// AlterPartition changes ISRs on behalf of partition leaders.
func (c *Controller) AlterPartition(req *kmsg.AlterPartitionRequest, done func(*kmsg.AlterPartitionResponse)) {
	c.submit(alterPartition{req}, func(r kmsg.Response) { done(r.(*kmsg.AlterPartitionResponse)) }, notControllerFor(req))
}

// ControlledShutdown moves leadership away from a broker that wants to stop.
func (c *Controller) ControlledShutdown(req *kmsg.ControlledShutdownRequest, done func(*kmsg.ControlledShutdownResponse)) {
	c.submit(controlledShutdown{req}, func(r kmsg.Response) { done(r.(*kmsg.ControlledShutdownResponse)) }, notControllerFor(req))
}

// AllocateProducerIDs hands out a block of producer ids.
func (c *Controller) AllocateProducerIDs(req *kmsg.AllocateProducerIDsRequest, done func(*kmsg.AllocateProducerIDsResponse)) {
	c.submit(allocateProducerIDs{req}, func(r kmsg.Response) { done(r.(*kmsg.AllocateProducerIDsResponse)) }, notControllerFor(req))
}

// ElectLeaders elects preferred leaders, or unclean ones for partitions without a leader.
func (c *Controller) ElectLeaders(req *kmsg.ElectLeadersRequest, done func(*kmsg.ElectLeadersResponse)) {
	c.submit(electLeaders{req}, func(r kmsg.Response) { done(r.(*kmsg.ElectLeadersResponse)) }, notControllerFor(req))
}

// AlterPartitionReassignments starts, replaces or cancels reassignments (KIP-455).
func (c *Controller) AlterPartitionReassignments(req *kmsg.AlterPartitionAssignmentsRequest, done func(*kmsg.AlterPartitionAssignmentsResponse)) {
	c.submit(alterReassignments{req}, func(r kmsg.Response) { done(r.(*kmsg.AlterPartitionAssignmentsResponse)) }, notControllerFor(req))
}

// ListPartitionReassignments tells which partitions are being reassigned.
func (c *Controller) ListPartitionReassignments(req *kmsg.ListPartitionReassignmentsRequest, done func(*kmsg.ListPartitionReassignmentsResponse)) {
	c.submit(listReassignments{req}, func(r kmsg.Response) { done(r.(*kmsg.ListPartitionReassignmentsResponse)) }, notControllerFor(req))
}
