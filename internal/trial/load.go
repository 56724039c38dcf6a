package trial

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// numberHeader carries a record's number in the ledger, 8 bytes big-endian.
const numberHeader = "trial-number"

// retryEvery is how often the trial's clients try again: the pace that the targets are stated for.
const retryEvery = 10 * time.Millisecond

// LoadConfig describes the load.
type LoadConfig struct {
	Bootstrap  []string
	Topic      string
	Partitions int32
	// Replicas and MinInsync apply when the load creates the topic: when it is missing.
	Replicas  int16
	MinInsync int
	// Every is the pause between rounds; a round sends one record to each partition.
	Every time.Duration
	// Next yields the values to send; it is called by one goroutine and ends the production
	// by returning io.EOF. nil generates small numbered lines for ever.
	Next func() ([]byte, error)
	// Group is the consumer group; "" means "trial".
	Group string
	// Patience is how long the clients wait for an answer beyond what the request itself
	// asks for; 0 means 2 s.
	Patience time.Duration
	// BatchBytes bounds the producer's batches; 0 leaves the client's default.
	BatchBytes int32
	// Logger receives what the clients complain of; nil drops it.
	Logger *slog.Logger
	// ProducerLogger receives what the producer's client says of itself; nil drops it.
	ProducerLogger kgo.Logger
}

// Load is a running producer and consumer.
type Load struct {
	config       LoadConfig
	ledger       *Ledger
	producer     *kgo.Client
	consumer     *kgo.Client
	admin        *kadm.Client
	marks        *marks
	stopProducer context.CancelFunc
	stopConsumer context.CancelFunc
	producing    sync.WaitGroup
	consuming    sync.WaitGroup
	failed       atomic.Pointer[error]
	finished     chan struct{} // closed when Next returned io.EOF
}

// StartLoad creates the topic if it is missing and starts producing to and consuming from it.
func StartLoad(ctx context.Context, config LoadConfig) (*Load, error) {
	if config.Group == "" {
		config.Group = "trial"
	}
	if config.Next == nil {
		config.Next = generated()
	}
	if config.Patience == 0 {
		config.Patience = 2 * time.Second
	}
	l := &Load{config: config, ledger: NewLedger(), marks: newMarks(config.Partitions), finished: make(chan struct{})}
	if err := l.connect(); err != nil {
		return nil, err
	}
	if err := l.createTopic(ctx); err != nil {
		l.closeClients()
		return nil, err
	}
	l.consumer.AddConsumeTopics(config.Topic)
	producing, stopProducer := context.WithCancel(context.WithoutCancel(ctx))
	consuming, stopConsumer := context.WithCancel(context.WithoutCancel(ctx))
	l.stopProducer, l.stopConsumer = stopProducer, stopConsumer
	l.producing.Go(func() { l.produce(producing) })
	l.consuming.Go(func() { l.consume(consuming) })
	return l, nil
}

func generated() func() ([]byte, error) {
	n := 0
	return func() ([]byte, error) {
		n++
		return fmt.Appendf(nil, "the show goes on, verse %d", n), nil
	}
}

func (l *Load) connect() error {
	common := []kgo.Opt{
		kgo.SeedBrokers(l.config.Bootstrap...),
		kgo.RetryBackoffFn(func(int) time.Duration { return retryEvery }),
		kgo.MetadataMinAge(retryEvery),
		kgo.RequestRetries(math.MaxInt32),
		kgo.RetryTimeout(10 * time.Minute),
		kgo.DialTimeout(time.Second),
		kgo.RequestTimeoutOverhead(l.config.Patience),
	}
	var err error
	producing := slices.Clip(common)
	if l.config.ProducerLogger != nil {
		producing = append(producing, kgo.WithLogger(l.config.ProducerLogger))
	}
	if l.config.BatchBytes > 0 {
		producing = append(producing, kgo.ProducerBatchMaxBytes(l.config.BatchBytes))
	}
	l.producer, err = kgo.NewClient(append(producing,
		kgo.ClientID("trial-producer"),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(0),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RecordRetries(math.MaxInt32),
		kgo.ProduceRequestTimeout(l.config.Patience*5/2),
		kgo.UnknownTopicRetries(-1),
		kgo.MaxBufferedRecords(1<<20),
	)...)
	if err != nil {
		return err
	}
	l.consumer, err = kgo.NewClient(append(slices.Clip(common),
		kgo.ClientID("trial-consumer"),
		kgo.ConsumerGroup(l.config.Group),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxWait(500*time.Millisecond),
		kgo.AutoCommitInterval(time.Second),
	)...)
	if err != nil {
		l.producer.Close()
		return err
	}
	l.admin = kadm.NewClient(l.producer)
	return nil
}

func (l *Load) createTopic(ctx context.Context) error {
	configs := map[string]*string{}
	if l.config.MinInsync > 0 {
		configs["min.insync.replicas"] = kadm.StringPtr(fmt.Sprint(l.config.MinInsync))
	}
	created, err := l.admin.CreateTopic(ctx, l.config.Partitions, l.config.Replicas, configs, l.config.Topic)
	if err == nil {
		err = created.Err
	}
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("create topic %s: %w", l.config.Topic, err)
	}
	return nil
}

// produce sends a round of records at each tick until the values end or the load is stopped.
func (l *Load) produce(ctx context.Context) {
	ticker := time.NewTicker(max(l.config.Every, time.Microsecond))
	defer ticker.Stop()
	for {
		for partition := range l.config.Partitions {
			value, err := l.config.Next()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					l.fail(fmt.Errorf("read the input: %w", err))
				}
				close(l.finished)
				return
			}
			l.send(ctx, partition, value)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (l *Load) send(ctx context.Context, partition int32, value []byte) {
	number := l.ledger.Send(value)
	record := &kgo.Record{
		Topic: l.config.Topic, Partition: partition, Value: value,
		Headers: []kgo.RecordHeader{{Key: numberHeader, Value: binary.BigEndian.AppendUint64(nil, uint64(number))}},
	}
	// Produce, not TryProduce: when the buffer is full the load waits with the cluster.
	sent := time.Now()
	l.producer.Produce(context.WithoutCancel(ctx), record, func(record *kgo.Record, err error) {
		if err != nil {
			l.fail(fmt.Errorf("record %d to partition %d: %w", number, partition, err))
			return
		}
		l.marks.acknowledged(partition, sent, time.Now())
		l.ledger.Acknowledge(number, record.Partition, record.Offset)
	})
}

func (l *Load) consume(ctx context.Context) {
	for ctx.Err() == nil {
		fetches := l.consumer.PollFetches(ctx)
		fetches.EachError(func(topic string, partition int32, err error) {
			if ctx.Err() == nil && l.config.Logger != nil {
				l.config.Logger.Warn("consumer", "topic", topic, "partition", partition, "error", err)
			}
		})
		fetches.EachRecord(func(record *kgo.Record) {
			l.ledger.Read(numberOf(record), record.Value, record.Partition, record.Offset)
		})
	}
}

func (l *Load) fail(err error) {
	if l.config.Logger != nil {
		l.config.Logger.Error("load failed", "error", err)
	}
	l.failed.CompareAndSwap(nil, &err)
}

// Err is the first thing that went wrong with the load itself, if any: a record that the
// producer gave up, or input that could not be read.
func (l *Load) Err() error {
	if err := l.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// Partitions are all that the load writes to.
func (l *Load) Partitions() []int32 {
	all := make([]int32, l.config.Partitions)
	for i := range all {
		all[i] = int32(i)
	}
	return all
}

// Ledger is the running account.
func (l *Load) Ledger() *Ledger { return l.ledger }

// Admin is a client for questions about the cluster.
func (l *Load) Admin() *kadm.Client { return l.admin }

// Finished is closed when the input has ended.
func (l *Load) Finished() <-chan struct{} { return l.finished }

// Finish stops producing, waits until everything sent is acknowledged and everything
// acknowledged is read, or the context ends, closes the clients and returns the account.
func (l *Load) Finish(ctx context.Context) (Account, error) {
	defer l.closeClients()
	l.stopProducer()
	l.producing.Wait()
	flushed := l.producer.Flush(ctx)
	for l.ledger.Outstanding() > 0 {
		select {
		case <-ctx.Done():
			l.endConsumer()
			return l.ledger.Account(), errors.Join(l.Err(), flushed)
		case <-time.After(retryEvery):
		}
	}
	l.endConsumer()
	return l.ledger.Account(), errors.Join(l.Err(), flushed)
}

func (l *Load) endConsumer() {
	l.stopConsumer()
	l.consuming.Wait()
}

func (l *Load) closeClients() {
	l.producer.Close()
	l.consumer.CloseAllowingRebalance()
}
