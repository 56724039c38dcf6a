package metadata

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
)

type partitionKey struct {
	topic     string
	partition int32
}

func update(controller int32, brokers []int32, topics ...kmsg.UpdateMetadataRequestTopicState) *kmsg.UpdateMetadataRequest {
	request := kmsg.NewPtrUpdateMetadataRequest()
	request.SetVersion(8)
	request.ControllerID = controller
	request.TopicStates = topics
	for _, id := range brokers {
		broker := kmsg.NewUpdateMetadataRequestLiveBroker()
		broker.ID = id
		endpoint := kmsg.NewUpdateMetadataRequestLiveBrokerEndpoint()
		endpoint.Host, endpoint.Port, endpoint.ListenerName = "h"+strconv.Itoa(int(id)), 9092, "PLAINTEXT"
		broker.Endpoints = append(broker.Endpoints, endpoint)
		request.LiveBrokers = append(request.LiveBrokers, broker)
	}
	return request
}

func topicState(name string, id byte, states ...kmsg.UpdateMetadataRequestTopicPartition) kmsg.UpdateMetadataRequestTopicState {
	topic := kmsg.NewUpdateMetadataRequestTopicState()
	topic.Topic, topic.PartitionStates = name, states
	topic.TopicID[15] = id
	return topic
}

func partitionState(partition, leader, epoch int32) kmsg.UpdateMetadataRequestTopicPartition {
	state := kmsg.NewUpdateMetadataRequestTopicPartition()
	state.Partition, state.Leader, state.LeaderEpoch = partition, leader, epoch
	state.ISR, state.Replicas = []int32{leader}, []int32{leader, 9}
	return state
}

// The cache against a plain map, under random updates and deletions; images taken on the way
// must not change afterwards.
func TestCacheAgainstAMap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	cache := New()
	twin := map[partitionKey]int32{}
	type snapshot struct {
		image *Image
		twin  map[partitionKey]int32
	}
	var snapshots []snapshot
	for step := range 400 {
		var topics []kmsg.UpdateMetadataRequestTopicState
		for range 1 + random.IntN(3) {
			number := random.IntN(20)
			name := "t" + strconv.Itoa(number)
			var states []kmsg.UpdateMetadataRequestTopicPartition
			for range 1 + random.IntN(4) {
				partition, leader := random.Int32N(8), random.Int32N(4)
				key := partitionKey{name, partition}
				if random.IntN(3) == 0 {
					leader = int32(cluster.LeaderDuringDelete)
					delete(twin, key)
				} else {
					twin[key] = leader
				}
				states = append(states, partitionState(partition, leader, int32(step)))
			}
			topics = append(topics, topicState(name, byte(number+1), states...))
		}
		cache.ApplyUpdateMetadata(update(1, []int32{0, 1, 2, 3}, topics...))
		if step%40 == 0 {
			snapshots = append(snapshots, snapshot{cache.Image(), maps.Clone(twin)})
		}
		compare(t, cache.Image(), twin)
	}
	for _, s := range snapshots {
		compare(t, s.image, s.twin)
	}
}

func compare(t *testing.T, image *Image, twin map[partitionKey]int32) {
	t.Helper()
	if image.PartitionCount() != len(twin) {
		t.Fatalf("%d partitions, want %d", image.PartitionCount(), len(twin))
	}
	topics := map[string]bool{}
	for key, leader := range twin {
		topics[key.topic] = true
		got, found := image.Partition(cluster.TopicPartition{Topic: key.topic, Partition: key.partition})
		if !found || int32(got.Leader) != leader {
			t.Fatalf("%v: leader %v %v, want %d", key, got.Leader, found, leader)
		}
		if name, found := image.TopicName(image.TopicID(key.topic)); !found || name != key.topic {
			t.Fatalf("id of %s leads to %q", key.topic, name)
		}
	}
	seen := 0
	for topic := range image.Topics() {
		if !topics[topic.Name] {
			t.Fatalf("%s should be gone", topic.Name)
		}
		seen++
	}
	if seen != len(topics) || image.TopicCount() != seen {
		t.Fatalf("%d topics listed, %d counted, want %d", seen, image.TopicCount(), len(topics))
	}
}

func TestZeroTopicIDKeepsOurs(t *testing.T) {
	cache := New()
	cache.ApplyUpdateMetadata(update(1, []int32{1}, topicState("t", 7, partitionState(0, 1, 1))))
	cache.ApplyUpdateMetadata(update(1, []int32{1}, topicState("t", 0, partitionState(0, 1, 2))))
	if cache.Image().TopicID("t").IsZero() {
		t.Fatal("the id is gone")
	}
}

func TestAnotherTopicIDReplacesTheTopic(t *testing.T) {
	cache := New()
	cache.ApplyUpdateMetadata(update(1, []int32{1}, topicState("t", 7, partitionState(0, 1, 5), partitionState(1, 1, 5))))
	change := cache.ApplyUpdateMetadata(update(1, []int32{1}, topicState("t", 8, partitionState(0, 1, 0))))
	if len(change.Removed) != 2 || change.Image.PartitionCount() != 1 {
		t.Fatalf("removed %v, %d partitions left", change.Removed, change.Image.PartitionCount())
	}
	if _, found := change.Image.TopicName(cluster.TopicID{15: 7}); found {
		t.Fatal("the old id still leads to the topic")
	}
}

func TestOverlay(t *testing.T) {
	overlay := func(topic string, partition, leader, epoch int32) *kmsg.LeaderAndISRRequest {
		request := kmsg.NewPtrLeaderAndISRRequest()
		request.SetVersion(7)
		state := kmsg.NewLeaderAndISRRequestTopicPartition()
		state.Partition, state.Leader, state.LeaderEpoch = partition, leader, epoch
		states := kmsg.NewLeaderAndISRRequestTopicState()
		states.Topic, states.PartitionStates = topic, append(states.PartitionStates, state)
		request.TopicStates = append(request.TopicStates, states)
		return request
	}
	for _, test := range []struct {
		name          string
		request       *kmsg.LeaderAndISRRequest
		leader, count int
	}{
		{"newer epoch", overlay("t", 0, 2, 6), 2, 1},
		{"same epoch", overlay("t", 0, 2, 5), 1, 1},
		{"older epoch", overlay("t", 0, 2, 4), 1, 1},
		{"unknown partition", overlay("t", 1, 2, 6), 1, 1},
		{"unknown topic", overlay("u", 0, 2, 6), 1, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			cache := New()
			cache.ApplyUpdateMetadata(update(1, []int32{1, 2}, topicState("t", 7, partitionState(0, 1, 5))))
			cache.OverlayLeaderAndISR(test.request)
			got, _ := cache.Image().Partition(cluster.TopicPartition{Topic: "t"})
			if int(got.Leader) != test.leader || cache.Image().PartitionCount() != test.count {
				t.Fatalf("leader %d, %d partitions", got.Leader, cache.Image().PartitionCount())
			}
		})
	}
}

func TestBrokersAreReplaced(t *testing.T) {
	cache := New()
	cache.ApplyUpdateMetadata(update(1, []int32{3, 1}))
	change := cache.ApplyUpdateMetadata(update(-1, []int32{3, 2}))
	if !slices.Equal(change.Joined, []cluster.BrokerID{2}) || !slices.Equal(change.Left, []cluster.BrokerID{1}) || !change.ControllerChanged {
		t.Fatalf("%+v", change)
	}
	image := cache.Image()
	if image.Alive(1) || !image.Alive(2) || image.ControllerID() != cluster.NoBroker {
		t.Fatalf("brokers %v, controller %d", image.Brokers(), image.ControllerID())
	}
	if endpoint, found := image.Endpoint(2, "PLAINTEXT"); !found || endpoint.Host != "h2" {
		t.Fatalf("endpoint %v %v", endpoint, found)
	}
}

func TestWaitFor(t *testing.T) {
	cache := New()
	ready := make(chan struct{})
	done := make(chan error)
	go func() {
		close(ready)
		_, err := cache.WaitFor(t.Context(), func(image *Image) bool { return image.Alive(2) })
		done <- err
	}()
	<-ready
	cache.ApplyUpdateMetadata(update(1, []int32{1}))
	cache.ApplyUpdateMetadata(update(1, []int32{1, 2}))
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := cache.WaitFor(ctx, func(*Image) bool { return false }); err == nil {
		t.Fatal("no error from an ended context")
	}
}

func BenchmarkUpdateOnePartitionAmongMany(b *testing.B) {
	cache := New()
	for topic := range 10_000 {
		var states []kmsg.UpdateMetadataRequestTopicPartition
		for partition := range int32(10) {
			states = append(states, partitionState(partition, 1, 0))
		}
		cache.ApplyUpdateMetadata(update(1, []int32{1}, topicState("topic"+strconv.Itoa(topic), 0, states...)))
	}
	b.ReportAllocs()
	for i := range b.N {
		cache.ApplyUpdateMetadata(update(1, []int32{1}, topicState("topic5", 0, partitionState(3, 1, int32(i)))))
	}
}
