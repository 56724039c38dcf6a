package commitlog

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"understudy/internal/streaming/cluster"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Log is one partition's replica on disk.
type Log struct {
	tp    cluster.TopicPartition
	dir   *logDirectory
	path  string // of the partition's directory
	files *fileCache
	now   func() time.Time
	// background asks the manager to look after the log: to write its small files, or to
	// flush it. It does not block.
	background func(*Log, chore)
	expiration time.Duration // producer.id.expiration.ms
	flushBytes int64

	config     atomic.Pointer[LogConfig]
	configured atomic.Bool // a topic's configuration was set; until then retention is off
	closed     atomic.Bool

	epochs epochCache
	begin  epochBegin

	topicID struct {
		sync.Mutex
		id    cluster.TopicID
		dirty bool // partition.metadata is to be written
	}

	// flushing is held by one flush or truncation at a time; it is taken before writer.
	flushing sync.Mutex

	writer struct {
		sync.Mutex
		producers     producerTable
		recoveryPoint cluster.Offset // what is below survives a power failure
		unflushed     int64          // bytes appended since the last flush began
		flushAsked    bool
		unflushedMs   int64 // when the first of them was appended
		namesSynced   bool  // the partition directory's own name
		// owed is the high watermark that the checkpoint promised at start, while the log may
		// be shorter; see LostTail.
		owed        cluster.Offset
		blank       bool // made though the controller knows the partition, and nothing appended since
		truncations uint64
		proven      cluster.Offset // see ProvenOffset
		// dirty says that the files differ from what a clean close leaves.
		dirty bool
	}

	// published is what readers see. end and activeSize change together: whatever lies
	// below end lies below activeSize.
	published struct {
		sync.RWMutex
		segments      []*segment // never changed in place; the last is active
		activeSize    int64
		start, end    cluster.Offset
		highWatermark cluster.Offset
		unstable      cluster.Offset // first offset of the oldest pending transaction
		hasUnstable   bool
	}

	hints positionHints

	synced struct {
		sync.Mutex
		turn    sync.Cond
		offset  cluster.Offset // everything below was fsynced
		running bool
		// Where the last fsync in turn ended, for whoever has set running.
		base cluster.Offset
		size int64
	}
}

// chore is what the manager does for a log in the background.
type chore uint8

const (
	choreFiles  chore = 1 << iota // write dirty small files
	choreFlush                    // flush
	choreSecure                   // flush, and checkpoint the high watermark
)

// TopicPartition names the log.
func (l *Log) TopicPartition() cluster.TopicPartition { return l.tp }

// Dir is the log directory (the entry of log.dirs) that holds it.
func (l *Log) Dir() string { return l.dir.path }

// Config and SetConfig are the topic's configuration; a change takes effect at once. Until
// it was set once, nothing is deleted from the log.
func (l *Log) Config() LogConfig { return *l.config.Load() }

// SetConfig: see Config.
func (l *Log) SetConfig(config LogConfig) {
	l.config.Store(&config)
	l.configured.Store(true)
}

// Failed is the error that made the log refuse everything, or nil.
func (l *Log) Failed() error {
	if l.closed.Load() {
		return fmt.Errorf("commitlog: %s is closed: %w", l.tp, kerr.KafkaStorageError)
	}
	return l.dir.failure()
}

// fail marks the log's directory failed and returns the error to answer with.
func (l *Log) fail(cause error) error {
	if l.closed.Load() || errors.Is(cause, errForgotten) {
		return l.storageError(cause)
	}
	return l.dir.fail(cause)
}

func (l *Log) storageError(cause error) error {
	return fmt.Errorf("commitlog: %s: %w: %w", l.tp, cause, kerr.KafkaStorageError)
}

// view is the published state at one moment.
type view struct {
	segments   []*segment
	activeSize int64
	start, end cluster.Offset
}

func (l *Log) view() view {
	p := &l.published
	p.RLock()
	defer p.RUnlock()
	return view{p.segments, p.activeSize, p.start, p.end}
}

// limit is the number of valid bytes of the i-th segment.
func (v view) limit(i int) int64 {
	if i == len(v.segments)-1 {
		return v.activeSize
	}
	return v.segments[i].size.Load()
}

// endOf is the offset at which the i-th segment ends.
func (v view) endOf(i int) cluster.Offset {
	if i == len(v.segments)-1 {
		return v.end
	}
	return v.segments[i+1].base
}

// floor is the index of the segment that holds an offset at or above the first base.
func (v view) floor(offset cluster.Offset) int {
	after := sort.Search(len(v.segments), func(i int) bool { return v.segments[i].base > offset })
	return max(after-1, 0)
}

// StartOffset is the first offset that may be read.
func (l *Log) StartOffset() cluster.Offset { return l.view().start }

// EndOffset is the next offset to be written.
func (l *Log) EndOffset() cluster.Offset { return l.view().end }

// LostTail reports whether the log is known to lack records that were committed: some of its
// batches are damaged, it ends below the high watermark that was checkpointed before this process started, or it is empty
// and was made anew for a partition that is not new. It is no longer so when a leader has
// made this log a copy of its own, or it has become a leader's.
func (l *Log) LostTail() bool {
	l.writer.Lock()
	defer l.writer.Unlock()
	if len(l.Damages()) > 0 {
		return true // until they are mended
	}
	end := l.published.end
	return end < l.writer.owed || l.writer.blank && end == l.published.start
}

// Secure has the log flushed and its high watermark checkpointed soon. It is for a replica that
// has become the only one in sync: should it lose records all the same, LostTail tells.
func (l *Log) Secure() { l.background(l, choreSecure) }

// settleTailLocked ends LostTail.
func (l *Log) settleTailLocked() { l.writer.owed, l.writer.blank = 0, false }

// Size is the number of bytes in its segments.
func (l *Log) Size() int64 {
	now := l.view()
	size := int64(0)
	for i := range now.segments {
		size += now.limit(i)
	}
	return size
}

// TopicID is the id in partition.metadata, zero if none is known.
func (l *Log) TopicID() cluster.TopicID {
	l.topicID.Lock()
	defer l.topicID.Unlock()
	return l.topicID.id
}

// SetTopicID records the topic's id; INCONSISTENT_TOPIC_ID if another one is known.
func (l *Log) SetTopicID(id cluster.TopicID) error {
	if id.IsZero() {
		return nil
	}
	l.topicID.Lock()
	known := l.topicID.id
	if known.IsZero() {
		l.topicID.id, l.topicID.dirty = id, true
	}
	l.topicID.Unlock()
	switch {
	case known.IsZero():
		l.background(l, choreFiles)
	case known != id:
		return fmt.Errorf("commitlog: %s in %s belongs to topic id %s, not %s: %w",
			l.tp, l.dir.path, known, id, kerr.InconsistentTopicID)
	}
	return nil
}

// HighWatermark is what SetHighWatermark said last; at load, the checkpointed one, within
// the log's bounds.
func (l *Log) HighWatermark() cluster.Offset {
	l.published.RLock()
	defer l.published.RUnlock()
	return l.published.highWatermark
}

// ProvenOffset is up to where the log is known to be what it was when it was last written: after
// an unclean stop the recovery point, which is lowered before batches are replaced. Behind it a
// power loss may have brought back what had been truncated.
func (l *Log) ProvenOffset() cluster.Offset {
	l.writer.Lock()
	defer l.writer.Unlock()
	return l.writer.proven
}

// SetHighWatermark tells up to where records are committed; retention and the last stable
// offset depend on it. It is clamped to the log's bounds and may go back.
func (l *Log) SetHighWatermark(offset cluster.Offset) {
	p := &l.published
	p.Lock()
	p.highWatermark = min(max(offset, p.start), p.end)
	pending := p.hasUnstable
	p.Unlock()
	if pending {
		l.writer.Lock()
		defer l.writer.Unlock()
		l.publishUnstableLocked()
	}
}

// publishUnstableLocked makes the last stable offset follow the producers' state.
func (l *Log) publishUnstableLocked() {
	p := &l.published
	p.Lock()
	defer p.Unlock()
	p.unstable, p.hasUnstable = l.writer.producers.firstUnstable(p.highWatermark)
}

// LastStableOffset is the high watermark, or the first offset of the oldest transaction
// that is open or whose end is not committed, if that is lower.
func (l *Log) LastStableOffset() cluster.Offset {
	p := &l.published
	p.RLock()
	defer p.RUnlock()
	if p.hasUnstable {
		return min(p.unstable, p.highWatermark)
	}
	return p.highWatermark
}

// AssignEpoch notes that a leader epoch starts at an offset: this log is now the one that the
// others follow. It does not wait for the disk.
func (l *Log) AssignEpoch(epoch cluster.LeaderEpoch, start cluster.Offset) error {
	l.writer.Lock()
	l.settleTailLocked()
	l.writer.Unlock()
	if l.epochs.assign(epoch, start) {
		l.background(l, choreFiles)
	}
	return nil
}

// LatestEpoch is the newest epoch in the cache, or cluster.NoLeaderEpoch.
func (l *Log) LatestEpoch() cluster.LeaderEpoch { return l.epochs.latest() }

// LastEpoch is the leader epoch of the last record, whatever epochs have begun since without
// one: of two logs of a partition the one with the larger pair of last epoch and end offset
// holds every committed record that the other holds.
func (l *Log) LastEpoch() (cluster.LeaderEpoch, cluster.Offset) {
	now := l.view()
	if now.end == now.start {
		return l.epochs.latest(), now.end
	}
	return l.epochs.forOffset(now.end - 1), now.end
}

// EndOffsetForEpoch answers OffsetForLeaderEpoch: the largest known epoch not above the one
// asked for, and where it ends; (NoLeaderEpoch, NoOffset) if unknown. See replication.md 5.
func (l *Log) EndOffsetForEpoch(epoch cluster.LeaderEpoch) (cluster.LeaderEpoch, cluster.Offset) {
	return l.epochs.endOffsetFor(epoch, l.EndOffset())
}

// EpochForOffset is the leader epoch of the record at an offset, by the cache.
func (l *Log) EpochForOffset(offset cluster.Offset) cluster.LeaderEpoch {
	return l.epochs.forOffset(offset)
}

// ProducerState is one producer's state, for DescribeProducers.
type ProducerState struct {
	ProducerID       int64
	Epoch            int16
	LastSequence     int32
	LastTimestampMs  int64
	CoordinatorEpoch int32
	TxnFirstOffset   cluster.Offset // NoOffset if no transaction is open
}

// Producers lists the producers known to the log, by id.
func (l *Log) Producers() []ProducerState {
	l.writer.Lock()
	defer l.writer.Unlock()
	states := make([]ProducerState, 0, len(l.writer.producers.producers))
	for _, p := range l.writer.producers.producers {
		states = append(states, ProducerState{p.id, p.epoch, p.lastSequence(), p.lastTimestamp, p.coordinatorEpoch, p.txnFirst})
	}
	slices.SortFunc(states, func(a, b ProducerState) int {
		if a.ProducerID < b.ProducerID {
			return -1
		}
		return 1
	})
	return states
}

func (l *Log) filePath(name string) string { return filepath.Join(l.path, name) }

func (l *Log) nowMs() int64 { return l.now().UnixMilli() }

// writeTopicID writes partition.metadata. Its content is fsynced before it gets its name: an
// empty one would stop Apache's broker, which fsyncs the directory, too, each time. Here the
// name is left to the next fsync of the directory unless durable is asked for. A power failure
// that takes it leaves a partition without a topic id, which then is taken from the controller,
// as Kafka does. That could only be wrong for a topic that was deleted and made again
// meanwhile, and if records of the old one were durable: so the next fsync of records sees to
// the directory first.
func (l *Log) writeTopicID(id cluster.TopicID, durable bool) error {
	if err := replaceFile(l.files.fs, l.filePath(partitionMetadataName), encodePartitionMetadata(id), durable); err != nil {
		return err
	}
	if !durable {
		l.writer.Lock()
		defer l.writer.Unlock()
		l.published.segments[len(l.published.segments)-1].namesSynced = false
	}
	return nil
}

// writeSmallFiles writes the epoch checkpoint and partition.metadata if they are behind.
func (l *Log) writeSmallFiles(durable bool) error {
	l.topicID.Lock()
	id, metadataDirty := l.topicID.id, l.topicID.dirty
	l.topicID.dirty = false
	l.topicID.Unlock()
	if metadataDirty {
		if err := l.writeTopicID(id, durable); err != nil {
			return err
		}
	}
	if data, dirty := l.epochs.takeDirty(); dirty {
		if err := replaceFile(l.files.fs, l.filePath(epochCheckpointName), data, durable); err != nil {
			l.epochs.markDirty()
			return err
		}
	}
	return nil
}
