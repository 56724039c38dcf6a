package controller

import (
	"context"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/coordination/coordinator"
	"understudy/internal/coordination/zkclient"
	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/registry"
	"understudy/internal/streaming/wire"
)

// awaitLimit is how long something may take before the test gives it up for lost.
const awaitLimit = 30 * time.Second

// stage is an ensemble with scripted brokers on it, each with a controller.
type stage struct {
	t        testing.TB
	servers  string
	received chan received
	brokers  map[cluster.BrokerID]*scriptedBroker
}

type received struct {
	by      cluster.BrokerID
	request kmsg.Request
}

// newStage uses an ensemble of our own in this process, or the one (Apache's, say) that
// UNDERSTUDY_TEST_ZOOKEEPER names.
func newStage(t testing.TB, brokers int) *stage {
	s := &stage{t: t, received: make(chan received, 10_000), brokers: map[cluster.BrokerID]*scriptedBroker{}}
	if servers := os.Getenv("UNDERSTUDY_TEST_ZOOKEEPER"); servers != "" {
		s.servers = servers + "/" + t.Name() + strconv.FormatInt(time.Now().UnixNano(), 36)
	} else {
		s.servers = startCoordinator(t)
	}
	for id := cluster.BrokerID(1); id <= cluster.BrokerID(brokers); id++ {
		s.start(id)
	}
	return s
}

func startCoordinator(t testing.TB) string {
	t.Helper()
	started, err := coordinator.Start(t.Context(), coordinator.Config{
		DataDir: t.TempDir(), ClientAddr: "127.0.0.1:0", TickTime: 500 * time.Millisecond,
		MinSessionTimeout: time.Second, MaxSessionTimeout: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = started.Stop(ctx)
	})
	if err := started.AwaitServing(t.Context()); err != nil {
		t.Fatal(err)
	}
	return started.Addr()
}

// scriptedBroker accepts every control request and tells the stage.
type scriptedBroker struct {
	s          *stage
	id         cluster.BrokerID
	listener   net.Listener
	server     *wire.Server
	client     *zkclient.Client
	registry   *registry.Registry
	controller *Controller
	follower   atomic.Pointer[Controller] // the controller that watch events go to
	epoch      cluster.BrokerEpoch
	once       sync.Once
	busy       sync.Mutex // held by who keeps the broker from answering
	answered   sync.Map   // the topics of the LeaderAndIsr requests that it has answered
}

func testLogger(t testing.TB) *slog.Logger {
	var level slog.Level
	if text := os.Getenv("UNDERSTUDY_TEST_LOG"); text == "" || level.UnmarshalText([]byte(text)) != nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("test", t.Name())
}

func (s *stage) start(id cluster.BrokerID) *scriptedBroker {
	s.t.Helper()
	b := &scriptedBroker{s: s, id: id}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	b.serve(listener)
	config := zkclient.Config{Servers: s.servers, SessionTimeout: 40 * time.Second, OnEvent: func(event zkclient.Event) {
		if controller := b.follower.Load(); controller != nil {
			controller.OnZkEvent(event)
		}
	}}
	if err := registry.EnsureChroot(s.t.Context(), config); err != nil {
		s.t.Fatal(err)
	}
	if b.client, err = zkclient.Connect(s.t.Context(), config); err != nil {
		s.t.Fatal(err)
	}
	b.registry = registry.New(b.client, nil)
	if err := b.registry.EnsurePaths(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	address := listener.Addr().(*net.TCPAddr)
	b.epoch, err = b.registry.RegisterBroker(s.t.Context(), registry.Registration{Broker: cluster.Broker{
		ID: id, Endpoints: []cluster.Endpoint{{Listener: "PLAINTEXT", Protocol: "PLAINTEXT", Host: "127.0.0.1", Port: int32(address.Port)}},
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	b.controller = New(Config{
		Self: id, Registry: b.registry, Listener: "PLAINTEXT", Logger: testLogger(s.t).With("broker", id),
		Settings: Settings{LeaderImbalancePercent: 10, DeleteTopics: true},
	})
	b.follower.Store(b.controller)
	b.controller.Start()
	s.brokers[id] = b
	s.t.Cleanup(b.stop)
	return b
}

func (b *scriptedBroker) serve(listener net.Listener) {
	b.listener = listener
	b.server = wire.NewServer(wire.ServerOptions{})
	for key, version := range map[int16]int16{4: leaderAndISRVersion, 5: stopReplicaVersion, 6: updateMetadataVersion} {
		b.server.Handle(key, 0, version, func(request *wire.Request) {
			b.s.received <- received{b.id, request.Body}
			b.busy.Lock()
			defer b.busy.Unlock()
			if body, ok := request.Body.(*kmsg.LeaderAndISRRequest); ok {
				for _, states := range body.TopicStates {
					b.answered.Store(states.Topic, true)
				}
			}
			request.Reply(request.Body.ResponseKind())
		})
	}
	b.server.Serve(listener, "PLAINTEXT")
	b.server.Enable()
}

// stop ends everything, session included, in order.
func (b *scriptedBroker) stop() {
	b.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = b.controller.Stop(ctx)
		_ = b.server.Close(ctx)
		_ = b.client.Close()
	})
}

// silence is what kill -9 looks like to the others: the port is closed and the connections
// are gone; the session lives on for the rest of its forty seconds.
func (b *scriptedBroker) silence() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // do not wait for anybody
	_ = b.server.Close(ctx)
}

func (s *stage) await(what string, matches func(received) bool) received {
	s.t.Helper()
	limit := time.After(awaitLimit)
	for {
		select {
		case got := <-s.received:
			if matches(got) {
				return got
			}
		case <-limit:
			s.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// awaitLeader waits until a broker is told that leader leads the partition.
func (s *stage) awaitLeader(by, leader cluster.BrokerID, topic string, isr ...int32) *kmsg.LeaderAndISRRequestTopicPartition {
	s.t.Helper()
	var found *kmsg.LeaderAndISRRequestTopicPartition
	s.await("LeaderAndIsr to "+strconv.Itoa(int(by)), func(got received) bool {
		request, ok := got.request.(*kmsg.LeaderAndISRRequest)
		if !ok || got.by != by {
			return false
		}
		for _, states := range request.TopicStates {
			for i, state := range states.PartitionStates {
				if states.Topic == topic && state.Leader == int32(leader) && (isr == nil || slices.Equal(state.ISR, isr)) {
					found = &states.PartitionStates[i]
				}
			}
		}
		return found != nil
	})
	return found
}

// awaitController waits until a broker other than not is the controller.
func (s *stage) awaitController(not cluster.BrokerID) *scriptedBroker {
	s.t.Helper()
	for deadline := time.Now().Add(awaitLimit); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		for id, b := range s.brokers {
			if id != not && b.controller.Active() {
				return b
			}
		}
	}
	s.t.Fatal("no controller")
	return nil
}

func (s *stage) createTopic(name string, partitions ...[]cluster.BrokerID) {
	s.t.Helper()
	topic := registry.NewTopic{Name: name, Assignment: registry.TopicAssignment{ID: cluster.NewTopicID(), Partitions: map[int32]registry.Assignment{}}}
	for i, replicas := range partitions {
		topic.Assignment.Partitions[int32(i)] = registry.Assignment{Replicas: replicas}
	}
	if errs := s.brokers[1].registry.CreateTopics(s.t.Context(), []registry.NewTopic{topic}); errs[0] != nil {
		s.t.Fatal(errs[0])
	}
}

func TestShellElectsCreatesAndReplaces(t *testing.T) {
	s := newStage(t, 3)
	controller := s.awaitController(0)
	if controller.controller.Epoch() != 1 {
		t.Errorf("epoch %d", controller.controller.Epoch())
	}
	s.createTopic("t", ids(3, 2, 1))
	s.awaitLeader(3, 3, "t", 3, 2, 1)

	// The controller's own session ends: another broker takes over, and its registration is
	// gone with it.
	controller.stop()
	next := s.awaitController(controller.id)
	if next.controller.Epoch() != 2 {
		t.Errorf("epoch %d", next.controller.Epoch())
	}
	told := map[cluster.BrokerID]bool{}
	s.await("UpdateMetadata of the new controller", func(got received) bool {
		request, ok := got.request.(*kmsg.UpdateMetadataRequest)
		if ok && request.ControllerID == int32(next.id) && len(request.LiveBrokers) == 2 && len(request.TopicStates) == 1 {
			told[got.by] = true
		}
		return len(told) == 2
	})
}

func TestShellActsOnRefusedConnections(t *testing.T) {
	s := newStage(t, 3)
	controller := s.awaitController(0)
	victim := s.brokers[1+controller.id%3]
	heir := s.brokers[1+victim.id%3]
	s.createTopic("t", ids(victim.id, heir.id))
	s.awaitLeader(heir.id, victim.id, "t")
	address := victim.listener.Addr().String()

	victim.silence()
	state := s.awaitLeader(heir.id, heir.id, "t", int32(heir.id))
	if state.LeaderEpoch != 1 {
		t.Errorf("leader epoch %d", state.LeaderEpoch)
	}
	if _, err := victim.registry.Brokers(t.Context(), false); err != nil {
		t.Fatal("the victim's session was to live on: ", err)
	}

	// The same incarnation answers again: it is told what it is now, and may rejoin the ISR.
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Skip("the port was taken meanwhile: ", err)
	}
	victim.serve(listener)
	state = s.awaitLeader(victim.id, heir.id, "t")
	request := kmsg.NewPtrAlterPartitionRequest()
	request.Version, request.BrokerID, request.BrokerEpoch = 1, int32(heir.id), int64(heir.epoch)
	part := kmsg.NewAlterPartitionRequestTopicPartition()
	part.LeaderEpoch, part.PartitionEpoch, part.NewISR = state.LeaderEpoch, state.ZKVersion, []int32{int32(heir.id), int32(victim.id)}
	topic := kmsg.NewAlterPartitionRequestTopic()
	topic.Topic = "t"
	topic.Partitions = append(topic.Partitions, part)
	request.Topics = append(request.Topics, topic)
	for deadline := time.Now().Add(awaitLimit); ; time.Sleep(time.Millisecond) {
		answers := make(chan *kmsg.AlterPartitionResponse, 1)
		controller.controller.AlterPartition(request, func(response *kmsg.AlterPartitionResponse) { answers <- response })
		response := <-answers
		if response.ErrorCode != 0 {
			t.Fatal(kerr.ErrorForCode(response.ErrorCode))
		}
		answer := response.Topics[0].Partitions[0]
		if answer.ErrorCode == 0 {
			break
		}
		if answer.ErrorCode != kerr.OperationNotAttempted.Code || time.Now().After(deadline) {
			t.Fatal(kerr.ErrorForCode(answer.ErrorCode)) // ineligible only until the answer has been heard
		}
	}
}

// A controller that stops must not take with it what it has yet to tell a broker that is busy
// with an earlier request: partitions would be without a leader until its successor has found out.
func TestAwaitAnswersWaitsForWhatIsQueued(t *testing.T) {
	s := newStage(t, 2)
	controller := s.awaitController(0)
	slow := s.brokers[3-controller.id]
	s.createTopic("first", ids(slow.id, controller.id))
	s.awaitLeader(slow.id, slow.id, "first")
	slow.busy.Lock()
	release := sync.OnceFunc(slow.busy.Unlock)
	defer release()
	s.createTopic("second", ids(slow.id, controller.id))
	s.awaitLeader(controller.id, slow.id, "second") // so it is under way, or queued, to the slow one, too

	cut, cancel := context.WithCancel(t.Context())
	cancel()
	controller.controller.AwaitAnswers(cut) // returns, though nothing has been answered
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		controller.controller.AwaitAnswers(t.Context())
	}()
	release()
	<-answered
	if _, told := slow.answered.Load("second"); !told {
		t.Error("the slow broker has not been told of its partition")
	}
	slow.controller.AwaitAnswers(t.Context()) // nothing to wait for: it is not the controller
}

func TestShellSurvivesItsOwnExpiry(t *testing.T) {
	s := newStage(t, 1)
	b := s.awaitController(0)
	renewed := make(chan struct{})
	b.controller.config.Register = func(ctx context.Context) error { close(renewed); return nil }
	b.controller.OnSession(SessionExpired)
	refused := make(chan int16, 1)
	b.controller.AllocateProducerIDs(kmsg.NewPtrAllocateProducerIDsRequest(), func(r *kmsg.AllocateProducerIDsResponse) { refused <- r.ErrorCode })
	if code := <-refused; code != kerr.NotController.Code {
		t.Errorf("code %d", code)
	}
	_ = b.client.Close() // the old session, and /controller with it
	client, err := zkclient.Connect(t.Context(), zkclient.Config{Servers: s.servers, OnEvent: b.controller.OnZkEvent})
	if err != nil {
		t.Fatal(err)
	}
	b.client = client
	b.registry.Attach(client)
	b.controller.OnSession(SessionRenewed)
	<-renewed
	if next := s.awaitController(0); next.controller.Epoch() != 2 {
		t.Errorf("epoch %d", next.controller.Epoch())
	}
}

func TestRequestsToAnotherBrokerAreRefused(t *testing.T) {
	c := New(Config{Self: 1})
	answered := make(chan kmsg.Response, 6)
	c.AlterPartition(kmsg.NewPtrAlterPartitionRequest(), func(r *kmsg.AlterPartitionResponse) { answered <- r })
	c.ControlledShutdown(kmsg.NewPtrControlledShutdownRequest(), func(r *kmsg.ControlledShutdownResponse) { answered <- r })
	c.ElectLeaders(kmsg.NewPtrElectLeadersRequest(), func(r *kmsg.ElectLeadersResponse) { answered <- r })
	c.AlterPartitionReassignments(kmsg.NewPtrAlterPartitionAssignmentsRequest(), func(r *kmsg.AlterPartitionAssignmentsResponse) { answered <- r })
	c.ListPartitionReassignments(kmsg.NewPtrListPartitionReassignmentsRequest(), func(r *kmsg.ListPartitionReassignmentsResponse) { answered <- r })
	for range 5 {
		switch r := (<-answered).(type) {
		case *kmsg.AlterPartitionResponse:
			checkNotController(t, r.ErrorCode)
		case *kmsg.ControlledShutdownResponse:
			checkNotController(t, r.ErrorCode)
		case *kmsg.ElectLeadersResponse:
			checkNotController(t, r.ErrorCode)
		case *kmsg.AlterPartitionAssignmentsResponse:
			checkNotController(t, r.ErrorCode)
		case *kmsg.ListPartitionReassignmentsResponse:
			checkNotController(t, r.ErrorCode)
		}
	}
}

func checkNotController(t *testing.T, code int16) {
	t.Helper()
	if code != kerr.NotController.Code {
		t.Errorf("code %d", code)
	}
}

func TestPlacement(t *testing.T) {
	brokers := func(racks string) []cluster.Broker {
		var out []cluster.Broker
		for i, rack := range strings.Split(racks, ",") {
			out = append(out, cluster.Broker{ID: cluster.BrokerID(i), Rack: rack})
		}
		return out
	}
	tests := []struct {
		name string
		p    Placement
		want [][]cluster.BrokerID
		err  string
	}{
		{name: "the example in AdminUtils", p: Placement{Brokers: brokers(",,,,"), Partitions: 10, Factor: 3}, want: [][]cluster.BrokerID{
			{0, 1, 2}, {1, 2, 3}, {2, 3, 4}, {3, 4, 0}, {4, 0, 1}, {0, 2, 3}, {1, 3, 4}, {2, 4, 0}, {3, 0, 1}, {4, 1, 2},
		}},
		{name: "growing goes on where it stopped", p: Placement{Brokers: brokers(",,"), Partitions: 2, Factor: 2, First: 3, FixedStart: 1}, want: [][]cluster.BrokerID{{1, 2}, {2, 0}}},
		{name: "racks", p: Placement{Brokers: brokers("a,b,c,a,b,c"), Partitions: 6, Factor: 3}, want: [][]cluster.BrokerID{
			{0, 1, 2}, {1, 2, 3}, {2, 3, 4}, {3, 4, 5}, {4, 5, 0}, {5, 0, 1},
		}},
		{name: "too many replicas", p: Placement{Brokers: brokers(","), Partitions: 1, Factor: 3}, err: "Replication factor: 3 larger than available brokers: 2."},
		{name: "no partitions", p: Placement{Brokers: brokers(","), Factor: 1}, err: "Number of partitions must be larger than 0."},
		{name: "no replicas", p: Placement{Brokers: brokers(","), Partitions: 1}, err: "Replication factor must be larger than 0."},
		{name: "some without a rack", p: Placement{Brokers: brokers("a,"), Partitions: 1, Factor: 1}, err: "Not all brokers have rack information for replica rack aware assignment."},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := test.p.Place()
			if err != nil && err.Error() != test.err || err == nil && test.err != "" {
				t.Fatalf("error %v, want %q", err, test.err)
			}
			if !slices.EqualFunc(got, test.want, slices.Equal[[]cluster.BrokerID]) {
				t.Errorf("got  %v\nwant %v", got, test.want)
			}
		})
	}
}

func TestTopicNames(t *testing.T) {
	for name, want := range map[string]string{
		"a.b_c-D9": "", "": "Topic name is invalid: the empty string is not allowed", "..": "Topic name is invalid: '.' or '..' is not allowed",
		"a b": "Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
		"é":   "Topic name is invalid: 'é' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
	} {
		if err := ValidateTopicName(name); err == nil && want != "" || err != nil && err.Error() != want {
			t.Errorf("%q: %v", name, err)
		}
	}
	if ValidateTopicName(strings.Repeat("x", 250)) == nil || ValidateTopicName(strings.Repeat("x", 249)) != nil {
		t.Error("the limit is 249")
	}
	if got := CollidingTopics("a.b", []string{"a.b", "a_b", "ab"}); !slices.Equal(got, []string{"a_b"}) {
		t.Errorf("colliding %v", got)
	}
}

func TestShellClearsAResignationThatFailed(t *testing.T) {
	s := newStage(t, 1)
	b := s.awaitController(0)
	ctx, cancel := context.WithTimeout(t.Context(), awaitLimit)
	defer cancel()
	if err := b.controller.Stop(ctx); err != nil { // leaves /controller to the session
		t.Fatal(err)
	}
	fence := b.controller.fence
	b.controller = New(b.controller.config)
	b.controller.fence = fence
	b.follower.Store(b.controller)
	b.controller.Start()
	if next := s.awaitController(0); next.controller.Epoch() != 2 {
		t.Errorf("epoch %d", next.controller.Epoch())
	}
}
