package kafka

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// When clusters of several brokers are at rest: requests that are compared must not fall into
// something that is still under way.

// assignment is a topic's node.
type assignment struct {
	Partitions map[string][]int32 `json:"partitions"`
	Adding     map[string][]int32 `json:"adding_replicas"`
	Removing   map[string][]int32 `json:"removing_replicas"`
}

func (s *side) assignment(topic string) assignment {
	var out assignment
	if data, _, err := s.zk.Get("/brokers/topics/" + topic); err != nil || json.Unmarshal(data, &out) != nil {
		return assignment{}
	}
	return out
}

// state is a partition's node.
type state struct {
	Leader          int32   `json:"leader"`
	LeaderEpoch     int32   `json:"leader_epoch"`
	ISR             []int32 `json:"isr"`
	ControllerEpoch int32   `json:"controller_epoch"`
}

// states are those of a topic's partitions; one that cannot be read is missing.
func (s *side) states(topic string) map[int32]state {
	out := map[int32]state{}
	for number := range s.assignment(topic).Partitions {
		var one state
		data, _, err := s.zk.Get(fmt.Sprintf("/brokers/topics/%s/partitions/%s/state", topic, number))
		if id, bad := strconv.Atoi(number); bad == nil && err == nil && json.Unmarshal(data, &one) == nil {
			out[int32(id)] = one
		}
	}
	return out
}

// controller is the broker that holds the controller's node, -1 if none does.
func (s *side) controller() int32 {
	data, _, err := s.zk.Get("/controller")
	var holder struct {
		Broker int32 `json:"brokerid"`
	}
	if err != nil || json.Unmarshal(data, &holder) != nil {
		return -1
	}
	return holder.Broker
}

func (r *run) controllerID() int { return int(r.pair.reference.controller()) }

// knowEachOther waits until all of these brokers, and no others, are in each other's metadata,
// with the controller.
func (s *side) knowEachOther(live []int32) error {
	return s.await("the brokers in the metadata", func() bool {
		for _, id := range live {
			response, err := s.ask(int(id), metadataOf("no-such-topic"))
			if err != nil {
				return false
			}
			answer := response.(*kmsg.MetadataResponse)
			if len(answer.Brokers) != len(live) || answer.ControllerID != s.controller() {
				return false
			}
		}
		return true
	})
}

// calm waits until every topic is at rest on both sides.
func (r *run) calm() {
	r.t.Helper()
	for _, topic := range r.gen.topics {
		r.calmTopic(topic.name)
	}
}

func (r *run) calmTopic(topic string) {
	r.t.Helper()
	for _, s := range []*side{r.pair.reference, r.pair.candidate} {
		why := ""
		err := s.await("rest in "+topic, func() bool {
			why = s.unrest(topic, r.gen.live)
			return why == ""
		})
		if err != nil {
			r.t.Fatalf("%v: %s", err, why)
		}
	}
}

// unrest is what a topic's partitions still wait for, "" if nothing: every replica on a broker
// that runs is in sync, every broker knows what the partition's node says, and followers have
// the leader's records and high watermark.
func (s *side) unrest(topic string, live []int32) string {
	assigned, states := s.assignment(topic), s.states(topic)
	if len(states) == 0 || len(states) != len(assigned.Partitions) {
		return "partitions without a state"
	}
	for number, one := range states {
		name := fmt.Sprint(number)
		running := func(id int32) bool { return slices.Contains(live, id) }
		if one.Leader < 0 {
			if slices.ContainsFunc(one.ISR, running) {
				return fmt.Sprintf("partition %d has no leader: %+v", number, one)
			}
			continue
		}
		for _, id := range assigned.Partitions[name] {
			if running(id) != slices.Contains(one.ISR, id) {
				return fmt.Sprintf("replica %d of partition %d: %+v", id, number, one)
			}
		}
		moves := len(assigned.Adding[name])+len(assigned.Removing[name]) > 0 // and comes to its end if all that are to remain run
		for _, id := range assigned.Partitions[name] {
			moves = moves && (running(id) || slices.Contains(assigned.Removing[name], id))
		}
		if !running(one.Leader) || moves {
			return fmt.Sprintf("partition %d: %+v, %+v", number, one, assigned)
		}
	}
	for _, id := range live {
		response, err := s.ask(int(id), metadataOf(topic))
		if err != nil {
			return err.Error()
		}
		partitions := response.(*kmsg.MetadataResponse).Topics[0].Partitions
		if len(partitions) != len(states) {
			return fmt.Sprintf("broker %d knows of %d partitions", id, len(partitions))
		}
		for i := range partitions {
			p, known := &partitions[i], states[partitions[i].Partition]
			if p.Leader != known.Leader || p.LeaderEpoch != known.LeaderEpoch || !sameSet(p.ISR, known.ISR) || !slices.Equal(p.Replicas, assigned.Partitions[fmt.Sprint(p.Partition)]) {
				return fmt.Sprintf("broker %d: %+v, not %+v", id, *p, known)
			}
		}
	}
	return s.lagging(topic, live)
}

func sameSet(a, b []int32) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// end is how far a replica is.
type end struct{ size, highWatermark int64 }

// lagging is a partition whose replicas are not equally far, or whose high watermark may still
// rise: it stands still below the log's end where fewer replicas are in sync than
// min.insync.replicas demands.
func (s *side) lagging(topic string, live []int32) string {
	states := s.states(topic)
	starts := map[int32]int64{} // records may have been deleted
	for number, one := range states {
		if one.Leader >= 0 {
			starts[number] = max(s.logOffset(int(one.Leader), topic, number, earliest), 0)
		}
	}
	ends := map[int32]map[int32]end{} // by broker and partition
	for _, id := range live {
		ends[id] = s.ends(int(id), topic, starts)
	}
	for number, one := range states {
		if one.Leader < 0 {
			continue
		}
		last := s.logOffset(int(one.Leader), topic, number, latest)
		want, found := ends[one.Leader][number]
		if !found || last < 0 || want.highWatermark != last && len(one.ISR) >= s.minISR(topic) {
			return fmt.Sprintf("partition %d: high watermark %d of %d", number, want.highWatermark, last)
		}
		for _, id := range one.ISR {
			if got := ends[id][number]; got != want {
				return fmt.Sprintf("partition %d: broker %d is at %+v, the leader at %+v", number, id, got, want)
			}
		}
	}
	return ""
}

// ends are the ends of what a broker hosts of a topic's partitions, which start at some offsets.
func (s *side) ends(broker int, topic string, starts map[int32]int64) map[int32]end {
	fetch := kmsg.NewPtrFetchRequest()
	fetch.Version, fetch.MaxBytes, fetch.SessionEpoch = 12, 1, -1
	asked := kmsg.NewFetchRequestTopic()
	asked.Topic = topic
	logs := kmsg.NewPtrDescribeLogDirsRequest()
	logs.Version = 1
	asks := kmsg.NewDescribeLogDirsRequestTopic()
	asks.Topic = topic
	for number, start := range starts {
		partition := kmsg.NewFetchRequestTopicPartition()
		partition.Partition, partition.CurrentLeaderEpoch, partition.FetchOffset, partition.PartitionMaxBytes = number, -1, start, 1
		asked.Partitions = append(asked.Partitions, partition)
		asks.Partitions = append(asks.Partitions, number)
	}
	fetch.Topics, logs.Topics = append(fetch.Topics, asked), append(logs.Topics, asks)
	out := map[int32]end{}
	fetched, err := s.ask(broker, fetch)
	described, err2 := s.ask(broker, logs)
	if err != nil || err2 != nil {
		return out
	}
	for _, t := range fetched.(*kmsg.FetchResponse).Topics {
		for i := range t.Partitions {
			if p := &t.Partitions[i]; p.ErrorCode == 0 {
				out[p.Partition] = end{highWatermark: p.HighWatermark}
			}
		}
	}
	for _, dir := range described.(*kmsg.DescribeLogDirsResponse).Dirs {
		for _, t := range dir.Topics {
			for _, p := range t.Partitions {
				if one, found := out[p.Partition]; found {
					out[p.Partition] = end{size: p.Size, highWatermark: one.highWatermark}
				}
			}
		}
	}
	return out
}

// Timestamps of ListOffsets for the ends of a log.
const latest, earliest = -1, -2

// logOffset is where a leader's log ends or starts, -1 if it does not say: who asks as a
// debugger is told of what is not committed, too.
func (s *side) logOffset(broker int, topic string, number int32, timestamp int64) int64 {
	request := kmsg.NewPtrListOffsetsRequest()
	request.Version, request.ReplicaID = 6, -2
	asked := kmsg.NewListOffsetsRequestTopic()
	asked.Topic = topic
	partition := kmsg.NewListOffsetsRequestTopicPartition()
	partition.Partition, partition.CurrentLeaderEpoch, partition.Timestamp = number, -1, timestamp
	asked.Partitions = append(asked.Partitions, partition)
	request.Topics = append(request.Topics, asked)
	response, err := s.ask(broker, request)
	if err != nil {
		return -1
	}
	answer := &response.(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0]
	if answer.ErrorCode != 0 {
		return -1
	}
	return answer.Offset
}

// minISR is a topic's min.insync.replicas as its configuration's node has it.
func (s *side) minISR(topic string) int {
	data, _, err := s.zk.Get("/config/topics/" + topic)
	var node struct {
		Config map[string]string `json:"config"`
	}
	if err != nil || json.Unmarshal(data, &node) != nil {
		return 1
	}
	least, err := strconv.Atoi(node.Config["min.insync.replicas"])
	if err != nil {
		return 1
	}
	return least
}
