package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"understudy/internal/fleet"
	"understudy/internal/trial"
)

const (
	failoverTopic      = "failover"
	failoverPartitions = 12
	failoverEvery      = 5 * time.Millisecond // one record to each partition at this pace
	recoveryBound      = 90 * time.Second
	// pauseLength is how long SIGSTOP lasts: longer than the session timeout of 3 s that our brokers ask for.
	pauseLength = 6 * time.Second
)

// fault is one row of the table: how to choose the victim, and what is done to it.
type fault struct {
	name   string
	what   string
	target string // from docs/performance.md
	round  func(context.Context, *theatre) (trial.Outcome, error)
}

var faults = []fault{
	{"none", "nothing at all, for two seconds (the machine's own noise)", "", watchQuietly},
	{"leader", "kill -9 of a partition leader", "median < 100, p99 < 300", killLeader(notController)},
	{"controller", "the same, the victim is the controller, too", "median < 250, p99 < 500", killLeader(isController)},
	{"both", "kill -9 of a leader and of the coordinator's leader at once", "< 1000", killLeaderAndCoordinator},
	{"coordinator", "kill -9 of the coordinator's leader alone", "unnoticed", killCoordinatorLeader},
	{"pause", "SIGSTOP of a leader (one request in flight, timeout 50 ms)", "< 3000 + 200", pauseLeader},
	{"shutdown", "SIGTERM of a leader (controlled shutdown)", "p99 < 50", shutdownLeader},
}

func failoverCommand() *cobra.Command {
	count, only, keep := 100, []string{}, ""
	cmd := &cobra.Command{
		Use:   "failover",
		Short: "Measure how long partitions go without an acknowledgement when a server goes",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return failover(cmd.Context(), count, only, keep)
		},
	}
	cmd.Flags().IntVar(&count, "count", count, "how often each fault is measured")
	cmd.Flags().StringSliceVar(&only, "only", only, "the faults to measure: none, leader, controller, both, coordinator, pause, shutdown; all without it")
	cmd.Flags().StringVar(&keep, "dir", keep, "keep configuration, data and logs here")
	return cmd
}

// theatre is a fleet under load.
type theatre struct {
	fleet  *fleet.Fleet
	load   *trial.Load
	probe  *trial.Probe // nil unless the fault wants one
	events trial.Events
}

func failover(ctx context.Context, count int, only []string, keep string) error {
	binary, dir, remove, err := fleet.Build(ctx)
	if err != nil {
		return err
	}
	defer remove()
	if keep != "" {
		dir = keep
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	fmt.Printf("%s\n", machine())
	fmt.Printf("3 coordinators and 3 brokers on loopback, defaults; topic of %d partitions, 3 replicas, min.insync.replicas 2; acks=all, idempotent;\n", failoverPartitions)
	fmt.Printf("durability: records in the page cache of every in-sync replica (Kafka's default), coordinator fsyncs every write; the client retries every 10 ms;\n")
	fmt.Printf("a record to each partition every %v, so a gap of about that length is no interruption; %d rounds of each fault; times in ms\n\n", failoverEvery, count)
	fmt.Printf("%-62s %8s %8s %8s %8s   %-24s %s\n", "longest time without an acknowledgement, per round", "min", "median", "p99", "max", "target", "detection/election/propagation (medians)")
	var failed []error
	for _, f := range faults {
		if len(only) > 0 && !slices.Contains(only, f.name) {
			continue
		}
		if err := measure(ctx, binary, dir, f, count); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", f.name, err))
		}
	}
	return errors.Join(failed...)
}

// measure runs one fault's rounds on a fresh fleet and prints its row.
func measure(ctx context.Context, binary, dir string, f fault, count int) error {
	dir, err := os.MkdirTemp(dir, f.name)
	if err != nil {
		return err
	}
	t := &theatre{}
	t.fleet, err = fleet.New(fleet.Options{Binary: binary, Dir: dir, LogLevel: "debug", OnLog: t.events.Add})
	if err != nil {
		return err
	}
	defer t.fleet.KillAll()
	if err := t.fleet.Start(ctx); err != nil {
		return err
	}
	t.load, err = trial.StartLoad(ctx, trial.LoadConfig{
		Bootstrap: t.fleet.Bootstrap(), Topic: failoverTopic, Partitions: failoverPartitions, Replicas: 3, MinInsync: 2, Every: failoverEvery,
	})
	if err != nil {
		return err
	}
	var outcomes []trial.Outcome
	for range count {
		bounded, cancel := context.WithTimeout(ctx, recoveryBound)
		err = t.load.Settle(bounded)
		if err == nil {
			var outcome trial.Outcome
			if outcome, err = f.round(bounded, t); err == nil {
				outcomes = append(outcomes, outcome)
			}
		}
		cancel()
		if err != nil {
			break
		}
	}
	if t.probe != nil {
		t.probe.Close()
	}
	finishing, cancel := context.WithTimeout(context.WithoutCancel(ctx), recoveryBound)
	defer cancel()
	account, finishErr := t.load.Finish(finishing)
	printRow(f, outcomes, account)
	if !account.Clean() {
		finishErr = errors.Join(finishErr, fmt.Errorf("the account is not clean: %v", account.Examples))
	}
	return errors.Join(err, finishErr)
}

func printRow(f fault, outcomes []trial.Outcome, account trial.Account) {
	var gaps []time.Duration
	phases := [3][]time.Duration{}
	for _, outcome := range outcomes {
		gaps = append(gaps, outcome.Gap)
		for i, phase := range []*time.Duration{outcome.Detection, outcome.Election, outcome.Propagation} {
			if phase != nil {
				phases[i] = append(phases[i], *phase)
			}
		}
	}
	gap := summarise(gaps)
	var parts []string
	for _, phase := range phases {
		if len(phase) == 0 {
			parts = append(parts, "-")
			continue
		}
		parts = append(parts, ms(summarise(phase).median))
	}
	fmt.Printf("%-62s %8s %8s %8s %8s   %-24s %s\n", f.what, ms(gap.minimum), ms(gap.median), ms(gap.p99), ms(gap.maximum), f.target, strings.Join(parts, " / "))
	fmt.Printf("    %d rounds; %d records acknowledged, %d read, %d lost, %d doubled, %d out of order\n",
		len(outcomes), account.Acknowledged, account.Read, account.Lost, account.Doubled, account.Reordered)
}

type choice func(broker, controller int32) bool

func notController(broker, controller int32) bool { return broker != controller }
func isController(broker, controller int32) bool  { return broker == controller }
func anyBroker(int32, int32) bool                 { return true }

// victim returns a broker that leads some partitions, and those.
func (t *theatre) victim(ctx context.Context, wanted choice) (*fleet.Node, []int32, error) {
	controller, err := t.load.Controller(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, node := range t.fleet.Brokers {
		if !wanted(int32(node.ID), controller) {
			continue
		}
		partitions, err := t.load.LedBy(ctx, int32(node.ID))
		if err != nil {
			return nil, nil, err
		}
		if len(partitions) > 0 {
			return node, partitions, nil
		}
	}
	return nil, nil, fmt.Errorf("no broker fits: the controller is %d", controller)
}

func killLeader(wanted choice) func(context.Context, *theatre) (trial.Outcome, error) {
	return func(ctx context.Context, t *theatre) (trial.Outcome, error) {
		node, partitions, err := t.victim(ctx, wanted)
		if err != nil {
			return trial.Outcome{}, err
		}
		outcome, err := t.load.Strike(ctx, "kill -9", partitions, func() (time.Time, time.Time, error) {
			now := time.Now()
			node.Kill()
			return now, time.Now(), nil
		})
		if err != nil {
			return outcome, err
		}
		t.events.Explain(&outcome, failoverTopic, int32(node.ID))
		return outcome, node.Start(ctx)
	}
}

// coordinatorLeader finds the ensemble's leader by the four-letter word that everybody uses.
func (t *theatre) coordinatorLeader() (*fleet.Node, error) {
	for _, node := range t.fleet.Coordinators {
		text, err := fleet.FourLetterWord(node.Addr, "srvr")
		if err == nil && strings.Contains(text, "Mode: leader") {
			return node, nil
		}
	}
	return nil, errors.New("no coordinator says that it is the leader")
}

func killLeaderAndCoordinator(ctx context.Context, t *theatre) (trial.Outcome, error) {
	node, partitions, err := t.victim(ctx, anyBroker)
	if err != nil {
		return trial.Outcome{}, err
	}
	coordinator, err := t.coordinatorLeader()
	if err != nil {
		return trial.Outcome{}, err
	}
	outcome, err := t.load.Strike(ctx, "kill -9 of both", partitions, func() (time.Time, time.Time, error) {
		now := time.Now()
		err := errors.Join(coordinator.Process().KillAsync(), node.Process().KillAsync())
		coordinator.Kill()
		node.Kill()
		return now, time.Now(), err
	})
	if err != nil {
		return outcome, err
	}
	t.events.Explain(&outcome, failoverTopic, int32(node.ID))
	return outcome, errors.Join(coordinator.Start(ctx), node.Start(ctx))
}

// watched is how long the rounds last whose fault should go unnoticed: time enough for a new
// leader and for every session to move.
const watched = 2 * time.Second

func everyPartition() []int32 {
	all := make([]int32, failoverPartitions)
	for i := range all {
		all[i] = int32(i)
	}
	return all
}

func watchQuietly(ctx context.Context, t *theatre) (trial.Outcome, error) {
	return t.load.Strike(ctx, "nothing", everyPartition(), func() (time.Time, time.Time, error) {
		now := time.Now()
		<-time.After(watched)
		return now, time.Now(), nil
	})
}

func killCoordinatorLeader(ctx context.Context, t *theatre) (trial.Outcome, error) {
	coordinator, err := t.coordinatorLeader()
	if err != nil {
		return trial.Outcome{}, err
	}
	outcome, err := t.load.Strike(ctx, "kill -9 of the coordinator's leader", everyPartition(), func() (time.Time, time.Time, error) {
		now := time.Now()
		coordinator.Kill()
		<-time.After(watched)
		return now, time.Now(), nil
	})
	if err != nil {
		return outcome, err
	}
	return outcome, coordinator.Start(ctx)
}

// pauseLeader measures with a probe: franz-go stays with a server that hangs for longer than
// the partitions are without a leader. The load goes on beside it, for the account.
func pauseLeader(ctx context.Context, t *theatre) (trial.Outcome, error) {
	if t.probe == nil {
		probe, err := trial.StartProbe(context.WithoutCancel(ctx), t.fleet.Bootstrap(), "probe", failoverPartitions)
		if err != nil {
			return trial.Outcome{}, err
		}
		t.probe = probe
	}
	node, _, err := t.victim(ctx, notController)
	if err != nil {
		return trial.Outcome{}, err
	}
	partitions, err := t.probe.AwaitLedBy(ctx, int32(node.ID))
	if err != nil {
		return trial.Outcome{}, err
	}
	outcome, err := t.probe.Strike(ctx, "SIGSTOP", partitions, func() (time.Time, time.Time, error) {
		now := time.Now()
		return now, now, node.Process().Signal(syscall.SIGSTOP)
	})
	if err == nil {
		t.events.Explain(&outcome, "probe", int32(node.ID))
		<-time.After(time.Until(outcome.Struck.Add(pauseLength)))
	}
	return outcome, errors.Join(err, node.Process().Signal(syscall.SIGCONT))
}

func shutdownLeader(ctx context.Context, t *theatre) (trial.Outcome, error) {
	node, partitions, err := t.victim(ctx, anyBroker)
	if err != nil {
		return trial.Outcome{}, err
	}
	outcome, err := t.load.Strike(ctx, "SIGTERM", partitions, func() (time.Time, time.Time, error) {
		now := time.Now()
		err := node.Stop(ctx)
		return now, time.Now(), err
	})
	if err != nil {
		return outcome, err
	}
	return outcome, node.Start(ctx)
}
