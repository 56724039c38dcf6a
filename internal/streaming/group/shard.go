package group

import (
	"container/heap"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/group/classic"
	"understudy/internal/streaming/record"
)

type phase uint8

const (
	loading phase = iota
	active
	closed
)

// shard is one partition of Topic while this broker leads it, and its groups.
type shard struct {
	coordinator *Coordinator
	tp          cluster.TopicPartition
	epoch       cluster.LeaderEpoch // in which it was loaded
	latest      cluster.LeaderEpoch // grows while nobody else leads; guarded by coordinator.mu

	mu struct {
		sync.Mutex
		phase     phase
		groups    map[string]*entry
		deadlines deadlines
		timer     *time.Timer // nil until there is a deadline
		outbox    []effect
		attended  bool // somebody empties the outbox
	}
}

// entry is a group with its place among the deadlines.
type entry struct {
	group  *classic.Group
	wake   time.Time // zero: not among the deadlines
	index  int
	writes int // under way
}

// effect is one thing to do outside the lock: a reply, or a write.
type effect struct {
	reply classic.Reply
	write *classic.Write
	entry *entry // of the write
}

func newShard(c *Coordinator, partition int32, epoch cluster.LeaderEpoch) *shard {
	s := &shard{coordinator: c, tp: cluster.TopicPartition{Topic: Topic, Partition: partition}, epoch: epoch, latest: epoch}
	s.mu.groups = map[string]*entry{}
	return s
}

// with runs an event of a group that exists, or reports that there is none (nil group), and
// then sends off what it asks for. It returns what stands in the way, if the shard is not
// active.
func (s *shard) with(id string, event func(g *classic.Group, now time.Time, out *classic.Effects)) *kerr.Error {
	return s.run(id, false, event)
}

// withNew is with, but makes the group if it does not exist.
func (s *shard) withNew(id string, event func(g *classic.Group, now time.Time, out *classic.Effects)) *kerr.Error {
	return s.run(id, true, event)
}

func (s *shard) run(id string, create bool, event func(g *classic.Group, now time.Time, out *classic.Effects)) *kerr.Error {
	s.mu.Lock()
	if code := s.unavailableLocked(); code != nil {
		s.mu.Unlock()
		return code
	}
	now := s.coordinator.now()
	e := s.mu.groups[id]
	if e == nil && create {
		e = &entry{group: classic.New(id, &s.coordinator.config.Settings, now), index: -1}
		s.mu.groups[id] = e
	}
	var out classic.Effects
	if e == nil {
		event(nil, now, &out)
		for i := range out.Replies {
			s.mu.outbox = append(s.mu.outbox, effect{reply: out.Replies[i]})
		}
	} else {
		event(e.group, now, &out)
		s.settleLocked(e, &out)
	}
	s.sendAndUnlock()
	return nil
}

func (s *shard) unavailableLocked() *kerr.Error {
	switch s.mu.phase {
	case loading:
		return kerr.CoordinatorLoadInProgress
	case closed:
		return kerr.NotCoordinator
	}
	return nil
}

// forEach runs an event of every group.
func (s *shard) forEach(event func(g *classic.Group, now time.Time, out *classic.Effects)) {
	s.mu.Lock()
	if s.mu.phase == active {
		now := s.coordinator.now()
		for _, e := range s.groupsLocked() {
			var out classic.Effects
			event(e.group, now, &out)
			s.settleLocked(e, &out)
		}
	}
	s.sendAndUnlock()
}

// groupsLocked returns the groups; in order, so that a run can be repeated.
func (s *shard) groupsLocked() []*entry {
	groups := make([]*entry, 0, len(s.mu.groups))
	for _, id := range slices.Sorted(maps.Keys(s.mu.groups)) {
		groups = append(groups, s.mu.groups[id])
	}
	return groups
}

// settleLocked is called after each event: it queues the effects, keeps the deadline and
// drops a group that is over.
func (s *shard) settleLocked(e *entry, out *classic.Effects) {
	for i := range out.Writes {
		e.writes++
		s.mu.outbox = append(s.mu.outbox, effect{write: &out.Writes[i], entry: e})
	}
	for i := range out.Replies {
		s.mu.outbox = append(s.mu.outbox, effect{reply: out.Replies[i]})
	}
	if s.mu.phase != active {
		return
	}
	if e.writes == 0 && e.group.State() == classic.Dead {
		if s.mu.groups[e.group.ID()] == e {
			delete(s.mu.groups, e.group.ID())
		}
		s.rescheduleLocked(e, time.Time{})
		return
	}
	s.rescheduleLocked(e, e.group.Wake())
}

// rescheduleLocked moves a group among the deadlines and sets the timer to the first.
func (s *shard) rescheduleLocked(e *entry, wake time.Time) {
	if e.wake.Equal(wake) {
		return
	}
	switch {
	case wake.IsZero():
		heap.Remove(&s.mu.deadlines, e.index)
		e.wake = wake
	case e.wake.IsZero():
		e.wake = wake
		heap.Push(&s.mu.deadlines, e)
	default:
		e.wake = wake
		heap.Fix(&s.mu.deadlines, e.index)
	}
	s.setTimerLocked()
}

func (s *shard) setTimerLocked() {
	switch {
	case s.coordinator.stepped != nil: // Tick looks at the deadlines
	case len(s.mu.deadlines) == 0:
		if s.mu.timer != nil {
			s.mu.timer.Stop()
		}
	case s.mu.timer == nil:
		s.mu.timer = time.AfterFunc(time.Until(s.mu.deadlines[0].wake), s.tick)
	default:
		s.mu.timer.Reset(time.Until(s.mu.deadlines[0].wake))
	}
}

// pauseLimit is how late the timer may be before the process counts as having been paused
// (SIGSTOP, a machine asleep).
const pauseLimit = time.Second

// tick runs what is due.
func (s *shard) tick() {
	s.mu.Lock()
	if s.mu.phase == active {
		now := s.coordinator.now()
		s.forgivePauseLocked(now)
		for len(s.mu.deadlines) > 0 && !s.mu.deadlines[0].wake.After(now) {
			e := s.mu.deadlines[0]
			var out classic.Effects
			e.group.Tick(now, &out)
			s.settleLocked(e, &out)
		}
		s.setTimerLocked()
	}
	s.sendAndUnlock()
}

// forgivePauseLocked moves all deadlines by as much as the timer is late, if that is much.
func (s *shard) forgivePauseLocked(now time.Time) {
	if len(s.mu.deadlines) == 0 {
		return
	}
	late := now.Sub(s.mu.deadlines[0].wake)
	if late < pauseLimit {
		return
	}
	s.coordinator.logger.Warn("group coordinator was paused, members get that time back", "partition", s.tp.Partition, "pause", late)
	for _, e := range s.mu.groups {
		e.group.Postpone(late)
	}
	for _, e := range s.mu.deadlines { // all by the same, so the order stands
		e.wake = e.group.Wake()
	}
}

// sendAndUnlock empties the outbox unless somebody else does it already. The lock is given
// up meanwhile, and for good at the end.
func (s *shard) sendAndUnlock() {
	if s.mu.attended {
		s.mu.Unlock()
		return
	}
	s.mu.attended = true
	for len(s.mu.outbox) > 0 {
		effects := s.mu.outbox
		s.mu.outbox = nil
		s.mu.Unlock()
		s.send(effects)
		s.mu.Lock()
	}
	s.mu.attended = false
	s.mu.Unlock()
}

// combinedBytesMax bounds what writes are combined to; a larger write goes alone.
const combinedBytesMax = 64 << 10

// send carries effects out: replies at once, neighbouring writes combined.
func (s *shard) send(effects []effect) {
	limit := min(combinedBytesMax, int(s.coordinator.config.MessageMaxBytes)/2)
	var together []effect
	size := 0
	flush := func() {
		if len(together) > 0 {
			s.append(together)
			together, size = nil, 0
		}
	}
	for _, e := range effects {
		if e.write == nil {
			e.reply.To.(func(any))(e.reply.Body)
			continue
		}
		added := recordsSize(e.write.Records)
		if len(together) > 0 && (size+added > limit || together[0].write.Acknowledged != e.write.Acknowledged) {
			flush()
		}
		together, size = append(together, e), size+added
	}
	flush()
}

func recordsSize(records []classic.Record) (size int) {
	for i := range records {
		size += len(records[i].Key) + len(records[i].Value) + 16
	}
	return size
}

// append writes the records of some writes as one batch.
func (s *shard) append(writes []effect) {
	if s.isClosed() {
		s.written(writes, kerr.NotLeaderForPartition) // nothing of an old epoch may follow it
		return
	}
	config := &s.coordinator.config
	options := record.DefaultOptions()
	options.Codec = config.Codec
	builder := record.NewBuilder(options)
	nowMs := s.coordinator.now().UnixMilli()
	for _, e := range writes {
		for _, r := range e.write.Records {
			builder.Append(nowMs, r.Key, r.Value)
		}
	}
	batch, err := builder.Build()
	if err != nil {
		s.written(writes, err)
		return
	}
	acks := config.CommitAcks
	if !writes[0].write.Acknowledged {
		acks = 1 // the leader's log is enough, and a failure is worth a line
	}
	config.Log.Append(s.tp, batch, acks, config.CommitTimeout, func(err error) { s.written(writes, err) })
}

// written is the event that writes are durable or have failed.
func (s *shard) written(writes []effect, err error) {
	if err != nil {
		s.coordinator.logger.Warn("group coordinator could not write", "partition", s.tp.Partition, "leaderEpoch", s.epoch, "error", err)
	}
	s.mu.Lock()
	now := s.coordinator.now()
	for _, e := range writes {
		var out classic.Effects
		e.write.Complete(now, err, &out)
		e.entry.writes--
		s.settleLocked(e.entry, &out)
	}
	s.sendAndUnlock()
}

func (s *shard) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.phase == closed
}

// close ends the shard: everything that waits for another member is answered with code;
// what waits for a write under way is answered by its outcome.
func (s *shard) close(code *kerr.Error) {
	s.mu.Lock()
	if s.mu.phase != closed {
		s.mu.phase = closed
		if s.mu.timer != nil {
			s.mu.timer.Stop()
		}
		for _, e := range s.groupsLocked() {
			var out classic.Effects
			e.group.Abandon(code, &out)
			s.settleLocked(e, &out)
		}
		s.mu.groups, s.mu.deadlines = nil, nil
	}
	s.sendAndUnlock()
}

// deadlines is a heap of groups by the time they want to be called.
type deadlines []*entry

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].wake.Before(d[j].wake) }
func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].index, d[j].index = i, j
}

func (d *deadlines) Push(x any) {
	e := x.(*entry)
	e.index = len(*d)
	*d = append(*d, e)
}

func (d *deadlines) Pop() any {
	last := len(*d) - 1
	e := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	e.index = -1
	return e
}
