package replication

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/wire"
)

const (
	alterPartitionVersion = 3
	alterRetryMin         = 10 * time.Millisecond
	alterRetryMax         = 50 * time.Millisecond // Kafka's only pace
	alterTimeout          = 10 * time.Second
)

// alterPartitionChannel sends ISR changes to the controller, whichever broker that is: one
// request in flight, carrying everything that is pending. A change stays pending until the
// controller has answered it in person; only then is its done called.
type alterPartitionChannel struct {
	m      *Manager
	logger *slog.Logger
	wake   chan struct{} // capacity 1
	stop   context.Context
	cancel context.CancelFunc
	ended  chan struct{}

	mu      sync.Mutex
	pending map[cluster.TopicPartition]*pendingChange

	// Of the goroutine alone.
	client     *wire.Client
	controller cluster.BrokerID // that client is connected to
	version    int16            // negotiated on this connection
}

type pendingChange struct {
	change ISRChange
	done   func(ISROutcome)
}

func newAlterPartitionChannel(m *Manager) *alterPartitionChannel {
	c := &alterPartitionChannel{
		m: m, logger: m.logger, wake: make(chan struct{}, 1), ended: make(chan struct{}),
		pending: map[cluster.TopicPartition]*pendingChange{}, controller: cluster.NoBroker,
	}
	c.stop, c.cancel = context.WithCancel(context.Background())
	return c
}

// Submit queues a change. A partition has one change under way at a time; one that a
// LeaderAndIsr has made void is replaced by its successor, and its done never called: the
// partition would ignore it.
func (c *alterPartitionChannel) Submit(change ISRChange, done func(ISROutcome)) {
	c.mu.Lock()
	c.pending[change.TP] = &pendingChange{change, done}
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Close ends the channel; changes that are pending stay without an answer.
func (c *alterPartitionChannel) Close() {
	c.cancel()
	<-c.ended
}

func (c *alterPartitionChannel) run() {
	defer close(c.ended)
	defer c.disconnect()
	retry := alterRetryMin
	for {
		items := c.takePending()
		if len(items) == 0 {
			select {
			case <-c.wake:
				continue
			case <-c.stop.Done():
				return
			}
		}
		changed := c.m.config.Metadata.Changed()
		err := c.send(items)
		if err == nil {
			retry = alterRetryMin
			continue
		}
		if c.stop.Err() != nil {
			return
		}
		c.logger.Debug("alter partition to be sent again", "changes", len(items), "controller", c.controller, "err", err)
		c.disconnect()
		select {
		case <-time.After(retry):
			retry = min(2*retry, alterRetryMax)
		case <-changed: // there may be another controller now
		case <-c.stop.Done():
			return
		}
	}
}

func (c *alterPartitionChannel) takePending() []*pendingChange {
	c.mu.Lock()
	defer c.mu.Unlock()
	items := make([]*pendingChange, 0, len(c.pending))
	for _, item := range c.pending {
		items = append(items, item)
	}
	slices.SortFunc(items, func(a, b *pendingChange) int { return comparePartitions(a.change.TP, b.change.TP) })
	return items
}

// send makes one attempt with all items. Those that got an answer are done.
func (c *alterPartitionChannel) send(items []*pendingChange) error {
	if err := c.connect(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.stop, alterTimeout)
	defer cancel()
	answer, err := c.client.Do(ctx, c.build(items))
	if err != nil {
		return err
	}
	return c.accept(items, answer.(*kmsg.AlterPartitionResponse))
}

// accept works off an answer; an error means that the items are to be sent again.
func (c *alterPartitionChannel) accept(items []*pendingChange, response *kmsg.AlterPartitionResponse) error {
	if response.ErrorCode != 0 {
		return kerr.ErrorForCode(response.ErrorCode)
	}
	if mentionsNotController(response) {
		return kerr.NotController
	}
	answered := c.settle(items, response)
	if answered == 0 {
		return errors.New("the controller's answer names none of the partitions")
	}
	return nil
}

func mentionsNotController(response *kmsg.AlterPartitionResponse) bool {
	for i := range response.Topics {
		for p := range response.Topics[i].Partitions {
			if response.Topics[i].Partitions[p].ErrorCode == kerr.NotController.Code {
				return true
			}
		}
	}
	return false
}

// connect makes sure that there is a connection to the present controller.
func (c *alterPartitionChannel) connect() error {
	image := c.m.config.Metadata.Image()
	controller := image.ControllerID()
	if c.client != nil && c.controller == controller && c.client.Err() == nil {
		return nil
	}
	c.disconnect()
	endpoint, found := image.Endpoint(controller, c.m.config.InterBrokerListener)
	if !found {
		return fmt.Errorf("no controller is known (broker %d)", controller)
	}
	ctx, cancel := context.WithTimeout(c.stop, alterTimeout)
	defer cancel()
	client, err := wire.Dial(ctx, hostPort(endpoint.Host, endpoint.Port), wire.ClientOptions{
		ClientID: strconv.Itoa(int(c.m.config.Self)), DialContext: c.m.config.Dial,
	})
	if err != nil {
		return err
	}
	version, err := client.NegotiateMax(ctx, int16(kmsg.AlterPartition), alterPartitionVersion)
	if err != nil {
		client.Close()
		return err
	}
	c.client, c.controller, c.version = client, controller, version
	return nil
}

func (c *alterPartitionChannel) disconnect() {
	if c.client != nil {
		c.client.Close()
		c.client = nil
	}
}

func (c *alterPartitionChannel) build(items []*pendingChange) *kmsg.AlterPartitionRequest {
	request := kmsg.NewPtrAlterPartitionRequest()
	version := c.version
	topics := map[string]int{}
	for _, item := range items {
		if item.change.TopicID.IsZero() {
			version = min(version, 1)
		}
	}
	request.SetVersion(version)
	request.BrokerID = int32(c.m.config.Self)
	request.BrokerEpoch = int64(c.m.config.Epoch())
	for _, item := range items {
		change := &item.change
		at, found := topics[change.TP.Topic]
		if !found {
			at = len(request.Topics)
			topics[change.TP.Topic] = at
			topic := kmsg.NewAlterPartitionRequestTopic()
			topic.Topic, topic.TopicID = change.TP.Topic, change.TopicID
			request.Topics = append(request.Topics, topic)
		}
		part := kmsg.NewAlterPartitionRequestTopicPartition()
		part.Partition = change.TP.Partition
		part.LeaderEpoch = int32(change.LeaderEpoch)
		part.PartitionEpoch = int32(change.PartitionEpoch)
		part.LeaderRecoveryState = int8(change.Recovery)
		for i, id := range change.ISR {
			part.NewISR = append(part.NewISR, int32(id))
			member := kmsg.NewAlterPartitionRequestTopicPartitionNewEpochISR()
			member.BrokerID, member.BrokerEpoch = int32(id), int64(change.Epochs[i])
			part.NewEpochISR = append(part.NewEpochISR, member)
		}
		request.Topics[at].Partitions = append(request.Topics[at].Partitions, part)
	}
	return request
}

// settle hands out the answers. Partitions that the controller left out stay pending.
func (c *alterPartitionChannel) settle(items []*pendingChange, response *kmsg.AlterPartitionResponse) int {
	byID, byName := map[partitionID]*pendingChange{}, map[cluster.TopicPartition]*pendingChange{}
	for _, item := range items {
		byID[partitionID{item.change.TopicID, item.change.TP.Partition}] = item
		byName[item.change.TP] = item
	}
	answered := 0
	for i := range response.Topics {
		topic := &response.Topics[i]
		for p := range topic.Partitions {
			part := &topic.Partitions[p]
			item := byID[partitionID{topic.TopidID, part.Partition}]
			if response.Version < 2 {
				item = byName[cluster.TopicPartition{Topic: topic.Topic, Partition: part.Partition}]
			}
			if item == nil {
				continue
			}
			answered++
			c.forget(item)
			item.done(ISROutcome{
				Err: kerr.ErrorForCode(part.ErrorCode),
				State: cluster.PartitionState{
					Leader: cluster.BrokerID(part.LeaderID), LeaderEpoch: cluster.LeaderEpoch(part.LeaderEpoch),
					ISR: brokerIDs(part.ISR), Recovery: cluster.LeaderRecoveryState(part.LeaderRecoveryState),
					PartitionEpoch: cluster.PartitionEpoch(part.PartitionEpoch),
				},
			})
		}
	}
	return answered
}

// forget removes an answered item, unless a newer one has taken its place.
func (c *alterPartitionChannel) forget(item *pendingChange) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending[item.change.TP] == item {
		delete(c.pending, item.change.TP)
	}
}
