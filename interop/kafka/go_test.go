package kafka

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func seeds() []string { return strings.Split(bootstrap(), ",") }

func TestFranzGo(t *testing.T) {
	ctx, topic, count := limited(t), topicName(t), 5000
	client, err := kgo.NewClient(kgo.SeedBrokers(seeds()...), kgo.DefaultProduceTopic(topic),
		kgo.ConsumerGroup(topic+"-group"), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(), kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	if created, err := admin.CreateTopic(ctx, 6, 3, nil, topic); err != nil || created.Err != nil {
		t.Fatalf("create the topic: %v, %v", err, created.Err)
	}
	var records []*kgo.Record
	for i := range count {
		records = append(records, &kgo.Record{Key: fmt.Appendf(nil, "k%d", i%100), Value: fmt.Appendf(nil, "line %d", i)})
	}
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for len(seen) < count {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("after %d of %d records: %v", len(seen), count, err)
		}
		fetches.EachRecord(func(record *kgo.Record) { seen[string(record.Value)] = true })
	}
	if err := client.CommitUncommittedOffsets(ctx); err != nil {
		t.Fatal(err)
	}
	lag, err := admin.Lag(ctx, topic+"-group")
	if err != nil || lag.Error() != nil {
		t.Fatal(err, lag.Error())
	}
	if total := lag[topic+"-group"].Lag.Total(); total != 0 {
		t.Errorf("the group lags by %d after its commit", total)
	}
}

func TestSarama(t *testing.T) {
	ctx, topic, count := limited(t), topicName(t), 2000
	config := sarama.NewConfig()
	config.Version = sarama.V3_6_0_0
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Idempotent = true
	config.Net.MaxOpenRequests = 1
	config.Producer.Return.Successes = true
	config.Producer.Compression = sarama.CompressionSnappy
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	admin, err := sarama.NewClusterAdmin(seeds(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if err := admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: 3, ReplicationFactor: 3}, false); err != nil {
		t.Fatal(err)
	}
	producer, err := sarama.NewSyncProducer(seeds(), config)
	if err != nil {
		t.Fatal(err)
	}
	var messages []*sarama.ProducerMessage
	for i := range count {
		messages = append(messages, &sarama.ProducerMessage{Topic: topic, Value: sarama.StringEncoder(fmt.Sprintf("line %d", i))})
	}
	if err := producer.SendMessages(messages); err != nil {
		t.Fatal(err)
	}
	if err := producer.Close(); err != nil {
		t.Fatal(err)
	}
	group, err := sarama.NewConsumerGroup(seeds(), topic+"-group", config)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	reader := &saramaReader{seen: map[string]bool{}, want: count}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	reader.done = cancel
	for ctx.Err() == nil {
		if err := group.Consume(ctx, []string{topic}, reader); err != nil {
			t.Fatal(err)
		}
	}
	if len(reader.seen) != count {
		t.Fatalf("read %d of %d records", len(reader.seen), count)
	}
}

// saramaReader collects values until it has enough.
type saramaReader struct {
	mu   sync.Mutex
	seen map[string]bool
	want int
	done func()
}

func (r *saramaReader) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (r *saramaReader) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (r *saramaReader) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, ok := <-claim.Messages():
			if !ok {
				return nil
			}
			session.MarkMessage(message, "")
			r.mu.Lock()
			r.seen[string(message.Value)] = true
			if len(r.seen) == r.want {
				r.done()
			}
			r.mu.Unlock()
		case <-session.Context().Done():
			return nil
		}
	}
}

func TestKafkaGo(t *testing.T) {
	ctx, topic, count := limited(t), topicName(t), 1000
	client := &kafka.Client{Addr: kafka.TCP(seeds()...)}
	created, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: 2, ReplicationFactor: 3}}})
	if err != nil || created.Errors[topic] != nil {
		t.Fatal(err, created)
	}
	writer := &kafka.Writer{Addr: kafka.TCP(seeds()...), Topic: topic, RequiredAcks: kafka.RequireAll, BatchTimeout: 5 * time.Millisecond}
	var messages []kafka.Message
	for i := range count {
		messages = append(messages, kafka.Message{Value: fmt.Appendf(nil, "line %d", i)})
	}
	if err := writer.WriteMessages(ctx, messages...); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: seeds(), Topic: topic, GroupID: topic + "-group", StartOffset: kafka.FirstOffset, MaxWait: 100 * time.Millisecond})
	defer reader.Close()
	seen := map[string]bool{}
	for len(seen) < count {
		message, err := reader.ReadMessage(ctx)
		if err != nil {
			t.Fatalf("after %d of %d records: %v", len(seen), count, err)
		}
		seen[string(message.Value)] = true
	}
}
