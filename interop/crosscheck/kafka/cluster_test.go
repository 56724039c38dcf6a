package kafka

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// What takes several brokers: requests to one that does not lead, is not the group's
// coordinator or not the controller, too few in-sync replicas, reads from followers,
// reassignments, elections, and how the clusters look while brokers are down.

// clusterProperties let followers catch up soon, and a shutdown not wait long for partitions
// that have nowhere to go.
var clusterProperties = map[string]string{
	"controlled.shutdown.enable":           "true",
	"controlled.shutdown.retry.backoff.ms": "100",
	"replica.fetch.wait.max.ms":            "20",
	"replica.fetch.backoff.ms":             "50",
	"default.replication.factor":           "2",
	"replica.selector.class":               "org.apache.kafka.common.replica.RackAwareReplicaSelector",
}

// racks are those of the brokers 1 to 3.
var racks = []string{"a", "b", "b"}

// TestThreeBrokers asks clusters of three brokers.
func TestThreeBrokers(t *testing.T) {
	p := startPair(t, 3, clusterProperties)
	for _, seed := range seeds(t)[:1] {
		r := newRun(t, p, seed, 3)
		r.prepareCluster()
		r.placements()
		r.pairsAt(4, 9)
		r.followers()
		r.deletions()
		r.everything(rounds(t, 1))
		r.stop(3)
		r.look("while broker 3 is down")
		r.withoutOne()
		r.everything(rounds(t, 1))
		r.stop(1)
		r.look("while broker 2 is alone")
		r.alone()
		r.resume(3)
		r.resume(1)
		r.look("after the return of brokers 1 and 3")
		r.elect(0, nil)
		r.look("after the election of preferred leaders")
		r.everything(rounds(t, 1))
		r.reassign()
		r.expectOccurred()
	}
}

// setRacks adds each broker's rack to its server.properties.
func (s *side) setRacks() error {
	for i, node := range s.fleet.Brokers {
		file, err := os.OpenFile(filepath.Join(node.Dir(), "server.properties"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(file, "broker.rack=%s\n", racks[i]); err != nil {
			return err
		}
		if err := file.Close(); err != nil {
			return err
		}
	}
	return nil
}

// prepareCluster makes topics whose replicas stand where a run needs them, on both sides alike.
func (r *run) prepareCluster() {
	create := kmsg.NewPtrCreateTopicsRequest()
	create.Version, create.TimeoutMillis = 7, 60_000
	add := func(name, minISR string, partitions ...[]int32) {
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, -1, -1
		for i, replicas := range partitions {
			topic.ReplicaAssignment = append(topic.ReplicaAssignment, kmsg.CreateTopicsRequestTopicReplicaAssignment{Partition: int32(i), Replicas: replicas})
		}
		config := kmsg.NewCreateTopicsRequestTopicConfig()
		config.Name, config.Value = "min.insync.replicas", &minISR
		topic.Configs = append(topic.Configs, config)
		if name == offsetsTopic {
			compact := kmsg.NewCreateTopicsRequestTopicConfig()
			compact.Name, compact.Value = "cleanup.policy", kmsg.StringPtr("compact")
			topic.Configs = append(topic.Configs, compact)
		}
		create.Topics = append(create.Topics, topic)
	}
	all := [][]int32{{1, 2, 3}, {2, 3, 1}, {3, 1, 2}, {1, 3, 2}, {2, 1, 3}, {3, 2, 1}}
	add(offsetsTopic, "1", all...)
	add("crosscheck-all", "1", all...)
	add("crosscheck-min2", "2", all[:3]...)
	add("crosscheck-min3", "3", all[:3]...)
	add("crosscheck-pairs", "2", []int32{1, 2}, []int32{2, 3}, []int32{3, 1})
	add("crosscheck-single", "1", []int32{1}, []int32{2}, []int32{3})
	r.gen.moving = map[string]bool{moving: true, stuck: true}
	maps.Copy(r.loose, r.gen.moving)
	add(moving, "1", []int32{1, 2}, []int32{2, 3})
	add(stuck, "1", []int32{3}, []int32{3})
	r.to(1, create)
	for _, topic := range r.gen.topics {
		topic.kept = true
	}
	for id := range 3 {
		r.awaitWarm(id + 1)
		request := kmsg.NewPtrInitProducerIDRequest()
		request.Version = 4
		r.to(id+1, request)
	}
	r.awaitCoordinators()
}

// awaitCoordinators waits until every partition of the offsets topic has been loaded where it is
// led: what is asked meanwhile is told to come again. So many groups fall into all partitions.
func (r *run) awaitCoordinators() {
	r.t.Helper()
	for i := range 40 {
		group := fmt.Sprint("loaded-", i)
		home := r.home(group)
		for _, s := range []*side{r.pair.reference, r.pair.candidate} {
			r.must(s.await("coordinators", func() bool {
				fetch := kmsg.NewPtrOffsetFetchRequest()
				fetch.Version, fetch.Group = 7, group
				response, err := s.ask(home, fetch)
				return err == nil && response.(*kmsg.OffsetFetchResponse).ErrorCode == 0
			}))
		}
	}
}

// awaitWarm waits until both sides' broker has what it asks others for when it is first asked: a block of producer ids, and
// the features' epoch.
func (r *run) awaitWarm(broker int) {
	r.t.Helper()
	for _, s := range []*side{r.pair.reference, r.pair.candidate} {
		r.must(s.await("producer ids", func() bool {
			response, err := s.ask(broker, kmsg.NewPtrInitProducerIDRequest())
			return err == nil && response.(*kmsg.InitProducerIDResponse).ErrorCode == 0
		}))
		r.must(s.await("the features' epoch", func() bool {
			request := kmsg.NewPtrApiVersionsRequest()
			request.Version, request.ClientSoftwareName, request.ClientSoftwareVersion = 3, "crosscheck", "1"
			response, err := s.ask(broker, request)
			return err == nil && response.(*kmsg.ApiVersionsResponse).FinalizedFeaturesEpoch >= 0
		}))
	}
}

// The topics that are reassigned: as long as all brokers run, and without a leader.
const (
	moving = "crosscheck-moving"
	stuck  = "crosscheck-stuck"
)

const offsetsTopic = "__consumer_offsets"

func (r *run) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// to asks one broker, and follows up on the answer.
func (r *run) to(broker int, request kmsg.Request) kmsg.Response {
	r.t.Helper()
	r.gen.target = broker
	s := step{broker: broker, clientID: &crosscheckClient, request: request}
	return r.followUp(s, r.do(s))
}

// home is the broker that both sides name as a group's coordinator.
func (r *run) home(group string) int {
	if !r.gen.cluster() {
		return 1
	}
	var home int
	r.must(r.pair.reference.await("the coordinator of "+group, func() bool {
		response, err := r.pair.reference.ask(int(r.gen.live[0]), coordinatorOf(group))
		if err != nil || response.(*kmsg.FindCoordinatorResponse).ErrorCode != 0 {
			return false
		}
		home = int(response.(*kmsg.FindCoordinatorResponse).NodeID)
		return true
	}))
	return home
}

// followers has consumers read from every replica, near to them or not, from the beginning.
func (r *run) followers() {
	for version := int16(4); version <= 17; version++ {
		r.to(1+int(version)%3, r.produceTo("crosscheck-all", -1, 9))
		for i := range 2 * len(r.gen.live) { // as one of the broker's rack, and of another
			broker := r.gen.live[i/2]
			topic := r.gen.topicNamed("crosscheck-all")
			request := kmsg.NewPtrFetchRequest()
			request.Version, request.MaxBytes, request.SessionEpoch, request.Rack = version, 1<<20, -1, racks[(int(broker)-1+i%2)%len(racks)]
			asked := kmsg.NewFetchRequestTopic()
			if asked.Topic = topic.name; version >= 13 {
				asked.Topic, asked.TopicID = "", topic.id
			}
			for number := range topic.partitions {
				partition := kmsg.NewFetchRequestTopicPartition()
				partition.Partition, partition.CurrentLeaderEpoch, partition.PartitionMaxBytes = number, -1, 1<<20
				asked.Partitions = append(asked.Partitions, partition)
			}
			request.Topics = append(request.Topics, asked)
			r.to(int(broker), request)
		}
	}
}

// deletions asks every broker to delete records, of which it leads some.
func (r *run) deletions() {
	for version := int16(0); version <= 2; version++ {
		for _, broker := range r.gen.live {
			request := kmsg.NewPtrDeleteRecordsRequest()
			request.Version, request.TimeoutMillis = version, 60_000
			asked := kmsg.NewDeleteRecordsRequestTopic()
			asked.Topic = "crosscheck-all"
			for number := range r.gen.topicNamed(asked.Topic).partitions {
				partition := kmsg.NewDeleteRecordsRequestTopicPartition()
				partition.Partition, partition.Offset = number, int64(version)+1
				asked.Partitions = append(asked.Partitions, partition)
			}
			request.Topics = append(request.Topics, asked)
			r.to(int(broker), request)
		}
	}
	r.followers()
}

// pairsAt takes groups of two members through their life at each broker.
func (r *run) pairsAt(versions ...int16) {
	for _, version := range versions {
		r.gen.version = version
		for range 3 {
			r.rebalance(version, version == 9)
		}
	}
	for _, broker := range r.gen.live { // of which one would coordinate the group
		request := kmsg.NewPtrOffsetDeleteRequest()
		request.Group = "no-such-group"
		topic := kmsg.NewOffsetDeleteRequestTopic()
		topic.Topic, topic.Partitions = "crosscheck-all", []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 0}}
		request.Topics = append(request.Topics, topic)
		r.to(int(broker), request)
	}
}

// placements has both sides place replicas: what they agree on is checked, then the topics go.
func (r *run) placements() {
	for _, width := range []int16{1, 2, 3} {
		name := r.gen.newName("placed")
		create := kmsg.NewPtrCreateTopicsRequest()
		create.Version, create.TimeoutMillis = 7, 60_000
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 12, width
		create.Topics = append(create.Topics, topic)
		r.do(step{broker: 1, clientID: &crosscheckClient, request: create})
		for _, s := range []*side{r.pair.reference, r.pair.candidate} {
			r.checkPlacement(s, name, int(width))
		}
		remove := kmsg.NewPtrDeleteTopicsRequest()
		remove.Version, remove.TimeoutMillis = 5, 60_000
		remove.TopicNames = []string{name}
		r.to(1, remove)
	}
}

// checkPlacement demands that leaders and replicas are spread over brokers and racks.
func (r *run) checkPlacement(s *side, name string, width int) {
	assignment := s.assignment(name)
	leaders, replicas := map[int32]int{}, map[int32]int{}
	for number, list := range assignment.Partitions {
		leaders[list[0]]++
		apart := map[string]bool{}
		for _, id := range list {
			replicas[id]++
			apart[racks[id-1]] = true
		}
		if len(list) != width || len(apart) != min(width, 2) {
			r.t.Errorf("%s places partition %s of %s at %v", s.name, number, name, list)
		}
	}
	for id := int32(1); id <= 3; id++ {
		if leaders[id] != 4 || width != 2 && replicas[id] != 4*width {
			r.t.Errorf("%s spreads %s unevenly: %v", s.name, name, assignment.Partitions)
		}
	}
}

// look compares how every broker that runs describes the cluster.
func (r *run) look(when string) {
	r.calm()
	r.awaitCoordinators()
	for _, id := range r.gen.live {
		broker := int(id)
		for version := int16(0); version <= 12; version++ {
			request := kmsg.NewPtrMetadataRequest()
			request.Version = version
			if version == 0 {
				request.Topics = []kmsg.MetadataRequestTopic{} // all
			}
			r.do(step{broker: broker, clientID: &crosscheckClient, request: request, note: " (" + when + ")"})
		}
		for version := int16(0); version <= 1; version++ {
			request := kmsg.NewPtrDescribeClusterRequest()
			request.Version = version
			r.do(step{broker: broker, clientID: &crosscheckClient, request: request, note: " (" + when + ")"})
		}
		for _, group := range r.gen.groups {
			r.do(step{broker: broker, clientID: &crosscheckClient, request: coordinatorOf(group.name), note: " (" + when + ")"})
		}
	}
	for _, topic := range r.gen.topics {
		reference, candidate := r.pair.reference.states(topic.name), r.pair.candidate.states(topic.name)
		evened(reference, r.loose[topic.name])
		evened(candidate, r.loose[topic.name])
		if fmt.Sprint(reference) != fmt.Sprint(candidate) {
			r.t.Errorf("seed %d, step %d (%s): the states of %s differ:\n  Apache:     %v\n  understudy: %v", r.seed, r.step, when, topic.name, reference, candidate)
		}
	}
}

// evened sorts the in-sync replicas, whose order is that of catching up, and leaves out
// epochs that are not raised alike.
func evened(states map[int32]state, loose bool) {
	for number, one := range states {
		slices.Sort(one.ISR)
		if loose {
			one.LeaderEpoch, one.ControllerEpoch = 0, 0
		}
		states[number] = one
	}
}

// stop shuts a broker down cleanly on both sides.
func (r *run) stop(broker int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	if broker == r.controllerID() {
		r.loosen()
	}
	for _, s := range []*side{r.pair.reference, r.pair.candidate} {
		r.must(s.fleet.Brokers[broker-1].Stop(ctx))
		for key, c := range s.conns {
			if key.broker == broker && c != nil {
				c.close()
				delete(s.conns, key)
			}
		}
	}
	r.gen.live = slices.DeleteFunc(r.gen.live, func(id int32) bool { return int(id) == broker })
	r.gen.sessions = slices.DeleteFunc(r.gen.sessions, func(s *fetchState) bool { return s.broker == broker })
	r.settleController()
}

// loosen remembers the topics that have a partition without a leader: Apache's next controller
// raises its leader epoch, for nothing.
func (r *run) loosen() {
	for _, topic := range r.gen.topics {
		for _, one := range r.pair.reference.states(topic.name) {
			if one.Leader < 0 {
				r.loose[topic.name] = true
			}
		}
	}
}

// resume starts a broker that was stopped.
func (r *run) resume(broker int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	for _, s := range []*side{r.pair.reference, r.pair.candidate} {
		r.must(s.fleet.Brokers[broker-1].Start(ctx))
	}
	r.gen.live = append(r.gen.live, int32(broker))
	slices.Sort(r.gen.live)
	for _, s := range []*side{r.pair.reference, r.pair.candidate} {
		r.must(s.knowEachOther(r.gen.live))
	}
	r.bindBroker(broker)
	r.awaitWarm(broker)
	r.calm()
}

// settleController waits until both sides have a controller that runs, and learns its epoch.
func (r *run) settleController() {
	r.t.Helper()
	for _, s := range []*side{r.pair.reference, r.pair.candidate} {
		r.must(s.await("a controller", func() bool { return slices.Contains(r.gen.live, s.controller()) }))
		r.must(s.knowEachOther(r.gen.live))
	}
	r.bindController()
}

// withoutOne produces where replicas are missing, and elects and reassigns.
func (r *run) withoutOne() {
	for _, acks := range []int16{-1, 1} {
		for version := int16(3); version <= 11; version += 4 {
			for _, name := range []string{"crosscheck-min3", "crosscheck-min2", "crosscheck-pairs", "crosscheck-single"} {
				for _, broker := range r.gen.live {
					r.to(int(broker), r.produceTo(name, acks, version))
				}
			}
		}
	}
	r.elections()
	for _, replicas := range [][]int32{{1, 3}, {3}, {2, 1, 3}} { // none of which is possible
		r.alterAssignment("crosscheck-pairs", 0, replicas)
	}
	r.alterAssignment(stuck, 0, []int32{1}) // for which there is no leader to copy from
	r.listAssignments()
	r.look("with a reassignment that cannot go on")
	r.alterAssignment(stuck, 0, nil)
	r.look("after its cancellation")
	r.listAssignments()
	r.alterAssignment(stuck, 0, nil)
}

// elections asks for every kind of election of every partition, one topic at a time.
func (r *run) elections() {
	for _, kind := range []int8{0, 1} {
		for _, topic := range r.gen.topics {
			if topic.name != offsetsTopic {
				r.elect(kind, topic)
			}
		}
	}
}

// elect has leaders elected: the preferred ones (0) or any (1), of a topic or of all.
func (r *run) elect(kind int8, topic *topicState) {
	request := kmsg.NewPtrElectLeadersRequest()
	request.Version, request.ElectionType, request.TimeoutMillis = 2, kind, 60_000
	if topic != nil {
		asked := kmsg.NewElectLeadersRequestTopic()
		asked.Topic = topic.name
		for number := range topic.partitions {
			asked.Partitions = append(asked.Partitions, number)
		}
		request.Topics = append(request.Topics, asked)
	}
	r.to(r.controllerID(), request)
}

func (r *run) alterAssignment(topic string, partition int32, replicas []int32) {
	for _, broker := range r.gen.live {
		request := kmsg.NewPtrAlterPartitionAssignmentsRequest()
		request.TimeoutMillis = 60_000
		asked := kmsg.NewAlterPartitionAssignmentsRequestTopic()
		asked.Topic = topic
		asked.Partitions = []kmsg.AlterPartitionAssignmentsRequestTopicPartition{{Partition: partition, Replicas: replicas}}
		request.Topics = append(request.Topics, asked)
		r.to(int(broker), request)
	}
}

func (r *run) listAssignments() {
	for _, broker := range r.gen.live {
		request := kmsg.NewPtrListPartitionReassignmentsRequest()
		request.TimeoutMillis = 60_000
		r.to(int(broker), request)
	}
}

// produceTo is one good batch for each partition of a topic.
func (r *run) produceTo(name string, acks, version int16) kmsg.Request {
	request := kmsg.NewPtrProduceRequest()
	request.Version, request.Acks, request.TimeoutMillis = version, acks, 30_000
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic = name
	for number := range r.gen.topicNamed(name).partitions {
		partition := kmsg.NewProduceRequestTopicPartition()
		partition.Partition = number
		partition.Records = batchSpec{count: 2, valueBytes: 10, producerID: -1, epoch: -1, sequence: -1, firstTime: firstTime}.build()
		topic.Partitions = append(topic.Partitions, partition)
	}
	request.Topics = append(request.Topics, topic)
	return request
}

// alone asks the last broker, which leads what it can and controls the cluster.
func (r *run) alone() {
	for _, name := range []string{"crosscheck-min3", "crosscheck-min2", "crosscheck-pairs", "crosscheck-all", "crosscheck-single"} {
		for _, acks := range []int16{-1, 1} {
			r.to(2, r.produceTo(name, acks, 11))
		}
	}
	r.elections()
	r.listAssignments()
}

// reassign moves partitions: to other brokers, in another order, to more and to fewer.
func (r *run) reassign() {
	steps := [][]int32{{3, 2}, {2, 3}, {2}, {1}, {1, 2, 3}, {3, 1, 2}, {3, 1}, {1, 2}}
	for i, replicas := range steps {
		r.alterAssignment(moving, 0, replicas)
		r.listAssignments()
		r.look(fmt.Sprint("after reassignment ", i+1))
		for _, broker := range r.gen.live {
			r.to(int(broker), r.produceTo(moving, -1, 10))
		}
	}
}

// expected are the answers that this test is there for, by request and error code.
var expected = []string{
	"Produce 6", "Fetch 6", "ListOffsets 6", "OffsetForLeaderEpoch 6", "Produce 19", "Fetch by a consumer from a follower", "Fetch with a preferred replica", "DeleteRecords 0", "DeleteRecords 6",
	"CreateTopics 41", "DeleteTopics 41", "CreatePartitions 41", "ElectLeaders 41", "AlterPartitionAssignments 41", "ListPartitionReassignments 41",
	"AlterPartition 41", "AllocateProducerIDs 41", "ControlledShutdown 11",
	"JoinGroup 16", "SyncGroup 16", "Heartbeat 16", "LeaveGroup 16", "OffsetCommit 16", "OffsetFetch 16", "DescribeGroups 16", "DeleteGroups 16", "OffsetDelete 16",
	"ElectLeaders 0", "ElectLeaders 80", "ElectLeaders 83", "ElectLeaders 84", "AlterPartitionAssignments 0", "AlterPartitionAssignments 39", "AlterPartitionAssignments 85",
	"Metadata 5", "Produce 0", "Fetch 0",
}

// expectOccurred tells what was answered, and fails if what the test is there for was not.
func (r *run) expectOccurred() {
	var text []string
	for _, name := range slices.Sorted(maps.Keys(r.codes)) {
		text = append(text, fmt.Sprintf("%s: %d", name, r.codes[name]))
	}
	r.t.Logf("Apache's brokers answered, by error code: %s", strings.Join(text, ", "))
	for _, name := range expected {
		if r.codes[name] == 0 {
			r.t.Errorf("this did not occur: %s", name)
		}
	}
}
