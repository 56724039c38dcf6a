package trial

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// ReadBack reads partitions anew, from their first record to what was their end when it was
// called, with a client of its own that has seen nothing yet, and enters every reading in the
// ledger. Offsets must be without a hole: the load's topic is neither compacted nor
// transactional. Without partitions it reads all of them. It may be called after Finish.
func (l *Load) ReadBack(ctx context.Context, partitions ...int32) (records int, err error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(l.config.Bootstrap...), kgo.ClientID("trial-readback"),
		kgo.RetryTimeout(l.config.Patience*5), kgo.RequestTimeoutOverhead(l.config.Patience),
		kgo.MetadataMinAge(retryEvery), kgo.FetchMaxWait(l.config.Patience/4))
	if err != nil {
		return 0, err
	}
	defer client.Close()
	ends, err := l.ends(ctx, kadm.NewClient(client), partitions)
	if err != nil {
		return 0, err
	}
	next := map[int32]int64{}
	from := map[int32]kgo.Offset{}
	for partition, end := range ends {
		if end > 0 {
			next[partition], from[partition] = 0, kgo.NewOffset().At(0)
		}
	}
	if len(from) == 0 {
		return 0, nil
	}
	client.AddConsumePartitions(map[string]map[int32]kgo.Offset{l.config.Topic: from})
	var complaint error // the last one, for the message: the client tries again by itself
	for len(next) > 0 {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return records, fmt.Errorf("read %s back: still at %v of %v: %w", l.config.Topic, next, ends, errors.Join(ctx.Err(), complaint))
		}
		fetches.EachError(func(_ string, partition int32, err error) { complaint = fmt.Errorf("partition %d: %w", partition, err) })
		fetches.EachRecord(func(record *kgo.Record) {
			expected, reading := next[record.Partition]
			if !reading {
				return
			}
			if record.Offset != expected && err == nil {
				err = fmt.Errorf("read %s back: partition %d goes on at offset %d after %d", l.config.Topic, record.Partition, record.Offset, expected-1)
			}
			l.ledger.Read(numberOf(record), record.Value, record.Partition, record.Offset)
			records++
			if next[record.Partition] = record.Offset + 1; record.Offset+1 >= ends[record.Partition] {
				delete(next, record.Partition)
			}
		})
		if err != nil {
			return records, err
		}
	}
	return records, nil
}

// ends asks for the partitions' high watermarks.
func (l *Load) ends(ctx context.Context, admin *kadm.Client, partitions []int32) (map[int32]int64, error) {
	if len(partitions) == 0 {
		for partition := range l.config.Partitions {
			partitions = append(partitions, partition)
		}
	}
	listed, err := admin.ListEndOffsets(ctx, l.config.Topic)
	if err != nil {
		return nil, fmt.Errorf("ask for the end of %s: %w", l.config.Topic, err)
	}
	ends := map[int32]int64{}
	for _, partition := range partitions {
		end, ok := listed.Lookup(l.config.Topic, partition)
		if !ok || end.Err != nil {
			return nil, fmt.Errorf("ask for the end of %s-%d: %w", l.config.Topic, partition, end.Err)
		}
		ends[partition] = end.Offset
	}
	return ends, nil
}

// numberOf is a record's number in the ledger, -1 if it has none.
func numberOf(record *kgo.Record) int {
	for _, header := range record.Headers {
		if header.Key == numberHeader && len(header.Value) == 8 {
			return int(binary.BigEndian.Uint64(header.Value))
		}
	}
	return -1
}
