// Package zookeeper compares the coordinator with Apache ZooKeeper: the same generated steps of several clients go to
// both, and all that the clients see must be the same but for times, the ids of sessions and the order of what has none.
//
// A difference is printed with its seed, after the steps have been cut down to few that still show it. One that is meant
// stands in docs/compatibility.md, and the generator does not ask for it.
package zookeeper

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"understudy/internal/fleet"
	"understudy/interop/foreign"
)

var (
	seedFlag       = flag.Int64("seed", 0, "the only seed to run, instead of a fixed and a fresh one")
	operationsFlag = flag.Int("operations", 0, "operations for each seed")
	seedsFlag      = flag.Int("seeds", 1, "fresh seeds to run after the fixed one")
	minimizeFlag   = flag.Duration("minimize", time.Minute, "how long to look for fewer steps that show a difference")
)

const (
	fixedSeed          = 1
	operations         = 10_000
	operationsEnsemble = 1_000
)

// program is the understudy binary under test.
var program string

func TestMain(m *testing.M) {
	os.Exit(fleet.WhileBuilt(func(binary, _ string) int {
		program = binary
		return m.Run()
	}))
}

// TestSameAnswers compares single servers.
func TestSameAnswers(t *testing.T) { compareSeeds(t, 1, operations) }

// TestSameAnswersOfEnsembles compares ensembles of three, with clients of each member.
func TestSameAnswersOfEnsembles(t *testing.T) { compareSeeds(t, 3, operationsEnsemble) }

func compareSeeds(t *testing.T, members, operations int) {
	apache := foreign.Apache(t)
	if *operationsFlag > 0 {
		operations = *operationsFlag
	}
	seeds := []int64{fixedSeed}
	for i := range *seedsFlag {
		seeds = append(seeds, time.Now().UnixNano()%1_000_000_000*10+int64(i%10))
	}
	if *seedFlag != 0 {
		seeds = []int64{*seedFlag}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			steps := generate(seed, operations, members > 1)
			pair := func() (*pair, error) { return startPair(t, apache, members) }
			report(t, pair, steps)
		})
	}
}

// pair is both servers, fresh.
type pair struct {
	ours, apache *side
	fleets       []*fleet.Fleet
	dir          string
}

func startPair(t *testing.T, apache *fleet.Program, members int) (_ *pair, err error) {
	p := &pair{}
	if p.dir, err = os.MkdirTemp("", "crosscheck-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.stop()
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if p.ours, err = p.start(ctx, "ours", members, nil); err != nil {
		return nil, err
	}
	p.apache, err = p.start(ctx, "apache", members, apache)
	return p, err
}

func (p *pair) start(ctx context.Context, name string, members int, kind *fleet.Program) (*side, error) {
	properties := map[string]string{
		"maxSessionTimeout": fmt.Sprint(longTimeout),
		// Containers would go at a time of each server's own.
		"znode.container.checkIntervalMs": "3600000",
	}
	options := fleet.Options{
		Binary: program, Dir: filepath.Join(p.dir, name), Coordinators: members, Brokers: 1, CoordinatorProperties: properties,
		StartTimeout: time.Minute,
	}
	if kind != nil {
		properties["forceSync"] = "no"
		options.CoordinatorProgram = func(int) *fleet.Program { return kind }
	}
	f, err := fleet.New(options)
	if err != nil {
		return nil, err
	}
	p.fleets = append(p.fleets, f)
	f.Brokers = nil
	if err := f.Start(ctx); err != nil {
		return nil, err
	}
	var addrs []string
	for _, node := range f.Coordinators {
		addrs = append(addrs, node.Addr)
	}
	return newSide(addrs)
}

// stop kills the servers: there is nothing in them to keep.
func (p *pair) stop() {
	for _, s := range []*side{p.ours, p.apache} {
		if s != nil {
			s.close()
		}
	}
	for _, f := range p.fleets {
		f.KillAll()
	}
	os.RemoveAll(p.dir)
}
