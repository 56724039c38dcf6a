package kafka

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"understudy/internal/fleet"
	"understudy/internal/trial"
)

// show is a fleet under load for one test.
type show struct {
	fleet  *fleet.Fleet
	load   *trial.Load
	events trial.Events
}

const showTopic = "show"

func startShow(t *testing.T) *show {
	t.Helper()
	s := &show{}
	var err error
	s.fleet, err = fleet.New(fleet.Options{Binary: program, Dir: t.TempDir(), LogLevel: "debug", OnLog: s.events.Add})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.fleet.KillAll()
		if t.Failed() {
			s.printLogs(t)
		}
	})
	ctx := limited(t)
	if err := s.fleet.Start(ctx); err != nil {
		t.Fatal(err)
	}
	s.load, err = trial.StartLoad(ctx, trial.LoadConfig{
		Bootstrap: s.fleet.Bootstrap(), Topic: showTopic, Partitions: 12, Replicas: 3, MinInsync: 2, Every: 5 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.settle(t)
	return s
}

func (s *show) printLogs(t *testing.T) {
	for _, nodes := range [][]*fleet.Node{s.fleet.Coordinators, s.fleet.Brokers} {
		for _, node := range nodes {
			if text, err := os.ReadFile(node.LogFile()); err == nil {
				t.Logf("the end of %s's log:\n%s", node.Name, text[max(0, len(text)-3000):])
			}
		}
	}
}

// settle waits until everything is in sync and led by the preferred replicas.
func (s *show) settle(t *testing.T) {
	t.Helper()
	if err := s.load.Settle(limited(t)); err != nil {
		t.Fatal(err)
	}
}

// finish ends the load and demands a clean account.
func (s *show) finish(t *testing.T) {
	t.Helper()
	account, err := s.load.Finish(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	if !account.Clean() {
		t.Fatalf("the account is not clean: %+v", account)
	}
	t.Logf("%d records acknowledged, %d read", account.Acknowledged, account.Read)
}

func (s *show) victim(t *testing.T) (*fleet.Node, []int32) {
	t.Helper()
	node := s.fleet.Brokers[0]
	partitions, err := s.load.AwaitLedBy(limited(t), int32(node.ID))
	if err != nil {
		t.Fatal(err)
	}
	return node, partitions
}

func (s *show) coordinatorLeader(t *testing.T) *fleet.Node {
	t.Helper()
	for _, node := range s.fleet.Coordinators {
		if text, err := fleet.FourLetterWord(node.Addr, "srvr"); err == nil && strings.Contains(text, "Mode: leader") {
			return node
		}
	}
	t.Fatal("no coordinator says that it is the leader")
	return nil
}

func start(t *testing.T, nodes ...*fleet.Node) {
	t.Helper()
	for _, node := range nodes {
		if err := node.Start(limited(t)); err != nil {
			t.Fatal(err)
		}
	}
}

func sudden(fault func() error) trial.Fault {
	return func() (time.Time, time.Time, error) {
		now := time.Now()
		err := fault()
		return now, time.Now(), err
	}
}

func TestKilledLeader(t *testing.T) {
	s := startShow(t)
	for range 3 {
		node, partitions := s.victim(t)
		outcome, err := s.load.Strike(limited(t), "kill -9", partitions, sudden(func() error { node.Kill(); return nil }))
		if err != nil {
			t.Fatal(err)
		}
		s.events.Explain(&outcome, showTopic, int32(node.ID))
		t.Logf("no leader for %v", outcome.Gap)
		start(t, node)
		s.settle(t)
	}
	s.finish(t)
}

func TestKilledLeaderAndCoordinatorLeader(t *testing.T) {
	s := startShow(t)
	node, partitions := s.victim(t)
	coordinator := s.coordinatorLeader(t)
	outcome, err := s.load.Strike(limited(t), "kill -9 of both", partitions, sudden(func() error {
		err := errors.Join(coordinator.Process().KillAsync(), node.Process().KillAsync())
		coordinator.Kill()
		node.Kill()
		return err
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("no leader for %v", outcome.Gap)
	start(t, coordinator, node)
	s.settle(t)
	s.finish(t)
}

func TestPausedLeaderIsReplacedAndFenced(t *testing.T) {
	s := startShow(t)
	node, partitions := s.victim(t)
	outcome, err := s.load.Strike(limited(t), "SIGSTOP", partitions, func() (time.Time, time.Time, error) {
		now := time.Now()
		return now, now, node.Process().Signal(syscall.SIGSTOP)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("no leader for %v", outcome.Gap)
	if err := node.Process().Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	s.settle(t)
	s.finish(t)
}

func TestControlledShutdown(t *testing.T) {
	s := startShow(t)
	for _, node := range s.fleet.Brokers {
		partitions, err := s.load.LedBy(limited(t), int32(node.ID))
		if err != nil {
			t.Fatal(err)
		}
		outcome, err := s.load.Strike(limited(t), "SIGTERM", partitions, sudden(func() error { return node.Stop(limited(t)) }))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: longest time without an acknowledgement %v", node.Name, outcome.Gap)
		start(t, node)
		s.settle(t)
	}
	s.finish(t)
}

func TestEverythingKilledAtOnce(t *testing.T) {
	s := startShow(t)
	for range 3 {
		// Strike, because it waits for acknowledgements first: a producer that meets its first closed connection
		// before it has its id gives its records up, and a cluster that is killed idle shows little.
		outcome, err := s.load.Strike(limited(t), "kill -9 of everything", s.load.Partitions(), sudden(func() error {
			s.fleet.KillAll()
			return s.fleet.Start(limited(t))
		}))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("longest time without an acknowledgement %v", outcome.Gap)
		s.settle(t)
	}
	s.finish(t)
}

func TestDemo(t *testing.T) {
	input := filepath.Join(t.TempDir(), "input")
	if err := os.WriteFile(input, lines("a line of the play", 20000), 0o644); err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(limited(t), program, "demo", "--kills", "3", "--input", input, "-o", "json")
	var stderr bytes.Buffer
	command.Stderr = &stderr
	text, err := command.Output()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, text, clip(stderr.String()))
	}
	var report struct {
		Kills []struct {
			Gap         int64  `json:"gap_ns"`
			Detection   *int64 `json:"detection_ns"`
			Election    *int64 `json:"election_ns"`
			Propagation *int64 `json:"propagation_ns"`
		}
		Records struct {
			Acknowledged, Lost, Doubled int
			OutOfOrder                  int `json:"out_of_order"`
		}
	}
	if err := json.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Kills) != 3 || report.Records.Acknowledged < 20000 || report.Records.Lost+report.Records.Doubled+report.Records.OutOfOrder != 0 {
		t.Fatalf("unexpected report: %s", text)
	}
	for i, kill := range report.Kills {
		if kill.Gap <= 0 || kill.Detection == nil || kill.Election == nil || kill.Propagation == nil {
			t.Errorf("kill %d is not measured in all its phases: %s", i, text)
		}
	}
}

// TestSecondStartFindsItsData runs the README's own sequence: start, write, stop, start, read.
func TestSecondStartFindsItsData(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	spec := fleet.ProcessSpec{Name: "understudy start", Command: []string{program, "start", "--kafka", "127.0.0.1:0", "--zookeeper", "127.0.0.1:0", "--data", dir}}
	ctx := limited(t)
	want := lines("kept", 1000)
	var topic = topicName(t)
	for round := range 3 {
		process, err := fleet.Start(ctx, spec)
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			produceLines(t, ctx, process.Field("kafka"), topic, want)
		}
		sameLines(t, consumeLines(t, ctx, process.Field("kafka"), topic, 1000), want)
		if round == 1 {
			process.Kill() // the third start comes after kill -9
		} else if err := process.Stop(ctx); err != nil {
			t.Fatal(err)
		}
	}
}
