package group

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/group/classic"
	"understudy/internal/streaming/record"
)

// Topic is the internal topic that holds groups and offsets.
const Topic = "__consumer_offsets"

// Log is what the coordinator needs of the replicated log of Topic's partitions.
type Log interface {
	// Append appends a batch to a partition that this broker leads. done runs exactly once,
	// possibly before Append returns, with nil or an error that wraps a protocol code. The
	// batch belongs to the log until then.
	Append(tp cluster.TopicPartition, batch []byte, acks int16, timeout time.Duration, done func(error))
	// Read returns whole batches from an offset (or from the log's start, if that is later) to
	// the log end at most, committed or not, of a partition that this broker leads; next is
	// where to read on, end the log end.
	Read(tp cluster.TopicPartition, from cluster.Offset, maxBytes int) (batches []byte, next, end cluster.Offset, err error)
}

// Config is what a Coordinator is made of. Zero settings get Kafka's defaults.
type Config struct {
	Log Log
	// Partitions returns the partition count of Topic: the topic's own if it exists, else
	// what it will be created with.
	Partitions func() int32
	Settings   classic.Settings

	CommitAcks      int16         // offsets.commit.required.acks, -1
	CommitTimeout   time.Duration // offsets.commit.timeout.ms, 5 s
	Codec           record.Codec  // offsets.topic.compression.codec
	LoadBufferBytes int           // offsets.load.buffer.size, 5 MiB
	ExpiryInterval  time.Duration // offsets.retention.check.interval.ms, 10 min
	MessageMaxBytes int32         // bounds what writes are combined to

	Logger *slog.Logger
}

// loadersMax bounds the partitions that are loaded at the same time.
const loadersMax = 4

// Coordinator is the group coordinator of one broker. Its methods may be called from any
// goroutine; the callbacks they take run exactly once, on any goroutine, under no lock.
type Coordinator struct {
	config  Config
	logger  *slog.Logger
	now     func() time.Time // time.Now, or the owner's of a stepped coordinator
	stepped *Stepped         // nil: the coordinator runs by itself
	ctx     context.Context
	stop    context.CancelFunc
	wait    sync.WaitGroup
	loaders chan struct{} // one token for each load under way

	mu struct {
		sync.RWMutex
		shards map[int32]*shard
		closed bool
	}
}

// New starts a coordinator without partitions.
func New(config Config) *Coordinator {
	c := newCoordinator(config)
	c.wait.Go(c.expireLoop)
	return c
}

func newCoordinator(config Config) *Coordinator {
	config.fillDefaults()
	c := &Coordinator{config: config, logger: config.Logger, now: time.Now, loaders: make(chan struct{}, loadersMax)}
	c.ctx, c.stop = context.WithCancel(context.Background())
	c.mu.shards = map[int32]*shard{}
	return c
}

func (c *Config) fillDefaults() {
	fill(&c.Settings.MinSessionTimeout, 6*time.Second)
	fill(&c.Settings.MaxSessionTimeout, 30*time.Minute)
	fill(&c.Settings.OffsetsRetention, 7*24*time.Hour)
	fill(&c.Settings.MaxSize, 1<<31-1)
	fill(&c.Settings.MaxOffsetMetadata, 4096)
	fill(&c.CommitAcks, -1)
	fill(&c.CommitTimeout, 5*time.Second)
	fill(&c.LoadBufferBytes, 5<<20)
	fill(&c.ExpiryInterval, 10*time.Minute)
	fill(&c.MessageMaxBytes, 1048588)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

func fill[T comparable](setting *T, value T) {
	var zero T
	if *setting == zero {
		*setting = value
	}
}

// PartitionOf is the partition of Topic that a group belongs to.
func (c *Coordinator) PartitionOf(group string) int32 {
	return cluster.InternalPartition(group, max(c.config.Partitions(), 1))
}

// OnRoleChange is OnElection or OnResignation, as replication.RoleChange.
func (c *Coordinator) OnRoleChange(partition int32, epoch cluster.LeaderEpoch, leader bool) {
	if leader {
		c.OnElection(partition, epoch)
	} else {
		c.OnResignation(partition, epoch)
	}
}

// OnElection takes a partition over: its groups are loaded in the background. An older epoch
// than the one known changes nothing.
func (c *Coordinator) OnElection(partition int32, epoch cluster.LeaderEpoch) {
	s := newShard(c, partition, epoch)
	c.mu.Lock()
	before := c.mu.shards[partition]
	switch {
	case c.mu.closed || before != nil && before.latest >= epoch:
		c.mu.Unlock()
		return
	case before != nil && before.latest+1 == epoch:
		// Nobody else led in between: an in-sync replica or the assignment has changed. What
		// is in memory is still all there is, and members need not join again.
		before.latest = epoch
		c.mu.Unlock()
		return
	}
	c.mu.shards[partition] = s
	c.wait.Add(1)
	c.mu.Unlock()
	if before != nil {
		before.close(kerr.NotCoordinator)
	}
	if c.stepped != nil {
		c.wait.Done()
		c.stepped.elected(s)
		return
	}
	go func() {
		defer c.wait.Done()
		s.load(c.ctx)
	}()
}

// OnResignation gives a partition up. NoLeaderEpoch gives it up whatever its epoch (the
// replica is being deleted).
func (c *Coordinator) OnResignation(partition int32, epoch cluster.LeaderEpoch) {
	c.mu.Lock()
	s := c.mu.shards[partition]
	if s == nil || epoch >= 0 && epoch < s.latest {
		c.mu.Unlock()
		return
	}
	delete(c.mu.shards, partition)
	c.mu.Unlock()
	s.close(kerr.NotCoordinator)
	c.logger.Debug("group coordinator resigned", "partition", partition, "leaderEpoch", epoch)
}

// shardOf finds the shard of a group, or says why there is none.
func (c *Coordinator) shardOf(group string) (*shard, *kerr.Error) {
	partition := c.PartitionOf(group)
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.mu.closed {
		return nil, kerr.CoordinatorNotAvailable
	}
	if s := c.mu.shards[partition]; s != nil {
		return s, nil
	}
	return nil, kerr.NotCoordinator
}

func (c *Coordinator) allShards() []*shard {
	c.mu.RLock()
	defer c.mu.RUnlock()
	shards := make([]*shard, 0, len(c.mu.shards))
	for _, s := range c.mu.shards {
		shards = append(shards, s)
	}
	slices.SortFunc(shards, func(a, b *shard) int { return cmp.Compare(a.tp.Partition, b.tp.Partition) })
	return shards
}

func (c *Coordinator) expireLoop() {
	ticker := time.NewTicker(c.config.ExpiryInterval)
	defer ticker.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-ticker.C:
			c.expire()
		}
	}
}

// expire drops the offsets whose time is up.
func (c *Coordinator) expire() {
	for _, s := range c.allShards() {
		s.forEach(func(g *classic.Group, now time.Time, out *classic.Effects) { g.Expire(now, out) })
	}
}

// PartitionsDeleted drops the offsets committed for partitions that are no more.
func (c *Coordinator) PartitionsDeleted(partitions []cluster.TopicPartition) {
	gone := make(map[cluster.TopicPartition]bool, len(partitions))
	for _, tp := range partitions {
		gone[tp] = true
	}
	for _, s := range c.allShards() {
		s.forEach(func(g *classic.Group, now time.Time, out *classic.Effects) {
			g.PartitionsDeleted(func(tp cluster.TopicPartition) bool { return gone[tp] }, now, out)
		})
	}
}

// Close answers what waits with COORDINATOR_NOT_AVAILABLE and waits for the goroutines. It
// is called before the replicated log is closed.
func (c *Coordinator) Close() {
	c.mu.Lock()
	shards := c.mu.shards
	c.mu.shards = map[int32]*shard{}
	c.mu.closed = true
	c.mu.Unlock()
	c.stop()
	for _, s := range shards {
		s.close(kerr.CoordinatorNotAvailable)
	}
	c.wait.Wait()
}
