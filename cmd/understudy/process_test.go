package main

import (
	"os"
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
