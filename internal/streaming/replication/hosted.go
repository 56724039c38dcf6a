package replication

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/commitlog"
	"understudy/internal/streaming/partition"
)

var errNotLeader error = kerr.NotLeaderForPartition

// hosted is one partition with a replica here.
type hosted struct {
	tp  cluster.TopicPartition
	log *commitlog.Log

	// role is held shared by appends, from the check of leadership (or of what is followed)
	// to the end of the append, and exclusively by a change of role and by truncation.
	role sync.RWMutex

	// confirmedLoss is the lost session (leadershipRight.losses) since which the controller has
	// named this broker the leader again.
	confirmedLoss atomic.Uint64

	durable atomic.Bool // flush.messages=1: see durable.go

	fetcher *fetcher // who fetches for it; guarded by Manager.fetchers

	mu sync.Mutex // guards what follows; held for microseconds, never across I/O

	replica *partition.Replica
	minISR  int
	syncing bool // a goroutine of syncSoonLocked is at it
	topicID cluster.TopicID
	waiters waitList
	deletes []*deleteWait // deletions that wait for followers; see delete.go
	offline error         // the log directory failed; KAFKA_STORAGE_ERROR from now on
	stopped bool          // no longer in the map: deleted
}

func (h *hosted) leaderHint() LeaderHint {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.leaderHintLocked()
}

func (h *hosted) leaderHintLocked() LeaderHint {
	return LeaderHint{Leader: h.replica.Leader(), Epoch: h.replica.LeaderEpoch()}
}

// usableLocked is the first check of every access.
func (h *hosted) usableLocked() error {
	switch {
	case h.stopped:
		return kerr.UnknownTopicOrPartition
	case h.offline != nil:
		return kerr.KafkaStorageError
	default:
		return nil
	}
}

// highWatermarkMovedLocked follows up a change of the high watermark, a commit of the ISR or
// a change of role: the log is told, appends that may leave leave, consumers wake.
func (h *hosted) highWatermarkMovedLocked(effects *effects) {
	highWatermark := h.replica.HighWatermark()
	h.log.SetHighWatermark(highWatermark)
	h.takeReleasedLocked(effects)
	h.waiters.wakeConsumers(h.replica.Readable(), effects)
}

// secureIfAloneLocked puts on disk what only this replica is going to vouch for.
func (h *hosted) secureIfAloneLocked() {
	if len(h.replica.ISR()) == 1 && len(h.replica.Replicas()) > 1 {
		h.log.Secure()
	}
}

func (h *hosted) takeReleasedLocked(effects *effects) {
	if h.replica.Waiting() > 0 {
		effects.released = h.replica.TakeReleased(h.minISR, effects.released)
	}
}

func (h *hosted) releaseAllLocked(err error, effects *effects) {
	effects.released = h.replica.ReleaseAll(err, effects.released)
	h.endDeletesLocked(err, effects)
}

// wakeAllLocked makes every waiting fetch and deletion look again: the role, the epoch or the
// log changed under it.
func (h *hosted) wakeAllLocked(effects *effects) {
	h.waiters.wakeAll(effects)
	h.progressDeletesLocked(effects)
}

func (h *hosted) describe(m *Manager) PartitionDescription {
	h.mu.Lock()
	defer h.mu.Unlock()
	description := PartitionDescription{
		TP: h.tp, TopicID: h.topicID, IsLeader: h.replica.IsLeader(),
		Leader: h.replica.Leader(), LeaderEpoch: h.replica.LeaderEpoch(), PartitionEpoch: h.replica.PartitionEpoch(),
		Replicas: slices.Clone(h.replica.Replicas()), ISR: slices.Clone(h.replica.ISR()),
		HighWatermark: h.replica.Readable(), LogStart: h.log.StartOffset(), LogEnd: h.log.EndOffset(),
		Offline: h.offline != nil,
	}
	description.Suspended = description.IsLeader && !m.right.granted(h)
	return description
}

// effects are what events under partitions' locks ask for, to be carried out (Manager.run)
// when no lock is held: acknowledgements first, then ISR changes, then fetches.
type effects struct {
	released []partition.Released
	changes  []submission
	deleted  []deleteOutcome
	fetches  []*fetchOp // to complete or to look again; see fetchOp.wake
}

type submission struct {
	host   *hosted
	change *partition.Change
}

var effectsPool = sync.Pool{New: func() any { return new(effects) }}

func takeEffects() *effects { return effectsPool.Get().(*effects) }

func (e *effects) submit(h *hosted, change *partition.Change) {
	if change != nil {
		e.changes = append(e.changes, submission{h, change})
	}
}

// run carries out effects and returns them to the pool. What they set off (a fetch answered
// here lets nobody else go on) needs no second round.
func (m *Manager) run(e *effects) {
	for i := range e.released {
		released := &e.released[i]
		released.Token.(*appendToken).settle(released.Err)
	}
	for i := range e.deleted {
		e.deleted[i].wait.settle(e.deleted[i].result)
	}
	for _, submission := range e.changes {
		m.submitChange(submission.host, submission.change)
	}
	for _, op := range e.fetches {
		op.wake()
	}
	clear(e.released)
	clear(e.deleted)
	clear(e.changes)
	clear(e.fetches)
	e.released, e.deleted, e.changes, e.fetches = e.released[:0], e.deleted[:0], e.changes[:0], e.fetches[:0]
	effectsPool.Put(e)
}

// submitChange sends an ISR change to the controller.
func (m *Manager) submitChange(h *hosted, change *partition.Change) {
	h.mu.Lock()
	topicID := h.topicID
	h.mu.Unlock()
	m.alter.Submit(ISRChange{
		TP: h.tp, TopicID: topicID, LeaderEpoch: change.LeaderEpoch, PartitionEpoch: change.PartitionEpoch,
		ISR: change.ISR, Epochs: change.Epochs, Recovery: change.Recovery,
	}, func(outcome ISROutcome) { m.changeDone(h, change, outcome) })
}

func (m *Manager) changeDone(h *hosted, change *partition.Change, outcome ISROutcome) {
	effects := takeEffects()
	h.mu.Lock()
	env := m.environment(h)
	moved, again := h.replica.ChangeDone(change.Sequence, &outcome.State, outcome.Err, &env)
	if moved {
		h.highWatermarkMovedLocked(effects)
	}
	h.secureIfAloneLocked()
	effects.submit(h, again)
	h.waiters.stirAll(effects)
	h.mu.Unlock()
	if outcome.Err != nil {
		m.logger.Info("isr change refused", "topic", h.tp.Topic, "partition", h.tp.Partition,
			"leaderEpoch", change.LeaderEpoch, "isr", change.ISR, "again", again != nil, "err", outcome.Err)
	} else {
		m.logger.Info("isr changed", "topic", h.tp.Topic, "partition", h.tp.Partition,
			"leaderEpoch", change.LeaderEpoch, "isr", outcome.State.ISR, "partitionEpoch", outcome.State.PartitionEpoch)
	}
	m.run(effects)
}
