//go:build mutation

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"understudy/sim/mutant"
)

// A mutation is a bug planted into a copy of a source file; the build puts the copies in the
// files' places (go build -overlay), so that the tree itself stays as it is and production
// code has no hooks. All are built into one program, which does one of them when the
// environment says so. One whose text is no longer found fails, and has to be brought up to
// date.
type mutation struct {
	name    string
	file    string // in the module
	edits   []edit
	caught  []string // by one of these invariants; nil: by none, because is why
	because string
	seeds   int // at most; 0: 1,000
}

// edit replaces a text that is in the file once: an expression, or whole statements (also in
// the middle of a function).
type edit struct {
	old, new string
	kind     editKind
	typ      string // of a value whose making has effects
}

type editKind int

const (
	condition editKind = iota // a boolean expression
	value                     // another expression without effects
	statement
)

func when(old, new string) []edit { return []edit{{old: old, new: new, kind: condition}} }
func expr(old, new string) []edit { return []edit{{old: old, new: new, kind: value}} }
func stmt(old, new string) []edit { return []edit{{old: old, new: new, kind: statement}} }

func call(typ, old, new string) []edit { return []edit{{old: old, new: new, kind: value, typ: typ}} }

const (
	inPartition   = "internal/streaming/partition/"
	inReplication = "internal/streaming/replication/"
	inLog         = "internal/streaming/commitlog/"
	inController  = "internal/streaming/controller/"
	inGroup       = "internal/streaming/group/"
)

var failureLine = regexp.MustCompile(`(?m)^seed (\d+) commit \S+: ([a-z-]+): (.*)$`)

// patience is several times what a thousand seeds take.
const patience = 6 * time.Minute

// TestMutations plants each bug and has it caught within 1,000 seeds.
func TestMutations(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	program := buildMutants(t, root)
	from := uint64(1) // the same seeds each time, unless others are asked for
	if text := os.Getenv("SIM_MUTATION_FROM"); text != "" {
		if from, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	for i, m := range mutations {
		t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) {
			if m.caught == nil {
				t.Skip(m.because)
			}
			began := time.Now()
			bounded, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			command := exec.CommandContext(bounded, program, "-world", "streaming", "-seeds", "1000", "-from", strconv.FormatUint(from, 10))
			command.Env = append(os.Environ(), "SIM_MUTATION="+strconv.Itoa(i), "GOGC=400") // there is memory, and little time
			out, err := command.Output()
			if bounded.Err() != nil {
				t.Fatalf("not caught in %v from seed %d: %s", patience, from, m.because)
			}
			if err == nil {
				t.Fatalf("not caught within 1,000 seeds from %d: %s", from, m.because)
			}
			found := failureLine.FindStringSubmatch(string(out))
			if found == nil {
				t.Fatalf("unexpected output: %v\n%s", err, out)
			}
			seed, _ := strconv.ParseUint(found[1], 10, 64)
			if !slices.Contains(m.caught, found[2]) {
				t.Errorf("caught by %s instead of one of %v: %s", found[2], m.caught, found[3])
			}
			t.Logf("caught by %s at the %d. seed, %v: %s", found[2], seed-from+1, time.Since(began).Round(time.Millisecond), found[3])
		})
	}
}

// plannedEdit is a text with all that is to take its place in one mutation or another.
type plannedEdit struct {
	edit
	at     int
	places []placedEdit
}

type placedEdit struct {
	mutation int
	new      string
}

// buildMutants compiles the simulator with all bugs in it.
func buildMutants(t *testing.T, root string) (program string) {
	t.Helper()
	planned := map[string][]*plannedEdit{}
	for i, m := range mutations {
		for _, e := range m.edits {
			file := m.file
			at := slices.IndexFunc(planned[file], func(p *plannedEdit) bool { return p.old == e.old })
			if at < 0 {
				planned[file] = append(planned[file], &plannedEdit{edit: e})
				at = len(planned[file]) - 1
			}
			p := planned[file][at]
			if p.kind != e.kind {
				t.Fatalf("%s: %q is edited in two ways", m.name, e.old)
			}
			p.places = append(p.places, placedEdit{i, e.new})
		}
	}
	texts := map[string]string{}
	for file, edits := range planned {
		source := mutant.Source(t, root, file)
		texts[file] = mutated(t, file, source, edits)
		texts[path.Join(path.Dir(file), "planted.go")] = plantedSource(packageOf(source))
	}
	return mutant.Compile(t, root, "./sim", texts, "build")
}

func packageOf(source string) string {
	_, after, _ := strings.Cut("\n"+source, "\npackage ")
	name, _, _ := strings.Cut(after, "\n")
	return name
}

// plantedSource is a file beside the mutated ones.
func plantedSource(name string) string {
	return "package " + name + `

import "os"

var plantedBug = os.Getenv("SIM_MUTATION")

func planted(bug string) bool { return plantedBug == bug }

func plantedOr[T any](bug string, is, else_ T) T {
	if planted(bug) {
		return is
	}
	return else_
}
`
}

// mutated puts all edits into a file's text.
func mutated(t *testing.T, file, text string, edits []*plannedEdit) string {
	t.Helper()
	for _, e := range edits {
		if n := strings.Count(text, e.old); n != 1 {
			t.Fatalf("%s has the text %d times, which the mutation %q replaces: bring the mutation up to date\n%s",
				file, n, mutations[e.places[0].mutation].name, e.old)
		}
		e.at = strings.Index(text, e.old)
	}
	slices.SortFunc(edits, func(a, b *plannedEdit) int { return b.at - a.at })
	end := len(text) + 1
	for _, e := range edits {
		if e.at+len(e.old) > end {
			t.Fatalf("%s: the edit of %q overlaps another one", file, e.old)
		}
		end = e.at
		text = text[:e.at] + e.render() + text[e.at+len(e.old):]
	}
	return text
}

// render is the text with its alternatives.
func (e *plannedEdit) render() string {
	out := e.old
	for _, p := range e.places {
		switch {
		case e.typ != "":
			out = fmt.Sprintf("func() %s {\nif planted(\"%d\") {\nreturn %s\n}\nreturn %s\n}()", e.typ, p.mutation, p.new, out)
		case e.kind == condition:
			out = fmt.Sprintf("(planted(\"%d\") && (%s) || !planted(\"%d\") && (%s))", p.mutation, p.new, p.mutation, out)
		case e.kind == value:
			out = fmt.Sprintf("plantedOr(\"%d\", %s, %s)", p.mutation, p.new, out)
		default:
			out = fmt.Sprintf("if planted(\"%d\") {\n%s\n} else {\n%s\n}\n", p.mutation, p.new, out)
		}
	}
	return out
}
