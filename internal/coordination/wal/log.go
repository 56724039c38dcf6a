package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"understudy/internal/vfs"
)

// Options say where a log lives and how much it may use.
type Options struct {
	Dir      string
	FS       vfs.FS
	Identity Identity
	// SegmentBytes is the size after which a new segment is begun (16 MiB).
	SegmentBytes int64
	// CacheBytes bounds the entries kept in memory (16 MiB); older ones are read from disk.
	CacheBytes int64
	Logger     *slog.Logger
	// Now is the wall clock that incarnations are taken from (time.Now).
	Now func() time.Time
	// Stepped keeps everything on the caller's goroutine, in one order.
	Stepped bool
}

// Log is the raft log and the snapshots of one member.
type Log struct {
	fs           vfs.FS
	dir          string
	logger       *slog.Logger
	segmentBytes int64
	cacheBytes   int64
	lock         io.Closer
	voters       []uint64
	incarnation  uint64

	// Owned by the writer (Append, InstallSnapshot, Close): the segment being written, the
	// next frame's number, the durable hard state and a buffer.
	active    *segment
	sequence  uint64
	hardState hardState
	buffer    []byte
	failed    error

	syncs atomic.Uint64

	mu struct {
		sync.Mutex
		// base is the entry before the first one kept; positions[i] is where entry
		// base.index+1+i lies. cache holds the last entries; len(cache) <= len(positions).
		base       entryID
		positions  []location
		cache      []*pb.Entry
		cacheBytes int64
		segments   []*segment // ascending; the last is the active one
		snapshot   SnapshotID // the newest on disk; Index 0: none
	}
}

// entryID is an entry's identity in raft: index and term.
type entryID struct{ index, term uint64 }

// location is where an entry's record lies, and its term.
type location struct {
	term    uint64
	segment uint32
	offset  uint32
	size    uint32
}

type hardState struct{ term, vote, commit uint64 }

type segment struct {
	number uint32
	path   string
	file   vfs.File
	size   int64
}

// Write is one storage request of raft: entries to append and the hard state to keep (nil: as
// it was).
type Write struct {
	HardState *pb.HardState
	Entries   []*pb.Entry
}

// Incarnation is this start's number: larger than any earlier start's.
func (l *Log) Incarnation() uint64 { return l.incarnation }

// Syncs counts the log's fsyncs.
func (l *Log) Syncs() uint64 { return l.syncs.Load() }

// Append makes the writes durable, in order, with one sync, and then readable. Writes that
// change nothing but the commit index cost nothing: it is stored with the next one.
func (l *Log) Append(writes []Write) error {
	if l.failed != nil {
		return l.failed
	}
	before := l.hardState
	frame := l.newFrame(writes)
	if frame == nil {
		return nil
	}
	if l.active.size > segmentHeader && l.active.size+int64(len(frame)) > l.segmentBytes {
		if err := l.roll(before); err != nil {
			return l.fail(err)
		}
	}
	if err := l.writeFrame(frame); err != nil {
		return l.fail(err)
	}
	return nil
}

// newFrame encodes the writes and takes over their hard state; nil if there is nothing that
// must be durable.
func (l *Log) newFrame(writes []Write) []byte {
	frame := beginFrame(l.buffer[:0])
	must := false
	last := l.lastPosition()
	for _, w := range writes {
		if w.HardState != nil && !raft.IsEmptyHardState(w.HardState) {
			hs := hardState{w.HardState.GetTerm(), w.HardState.GetVote(), w.HardState.GetCommit()}
			must = must || hs.term != l.hardState.term || hs.vote != l.hardState.vote
			l.hardState = hs
		}
		for i, e := range w.Entries {
			if i == 0 && e.GetIndex() <= last.index {
				// Entries of older segments are replaced: say what stays before this one,
				// so that those segments can be removed some day.
				before := l.mustPosition(e.GetIndex() - 1)
				frame = appendPositionRecord(frame, recordBase, before.index, before.term)
			}
			frame = appendEntryRecord(frame, e)
			last = entryID{e.GetIndex(), e.GetTerm()}
		}
		must = must || len(w.Entries) > 0
	}
	if !must {
		return nil
	}
	frame = appendHardStateRecord(frame, l.hardState.term, l.hardState.vote, l.hardState.commit)
	if cap(frame) <= 1<<20 {
		l.buffer = frame
	}
	return frame
}

// mustPosition is the position of an entry that raft says is ours.
func (l *Log) mustPosition(index uint64) entryID {
	term, err := l.Term(index)
	if err != nil {
		return entryID{index, 0} // overlapping writes of one group: the term is not needed
	}
	return entryID{index, term}
}

func (l *Log) lastPosition() entryID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastLocked()
}

func (l *Log) lastLocked() entryID {
	if n := len(l.mu.positions); n > 0 {
		return entryID{l.mu.base.index + uint64(n), l.mu.positions[n-1].term}
	}
	return l.mu.base
}

// writeFrame writes and syncs a frame to the active segment, then publishes its entries.
func (l *Log) writeFrame(frame []byte) error {
	endFrame(frame, l.sequence)
	start := l.active.size
	if _, err := l.active.file.WriteAt(frame, start); err != nil {
		return err
	}
	if err := l.active.file.Sync(); err != nil {
		return err
	}
	l.syncs.Add(1)
	l.sequence++
	l.active.size += int64(len(frame))

	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := parseFrame(frame, l.sequence-1, func(at int, r record) error {
		return l.replayLocked(r, l.active.number, start+int64(at))
	})
	return err
}

// replayLocked takes a durable record into memory; recovery and writing share it.
func (l *Log) replayLocked(r record, segment uint32, offset int64) error {
	switch r.kind {
	case recordEntry:
		index, term := r.position()
		return l.addLocked(index, r, location{term: term, segment: segment, offset: uint32(offset), size: uint32(r.size)})
	case recordHardState:
		l.hardState = hardState{
			binary.LittleEndian.Uint64(r.payload),
			binary.LittleEndian.Uint64(r.payload[8:]),
			binary.LittleEndian.Uint64(r.payload[16:]),
		}
	case recordBase:
		// What follows replaces everything after this entry. It matters where the older
		// segments are gone; otherwise the entries themselves say so.
		if index, term := r.position(); len(l.mu.positions) == 0 || index < l.mu.base.index {
			l.resetLocked(entryID{index, term})
		}
	case recordReset:
		index, term := r.position()
		l.resetLocked(entryID{index, term})
	}
	return nil
}

func (l *Log) resetLocked(base entryID) {
	l.mu.base = base
	l.mu.positions, l.mu.cache, l.mu.cacheBytes = nil, nil, 0
}

func (l *Log) addLocked(index uint64, r record, where location) error {
	next := l.mu.base.index + uint64(len(l.mu.positions)) + 1
	if index <= l.mu.base.index {
		return nil // compacted away already
	}
	if index > next {
		return fmt.Errorf("entry %d follows entry %d", index, next-1)
	}
	if index < next {
		l.truncateLocked(index)
	}
	l.mu.positions = append(l.mu.positions, where)
	e := r.entry()
	l.mu.cache = append(l.mu.cache, e)
	l.mu.cacheBytes += entryCost(e)
	l.evictLocked()
	return nil
}

// truncateLocked drops the entries from index on.
func (l *Log) truncateLocked(index uint64) {
	keep := int(index - l.mu.base.index - 1)
	drop := len(l.mu.positions) - keep
	l.mu.positions = l.mu.positions[:keep]
	for ; drop > 0 && len(l.mu.cache) > 0; drop-- {
		end := len(l.mu.cache) - 1
		l.mu.cacheBytes -= entryCost(l.mu.cache[end])
		l.mu.cache[end] = nil
		l.mu.cache = l.mu.cache[:end]
	}
}

// evictLocked keeps the cache within its bound, and its last entry in any case.
func (l *Log) evictLocked() {
	for l.mu.cacheBytes > l.cacheBytes && len(l.mu.cache) > 1 {
		l.mu.cacheBytes -= entryCost(l.mu.cache[0])
		l.mu.cache[0] = nil
		l.mu.cache = l.mu.cache[1:]
	}
}

// entryCost is what a cached entry takes in memory, about.
func entryCost(e *pb.Entry) int64 { return int64(len(e.GetData())) + 160 }

// roll begins a new segment, whose first frame makes it independent of the older ones. Its hard
// state is the one before the entries that come next: with theirs, a crash now would leave a
// commit index that lies beyond the last entry.
func (l *Log) roll(state hardState) error {
	number := l.active.number + 1
	last := l.lastPosition()
	frame := beginFrame(nil)
	frame = appendPositionRecord(frame, recordBase, last.index, last.term)
	frame = appendHardStateRecord(frame, state.term, state.vote, state.commit)
	return l.beginSegment(number, frame)
}

// beginSegment creates a segment with its first frame, durable before it is used.
func (l *Log) beginSegment(number uint32, frame []byte) error {
	path := l.segmentPath(number)
	file, err := l.fs.Create(path)
	if err != nil {
		return err
	}
	if _, err := file.WriteAt(appendSegmentHeader(nil), 0); err != nil {
		_ = file.Close()
		return err
	}
	s := &segment{number: number, path: path, file: file, size: segmentHeader}
	l.active = s
	l.mu.Lock()
	l.mu.segments = append(l.mu.segments, s)
	l.mu.Unlock()
	if err := l.writeFrame(frame); err != nil {
		return err
	}
	return l.fs.SyncDir(filepath.Dir(path))
}

func (l *Log) segmentPath(number uint32) string {
	return filepath.Join(l.dir, "log", fmt.Sprintf("%08d.wal", number))
}

// fail makes an error final: after a failed write or sync nobody knows what is on disk.
func (l *Log) fail(err error) error {
	l.failed = fmt.Errorf("wal: writing the log in %s failed, and nothing after it can be acknowledged: %w", l.dir, err)
	return l.failed
}

// Compact forgets the entries up to index (which a snapshot must cover) and removes the
// segments that hold nothing else. It may run beside Append.
func (l *Log) Compact(index uint64) error {
	removed := l.compact(index)
	var errs []error
	for _, s := range removed {
		errs = append(errs, s.file.Close(), l.fs.Remove(s.path))
	}
	return errors.Join(errs...)
}

// compact moves the base and unlinks the segments below it from memory.
func (l *Log) compact(index uint64) (removed []*segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	index = min(index, l.mu.snapshot.Index, l.lastLocked().index)
	if index <= l.mu.base.index {
		return nil
	}
	n := int(index - l.mu.base.index)
	l.mu.base = entryID{index, l.mu.positions[n-1].term}
	l.mu.positions = append([]location(nil), l.mu.positions[n:]...)
	for len(l.mu.cache) > len(l.mu.positions) {
		l.mu.cacheBytes -= entryCost(l.mu.cache[0])
		l.mu.cache[0] = nil
		l.mu.cache = l.mu.cache[1:]
	}
	return l.unusedSegmentsLocked()
}

// unusedSegmentsLocked takes out the leading segments that hold no entry that is kept.
func (l *Log) unusedSegmentsLocked() (removed []*segment) {
	lowest := l.mu.segments[len(l.mu.segments)-1].number
	for _, p := range l.mu.positions {
		lowest = min(lowest, p.segment)
		if p.segment == l.mu.segments[0].number {
			break
		}
	}
	for l.mu.segments[0].number < lowest {
		removed = append(removed, l.mu.segments[0])
		l.mu.segments = l.mu.segments[1:]
	}
	return removed
}

// Close stores the hard state as known and releases the directory. After a failed write it
// only closes.
func (l *Log) Close() error {
	var errs []error
	if l.failed == nil {
		frame := beginFrame(nil)
		frame = appendHardStateRecord(frame, l.hardState.term, l.hardState.vote, l.hardState.commit)
		errs = append(errs, l.writeFrame(frame))
	}
	return errors.Join(append(errs, l.Abandon())...)
}

// Abandon closes the files without writing anything more, as a crash would.
func (l *Log) Abandon() error {
	if l.failed == nil {
		l.failed = errors.New("wal: the log is closed")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, s := range l.mu.segments {
		errs = append(errs, s.file.Close())
	}
	l.mu.segments = nil
	if l.lock != nil {
		errs = append(errs, l.lock.Close())
		l.lock = nil
	}
	return errors.Join(errs...)
}

// Bytes is the size of the segments on disk.
func (l *Log) Bytes() (n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.mu.segments[:max(0, len(l.mu.segments)-1)] {
		n += s.size
	}
	return n
}
