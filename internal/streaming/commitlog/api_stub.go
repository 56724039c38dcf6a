package commitlog

import (
	"errors"
	"net"

	"understudy/internal/streaming/cluster"
)

var errStub = errors.New("commitlog: not there yet")

// Origin says who wrote a batch, which decides what is checked.
type Origin int8

const (
	Client      Origin = iota // a producer: everything is checked
	Coordinator               // a group or transaction coordinator of this broker
	Replication               // a leader, for follower appends
)

// AppendOptions are the circumstances of a leader's append.
type AppendOptions struct {
	LeaderEpoch cluster.LeaderEpoch
	Origin      Origin
	NowMs       int64 // append time, and what timestamps are checked against
}

// AppendInfo is the outcome of an append.
type AppendInfo struct {
	First, Last     cluster.Offset // of the original append if Duplicate; Last < First if nothing was appended
	LogAppendTimeMs int64          // -1 for topics with CreateTime
	MaxTimestampMs  int64
	LogStart        cluster.Offset
	Duplicate       bool // a retry of a batch that is in the log; nothing was appended
	LastLeaderEpoch cluster.LeaderEpoch
}

// Manager owns the log directories of a broker.
type Manager struct{}

// Open locks the directories, checks their identity and loads their logs, recovering them
// in parallel after an unclean stop. Errors name the directory and what to do.
func Open(config Config) (*Manager, error) { return nil, errStub }

// BindCluster checks meta.properties against the cluster's id and writes those that are
// missing. It is for Config.ClusterID "" and may be called again with the same id.
func (m *Manager) BindCluster(clusterID string, brokerID cluster.BrokerID) error { return errStub }

// ClusterID and BrokerID are what meta.properties says, or "" and cluster.NoBroker.
func (m *Manager) ClusterID() string          { return "" }
func (m *Manager) BrokerID() cluster.BrokerID { return cluster.NoBroker }

// Get returns a partition's log, or nil if there is none here.
func (m *Manager) Get(tp cluster.TopicPartition) *Log { return nil }

// GetOrCreate returns the log, making it in the directory with the fewest logs if it is
// missing. isNew says that the controller created the partition just now: without it
// nothing is created while a directory is offline, where the log may be.
func (m *Manager) GetOrCreate(tp cluster.TopicPartition, topicID cluster.TopicID, config LogConfig, isNew bool) (*Log, error) {
	return nil, errStub
}

// Delete renames the log's directory for deletion; its files go after file.delete.delay.ms.
// Slices in use stay readable. Nil if there is no such log.
func (m *Manager) Delete(tp cluster.TopicPartition) error { return errStub }

// All returns the logs in order of topic and partition.
func (m *Manager) All() []*Log { return nil }

// CheckpointHighWatermarks writes replication-offset-checkpoint. Partitions that each does
// not yield keep their log's high watermark. The manager does the same with each log's own
// high watermark at every checkpoint interval (5 s) and at Close, so calling it is optional.
func (m *Manager) CheckpointHighWatermarks(each func(yield func(cluster.TopicPartition, cluster.Offset))) error {
	return errStub
}

// CheckpointedHighWatermark is what the checkpoint said at start, or 0.
func (m *Manager) CheckpointedHighWatermark(tp cluster.TopicPartition) cluster.Offset { return 0 }

// Close stops the background work and closes all logs. clean flushes them and leaves the
// clean-shutdown mark; otherwise the directories look as after a crash.
func (m *Manager) Close(clean bool) error { return nil }

// Log is one partition's replica on disk.
type Log struct{}

// TopicPartition names the log.
func (l *Log) TopicPartition() cluster.TopicPartition { return cluster.TopicPartition{} }

// Dir is the log directory (the entry of log.dirs) that holds it.
func (l *Log) Dir() string { return "" }

// Size is the number of bytes in its segments.
func (l *Log) Size() int64 { return 0 }

// TopicID is the id in partition.metadata, zero if none is known.
func (l *Log) TopicID() cluster.TopicID { return cluster.TopicID{} }

// SetTopicID records the topic's id; INCONSISTENT_TOPIC_ID if another one is known.
func (l *Log) SetTopicID(id cluster.TopicID) error { return errStub }

// Config and SetConfig are the topic's configuration; a change takes effect at once.
func (l *Log) Config() LogConfig          { return LogConfig{} }
func (l *Log) SetConfig(config LogConfig) {}

// AppendLeader checks what a leader must, assigns offsets, and appends. It patches data in
// place and keeps no reference to it. Errors are kerr errors, wrapped; after one nothing
// has been appended, except after KAFKA_STORAGE_ERROR, when nobody knows.
func (l *Log) AppendLeader(data []byte, options AppendOptions) (AppendInfo, error) {
	return AppendInfo{}, errStub
}

// AppendFollower appends what a leader sent as it is. An incomplete batch at the end of
// data is ignored; Last < First if there was no complete one.
func (l *Log) AppendFollower(data []byte) (AppendInfo, error) { return AppendInfo{}, errStub }

// Read finds the batch that holds from and returns a slice of whole batches from there: at
// most maxBytes (of one segment), and nothing at or above upTo. minOne returns the first
// batch even if it alone exceeds maxBytes. An empty slice means that there is nothing
// between from and upTo; OFFSET_OUT_OF_RANGE that from is below the start or above the end.
func (l *Log) Read(from cluster.Offset, maxBytes int, upTo cluster.Offset, minOne bool) (*Slice, error) {
	return nil, errStub
}

// StartOffset, EndOffset: the first offset that may be read, and the next to be written.
func (l *Log) StartOffset() cluster.Offset { return 0 }
func (l *Log) EndOffset() cluster.Offset   { return 0 }

// HighWatermark is what SetHighWatermark said last; at load, the checkpointed one, within
// the log's bounds.
func (l *Log) HighWatermark() cluster.Offset { return 0 }

// SetHighWatermark tells up to where records are committed; retention and the last stable
// offset depend on it. It is clamped to the log's bounds and may go back.
func (l *Log) SetHighWatermark(offset cluster.Offset) {}

// LastStableOffset is the high watermark, or the first offset of the oldest transaction
// that is open or whose end is not committed, if that is lower.
func (l *Log) LastStableOffset() cluster.Offset { return 0 }

// AbortedTransaction is a transaction to be left out by read_committed consumers.
type AbortedTransaction struct {
	ProducerID  int64
	FirstOffset cluster.Offset
}

// AbortedTransactions lists those that overlap [from, upTo).
func (l *Log) AbortedTransactions(from, upTo cluster.Offset) ([]AbortedTransaction, error) {
	return nil, errStub
}

// TruncateTo removes everything at and above an offset; at or above the end it only trims
// the epoch cache (which must happen, see UnifiedLog.truncateTo).
func (l *Log) TruncateTo(offset cluster.Offset) error { return errStub }

// TruncateFullyAndStartAt removes everything and goes on at an offset.
func (l *Log) TruncateFullyAndStartAt(offset cluster.Offset) error { return errStub }

// AdvanceStart raises the log start offset (DeleteRecords, or a leader's higher one); whole
// segments below it go at the next retention run. OFFSET_OUT_OF_RANGE above the high
// watermark... is for the caller to check; above the end it is an error.
func (l *Log) AdvanceStart(offset cluster.Offset) error { return errStub }

// AssignEpoch notes that a leader epoch starts at an offset. It does not wait for the disk.
func (l *Log) AssignEpoch(epoch cluster.LeaderEpoch, start cluster.Offset) error { return nil }

// LatestEpoch is the newest epoch in the cache, or cluster.NoLeaderEpoch.
func (l *Log) LatestEpoch() cluster.LeaderEpoch { return cluster.NoLeaderEpoch }

// EndOffsetForEpoch answers OffsetForLeaderEpoch: the largest known epoch not above the one
// asked for, and where it ends; (NoLeaderEpoch, NoOffset) if unknown. See replication.md 5.
func (l *Log) EndOffsetForEpoch(epoch cluster.LeaderEpoch) (cluster.LeaderEpoch, cluster.Offset) {
	return cluster.NoLeaderEpoch, cluster.NoOffset
}

// EpochForOffset is the leader epoch of the record at an offset, by the cache.
func (l *Log) EpochForOffset(offset cluster.Offset) cluster.LeaderEpoch {
	return cluster.NoLeaderEpoch
}

// TimestampOffset is the answer to a search by time.
type TimestampOffset struct {
	TimestampMs int64
	Offset      cluster.Offset
	LeaderEpoch cluster.LeaderEpoch
}

// OffsetForTimestamp finds the first record whose timestamp is at least timestampMs.
func (l *Log) OffsetForTimestamp(timestampMs int64) (found TimestampOffset, ok bool, err error) {
	return TimestampOffset{}, false, errStub
}

// MaxTimestampOffset finds the record with the largest timestamp.
func (l *Log) MaxTimestampOffset() (found TimestampOffset, ok bool, err error) {
	return TimestampOffset{}, false, errStub
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
func (l *Log) Producers() []ProducerState { return nil }

// Flush makes everything appended so far durable and moves the recovery point.
func (l *Log) Flush() error { return errStub }

// SyncTo returns when everything below an offset has been fsynced; callers share fsyncs.
func (l *Log) SyncTo(offset cluster.Offset) error { return errStub }

// SyncedOffset is the offset below which everything has been fsynced.
func (l *Log) SyncedOffset() cluster.Offset { return 0 }

// Failed is the error that made the log refuse everything, or nil.
func (l *Log) Failed() error { return nil }

// Slice is a run of whole batches in one segment file, which stays open until Close. Close
// must be called exactly once; other methods may be called from one goroutine at a time.
type Slice struct{}

// Size is the number of bytes; 0 for an empty slice.
func (s *Slice) Size() int { return 0 }

// FirstOffset is the base offset of the first batch, NextOffset the offset after the last.
func (s *Slice) FirstOffset() cluster.Offset { return 0 }
func (s *Slice) NextOffset() cluster.Offset  { return 0 }

// AppendTo reads the bytes and appends them to dst.
func (s *Slice) AppendTo(dst []byte) ([]byte, error) { return dst, errStub }

// ReadAll reads the bytes.
func (s *Slice) ReadAll() ([]byte, error) { return nil, errStub }

// SendTo writes the bytes to a connection, by sendfile where the system has it. An error,
// or n < Size, means that the peer saw half a response: close the connection.
func (s *Slice) SendTo(conn net.Conn) (n int64, err error) { return 0, errStub }

// Close lets go of the file.
func (s *Slice) Close() error { return nil }
