package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"understudy/internal/coordination/coordinator"
	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/zkclient"
	"understudy/internal/streaming/cluster"
)

// ensemble returns the connection string of an ensemble of our own in this process, or, where
// UNDERSTUDY_TEST_ZOOKEEPER names one, of that (an Apache one, say), below a chroot of the
// test's own.
func ensemble(t *testing.T) string {
	t.Helper()
	if servers := os.Getenv("UNDERSTUDY_TEST_ZOOKEEPER"); servers != "" {
		return servers + "/" + strings.ReplaceAll(t.Name(), "/", "-") + strconv.FormatInt(time.Now().UnixNano(), 36)
	}
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

// connect makes a client; its watch events go to the channel.
func connect(t *testing.T, servers string) (*zkclient.Client, chan zkclient.Event) {
	t.Helper()
	events := make(chan zkclient.Event, 100)
	config := zkclient.Config{Servers: servers, SessionTimeout: 10 * time.Second, OnEvent: func(e zkclient.Event) { events <- e }}
	if err := EnsureChroot(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	client, err := zkclient.Connect(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client, events
}

func await(t *testing.T, events chan zkclient.Event, path string) {
	t.Helper()
	for {
		select {
		case event := <-events:
			if event.Path == path {
				return
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("no event on %s", path)
		}
	}
}

func testBroker(id cluster.BrokerID) cluster.Broker {
	return cluster.Broker{ID: id, Endpoints: []cluster.Endpoint{{Listener: "PLAINTEXT", Protocol: "PLAINTEXT", Host: "127.0.0.1", Port: 9000 + int32(id)}}}
}

func TestRegistryOnAnEnsemble(t *testing.T) {
	ctx := t.Context()
	servers := ensemble(t)
	client, events := connect(t, servers)
	r := New(client, nil)
	if err := r.EnsurePaths(ctx); err != nil {
		t.Fatal(err)
	}
	if err := r.EnsurePaths(ctx); err != nil {
		t.Fatal("again: ", err)
	}
	clusterID, err := r.ClusterID(ctx)
	if err != nil || len(clusterID) != 22 {
		t.Fatalf("cluster id %q, %v", clusterID, err)
	}
	if again, err := r.ClusterID(ctx); again != clusterID || err != nil {
		t.Fatalf("cluster id again %q, %v", again, err)
	}
	if id, err := r.GenerateBrokerID(ctx, 1000); id != 1001 || err != nil {
		t.Fatalf("generated broker id %d, %v", id, err)
	}

	t.Run("brokers", func(t *testing.T) { testBrokers(t, r, events) })
	t.Run("controller", func(t *testing.T) { testController(t, r, servers, events) })
	t.Run("topics", func(t *testing.T) { testTopics(t, r) })
	t.Run("configuration", func(t *testing.T) { testConfigs(t, r) })
	t.Run("coming back", func(t *testing.T) { testComingBack(t, servers) })
}

func testBrokers(t *testing.T, r *Registry, events chan zkclient.Event) {
	ctx := t.Context()
	if _, err := r.Brokers(ctx, true); err != nil {
		t.Fatal(err)
	}
	epoch, err := r.RegisterBroker(ctx, Registration{Broker: testBroker(1), NowMs: 1})
	if err != nil || epoch <= 0 {
		t.Fatalf("epoch %d, %v", epoch, err)
	}
	await(t, events, PathBrokerIDs)
	if again, err := r.RegisterBroker(ctx, Registration{Broker: testBroker(1), NowMs: 2}); again != epoch || err != nil {
		t.Errorf("registered again: %d, %v", again, err)
	}
	node := r.Execute(ctx, nil, []Op{{Kind: OpGet, Path: BrokerPath(1)}})[0]
	if node.Version != 1 || node.Owner == 0 {
		t.Errorf("node %+v: not as Kafka's two-operation registration leaves it", node)
	}
	brokers, err := r.Brokers(ctx, false)
	if err != nil || len(brokers) != 1 || brokers[0].Epoch != epoch || !slices.Equal(brokers[0].Endpoints, testBroker(1).Endpoints) {
		t.Errorf("brokers %+v, %v", brokers, err)
	}
	taken := testBroker(1)
	taken.ID = 2
	if _, err := r.RegisterBroker(ctx, Registration{Broker: taken}); err == nil || !strings.Contains(err.Error(), "already registered by broker 1") {
		t.Errorf("an address taken: %v", err)
	}
}

func testController(t *testing.T, r *Registry, servers string, events chan zkclient.Event) {
	ctx := t.Context()
	fence, won, _, err := r.ElectController(ctx, 1, 5)
	if err != nil || !won || fence.Epoch != 1 || fence.Version != 1 {
		t.Fatalf("fence %+v, won %v, %v", fence, won, err)
	}
	client, _ := connect(t, servers)
	other := New(client, nil)
	if _, won, current, err := other.ElectController(ctx, 2, 5); won || current != 1 || err != nil {
		t.Fatalf("elected twice: %v, current %d, %v", won, current, err)
	}
	set := []Op{{Kind: OpSet, Path: PathISRChanges, Data: []byte("x"), Version: AnyVersion}}
	if result := r.Execute(ctx, &fence, set)[0]; result.Err != nil || result.Version != 1 {
		t.Fatalf("fenced write: %+v", result)
	}
	for _, op := range []Op{
		{Kind: OpSet, Path: PathISRChanges, Version: 0}, {Kind: OpSet, Path: "/missing", Version: AnyVersion}, {Kind: OpCreate, Path: PathISRChanges}, {Kind: OpDelete, Path: PathBrokers, Version: AnyVersion},
	} {
		result := r.Execute(ctx, &fence, []Op{op})[0]
		if result.Err == nil || errors.Is(result.Err, ErrControllerMoved) {
			t.Errorf("%v: %v", &op, result.Err)
		}
	}
	// The operator deletes /controller; another broker wins; the first is fenced.
	if _, err := r.Controller(ctx, true); err != nil {
		t.Fatal(err)
	}
	if err := r.ResignController(ctx, fence); err != nil {
		t.Fatal(err)
	}
	await(t, events, PathController)
	next, won, _, err := other.ElectController(ctx, 2, 5)
	if err != nil || !won || next.Epoch != 2 {
		t.Fatalf("fence %+v, won %v, %v", next, won, err)
	}
	if result := r.Execute(ctx, &fence, set)[0]; !errors.Is(result.Err, ErrControllerMoved) {
		t.Errorf("a deposed controller's write: %v", result.Err)
	}
	if err := r.ResignController(ctx, fence); err != nil {
		t.Error(err)
	}
	if current, err := r.Controller(ctx, false); current != 2 || err != nil {
		t.Errorf("controller %d, %v: deleted by a deposed one", current, err)
	}
	for want := range int64(3) {
		if start, err := other.AllocateProducerIDs(ctx, 2); start != want*1000 || err != nil {
			t.Errorf("block %d, %v", start, err)
		}
	}
	if err := other.SetupFeature(ctx); err != nil {
		t.Error(err)
	}
	if feature, version, err := other.Feature(ctx, false); !feature.Enabled || version != 0 || err != nil {
		t.Errorf("feature %+v, %d, %v", feature, version, err)
	}
}

func testTopics(t *testing.T, r *Registry) {
	ctx := t.Context()
	topic := NewTopic{Name: "t", Config: map[string]string{"retention.ms": "5"}, Assignment: TopicAssignment{
		ID: cluster.NewTopicID(), Partitions: map[int32]Assignment{0: {Replicas: ids(1)}, 1: {Replicas: ids(1)}},
	}}
	other := topic
	other.Name, other.Assignment.ID = "u", cluster.NewTopicID()
	if errs := r.CreateTopics(ctx, []NewTopic{topic, other}); errs[0] != nil || errs[1] != nil {
		t.Fatal(errs)
	}
	topic.Assignment.ID = cluster.NewTopicID()
	if errs := r.CreateTopics(ctx, []NewTopic{topic}); !errors.Is(errs[0], ErrNodeExists) {
		t.Errorf("created twice: %v", errs[0])
	}
	found, err := r.TopicAssignments(ctx, []string{"t", "missing", "u"}, false)
	if err != nil || len(found) != 2 || found["u"].ID != other.Assignment.ID {
		t.Errorf("found %+v, %v", found, err)
	}
	tp := cluster.TopicPartition{Topic: "t", Partition: 1}
	state := cluster.PartitionState{Leader: 1, ISR: ids(1)}
	r.Execute(ctx, nil, []Op{
		{Kind: OpCreate, Path: PartitionsPath("t")}, {Kind: OpCreate, Path: PartitionPath(tp)}, {Kind: OpCreate, Path: StatePath(tp), Data: EncodePartitionState(&state)},
	})
	states, err := r.PartitionStates(ctx, []cluster.TopicPartition{{Topic: "t"}, tp})
	if err != nil || len(states) != 1 || states[tp].Leader != 1 {
		t.Errorf("states %+v, %v", states, err)
	}
	if errs := r.MarkTopicsDeleted(ctx, []string{"t", "t"}); errs[0] != nil || errs[1] != nil {
		t.Error(errs)
	}
	if errs := r.CreateTopics(ctx, []NewTopic{topic}); !errors.Is(errs[0], ErrBeingDeleted) {
		t.Errorf("created while the mark for its deletion is there: %v", errs[0])
	}
	if marked, err := r.TopicsMarkedDeleted(ctx); !slices.Equal(marked, []string{"t"}) || err != nil {
		t.Errorf("marked %v, %v", marked, err)
	}
	if err := r.DeleteTree(ctx, nil, TopicPath("t"), "/missing"); err != nil {
		t.Error(err)
	}
	if topics, err := r.Topics(ctx, false); !slices.Equal(topics, []string{"u"}) || err != nil {
		t.Errorf("topics %v, %v", topics, err)
	}
	if result := r.Execute(ctx, nil, []Op{{Kind: OpDelete, Path: DeleteTopicPath("t"), Version: AnyVersion}})[0]; result.Err != nil {
		t.Error(result.Err)
	}
	// The configuration that a deleted topic left does not stand in the way of a new one.
	topic.Config = nil
	if errs := r.CreateTopics(ctx, []NewTopic{topic}); errs[0] != nil {
		t.Error(errs[0])
	}
	if config, err := r.TopicConfig(ctx, "t"); len(config) != 0 || err != nil {
		t.Errorf("configuration %v, %v", config, err)
	}
}

func testConfigs(t *testing.T, r *Registry) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	heard := make(chan string, 100)
	changes := r.ConfigChanges(func(kind, entity string) { heard <- kind + "/" + entity })
	done := make(chan struct{})
	go func() { defer close(done); changes.Run(ctx) }()
	if err := r.SetTopicConfig(ctx, "u", nil); !errors.Is(err, ErrNoController) {
		t.Errorf("written without a controller: %v", err)
	}
	if _, won, _, err := r.ElectController(ctx, 1, 5); !won || err != nil {
		t.Fatal(won, err)
	}
	if err := r.SetTopicConfig(ctx, "u", map[string]string{"a": "b"}); err != nil {
		t.Fatal(err)
	}
	if err := r.SetBrokerConfig(ctx, cluster.NoBroker, map[string]string{"c": "d"}); err != nil {
		t.Fatal(err)
	}
	changes.OnEvent(zkclient.Event{Path: PathConfigChanges})
	for _, want := range []string{"topics/u", "brokers/<default>"} {
		select {
		case got := <-heard:
			if got != want {
				t.Errorf("heard of %s, want %s", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("never heard of %s", want)
		}
	}
	cancel()
	<-done
	if config, err := r.BrokerConfig(t.Context(), cluster.NoBroker); config["c"] != "d" || err != nil {
		t.Errorf("configuration %v, %v", config, err)
	}
	if entities, err := r.ConfiguredEntities(t.Context(), "brokers"); !slices.Equal(entities, []string{"<default>"}) || err != nil {
		t.Errorf("entities %v, %v", entities, err)
	}
}

// testComingBack is a broker that is killed and started again within its old session's life.
func testComingBack(t *testing.T, servers string) {
	ctx := t.Context()
	old, err := zkclient.Connect(ctx, zkclient.Config{Servers: servers, SessionTimeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	first, err := New(old, nil).RegisterBroker(ctx, Registration{Broker: testBroker(7)})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "session")
	if err := SaveSession(file, SavedSession{Servers: servers, ClusterID: "c", BrokerID: 7, ID: old.Session().ID, Password: old.Session().Password}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the session file's mode is %v, %v", info.Mode(), err)
	}
	old.Abandon()

	client, _ := connect(t, servers)
	r := New(client, nil)
	_, err = r.RegisterBroker(ctx, Registration{Broker: testBroker(7)})
	if !errors.Is(err, ErrNodeExists) {
		t.Fatalf("registered beside a living session: %v", err)
	}
	for _, wrong := range []func() (SavedSession, bool, error){
		func() (SavedSession, bool, error) { return LoadSession(file, "elsewhere", "c", 7) },
		func() (SavedSession, bool, error) { return LoadSession(file, servers, "d", 7) },
		func() (SavedSession, bool, error) { return LoadSession(file, servers, "c", 8) },
		func() (SavedSession, bool, error) { return LoadSession(file+"x", servers, "c", 7) },
	} {
		if _, ok, err := wrong(); ok || err != nil {
			t.Errorf("took a session of something else: %v, %v", ok, err)
		}
	}
	saved, ok, err := LoadSession(file, servers, "c", 7)
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := zkclient.CloseSession(ctx, zkclient.Config{Servers: servers}, saved.Session()); err != nil {
		t.Fatal(err)
	}
	second, err := r.RegisterBroker(ctx, Registration{Broker: testBroker(7), Previous: []jute.SessionID{saved.ID}, WaitForExpiry: 10 * time.Second})
	if err != nil || second <= first {
		t.Errorf("back with epoch %d after %d, %v", second, first, err)
	}
	if err := RemoveSession(file); err != nil {
		t.Error(err)
	}
}

// lossyStore loses the connection of every first attempt at an operation, after executing it
// or not.
type lossyStore struct {
	Store
	tried map[string]bool
	count int
}

func (l *lossyStore) DoAll(ctx context.Context, ops []zkclient.Op) []zkclient.Result {
	results := make([]zkclient.Result, len(ops))
	for i, op := range ops {
		key := fmt.Sprintf("%v %s", op.Code, op.Path)
		if !l.tried[key] {
			l.tried[key] = true
			l.count++
			if l.count%2 == 0 {
				l.Store.Do(ctx, op)
			}
			results[i].Err = zkclient.ErrConnectionLoss
			continue
		}
		results[i] = l.Store.Do(ctx, op)
	}
	return results
}

func (l *lossyStore) Do(ctx context.Context, op zkclient.Op) zkclient.Result {
	return l.DoAll(ctx, []zkclient.Op{op})[0]
}

func TestLostRepliesAreSurvived(t *testing.T) {
	ctx := t.Context()
	client, _ := connect(t, ensemble(t))
	for skew := range 2 { // executed and lost, or lost before
		r := New(&lossyStore{client, map[string]bool{}, skew}, nil)
		if err := r.EnsurePaths(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := r.ClusterID(ctx); err != nil {
			t.Fatal(err)
		}
		id := cluster.BrokerID(skew)
		if _, err := r.RegisterBroker(ctx, Registration{Broker: testBroker(id)}); err != nil {
			t.Fatal(err)
		}
		topic := NewTopic{Name: fmt.Sprint("t", skew), Assignment: TopicAssignment{ID: cluster.NewTopicID(), Partitions: map[int32]Assignment{0: {Replicas: ids(1)}}}}
		if errs := r.CreateTopics(ctx, []NewTopic{topic}); errs[0] != nil {
			t.Fatal(errs[0])
		}
		fence, won, current, err := r.ElectController(ctx, id, 5)
		if err != nil || !won || fence.Epoch != cluster.ControllerEpoch(skew+1) {
			t.Fatalf("fence %+v, won %v, current %d, %v", fence, won, current, err)
		}
		if err := r.ResignController(ctx, fence); err != nil {
			t.Fatal(err)
		}
	}
}
