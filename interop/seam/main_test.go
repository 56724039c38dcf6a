// Package seam puts Apache's servers on both sides of the seam: our brokers on an Apache
// ZooKeeper ensemble, Apache Kafka brokers on ours, clusters of both kinds of broker, and both
// kinds in turn in the same data directories. Every test demands that nothing acknowledged was
// lost, doubled or reordered, and that the combination it is there for did occur.
//
// The default set takes a few minutes on two cores; UNDERSTUDY_SEAM=all runs every combination.
package seam

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"understudy/internal/fleet"
)

// patience bounds every wait; nothing is expected to take nearly as long.
const patience = 90 * time.Second

// program is the understudy binary under test.
var program string

func TestMain(m *testing.M) {
	os.Exit(fleet.WhileBuilt(func(binary, _ string) int {
		program = binary
		return m.Run()
	}))
}

// everyCombination skips what the default set leaves out.
func everyCombination(t *testing.T) {
	t.Helper()
	if os.Getenv("UNDERSTUDY_SEAM") != "all" {
		t.Skip("runs with UNDERSTUDY_SEAM=all")
	}
}

// limited returns a context that ends with the test's patience.
func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// until polls a state of the cluster that no event announces, and fails with the last
// shortcoming that was seen.
func until(t *testing.T, what string, shortcoming func() string) {
	t.Helper()
	ctx := limited(t)
	for {
		last := shortcoming()
		if last == "" {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %s", what, last)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// output runs a command and returns its stdout; a failure shows everything.
func output(t *testing.T, command *exec.Cmd) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		t.Fatalf("%s: %v\nstdout:\n%s\nstderr:\n%s", strings.Join(command.Args, " "), err, clip(stdout.String()), clip(stderr.String()))
	}
	return stdout.String()
}

func clip(text string) string {
	if len(text) > 6000 {
		return text[:3000] + "\n…\n" + text[len(text)-3000:]
	}
	return text
}
