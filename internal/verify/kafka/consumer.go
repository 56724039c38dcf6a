package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// progress is how far each consumer has come, a group counting as one: the offset past the
// last record that it got, by partition.
type progress struct {
	mu        sync.Mutex
	consumers map[string]map[string]int64
}

func (p *progress) init() { p.consumers = map[string]map[string]int64{} }

func (p *progress) enter(consumer string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.consumers[consumer] == nil {
		p.consumers[consumer] = map[string]int64{}
	}
}

func (p *progress) reached(consumer, partition string, next int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.consumers[consumer][partition] = max(p.consumers[consumer][partition], next)
}

// behind names a consumer that has not come to the ends, "" if all have.
func (p *progress) behind(ends map[string]int64) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, consumer := range slices.Sorted(maps.Keys(p.consumers)) {
		for partition, end := range ends {
			if at := p.consumers[consumer][partition]; at < end {
				return fmt.Sprintf("%s is at offset %d of %s, its end is %d", consumer, at, partition, end)
			}
		}
	}
	return ""
}

// consume starts the consumers; they run until Close.
func (r *Run) consume() {
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	for i := range r.options.Consumers {
		name := fmt.Sprintf("%sassigned-%d", r.prefix, i)
		r.progress.enter(name)
		r.consuming.Go(func() { r.consumeAssigned(ctx, name) })
	}
	if r.options.Members == 0 {
		return
	}
	r.progress.enter(r.history.Setting.Group)
	for i := range r.options.Members {
		name := fmt.Sprintf("%smember-%d", r.prefix, i)
		r.consuming.Go(func() { r.consumeInGroup(ctx, name, i) })
	}
	r.consuming.Go(func() { r.watchCommitted(ctx) })
}

// partitions calls visit for each partition of the run.
func (r *Run) partitions(visit func(topic string, partition int32)) {
	for _, topic := range r.history.Setting.Topics {
		for partition := range int32(r.history.Setting.Partitions) {
			visit(topic, partition)
		}
	}
}

// fetchWait is how long a broker may hold a fetch that finds nothing.
const fetchWait = 250 * time.Millisecond

func (r *Run) fromStart() []kgo.Opt {
	return []kgo.Opt{kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(fetchWait), kgo.ConsiderMissingTopicDeletedAfter(time.Hour)}
}

func (r *Run) consumeAssigned(ctx context.Context, name string) {
	assignment := map[string]map[int32]kgo.Offset{}
	r.partitions(func(topic string, partition int32) {
		if assignment[topic] == nil {
			assignment[topic] = map[int32]kgo.Offset{}
		}
		assignment[topic][partition] = kgo.NewOffset().AtStart()
		r.add(&Entry{Kind: kindPosition, Client: name, Partition: partitionName(topic, partition)})
	})
	client, err := kgo.NewClient(slices.Concat(r.common("assigned"), r.fromStart(), []kgo.Opt{kgo.ConsumePartitions(assignment)})...)
	if err != nil {
		r.add(&Entry{Kind: kindTrouble, Client: name, Text: err.Error()})
		return
	}
	defer client.Close()
	for ctx.Err() == nil {
		r.notePolls(kindPoll, name, name, client.PollFetches(ctx))
	}
}

// notePolls enters what one poll brought, partition by partition. consumer is who makes
// progress: the client itself, or its group.
func (r *Run) notePolls(kind, client, consumer string, fetches kgo.Fetches) {
	fetches.EachError(func(topic string, partition int32, err error) {
		if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
			r.add(&Entry{Kind: kindTrouble, Client: client, Text: fmt.Sprintf("%s: %v", partitionName(topic, partition), err)})
		}
	})
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if len(p.Records) == 0 {
			return
		}
		e := &Entry{Kind: kind, Client: client, Partition: partitionName(p.Topic, p.Partition)}
		for _, record := range p.Records {
			e.Offsets = append(e.Offsets, record.Offset)
			e.Values = append(e.Values, unpack(record.Value))
		}
		r.add(e)
		if consumer != "" {
			r.progress.reached(consumer, e.Partition, e.Offsets[len(e.Offsets)-1]+1)
		}
	})
}

// The first members of a group stay; the last one leaves and comes back, so that the others
// take over from it and it from them.
const (
	memberStays       = 2 * time.Second
	commitPatience    = 5 * time.Second
	groupSession      = 10 * time.Second
	committedEvery    = 200 * time.Millisecond
	rebalancePatience = 20 * time.Second
)

func (r *Run) consumeInGroup(ctx context.Context, name string, number int) {
	restless := number > 0 && number == r.options.Members-1
	for ctx.Err() == nil {
		stay, cancel := ctx, context.CancelFunc(func() {})
		if restless {
			stay, cancel = context.WithTimeout(ctx, memberStays)
		}
		r.beMember(stay, name)
		cancel()
	}
}

// beMember joins the group, polls and commits, and leaves when ctx ends.
func (r *Run) beMember(ctx context.Context, name string) {
	client, err := kgo.NewClient(slices.Concat(r.common("member"), r.fromStart(), []kgo.Opt{
		atMost39(),
		kgo.ConsumerGroup(r.history.Setting.Group),
		kgo.ConsumeTopics(r.history.Setting.Topics...),
		kgo.SessionTimeout(groupSession),
		kgo.RebalanceTimeout(rebalancePatience),
		kgo.HeartbeatInterval(200 * time.Millisecond),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
		kgo.AdjustFetchOffsetsFn(func(_ context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
			r.noteAssigned(name, offsets)
			return offsets, nil
		}),
	})...)
	if err != nil {
		r.add(&Entry{Kind: kindTrouble, Client: name, Text: err.Error()})
		return
	}
	for ctx.Err() == nil {
		fetches := client.PollFetches(ctx)
		r.notePolls(kindPoll, name, r.history.Setting.Group, fetches)
		r.commit(client, name, fetches)
		client.AllowRebalance()
	}
	client.CloseAllowingRebalance()
}

// noteAssigned enters where a member goes on: at the committed offset, or at the start.
func (r *Run) noteAssigned(name string, offsets map[string]map[int32]kgo.Offset) {
	for topic, partitions := range offsets {
		for partition, offset := range partitions {
			at := max(0, offset.EpochOffset().Offset)
			r.add(&Entry{Kind: kindPosition, Client: name, Group: r.history.Setting.Group, Partition: partitionName(topic, partition), Offset: at})
			r.progress.reached(r.history.Setting.Group, partitionName(topic, partition), at)
		}
	}
}

// commit commits what a poll brought.
func (r *Run) commit(client *kgo.Client, name string, fetches kgo.Fetches) {
	records := fetches.Records()
	if len(records) == 0 {
		return
	}
	var entries []*Entry
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if n := len(p.Records); n > 0 {
			entries = append(entries, r.add(&Entry{
				Kind: kindCommit, Client: name, Group: r.history.Setting.Group, Outcome: outcomeOpen,
				Partition: partitionName(p.Topic, p.Partition), Offset: p.Records[n-1].Offset + 1,
			}))
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), commitPatience)
	defer cancel()
	err := client.CommitRecords(ctx, records...)
	now := r.clock.Now()
	r.finish(func() {
		for _, e := range entries {
			if err == nil {
				e.Return, e.Outcome = now, outcomeOK
			} else {
				e.Text = err.Error()
			}
		}
	})
}

// watchCommitted asks again and again for the group's offsets, like a tool would.
func (r *Run) watchCommitted(ctx context.Context) {
	client, err := kgo.NewClient(append(r.common("committed"), atMost39())...)
	if err != nil {
		return
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	for ctx.Err() == nil {
		r.askCommitted(ctx, admin)
		select {
		case <-ctx.Done():
		case <-time.After(committedEvery):
		}
	}
}

func (r *Run) askCommitted(ctx context.Context, admin *kadm.Client) {
	ctx, cancel := context.WithTimeout(ctx, commitPatience)
	defer cancel()
	at := r.clock.Now()
	offsets, err := admin.FetchOffsets(ctx, r.history.Setting.Group)
	now := r.clock.Now()
	if err != nil {
		return
	}
	for _, offset := range offsets.Sorted() {
		if offset.Err == nil && offset.At >= 0 {
			r.add(&Entry{
				Kind: kindCommitted, Client: r.prefix + "onlooker", At: at, Return: now,
				Group: r.history.Setting.Group, Partition: partitionName(offset.Topic, offset.Partition), Offset: offset.At,
			})
		}
	}
}
