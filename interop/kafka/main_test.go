// Package kafka judges the broker by other people's programs: Apache Kafka's own tools of two
// generations, kcat, kafka-python, confluent-kafka, kafkajs, franz-go and sarama, against the
// understudy program as a user runs it.
package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"understudy/internal/fleet"
)

// patience bounds every wait; nothing is expected to take nearly as long.
const patience = 2 * time.Minute

// program is the understudy binary under test.
var program string

// single is an `understudy start` with three brokers that the client tests share.
var single *fleet.Process

func TestMain(m *testing.M) {
	os.Exit(fleet.WhileBuilt(func(binary, dir string) int {
		program = binary
		return runTests(m, dir)
	}))
}

// runTests starts the shared cluster in a directory, runs the tests and stops it.
func runTests(m *testing.M, dir string) int {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var err error
	single, err = fleet.Start(ctx, fleet.ProcessSpec{
		Name: "understudy start", LogFile: filepath.Join(dir, "log"),
		Command: []string{program, "start", "--brokers", "3", "--kafka", "127.0.0.1:0", "--zookeeper", "127.0.0.1:0", "--data", filepath.Join(dir, "data")},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	status := m.Run()
	stopping, cancelStop := context.WithTimeout(context.Background(), patience)
	defer cancelStop()
	if err := single.Stop(stopping); err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	if status != 0 {
		if log, err := os.ReadFile(filepath.Join(dir, "log")); err == nil {
			fmt.Fprintf(os.Stderr, "the end of the server's log:\n%s\n", log[max(0, len(log)-8000):])
		}
	}
	return status
}

// bootstrap is the shared cluster's address list.
func bootstrap() string { return single.Field("kafka") }

// limited returns a context that ends with the test's patience.
func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// output runs a command with input and returns its stdout; a failure shows everything.
func output(t *testing.T, command *exec.Cmd, input []byte) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if input != nil {
		command.Stdin = bytes.NewReader(input)
	}
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

// lines makes count distinct lines.
func lines(prefix string, count int) []byte {
	var text bytes.Buffer
	for i := range count {
		fmt.Fprintf(&text, "%s %d\n", prefix, i)
	}
	return text.Bytes()
}

// topicName makes a name that no other test uses.
func topicName(t *testing.T) string {
	return strings.ToLower(strings.NewReplacer("/", "-", "_", "-", " ", "-").Replace(t.Name()))
}

// sameLines compares two texts as bags of lines, for topics of several partitions.
func sameLines(t *testing.T, got, want []byte) {
	t.Helper()
	count := map[string]int{}
	for line := range bytes.Lines(want) {
		count[string(bytes.TrimRight(line, "\n"))]++
	}
	for line := range bytes.Lines(got) {
		count[string(bytes.TrimRight(line, "\n"))]--
	}
	var wrong []error
	for line, n := range count {
		if n != 0 && len(wrong) < 5 {
			wrong = append(wrong, fmt.Errorf("%q: %+d", clip(line), -n))
		}
	}
	if len(wrong) > 0 {
		t.Fatalf("what came out is not what went in (%d bytes of %d): %v", len(got), len(want), errors.Join(wrong...))
	}
}
