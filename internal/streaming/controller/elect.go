package controller

import (
	"slices"

	"understudy/internal/streaming/cluster"
)

// The four election rules (Kafka: Election.scala, PartitionLeaderElectionAlgorithms). Each
// returns the state to write: leader epoch one higher, the rest as the rule says. The order
// of the assignment decides ties; the ISR keeps its order of joining.

// electOffline finds a leader for a partition whose leader is gone: the first assigned
// replica that is online and in sync. Only with unclean, and only if there is none, the
// first one that is merely online; then the ISR is it alone and it recovers (KIP-704).
func electOffline(assigned []cluster.BrokerID, state *cluster.PartitionState, online func(cluster.BrokerID) bool, unclean bool) (next cluster.PartitionState, wasUnclean, ok bool) {
	next = *state
	next.LeaderEpoch++
	for _, id := range assigned {
		if online(id) && slices.Contains(state.ISR, id) {
			next.Leader = id
			next.ISR = filter(state.ISR, online)
			return next, false, true
		}
	}
	if unclean {
		for _, id := range assigned {
			if online(id) {
				next.Leader, next.ISR, next.Recovery = id, []cluster.BrokerID{id}, cluster.Recovering
				return next, true, true
			}
		}
	}
	return *state, false, false
}

// electBounced is for a partition some of whose in-sync replicas have been away since its
// state was written. Those that stayed go on without them; if none stayed, the first that is
// online leads, in a new leader epoch even if it led before.
func electBounced(assigned []cluster.BrokerID, state *cluster.PartitionState, online func(cluster.BrokerID) bool, bounced []cluster.BrokerID) (cluster.PartitionState, bool) {
	stayed := func(id cluster.BrokerID) bool { return online(id) && !slices.Contains(bounced, id) }
	if state.Leader >= 0 && stayed(state.Leader) {
		return removeFromISR(state, func(id cluster.BrokerID) bool { return !stayed(id) })
	}
	if next, _, ok := electOffline(assigned, state, stayed, false); ok {
		return next, true
	}
	next, _, ok := electOffline(assigned, state, online, false)
	return next, ok
}

// electReassign finds a leader among the replicas that a reassignment leads to.
func electReassign(target []cluster.BrokerID, state *cluster.PartitionState, online func(cluster.BrokerID) bool) (cluster.PartitionState, bool) {
	for _, id := range target {
		if online(id) && slices.Contains(state.ISR, id) {
			next := *state
			next.Leader = id
			next.LeaderEpoch++
			return next, true
		}
	}
	return *state, false
}

// electPreferred makes the first assigned replica leader if it is online and in sync.
func electPreferred(assigned []cluster.BrokerID, state *cluster.PartitionState, online func(cluster.BrokerID) bool) (cluster.PartitionState, bool) {
	if len(assigned) == 0 {
		return *state, false
	}
	return electReassign(assigned[:1], state, online)
}

// electShutdown moves leadership off brokers that are shutting down: the first assigned
// replica that is in sync, has its log online and stays. The ISR loses all that leave.
func electShutdown(assigned []cluster.BrokerID, state *cluster.PartitionState, onlineOrLeaving, leaving func(cluster.BrokerID) bool) (cluster.PartitionState, bool) {
	for _, id := range assigned {
		if slices.Contains(state.ISR, id) && onlineOrLeaving(id) && !leaving(id) {
			next := *state
			next.Leader = id
			next.LeaderEpoch++
			next.ISR = filter(state.ISR, func(member cluster.BrokerID) bool { return !leaving(member) })
			return next, true
		}
	}
	return *state, false
}

// removeFromISR takes replicas out of the ISR, and the leadership from a leader among them.
// An ISR is never emptied: where all its members are gone, all stay, because each of them
// has every committed record, and whichever returns first may lead. (Kafka removes them
// one after the other and keeps the last.) changed is false if there is nothing to write.
func removeFromISR(state *cluster.PartitionState, gone func(cluster.BrokerID) bool) (next cluster.PartitionState, changed bool) {
	next = *state
	rest := filter(state.ISR, func(id cluster.BrokerID) bool { return !gone(id) })
	if len(rest) == 0 {
		rest = state.ISR
	}
	if state.Leader >= 0 && gone(state.Leader) {
		next.Leader = cluster.NoBroker
	}
	next.ISR = rest
	if next.Leader == state.Leader && len(rest) == len(state.ISR) {
		return *state, false
	}
	next.LeaderEpoch++
	return next, true
}

func filter(list []cluster.BrokerID, keep func(cluster.BrokerID) bool) []cluster.BrokerID {
	out := make([]cluster.BrokerID, 0, len(list))
	for _, id := range list {
		if keep(id) {
			out = append(out, id)
		}
	}
	return out
}

// sameState compares what is stored of two states; the partition epoch is not.
func sameState(a, b *cluster.PartitionState) bool {
	return a.Leader == b.Leader && a.LeaderEpoch == b.LeaderEpoch && a.Recovery == b.Recovery &&
		a.ControllerEpoch == b.ControllerEpoch && slices.Equal(a.ISR, b.ISR)
}
