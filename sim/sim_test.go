package main

import (
	"bytes"
	"testing"
	"time"

	"understudy/sim/shrink"
)

// failedSeeds ever showed a violation, of the cores or of the simulator itself. What a seed
// leads to changes with the simulator; a bug keeps a test of its own where it was fixed.
var failedSeeds = map[string][]uint64{
	"streaming": {
		3, 8, 28, 34, 52, 75, 125, 825054084,
		6000168, 6000732, 6000857, 6001068, // bounced brokers at a failover of the controller
		3000015, 3000078, 3000338, 4000515, 5000215, 7000008,
		27, 212, 112, 90, 118, 5033, 5090, 5205, 5242, // lost offsets, inherited checkpoints, failed disks, a stuck reassignment
		1000005, 1000026, 1000126, 1000240, 1000421, 1000496, 1001030, 1001384, 1001494,
		900016, 500622, 501481, 502455, // what damage hides: producers, epochs, logs left behind by reassignments
		10000302, 10000578, 10002032, 10003182, 10003597, // joined the ISR while it lost its power; a truncation undone
		31003947, 31006476, // expectations: a group that begins anew, a member that asks a replaced leader
		31008314,                     // a leader that committed what others had left, and was killed before it appended
		53002094,                     // a durable log's end that was only in the page cache, told to the controller
		54004830,                     // a state that was written long after it had been decided on
		10000098, 11003480, 31005607, // damage that nobody has a copy of; a member that is not the one of before
		81, 482, 14000012, 14000071, 14000157, 15000488, 15000515, 15000549, 15001037, 15001321, 15001703, 16001071, 20004082, // topics that come and go
	},
}

func TestSeedsThatFailed(t *testing.T) {
	for i := range simulations {
		s := &simulations[i]
		for _, seed := range failedSeeds[s.name] {
			if r := s.run(seed, nil, 1); r.invariant != "" {
				t.Error(s.failure(seed, 1, r))
			}
		}
	}
}

// freshSeeds are how many seeds of a world CI runs that nobody has run before. They may be
// hundreds when hunts of tens of thousands find nothing any more (docs/bugs.md); package
// coordination runs more of its own.
var freshSeeds = map[string]int{"streaming": 120, "coordination": 25}

// TestFreshSeeds runs some seeds, others each time; fewer where the machine is slow.
func TestFreshSeeds(t *testing.T) {
	from := uint64(time.Now().UnixNano()) % 1_000_000_000
	for i := range simulations {
		s := &simulations[i]
		seeds := freshSeeds[s.name]
		if testing.Short() {
			seeds = 10
		}
		t.Run(s.name, func(t *testing.T) {
			t.Logf("starting seed %d", from)
			total := report{counts: map[string]int{}}
			for began := time.Now(); total.runs < seeds && time.Since(began) < 25*time.Second; {
				next := s.runMany(from+uint64(total.runs), 20, 2, 1, true)
				for _, failure := range next.failures {
					t.Error(failure)
				}
				total.add(result{steps: next.steps, counts: next.counts})
				total.runs += next.runs - 1
			}
			t.Logf("%d seeds, %d steps%s", total.runs, total.steps, total.done())
			if s.name == "streaming" && total.counts["records committed"] < total.runs*100 {
				t.Errorf("only %d records were committed in %d runs: the simulation does not do much", total.counts["records committed"], total.runs)
			}
		})
	}
}

// TestShrinking plants a failure that two actions make together.
func TestShrinking(t *testing.T) {
	_, schedule := configOf(5, 1)
	if len(schedule) < 50 {
		t.Fatalf("only %d actions", len(schedule))
	}
	got := shrink.Minimise(schedule, func(some []action) bool {
		w := newWorld(5, nil, 1)
		w.schedule = some
		_ = w.run()
		return w.clients[0].serial > 10 // it takes a few offers
	})
	if len(got) < 2 || len(got) > 10 {
		t.Errorf("%d of %d actions left: %v", len(got), len(schedule), got)
	}
}

// TestSameSeedSameRun compares the traces of two runs.
func TestSameSeedSameRun(t *testing.T) {
	seed := uint64(time.Now().UnixNano()) % 1_000_000_000
	var first, second bytes.Buffer
	run(seed, &first, 0.5)
	run(seed, &second, 0.5)
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		a, b := bytes.Split(first.Bytes(), []byte("\n")), bytes.Split(second.Bytes(), []byte("\n"))
		for i := range min(len(a), len(b)) {
			if !bytes.Equal(a[i], b[i]) {
				t.Fatalf("seed %d: the runs differ in line %d:\n%s\n%s", seed, i+1, a[i], b[i])
			}
		}
		t.Fatalf("seed %d: the runs have %d and %d lines", seed, len(a), len(b))
	}
}
