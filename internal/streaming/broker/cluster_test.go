package broker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/metadata"
	"understudy/internal/streaming/record"
)

// consume reads a topic from the start until count records have come.
func consume(t *testing.T, client *kgo.Client, count int) []*kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var records []*kgo.Record
	for len(records) < count {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%d of %d records came", len(records), count)
		}
		fetches.EachError(func(topic string, partition int32, err error) { t.Logf("%s-%d: %v", topic, partition, err) })
		records = append(records, fetches.Records()...)
	}
	return records
}

func TestProduceAndConsume(t *testing.T) {
	c := newTestCluster(t, 1, nil)
	for _, test := range []struct {
		name  string
		codec kgo.CompressionCodec
		size  int // of a value
		count int
	}{
		{"small", kgo.NoCompression(), 10, 1000},
		{"sendfile", kgo.NoCompression(), 100_000, 100},
		{"gzip", kgo.GzipCompression(), 1000, 1000},
		{"snappy", kgo.SnappyCompression(), 1000, 1000},
		{"lz4", kgo.Lz4Compression(), 1000, 1000},
		{"zstd", kgo.ZstdCompression(), 1000, 1000},
	} {
		t.Run(test.name, func(t *testing.T) {
			producer := c.client(kgo.DefaultProduceTopic(test.name), kgo.ProducerBatchCompression(test.codec))
			value := func(i int) string { return fmt.Sprintf("%d %s", i, strings.Repeat("x", test.size)) }
			for i := range test.count {
				producer.Produce(t.Context(), kgo.StringRecord(value(i)), func(_ *kgo.Record, err error) {
					if err != nil {
						t.Errorf("record %d: %v", i, err)
					}
				})
			}
			if err := producer.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			consumer := c.client(kgo.ConsumeTopics(test.name), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
			for i, record := range consume(t, consumer, test.count) {
				if record.Offset != int64(i) || string(record.Value) != value(i) {
					t.Fatalf("record %d has offset %d and %d bytes", i, record.Offset, len(record.Value))
				}
			}
		})
	}
}

// Every version of a request that is advertised is answered.
func TestEveryVersionIsAnswered(t *testing.T) {
	c := newTestCluster(t, 1, nil)
	c.createTopic("versions", 1, 1, nil)
	client := c.client()
	id := c.brokers[1].metadata.Image().TopicID("versions")
	ask := func(request kmsg.Request, version int16) kmsg.Response {
		t.Helper()
		request.SetVersion(version)
		response, err := client.Broker(1).Request(t.Context(), pinned{request})
		if err != nil {
			t.Fatalf("%s version %d: %v", kmsg.NameForKey(request.Key()), version, err)
		}
		return response
	}
	for version := int16(0); version <= 12; version++ {
		request := kmsg.NewPtrMetadataRequest()
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = kmsg.StringPtr("versions")
		request.Topics = append(request.Topics, topic)
		got := ask(request, version).(*kmsg.MetadataResponse)
		if len(got.Topics) != 1 || got.Topics[0].ErrorCode != 0 || len(got.Topics[0].Partitions) != 1 || got.Topics[0].Partitions[0].Leader != 1 {
			t.Errorf("metadata version %d: %+v", version, got.Topics)
		}
		if version == 12 {
			request.Topics[0].Topic, request.Topics[0].TopicID = nil, id
			if got := ask(request, version).(*kmsg.MetadataResponse); *got.Topics[0].Topic != "versions" {
				t.Errorf("metadata by id: %+v", got.Topics)
			}
		}
		all := kmsg.NewPtrMetadataRequest()
		if version == 0 {
			all.Topics = []kmsg.MetadataRequestTopic{}
		}
		if got := ask(all, version).(*kmsg.MetadataResponse); len(got.Topics) == 0 {
			t.Errorf("metadata version %d of all topics: none", version)
		}
	}
	for version := int16(0); version <= 4; version++ {
		request := kmsg.NewPtrApiVersionsRequest()
		request.ClientSoftwareName, request.ClientSoftwareVersion = "test", "1.0"
		if got := ask(request, version).(*kmsg.ApiVersionsResponse); got.ErrorCode != 0 || len(got.ApiKeys) < 10 {
			t.Errorf("ApiVersions version %d: %+v", version, got)
		}
	}
	for version := int16(0); version <= 9; version++ {
		request := kmsg.NewPtrListOffsetsRequest()
		topic := kmsg.NewListOffsetsRequestTopic()
		topic.Topic = "versions"
		partition := kmsg.NewListOffsetsRequestTopicPartition()
		partition.Timestamp, partition.MaxNumOffsets = -1, 1
		topic.Partitions = append(topic.Partitions, partition)
		request.Topics, request.ReplicaID = append(request.Topics, topic), -1
		got := ask(request, version).(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0]
		if got.ErrorCode != 0 || version > 0 && got.Offset != 0 || version == 0 && len(got.OldStyleOffsets) != 1 {
			t.Errorf("ListOffsets version %d: %+v", version, got)
		}
	}
	for version := int16(4); version <= 17; version++ {
		request := kmsg.NewPtrFetchRequest()
		topic := kmsg.NewFetchRequestTopic()
		topic.Topic, topic.TopicID = "versions", id
		partition := kmsg.NewFetchRequestTopicPartition()
		partition.PartitionMaxBytes = 1000
		topic.Partitions = append(topic.Partitions, partition)
		request.Topics, request.MaxBytes = append(request.Topics, topic), 1000
		got := ask(request, version).(*kmsg.FetchResponse)
		if got.ErrorCode != 0 || len(got.Topics) != 1 || got.Topics[0].Partitions[0].ErrorCode != 0 {
			t.Errorf("Fetch version %d: %+v", version, got)
		}
	}
	for version := int16(0); version <= 4; version++ {
		request := kmsg.NewPtrOffsetForLeaderEpochRequest()
		topic := kmsg.NewOffsetForLeaderEpochRequestTopic()
		topic.Topic = "versions"
		topic.Partitions = append(topic.Partitions, kmsg.NewOffsetForLeaderEpochRequestTopicPartition())
		request.Topics = append(request.Topics, topic)
		if got := ask(request, version).(*kmsg.OffsetForLeaderEpochResponse); got.Topics[0].Partitions[0].ErrorCode != 0 {
			t.Errorf("OffsetForLeaderEpoch version %d: %+v", version, got)
		}
	}
}

// pinned keeps kgo from choosing a version.
type pinned struct{ kmsg.Request }

func (p pinned) SetVersion(int16)            {}
func (p pinned) MaxVersion() int16           { return p.GetVersion() }
func (p pinned) ResponseKind() kmsg.Response { return p.Request.ResponseKind() }

// A leader dies while a producer writes: nothing acknowledged is lost, nothing stands twice,
// and the dead broker is back in the in-sync set after its restart.
func TestFailover(t *testing.T) {
	c := newTestCluster(t, 3, map[string]string{"min.insync.replicas": "2"})
	c.createTopic("failover", 3, 3, nil)
	producer := c.client(kgo.DefaultProduceTopic("failover"), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()),
		kgo.ProducerLinger(0), kgo.RecordDeliveryTimeout(60*time.Second), kgo.ProducerBatchMaxBytes(2000))
	const count = 6000
	var acknowledged atomic.Int32
	third := make(chan struct{})
	for i := range count {
		producer.Produce(t.Context(), kgo.StringRecord(fmt.Sprint(i)), func(_ *kgo.Record, err error) {
			if err != nil {
				t.Errorf("record %d: %v", i, err)
			}
			if acknowledged.Add(1) == count/3 {
				close(third)
			}
		})
	}
	<-third
	victim := c.leader("failover", 0)
	c.crash(victim)
	c.await("another leader", func(image *metadata.Image) bool {
		return allLed(image, "failover") && !image.Alive(cluster.BrokerID(victim))
	})
	c.start(victim)
	if err := producer.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	consumer := c.client(kgo.ConsumeTopics("failover"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	seen := map[string]string{}
	for _, record := range consume(t, consumer, count) {
		place := fmt.Sprintf("%d/%d", record.Partition, record.Offset)
		if before, doubled := seen[string(record.Value)]; doubled {
			t.Errorf("%s stands at %s and %s", record.Value, before, place)
		}
		seen[string(record.Value)] = place
	}
	if len(seen) != count {
		t.Errorf("%d of %d records", len(seen), count)
	}
	c.await("a full in-sync set", func(image *metadata.Image) bool {
		topic := image.Topic("failover")
		for _, partition := range topic.Partitions {
			if len(partition.ISR) != 3 {
				return false
			}
		}
		return true
	})
}

func TestRefusals(t *testing.T) {
	c := newTestCluster(t, 1, map[string]string{"auto.create.topics.enable": "false"})
	c.createTopic("refusals", 1, 1, nil)
	client := c.client()
	c.createTopic("__consumer_offsets", 1, 1, nil)
	builder := record.NewBuilder(record.DefaultOptions())
	builder.Append(time.Now().UnixMilli(), nil, []byte("value"))
	sound, err := builder.Build()
	if err != nil {
		t.Fatal(err)
	}
	old := bytes.Repeat([]byte{1}, 40) // format 1, as far as anybody looks
	binary.BigEndian.PutUint32(old[8:], uint32(len(old)-12))
	garbage := []byte("this is not a batch of records, but it is long enough to be looked at as one, header and all")
	produce := func(version, acks int16, topic string, records []byte, transaction *string) (kmsg.ProduceResponseTopicPartition, error) {
		request := kmsg.NewPtrProduceRequest()
		request.SetVersion(version)
		request.Acks, request.TransactionID, request.TimeoutMillis = acks, transaction, 1000
		partition := kmsg.NewProduceRequestTopicPartition()
		partition.Records = records
		request.Topics = []kmsg.ProduceRequestTopic{{Topic: topic, Partitions: []kmsg.ProduceRequestTopicPartition{partition}}}
		response, err := client.Broker(1).Request(t.Context(), pinned{request})
		if err != nil {
			return kmsg.ProduceResponseTopicPartition{}, err
		}
		return response.(*kmsg.ProduceResponse).Topics[0].Partitions[0], nil
	}
	damaged := slices.Concat(sound, make([]byte, 61)) // a batch of length 0 follows
	for _, test := range []struct {
		name        string
		version     int16
		acks        int16
		topic       string
		records     []byte
		transaction *string
		want        []*kerr.Error
	}{
		{"old format", 2, 1, "refusals", old, nil, []*kerr.Error{kerr.UnsupportedForMessageFormat}},
		{"garbage", 9, 1, "refusals", garbage, nil, []*kerr.Error{kerr.CorruptMessage, kerr.InvalidRecord, kerr.UnsupportedForMessageFormat}},
		{"garbage behind a batch", 9, 1, "refusals", damaged, nil, []*kerr.Error{kerr.CorruptMessage}},
		{"garbage behind a batch, of old", 2, 1, "refusals", damaged, nil, []*kerr.Error{kerr.CorruptMessage}},
		{"garbage behind a batch for nobody", 9, 1, "nowhere", damaged, nil, []*kerr.Error{kerr.UnknownTopicOrPartition}},
		{"acks", 9, 7, "refusals", sound, nil, []*kerr.Error{kerr.InvalidRequiredAcks}},
		{"unknown topic", 9, 1, "nowhere", sound, nil, []*kerr.Error{kerr.UnknownTopicOrPartition}},
		{"internal topic", 9, 1, "__consumer_offsets", sound, nil, []*kerr.Error{kerr.InvalidTopicException}},
		{"transaction", 9, -1, "refusals", sound, kmsg.StringPtr("tx"), []*kerr.Error{kerr.TransactionalIDAuthorizationFailed}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := produce(test.version, test.acks, test.topic, test.records, test.transaction)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range test.want {
				if errors.Is(kerr.ErrorForCode(got.ErrorCode), want) {
					return
				}
			}
			t.Fatalf("got %v", kerr.ErrorForCode(got.ErrorCode))
		})
	}
}
