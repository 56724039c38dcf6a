package partition

import (
	"slices"
	"testing"

	"understudy/internal/streaming/cluster"
)

func TestNearReader(t *testing.T) {
	lead := func(logEnd cluster.Offset, isr ...cluster.BrokerID) *Replica {
		r := leaderOf(t, 0, isr...)
		r.Appended(logEnd, at(1))
		return r
	}
	ids := func(ids ...cluster.BrokerID) []cluster.BrokerID { return ids }
	near := func(ids ...cluster.BrokerID) func(cluster.BrokerID) bool {
		return func(id cluster.BrokerID) bool { return slices.Contains(ids, id) }
	}
	for _, test := range []struct {
		name    string
		isr     []cluster.BrokerID
		fetches []FollowerFetch
		offset  cluster.Offset
		near    []cluster.BrokerID
		want    cluster.BrokerID
	}{
		{"near the leader", ids(1, 2, 3), []FollowerFetch{{Replica: 2, Offset: 10}}, 5, ids(1, 2), cluster.NoBroker},
		{"near nobody", ids(1, 2, 3), []FollowerFetch{{Replica: 2, Offset: 10}}, 5, nil, cluster.NoBroker},
		{"near a follower", ids(1, 2, 3), []FollowerFetch{{Replica: 2, Offset: 10}}, 10, ids(2), 2},
		{"that has not fetched", ids(1, 2, 3), nil, 0, ids(2), cluster.NoBroker},
		{"that is not in sync", ids(1, 3), []FollowerFetch{{Replica: 2, Offset: 8}}, 5, ids(2), cluster.NoBroker},
		{"that lacks the offset", ids(1, 2, 3), []FollowerFetch{{Replica: 2, Offset: 9}}, 10, ids(2), cluster.NoBroker},
		{"that has deleted it", ids(1, 2, 3), []FollowerFetch{{Replica: 2, Offset: 10, LogStart: 6}}, 5, ids(2), cluster.NoBroker},
		{"the furthest log", ids(1, 2, 3), []FollowerFetch{{Replica: 3, Offset: 9}, {Replica: 2, Offset: 10}}, 5, ids(2, 3), 2},
		{"that caught up last", ids(1, 2, 3), []FollowerFetch{{Replica: 3, Offset: 10}, {Replica: 2, Offset: 10}}, 5, ids(2, 3), 2},
	} {
		r := lead(10, test.isr...)
		for i, fetch := range test.fetches {
			r.FollowerFetched(&fetch, at(Instant(10+i)))
		}
		if got, _ := r.NearReader(test.offset, near(test.near...)); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
	r := lead(10, 1, 2, 3)
	for _, id := range ids(2, 3) {
		r.FollowerFetched(&FollowerFetch{Replica: id, Offset: 10}, at(10))
	}
	if got, _ := r.NearReader(5, near(2, 3)); got != 3 {
		t.Errorf("of equals: %d, want the largest id", got)
	}
	r.MakeFollower(assign(2, 9, 11))
	if _, found := r.NearReader(5, near(3)); found {
		t.Error("a follower sends consumers elsewhere")
	}
}

func TestLowWatermark(t *testing.T) {
	r := leaderOf(t, 10, 1, 2, 3)
	if low := r.LowWatermark(5, alive); low != cluster.NoOffset {
		t.Errorf("before any fetch: %d", low)
	}
	r.FollowerFetched(&FollowerFetch{Replica: 2, Offset: 10, LogStart: 3}, at(10))
	r.FollowerFetched(&FollowerFetch{Replica: 3, Offset: 10, LogStart: 7}, at(10))
	if low := r.LowWatermark(5, alive); low != 3 {
		t.Errorf("low watermark %d, want the follower's 3", low)
	}
	if low := r.LowWatermark(5, func(id cluster.BrokerID) bool { return id != 2 }); low != 5 {
		t.Errorf("low watermark %d without the dead follower, want the leader's 5", low)
	}
}
