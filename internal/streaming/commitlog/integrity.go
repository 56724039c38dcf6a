package commitlog

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/record"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Damage is a stretch of a segment that does not hold what was written there: a bit has
// flipped, a sector came back wrong. The log refuses to serve it, serves the rest, and is
// whole again after Repair with the batches of another replica.
type Damage struct {
	Path        string // of the segment file
	From, To    int64  // bytes
	First, Next cluster.Offset
	Cause       error
}

// DamageError refuses what a damaged stretch would have to serve. It is ErrCorrupt, and
// CORRUPT_MESSAGE to clients.
type DamageError struct {
	Topic     string
	Partition int32
	Damage    Damage
}

func (e *DamageError) Error() string {
	d := &e.Damage
	return fmt.Sprintf("commitlog: %s is damaged from byte %d to %d, offsets %d to %d of %s-%d: %v",
		d.Path, d.From, d.To, d.First, d.Next-1, e.Topic, e.Partition, d.Cause)
}

// Unwrap gives the marks and the cause.
func (e *DamageError) Unwrap() []error {
	return []error{ErrCorrupt, kerr.CorruptMessage, e.Damage.Cause}
}

// integrity is what is known of a segment's bytes. What this process appended is right.
// What it found on disk is checked the first time it is read: recovery looks at nothing
// below the recovery point.
type integrity struct {
	// whole says that all bytes are known to be right: reads need no look at the rest.
	whole atomic.Bool
	// damaged is never changed in place; nil: none is known.
	damaged atomic.Pointer[[]Damage]

	mu       sync.Mutex
	found    int64     // bytes from here on are this process's own
	verified []stretch // of what was found: sorted, disjoint, from batch to batch
}

// stretch is a run of whole batches, which begins with offset first and ends below next.
type stretch struct {
	from, to    int64
	first, next cluster.Offset
}

// stretchesMax bounds what is remembered of scattered reads; the scrubber, or the next
// reader, looks at the rest again.
const stretchesMax = 256

func (g *integrity) damages() []Damage {
	if list := g.damaged.Load(); list != nil {
		return *list
	}
	return nil
}

// startFound is for a segment that was on disk at start: nothing of it is verified.
func (g *integrity) startFound(size int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.found, g.verified = size, nil
	g.settleLocked()
}

// startOwn is for a segment that this process makes.
func (g *integrity) startOwn() { g.whole.Store(true) }

func (g *integrity) settleLocked() {
	covered := g.found == 0 || len(g.verified) == 1 && g.verified[0].from == 0 && g.verified[0].to >= g.found
	g.whole.Store(covered && len(g.damages()) == 0)
}

// note adds a verified run.
func (g *integrity) note(run stretch) {
	if run.from >= run.to {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.verified = append(g.verified, run)
	slices.SortFunc(g.verified, func(a, b stretch) int { return cmp.Compare(a.from, b.from) })
	merged := g.verified[:1]
	for _, next := range g.verified[1:] {
		if last := &merged[len(merged)-1]; next.from <= last.to {
			if next.to > last.to {
				last.to, last.next = next.to, next.next
			}
		} else {
			merged = append(merged, next)
		}
	}
	if len(merged) > stretchesMax {
		smallest := 0
		for i := range merged {
			if merged[i].to-merged[i].from < merged[smallest].to-merged[smallest].from {
				smallest = i
			}
		}
		merged = slices.Delete(merged, smallest, smallest+1)
	}
	g.verified = merged
	g.settleLocked()
}

// missing lists the runs within [from, to) that nobody has verified, with the offsets that they
// must lie between as far as they are known: -1 if not.
func (g *integrity) missing(from, to int64) (gaps []stretch) {
	g.mu.Lock()
	defer g.mu.Unlock()
	to = min(to, g.found)
	first := cluster.Offset(-1)
	for _, known := range g.verified {
		if known.to < from {
			continue
		}
		if known.from >= to {
			break
		}
		if known.from > from {
			gaps = append(gaps, stretch{from, known.from, first, known.first})
		}
		from, first = known.to, known.next
	}
	if from < to {
		gaps = append(gaps, stretch{from, to, first, -1})
	}
	return gaps
}

// truncate is for a segment that is cut.
func (g *integrity) truncate(size int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.found = min(g.found, size)
	kept := g.verified[:0]
	for _, known := range g.verified {
		if known.to <= size { // of one that is cut the end is not known
			kept = append(kept, known)
		}
	}
	g.verified = kept
	g.setDamagesLocked(slices.DeleteFunc(slices.Clone(g.damages()), func(d Damage) bool { return d.From >= size }))
}

func (g *integrity) setDamagesLocked(list []Damage) {
	if len(list) == 0 {
		g.damaged.Store(nil)
	} else {
		g.damaged.Store(&list)
	}
	g.settleLocked()
}

// conclude takes the outcome of an examination.
func (g *integrity) conclude(found *survey) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.verified = nil
	for _, b := range found.batches {
		if n := len(g.verified); n > 0 && g.verified[n-1].to == b.position {
			g.verified[n-1].to, g.verified[n-1].next = b.position+b.size, b.last+1
		} else {
			g.verified = append(g.verified, stretch{b.position, b.position + b.size, b.base, b.last + 1})
		}
	}
	g.setDamagesLocked(found.damaged)
}

// repaired takes a damage out.
func (g *integrity) repaired(d Damage) {
	g.mu.Lock()
	g.setDamagesLocked(slices.DeleteFunc(slices.Clone(g.damages()), func(other Damage) bool { return other.From == d.From }))
	g.mu.Unlock()
	g.note(stretch{d.From, d.To, d.First, d.Next})
}

// suspicion says that a look at a segment found something that cannot be: the segment is to
// be examined.
type suspicion struct {
	segment *segment
	cause   error
}

func (e *suspicion) Error() string {
	return fmt.Sprintf("commitlog: %s: %v", e.segment.log.path(), e.cause)
}

// Unwrap gives the mark that answers a client, should the examination not clear it up.
func (e *suspicion) Unwrap() []error { return []error{ErrCorrupt, kerr.CorruptMessage, e.cause} }

func suspect(s *segment, format string, args ...any) error {
	return &suspicion{s, fmt.Errorf(format, args...)}
}

// suspected is the segment that an error raises suspicion about, nil if it is another kind.
func (l *Log) suspected(err error) *segment {
	if err == nil || errors.As(err, new(*DamageError)) {
		return nil
	}
	if suspicion, ok := errors.AsType[*suspicion](err); ok {
		return suspicion.segment
	}
	if corrupt, ok := errors.AsType[*CorruptionError](err); ok {
		for _, s := range l.view().segments {
			if s.log.path() == corrupt.Path {
				return s
			}
		}
	}
	return nil
}

// lookError is what a failed look at the log's files answers with: damage has a code of its
// own, and is no reason to give up the directory.
func (l *Log) lookError(cause error) error {
	if errors.Is(cause, ErrCorrupt) {
		return fmt.Errorf("commitlog: %s: %w", l.tp, cause)
	}
	return l.storageError(cause)
}

// examining runs f and, if it met something wrong with a segment, examines that and runs f
// again, knowing what is damaged. f holds none of the log's locks when it returns.
func (l *Log) examining(f func() error) error {
	var examined *segment
	for {
		err := f()
		s := l.suspected(err)
		if s == nil || s == examined {
			return err
		}
		if err := l.examine(s); err != nil {
			return err
		}
		examined = s
	}
}

// Damages lists the stretches known to be damaged.
func (l *Log) Damages() (list []Damage) {
	for _, s := range l.view().segments {
		list = append(list, s.integrity.damages()...)
	}
	return list
}

func (l *Log) damageError(d Damage) error {
	return &DamageError{Topic: l.tp.Topic, Partition: l.tp.Partition, Damage: d}
}

// verify checks the batches in a run of a segment that begins and ends with a batch, as far
// as nobody has yet. Anything wrong is a suspicion.
func (l *Log) verify(s *segment, from, to int64, end cluster.Offset) error {
	if s.integrity.whole.Load() {
		return nil
	}
	for _, gap := range s.integrity.missing(from, to) {
		// A run that ends where the found bytes end may go on with our own.
		if err := l.verifyGap(s, gap, end); err != nil {
			return err
		}
	}
	return nil
}

// verifyAround verifies a segment from a batch on, between the damages that are known.
func (l *Log) verifyAround(s *segment, from int64, end cluster.Offset) error {
	for _, d := range s.integrity.damages() {
		if from < d.From {
			if err := l.verify(s, from, d.From, d.First); err != nil {
				return err
			}
		}
		from = max(from, d.To)
	}
	return l.verify(s, from, s.size.Load(), end)
}

func (l *Log) verifyGap(s *segment, gap stretch, end cluster.Offset) error {
	file, err := l.files.acquire(&s.log)
	if err != nil {
		return err
	}
	defer l.files.release(&s.log)
	buffer := recoveryBuffers.Get().(*[]byte)
	defer recoveryBuffers.Put(buffer)
	reader := &batchReader{file: file, path: s.log.path, limit: gap.to, buffer: *buffer}
	// Logs that are not compacted have no gaps, or few.
	contiguous := !l.config.Load().Compact
	run := stretch{from: gap.from, first: -1}
	expected, position := max(gap.first, s.base), gap.from
	if gap.next >= 0 {
		end = min(end, gap.next)
	}
	for position < gap.to {
		header, size, err := reader.check(position)
		if err != nil {
			if errors.Is(err, ErrCorrupt) {
				return suspect(s, "%w", err)
			}
			return err
		}
		if err := l.fits(s, header, position, expected, end); err != nil {
			return err
		}
		if contiguous && header.BaseOffset() != expected && (gap.first >= 0 || position > gap.from) {
			return suspect(s, "offset %d at byte %d where %d is expected", header.BaseOffset(), position, expected)
		}
		if run.first < 0 {
			run.first = header.BaseOffset()
		}
		expected = header.NextOffset()
		position += size
	}
	run.to, run.next = position, expected
	s.integrity.note(run)
	return nil
}

// fits checks what no checksum covers of a batch: it follows what is before it, ends before
// what follows, and is of the leader epoch that the offset was written in.
func (l *Log) fits(s *segment, header record.Batch, position int64, expected, end cluster.Offset) error {
	epoch, known := header.LeaderEpoch(), l.epochs.forOffset(header.BaseOffset())
	if header.BaseOffset() < expected || header.LastOffset() >= end || epoch != cluster.NoLeaderEpoch && known != cluster.NoLeaderEpoch && epoch != known {
		return suspect(s, "a batch of offsets %d to %d, leader epoch %d, at byte %d", header.BaseOffset(), header.LastOffset(), epoch, position)
	}
	return nil
}

var recoveryBuffers = sync.Pool{New: func() any { b := make([]byte, recoveryBuffer); return &b }}

// examine reads a whole segment and finds out what of it is damaged; the indexes are made
// anew from the rest. It is for a segment that something was wrong with.
func (l *Log) examine(s *segment) error {
	const attempts = 5
	for range attempts {
		l.writer.Lock()
		now, truncations := l.view(), l.writer.truncations
		l.writer.Unlock()
		at := slices.Index(now.segments, s)
		if at < 0 {
			return errForgotten
		}
		found, err := l.survey(s, now.limit(at), now.endOf(at))
		if err != nil {
			return err
		}
		done, err := l.conclude(s, found, truncations)
		if done || err != nil {
			return err
		}
	}
	return l.storageError(fmt.Errorf("%s changes too fast to be examined", s.log.path()))
}

// conclude takes the findings, unless the log was truncated meanwhile.
func (l *Log) conclude(s *segment, found *survey, truncations uint64) (done bool, err error) {
	l.writer.Lock()
	defer l.writer.Unlock()
	if truncations != l.writer.truncations {
		return false, nil
	}
	if !slices.Contains(l.published.segments, s) {
		return false, errForgotten
	}
	if err := l.adoptSurvey(s, found, s == l.activeLocked()); err != nil {
		return false, l.fail(err)
	}
	l.hints.clear()
	if len(found.damaged) == 0 {
		return true, l.reconcileEpochsLocked(found)
	}
	return true, nil
}

// adoptSurvey takes what a survey found: what is damaged, and the indexes.
func (l *Log) adoptSurvey(s *segment, found *survey, active bool) error {
	known := s.integrity.damages()
	s.integrity.conclude(found)
	for _, d := range found.damaged {
		if !slices.ContainsFunc(known, func(other Damage) bool { return other.From == d.From && other.To == d.To }) {
			l.dir.logger.Error("log is damaged: these batches are not served from here until another replica has given a good copy",
				"topic", l.tp.Topic, "partition", l.tp.Partition, "path", d.Path, "position", d.From, "bytes", d.To-d.From,
				"offset", d.First, "next", d.Next, "cause", d.Cause)
		}
	}
	if len(found.damaged) == 0 {
		l.dir.logger.Warn("a segment was examined and has no damage: its indexes are made anew from its batches",
			"topic", l.tp.Topic, "partition", l.tp.Partition, "path", s.log.path())
	}
	return s.rebuildIndexes(l.files, found, l.config.Load().IndexIntervalBytes, active)
}

// reconcileEpochsLocked corrects the epoch cache by a segment whose batches are all right:
// what contradicts them came from a damaged checkpoint.
func (l *Log) reconcileEpochsLocked(found *survey) error {
	for _, b := range found.batches {
		if known := l.epochs.forOffset(b.base); b.epoch >= 0 && known != b.epoch {
			l.dir.logger.Warn("leader epoch checkpoint contradicts the batches: it is rebuilt from them", "topic", l.tp.Topic,
				"partition", l.tp.Partition, "offset", b.base, "checkpoint", known, "batch", b.epoch)
			err := l.rebuildEpochs()
			l.epochs.truncateFromStart(l.published.start)
			l.background(l, choreFiles)
			return err
		}
	}
	return nil
}

// learnEpochs brings the epoch cache up to batches in the middle of the log.
func (l *Log) learnEpochs(data []byte) {
	for batch := range record.All(data) {
		if l.epochs.learn(batch.LeaderEpoch(), batch.BaseOffset()) {
			l.background(l, choreFiles)
		}
	}
}

// Repair puts the batches of another replica in the place of a damaged stretch. They must
// be what stood there to the byte: the same offsets in the same leader epochs and as many
// bytes. data may go on after them.
func (l *Log) Repair(damage Damage, data []byte) error {
	if err := l.Failed(); err != nil {
		return err
	}
	l.writer.Lock()
	defer l.writer.Unlock()
	at := slices.IndexFunc(l.published.segments, func(s *segment) bool { return s.log.path() == damage.Path })
	if at < 0 {
		return nil // deleted meanwhile
	}
	s := l.published.segments[at]
	if !slices.ContainsFunc(s.integrity.damages(), func(d Damage) bool { return d.From == damage.From && d.To == damage.To }) {
		return nil // truncated, or repaired by somebody else
	}
	data, err := l.fitting(damage, data)
	if err != nil {
		return fmt.Errorf("commitlog: %s is not repaired at byte %d: %w", damage.Path, damage.From, err)
	}
	file, err := l.files.acquire(&s.log)
	if err != nil {
		return l.storageError(err)
	}
	defer l.files.release(&s.log)
	if _, err := file.WriteAt(data, damage.From); err != nil {
		return l.fail(fmt.Errorf("repair %s: %w", damage.Path, err))
	}
	if err := file.Sync(); err != nil {
		return l.fail(fmt.Errorf("repair %s: %w", damage.Path, err))
	}
	s.integrity.repaired(damage)
	l.hints.clear()
	l.learnEpochs(data) // what was read off the other batches lacks these
	if err := l.reloadProducersLocked(l.published.end); err != nil {
		return l.fail(err)
	}
	l.dir.logger.Warn("damaged batches replaced by another replica's", "topic", l.tp.Topic, "partition", l.tp.Partition,
		"path", damage.Path, "position", damage.From, "bytes", damage.To-damage.From, "offset", damage.First, "next", damage.Next)
	return nil
}
