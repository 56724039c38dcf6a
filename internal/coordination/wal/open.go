package wal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"understudy/internal/vfs"
)

// Open locks the directory, checks whose it is, and recovers snapshot and log.
func Open(o Options) (*Log, error) {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = 16 << 20
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 16 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	l := &Log{
		fs: o.FS, dir: o.Dir, logger: o.Logger, voters: o.Identity.Members,
		segmentBytes: o.SegmentBytes, cacheBytes: o.CacheBytes, sequence: 1,
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := l.open(o); err != nil {
		_ = l.Abandon()
		return nil, err
	}
	return l, nil
}

func (l *Log) open(o Options) (err error) {
	if err := l.makeDirectory(); err != nil {
		return fmt.Errorf("wal: making the data directory: %w", err)
	}
	l.lock, err = l.fs.Lock(filepath.Join(l.dir, ".lock"))
	if err != nil {
		if errors.Is(err, vfs.ErrLocked) {
			return fmt.Errorf("wal: %s is in use by another process; stop it or choose another directory: %w", l.dir, err)
		}
		return fmt.Errorf("wal: locking %s: %w", l.dir, err)
	}
	claim, err := claimDirectory(l.fs, l.dir, o.Identity, o.Now())
	if err != nil {
		return err
	}
	l.incarnation = claim.record.Incarnation
	if !claim.known || o.Stepped {
		// The identity before anything else: a log without one is refused.
		if err := claim.store(); err != nil {
			return err
		}
		return errors.Join(l.syncFound(), l.recoverFiles())
	}
	stored := make(chan error, 1)
	go func() { stored <- errors.Join(claim.store(), l.syncFound()) }()
	err = l.recoverFiles()
	return errors.Join(<-stored, err)
}

// syncFound makes durable what is there. A process that was killed between a write and its sync
// leaves data behind that is read and counts from now on, and that the power would still take:
// a frame of the last segment, the names of that segment and of the newest snapshot.
func (l *Log) syncFound() error {
	for _, sub := range []string{"log", "snapshot"} {
		dir := filepath.Join(l.dir, sub)
		if err := l.fs.SyncDir(dir); errors.Is(err, fs.ErrNotExist) {
			return nil // a first start
		} else if err != nil {
			return err
		}
	}
	numbers, err := l.listSegments()
	if err != nil || len(numbers) == 0 {
		return err
	}
	last, err := l.fs.Open(l.segmentPath(numbers[len(numbers)-1]))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // without a header; recovery has removed it
	}
	if err != nil {
		return err
	}
	return errors.Join(last.Sync(), last.Close())
}

// recoverFiles brings snapshot and log back into memory.
func (l *Log) recoverFiles() error {
	made := false
	for _, sub := range []string{"log", "snapshot"} {
		dir := filepath.Join(l.dir, sub)
		if _, err := l.fs.Stat(dir); err != nil {
			made = true
		}
		if err := l.fs.MkdirAll(dir); err != nil {
			return err
		}
		if err := l.removeUnfinished(dir); err != nil {
			return err
		}
	}
	if made {
		if err := l.fs.SyncDir(l.dir); err != nil {
			return err
		}
	}
	damaged, err := l.findSnapshot()
	if err != nil {
		return err
	}
	if err := l.recoverSegments(); err != nil {
		return err
	}
	if err := l.makeUpFor(damaged); err != nil {
		return err
	}
	return l.joinSnapshotAndLog()
}

// makeDirectory makes the data directory, and its name durable. As long as the directory is not
// known to be ours, an earlier start may have been killed in between, so all the names above it
// are synced; those that were there before may refuse.
func (l *Log) makeDirectory() error {
	dir := filepath.Clean(l.dir)
	if _, err := l.fs.Stat(filepath.Join(dir, identityFile)); err == nil {
		return nil
	}
	missing := map[string]bool{}
	for at := dir; at != filepath.Dir(at); at = filepath.Dir(at) {
		if _, err := l.fs.Stat(at); err == nil {
			break
		}
		missing[at] = true
	}
	if err := l.fs.MkdirAll(dir); err != nil {
		return err
	}
	for at := dir; at != filepath.Dir(at); at = filepath.Dir(at) {
		if err := l.fs.SyncDir(filepath.Dir(at)); err != nil && missing[at] {
			return err
		}
	}
	return nil
}

func (l *Log) removeUnfinished(dir string) error {
	entries, err := l.fs.List(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".tmp") {
			if err := l.fs.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// findSnapshot takes the newest snapshot that is whole. damaged are the newer ones, which the
// log must make up for.
func (l *Log) findSnapshot() (damaged []damagedSnapshot, err error) {
	indexes, err := l.listSnapshots()
	if err != nil {
		return nil, err
	}
	for _, index := range slices.Backward(indexes) {
		id, err := l.checkSnapshot(index)
		switch {
		case err == nil:
			l.mu.snapshot = id
			return damaged, nil
		case !errors.Is(err, ErrCorrupt):
			return nil, err
		}
		damaged = append(damaged, damagedSnapshot{index, err})
	}
	return damaged, nil
}

type damagedSnapshot struct {
	index uint64
	cause error
}

func (l *Log) checkSnapshot(index uint64) (SnapshotID, error) {
	path := l.snapshotPath(index)
	f, err := l.fs.Open(path)
	if err != nil {
		return SnapshotID{}, err
	}
	defer f.Close()
	id, err := verifySnapshot(f, path)
	if err == nil && id.Index != index {
		err = &CorruptionError{File: path, Cause: fmt.Sprintf("it is of entry %d", id.Index)}
	}
	return id, err
}

// makeUpFor goes on without damaged snapshots if an older one and the log behind it hold all
// that was in them, and refuses otherwise: the entries that they replaced are gone.
func (l *Log) makeUpFor(damaged []damagedSnapshot) error {
	for _, d := range damaged {
		if l.mu.snapshot.Index < l.mu.base.index || l.lastPosition().index < d.index {
			return d.cause
		}
		path := l.snapshotPath(d.index)
		l.logger.Error("a snapshot is damaged: an older state and the log make up for it", "file", path, "cause", d.cause,
			"from", l.mu.snapshot.Index, "kept", path+".damaged")
		if err := l.fs.Rename(path, path+".damaged"); err != nil {
			return err
		}
	}
	return nil
}

// recoverSegments replays the segments in order; the last one becomes the active one.
func (l *Log) recoverSegments() error {
	numbers, err := l.listSegments()
	if err != nil {
		return err
	}
	for i, number := range numbers {
		if i > 0 && number != numbers[i-1]+1 {
			return &CorruptionError{File: l.segmentPath(numbers[i-1] + 1), Cause: "the segment is missing"}
		}
		if err := l.recoverSegment(number, i == 0, i == len(numbers)-1); err != nil {
			return err
		}
	}
	if l.active != nil {
		return l.completeActive()
	}
	next := uint32(1)
	if n := len(numbers); n > 0 {
		next = numbers[n-1] + 1
	}
	frame := beginFrame(nil)
	frame = appendHardStateRecord(frame, l.hardState.term, l.hardState.vote, l.hardState.commit)
	return l.beginSegment(next, frame)
}

// completeActive gives the active segment its first frame, if a crash cut that off.
func (l *Log) completeActive() error {
	if l.active.size > segmentHeader {
		return nil
	}
	last := l.lastPosition()
	frame := beginFrame(nil)
	frame = appendPositionRecord(frame, recordBase, last.index, last.term)
	frame = appendHardStateRecord(frame, l.hardState.term, l.hardState.vote, l.hardState.commit)
	return l.writeFrame(frame)
}

func (l *Log) listSegments() ([]uint32, error) {
	entries, err := l.fs.List(filepath.Join(l.dir, "log"))
	if err != nil {
		return nil, err
	}
	var numbers []uint32
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".wal")
		if !ok {
			continue
		}
		if number, err := strconv.ParseUint(name, 10, 32); err == nil {
			numbers = append(numbers, uint32(number))
		}
	}
	return numbers, nil // List sorts by name, and the names have one width
}

// recoverSegment replays one segment. Only the last may end in a torn frame.
func (l *Log) recoverSegment(number uint32, first, last bool) error {
	path := l.segmentPath(number)
	file, err := l.fs.OpenFile(path)
	if err != nil {
		return err
	}
	s := &segment{number: number, path: path, file: file}
	l.mu.segments = append(l.mu.segments, s)
	data, err := readAll(file)
	if err != nil {
		return fmt.Errorf("wal: reading %s: %w", path, err)
	}
	ok, err := checkSegmentHeader(data)
	if err != nil {
		return fmt.Errorf("%w (%s)", err, path)
	}
	if !ok {
		return l.dropUnbornSegment(s, data, last)
	}
	valid, err := l.replaySegment(s, data, first)
	if err != nil {
		return err
	}
	if err := l.judgeTail(s, data, valid, last); err != nil {
		return err
	}
	s.size = int64(valid)
	l.active = s
	return nil
}

// dropUnbornSegment removes a last segment that a crash left without a header: its first
// frame is synced before anything is written behind it, so it held nothing.
func (l *Log) dropUnbornSegment(s *segment, data []byte, last bool) error {
	torn := len(data) < segmentHeader+frameHeader || hasZeroSector(data, 0)
	if _, later := laterFrame(data, 0); !last || later || !torn {
		return &CorruptionError{File: s.path, Cause: "the segment's header is damaged"}
	}
	l.logger.Warn("unfinished log segment removed", "file", s.path, "bytes", len(data))
	l.mu.segments = l.mu.segments[:len(l.mu.segments)-1]
	if err := s.file.Close(); err != nil {
		return err
	}
	if err := l.fs.Remove(s.path); err != nil {
		return err
	}
	// The name must not come back: the segment before it is written on, and only the last one
	// may end in a torn frame.
	if err := l.fs.SyncDir(filepath.Dir(s.path)); err != nil {
		return err
	}
	if n := len(l.mu.segments); n > 0 {
		l.active = l.mu.segments[n-1]
	}
	return nil
}

// replaySegment takes in frame after frame and returns where the valid ones end.
func (l *Log) replaySegment(s *segment, data []byte, first bool) (valid int, err error) {
	valid = segmentHeader
	if sequence, _, ok := parseFrameHeader(data[valid:]); ok && first {
		l.sequence = sequence // older segments were removed
	}
	for valid < len(data) {
		at := valid
		size, err := parseFrame(data[at:], l.sequence, func(offset int, r record) error {
			return l.replayLocked(r, s.number, int64(at+offset))
		})
		var refused *refusedError
		if errors.As(err, &refused) {
			return 0, &CorruptionError{File: s.path, Offset: int64(at + refused.at), Cause: refused.Error()}
		}
		if size == 0 {
			return valid, nil // judgeTail looks at what stands there
		}
		valid += size
		l.sequence++
	}
	return valid, nil
}

// judgeTail decides about what follows the last valid frame: nothing, a torn write (cut off
// and reported) or corruption (refused).
func (l *Log) judgeTail(s *segment, data []byte, valid int, last bool) error {
	tail := data[valid:]
	if len(tail) == 0 {
		return nil
	}
	_, cause := parseFrame(tail, l.sequence, func(int, record) error { return nil })
	corrupt := &CorruptionError{File: s.path, Offset: int64(valid), Cause: fmt.Sprint(cause)}
	// A frame with the number that is missing here, further behind, was written to a wrong place.
	if at, later := laterFrame(tail[1:], l.sequence-1); later {
		corrupt.Cause += fmt.Sprintf(", and valid frames follow at %d", valid+1+at)
		return corrupt
	}
	if !last || !looksTorn(tail, int64(valid)) {
		return corrupt
	}
	l.logger.Warn("torn end of the log cut off", "file", s.path, "offset", valid, "bytes", len(tail), "cause", fmt.Sprint(cause))
	if err := s.file.Truncate(int64(valid)); err != nil {
		return err
	}
	return s.file.Sync()
}

// joinSnapshotAndLog makes the two meet: the snapshot lies within the log, or the log begins
// with it.
func (l *Log) joinSnapshotAndLog() error {
	id, last := l.mu.snapshot, l.lastPosition()
	if id.Index < l.mu.base.index {
		return &CorruptionError{File: l.snapshotPath(l.mu.base.index), Cause: fmt.Sprintf("the log begins after entry %d and the newest snapshot is of entry %d: a snapshot is missing", l.mu.base.index, id.Index)}
	}
	term, err := l.Term(id.Index)
	if id.Index > last.index || err != nil || term != id.Term {
		// Received and renamed, and then the crash came before the log was reset.
		l.logger.Warn("log begins anew with a snapshot", "snapshot", id.Index, "logEnd", last.index)
		if err := l.resetTo(id); err != nil {
			return err
		}
	}
	l.hardState.commit = max(l.hardState.commit, id.Index)
	if l.hardState.commit > l.lastPosition().index {
		return &CorruptionError{File: l.active.path, Offset: l.active.size, Cause: fmt.Sprintf("the commit index %d lies beyond the last entry %d", l.hardState.commit, l.lastPosition().index)}
	}
	return l.adoptSnapshot(id)
}
