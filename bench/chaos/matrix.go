package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"understudy/internal/fleet"
	"understudy/internal/trial"
)

// matrix runs cells and keeps their results.
type matrix struct {
	seed    uint64
	keep    string
	began   time.Time
	took    time.Duration
	dir     string
	plain   string // the program
	hooked  string // the same with the tag chaos; "" if no cell needs it
	noClock error  // why the hooked program's clock cannot jump
	network *network
	results []*result
}

// result of a cell.
type result struct {
	cell
	skipped    string // why the cell was not run
	evidence   string // how the role was seen
	took       time.Duration
	measured   bool
	produce    time.Duration // longest time without an acknowledgement of the probe
	commit     time.Duration // … of an offset commit
	write      time.Duration // … of a znode
	account    trial.Account
	commits    int
	writes     int
	refused    []string // servers that refused to start, with what they said
	said       []string // what the damaged servers said of the damage
	excused    string   // why what was lost is no violation, and how much it was
	helped     bool     // a server had to be given an empty directory
	restarted  bool     // a server ended by itself and had to be started
	notes      []string
	violations []string
}

func (r *result) violation(format string, args ...any) {
	r.violations = append(r.violations, fmt.Sprintf(format, args...))
}

// run runs the cells and returns how many have a violation. An error is one of the harness or
// of its surroundings.
func (m *matrix) run(ctx context.Context, cells []cell) (failed int, err error) {
	binary, dir, remove, err := fleet.Build(ctx)
	if err != nil {
		return 0, err
	}
	defer remove()
	m.plain, m.dir = binary, dir
	if m.keep != "" {
		m.dir = m.keep
	}
	if missing := m.missing(namespaces); missing == "" && slices.ContainsFunc(cells, func(c cell) bool { return c.fault.needs&namespaces != 0 }) {
		if m.network, err = openNetwork(ctx); err != nil {
			return 0, err
		}
		defer m.network.close()
	}
	if slices.ContainsFunc(cells, func(c cell) bool { return c.fault.needs&(hook|unsyncedHook|clockHook) != 0 }) {
		var remove func()
		if m.hooked, remove, m.noClock = buildHooked(ctx, dir); m.hooked == "" {
			return 0, m.noClock
		}
		defer remove()
	}
	fmt.Printf("%s\nseed %d\n", surroundings(), m.seed)
	for _, c := range cells {
		if ctx.Err() != nil {
			return failed, ctx.Err()
		}
		r := m.cell(ctx, c)
		m.results = append(m.results, r)
		fmt.Println(r.line())
		for _, violation := range r.violations {
			fmt.Println("    VIOLATION:", violation)
		}
		if len(r.violations) > 0 {
			failed++
		}
	}
	m.took = time.Since(m.began)
	return failed, nil
}

// missing says what this machine lacks of what a fault needs, "" if nothing.
func (m *matrix) missing(needs need) string {
	if needs&(namespaces|smallDisk) != 0 {
		if why := privileged(); why != "" {
			return why
		}
	}
	if needs&clockHook != 0 && m.noClock != nil {
		return m.noClock.Error()
	}
	return ""
}

// cell runs one cell on a cluster of its own.
func (m *matrix) cell(ctx context.Context, c cell) *result {
	r := &result{cell: c}
	began := time.Now()
	defer func() { r.took = time.Since(began) }()
	if c.fault.senseless(c.role) != "" {
		return r
	}
	if r.skipped = m.missing(c.fault.needs); r.skipped != "" {
		return r
	}
	dir := filepath.Join(m.dir, c.fault.name+"-"+c.role.name)
	s := &stage{dir: dir, network: m.network, random: rand.New(rand.NewPCG(m.seed, hash(c.fault.name+"/"+c.role.name)))}
	defer func() {
		s.close()
		if m.keep == "" && len(r.violations) == 0 {
			os.RemoveAll(dir)
		}
	}()
	if err := m.setUp(ctx, s, c); err != nil {
		r.violation("the stage could not be set: %v", err)
		return r
	}
	if err := m.act(ctx, s, r); err != nil {
		r.violation("%v", err)
	}
	for _, line := range s.quotes() {
		if !slices.ContainsFunc(r.refused, func(refusal string) bool { return strings.Contains(refusal, line) }) {
			r.said = append(r.said, line)
		}
	}
	r.notes = append(r.notes, s.notes...)
	if s.revived > 0 && !c.fault.mayEnd {
		r.violation("%d servers ended by themselves", s.revived)
	}
	r.restarted = s.revived > 0
	for _, texts := range [][]string{r.refused, r.said, r.notes, r.violations} {
		for i := range texts {
			texts[i] = strings.ReplaceAll(texts[i], s.dir+"/", "…/")
		}
	}
	return r
}

func hash(text string) (sum uint64) {
	for _, b := range []byte(text) {
		sum = sum*31 + uint64(b)
	}
	return sum
}

func (m *matrix) setUp(ctx context.Context, s *stage, c cell) error {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	if err := s.dataDirs(ctx, c.fault); err != nil {
		return err
	}
	options := fleet.Options{
		StartTimeout: 15 * time.Second,
		Dir:          s.dir, BrokerProperties: c.fault.brokers, CoordinatorProperties: c.fault.coordinators,
		CoordinatorProgram: m.program("coordinator", s, c.fault), BrokerProgram: m.program("broker", s, c.fault),
	}
	if c.fault.needs&namespaces != 0 {
		options.CoordinatorHost = func(id int) string { return s.network.host("coordinator", id) }
		options.BrokerHost = func(id int) string { return s.network.host("broker", id) }
	}
	if err := s.open(ctx, options, c.role.name == "group-coordinator"); err != nil {
		return err
	}
	if err := sleep(ctx, max(warmUp, c.fault.warmUp)); err != nil || c.fault.damages == nil {
		return err
	}
	return s.awaitFiles(ctx, *c.fault.damages)
}

// warmUp is how long the load runs before the fault: long enough for some segments, indexes,
// producer snapshots and snapshots of the coordinators.
const warmUp = 1500 * time.Millisecond

func sleep(ctx context.Context, length time.Duration) error {
	select {
	case <-time.After(length):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// program says how a server is run for a fault.
func (m *matrix) program(role string, s *stage, f *fault) func(id int) *fleet.Program {
	return func(id int) *fleet.Program {
		binary := m.plain
		if f.needs&(hook|unsyncedHook|clockHook) != 0 {
			binary = m.hooked
		}
		program := *fleet.Understudy(binary, "")
		inner := program.Command
		program.Command = func(role, config string) []string {
			command := inner(role, config)
			if environment := s.environment(role, id, f); len(environment) > 0 {
				command = slices.Concat([]string{"env"}, environment, command)
			}
			if f.needs&namespaces != 0 {
				command = s.network.inside(role, id, command)
			}
			return command
		}
		return &program
	}
}

// act strikes, mends, and takes the account.
func (m *matrix) act(ctx context.Context, s *stage, r *result) error {
	var err error
	if r.role.kind == both {
		s.victims, r.evidence = everybody(s, r.fault.scope)
	} else if s.victims, r.evidence, err = r.role.find(ctx, s); err != nil {
		return fmt.Errorf("nobody has the role: %w", err)
	}
	s.markLogs()
	s.commits.gap.begin()
	s.writers.gap.begin()
	partitions := make([]int32, probed)
	for i := range partitions {
		partitions[i] = int32(i)
	}
	var ended error
	outcome, err := s.probe.Strike(ctx, r.fault.name, partitions, func() (time.Time, time.Time, error) {
		struck := time.Now()
		ended = m.episode(ctx, s, r)
		return struck, time.Now(), ended
	})
	r.produce, r.commit, r.write, r.measured = outcome.Gap, s.commits.gap.end(), s.writers.gap.end(), true
	if errors.Is(ended, errAllRefuse) {
		return nil // nothing can be read, and nothing wrong is
	}
	if err != nil {
		return err
	}
	return m.account(ctx, s, r)
}

// errAllRefuse ends a cell in which too many servers refuse to start for the others to have
// the data.
var errAllRefuse = errors.New("too many servers refuse to start")

// episode is the fault from the strike until all is well again.
func (m *matrix) episode(ctx context.Context, s *stage, r *result) error {
	if err := r.fault.strike(ctx, s); err != nil {
		return fmt.Errorf("strike: %w", err)
	}
	if err := sleep(ctx, r.fault.hold); err != nil {
		return err
	}
	if r.fault.mend != nil {
		if err := r.fault.mend(ctx, s); err != nil {
			if err = m.refused(ctx, s, r, err); err != nil {
				return fmt.Errorf("mend: %w", err)
			}
		}
	}
	if err := s.settled(ctx, true); err != nil {
		return err
	}
	if r.fault.after == nil {
		return nil
	}
	if err := r.fault.after(ctx, s); err != nil {
		return err
	}
	return s.settled(ctx, true)
}

// refused deals with servers that do not start: with damaged files that is a result, and the
// operator does what the server says, as long as enough others have the data.
func (m *matrix) refused(ctx context.Context, s *stage, r *result, err error) error {
	var one *refusal
	if r.fault.damages == nil || !errors.As(err, &one) {
		return err
	}
	var refusing []*fleet.Node
	coordinators := 0
	for _, node := range s.victims {
		if node.Process() != nil {
			continue
		}
		refusing = append(refusing, node)
		if strings.HasPrefix(node.Name, "coordinator") {
			coordinators++
		}
		r.refused = append(r.refused, node.Name+": "+s.reason(node))
	}
	brokers := len(refusing) - coordinators
	if coordinators > 1 || brokers == len(s.fleet.Brokers) {
		return errAllRefuse
	}
	r.helped = true
	for _, node := range refusing {
		if strings.Contains(s.reason(node), removeIt) {
			s.note("%s: the damaged file was removed, as it asks", node.Name)
		} else {
			s.note("%s was given an empty directory", node.Name)
		}
	}
	return inParallel(refusing, func(node *fleet.Node) error { return s.remedy(ctx, node) })
}

// account ends the load and reads everything back.
func (m *matrix) account(ctx context.Context, s *stage, r *result) error {
	s.probe.Close()
	s.probe = nil
	all := r.role.kind == both
	m.accountRecords(ctx, s, r, all && r.fault.losesRecords != "")
	m.accountCommits(ctx, s, r, all && r.fault.losesRecords != "")
	excusable := all && r.fault.losesZnodes != ""
	bounded, cancel := context.WithTimeout(ctx, finishBound)
	defer cancel()
	writes, findings, err := s.writers.finish(bounded, s.fleet.Coordinators)
	if err != nil && excusable {
		findings = append(findings, err.Error())
	} else if err != nil {
		r.violation("%v", err)
	}
	r.writes = writes
	if excusable && len(findings) > 0 {
		r.excused += fmt.Sprintf(" %s: %s.", r.fault.losesZnodes, strings.Join(findings[:min(2, len(findings))], "; "))
	} else {
		r.violations = append(r.violations, findings...)
	}
	return m.compareReplicas(ctx, s, r)
}

func (m *matrix) accountRecords(ctx context.Context, s *stage, r *result, excusable bool) {
	bound := finishBound
	if excusable {
		bound = 5 * time.Second // what is gone is not waited for
	}
	finishing, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	seen, err := s.load.Finish(finishing)
	if err != nil {
		r.violation("the producer: %v", err)
	}
	if !seen.Clean() && !excusable { // what was read before it was gone may stand elsewhere now
		r.violation("read while it ran: %s", tell(seen))
	}
	s.load.Ledger().Forget()
	reading, cancel := context.WithTimeout(ctx, finishBound)
	defer cancel()
	if _, err := s.load.ReadBack(reading); err != nil {
		r.violation("%v", err)
	}
	r.account = s.load.Ledger().Account()
	switch only := r.account; {
	case only.Clean():
	case excusable && only.Doubled+only.Reordered+only.Corrupted == 0:
		r.excused = fmt.Sprintf("%s: %d of %d acknowledged records are gone.", r.fault.losesRecords, only.Lost, only.Acknowledged)
	default:
		r.violation("read back: %s", tell(only))
	}
}

func tell(account trial.Account) string {
	return fmt.Sprintf("%d lost, %d doubled, %d out of order, %d with other bytes or elsewhere; for example %s", account.Lost, account.Doubled, account.Reordered, account.Corrupted,
		strings.Join(account.Examples[:min(3, len(account.Examples))], "; "))
}

func (m *matrix) accountCommits(ctx context.Context, s *stage, r *result, excusable bool) {
	ctx, cancel := context.WithTimeout(ctx, finishBound)
	defer cancel()
	if err := s.commits.finish(ctx); err != nil {
		r.violation("%v", err)
	}
	r.commits = s.commits.count
	if findings := s.commits.findings; excusable && len(findings) > 0 {
		r.excused += " Committed offsets: " + findings[0] + "."
	} else {
		r.violations = append(r.violations, findings...)
	}
}

// compareReplicas stops the servers and compares their files.
func (m *matrix) compareReplicas(ctx context.Context, s *stage, r *result) error {
	bounded, cancel := context.WithTimeout(ctx, finishBound)
	defer cancel()
	if r.fault.damages != nil {
		awaitAlike(bounded, s.fleet.Brokers)
	}
	if err := s.fleet.Stop(bounded); err != nil {
		return err
	}
	differences, err := compareLogs(s.fleet.Brokers, loadTopic, loadPartitions)
	r.violations = append(r.violations, differences...)
	return err
}
