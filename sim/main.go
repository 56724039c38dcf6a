package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// simulation is one kind of simulated world.
type simulation struct {
	name string
	// run simulates a seed; the trace goes to out, nil for none.
	run func(seed uint64, out io.Writer, scale float64) result
	// shrink cuts a failing seed's schedule to a minimal one that still breaks the same
	// invariant, writes it to out, and runs it with its trace. ok is false if it does not fail.
	shrink func(seed uint64, out io.Writer, scale float64) (ok bool)
}

// result is what became of a run.
type result struct {
	invariant string // "": all held
	text      string
	steps     int
	counts    map[string]int // what it did, to be summed up
}

var simulations = []simulation{
	{name: "streaming", run: runStreaming, shrink: shrinkStreaming},
	{name: "coordination", run: runCoordination, shrink: shrinkCoordination},
}

func main() {
	seed := flag.Uint64("seed", 0, "run this seed alone and print its trace")
	seeds := flag.Int("seeds", 0, "run so many seeds")
	from := flag.Uint64("from", uint64(time.Now().UnixNano())%1_000_000_000, "the first of -seeds")
	world := flag.String("world", "", "streaming, coordination or all; default: streaming with -seed, all with -seeds")
	short := flag.Bool("shrink", false, "with -seed: cut its schedule to a minimal one that breaks the same invariant, and print that")
	workers := flag.Int("workers", 2, "how many runs at once")
	scale := flag.Float64("scale", 1, "how long a run is")
	keepGoing := flag.Bool("keep-going", false, "run all seeds even if some fail")
	flag.Parse()
	if *world == "" {
		*world = "streaming"
		if *seeds > 0 {
			*world = "all"
		}
	}
	chosen := chosenSimulations(*world)
	if len(chosen) == 0 {
		fmt.Fprintf(os.Stderr, "sim: there is no world %q: -world is streaming, coordination or all\n", *world)
		os.Exit(2)
	}
	failed := false
	for _, s := range chosen {
		if *seeds == 0 {
			failed = !s.one(*seed, *scale, *short) || failed
			continue
		}
		failed = !s.many(*from, *seeds, *workers, *scale, *keepGoing) || failed
	}
	if failed {
		os.Exit(1)
	}
}

func chosenSimulations(world string) (chosen []simulation) {
	for _, s := range simulations {
		if world == s.name || world == "all" {
			chosen = append(chosen, s)
		}
	}
	return chosen
}

// one runs a seed and prints its trace.
func (s *simulation) one(seed uint64, scale float64, short bool) (ok bool) {
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	defer func() { _ = out.Flush() }()
	if short {
		if !s.shrink(seed, out, scale) {
			fmt.Fprintf(out, "seed %d commit %s: all invariants held, there is nothing to shrink\n", seed, commit())
			return true
		}
		return false
	}
	r := s.run(seed, out, scale)
	if r.invariant == "" {
		fmt.Fprintf(out, "seed %d commit %s: %d steps, all invariants held\n", seed, commit(), r.steps)
		return true
	}
	fmt.Fprintln(out, s.failure(seed, scale, r))
	return false
}

// failure is what is printed of a run that failed.
func (s *simulation) failure(seed uint64, scale float64, r result) string {
	command := fmt.Sprintf("go run ./sim -world %s -seed %d", s.name, seed)
	if scale != 1 {
		command += fmt.Sprintf(" -scale %v", scale)
	}
	return fmt.Sprintf("seed %d commit %s: %s: %s\n    %s\n    %s -shrink", seed, commit(), r.invariant, r.text, command, command)
}

// many runs seeds and prints what failed and a line of totals.
func (s *simulation) many(from uint64, count, workers int, scale float64, keepGoing bool) (ok bool) {
	began := time.Now()
	report := s.runMany(from, count, workers, scale, keepGoing)
	for _, line := range report.failures {
		fmt.Println(line)
	}
	fmt.Printf("%s: %d seeds from %d at commit %s: %d failed, %d steps%s, %v\n",
		s.name, report.runs, from, commit(), len(report.failures), report.steps, report.done(), time.Since(began).Round(time.Millisecond))
	return len(report.failures) == 0
}

func commit() string {
	out, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
