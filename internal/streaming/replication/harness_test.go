package replication

import (
	"context"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/commitlog"
	"understudy/internal/streaming/metadata"
	"understudy/internal/streaming/record"
	"understudy/internal/streaming/wire"
)

// testCluster is a few managers that reach each other over loopback, with a controller that
// is a script: the test elects, the controller tells everybody and commits ISR changes.
type testCluster struct {
	t       testing.TB
	brokers map[cluster.BrokerID]*testBroker
	logger  *slog.Logger
	config  func(*Config)
	topic   commitlog.LogConfig

	mu       sync.Mutex
	states   map[cluster.TopicPartition]*cluster.PartitionState
	replicas map[cluster.TopicPartition][]cluster.BrokerID
	refuse   error         // what AlterPartition is answered, if not nil
	altered  chan struct{} // a token per committed ISR change
}

type testBroker struct {
	id       cluster.BrokerID
	dir      string
	epoch    cluster.BrokerEpoch
	logs     *commitlog.Manager
	metadata *metadata.Cache
	manager  *Manager
	server   *wire.Server
	address  *net.TCPAddr
	sessions testSessions
	alive    bool
}

var testTopicID = cluster.TopicID{1, 2, 3, 4, 15: 7}

func newTestCluster(t testing.TB, count int, config func(*Config)) *testCluster {
	t.Helper()
	c := &testCluster{
		t: t, brokers: map[cluster.BrokerID]*testBroker{}, config: config,
		states: map[cluster.TopicPartition]*cluster.PartitionState{}, replicas: map[cluster.TopicPartition][]cluster.BrokerID{},
		altered: make(chan struct{}, 1000), topic: commitlog.DefaultLogConfig(),
		logger: slog.New(slog.DiscardHandler),
	}
	if os.Getenv("UNDERSTUDY_TEST_LOG") != "" {
		c.logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	for id := cluster.BrokerID(1); id <= cluster.BrokerID(count); id++ {
		b := &testBroker{id: id, dir: t.TempDir(), epoch: cluster.BrokerEpoch(100 * id)}
		c.brokers[id] = b
		c.start(b)
	}
	c.publish()
	t.Cleanup(func() {
		for _, b := range c.brokers {
			c.kill(b.id)
		}
	})
	return c
}

func (c *testCluster) start(b *testBroker) {
	c.t.Helper()
	logs, err := commitlog.Open(commitlog.Config{Dirs: []string{b.dir}, ClusterID: "test", BrokerID: b.id, Logger: c.logger})
	if err != nil {
		c.t.Fatal(err)
	}
	b.logs, b.metadata, b.alive = logs, metadata.New(), true
	config := Config{
		Self: b.id, Logs: logs, Metadata: b.metadata, Logger: c.logger.With("broker", b.id),
		Epoch:       func() cluster.BrokerEpoch { return b.epoch },
		TopicConfig: func(string) (commitlog.LogConfig, error) { return c.topic, nil },
	}
	if c.config != nil {
		c.config(&config)
	}
	b.manager = New(config)
	b.sessions.byID = map[int32]*testSession{}
	b.server = wire.NewServer(wire.ServerOptions{})
	b.server.Handle(1, 12, 17, b.handleFetch)
	b.server.Handle(2, 5, 9, b.handleListOffsets)
	b.server.Handle(18, 0, 3, b.handleAPIVersions)
	b.server.Handle(56, 0, 3, c.handleAlterPartition)
	address := "127.0.0.1:0"
	listener, err := net.Listen("tcp", address)
	if err != nil {
		c.t.Fatal(err)
	}
	b.address = listener.Addr().(*net.TCPAddr)
	b.server.Serve(listener, "PLAINTEXT")
	b.server.Enable()
}

// kill stops a broker without a clean shutdown of its logs.
func (c *testCluster) kill(id cluster.BrokerID) {
	b := c.brokers[id]
	if !b.alive {
		return
	}
	b.alive = false
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // killed: nothing is answered any more
	b.manager.Close()
	_ = b.server.Close(ctx)
	_ = b.logs.Close(false)
}

func (c *testCluster) restart(id cluster.BrokerID) {
	b := c.brokers[id]
	b.epoch++
	c.start(b)
	c.publish()
}

// publish sends everybody the live brokers; broker 1, or the next alive, is the controller.
func (c *testCluster) publish() {
	request := kmsg.NewPtrUpdateMetadataRequest()
	request.SetVersion(8)
	request.ControllerID = -1
	for id := cluster.BrokerID(1); int(id) <= len(c.brokers); id++ {
		b := c.brokers[id]
		if !b.alive {
			continue
		}
		if request.ControllerID < 0 {
			request.ControllerID = int32(id)
		}
		live := kmsg.NewUpdateMetadataRequestLiveBroker()
		live.ID = int32(id)
		endpoint := kmsg.NewUpdateMetadataRequestLiveBrokerEndpoint()
		endpoint.Host, endpoint.Port, endpoint.ListenerName = "127.0.0.1", int32(b.address.Port), "PLAINTEXT"
		live.Endpoints = append(live.Endpoints, endpoint)
		request.LiveBrokers = append(request.LiveBrokers, live)
	}
	for _, b := range c.brokers {
		if b.alive {
			b.metadata.ApplyUpdateMetadata(request)
		}
	}
}

// elect commits a leader and an ISR and tells the brokers named, or all that are alive.
func (c *testCluster) elect(tp cluster.TopicPartition, leader cluster.BrokerID, isr []cluster.BrokerID, tell ...cluster.BrokerID) {
	c.t.Helper()
	c.mu.Lock()
	state := c.states[tp]
	if state == nil {
		state = &cluster.PartitionState{LeaderEpoch: -1}
		c.states[tp] = state
		c.replicas[tp] = slices.Clone(isr)
	}
	state.Leader, state.ISR = leader, slices.Clone(isr)
	state.LeaderEpoch++
	state.PartitionEpoch++
	c.mu.Unlock()
	if len(tell) == 0 {
		tell = []cluster.BrokerID{leader} // first, as the controller does
		for id := range c.brokers {
			if id != leader {
				tell = append(tell, id)
			}
		}
	}
	for _, id := range tell {
		if c.brokers[id].alive {
			c.tell(id, tp)
		}
	}
}

// tell sends one broker LeaderAndIsr for partitions as they stand.
func (c *testCluster) tell(id cluster.BrokerID, tps ...cluster.TopicPartition) *kmsg.LeaderAndISRResponse {
	b := c.brokers[id]
	request := c.leaderAndISR(b.epoch, tps...)
	return b.manager.LeaderAndISR(request)
}

func (c *testCluster) leaderAndISR(epoch cluster.BrokerEpoch, tps ...cluster.TopicPartition) *kmsg.LeaderAndISRRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	request := kmsg.NewPtrLeaderAndISRRequest()
	request.SetVersion(7)
	request.ControllerEpoch, request.BrokerEpoch = 1, int64(epoch)
	for _, tp := range tps {
		state := c.states[tp]
		partition := kmsg.NewLeaderAndISRRequestTopicPartition()
		partition.Partition = tp.Partition
		partition.Leader, partition.LeaderEpoch = int32(state.Leader), int32(state.LeaderEpoch)
		partition.ZKVersion = int32(state.PartitionEpoch)
		partition.ISR, partition.Replicas = plain(state.ISR), plain(c.replicas[tp])
		partition.IsNew = true
		topic := kmsg.NewLeaderAndISRRequestTopicState()
		topic.Topic, topic.TopicID = tp.Topic, testTopicID
		topic.PartitionStates = append(topic.PartitionStates, partition)
		request.TopicStates = append(request.TopicStates, topic)
	}
	return request
}

func plain(ids []cluster.BrokerID) []int32 {
	out := make([]int32, len(ids))
	for i, id := range ids {
		out[i] = int32(id)
	}
	return out
}

func (c *testCluster) handleAlterPartition(request *wire.Request) {
	body := request.Body.(*kmsg.AlterPartitionRequest)
	response := kmsg.NewPtrAlterPartitionResponse()
	committed := 0
	c.mu.Lock()
	for _, topic := range body.Topics {
		answer := kmsg.NewAlterPartitionResponseTopic()
		answer.TopidID = topic.TopicID
		for _, part := range topic.Partitions {
			entry := kmsg.NewAlterPartitionResponseTopicPartition()
			entry.Partition = part.Partition
			for tp, state := range c.states {
				if tp.Partition != part.Partition {
					continue
				}
				switch {
				case c.refuse != nil:
					entry.ErrorCode = errorCode(c.refuse)
				case cluster.LeaderEpoch(part.LeaderEpoch) != state.LeaderEpoch:
					entry.ErrorCode = kerr.FencedLeaderEpoch.Code
				case cluster.PartitionEpoch(part.PartitionEpoch) != state.PartitionEpoch:
					entry.ErrorCode = kerr.InvalidUpdateVersion.Code
				default:
					state.ISR = nil
					for _, member := range part.NewEpochISR {
						state.ISR = append(state.ISR, cluster.BrokerID(member.BrokerID))
					}
					state.PartitionEpoch++
					committed++
				}
				entry.LeaderID, entry.LeaderEpoch = int32(state.Leader), int32(state.LeaderEpoch)
				entry.ISR, entry.PartitionEpoch = plain(state.ISR), int32(state.PartitionEpoch)
			}
			answer.Partitions = append(answer.Partitions, entry)
		}
		response.Topics = append(response.Topics, answer)
	}
	c.mu.Unlock()
	request.Reply(response)
	for range committed {
		c.altered <- struct{}{}
	}
}

func (b *testBroker) handleAPIVersions(request *wire.Request) {
	response := kmsg.NewPtrApiVersionsResponse()
	for _, api := range b.server.APIs() {
		key := kmsg.NewApiVersionsResponseApiKey()
		key.ApiKey, key.MinVersion, key.MaxVersion = api.Key, api.Min, api.Max
		response.ApiKeys = append(response.ApiKeys, key)
	}
	request.Reply(response)
}

func (b *testBroker) handleListOffsets(request *wire.Request) {
	body := request.Body.(*kmsg.ListOffsetsRequest)
	response := kmsg.NewPtrListOffsetsResponse()
	for _, topic := range body.Topics {
		answer := kmsg.NewListOffsetsResponseTopic()
		answer.Topic = topic.Topic
		for _, part := range topic.Partitions {
			result := b.manager.ListOffsets(cluster.BrokerID(body.ReplicaID), 0, []ListOffsetsPart{{
				TP: cluster.TopicPartition{Topic: topic.Topic, Partition: part.Partition}, CurrentLeaderEpoch: cluster.LeaderEpoch(part.CurrentLeaderEpoch), Timestamp: part.Timestamp,
			}})[0]
			entry := kmsg.NewListOffsetsResponseTopicPartition()
			entry.Partition, entry.ErrorCode, entry.Offset = part.Partition, errorCode(result.Err), int64(result.Offset)
			answer.Partitions = append(answer.Partitions, entry)
		}
		response.Topics = append(response.Topics, answer)
	}
	request.Reply(response)
}

// testSessions is the least that is an incremental fetch session.
type testSessions struct {
	mu   sync.Mutex
	last int32
	byID map[int32]*testSession
}

type testSession struct {
	epoch int32
	parts []FetchPart
	sent  map[cluster.TopicPartition][2]cluster.Offset // high watermark and log start
}

func (s *testSession) update(body *kmsg.FetchRequest) {
	for _, topic := range body.ForgottenTopics {
		for _, number := range topic.Partitions {
			s.parts = slices.DeleteFunc(s.parts, func(p FetchPart) bool { return p.TP.Partition == number && p.TopicID == topic.TopicID })
		}
	}
	for _, topic := range body.Topics {
		for _, part := range topic.Partitions {
			next := FetchPart{
				TP: cluster.TopicPartition{Topic: "t", Partition: part.Partition}, TopicID: topic.TopicID,
				CurrentLeaderEpoch: cluster.LeaderEpoch(part.CurrentLeaderEpoch), FetchOffset: cluster.Offset(part.FetchOffset),
				LastFetchedEpoch: cluster.LeaderEpoch(part.LastFetchedEpoch), LogStartOffset: cluster.Offset(part.LogStartOffset), MaxBytes: part.PartitionMaxBytes,
			}
			if at := slices.IndexFunc(s.parts, func(p FetchPart) bool { return p.TP == next.TP }); at >= 0 {
				s.parts[at] = next
			} else {
				s.parts = append(s.parts, next)
				delete(s.sent, next.TP)
			}
		}
	}
}

func (b *testBroker) handleFetch(request *wire.Request) {
	body := request.Body.(*kmsg.FetchRequest)
	response := kmsg.NewPtrFetchResponse()
	b.sessions.mu.Lock()
	var session *testSession
	if body.SessionEpoch == -1 {
		session = &testSession{sent: map[cluster.TopicPartition][2]cluster.Offset{}}
	} else if body.SessionEpoch == 0 {
		delete(b.sessions.byID, body.SessionID)
		b.sessions.last++
		response.SessionID = b.sessions.last
		session = &testSession{sent: map[cluster.TopicPartition][2]cluster.Offset{}}
		b.sessions.byID[response.SessionID] = session
	} else {
		session = b.sessions.byID[body.SessionID]
		response.SessionID = body.SessionID
		if session == nil || session.epoch+1 != body.SessionEpoch {
			b.sessions.mu.Unlock()
			response.ErrorCode = kerr.FetchSessionIDNotFound.Code
			request.Reply(response)
			return
		}
	}
	session.epoch = body.SessionEpoch
	session.update(body)
	parts := slices.Clone(session.parts)
	b.sessions.mu.Unlock()

	replica := cluster.BrokerID(body.ReplicaState.ID)
	if body.Version < 15 {
		replica = cluster.BrokerID(body.ReplicaID)
	}
	cancel := b.manager.Fetch(FetchRequest{
		Replica: replica, ReplicaEpoch: cluster.BrokerEpoch(body.ReplicaState.Epoch),
		MaxWait: time.Duration(body.MaxWaitMillis) * time.Millisecond, MinBytes: body.MinBytes, MaxBytes: body.MaxBytes, LeaderOnly: replica >= 0, Parts: parts,
	}, func(results []FetchResult) {
		full := body.SessionEpoch <= 0
		topic := kmsg.NewFetchResponseTopic()
		topic.TopicID = testTopicID
		for i, result := range results {
			entry := kmsg.NewFetchResponseTopicPartition()
			entry.Partition = parts[i].TP.Partition
			entry.ErrorCode = errorCode(result.Err)
			entry.HighWatermark, entry.LogStartOffset = int64(result.HighWatermark), int64(result.LogStartOffset)
			if result.Diverging != nil {
				entry.DivergingEpoch.Epoch, entry.DivergingEpoch.EndOffset = int32(result.Diverging.Epoch), int64(result.Diverging.EndOffset)
			}
			if result.Slice != nil {
				entry.RecordBatches, _ = result.Slice.ReadAll()
				_ = result.Slice.Close()
			}
			b.sessions.mu.Lock()
			now := [2]cluster.Offset{result.HighWatermark, result.LogStartOffset}
			moved := session.sent[parts[i].TP] != now
			session.sent[parts[i].TP] = now
			b.sessions.mu.Unlock()
			if full || result.Err != nil && !result.Awaited || result.Diverging != nil || len(entry.RecordBatches) > 0 || moved {
				topic.Partitions = append(topic.Partitions, entry)
			}
		}
		if len(topic.Partitions) > 0 {
			response.Topics = append(response.Topics, topic)
		}
		request.Reply(response)
	})
	request.OnClose(cancel)
}

var t0 = cluster.TopicPartition{Topic: "t", Partition: 0}

func batchOf(values ...string) []byte {
	builder := record.NewBuilder(record.DefaultOptions())
	for _, value := range values {
		builder.Append(time.Now().UnixMilli(), nil, []byte(value))
	}
	batch, err := builder.Build()
	if err != nil {
		panic(err)
	}
	return batch
}

// produce appends one batch and returns the channel of its outcome.
func (c *testCluster) produce(id cluster.BrokerID, tp cluster.TopicPartition, acks int16, values ...string) <-chan AppendResult {
	done := make(chan AppendResult, 1)
	c.brokers[id].manager.Append(AppendRequest{
		Parts: []AppendPart{{TP: tp, Records: batchOf(values...)}}, Acks: acks, Timeout: 30 * time.Second, Origin: commitlog.Client,
	}, func(results []AppendResult) { done <- results[0] })
	return done
}

func (c *testCluster) await(done <-chan AppendResult) AppendResult {
	c.t.Helper()
	select {
	case result := <-done:
		return result
	case <-time.After(10 * time.Second):
		c.t.Fatal("the append was never answered")
		return AppendResult{}
	}
}

func (c *testCluster) mustProduce(id cluster.BrokerID, tp cluster.TopicPartition, values ...string) {
	c.t.Helper()
	if result := c.await(c.produce(id, tp, AcksAll, values...)); result.Err != nil {
		c.t.Fatalf("produce to broker %d: %v", id, result.Err)
	}
}

// eventually polls a condition that no channel tells about.
func (c *testCluster) eventually(what string, condition func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			for id, b := range c.brokers {
				if b.alive {
					c.t.Logf("broker %d: %+v", id, b.manager.DescribeAll())
				}
			}
			c.t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func (c *testCluster) describe(id cluster.BrokerID, tp cluster.TopicPartition) PartitionDescription {
	description, _ := c.brokers[id].manager.Describe(tp)
	return description
}

// values reads a replica's whole log.
func (c *testCluster) values(id cluster.BrokerID, tp cluster.TopicPartition) []string {
	c.t.Helper()
	log := c.brokers[id].logs.Get(tp)
	var values []string
	for from := log.StartOffset(); from < log.EndOffset(); {
		slice, err := log.Read(from, 1<<20, log.EndOffset(), true)
		if err != nil {
			c.t.Fatal(err)
		}
		data, err := slice.ReadAll()
		if err != nil {
			c.t.Fatal(err)
		}
		from = slice.NextOffset()
		_ = slice.Close()
		values = append(values, valuesOf(c.t, data)...)
	}
	return values
}

func valuesOf(t testing.TB, data []byte) []string {
	t.Helper()
	var values []string
	for batch, err := range record.All(data) {
		if err != nil {
			t.Fatal(err)
		}
		for entry, err := range batch.Records(1 << 20) {
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, string(entry.Value))
		}
	}
	return values
}

func stopReplica(epoch cluster.BrokerEpoch, tp cluster.TopicPartition, leaderEpoch int32, remove bool) *kmsg.StopReplicaRequest {
	request := kmsg.NewPtrStopReplicaRequest()
	request.SetVersion(4)
	request.ControllerEpoch, request.BrokerEpoch = 1, int64(epoch)
	topic := kmsg.NewStopReplicaRequestTopic()
	topic.Topic = tp.Topic
	state := kmsg.NewStopReplicaRequestTopicPartitionState()
	state.Partition, state.LeaderEpoch, state.Delete = tp.Partition, leaderEpoch, remove
	topic.PartitionStates = append(topic.PartitionStates, state)
	request.Topics = append(request.Topics, topic)
	return request
}
