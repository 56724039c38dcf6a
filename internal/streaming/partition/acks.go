package partition

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
)

// ack is an append with acks=all that waits for the high watermark.
type ack struct {
	required cluster.Offset // released when the high watermark is at least this
	epoch    cluster.LeaderEpoch
	token    any
}

// ackQueue is sorted by required. Appends come nearly in order, so inserting walks from the
// back; the head is consumed by moving first, and the slice is reused.
type ackQueue struct {
	entries []ack
	first   int
}

func (q *ackQueue) len() int { return len(q.entries) - q.first }

func (q *ackQueue) push(entry ack) {
	if q.first > 0 && len(q.entries) == cap(q.entries) {
		n := copy(q.entries, q.entries[q.first:])
		clear(q.entries[n:])
		q.entries, q.first = q.entries[:n], 0
	}
	at := len(q.entries)
	for at > q.first && q.entries[at-1].required > entry.required {
		at--
	}
	q.entries = slices.Insert(q.entries, at, entry)
}

func (q *ackQueue) pop() ack {
	entry := q.entries[q.first]
	q.entries[q.first] = ack{}
	q.first++
	if q.first == len(q.entries) {
		q.entries, q.first = q.entries[:0], 0
	}
	return entry
}

// Released is a waiting append whose outcome is known.
type Released struct {
	Token any
	Err   error // nil, NOT_ENOUGH_REPLICAS_AFTER_APPEND or NOT_LEADER_OR_FOLLOWER
}

// Await queues an append that ended at required (exclusive). It carries the leader epoch it
// was written in: should this broker lose the leadership and get it back, the offset may
// stand for another record, and only an append of the present unbroken leadership may be
// acknowledged by the high watermark. (A step from leader to leader, as when the controller
// takes a dead broker out of the ISR, leaves the log alone and the waiters in place.)
func (r *Replica) Await(required cluster.Offset, token any) {
	r.waiting.push(ack{required: required, epoch: r.leaderEpoch, token: token})
}

// TakeReleased removes the waiters whose outcome is known and appends them to released. It
// is to be called after the high watermark moved and after a change of role.
func (r *Replica) TakeReleased(minISR int, released []Released) []Released {
	for r.waiting.len() > 0 {
		head := r.waiting.entries[r.waiting.first]
		var err error
		switch {
		case r.role != Leader || head.epoch < r.ledSince:
			err = kerr.NotLeaderForPartition
		case r.highWatermark < head.required:
			return released
		case len(r.isr.maximal()) < r.effectiveMinISR(minISR):
			err = kerr.NotEnoughReplicasAfterAppend
		}
		released = append(released, Released{Token: r.waiting.pop().token, Err: err})
	}
	return released
}

// Waiting counts the appends that wait.
func (r *Replica) Waiting() int { return r.waiting.len() }

// ReleaseAll removes every waiter with one outcome: the log failed, leadership is suspended,
// the replica goes away.
func (r *Replica) ReleaseAll(err error, released []Released) []Released {
	for r.waiting.len() > 0 {
		released = append(released, Released{Token: r.waiting.pop().token, Err: err})
	}
	return released
}

// Forget removes the waiters with this token (their time ran out).
func (r *Replica) Forget(token any) {
	live := r.waiting.entries[r.waiting.first:]
	kept := slices.DeleteFunc(live, func(entry ack) bool { return entry.token == token })
	r.waiting.entries = r.waiting.entries[:r.waiting.first+len(kept)]
}
