package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/spf13/cobra"

	"understudy/internal/verify/zookeeper"
)

func verifyZooKeeperCommand() *cobra.Command {
	var options zookeeper.Options
	var verdict verdict
	var phase, history string
	cmd := &cobra.Command{
		Use:   "zookeeper HOST:PORT,HOST:PORT[/CHROOT]",
		Short: "Check an ensemble: linearizability, sessions, ephemerals and watches",
		Long: `Works with concurrent sessions under a znode of its own, which it removes at the end, and checks that the writes and the
reads after a sync are linearizable, that no session is shown anything older than before, that ephemerals live exactly as long as
their sessions, and that every watch fires once, in order, before newer data. With --phase check --history FILE it judges a kept
history again; no server is asked.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if phase == phaseCheck && len(args) == 0 {
				return nil
			}
			return oneTarget(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return judged(cmd, func(ctx context.Context) error {
				if err := verdict.check(); err != nil {
					return err
				}
				switch phase {
				case phaseCheck:
					return recheckZooKeeper(history, &verdict)
				case phaseAll:
					options.Servers, options.Say = args[0], verdict.say()
					return verifyZooKeeper(ctx, options, history, &verdict)
				}
				return fmt.Errorf("--phase %s: give all or check", phase)
			})
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&options.Duration, "duration", 30*time.Second, "how long the clients work")
	flags.IntVar(&options.Clients, "clients", 8, "how many sessions work at the same time")
	flags.Uint64Var(&options.Seed, "seed", rand.Uint64(), "what the clients' choices come from; the default differs each time")
	flags.DurationVar(&options.SessionTimeout, "session-timeout", 4*time.Second, "what the sessions ask for")
	flags.DurationVar(&options.Settle, "settle", 60*time.Second, "bounds the last readings and the wait for ephemerals of ended sessions")
	flags.BoolVar(&options.Keep, "keep", false, "leave the znodes of the run where they are")
	flags.StringVar(&phase, "phase", phaseAll, "all, or check: judge the history in the file that --history names")
	flags.StringVar(&history, "history", "", "the file that the history is kept in, whatever it shows")
	verdict.register(cmd)
	return cmd
}

func verifyZooKeeper(ctx context.Context, options zookeeper.Options, file string, verdict *verdict) error {
	if options.Clients < 1 || options.Duration <= 0 || options.SessionTimeout <= 0 {
		return errors.New("--clients, --duration and --session-timeout must be more than nothing")
	}
	options.Say("seed %d", options.Seed)
	history, err := zookeeper.Record(ctx, options)
	if err != nil {
		return err
	}
	if file != "" {
		if err := history.Write(file); err != nil {
			return err
		}
	}
	options.Say("checking")
	report := zookeeper.Check(history, checkBound)
	return verdict.give(report, "zookeeper", file, history.Write)
}

func recheckZooKeeper(path string, verdict *verdict) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	history, err := zookeeper.ReadHistory(file)
	if err != nil {
		return fmt.Errorf("--history %s: %w", path, err)
	}
	return verdict.give(zookeeper.Check(history, checkBound), "zookeeper", path, nil)
}
