package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"understudy/internal/verify"
)

// The exit statuses of verify beside 0.
const (
	statusViolated exitStatus = 1
	statusNotRun   exitStatus = 2
)

// The phases of verify: everything, or a part of it, with the history in a file in between.
const (
	phaseAll   = "all"
	phaseWrite = "write"
	phaseCheck = "check"
)

// checkBound is how long the search for linearizations may take in all.
const checkBound = 60 * time.Second

func verifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Let concurrent clients work on a running cluster and check what they were told",
		Long: `Records what concurrent clients ask of a running cluster and are answered, and checks it. The cluster may be
understudy's or Apache's, and servers may be killed meanwhile: lost connections are part of the game. The exit status
is 0 if nothing wrong was found, 1 if something was, 2 if it could not be judged. docs/verify.md names the rules.`,
	}
	cmd.AddCommand(verifyZooKeeperCommand(), verifyKafkaCommand())
	return cmd
}

// judged runs what ends in a report. The first signal ends the clients' work, and what there
// is by then is judged. An error means exit status 2.
func judged(cmd *cobra.Command, work func(ctx context.Context) error) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the program
	err := work(ctx)
	if _, done := err.(exitStatus); err == nil || done { //nolint:errorlint // an exitStatus is never wrapped
		return err
	}
	fmt.Fprintln(os.Stderr, "understudy: verify:", oneLine(err))
	return statusNotRun
}

// couldNotRun gives a mistake on the command line exit status 2.
func couldNotRun(cmd *cobra.Command, err error) error {
	fmt.Fprintf(os.Stderr, "understudy: %s: %s\n", cmd.CommandPath(), oneLine(err))
	return statusNotRun
}

// oneTarget is cobra.ExactArgs(1) with verify's exit status.
func oneTarget(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return couldNotRun(cmd, fmt.Errorf("give the servers as one argument, host:port,host:port; got %d", len(args)))
	}
	return nil
}

// verdict prints a report, keeps the history if it is needed, and gives the exit status.
type verdict struct {
	output string // text or json
	dir    string // where a history that shows a violation goes
}

func (v *verdict) register(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&v.output, "output", "o", "text", "text or json")
	cmd.Flags().StringVar(&v.dir, "out", ".", "the directory for the history, which is kept if it shows a violation")
	cmd.SetFlagErrorFunc(couldNotRun)
}

func (v *verdict) check() error {
	if v.output != "text" && v.output != "json" {
		return fmt.Errorf("-o %s: give text or json", v.output)
	}
	if info, err := os.Stat(v.dir); err != nil || !info.IsDir() {
		return fmt.Errorf("--out %s: it is not a directory", v.dir)
	}
	return nil
}

// say tells on stderr how it goes on.
func (v *verdict) say() func(format string, args ...any) {
	began := time.Now()
	return func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%7.2fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
}

// give prints the verdict. kept is the file that holds the history already; if there is none
// and something is wrong, write makes one.
func (v *verdict) give(report *verify.Report, kind, kept string, write func(path string) error) error {
	if !report.Clean() && kept == "" {
		kept = filepath.Join(v.dir, fmt.Sprintf("verify-%s-%s.jsonl", kind, time.Now().UTC().Format("20060102T150405.000")))
		if err := write(kept); err != nil {
			return err
		}
	}
	if err := v.print(os.Stdout, report, kept); err != nil {
		return err
	}
	switch {
	case !report.Clean():
		return statusViolated
	case len(report.Undecided) > 0:
		return statusNotRun
	}
	return nil
}

func (v *verdict) print(w io.Writer, report *verify.Report, kept string) error {
	if v.output == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(struct {
			*verify.Report
			History string `json:"history,omitempty"`
		}{report, kept})
	}
	report.Print(w)
	if kept != "" {
		fmt.Fprintf(w, "the history is in %s\n", kept)
	}
	return nil
}
