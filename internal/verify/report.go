package verify

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Violation is one thing that must not be.
type Violation struct {
	Rule       string   `json:"rule"`       // which rule, in the words of docs/verify.md
	Where      string   `json:"where"`      // the znode, session or partition
	What       string   `json:"what"`       // one sentence
	Operations []string `json:"operations"` // those that show it: who, when, what
}

// Fact is a line of the report beside the violations.
type Fact struct {
	Name  string `json:"name"`
	Value int    `json:"value"`
}

// namedPerRule bounds how many violations of one rule are spelled out; the rest is counted.
// A lost tail is thousands of lost records, and the first few say as much.
const namedPerRule = 10

// Report is the outcome of a check. Its methods are not for concurrent use.
type Report struct {
	Facts      []Fact         `json:"facts"`
	Counts     map[string]int `json:"counts"`     // violations by rule
	Violations []Violation    `json:"violations"` // the first few of each rule
	// Undecided says what could not be judged, and why: it is neither right nor wrong.
	Undecided []string `json:"undecided,omitempty"`
}

// Add enters a violation.
func (r *Report) Add(rule, where, what string, operations ...string) {
	if r.Counts == nil {
		r.Counts = map[string]int{}
	}
	r.Counts[rule]++
	if r.Counts[rule] <= namedPerRule {
		r.Violations = append(r.Violations, Violation{Rule: rule, Where: where, What: what, Operations: operations})
	}
}

// Fact enters a count.
func (r *Report) Fact(name string, value int) { r.Facts = append(r.Facts, Fact{name, value}) }

// Undecidable enters what could not be judged.
func (r *Report) Undecidable(format string, args ...any) {
	r.Undecided = append(r.Undecided, fmt.Sprintf(format, args...))
}

// Clean reports whether nothing wrong was found.
func (r *Report) Clean() bool { return len(r.Counts) == 0 }

// Rules are the violated rules, sorted.
func (r *Report) Rules() []string {
	rules := make([]string, 0, len(r.Counts))
	for rule := range r.Counts {
		rules = append(rules, rule)
	}
	slices.Sort(rules)
	return rules
}

// Print writes the report for a person.
func (r *Report) Print(w io.Writer) {
	for _, fact := range r.Facts {
		fmt.Fprintf(w, "%10d  %s\n", fact.Value, fact.Name)
	}
	for _, text := range r.Undecided {
		fmt.Fprintf(w, "undecided: %s\n", text)
	}
	for _, rule := range r.Rules() {
		fmt.Fprintf(w, "\n%s: %d\n", rule, r.Counts[rule])
		named := 0
		for _, violation := range r.Violations {
			if violation.Rule != rule {
				continue
			}
			named++
			fmt.Fprintf(w, "  %s: %s\n", violation.Where, violation.What)
			for _, operation := range violation.Operations {
				fmt.Fprintf(w, "      %s\n", operation)
			}
		}
		if rest := r.Counts[rule] - named; rest > 0 {
			fmt.Fprintf(w, "  and %d more\n", rest)
		}
	}
	if r.Clean() {
		fmt.Fprintln(w, "\nno violation found")
	} else {
		fmt.Fprintf(w, "\nVIOLATED: %s\n", strings.Join(r.Rules(), ", "))
	}
}

// Seconds writes a time of the history, or a span of it, for a person.
func Seconds(t int64) string { return fmt.Sprintf("%.6f s", time.Duration(t).Seconds()) }

// Span writes when an operation began and ended; ended 0: it never did.
func Span(began, ended int64) string {
	if ended == 0 {
		return fmt.Sprintf("%s, never answered", Seconds(began))
	}
	return fmt.Sprintf("%.6f to %s", time.Duration(began).Seconds(), Seconds(ended))
}
