package mutant

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Bug is one that is planted. The name says what is wrong.
type Bug struct {
	Name    string
	Edits   []Edit
	Caught  []string // by one of these invariants; nil: by none, because is why
	Because string   // it is a bug
}

// List is the planted bugs of one simulated world.
type List struct {
	World string
	Root  string // of the module
	Bugs  []Bug
	// Seen is a file that says which seed caught which bug last. That one is tried first;
	// where it does not catch the bug any more, all seeds are run from the first on. So it
	// saves time, and whether a bug is caught does not hang on it.
	Seen string
}

const (
	seeds = 1000 // within which a bug must be caught
	// patience is several times what a thousand seeds take on one processor.
	patience = 10 * time.Minute
	// fromVariable names the first seed, where it is not to be 1 (and no seed is to be known).
	fromVariable = "SIM_MUTATION_FROM"
	// writeVariable has the file of seeds that caught the bugs written anew, if it is set.
	writeVariable = "SIM_MUTATION_WRITE"
)

var failureLine = regexp.MustCompile(`(?m)^seed (\d+) commit \S+: ([a-z-]+): (.*)$`)

// Catch plants each bug and has it caught within 1,000 seeds; several at a time, each in a
// process of its own.
func (l *List) Catch(t *testing.T) {
	c := &catcher{List: l, program: compile(t, l.Root, l.Bugs), from: 1, caught: map[string]catch{}}
	if text := os.Getenv(fromVariable); text != "" {
		from, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", fromVariable, err)
		}
		c.from = from
	} else {
		c.known = readSeen(t, l.Seen)
	}
	if os.Getenv(writeVariable) != "" {
		t.Cleanup(func() { c.writeSeen(t) }) // after the last of them
	}
	for i := range l.Bugs {
		t.Run(strings.ReplaceAll(l.Bugs[i].Name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			c.one(t, i)
		})
	}
}

type catcher struct {
	*List
	program string
	from    uint64
	known   map[string]uint64 // by the bug's name

	mu     sync.Mutex
	caught map[string]catch
}

type catch struct {
	seed            uint64
	invariant, text string
}

// one has a bug caught.
func (c *catcher) one(t *testing.T, i int) {
	bug := &c.Bugs[i]
	if bug.Caught == nil {
		t.Skip(bug.Because)
	}
	began := time.Now()
	found, ok := c.search(t, i)
	if !ok {
		t.Fatalf("not caught within %d seeds from %d: %s", seeds, c.from, bug.Because)
	}
	if !slices.Contains(bug.Caught, found.invariant) {
		t.Errorf("caught by %s instead of one of %v: %s", found.invariant, bug.Caught, found.text)
	}
	t.Logf("caught by %s, seed %d, %v: %s", found.invariant, found.seed, time.Since(began).Round(time.Millisecond), found.text)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.caught[bug.Name] = found
}

func (c *catcher) search(t *testing.T, bug int) (found catch, ok bool) {
	t.Helper()
	if seed := c.known[c.Bugs[bug].Name]; seed >= c.from && seed < c.from+seeds {
		if found, ok := c.run(t, bug, seed, 1); ok {
			return found, true
		}
	}
	return c.run(t, bug, c.from, seeds)
}

// run runs seeds with a bug until one fails.
func (c *catcher) run(t *testing.T, bug int, from uint64, count int) (found catch, ok bool) {
	t.Helper()
	bounded, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	command := exec.CommandContext(bounded, c.program, "-world", c.World, "-workers", "1",
		"-from", strconv.FormatUint(from, 10), "-seeds", strconv.Itoa(count))
	command.Env = append(os.Environ(), variable+"="+strconv.Itoa(bug), "GOGC=400") // there is memory, and little time
	var stderr strings.Builder
	command.Stderr = &stderr
	out, err := command.Output()
	if bounded.Err() != nil {
		t.Fatalf("not caught in %v from seed %d", patience, from)
	}
	if err == nil {
		return catch{}, false
	}
	line := failureLine.FindStringSubmatch(string(out))
	if line == nil {
		t.Fatalf("unexpected output: %v\n%s\n%s", err, out, stderr.String())
	}
	seed, err := strconv.ParseUint(line[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return catch{seed, line[2], line[3]}, true
}

// readSeen reads lines of a seed, an invariant and a bug's name.
func readSeen(t *testing.T, path string) map[string]uint64 {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Logf("no bug's seed is known: %v", err)
	}
	known := map[string]uint64{}
	for line := range strings.Lines(string(data)) {
		number, rest, _ := strings.Cut(line, " ")
		_, name, _ := strings.Cut(rest, " ")
		if seed, err := strconv.ParseUint(number, 10, 64); err == nil {
			known[strings.TrimSpace(name)] = seed
		}
	}
	return known
}

// writeSeen notes the seeds for the next time; bugs that were not run keep theirs.
func (c *catcher) writeSeen(t *testing.T) {
	t.Helper()
	lines := map[string]string{}
	data, err := os.ReadFile(c.Seen)
	if err != nil {
		t.Logf("writing the file of seeds for the first time: %v", err)
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.SplitN(strings.TrimSpace(line), " ", 3); len(fields) == 3 {
			lines[fields[2]] = fields[0] + " " + fields[1]
		}
	}
	for name, found := range c.caught {
		lines[name] = fmt.Sprintf("%d %s", found.seed, found.invariant)
	}
	var out strings.Builder
	for _, name := range slices.SortedFunc(maps.Keys(lines), cmp.Compare) {
		if slices.ContainsFunc(c.Bugs, func(b Bug) bool { return b.Name == name && b.Caught != nil }) {
			fmt.Fprintf(&out, "%s %s\n", lines[name], name)
		}
	}
	if err := os.WriteFile(filepath.Clean(c.Seen), []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
