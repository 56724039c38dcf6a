package replication

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/commitlog"
)

// Values of AppendRequest.Acks.
const (
	AcksNone   int16 = 0
	AcksLeader int16 = 1
	AcksAll    int16 = -1
)

// appendOp is an append request on its way. With acks=all it waits, once every part has been
// tried, for the parts that were appended: each has a token in its partition's queue.
type appendOp struct {
	m       *Manager
	request AppendRequest
	results []AppendResult
	hosts   []*hosted // by part; nil where not hosted
	tokens  []appendToken
	done    func([]AppendResult)
	entry   wheelEntry

	// open counts the parts whose outcome is not known, and one for the loop over the parts.
	open     atomic.Int32
	finished atomic.Bool

	mu sync.Mutex // guards results and tokens[].settled while the op waits

	single struct { // the slices' memory for the usual request of one part
		result [1]AppendResult
		host   [1]*hosted
		token  [1]appendToken
	}
}

// appendToken stands for one part in partition.Replica's queue.
type appendToken struct {
	op      *appendOp
	part    int
	settled bool
}

// Append appends for producers and coordinators. done runs exactly once, possibly before
// Append returns and possibly on another goroutine; the results are those of Parts by index
// and belong to the callee. With Acks 0 the results are those of the append itself.
func (m *Manager) Append(request AppendRequest, done func([]AppendResult)) {
	op := &appendOp{m: m, request: request, done: done}
	if len(request.Parts) == 1 {
		op.results, op.hosts, op.tokens = op.single.result[:], op.single.host[:], op.single.token[:]
	} else {
		op.results = make([]AppendResult, len(request.Parts))
		op.hosts = make([]*hosted, len(request.Parts))
		op.tokens = make([]appendToken, len(request.Parts))
	}
	if request.Acks != AcksNone && request.Acks != AcksLeader && request.Acks != AcksAll {
		for i := range op.results {
			op.results[i].Err = kerr.InvalidRequiredAcks
		}
		done(op.results)
		return
	}
	op.open.Store(1)
	effects := takeEffects()
	now := m.clock().UnixMilli()
	for i := range request.Parts {
		h := m.host(request.Parts[i].TP)
		op.hosts[i] = h
		if h == nil {
			op.refuse(i, m.notHosted(request.Parts[i].TP))
			continue
		}
		op.appendPart(i, h, now, effects)
	}
	m.run(effects)
	if op.open.Load() > 1 {
		m.wheel.add(&op.entry, op, request.Timeout)
	}
	op.close()
}

// notHosted is the error for a partition without a replica here.
func (m *Manager) notHosted(tp cluster.TopicPartition) error {
	if _, found := m.config.Metadata.Image().Partition(tp); found {
		return errNotLeader
	}
	return kerr.UnknownTopicOrPartition
}

// appendPart appends one part. The role lock keeps the leader epoch that the batch is stamped
// with from ending before the batch is in the log.
func (op *appendOp) appendPart(part int, h *hosted, nowMs int64, effects *effects) {
	m := op.m
	h.role.RLock()
	defer h.role.RUnlock()

	rightful := m.mayLead(h) // takes partitions' locks when it finds a pause
	h.mu.Lock()
	err := h.usableLocked()
	switch {
	case err != nil:
	case !h.replica.IsLeader() || !rightful:
		err = errNotLeader
	case op.request.Acks == AcksAll && !h.replica.EnoughReplicas(h.minISR):
		err = kerr.NotEnoughReplicas
	}
	epoch, mendable := h.replica.LeaderEpoch(), len(h.replica.Replicas()) > 1
	h.mu.Unlock()
	if err != nil {
		op.refuse(part, err)
		return
	}

	info, err := h.log.AppendLeader(op.request.Parts[part].Records, commitlog.AppendOptions{
		LeaderEpoch: epoch, Origin: op.request.Origin, NowMs: nowMs, Mendable: mendable,
	})
	if errors.As(err, new(*commitlog.DamageError)) {
		op.refuse(part, m.damageCode(h))
		return
	}
	if err != nil {
		m.storageMayHaveFailed(h, err, effects)
		op.refuse(part, err)
		return
	}
	op.results[part].Info = info

	h.mu.Lock()
	defer h.mu.Unlock()
	env := m.environment(h)
	if !info.Duplicate {
		h.waiters.attest(h.replica)
		if h.replica.Appended(info.Last+1, &env) {
			h.highWatermarkMovedLocked(effects)
		}
		m.syncSoonLocked(h)
		h.waiters.wakeFollowers(info.Last+1, effects)
	}
	if op.request.Acks == AcksAll {
		op.open.Add(1)
		op.tokens[part] = appendToken{op: op, part: part}
		h.replica.Await(info.Last+1, &op.tokens[part])
		h.takeReleasedLocked(effects)
	}
}

func (op *appendOp) refuse(part int, err error) {
	op.results[part].Err = err
	op.results[part].Info = commitlog.AppendInfo{First: cluster.NoOffset, Last: cluster.NoOffset, LogAppendTimeMs: -1, LogStart: cluster.NoOffset}
}

// settle is the outcome of one waiting part.
func (t *appendToken) settle(err error) {
	op := t.op
	op.mu.Lock()
	if t.settled {
		op.mu.Unlock()
		return
	}
	t.settled = true
	op.results[t.part].Err = err
	op.mu.Unlock()
	op.close()
}

// close ends one of the things that op.open counts; the last one finishes the request.
func (op *appendOp) close() {
	if op.open.Add(-1) == 0 {
		op.finish()
	}
}

// expire answers what still waits with REQUEST_TIMED_OUT.
func (op *appendOp) expire() {
	for i := range op.tokens {
		token := &op.tokens[i]
		if token.op == nil {
			continue
		}
		h := op.hosts[i]
		h.mu.Lock()
		h.replica.Forget(token)
		h.mu.Unlock()
		token.settle(kerr.RequestTimedOut)
	}
}

// finish answers. This is the moment that counts for a leader's right: whatever was committed
// by then, a broker that may have been replaced does not say so.
func (op *appendOp) finish() {
	if op.finished.Swap(true) {
		return
	}
	op.m.wheel.remove(&op.entry)
	for i := range op.results {
		result := &op.results[i]
		h := op.hosts[i]
		if result.Err == nil && !op.m.mayLead(h) {
			result.Err = errNotLeader
		}
		if errors.Is(result.Err, errNotLeader) {
			result.Leader = op.m.LeaderOf(op.request.Parts[i].TP)
		}
	}
	op.done(op.results)
}

// storageMayHaveFailed takes a partition offline whose log failed.
func (m *Manager) storageMayHaveFailed(h *hosted, err error, effects *effects) {
	if !errors.Is(err, kerr.KafkaStorageError) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	m.offlineLocked(h, err, effects)
}

func (m *Manager) offlineLocked(h *hosted, err error, effects *effects) {
	if h.offline != nil {
		return
	}
	h.offline = err
	m.logger.Error("partition offline", "topic", h.tp.Topic, "partition", h.tp.Partition, "dir", h.log.Dir(), "err", err)
	h.releaseAllLocked(kerr.KafkaStorageError, effects)
	h.wakeAllLocked(effects)
}

// LogDirFailed takes all partitions of a log directory offline. commitlog's OnDirFailure must
// not call it on its own goroutine.
func (m *Manager) LogDirFailed(dir string, err error) {
	effects := takeEffects()
	for _, h := range m.allHosts() {
		if h.log.Dir() != dir {
			continue
		}
		h.mu.Lock()
		m.offlineLocked(h, err, effects)
		h.mu.Unlock()
		m.stopFetching(h)
	}
	m.run(effects)
	if m.config.OnLogDirFailure != nil {
		m.config.OnLogDirFailure(dir, err)
	}
}
