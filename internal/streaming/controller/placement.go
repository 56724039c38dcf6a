package controller

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
)

// Placement asks for replicas of new partitions by Kafka's default algorithm
// (AdminUtils.assignReplicasToBrokers).
type Placement struct {
	Brokers    []cluster.Broker // live ones
	Partitions int32            // how many to place
	Factor     int16
	First      int32 // number of the first partition placed: > 0 when a topic grows
	// FixedStart is where the first partition begins and by how much the followers are
	// shifted; negative: both random. Growing a topic uses the place of partition 0's
	// first replica among the brokers.
	FixedStart int
	Random     *rand.Rand // used when FixedStart is negative
}

// Place returns the replica lists of the partitions First, First+1, …. Once a single broker
// has a rack all must, and replicas are spread over racks.
func (p *Placement) Place() ([][]cluster.BrokerID, error) {
	switch {
	case p.Partitions <= 0:
		return nil, Refuse(kerr.InvalidPartitions, "Number of partitions must be larger than 0.")
	case p.Factor <= 0:
		return nil, Refuse(kerr.InvalidReplicationFactor, "Replication factor must be larger than 0.")
	case int(p.Factor) > len(p.Brokers):
		return nil, Refuse(kerr.InvalidReplicationFactor, "Replication factor: %d larger than available brokers: %d.", p.Factor, len(p.Brokers))
	}
	racks := map[cluster.BrokerID]string{}
	for i := range p.Brokers {
		if p.Brokers[i].Rack != "" {
			racks[p.Brokers[i].ID] = p.Brokers[i].Rack
		}
	}
	ids := make([]cluster.BrokerID, len(p.Brokers))
	for i := range p.Brokers {
		ids[i] = p.Brokers[i].ID
	}
	slices.Sort(ids)
	switch {
	case len(racks) == 0:
		return p.placeFlat(ids), nil
	case len(racks) < len(ids):
		return nil, Refuse(kerr.InvalidReplicationFactor, "Not all brokers have rack information for replica rack aware assignment.")
	}
	return p.placeByRack(alternate(ids, racks), racks), nil
}

// Refusal is a request that cannot be granted: Kafka's code, and Kafka's message to the
// letter, because tools and their tests read it.
type Refusal struct {
	Code    *kerr.Error
	Message string
}

func (r *Refusal) Error() string { return r.Message }
func (r *Refusal) Unwrap() error { return r.Code }

// Refuse makes a Refusal.
func Refuse(code *kerr.Error, format string, args ...any) error {
	return &Refusal{code, fmt.Sprintf(format, args...)}
}

func (p *Placement) start(count int) (start, shift int) {
	if p.FixedStart >= 0 {
		return p.FixedStart, p.FixedStart
	}
	return p.Random.IntN(count), p.Random.IntN(count)
}

func replicaIndex(first, shift, j, count int) int {
	return (first + 1 + (shift+j)%(count-1)) % count
}

func (p *Placement) placeFlat(ids []cluster.BrokerID) [][]cluster.BrokerID {
	n := len(ids)
	start, shift := p.start(n)
	out := make([][]cluster.BrokerID, 0, p.Partitions)
	for number := int(p.First); number < int(p.First+p.Partitions); number++ {
		if number > 0 && number%n == 0 {
			shift++
		}
		first := (number + start) % n
		replicas := []cluster.BrokerID{ids[first]}
		for j := range int(p.Factor) - 1 {
			replicas = append(replicas, ids[replicaIndex(first, shift, j, n)])
		}
		out = append(out, replicas)
	}
	return out
}

// alternate lists the brokers so that neighbours are on different racks: racks by name,
// round robin, brokers by id within each.
func alternate(ids []cluster.BrokerID, racks map[cluster.BrokerID]string) []cluster.BrokerID {
	byRack := map[string][]cluster.BrokerID{}
	var names []string
	for _, id := range ids {
		rack := racks[id]
		if byRack[rack] == nil {
			names = append(names, rack)
		}
		byRack[rack] = append(byRack[rack], id)
	}
	slices.Sort(names)
	var out []cluster.BrokerID
	for round := 0; len(out) < len(ids); round++ {
		for _, rack := range names {
			if round < len(byRack[rack]) {
				out = append(out, byRack[rack][round])
			}
		}
	}
	return out
}

func (p *Placement) placeByRack(ids []cluster.BrokerID, racks map[cluster.BrokerID]string) [][]cluster.BrokerID {
	n := len(ids)
	rackCount := len(countRacks(ids, racks))
	start, shift := p.start(n)
	out := make([][]cluster.BrokerID, 0, p.Partitions)
	for number := int(p.First); number < int(p.First+p.Partitions); number++ {
		if number > 0 && number%n == 0 {
			shift++
		}
		first := (number + start) % n
		replicas := []cluster.BrokerID{ids[first]}
		j := 0
		for range int(p.Factor) - 1 {
			for {
				candidate := ids[replicaIndex(first, shift*rackCount, j, n)]
				j++
				usedRacks := countRacks(replicas, racks)
				newRack := usedRacks[racks[candidate]] == 0
				newBroker := !slices.Contains(replicas, candidate)
				if (newRack || len(usedRacks) == rackCount) && (newBroker || len(replicas) == n) {
					replicas = append(replicas, candidate)
					break
				}
			}
		}
		out = append(out, replicas)
	}
	return out
}

func countRacks(ids []cluster.BrokerID, racks map[cluster.BrokerID]string) map[string]int {
	out := map[string]int{}
	for _, id := range ids {
		out[racks[id]]++
	}
	return out
}

// ValidateTopicName checks a name by Kafka's rules, with Kafka's messages (Topic.validate).
func ValidateTopicName(name string) error {
	refuse := func(format string, args ...any) error { return Refuse(kerr.InvalidTopicException, format, args...) }
	switch {
	case name == "":
		return refuse("Topic name is invalid: the empty string is not allowed")
	case name == "." || name == "..":
		return refuse("Topic name is invalid: '.' or '..' is not allowed")
	case len(name) > 249:
		return refuse("Topic name is invalid: the length of '%s' is longer than the max allowed length 249", name)
	}
	for i := 0; i < len(name); i++ {
		b := name[i]
		if b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '.' || b == '_' || b == '-' {
			continue
		}
		return refuse("Topic name is invalid: '%s' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'", name)
	}
	return nil
}

// CollidingTopics returns the existing topics, other than name itself, whose metric names
// would be the same: those equal after '.' becomes '_'.
func CollidingTopics(name string, existing []string) []string {
	if !strings.ContainsAny(name, "._") {
		return nil
	}
	var out []string
	unified := strings.ReplaceAll(name, ".", "_")
	for _, other := range existing {
		if other != name && strings.ReplaceAll(other, ".", "_") == unified {
			out = append(out, other)
		}
	}
	return out
}
