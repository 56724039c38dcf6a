package partition

import "understudy/internal/streaming/cluster"

// LowWatermark is the offset below which no replica on a live broker has records any more, as
// far as the leader has heard: the smallest log start offset. Of a follower that has not
// fetched yet in this leadership nothing is known, and it counts as NoOffset.
func (r *Replica) LowWatermark(logStart cluster.Offset, alive func(cluster.BrokerID) bool) cluster.Offset {
	low := logStart
	for i := range r.remotes {
		if follower := &r.remotes[i]; follower.logStart < low && alive(follower.id) {
			low = follower.logStart
		}
	}
	return low
}
