package replication

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
)

// A leader that commits what earlier leaders had left has it on its disk that it leads.
func TestLeadershipIsNoted(t *testing.T) {
	for _, durable := range []bool{false, true} {
		c := newTestCluster(t, 3, nil)
		if durable {
			c.topic.FlushMessages = 1
		}
		c.elect(t0, 1, ids(1, 2, 3))
		c.mustProduce(1, t0, "a", "b")
		c.eventually("everybody has what is committed", func() bool {
			return c.describe(2, t0).HighWatermark == 2 && c.describe(3, t0).HighWatermark == 2
		})
		c.kill(3) // it stays in the ISR: nothing is committed any more
		c.produce(1, t0, 1, "c")
		c.eventually("broker 2 has the record", func() bool { return c.describe(2, t0).LogEnd == 3 })
		c.kill(1)
		ask := func(id cluster.BrokerID) ListOffsetsResult {
			return c.brokers[id].manager.ListOffsets(DebugReplica, ReadUncommitted, []ListOffsetsPart{{TP: t0, CurrentLeaderEpoch: cluster.NoLeaderEpoch, Timestamp: cluster.EpochBeginTimestamp}})[0]
		}
		if got := ask(2); got.Err != nil || got.LeaderEpoch != cluster.NoLeaderEpoch || got.Offset != cluster.NoOffset {
			t.Errorf("before it leads: %+v", got)
		}
		c.elect(t0, 2, ids(2))
		c.eventually("the record is committed", func() bool { return c.describe(2, t0).HighWatermark == 3 })
		want := ListOffsetsResult{LeaderEpoch: 1, Offset: 3, Timestamp: 0}
		if got := ask(2); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		c.kill(2)
		c.restart(2)
		c.elect(t0, cluster.NoBroker, ids(2), 2)
		if got := ask(2); got != want {
			t.Errorf("the next process: %+v, want %+v", got, want)
		}
		consumer := []ListOffsetsPart{{TP: t0, CurrentLeaderEpoch: cluster.NoLeaderEpoch, Timestamp: cluster.EpochBeginTimestamp}}
		if got := c.brokers[2].manager.ListOffsets(ConsumerReplica, ReadUncommitted, consumer)[0]; !errors.Is(got.Err, kerr.UnsupportedVersion) {
			t.Errorf("a consumer is told %+v", got)
		}
		for id := range c.brokers {
			c.kill(id)
		}
	}
}
