package replication

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
)

// DeleteToHighWatermark as DeleteRecordsPart.Before deletes everything that is committed.
const DeleteToHighWatermark cluster.Offset = -1

// DeleteRecordsPart asks for the deletion of a partition's records before an offset.
type DeleteRecordsPart struct {
	TP     cluster.TopicPartition
	Before cluster.Offset
}

// DeleteRecordsResult answers the part of the same index. LowWatermark is the smallest log
// start offset among the live replicas, NoOffset with most errors.
type DeleteRecordsResult struct {
	Err          error
	LowWatermark cluster.Offset
}

// deleteOp is a deletion on its way: the leaders' log start offsets have moved, and it waits
// until those of all live replicas have followed, with a deleteWait in each partition.
type deleteOp struct {
	m       *Manager
	results []DeleteRecordsResult
	waits   []deleteWait // by part; host is nil where nothing is waited for
	done    func([]DeleteRecordsResult)
	entry   wheelEntry

	// open counts the parts whose outcome is not known, and one for the loop over the parts.
	open atomic.Int32
	mu   sync.Mutex // guards results and waits[].settled while the op waits
}

// deleteWait is one part in its partition's list (hosted.deletes).
type deleteWait struct {
	op      *deleteOp
	part    int
	host    *hosted
	target  cluster.Offset
	settled bool
}

// deleteOutcome is an effect: what became of a waiting part.
type deleteOutcome struct {
	wait   *deleteWait
	result DeleteRecordsResult
}

// DeleteRecords raises the log start offsets of partitions that are led here. done runs exactly
// once, possibly before DeleteRecords returns: when the live replicas have followed, or the time
// is up, with REQUEST_TIMED_OUT for those that have not.
func (m *Manager) DeleteRecords(parts []DeleteRecordsPart, timeout time.Duration, done func([]DeleteRecordsResult)) {
	op := &deleteOp{m: m, results: make([]DeleteRecordsResult, len(parts)), waits: make([]deleteWait, len(parts)), done: done}
	op.open.Store(1)
	effects := takeEffects()
	for i := range parts {
		op.deletePart(i, &parts[i], effects)
	}
	m.run(effects)
	if op.open.Load() > 1 {
		m.wheel.add(&op.entry, op, timeout)
	}
	op.close()
}

// deletePart moves one leader's log start (Partition.deleteRecordsOnLeader).
func (op *deleteOp) deletePart(part int, asked *DeleteRecordsPart, effects *effects) {
	m, result := op.m, &op.results[part]
	result.LowWatermark = cluster.NoOffset
	h, err := m.leaderAccess(asked.TP, cluster.NoLeaderEpoch)
	if err != nil {
		result.Err = err
		return
	}
	h.role.RLock()
	defer h.role.RUnlock()
	rightful := m.mayLead(h) // takes partitions' locks when it finds a pause
	h.mu.Lock()
	leads, highWatermark := h.replica.IsLeader() && rightful, h.replica.HighWatermark()
	h.mu.Unlock()
	target := asked.Before
	if target == DeleteToHighWatermark {
		target = highWatermark
	}
	switch config := h.log.Config(); {
	case !leads:
		result.Err = errNotLeader
	case config.Compact && !config.Delete:
		result.Err = kerr.PolicyViolation
	case target < 0 || target > highWatermark:
		result.Err = kerr.OffsetOutOfRange
	default:
		if result.Err = h.log.AdvanceStart(target); result.Err != nil {
			m.storageMayHaveFailed(h, result.Err, effects)
		}
	}
	if result.Err != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiters.stirAll(effects) // a session's quiet followers have a new log start to hear of
	if !m.right.granted(h) {   // lost meanwhile: what ended the waits has gone by
		result.Err = errNotLeader
		return
	}
	result.LowWatermark = h.replica.LowWatermark(h.log.StartOffset(), m.aliveFunc)
	if result.LowWatermark >= target {
		return
	}
	op.open.Add(1)
	op.waits[part] = deleteWait{op: op, part: part, host: h, target: target}
	h.deletes = append(h.deletes, &op.waits[part])
}

// progressDeletesLocked looks at the waiting deletions again: a follower has fetched, or the
// role has changed.
func (h *hosted) progressDeletesLocked(effects *effects) {
	if len(h.deletes) == 0 {
		return
	}
	if err := h.usableLocked(); err != nil || !h.replica.IsLeader() {
		h.endDeletesLocked(errNotLeader, effects)
		return
	}
	low := h.replica.LowWatermark(h.log.StartOffset(), h.deletes[0].op.m.aliveFunc)
	h.deletes = slices.DeleteFunc(h.deletes, func(wait *deleteWait) bool {
		if low < wait.target {
			return false
		}
		effects.deleted = append(effects.deleted, deleteOutcome{wait, DeleteRecordsResult{LowWatermark: low}})
		return true
	})
}

// endDeletesLocked ends the waiting deletions, with the error that the partition itself has if
// it has one.
func (h *hosted) endDeletesLocked(err error, effects *effects) {
	if unusable := h.usableLocked(); unusable != nil {
		err = unusable
	}
	for _, wait := range h.deletes {
		effects.deleted = append(effects.deleted, deleteOutcome{wait, DeleteRecordsResult{Err: err, LowWatermark: cluster.NoOffset}})
	}
	h.deletes = nil
}

// settle is the outcome of one waiting part. It is called without locks.
func (w *deleteWait) settle(result DeleteRecordsResult) {
	op := w.op
	op.mu.Lock()
	if w.settled {
		op.mu.Unlock()
		return
	}
	w.settled = true
	op.results[w.part] = result
	op.mu.Unlock()
	op.close()
}

// close ends one of the things that op.open counts; the last one answers.
func (op *deleteOp) close() {
	if op.open.Add(-1) > 0 {
		return
	}
	op.m.wheel.remove(&op.entry)
	for i := range op.waits {
		if h := op.waits[i].host; h != nil && op.results[i].Err == nil && !op.m.mayLead(h) {
			op.results[i] = DeleteRecordsResult{Err: errNotLeader, LowWatermark: cluster.NoOffset}
		}
	}
	op.done(op.results)
}

// expire answers what still waits with REQUEST_TIMED_OUT and the low watermark of the beginning.
func (op *deleteOp) expire() {
	for i := range op.waits {
		wait := &op.waits[i]
		if wait.host == nil {
			continue
		}
		wait.host.mu.Lock()
		wait.host.deletes = slices.DeleteFunc(wait.host.deletes, func(other *deleteWait) bool { return other == wait })
		wait.host.mu.Unlock()
		op.mu.Lock()
		low := op.results[i].LowWatermark
		op.mu.Unlock()
		wait.settle(DeleteRecordsResult{Err: kerr.RequestTimedOut, LowWatermark: low})
	}
}
