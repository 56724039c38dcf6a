package replication

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/commitlog"
	"understudy/internal/streaming/partition"
)

// fetchOp is a fetch on its way. It is answered at once, or linked into the list of every
// partition that it names, and into the timing wheel, until one of them has something.
//
//	new → answered at once
//	new → waiting → answered (by data, an error, the wheel, or cancel)
//
// Whoever swaps answered to true answers.
type fetchOp struct {
	m        *Manager
	request  FetchRequest
	done     func([]FetchResult)
	answered atomic.Bool
	entry    wheelEntry
	waiters  []waiter  // by part; linked while waiting
	absorbed []*waiter // of the parts that a session's stirred parts became, after those

	mu     sync.Mutex // held while the op is linked or unlinked, and parts are added
	gone   bool       // it does not wait after all; guarded by mu
	single struct {   // the slices' memory for the usual fetch of one part
		waiter [1]waiter
		view   [1]view
	}
}

// view is what a look at one partition found.
type view struct {
	host             *hosted
	err              error
	awaited          bool // err is one that a LeaderAndIsr under way will cure
	highWatermark    cluster.Offset
	lastStableOffset cluster.Offset
	logStart         cluster.Offset
	limit            cluster.Offset // records below it may be read
	diverging        *DivergingEpoch
	leader           LeaderHint
	nearReader       *cluster.BrokerID // where the consumer is sent; nil: nowhere
}

func (op *fetchOp) isFollower() bool { return op.request.Replica >= 0 }

// Fetch reads for a consumer or a follower. done runs exactly once, possibly before Fetch
// returns and possibly on another goroutine; it owns the results and closes their slices.
// cancel (the connection is gone) makes it run soon, with what there is; it may be called
// at any time. done must not block.
func (m *Manager) Fetch(request FetchRequest, done func([]FetchResult)) (cancel func()) {
	op := &fetchOp{m: m, request: request, done: done}
	effects := takeEffects()
	session := request.Standing
	if session != nil {
		session.begin(&op.request, m.now())
	}
	views := op.look(op.request.Parts, true, effects)
	// Acknowledgements that this follower's progress has set free go before its own answer.
	m.run(effects)
	if session != nil {
		views = op.settle(views)
	}
	parts := op.request.Parts
	if request.MaxWait <= 0 || len(parts) == 0 && session == nil || m.right.closed.Load() || op.worthAnswering(parts, views) {
		op.answer(parts, views)
		return func() {}
	}
	if !op.wait(views) {
		op.answer(parts, op.look(parts, false, nil))
		return func() {}
	}
	return op.expire
}

// look inspects every part. A follower's progress is recorded only on the first look, when
// the request arrives: that is when its offsets were true.
func (op *fetchOp) look(parts []FetchPart, first bool, effects *effects) []view {
	var views []view
	if len(parts) == 1 {
		views = op.single.view[:]
		views[0] = view{}
	} else {
		views = make([]view, len(parts))
	}
	for i := range parts {
		op.lookAt(&parts[i], &views[i], first, effects)
	}
	return views
}

func (op *fetchOp) lookAt(part *FetchPart, v *view, first bool, effects *effects) {
	m := op.m
	v.highWatermark, v.lastStableOffset, v.logStart = cluster.NoOffset, cluster.NoOffset, cluster.NoOffset
	v.leader = LeaderHint{Leader: cluster.NoBroker, Epoch: cluster.NoLeaderEpoch}
	v.nearReader = nil
	v.host = m.host(part.TP)
	if v.host == nil {
		v.err = m.notHosted(part.TP)
		// A follower may have heard of a new partition before its leader has.
		v.awaited = op.isFollower()
		if errors.Is(v.err, errNotLeader) {
			v.leader = m.LeaderOf(part.TP)
		}
		return
	}
	h := v.host
	h.mu.Lock()
	defer h.mu.Unlock()
	v.err = op.admitLocked(part, v)
	if v.err != nil {
		if errors.Is(v.err, errNotLeader) || errors.Is(v.err, kerr.FencedLeaderEpoch) {
			v.leader = h.leaderHintLocked()
		}
		return
	}
	if first && v.diverging == nil && op.isFollower() && h.replica.IsLeader() {
		env := m.environment(h)
		moved, change := h.replica.FollowerFetched(&partition.FollowerFetch{
			Replica: op.request.Replica, Epoch: op.request.ReplicaEpoch, Offset: part.FetchOffset, LogStart: part.LogStartOffset,
		}, &env)
		effects.submit(h, change)
		if moved {
			h.highWatermarkMovedLocked(effects)
		}
		h.progressDeletesLocked(effects)
	}
	v.highWatermark = h.replica.Readable()
	v.lastStableOffset = v.highWatermark
	switch {
	case op.request.Replica != ConsumerReplica:
		v.limit = h.log.EndOffset()
	case op.request.Isolation == ReadCommitted:
		v.lastStableOffset = min(h.log.LastStableOffset(), v.highWatermark)
		v.limit = v.lastStableOffset
	default:
		v.limit = v.highWatermark
	}
}

// admitLocked makes a leader's checks of one part, in Kafka's order (interbroker.md 9).
func (op *fetchOp) admitLocked(part *FetchPart, v *view) error {
	h := v.host
	if err := h.usableLocked(); err != nil {
		return err
	}
	if !part.TopicID.IsZero() && !h.topicID.IsZero() && part.TopicID != h.topicID {
		return kerr.InconsistentTopicID
	}
	if err := h.replica.CheckEpoch(part.CurrentLeaderEpoch); err != nil {
		v.awaited = errors.Is(err, kerr.UnknownLeaderEpoch)
		return err
	}
	if !h.replica.IsLeader() && (op.request.LeaderOnly || op.isFollower() || h.replica.Role() != partition.Follower) {
		return errNotLeader
	}
	if op.isFollower() {
		if !h.replica.IsAssigned(op.request.Replica) {
			if part.CurrentLeaderEpoch != cluster.NoLeaderEpoch {
				return kerr.UnknownLeaderEpoch
			}
			return errNotLeader
		}
		if h.replica.RefusesIncarnation(op.request.Replica, op.request.ReplicaEpoch) {
			return kerr.StaleBrokerEpoch
		}
	}
	v.logStart = h.log.StartOffset()
	if v.nearReader = op.nearReaderLocked(h, part.FetchOffset); v.nearReader != nil {
		return nil // whatever it asks for is that replica's to judge
	}
	if part.LastFetchedEpoch != cluster.NoLeaderEpoch {
		epoch, end := h.log.EndOffsetForEpoch(part.LastFetchedEpoch)
		diverging, err := partition.Divergence(part.LastFetchedEpoch, part.FetchOffset, v.logStart, partition.EpochEnd{Epoch: epoch, End: end})
		if err != nil {
			return err
		}
		if diverging {
			v.diverging = &DivergingEpoch{Epoch: epoch, EndOffset: end}
			return nil
		}
	}
	if part.FetchOffset < v.logStart || part.FetchOffset > h.log.EndOffset() {
		return kerr.OffsetOutOfRange
	}
	return nil
}

// worthAnswering decides whether what was found is an answer already: an error (unless it is
// about to be cured), a divergence, or enough bytes.
func (op *fetchOp) worthAnswering(parts []FetchPart, views []view) bool {
	available := 0
	for i := range views {
		v := &views[i]
		if v.err != nil && !v.awaited || v.diverging != nil || v.nearReader != nil {
			return true
		}
		part := &parts[i]
		if v.err != nil || v.limit <= part.FetchOffset {
			continue
		}
		if op.request.MinBytes <= 1 {
			return true
		}
		available += op.sizeOf(part, v)
		if available >= int(op.request.MinBytes) {
			return true
		}
	}
	return op.request.MinBytes <= 0
}

// sizeOf counts the bytes that a part would bring, without reading them.
func (op *fetchOp) sizeOf(part *FetchPart, v *view) int {
	slice, err := v.host.log.Read(part.FetchOffset, int(part.MaxBytes), v.limit, true)
	if err != nil {
		return int(op.request.MinBytes) // let the answer tell
	}
	defer slice.Close()
	return slice.Size()
}

// answer reads what the views allow and calls done. It is called by the one who set answered,
// or before the op can be known to anybody else.
func (op *fetchOp) answer(parts []FetchPart, views []view) {
	if op.answered.Swap(true) {
		return
	}
	op.respond(parts, views)
}

func (op *fetchOp) respond(parts []FetchPart, views []view) {
	results := make([]FetchResult, len(views))
	budget := int(op.request.MaxBytes)
	if budget <= 0 {
		budget = 1 << 30
	}
	minOne := true
	for i := range views {
		v, part, result := &views[i], &parts[i], &results[i]
		result.Tag, result.Err = part.Tag, v.err
		result.Awaited = v.awaited
		result.HighWatermark, result.LastStableOffset, result.LogStartOffset = v.highWatermark, v.lastStableOffset, v.logStart
		result.Diverging = v.diverging
		result.Leader, result.NearReader = v.leader, v.nearReader
		if v.err != nil || v.diverging != nil || v.nearReader != nil || v.limit <= part.FetchOffset || budget <= 0 {
			continue
		}
		size := op.readPart(part, v, result, min(int(part.MaxBytes), budget), minOne)
		budget -= size
		minOne = minOne && size == 0
	}
	op.done(results)
}

func (op *fetchOp) readPart(part *FetchPart, v *view, result *FetchResult, maxBytes int, minOne bool) int {
	slice, err := v.host.log.Read(part.FetchOffset, maxBytes, v.limit, minOne)
	if err != nil {
		result.Err = err
		result.HighWatermark = cluster.NoOffset
		if errors.Is(err, commitlog.ErrCorrupt) {
			result.Err = op.m.damageCode(v.host)
			return 0
		}
		effects := takeEffects()
		op.m.storageMayHaveFailed(v.host, err, effects)
		op.m.run(effects)
		return 0
	}
	size := slice.Size()
	if size == 0 {
		_ = slice.Close()
		return 0
	}
	result.Slice = slice
	if op.request.Isolation == ReadCommitted && op.request.Replica == ConsumerReplica {
		result.Aborted, err = v.host.log.AbortedTransactions(part.FetchOffset, slice.NextOffset())
		if err != nil {
			_ = slice.Close()
			result.Slice, result.Err = nil, err
			return 0
		}
	}
	return size
}

// wait links the op into its partitions' lists and the wheel. It returns false if something
// has changed since the views were taken, so that the op would wait for what has happened.
func (op *fetchOp) wait(views []view) bool {
	op.mu.Lock()
	defer op.mu.Unlock()
	switch len(views) {
	case 0:
	case 1:
		op.waiters = op.single.waiter[:]
	default:
		op.waiters = make([]waiter, len(views))
	}
	strange := false
	for i := range views {
		v, part := &views[i], &op.request.Parts[i]
		if v.host == nil {
			strange = true
			continue
		}
		w := &op.waiters[i]
		*w = waiter{op: op, host: v.host, offset: part.FetchOffset, bound: op.bound()}
		if v.awaited {
			w.bound = untilRoleChange
		}
		if !w.link(part, v) {
			op.giveUpLocked()
			return false
		}
	}
	if session := op.request.Standing; session != nil && !session.attach(op) {
		op.giveUpLocked()
		return false
	}
	if strange {
		op.m.addStranger(op)
	}
	op.m.wheel.add(&op.entry, op, op.request.MaxWait)
	return true
}

func (op *fetchOp) bound() waitBound {
	if op.request.Replica == ConsumerReplica {
		return untilHighWatermark
	}
	return untilLogEnd
}

// giveUpLocked ends a wait that has not begun: whoever found the op in a list meanwhile must
// not add to it.
func (op *fetchOp) giveUpLocked() {
	op.gone = true
	op.unlinkLocked()
}

// unlinkLocked takes the op out of all lists.
func (op *fetchOp) unlinkLocked() {
	for i := range op.waiters {
		w := &op.waiters[i]
		if w.host == nil {
			continue
		}
		w.host.mu.Lock()
		w.unlinkLocked()
		w.host.mu.Unlock()
	}
	for _, w := range op.absorbed {
		w.host.mu.Lock()
		w.unlinkLocked()
		w.host.mu.Unlock()
	}
	if op.request.Standing != nil {
		op.request.Standing.detach(op)
	}
	op.m.wheel.remove(&op.entry)
}

// wake is called, without locks, after something that the op waits for has happened.
func (op *fetchOp) wake() {
	if op.answered.Load() {
		return
	}
	parts, views := op.lookAgain()
	if op.worthAnswering(parts, views) || op.cured(views) {
		op.finish(parts, views)
	}
}

// cured says whether a partition has got the role that the fetch waited for. It is answered
// then, even with nothing: the next fetch records the follower's progress.
func (op *fetchOp) cured(views []view) bool {
	for i := range op.waiters {
		if w := &op.waiters[i]; (w.host == nil || w.bound == untilRoleChange) && views[i].err == nil {
			return true
		}
	}
	return false
}

// estranged says whether the fetch waits for a partition that is still not here.
func (op *fetchOp) estranged() bool {
	op.mu.Lock()
	parts := op.request.Parts
	op.mu.Unlock()
	for i := range parts {
		if op.m.host(parts[i].TP) == nil {
			return true
		}
	}
	return false
}

// lookAgain looks into memory of its own: two goroutines may wake one op.
func (op *fetchOp) lookAgain() ([]FetchPart, []view) {
	parts := op.absorb()
	views := make([]view, len(parts))
	for i := range parts {
		op.lookAt(&parts[i], &views[i], false, nil)
	}
	return parts, views
}

// expire answers with what there is: the time is up, or nobody waits for the answer.
func (op *fetchOp) expire() {
	if !op.answered.Load() {
		op.finish(op.lookAgain())
	}
}

func (op *fetchOp) finish(parts []FetchPart, views []view) {
	if op.answered.Swap(true) {
		return
	}
	op.mu.Lock()
	op.unlinkLocked()
	op.mu.Unlock()
	op.respond(parts, views)
}

// waitBound is what a waiter waits for in its partition; any change of role or truncation
// wakes it, too.
type waitBound uint8

const (
	untilLogEnd waitBound = iota
	untilHighWatermark
	untilRoleChange
)

// waiter links a fetch, or a session's quiet part, to one of its partitions. Its links are
// guarded by the partition's mu.
type waiter struct {
	op         *fetchOp
	standing   *StandingPart // instead of op
	host       *hosted
	offset     cluster.Offset
	bound      waitBound
	queued     bool
	prev, next *waiter
}

// waitList is a partition's waiting fetches.
type waitList struct{ head *waiter }

// link enters the list unless what the waiter would wait for has happened already.
func (w *waiter) link(part *FetchPart, v *view) bool {
	h := w.host
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.usableLocked() != nil {
		return false
	}
	epochChanged := h.replica.CheckEpoch(part.CurrentLeaderEpoch) != nil
	switch w.bound {
	case untilRoleChange:
		if !epochChanged {
			return false
		}
	case untilLogEnd:
		if epochChanged || h.log.EndOffset() != v.limit {
			return false
		}
	case untilHighWatermark:
		if epochChanged || h.replica.Readable() != v.highWatermark {
			return false
		}
	}
	w.linkLocked()
	return true
}

func (w *waiter) linkLocked() {
	w.queued = true
	w.next = w.host.waiters.head
	if w.next != nil {
		w.next.prev = w
	}
	w.host.waiters.head = w
}

func (w *waiter) unlinkLocked() {
	if !w.queued {
		return
	}
	w.queued = false
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		w.host.waiters.head = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	}
	w.prev, w.next = nil, nil
}

func (l *waitList) wakeFollowers(logEnd cluster.Offset, effects *effects) {
	l.wakeIf(effects, func(w *waiter) bool { return w.bound == untilLogEnd && logEnd > w.offset })
}

func (l *waitList) wakeConsumers(highWatermark cluster.Offset, effects *effects) {
	l.wakeIf(effects, func(w *waiter) bool { return w.bound == untilHighWatermark && highWatermark > w.offset })
}

func (l *waitList) wakeAll(effects *effects) {
	l.wakeIf(effects, func(*waiter) bool { return true })
}

// wakeIf wakes fetches, which stay in the list until they are answered, and stirs quiet parts,
// which leave it.
func (l *waitList) wakeIf(effects *effects, affected func(*waiter) bool) {
	for w := l.head; w != nil; {
		next := w.next
		switch {
		case !affected(w):
		case w.standing != nil:
			w.unlinkLocked()
			w.standing.stir(effects)
		default:
			effects.fetches = append(effects.fetches, w.op)
		}
		w = next
	}
}

func (m *Manager) addStranger(op *fetchOp) {
	m.hosts.Lock()
	defer m.hosts.Unlock()
	if len(m.hosts.strangers) > 1000 { // those that were answered are dropped now and then
		kept := m.hosts.strangers[:0]
		for _, other := range m.hosts.strangers {
			if !other.answered.Load() {
				kept = append(kept, other)
			}
		}
		clear(m.hosts.strangers[len(kept):])
		m.hosts.strangers = kept
	}
	m.hosts.strangers = append(m.hosts.strangers, op)
}

// completeStrangers lets the fetches look again that came for partitions not hosted then.
func (m *Manager) completeStrangers() {
	m.hosts.Lock()
	strangers := m.hosts.strangers
	m.hosts.strangers = nil
	m.hosts.Unlock()
	for _, op := range strangers {
		op.wake()
		if !op.answered.Load() && op.estranged() {
			m.addStranger(op)
		}
	}
}
