package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	commitEvery    = 10 * time.Millisecond
	commitPatience = 150 * time.Millisecond
	fetchEach      = 10 // commits between two looks at what is committed
)

// commits commits an ever greater offset for one group, one request at a time, and keeps
// account: what was acknowledged must not be gone later. It is no member of the group (a group
// that assigns by hand), so that nothing fences it: a commit whose answer did not come may
// still be applied later, over a newer one. Such values are excused.
type commits struct {
	group  string
	ids    []int32
	client *kgo.Client
	gap    gap
	stop   context.CancelFunc
	done   sync.WaitGroup

	// Of the run goroutine; read after it has ended.
	acknowledged int64
	count        int
	uncertain    map[int64]bool // sent, and the answer did not come
	findings     []string
}

func startCommits(bootstrap []string, ids []int32, group string, first int32) (*commits, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap...), kgo.ClientID("chaos-commits"),
		kgo.RequestRetries(0), kgo.DialTimeout(commitPatience), kgo.RequestTimeoutOverhead(2*commitPatience))
	if err != nil {
		return nil, err
	}
	c := &commits{group: group, ids: ids, client: client, uncertain: map[int64]bool{}}
	running, cancel := context.WithCancel(context.Background())
	c.stop = cancel
	c.done.Go(func() { c.run(running, first) })
	return c, nil
}

func (c *commits) run(ctx context.Context, coordinator int32) {
	ask := 0
	for value := int64(1); ctx.Err() == nil; value++ {
		err := c.commit(ctx, coordinator, value)
		switch {
		case err == nil:
			c.gap.success()
			c.acknowledged = value
			if c.count++; c.count%fetchEach == 0 {
				if got, err := c.fetch(ctx, coordinator); err == nil {
					c.compare(got)
				}
			}
		case !isRefusal(err):
			c.uncertain[value] = true
		}
		if err != nil {
			ask++
			if known, err := c.find(ctx, c.ids[ask%len(c.ids)]); err == nil {
				coordinator = known
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(commitEvery):
		}
	}
}

// isRefusal reports whether a commit was certainly not applied.
func isRefusal(err error) bool {
	return errors.Is(err, kerr.NotCoordinator) || errors.Is(err, kerr.CoordinatorNotAvailable) || errors.Is(err, kerr.CoordinatorLoadInProgress)
}

func (c *commits) compare(got int64) {
	if got < c.acknowledged && !c.uncertain[got] {
		c.findings = append(c.findings, fmt.Sprintf("offset %d of group %s was acknowledged, and later %d is committed", c.acknowledged, c.group, got))
	}
}

// finish stops, and compares what is committed at the end.
func (c *commits) finish(ctx context.Context) error {
	defer c.client.Close()
	c.stop()
	c.done.Wait()
	last := context.Cause(ctx)
	for ask := 0; ctx.Err() == nil; ask++ {
		coordinator, err := c.find(ctx, c.ids[ask%len(c.ids)])
		if err == nil {
			var got int64
			if got, err = c.fetch(ctx, coordinator); err == nil {
				c.compare(got)
				return nil
			}
		}
		last = err
		time.Sleep(commitEvery)
	}
	return fmt.Errorf("the committed offset cannot be read: %w", last)
}

func (c *commits) ask(ctx context.Context, broker int32, request kmsg.Request) (kmsg.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, commitPatience)
	defer cancel()
	return c.client.Broker(int(broker)).Request(ctx, request)
}

func (c *commits) find(ctx context.Context, broker int32) (int32, error) {
	request := kmsg.NewPtrFindCoordinatorRequest()
	request.CoordinatorKey, request.CoordinatorKeys = c.group, []string{c.group}
	answer, err := c.ask(ctx, broker, request)
	if err != nil {
		return -1, err
	}
	response := answer.(*kmsg.FindCoordinatorResponse)
	for _, found := range response.Coordinators {
		return found.NodeID, kerr.ErrorForCode(found.ErrorCode)
	}
	return response.NodeID, kerr.ErrorForCode(response.ErrorCode)
}

func (c *commits) commit(ctx context.Context, coordinator int32, value int64) error {
	request := kmsg.NewPtrOffsetCommitRequest()
	request.Group, request.Generation = c.group, -1
	partition := kmsg.NewOffsetCommitRequestTopicPartition()
	partition.Offset = value
	topic := kmsg.NewOffsetCommitRequestTopic()
	topic.Topic, topic.Partitions = loadTopic, []kmsg.OffsetCommitRequestTopicPartition{partition}
	request.Topics = []kmsg.OffsetCommitRequestTopic{topic}
	answer, err := c.ask(ctx, coordinator, request)
	if err != nil {
		return err
	}
	for _, topic := range answer.(*kmsg.OffsetCommitResponse).Topics {
		for _, partition := range topic.Partitions {
			return kerr.ErrorForCode(partition.ErrorCode)
		}
	}
	return errors.New("the answer names no partition")
}

func (c *commits) fetch(ctx context.Context, coordinator int32) (int64, error) {
	request := kmsg.NewPtrOffsetFetchRequest()
	request.Group = c.group
	topic := kmsg.NewOffsetFetchRequestTopic()
	topic.Topic, topic.Partitions = loadTopic, []int32{0}
	request.Topics = []kmsg.OffsetFetchRequestTopic{topic}
	group := kmsg.NewOffsetFetchRequestGroup()
	group.Group = c.group
	inGroup := kmsg.NewOffsetFetchRequestGroupTopic()
	inGroup.Topic, inGroup.Partitions = loadTopic, []int32{0}
	group.Topics = []kmsg.OffsetFetchRequestGroupTopic{inGroup}
	request.Groups = []kmsg.OffsetFetchRequestGroup{group}
	answer, err := c.ask(ctx, coordinator, request)
	if err != nil {
		return 0, err
	}
	response := answer.(*kmsg.OffsetFetchResponse)
	for _, group := range response.Groups {
		if err := kerr.ErrorForCode(group.ErrorCode); err != nil {
			return 0, err
		}
		for _, topic := range group.Topics {
			for _, partition := range topic.Partitions {
				return partition.Offset, kerr.ErrorForCode(partition.ErrorCode)
			}
		}
	}
	for _, topic := range response.Topics {
		for _, partition := range topic.Partitions {
			return partition.Offset, kerr.ErrorForCode(partition.ErrorCode)
		}
	}
	return 0, errors.Join(kerr.ErrorForCode(response.ErrorCode), errors.New("the answer names no partition"))
}
