package understudy

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func start(t *testing.T, config Config) *Cluster {
	t.Helper()
	cluster, err := Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	return cluster
}

func stop(t *testing.T, cluster *Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := cluster.Stop(ctx); err != nil {
		t.Error(err)
	}
}

func client(t *testing.T, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	made, err := kgo.NewClient(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(made.Close)
	return made
}

// Whoever has read the ready line can use every broker: each knows all others and the
// controller. Asked once, without a retry.
func TestStartedMeansUsable(t *testing.T) {
	cluster := start(t, Config{Data: t.TempDir(), Brokers: 3, Properties: map[string]string{"default.replication.factor": "3"}})
	defer stop(t, cluster)
	var answers []*kmsg.MetadataResponse
	for _, addr := range cluster.Kafka() {
		one := client(t, kgo.SeedBrokers(addr))
		request := kmsg.NewPtrMetadataRequest()
		request.Topics = []kmsg.MetadataRequestTopic{}
		answer, err := request.RequestWith(t.Context(), one.SeedBrokers()[0])
		if err != nil {
			t.Fatal(err)
		}
		answers = append(answers, answer)
	}
	for i, answer := range answers {
		if len(answer.Brokers) != 3 || answer.ControllerID < 0 {
			t.Errorf("broker %d knows %d brokers and controller %d", i+1, len(answer.Brokers), answer.ControllerID)
		}
	}
	producer := client(t, kgo.SeedBrokers(cluster.Kafka()[2]), kgo.AllowAutoTopicCreation())
	if err := producer.ProduceSync(t.Context(), &kgo.Record{Topic: "first", Value: []byte("x")}).FirstErr(); err != nil {
		t.Error(err)
	}
}

func TestStartFindsItsDataAgain(t *testing.T) {
	config := Config{Data: t.TempDir(), Brokers: 2}
	cluster := start(t, config)
	producer := client(t, kgo.SeedBrokers(cluster.Kafka()...), kgo.AllowAutoTopicCreation())
	if err := producer.ProduceSync(t.Context(), &kgo.Record{Topic: "kept", Value: []byte("still here")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	stop(t, cluster)
	cluster = start(t, config)
	defer stop(t, cluster)
	consumer := client(t, kgo.SeedBrokers(cluster.Kafka()...), kgo.ConsumeTopics("kept"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	records := consumer.PollRecords(ctx, 1).Records()
	if len(records) != 1 || string(records[0].Value) != "still here" {
		t.Errorf("got %v", records)
	}
}

// The offsets topic gets as many replicas as there are brokers.
func TestInternalTopicsAreReplicated(t *testing.T) {
	cluster := start(t, Config{Data: t.TempDir(), Brokers: 2})
	defer stop(t, cluster)
	one := client(t, kgo.SeedBrokers(cluster.Kafka()...))
	admin := kadm.NewClient(one)
	if _, err := admin.FetchOffsets(t.Context(), "anybody"); err != nil {
		t.Fatal(err)
	}
	const internal = "__consumer_offsets"
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	topics, err := admin.ListTopicsWithInternal(ctx)
	for err == nil && len(topics[internal].Partitions) == 0 { // whoever was asked has not heard of it yet
		topics, err = admin.ListTopicsWithInternal(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, topic := range topics {
		for _, partition := range topic.Partitions {
			if len(partition.Replicas) != 2 {
				t.Errorf("%s-%d has replicas %v", topic.Topic, partition.Partition, partition.Replicas)
			}
		}
	}
}

// A failed start says in its error what to do, leaves nothing behind, and does not keep the
// next one from starting.
func TestFailedStarts(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	data := t.TempDir()
	running := start(t, Config{Data: data})
	other := t.TempDir()
	for _, test := range []struct {
		name   string
		config Config
		want   []string
	}{
		{"no data", Config{}, []string{"data directory"}},
		{"data in use", Config{Data: data}, []string{data, "in use", "stop it"}},
		{"zookeeper without a port", Config{Data: other, ZooKeeper: "localhost"}, []string{"ZooKeeper", "localhost", "host:port"}},
		{"kafka port in use", Config{Data: other, Kafka: taken.Addr().String()}, []string{taken.Addr().String(), "in use"}},
		{"zookeeper port in use", Config{Data: other, ZooKeeper: taken.Addr().String()}, []string{taken.Addr().String(), "in use"}},
		{"no port", Config{Data: other, Kafka: "localhost"}, []string{"localhost", "host:port"}},
		{"port not a number", Config{Data: other, Kafka: "localhost:kafka"}, []string{"localhost:kafka", "port"}},
		{"port too large", Config{Data: other, Kafka: "127.0.0.1:70000"}, []string{"127.0.0.1:70000", "65535"}},
		{"no room for the ports", Config{Data: other, Kafka: "127.0.0.1:65534", Brokers: 3}, []string{"127.0.0.1:65534", "65535", "3 brokers"}},
		{"everywhere", Config{Data: other, Kafka: "0.0.0.0:0"}, []string{"0.0.0.0", "address"}},
		{"negative", Config{Data: other, Brokers: -1}, []string{"-1", "brokers"}},
		{"bad property", Config{Data: other, Properties: map[string]string{"num.partitions": "many"}}, []string{"num.partitions", "many"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			cluster, err := Start(t.Context(), test.config)
			if err == nil {
				stop(t, cluster)
				t.Fatal("it started")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
	stop(t, running)
	for range 2 {
		stop(t, start(t, Config{Data: other, Brokers: 3}))
	}
}

func TestIPv6(t *testing.T) {
	if probe, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skip("no IPv6 here: ", err)
	} else {
		_ = probe.Close()
	}
	cluster := start(t, Config{Data: t.TempDir(), Kafka: "[::1]:0", ZooKeeper: "[::1]:0", Brokers: 2})
	defer stop(t, cluster)
	for _, addr := range append(cluster.Kafka(), cluster.ZooKeeper()) {
		if !strings.HasPrefix(addr, "[::1]:") {
			t.Errorf("address %s", addr)
		}
	}
	producer := client(t, kgo.SeedBrokers(cluster.Kafka()...), kgo.AllowAutoTopicCreation())
	for i := range 10 {
		if err := producer.ProduceSync(t.Context(), &kgo.Record{Topic: fmt.Sprint("six-", i), Value: []byte("x")}).FirstErr(); err != nil {
			t.Error(err)
		}
	}
}
