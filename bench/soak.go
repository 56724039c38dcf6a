package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"understudy/internal/fleet"
	"understudy/internal/trial"
)

// disaster is one thing that may happen in a soak; it returns when everything runs again.
type disaster struct {
	name  string
	cause func(context.Context, *theatre, *rand.Rand) error
}

var disasters = []disaster{
	{"kill -9 of a broker", func(ctx context.Context, t *theatre, random *rand.Rand) error {
		return killAndStart(ctx, pick(random, t.fleet.Brokers))
	}},
	{"kill -9 of a coordinator", func(ctx context.Context, t *theatre, random *rand.Rand) error {
		return killAndStart(ctx, pick(random, t.fleet.Coordinators))
	}},
	{"kill -9 of a broker and a coordinator", func(ctx context.Context, t *theatre, random *rand.Rand) error {
		return killAndStart(ctx, pick(random, t.fleet.Brokers), pick(random, t.fleet.Coordinators))
	}},
	{"kill -9 of two brokers", func(ctx context.Context, t *theatre, random *rand.Rand) error {
		first := random.IntN(len(t.fleet.Brokers))
		second := (first + 1 + random.IntN(len(t.fleet.Brokers)-1)) % len(t.fleet.Brokers)
		return killAndStart(ctx, t.fleet.Brokers[first], t.fleet.Brokers[second])
	}},
	{"kill -9 of two coordinators", func(ctx context.Context, t *theatre, random *rand.Rand) error {
		first := random.IntN(len(t.fleet.Coordinators))
		second := (first + 1 + random.IntN(len(t.fleet.Coordinators)-1)) % len(t.fleet.Coordinators)
		return killAndStart(ctx, t.fleet.Coordinators[first], t.fleet.Coordinators[second])
	}},
	{"kill -9 of everything", func(ctx context.Context, t *theatre, _ *rand.Rand) error {
		return killAndStart(ctx, slices.Concat(t.fleet.Coordinators, t.fleet.Brokers)...)
	}},
	{"SIGSTOP of a broker for up to 5 s", func(ctx context.Context, t *theatre, random *rand.Rand) error {
		return pauseFor(ctx, pick(random, t.fleet.Brokers), random)
	}},
	{"SIGSTOP of a coordinator for up to 5 s", func(ctx context.Context, t *theatre, random *rand.Rand) error {
		return pauseFor(ctx, pick(random, t.fleet.Coordinators), random)
	}},
	{"SIGTERM of a broker", func(ctx context.Context, t *theatre, random *rand.Rand) error {
		node := pick(random, t.fleet.Brokers)
		return errors.Join(node.Stop(ctx), node.Start(ctx))
	}},
	{"SIGTERM of a coordinator", func(ctx context.Context, t *theatre, random *rand.Rand) error {
		node := pick(random, t.fleet.Coordinators)
		return errors.Join(node.Stop(ctx), node.Start(ctx))
	}},
}

func pick(random *rand.Rand, nodes []*fleet.Node) *fleet.Node { return nodes[random.IntN(len(nodes))] }

func killAndStart(ctx context.Context, nodes ...*fleet.Node) error {
	for _, node := range nodes {
		if err := node.Process().KillAsync(); err != nil {
			return err
		}
	}
	for _, node := range nodes {
		node.Kill()
	}
	results := make(chan error, len(nodes))
	for _, node := range nodes {
		go func() { results <- node.Start(ctx) }()
	}
	var errs []error
	for range nodes {
		errs = append(errs, <-results)
	}
	return errors.Join(errs...)
}

func pauseFor(ctx context.Context, node *fleet.Node, random *rand.Rand) error {
	if err := node.Process().Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	select {
	case <-time.After(time.Duration(random.Int64N(int64(5 * time.Second)))):
	case <-ctx.Done():
	}
	return node.Process().Signal(syscall.SIGCONT)
}

func soakCommand() *cobra.Command {
	length, seed, keep := 5*time.Minute, uint64(time.Now().UnixNano()), ""
	cmd := &cobra.Command{
		Use:   "soak",
		Short: "One disaster after the other, and an account of every record at the end",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return soak(cmd.Context(), length, seed, keep) },
	}
	cmd.Flags().DurationVar(&length, "for", length, "how long")
	cmd.Flags().Uint64Var(&seed, "seed", seed, "decides which disasters; timing is the machine's")
	cmd.Flags().StringVar(&keep, "dir", "", "keep data and logs here")
	return cmd
}

func soak(ctx context.Context, length time.Duration, seed uint64, dir string) error {
	binary, temporary, remove, err := fleet.Build(ctx)
	if err != nil {
		return err
	}
	defer remove()
	if dir == "" {
		dir = temporary
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	fmt.Printf("%s\nseed %d\n", machine(), seed)
	random := rand.New(rand.NewPCG(seed, 0))
	t := &theatre{}
	if t.fleet, err = fleet.New(fleet.Options{Binary: binary, Dir: dir, LogLevel: "debug", OnLog: t.events.Add}); err != nil {
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
	rounds, failure := t.suffer(ctx, time.Now().Add(length), random)
	finishing, cancel := context.WithTimeout(context.WithoutCancel(ctx), recoveryBound)
	defer cancel()
	account, err := t.load.Finish(finishing)
	fmt.Printf("%d disasters; %d records sent, %d acknowledged, %d read, %d lost, %d doubled, %d out of order, %d with other bytes\n",
		rounds, account.Sent, account.Acknowledged, account.Read, account.Lost, account.Doubled, account.Reordered, account.Corrupted)
	if !account.Clean() {
		err = errors.Join(err, fmt.Errorf("the account is not clean: %v", account.Examples))
	}
	return errors.Join(failure, err)
}

// suffer lets disasters happen until the end. Half of them begin while the cluster is still
// recovering from the one before.
func (t *theatre) suffer(ctx context.Context, end time.Time, random *rand.Rand) (rounds int, err error) {
	for ; time.Now().Before(end) && ctx.Err() == nil; rounds++ {
		bounded, cancel := context.WithTimeout(ctx, recoveryBound)
		if random.IntN(2) == 0 {
			err = t.load.AwaitInSync(bounded, false)
		}
		next := disasters[random.IntN(len(disasters))]
		if err == nil {
			err = next.cause(bounded, t, random)
		}
		cancel()
		if err != nil {
			return rounds, fmt.Errorf("disaster %d, %s: %w", rounds+1, next.name, err)
		}
	}
	return rounds, nil
}
