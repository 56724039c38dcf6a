package broker

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/record"
	"understudy/internal/streaming/wire"
)

// benchBroker is one broker with a topic of one partition, and a connection to it.
func benchBroker(b *testing.B) (*testCluster, *wire.Client) {
	b.Helper()
	c := newTestCluster(b, 1, nil)
	c.createTopic("bench", 1, 1, nil)
	client, err := wire.Dial(b.Context(), c.seeds()[0], wire.ClientOptions{ClientID: "bench", ReuseBuffer: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(client.Close)
	return c, client
}

// benchBatch is a batch of ten records.
func benchBatch(b *testing.B, valueBytes int) []byte {
	b.Helper()
	builder := record.NewBuilder(record.DefaultOptions())
	for range 10 {
		builder.Append(time.Now().UnixMilli(), nil, make([]byte, valueBytes))
	}
	batch, err := builder.Build()
	if err != nil {
		b.Fatal(err)
	}
	return batch
}

func benchProduce(batch []byte) *kmsg.ProduceRequest {
	request := kmsg.NewPtrProduceRequest()
	request.SetVersion(11)
	request.Acks, request.TimeoutMillis = 1, 1000
	records := kmsg.NewProduceRequestTopicPartition()
	records.Records = batch
	request.Topics = []kmsg.ProduceRequestTopic{{Topic: "bench", Partitions: []kmsg.ProduceRequestTopicPartition{records}}}
	return request
}

// BenchmarkProduce keeps eight requests with ten records of 1 KiB in flight on one connection.
// What the client allocates is counted, too.
func BenchmarkProduce(b *testing.B) {
	_, client := benchBroker(b)
	request := benchProduce(benchBatch(b, 1024))
	b.SetBytes(10 * 1024)
	b.ReportAllocs()
	b.ResetTimer()
	tokens := make(chan struct{}, 8)
	for range b.N {
		tokens <- struct{}{}
		client.Start(request, func(response kmsg.Response, err error) {
			if err == nil {
				err = kerr.ErrorForCode(response.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode)
			}
			if err != nil {
				b.Error(err)
			}
			<-tokens
		})
	}
	for range cap(tokens) {
		tokens <- struct{}{}
	}
}

// BenchmarkFetch reads a megabyte at a time, by sendfile on the broker's side.
func BenchmarkFetch(b *testing.B) {
	c, client := benchBroker(b)
	request := benchProduce(benchBatch(b, 1024))
	for range 200 {
		if _, err := client.Do(b.Context(), request); err != nil {
			b.Fatal(err)
		}
	}
	fetch := kmsg.NewPtrFetchRequest()
	fetch.SetVersion(13)
	fetch.MaxBytes = 1 << 20
	partition := kmsg.NewFetchRequestTopicPartition()
	partition.PartitionMaxBytes = 1 << 20
	fetch.Topics = []kmsg.FetchRequestTopic{{TopicID: c.brokers[1].metadata.Image().TopicID("bench"), Partitions: []kmsg.FetchRequestTopicPartition{partition}}}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		response, err := client.Do(b.Context(), fetch)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(response.(*kmsg.FetchResponse).Topics[0].Partitions[0].RecordBatches)))
	}
}
