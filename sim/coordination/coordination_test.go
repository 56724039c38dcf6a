package coordination

import (
	"bytes"
	"os"
	"strconv"
	"testing"
	"time"
)

// TestOneSeed runs SIM_SEED with its trace on standard output, for debugging without the command.
func TestOneSeed(t *testing.T) {
	text := os.Getenv("SIM_SEED")
	if text == "" {
		t.Skip("SIM_SEED is not set")
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	r := Run(seed, Options{Trace: os.Stdout})
	t.Logf("%v %d steps %v", r.Failure, r.Steps, r.Counts)
}

// TestSameSeedSameRun compares the traces of two runs.
func TestSameSeedSameRun(t *testing.T) {
	from := uint64(time.Now().UnixNano()) % 1_000_000_000
	for seed := from; seed < from+5; seed++ {
		var first, second bytes.Buffer
		Run(seed, Options{Trace: &first, Scale: 0.5})
		Run(seed, Options{Trace: &second, Scale: 0.5})
		if bytes.Equal(first.Bytes(), second.Bytes()) {
			continue
		}
		a, b := bytes.Split(first.Bytes(), []byte("\n")), bytes.Split(second.Bytes(), []byte("\n"))
		for i := range min(len(a), len(b)) {
			if !bytes.Equal(a[i], b[i]) {
				t.Fatalf("seed %d: the runs differ in line %d:\n%s\n%s", seed, i+1, a[i], b[i])
			}
		}
		t.Fatalf("seed %d: the runs have %d and %d lines", seed, len(a), len(b))
	}
}
