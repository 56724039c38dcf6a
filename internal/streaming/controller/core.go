package controller

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/registry"
)

// Event is something that happened; the core decides what follows from it.
type Event interface{ event() }

// The events.
type (
	// elected: this broker has won the election; the core is empty and reads everything.
	elected struct{}
	// The watches on the named paths have fired.
	brokersChanged  struct{}
	brokerModified  struct{ id cluster.BrokerID }
	topicsChanged   struct{}
	topicModified   struct{ topic string }
	deletionsAsked  struct{}
	logDirsFailed   struct{}
	isrsChanged     struct{} // written by leaders at protocols before 2.7
	reassignAsked   struct{}
	preferredAsked  struct{}
	uncleanEnabled  struct{ topic string } // "": the broker's default
	rebalanceTicked struct{}
	inquiryTicked   struct{} // Effects.WakeAfter is over
	// brokerRefused: the connection is gone and dialling was refused twice.
	brokerRefused struct {
		id    cluster.BrokerID
		epoch cluster.BrokerEpoch
	}
	// brokerAnswered: after brokerRefused the same incarnation has answered a request.
	brokerAnswered struct {
		id    cluster.BrokerID
		epoch cluster.BrokerEpoch
	}
	// leaderAndISRAnswered and stopReplicaAnswered carry what brokers said.
	leaderAndISRAnswered struct {
		id       cluster.BrokerID
		epoch    cluster.BrokerEpoch
		response *kmsg.LeaderAndISRResponse
	}
	stopReplicaAnswered struct {
		id       cluster.BrokerID
		epoch    cluster.BrokerEpoch
		request  *kmsg.StopReplicaRequest
		response *kmsg.StopReplicaResponse
	}
	logEndsAnswered struct {
		id       cluster.BrokerID
		epoch    cluster.BrokerEpoch
		response *kmsg.ListOffsetsResponse
	}
	epochBeginsAnswered struct {
		id       cluster.BrokerID
		epoch    cluster.BrokerEpoch
		response *kmsg.ListOffsetsResponse
	}
	// Requests; each gets exactly one Reply.
	alterPartition     struct{ request *kmsg.AlterPartitionRequest }
	controlledShutdown struct {
		request *kmsg.ControlledShutdownRequest
	}
	allocateProducerIDs struct {
		request *kmsg.AllocateProducerIDsRequest
	}
	electLeaders       struct{ request *kmsg.ElectLeadersRequest }
	alterReassignments struct {
		request *kmsg.AlterPartitionAssignmentsRequest
	}
	listReassignments struct {
		request *kmsg.ListPartitionReassignmentsRequest
	}
)

func (elected) event()              {}
func (brokersChanged) event()       {}
func (brokerModified) event()       {}
func (topicsChanged) event()        {}
func (topicModified) event()        {}
func (deletionsAsked) event()       {}
func (logDirsFailed) event()        {}
func (isrsChanged) event()          {}
func (reassignAsked) event()        {}
func (preferredAsked) event()       {}
func (uncleanEnabled) event()       {}
func (rebalanceTicked) event()      {}
func (brokerRefused) event()        {}
func (brokerAnswered) event()       {}
func (inquiryTicked) event()        {}
func (logEndsAnswered) event()      {}
func (epochBeginsAnswered) event()  {}
func (leaderAndISRAnswered) event() {}
func (stopReplicaAnswered) event()  {}
func (alterPartition) event()       {}
func (controlledShutdown) event()   {}
func (allocateProducerIDs) event()  {}
func (electLeaders) event()         {}
func (alterReassignments) event()   {}
func (listReassignments) event()    {}

// Effects is what the shell does, in this order: Logs; Channels; Sends; Replies; then, if
// there are Ops, it executes them as one batch, writes fenced, and calls Complete before
// any other Step. Resign, if not nil, is the reason to give up being controller; then there
// are no Ops.
type Effects struct {
	Logs     []LogLine
	Channels []ChannelChange
	Sends    []Send
	Replies  []kmsg.Response // to the request of the Step, at most one in its whole course
	Ops      []registry.Op
	Resign   error
	// WakeAfter, if positive, asks for an InquiryTicked in that time.
	WakeAfter time.Duration
}

// LogLine is one line for the log.
type LogLine struct {
	Level   slog.Level
	Message string
	Args    []any
}

// ChannelChange says which brokers can be sent to: a broker that appears (or comes back in
// a new incarnation, or moves) or one that is gone.
type ChannelChange struct {
	Broker cluster.Broker
	Remove bool
}

// CoreConfig is what the core knows from the start.
type CoreConfig struct {
	Self       cluster.BrokerID
	Epoch      cluster.ControllerEpoch
	Listener   string
	Settings   Settings
	NewTopicID func() cluster.TopicID // chance is handed in
}

// Core is one term of a controller: made when the election is won, thrown away when it
// resigns. It must not be used concurrently.
type Core struct {
	model
	self     cluster.BrokerID
	epoch    cluster.ControllerEpoch
	listener string
	settings Settings
	newID    func() cluster.TopicID

	now     time.Time
	out     outbox
	effects Effects
	then    func([]registry.OpResult) // what to do with the results of effects.Ops
	busy    int                       // operations that the shell owes results for
	failed  error                     // set once: the core does nothing more

	// zkMoves is what is left of /admin/reassign_partitions; nil if there is no such node.
	zkMoves map[cluster.TopicPartition][]cluster.BrokerID
}

// NewCore makes the core of a controller that has just been elected; its first event is
// elected.
func NewCore(config CoreConfig) *Core {
	if config.Settings.UncleanStopPatience <= 0 {
		config.Settings.UncleanStopPatience = defaultUncleanStopPatience
	}
	return &Core{
		model: newModel(), self: config.Self, epoch: config.Epoch, listener: config.Listener,
		settings: config.Settings, newID: config.NewTopicID,
	}
}

// Step processes an event. It must not be called while the results of Ops are owed.
func (c *Core) Step(event Event, now time.Time) Effects {
	if c.busy > 0 {
		panic(fmt.Sprintf("controller: %T while the results of %d operations are owed", event, c.busy))
	}
	if c.failed != nil {
		return Effects{Resign: c.failed}
	}
	c.now = now
	c.handle(event)
	return c.take()
}

// Complete hands in the results of the last Effects' Ops.
func (c *Core) Complete(results []registry.OpResult, now time.Time) Effects {
	if len(results) != c.busy {
		panic(fmt.Sprintf("controller: %d results for %d operations", len(results), c.busy))
	}
	c.now, c.busy = now, 0
	then := c.then
	c.then = nil
	if err := fatal(results); err != nil {
		c.fail(err)
	} else {
		then(results)
	}
	return c.take()
}

// fatal finds a result after which the core cannot go on: it has been fenced, or the
// session is gone, or the ensemble refuses what it always grants.
func fatal(results []registry.OpResult) error {
	for i := range results {
		err := results[i].Err
		switch {
		case err == nil, errors.Is(err, registry.ErrNoNode), errors.Is(err, registry.ErrNodeExists),
			errors.Is(err, registry.ErrBadVersion), errors.Is(err, registry.ErrNotEmpty):
		default:
			return err
		}
	}
	return nil
}

func (c *Core) fail(err error) {
	c.failed = err
	c.effects.Resign = err
	c.effects.Ops, c.then = nil, nil
	c.out = outbox{}
}

func (c *Core) take() Effects {
	if c.failed == nil {
		c.flush()
	}
	effects := c.effects
	c.effects = Effects{}
	c.busy = len(effects.Ops)
	return effects
}

// execute asks for operations; then gets their results. It is the last thing a handler
// does: one batch is under way at a time. Without operations then runs at once.
func (c *Core) execute(ops []registry.Op, then func([]registry.OpResult)) {
	if c.failed != nil {
		return
	}
	if c.then != nil {
		panic("controller: two batches of operations at the same time")
	}
	if len(ops) == 0 {
		then(nil)
		return
	}
	c.effects.Ops, c.then = ops, then
}

// forget executes operations whose outcome changes nothing that the core knows.
func (c *Core) forget(ops []registry.Op, then func()) {
	c.execute(ops, func([]registry.OpResult) { then() })
}

func (c *Core) log(level slog.Level, message string, args ...any) {
	c.effects.Logs = append(c.effects.Logs, LogLine{level, message, args})
}

func (c *Core) reply(response kmsg.Response) {
	c.effects.Replies = append(c.effects.Replies, response)
}

func (c *Core) handle(event Event) {
	switch event := event.(type) {
	case elected:
		c.failover()
	case brokersChanged:
		c.readBrokers()
	case brokerModified:
		c.readBroker(event.id)
	case topicsChanged:
		c.readTopics(nothing)
	case topicModified:
		c.readTopic(event.topic)
	case deletionsAsked:
		c.readDeletions()
	case logDirsFailed:
		c.readLogDirEvents()
	case isrsChanged:
		c.readISRChanges()
	case preferredAsked:
		c.readPreferredElection(nothing)
	case reassignAsked:
		c.readReassignments(nothing)
	case uncleanEnabled:
		c.onUncleanEnabled(event.topic)
	case rebalanceTicked:
		c.rebalance()
	case brokerRefused:
		c.onRefused(event.id, event.epoch)
	case brokerAnswered:
		c.onAnswered(event.id, event.epoch)
	case inquiryTicked:
		c.onInquiryTick()
	case logEndsAnswered:
		c.onLogEnds(event)
	case epochBeginsAnswered:
		c.onEpochBegins(event)
	case leaderAndISRAnswered:
		c.onLeaderAndISRAnswered(event)
	case stopReplicaAnswered:
		c.onStopReplicaAnswered(event)
	case alterPartition:
		c.onAlterPartition(event.request)
	case controlledShutdown:
		c.onControlledShutdown(event.request)
	case allocateProducerIDs:
		c.onAllocateProducerIDs(event.request)
	case electLeaders:
		c.onElectLeaders(event.request)
	case alterReassignments:
		c.onAlterReassignments(event.request)
	case listReassignments:
		c.onListReassignments(event.request)
	default:
		panic(fmt.Sprintf("controller: unknown event %T", event))
	}
}

func nothing() {}

// codeOf is the one place where an error becomes a Kafka code.
func codeOf(err error) int16 {
	if err == nil {
		return 0
	}
	var known *kerr.Error
	if errors.As(err, &known) {
		return known.Code
	}
	return kerr.UnknownServerError.Code
}

// messageOf is an error's text for clients: what a Refusal says, or the code's own words.
func messageOf(err error) *string {
	var refusal *Refusal
	var known *kerr.Error
	switch {
	case errors.As(err, &refusal):
		return &refusal.Message
	case errors.As(err, &known):
		return &known.Description
	}
	return nil
}
