package seam

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"understudy/internal/fleet"
	"understudy/internal/trial"
	"understudy/interop/foreign"
)

const (
	topic      = "seam"
	partitions = 12
)

// kind is whose server plays a part.
type kind string

const (
	ours   kind = "ours"
	apache kind = "Apache"
)

// cast says who plays what. Broker i+1 is of kind brokers[i].
type cast struct {
	coordinator  kind
	coordinators int // 0 = 3
	brokers      []kind
	properties   map[string]string // added to every server.properties
	replicas     int               // of the load's topic; 0 = 3, or one on each broker if there are fewer
}

// stage is a fleet of both kinds of server, and what looks at it from outside.
type stage struct {
	*fleet.Fleet
	originals *fleet.Program
	kinds     map[int]kind // of each broker, by id
	zk        *zk.Conn
	admin     *kadm.Client
	load      *trial.Load
	diary     diary
	group     string
	replicas  int
}

// setUp starts the coordinators and configures the brokers.
func setUp(t *testing.T, cast cast) *stage {
	t.Helper()
	s := &stage{originals: foreign.Apache(t), kinds: map[int]kind{}, replicas: cast.replicas}
	if s.replicas == 0 {
		s.replicas = min(3, len(cast.brokers))
	}
	for i, kind := range cast.brokers {
		s.kinds[i+1] = kind
	}
	choose := func(of func(id int) kind) func(int) *fleet.Program {
		return func(id int) *fleet.Program { return s.program(of(id)) }
	}
	properties := map[string]string{
		"inter.broker.protocol.version": "3.9",
		// Apache's brokers notice a death by the session alone: Kafka's 18 s would make the tests long.
		"zookeeper.session.timeout.ms":             "4000",
		"transaction.state.log.replication.factor": fmt.Sprint(min(3, len(cast.brokers))),
		"transaction.state.log.min.isr":            "1",
		"transaction.state.log.num.partitions":     "3",
		"log.cleaner.dedupe.buffer.size":           "4194304", // Kafka's 128 MiB twice, when it is reconfigured, are more than our heap
	}
	maps.Copy(properties, cast.properties)
	var err error
	s.Fleet, err = fleet.New(fleet.Options{
		Binary: program, Dir: t.TempDir(), Coordinators: cast.coordinators, Brokers: len(cast.brokers), LogLevel: os.Getenv("UNDERSTUDY_SEAM_LOG"),
		StartTimeout:       patience,
		CoordinatorProgram: choose(func(int) kind { return cast.coordinator }),
		BrokerProgram:      choose(func(id int) kind { return s.kinds[id] }),
		BrokerProperties:   properties,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.KillAll()
		s.keepLogs(t)
	})
	s.startTogether(t, s.Coordinators)
	s.connect(t)
	return s
}

// program is what runs a kind.
func (s *stage) program(kind kind) *fleet.Program {
	if kind == apache {
		return s.originals
	}
	return fleet.Understudy(program, os.Getenv("UNDERSTUDY_SEAM_LOG"))
}

// keepLogs shows the ends of the servers' logs after a failure, and keeps all of them in the
// folder that UNDERSTUDY_SEAM_KEEP names.
func (s *stage) keepLogs(t *testing.T) {
	keep := os.Getenv("UNDERSTUDY_SEAM_KEEP")
	for _, node := range slices.Concat(s.Coordinators, s.Brokers) {
		text, err := os.ReadFile(node.LogFile())
		if err != nil {
			continue
		}
		if t.Failed() {
			t.Logf("the end of the log of %s:\n%s", node.Name, text[max(0, len(text)-3000):])
		}
		if keep != "" {
			name := fmt.Sprintf("%s-%s-%d.log", t.Name(), node.Name[:1], node.ID)
			if err := os.WriteFile(filepath.Join(keep, name), text, 0o644); err != nil {
				t.Log(err)
			}
		}
	}
}

// quiet keeps the ZooKeeper client's chatter out of the test's output.
type quiet struct{}

func (quiet) Printf(string, ...any) {}

func (s *stage) connect(t *testing.T) {
	t.Helper()
	conn, _, err := zk.Connect(strings.Split(s.ZooKeeperConnect(), ","), 10*time.Second, zk.WithLogger(quiet{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(s.Bootstrap()...), kgo.MetadataMinAge(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	s.zk, s.admin = conn, kadm.NewClient(client)
}

func (s *stage) startTogether(t *testing.T, nodes []*fleet.Node) {
	t.Helper()
	errs := make([]error, len(nodes))
	var wait sync.WaitGroup
	for i, node := range nodes {
		wait.Go(func() { errs[i] = node.Start(limited(t)) })
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// open starts the brokers; the first becomes the controller.
func (s *stage) open(t *testing.T, first int) {
	t.Helper()
	director := s.broker(first)
	s.startTogether(t, []*fleet.Node{director})
	s.startTogether(t, slices.DeleteFunc(slices.Clone(s.Brokers), func(node *fleet.Node) bool { return node == director }))
	s.expectController(t, s.kinds[first])
}

func (s *stage) broker(id int) *fleet.Node { return s.Brokers[id-1] }

// restart starts a broker again. An Apache broker exits if the node of its former session
// still exists, and an operator would start it until it holds.
func (s *stage) restart(t *testing.T, node *fleet.Node) {
	t.Helper()
	ctx := limited(t)
	for {
		err := node.Start(ctx)
		if err == nil {
			return
		}
		if node.Program() != s.originals || ctx.Err() != nil || !strings.Contains(err.Error(), "NodeExists") {
			t.Fatal(err)
		}
	}
}

// controller is the broker that holds /controller, 0 if none does.
func (s *stage) controller(t *testing.T) int {
	t.Helper()
	data, _, err := s.zk.Get("/controller")
	if errors.Is(err, zk.ErrNoNode) {
		return 0
	}
	if err != nil {
		t.Fatalf("read /controller: %v", err)
	}
	var content struct{ BrokerID int }
	if err := json.Unmarshal(data, &content); err != nil {
		t.Fatalf("/controller holds %q: %v", data, err)
	}
	return content.BrokerID
}

// expectController waits until there is a controller, which must be of a kind.
func (s *stage) expectController(t *testing.T, want kind) int {
	t.Helper()
	id := 0
	until(t, "a controller", func() string {
		if id = s.controller(t); id == 0 {
			return "there is none"
		}
		return ""
	})
	if s.kinds[id] != want {
		t.Fatalf("broker %d is the controller and is %s: this test needs %s", id, s.kinds[id], want)
	}
	t.Logf("broker %d (%s) is the controller", id, want)
	return id
}

// coordinatorOf finds a group's coordinator.
func (s *stage) coordinatorOf(t *testing.T, group string) int {
	t.Helper()
	id := 0
	until(t, "the coordinator of group "+group, func() string {
		found := s.admin.FindGroupCoordinators(limited(t), group)
		if err := found.Error(); err != nil {
			return err.Error()
		}
		id = int(found[group].NodeID)
		return ""
	})
	return id
}

// groupOn returns the name of a group that a broker coordinates.
func (s *stage) groupOn(t *testing.T, broker int) string {
	t.Helper()
	for n := range 200 {
		group := fmt.Sprintf("audience-%d", n)
		if s.coordinatorOf(t, group) == broker {
			return group
		}
	}
	t.Fatalf("broker %d coordinates none of 200 groups", broker)
	return ""
}

// begin starts the load; a broker coordinates its consumer group.
func (s *stage) begin(t *testing.T, coordinator int) {
	t.Helper()
	s.group = s.groupOn(t, coordinator)
	var err error
	s.load, err = trial.StartLoad(limited(t), trial.LoadConfig{
		Bootstrap: s.Bootstrap(), Topic: topic, Partitions: partitions, Replicas: int16(s.replicas), MinInsync: s.replicas - 1,
		Every: 20 * time.Millisecond, Group: s.group, ProducerLogger: &s.diary,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.settle(t)
}

// settle waits until everything is in sync and led by the preferred replicas, so that every
// broker leads and every broker follows.
func (s *stage) settle(t *testing.T) {
	t.Helper()
	if err := s.load.Settle(limited(t)); err != nil {
		t.Fatal(err)
	}
	leaders, err := s.load.Leaders(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	led := map[int32]int{}
	for _, leader := range leaders {
		led[leader]++
	}
	if len(led) != len(s.Brokers) {
		t.Fatalf("partitions by leader: %v, not every broker leads", led)
	}
}

// strike does something to a broker that leads partitions, and waits until they acknowledge again.
func (s *stage) strike(t *testing.T, what string, node *fleet.Node, fault func() error) {
	t.Helper()
	led, err := s.load.AwaitLedBy(limited(t), int32(node.ID))
	if err != nil {
		t.Fatal(err)
	}
	controller := s.controller(t)
	outcome, err := s.load.Strike(limited(t), what, led, func() (time.Time, time.Time, error) {
		now := time.Now()
		err := fault()
		return now, time.Now(), err
	})
	if err != nil {
		t.Fatalf("%s of %s (%s): %v", what, node.Name, s.kinds[node.ID], err)
	}
	t.Logf("%s of %s (%s), controller %d (%s): longest time without an acknowledgement %v",
		what, node.Name, s.kinds[node.ID], controller, s.kinds[controller], outcome.Gap.Round(time.Millisecond))
}

func (s *stage) kill(t *testing.T, node *fleet.Node) {
	t.Helper()
	s.strike(t, "kill -9", node, func() error { node.Kill(); return nil })
}

func (s *stage) shutDown(t *testing.T, node *fleet.Node) {
	t.Helper()
	s.strike(t, "SIGTERM", node, func() error { return node.Stop(limited(t)) })
}

// finish ends the load and demands a clean account.
func (s *stage) finish(t *testing.T) {
	t.Helper()
	account, err := s.load.Finish(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	if lines := s.diary.renumberings(); lines != "" {
		t.Logf("the producer began new sequences:\n%s", lines)
	}
	if !account.Clean() {
		t.Fatalf("the account is not clean: %+v\n%s", account, s.evidence(account))
	}
	t.Logf("%d records acknowledged, %d read", account.Acknowledged, account.Read)
}

// sameDescription demands that Kafka's own tool says the same of the topic through every broker.
func (s *stage) sameDescription(t *testing.T) {
	t.Helper()
	describe := func(node *fleet.Node) string {
		return output(t, foreign.KafkaTool(limited(t), t, foreign.Kafka39, "kafka-topics", "--bootstrap-server", node.Addr, "--describe", "--topic", topic))
	}
	until(t, "kafka-topics --describe through every broker", func() string {
		want := describe(s.Brokers[0])
		if strings.Count(want, "Partition: ") != partitions {
			return fmt.Sprintf("through %s: %q", s.Brokers[0].Name, want)
		}
		for _, node := range s.Brokers[1:] {
			if got := describe(node); got != want {
				return fmt.Sprintf("through %s:\n%s\nthrough %s:\n%s", s.Brokers[0].Name, want, node.Name, got)
			}
		}
		return ""
	})
}

// deleteTopic deletes the topic and waits until no trace of it is left, in the coordinator or
// in any broker's directory.
func (s *stage) deleteTopic(t *testing.T) {
	t.Helper()
	if deleted, err := s.admin.DeleteTopics(limited(t), topic); err != nil || deleted.Error() != nil {
		t.Fatal(err, deleted.Error())
	}
	until(t, "the deletion", func() string {
		for _, path := range []string{"/brokers/topics/" + topic, "/admin/delete_topics/" + topic, "/config/topics/" + topic} {
			if exists, _, err := s.zk.Exists(path); err != nil || exists {
				return fmt.Sprintf("%s exists: %v, %v", path, exists, err)
			}
		}
		for _, node := range s.Brokers {
			entries, err := os.ReadDir(node.Dir() + "/data")
			if err != nil {
				return err.Error()
			}
			for _, entry := range entries {
				if strings.HasPrefix(entry.Name(), topic+"-") && !strings.HasSuffix(entry.Name(), "-delete") {
					return fmt.Sprintf("%s still has %s", node.Name, entry.Name())
				}
			}
		}
		return ""
	})
}
