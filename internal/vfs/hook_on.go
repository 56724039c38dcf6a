//go:build chaos

package vfs

import (
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	_ "unsafe" // for go:linkname
)

// Environment variables of a program built with the tag chaos. Only the fault matrix
// (bench/chaos) builds such a program.
const (
	// ordersVariable names a file with Orders, read again and again.
	ordersVariable = "UNDERSTUDY_CHAOS"
	// unsyncedVariable names a directory whose files lose what was not synced when the
	// process is killed, as if the machine had lost its power (see WithUnsyncedInMemory).
	unsyncedVariable = "UNDERSTUDY_CHAOS_UNSYNCED"
	// seedVariable decides which unsynced writes reach the disk nevertheless.
	seedVariable = "UNDERSTUDY_CHAOS_SEED"
)

// Orders say what the disk and the clock are to do.
type Orders struct {
	WriteDelayMs int   `json:"write_delay_ms"` // each write takes that much longer
	SyncDelayMs  int   `json:"sync_delay_ms"`
	SyncFails    bool  `json:"sync_fails"` // with EIO
	ClockSeconds int64 `json:"clock_seconds"`
}

const ordersEvery = 10 * time.Millisecond

// clockShift is added to the wall clock by a package time that bench/chaos has patched
// (go build -overlay); with the original one it moves nothing.
//
//go:linkname clockShift time.chaosShift
var clockShift int64

// hooked puts the ordered faults in front of the disk. There is one of it in a process.
func hooked(fsys FS) FS {
	hookOnce.Do(func() { hookedFS = hook(fsys) })
	return hookedFS
}

var (
	hookOnce sync.Once
	hookedFS FS
)

func hook(fsys FS) FS {
	if root := os.Getenv(unsyncedVariable); root != "" {
		seed, _ := strconv.ParseInt(os.Getenv(seedVariable), 10, 64) // 0 is a seed, too
		kept, err := WithUnsyncedInMemory(fsys, root, rand.New(rand.NewSource(seed)))
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s=%s: %v\n", unsyncedVariable, root, err)
			os.Exit(1)
		}
		fsys = kept
	}
	path := os.Getenv(ordersVariable)
	if path == "" {
		return fsys
	}
	var orders atomic.Pointer[Orders]
	orders.Store(&Orders{})
	go obey(path, &orders)
	return WithFaults(fsys, func(op Operation, path string) error {
		now := orders.Load()
		switch op {
		case OpWrite:
			time.Sleep(time.Duration(now.WriteDelayMs) * time.Millisecond)
		case OpSync, OpSyncDir:
			time.Sleep(time.Duration(now.SyncDelayMs) * time.Millisecond)
			if now.SyncFails {
				return &os.PathError{Op: "fdatasync", Path: path, Err: syscall.EIO}
			}
		}
		return nil
	})
}

// obey reads the orders until the process ends, and reports beside them what it has taken, and
// what time that makes it.
func obey(path string, orders *atomic.Pointer[Orders]) {
	var taken Orders
	reported := false
	for ; ; time.Sleep(ordersEvery) {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // no orders yet
		}
		var read Orders
		if json.Unmarshal(text, &read) != nil || read == taken && reported {
			continue
		}
		taken, reported = read, true
		orders.Store(&read)
		clockShift = read.ClockSeconds
		report, _ := json.Marshal(map[string]any{"orders": read, "now": time.Now().Unix()}) // cannot fail
		_ = os.WriteFile(path+".obeyed", report, osFileMode)                                // its absence is noticed
	}
}
