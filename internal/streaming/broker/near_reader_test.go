package broker

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/metadata"
)

// TestNearReader has consumers of several racks ask a leader, in every version: those of another
// replica's rack are sent there, and read there.
func TestNearReader(t *testing.T) {
	c := newTestCluster(t, 0, map[string]string{"replica.selector.class": "org.apache.kafka.common.replica.RackAwareReplicaSelector", "broker.rack": "a"})
	for id, rack := range map[int]string{1: "a", 2: "b", 3: "c"} {
		c.extra["broker.rack"] = rack
		c.start(id)
	}
	c.awaitAlive(3)
	c.createTopic("t", 1, 3, nil)
	tp := cluster.TopicPartition{Topic: "t"}
	client := c.client(kgo.DefaultProduceTopic("t"))
	for i := range 5 {
		if err := client.ProduceSync(t.Context(), kgo.StringRecord(fmt.Sprint(i))).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	c.await("the ISR", func(image *metadata.Image) bool { p, _ := image.Partition(tp); return len(p.ISR) == 3 })
	leader := c.leader("t", 0)
	other, otherRack := 1+leader%3, string(rune('a'+leader%3))
	fetch := func(broker int, version int16, rack string, session int32) *kmsg.FetchResponse {
		t.Helper()
		request := kmsg.NewPtrFetchRequest()
		request.SetVersion(version)
		request.Rack, request.MaxBytes, request.SessionEpoch, request.MinBytes, request.MaxWaitMillis = rack, 1<<20, -1, 1, 30_000
		if session != 0 {
			request.SessionEpoch, request.SessionID = max(session, 0), max(session, 0)
		}
		topic := kmsg.NewFetchRequestTopic()
		topic.Topic, topic.TopicID = "t", c.brokers[1].metadata.Image().TopicID("t")
		partition := kmsg.NewFetchRequestTopicPartition()
		partition.CurrentLeaderEpoch, partition.PartitionMaxBytes = -1, 1<<20
		topic.Partitions = append(topic.Partitions, partition)
		request.Topics = append(request.Topics, topic)
		response, err := client.Broker(broker).Request(t.Context(), pinned{request})
		if err != nil {
			t.Fatal(err)
		}
		return response.(*kmsg.FetchResponse)
	}
	for version := int16(11); version <= 17; version++ {
		for rack, want := range map[string]int32{otherRack: int32(other), string(rune('a' + leader - 1)): -1, "elsewhere": -1, "": -1} {
			got := fetch(leader, version, rack, 0).Topics[0].Partitions[0]
			if got.ErrorCode != 0 || got.PreferredReadReplica != want || (len(got.RecordBatches) == 0) != (want >= 0) || got.HighWatermark != 5 {
				t.Errorf("version %d, rack %q: replica %d, error %d, %d bytes, high watermark %d; want replica %d",
					version, rack, got.PreferredReadReplica, got.ErrorCode, len(got.RecordBatches), got.HighWatermark, want)
			}
		}
	}
	// The follower says nothing of the kind, and gives what is committed as far as it knows.
	for deadline := time.Now().Add(20 * time.Second); ; {
		got := fetch(other, 17, otherRack, 0).Topics[0].Partitions[0]
		if got.ErrorCode != 0 || got.PreferredReadReplica != -1 || time.Now().After(deadline) {
			t.Fatalf("the follower: %+v", got)
		}
		if got.HighWatermark == 5 && len(got.RecordBatches) > 0 {
			break
		}
	}
	// In a session, too, each fetch is told.
	opened := fetch(leader, 12, "", -1)
	if opened.SessionID == 0 {
		t.Fatalf("no session: %+v", opened)
	}
	again := kmsg.NewPtrFetchRequest()
	again.SetVersion(12)
	again.Rack, again.MaxBytes, again.SessionEpoch, again.SessionID, again.MinBytes, again.MaxWaitMillis = otherRack, 1<<20, 1, opened.SessionID, 1, 30_000
	response, err := client.Broker(leader).Request(t.Context(), pinned{again})
	if err != nil {
		t.Fatal(err)
	}
	if got := response.(*kmsg.FetchResponse); len(got.Topics) != 1 || got.Topics[0].Partitions[0].PreferredReadReplica != int32(other) {
		t.Errorf("in a session: %+v", got)
	}
}

// fetchedFrom notes which brokers gave a consumer records.
type fetchedFrom struct {
	mu      sync.Mutex
	brokers map[int32]int
}

func (f *fetchedFrom) OnFetchBatchRead(meta kgo.BrokerMetadata, _ string, _ int32, metrics kgo.FetchBatchMetrics) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.brokers[meta.NodeID] += metrics.NumRecords
}

// TestConsumersReadInTheirRack consumes from a follower while it and the leader are replaced.
func TestConsumersReadInTheirRack(t *testing.T) {
	c := newTestCluster(t, 0, map[string]string{"replica.selector.class": "org.apache.kafka.common.replica.RackAwareReplicaSelector", "replica.fetch.wait.max.ms": "50"})
	racks := map[int]string{1: "a", 2: "b", 3: "c"}
	for id := 1; id <= 3; id++ {
		c.extra["broker.rack"] = racks[id]
		c.start(id)
	}
	c.awaitAlive(3)
	c.createTopic("t", 1, 3, nil)
	tp := cluster.TopicPartition{Topic: "t"}
	producer := c.client(kgo.DefaultProduceTopic("t"), kgo.ProducerLinger(0))
	leader := c.leader("t", 0)
	near := 1 + leader%3
	from := &fetchedFrom{brokers: map[int32]int{}}
	consumer := c.client(kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.Rack(racks[near]), kgo.WithHooks(from), kgo.FetchMaxWait(100*time.Millisecond))
	next := int64(0)
	exchange := func(count int) {
		t.Helper()
		for range count {
			if err := producer.ProduceSync(t.Context(), kgo.StringRecord("x")).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		for _, record := range consume(t, consumer, count) {
			if record.Offset != next {
				t.Fatalf("offset %d, want %d", record.Offset, next)
			}
			next++
		}
	}
	exchange(20)
	from.mu.Lock()
	if from.brokers[int32(near)] == 0 || from.brokers[int32(leader)] > 0 {
		t.Errorf("records came from %v, want them from broker %d alone", from.brokers, near)
	}
	from.mu.Unlock()
	c.crash(near)
	exchange(20)
	c.extra["broker.rack"] = racks[near]
	c.start(near)
	c.await("the ISR", func(image *metadata.Image) bool { p, _ := image.Partition(tp); return len(p.ISR) == 3 })
	exchange(20)
	c.crash(c.leader("t", 0))
	exchange(20)
}
