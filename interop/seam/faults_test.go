package seam

import (
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"understudy/internal/fleet"
	"understudy/internal/trial"
)

func TestFaultsWithOurCoordinatorsAndOneApacheBroker(t *testing.T) {
	everyCombination(t)
	suffer(t, cast{coordinator: ours, brokers: []kind{ours, apache, ours}})
}

func TestFaultsWithApacheZooKeeperAndOneOfOurBrokers(t *testing.T) {
	everyCombination(t)
	suffer(t, cast{coordinator: apache, brokers: []kind{apache, ours, apache}})
}

func TestFaultsWithApacheBrokersOnOurCoordinators(t *testing.T) {
	everyCombination(t)
	suffer(t, cast{coordinator: ours, brokers: []kind{apache, apache, apache}})
}

func TestFaultsWithOurBrokersOnApacheZooKeeper(t *testing.T) {
	everyCombination(t)
	suffer(t, cast{coordinator: apache, brokers: []kind{ours, ours, ours}})
}

// suffer pauses a leader of each kind until it has been replaced, kills the coordinators' leader,
// and then everything at once.
func suffer(t *testing.T, cast cast) {
	s := setUp(t, cast)
	s.open(t, 1)
	s.begin(t, 2)
	probe, err := trial.StartProbe(limited(t), s.Bootstrap(), "probe", partitions)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []int{2, 1} {
		s.pause(t, s.broker(id), probe)
		s.settle(t)
	}
	probe.Close()
	s.stutter(t)

	leader := s.coordinatorLeader(t)
	s.strike(t, "kill -9 of the coordinators' leader beside the running "+s.broker(3).Name, s.broker(3), func() error { leader.Kill(); return nil })
	s.startTogether(t, []*fleet.Node{leader})
	s.settle(t)

	s.KillAll()
	s.startTogether(t, s.Coordinators)
	for _, node := range s.Brokers {
		s.restart(t, node)
	}
	s.settle(t)
	s.sameDescription(t)
	s.finish(t)
	s.sameLogs(t)
}

// pause stops a leader with SIGSTOP until others lead its partitions, and lets it go on. The probe
// tells how long nobody led. The load's own figure adds what its client does meanwhile: franz-go
// waits 7 s for an answer of the paused broker, and 4 s more each time it then asks it of all
// brokers for metadata (7, 11, 15 s …).
func (s *stage) pause(t *testing.T, node *fleet.Node, probe *trial.Probe) {
	t.Helper()
	led, err := s.load.AwaitLedBy(limited(t), int32(node.ID))
	if err != nil {
		t.Fatal(err)
	}
	probed, err := probe.AwaitLedBy(limited(t), int32(node.ID))
	if err != nil {
		t.Fatal(err)
	}
	var leaderless trial.Outcome
	outcome, err := s.load.Strike(limited(t), "SIGSTOP", led, func() (struck, over time.Time, err error) {
		leaderless, err = probe.Strike(limited(t), "SIGSTOP", probed, func() (time.Time, time.Time, error) {
			struck = time.Now()
			return struck, struck, node.Process().Signal(syscall.SIGSTOP)
		})
		return struck, struck, err
	})
	if err != nil {
		t.Fatalf("SIGSTOP of %s (%s): %v", node.Name, s.kinds[node.ID], err)
	}
	if err := node.Process().Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	t.Logf("SIGSTOP of %s (%s): longest time without an acknowledgement %v, for a client that asks elsewhere after 50 ms %v",
		node.Name, s.kinds[node.ID], outcome.Gap.Round(time.Millisecond), leaderless.Gap.Round(time.Millisecond))
}

// stutter pauses servers of all kinds, one or two at a time, for shorter and longer than it takes
// to replace them: clients give up on requests that are carried out later all the same, and
// leaders find out late that they are none. UNDERSTUDY_SEAM_PAUSES=N prolongs it.
func (s *stage) stutter(t *testing.T) {
	t.Helper()
	count := 4
	if text := os.Getenv("UNDERSTUDY_SEAM_PAUSES"); text != "" {
		var err error
		if count, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("%d pauses, seed %d", count, seed)
	servers := slices.Concat(s.Brokers, s.Brokers, s.Coordinators) // brokers twice as often
	for range count {
		paused := []*fleet.Node{servers[random.IntN(len(servers))]}
		if other := servers[random.IntN(len(servers))]; random.IntN(3) == 0 && other != paused[0] {
			paused = append(paused, other)
		}
		for _, node := range paused {
			if err := node.Process().Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Duration(random.IntN(9000)) * time.Millisecond) // the fault itself
		for _, node := range paused {
			if err := node.Process().Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
	}
	s.settle(t)
}

func (s *stage) coordinatorLeader(t *testing.T) *fleet.Node {
	t.Helper()
	for _, node := range s.Coordinators {
		if text, err := fleet.FourLetterWord(node.Addr, "srvr"); err == nil && strings.Contains(text, "Mode: leader") {
			return node
		}
	}
	t.Fatal("no coordinator says that it is the leader")
	return nil
}
