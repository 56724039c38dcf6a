package coordination

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// failedSeeds ever showed a violation, of the code or of the simulator itself. What a seed leads
// to changes with the simulator; a bug keeps a test of its own where it was fixed.
var failedSeeds = []uint64{
	26, 45, 47, 72, 84, 88, 103, 115, 117, 122, 130, 276, 306, 347, 490, 541,
	1364, 2085, 5186, 10104, 10188, 10253, 10309, 10373, 10434,
	72004061, 72009106, 72013531, 73003389, 76000262, 76000969,
}

func TestSeedsThatFailed(t *testing.T) {
	runSeeds(t, failedSeeds)
}

// TestFreshSeeds runs as many seeds as it can in a while, others each time: about 10 s of one
// processor, and CI runs it twice.
func TestFreshSeeds(t *testing.T) {
	from := uint64(time.Now().UnixNano()) % 1_000_000_000
	t.Logf("starting seed %d", from)
	count := uint64(250)
	if testing.Short() {
		count = 60
	}
	counts, runs := map[string]int{}, 0
	for began := time.Now(); uint64(runs) < count && time.Since(began) < 40*time.Second; {
		var seeds []uint64
		for range 15 {
			seeds = append(seeds, from+uint64(runs))
			runs++
		}
		for what, n := range runSeeds(t, seeds) {
			counts[what] += n
		}
	}
	t.Logf("%d seeds: %v", runs, counts)
	if counts["entries"] < runs*30 || counts["answers"] < runs*50 {
		t.Errorf("%d entries and %d answers in %d runs: the simulation does not do much", counts["entries"], counts["answers"], runs)
	}
}

// runSeeds runs seeds two at a time; each is a world of its own.
func runSeeds(t *testing.T, seeds []uint64) map[string]int {
	t.Helper()
	var mu sync.Mutex
	counts := map[string]int{}
	var group sync.WaitGroup
	for half := range slices.Chunk(seeds, (len(seeds)+1)/2) {
		group.Go(func() {
			for _, seed := range half {
				r := Run(seed, Options{})
				mu.Lock()
				for what, n := range r.Counts {
					counts[what] += n
				}
				if r.Failure != nil {
					t.Errorf("seed %d: %v\n    go run ./sim -world coordination -seed %d", seed, r.Failure, seed)
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return counts
}

// TestSameSeedSameRun compares the traces of two runs.
func TestSameSeedSameRun(t *testing.T) {
	from := uint64(time.Now().UnixNano()) % 1_000_000_000
	for seed := from; seed < from+5; seed++ {
		var first, second bytes.Buffer
		Run(seed, Options{Trace: &first})
		Run(seed, Options{Trace: &second})
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

// TestScheduleCanBeCut runs parts of a schedule: each is a schedule, too.
func TestScheduleCanBeCut(t *testing.T) {
	seed := uint64(time.Now().UnixNano()) % 1_000_000_000
	whole := Schedule(seed, 0.5)
	for _, part := range [][]Item{{}, whole[:len(whole)/2], whole[len(whole)/2:]} {
		if f := Run(seed, Options{Scale: 0.5, Schedule: part}).Failure; f != nil {
			t.Error(fmt.Errorf("seed %d with %d of %d items: %w", seed, len(part), len(whole), f))
		}
	}
}
