package controller

import (
	"reflect"
	"slices"
	"testing"

	"understudy/internal/streaming/cluster"
)

func among(list ...cluster.BrokerID) func(cluster.BrokerID) bool {
	return func(id cluster.BrokerID) bool { return slices.Contains(list, id) }
}

func TestElectionRules(t *testing.T) {
	state := func(leader cluster.BrokerID, isr ...cluster.BrokerID) cluster.PartitionState {
		return cluster.PartitionState{Leader: leader, LeaderEpoch: 7, ISR: isr}
	}
	offline := func(live []cluster.BrokerID, unclean bool) func(*cluster.PartitionState) (cluster.PartitionState, bool) {
		return func(s *cluster.PartitionState) (cluster.PartitionState, bool) {
			next, _, ok := electOffline(ids(1, 2, 3), s, among(live...), unclean)
			return next, ok
		}
	}
	tests := []struct {
		name   string
		before cluster.PartitionState
		rule   func(*cluster.PartitionState) (cluster.PartitionState, bool)
		leader cluster.BrokerID
		isr    []cluster.BrokerID
		reco   cluster.LeaderRecoveryState
		fails  bool
	}{
		{name: "offline: the order of the assignment decides, the ISR keeps its own", before: state(1, 3, 1, 2),
			rule: offline(ids(2, 3), false), leader: 2, isr: ids(3, 2)},
		{name: "offline: a live replica that is not in sync does not lead", before: state(1, 1, 3), rule: offline(ids(2, 3), false), leader: 3, isr: ids(3)},
		{name: "offline: nobody in sync is alive", before: state(1, 1), rule: offline(ids(2, 3), false), fails: true},
		{name: "offline, unclean allowed: the first that is alive, alone, recovering", before: state(1, 1),
			rule: offline(ids(2, 3), true), leader: 2, isr: ids(2), reco: cluster.Recovering},
		{name: "offline, unclean allowed: a clean leader is preferred", before: state(1, 1, 3), rule: offline(ids(2, 3), true), leader: 3, isr: ids(3)},
		{name: "offline, unclean allowed: nobody is alive", before: state(1, 1), rule: offline(nil, true), fails: true},
		{name: "reassign: first of the target that is alive and in sync, ISR unchanged", before: state(1, 1, 4, 5),
			rule: func(s *cluster.PartitionState) (cluster.PartitionState, bool) {
				return electReassign(ids(4, 5), s, among(5))
			}, leader: 5, isr: ids(1, 4, 5)},
		{name: "preferred", before: state(2, 2, 1),
			rule: func(s *cluster.PartitionState) (cluster.PartitionState, bool) {
				return electPreferred(ids(1, 2), s, among(1, 2))
			}, leader: 1, isr: ids(2, 1)},
		{name: "preferred: not in sync", before: state(2, 2),
			rule: func(s *cluster.PartitionState) (cluster.PartitionState, bool) {
				return electPreferred(ids(1, 2), s, among(1, 2))
			}, fails: true},
		{name: "controlled shutdown: all that leave go from the ISR", before: state(1, 1, 2, 3),
			rule: func(s *cluster.PartitionState) (cluster.PartitionState, bool) {
				return electShutdown(ids(1, 2, 3), s, among(1, 2, 3), among(1, 2))
			}, leader: 3, isr: ids(3)},
		{name: "controlled shutdown: nobody stays", before: state(1, 1),
			rule: func(s *cluster.PartitionState) (cluster.PartitionState, bool) {
				return electShutdown(ids(1, 2), s, among(1, 2), among(1))
			}, fails: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			next, ok := test.rule(&test.before)
			if ok == test.fails {
				t.Fatalf("found a leader: %v", ok)
			}
			if test.fails {
				return
			}
			want := test.before
			want.Leader, want.ISR, want.Recovery, want.LeaderEpoch = test.leader, test.isr, test.reco, 8
			if !reflect.DeepEqual(next, want) {
				t.Fatalf("got %+v, want %+v", next, want)
			}
		})
	}
}

func TestRemoveFromISR(t *testing.T) {
	tests := []struct {
		name    string
		leader  cluster.BrokerID
		isr     []cluster.BrokerID
		gone    []cluster.BrokerID
		want    cluster.BrokerID
		wantISR []cluster.BrokerID
		changed bool
	}{
		{"follower", 1, ids(1, 2, 3), ids(2), 1, ids(1, 3), true},
		{"not a member", 1, ids(1, 3), ids(2), 1, ids(1, 3), false},
		{"leader", 1, ids(1, 2), ids(1), -1, ids(2), true},
		{"the only member stays", 1, ids(1), ids(1), -1, ids(1), true},
		{"all at once: all stay", 1, ids(2, 1), ids(1, 2), -1, ids(2, 1), true},
		{"again", -1, ids(1), ids(1), -1, ids(1), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			before := cluster.PartitionState{Leader: test.leader, LeaderEpoch: 4, ISR: test.isr}
			next, changed := removeFromISR(&before, among(test.gone...))
			if next.Leader != test.want || !slices.Equal(next.ISR, test.wantISR) || changed != test.changed {
				t.Fatalf("got %+v, changed %v", next, changed)
			}
			if changed && next.LeaderEpoch != 5 {
				t.Fatalf("leader epoch %d", next.LeaderEpoch)
			}
		})
	}
}
