package replication

import (
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/commitlog"
)

func (c *testCluster) deleteRecords(id cluster.BrokerID, timeout time.Duration, parts ...DeleteRecordsPart) <-chan []DeleteRecordsResult {
	done := make(chan []DeleteRecordsResult, 1)
	c.brokers[id].manager.DeleteRecords(parts, timeout, func(results []DeleteRecordsResult) { done <- results })
	return done
}

func (c *testCluster) awaitDeleted(done <-chan []DeleteRecordsResult) DeleteRecordsResult {
	c.t.Helper()
	select {
	case results := <-done:
		return results[0]
	case <-time.After(20 * time.Second):
		c.t.Fatal("the deletion is not answered")
		panic("unreachable")
	}
}

func TestDeleteRecordsWaitsForTheFollowers(t *testing.T) {
	c := newTestCluster(t, 3, nil)
	c.elect(t0, 1, ids(1, 2, 3))
	c.mustProduce(1, t0, "a", "b", "c", "d")
	for _, before := range []cluster.Offset{2, DeleteToHighWatermark} {
		want := before
		if before == DeleteToHighWatermark {
			want = 4
		}
		if got := c.awaitDeleted(c.deleteRecords(1, time.Minute, DeleteRecordsPart{t0, before})); got.Err != nil || got.LowWatermark != want {
			t.Fatalf("before %d: %+v", before, got)
		}
		for _, id := range ids(1, 2, 3) {
			if start := c.describe(id, t0).LogStart; start != want {
				t.Errorf("before %d: the log of broker %d starts at %d when the answer is there", before, id, start)
			}
		}
	}
	if got := c.awaitDeleted(c.deleteRecords(1, time.Minute, DeleteRecordsPart{t0, 1})); got.Err != nil || got.LowWatermark != 4 {
		t.Errorf("what is gone already: %+v", got)
	}
}

func TestDeleteRecordsDoesNotWaitForTheDead(t *testing.T) {
	c := newTestCluster(t, 2, nil)
	c.elect(t0, 1, ids(1, 2))
	c.mustProduce(1, t0, "a", "b")
	c.kill(2)
	if got := c.awaitDeleted(c.deleteRecords(1, 20*time.Millisecond, DeleteRecordsPart{t0, 1})); !errors.Is(got.Err, kerr.RequestTimedOut) || got.LowWatermark != 0 {
		t.Errorf("while the dead follower is taken for alive: %+v", got)
	}
	waiting := c.deleteRecords(1, time.Minute, DeleteRecordsPart{t0, 2})
	c.publish()
	c.elect(t0, 1, ids(1))
	if got := c.awaitDeleted(waiting); got.Err != nil || got.LowWatermark != 2 {
		t.Errorf("once it is known to be dead: %+v", got)
	}
}

func TestDeleteRecordsEndsWithTheLeadership(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(c *testCluster)
		want *kerr.Error
	}{
		"another leads": {func(c *testCluster) { c.elect(t0, 2, ids(1, 2), 1) }, kerr.NotLeaderForPartition},
		"disk failed":   {func(c *testCluster) { c.brokers[1].manager.LogDirFailed(c.brokers[1].dir, errors.New("broken")) }, kerr.KafkaStorageError},
		"closed":        {func(c *testCluster) { c.kill(1) }, kerr.NotLeaderForPartition},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTestCluster(t, 2, nil)
			c.elect(t0, 1, ids(1, 2))
			c.mustProduce(1, t0, "a", "b")
			c.kill(2)
			waiting := c.deleteRecords(1, time.Minute, DeleteRecordsPart{t0, 1})
			test.end(c)
			if got := c.awaitDeleted(waiting); !errors.Is(got.Err, test.want) || got.LowWatermark != cluster.NoOffset {
				t.Errorf("%+v, want %v", got, test.want)
			}
		})
	}
}

func TestDeleteRecordsRefusals(t *testing.T) {
	c := newTestCluster(t, 2, nil)
	c.elect(t0, 1, ids(1, 2))
	c.mustProduce(1, t0, "a", "b")
	refused := func(what string, id cluster.BrokerID, part DeleteRecordsPart, want *kerr.Error) {
		t.Helper()
		if got := c.awaitDeleted(c.deleteRecords(id, time.Minute, part)); !errors.Is(got.Err, want) || got.LowWatermark != cluster.NoOffset {
			t.Errorf("%s: %+v, want %v", what, got, want)
		}
	}
	refused("by a follower", 2, DeleteRecordsPart{t0, 1}, kerr.NotLeaderForPartition)
	refused("of an unknown topic", 1, DeleteRecordsPart{cluster.TopicPartition{Topic: "nowhere"}, 1}, kerr.UnknownTopicOrPartition)
	refused("beyond the high watermark", 1, DeleteRecordsPart{t0, 3}, kerr.OffsetOutOfRange)
	refused("before a negative offset", 1, DeleteRecordsPart{t0, -2}, kerr.OffsetOutOfRange)
	c.topic = commitlog.DefaultLogConfig()
	c.topic.Delete, c.topic.Compact = false, true
	c.brokers[1].manager.UpdateTopicConfig("t")
	refused("of a compacted topic", 1, DeleteRecordsPart{t0, 1}, kerr.PolicyViolation)
}
