package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/trial"
)

// sender sends one record; how it waits for the answer is its own affair.
type sender interface {
	send(ctx context.Context, topic string, partition int32)
}

// produce has a sender send to partitions at random, at about the pace of the options.
func (r *Run) produce(ctx context.Context, s sender, random *rand.Rand) {
	for ctx.Err() == nil {
		topic := r.history.Setting.Topics[random.IntN(len(r.history.Setting.Topics))]
		s.send(ctx, topic, random.Int32N(int32(r.history.Setting.Partitions)))
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(random.Int64N(2*int64(r.options.Every) + 1))):
		}
	}
}

// begin enters a record about to be sent.
func (r *Run) begin(client, topic string, partition int32, ordered bool) *Entry {
	e := &Entry{Kind: kindSend, Client: client, Partition: partitionName(topic, partition), Outcome: outcomeOpen, Ordered: ordered}
	r.add(e)
	r.finish(func() { e.Value = fmt.Sprintf("%s/%d", client, e.N) })
	return e
}

// idempotent is a producer that retries as long as it takes.
type idempotent struct {
	run    *Run
	name   string
	client *kgo.Client
}

// bufferedMax bounds what an idempotent producer holds through an outage.
const bufferedMax = 500

func (r *Run) newIdempotent(name string) (*idempotent, error) {
	name = r.prefix + name
	client, err := kgo.NewClient(append(r.common("producer"),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(0),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProduceRequestTimeout(5*time.Second),
		kgo.UnknownTopicRetries(-1),
		kgo.RetryTimeout(math.MaxInt64),
	)...)
	return &idempotent{r, name, client}, err
}

func (p *idempotent) send(ctx context.Context, topic string, partition int32) {
	if p.client.BufferedProduceRecords() >= bufferedMax {
		return // the cluster is away; what it owes answers for is enough
	}
	e := p.run.begin(p.name, topic, partition, true)
	record := &kgo.Record{Topic: topic, Partition: partition, Value: pack(e.Value, p.run.options.RecordBytes)}
	p.client.Produce(context.WithoutCancel(ctx), record, func(record *kgo.Record, err error) {
		now := p.run.clock.Now()
		p.run.finish(func() {
			if err != nil {
				e.Text = err.Error()
				return
			}
			e.Return, e.Outcome, e.Offset = now, outcomeOK, record.Offset
		})
	})
}

// single sends each record in a request of its own and exactly once, and waits for the answer
// before the next.
type single struct {
	run     *Run
	name    string
	client  *kgo.Client
	admin   *kadm.Client
	leaders map[string]int32 // by partition; forgotten when it does not answer well
}

// singlePatience bounds the wait for one answer.
const singlePatience = 3 * time.Second

func (r *Run) newSingle(name string) (*single, error) {
	client, err := kgo.NewClient(append(r.common("single"), atMost39())...)
	if err != nil {
		return nil, err
	}
	return &single{r, r.prefix + name, client, kadm.NewClient(client), map[string]int32{}}, nil
}

func (p *single) send(ctx context.Context, topic string, partition int32) {
	asking, cancel := context.WithTimeout(ctx, singlePatience)
	defer cancel()
	leader, known := p.leaderOf(asking, topic, partition)
	if !known {
		return
	}
	// Not ordered: a record that was given up may still arrive, behind the next.
	e := p.run.begin(p.name, topic, partition, false)
	sending, stop := context.WithTimeout(context.WithoutCancel(ctx), singlePatience)
	defer stop()
	offset, err := p.produce(sending, leader, topic, partition, pack(e.Value, p.run.options.RecordBytes))
	now := p.run.clock.Now()
	if err != nil {
		delete(p.leaders, partitionName(topic, partition))
	}
	p.run.finish(func() {
		switch {
		case err == nil:
			e.Return, e.Outcome, e.Offset = now, outcomeOK, offset
		case refused(err):
			e.Return, e.Outcome, e.Text = now, outcomeRefused, err.Error()
		default:
			e.Text = err.Error()
		}
	})
}

// refused reports whether an error says that a record was not written and will not be.
func refused(err error) bool {
	for _, certain := range []error{
		kerr.NotEnoughReplicas, kerr.MessageTooLarge, kerr.CorruptMessage, kerr.InvalidRecord, kerr.UnknownTopicOrPartition,
		kerr.InvalidTopicException, kerr.RecordListTooLarge, kerr.TopicAuthorizationFailed,
	} {
		if errors.Is(err, certain) {
			return true
		}
	}
	return false
}

func (p *single) leaderOf(ctx context.Context, topic string, partition int32) (int32, bool) {
	name := partitionName(topic, partition)
	if leader, known := p.leaders[name]; known {
		return leader, true
	}
	metadata, err := p.admin.Metadata(ctx, topic)
	if err != nil {
		return 0, false
	}
	detail, known := metadata.Topics[topic].Partitions[partition]
	if !known || detail.Leader < 0 {
		return 0, false
	}
	p.leaders[name] = detail.Leader
	return detail.Leader, true
}

// produce makes one Produce request of one record, acks=all.
func (p *single) produce(ctx context.Context, leader int32, topic string, partition int32, value []byte) (int64, error) {
	request := kmsg.NewPtrProduceRequest()
	request.Acks, request.TimeoutMillis = -1, int32(singlePatience.Milliseconds())
	part := kmsg.NewProduceRequestTopicPartition()
	part.Partition, part.Records = partition, trial.OneRecord(value)
	requested := kmsg.NewProduceRequestTopic()
	requested.Topic, requested.Partitions = topic, []kmsg.ProduceRequestTopicPartition{part}
	request.Topics = []kmsg.ProduceRequestTopic{requested}
	answer, err := p.client.Broker(int(leader)).Request(ctx, request)
	if err != nil {
		return 0, err
	}
	for _, topic := range answer.(*kmsg.ProduceResponse).Topics {
		for _, part := range topic.Partitions {
			return part.BaseOffset, kerr.ErrorForCode(part.ErrorCode)
		}
	}
	return 0, errors.New("the answer names no partition")
}
