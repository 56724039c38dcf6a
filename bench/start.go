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
	"github.com/twmb/franz-go/pkg/kgo"

	"understudy/internal/fleet"
)

// idleFor is how long the server is left alone before its memory is read.
const idleFor = 10 * time.Second

func startCommand() *cobra.Command {
	count := 20
	cmd := &cobra.Command{
		Use:   "start",
		Short: "Measure the cold start of `understudy start` and its idle memory",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return start(cmd.Context(), count) },
	}
	cmd.Flags().IntVar(&count, "count", count, "how many cold starts")
	return cmd
}

func start(ctx context.Context, count int) error {
	binary, dir, remove, err := fleet.Build(ctx)
	if err != nil {
		return err
	}
	defer remove()
	fmt.Printf("%s\n`understudy start` in an empty directory, %d times: from starting the process to the first acknowledged record (acks=all, topic created on the way); times in ms\n\n", machine(), count)
	var toReady, toRecord []time.Duration
	for i := range count {
		ready, record, _, err := coldStart(ctx, binary, filepath.Join(dir, fmt.Sprint("data", i)), 0)
		if err != nil {
			return err
		}
		toReady, toRecord = append(toReady, ready), append(toRecord, record)
	}
	_, _, memory, err := coldStart(ctx, binary, filepath.Join(dir, "idle"), idleFor)
	if err != nil {
		return err
	}
	fmt.Printf("%-36s %8s %8s %8s %8s   %s\n", "", "min", "median", "p99", "max", "target")
	for _, row := range []struct {
		what   string
		values []time.Duration
		target string
	}{{"ready line", toReady, ""}, {"first acknowledged record", toRecord, "< 150"}} {
		q := summarise(row.values)
		fmt.Printf("%-36s %8s %8s %8s %8s   %s\n", row.what, ms(q.minimum), ms(q.median), ms(q.p99), ms(q.maximum), row.target)
	}
	fmt.Printf("idle memory %v after the first record (VmRSS): %.1f MiB, target < 50 MiB\n", idleFor, float64(memory)/1024)
	return nil
}

// coldStart starts the server in a new directory and produces one record. memory is in KiB.
func coldStart(ctx context.Context, binary, dir string, idle time.Duration) (ready, record time.Duration, memory int, err error) {
	began := time.Now()
	bounded, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	process, err := fleet.Start(bounded, fleet.ProcessSpec{
		Name:    "understudy start",
		Command: []string{binary, "start", "--kafka", "127.0.0.1:0", "--zookeeper", "127.0.0.1:0", "--data", dir},
	})
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = errors.Join(err, process.Stop(bounded)) }()
	ready = time.Since(began)
	client, err := kgo.NewClient(kgo.SeedBrokers(process.Field("kafka")), kgo.AllowAutoTopicCreation(), kgo.ProducerLinger(0),
		kgo.MetadataMinAge(10*time.Millisecond), kgo.RetryBackoffFn(func(int) time.Duration { return 10 * time.Millisecond }))
	if err != nil {
		return 0, 0, 0, err
	}
	defer client.Close()
	if err := client.ProduceSync(bounded, &kgo.Record{Topic: "first", Value: []byte("the curtain rises")}).FirstErr(); err != nil {
		return 0, 0, 0, err
	}
	record = time.Since(began)
	if idle > 0 {
		<-time.After(idle)
		memory, err = residentKiB(process.PID())
	}
	return ready, record, memory, err
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
