package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"understudy/internal/fleet"
	"understudy/internal/trial"
)

const (
	demoTopic      = "encore"
	demoPartitions = 12
	// demoPause is how long the show plays undisturbed before each kill.
	demoPause = 700 * time.Millisecond
	// recoveryBound is how long the cluster may take to be well again before the demo gives up.
	recoveryBound = 60 * time.Second
	// demoEvery is the pace without an input file: one record to each partition.
	demoEvery = 5 * time.Millisecond
)

type demoOptions struct {
	input  string
	kills  int
	output string
	keep   bool
}

func demoCommand() *cobra.Command {
	var options demoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Kill the leader again and again, and see what producers and consumers notice",
		Long: `Starts three coordinators and three brokers as processes of their own in a temporary directory, a producer
(acks=all, idempotent) and a consumer in a group; kills the leader with kill -9 and restarts it, again and again;
and reports what the clients noticed. The exit status is 1 if any acknowledged record was lost, doubled or reordered.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return demo(cmd.Context(), options) },
	}
	cmd.Flags().StringVar(&options.input, "input", "", "a file whose lines are produced, over and over until the last kill, at least once; without it lines are made up")
	cmd.Flags().IntVar(&options.kills, "kills", 5, "how many times the leader is killed")
	cmd.Flags().StringVarP(&options.output, "output", "o", "text", "text or json")
	cmd.Flags().BoolVar(&options.keep, "keep", false, "keep the temporary directory")
	return cmd
}

// demoReport is what -o json prints.
type demoReport struct {
	Kills   []trial.Outcome `json:"kills"`
	Records trial.Account   `json:"records"`
	Error   string          `json:"error,omitempty"`
}

func demo(ctx context.Context, options demoOptions) error {
	if options.output != "text" && options.output != "json" {
		return fmt.Errorf("-o %s: give text or json", options.output)
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	binary, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program's own file: %w", err)
	}
	dir, err := os.MkdirTemp("", "understudy-demo-")
	if err != nil {
		return err
	}
	stage := &stage{options: options, began: time.Now(), out: os.Stdout}
	if options.output == "json" {
		stage.out = os.Stderr // the report alone goes to stdout
	}
	if options.keep {
		stage.say("data and logs stay in %s", dir)
	} else {
		defer os.RemoveAll(dir)
	}
	stage.fleet, err = fleet.New(fleet.Options{Binary: binary, Dir: dir, LogLevel: "debug", OnLog: stage.events.Add})
	if err != nil {
		return err
	}
	defer stage.fleet.KillAll() // whatever is left
	report := stage.play(ctx)
	if options.output == "json" {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(report); err != nil {
			return err
		}
	} else {
		stage.print(report)
	}
	if report.Error != "" {
		return errors.New(report.Error)
	}
	if !report.Records.Clean() {
		return exitStatus(1)
	}
	return nil
}

// stage is one run of the demo.
type stage struct {
	options demoOptions
	began   time.Time
	out     io.Writer
	fleet   *fleet.Fleet
	load    *trial.Load
	events  trial.Events
	passed  <-chan struct{} // closed when the input file was sent once; nil without one
}

func (s *stage) say(format string, args ...any) {
	fmt.Fprintf(s.out, "%7.2fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

// play runs the whole show; what went wrong is in the report, with what was measured before.
func (s *stage) play(ctx context.Context) (report demoReport) {
	fail := func(err error) demoReport {
		report.Error = oneLine(err)
		return report
	}
	if err := s.fleet.Start(ctx); err != nil {
		return fail(err)
	}
	s.say("three coordinators (%s) and three brokers (%s) are up", s.fleet.ZooKeeperConnect(), strings.Join(s.fleet.Bootstrap(), ","))
	next, every, err := s.input()
	if err != nil {
		return fail(err)
	}
	s.load, err = trial.StartLoad(ctx, trial.LoadConfig{
		Bootstrap: s.fleet.Bootstrap(), Topic: demoTopic, Partitions: demoPartitions, Replicas: 3, MinInsync: 2,
		Every: every, Next: next, Group: "audience",
	})
	if err != nil {
		return fail(err)
	}
	s.say("topic %s: %d partitions, 3 replicas, min.insync.replicas 2; a producer (acks=all, idempotent) and a consumer are at work", demoTopic, demoPartitions)
	for kill := range s.options.kills {
		outcome, err := s.killLeader(ctx, kill)
		if err != nil {
			report.Error = oneLine(err)
			break
		}
		report.Kills = append(report.Kills, outcome)
	}
	if s.passed != nil && report.Error == "" {
		select {
		case <-s.passed:
		case <-ctx.Done():
			report.Error = "interrupted before the file was sent once"
		}
	}
	s.say("the last record is sent; waiting until everything acknowledged is read")
	finishing, cancel := context.WithTimeout(context.WithoutCancel(ctx), recoveryBound)
	defer cancel()
	report.Records, err = s.load.Finish(finishing)
	if err != nil && report.Error == "" {
		report.Error = oneLine(err)
	}
	if err := s.fleet.Stop(finishing); err != nil && report.Error == "" {
		report.Error = oneLine(err)
	}
	return report
}

// killLeader kills the leader of partition 0, which is also that of others, and starts it again.
func (s *stage) killLeader(ctx context.Context, kill int) (trial.Outcome, error) {
	bounded, cancel := context.WithTimeout(ctx, recoveryBound)
	defer cancel()
	if err := s.load.AwaitInSync(bounded, false); err != nil {
		return trial.Outcome{}, err
	}
	select {
	case <-time.After(demoPause):
	case <-ctx.Done():
		return trial.Outcome{}, ctx.Err()
	}
	leaders, err := s.load.Leaders(bounded)
	if err != nil {
		return trial.Outcome{}, err
	}
	victim := leaders[int32(kill)%demoPartitions]
	partitions, err := s.load.LedBy(bounded, victim)
	if err != nil {
		return trial.Outcome{}, err
	}
	node, ok := s.fleet.Broker(victim)
	if !ok {
		return trial.Outcome{}, fmt.Errorf("partition %d is led by broker %d, which is none of ours", int32(kill)%demoPartitions, victim)
	}
	controller, err := s.load.Controller(bounded)
	if err != nil {
		return trial.Outcome{}, err
	}
	name := fmt.Sprintf("kill -9 of broker %d", victim)
	if controller == victim {
		name += ", leader and controller"
	}
	s.say("%d/%d %s, which leads partitions %v", kill+1, s.options.kills, name, partitions)
	outcome, err := s.load.Strike(bounded, name, partitions, func() (time.Time, time.Time, error) {
		now := time.Now()
		node.Kill()
		return now, time.Now(), nil
	})
	if err != nil {
		return outcome, err
	}
	s.events.Explain(&outcome, demoTopic, victim)
	acknowledged, read := s.load.Ledger().Progress()
	s.say("    every partition acknowledges again: %s without a leader; %d records acknowledged, %d read so far", milliseconds(&outcome.Gap), acknowledged, read)
	if err := node.Start(bounded); err != nil {
		return outcome, err
	}
	s.say("    broker %d is back", victim)
	return outcome, nil
}

// input returns the values to produce and the pace. A file is read through as often as the
// kills need, at least once; its lines are sent without their line breaks.
func (s *stage) input() (next func() ([]byte, error), every time.Duration, err error) {
	if s.options.input == "" {
		return nil, demoEvery, nil
	}
	text, err := os.ReadFile(s.options.input)
	if err != nil {
		return nil, 0, fmt.Errorf("--input: %w", err)
	}
	if len(text) == 0 {
		return nil, 0, fmt.Errorf("--input %s: the file is empty", filepath.Clean(s.options.input))
	}
	lines := bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
	// One pass should take about as long as the kills do, but no slower than without a file.
	expected := time.Duration(max(1, s.options.kills)) * 2 * time.Second
	every = min(demoEvery, expected*demoPartitions/time.Duration(len(lines)))
	position, passed := 0, make(chan struct{})
	s.passed = passed
	return func() ([]byte, error) {
		line := lines[position%len(lines)]
		if position++; position == len(lines) {
			close(passed)
		}
		return line, nil
	}, every, nil
}

func milliseconds(d *time.Duration) string {
	if d == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", float64(*d)/float64(time.Millisecond))
}

func (s *stage) print(report demoReport) {
	fmt.Fprintf(s.out, "\n%-48s %12s %12s %12s %12s\n", "kill", "no leader", "detection", "election", "propagation")
	for _, kill := range report.Kills {
		fmt.Fprintf(s.out, "%-48s %12s %12s %12s %12s\n", kill.Fault, milliseconds(&kill.Gap),
			milliseconds(kill.Detection), milliseconds(kill.Election), milliseconds(kill.Propagation))
	}
	records := report.Records
	fmt.Fprintf(s.out, "\n%d records sent, %d acknowledged, %d read; %d lost, %d doubled, %d out of order, %d with other bytes\n",
		records.Sent, records.Acknowledged, records.Read, records.Lost, records.Doubled, records.Reordered, records.Corrupted)
	for _, example := range records.Examples {
		fmt.Fprintln(s.out, "   ", example)
	}
}
