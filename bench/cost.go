package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"understudy/internal/fleet"
)

// jiffy is the unit of the processor times in /proc/PID/stat (USER_HZ, 100 on every Linux).
const jiffy = 10 * time.Millisecond

// processorTime is what a process has used in user and kernel mode.
func processorTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:]) // from the third field on
	const userField, systemField = 14 - 3, 15 - 3
	if len(fields) <= systemField {
		return 0, fmt.Errorf("/proc/%d/stat: %q", pid, text)
	}
	user, userErr := strconv.Atoi(string(fields[userField]))
	system, systemErr := strconv.Atoi(string(fields[systemField]))
	return time.Duration(user+system) * jiffy, errors.Join(userErr, systemErr)
}

// costOf is the processor time that all servers of a fleet use while something runs.
func costOf(f *fleet.Fleet, something func() error) (cpu, wall time.Duration, err error) {
	before, err := fleetTime(f)
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	if err := something(); err != nil {
		return 0, 0, err
	}
	wall = time.Since(began)
	after, err := fleetTime(f)
	return after - before, wall, err
}

func fleetTime(f *fleet.Fleet) (time.Duration, error) {
	var total time.Duration
	for _, node := range slices.Concat(f.Coordinators, f.Brokers) {
		process := node.Process()
		if process == nil {
			continue
		}
		used, err := processorTime(process.PID())
		if err != nil {
			return 0, err
		}
		total += used
	}
	return total, nil
}

// newFleet makes a fleet of one program below dir; it does not start it.
func newFleet(dir string, program *fleet.Program, coordinators, brokers int) (*fleet.Fleet, error) {
	choose := func(int) *fleet.Program { return program }
	return fleet.New(fleet.Options{
		Dir: dir, Coordinators: coordinators, Brokers: brokers, CoordinatorProgram: choose, BrokerProgram: choose,
		BrokerProperties: map[string]string{
			"inter.broker.protocol.version": "3.9",
			"min.insync.replicas":           fmt.Sprint(min(2, brokers)),
			"num.network.threads":           "3", // Kafka's defaults, said because they matter
			"num.io.threads":                "8",
		},
		StartTimeout: time.Minute,
	})
}

// profiled sets the environment variable by which understudy writes processor profiles of
// its life into a folder, if one is asked for.
func profiled(dir string) error {
	if dir == "" {
		return nil
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(dir, 0o755), os.Setenv("UNDERSTUDY_PROFILE", dir))
}

// perGiB is processor seconds per GiB.
func perGiB(cpu time.Duration, bytes int64) float64 {
	return cpu.Seconds() / (float64(bytes) / (1 << 30))
}

func megabytesPerSecond(bytes int64, wall time.Duration) float64 {
	return float64(bytes) / 1e6 / wall.Seconds()
}

// stopping is a context for tearing down, whatever became of the measurement's.
func stopping(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
}
