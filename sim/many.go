package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"understudy/sim/shrink"
)

// report sums up many runs.
type report struct {
	runs, steps int
	counts      map[string]int
	failures    []string // as they are printed
	invariants  []string // of the failures
}

// done lists the counts.
func (r *report) done() string {
	var out strings.Builder
	for _, what := range slices.Sorted(maps.Keys(r.counts)) {
		fmt.Fprintf(&out, ", %d %s", r.counts[what], what)
	}
	return out.String()
}

func (r *report) add(one result) {
	r.runs++
	r.steps += one.steps
	for what, n := range one.counts {
		r.counts[what] += n
	}
}

// runMany runs seeds side by side; each is a world of its own.
func (s *simulation) runMany(from uint64, count, workers int, scale float64, keepGoing bool) report {
	type failed struct {
		seed uint64
		result
	}
	var mu sync.Mutex
	var failures []failed
	total := report{counts: map[string]int{}}
	next := from
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			mu.Lock()
			defer mu.Unlock()
			for next != from+uint64(count) && (len(failures) == 0 || keepGoing) {
				seed := next
				next++
				mu.Unlock()
				one := s.run(seed, nil, scale)
				mu.Lock()
				total.add(one)
				if one.invariant != "" {
					failures = append(failures, failed{seed, one})
				}
			}
		})
	}
	group.Wait()
	slices.SortFunc(failures, func(a, b failed) int { return cmp.Compare(a.seed, b.seed) })
	for _, f := range failures {
		total.invariants = append(total.invariants, f.invariant)
		total.failures = append(total.failures, s.failure(f.seed, scale, f.result))
	}
	return total
}

func runStreaming(seed uint64, out io.Writer, scale float64) result {
	failure, w := run(seed, out, scale)
	return w.result(failure)
}

func (w *world) result(failure *violation) result {
	r := result{steps: w.steps, counts: map[string]int{"records committed": 0, "acknowledged batches": 0, "producers given up": 0, "ended early": 0}}
	if failure != nil {
		r.invariant, r.text = failure.invariant, failure.describe()
		if failure.invariant == noProgress { // the world may still be changing
			r.steps = failure.step
			return r
		}
	}
	if w.beyond {
		r.counts["ended early"]++
	}
	for _, p := range w.check.parts {
		r.counts["records committed"] += len(p.ledger)
	}
	for _, past := range w.check.groups.offsets {
		r.counts["offsets committed"] += len(past.at)
	}
	for _, c := range w.clients {
		r.counts["acknowledged batches"] += c.acked
		if c.stuck {
			r.counts["producers given up"]++
		}
	}
	return r
}

// shrinkTime bounds the search: what is found by then is good enough.
const shrinkTime = time.Minute

func shrinkStreaming(seed uint64, out io.Writer, scale float64) (ok bool) {
	failure, w := run(seed, nil, scale)
	if failure == nil {
		return false
	}
	end := time.Hour
	if failure.invariant != "no-convergence" {
		end = failure.at + time.Second // a run that has got so far without failing is a good one
	}
	with := func(schedule []action, out io.Writer) *violation {
		w := newWorld(seed, out, scale)
		w.schedule, w.end = schedule, end
		return w.run()
	}
	before := slices.DeleteFunc(slices.Clone(w.schedule), func(a action) bool { return a.at > failure.at })
	runs, deadline := 0, time.Now().Add(shrinkTime)
	minimal := shrink.Minimise(before, func(schedule []action) bool {
		if time.Now().After(deadline) && runs > 0 {
			return false
		}
		runs++
		again := with(schedule, nil)
		return again != nil && again.invariant == failure.invariant
	})
	again := with(minimal, out)
	fmt.Fprintf(out, "seed %d commit %s: %s: %s\n", seed, commit(), failure.invariant, failure.describe())
	fmt.Fprintf(out, "%d of %d actions are enough (%d runs; above is the trace of the last) for\n%s: %s:\n",
		len(minimal), len(w.schedule), runs, again.invariant, again.describe())
	for _, a := range minimal {
		fmt.Fprintln(out, "    "+a.String())
	}
	return true
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
