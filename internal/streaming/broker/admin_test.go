package broker

import (
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/metadata"
)

// TestTopicAdministration walks a topic from its creation to its deletion.
func TestTopicAdministration(t *testing.T) {
	c := newTestCluster(t, 3, map[string]string{"num.partitions": "2", "default.replication.factor": "2"})
	client := c.client()
	admin := kadm.NewClient(client)
	ctx := t.Context()

	create := func(topic kmsg.CreateTopicsRequestTopic, validateOnly bool) kmsg.CreateTopicsResponseTopic {
		t.Helper()
		request := kmsg.NewPtrCreateTopicsRequest()
		request.TimeoutMillis, request.ValidateOnly = 20_000, validateOnly
		request.Topics = append(request.Topics, topic)
		response, err := request.RequestWith(ctx, client)
		if err != nil {
			t.Fatal(err)
		}
		return response.Topics[0]
	}
	topic := func(name string, partitions int32, factor int16, config ...string) kmsg.CreateTopicsRequestTopic {
		asked := kmsg.NewCreateTopicsRequestTopic()
		asked.Topic, asked.NumPartitions, asked.ReplicationFactor = name, partitions, factor
		for i := 0; i < len(config); i += 2 {
			asked.Configs = append(asked.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: config[i], Value: &config[i+1]})
		}
		return asked
	}
	if got := create(topic("t", -1, -1, "retention.ms", "5000"), true); got.ErrorCode != 0 || got.NumPartitions != 2 || got.ReplicationFactor != 2 {
		t.Fatalf("validated: %+v", got)
	}
	c.await("no topic", func(image *metadata.Image) bool { return image.Topic("t") == nil })
	got := create(topic("t", -1, -1, "retention.ms", "5000"), false)
	if got.ErrorCode != 0 || got.TopicID == [16]byte{} {
		t.Fatalf("created: %+v", got)
	}
	at := slices.IndexFunc(got.Configs, func(entry kmsg.CreateTopicsResponseTopicConfig) bool { return entry.Name == "retention.ms" })
	if at < 0 || *got.Configs[at].Value != "5000" || got.Configs[at].Source != int8(kmsg.ConfigSourceDynamicTopicConfig) {
		t.Errorf("configuration %+v", got.Configs)
	}
	manual := topic("m", -1, -1)
	manual.ReplicaAssignment = []kmsg.CreateTopicsRequestTopicReplicaAssignment{{Partition: 0, Replicas: []int32{3, 1}}, {Partition: 1, Replicas: []int32{1, 2}}}
	if got := create(manual, false); got.ErrorCode != 0 {
		t.Fatalf("created: %+v", got)
	}
	both, gap, uneven := manual, manual, manual
	both.Topic, both.NumPartitions, gap.Topic, uneven.Topic = "x1", 2, "x2", "x3"
	gap.ReplicaAssignment = []kmsg.CreateTopicsRequestTopicReplicaAssignment{{Partition: 1, Replicas: []int32{3}}}
	uneven.ReplicaAssignment = []kmsg.CreateTopicsRequestTopicReplicaAssignment{{Partition: 0, Replicas: []int32{3}}, {Partition: 1, Replicas: []int32{1, 2}}}
	for _, test := range []struct {
		asked kmsg.CreateTopicsRequestTopic
		want  *kerr.Error
	}{
		{topic("t", 1, 1), kerr.TopicAlreadyExists}, {topic("a b", 1, 1), kerr.InvalidTopicException}, {topic("n.1", 1, 9), kerr.InvalidReplicationFactor},
		{topic("n", 0, 1), kerr.InvalidPartitions}, {topic("n", 1, 1, "no.such.key", "1"), kerr.InvalidConfig}, {topic("n", 1, 1, "retention.ms", "soon"), kerr.InvalidConfig},
		{both, kerr.InvalidRequest}, {gap, kerr.InvalidReplicaAssignment}, {uneven, kerr.InvalidReplicaAssignment},
	} {
		if got := create(test.asked, false); got.ErrorCode != test.want.Code || got.ErrorMessage == nil {
			t.Errorf("%s: %v (%v), want %v", test.asked.Topic, kerr.ErrorForCode(got.ErrorCode), got.ErrorMessage, test.want)
		}
	}

	grown, err := admin.UpdatePartitions(ctx, 5, "t", "missing")
	if err != nil || grown["t"].Err != nil || !errors.Is(grown["missing"].Err, kerr.UnknownTopicOrPartition) {
		t.Errorf("grown: %+v, %v", grown, err)
	}
	c.await("five partitions", func(image *metadata.Image) bool {
		return image.Topic("t") != nil && len(image.Topic("t").Partitions) == 5 && allLed(image, "t")
	})
	if again, _ := admin.UpdatePartitions(ctx, 5, "t"); !errors.Is(again["t"].Err, kerr.InvalidPartitions) {
		t.Errorf("grown again: %+v", again)
	}
	testTopicConfigs(t, admin)

	deleted, err := admin.DeleteTopics(ctx, "t", "m", "missing")
	if err != nil || deleted["t"].Err != nil || !errors.Is(deleted["missing"].Err, kerr.UnknownTopicOrPartition) {
		t.Errorf("deleted: %+v, %v", deleted, err)
	}
	c.await("the topic's end", func(image *metadata.Image) bool { return image.Topic("t") == nil })
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		got := create(topic("t", 1, 3), false) // refused only while replicas are still being deleted
		if got.ErrorCode == 0 {
			break
		}
		if got.ErrorCode != kerr.TopicAlreadyExists.Code || time.Now().After(deadline) {
			t.Fatalf("created again: %+v", got)
		}
	}
}

func testTopicConfigs(t *testing.T, admin *kadm.Client) {
	ctx := t.Context()
	value := func(key string) string {
		t.Helper()
		configs, err := admin.DescribeTopicConfigs(ctx, "t")
		if err != nil || len(configs) != 1 || configs[0].Err != nil {
			t.Fatalf("described: %+v, %v", configs, err)
		}
		for _, entry := range configs[0].Configs {
			if entry.Key == key {
				return entry.MaybeValue()
			}
		}
		return ""
	}
	alter := func(op kadm.IncrementalOp, key, text string) error {
		t.Helper()
		answers, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: op, Name: key, Value: &text}}, "t")
		if err != nil {
			t.Fatal(err)
		}
		return answers[0].Err
	}
	if err := alter(kadm.AppendConfig, "cleanup.policy", "compact"); err != nil || value("cleanup.policy") != "delete,compact" {
		t.Errorf("appended: %q, %v", value("cleanup.policy"), err)
	}
	if err := alter(kadm.SubtractConfig, "cleanup.policy", "delete"); err != nil || value("cleanup.policy") != "compact" {
		t.Errorf("subtracted: %q, %v", value("cleanup.policy"), err)
	}
	if err := alter(kadm.AppendConfig, "retention.ms", "7"); !errors.Is(err, kerr.InvalidConfig) {
		t.Errorf("appended to a number: %v", err)
	}
	if err := alter(kadm.DeleteConfig, "cleanup.policy", ""); err != nil || value("cleanup.policy") != "delete" {
		t.Errorf("deleted: %q, %v", value("cleanup.policy"), err)
	}
	if value("retention.ms") != "5000" {
		t.Errorf("another key changed: %q", value("retention.ms"))
	}
	if err := alter(kadm.SetConfig, "no.such.key", "1"); !errors.Is(err, kerr.InvalidConfig) {
		t.Errorf("unknown key: %v", err)
	}
}

// TestLeadershipIsMovedAndGivenBack: controlled shutdown, preferred election, reassignment.
func TestLeadershipIsMovedAndGivenBack(t *testing.T) {
	c := newTestCluster(t, 3, nil)
	client := c.client()
	admin := kadm.NewClient(client)
	ctx := t.Context()
	request := kmsg.NewPtrCreateTopicsRequest()
	request.TimeoutMillis = 20_000
	asked := kmsg.NewCreateTopicsRequestTopic()
	asked.Topic, asked.NumPartitions, asked.ReplicationFactor = "t", -1, -1
	asked.ReplicaAssignment = []kmsg.CreateTopicsRequestTopicReplicaAssignment{{Partition: 0, Replicas: []int32{2, 3}}}
	request.Topics = append(request.Topics, asked)
	if response, err := request.RequestWith(ctx, client); err != nil || response.Topics[0].ErrorCode != 0 {
		t.Fatalf("%+v, %v", response, err)
	}
	tp := cluster.TopicPartition{Topic: "t"}
	c.await("the leader", func(image *metadata.Image) bool { p, _ := image.Partition(tp); return p.Leader == 2 })
	results, err := admin.ElectLeaders(ctx, kadm.ElectPreferredReplica, kadm.TopicsSet{"t": {0: {}, 9: {}}})
	if err != nil || !errors.Is(results["t"][0].Err, kerr.ElectionNotNeeded) || !errors.Is(results["t"][9].Err, kerr.UnknownTopicOrPartition) {
		t.Errorf("elected: %+v, %v", results, err)
	}
	c.shutdown(2)
	c.await("the new leader", func(image *metadata.Image) bool {
		p, _ := image.Partition(tp)
		return p.Leader == 3 && slices.Equal(p.ISR, []cluster.BrokerID{3})
	})
	c.start(2)
	c.awaitAlive(3)
	produce := func() {
		t.Helper()
		if err := client.ProduceSync(ctx, &kgo.Record{Topic: "t", Value: []byte("x")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	produce()
	c.await("the ISR", func(image *metadata.Image) bool { p, _ := image.Partition(tp); return len(p.ISR) == 2 })
	results, err = admin.ElectLeaders(ctx, kadm.ElectPreferredReplica, kadm.TopicsSet{"t": {0: {}}})
	if err != nil || results["t"][0].Err != nil {
		t.Fatalf("elected: %+v, %v", results, err)
	}
	c.await("the old leader", func(image *metadata.Image) bool { p, _ := image.Partition(tp); return p.Leader == 2 })

	var moves kadm.AlterPartitionAssignmentsReq
	moves.Assign("t", 0, []int32{1, 3})
	moved, err := admin.AlterPartitionAssignments(ctx, moves)
	if err != nil || moved["t"][0].Err != nil {
		t.Fatalf("moved: %+v, %v", moved, err)
	}
	c.await("the move", func(image *metadata.Image) bool {
		p, _ := image.Partition(tp)
		return slices.Equal(p.Replicas, []cluster.BrokerID{1, 3}) && (p.Leader == 1 || p.Leader == 3) && len(p.ISR) == 2 && !slices.Contains(p.ISR, 2)
	})
	produce()
	if left, err := admin.ListPartitionReassignments(ctx, nil); err != nil || len(left) != 0 {
		t.Errorf("left: %+v, %v", left, err)
	}
	for deadline := time.Now().Add(20 * time.Second); c.brokers[2].replicas.Hosted(tp); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the removed replica is still there")
		}
	}
}

func TestDescribeClusterAndBrokers(t *testing.T) {
	c := newTestCluster(t, 2, nil)
	client := c.client()
	described := kmsg.NewPtrDescribeClusterRequest()
	response, err := described.RequestWith(t.Context(), client)
	if err != nil || response.ErrorCode != 0 || len(response.Brokers) != 2 || response.ClusterID != c.brokers[1].ClusterID() || response.ControllerID < 1 {
		t.Errorf("described %+v, %v", response, err)
	}
	described.EndpointType = 2
	if response, err := described.RequestWith(t.Context(), client); err != nil || response.ErrorCode != kerr.MismatchedEndpointType.Code {
		t.Errorf("described %+v, %v", response, err)
	}
	admin := kadm.NewClient(client)
	text := "4321"
	if answers, err := admin.AlterBrokerConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "log.retention.ms", Value: &text}}, 1); err != nil || answers[0].Err != nil {
		t.Fatalf("altered %+v, %v", answers, err)
	}
	if answers, err := admin.AlterBrokerConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "broker.id", Value: &text}}, 1); err != nil || !errors.Is(answers[0].Err, kerr.InvalidRequest) {
		t.Errorf("altered %+v, %v", answers, err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		configs, err := admin.DescribeBrokerConfigs(t.Context(), 1)
		if err != nil || configs[0].Err != nil {
			t.Fatalf("described %+v, %v", configs, err)
		}
		values := map[string]string{}
		for _, entry := range configs[0].Configs {
			values[entry.Key] = entry.MaybeValue()
		}
		if values["broker.id"] != strconv.Itoa(1) {
			t.Fatalf("broker.id %q", values["broker.id"])
		}
		if values["log.retention.ms"] == text {
			break // the change has come round
		}
		if time.Now().After(deadline) {
			t.Fatal("the change never came")
		}
	}
}
