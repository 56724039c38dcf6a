// Package partition holds the rules of one replica of one partition, as plain state: its
// role and epochs, what a leader knows of its followers, the in-sync set with the change
// that is under way, the high watermark, and the appends that wait for it. Events go in
// (a role, an append, a follower's fetch, the controller's answer), effects come out as
// values (the high watermark moved, this ISR change is to be sent, these waiters are to be
// released). There is no log, no clock, no lock and no goroutine here: time is an argument,
// and the caller (package replication) serialises the calls for one Replica.
//
// Offsets that end something are exclusive. A leader's high watermark never moves back while
// it leads. Source: Kafka 3.9, kafka/cluster/Partition.scala and Replica.scala; where we
// differ the comment says so.
package partition

import (
	"math"
	"slices"
	"time"

	"understudy/internal/streaming/cluster"
)

// Instant is a reading of the caller's monotonic clock in nanoseconds.
type Instant int64

// never is the time of what has not happened.
const never Instant = math.MinInt64

// Role is what this broker is for the partition.
type Role uint8

const (
	Unassigned Role = iota // hosted, but never told a role that could be taken
	Follower
	Leader
)

// String is the role's name in log lines.
func (r Role) String() string { return [...]string{"unassigned", "follower", "leader"}[r] }

// Settings are shared by all replicas of a broker.
type Settings struct {
	Self       cluster.BrokerID
	LagTimeMax time.Duration // replica.lag.time.max.ms
}

// Environment is what the rules need to know about the rest of the world at an event.
type Environment struct {
	Now    Instant
	MinISR int // min.insync.replicas of the topic
	// Alive says whether a broker is in the metadata cache: only such a one may join the ISR.
	Alive func(cluster.BrokerID) bool
}

// Assignment is what LeaderAndIsr says about a partition.
type Assignment struct {
	cluster.PartitionState
	Replicas []cluster.BrokerID // preferred first
	Adding   []cluster.BrokerID
	Removing []cluster.BrokerID
}

// Replica is the state of this broker's replica. The zero value is not ready; use New.
type Replica struct {
	settings *Settings

	role           Role
	leader         cluster.BrokerID
	leaderEpoch    cluster.LeaderEpoch // NoLeaderEpoch before the first role; never goes back
	partitionEpoch cluster.PartitionEpoch
	replicas       []cluster.BrokerID
	adding         []cluster.BrokerID
	removing       []cluster.BrokerID
	recovery       cluster.LeaderRecoveryState

	highWatermark cluster.Offset
	// proven bounds what a follower shows of its log before a leader has told it a high
	// watermark; see Readable.
	proven cluster.Offset

	// The rest is meaningful for a leader only.

	ledSince         cluster.LeaderEpoch // first epoch of the present unbroken leadership
	ledFrom          cluster.Offset      // log end when it began
	noted            bool                // and that is on disk; see Unnoted
	epochStartOffset cluster.Offset      // log end when leaderEpoch began
	logEnd           cluster.Offset
	durable          bool           // the high watermark does not pass synced
	synced           cluster.Offset // what this broker has fsynced, if durable
	isr              isrState
	remotes          []remote // the other assigned replicas, in assignment order
	waiting          ackQueue
}

// remote is what a leader knows of one follower.
type remote struct {
	id       cluster.BrokerID
	epoch    cluster.BrokerEpoch // highest replica epoch seen: older incarnations are refused
	logEnd   cluster.Offset      // NoOffset until its first fetch in this leadership
	logStart cluster.Offset

	// ineligible: the controller has refused it for the ISR (it is shutting down, say), so the
	// high watermark does not wait for it to join. Cleared when it has joined.
	ineligible bool

	lastCaughtUp     Instant
	lastFetch        Instant
	lastFetchLeadEnd cluster.Offset // the leader's log end at its last fetch
}

// New returns a replica without a role whose high watermark is the checkpointed one. Up to
// proven the log is known to be the one that it was noted for.
func New(settings *Settings, highWatermark, proven cluster.Offset) *Replica {
	return &Replica{
		settings:       settings,
		leader:         cluster.NoBroker,
		leaderEpoch:    cluster.NoLeaderEpoch,
		partitionEpoch: -1,
		highWatermark:  highWatermark,
		proven:         proven,
	}
}

// Accessors.

func (r *Replica) Role() Role                                         { return r.role }
func (r *Replica) IsLeader() bool                                     { return r.role == Leader }
func (r *Replica) Leader() cluster.BrokerID                           { return r.leader }
func (r *Replica) LeaderEpoch() cluster.LeaderEpoch                   { return r.leaderEpoch }
func (r *Replica) PartitionEpoch() cluster.PartitionEpoch             { return r.partitionEpoch }
func (r *Replica) HighWatermark() cluster.Offset                      { return r.highWatermark }
func (r *Replica) EpochStartOffset() cluster.Offset                   { return r.epochStartOffset }
func (r *Replica) Replicas() []cluster.BrokerID                       { return r.replicas }
func (r *Replica) ISR() []cluster.BrokerID                            { return r.isr.committed }
func (r *Replica) MaximalISR() []cluster.BrokerID                     { return r.isr.maximal() }
func (r *Replica) ChangePending() bool                                { return r.isr.pending != noChange }
func (r *Replica) IsAssigned(id cluster.BrokerID) bool                { return slices.Contains(r.replicas, id) }
func (r *Replica) Reassigning() (adding, removing []cluster.BrokerID) { return r.adding, r.removing }

// Readable is the end of what consumers may be shown. A power loss can undo a truncation: old
// batches then stand below a high watermark that was noted for those that had replaced them.
// Until a leader has answered a fetch, which compares the logs, a follower shows no more than
// what was on disk for certain. (A leader's log is the truth. Kafka's followers show it all.)
func (r *Replica) Readable() cluster.Offset {
	if r.role == Leader {
		return r.highWatermark
	}
	return min(r.highWatermark, r.proven)
}

// FollowerEnd returns what the leader knows of a follower's log end, NoOffset if nothing.
func (r *Replica) FollowerEnd(id cluster.BrokerID) cluster.Offset {
	if follower := r.remote(id); follower != nil {
		return follower.logEnd
	}
	return cluster.NoOffset
}

// MakeLeader takes the leadership that assignment gives this broker, with logEnd as the log
// end at this moment. It reports whether it was taken (not if its partition epoch is older
// than one already known) and whether the high watermark moved. The caller has checked the
// leader epoch (Judge), and writes the new epoch into the log's epoch cache.
func (r *Replica) MakeLeader(assignment *Assignment, logStart, logEnd cluster.Offset, env *Environment) (taken, moved bool) {
	if assignment.PartitionEpoch < r.partitionEpoch {
		return false, false
	}
	// In an epoch between that this broker has not heard of another may have led, and the
	// followers have cut their logs for it: what this one knew of them is void. (Kafka keeps it.)
	wasLeader := r.role == Leader && assignment.LeaderEpoch <= r.leaderEpoch+1
	newEpoch := assignment.LeaderEpoch > r.leaderEpoch
	r.adopt(assignment)
	r.isr.commit(assignment.ISR)
	// Kafka, too, takes every leader as recovered: its next AlterPartition says so.
	r.recovery = cluster.Recovered
	r.logEnd = logEnd
	if !wasLeader {
		r.ledSince, r.ledFrom = assignment.LeaderEpoch, logEnd
		r.clampHighWatermark(logStart, logEnd)
		r.noted = r.highWatermark == logEnd || len(r.replicas) == 1
	}
	if newEpoch || !wasLeader {
		r.epochStartOffset = logEnd
	}
	r.resetRemotes(wasLeader, env.Now)
	r.role = Leader
	r.proven = math.MaxInt64
	return true, r.advanceHighWatermark(env)
}

// MakeFollower follows the assignment's leader. It reports whether it was taken. Waiting
// appends are released by the next TakeReleased.
func (r *Replica) MakeFollower(assignment *Assignment) bool {
	if assignment.PartitionEpoch < r.partitionEpoch {
		return false
	}
	r.adopt(assignment)
	r.isr.commit(nil)
	r.remotes = nil
	r.role = Follower
	return true
}

func (r *Replica) adopt(assignment *Assignment) {
	r.leader = assignment.Leader
	r.leaderEpoch = assignment.LeaderEpoch
	r.partitionEpoch = assignment.PartitionEpoch
	r.replicas = slices.Clone(assignment.Replicas)
	r.adding = slices.Clone(assignment.Adding)
	r.removing = slices.Clone(assignment.Removing)
}

// resetRemotes begins an epoch: a member of the ISR has the full lag time to show up, others
// none. A broker that led already keeps what it knows of its followers' logs, which it wrote
// itself; their incarnations are kept in any case.
func (r *Replica) resetRemotes(wasLeader bool, now Instant) {
	old := r.remotes
	r.remotes = make([]remote, 0, len(r.replicas))
	for _, id := range r.replicas {
		if id == r.settings.Self {
			continue
		}
		fresh := remote{
			id: id, epoch: cluster.UnknownBrokerEpoch, logEnd: cluster.NoOffset, logStart: cluster.NoOffset,
			lastCaughtUp: never, lastFetch: never, lastFetchLeadEnd: cluster.NoOffset,
		}
		if i := slices.IndexFunc(old, func(o remote) bool { return o.id == id }); i >= 0 && wasLeader {
			fresh.epoch = old[i].epoch
			fresh.logEnd = old[i].logEnd
			fresh.logStart = old[i].logStart
			fresh.lastFetchLeadEnd = r.logEnd
			if slices.Contains(r.isr.committed, id) {
				fresh.lastFetch = now
			}
		}
		if slices.Contains(r.isr.committed, id) {
			fresh.lastCaughtUp = now
		}
		r.remotes = append(r.remotes, fresh)
	}
}

func (r *Replica) remote(id cluster.BrokerID) *remote {
	for i := range r.remotes {
		if r.remotes[i].id == id {
			return &r.remotes[i]
		}
	}
	return nil
}

// Appended tells a leader its new log end. It reports whether the high watermark moved.
func (r *Replica) Appended(logEnd cluster.Offset, env *Environment) (moved bool) {
	r.logEnd = max(r.logEnd, logEnd)
	return r.advanceHighWatermark(env)
}

// SetDurable says whether the high watermark has to wait for this broker's fsyncs, and how far
// they have come. Followers of a durable partition fetch at what they have fsynced.
func (r *Replica) SetDurable(durable bool, synced cluster.Offset) {
	r.durable, r.synced = durable, synced
}

// Synced tells how far the log has been fsynced. It reports whether the high watermark moved.
func (r *Replica) Synced(synced cluster.Offset, env *Environment) (moved bool) {
	r.synced = synced
	return r.advanceHighWatermark(env)
}

// Reconsider looks at the high watermark again after something outside changed (the topic's
// min.insync.replicas). It reports whether it moved.
func (r *Replica) Reconsider(env *Environment) (moved bool) { return r.advanceHighWatermark(env) }

// FollowerHighWatermark takes the leader's high watermark from a fetch response: a follower's
// own is that, within its log. It may move back.
func (r *Replica) FollowerHighWatermark(leaderHighWatermark, logStart, logEnd cluster.Offset) (moved bool) {
	before := r.Readable()
	r.highWatermark, r.proven = leaderHighWatermark, math.MaxInt64
	r.clampHighWatermark(logStart, logEnd)
	return r.highWatermark != before
}

// Truncated caps the high watermark after the local log was cut or restarted.
func (r *Replica) Truncated(logStart, logEnd cluster.Offset) {
	r.synced = min(r.synced, logEnd)
	r.clampHighWatermark(logStart, logEnd)
}

func (r *Replica) clampHighWatermark(logStart, logEnd cluster.Offset) {
	r.highWatermark = max(min(r.highWatermark, logEnd), logStart)
}

// advanceHighWatermark is the one place where a leader's high watermark moves: to the
// smallest log end among itself, the maximal ISR, and those about to join it. It stands still
// while the committed ISR is below the effective min ISR, whatever the appends' acks.
func (r *Replica) advanceHighWatermark(env *Environment) bool {
	if r.role != Leader || len(r.isr.committed) < r.effectiveMinISR(env.MinISR) {
		return false
	}
	candidate := r.logEnd
	if r.durable {
		candidate = min(candidate, r.synced)
	}
	maximal := r.isr.maximal()
	for i := range r.remotes {
		follower := &r.remotes[i]
		if follower.logEnd >= candidate {
			continue
		}
		joining := func() bool {
			return !follower.ineligible && r.caughtUp(follower, env.Now) && env.Alive(follower.id)
		}
		if slices.Contains(maximal, follower.id) || joining() {
			candidate = follower.logEnd
		}
	}
	if candidate <= r.highWatermark || !r.noted && candidate <= r.ledFrom {
		return false
	}
	r.highWatermark = candidate
	return true
}

// Unnoted returns the leader epoch with which the present leadership began, and the log end then,
// if that has to be on this broker's disk before the high watermark moves: up to there are records
// that earlier leaders had left uncommitted. They are committed with no trace in the log: nothing
// is appended, and the last record is still of an earlier epoch. Were this broker then killed, the
// log of a leader between, with records of a newer epoch that nobody else has, would pass for
// the better one. What is beyond, of this leadership's own epochs, needs no note; nor do
// records that have been committed before.
func (r *Replica) Unnoted() (since cluster.LeaderEpoch, from cluster.Offset, unnoted bool) {
	return r.ledSince, r.ledFrom, r.role == Leader && !r.noted
}

// Noted says that it is on disk that a leadership began with this epoch. It reports whether the
// high watermark moved.
func (r *Replica) Noted(since cluster.LeaderEpoch, env *Environment) (moved bool) {
	if r.role != Leader || r.ledSince != since {
		return false // another one by now
	}
	r.noted = true
	return r.advanceHighWatermark(env)
}

// effectiveMinISR: a topic with fewer replicas than min.insync.replicas asks for all of them.
func (r *Replica) effectiveMinISR(minISR int) int { return min(minISR, max(len(r.replicas), 1)) }

// EnoughReplicas says whether an append with acks=all may begin.
func (r *Replica) EnoughReplicas(minISR int) bool {
	return len(r.isr.committed) >= r.effectiveMinISR(minISR)
}

// caughtUp is the lag rule.
func (r *Replica) caughtUp(follower *remote, now Instant) bool {
	return follower.logEnd == r.logEnd ||
		follower.lastCaughtUp != never && now-follower.lastCaughtUp <= Instant(r.settings.LagTimeMax)
}

// FollowerFetch is one fetch of a follower, whose offset says how far its log goes.
type FollowerFetch struct {
	Replica  cluster.BrokerID
	Epoch    cluster.BrokerEpoch // UnknownBrokerEpoch from followers that do not say
	Offset   cluster.Offset
	LogStart cluster.Offset
}

// RefusesIncarnation says whether a fetch comes from an incarnation of the follower that a
// later one has replaced. Kafka's ZooKeeper-mode leader stores the epoch and never checks it:
// a paused broker that wakes up next to its successor could then hold the ISR's progress.
func (r *Replica) RefusesIncarnation(id cluster.BrokerID, epoch cluster.BrokerEpoch) bool {
	follower := r.remote(id)
	return follower != nil && epoch != cluster.UnknownBrokerEpoch && epoch < follower.epoch
}

// FollowerFetched records a follower's progress (the caller has judged the fetch to be
// in order and not diverging). It reports whether the high watermark moved, and an ISR change
// to send, or nil.
func (r *Replica) FollowerFetched(fetch *FollowerFetch, env *Environment) (moved bool, change *Change) {
	follower := r.remote(fetch.Replica)
	if r.role != Leader || follower == nil {
		return false, nil
	}
	if fetch.Offset >= r.logEnd {
		follower.lastCaughtUp = env.Now
	} else if follower.lastFetchLeadEnd != cluster.NoOffset && fetch.Offset >= follower.lastFetchLeadEnd {
		follower.lastCaughtUp = max(follower.lastCaughtUp, follower.lastFetch)
	}
	before := follower.logEnd
	follower.logEnd = fetch.Offset
	follower.logStart = fetch.LogStart
	follower.lastFetch = env.Now
	follower.lastFetchLeadEnd = max(r.logEnd, follower.lastFetchLeadEnd)
	follower.epoch = max(follower.epoch, fetch.Epoch)

	change = r.maybeExpand(follower, env)
	// An expansion under way counts in the maximal ISR, and this replica is level with the
	// high watermark, so the watermark can only gain from looking again. And while it is
	// behind, whoever held it back may be gone since: no other event would tell.
	if before != follower.logEnd || change != nil || r.highWatermark < r.logEnd {
		moved = r.advanceHighWatermark(env)
	}
	return moved, change
}

// Settled says that a follower's further fetches at its offset would tell the leader nothing:
// both logs and the high watermark end at the same offset, it is in the ISR, and no change of
// that is under way.
func (r *Replica) Settled(id cluster.BrokerID) bool {
	follower := r.remote(id)
	return r.role == Leader && follower != nil && follower.logEnd == r.logEnd && r.highWatermark == r.logEnd &&
		r.isr.pending == noChange && slices.Contains(r.isr.committed, id)
}

// Attest records that a follower at the leader's log end was fetching there until an instant,
// for a caller that did not report each of those fetches. It must come before the append that
// ends this state: the lag time counts from here.
func (r *Replica) Attest(id cluster.BrokerID, until Instant) {
	follower := r.remote(id)
	if r.role != Leader || follower == nil || follower.logEnd != r.logEnd {
		return
	}
	follower.lastCaughtUp = max(follower.lastCaughtUp, until)
	follower.lastFetch = max(follower.lastFetch, until)
}

// CheckEpoch compares a request's idea of the leader epoch with ours.
func (r *Replica) CheckEpoch(requested cluster.LeaderEpoch) error {
	return checkEpoch(requested, r.leaderEpoch)
}
