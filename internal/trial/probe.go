package trial

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// probePatience is how long a probe waits for one answer before it asks elsewhere.
const probePatience = 50 * time.Millisecond

// Probe sends one record after the other to each of a topic's partitions, one at a time, and
// tries again every 10 ms: after each failure it asks the next broker who leads. It sees when
// a partition can be written to again, free of the strategies of a full client, which stays
// with a server that hangs for longer than the server is missed. Its records are not part of
// a ledger.
type Probe struct {
	topic  string
	client *kgo.Client
	admin  *kgo.Client // for questions that may take their time
	ids    []int32
	marks  *marks
	stop   context.CancelFunc
	done   sync.WaitGroup
}

// StartProbe creates the topic if it is missing, with all of the brokers as replicas of each
// partition.
func StartProbe(ctx context.Context, bootstrap []string, topic string, partitions int32) (*Probe, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap...), kgo.ClientID("trial-probe"),
		kgo.RequestRetries(0), kgo.DialTimeout(probePatience), kgo.RequestTimeoutOverhead(2*probePatience))
	if err != nil {
		return nil, err
	}
	patient, err := kgo.NewClient(kgo.SeedBrokers(bootstrap...), kgo.ClientID("trial-probe-admin"), kgo.MetadataMinAge(retryEvery))
	if err != nil {
		client.Close()
		return nil, err
	}
	p := &Probe{topic: topic, client: client, admin: patient, marks: newMarks(partitions)}
	created, err := kadm.NewClient(patient).CreateTopic(ctx, partitions, int16(len(bootstrap)), map[string]*string{"min.insync.replicas": kadm.StringPtr("2")}, topic)
	if err == nil {
		err = created.Err
	}
	if err == nil || errors.Is(err, kerr.TopicAlreadyExists) {
		err = p.meetBrokers(ctx)
	}
	if err != nil {
		client.Close()
		patient.Close()
		return nil, fmt.Errorf("start the probe on %s: %w", topic, err)
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p.stop = cancel
	for partition := range partitions {
		p.done.Go(func() { p.run(running, partition) })
	}
	return p, nil
}

// meetBrokers has the probing client learn the brokers, however slow they are just now.
func (p *Probe) meetBrokers(ctx context.Context) error {
	for {
		brokers, err := kadm.NewClient(p.client).BrokerMetadata(ctx)
		if err == nil {
			p.ids = brokers.Brokers.NodeIDs()
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(retryEvery):
		}
	}
}

// Close ends the probe.
func (p *Probe) Close() {
	p.stop()
	p.done.Wait()
	p.client.Close()
	p.admin.Close()
}

func (p *Probe) run(ctx context.Context, partition int32) {
	leader, ask := p.ids[0], int(partition)
	for ctx.Err() == nil {
		sent := time.Now()
		if err := p.produce(ctx, leader, partition); err == nil {
			p.marks.acknowledged(partition, sent, time.Now())
		} else {
			ask++
			if known, err := p.leaderOf(ctx, p.ids[ask%len(p.ids)], partition); err == nil && known >= 0 {
				leader = known
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryEvery):
		}
	}
}

func (p *Probe) produce(ctx context.Context, leader, partition int32) error {
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	request := kmsg.NewPtrProduceRequest()
	request.Acks, request.TimeoutMillis = -1, int32(probePatience.Milliseconds())
	part := kmsg.NewProduceRequestTopicPartition()
	part.Partition, part.Records = partition, OneRecord([]byte("probe"))
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic, topic.Partitions = p.topic, []kmsg.ProduceRequestTopicPartition{part}
	request.Topics = []kmsg.ProduceRequestTopic{topic}
	answer, err := p.client.Broker(int(leader)).Request(ctx, request)
	if err != nil {
		return err
	}
	for _, topic := range answer.(*kmsg.ProduceResponse).Topics {
		for _, part := range topic.Partitions {
			return kerr.ErrorForCode(part.ErrorCode)
		}
	}
	return fmt.Errorf("the answer names no partition")
}

// leaderOf asks one broker who leads a partition.
func (p *Probe) leaderOf(ctx context.Context, broker, partition int32) (int32, error) {
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	request := kmsg.NewPtrMetadataRequest()
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = &p.topic
	request.Topics = []kmsg.MetadataRequestTopic{topic}
	answer, err := p.client.Broker(int(broker)).Request(ctx, request)
	if err != nil {
		return -1, err
	}
	for _, topic := range answer.(*kmsg.MetadataResponse).Topics {
		for _, part := range topic.Partitions {
			if part.Partition == partition {
				return part.Leader, kerr.ErrorForCode(part.ErrorCode)
			}
		}
	}
	return -1, fmt.Errorf("broker %d does not know partition %d", broker, partition)
}

// AwaitLedBy waits until a broker leads some of the probed partitions, and returns them.
func (p *Probe) AwaitLedBy(ctx context.Context, broker int32) ([]int32, error) {
	return awaitLedBy(ctx, kadm.NewClient(p.admin), p.topic, broker)
}

func awaitLedBy(ctx context.Context, admin *kadm.Client, topic string, broker int32) ([]int32, error) {
	for {
		metadata, err := admin.Metadata(ctx, topic)
		if err != nil {
			return nil, err
		}
		var led []int32
		for _, partition := range metadata.Topics[topic].Partitions.Sorted() {
			if partition.Leader == broker {
				led = append(led, partition.Partition)
			}
		}
		if len(led) > 0 {
			return led, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("broker %d leads no partition of %s: %w", broker, topic, ctx.Err())
		case <-time.After(retryEvery):
		}
	}
}

// Strike applies a fault and returns the longest time without an acknowledgement of any of
// the partitions.
func (p *Probe) Strike(ctx context.Context, name string, partitions []int32, fault Fault) (Outcome, error) {
	return strike(ctx, p.marks, name, partitions, fault)
}

// OneRecord builds a record batch of format 2 with one record, from no idempotent producer.
func OneRecord(value []byte) []byte {
	record := kmsg.Record{Value: value}
	record.Length = int32(len(record.AppendTo(nil)) - 1)
	now := time.Now().UnixMilli()
	batch := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1,
		FirstTimestamp: now, MaxTimestamp: now, NumRecords: 1, Records: record.AppendTo(nil),
	}
	raw := batch.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return raw
}
