package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"understudy/internal/fleet"
)

// fault is a row of the table.
type fault struct {
	name, title string
	expected    string // for the legend
	scope       kind   // whose files or powers it has to do with; both: any server's
	whyScope    string // why the other half's roles make no sense, if they do not
	needs       need
	warmUp      time.Duration // before the strike, if not warmUp
	hold        time.Duration // between the strike and the mending
	// brokers and coordinators are added to the servers' configuration.
	brokers, coordinators map[string]string
	strike, mend          func(context.Context, *stage) error
	// after runs when all is settled again; then the stage is settled once more.
	after func(context.Context, *stage) error
	// losesRecords and losesZnodes tell why what was acknowledged may be gone when it strikes
	// all at once: records and committed offsets, znodes.
	losesRecords, losesZnodes string
	mayEnd                    bool // servers may end by themselves, and are started again then
	// damages is the kind of file that is damaged, nil if none is: then a server may refuse to
	// start, and is helped.
	damages *fileKind
}

// need is what a fault takes beyond two processes and a signal.
type need int

const (
	namespaces   need = 1 << iota // root, ip and tc
	smallDisk                     // root, to mount a file system of its own
	hook                          // the program built with the tag chaos
	unsyncedHook                  // the same, keeping what is not synced to itself
	clockHook                     // the same, with a clock that can be put forward and back
)

// senseless tells why a cell makes no sense, "" if it does.
func (f *fault) senseless(r *role) string {
	if f.scope == both || r.kind == both || r.kind == f.scope {
		return ""
	}
	return f.whyScope
}

// strikeEach does the same to every victim at once.
func (s *stage) strikeEach(do func(*fleet.Node) error) error { return inParallel(s.victims, do) }

func inParallel(nodes []*fleet.Node, do func(*fleet.Node) error) error {
	errs := make([]error, len(nodes))
	var wait sync.WaitGroup
	for i, node := range nodes {
		wait.Go(func() { errs[i] = do(node) })
	}
	wait.Wait()
	return errors.Join(errs...)
}

func kill(_ context.Context, s *stage) error {
	for _, node := range s.victims {
		if err := node.Process().KillAsync(); err != nil {
			return err
		}
	}
	for _, node := range s.victims {
		node.Kill()
	}
	return nil
}

// start starts the victims. One that refuses is no error of the matrix but a result.
func start(ctx context.Context, s *stage) error {
	return s.strikeEach(func(node *fleet.Node) error {
		if err := node.Start(ctx); err != nil {
			return &refusal{node, err}
		}
		return nil
	})
}

// refusal is a server that does not start.
type refusal struct {
	node *fleet.Node
	err  error
}

func (r *refusal) Error() string { return fmt.Sprintf("%s refuses to start: %v", r.node.Name, r.err) }

func (r *refusal) Unwrap() error { return r.err }

func send(which syscall.Signal) func(context.Context, *stage) error {
	return func(_ context.Context, s *stage) error {
		return s.strikeEach(func(node *fleet.Node) error { return node.Process().Signal(which) })
	}
}

func cut(which direction) func(context.Context, *stage) error {
	return func(ctx context.Context, s *stage) error {
		return s.strikeEach(func(node *fleet.Node) error { return s.network.cut(ctx, node, which) })
	}
}

func mendCut(which direction) func(context.Context, *stage) error {
	return func(ctx context.Context, s *stage) error {
		return s.strikeEach(func(node *fleet.Node) error { return s.network.mend(ctx, node, which) })
	}
}

const (
	killHold = 1500 * time.Millisecond
	// pauseHold is longer than the session timeout of 3 s that brokers ask for, so that the
	// victim is replaced before it comes back.
	pauseHold = 4500 * time.Millisecond
)

var faults = slices.Concat(processFaults, networkFaults, clockFaults, diskFaults, damageFaults())

var processFaults = []*fault{
	{
		name: "kill", title: "kill -9, started again after 1.5 s", scope: both, hold: killHold, strike: kill, mend: start,
		expected: "The closed sockets tell: a broker is replaced within a tenth of a second, a raft leader within a few. When all six go, the outage is theirs plus the start.",
	},
	{
		name: "pause", title: "SIGSTOP for 4.5 s, then SIGCONT", scope: both, hold: pauseHold, strike: send(syscall.SIGSTOP), mend: send(syscall.SIGCONT),
		expected: "Nothing but silence tells of it: the session timeout (3 s) is the outage. What comes back acknowledges nothing in its old role.",
	},
}

var networkFaults = []*fault{
	{
		name: "cut", title: "cut off from everybody for 4.5 s", scope: both, needs: namespaces, hold: pauseHold, strike: cut(wholly), mend: mendCut(wholly),
		expected: "As SIGSTOP, but the victim goes on thinking: it must stop acknowledging by itself when it can no longer tell that its session lives.",
	},
	{
		name: "cut-out", title: "one-way cut: it hears, nobody hears it, 4.5 s", scope: both, needs: namespaces, hold: pauseHold, strike: cut(outbound), mend: mendCut(outbound),
		expected: "As cut off. Requests reach the victim, its answers do not leave: what it did for them must not be done again for the repeated request.",
	},
	{
		name: "cut-in", title: "one-way cut: it is heard, it hears nobody, 4.5 s", scope: both, needs: namespaces, hold: pauseHold, strike: cut(inbound), mend: mendCut(inbound),
		expected: "As cut off. A victim that is heard but hears nothing must not keep its role by talking.",
	},
}
