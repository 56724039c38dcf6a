package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"understudy/internal/verify/kafka"
)

func verifyKafkaCommand() *cobra.Command {
	var options kafka.Options
	var verdict verdict
	var phase, history string
	var keep bool
	cmd := &cobra.Command{
		Use:   "kafka HOST:PORT,HOST:PORT",
		Short: "Check a cluster: lost, doubled and reordered records, offsets and groups",
		Long: `Produces to topics of its own, which it deletes at the end, and consumes from them, and checks that nothing acknowledged is
lost, doubled or reordered, that an offset holds one record for whoever reads it, that consumers skip nothing, and that
committed offsets do not move back.

To span an outage, write before it and check after it, with the history in a file in between:
    understudy verify kafka HOST:PORT --phase write --history FILE     (any number of times)
    understudy verify kafka HOST:PORT --phase check --history FILE`,
		Args: oneTarget,
		RunE: func(cmd *cobra.Command, args []string) error {
			return judged(cmd, func(ctx context.Context) error {
				if err := errors.Join(verdict.check(), checkKafkaOptions(&options, phase, history)); err != nil {
					return err
				}
				options.Bootstrap, options.Say = strings.Split(args[0], ","), verdict.say()
				return verifyKafka(ctx, options, phase, history, keep, &verdict)
			})
		},
	}
	flags := cmd.Flags()
	flags.DurationVar(&options.Duration, "duration", 30*time.Second, "how long the producers work")
	flags.DurationVar(&options.Settle, "settle", 60*time.Second, "bounds the end: the last records, reading everything back, consumers catching up")
	flags.IntVar(&options.Topics, "topics", 2, "how many topics")
	flags.IntVar(&options.Partitions, "partitions", 3, "how many partitions each topic has")
	flags.IntVar(&options.ReplicationFactor, "replication-factor", 0, "of the topics; 0: 3, or the number of brokers if there are fewer")
	flags.IntVar(&options.MinInsync, "min-insync-replicas", 0, "of the topics; 0: the cluster's default")
	flags.IntVar(&options.Idempotent, "producers", 2, "how many idempotent producers, acks=all")
	flags.IntVar(&options.Single, "single-producers", 2, "how many producers that send each record once, acks=all, not idempotent")
	flags.IntVar(&options.Consumers, "consumers", 2, "how many consumers with all partitions assigned")
	flags.IntVar(&options.Members, "group-members", 3, "how many members the consumer group has; the last one leaves and comes back")
	flags.Uint64Var(&options.Seed, "seed", rand.Uint64(), "what the producers' choices come from; the default differs each time")
	flags.DurationVar(&options.Every, "every", 3*time.Millisecond, "the mean pause of a producer between two records")
	flags.IntVar(&options.RecordBytes, "record-bytes", 100, "the size of a value")
	flags.StringVar(&phase, "phase", phaseAll, "all, write or check")
	flags.StringVar(&history, "history", "", "the file that the history is kept in; write and check go on with what is there")
	flags.BoolVar(&keep, "keep", false, "do not delete the topics and the group")
	verdict.register(cmd)
	return cmd
}

func checkKafkaOptions(options *kafka.Options, phase, history string) error {
	switch phase {
	case phaseAll:
	case phaseWrite, phaseCheck:
		if history == "" {
			return fmt.Errorf("--phase %s needs --history FILE", phase)
		}
	default:
		return fmt.Errorf("--phase %s: give all, write or check", phase)
	}
	if options.Topics < 1 || options.Partitions < 1 || options.Duration <= 0 || options.Settle <= 0 || options.Idempotent+options.Single < 1 {
		return errors.New("--topics, --partitions, --duration, --settle and the number of producers must be more than nothing")
	}
	return nil
}

func verifyKafka(ctx context.Context, options kafka.Options, phase, file string, keep bool, verdict *verdict) error {
	options.Say("seed %d", options.Seed)
	run, err := beginKafka(ctx, options, phase, file)
	if err != nil {
		return err
	}
	defer run.Close()
	if phase != phaseCheck {
		if err := run.Write(ctx); err != nil {
			return err
		}
	}
	if phase == phaseWrite {
		return run.History().Write(file)
	}
	unfinished := run.Finish(ctx)
	run.Close()
	history := run.History()
	if file != "" {
		if err := history.Write(file); err != nil {
			return err
		}
	}
	report := kafka.Check(history)
	if unfinished != nil {
		report.Undecidable("the run could not be finished: %v", unfinished)
	}
	if !keep {
		if err := run.Delete(ctx); err != nil {
			options.Say("the run's topics could not be deleted: %v", err)
		}
	}
	return verdict.give(report, "kafka", file, history.Write)
}

// beginKafka starts a history, or goes on with the one in the file.
func beginKafka(ctx context.Context, options kafka.Options, phase, file string) (*kafka.Run, error) {
	if phase == phaseAll {
		return kafka.Start(ctx, options)
	}
	kept, err := os.Open(file)
	if phase == phaseWrite && errors.Is(err, os.ErrNotExist) {
		return kafka.Start(ctx, options)
	}
	if err != nil {
		return nil, fmt.Errorf("--history: %w", err)
	}
	defer kept.Close()
	history, err := kafka.ReadHistory(kept)
	if err != nil {
		return nil, fmt.Errorf("--history %s: %w", file, err)
	}
	return kafka.Continue(history, options)
}
