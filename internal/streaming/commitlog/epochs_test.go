package commitlog

import (
	"testing"

	"understudy/internal/streaming/cluster"
)

func TestEndOffsetForEpochsThatAreNotThere(t *testing.T) {
	c := epochCache{entries: []epochEntry{{epoch: 3, start: 5}, {epoch: 6, start: 8}}}
	for _, test := range []struct {
		asked, epoch cluster.LeaderEpoch
		end          cluster.Offset
	}{
		{cluster.NoLeaderEpoch, cluster.NoLeaderEpoch, cluster.NoOffset},
		{-2, -2, 5}, // only -1 is none; Kafka looks for any other
		{0, 0, 5}, {3, 3, 8}, {4, 3, 8}, {6, 6, 10},
		{7, cluster.NoLeaderEpoch, cluster.NoOffset},
	} {
		if epoch, end := c.endOffsetFor(test.asked, 10); epoch != test.epoch || end != test.end {
			t.Errorf("epoch %d: %d ends at %d, want %d at %d", test.asked, epoch, end, test.epoch, test.end)
		}
	}
}
