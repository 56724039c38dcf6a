package main

import (
	"fmt"
	"io"
	"time"

	"understudy/sim/coordination"
)

func runCoordination(seed uint64, out io.Writer, scale float64) result {
	return coordinationResult(coordination.Run(seed, coordination.Options{Trace: out, Scale: scale}))
}

func coordinationResult(r coordination.Result) result {
	one := result{steps: r.Steps, counts: r.Counts}
	if f := r.Failure; f != nil {
		one.invariant, one.text = f.Invariant, fmt.Sprintf("%s (at %v, step %d)", f.Text, f.At, f.Step)
	}
	return one
}

func shrinkCoordination(seed uint64, out io.Writer, scale float64) (ok bool) {
	schedule, failure := coordination.Shrink(seed, scale, time.Now().Add(shrinkTime))
	if failure == nil {
		return false
	}
	fmt.Fprintf(out, "seed %d commit %s: %s with %d of %d items of its schedule:\n",
		seed, commit(), failure.Invariant, len(schedule), len(coordination.Schedule(seed, scale)))
	for _, item := range schedule {
		fmt.Fprintf(out, "    %s\n", item)
	}
	coordination.Run(seed, coordination.Options{Trace: out, Scale: scale, Schedule: schedule})
	return true
}
