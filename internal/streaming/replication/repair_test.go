package replication

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
)

// damageSegment flips a bit of a stopped broker's log, in the records of its n-th batch.
func (c *testCluster) damageSegment(id cluster.BrokerID, at int64) {
	c.t.Helper()
	file, err := os.OpenFile(filepath.Join(c.brokers[id].dir, "t-0", fmt.Sprintf("%020d.log", 0)), os.O_RDWR, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	var b [1]byte
	if _, err := file.ReadAt(b[:], at); err != nil {
		c.t.Fatal(err)
	}
	b[0] ^= 4
	if _, err := file.WriteAt(b[:], at); err != nil {
		c.t.Fatal(err)
	}
}

// fill produces records so that the first batches lie below the recovery point.
func (c *testCluster) fill(count int) (values []string) {
	for i := range count {
		value := fmt.Sprintf("%d %s", i, strings.Repeat("x", 100))
		c.mustProduce(1, t0, value)
		values = append(values, value)
	}
	return values
}

// stopCleanly closes a broker's log as a shutdown does.
func (c *testCluster) stopCleanly(id cluster.BrokerID) {
	c.t.Helper()
	if err := c.brokers[id].logs.Close(true); err != nil {
		c.t.Fatal(err)
	}
	c.kill(id)
}

func (c *testCluster) fetchOnce(id cluster.BrokerID, from cluster.Offset) FetchResult {
	c.t.Helper()
	answered := make(chan FetchResult, 1)
	c.brokers[id].manager.Fetch(FetchRequest{
		Replica: ConsumerReplica, MaxBytes: 1 << 20,
		Parts: []FetchPart{{TP: t0, CurrentLeaderEpoch: cluster.NoLeaderEpoch, LastFetchedEpoch: cluster.NoLeaderEpoch, FetchOffset: from, MaxBytes: 1 << 20}},
	}, func(results []FetchResult) { answered <- results[0] })
	return <-answered
}

// A flipped bit in a leader's log: the range is refused with an error that sends clients away
// for a moment, a good copy is taken from a follower, and everything is served again.
func TestDamagedLeaderTakesACopyFromAFollower(t *testing.T) {
	c := newTestCluster(t, 2, nil)
	c.elect(t0, 1, []cluster.BrokerID{1, 2})
	values := c.fill(20)
	c.stopCleanly(1)
	c.damageSegment(1, 300)
	c.restart(1)
	c.elect(t0, 1, []cluster.BrokerID{1, 2})
	c.eventually("the log is mended", func() bool {
		result := c.fetchOnce(1, 0)
		if result.Slice != nil {
			_ = result.Slice.Close()
		}
		if result.Err != nil && !errors.Is(result.Err, kerr.KafkaStorageError) {
			t.Fatalf("answered %v", result.Err)
		}
		return result.Err == nil && len(c.brokers[1].logs.Damaged()) == 0 && slices.Equal(c.values(1, t0), values)
	})
}

// A flipped bit in a follower's log is mended from the leader; the follower stays in sync.
func TestDamagedFollowerTakesACopyFromTheLeader(t *testing.T) {
	c := newTestCluster(t, 2, nil)
	c.elect(t0, 1, []cluster.BrokerID{1, 2})
	values := c.fill(20)
	c.stopCleanly(2)
	c.damageSegment(2, 300)
	c.restart(2)
	c.elect(t0, 1, []cluster.BrokerID{1, 2})
	c.eventually("the follower reads its log", func() bool {
		result := c.fetchOnce(2, 0)
		if result.Slice != nil {
			_ = result.Slice.Close()
		}
		return result.Err == nil && len(c.brokers[2].logs.Damaged()) == 0
	})
	c.elect(t0, 2, []cluster.BrokerID{1, 2})
	c.eventually("the mended log leads", func() bool { return slices.Equal(c.values(2, t0), values) })
}

// Without another replica the damaged range stays refused, with the code that tells a consumer
// so, and the rest is served.
func TestDamageWithoutACopyIsRefused(t *testing.T) {
	c := newTestCluster(t, 1, nil)
	c.elect(t0, 1, []cluster.BrokerID{1})
	c.fill(20)
	c.stopCleanly(1)
	c.damageSegment(1, 300)
	c.restart(1)
	c.elect(t0, 1, []cluster.BrokerID{1})
	refused := 0
	for at := range cluster.Offset(20) {
		result := c.fetchOnce(1, at)
		if errors.Is(result.Err, kerr.CorruptMessage) {
			refused++
			continue
		}
		if result.Err != nil || result.Slice == nil || result.Slice.FirstOffset() != at {
			t.Fatalf("offset %d: %v", at, result.Err)
		}
		_ = result.Slice.Close()
	}
	if refused != 1 {
		t.Fatalf("%d offsets are refused, want one", refused)
	}
	if got := c.describe(1, t0); got.Offline || !got.IsLeader {
		t.Fatalf("%+v", got)
	}
}
