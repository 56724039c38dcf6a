package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/fleet"
	"understudy/internal/trial"
)

const (
	loadTopic      = "load"
	loadPartitions = 4
	loadEvery      = 10 * time.Millisecond // one record to each partition at this pace
	valueBytes     = 300
	probeTopic     = "probe"
	probed         = 2 // partitions
	patience       = time.Second

	stageBound  = 60 * time.Second // to set a cell up
	settleBound = 45 * time.Second // until all is well again after the fault
	finishBound = 15 * time.Second // for each step of reading everything back
)

// stage is a cluster under load.
type stage struct {
	fleet   *fleet.Fleet
	load    *trial.Load
	probe   *trial.Probe
	commits *commits
	writers *writers
	random  *rand.Rand
	network *network // nil on loopback
	dir     string
	// victims, and the number of bytes their logs had when the fault struck.
	victims []*fleet.Node
	logAt   map[string]int64
	// damage is what was done to files, for the report.
	damaged []damage
	mounted []string // file systems of this cell's own
	notes   []string
	revived int // servers that ended by themselves and were started again
}

func (s *stage) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

// open starts a cluster and everything that runs against it, and casts the brokers so that the
// partition leader, the follower, the controller and the group coordinator differ.
func (s *stage) open(ctx context.Context, options fleet.Options, groupCoordinatorLeads bool) (err error) {
	ctx, cancel := context.WithTimeout(ctx, stageBound)
	defer cancel()
	if s.fleet, err = fleet.New(options); err != nil {
		return err
	}
	if err := s.fleet.Start(ctx); err != nil {
		return err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(s.fleet.Bootstrap()...), kgo.ClientID("chaos-stage"))
	if err != nil {
		return err
	}
	defer client.Close()
	leader, follower, controller, err := s.cast(ctx, client)
	if err != nil {
		return err
	}
	// The follower coordinates the groups where the group coordinator is the victim, so that
	// it leads nothing else; otherwise the leader does, so that the follower only follows.
	coordinator := leader
	if groupCoordinatorLeads {
		coordinator = follower
	}
	groups, err := s.groupsAt(ctx, client, coordinator, 2)
	if err != nil {
		return err
	}
	s.load, err = trial.StartLoad(ctx, trial.LoadConfig{
		Bootstrap: s.fleet.Bootstrap(), Topic: loadTopic, Partitions: loadPartitions, Replicas: 3,
		Every: loadEvery, Group: groups[0], Patience: patience, BatchBytes: 16 << 10, Next: s.values(),
	})
	if err != nil {
		return err
	}
	if s.probe, err = trial.StartProbe(ctx, s.fleet.Bootstrap(), probeTopic, probed); err != nil {
		return err
	}
	if s.commits, err = startCommits(s.fleet.Bootstrap(), []int32{leader, follower, controller}, groups[1], coordinator); err != nil {
		return err
	}
	if s.writers, err = startWriters(ctx, s.fleet.Coordinators); err != nil {
		return err
	}
	if err := s.settled(ctx, false); err != nil {
		return fmt.Errorf("before the fault: %w", err)
	}
	return nil
}

// values yields records that do not compress, so that files have a size that can be told.
func (s *stage) values() func() ([]byte, error) {
	random := rand.New(rand.NewPCG(s.random.Uint64(), 0)) // of the producer's goroutine
	return func() ([]byte, error) {
		raw := make([]byte, valueBytes*3/4)
		for i := range raw {
			raw[i] = byte(random.Uint32())
		}
		return []byte(base64.StdEncoding.EncodeToString(raw)), nil
	}
}

// cast creates the topics: the load's partitions are led by one broker, but the last, which the
// controller leads; the third broker only follows.
func (s *stage) cast(ctx context.Context, client *kgo.Client) (leader, follower, controller int32, err error) {
	if controller, err = awaitController(ctx, client); err != nil {
		return 0, 0, 0, err
	}
	var others []int32
	for _, node := range s.fleet.Brokers {
		if int32(node.ID) != controller {
			others = append(others, int32(node.ID))
		}
	}
	leader, follower = others[0], others[1]
	byLeader, byController := []int32{leader, follower, controller}, []int32{controller, leader, follower}
	load := slices.Repeat([][]int32{byLeader}, loadPartitions-1)
	err = createTopic(ctx, client, loadTopic, append(load, byController), map[string]string{
		"min.insync.replicas": "2", "segment.bytes": "32768", "index.interval.bytes": "1024",
	})
	if err == nil {
		err = createTopic(ctx, client, probeTopic, [][]int32{byLeader, byController}, map[string]string{"min.insync.replicas": "2"})
	}
	return leader, follower, controller, err
}

func awaitController(ctx context.Context, client *kgo.Client) (int32, error) {
	for {
		answer, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, client)
		if err == nil && answer.ControllerID >= 0 && len(answer.Brokers) == 3 {
			return answer.ControllerID, nil
		}
		if ctx.Err() != nil {
			return -1, fmt.Errorf("no controller: %w", errors.Join(err, ctx.Err()))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func createTopic(ctx context.Context, client *kgo.Client, name string, replicas [][]int32, configs map[string]string) error {
	request := kmsg.NewPtrCreateTopicsRequest()
	request.TimeoutMillis = 10_000
	topic := kmsg.NewCreateTopicsRequestTopic()
	topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, -1, -1
	for partition, brokers := range replicas {
		assignment := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		assignment.Partition, assignment.Replicas = int32(partition), brokers
		topic.ReplicaAssignment = append(topic.ReplicaAssignment, assignment)
	}
	for _, key := range slices.Sorted(maps.Keys(configs)) {
		config := kmsg.NewCreateTopicsRequestTopicConfig()
		config.Name, config.Value = key, kmsg.StringPtr(configs[key])
		topic.Configs = append(topic.Configs, config)
	}
	request.Topics = append(request.Topics, topic)
	answer, err := request.RequestWith(ctx, client)
	if err != nil {
		return fmt.Errorf("create topic %s: %w", name, err)
	}
	for _, created := range answer.Topics {
		if err := kerr.ErrorForCode(created.ErrorCode); err != nil {
			return fmt.Errorf("create topic %s: %w", name, err)
		}
	}
	return nil
}

// groupsAt finds names of groups that a broker coordinates.
func (s *stage) groupsAt(ctx context.Context, client *kgo.Client, broker int32, count int) ([]string, error) {
	var groups []string
	for number := 0; len(groups) < count; {
		group := fmt.Sprintf("group-%d", number)
		coordinator, err := findCoordinator(ctx, client, group)
		if err != nil {
			if ctx.Err() != nil {
				return nil, fmt.Errorf("no group coordinator: %w", errors.Join(err, ctx.Err()))
			}
			time.Sleep(20 * time.Millisecond) // the offsets topic is being created
			continue
		}
		if coordinator == broker {
			groups = append(groups, group)
		}
		if number++; number > 1000 {
			return nil, fmt.Errorf("broker %d coordinates no group", broker)
		}
	}
	return groups, nil
}

func findCoordinator(ctx context.Context, client kmsg.Requestor, group string) (int32, error) {
	request := kmsg.NewPtrFindCoordinatorRequest()
	request.CoordinatorKey, request.CoordinatorKeys = group, []string{group}
	answer, err := request.RequestWith(ctx, client)
	if err != nil {
		return -1, err
	}
	for _, found := range answer.Coordinators {
		return found.NodeID, kerr.ErrorForCode(found.ErrorCode)
	}
	return answer.NodeID, kerr.ErrorForCode(answer.ErrorCode)
}

// groupCoordinator asks who coordinates a group, anew.
func (s *stage) groupCoordinator(ctx context.Context, group string) (int32, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(s.fleet.Bootstrap()...))
	if err != nil {
		return -1, err
	}
	defer client.Close()
	return findCoordinator(ctx, client, group)
}

// settled waits until every coordinator serves, every partition of every topic has all its
// replicas in sync, and each client gets its answers. Servers that ended by themselves are started again
// if revive is set, and noted.
func (s *stage) settled(ctx context.Context, revive bool) error {
	ctx, cancel := context.WithTimeout(ctx, settleBound)
	defer cancel()
	began := time.Now()
	for {
		waiting := s.unsettled(ctx, began)
		if waiting == "" {
			return nil
		}
		if revive {
			if err := s.revive(ctx); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not settled after %v: %s", time.Since(began).Round(time.Second), waiting)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// unsettled says what is missing, "" if nothing.
func (s *stage) unsettled(ctx context.Context, began time.Time) string {
	for _, node := range s.fleet.Coordinators {
		text, err := fleet.FourLetterWord(node.Addr, "srvr")
		if err != nil || !strings.Contains(text, "Mode: ") {
			return fmt.Sprintf("%s does not serve: %v", node.Name, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	metadata, err := s.load.Admin().Metadata(ctx)
	if err != nil {
		return fmt.Sprintf("no metadata: %v", err)
	}
	if len(metadata.Brokers) != len(s.fleet.Brokers) {
		return fmt.Sprintf("brokers %v are registered", metadata.Brokers.NodeIDs())
	}
	for _, topic := range metadata.Topics.Sorted() {
		for _, partition := range topic.Partitions.Sorted() {
			if partition.Err != nil || partition.Leader < 0 || len(partition.ISR) != len(partition.Replicas) {
				return fmt.Sprintf("%s-%d has leader %d, in sync %v of %v, %v", topic.Topic, partition.Partition, partition.Leader, partition.ISR, partition.Replicas, partition.Err)
			}
		}
	}
	switch {
	case !s.commits.gap.since(began):
		return "no offset is committed"
	case !s.writers.gap.since(began):
		return "no znode is written"
	}
	return ""
}

// revive starts the servers that ended by themselves, all at once: a coordinator alone is not
// ready.
func (s *stage) revive(ctx context.Context) error {
	var ended []*fleet.Node
	for _, node := range s.nodes() {
		process := node.Process()
		if process == nil {
			continue // the fault took it down and has yet to bring it back
		}
		select {
		case <-process.Exited():
			node.Kill() // forgets the process
			s.note("%s ended by itself (%v): %s", node.Name, process.ExitError(), lastComplaint(s.said(node)))
			ended = append(ended, node)
		default:
		}
	}
	s.revived += len(ended)
	return inParallel(ended, func(node *fleet.Node) error {
		if err := node.Start(ctx); err != nil {
			return fmt.Errorf("%s ended by itself and does not start: %w", node.Name, err)
		}
		return nil
	})
}

func (s *stage) nodes() []*fleet.Node { return slices.Concat(s.fleet.Coordinators, s.fleet.Brokers) }

// markLogs remembers how long the victims' logs are, so that what they say later can be told.
func (s *stage) markLogs() {
	s.logAt = map[string]int64{}
	for _, node := range s.nodes() {
		if info, err := os.Stat(node.LogFile()); err == nil {
			s.logAt[node.LogFile()] = info.Size()
		}
	}
}

// said returns the lines that a server logged since markLogs.
func (s *stage) said(node *fleet.Node) []string {
	text, err := os.ReadFile(node.LogFile())
	if err != nil {
		return nil
	}
	return strings.Split(string(text[min(s.logAt[node.LogFile()], int64(len(text))):]), "\n")
}

// close ends what is left, whatever state it is in.
func (s *stage) close() {
	if s.probe != nil {
		s.probe.Close()
	}
	if s.commits != nil {
		s.commits.stop()
	}
	if s.writers != nil {
		s.writers.stop()
	}
	if s.fleet != nil {
		for _, node := range s.nodes() { // a stopped process takes no signal but this
			if process := node.Process(); process != nil {
				_ = process.KillAsync() // already gone is what we want
			}
		}
		s.fleet.KillAll()
	}
	s.unmount()
}
