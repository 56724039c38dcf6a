package commitlog

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/record"
)

// survey is what a reading of a whole segment found.
type survey struct {
	limit   int64
	batches []surveyed // the good ones
	damaged []Damage
}

type surveyed struct {
	position, size int64
	base, last     cluster.Offset
	epoch          cluster.LeaderEpoch
	timestamp      int64 // the largest
}

// survey reads a segment that ends at byte limit and below offset end. A batch whose
// checksum is right can still have a wrong base offset or leader epoch, which no checksum
// covers: those must fit in with the batches around them, and with the epoch cache unless that
// is still to be built.
func (l *Log) survey(s *segment, limit int64, end cluster.Offset) (*survey, error) {
	return l.surveyWith(s, limit, end, l.epochs.forOffset)
}

func noEpochKnown(cluster.Offset) cluster.LeaderEpoch { return cluster.NoLeaderEpoch }

func (l *Log) surveyWith(s *segment, limit int64, end cluster.Offset, epochAt func(cluster.Offset) cluster.LeaderEpoch) (*survey, error) {
	file, err := l.files.acquire(&s.log)
	if err != nil {
		return nil, err
	}
	defer l.files.release(&s.log)
	reader := &batchReader{file: file, path: s.log.path, limit: limit, buffer: make([]byte, recoveryBuffer)}
	out := &survey{limit: limit}
	expected := s.base
	for position := int64(0); position < limit; {
		header, size, err := reader.check(position)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) || errors.Is(err, errLegacyFormat) {
				return nil, err
			}
			next, resyncErr := resync(reader, position+1, expected, end)
			if resyncErr != nil {
				return nil, resyncErr
			}
			out.damaged = append(out.damaged, Damage{Path: s.log.path(), From: position, To: next, Cause: cause(err)})
			position = next
			continue
		}
		out.batches = append(out.batches, surveyed{position, size, header.BaseOffset(), header.LastOffset(), header.LeaderEpoch(), header.MaxTimestamp()})
		expected = header.NextOffset()
		position += size
	}
	before, after := l.epochsAround(s)
	for {
		i, reason := misfit(out.batches, s.base, end)
		if i < 0 {
			i, reason = misfitEpoch(out.batches, before, after, epochAt)
		}
		if i < 0 {
			break
		}
		b := out.batches[i]
		out.batches = append(out.batches[:i], out.batches[i+1:]...)
		out.damaged = append(out.damaged, Damage{Path: s.log.path(), From: b.position, To: b.position + b.size, Cause: reason})
	}
	out.settle(s.base, end)
	return out, nil
}

func cause(err error) error {
	if corrupt, ok := errors.AsType[*CorruptionError](err); ok {
		return corrupt.Cause
	}
	return err
}

// resync finds the next batch that is right, and could follow.
func resync(reader *batchReader, from int64, expected, end cluster.Offset) (int64, error) {
	for position := from; position+record.HeaderSize <= reader.limit; position++ {
		data, err := reader.window(position, record.HeaderSize)
		if err != nil {
			return 0, err
		}
		header := record.Batch(data)
		size, err := record.PeekSize(header)
		if err != nil || header.Magic() != record.CurrentMagic || int64(size) > reader.limit-position || size < record.HeaderSize ||
			header.BaseOffset() < expected || header.CheckHeader() != nil || header.LastOffset() >= end {
			continue
		}
		if _, _, err := reader.check(position); err == nil {
			return position, nil
		} else if !errors.Is(err, ErrCorrupt) {
			return 0, err
		}
	}
	return reader.limit, nil
}

// misfit finds a batch that does not fit in with those around it; -1 if all do. Where two
// contradict each other, the one is wrong that does not follow what is before it at once: logs
// that are not compacted have no gaps.
func misfit(batches []surveyed, base, end cluster.Offset) (int, error) {
	expected := base
	for i := range batches {
		b := &batches[i]
		next := end
		if i+1 < len(batches) {
			next = batches[i+1].base
		}
		// Behind a hole nothing says where it begins but what follows it at once.
		hole := i == 0 && b.position > 0 || i > 0 && b.position > batches[i-1].position+batches[i-1].size
		adjoins := i+1 == len(batches) && end != math.MaxInt64 || i+1 < len(batches) && batches[i+1].position == b.position+b.size
		switch {
		case hole && adjoins && b.last+1 != next:
			return i, fmt.Errorf("offsets %d to %d behind damage, where %d follows", b.base, b.last, next)
		case b.base < expected || b.last >= end:
			return i, fmt.Errorf("offsets %d to %d between %d and %d", b.base, b.last, expected, end)
		case b.last >= next && b.base != expected:
			return i, fmt.Errorf("offsets %d to %d where %d is followed by %d", b.base, b.last, expected-1, next)
		case b.last >= next:
			return i + 1, fmt.Errorf("offset %d follows %d", next, b.last)
		}
		expected = b.last + 1
	}
	return -1, nil
}

// misfitEpoch finds a batch whose leader epoch is none that it can have: not between those of
// its neighbours, or neither the one that the epoch cache knows nor a neighbour's, while the
// cache is right about others.
func misfitEpoch(batches []surveyed, preceding, following cluster.LeaderEpoch, epochAt func(cluster.Offset) cluster.LeaderEpoch) (int, error) {
	agreeing := 0
	for i := range batches {
		if epochAt(batches[i].base) == batches[i].epoch {
			agreeing++
		}
	}
	for i := range batches {
		epoch, known := batches[i].epoch, epochAt(batches[i].base)
		before, after := preceding, following
		if i > 0 {
			before = batches[i-1].epoch
		}
		if i+1 < len(batches) {
			after = batches[i+1].epoch
		}
		if before <= after && (epoch < before || epoch > after) {
			return i, fmt.Errorf("leader epoch %d between %d and %d", epoch, before, after)
		}
		if epoch != cluster.NoLeaderEpoch && epoch != known && epoch != before && epoch != after && known != cluster.NoLeaderEpoch && (agreeing > 0 || epoch < before || epoch > after) {
			return i, fmt.Errorf("leader epoch %d where the checkpoint knows %d", epoch, known)
		}
	}
	return -1, nil
}

// endBefore is where the batch before the i-th ends.
func (v *survey) endBefore(i int, base cluster.Offset) cluster.Offset {
	if i == 0 {
		return base
	}
	return v.batches[i-1].last + 1
}

// epochsAround are the leader epochs of the batches before and after a segment; the lowest and
// highest there are where there is none.
func (l *Log) epochsAround(s *segment) (before, after cluster.LeaderEpoch) {
	before, after = cluster.NoLeaderEpoch, math.MaxInt32
	now := l.view()
	at := slices.Index(now.segments, s)
	if at < 0 {
		return before, after // the log is being loaded
	}
	if at > 0 {
		previous := now.segments[at-1]
		if entry, err := previous.lookupPosition(l.files, previous.size.Load()); err == nil {
			_ = previous.walk(l.files, entry.position, previous.size.Load(), func(header record.Batch, _, _ int64, _ io.ReaderAt) error {
				before = header.LeaderEpoch()
				return nil
			})
		}
	}
	if at+1 < len(now.segments) && now.limit(at+1) > 0 {
		_ = now.segments[at+1].scan(l.files, now.limit(at+1), func(scanner *headerScanner) error {
			_, _, err := scanner.find(0, func(header record.Batch) bool {
				after = header.LeaderEpoch()
				return true
			})
			return err
		})
	}
	return before, after
}

// settle sorts and joins the damages, and says which offsets they hold.
func (v *survey) settle(base, end cluster.Offset) {
	damaged := v.damaged
	v.damaged = nil
	at, expected := int64(0), base
	reasonAt := func(position int64) error {
		for _, d := range damaged {
			if d.From <= position && position < d.To {
				return d.Cause
			}
		}
		return errTorn
	}
	gap := func(to int64, next cluster.Offset) {
		if at < to {
			v.damaged = append(v.damaged, Damage{Path: damaged[0].Path, From: at, To: to, First: expected, Next: next, Cause: reasonAt(at)})
		}
	}
	for _, b := range v.batches {
		gap(b.position, b.base)
		at, expected = b.position+b.size, b.last+1
	}
	gap(v.limit, end)
}

// fitting cuts what another replica sent to the batches that stood in a damaged stretch.
func (l *Log) fitting(damage Damage, data []byte) ([]byte, error) {
	size, next := int64(0), damage.First
	latest := cluster.LeaderEpoch(math.MaxInt32)
	if damage.Next < l.published.end {
		latest = l.epochs.forOffset(damage.Next)
	}
	for batch, err := range record.All(data) {
		if err == nil {
			err = batch.Check()
		}
		if err != nil {
			return nil, err
		}
		if size == 0 && batch.LastOffset() < damage.First {
			return nil, fmt.Errorf("the copy begins at offset %d, not %d", batch.BaseOffset(), damage.First)
		}
		// Where an epoch begins within the damage, the cache made from the rest does not know it.
		known := l.epochs.forOffset(batch.BaseOffset())
		switch {
		case batch.BaseOffset() < next || batch.LastOffset() >= damage.Next:
			return nil, fmt.Errorf("the copy has a batch of offsets %d to %d between %d and %d", batch.BaseOffset(), batch.LastOffset(), next, damage.Next)
		case batch.LeaderEpoch() < known || batch.LeaderEpoch() > latest:
			return nil, fmt.Errorf("the copy's batch at offset %d is of leader epoch %d, not %d to %d", batch.BaseOffset(), batch.LeaderEpoch(), known, latest)
		}
		size += int64(len(batch))
		next = batch.NextOffset()
		if size == damage.To-damage.From {
			return data[:size], nil
		}
		if size > damage.To-damage.From {
			break
		}
	}
	return nil, fmt.Errorf("the copy's batches do not fill the %d bytes from offset %d to %d", damage.To-damage.From, damage.First, damage.Next)
}
