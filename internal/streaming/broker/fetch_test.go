package broker

import (
	"bytes"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/config"
	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/replication"
	"understudy/internal/streaming/wire"
)

// memorySlice stands for a slice of a segment.
type memorySlice struct {
	data   []byte
	err    error
	closed int
}

func (s *memorySlice) Size() int { return len(s.data) }
func (s *memorySlice) AppendTo(dst []byte) ([]byte, error) {
	return append(dst, s.data...), s.err
}
func (s *memorySlice) SendTo(conn net.Conn) (int64, error) {
	n, err := conn.Write(s.data)
	return int64(n), err
}
func (s *memorySlice) Close() error { s.closed++; return nil }

// send writes a body to a connection and returns what arrives.
func send(t *testing.T, body *fetchBody, prefix string) []byte {
	t.Helper()
	us, them := net.Pipe()
	size := body.Size()
	go func() {
		sent, err := body.WriteTo(us, []byte(prefix))
		if err != nil || sent != int64(len(prefix)+size) {
			t.Errorf("sent %d of %d: %v", sent, len(prefix)+size, err)
		}
		body.Release()
		_ = us.Close()
	}()
	var got bytes.Buffer
	_, _ = got.ReadFrom(them)
	if !bytes.HasPrefix(got.Bytes(), []byte(prefix)) {
		t.Fatalf("prefix missing in % x", got.Bytes())
	}
	return got.Bytes()[len(prefix):]
}

// What the gather encoder writes is what kmsg reads, in every version.
func TestFetchEncodingAgainstKmsg(t *testing.T) {
	id := cluster.TopicID{1, 2, 3}
	for version := int16(4); version <= 17; version++ {
		b := New(Config{Broker: &config.Broker{}})
		b.metadata.ApplyUpdateMetadata(oneBroker(5))
		small, large := bytes.Repeat([]byte{7}, 100), bytes.Repeat([]byte{9}, copiedSliceBytes+1)
		f := &fetch{b: b, version: version, context: &fetchContext{}, image: b.metadata.Image(), request: &wire.Request{Version: version, Listener: "PLAINTEXT"}}
		partition := func(topic string, number int32) *fetchPartition {
			p := &fetchPartition{}
			p.part.TP = cluster.TopicPartition{Topic: topic, Partition: number}
			if version >= 13 {
				p.part.TopicID = id
				p.part.TopicID[15] = topic[0]
			}
			return p
		}
		body := newFetchBody()
		f.encode(body, []fetched{
			{partition: partition("a", 0), result: replication.FetchResult{HighWatermark: 10, LastStableOffset: 9, LogStartOffset: 1}, records: &memorySlice{data: small}},
			{partition: partition("a", 1), result: replication.FetchResult{HighWatermark: 20}, records: &memorySlice{data: large}},
			{partition: partition("b", 2), result: replication.FetchResult{Err: kerr.NotLeaderForPartition, HighWatermark: -1, LastStableOffset: -1, LogStartOffset: -1, Leader: replication.LeaderHint{Leader: 5, Epoch: 3}}},
			{partition: partition("b", 3), result: replication.FetchResult{Diverging: &replication.DivergingEpoch{Epoch: 4, EndOffset: 44}}},
			{partition: partition("b", 4), records: &memorySlice{data: small, err: errors.New("on purpose")}},
		})
		raw := send(t, body, "prefix")
		response := kmsg.NewPtrFetchResponse()
		response.SetVersion(version)
		if err := response.ReadFrom(raw); err != nil {
			t.Fatalf("version %d: %v", version, err)
		}
		if again := response.AppendTo(nil); !bytes.Equal(again, raw) {
			t.Errorf("version %d: kmsg encodes what it read in another way\n% x\n% x", version, again[:50], raw[:50])
		}
		if len(response.Topics) != 2 || len(response.Topics[0].Partitions) != 2 || len(response.Topics[1].Partitions) != 3 {
			t.Fatalf("version %d: %+v", version, response.Topics)
		}
		first, second := response.Topics[0].Partitions, response.Topics[1].Partitions
		if !bytes.Equal(first[0].RecordBatches, small) || !bytes.Equal(first[1].RecordBatches, large) || first[0].HighWatermark != 10 {
			t.Errorf("version %d: records or offsets are wrong", version)
		}
		if second[0].ErrorCode != kerr.NotLeaderForPartition.Code || second[2].ErrorCode != kerr.KafkaStorageError.Code {
			t.Errorf("version %d: errors %d, %d", version, second[0].ErrorCode, second[2].ErrorCode)
		}
		if version >= 12 && second[1].DivergingEpoch.EndOffset != 44 {
			t.Errorf("version %d: diverging epoch %+v", version, second[1].DivergingEpoch)
		}
		if hinted := version >= 16; hinted != (len(response.Brokers) == 1) || hinted != (second[0].CurrentLeader.LeaderID == 5) {
			t.Errorf("version %d: leader %+v, brokers %v", version, second[0].CurrentLeader, response.Brokers)
		}
	}
}

func oneBroker(id int32) *kmsg.UpdateMetadataRequest {
	request := kmsg.NewPtrUpdateMetadataRequest()
	request.SetVersion(8)
	broker := kmsg.NewUpdateMetadataRequestLiveBroker()
	broker.ID = id
	endpoint := kmsg.NewUpdateMetadataRequestLiveBrokerEndpoint()
	endpoint.Host, endpoint.Port, endpoint.ListenerName = "host", 9092, "PLAINTEXT"
	broker.Endpoints = append(broker.Endpoints, endpoint)
	request.LiveBrokers = append(request.LiveBrokers, broker)
	return request
}

func fetchOf(sessionID, epoch int32, partitions ...int32) *kmsg.FetchRequest {
	request := kmsg.NewPtrFetchRequest()
	request.SetVersion(12)
	request.SessionID, request.SessionEpoch = sessionID, epoch
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic = "t"
	for _, number := range partitions {
		partition := kmsg.NewFetchRequestTopicPartition()
		partition.Partition = number
		topic.Partitions = append(topic.Partitions, partition)
	}
	if len(partitions) > 0 {
		request.Topics = append(request.Topics, topic)
	}
	return request
}

func numbers(context *fetchContext) (out []int32) {
	for _, partition := range context.partitions {
		out = append(out, partition.part.TP.Partition)
	}
	return out
}

func TestFetchSessions(t *testing.T) {
	now := time.Unix(1000, 0)
	table := newFetchSessions(2)
	open := func(request *kmsg.FetchRequest, want error) *fetchContext {
		t.Helper()
		context, err := table.open(12, request, false, now)
		if !errors.Is(err, want) {
			t.Fatalf("err = %v, want %v", err, want)
		}
		return context
	}
	if context := open(fetchOf(0, -1, 0), nil); context.sessionID() != 0 {
		t.Fatal("a session that nobody asked for")
	}
	full := open(fetchOf(0, 0, 0, 1), nil)
	id := full.sessionID()
	if id == 0 || full.incremental {
		t.Fatalf("no session: %+v", full)
	}
	for _, p := range full.partitions {
		if !full.news(p, &replication.FetchResult{HighWatermark: 5}) {
			t.Fatal("a full answer must hold everything")
		}
	}
	next := open(fetchOf(id, 1), nil)
	if got := numbers(next); len(got) != 2 {
		t.Fatalf("session holds %v", got)
	}
	for i, p := range next.partitions {
		result := &replication.FetchResult{HighWatermark: 5 + cluster.Offset(i)}
		if next.news(p, result) != (i == 1) {
			t.Fatalf("partition %d: wrong about its news", i)
		}
	}
	open(fetchOf(id, 1), kerr.InvalidFetchSessionEpoch)
	open(fetchOf(12345, 1), kerr.FetchSessionIDNotFound)

	added := fetchOf(id, 2, 7)
	forgotten := kmsg.NewFetchRequestForgottenTopic()
	forgotten.Topic, forgotten.Partitions = "t", []int32{0, 1}
	added.ForgottenTopics = append(added.ForgottenTopics, forgotten)
	if got := numbers(open(added, nil)); len(got) != 1 || got[0] != 7 {
		t.Fatalf("session holds %v", got)
	}
	// An error is news each time, and so is what comes after it.
	context := open(fetchOf(id, 3), nil)
	for _, result := range []*replication.FetchResult{{Err: kerr.NotLeaderForPartition}, {Err: kerr.NotLeaderForPartition}, {HighWatermark: 0}} {
		if !context.news(context.partitions[0], result) {
			t.Fatalf("%+v is news", result)
		}
	}
	if context.news(context.partitions[0], &replication.FetchResult{}) {
		t.Fatal("no news was called news")
	}
	// The last partition forgotten ends the session.
	last := fetchOf(id, 4)
	last.ForgottenTopics = []kmsg.FetchRequestForgottenTopic{{Topic: "t", Partitions: []int32{7}}}
	if context := open(last, nil); context.sessionID() != 0 || len(context.partitions) != 0 {
		t.Fatalf("%+v", context)
	}
	open(fetchOf(id, 5), kerr.FetchSessionIDNotFound)
}

func TestFetchSessionEviction(t *testing.T) {
	now := time.Unix(1000, 0)
	table := newFetchSessions(1)
	first := table.add(false, false, now)
	if first == nil || table.add(false, false, now.Add(time.Minute)) != nil {
		t.Fatal("the bound does not hold")
	}
	if table.add(true, false, now.Add(time.Minute)) == nil || table.find(first.id, now) != nil {
		t.Fatal("a follower did not get a consumer's place")
	}
	if table.add(true, false, now.Add(time.Minute)) != nil {
		t.Fatal("a follower got another's place")
	}
	if table.add(false, false, now.Add(time.Hour)) == nil {
		t.Fatal("an idle session was not evicted")
	}
}
