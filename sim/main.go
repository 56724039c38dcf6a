package main

import (
	"bufio"
	"cmp"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
)

func main() {
	seed := flag.Uint64("seed", 0, "run this seed alone and print its trace")
	seeds := flag.Int("seeds", 0, "run so many seeds")
	from := flag.Uint64("from", uint64(time.Now().UnixNano())%1_000_000_000, "the first of -seeds")
	workers := flag.Int("workers", 2, "how many runs at once")
	scale := flag.Float64("scale", 1, "how long a run is")
	keepGoing := flag.Bool("keep-going", false, "run all seeds even if some fail")
	flag.Parse()
	if *seeds == 0 {
		out := bufio.NewWriterSize(os.Stdout, 1<<20)
		failure, w := run(*seed, out, *scale)
		fmt.Fprintf(out, "seed %d commit %s: %d steps, %v\n", *seed, commit(), w.steps, outcome(failure))
		_ = out.Flush()
		if failure != nil {
			os.Exit(1)
		}
		return
	}
	began := time.Now()
	report := runMany(*from, *seeds, *workers, *scale, *keepGoing)
	for _, line := range report.failures {
		fmt.Println(line)
	}
	fmt.Printf("%d seeds from %d at commit %s: %d failed, %d steps, %d records committed, %d acknowledged batches, %d ended early, %v\n",
		report.runs, *from, commit(), len(report.failures), report.steps, report.committed, report.acked, report.beyond, time.Since(began).Round(time.Millisecond))
	if len(report.failures) > 0 {
		os.Exit(1)
	}
}

func outcome(failure *violation) string {
	if failure == nil {
		return "all invariants held"
	}
	return "FAILED " + failure.Error()
}

func commit() string {
	out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// report sums up many runs.
type report struct {
	runs, steps, committed, acked int
	failures                      []string
	invariants                    []string // of the failures
	stuck, beyond                 int
}

// runMany runs seeds side by side; each is a world of its own.
func runMany(from uint64, count, workers int, scale float64, keepGoing bool) report {
	var mu sync.Mutex
	var total report
	next := from
	var group sync.WaitGroup
	type failed struct {
		seed uint64
		v    *violation
	}
	var failures []failed
	for range workers {
		group.Go(func() {
			for {
				mu.Lock()
				if next == from+uint64(count) || len(failures) > 0 && !keepGoing {
					mu.Unlock()
					return
				}
				seed := next
				next++
				mu.Unlock()
				failure, w := run(seed, nil, scale)
				mu.Lock()
				total.runs++
				total.steps += w.steps
				if w.beyond {
					total.beyond++
				}
				for _, p := range w.check.parts {
					total.committed += len(p.ledger)
				}
				for _, c := range w.clients {
					total.acked += c.acked
					if c.stuck {
						total.stuck++
					}
				}
				if failure != nil {
					failures = append(failures, failed{seed, failure})
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	slices.SortFunc(failures, func(a, b failed) int { return cmp.Compare(a.seed, b.seed) })
	for _, f := range failures {
		total.invariants = append(total.invariants, f.v.invariant)
		total.failures = append(total.failures, fmt.Sprintf("seed %d commit %s: %v\n    go run ./sim -seed %d", f.seed, commit(), f.v, f.seed))
	}
	return total
}

// traceHandler puts the brokers' log lines into the trace, without wall clocks.
type traceHandler struct {
	w     *world
	attrs []slog.Attr
}

func (h *traceHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h *traceHandler) Handle(_ context.Context, r slog.Record) error {
	var line strings.Builder
	line.WriteString(r.Message)
	for _, attr := range h.attrs {
		fmt.Fprintf(&line, " %s=%v", attr.Key, attr.Value)
	}
	r.Attrs(func(attr slog.Attr) bool {
		fmt.Fprintf(&line, " %s=%v", attr.Key, attr.Value)
		return true
	})
	h.w.trace("log", "%s", line.String())
	return nil
}

func (h *traceHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &traceHandler{h.w, append(slices.Clone(h.attrs), attrs...)}
}

func (h *traceHandler) WithGroup(string) slog.Handler { return h }
