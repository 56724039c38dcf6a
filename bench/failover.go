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
	recoveryBound      = 3 * time.Minute      // a paused Apache broker is missed for 40 s
	// pauseLength is how long SIGSTOP lasts: longer than the session timeout of 3 s that our brokers ask for.
	pauseLength = 6 * time.Second
)

// fault is one row of the table: how to choose the victim, and what is done to it.
type fault struct {
	name   string
	what   string
	target string // of our brokers on our coordinators, from docs/performance.md
	round  func(context.Context, *theatre) (trial.Outcome, error)
}

// cast is who plays: a kind of coordinator and a kind of broker.
type cast struct {
	name         string
	coordinators *fleet.Program
	brokers      *fleet.Program
	title        string
	count        int // rounds of each fault
}

// The names of the casts, for --cast.
const (
	oursOnOurs     = "ours"
	apacheOnApache = "apache"
	oursOnApache   = "ours-on-apache"
	apacheOnOurs   = "apache-on-ours"
)

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
	var options failoverOptions
	cmd := &cobra.Command{
		Use:   "failover",
		Short: "Measure how long partitions go without an acknowledgement when a server goes",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return failover(cmd.Context(), &options)
		},
	}
	cmd.Flags().IntVar(&options.count, "count", 100, "how often each fault is measured")
	cmd.Flags().StringSliceVar(&options.only, "only", nil, "the faults to measure: none, leader, controller, both, coordinator, pause, shutdown; all without it")
	cmd.Flags().StringVar(&options.keep, "dir", "", "keep configuration, data and logs here")
	cmd.Flags().BoolVar(&options.peer, "peer", false, "measure Apache's servers, too, and both mixtures (needs java and mvn)")
	cmd.Flags().IntVar(&options.peerCount, "peer-count", 5, "how often each fault is measured with Apache's brokers")
	cmd.Flags().StringSliceVar(&options.casts, "cast", nil, "who plays: "+strings.Join([]string{oursOnOurs, apacheOnApache, oursOnApache, apacheOnOurs}, ", ")+"; all without it")
	return cmd
}

type failoverOptions struct {
	count, peerCount int
	only, casts      []string
	keep             string
	peer             bool
}

// theCasts lists who is measured: the originals before those that are compared with them.
func (o *failoverOptions) theCasts(r *run) []cast {
	ours := fleet.Understudy(r.binary, "debug") // its log tells the phases
	all := []cast{{oursOnOurs, ours, ours, "understudy", o.count}}
	if apache := r.peer(); apache != nil {
		all = append([]cast{{apacheOnApache, apache, apache, "Apache Kafka on Apache ZooKeeper", o.peerCount}}, all...)
		all = append(all,
			cast{oursOnApache, apache, ours, "understudy's brokers on Apache ZooKeeper", o.count},
			cast{apacheOnOurs, ours, apache, "Apache Kafka on understudy's coordinators", o.peerCount})
	}
	return slices.DeleteFunc(all, func(c cast) bool { return len(o.casts) > 0 && !slices.Contains(o.casts, c.name) })
}

// target is what the row of a fault is to reach with a cast.
func (c cast) target(f fault, t *theatre) string {
	switch {
	case c.name == oursOnOurs:
		return f.target
	case c.name == oursOnApache && f.name == "leader":
		return "median < 150"
	case c.name == oursOnApache && f.name == "controller":
		return t.sessionBound()
	case c.name == apacheOnOurs && f.name != "none":
		return "ratio <= 1.00"
	}
	return ""
}

// sessionBound is how soon a dead controller is replaced whose only sign of death is the end
// of its session: the timeout that the coordinators granted, a tick and a half until the
// ensemble has acted on it, and 200 ms for the new controller.
func (t *theatre) sessionBound() string {
	const tick, controller = 500, 200 // ms; the tick is that of fleet's zoo.cfg
	if t.sessionTimeout == 0 {
		return "no session was seen"
	}
	return fmt.Sprintf("< %d + %d + %d = %d", t.sessionTimeout, tick*3/2, controller, t.sessionTimeout+tick*3/2+controller)
}

// grantedSession asks the coordinators for the longest session timeout in ms that they
// granted to anybody; while only brokers are connected, that is theirs.
func (t *theatre) grantedSession() int {
	longest := 0
	for _, node := range t.fleet.Coordinators {
		text, err := fleet.FourLetterWord(node.Addr, "cons")
		if err != nil {
			continue // another one knows: the brokers are connected to some
		}
		for _, field := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune("(),\n ", r) }) {
			var ms int
			if _, err := fmt.Sscanf(field, "to=%d", &ms); err == nil {
				longest = max(longest, ms)
			}
		}
	}
	return longest
}

// theatre is a fleet under load.
type theatre struct {
	fleet  *fleet.Fleet
	load   *trial.Load
	probe  *trial.Probe // nil unless the fault wants one
	events trial.Events
	// sessionTimeout is what the coordinators granted the brokers, in ms.
	sessionTimeout int
}

func failover(ctx context.Context, options *failoverOptions) error {
	r, err := openRun(ctx, options.peer, "")
	if err != nil {
		return err
	}
	defer r.close()
	if options.keep != "" {
		r.dir = options.keep
		if err := os.MkdirAll(r.dir, 0o755); err != nil {
			return err
		}
	}
	fmt.Printf("3 coordinators and 3 brokers on loopback, defaults; topic of %d partitions, 3 replicas, min.insync.replicas 2; acks=all, idempotent;\n", failoverPartitions)
	fmt.Printf("durability: records in the page cache of every in-sync replica (Kafka's default), coordinator fsyncs every write; the client retries every 10 ms;\n")
	fmt.Printf("a record to each partition every %v, so a gap of about that length is no interruption; times in ms; ratio: of the median to Apache Kafka's on Apache ZooKeeper\n\n", failoverEvery)
	fmt.Printf("%-62s %8s %8s %8s %8s %6s   %-26s %s\n", "longest time without an acknowledgement, per round", "min", "median", "p99", "max", "ratio", "target", "detection/election/propagation (medians)")
	var failed []error
	for _, f := range faults {
		if len(options.only) > 0 && !slices.Contains(options.only, f.name) {
			continue
		}
		fmt.Println(f.what)
		var original time.Duration // Apache's median
		for _, c := range options.theCasts(r) {
			median, err := measure(ctx, r, f, c, original)
			if err != nil {
				failed = append(failed, fmt.Errorf("%s, %s: %w", f.name, c.name, err))
			}
			if c.name == apacheOnApache {
				original = median
			}
		}
	}
	return errors.Join(failed...)
}

// measure runs one fault's rounds on a fresh fleet, prints its row and returns its median.
func measure(ctx context.Context, r *run, f fault, c cast, original time.Duration) (time.Duration, error) {
	dir, err := r.folder(f.name)
	if err != nil {
		return 0, err
	}
	t := &theatre{}
	t.fleet, err = fleet.New(fleet.Options{
		Dir: dir, OnLog: t.events.Add, StartTimeout: recoveryBound,
		CoordinatorProgram: func(int) *fleet.Program { return c.coordinators }, BrokerProgram: func(int) *fleet.Program { return c.brokers },
		BrokerProperties: map[string]string{"inter.broker.protocol.version": "3.9"},
	})
	if err != nil {
		return 0, err
	}
	defer t.fleet.KillAll()
	if err := t.fleet.Start(ctx); err != nil {
		return 0, err
	}
	t.sessionTimeout = t.grantedSession()
	t.load, err = trial.StartLoad(ctx, trial.LoadConfig{
		Bootstrap: t.fleet.Bootstrap(), Topic: failoverTopic, Partitions: failoverPartitions, Replicas: 3, MinInsync: 2, Every: failoverEvery,
	})
	if err != nil {
		return 0, err
	}
	var outcomes []trial.Outcome
	for range c.count {
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
	median := printRow(c.title, c.target(f, t), original, outcomes, account)
	if !account.Clean() {
		finishErr = errors.Join(finishErr, fmt.Errorf("the account is not clean: %v", account.Examples))
	}
	return median, errors.Join(err, finishErr)
}

func printRow(title, target string, original time.Duration, outcomes []trial.Outcome, account trial.Account) (median time.Duration) {
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
	ratio := "-"
	if original > 0 && len(outcomes) > 0 {
		ratio = fmt.Sprintf("%.3f", float64(gap.median)/float64(original))
	}
	fmt.Printf("  %-60s %8s %8s %8s %8s %6s   %-26s %s\n", title, ms(gap.minimum), ms(gap.median), ms(gap.p99), ms(gap.maximum), ratio, target, strings.Join(parts, " / "))
	fmt.Printf("    %d rounds; %d records acknowledged, %d read, %d lost, %d doubled, %d out of order\n",
		len(outcomes), account.Acknowledged, account.Read, account.Lost, account.Doubled, account.Reordered)
	return gap.median
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

func watchQuietly(ctx context.Context, t *theatre) (trial.Outcome, error) {
	return t.load.Strike(ctx, "nothing", t.load.Partitions(), func() (time.Time, time.Time, error) {
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
	outcome, err := t.load.Strike(ctx, "kill -9 of the coordinator's leader", t.load.Partitions(), func() (time.Time, time.Time, error) {
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
