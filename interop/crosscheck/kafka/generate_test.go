package kafka

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// generator makes requests. All that it knows of the clusters is in the reference's values;
// the runner translates. It draws from rng alone, so that a seed decides a run.
type generator struct {
	rng     *rand.Rand
	brokers int
	live    []int32 // those that run
	target  int     // the broker that the request goes to
	fresh   int     // for names that were never used
	version int16
	// asController: the request is what the controller itself might send.
	asController bool

	topics    []*topicState   // those that exist, in the order of their creation
	moving    map[string]bool // topics of a cluster that are reassigned and nothing else
	deletedID [16]byte        // of some topic that existed
	groups    []*groupState
	producers []*producerState
	sessions  []*fetchState

	controllerEpoch int32
	brokerEpochs    map[int32]int64
	ports           map[int32]int32
}

type topicState struct {
	name       string
	id         [16]byte
	partitions int32
	width      int // of its partitions' replica lists
	internal   bool
	kept       bool // is not deleted
}

type groupState struct {
	name       string
	generation int32
	members    []string
	instances  []string
	protocol   string
}

type producerState struct {
	id    int64
	epoch int16
	next  map[string]int32 // by topic and partition
}

type fetchState struct {
	id, epoch int32
	byID      bool
	version   int16
	broker    int
}

func newGenerator(seed uint64, brokers int) *generator {
	g := &generator{rng: rand.New(rand.NewPCG(seed, 0x5eed)), brokers: brokers, target: 1, brokerEpochs: map[int32]int64{}, ports: map[int32]int32{}}
	for id := range brokers {
		g.live = append(g.live, int32(id+1))
	}
	return g
}

// cluster is whether there are several brokers, which have replicas of each other's partitions.
func (g *generator) cluster() bool { return g.brokers > 1 }

// replicas are so many brokers that run, in an order by chance.
func (g *generator) replicas(width int) []int32 {
	out := slices.Clone(g.live)
	if g.cluster() {
		g.rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	}
	return out[:min(width, len(out))]
}

// chance is true in one of n cases.
func (g *generator) chance(n int) bool { return g.rng.IntN(n) == 0 }

func pick[T any](g *generator, of ...T) T { return of[g.rng.IntN(len(of))] }

// few makes a list of none to most elements: mostly one.
func few[T any](g *generator, most int, element func() T) []T {
	count := 1
	switch g.rng.IntN(8) {
	case 0:
		count = 0
	case 1, 2:
		count = 1 + g.rng.IntN(most)
	}
	out := []T{}
	for range count {
		out = append(out, element())
	}
	if count > 0 && g.chance(12) {
		out = append(out, out[g.rng.IntN(count)]) // a duplicate
	}
	return out
}

// several is few, but not none.
func several[T any](g *generator, most int, element func() T) []T {
	if out := few(g, most, element); len(out) > 0 {
		return out
	}
	return one(element)
}

// one is one element.
func one[T any](element func() T) []T { return []T{element()} }

// some is one element or none.
func some[T any](g *generator, element func() T) []T {
	if g.chance(6) {
		return []T{}
	}
	return []T{element()}
}

func (g *generator) newName(prefix string) string {
	g.fresh++
	return fmt.Sprintf("%s-%d", prefix, g.fresh)
}

var badNames = []string{"", ".", "..", "not a name!", "slash/name", strings.Repeat("n", 249), strings.Repeat("n", 250), "ümlaut"}

// topic is mostly one that exists.
func (g *generator) topic() string {
	switch g.rng.IntN(16) {
	case 0:
		return "no-such-topic"
	case 1:
		return pick(g, badNames...)
	case 2:
		return "__consumer_offsets"
	}
	return g.existing().name
}

func (g *generator) existing() *topicState {
	if len(g.topics) == 0 {
		return &topicState{name: "no-such-topic", partitions: 1}
	}
	for {
		if topic := pick(g, g.topics...); !g.moving[topic.name] {
			return topic
		}
	}
}

// dataTopic is a topic whose records are the generator's alone: what the coordinator writes to
// its own is not compared record by record.
func (g *generator) dataTopic() string {
	name := g.topic()
	for name == "__consumer_offsets" {
		name = g.topic()
	}
	return name
}

func (g *generator) dataTopicID() [16]byte {
	for {
		id := g.topicID()
		if known := g.topicNamed("__consumer_offsets"); known == nil || id != known.id {
			return id
		}
	}
}

func (g *generator) topicNamed(name string) *topicState {
	for _, topic := range g.topics {
		if topic.name == name {
			return topic
		}
	}
	return nil
}

func (g *generator) topicID() [16]byte {
	switch g.rng.IntN(12) {
	case 0:
		return [16]byte{}
	case 1:
		return [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	case 2:
		return g.deletedID
	case 3:
		return [16]byte{15: 1} // the metadata topic's
	}
	return g.existing().id
}

func (g *generator) partition(topic string) int32 {
	switch g.rng.IntN(12) {
	case 0:
		return -1
	case 1:
		return pick[int32](g, 99, math.MaxInt32, math.MinInt32)
	}
	if known := g.topicNamed(topic); known != nil {
		return g.rng.Int32N(known.partitions)
	}
	return g.rng.Int32N(2)
}

func (g *generator) partitions(topic string) []int32 {
	return few(g, 3, func() int32 { return g.partition(topic) })
}

func (g *generator) group() string {
	switch g.rng.IntN(12) {
	case 0:
		return ""
	case 1:
		return "no-such-group"
	case 2:
		return strings.Repeat("g", 300)
	}
	return g.knownGroup().name
}

func (g *generator) knownGroup() *groupState {
	if len(g.groups) == 0 {
		return &groupState{name: "no-such-group", generation: 1}
	}
	return pick(g, g.groups...)
}

func (g *generator) groupNamed(name string) *groupState {
	for _, group := range g.groups {
		if group.name == name {
			return group
		}
	}
	return nil
}

func (g *generator) member(group string) string {
	if known := g.groupNamed(group); known != nil && len(known.members) > 0 && !g.chance(4) {
		return pick(g, known.members...)
	}
	return pick(g, "", "nobody", "nobody-else")
}

func (g *generator) instance(group string) *string {
	if known := g.groupNamed(group); known != nil && len(known.instances) > 0 && g.chance(2) {
		return &known.instances[g.rng.IntN(len(known.instances))]
	}
	switch g.rng.IntN(12) {
	case 0:
		return kmsg.StringPtr("")
	case 1:
		return kmsg.StringPtr("no-such-instance")
	}
	return nil
}

func (g *generator) generation(group string) int32 {
	if known := g.groupNamed(group); known != nil && !g.chance(4) {
		return known.generation
	}
	return pick[int32](g, -1, 0, 1, 2, -2, math.MaxInt32)
}

func (g *generator) epoch() int32 { return pick[int32](g, -1, -1, -1, 0, 0, 0, 1, -2, math.MaxInt32) }

func (g *generator) offset() int64 {
	return pick[int64](g, 0, 0, 0, 1, 2, 3, 5, 10, -1, -2, 1000, math.MaxInt64, math.MinInt64)
}

// wait is the timeout of something that will happen at once if at all.
func (g *generator) wait() int32 { return pick[int32](g, 30_000, 30_000, 30_000, 60_000) }

func (g *generator) nullable(text string) *string {
	if g.chance(8) {
		return nil
	}
	return &text
}

func (g *generator) bytes(max int) []byte {
	out := make([]byte, g.rng.IntN(max+1))
	for i := range out {
		out[i] = byte(g.rng.Uint32())
	}
	return out
}

func (g *generator) bool() bool { return g.chance(2) }

// generators make a request of each type, by API key; the version is g.version and set by the
// caller. Requests may be nil: nothing to ask at the moment.
var generators map[int16]func(*generator) kmsg.Request

func init() {
	generators = map[int16]func(*generator) kmsg.Request{
		0: (*generator).produce, 1: (*generator).fetch, 2: (*generator).listOffsets, 3: (*generator).metadata,
		4: (*generator).leaderAndISR, 5: (*generator).stopReplica, 6: (*generator).updateMetadata, 7: (*generator).controlledShutdown,
		8: (*generator).offsetCommit, 9: (*generator).offsetFetch, 10: (*generator).findCoordinator, 11: (*generator).joinGroup,
		12: (*generator).heartbeat, 13: (*generator).leaveGroup, 14: (*generator).syncGroup, 15: (*generator).describeGroups,
		16: (*generator).listGroups, 18: (*generator).apiVersions, 19: (*generator).createTopics, 20: (*generator).deleteTopics,
		21: (*generator).deleteRecords, 22: (*generator).initProducerID, 23: (*generator).offsetForLeaderEpoch,
		32: (*generator).describeConfigs, 33: (*generator).alterConfigs, 35: (*generator).describeLogDirs, 37: (*generator).createPartitions,
		42: (*generator).deleteGroups, 43: (*generator).electLeaders, 44: (*generator).incrementalAlterConfigs,
		45: (*generator).alterReassignments, 46: (*generator).listReassignments, 47: (*generator).offsetDelete,
		56: (*generator).alterPartition, 60: (*generator).describeCluster, 61: (*generator).describeProducers, 67: (*generator).allocateProducerIDs,
		17: (*generator).saslHandshake, 29: (*generator).describeACLs, 30: (*generator).createACLs, 31: (*generator).deleteACLs,
		36: (*generator).saslAuthenticate, 38: (*generator).createToken, 39: (*generator).renewToken, 40: (*generator).expireToken, 41: (*generator).describeToken,
		48: (*generator).describeQuotas, 50: (*generator).describeSCRAM, 57: (*generator).updateFeatures, 66: (*generator).listTransactions,
		68: (*generator).consumerGroupHeartbeat, 69: (*generator).consumerGroupDescribe, 34: (*generator).alterReplicaLogDirs,
	}
}
