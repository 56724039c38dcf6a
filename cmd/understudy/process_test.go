package main

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestSecondSignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		raw, first, second := make(chan os.Signal), make(chan os.Signal, 1), make(chan os.Signal, 1)
		go func() { second <- awaitSecond(raw, first) }()
		raw <- syscall.SIGTERM
		raw <- syscall.SIGTERM // timeout(1) signals its child, then the child's group
		synctest.Wait()
		if len(first) != 1 || len(second) != 0 {
			t.Fatalf("%d first and %d second signals", len(first), len(second))
		}
		time.Sleep(sameWish)
		raw <- os.Interrupt
		if got := <-second; got != os.Interrupt {
			t.Fatalf("second signal %v", got)
		}
	})
}

// deaf is a server that does not heed the context of Stop.
type deaf struct{ end chan struct{} }

func (deaf) Done() <-chan struct{} { return nil }
func (deaf) Err() error            { return nil }

func (d deaf) Stop(context.Context) error {
	<-d.end
	return nil
}

func TestShutdownIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := deaf{end: make(chan struct{})}
		defer close(stuck.end)
		err := stopWithin(slog.New(slog.DiscardHandler), shutdownBound, stuck)
		if err == nil || !strings.Contains(err.Error(), "did not end") {
			t.Fatal(err)
		}
	})
}
