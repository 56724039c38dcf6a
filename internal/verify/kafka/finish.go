package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Finish settles the history: the last records, the reading of everything, and the consumers'
// coming to the end. What could not be done leaves no trace in the history, so nothing is
// concluded from it; the error says what that was.
func (r *Run) Finish(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.options.Settle)
	defer cancel()
	r.options.Say("sending a last record to each partition")
	ends, err := r.sendLast(ctx)
	if err != nil {
		return err
	}
	r.options.Say("reading everything back")
	if err := r.readBack(ctx, ends); err != nil {
		return err
	}
	r.awaitConsumers(ctx, ends)
	return nil
}

// sendLast sends one record to each partition and returns the offsets past them. All that was
// acknowledged before stands below, and all below is committed.
func (r *Run) sendLast(ctx context.Context) (map[string]int64, error) {
	p, err := r.newIdempotent("last")
	if err != nil {
		return nil, err
	}
	defer p.client.Close()
	r.partitions(func(topic string, partition int32) { p.send(ctx, topic, partition) })
	if err := p.client.Flush(ctx); err != nil {
		return nil, fmt.Errorf("not every partition acknowledges within %v, the cluster is not well: %w", r.options.Settle, err)
	}
	ends := map[string]int64{}
	for _, e := range r.taken() {
		if e.Client == p.name && e.Outcome == outcomeOK {
			ends[e.Partition] = e.Offset + 1
		} else if e.Client == p.name {
			return nil, fmt.Errorf("the last record of %s was refused: %s", e.Partition, e.Text)
		}
	}
	return ends, nil
}

// readBack reads each partition from its start to its end with a client of its own.
func (r *Run) readBack(ctx context.Context, ends map[string]int64) error {
	starts, err := r.admin.ListStartOffsets(ctx, r.history.Setting.Topics...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return fmt.Errorf("ask for the partitions' first offsets: %w", err)
	}
	var wait sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	r.partitions(func(topic string, partition int32) {
		start, known := starts.Lookup(topic, partition)
		wait.Go(func() {
			err := fmt.Errorf("%s is not known", partitionName(topic, partition))
			if known {
				err = r.readPartition(ctx, topic, partition, start.Offset, ends[partitionName(topic, partition)])
			}
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	})
	wait.Wait()
	return errors.Join(errs...)
}

func (r *Run) readPartition(ctx context.Context, topic string, partition int32, start, end int64) error {
	name := r.prefix + "readback"
	client, err := kgo.NewClient(slices.Concat(r.common("readback"), r.fromStart(), []kgo.Opt{
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(start)}}),
	})...)
	if err != nil {
		return err
	}
	defer client.Close()
	for next := start; next < end; {
		fetches := client.PollFetches(ctx)
		r.notePolls(kindReadback, name, "", fetches)
		if ctx.Err() != nil {
			return fmt.Errorf("%s could be read back only to offset %d of %d within %v", partitionName(topic, partition), next, end, r.options.Settle)
		}
		fetches.EachRecord(func(record *kgo.Record) { next = max(next, record.Offset+1) })
	}
	r.add(&Entry{Kind: kindWhole, Client: name, Partition: partitionName(topic, partition), Start: start, Offset: end})
	return nil
}

// awaitConsumers waits until every consumer has come to the ends, and enters where they stand.
func (r *Run) awaitConsumers(ctx context.Context, ends map[string]int64) {
	for r.progress.behind(ends) != "" && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(retryEvery):
		}
	}
	if behind := r.progress.behind(ends); behind != "" {
		r.options.Say("after %v, %s", r.options.Settle, behind)
	}
	r.progress.mu.Lock()
	defer r.progress.mu.Unlock()
	for _, consumer := range slices.Sorted(maps.Keys(r.progress.consumers)) {
		for _, partition := range slices.Sorted(maps.Keys(ends)) {
			r.add(&Entry{Kind: kindEnd, Client: consumer, Partition: partition, Offset: r.progress.consumers[consumer][partition]})
		}
	}
}
