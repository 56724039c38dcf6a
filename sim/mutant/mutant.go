// Package mutant plants bugs into copies of source files and has the simulator catch them. The
// tree itself stays as it is, and production code has no hooks: the build puts the copies in the
// files' places (go build -overlay). All bugs of a list are built into one program, which has
// one of them when the environment says so.
package mutant

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Edit replaces a text, which the file must hold exactly once: an expression, or whole
// statements (also in the middle of a function). Several bugs may replace the same text, but no
// two overlapping ones.
type Edit struct {
	File     string // in the module
	Old, New string
	Kind     Kind
	Type     string // of an Effect
}

// Kind says how both texts are brought into one program.
type Kind int

// The kinds of edits.
const (
	Condition Kind = iota // a boolean expression; only one of the two is evaluated
	Value                 // another expression, without effects: both are evaluated
	Effect                // another expression, of the type Type; only one of the two is evaluated
	Statement             // statements, which declare nothing that is used behind them
	Always                // put in whatever the bug; planted(BUG) in it, or plantedOr(BUG, is, else), looks which it is
)

// variable says which bug the program has: its number in the list.
const variable = "SIM_MUTATION"

// site is a text with all that takes its place in one bug or another.
type site struct {
	Edit
	at     int
	places []place
}

type place struct {
	bug int
	new string
}

// compile builds the simulator with all bugs in it and returns the program's path. An edit whose
// text is no longer found fails the test: it has to be brought up to date.
func compile(t *testing.T, root string, bugs []Bug) (program string) {
	t.Helper()
	sites := map[string][]*site{}
	for i, bug := range bugs {
		for _, e := range bug.Edits {
			at := slices.IndexFunc(sites[e.File], func(s *site) bool { return s.Old == e.Old })
			if at < 0 {
				at = len(sites[e.File])
				sites[e.File] = append(sites[e.File], &site{Edit: e})
			}
			s := sites[e.File][at]
			if s.Kind != e.Kind || s.Kind == Always && len(s.places) > 0 {
				t.Fatalf("%s: %q is edited in two ways", bug.Name, e.Old)
			}
			s.places = append(s.places, place{i, e.New})
		}
	}
	texts := map[string]string{}
	for file, edits := range sites {
		source, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		texts[file] = mutated(t, file, string(source), edits, bugs)
		texts[path.Join(path.Dir(file), "planted.go")] = support(packageOf(string(source)))
	}
	return build(t, root, texts)
}

// mutated puts all edits into a file's text.
func mutated(t *testing.T, file, text string, sites []*site, bugs []Bug) string {
	t.Helper()
	for _, s := range sites {
		if n := strings.Count(text, s.Old); n != 1 {
			t.Fatalf("%s has the text %d times, which the mutation %q replaces: bring the mutation up to date\n%s",
				file, n, bugs[s.places[0].bug].Name, s.Old)
		}
		s.at = strings.Index(text, s.Old)
	}
	slices.SortFunc(sites, func(a, b *site) int { return b.at - a.at })
	end := len(text) + 1
	for _, s := range sites {
		if s.at+len(s.Old) > end {
			t.Fatalf("%s: the edit of %q overlaps another one", file, s.Old)
		}
		end = s.at
		text = text[:s.at] + s.render() + text[s.at+len(s.Old):]
	}
	return text
}

// render is the text with its alternatives.
func (s *site) render() string {
	out := s.Old
	for _, p := range s.places {
		bug := strconv.Quote(strconv.Itoa(p.bug))
		is := "planted(" + bug + ")"
		switch s.Kind {
		case Condition:
			out = fmt.Sprintf("(%s && (%s) || !%s && (%s))", is, p.new, is, out)
		case Value:
			out = fmt.Sprintf("plantedOr(%s, %s, %s)", bug, p.new, out)
		case Effect:
			out = fmt.Sprintf("func() %s {\nif %s {\nreturn %s\n}\nreturn %s\n}()", s.Type, is, p.new, out)
		case Statement:
			out = fmt.Sprintf("if %s {\n%s\n} else {\n%s\n}\n", is, p.new, out)
		case Always:
			out = strings.ReplaceAll(p.new, "BUG", bug)
		}
	}
	return out
}

func packageOf(source string) string {
	_, after, _ := strings.Cut("\n"+source, "\npackage ")
	name, _, _ := strings.Cut(after, "\n")
	return name
}

// support is a file beside the mutated ones.
func support(name string) string {
	return "package " + name + `

import "os"

var plantedBug = os.Getenv("` + variable + `")

func planted(bug string) bool { return plantedBug == bug }

func plantedOr[T any](bug string, is, else_ T) T {
	if planted(bug) {
		return is
	}
	return else_
}
`
}

// build compiles the simulator with files of the module changed to these texts, or added.
func build(t *testing.T, root string, texts map[string]string) (program string) {
	t.Helper()
	dir := t.TempDir()
	replace := map[string]string{}
	for file, text := range texts {
		copied := filepath.Join(dir, fmt.Sprintf("mutant%d.go", len(replace)))
		write(t, copied, []byte(text))
		replace[filepath.Join(root, file)] = copied
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "overlay.json"), overlay)
	program = filepath.Join(dir, "program")
	command := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, "./sim")
	command.Dir = root
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("the mutants do not compile: %v\n%s", err, out)
	}
	return program
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}
