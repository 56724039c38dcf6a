package partition

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
)

// Verdict is what a LeaderAndIsr asks of one replica.
type Verdict uint8

const (
	Refuse         Verdict = iota // with the error beside it
	BecomeLeader                  //
	BecomeFollower                //
	AssignTopicID                 // equal epoch; the log gets its topic id
	DropTopicID                   // equal epoch; fetch without the id from now on
)

// Judge is the decision table of LeaderAndIsr for one partition, storage errors apart
// (ReplicaManager.becomeLeaderOrFollower). current is the known leader epoch, NoLeaderEpoch
// for a replica not hosted yet; logID the id in the log, requestID the one in the request.
func Judge(self cluster.BrokerID, current cluster.LeaderEpoch, role Role, logID, requestID cluster.TopicID, assignment *Assignment) (Verdict, error) {
	if !requestID.IsZero() && !logID.IsZero() && requestID != logID {
		return Refuse, kerr.InconsistentTopicID
	}
	switch epoch := assignment.LeaderEpoch; {
	case epoch > current && !slices.Contains(assignment.Replicas, self):
		return Refuse, kerr.UnknownTopicOrPartition
	case epoch > current && assignment.Leader == self:
		return BecomeLeader, nil
	case epoch > current:
		return BecomeFollower, nil
	case epoch < current:
		return Refuse, kerr.StaleControllerEpoch
	case !requestID.IsZero() && logID.IsZero():
		return AssignTopicID, nil
	case requestID.IsZero() && !logID.IsZero() && role == Follower:
		return DropTopicID, nil
	default:
		return Refuse, kerr.StaleControllerEpoch
	}
}

// JudgeStop is the rule of StopReplica for a hosted replica.
func JudgeStop(current, requested cluster.LeaderEpoch) error {
	if requested == cluster.NoLeaderEpoch || requested == cluster.EpochDuringDelete || requested >= current {
		return nil
	}
	return kerr.FencedLeaderEpoch
}

func checkEpoch(requested, current cluster.LeaderEpoch) error {
	switch {
	case requested == cluster.NoLeaderEpoch || requested == current:
		return nil
	case requested < current:
		return kerr.FencedLeaderEpoch
	default:
		return kerr.UnknownLeaderEpoch
	}
}

// EpochEnd is a leader epoch and where it ends; (-1, -1) is "not known".
type EpochEnd struct {
	Epoch cluster.LeaderEpoch
	End   cluster.Offset
}

func (e EpochEnd) known() bool { return e.Epoch != cluster.NoLeaderEpoch && e.End != cluster.NoOffset }

// Divergence is the leader's check of a fetch at offset by a replica whose last batch is of
// lastFetched; lookup is the leader's own cache for lastFetched. diverging: the fetcher has to
// truncate first, and its progress does not count.
func Divergence(lastFetched cluster.LeaderEpoch, offset, logStart cluster.Offset, lookup EpochEnd) (diverging bool, err error) {
	if !lookup.known() || offset < logStart {
		return false, kerr.OffsetOutOfRange
	}
	return lookup.Epoch < lastFetched || lookup.End < offset, nil
}

// TruncationOffset is the follower's answer to a leader's EpochEnd: where to cut. local is
// the follower's own lookup of the leader's epoch, done whether the logs are known to agree
// below the cut; if not, the next fetch tells the next divergence. (AbstractFetcherThread
// getOffsetTruncationState.)
func TruncationOffset(leader, local EpochEnd, fetchOffset, logEnd cluster.Offset) (offset cluster.Offset, done bool) {
	switch {
	case leader.End == cluster.NoOffset:
		return fetchOffset, true
	case leader.Epoch == cluster.NoLeaderEpoch:
		return min(leader.End, logEnd), true
	case !local.known():
		return min(leader.End, logEnd), true
	case local.Epoch != leader.Epoch:
		return min(local.End, logEnd), false
	default:
		return min(local.End, leader.End, logEnd), true
	}
}
