package replication

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/commitlog"
)

func ids(ids ...cluster.BrokerID) []cluster.BrokerID { return ids }

func TestAcksAllWaitsForTheISR(t *testing.T) {
	c := newTestCluster(t, 3, nil)
	c.elect(t0, 1, ids(1, 2, 3))
	for i := range 20 {
		c.mustProduce(1, t0, fmt.Sprintf("v%d", i))
	}
	want := c.values(1, t0)
	if len(want) != 20 {
		t.Fatalf("leader has %q", want)
	}
	for _, follower := range ids(2, 3) {
		if got := c.values(follower, t0); !slices.Equal(got, want) {
			t.Errorf("broker %d has %q", follower, got)
		}
		c.eventually("the follower learns the high watermark", func() bool { return c.describe(follower, t0).HighWatermark == 20 })
	}
}

func TestRefusals(t *testing.T) {
	c := newTestCluster(t, 2, nil)
	c.elect(t0, 1, ids(1, 2))
	result := c.await(c.produce(2, t0, AcksAll, "x"))
	if !errors.Is(result.Err, kerr.NotLeaderForPartition) || result.Leader != (LeaderHint{1, 0}) {
		t.Errorf("produce to a follower: %+v", result)
	}
	result = c.await(c.produce(1, cluster.TopicPartition{Topic: "nowhere"}, AcksAll, "x"))
	if !errors.Is(result.Err, kerr.UnknownTopicOrPartition) {
		t.Errorf("produce to an unknown topic: %+v", result)
	}
	result = c.await(c.produce(1, t0, 7, "x"))
	if !errors.Is(result.Err, kerr.InvalidRequiredAcks) {
		t.Errorf("acks 7: %+v", result)
	}
}

func TestMinISR(t *testing.T) {
	c := newTestCluster(t, 2, nil)
	c.topic.MinInsyncReplicas = 2
	c.elect(t0, 1, ids(1, 2))
	c.mustProduce(1, t0, "a")
	c.kill(2)
	c.publish()
	waiting := c.produce(1, t0, AcksAll, "b") // appended while the ISR was large enough
	c.elect(t0, 1, ids(1))
	if result := c.await(c.produce(1, t0, AcksAll, "c")); !errors.Is(result.Err, kerr.NotEnoughReplicas) {
		t.Errorf("below min ISR: %v", result.Err)
	}
	if result := c.await(c.produce(1, t0, AcksLeader, "d")); result.Err != nil {
		t.Errorf("acks=1 below min ISR: %v", result.Err)
	}
	if hw := c.describe(1, t0).HighWatermark; hw != 1 {
		t.Errorf("high watermark %d moved below min ISR", hw)
	}
	c.restart(2)
	c.tell(2, t0)
	if result := c.await(waiting); result.Err != nil {
		t.Errorf("the waiting append: %v", result.Err)
	}
}

func TestLowerMinISRCommitsWhatWaited(t *testing.T) {
	c := newTestCluster(t, 1, nil)
	c.topic.MinInsyncReplicas = 2
	c.elect(t0, 1, ids(1, 2))
	c.elect(t0, 1, ids(1))
	if result := c.await(c.produce(1, t0, AcksLeader, "a")); result.Err != nil || c.describe(1, t0).HighWatermark != 0 {
		t.Fatalf("%+v, high watermark %d", result, c.describe(1, t0).HighWatermark)
	}
	c.topic.MinInsyncReplicas = 1
	c.brokers[1].manager.UpdateTopicConfig("t")
	if hw := c.describe(1, t0).HighWatermark; hw != 1 {
		t.Errorf("high watermark %d", hw)
	}
}

func TestUnreadTopicConfigIsReadAgain(t *testing.T) {
	var reads atomic.Int32
	c := newTestCluster(t, 1, func(config *Config) {
		read := config.TopicConfig
		config.TopicConfig = func(topic string) (commitlog.LogConfig, error) {
			if reads.Add(1) < 3 {
				return commitlog.LogConfig{}, errors.New("no connection to the ensemble")
			}
			return read(topic)
		}
	})
	c.elect(t0, 1, ids(1))
	if c.brokers[1].manager.Hosted(t0) {
		t.Fatal("hosted without a configuration")
	}
	c.eventually("the role is taken", func() bool { return c.describe(1, t0).IsLeader })
	c.mustProduce(1, t0, "a")
}

func TestAppendTimesOut(t *testing.T) {
	c := newTestCluster(t, 1, nil)
	c.elect(t0, 1, ids(1, 2)) // broker 2 does not exist
	done := make(chan AppendResult, 1)
	c.brokers[1].manager.Append(AppendRequest{Parts: []AppendPart{{t0, batchOf("x")}}, Acks: AcksAll, Timeout: 20 * time.Millisecond},
		func(results []AppendResult) { done <- results[0] })
	if result := c.await(done); !errors.Is(result.Err, kerr.RequestTimedOut) {
		t.Errorf("%+v", result)
	}
}

func TestFailover(t *testing.T) {
	c := newTestCluster(t, 3, nil)
	c.elect(t0, 1, ids(1, 2, 3))
	c.mustProduce(1, t0, "a", "b")
	c.kill(1)
	c.publish()
	c.elect(t0, 2, ids(2, 3))
	c.mustProduce(2, t0, "c")
	c.restart(1)
	c.tell(1, t0)
	c.eventually("broker 1 is back in the ISR", func() bool { return len(c.describe(2, t0).ISR) == 3 })
	c.mustProduce(2, t0, "d")
	for _, id := range ids(1, 2, 3) {
		if got := c.values(id, t0); strings.Join(got, "") != "abcd" {
			t.Errorf("broker %d has %q", id, got)
		}
	}
}

func TestLeavingBrokerDoesNotFollow(t *testing.T) {
	c := newTestCluster(t, 3, nil)
	c.elect(t0, 3, ids(1, 2, 3))
	manager := c.brokers[3].manager
	fetchers := func() int {
		manager.fetchers.Lock()
		defer manager.fetchers.Unlock()
		return len(manager.fetchers.byKey)
	}
	manager.Leave()
	c.elect(t0, 1, ids(1, 2))
	if got := fetchers(); got != 0 {
		t.Errorf("%d fetchers after leadership went to brokers 1 and 2", got)
	}
	c.elect(t0, 2, ids(1, 2, 3))
	if got := fetchers(); got != 1 {
		t.Errorf("%d fetchers, and acks=all waits for us", got)
	}
	c.mustProduce(2, t0, "a")
}

func TestDivergentTailIsTruncated(t *testing.T) {
	c := newTestCluster(t, 3, nil)
	c.elect(t0, 1, ids(1, 2, 3))
	c.mustProduce(1, t0, "a")
	c.kill(2)
	c.kill(3)
	c.publish()
	lost := c.produce(1, t0, AcksAll, "never acknowledged")
	c.produce(1, t0, AcksLeader, "nor this")
	c.kill(1)
	if result := c.await(lost); !errors.Is(result.Err, kerr.NotLeaderForPartition) {
		t.Errorf("the append of a leader that stopped: %+v", result)
	}
	c.restart(2)
	c.restart(3)
	c.elect(t0, 2, ids(2, 3))
	c.mustProduce(2, t0, "b")
	c.mustProduce(2, t0, "c")
	c.mustProduce(2, t0, "d")
	c.restart(1)
	c.tell(1, t0)
	c.eventually("broker 1 is back in the ISR", func() bool { return len(c.describe(2, t0).ISR) == 3 })
	c.mustProduce(2, t0, "e")
	for _, id := range ids(1, 2, 3) {
		if got := c.values(id, t0); strings.Join(got, "") != "abcde" {
			t.Errorf("broker %d has %q", id, got)
		}
	}
}

func TestISRShrinksAndExpands(t *testing.T) {
	c := newTestCluster(t, 3, func(config *Config) { config.ReplicaLagTimeMax = 300 * time.Millisecond })
	c.elect(t0, 1, ids(1, 2, 3))
	c.mustProduce(1, t0, "a")
	c.kill(3)
	done := c.produce(1, t0, AcksAll, "b") // has to wait for the shrink
	if result := c.await(done); result.Err != nil {
		t.Fatal(result.Err)
	}
	if isr := c.describe(1, t0).ISR; !slices.Equal(isr, ids(1, 2)) {
		t.Fatalf("ISR %v", isr)
	}
	c.restart(3)
	c.tell(3, t0)
	c.eventually("broker 3 is back", func() bool { return slices.Equal(c.describe(1, t0).ISR, ids(1, 2, 3)) })
}

func TestRefusedExpansionIsTriedAgain(t *testing.T) {
	c := newTestCluster(t, 2, func(config *Config) { config.FetchMaxWait = 20 * time.Millisecond })
	c.mu.Lock()
	c.refuse = kerr.IneligibleReplica
	c.mu.Unlock()
	c.elect(t0, 1, ids(1, 2))
	c.elect(t0, 1, ids(1))
	c.mustProduce(1, t0, "a")
	c.eventually("broker 2 has everything", func() bool { return c.describe(2, t0).LogEnd == 1 })
	c.mu.Lock()
	c.refuse = nil
	c.mu.Unlock()
	c.eventually("broker 2 is in the ISR", func() bool { return len(c.describe(1, t0).ISR) == 2 })
}

func TestFollowerToldBeforeItsLeader(t *testing.T) {
	c := newTestCluster(t, 2, func(config *Config) { config.FetchBackoff = time.Hour })
	// The follower asks for a partition that its leader does not host yet, and later in an
	// epoch that the leader does not know yet. Neither may cost a backoff.
	c.elect(t0, 1, ids(1, 2), 2)
	c.tell(1, t0)
	c.mustProduce(1, t0, "a")
	c.elect(t0, 1, ids(1, 2), 2)
	c.tell(1, t0)
	c.mustProduce(1, t0, "b")
}

func TestNewPartitionDoesNotWaitForALongPoll(t *testing.T) {
	c := newTestCluster(t, 2, func(config *Config) { config.FetchMaxWait = time.Hour })
	c.elect(t0, 1, ids(1, 2))
	c.mustProduce(1, t0, "a")
	t1 := cluster.TopicPartition{Topic: "t", Partition: 1}
	c.elect(t1, 1, ids(1, 2))
	c.mustProduce(1, t1, "b")
	c.mustProduce(1, t0, "c")
}

func TestLostSessionSuspendsLeadership(t *testing.T) {
	c := newTestCluster(t, 2, nil)
	c.elect(t0, 1, ids(1, 2))
	c.mustProduce(1, t0, "a")
	c.kill(2)
	waiting := c.produce(1, t0, AcksAll, "b")
	leader := c.brokers[1]
	leader.manager.SuspendLeadership("test")
	if result := c.await(waiting); !errors.Is(result.Err, kerr.NotLeaderForPartition) {
		t.Errorf("the waiting append: %v", result.Err)
	}
	if result := c.await(c.produce(1, t0, AcksLeader, "c")); !errors.Is(result.Err, kerr.NotLeaderForPartition) {
		t.Errorf("a new append: %v", result.Err)
	}
	// What the controller sent to the old incarnation proves nothing.
	c.tell(1, t0)
	if !c.describe(1, t0).Suspended {
		t.Error("an old LeaderAndIsr gave leadership back")
	}
	leader.epoch++
	c.tell(1, t0)
	if result := c.await(c.produce(1, t0, AcksLeader, "d")); result.Err != nil {
		t.Errorf("after the controller's word: %v", result.Err)
	}
}

func TestPausedLeaderDoesNotAcknowledge(t *testing.T) {
	var confirm atomic.Bool
	c := newTestCluster(t, 1, func(config *Config) {
		config.ConfirmSession = func(context.Context) error {
			if confirm.Load() {
				return nil
			}
			return errors.New("not now")
		}
	})
	c.elect(t0, 1, ids(1))
	c.mustProduce(1, t0, "a")
	m := c.brokers[1].manager
	m.right.lastTick.Add(-int64(10 * time.Second)) // as if the ticker had slept
	if result := c.await(c.produce(1, t0, AcksLeader, "b")); !errors.Is(result.Err, kerr.NotLeaderForPartition) {
		t.Errorf("acknowledged after a pause: %+v", result)
	}
	confirm.Store(true)
	c.eventually("leadership is resumed", func() bool { return !c.describe(1, t0).Suspended })
	if result := c.await(c.produce(1, t0, AcksAll, "c")); result.Err != nil {
		t.Error(result.Err)
	}
	if got := c.values(1, t0); strings.Join(got, "") != "ac" {
		t.Errorf("log %q", got)
	}
}

func TestControlValidation(t *testing.T) {
	c := newTestCluster(t, 1, nil)
	c.elect(t0, 1, ids(1))
	b := c.brokers[1]
	response := b.manager.LeaderAndISR(c.leaderAndISR(b.epoch, t0))
	if code := response.Topics[0].Partitions[0].ErrorCode; code != kerr.StaleControllerEpoch.Code {
		t.Errorf("the same again: code %d", code)
	}
	if response := b.manager.LeaderAndISR(c.leaderAndISR(b.epoch-1, t0)); response.ErrorCode != kerr.StaleBrokerEpoch.Code {
		t.Errorf("an old broker epoch: code %d", response.ErrorCode)
	}
	request := c.leaderAndISR(b.epoch, t0)
	request.ControllerEpoch = 0
	if response := b.manager.LeaderAndISR(request); response.ErrorCode != kerr.StaleControllerEpoch.Code {
		t.Errorf("an old controller: code %d", response.ErrorCode)
	}
}

func TestRoleChangesAreTold(t *testing.T) {
	c := newTestCluster(t, 2, nil)
	told := make(chan string, 10)
	c.brokers[1].manager.OnRoleChange("t", func(partition int32, epoch cluster.LeaderEpoch, leader bool) {
		told <- fmt.Sprint(partition, epoch, leader)
	})
	c.elect(t0, 1, ids(1, 2))
	c.elect(t0, 2, ids(1, 2))
	c.elect(t0, 2, ids(1, 2))
	c.elect(t0, 1, ids(1, 2))
	close(told)
	var got []string
	for event := range told {
		got = append(got, event)
	}
	if want := []string{"0 0 true", "0 1 false", "0 3 true"}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

func TestConsumerFetch(t *testing.T) {
	c := newTestCluster(t, 2, nil)
	c.elect(t0, 1, ids(1, 2))
	fetch := func(offset cluster.Offset, wait time.Duration, minBytes int32) <-chan FetchResult {
		done := make(chan FetchResult, 1)
		c.brokers[1].manager.Fetch(FetchRequest{
			Replica: ConsumerReplica, MaxWait: wait, MinBytes: minBytes, MaxBytes: 1 << 20,
			Parts: []FetchPart{{TP: t0, CurrentLeaderEpoch: -1, LastFetchedEpoch: -1, FetchOffset: offset, MaxBytes: 1 << 20}},
		}, func(results []FetchResult) { done <- results[0] })
		return done
	}
	waiting := fetch(0, time.Hour, 1)
	c.mustProduce(1, t0, "a")
	result := <-waiting
	if result.Err != nil || result.Slice == nil || result.HighWatermark != 1 {
		t.Fatalf("%+v", result)
	}
	data, _ := result.Slice.ReadAll()
	_ = result.Slice.Close()
	if got := valuesOf(t, data); !slices.Equal(got, []string{"a"}) {
		t.Errorf("read %q", got)
	}
	if result := <-fetch(1, 10*time.Millisecond, 1); result.Err != nil || result.Slice != nil {
		t.Errorf("an empty fetch: %+v", result)
	}
	if result := <-fetch(9, time.Hour, 1); !errors.Is(result.Err, kerr.OffsetOutOfRange) {
		t.Errorf("out of range: %+v", result)
	}
	waiting = fetch(1, time.Hour, 150)
	c.mustProduce(1, t0, "b")
	select {
	case result := <-waiting:
		t.Errorf("answered with too few bytes: %+v", result)
	default:
	}
	c.mustProduce(1, t0, strings.Repeat("c", 150))
	if result := <-waiting; result.Slice == nil || result.Slice.Size() < 150 {
		t.Errorf("%+v", result)
	} else {
		_ = result.Slice.Close()
	}
	waiting = fetch(3, time.Hour, 1)
	c.elect(t0, 2, ids(1, 2))
	// A follower serves consumers that do not insist on the leader; this one waits on.
	c.mustProduce(2, t0, "d")
	if result := <-waiting; result.Err != nil || result.Slice == nil {
		t.Errorf("after the leader changed: %+v", result)
	} else {
		_ = result.Slice.Close()
	}
}

func TestFetchIsCancelled(t *testing.T) {
	c := newTestCluster(t, 1, nil)
	c.elect(t0, 1, ids(1))
	done := make(chan struct{})
	cancel := c.brokers[1].manager.Fetch(FetchRequest{
		Replica: ConsumerReplica, MaxWait: time.Hour, MinBytes: 1,
		Parts: []FetchPart{{TP: t0, CurrentLeaderEpoch: -1, LastFetchedEpoch: -1}},
	}, func([]FetchResult) { close(done) })
	cancel()
	<-done
	cancel()
}

func TestListOffsetsAndEndOffsets(t *testing.T) {
	c := newTestCluster(t, 2, nil)
	c.elect(t0, 1, ids(1, 2))
	c.mustProduce(1, t0, "a", "b")
	c.elect(t0, 1, ids(1, 2))
	c.mustProduce(1, t0, "c")
	m := c.brokers[1].manager
	for timestamp, want := range map[int64]cluster.Offset{-1: 3, -2: 0, 0: 0} {
		got := m.ListOffsets(ConsumerReplica, ReadUncommitted, []ListOffsetsPart{{t0, -1, timestamp}})[0]
		if got.Err != nil || got.Offset != want {
			t.Errorf("timestamp %d: %+v", timestamp, got)
		}
	}
	if got := m.EndOffsetForLeaderEpoch([]EndOffsetPart{{t0, 1, 0}})[0]; got != (EndOffsetResult{nil, 0, 2}) {
		t.Errorf("end of epoch 0: %+v", got)
	}
	if got := m.EndOffsetForLeaderEpoch([]EndOffsetPart{{t0, 5, 0}})[0]; !errors.Is(got.Err, kerr.UnknownLeaderEpoch) {
		t.Errorf("unknown epoch: %+v", got)
	}
	data, next, end, err := m.ReadLocal(t0, 0, 1<<20)
	if err != nil || next != 3 || end != 3 || len(valuesOf(t, data)) != 3 {
		t.Errorf("local read: next %d end %d err %v", next, end, err)
	}
}

func TestStopReplicaDeletes(t *testing.T) {
	c := newTestCluster(t, 2, nil)
	c.elect(t0, 1, ids(1, 2))
	c.mustProduce(1, t0, "a")
	waiting := make(chan FetchResult, 1)
	m := c.brokers[1].manager
	m.Fetch(FetchRequest{
		Replica: ConsumerReplica, MaxWait: time.Hour, MinBytes: 1,
		Parts: []FetchPart{{TP: t0, CurrentLeaderEpoch: -1, LastFetchedEpoch: -1, FetchOffset: 1}},
	}, func(results []FetchResult) { waiting <- results[0] })
	request := stopReplica(c.brokers[1].epoch, t0, -2, true)
	if response := m.StopReplica(request); response.ErrorCode != 0 || response.Partitions[0].ErrorCode != 0 {
		t.Fatalf("%+v", response)
	}
	if result := <-waiting; !errors.Is(result.Err, kerr.UnknownTopicOrPartition) {
		t.Errorf("the waiting fetch: %+v", result)
	}
	if m.Hosted(t0) || c.brokers[1].logs.Get(t0) != nil {
		t.Error("still there")
	}
}

func TestManyPartitionsAndTopicsOfWork(t *testing.T) {
	c := newTestCluster(t, 3, func(config *Config) { config.NumFetchers = 2 })
	var parts []AppendPart
	for i := range int32(30) {
		tp := cluster.TopicPartition{Topic: "t", Partition: i}
		c.elect(tp, 1, ids(1, 2, 3))
		parts = append(parts, AppendPart{tp, nil})
	}
	for range 10 {
		for i := range parts {
			parts[i].Records = batchOf("x")
		}
		done := make(chan []AppendResult, 1)
		c.brokers[1].manager.Append(AppendRequest{Parts: parts, Acks: AcksAll, Timeout: 10 * time.Second, Origin: commitlog.Client},
			func(results []AppendResult) { done <- results })
		for i, result := range <-done {
			if result.Err != nil {
				t.Fatalf("partition %d: %v", i, result.Err)
			}
		}
	}
}

func TestFetcherNumber(t *testing.T) {
	// abs(31 * "t".hashCode() + partition) % 4, by hand: 31 * 116 = 3596.
	for partition, want := range map[int32]int{0: 0, 1: 1, 5: 1} {
		if got := fetcherNumber(cluster.TopicPartition{Topic: "t", Partition: partition}, 4); got != want {
			t.Errorf("partition %d: %d, want %d", partition, got, want)
		}
	}
}
