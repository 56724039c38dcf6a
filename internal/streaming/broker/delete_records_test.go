package broker

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
)

// TestDeleteRecords asks for what is there, gone, in the future and nowhere, and looks at every
// replica once the answer is there.
func TestDeleteRecords(t *testing.T) {
	c := newTestCluster(t, 3, nil)
	c.createTopic("t", 1, 3, nil)
	policy := "compact"
	c.createTopic("compacted", 1, 1, map[string]*string{"cleanup.policy": &policy})
	tp := cluster.TopicPartition{Topic: "t"}
	client := c.client(kgo.DefaultProduceTopic("t"), kgo.ProducerBatchMaxBytes(1000))
	for i := range 5 {
		if err := client.ProduceSync(t.Context(), kgo.StringRecord(fmt.Sprint(i))).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(version int16, topic string, offset int64) string {
		t.Helper()
		request := kmsg.NewPtrDeleteRecordsRequest()
		request.TimeoutMillis = 60_000
		one := kmsg.NewDeleteRecordsRequestTopic()
		one.Topic = topic
		partition := kmsg.NewDeleteRecordsRequestTopicPartition()
		partition.Offset = offset
		one.Partitions = append(one.Partitions, partition)
		request.Topics = append(request.Topics, one)
		request.SetVersion(version)
		id := 1
		if state, found := c.brokers[1].metadata.Image().Partition(cluster.TopicPartition{Topic: topic}); found {
			id = int(state.Leader)
		}
		response, err := client.Broker(id).Request(t.Context(), pinned{request})
		if err != nil {
			t.Fatal(err)
		}
		answer := response.(*kmsg.DeleteRecordsResponse).Topics[0].Partitions[0]
		return fmt.Sprint(answer.ErrorCode, " ", answer.LowWatermark)
	}
	for version, step := range []struct {
		topic string
		at    int64
		want  string
		start cluster.Offset
	}{
		{"t", 2, "0 2", 2}, {"t", 1, "0 2", 2}, {"t", -1, "0 5", 5}, {"t", 6, "1 -1", 5}, {"t", -2, "1 -1", 5},
		{"nowhere", 1, "3 -1", 5}, {"compacted", 0, "44 -1", 5}, {"__consumer_offsets", 0, "3 -1", 5},
	} {
		if got := ask(int16(version%3), step.topic, step.at); got != step.want {
			t.Errorf("%s before %d: %s, want %s", step.topic, step.at, got, step.want)
		}
		for id, broker := range c.brokers {
			if start := broker.logs.Get(tp).StartOffset(); start != step.start {
				t.Errorf("after %s before %d: the log of broker %d starts at %d, want %d", step.topic, step.at, id, start, step.start)
			}
		}
	}
}
