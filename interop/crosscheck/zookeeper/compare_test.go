package zookeeper

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// difference is the first step that the two servers answer differently.
type difference struct {
	at           int
	ours, apache []string
}

// compare does the steps on both servers, each step at the same time, up to the first difference.
func compare(t *testing.T, p *pair, steps []step) *difference {
	for i := range steps {
		began := time.Now()
		answer := make(chan []string, 1)
		go func() { answer <- p.apache.perform(&steps[i]) }()
		ours := p.ours.perform(&steps[i])
		apache := <-answer
		if took := time.Since(began); took > patience/2 {
			t.Logf("step %d took %v: %v\nours:\n%s\nApache:\n%s", i, took, &steps[i], strings.Join(ours, "\n"), strings.Join(apache, "\n"))
		}
		if !slices.Equal(ours, apache) {
			return &difference{i, ours, apache}
		}
	}
	return nil
}

// report compares, and on a difference cuts the steps down and fails the test with what is left.
func report(t *testing.T, start func() (*pair, error), steps []step) {
	t.Helper()
	d := attempt(t, start, steps)
	if d == nil {
		return
	}
	first, at := d, d.at
	t.Logf("step %d differs; cutting the steps before it down", at)
	steps = cutDown(steps[:at+1], time.Now().Add(*minimizeFlag), func(less []step) bool {
		d := attempt(t, start, less)
		return d != nil && d.at == len(less)-1
	})
	d = attempt(t, start, steps)
	if d == nil {
		t.Fatalf("step %d differed, and does no longer when it is repeated: %v\n%s", at, &steps[len(steps)-1], first.text())
	}
	var b strings.Builder
	for i := range steps {
		fmt.Fprintf(&b, "  %d: %v\n", i, &steps[i])
	}
	t.Errorf("step %d of the seed differs; it takes these steps:\n%s%s", at, b.String(), d.text())
}

func attempt(t *testing.T, start func() (*pair, error), steps []step) *difference {
	t.Helper()
	p, err := start()
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	return compare(t, p, steps)
}

// text shows the lines around the first one that differs.
func (d *difference) text() string {
	at := 0
	for at < min(len(d.ours), len(d.apache)) && d.ours[at] == d.apache[at] {
		at++
	}
	var b strings.Builder
	show := func(who string, lines []string) {
		fmt.Fprintf(&b, "%s:\n", who)
		for i := max(0, at-8); i < min(len(lines), at+6); i++ {
			mark := " "
			if i == at {
				mark = ">"
			}
			fmt.Fprintf(&b, "  %s %s\n", mark, lines[i])
		}
	}
	show("ours", d.ours)
	show("Apache", d.apache)
	return b.String()
}

// cutDown removes steps as long as the last one still shows the difference: first all but the newest, then ever smaller
// pieces.
func cutDown(steps []step, until time.Time, fails func([]step) bool) []step {
	for keep := 8; keep < len(steps); keep *= 4 {
		if less := steps[len(steps)-keep:]; fails(less) {
			steps = less
			break
		}
	}
	for size := len(steps) / 2; size > 0; size /= 2 {
		for from := 0; from+size < len(steps); {
			if time.Now().After(until) {
				return steps
			}
			less := slices.Concat(steps[:from], steps[from+size:])
			if fails(less) {
				steps = less
			} else {
				from += size
			}
		}
	}
	return steps
}
