package commitlog

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"strings"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/record"
)

// load reads the partition's directory and brings it into order (log-format.md 4). The log
// is not in use yet, so the Locked functions are called without their lock.
func (l *Log) load(clean bool, recoveryPoint, start, highWatermark cluster.Offset) error {
	if err := l.finishSwaps(); err != nil {
		return err
	}
	segments, err := l.findSegments()
	if err != nil {
		return err
	}
	epochsKnown := l.loadEpochs()
	segments, end, err := l.recoverSegments(segments, clean, recoveryPoint)
	if err != nil {
		return err
	}
	if end < start && start > highWatermark && len(segments) > 0 {
		// Only what is committed is ever deleted.
		l.dir.logger.Error("the checkpointed start offset lies beyond everything that was committed: it is not believed", "topic", l.tp.Topic,
			"partition", l.tp.Partition, "end", end, "highWatermark", highWatermark, "start", start)
		start = segments[0].base
	}
	if len(segments) > 0 && end < start {
		l.dir.logger.Warn("log ends below its start offset: it begins anew there", "topic", l.tp.Topic, "partition", l.tp.Partition, "end", end, "start", start)
		l.published.segments = segments
		if err := l.dropSegmentsLocked(segments); err != nil {
			return err
		}
		segments = nil
	}
	if len(segments) == 0 {
		fresh := newSegment(l.path, max(start, 0))
		if err := fresh.createFiles(l.files); err != nil {
			return err
		}
		segments, end, epochsKnown = []*segment{fresh}, fresh.base, true
		l.epochs.clear()
	}
	active := segments[len(segments)-1]
	active.createdMs = l.nowMs()
	p := &l.published
	p.segments, p.activeSize, p.end = segments, active.size.Load(), end
	p.start = max(start, segments[0].base)
	p.highWatermark = min(max(highWatermark, p.start), p.end)
	l.writer.owed = highWatermark
	if !epochsKnown {
		if err := l.rebuildEpochs(); err != nil {
			return err
		}
	}
	l.epochs.truncateFromEnd(end)
	l.epochs.truncateFromStart(p.start)
	if err := l.checkEpochs(); err != nil {
		return err
	}
	l.loadTopicID()
	if err := l.loadProducersLocked(end); err != nil {
		return err
	}
	l.publishUnstableLocked()
	l.writer.recoveryPoint = min(recoveryPoint, end)
	l.writer.dirty = !clean && end > segments[0].base
	if clean {
		l.writer.recoveryPoint = end
		l.writer.namesSynced = true
	}
	for i, s := range segments[:len(segments)-1] {
		s.dataSynced = clean || segments[i+1].base < l.writer.recoveryPoint
	}
	l.synced.offset = l.writer.recoveryPoint
	l.writer.proven = l.writer.recoveryPoint
	return nil
}

// finishSwaps completes or undoes what a log cleaner was doing: '.cleaned' files are
// unfinished, '.swap' files are complete and replace what they cover.
func (l *Log) finishSwaps() error {
	entries, err := l.files.fs.List(l.path)
	if err != nil {
		return err
	}
	unfinished := cluster.Offset(-1)
	var swaps, remove []string
	for _, entry := range entries {
		name := entry.Name()
		switch {
		case strings.HasSuffix(name, deletedSuffix), strings.HasSuffix(name, ".tmp"):
			remove = append(remove, name)
		case strings.HasSuffix(name, cleanedSuffix):
			remove = append(remove, name)
			if base, ok := leadingOffset(name); ok && (unfinished < 0 || base < unfinished) {
				unfinished = base
			}
		case strings.HasSuffix(name, swapSuffix):
			swaps = append(swaps, name)
		}
	}
	swaps = slices.DeleteFunc(swaps, func(name string) bool {
		base, ok := leadingOffset(name)
		drop := !ok || unfinished >= 0 && base >= unfinished
		if drop {
			remove = append(remove, name)
		}
		return drop
	})
	for _, name := range remove {
		if err := l.files.fs.Remove(l.filePath(name)); err != nil {
			return err
		}
	}
	if len(swaps) == 0 {
		return nil
	}
	return l.applySwaps(entries, swaps)
}

func leadingOffset(name string) (cluster.Offset, bool) {
	digits, _, _ := strings.Cut(name, ".")
	return parseOffsetName(digits, "")
}

func (l *Log) applySwaps(entries []fs.DirEntry, swaps []string) error {
	from, to := cluster.Offset(-1), cluster.Offset(-1)
	for _, name := range swaps {
		base, ok := parseOffsetName(name, logSuffix+swapSuffix)
		if !ok {
			continue
		}
		next, err := l.endOfSwap(name, base)
		if err != nil {
			return err
		}
		if from < 0 || base < from {
			from = base
		}
		to = max(to, next)
	}
	for _, entry := range entries {
		name := entry.Name()
		base, ok := leadingOffset(name)
		suffix := strings.TrimPrefix(name, offsetName(base, ""))
		if ok && base >= from && base < to && slices.Contains([]string{logSuffix, indexSuffix, timeIndexSuffix, txnIndexSuffix}, suffix) {
			if err := l.files.fs.Remove(l.filePath(name)); err != nil {
				return err
			}
		}
	}
	for _, name := range swaps {
		if err := l.files.fs.Rename(l.filePath(name), l.filePath(strings.TrimSuffix(name, swapSuffix))); err != nil {
			return err
		}
	}
	l.dir.logger.Info("cleaned segments put in place", "topic", l.tp.Topic, "partition", l.tp.Partition, "from", from, "to", to)
	return l.files.fs.SyncDir(l.path)
}

func (l *Log) endOfSwap(name string, base cluster.Offset) (cluster.Offset, error) {
	path := l.filePath(name)
	info, err := l.files.fs.Stat(path)
	if err != nil {
		return 0, err
	}
	swap := newSegment(l.path, base)
	swap.log.suffix = logSuffix + swapSuffix
	defer swap.forget(l.files)
	next := base
	err = swap.walk(l.files, 0, info.Size(), func(header record.Batch, _, _ int64, _ io.ReaderAt) error {
		next = header.NextOffset()
		return nil
	})
	return next, err
}

// findSegments lists the segments on disk, sorted, and the producer snapshots.
func (l *Log) findSegments() ([]*segment, error) {
	entries, err := l.files.fs.List(l.path)
	if err != nil {
		return nil, err
	}
	found := make(map[cluster.Offset]*segment)
	var segments []*segment
	for _, entry := range entries {
		if base, ok := parseOffsetName(entry.Name(), logSuffix); ok {
			info, err := entry.Info()
			if err != nil {
				return nil, err
			}
			s := newSegment(l.path, base)
			s.size.Store(info.Size())
			s.integrity.startFound(info.Size())
			// -1: no such file, until it is met below.
			s.index.offsets.onDisk, s.index.times.onDisk = -1, -1
			found[base] = s
			segments = append(segments, s)
		}
	}
	for _, entry := range entries {
		if err := l.findOther(entry, found); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(segments, func(a, b *segment) int { return cmp.Compare(a.base, b.base) })
	slices.Sort(l.writer.producers.snapshots)
	return segments, nil
}

// findOther takes in a file that belongs to a segment; one whose segment is gone, goes.
func (l *Log) findOther(entry fs.DirEntry, found map[cluster.Offset]*segment) error {
	name := entry.Name()
	if offset, ok := parseOffsetName(name, snapshotSuffix); ok {
		l.writer.producers.snapshots = append(l.writer.producers.snapshots, offset)
		return nil
	}
	for _, suffix := range []string{indexSuffix, timeIndexSuffix, txnIndexSuffix} {
		base, ok := parseOffsetName(name, suffix)
		if !ok {
			continue
		}
		s := found[base]
		if s == nil {
			return l.files.fs.Remove(l.filePath(name))
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		switch suffix {
		case indexSuffix:
			s.index.offsets.onDisk = int(info.Size()) / offsetEntrySize
		case timeIndexSuffix:
			s.index.times.onDisk = int(info.Size()) / timeEntrySize
		case txnIndexSuffix:
			s.hasTxnIndex.Store(true)
		}
	}
	return nil
}

// recoverSegments checks what has to be checked: after a clean stop that the files are
// there and the last one ends with a whole batch; otherwise all that lies past the
// recovery point. It returns the segments that remain, and the log's end.
func (l *Log) recoverSegments(segments []*segment, clean bool, recoveryPoint cluster.Offset) (kept []*segment, end cluster.Offset, err error) {
	for i, s := range segments {
		last := i == len(segments)-1
		damaged := s.index.offsets.onDisk < 0
		s.index.offsets.onDisk = max(s.index.offsets.onDisk, 0)
		damaged = damaged || s.size.Load() > 0 && s.index.times.onDisk <= 0
		s.index.times.onDisk = max(s.index.times.onDisk, 0)
		if _, err := s.readTxnIndex(l.files); errors.Is(err, ErrCorrupt) {
			damaged = true
			if err := l.dropTxnIndex(s); err != nil {
				return nil, 0, err
			}
		}
		if clean && last && !damaged {
			if end, err = l.endOfSegment(s); err == nil && end != recoveryPoint && recoveryPoint > s.base {
				// A clean stop leaves the recovery point at the log's end.
				err = suspect(s, "it ends at offset %d where the recovery point says %d", end, recoveryPoint)
			}
			if err == nil {
				break
			}
			if !errors.Is(err, ErrCorrupt) {
				return nil, 0, err
			}
			l.dir.logger.Warn("last segment is not as a clean stop leaves it: it is checked in full", "path", s.log.path(), "error", err)
			damaged = true
		}
		if damaged && (clean || !last && segments[i+1].base < recoveryPoint) {
			bound := cluster.Offset(math.MaxInt64)
			if !last {
				bound = segments[i+1].base
			}
			var known bool
			if end, known, err = l.surveyFound(s, bound, recoveryPoint, last); err != nil {
				return nil, 0, err
			}
			if known {
				continue
			}
		}
		// The segment that ends at the recovery point is among them: it may have been cut
		// there, and the cut be undone by a power failure.
		unclean := !clean && (last || segments[i+1].base >= recoveryPoint)
		if !damaged && !unclean {
			continue
		}
		trusted := recoveryPoint
		if damaged {
			trusted = s.base
		}
		var cut bool
		latest := cluster.NoLeaderEpoch
		if i > 0 {
			if latest, err = l.lastEpochOf(segments[i-1]); err != nil {
				return nil, 0, err
			}
		}
		if end, cut, err = l.recoverOne(s, trusted, unclean, last, latest); err != nil {
			return nil, 0, err
		}
		// A snapshot past what was trusted may not have reached the disk as it should.
		l.distrustSnapshots(max(trusted, s.base))
		if !cut && unclean && !last && end != segments[i+1].base {
			// A segment begins where the one before ended. Files that a power failure
			// left in different states do not fit: what is behind the seam is no history.
			l.dir.logger.Warn("segments do not follow each other: the later ones are dropped", "topic", l.tp.Topic, "partition", l.tp.Partition,
				"end", end, "next", segments[i+1].base, "recoveryPoint", recoveryPoint)
			cut = true
		}
		if cut {
			return segments[:i+1], end, l.dropSegmentsLocked(segments[i+1:])
		}
	}
	return segments, end, nil
}

func (l *Log) surveyAndAdopt(s *segment, end cluster.Offset, active bool) error {
	found, err := l.surveyWith(s, s.size.Load(), end, noEpochKnown)
	if err != nil {
		return err
	}
	return l.adoptSurvey(s, found, active)
}

// surveyFound examines a segment that no crash can have torn: whatever is wrong with it is
// damage, and stays where it is until another replica has given a good copy. known is false
// if the damage reaches to the end of the log, which then ends before it.
func (l *Log) surveyFound(s *segment, bound, recoveryPoint cluster.Offset, last bool) (end cluster.Offset, known bool, err error) {
	limit := s.size.Load()
	found, err := l.survey(s, limit, bound)
	if err != nil {
		if errors.Is(err, errLegacyFormat) {
			return 0, false, nil // recovery says so better
		}
		return 0, false, err
	}
	if last {
		bound = s.base
		least := bound
		n := len(found.damaged)
		open := n > 0 && found.damaged[n-1].To == limit
		if n := len(found.batches); n > 0 {
			bound = found.batches[n-1].last + 1
			least = bound
			stands, err := l.newestStands(s, found, recoveryPoint)
			if err != nil {
				return 0, false, err
			}
			if !stands {
				open, least = true, found.endBefore(n-1, s.base)
			}
		}
		if open && bound != recoveryPoint {
			if recoveryPoint <= least {
				return 0, false, nil
			}
			if found, err = l.survey(s, limit, recoveryPoint); err != nil {
				return 0, false, err
			}
			bound = recoveryPoint
		}
	}
	return bound, true, l.adoptSurvey(s, found, last)
}

// lastEpochOf is the leader epoch of a segment's last batch.
func (l *Log) lastEpochOf(s *segment) (latest cluster.LeaderEpoch, err error) {
	latest = cluster.NoLeaderEpoch
	size := s.size.Load()
	entry, err := s.lookupPosition(l.files, size)
	if err != nil {
		return latest, err
	}
	err = s.walk(l.files, min(entry.position, size), size, func(header record.Batch, _, _ int64, _ io.ReaderAt) error {
		latest = header.LeaderEpoch()
		return nil
	})
	if errors.Is(err, ErrCorrupt) {
		return cluster.NoLeaderEpoch, nil // a damage of its own, which is found when it is read
	}
	return latest, err
}

// keepAround decides about damage with good batches behind it. What a crash tears ends the
// file, or leaves zeros where data did not arrive: that is cut off with all that follows.
// Anything else was once whole: it is damage, which another replica can mend, and what
// follows stays.
func (l *Log) keepAround(s *segment, damagedAt int64) (end cluster.Offset, keep bool, err error) {
	size := s.size.Load()
	found, err := l.surveyWith(s, size, math.MaxInt64, noEpochKnown)
	if err != nil {
		if errors.Is(err, errLegacyFormat) {
			return 0, false, nil
		}
		return 0, false, err
	}
	count := len(found.damaged)
	if count == 0 || found.damaged[count-1].To == size || len(found.batches) == 0 {
		return 0, false, nil
	}
	for _, d := range found.damaged {
		torn, err := l.hasZeroSector(s, d)
		if torn || err != nil {
			return 0, false, err
		}
	}
	if bound, err := l.boundToDamage(s, found); !bound || err != nil {
		return 0, false, err
	}
	for _, b := range found.batches {
		if b.position >= damagedAt && b.epoch > l.epochs.latest() {
			l.epochs.assign(b.epoch, b.base)
		}
	}
	return found.batches[len(found.batches)-1].last + 1, true, nil
}

// newestStands says whether the newest batch found can be where its base offset says, which is
// under no checksum: not if the recovery point holds against it, or damage reaches up to it and
// says nothing for it.
func (l *Log) newestStands(s *segment, found *survey, recoveryPoint cluster.Offset) (bool, error) {
	n := len(found.batches) - 1
	newest, before := found.batches[n], found.endBefore(n, s.base)
	if newest.base > before && before+newest.last-newest.base+1 == recoveryPoint {
		return false, nil
	}
	return l.boundToDamage(s, found)
}

// boundToDamage says whether the newest batch is known to stand where it says. Its base offset is
// under no checksum; if the damage reaches up to it, only what can still be read of the headers in
// there tells how many offsets lie between: all of them, or, if a size is what is wrong, the first.
func (l *Log) boundToDamage(s *segment, found *survey) (bool, error) {
	newest, behind := found.batches[len(found.batches)-1], len(found.damaged)-1
	if behind < 0 || found.damaged[behind].To != newest.position {
		return true, nil
	}
	d := found.damaged[behind]
	file, err := l.files.acquire(&s.log)
	if err != nil {
		return false, err
	}
	defer l.files.release(&s.log)
	data := make([]byte, record.HeaderSize)
	byDelta, byCount := d.First, d.First
	for position := d.From; position < d.To; {
		if n, err := file.ReadAt(data, position); n < len(data) {
			return false, fmt.Errorf("read %s: %w", s.log.path(), err)
		}
		header := record.Batch(data)
		byDelta += cluster.Offset(header.LastOffsetDelta()) + 1
		byCount += cluster.Offset(header.Count())
		size, err := record.PeekSize(data)
		if err != nil || int64(size) > d.To-position || size < record.HeaderSize {
			break
		}
		position += int64(size)
	}
	return newest.base == byDelta || newest.base == byCount, nil
}

// hasZeroSector looks for a sector of zeros in a damaged stretch.
func (l *Log) hasZeroSector(s *segment, d Damage) (bool, error) {
	const sector = 512
	file, err := l.files.acquire(&s.log)
	if err != nil {
		return false, err
	}
	defer l.files.release(&s.log)
	var buffer [sector]byte
	for at := d.From / sector * sector; at < d.To; at += sector {
		part := buffer[:min(at+sector, d.To)-max(at, d.From)]
		if n, err := file.ReadAt(part, max(at, d.From)); n < len(part) {
			return false, fmt.Errorf("read %s: %w", s.log.path(), err)
		}
		if len(part) >= 8 && len(bytes.TrimLeft(part, "\x00")) == 0 {
			return true, nil
		}
	}
	return false, nil
}

func (l *Log) recoverOne(s *segment, trusted cluster.Offset, unclean, last bool, latest cluster.LeaderEpoch) (end cluster.Offset, cut bool, err error) {
	size := s.size.Load()
	good, end, damage, err := l.recoverSegment(s, trusted, unclean, latest)
	if err != nil {
		return 0, false, err
	}
	if damage != nil {
		behind, keep, err := l.keepAround(s, good)
		if err != nil {
			return 0, false, err
		}
		if keep {
			return behind, false, l.surveyAndAdopt(s, behind, last)
		}
	}
	if damage != nil {
		l.dir.logger.Warn("damaged end of a segment cut off", "topic", l.tp.Topic, "partition", l.tp.Partition,
			"path", s.log.path(), "position", good, "bytes", size-good, "end", end, "cause", damage, "lastSegment", last)
		file, err := l.files.acquire(&s.log)
		if err != nil {
			return 0, false, err
		}
		err = errors.Join(file.Truncate(good), file.Sync())
		l.files.release(&s.log)
		if err != nil {
			return 0, false, err
		}
		s.size.Store(good)
		s.integrity.truncate(good)
	}
	s.index.Lock()
	s.index.maxKnown = true
	s.index.Unlock()
	return end, damage != nil, s.flushIndexes(l.files, !last)
}

func (l *Log) dropTxnIndex(s *segment) error {
	l.dir.logger.Warn("transaction index is damaged: it is rebuilt", "path", s.txnIndexPath())
	s.hasTxnIndex.Store(false)
	return l.files.fs.Remove(s.txnIndexPath())
}

// distrustSnapshots removes the producer snapshots above an offset.
func (l *Log) distrustSnapshots(above cluster.Offset) {
	producers := &l.writer.producers
	producers.snapshots = slices.DeleteFunc(producers.snapshots, func(offset cluster.Offset) bool {
		if offset <= above {
			return false
		}
		l.removeSnapshot(offset)
		return true
	})
}

func (l *Log) removeSnapshot(offset cluster.Offset) {
	path := l.filePath(offsetName(offset, snapshotSuffix))
	if err := l.files.fs.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.dir.logger.Warn("producer snapshot not removed", "path", path, "error", err)
	}
}

// endOfSegment walks the headers behind the last index entry of a segment that is in
// order, and takes up where its indexes ended.
func (l *Log) endOfSegment(s *segment) (end cluster.Offset, err error) {
	size := s.size.Load()
	if size == 0 {
		s.index.maxKnown = true
		return s.base, nil
	}
	if _, err := s.largestTimestamp(l.files); err != nil {
		return 0, err
	}
	entry, err := s.lookupPosition(l.files, size)
	if err != nil {
		return 0, err
	}
	if entry.position >= size {
		return 0, &CorruptionError{Path: s.index.offsets.file.path(), Cause: errors.New("its last entry points past the segment's end")}
	}
	end = s.base
	err = s.scan(l.files, size, func(scanner *headerScanner) error {
		_, _, err := scanner.find(entry.position, func(header record.Batch) bool {
			end = header.NextOffset()
			return false
		})
		return err
	})
	s.sinceEntry = size - entry.position
	return end, err
}

func (l *Log) loadEpochs() (known bool) {
	path := l.filePath(epochCheckpointName)
	data, err := readWholeFile(l.files.fs, path)
	if err == nil {
		if l.epochs.entries, err = decodeEpochs(data); err == nil {
			return true
		}
	}
	l.epochs.entries = nil
	if !errors.Is(err, fs.ErrNotExist) {
		l.dir.logger.Warn("leader epoch checkpoint is damaged: it is rebuilt from the batches", "path", path, "error", err)
	}
	return false
}

// rebuildEpochs reads the epochs off all batches' headers.
func (l *Log) rebuildEpochs() error { return l.surveying(l.readEpochs) }

func (l *Log) readEpochs() error {
	l.epochs.clear()
	for _, s := range l.published.segments {
		err := s.walk(l.files, 0, s.size.Load(), func(header record.Batch, _, _ int64, _ io.ReaderAt) error {
			if epoch := header.LeaderEpoch(); epoch > l.epochs.latest() {
				l.epochs.assign(epoch, header.BaseOffset())
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	l.epochs.markDirty()
	return nil
}

// checkEpochs compares the epoch cache with the batches where its epochs begin: truncation
// goes by it, and a checkpoint in which a digit is wrong still parses.
func (l *Log) checkEpochs() error {
	start, end := l.published.start, l.published.end
	offsets := []cluster.Offset{start, end - 1}
	for _, entry := range l.epochs.list() {
		offsets = append(offsets, entry.start-1, entry.start)
	}
	for _, offset := range offsets {
		if offset < start || offset >= end {
			continue
		}
		s, agrees, err := l.epochAgrees(offset)
		if err != nil {
			return err
		}
		if agrees {
			continue
		}
		// Perhaps it is a batch that is wrong.
		if err := l.surveyAgain(s); err != nil {
			return err
		}
		if _, agrees, err = l.epochAgrees(offset); err != nil {
			return err
		}
		if agrees {
			continue
		}
		l.dir.logger.Warn("leader epoch checkpoint contradicts the batches: it is rebuilt from them", "topic", l.tp.Topic,
			"partition", l.tp.Partition, "offset", offset, "epoch", l.epochs.forOffset(offset))
		if err := l.rebuildEpochs(); err != nil {
			return err
		}
		l.epochs.truncateFromStart(start)
		return nil
	}
	return nil
}

// epochAgrees compares the batch that holds an offset, or the first after it in the same
// segment, with the cache: it is of the epoch that was in force, and no epoch begins within
// it.
func (l *Log) epochAgrees(offset cluster.Offset) (s *segment, agrees bool, err error) {
	now := l.view()
	at := now.floor(offset)
	s = now.segments[at]
	entry, err := s.lookupOffset(l.files, offset)
	if err != nil {
		return s, false, err
	}
	limit := now.limit(at)
	agrees = true
	err = s.scan(l.files, limit, func(scanner *headerScanner) error {
		_, _, err := scanner.find(min(entry.position, limit), func(header record.Batch) bool {
			if header.LastOffset() < offset {
				return false
			}
			first := max(header.BaseOffset(), now.start)
			agrees = header.LeaderEpoch() == cluster.NoLeaderEpoch ||
				l.epochs.forOffset(first) == header.LeaderEpoch() && l.epochs.forOffset(header.LastOffset()) == header.LeaderEpoch()
			return true
		})
		return err
	})
	if errors.Is(err, ErrCorrupt) {
		return s, false, nil
	}
	return s, agrees, err
}

// surveying is examining for a log that is being loaded, or whose writer lock is held.
func (l *Log) surveying(f func() error) error {
	var surveyed *segment
	for {
		err := f()
		s := l.suspected(err)
		if s == nil || s == surveyed {
			return err
		}
		if err := l.surveyAgain(s); err != nil {
			return err
		}
		surveyed = s
	}
}

// surveyAgain examines a segment while the log is loaded.
func (l *Log) surveyAgain(s *segment) error {
	now := l.view()
	at := slices.Index(now.segments, s)
	found, err := l.survey(s, now.limit(at), now.endOf(at))
	if err != nil {
		return err
	}
	return l.adoptSurvey(s, found, at == len(now.segments)-1)
}

func (l *Log) loadTopicID() {
	path := l.filePath(partitionMetadataName)
	data, err := readWholeFile(l.files.fs, path)
	if err == nil {
		l.topicID.id, err = decodePartitionMetadata(data)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.dir.logger.Warn("partition metadata is damaged: the topic id is taken from the controller", "path", path, "error", err)
	}
}

// loadProducersLocked builds the producers' state at the log's end from the newest usable
// snapshot and the batches after it.
func (l *Log) loadProducersLocked(end cluster.Offset) error {
	producers := &l.writer.producers
	producers.producers, producers.transactions = nil, nil
	from := l.published.segments[0].base
	for len(producers.snapshots) > 0 {
		newest := producers.snapshots[len(producers.snapshots)-1]
		if newest <= end {
			data, err := readWholeFile(l.files.fs, l.filePath(offsetName(newest, snapshotSuffix)))
			if err == nil {
				var known map[int64]*producer
				if known, err = decodeProducers(data, l.nowMs()); err == nil {
					producers.adopt(known)
					from = max(from, newest)
					break
				}
			}
			l.dir.logger.Warn("producer snapshot is damaged: an older one is used", "path", l.filePath(offsetName(newest, snapshotSuffix)), "error", err)
		}
		producers.snapshots = producers.snapshots[:len(producers.snapshots)-1]
		l.removeSnapshot(newest)
	}
	if err := l.surveying(func() error { return l.completeWindows(from) }); err != nil {
		return err
	}
	if err := l.surveying(func() error { return l.replayProducers(from, end) }); err != nil {
		return fmt.Errorf("producers of %s: %w", l.tp, err)
	}
	producers.hidden = slices.DeleteFunc(l.Damages(), func(d Damage) bool { return d.Next <= from })
	return nil
}

// replayProducers notes the producers of the batches in [from, end).
func (l *Log) replayProducers(from, end cluster.Offset) error {
	if from >= end {
		return nil
	}
	now := view{segments: l.published.segments, activeSize: l.published.activeSize, end: end}
	nowMs := l.nowMs()
	for i := now.floor(from); i < len(now.segments); i++ {
		s := now.segments[i]
		entry, err := s.lookupOffset(l.files, from)
		if err != nil {
			return err
		}
		start := min(entry.position, s.size.Load())
		if err := l.verifyAround(s, start, now.endOf(i)); err != nil {
			return err
		}
		err = s.walk(l.files, start, s.size.Load(), func(header record.Batch, position, size int64, file io.ReaderAt) error {
			if header.BaseOffset() < from || header.ProducerID() < 0 {
				return nil
			}
			return l.replayBatch(s, header, position, size, file, nowMs)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) replayBatch(s *segment, header record.Batch, position, size int64, file io.ReaderAt, nowMs int64) error {
	batch := header
	if header.Control() {
		batch = make(record.Batch, size)
		if n, err := file.ReadAt(batch, position); n < len(batch) {
			return err
		}
	}
	marker, err := readMarker(batch)
	if err != nil {
		return err
	}
	ended, ok := l.writer.producers.note(batch, marker, nowMs)
	if !ok || !ended.aborted {
		return nil
	}
	// The transaction index may lack what a crash took.
	entries, err := s.readTxnIndex(l.files)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.last == ended.last && entry.producerID == ended.producerID {
			return nil
		}
	}
	return s.appendTxnIndex(l.files, ended)
}

// windowScanBytes is how far back completeWindows looks.
const windowScanBytes = 32 << 20

// completeWindows looks for the batches that a snapshot written by Apache's broker does
// not tell of: it has one batch for each producer. Ours has them all, so it is recognised
// by a producer with one batch that is not its first.
func (l *Log) completeWindows(from cluster.Offset) error {
	earlier := make(map[int64][]producerBatch)
	for id, p := range l.writer.producers.producers {
		if p.length == 1 && p.window[0].firstSequence() != 0 {
			earlier[id] = nil
		}
	}
	if len(earlier) == 0 {
		return nil
	}
	now := view{segments: l.published.segments}
	budget := int64(windowScanBytes)
	first := now.floor(from)
	var starts []int64
	for i := first; i >= 0 && budget > 0; i-- {
		size := now.segments[i].size.Load()
		entry, err := now.segments[i].lookupPosition(l.files, max(size-budget, 0))
		if err != nil {
			return err
		}
		starts = append(starts, entry.position)
		budget -= size - entry.position
	}
	for i := len(starts) - 1; i >= 0; i-- {
		s := now.segments[first-i]
		err := s.walk(l.files, starts[i], s.size.Load(), func(header record.Batch, _, _ int64, _ io.ReaderAt) error {
			l.collectEarlier(earlier, header)
			return nil
		})
		if err != nil {
			return err
		}
	}
	for id, batches := range earlier {
		p := l.writer.producers.producers[id]
		newest := p.window[0]
		p.length = 0
		for _, batch := range append(batches, newest) {
			p.remember(batch)
		}
	}
	return nil
}

func (l *Log) collectEarlier(earlier map[int64][]producerBatch, header record.Batch) {
	batches, wanted := earlier[header.ProducerID()]
	if !wanted || header.Control() || header.BaseSequence() == record.NoSequence {
		return
	}
	p := l.writer.producers.producers[header.ProducerID()]
	if header.ProducerEpoch() != p.epoch || header.LastOffset() >= p.window[0].lastOffset {
		return
	}
	if len(batches) == windowSize-1 {
		batches = slices.Delete(batches, 0, 1)
	}
	earlier[header.ProducerID()] = append(batches,
		producerBatch{header.LastSequence(), header.LastOffsetDelta(), header.LastOffset(), header.MaxTimestamp()})
}
