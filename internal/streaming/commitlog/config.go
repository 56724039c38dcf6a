package commitlog

import (
	"log/slog"
	"math"
	"time"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/record"
	"understudy/internal/vfs"
)

// Config configures a Manager. Zero durations and sizes take the defaults named here.
type Config struct {
	Dirs []string // log.dirs; made if missing
	FS   vfs.FS   // nil: the operating system's

	// ClusterID is what meta.properties must say. "" leaves the check, and the writing of
	// files that are missing, to Manager.BindCluster: a broker locks and recovers its
	// directories before it talks to the ensemble.
	ClusterID string
	// BrokerID is broker.id; cluster.NoBroker takes the one that meta.properties names.
	BrokerID cluster.BrokerID

	RecoveryThreads         int           // num.recovery.threads.per.data.dir; default: one per processor
	FlushBytes              int64         // appended bytes after which a log is flushed in the background; 64 MiB
	RetentionCheckInterval  time.Duration // log.retention.check.interval.ms; 5 min
	CheckpointInterval      time.Duration // log.flush.offset.checkpoint.interval.ms and of start offsets; 60 s
	ProducerExpiration      time.Duration // producer.id.expiration.ms; 24 h
	ProducerExpirationCheck time.Duration // producer.id.expiration.check.interval.ms; 10 min
	OpenFilesMax            int           // files kept open; 1000

	// ScrubBytesPerSecond is how fast the background reads inactive segments to find damage
	// (understudy.log.scrub.bytes.per.second); 0: not at all.
	ScrubBytesPerSecond int64

	// OnDirFailure is told, once per directory, that input or output failed there and its
	// logs refuse everything from now on. It runs on the goroutine that met the error,
	// possibly under a log's lock: it must not call back into this package.
	OnDirFailure func(dir string, err error)

	// Stepped makes the manager start no goroutines: its owner calls Manager.Background.
	Stepped bool

	Logger *slog.Logger     // nil: discard
	Now    func() time.Time // nil: time.Now; for retention and expiry
}

// LogConfig is the configuration of one topic's logs, as effective values.
type LogConfig struct {
	SegmentBytes       int64 // segment.bytes
	SegmentMs          int64 // segment.ms
	SegmentJitterMs    int64 // segment.jitter.ms
	SegmentIndexBytes  int32 // segment.index.bytes
	IndexIntervalBytes int32 // index.interval.bytes

	Delete            bool  // cleanup.policy contains delete
	Compact           bool  // cleanup.policy contains compact
	RetentionMs       int64 // retention.ms; negative: unlimited
	RetentionBytes    int64 // retention.bytes; negative: unlimited
	FileDeleteDelayMs int64 // file.delete.delay.ms

	MaxMessageBytes   int32 // max.message.bytes, of a whole batch
	MinInsyncReplicas int32 // min.insync.replicas; not used here, carried for replication

	TimestampType     record.TimestampType // message.timestamp.type
	TimestampBeforeMs int64                // message.timestamp.before.max.ms
	TimestampAfterMs  int64                // message.timestamp.after.max.ms

	// Compression is compression.type; nil keeps the producer's.
	Compression      *record.Codec
	CompressionLevel int // 0: the codec's default

	FlushMessages int64 // flush.messages
	FlushMs       int64 // flush.ms

	UncleanLeaderElection bool // unclean.leader.election.enable; carried for the controller
}

// DefaultLogConfig is Kafka's.
func DefaultLogConfig() LogConfig {
	return LogConfig{
		SegmentBytes:       1 << 30,
		SegmentMs:          7 * 24 * 3600 * 1000,
		SegmentIndexBytes:  10 << 20,
		IndexIntervalBytes: 4096,
		Delete:             true,
		RetentionMs:        7 * 24 * 3600 * 1000,
		RetentionBytes:     -1,
		FileDeleteDelayMs:  60_000,
		MaxMessageBytes:    1048588,
		MinInsyncReplicas:  1,
		TimestampType:      record.CreateTime,
		TimestampBeforeMs:  math.MaxInt64,
		TimestampAfterMs:   math.MaxInt64,
		FlushMessages:      math.MaxInt64,
		FlushMs:            math.MaxInt64,
	}
}

const (
	defaultFlushBytes              = 64 << 20
	defaultRetentionCheckInterval  = 5 * time.Minute
	defaultCheckpointInterval      = time.Minute
	defaultProducerExpiration      = 24 * time.Hour
	defaultProducerExpirationCheck = 10 * time.Minute
	defaultOpenFilesMax            = 1000
)
