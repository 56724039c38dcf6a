package seam

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/interop/foreign"
)

// rackSelector has consumers read from a replica of their rack.
const rackSelector = "org.apache.kafka.common.replica.RackAwareReplicaSelector"

// setRacks puts each broker into a rack of its own, rack-1 and so on.
func (s *stage) setRacks(t *testing.T) {
	t.Helper()
	for _, node := range s.Brokers {
		file, err := os.OpenFile(filepath.Join(node.Dir(), "server.properties"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = fmt.Fprintf(file, "broker.rack=rack-%d\n", node.ID)
		if err := errors.Join(err, file.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// servedBy counts the records that a consumer got, by partition and broker.
type servedBy struct {
	mu    sync.Mutex
	count map[int32]map[int32]int
}

func (b *servedBy) OnFetchBatchRead(broker kgo.BrokerMetadata, _ string, partition int32, metrics kgo.FetchBatchMetrics) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.count[partition] == nil {
		b.count[partition] = map[int32]int{}
	}
	b.count[partition][broker.NodeID] += metrics.NumRecords
}

// readInRacks reads everything once in each rack, and demands that it comes from there where
// there is a replica: leaders of each kind send consumers to followers of each kind.
func (s *stage) readInRacks(t *testing.T) {
	t.Helper()
	metadata, err := s.admin.Metadata(limited(t), topic)
	if err != nil {
		t.Fatal(err)
	}
	ends, err := s.admin.ListEndOffsets(limited(t), topic)
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range s.Brokers {
		served := &servedBy{count: map[int32]map[int32]int{}}
		consumer, err := kgo.NewClient(kgo.SeedBrokers(s.Bootstrap()...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
			kgo.Rack(fmt.Sprintf("rack-%d", node.ID)), kgo.WithHooks(served))
		if err != nil {
			t.Fatal(err)
		}
		next := map[int32]int64{}
		ctx := limited(t)
		for short := true; short; {
			fetches := consumer.PollFetches(ctx)
			if ctx.Err() != nil {
				t.Fatalf("in rack-%d: at %v of %v", node.ID, next, ends)
			}
			fetches.EachRecord(func(record *kgo.Record) {
				if record.Offset != next[record.Partition] {
					t.Errorf("in rack-%d: partition %d goes on at offset %d, want %d", node.ID, record.Partition, record.Offset, next[record.Partition])
				}
				next[record.Partition] = record.Offset + 1
			})
			short = false
			ends.Each(func(end kadm.ListedOffset) { short = short || next[end.Partition] < end.Offset })
		}
		consumer.Close()
		sent := map[kind]int{}
		for _, partition := range metadata.Topics[topic].Partitions {
			if !slices.Contains(partition.Replicas, int32(node.ID)) {
				continue
			}
			if by := slices.Collect(maps.Keys(served.count[partition.Partition])); !slices.Equal(by, []int32{int32(node.ID)}) {
				t.Errorf("in rack-%d: partition %d, led by broker %d (%s), was read from %v", node.ID, partition.Partition, partition.Leader, s.kinds[int(partition.Leader)], by)
			}
			if partition.Leader != int32(node.ID) {
				sent[s.kinds[int(partition.Leader)]]++
			}
		}
		if len(sent) == 0 {
			t.Errorf("no leader had to send a consumer to broker %d", node.ID)
		}
		t.Logf("broker %d (%s) served followed partitions, by the leader's kind: %v", node.ID, s.kinds[node.ID], sent)
	}
}

// javaReadsInRack has Kafka's console consumer read everything in a broker's rack.
func (s *stage) javaReadsInRack(t *testing.T, broker int) {
	t.Helper()
	ends, err := s.admin.ListEndOffsets(limited(t), topic)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	ends.Each(func(end kadm.ListedOffset) { count += int(end.Offset) })
	const settings = `log4j.rootLogger=WARN,out
log4j.logger.org.apache.kafka.clients.consumer.internals=DEBUG
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.target=System.err
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%m%n
`
	file := filepath.Join(t.TempDir(), "log4j.properties")
	if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	command := foreign.KafkaTool(limited(t), t, foreign.Kafka39, "kafka-console-consumer", "--bootstrap-server", s.broker(broker).Addr, "--topic", topic,
		"--from-beginning", "--max-messages", fmt.Sprint(count), "--consumer-property", fmt.Sprintf("client.rack=rack-%d", broker))
	for i, arg := range command.Args {
		if strings.HasPrefix(arg, "-Dlog4j.configuration=") {
			command.Args[i] = "-Dlog4j.configuration=file:" + file
		}
	}
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		t.Fatalf("kafka-console-consumer: %v\n%s", err, clip(stderr.String()))
	}
	if lines := strings.Count(stdout.String(), "\n"); lines != count {
		t.Errorf("kafka-console-consumer printed %d records, want %d", lines, count)
	}
	if !strings.Contains(stderr.String(), fmt.Sprintf(" to %d, set to expire at", broker)) {
		t.Errorf("kafka-console-consumer was not sent to broker %d:\n%s", broker, clip(stderr.String()))
	}
}

// deleteRecords deletes a part of every partition, and all of the first; each replica has
// followed when the answer is there.
func (s *stage) deleteRecords(t *testing.T) {
	t.Helper()
	ends, err := s.admin.ListEndOffsets(limited(t), topic)
	if err != nil {
		t.Fatal(err)
	}
	wanted := kadm.Offsets{}
	ends.Each(func(end kadm.ListedOffset) {
		before := end.Offset / 2
		if end.Partition == 0 {
			before = -1
		}
		wanted.AddOffset(topic, end.Partition, before, -1)
	})
	deleted, err := s.admin.DeleteRecords(limited(t), wanted)
	if err != nil {
		t.Fatal(err)
	}
	metadata, err := s.admin.Metadata(limited(t), topic)
	if err != nil {
		t.Fatal(err)
	}
	ends.Each(func(end kadm.ListedOffset) {
		want := end.Offset / 2
		if end.Partition == 0 {
			want = end.Offset
		}
		if answer, _ := deleted.Lookup(topic, end.Partition); answer.Err != nil || answer.LowWatermark != want {
			t.Errorf("partition %d before %d: %+v", end.Partition, want, answer)
		}
		for _, replica := range metadata.Topics[topic].Partitions[end.Partition].Replicas {
			request := kmsg.NewPtrFetchRequest()
			request.SessionEpoch, request.MaxBytes = -1, 1
			asked := kmsg.NewFetchRequestTopic()
			asked.Topic, asked.TopicID = topic, metadata.Topics[topic].ID
			partition := kmsg.NewFetchRequestTopicPartition()
			partition.Partition, partition.CurrentLeaderEpoch, partition.FetchOffset, partition.PartitionMaxBytes = end.Partition, -1, want-1, 1
			asked.Partitions = append(asked.Partitions, partition)
			request.Topics = append(request.Topics, asked)
			if got := s.ask(t, int(replica), request).(*kmsg.FetchResponse).Topics[0].Partitions[0]; got.ErrorCode != kerr.OffsetOutOfRange.Code {
				t.Errorf("broker %d (%s) still has offset %d of partition %d: error code %d", replica, s.kinds[int(replica)], want-1, end.Partition, got.ErrorCode)
			}
		}
	})
}
