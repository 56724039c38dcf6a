package group

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/group/classic"
	"understudy/internal/streaming/record"
)

const (
	loadRetryFirst = 10 * time.Millisecond
	loadRetryMax   = time.Second
	// decompressedBytesMax bounds one batch of Topic; Kafka's default for a batch is 1 MiB.
	decompressedBytesMax = 64 << 20
)

// load reads the partition until it succeeds or the shard is closed.
func (s *shard) load(ctx context.Context) {
	begun := s.coordinator.now()
	for delay := loadRetryFirst; ; delay = min(2*delay, loadRetryMax) {
		image, err := s.readAll(ctx)
		if err == nil {
			s.loaded(image, begun)
			return
		}
		if s.isClosed() || ctx.Err() != nil {
			return
		}
		s.logger().Warn("group coordinator could not load, trying again", "error", err, "after", delay)
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
		}
	}
}

func (s *shard) logger() *slog.Logger {
	return s.coordinator.logger.With("partition", s.tp.Partition, "leaderEpoch", s.epoch)
}

// loaded begins to serve what was read.
func (s *shard) loaded(image *image, begun time.Time) {
	groups := s.activate(image)
	if groups < 0 {
		return
	}
	level := slog.LevelDebug // most partitions hold nothing
	if groups > 0 {
		level = slog.LevelInfo
	}
	s.logger().Log(context.Background(), level, "group coordinator loaded", "groups", groups, "offsets", image.offsetCount(),
		"skipped", image.skipped, "took", s.coordinator.now().Sub(begun))
}

// readAll replays the partition from its start to its end at this moment. The end counts, not
// the high watermark: a new leader does not know yet how much of its log is committed, and
// all that was acknowledged is in it.
func (s *shard) readAll(ctx context.Context) (*image, error) {
	select {
	case s.coordinator.loaders <- struct{}{}:
		defer func() { <-s.coordinator.loaders }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	reading := reading{image: newImage()}
	for {
		if done, err := s.readSome(&reading); done || err != nil {
			return reading.image, err
		}
	}
}

// reading is a replay under way.
type reading struct {
	image *image
	next  cluster.Offset
}

// readSome replays one buffer's worth; done says that the end is reached.
func (s *shard) readSome(r *reading) (done bool, err error) {
	if s.isClosed() {
		return false, kerr.NotCoordinator
	}
	data, after, end, err := s.coordinator.config.Log.Read(s.tp, r.next, s.coordinator.config.LoadBufferBytes)
	if err != nil {
		return false, fmt.Errorf("read at offset %d: %w", r.next, err)
	}
	if err := r.image.replay(data); err != nil {
		return false, err
	}
	switch {
	case after >= end:
		return true, nil
	case after <= r.next:
		return false, fmt.Errorf("no batch at offset %d, before the end %d", r.next, end)
	}
	r.next = after
	return false, nil
}

// activate makes the groups and begins to serve. It returns their number, -1 if the shard
// has been closed meanwhile.
func (s *shard) activate(image *image) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.phase != loading {
		return -1
	}
	s.mu.phase = active
	now := s.coordinator.now()
	for _, id := range slices.Sorted(maps.Keys(image.groups)) {
		content := image.groups[id]
		if content.metadata == nil && len(content.offsets) == 0 {
			continue
		}
		e := &entry{group: classic.Restore(id, &s.coordinator.config.Settings, content.metadata, content.offsets, now), index: -1}
		s.mu.groups[id] = e
		s.rescheduleLocked(e, e.group.Wake())
	}
	return len(s.mu.groups)
}

// image is the content of a partition: the last value of every key.
type image struct {
	groups map[string]*groupImage
	// open holds what producers have committed in transactions that have not ended.
	open    map[int64][]openOffset
	skipped int // records of kinds that are not ours
}

type groupImage struct {
	metadata *kmsg.GroupMetadataValue
	offsets  map[cluster.TopicPartition]classic.Offset
	// at is the log offset of the last plain commit for each partition, for transactions
	// that end after it.
	at map[cluster.TopicPartition]cluster.Offset
}

type openOffset struct {
	key   classic.Key
	value *classic.Offset // nil: a tombstone
	at    cluster.Offset
}

func newImage() *image {
	return &image{groups: map[string]*groupImage{}, open: map[int64][]openOffset{}}
}

func (i *image) group(id string) *groupImage {
	g := i.groups[id]
	if g == nil {
		g = &groupImage{offsets: map[cluster.TopicPartition]classic.Offset{}, at: map[cluster.TopicPartition]cluster.Offset{}}
		i.groups[id] = g
	}
	return g
}

func (i *image) offsetCount() (count int) {
	for _, g := range i.groups {
		count += len(g.offsets)
	}
	return count
}

// replay takes whole batches in.
func (i *image) replay(data []byte) error {
	for batch, err := range record.All(data) {
		if err != nil {
			return err
		}
		if err := batch.Check(); err != nil {
			return fmt.Errorf("batch at offset %d: %w", batch.BaseOffset(), err)
		}
		if err := i.replayBatch(batch); err != nil {
			return fmt.Errorf("batch at offset %d: %w", batch.BaseOffset(), err)
		}
	}
	return nil
}

func (i *image) replayBatch(batch record.Batch) error {
	if batch.Control() {
		marker, known, err := batch.Marker()
		if err != nil || !known {
			return err
		}
		i.endTransaction(batch.ProducerID(), marker.Type == record.Commit)
		return nil
	}
	for r, err := range batch.Records(decompressedBytesMax) {
		if err != nil {
			return err
		}
		if err := i.replayRecord(batch, &r); err != nil {
			return fmt.Errorf("record at offset %d: %w", r.Offset, err)
		}
	}
	return nil
}

func (i *image) replayRecord(batch record.Batch, r *record.Record) error {
	if r.Key == nil {
		return errors.New("a record without a key")
	}
	key, err := classic.DecodeKey(r.Key)
	if err != nil {
		return err
	}
	switch key.Kind {
	case classic.GroupKey:
		g := i.group(key.Group)
		g.metadata = nil
		if r.Value != nil {
			g.metadata, err = classic.DecodeGroup(r.Value)
		}
		return err
	case classic.OffsetKey:
		var offset *classic.Offset
		if r.Value != nil {
			decoded, err := classic.DecodeOffset(r.Value)
			if err != nil {
				return err
			}
			offset = &decoded
		}
		if batch.Transactional() {
			i.open[batch.ProducerID()] = append(i.open[batch.ProducerID()], openOffset{key, offset, r.Offset})
			return nil
		}
		i.setOffset(key, offset, r.Offset)
	default:
		i.skipped++
	}
	return nil
}

func (i *image) setOffset(key classic.Key, offset *classic.Offset, at cluster.Offset) {
	g := i.group(key.Group)
	tp := cluster.TopicPartition{Topic: key.Topic, Partition: key.Partition}
	g.at[tp] = at
	if offset == nil {
		delete(g.offsets, tp)
		return
	}
	g.offsets[tp] = *offset
}

// endTransaction takes over or drops what a producer committed. A plain commit that stands
// later in the log than the transaction's own wins.
func (i *image) endTransaction(producerID int64, commit bool) {
	for _, o := range i.open[producerID] {
		tp := cluster.TopicPartition{Topic: o.key.Topic, Partition: o.key.Partition}
		if at, found := i.group(o.key.Group).at[tp]; commit && (!found || at < o.at) {
			i.setOffset(o.key, o.value, o.at)
		}
	}
	delete(i.open, producerID)
}
