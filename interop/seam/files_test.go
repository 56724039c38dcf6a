package seam

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/fleet"
	"understudy/internal/streaming/record"
	"understudy/interop/foreign"
)

// The topics of an archive, of one partition each.
const (
	codecsTopic       = "codecs"       // every codec, keys, headers, null values, many segments
	appendTimeTopic   = "append-time"  // message.timestamp.type=LogAppendTime
	sequencesTopic    = "sequences"    // one idempotent producer, its sequences chosen by the test
	transactionsTopic = "transactions" // committed and aborted; written by Apache's broker alone
	compactedTopic    = "compacted"    // compacted by Apache's broker, and written by it alone
	archiveGroup      = "archivists"
)

var archiveTopics = []string{codecsTopic, appendTimeTopic, sequencesTopic, transactionsTopic, compactedTopic}

// archive is one broker's directory under the two kinds of server in turn.
type archive struct {
	*stage
	node   *fleet.Node
	client *kgo.Client
	admin  *kadm.Client
	times  []int64 // one for each act, to look records up by
	// The idempotent producer: its id, and the sequence of its next batch.
	producerID int64
	sequence   int32
	lastBatch  record.Batch
	lastOffset int64
}

// TestFilesPassBetween hands one directory on: Apache writes it, we go on, Apache goes on, first
// after clean stops and then after kill -9. At each change everything reads as before it.
func TestFilesPassBetween(t *testing.T) {
	a := openArchive(t)
	a.write(t)
	a.transact(t)
	a.compact(t)
	a.deleteRecords(t)
	for _, change := range []struct {
		to   kind
		kill bool
	}{{ours, false}, {apache, false}, {ours, true}, {apache, true}} {
		before := a.fingerprint(t)
		how := "a clean stop"
		if change.kill {
			how = "kill -9"
			a.node.Kill()
		} else if err := a.node.Stop(limited(t)); err != nil {
			t.Fatal(err)
		}
		from := a.kinds[1]
		a.verifySegments(t, !change.kill)
		a.kinds[1] = change.to
		a.node.Use(a.program(change.to))
		a.restart(t, a.node)
		a.reconnect(t)
		a.awaitLeaders(t)
		after := a.fingerprint(t)
		if difference := differing(before, after); difference != "" {
			t.Fatalf("after %s, %s does not serve what %s did:\n%s", how, change.to, from, difference)
		}
		a.checkSequences(t)
		t.Logf("from %s to %s after %s: %d facts are the same", from, change.to, how, len(after))
		a.write(t)
	}
	if err := a.node.Stop(limited(t)); err != nil {
		t.Fatal(err)
	}
}

func openArchive(t *testing.T) *archive {
	a := &archive{stage: setUp(t, cast{coordinator: ours, coordinators: 1, brokers: []kind{apache},
		properties: map[string]string{"log.cleaner.backoff.ms": "100"}}), producerID: -1}
	a.node = a.Brokers[0]
	a.restart(t, a.node)
	a.reconnect(t)
	a.createTopics(t)
	a.awaitLeaders(t)
	return a
}

// reconnect begins a new client: the old one would retry on connections that are gone.
func (a *archive) reconnect(t *testing.T) {
	t.Helper()
	if a.client != nil {
		a.client.Close()
	}
	var err error
	a.client, err = kgo.NewClient(kgo.SeedBrokers(a.node.Addr), kgo.MetadataMinAge(10*time.Millisecond), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.client.Close)
	a.admin = kadm.NewClient(a.client)
}

// awaitLeaders waits for the controller's first word: until then a broker knows no topic.
func (a *archive) awaitLeaders(t *testing.T) {
	t.Helper()
	until(t, "every partition led", func() string {
		metadata, err := a.admin.Metadata(limited(t), archiveTopics...)
		if err != nil {
			return err.Error()
		}
		for _, topic := range metadata.Topics {
			if topic.Err != nil {
				return fmt.Sprintf("%s: %v", topic.Topic, topic.Err)
			}
			for _, partition := range topic.Partitions {
				if partition.Err != nil || partition.Leader != 1 {
					return fmt.Sprintf("%s-%d is led by %d, %v", topic.Topic, partition.Partition, partition.Leader, partition.Err)
				}
			}
		}
		return ""
	})
}

func (a *archive) createTopics(t *testing.T) {
	t.Helper()
	for topic, configs := range map[string]map[string]*string{
		codecsTopic: {
			"segment.bytes": kadm.StringPtr("65536"), "index.interval.bytes": kadm.StringPtr("1024"),
			"max.message.bytes": kadm.StringPtr("200000"), "retention.ms": kadm.StringPtr("86400000"),
		},
		appendTimeTopic:   {"message.timestamp.type": kadm.StringPtr("LogAppendTime"), "segment.bytes": kadm.StringPtr("65536")},
		sequencesTopic:    {"retention.bytes": kadm.StringPtr("1073741824")},
		transactionsTopic: {},
		compactedTopic: {
			"cleanup.policy": kadm.StringPtr("compact"), "segment.bytes": kadm.StringPtr("16384"), "min.cleanable.dirty.ratio": kadm.StringPtr("0.01"),
		},
	} {
		created, err := a.admin.CreateTopic(limited(t), 1, 1, configs, topic)
		if err = errors.Join(err, created.Err); err != nil {
			t.Fatalf("create %s: %v", topic, err)
		}
	}
}

// write is one act: it adds to every topic that both kinds can write.
func (a *archive) write(t *testing.T) {
	t.Helper()
	act := len(a.times)
	start := time.Now().Add(-time.Hour).Add(time.Duration(act) * time.Minute).Truncate(time.Millisecond)
	a.times = append(a.times, start.UnixMilli(), start.Add(200*time.Millisecond).UnixMilli())
	for _, codec := range []kgo.CompressionCodec{
		kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression(),
	} {
		a.writeWith(t, codec, act, start)
	}
	for range 3 {
		a.appendSequence(t)
	}
	a.commit(t, act)
}

// writeWith writes records in several batches with one codec.
func (a *archive) writeWith(t *testing.T, codec kgo.CompressionCodec, act int, start time.Time) {
	t.Helper()
	producer, err := kgo.NewClient(kgo.SeedBrokers(a.node.Addr), kgo.ProducerBatchCompression(codec),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(16<<10), kgo.ProducerLinger(2*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	for _, topic := range []string{codecsTopic, appendTimeTopic} {
		records := make([]*kgo.Record, 400)
		for i := range records {
			r := &kgo.Record{
				Topic: topic, Timestamp: start.Add(time.Duration(i) * time.Millisecond),
				Value: []byte(strings.Repeat(fmt.Sprintf("act %d line %d. ", act, i), 1+i%20)),
			}
			if i%3 == 0 {
				r.Key = fmt.Appendf(nil, "role %d", i%7)
				r.Headers = []kgo.RecordHeader{{Key: "act", Value: []byte{byte(act)}}, {Key: "nothing"}}
			}
			if i%50 == 9 {
				r.Key, r.Value = []byte("gone"), nil
			}
			records[i] = r
		}
		if err := producer.ProduceSync(limited(t), records...).FirstErr(); err != nil {
			t.Fatalf("write %s: %v", topic, err)
		}
	}
}

// request sends a request to the broker.
func (a *archive) request(t *testing.T, request kmsg.Request) kmsg.Response {
	t.Helper()
	response, err := a.client.Broker(1).RetriableRequest(limited(t), request)
	if err != nil {
		t.Fatalf("%s: %v", kmsg.NameForKey(request.Key()), err)
	}
	return response
}

// produceBatch sends one batch as it is and returns its base offset.
func (a *archive) produceBatch(t *testing.T, batch record.Batch) (int64, error) {
	t.Helper()
	request := kmsg.NewPtrProduceRequest()
	request.Acks, request.TimeoutMillis = -1, 10000
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic, topic.TopicID = sequencesTopic, a.topicID(t, sequencesTopic)
	partition := kmsg.NewProduceRequestTopicPartition()
	partition.Records = slices.Clone(batch)
	topic.Partitions = append(topic.Partitions, partition)
	request.Topics = append(request.Topics, topic)
	answer := a.request(t, request).(*kmsg.ProduceResponse).Topics[0].Partitions[0]
	return answer.BaseOffset, kerr.ErrorForCode(answer.ErrorCode)
}

func (a *archive) batch(t *testing.T, epoch int16, sequence int32) record.Batch {
	t.Helper()
	options := record.DefaultOptions()
	options.ProducerID, options.ProducerEpoch, options.BaseSequence = a.producerID, epoch, sequence
	builder := record.NewBuilder(options)
	for i := range 3 {
		builder.Append(time.Now().UnixMilli(), nil, fmt.Appendf(nil, "sequence %d", sequence+int32(i)))
	}
	batch, err := builder.Build()
	if err != nil {
		t.Fatal(err)
	}
	return batch
}

// appendSequence sends the producer's next batch.
func (a *archive) appendSequence(t *testing.T) {
	t.Helper()
	if a.producerID < 0 {
		answer := a.request(t, kmsg.NewPtrInitProducerIDRequest()).(*kmsg.InitProducerIDResponse)
		if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
			t.Fatal(err)
		}
		a.producerID = answer.ProducerID
		a.lastBatch = a.batch(t, 1, 0)
	} else {
		a.lastBatch = a.batch(t, 1, a.sequence)
	}
	offset, err := a.produceBatch(t, a.lastBatch)
	if err != nil {
		t.Fatalf("sequence %d of producer %d: %v", a.sequence, a.producerID, err)
	}
	a.lastOffset, a.sequence = offset, a.sequence+3
}

// checkSequences demands that the broker remembers the producer: a batch sent again is not
// stored again, a gap and an older epoch are refused.
func (a *archive) checkSequences(t *testing.T) {
	t.Helper()
	if offset, err := a.produceBatch(t, a.lastBatch); err != nil || offset != a.lastOffset {
		t.Fatalf("the last batch sent again: offset %d, %v; it stands at %d", offset, err, a.lastOffset)
	}
	if _, err := a.produceBatch(t, a.batch(t, 1, a.sequence+3)); !errors.Is(err, kerr.OutOfOrderSequenceNumber) {
		t.Fatalf("a gap in the sequence is answered %v", err)
	}
	if _, err := a.produceBatch(t, a.batch(t, 0, a.sequence)); !errors.Is(err, kerr.InvalidProducerEpoch) {
		t.Fatalf("an older epoch is answered %v", err)
	}
}

// transact writes two transactions that commit and, between them, one that aborts.
func (a *archive) transact(t *testing.T) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(a.node.Addr), kgo.TransactionalID("archive"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit} {
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			if err := client.ProduceSync(limited(t), &kgo.Record{Topic: transactionsTopic, Value: fmt.Appendf(nil, "%v %d", end, i)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		if err := client.EndTransaction(limited(t), end); err != nil {
			t.Fatal(err)
		}
	}
}

// compact writes the same keys again and again, some of them deleted at last, and waits until
// Apache's cleaner has been there: then the log has batches with holes, and empty ones.
func (a *archive) compact(t *testing.T) {
	t.Helper()
	for round := range 20 {
		records := make([]*kgo.Record, 40)
		for i := range records {
			r := &kgo.Record{Topic: compactedTopic, Key: fmt.Appendf(nil, "key %d", i), Value: []byte(strings.Repeat(fmt.Sprintf("round %d ", round), 10))}
			if round == 18 && i%4 == 0 || round > 0 && i%10 == 9 {
				r.Value = nil
			}
			records[i] = r
		}
		if err := a.client.ProduceSync(limited(t), records...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	data := filepath.Join(a.node.Dir(), "data")
	until(t, "the compaction", func() string {
		text, err := os.ReadFile(filepath.Join(data, "cleaner-offset-checkpoint"))
		if err != nil {
			return err.Error()
		}
		segments, err := filepath.Glob(filepath.Join(data, compactedTopic+"-0", "*.log"))
		if err != nil || len(segments) == 0 {
			return fmt.Sprintf("no segments: %v", err)
		}
		active, _ := strconv.Atoi(strings.TrimSuffix(filepath.Base(segments[len(segments)-1]), ".log"))
		if clean := fmt.Sprintf("%s 0 %d\n", compactedTopic, active); !strings.Contains(string(text), clean) {
			return fmt.Sprintf("cleaner-offset-checkpoint %q, wanted %q", text, clean)
		}
		return ""
	})
}

// deleteRecords moves a log's start, which only log-start-offset-checkpoint remembers.
func (a *archive) deleteRecords(t *testing.T) {
	t.Helper()
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: appendTimeTopic, At: 100})
	deleted, err := a.admin.DeleteRecords(limited(t), offsets)
	if err = errors.Join(err, deleted.Error()); err != nil {
		t.Fatal(err)
	}
}

// commit stores offsets of a group without members.
func (a *archive) commit(t *testing.T, act int) {
	t.Helper()
	offsets := kadm.Offsets{}
	for i, topic := range archiveTopics {
		offsets.Add(kadm.Offset{Topic: topic, At: int64(10*act + i), LeaderEpoch: int32(i - 1), Metadata: fmt.Sprintf("act %d", act)})
	}
	until(t, "the commit", func() string {
		if err := a.admin.CommitAllOffsets(limited(t), archiveGroup, offsets); err != nil {
			return err.Error()
		}
		return ""
	})
}

// fingerprint is everything that clients can read, one fact a line.
func (a *archive) fingerprint(t *testing.T) []string {
	t.Helper()
	var facts []string
	note := func(format string, args ...any) { facts = append(facts, fmt.Sprintf(format, args...)) }
	a.noteOffsets(t, note)
	a.noteConfigs(t, note)
	a.noteGroup(t, note)
	for _, topic := range archiveTopics {
		note("%s: id %x", topic, a.topicID(t, topic))
		a.noteEpochs(t, topic, note)
		for isolation := range int8(2) {
			a.noteRecords(t, topic, isolation, note)
		}
	}
	return facts
}

type noter func(format string, args ...any)

func (a *archive) topicID(t *testing.T, topic string) kadm.TopicID {
	t.Helper()
	metadata, err := a.admin.Metadata(limited(t), topic)
	if err != nil {
		t.Fatal(err)
	}
	return metadata.Topics[topic].ID
}

func (a *archive) noteOffsets(t *testing.T, note noter) {
	t.Helper()
	list := func(what string, get func(context.Context, ...string) (kadm.ListedOffsets, error)) {
		offsets, err := get(limited(t), archiveTopics...)
		if err = errors.Join(err, offsets.Error()); err != nil {
			t.Fatalf("list offsets, %s: %v", what, err)
		}
		for _, topic := range archiveTopics {
			// Apache takes the file time of a segment that compaction has emptied for the time of its
			// records, looks into it, and answers that there is nothing. We find the record.
			if topic == compactedTopic && strings.HasPrefix(what, "after") {
				continue
			}
			// The leader epoch of the start and the end is the leader's own in Kafka, and changes at each start.
			offset := offsets[topic][0]
			note("%s: %s is %d, timestamp %d", topic, what, offset.Offset, offset.Timestamp)
		}
	}
	list("the start", a.admin.ListStartOffsets)
	list("the end", a.admin.ListEndOffsets)
	list("the stable end", a.admin.ListCommittedOffsets)
	list("the latest timestamp", a.admin.ListMaxTimestampOffsets)
	for _, millis := range a.times {
		list(fmt.Sprintf("after %d", millis), func(ctx context.Context, topics ...string) (kadm.ListedOffsets, error) {
			return a.admin.ListOffsetsAfterMilli(ctx, millis, topics...)
		})
	}
}

// noteConfigs notes what was set for the topics, and not the defaults of the servers.
func (a *archive) noteConfigs(t *testing.T, note noter) {
	t.Helper()
	configs, err := a.admin.DescribeTopicConfigs(limited(t), archiveTopics...)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(configs, func(a, b kadm.ResourceConfig) int { return strings.Compare(a.Name, b.Name) })
	for _, resource := range configs {
		slices.SortFunc(resource.Configs, func(a, b kadm.Config) int { return strings.Compare(a.Key, b.Key) })
		for _, config := range resource.Configs {
			if config.Source == kmsg.ConfigSourceDynamicTopicConfig {
				note("%s: %s=%s", resource.Name, config.Key, *config.Value)
			}
		}
	}
}

func (a *archive) noteGroup(t *testing.T, note noter) {
	t.Helper()
	until(t, "the group's coordinator", func() string {
		groups, err := a.admin.DescribeGroups(limited(t), archiveGroup)
		if err = errors.Join(err, groups.Error()); err != nil {
			return err.Error()
		}
		note("group: %s, type %q", groups[archiveGroup].State, groups[archiveGroup].ProtocolType)
		return ""
	})
	offsets, err := a.admin.FetchOffsets(limited(t), archiveGroup)
	if err = errors.Join(err, offsets.Error()); err != nil {
		t.Fatal(err)
	}
	for _, topic := range archiveTopics {
		offset, found := offsets.Lookup(topic, 0)
		note("group: %s at %d, leader epoch %d, %q, %v", topic, offset.At, offset.LeaderEpoch, offset.Metadata, found)
	}
}

// noteEpochs notes where the leader epochs end that records of a later one follow. Those at the
// log's end are no fact to keep: an epoch that wrote nothing is forgotten by a recovery
// (LogLoader truncates the epochs at the log's end), sooner or later as the timing falls.
func (a *archive) noteEpochs(t *testing.T, topic string, note noter) {
	t.Helper()
	ends, err := a.admin.ListEndOffsets(limited(t), topic)
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup(topic, 0)
	acts := len(a.times) / 2
	for epoch := range int32(acts) {
		request := kmsg.NewPtrOffsetForLeaderEpochRequest()
		request.ReplicaID = -1
		wanted := kmsg.NewOffsetForLeaderEpochRequestTopic()
		wanted.Topic = topic
		partition := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		partition.LeaderEpoch, partition.CurrentLeaderEpoch = epoch, -1
		wanted.Partitions = append(wanted.Partitions, partition)
		request.Topics = append(request.Topics, wanted)
		answer := a.request(t, request).(*kmsg.OffsetForLeaderEpochResponse).Topics[0].Partitions[0]
		if answer.ErrorCode == 0 && (answer.EndOffset < 0 || answer.EndOffset >= end.Offset) {
			continue
		}
		note("%s: leader epoch %d ends as %d at %d, %v", topic, epoch, answer.LeaderEpoch, answer.EndOffset, kerr.ErrorForCode(answer.ErrorCode))
	}
}

// noteRecords notes each batch as it comes over the wire, by a hash over all of its bytes.
func (a *archive) noteRecords(t *testing.T, topic string, isolation int8, note noter) {
	t.Helper()
	starts, err := a.admin.ListStartOffsets(limited(t), topic)
	if err = errors.Join(err, starts.Error()); err != nil {
		t.Fatal(err)
	}
	start := starts[topic][0].Offset
	for offset := start; ; {
		request := kmsg.NewPtrFetchRequest()
		request.MinBytes, request.MaxBytes, request.IsolationLevel = 0, 1<<20, isolation
		request.SessionEpoch = -1
		wanted := kmsg.NewFetchRequestTopic()
		wanted.Topic, wanted.TopicID = topic, a.topicID(t, topic)
		partition := kmsg.NewFetchRequestTopicPartition()
		partition.FetchOffset, partition.PartitionMaxBytes = offset, 1<<20
		wanted.Partitions = append(wanted.Partitions, partition)
		request.Topics = append(request.Topics, wanted)
		response := a.request(t, request).(*kmsg.FetchResponse)
		if err := kerr.ErrorForCode(response.ErrorCode); err != nil {
			t.Fatal(err)
		}
		answer := response.Topics[0].Partitions[0]
		if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
			t.Fatalf("fetch %s from %d: %v", topic, offset, err)
		}
		if offset == start {
			note("%s: isolation %d: high watermark %d, stable %d, start %d, aborted %v",
				topic, isolation, answer.HighWatermark, answer.LastStableOffset, answer.LogStartOffset, aborted(answer))
		}
		next := noteBatches(topic, isolation, answer.RecordBatches, note)
		if next == 0 {
			return
		}
		offset = next
	}
}

func aborted(answer kmsg.FetchResponseTopicPartition) []string {
	var texts []string
	for _, transaction := range answer.AbortedTransactions {
		texts = append(texts, fmt.Sprintf("%d from %d", transaction.ProducerID, transaction.FirstOffset))
	}
	return texts
}

// noteBatches walks whole batches and returns the offset behind the last, 0 without one.
func noteBatches(topic string, isolation int8, data []byte, note noter) (next int64) {
	for len(data) >= record.HeaderSize {
		size := 12 + int(binary.BigEndian.Uint32(data[8:]))
		if size > len(data) {
			break
		}
		batch := record.Batch(data[:size])
		note("%s: isolation %d: offsets %d to %d, epoch %d, codec %v, sum %x",
			topic, isolation, batch.BaseOffset(), batch.LastOffset(), batch.LeaderEpoch(), batch.Codec(), sha256.Sum256(batch))
		next, data = int64(batch.NextOffset()), data[size:]
	}
	return next
}

// differing returns the first facts that differ.
func differing(before, after []string) string {
	var text strings.Builder
	for i := range max(len(before), len(after)) {
		was, is := "nothing", "nothing"
		if i < len(before) {
			was = before[i]
		}
		if i < len(after) {
			is = after[i]
		}
		if was != is && strings.Count(text.String(), "\n") < 20 {
			fmt.Fprintf(&text, "before: %s\n after: %s\n", was, is)
		}
	}
	return text.String()
}

// verifySegments has kafka-dump-log read every segment, and its indexes after a clean stop.
func (a *archive) verifySegments(t *testing.T, clean bool) {
	t.Helper()
	verifySegments(t, filepath.Join(a.node.Dir(), "data"), append(slices.Clone(archiveTopics), "__consumer_offsets"), clean)
}

func verifySegments(t *testing.T, dir string, topics []string, clean bool) {
	t.Helper()
	var logs, indexes []string
	for _, topic := range topics {
		for _, pattern := range []string{"*.log", "*.index", "*.timeindex", "*.txnindex", "*.snapshot"} {
			found, err := filepath.Glob(filepath.Join(dir, topic+"-*", pattern))
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range found {
				switch {
				case pattern == "*.log" || pattern == "*.snapshot" || pattern == "*.txnindex":
					logs = append(logs, file)
				case notEmpty(file):
					indexes = append(indexes, file)
				}
			}
		}
	}
	if len(logs) == 0 || len(indexes) == 0 {
		t.Fatalf("no segments below %s", dir)
	}
	dumpLog(t, logs, "--deep-iteration", "--print-data-log")
	if clean {
		dumpLog(t, indexes, "--index-sanity-check")
		dumpLog(t, indexes, "--verify-index-only")
	}
}

// An empty index has nothing to check, and kafka-dump-log cannot map an empty file.
func notEmpty(file string) bool {
	info, err := os.Stat(file)
	return err == nil && info.Size() > 0
}

// dumpLog runs kafka-dump-log and demands that it finds nothing wrong.
func dumpLog(t *testing.T, files []string, flags ...string) {
	t.Helper()
	text := output(t, foreign.KafkaTool(limited(t), t, foreign.Kafka39, "kafka-dump-log", append([]string{"--files", strings.Join(files, ",")}, flags...)...))
	for line := range strings.Lines(text) {
		for _, complaint := range []string{"isvalid: false", "Mismatches in", "Non-consecutive offsets", "timestamp mismatch", "out of order timestamp", "failed", "Exception", "corrupt", "invalid"} {
			if strings.Contains(line, complaint) && !strings.Contains(line, "payload: ") {
				t.Errorf("kafka-dump-log %s: %s", strings.Join(flags, " "), line)
			}
		}
	}
}
