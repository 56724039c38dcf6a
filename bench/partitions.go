package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"understudy/internal/fleet"
)

type partitionsOptions struct {
	count   int
	brokers int
	peer    bool
	profile string
}

func partitionsCommand() *cobra.Command {
	var options partitionsOptions
	cmd := &cobra.Command{
		Use:   "partitions",
		Short: "Measure what partitions cost that nobody uses: creation, memory, processor time, restart after kill -9",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return partitions(cmd.Context(), &options) },
	}
	cmd.Flags().IntVar(&options.count, "count", 10_000, "partitions")
	cmd.Flags().IntVar(&options.brokers, "brokers", 1, "brokers; as many replicas, up to 3")
	cmd.Flags().BoolVar(&options.peer, "peer", false, "measure Apache's servers, too (needs java and mvn)")
	cmd.Flags().StringVar(&options.profile, "profile", "", "write understudy's processor profiles into this folder")
	return cmd
}

// idleWatch is how long the idle servers' processor time is watched.
const idleWatch = 10 * time.Second

func partitions(ctx context.Context, options *partitionsOptions) error {
	r, err := openRun(ctx, options.peer, options.profile)
	if err != nil {
		return err
	}
	defer r.close()
	fmt.Printf("%d partitions on %d broker(s), one record in each, then idle; 10 topics; CPU idle is of all servers over %v, as a share of one processor\n\n", options.count, options.brokers, idleWatch)
	fmt.Printf("%-28s %10s %18s %12s %26s\n", "", "create, s", "KiB per partition", "CPU idle", "kill -9 to all led, s")
	floor, err := measureCreation(r.dir, options.count*min(3, options.brokers))
	if err != nil {
		return err
	}
	fmt.Printf("%-28s %10.1f\n", "their empty files alone", floor.Seconds())
	return r.each("partitions", func(dir string, program *fleet.Program) error { return partitionsOn(ctx, options, dir, program) })
}

func partitionsOn(ctx context.Context, options *partitionsOptions, dir string, program *fleet.Program) error {
	f, err := newFleet(dir, program, 1, options.brokers)
	if err != nil {
		return err
	}
	defer f.KillAll()
	if err := f.Start(ctx); err != nil {
		return err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(f.Bootstrap()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		return err
	}
	defer client.Close()
	broker := f.Brokers[0]
	idle := func() { <-time.After(3 * time.Second) }
	idle()
	before, err := residentKiB(broker.Process().PID())
	if err != nil {
		return err
	}
	began := time.Now()
	const topics = 10
	for i := range topics {
		created, err := kadm.NewClient(client).CreateTopic(ctx, int32(options.count/topics), int16(min(3, options.brokers)), nil, fmt.Sprintf("idle-%d", i))
		if err == nil {
			err = created.Err
		}
		if err != nil {
			return err
		}
	}
	if err := allLed(ctx, client, options.count); err != nil {
		return err
	}
	creation := time.Since(began)
	if err := oneRecordEach(ctx, client, topics, options.count/topics); err != nil {
		return err
	}
	idle()
	<-time.After(idleFor)
	after, err := residentKiB(broker.Process().PID())
	if err != nil {
		return err
	}
	cpu, wall, err := costOf(f, func() error { <-time.After(idleWatch); return nil })
	if err != nil {
		return err
	}
	broker.Kill()
	began = time.Now()
	if err := broker.Start(ctx); err != nil {
		return err
	}
	if err := allLed(ctx, client, options.count); err != nil {
		return err
	}
	restart := time.Since(began)
	name, _, _ := strings.Cut(program.Name, ",")
	fmt.Printf("%-28s %10.1f %18.1f %11.2f%% %26.2f\n", name, creation.Seconds(), float64(after-before)/float64(options.count),
		100*cpu.Seconds()/wall.Seconds(), restart.Seconds())
	bounded, cancel := stopping(ctx)
	defer cancel()
	return f.Stop(bounded)
}

// allLed waits until every partition has a leader that says so.
func allLed(ctx context.Context, client *kgo.Client, count int) error {
	bounded, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		topics, err := kadm.NewClient(client).ListTopics(bounded)
		led := 0
		if err == nil {
			for _, topic := range topics {
				for _, partition := range topic.Partitions {
					if partition.Err == nil && partition.Leader >= 0 {
						led++
					}
				}
			}
		}
		if led >= count {
			// The leaders themselves: an offset of every partition.
			var offsets kadm.ListedOffsets
			if offsets, err = kadm.NewClient(client).ListEndOffsets(bounded); err == nil && offsets.Error() == nil {
				return nil
			}
		}
		select {
		case <-bounded.Done():
			return fmt.Errorf("%d of %d partitions are led: %w", led, count, errors.Join(bounded.Err(), err))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func oneRecordEach(ctx context.Context, client *kgo.Client, topics, partitions int) error {
	failed := make(chan error, 1)
	for topic := range topics {
		for partition := range partitions {
			record := &kgo.Record{Topic: fmt.Sprintf("idle-%d", topic), Partition: int32(partition), Value: []byte("x")}
			client.Produce(ctx, record, func(_ *kgo.Record, err error) {
				if err != nil {
					select {
					case failed <- err:
					default:
					}
				}
			})
		}
	}
	if err := client.Flush(ctx); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}
