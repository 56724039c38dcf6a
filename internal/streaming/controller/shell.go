package controller

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/coordination/zkclient"
	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/registry"
)

const (
	// rebalanceAfter is when a new controller first looks for misplaced leaders.
	rebalanceAfter = 5 * time.Second
	// retryPause is how long to wait after the ensemble has refused something it should not.
	retryPause = 100 * time.Millisecond
	// queuedRequestsMax bounds the requests that wait for the controller's goroutine; one
	// more is answered NOT_CONTROLLER, which senders retry.
	queuedRequestsMax = 10_000
)

// Controller is one broker's part in the controllership; at most one broker is active.
type Controller struct {
	config Config
	logger *slog.Logger
	active atomic.Bool
	epoch  atomic.Int32
	queue  *queue
	stopCh chan struct{}
	once   sync.Once
	done   chan struct{} // closed when run has returned
	wg     sync.WaitGroup

	session struct { // the context of the znode operations under way
		sync.Mutex
		ctx    context.Context
		cancel context.CancelFunc
	}

	// Owned by run.
	core      *Core // nil unless active
	fence     registry.Fence
	channels  map[cluster.BrokerID]*channel
	rebalance *time.Timer
	inquiry   *time.Timer // Effects.WakeAfter
	expired   bool        // between SessionExpired and the registration after SessionRenewed
}

// What run takes from its queue beside the core's events.
type (
	started         struct{}
	sessionExpired  struct{}
	sessionRenewed  struct{}
	controllerMoved struct{} // a watch on /controller has fired, or it is time to look again

	answersAwaited struct { // AwaitAnswers
		ctx  context.Context
		done chan struct{}
	}
)

func (started) event()         {}
func (sessionExpired) event()  {}
func (sessionRenewed) event()  {}
func (controllerMoved) event() {}
func (*answersAwaited) event() {}

// item is one event in the queue. A request has reply and refuse; an event that stems from
// one term of a controller carries its epoch, and is dropped in another.
type item struct {
	event  Event
	epoch  cluster.ControllerEpoch // 0: of no particular term
	reply  func(kmsg.Response)
	refuse kmsg.Response
}

func newController(config Config) *Controller {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Settings.SocketTimeout <= 0 {
		config.Settings.SocketTimeout = 30 * time.Second
	}
	if config.Settings.RequestTimeout <= 0 {
		config.Settings.RequestTimeout = 30 * time.Second
	}
	if config.Settings.LeaderImbalanceInterval <= 0 {
		config.Settings.LeaderImbalanceInterval = 300 * time.Second
	}
	c := &Controller{
		config: config, logger: config.Logger, queue: newQueue(),
		stopCh: make(chan struct{}), done: make(chan struct{}),
		channels: map[cluster.BrokerID]*channel{},
	}
	c.session.ctx, c.session.cancel = context.WithCancel(context.Background())
	return c
}

func (c *Controller) start() {
	c.queue.push(item{event: started{}})
	go c.run()
}

func (c *Controller) stop(ctx context.Context) error {
	c.once.Do(func() {
		close(c.stopCh)
		c.sessionContext(false)
		c.queue.close()
	})
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sessionContext cancels the operations of the old session, and begins a new context if
// there is a new session.
func (c *Controller) sessionContext(renew bool) {
	c.session.Lock()
	defer c.session.Unlock()
	c.session.cancel()
	if renew {
		c.session.ctx, c.session.cancel = context.WithCancel(context.Background())
	}
}

func (c *Controller) context() context.Context {
	c.session.Lock()
	defer c.session.Unlock()
	return c.session.ctx
}

func (c *Controller) stopping() bool {
	select {
	case <-c.stopCh:
		return true
	default:
		return false
	}
}

func (c *Controller) onSession(change SessionChange) {
	if c.stopping() {
		return
	}
	switch change {
	case SessionExpired:
		c.sessionContext(false) // frees run from what it waits for
		c.queue.push(item{event: sessionExpired{}})
	case SessionRenewed:
		c.sessionContext(true)
		c.queue.push(item{event: sessionRenewed{}})
	}
}

func (c *Controller) onZkEvent(event zkclient.Event) {
	if event.Path == registry.PathController {
		c.queue.pushOnce(item{event: controllerMoved{}})
		return
	}
	if translated := Translate(event); translated != nil {
		c.queue.pushOnce(item{event: translated})
	}
}

// Translate says what a watch event means to the core; nil if nothing. What happens at
// /controller is the shell's business.
func Translate(event zkclient.Event) Event {
	switch event.Path {
	case registry.PathBrokerIDs:
		return brokersChanged{}
	case registry.PathTopics:
		return topicsChanged{}
	case registry.PathDeleteTopics:
		return deletionsAsked{}
	case registry.PathLogDirEvents:
		return logDirsFailed{}
	case registry.PathISRChanges:
		return isrsChanged{}
	case registry.PathPreferredElection:
		if event.Type != zkclient.NodeDeleted {
			return preferredAsked{}
		}
	case registry.PathReassignPartitions:
		if event.Type != zkclient.NodeDeleted {
			return reassignAsked{}
		}
	default:
		if id, ok := registry.BrokerOfPath(event.Path); ok && event.Type == zkclient.NodeDataChanged {
			return brokerModified{id}
		} else if topic, ok := registry.TopicOfPath(event.Path); ok && event.Type == zkclient.NodeDataChanged {
			return topicModified{topic}
		}
	}
	return nil
}

// TopicConfigChanged tells the controller that a topic's overrides ("" the broker's
// defaults) now allow unclean election. It does not block.
func (c *Controller) TopicConfigChanged(topic string, uncleanElection bool) {
	if uncleanElection {
		c.queue.pushOnce(item{event: uncleanEnabled{topic}})
	}
}

func (c *Controller) submit(event Event, reply func(kmsg.Response), refuse kmsg.Response) {
	if !c.active.Load() || !c.queue.pushRequest(item{event: event, reply: reply, refuse: refuse}) {
		reply(refuse)
	}
}

// notControllerFor is the answer of a broker that is not, or no longer, the controller.
func notControllerFor(request kmsg.Request) kmsg.Response {
	response := request.ResponseKind()
	code := kerr.NotController.Code
	switch response := response.(type) {
	case *kmsg.AlterPartitionResponse:
		response.ErrorCode = code
	case *kmsg.ControlledShutdownResponse:
		response.ErrorCode = code
	case *kmsg.AllocateProducerIDsResponse:
		response.ErrorCode = code
	case *kmsg.ElectLeadersResponse:
		response.ErrorCode = code
	case *kmsg.AlterPartitionAssignmentsResponse:
		response.ErrorCode = code
	case *kmsg.ListPartitionReassignmentsResponse:
		response.ErrorCode = code
	}
	return response
}

// run owns the core. It takes one event at a time and waits for the znode operations that
// follow from it, as Kafka's controller thread does: while a wave is being written, nothing
// else is decided on state that is about to change.
func (c *Controller) run() {
	defer close(c.done)
	for {
		next, ok := c.queue.pop()
		if !ok {
			break
		}
		c.process(next)
	}
	c.resign("stopping")
	c.queue.drain(func(left item) { left.answer(left.refuse) })
	c.wg.Wait()
}

func (i *item) answer(response kmsg.Response) {
	if i.reply != nil {
		reply := i.reply
		i.reply = nil
		reply(response)
	}
}

func (c *Controller) process(next item) {
	switch next.event.(type) {
	case started:
		c.elect()
	case controllerMoved:
		c.elect()
	case sessionExpired:
		c.expired = true
		c.resign("session expired")
	case sessionRenewed:
		c.rejoin()
	case *answersAwaited:
		c.awaitChannels(next.event.(*answersAwaited))
	default:
		if c.core == nil || next.epoch != 0 && next.epoch != c.fence.Epoch {
			next.answer(next.refuse)
			return
		}
		c.perform(c.core.Step(next.event, time.Now()), &next)
		next.answer(next.refuse) // only if the core resigned before it could reply
	}
}

// AwaitAnswers returns when the brokers have answered everything that this controller, if it is
// active, has told them so far, or the context ends. A controller that stops waits for it after
// it has handed its own partitions over: what it had not sent yet, because a broker was busy
// with an earlier request, its successor would have to find out first.
func (c *Controller) AwaitAnswers(ctx context.Context) {
	awaited := &answersAwaited{ctx, make(chan struct{})}
	c.queue.push(item{event: awaited})
	select {
	case <-awaited.done:
	case <-c.stopCh:
	case <-ctx.Done():
	}
}

func (c *Controller) awaitChannels(awaited *answersAwaited) {
	channels := slices.Collect(maps.Values(c.channels))
	c.wg.Go(func() {
		for _, channel := range channels {
			channel.awaitAnswers(awaited.ctx)
		}
		close(awaited.done)
	})
}

// rejoin registers the broker under its new session and takes part in elections again.
func (c *Controller) rejoin() {
	c.resign("new session") // a renewal without an expiry before it
	ctx := c.context()
	if c.config.Register != nil {
		if err := c.config.Register(ctx); err != nil {
			c.logger.Error("cannot register the broker under its new session", "error", err)
			c.later(sessionRenewed{}, ctx)
			return
		}
	}
	c.expired = false
	c.elect()
}

// later queues an event again after a pause, unless the session it is about has ended.
func (c *Controller) later(event Event, ctx context.Context) {
	time.AfterFunc(retryPause, func() {
		if ctx.Err() == nil && !c.stopping() {
			c.queue.pushOnce(item{event: event})
		}
	})
}

// elect finds out who the controller is, which sets the watch, and stands if nobody is.
func (c *Controller) elect() {
	if c.expired {
		return
	}
	ctx := c.context()
	current, err := c.config.Registry.Controller(ctx, true)
	if err != nil {
		c.electionFailed(ctx, err)
		return
	}
	if c.core != nil {
		if current == c.config.Self {
			return
		}
		c.resign("another controller, or none, is registered")
	}
	if current == c.config.Self {
		c.clearOwn(ctx)
		return
	}
	if current != cluster.NoBroker {
		c.logger.Info("controller known", "controller", current)
		return
	}
	fence, won, current, err := c.config.Registry.ElectController(ctx, c.config.Self, time.Now().UnixMilli())
	switch {
	case err != nil:
		c.electionFailed(ctx, err)
	case won:
		c.take(ctx, fence)
	default:
		c.logger.Info("controller known", "controller", current)
	}
}

// clearOwn deals with a /controller that names this broker though it is not active. What an
// earlier incarnation left goes with its session, and the watch tells; what this session
// holds, because a resignation could not delete it, would stand for ever.
func (c *Controller) clearOwn(ctx context.Context) {
	owned, err := c.config.Registry.OwnsController(ctx)
	if err == nil && owned {
		err = c.config.Registry.ResignController(ctx, c.fence)
	}
	if err != nil {
		c.electionFailed(ctx, err)
	}
}

func (c *Controller) electionFailed(ctx context.Context, err error) {
	if ctx.Err() != nil || errors.Is(err, zkclient.ErrSessionExpired) || errors.Is(err, zkclient.ErrClosed) {
		return // the owner will tell of a new session
	}
	c.logger.Warn("cannot take part in the controller election", "error", err)
	c.later(controllerMoved{}, ctx)
}

// take begins a term.
func (c *Controller) take(ctx context.Context, fence registry.Fence) {
	c.fence = fence
	c.core = NewCore(CoreConfig{
		Self: c.config.Self, Epoch: fence.Epoch, Listener: c.config.Listener,
		Settings: c.config.Settings, NewTopicID: cluster.NewTopicID,
	})
	c.epoch.Store(int32(fence.Epoch))
	c.active.Store(true)
	c.logger.Info("controller elected", "controller", c.config.Self, "controllerEpoch", fence.Epoch)
	if c.config.OnChange != nil {
		c.config.OnChange(true, fence.Epoch)
	}
	c.wg.Go(func() { // not in the way of the elections; nobody waits for it
		if err := c.config.Registry.SetupFeature(ctx); err != nil && ctx.Err() == nil {
			c.logger.Error("cannot set up /feature", "error", err)
		}
	})
	if c.config.Settings.AutoLeaderRebalance {
		c.scheduleRebalance(rebalanceAfter, fence.Epoch)
	}
	c.perform(c.core.Step(elected{}, time.Now()), &item{})
}

func (c *Controller) scheduleRebalance(after time.Duration, epoch cluster.ControllerEpoch) {
	c.rebalance = time.AfterFunc(after, func() {
		c.queue.pushOnce(item{event: rebalanceTicked{}, epoch: epoch})
	})
}

// perform carries out effects, and those that follow from their results.
func (c *Controller) perform(effects Effects, request *item) {
	ctx := c.context()
	for {
		for _, line := range effects.Logs {
			c.logger.Log(ctx, line.Level, line.Message, line.Args...)
		}
		for _, change := range effects.Channels {
			c.changeChannel(change)
		}
		for _, send := range effects.Sends {
			if channel := c.channels[send.To]; channel != nil {
				channel.send(send.Request)
			}
		}
		for _, response := range effects.Replies {
			request.answer(response)
		}
		if effects.Resign != nil {
			c.abdicate(effects.Resign)
			return
		}
		if effects.WakeAfter > 0 {
			c.wakeAfter(effects.WakeAfter, c.fence.Epoch)
		}
		if len(effects.Ops) == 0 {
			break
		}
		results := c.config.Registry.Execute(ctx, &c.fence, effects.Ops)
		effects = c.core.Complete(results, time.Now())
	}
	if _, ticked := request.event.(rebalanceTicked); ticked && c.core != nil {
		c.scheduleRebalance(c.config.Settings.LeaderImbalanceInterval, c.fence.Epoch)
	}
}

func (c *Controller) wakeAfter(pause time.Duration, epoch cluster.ControllerEpoch) {
	if c.inquiry != nil {
		c.inquiry.Stop()
	}
	c.inquiry = time.AfterFunc(pause, func() {
		c.queue.pushOnce(item{event: inquiryTicked{}, epoch: epoch})
	})
}

// abdicate ends a term after an operation failed. If it is not because another controller
// has been elected, or the session is gone, /controller is deleted so that another broker,
// or this one anew, is elected (KafkaController.triggerControllerMove).
func (c *Controller) abdicate(reason error) {
	ctx, fence := c.context(), c.fence
	c.resign(reason.Error())
	if ctx.Err() != nil || errors.Is(reason, zkclient.ErrSessionExpired) || errors.Is(reason, zkclient.ErrClosed) {
		return
	}
	if !errors.Is(reason, registry.ErrControllerMoved) {
		if err := c.config.Registry.ResignController(ctx, fence); err != nil {
			c.logger.Warn("cannot delete /controller", "error", err)
		}
	}
	c.later(controllerMoved{}, ctx)
}

// resign ends the term, if there is one: channels are closed with what they had queued.
func (c *Controller) resign(reason string) {
	if c.core == nil {
		return
	}
	c.active.Store(false)
	c.core = nil
	for _, timer := range []*time.Timer{c.rebalance, c.inquiry} {
		if timer != nil {
			timer.Stop()
		}
	}
	for id, channel := range c.channels {
		channel.close()
		delete(c.channels, id)
	}
	c.logger.Info("controller resigned", "controllerEpoch", c.fence.Epoch, "reason", reason)
	if c.config.OnChange != nil {
		c.config.OnChange(false, c.fence.Epoch)
	}
}

func (c *Controller) changeChannel(change ChannelChange) {
	id := change.Broker.ID
	if old := c.channels[id]; old != nil {
		old.close()
		delete(c.channels, id)
	}
	if change.Remove {
		return
	}
	endpoint, ok := change.Broker.Endpoint(c.config.Listener)
	if !ok {
		c.logger.Error("broker has no endpoint for the controller", "broker", id, "listener", c.config.Listener)
		return
	}
	epoch := c.fence.Epoch
	channel := newChannel(channelConfig{
		self: c.config.Self, broker: change.Broker.ID, brokerEpoch: change.Broker.Epoch, endpoint: endpoint,
		dial: c.config.Dial, settings: c.config.Settings, logger: c.logger,
		post: func(event Event) { c.queue.push(item{event: event, epoch: epoch}) },
	})
	c.channels[id] = channel
	c.wg.Go(channel.run)
}

// queue is run's inbox. Events of the cluster are never refused: watches are one-shot and
// held once each, what brokers answer is bounded by what they were asked. Requests are
// bounded by queuedRequestsMax.
type queue struct {
	mu struct {
		sync.Mutex
		items    []item
		requests int
		pending  map[Event]bool // those of pushOnce not yet popped
		closed   bool
	}
	wake chan struct{} // capacity 1
}

func newQueue() *queue {
	q := &queue{wake: make(chan struct{}, 1)}
	q.mu.pending = map[Event]bool{}
	return q
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) push(next item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.mu.closed {
		q.mu.items = append(q.mu.items, next)
		q.signal()
	}
}

// pushOnce does nothing if the same event is waiting already: its processing will read
// what has changed meanwhile.
func (q *queue) pushOnce(next item) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.closed || q.mu.pending[next.event] {
		return
	}
	q.mu.pending[next.event] = true
	q.mu.items = append(q.mu.items, next)
	q.signal()
}

func (q *queue) pushRequest(next item) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.closed || q.mu.requests >= queuedRequestsMax {
		return false
	}
	q.mu.requests++
	q.mu.items = append(q.mu.items, next)
	q.signal()
	return true
}

func (q *queue) pop() (item, bool) {
	for {
		q.mu.Lock()
		if q.mu.closed {
			q.mu.Unlock()
			return item{}, false
		}
		if len(q.mu.items) > 0 {
			next := q.mu.items[0]
			q.mu.items[0] = item{}
			q.mu.items = q.mu.items[1:]
			if next.reply != nil {
				q.mu.requests--
			} else {
				delete(q.mu.pending, next.event)
			}
			q.mu.Unlock()
			return next, true
		}
		q.mu.Unlock()
		<-q.wake
	}
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.closed = true
	q.signal()
}

func (q *queue) drain(each func(item)) {
	q.mu.Lock()
	items := q.mu.items
	q.mu.items = nil
	q.mu.Unlock()
	for _, left := range items {
		each(left)
	}
}
