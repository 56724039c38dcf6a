package partition

import (
	"errors"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
)

// isrState is the in-sync set and the one change of it that may be under way (KIP-497).
//
//	noChange  committed is the truth
//	expand    asked for: committed + one; until it is known to have failed, acks=all must
//	          wait for the new member, too, because the controller may already count on it
//	shrink    asked for: committed - some; until it is known to have succeeded, the old set
//	          counts, because the controller may still elect from it
//
// So the high watermark and acks=all use the maximal set, min ISR checks the committed one.
type isrState struct {
	committed []cluster.BrokerID // in order of joining; never sorted
	pending   pendingKind
	proposed  []cluster.BrokerID
	sequence  uint64 // of the change under way; answers to earlier ones are ignored
}

type pendingKind uint8

const (
	noChange pendingKind = iota
	expand
	shrink
)

func (s *isrState) maximal() []cluster.BrokerID {
	if s.pending == expand {
		return s.proposed
	}
	return s.committed
}

// commit ends whatever is under way: isr is what the controller has.
func (s *isrState) commit(isr []cluster.BrokerID) {
	s.committed = slices.Clone(isr)
	s.revert()
}

func (s *isrState) revert() {
	s.pending = noChange
	s.proposed = nil
	s.sequence++
}

// Change is an ISR change to be sent to the controller. It stays under way until ChangeDone
// is called with its Sequence.
type Change struct {
	Sequence       uint64
	LeaderEpoch    cluster.LeaderEpoch
	PartitionEpoch cluster.PartitionEpoch
	ISR            []cluster.BrokerID
	Epochs         []cluster.BrokerEpoch // per member; UnknownBrokerEpoch where not known, and for ourselves
	Recovery       cluster.LeaderRecoveryState
}

func (r *Replica) propose(kind pendingKind, isr []cluster.BrokerID) *Change {
	r.isr.pending = kind
	r.isr.proposed = isr
	r.isr.sequence++
	return r.currentChange()
}

func (r *Replica) currentChange() *Change {
	change := &Change{
		Sequence: r.isr.sequence, LeaderEpoch: r.leaderEpoch, PartitionEpoch: r.partitionEpoch,
		ISR: slices.Clone(r.isr.proposed), Recovery: r.recovery,
	}
	for _, id := range change.ISR {
		epoch := cluster.UnknownBrokerEpoch
		if follower := r.remote(id); follower != nil {
			epoch = follower.epoch
		}
		change.Epochs = append(change.Epochs, epoch)
	}
	return change
}

// maybeExpand proposes to take in a follower that has everything committed and everything of
// the present epoch's beginning: without the second condition a follower could join whose log
// still diverges below the epoch's start, where the high watermark has not got to yet.
func (r *Replica) maybeExpand(follower *remote, env *Environment) *Change {
	if r.isr.pending != noChange || slices.Contains(r.isr.committed, follower.id) {
		return nil
	}
	if follower.logEnd < r.highWatermark || follower.logEnd < r.epochStartOffset || !env.Alive(follower.id) {
		return nil
	}
	return r.propose(expand, append(slices.Clone(r.isr.committed), follower.id))
}

// MaybeShrink proposes to drop the members that have not caught up for the lag time; it is
// called every half lag time. nil: nothing to do.
func (r *Replica) MaybeShrink(env *Environment) *Change {
	if r.role != Leader || r.isr.pending != noChange {
		return nil
	}
	keep := make([]cluster.BrokerID, 0, len(r.isr.committed))
	for _, id := range r.isr.committed {
		follower := r.remote(id)
		if id == r.settings.Self || follower != nil && r.caughtUp(follower, env.Now) {
			keep = append(keep, id)
		}
	}
	if len(keep) == len(r.isr.committed) {
		return nil
	}
	return r.propose(shrink, keep)
}

// ChangeDone takes the controller's answer to the change with this sequence. It reports
// whether the high watermark moved, and a change to send now (again, if the error asks for
// it), or nil.
func (r *Replica) ChangeDone(sequence uint64, committed *cluster.PartitionState, err error, env *Environment) (moved bool, again *Change) {
	if r.role != Leader || r.isr.pending == noChange || r.isr.sequence != sequence {
		return false, nil // superseded by a LeaderAndIsr
	}
	if err == nil {
		if committed.LeaderEpoch != r.leaderEpoch || committed.PartitionEpoch < r.partitionEpoch {
			return false, nil
		}
		r.isr.commit(committed.ISR)
		r.partitionEpoch = committed.PartitionEpoch
		for i := range r.remotes {
			r.remotes[i].ineligible = r.remotes[i].ineligible && !slices.Contains(r.isr.committed, r.remotes[i].id)
		}
		return r.advanceHighWatermark(env), nil
	}
	switch reactionTo(err) {
	case revertChange:
		if errors.Is(err, kerr.IneligibleReplica) {
			for i := range r.remotes {
				r.remotes[i].ineligible = slices.Contains(r.isr.proposed, r.remotes[i].id) && !slices.Contains(r.isr.committed, r.remotes[i].id)
			}
		}
		r.isr.revert()
		return r.advanceHighWatermark(env), nil
	case stayPending:
		return false, nil
	default:
		return false, r.currentChange()
	}
}

// Reaction is what a leader does about a refused ISR change.
type reaction uint8

const (
	resubmit     reaction = iota
	revertChange          // back to the committed set; the next trigger may try again
	stayPending           // no change until the next LeaderAndIsr
)

var reactions = []struct {
	err      *kerr.Error
	reaction reaction
}{
	{kerr.OperationNotAttempted, revertChange},
	{kerr.IneligibleReplica, revertChange},
	{kerr.UnknownTopicOrPartition, stayPending},
	{kerr.UnknownTopicID, stayPending},
	{kerr.FencedLeaderEpoch, stayPending},
	{kerr.InvalidUpdateVersion, stayPending},
	{kerr.InvalidRequest, stayPending},
	{kerr.NewLeaderElected, stayPending},
}

func reactionTo(err error) reaction {
	for _, entry := range reactions {
		if errors.Is(err, entry.err) {
			return entry.reaction
		}
	}
	return resubmit
}
