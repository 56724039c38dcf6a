package controller

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/registry"
)

var simulationSeeds = flag.Int("simulation.seeds", 150, "how many seeds TestSimulation runs")

// TestSimulation throws random events at a controller and its successors and checks, at
// every write of a state node (see checkState), that the ISR is never empty, the leader is
// in it, one leader epoch has one leader and no epoch falls; that a deposed controller
// changes nothing; and that once every broker is back every partition has a leader again.
func TestSimulation(t *testing.T) {
	for seed := range *simulationSeeds {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			s := newSimulation(t, uint64(seed))
			for range 120 {
				s.event()
			}
			s.recover()
		})
	}
}

const simulatedBrokers = 5

type simulation struct {
	*world
	random *rand.Rand
	topics int
	zombie *Core // deposed, and does not know it
	stale  registry.Fence
}

func newSimulation(t *testing.T, seed uint64) *simulation {
	s := &simulation{world: newWorld(t), random: rand.New(rand.NewPCG(seed, 1))}
	for id := cluster.BrokerID(1); id <= simulatedBrokers; id++ {
		s.register(id)
	}
	s.electedCore(1)
	return s
}

func (s *simulation) broker() cluster.BrokerID {
	return 1 + cluster.BrokerID(s.random.IntN(simulatedBrokers))
}

func (s *simulation) replicas() []cluster.BrokerID {
	var out []cluster.BrokerID
	for _, i := range s.random.Perm(simulatedBrokers)[:1+s.random.IntN(3)] {
		out = append(out, cluster.BrokerID(i+1))
	}
	return out
}

// partition picks any partition that the core knows, nil if there is none.
func (s *simulation) partition() *partition {
	var all []*partition
	s.core.eachPartition(func(p *partition) { all = append(all, p) })
	if len(all) == 0 {
		return nil
	}
	return all[s.random.IntN(len(all))]
}

func (s *simulation) event() {
	id := s.broker()
	switch s.random.IntN(16) {
	case 0, 1:
		s.unregister(id)
		s.step(brokersChanged{})
	case 2, 3, 4:
		if s.epochOf(id) < 0 {
			s.register(id)
		}
		s.step(brokersChanged{})
	case 5:
		s.unregister(id)
		s.register(id)
		s.step(brokersChanged{})
	case 6:
		s.step(brokerRefused{id, s.epochOf(id)})
	case 7:
		s.step(brokerAnswered{id, s.epochOf(id)})
	case 8:
		request := kmsg.NewPtrControlledShutdownRequest()
		request.Version, request.BrokerID, request.BrokerEpoch = 3, int32(id), int64(s.epochOf(id))
		s.reply(controlledShutdown{request})
	case 9, 10:
		s.alterISR()
	case 11:
		s.changeTopics()
	case 12:
		s.step(rebalanceTicked{})
	case 13:
		s.depose()
	case 14:
		s.reassign()
	case 15:
		s.step(logDirFailedOn(s, id))
	}
	if s.random.IntN(3) == 0 {
		s.interfere()
	}
	if s.random.IntN(2) == 0 {
		s.answer(func(id cluster.BrokerID) bool { return s.epochOf(id) >= 0 })
	}
}

func (s *simulation) reply(event Event) {
	s.t.Helper()
	if replies := s.step(event); len(replies) != 1 {
		s.t.Fatalf("%T got %d replies", event, len(replies))
	}
}

// alterISR asks, as the leader that the node names, for a random ISR with itself in it.
func (s *simulation) alterISR() {
	p := s.partition()
	if p == nil || !p.known || p.state.Leader < 0 {
		return
	}
	isr := []cluster.BrokerID{p.state.Leader}
	for _, id := range p.assignment.Replicas {
		if id != p.state.Leader && s.random.IntN(2) == 0 {
			isr = append(isr, id)
		}
	}
	event := alterRequestFor(s.world, p, isr)
	if s.random.IntN(4) == 0 {
		event.request.Topics[0].Partitions[0].PartitionEpoch -= 1
	}
	s.reply(event)
}

func alterRequestFor(w *world, p *partition, isr []cluster.BrokerID) alterPartition {
	request := kmsg.NewPtrAlterPartitionRequest()
	request.Version, request.BrokerID, request.BrokerEpoch = 2, int32(p.state.Leader), int64(w.epochOf(p.state.Leader))
	part := kmsg.NewAlterPartitionRequestTopicPartition()
	part.Partition, part.LeaderEpoch, part.PartitionEpoch = p.tp.Partition, int32(p.state.LeaderEpoch), int32(p.state.PartitionEpoch)
	part.NewISR = int32s(isr)
	topic := kmsg.NewAlterPartitionRequestTopic()
	topic.TopicID = p.topic.id
	topic.Partitions = append(topic.Partitions, part)
	request.Topics = append(request.Topics, topic)
	return alterPartition{request}
}

func (s *simulation) changeTopics() {
	names := s.core.topicNames()
	switch {
	case len(names) < 3 || s.random.IntN(3) == 0:
		s.topics++
		s.addTopic(fmt.Sprint("topic", s.topics), s.replicas(), s.replicas())
		s.step(topicsChanged{})
	case s.random.IntN(2) == 0:
		s.create(registry.DeleteTopicPath(names[s.random.IntN(len(names))]), nil)
		s.step(deletionsAsked{})
	default:
		name := names[s.random.IntN(len(names))]
		document, err := registry.DecodeTopic(name, s.nodes[registry.TopicPath(name)].data)
		if err != nil {
			s.t.Fatal(err)
		}
		document.Partitions[int32(len(document.Partitions))] = registry.Assignment{Replicas: s.replicas()}
		s.set(registry.TopicPath(name), registry.EncodeTopic(&document), registry.AnyVersion)
		s.step(topicModified{name})
	}
}

func (s *simulation) reassign() {
	p := s.partition()
	if p == nil {
		return
	}
	part := kmsg.AlterPartitionAssignmentsRequestTopicPartition{Partition: p.tp.Partition, Replicas: int32s(s.replicas())}
	if s.random.IntN(4) == 0 {
		part.Replicas = nil
	}
	request := kmsg.NewPtrAlterPartitionAssignmentsRequest()
	request.Topics = []kmsg.AlterPartitionAssignmentsRequestTopic{{Topic: p.tp.Topic, Partitions: []kmsg.AlterPartitionAssignmentsRequestTopicPartition{part}}}
	s.reply(alterReassignments{request})
}

func logDirFailedOn(s *simulation, id cluster.BrokerID) Event {
	response := &kmsg.LeaderAndISRResponse{}
	if p := s.partition(); p != nil {
		code := int16(56)
		if s.random.IntN(2) == 0 {
			code = 0
		}
		response.Topics = []kmsg.LeaderAndISRResponseTopic{{TopicID: p.topic.id, Partitions: []kmsg.LeaderAndISRResponseTopicPartition{
			{Partition: p.tp.Partition, ErrorCode: code},
		}}}
	}
	return leaderAndISRAnswered{id, s.epochOf(id), response}
}

// depose elects another controller; the old core lives on as a zombie.
func (s *simulation) depose() {
	s.zombie, s.stale = s.core, s.fence
	s.electedCore(s.broker())
}

// interfere lets the zombie act: it must find out that it has been deposed, or do nothing.
func (s *simulation) interfere() {
	if s.zombie == nil {
		return
	}
	before := s.zxid
	sends := s.sends
	s.resign = nil
	s.stepCore(s.zombie, s.stale, brokersChanged{})
	s.sends = sends
	if s.zxid != before {
		s.t.Fatal("a deposed controller has written")
	}
	if s.resign != nil {
		if !errors.Is(s.resign, registry.ErrControllerMoved) {
			s.t.Fatal(s.resign)
		}
		s.zombie, s.resign = nil, nil
	}
}

// recover brings every broker back, in new incarnations.
func (s *simulation) recover() {
	for id := cluster.BrokerID(1); id <= simulatedBrokers; id++ {
		s.unregister(id)
		s.register(id)
	}
	s.step(brokersChanged{})
	for len(s.sends) > 0 {
		s.answer(func(cluster.BrokerID) bool { return true })
	}
	if s.resign != nil {
		s.t.Fatal("resigned: ", s.resign)
	}
	s.core.eachPartition(func(p *partition) {
		if p.topic.deletion != nil {
			if !slices.ContainsFunc(p.topic.partitions, func(p *partition) bool { return p.assignment.Reassigning() }) {
				s.t.Errorf("%v is still being deleted: %+v", p.tp, p.topic.deletion)
			}
			return
		}
		node := s.state(p.tp.Topic, p.tp.Partition)
		if !p.known || node.Leader < 0 || !s.core.live(node.Leader) || !sameState(&node, &p.state) || node.PartitionEpoch != p.state.PartitionEpoch {
			s.t.Errorf("%v has no leader, or not the one that the core knows: node %+v, core %+v", p.tp, node, p.state)
		}
		if p.status != statusOnline {
			s.t.Errorf("%v has status %d", p.tp, p.status)
		}
	})
}
