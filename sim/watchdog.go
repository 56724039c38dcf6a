package main

import (
	"fmt"
	"syscall"
	"time"
)

const (
	noProgress = "no-progress"
	// stepTime is the processor time, of the whole program, that one step may take. A run takes
	// thousands of steps in a tenth of a second. (Not the time on the wall: the machine may have
	// other things to do.)
	stepTime = 20 * time.Second
)

// watched runs a world and reports a step that does not end: something in it goes round in
// circles. What goes round cannot be stopped from outside; it burns a processor from then on.
func (w *world) watched(live func() *violation) *violation {
	done := make(chan *violation, 1)
	go func() { done <- live() }()
	look := time.NewTicker(time.Second)
	defer look.Stop()
	step, since := w.progress.Load(), processorTime()
	for {
		select {
		case failure := <-done:
			return failure
		case <-look.C:
		}
		if now := w.progress.Load(); now != step {
			step, since = now, processorTime()
		} else if spent := processorTime() - since; spent > stepTime {
			return &violation{noProgress, fmt.Sprintf("a step does not end: the program has worked for %v since it began", spent.Round(time.Second)), w.now, int(step)}
		}
	}
}

// processorTime is what this program has used of it.
func processorTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
