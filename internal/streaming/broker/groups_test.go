package broker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/group"
	"understudy/internal/streaming/wire"
)

// groupReader is a consumer that notes what it reads and how often it was told to rebalance.
type groupReader struct {
	client   *kgo.Client
	mu       sync.Mutex
	read     map[string]int
	changed  chan struct{} // capacity 1
	assigned int
	lost     int
}

func (c *testCluster) groupReader(groupID, topic string, options ...kgo.Opt) *groupReader {
	c.t.Helper()
	r := &groupReader{read: map[string]int{}, changed: make(chan struct{}, 1)}
	r.client = c.client(append([]kgo.Opt{
		// The harness retries every 10 ms; a heartbeat would then use up its tries in a moment.
		kgo.RetryBackoffFn(func(int) time.Duration { return 100 * time.Millisecond }),
		kgo.ConsumerGroup(groupID), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.HeartbeatInterval(100 * time.Millisecond), kgo.SessionTimeout(10 * time.Second), kgo.AutoCommitInterval(100 * time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, got map[string][]int32) {
			r.note(func() { r.assigned += len(got[topic]) })
		}),
		kgo.OnPartitionsRevoked(func(ctx context.Context, client *kgo.Client, gone map[string][]int32) {
			_ = client.CommitUncommittedOffsets(ctx)
			r.note(func() { r.assigned -= len(gone[topic]) })
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
			r.note(func() { r.assigned -= len(gone[topic]); r.lost++ })
		}),
	}, options...)...)
	go func() {
		for {
			fetches := r.client.PollFetches(c.t.Context())
			if fetches.IsClientClosed() || c.t.Context().Err() != nil {
				return
			}
			r.note(func() { fetches.EachRecord(func(record *kgo.Record) { r.read[string(record.Value)]++ }) })
		}
	}()
	return r
}

func (r *groupReader) note(change func()) {
	r.mu.Lock()
	change()
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// await waits until the readers' state satisfies a condition.
func awaitReaders(t *testing.T, what string, condition func() bool, readers ...*groupReader) {
	t.Helper()
	deadline := time.After(60 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, r := range readers {
			r.mu.Lock()
		}
		done := condition()
		for _, r := range readers {
			r.mu.Unlock()
		}
		if done {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

func produceNumbers(t *testing.T, client *kgo.Client, topic string, from, to int) {
	t.Helper()
	var records []*kgo.Record
	for i := from; i < to; i++ {
		records = append(records, &kgo.Record{Topic: topic, Key: fmt.Appendf(nil, "%d", i), Value: fmt.Appendf(nil, "%d", i)})
	}
	if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func TestGroupOfTwoAndItsTools(t *testing.T) {
	for _, balancer := range []kgo.GroupBalancer{kgo.RangeBalancer(), kgo.CooperativeStickyBalancer()} {
		t.Run(balancer.ProtocolName(), func(t *testing.T) {
			c := newTestCluster(t, 1, nil)
			c.createTopic("t", 6, 1, nil)
			producer := c.client()
			produceNumbers(t, producer, "t", 0, 100)
			first := c.groupReader("g", "t", kgo.Balancers(balancer))
			awaitReaders(t, "the first reads all", func() bool { return len(first.read) == 100 && first.assigned == 6 }, first)
			second := c.groupReader("g", "t", kgo.Balancers(balancer))
			awaitReaders(t, "three partitions each", func() bool { return first.assigned == 3 && second.assigned == 3 }, first, second)
			produceNumbers(t, producer, "t", 100, 200)
			awaitReaders(t, "both read the rest", func() bool { return len(first.read)+len(second.read) == 200 && len(second.read) > 0 }, first, second)

			admin := kadm.NewClient(c.client())
			described, err := admin.DescribeGroups(t.Context(), "g", "none")
			if err != nil || described["g"].State != "Stable" || len(described["g"].Members) != 2 || described["none"].State != "Dead" {
				t.Fatalf("described %+v, %v", described, err)
			}
			if deleted, _ := admin.DeleteGroups(t.Context(), "g"); !errors.Is(deleted["g"].Err, kerr.NonEmptyGroup) {
				t.Fatalf("deleting a group with members: %v", deleted["g"].Err)
			}
			second.client.Close()
			awaitReaders(t, "the first takes over", func() bool { return first.assigned == 6 }, first)
			if err := first.client.CommitUncommittedOffsets(t.Context()); err != nil {
				t.Fatal(err)
			}
			first.client.Close()
			offsets, err := admin.FetchOffsets(t.Context(), "g")
			total := int64(0)
			offsets.Each(func(o kadm.OffsetResponse) { total += o.At })
			if err != nil || total != 200 {
				t.Fatalf("committed %d of 200, %v", total, err)
			}
			listed, err := admin.ListGroups(t.Context(), "Empty")
			if err != nil || listed["g"].ProtocolType != "consumer" {
				t.Fatalf("listed %v %v", listed, err)
			}
			if deleted, err := admin.DeleteGroups(t.Context(), "g", "none"); err != nil || deleted["g"].Err != nil || !errors.Is(deleted["none"].Err, kerr.GroupIDNotFound) {
				t.Fatalf("deleted %v %v", deleted, err)
			}
		})
	}
}

// TestGroupSurvivesItsCoordinator: the broker that coordinates a group dies, and the group
// goes on with the next one. The members keep their partitions, so that nothing is read
// twice; only, franz-go gives its partitions up by itself when it cannot dial the broker that
// it takes for the coordinator, and begins again from what was committed.
func TestGroupSurvivesItsCoordinator(t *testing.T) {
	c := newTestCluster(t, 3, map[string]string{"offsets.topic.replication.factor": "3", "min.insync.replicas": "1"})
	c.createTopic("t", 6, 3, nil)
	producer := c.client()
	first := c.groupReader("g", "t")
	second := c.groupReader("g", "t")
	awaitReaders(t, "three partitions each", func() bool { return first.assigned == 3 && second.assigned == 3 }, first, second)
	total := 0
	for range 3 {
		produceNumbers(t, producer, "t", total, total+300)
		total += 300
		awaitReaders(t, "all is read", func() bool { return len(first.read)+len(second.read) >= total }, first, second)
		if err := first.client.CommitUncommittedOffsets(t.Context()); err != nil {
			t.Fatal(err)
		}
		coordinator := c.leader(group.Topic, cluster.InternalPartition("g", 3))
		c.crash(coordinator)
		produceNumbers(t, producer, "t", total, total+300)
		total += 300
		awaitReaders(t, "reading goes on", func() bool { return len(first.read)+len(second.read) >= total }, first, second)
		if err := first.client.CommitUncommittedOffsets(t.Context()); err != nil {
			t.Fatalf("commit to the next coordinator: %v", err)
		}
		c.start(coordinator)
		c.awaitAlive(3)
	}
	first.mu.Lock()
	second.mu.Lock()
	defer first.mu.Unlock()
	defer second.mu.Unlock()
	for i := range total {
		count := first.read[fmt.Sprint(i)] + second.read[fmt.Sprint(i)]
		if count == 0 || count > 1 && first.lost+second.lost == 0 {
			t.Errorf("record %d was read %d times", i, count)
		}
	}
}

// TestTransactionsAreRefusedForGood: not by an endless retry.
func TestTransactionsAreRefusedForGood(t *testing.T) {
	c := newTestCluster(t, 1, nil)
	c.createTopic("t", 1, 1, nil)
	client := c.client(kgo.TransactionalID("tx"), kgo.DefaultProduceTopic("t"))
	begun := make(chan error, 1)
	go func() { begun <- client.BeginTransaction() }()
	select {
	case err := <-begun:
		if !errors.Is(err, kerr.UnsupportedVersion) {
			t.Errorf("franz-go: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("franz-go tries for ever")
	}
	for version := int16(0); version <= 6; version++ {
		request := kmsg.NewPtrFindCoordinatorRequest()
		request.SetVersion(version)
		request.CoordinatorKey, request.CoordinatorKeys, request.CoordinatorType = "tx", []string{"tx"}, 1
		response, err := requestAs[*kmsg.FindCoordinatorResponse](t, c, request)
		if err != nil {
			t.Fatal(err)
		}
		code, message := response.ErrorCode, response.ErrorMessage
		if version >= 4 {
			code, message = response.Coordinators[0].ErrorCode, response.Coordinators[0].ErrorMessage
		}
		if version >= 1 && (code == 0 || message == nil || !strings.Contains(*message, "not supported")) {
			t.Errorf("version %d: code %d, message %v", version, code, message)
		}
	}
	initProducer := kmsg.NewPtrInitProducerIDRequest()
	initProducer.SetVersion(4)
	initProducer.TransactionalID = kmsg.StringPtr("tx")
	refused, err := requestAs[*kmsg.InitProducerIDResponse](t, c, initProducer)
	if err != nil || refused.ErrorCode != kerr.TransactionalIDAuthorizationFailed.Code {
		t.Errorf("got %+v %v", refused, err)
	}
}

// requestAs sends a request of exactly the version that is set.
func requestAs[R kmsg.Response](t *testing.T, c *testCluster, request kmsg.Request) (R, error) {
	t.Helper()
	var none R
	client, err := dialTest(t, c.seeds()[0])
	if err != nil {
		return none, err
	}
	defer client.Close()
	response, err := client.Do(t.Context(), request)
	if err != nil {
		return none, err
	}
	return response.(R), nil
}

func TestProducerIDsAreDistinctAcrossBrokers(t *testing.T) {
	c := newTestCluster(t, 2, nil)
	seen := map[int64]bool{}
	for _, seed := range c.seeds() {
		client, err := dialTest(t, seed)
		if err != nil {
			t.Fatal(err)
		}
		for range 1500 { // more than a block
			request := kmsg.NewPtrInitProducerIDRequest()
			request.SetVersion(4)
			response, err := client.Do(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			answer := response.(*kmsg.InitProducerIDResponse)
			if answer.ErrorCode != 0 || answer.ProducerEpoch != 0 || seen[answer.ProducerID] {
				t.Fatalf("got %+v", answer)
			}
			seen[answer.ProducerID] = true
		}
		client.Close()
	}
}

func TestCommitsToUnknownPartitionsAreRefusedOneByOne(t *testing.T) {
	c := newTestCluster(t, 1, nil)
	c.createTopic("t", 1, 1, nil)
	c.createTopic("gone", 1, 1, nil)
	admin := kadm.NewClient(c.client())
	offsets := kadm.Offsets{}
	offsets.AddOffset("t", 0, 5, -1)
	offsets.AddOffset("t", 7, 5, -1)
	offsets.AddOffset("gone", 0, 5, -1)
	// The client asks again while the coordinator loads the group, if all that it asks is refused.
	if _, err := admin.FetchOffsets(t.Context(), "g"); err != nil {
		t.Fatal(err)
	}
	committed, err := admin.CommitOffsets(t.Context(), "g", offsets)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		topic     string
		partition int32
		err       error
	}{{"t", 0, nil}, {"t", 7, kerr.UnknownTopicOrPartition}, {"gone", 0, nil}} {
		if got, _ := committed.Lookup(want.topic, want.partition); !errors.Is(got.Err, want.err) {
			t.Errorf("%s-%d: %v", want.topic, want.partition, got.Err)
		}
	}
	// A deleted topic takes its offsets with it.
	if _, err := admin.DeleteTopics(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	for {
		fetched, err := admin.FetchOffsets(t.Context(), "g")
		if err != nil {
			t.Fatal(err)
		}
		if _, found := fetched.Lookup("t", 0); !found {
			t.Fatal("the other topic's offset is gone too")
		}
		if _, found := fetched.Lookup("gone", 0); !found {
			return
		}
	}
}

func dialTest(t *testing.T, addr string) (*wire.Client, error) {
	t.Helper()
	return wire.Dial(t.Context(), addr, wire.ClientOptions{ClientID: "test"})
}
