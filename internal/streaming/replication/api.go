package replication

import (
	"context"
	"log/slog"
	"net"
	"time"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/commitlog"
	"understudy/internal/streaming/metadata"
)

// ConsumerReplica and DebugReplica are the replica ids of fetches that are no follower's:
// the first reads up to the high watermark or the last stable offset, the second to the log
// end.
const (
	ConsumerReplica cluster.BrokerID = -1
	DebugReplica    cluster.BrokerID = -2
)

// Isolation levels of Fetch and ListOffsets.
const (
	ReadUncommitted int8 = 0
	ReadCommitted   int8 = 1
)

// Config is what a Manager is made of. Zero settings get Kafka's defaults.
type Config struct {
	Self cluster.BrokerID
	// Epoch returns the czxid of the present registration, UnknownBrokerEpoch before it.
	Epoch    func() cluster.BrokerEpoch
	Logs     *commitlog.Manager
	Metadata *metadata.Cache
	// TopicConfig returns the effective configuration of a topic; it reads /config/topics/T.
	// It is called, by several goroutines, for topics new to this broker, and by
	// UpdateTopicConfig; never on the data path.
	TopicConfig func(topic string) (commitlog.LogConfig, error)
	// AlterPartition carries ISR changes to the controller; nil means the manager's own
	// channel over Dial.
	AlterPartition AlterPartitionSender
	// Dial connects to another broker for fetching and for AlterPartition.
	Dial Dialer
	// InterBrokerListener names the listener on which other brokers are reached.
	InterBrokerListener string
	// ConfirmSession asks the ensemble whether this broker's registration still stands. It is
	// called after a pause of the process, again and again until it returns nil or
	// leadership is suspended for a lost session. nil turns pause detection off.
	ConfirmSession func(context.Context) error
	// OnLogDirFailure is told once of each log directory that failed (registry posts the
	// notification; the process ends when it was the last). May be nil.
	OnLogDirFailure func(dir string, err error)

	ReplicaLagTimeMax     time.Duration // replica.lag.time.max.ms, 30 s
	NumFetchers           int           // num.replica.fetchers, 1
	FetchMaxWait          time.Duration // replica.fetch.wait.max.ms, 500 ms
	FetchMinBytes         int32         // replica.fetch.min.bytes, 1
	FetchMaxBytes         int32         // replica.fetch.max.bytes (per partition), 1 MiB
	FetchResponseMaxBytes int32         // replica.fetch.response.max.bytes, 10 MiB
	FetchBackoff          time.Duration // first delay after a failed fetch, 10 ms; grows tenfold
	HighWatermarkInterval time.Duration // replica.high.watermark.checkpoint.interval.ms, 5 s
	SocketTimeout         time.Duration // replica.socket.timeout.ms, 30 s
	// PauseLimit is the gap in the manager's ticker from which the process counts as having
	// been paused, 1 s. Keep it well below the session timeout.
	PauseLimit time.Duration

	Logger *slog.Logger
}

// Dialer opens a connection to another broker; nil means TCP. The address is resolved at each
// dial.
type Dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// AppendPart is one partition of a produce request. Records is owned by the manager until
// done runs; the append patches it in place.
type AppendPart struct {
	TP      cluster.TopicPartition
	Records []byte
}

// AppendRequest is one produce request, or a coordinator's append.
type AppendRequest struct {
	Parts   []AppendPart
	Acks    int16 // 0, 1, -1
	Timeout time.Duration
	Origin  commitlog.Origin
}

// AppendResult is the outcome for the part of the same index.
type AppendResult struct {
	Err  error
	Info commitlog.AppendInfo // valid if Err is nil or NOT_ENOUGH_REPLICAS_AFTER_APPEND
	// Leader is filled on NOT_LEADER_OR_FOLLOWER (KIP-951).
	Leader LeaderHint
}

// LeaderHint says who leads a partition as far as this broker knows; NoBroker and
// NoLeaderEpoch if it does not.
type LeaderHint struct {
	Leader cluster.BrokerID
	Epoch  cluster.LeaderEpoch
}

// FetchPart is one partition of a fetch.
type FetchPart struct {
	TP                 cluster.TopicPartition
	TopicID            cluster.TopicID     // zero: not checked
	CurrentLeaderEpoch cluster.LeaderEpoch // NoLeaderEpoch: not checked
	FetchOffset        cluster.Offset
	LastFetchedEpoch   cluster.LeaderEpoch // NoLeaderEpoch: no divergence check
	LogStartOffset     cluster.Offset      // followers: their log start
	MaxBytes           int32
	// Tag is handed back with the part's result.
	Tag any
	// Standing lets a session's part fall quiet when the client knows the high watermark and
	// the log start that there are. nil: it is looked at in every fetch that names it.
	Standing                          *StandingPart
	KnownHighWatermark, KnownLogStart cluster.Offset
}

// FetchRequest is a fetch by a consumer or a follower. Parts is kept until done has run.
type FetchRequest struct {
	Replica      cluster.BrokerID // ConsumerReplica, DebugReplica, or the follower
	ReplicaEpoch cluster.BrokerEpoch
	MaxWait      time.Duration
	MinBytes     int32
	MaxBytes     int32
	Isolation    int8
	// LeaderOnly refuses to read from a follower (Fetch version 10 and older, followers).
	LeaderOnly bool
	// NearRack is the consumer's rack if it may be sent to a replica there, and Listener where it
	// is connected; "" leaves it here.
	NearRack, Listener string
	Parts              []FetchPart
	// Standing is the session that the fetch belongs to; nil without one. With it the results
	// are those of the parts that did not fall quiet, and of quiet ones that were stirred
	// while the fetch waited; and a fetch without parts waits, too.
	Standing *Standing
}

// DivergingEpoch tells a fetcher where its log leaves the leader's.
type DivergingEpoch struct {
	Epoch     cluster.LeaderEpoch
	EndOffset cluster.Offset
}

// FetchResult is the outcome for one part; without a session, for the part of the same index.
type FetchResult struct {
	Tag any // the part's
	Err error
	// Awaited: Err (UNKNOWN_LEADER_EPOCH, or a follower's fetch of a partition that is not here
	// yet) is likely to be cured by a LeaderAndIsr under way. The fetch waited for it; if other
	// partitions end the wait early, an incremental fetch session should leave this one out of
	// its response and ask again with the next request. A full response reports Err.
	Awaited          bool
	HighWatermark    cluster.Offset // NoOffset with an error
	LastStableOffset cluster.Offset
	LogStartOffset   cluster.Offset
	Diverging        *DivergingEpoch // nil: none
	// Leader is filled on NOT_LEADER_OR_FOLLOWER and FENCED_LEADER_EPOCH.
	Leader LeaderHint
	// NearReader is the replica that the consumer is sent to instead of being given records;
	// nil: none.
	NearReader *cluster.BrokerID
	// Slice holds the records; nil if there are none. The receiver closes it.
	Slice *commitlog.Slice
	// Aborted lists the aborted transactions that overlap the slice (ReadCommitted).
	Aborted []commitlog.AbortedTransaction
}

// ListOffsetsPart asks for the offset of a timestamp: -1 latest, -2 earliest, -3 the record
// with the largest timestamp, -4 earliest local, otherwise milliseconds.
type ListOffsetsPart struct {
	TP                 cluster.TopicPartition
	CurrentLeaderEpoch cluster.LeaderEpoch
	Timestamp          int64
}

// ListOffsetsResult answers a ListOffsetsPart; Offset and Timestamp are -1 if no record
// answers it.
type ListOffsetsResult struct {
	Err         error
	Timestamp   int64
	Offset      cluster.Offset
	LeaderEpoch cluster.LeaderEpoch
}

// EndOffsetPart asks where an epoch ends on the leader.
type EndOffsetPart struct {
	TP                 cluster.TopicPartition
	CurrentLeaderEpoch cluster.LeaderEpoch
	LeaderEpoch        cluster.LeaderEpoch
}

// EndOffsetResult answers an EndOffsetPart; (-1, -1) where the leader does not know.
type EndOffsetResult struct {
	Err       error
	Epoch     cluster.LeaderEpoch
	EndOffset cluster.Offset
}

// PartitionDescription is a snapshot of one hosted partition, for tools and tests.
type PartitionDescription struct {
	TP             cluster.TopicPartition
	TopicID        cluster.TopicID
	IsLeader       bool
	Leader         cluster.BrokerID
	LeaderEpoch    cluster.LeaderEpoch
	PartitionEpoch cluster.PartitionEpoch
	Replicas       []cluster.BrokerID
	ISR            []cluster.BrokerID // leaders only
	HighWatermark  cluster.Offset
	LogStart       cluster.Offset
	LogEnd         cluster.Offset
	Offline        bool
	Suspended      bool
}

// RoleChange is told that this replica became the leader of, or stopped leading, a partition
// of an internal topic. Calls for one partition come in order; it must not block for long,
// because LeaderAndIsr waits for it.
type RoleChange func(partition int32, leaderEpoch cluster.LeaderEpoch, leader bool)

// ISRChange is what a leader asks the controller to commit.
type ISRChange struct {
	TP             cluster.TopicPartition
	TopicID        cluster.TopicID
	LeaderEpoch    cluster.LeaderEpoch
	PartitionEpoch cluster.PartitionEpoch
	ISR            []cluster.BrokerID
	Epochs         []cluster.BrokerEpoch // of the members, UnknownBrokerEpoch where not known
	Recovery       cluster.LeaderRecoveryState
}

// ISROutcome is the controller's answer: the committed state, or the partition's error.
type ISROutcome struct {
	Err   error
	State cluster.PartitionState
}

// AlterPartitionSender carries ISR changes to the controller. done runs at most once (not if a
// later change for the same partition replaces this one, or after Close), from
// any goroutine, never from within Submit; transport errors and NOT_CONTROLLER are retried
// inside and never reach it.
type AlterPartitionSender interface {
	Submit(change ISRChange, done func(ISROutcome))
	Close()
}
