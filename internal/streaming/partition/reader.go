package partition

import (
	"cmp"
	"slices"

	"understudy/internal/streaming/cluster"
)

// NearReader is the in-sync follower that a consumer at an offset should rather read from
// (KIP-392): of those near it that have the offset the one whose log goes furthest, then the one
// that caught up last, then the one with the largest id (RackAwareReplicaSelector). None:
// this leader serves it, because it is near itself or no such follower is.
func (r *Replica) NearReader(offset cluster.Offset, near func(cluster.BrokerID) bool) (id cluster.BrokerID, found bool) {
	if r.role != Leader || near(r.settings.Self) {
		return cluster.NoBroker, false
	}
	var best *remote
	for i := range r.remotes {
		follower := &r.remotes[i]
		if follower.logEnd < offset || follower.logStart > offset || !slices.Contains(r.isr.committed, follower.id) || !near(follower.id) {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(follower.logEnd, best.logEnd), cmp.Compare(follower.lastCaughtUp, best.lastCaughtUp), cmp.Compare(follower.id, best.id)) > 0 {
			best = follower
		}
	}
	if best == nil {
		return cluster.NoBroker, false
	}
	return best.id, true
}
