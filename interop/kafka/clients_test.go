package kafka

import (
	"bytes"
	"context"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
)

// produceLines writes each line as a record, acks=all.
func produceLines(t *testing.T, ctx context.Context, addr, topic string, text []byte) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DefaultProduceTopic(topic), kgo.AllowAutoTopicCreation())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var records []*kgo.Record
	for line := range bytes.Lines(text) {
		records = append(records, &kgo.Record{Value: bytes.TrimRight(line, "\n")})
	}
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// consumeLines reads count records from the beginning, as lines.
func consumeLines(t *testing.T, ctx context.Context, addr, topic string, count int) []byte {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var text bytes.Buffer
	for read := 0; read < count; {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("read %d of %d records: %v", read, count, ctx.Err())
		}
		fetches.EachRecord(func(record *kgo.Record) {
			text.Write(record.Value)
			text.WriteByte('\n')
			read++
		})
	}
	return text.Bytes()
}

func createTopic(t *testing.T, ctx context.Context, client *kgo.Client, topic string, partitions int32, replicas int16) {
	t.Helper()
	created, err := kadm.NewClient(client).CreateTopic(ctx, partitions, replicas, nil, topic)
	if err != nil || created.Err != nil {
		t.Fatalf("create %s: %v, %v", topic, err, created.Err)
	}
}

// kafka39 keeps requests at versions that name topics, not topic ids.
func kafka39() *kversion.Versions { return kversion.V3_9_0() }
