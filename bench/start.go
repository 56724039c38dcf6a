package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"understudy/internal/fleet"
)

// idleFor is how long the server is left alone before its memory is read.
const idleFor = 10 * time.Second

func startCommand() *cobra.Command {
	count, peerCount, peer := 20, 5, false
	cmd := &cobra.Command{
		Use:   "start",
		Short: "Measure the cold start of `understudy start` and its idle memory",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return start(cmd.Context(), count, peerCount, peer) },
	}
	cmd.Flags().IntVar(&count, "count", count, "how many cold starts")
	cmd.Flags().BoolVar(&peer, "peer", peer, "measure Apache's servers, too (needs java and mvn)")
	cmd.Flags().IntVar(&peerCount, "peer-count", peerCount, "how many cold starts of Apache's servers")
	return cmd
}

// aStart is one cold start.
type aStart struct {
	ready, record time.Duration // since the first process was started
	memory        int           // KiB of all processes, once idle; 0 if that was not waited for
}

func start(ctx context.Context, count, peerCount int, peer bool) error {
	r, err := openRun(ctx, peer, "")
	if err != nil {
		return err
	}
	defer r.close()
	fmt.Printf("in an empty directory: from starting the first process to the first acknowledged record (acks=all, topic created on the way); times in ms\n")
	fmt.Printf("`understudy start` is one process; Apache's coordinator and broker are one each, the broker started once the coordinator serves\n")
	fmt.Printf("durability: records in the page cache (Kafka's default), the coordinator fsyncs every write\n\n")
	fmt.Printf("%-52s %8s %8s %8s %8s   %s\n", "", "min", "median", "p99", "max", "target")
	err = startRows("understudy start", "< 150", "< 50", count, func(i int, idle time.Duration) (aStart, error) {
		return coldStart(ctx, r.binary, filepath.Join(r.dir, fmt.Sprint("data", i)), idle)
	})
	if apache := r.peer(); err == nil && apache != nil {
		err = startRows(apache.Name, "", "", peerCount, func(i int, idle time.Duration) (aStart, error) {
			return coldStartOfFleet(ctx, apache, filepath.Join(r.dir, fmt.Sprint("peer", i)), idle)
		})
	}
	return err
}

// startRows starts servers again and again, the last time until they are idle.
func startRows(name, target, memoryTarget string, count int, once func(i int, idle time.Duration) (aStart, error)) error {
	var ready, record []time.Duration
	memory := 0
	for i := range count {
		idle := time.Duration(0)
		if i == count-1 {
			idle = idleFor
		}
		one, err := once(i, idle)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		ready, record, memory = append(ready, one.ready), append(record, one.record), one.memory
	}
	for _, row := range []struct {
		what   string
		values []time.Duration
		target string
	}{{"serving", ready, ""}, {"first acknowledged record", record, target}} {
		q := summarise(row.values)
		fmt.Printf("%-52s %8s %8s %8s %8s   %s\n", name+": "+row.what, ms(q.minimum), ms(q.median), ms(q.p99), ms(q.maximum), row.target)
	}
	fmt.Printf("%-52s %8.1f MiB   %s\n", fmt.Sprintf("  %d starts; memory (VmRSS) %v after the last", count, idleFor), float64(memory)/1024, memoryTarget)
	return nil
}

// coldStart starts everything in one process in a new directory and produces one record.
func coldStart(ctx context.Context, binary, dir string, idle time.Duration) (one aStart, err error) {
	began := time.Now()
	bounded, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	process, err := fleet.Start(bounded, fleet.ProcessSpec{
		Name:    "understudy start",
		Command: []string{binary, "start", "--kafka", "127.0.0.1:0", "--zookeeper", "127.0.0.1:0", "--data", dir},
	})
	if err != nil {
		return one, err
	}
	defer func() { err = errors.Join(err, process.Stop(bounded)) }()
	one.ready = time.Since(began)
	if err := produceOne(bounded, process.Field("kafka")); err != nil {
		return one, err
	}
	one.record = time.Since(began)
	one.memory, err = idleMemory(idle, process)
	return one, err
}

// coldStartOfFleet starts a coordinator and then a broker.
func coldStartOfFleet(ctx context.Context, program *fleet.Program, dir string, idle time.Duration) (one aStart, err error) {
	f, err := newFleet(dir, program, 1, 1)
	if err != nil {
		return one, err
	}
	defer f.KillAll()
	began := time.Now()
	if err := f.Start(ctx); err != nil {
		return one, err
	}
	one.ready = time.Since(began)
	bounded, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := produceOne(bounded, f.Bootstrap()...); err != nil {
		return one, err
	}
	one.record = time.Since(began)
	if one.memory, err = idleMemory(idle, f.Coordinators[0].Process(), f.Brokers[0].Process()); err != nil {
		return one, err
	}
	return one, f.Stop(bounded)
}

func produceOne(ctx context.Context, bootstrap ...string) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap...), kgo.AllowAutoTopicCreation(), kgo.ProducerLinger(0),
		kgo.MetadataMinAge(10*time.Millisecond), kgo.RetryBackoffFn(func(int) time.Duration { return 10 * time.Millisecond }))
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		err := client.ProduceSync(ctx, &kgo.Record{Topic: "first", Value: []byte("the curtain rises")}).FirstErr()
		if !errors.Is(err, kerr.InvalidReplicationFactor) {
			return err
		}
		select { // Apache's broker listens before it counts itself among the brokers for a new topic
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// idleMemory waits and adds up what the processes hold, in KiB.
func idleMemory(idle time.Duration, processes ...*fleet.Process) (total int, err error) {
	if idle == 0 {
		return 0, nil
	}
	<-time.After(idle)
	for _, process := range processes {
		resident, err := residentKiB(process.PID())
		if err != nil {
			return 0, err
		}
		total += resident
	}
	return total, nil
}

func residentKiB(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kib int
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			return kib, nil
		}
	}
	return 0, errors.New("no VmRSS in the process's status")
}
