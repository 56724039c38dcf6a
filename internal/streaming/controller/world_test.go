package controller

import (
	"fmt"
	"path"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/registry"
)

// world is a cluster without I/O around a core: a znode tree in a map, and brokers that
// take whatever they are sent. It checks what must hold at every write of a state node.
type world struct {
	t       testing.TB
	nodes   map[string]*znode
	zxid    int64
	core    *Core
	fence   registry.Fence
	now     time.Time
	ids     uint64
	sends   []Send
	logs    []string
	resign  error
	before  func() // called before a batch of operations is executed, once
	history map[string]map[cluster.LeaderEpoch]cluster.BrokerID
}

type znode struct {
	data    []byte
	version int32
	czxid   int64
	mzxid   int64
}

func newWorld(t testing.TB) *world {
	w := &world{
		t: t, nodes: map[string]*znode{}, now: time.Unix(1_700_000_000, 0),
		history: map[string]map[cluster.LeaderEpoch]cluster.BrokerID{},
	}
	for _, p := range []string{
		"/", registry.PathBrokers, registry.PathBrokerIDs, registry.PathTopics, "/admin", registry.PathDeleteTopics, registry.PathISRChanges,
		registry.PathLogDirEvents, registry.PathProducerIDBlock, registry.PathConfig, registry.PathConfigTopics,
	} {
		w.nodes[p] = &znode{}
	}
	w.nodes[registry.PathControllerEpoch] = &znode{data: []byte("0")}
	return w
}

// electedCore replaces the core by one of the next epoch and runs its failover.
func (w *world) electedCore(self cluster.BrokerID) {
	node := w.nodes[registry.PathControllerEpoch]
	node.version++
	w.fence = registry.Fence{Epoch: cluster.ControllerEpoch(node.version), Version: node.version}
	w.core = w.newCore(self)
	w.step(elected{})
}

func (w *world) newCore(self cluster.BrokerID) *Core {
	return NewCore(CoreConfig{
		Self: self, Epoch: w.fence.Epoch, Listener: "PLAINTEXT",
		Settings: Settings{LeaderImbalancePercent: 10, DeleteTopics: true},
		NewTopicID: func() cluster.TopicID {
			w.ids++
			return cluster.TopicID{1, byte(w.ids >> 8), byte(w.ids)}
		},
	})
}

// step runs an event to its end and returns the replies.
func (w *world) step(event Event) []kmsg.Response { return w.stepCore(w.core, w.fence, event) }

func (w *world) stepCore(core *Core, fence registry.Fence, event Event) []kmsg.Response {
	w.t.Helper()
	var replies []kmsg.Response
	effects := core.Step(event, w.now)
	for {
		for _, line := range effects.Logs {
			w.logs = append(w.logs, fmt.Sprint(line.Message, " ", line.Args))
		}
		w.sends = append(w.sends, effects.Sends...)
		replies = append(replies, effects.Replies...)
		if effects.Resign != nil {
			w.resign = effects.Resign
			return replies
		}
		if len(effects.Ops) == 0 {
			return replies
		}
		if before := w.before; before != nil {
			w.before = nil
			before()
		}
		results := make([]registry.OpResult, len(effects.Ops))
		for i := range effects.Ops {
			results[i] = w.execute(fence, &effects.Ops[i])
		}
		w.now = w.now.Add(time.Millisecond)
		effects = core.Complete(results, w.now)
	}
}

func (w *world) execute(fence registry.Fence, op *registry.Op) registry.OpResult {
	if op.IsWrite() && w.nodes[registry.PathControllerEpoch].version != fence.Version {
		return registry.OpResult{Err: registry.ErrControllerMoved}
	}
	node := w.nodes[op.Path]
	switch op.Kind {
	case registry.OpCreate:
		return w.create(op.Path, op.Data)
	case registry.OpDeleteTree:
		for p := range w.nodes {
			if p == op.Path || strings.HasPrefix(p, op.Path+"/") {
				delete(w.nodes, p)
			}
		}
		return registry.OpResult{}
	}
	if node == nil {
		return registry.OpResult{Err: registry.ErrNoNode}
	}
	switch op.Kind {
	case registry.OpChildren:
		return registry.OpResult{Children: w.children(op.Path)}
	case registry.OpSet:
		return w.set(op.Path, op.Data, op.Version)
	case registry.OpDelete:
		delete(w.nodes, op.Path)
	}
	return registry.OpResult{Data: node.data, Version: node.version, Czxid: node.czxid, Mzxid: node.mzxid}
}

func (w *world) create(p string, data []byte) registry.OpResult {
	if w.nodes[p] != nil {
		return registry.OpResult{Err: registry.ErrNodeExists}
	}
	if w.nodes[path.Dir(p)] == nil {
		return registry.OpResult{Err: registry.ErrNoNode}
	}
	w.zxid++
	w.nodes[p] = &znode{data: data, czxid: w.zxid, mzxid: w.zxid}
	w.checkState(p, nil, data)
	return registry.OpResult{Czxid: w.zxid}
}

func (w *world) set(p string, data []byte, version int32) registry.OpResult {
	node := w.nodes[p]
	if version != registry.AnyVersion && version != node.version {
		return registry.OpResult{Err: registry.ErrBadVersion}
	}
	w.zxid++
	w.checkState(p, node.data, data)
	node.data, node.version, node.mzxid = data, node.version+1, w.zxid
	return registry.OpResult{Version: node.version, Czxid: node.czxid}
}

func (w *world) children(parent string) []string {
	var out []string
	for p := range w.nodes {
		if p != "/" && path.Dir(p) == parent {
			out = append(out, path.Base(p))
		}
	}
	sort.Strings(out)
	return out
}

// checkState is the invariant of every write of a state node: the ISR is not empty, has no
// member twice and contains the leader; the leader epoch never falls, and one epoch has one
// leader; the controller epoch never falls.
func (w *world) checkState(p string, before, after []byte) {
	w.t.Helper()
	if !strings.HasSuffix(p, "/state") {
		return
	}
	next := w.decode(p, after)
	if len(next.ISR) == 0 {
		w.t.Fatalf("%s: empty ISR in %s", p, after)
	}
	sorted := slices.Clone(next.ISR)
	slices.Sort(sorted)
	if len(slices.Compact(sorted)) != len(next.ISR) {
		w.t.Fatalf("%s: ISR with a member twice: %s", p, after)
	}
	if next.Leader != cluster.NoBroker && !slices.Contains(next.ISR, next.Leader) {
		w.t.Fatalf("%s: leader outside the ISR in %s", p, after)
	}
	if before == nil { // a new topic of the name begins anew
		w.history[p] = map[cluster.LeaderEpoch]cluster.BrokerID{}
	}
	if leader, seen := w.history[p][next.LeaderEpoch]; seen && leader != next.Leader {
		w.t.Fatalf("%s: two leaders %d and %d in epoch %d", p, leader, next.Leader, next.LeaderEpoch)
	}
	w.history[p][next.LeaderEpoch] = next.Leader
	if before == nil {
		return
	}
	last := w.decode(p, before)
	if next.LeaderEpoch < last.LeaderEpoch || next.ControllerEpoch < last.ControllerEpoch {
		w.t.Fatalf("%s: epochs fall from %s to %s", p, before, after)
	}
}

func (w *world) decode(p string, data []byte) cluster.PartitionState {
	w.t.Helper()
	state, err := registry.DecodePartitionState(cluster.TopicPartition{Topic: p}, data, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return state
}

func (w *world) state(topic string, number int32) cluster.PartitionState {
	w.t.Helper()
	p := registry.StatePath(cluster.TopicPartition{Topic: topic, Partition: number})
	node := w.nodes[p]
	if node == nil {
		w.t.Fatalf("%s does not exist", p)
	}
	state := w.decode(p, node.data)
	state.PartitionEpoch = cluster.PartitionEpoch(node.version)
	return state
}

// register and unregister change a broker's node; the core is told by the caller.
func (w *world) register(id cluster.BrokerID) {
	broker := cluster.Broker{ID: id, Endpoints: []cluster.Endpoint{{Listener: "PLAINTEXT", Protocol: "PLAINTEXT", Host: "h", Port: 9000 + int32(id)}}}
	w.create(registry.BrokerPath(id), registry.EncodeBroker(&broker, 0))
}

func (w *world) unregister(id cluster.BrokerID) { delete(w.nodes, registry.BrokerPath(id)) }

func (w *world) epochOf(id cluster.BrokerID) cluster.BrokerEpoch {
	if node := w.nodes[registry.BrokerPath(id)]; node != nil {
		return cluster.BrokerEpoch(node.czxid)
	}
	return cluster.UnknownBrokerEpoch
}

func (w *world) addTopic(name string, partitions ...[]cluster.BrokerID) cluster.TopicID {
	w.ids++
	document := registry.TopicAssignment{ID: cluster.TopicID{2, byte(w.ids >> 8), byte(w.ids)}, Partitions: map[int32]registry.Assignment{}}
	for i, replicas := range partitions {
		document.Partitions[int32(i)] = registry.Assignment{Replicas: replicas}
	}
	w.create(registry.TopicPath(name), registry.EncodeTopic(&document))
	return document.ID
}

// answer replies to what the brokers were sent since the last call, as live brokers would.
func (w *world) answer(alive func(cluster.BrokerID) bool) {
	sends := w.sends
	w.sends = nil
	for _, send := range sends {
		request, ok := send.Request.(*kmsg.StopReplicaRequest)
		if !ok || !alive(send.To) || w.epochOf(send.To) != cluster.BrokerEpoch(request.BrokerEpoch) {
			continue
		}
		w.step(stopReplicaAnswered{send.To, cluster.BrokerEpoch(request.BrokerEpoch), request, &kmsg.StopReplicaResponse{}})
	}
}

func ids(list ...cluster.BrokerID) []cluster.BrokerID { return list }
