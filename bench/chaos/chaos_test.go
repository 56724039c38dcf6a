package main

import (
	"strings"
	"testing"
	"time"
)

// A few cells that need no privileges, so that the harness stays alive; the whole matrix is
// go run ./bench/chaos.
func TestSomeCells(t *testing.T) {
	cells, err := choose([]string{"kill", "pause", "flip-log-down"}, []string{"follower", "group-coordinator", "raft-leader"})
	if err != nil {
		t.Fatal(err)
	}
	wanted := map[string]bool{"kill/group-coordinator": true, "pause/raft-leader": true, "flip-log-down/follower": true, "flip-log-down/raft-leader": true}
	var some []cell
	for _, c := range cells {
		if wanted[c.fault.name+"/"+c.role.name] {
			some = append(some, c)
		}
	}
	m := &matrix{seed: uint64(time.Now().UnixNano()), keep: t.TempDir(), began: time.Now()}
	if _, err := m.run(t.Context(), some); err != nil {
		t.Fatal(err)
	}
	for _, r := range m.results {
		if len(r.violations) > 0 || r.fault.senseless(r.role) == "" && (r.account.Acknowledged == 0 || r.commits == 0 || r.writes == 0) {
			t.Errorf("seed %d: %s %v", m.seed, r.line(), r.violations)
		}
	}
	page := m.document()
	for _, text := range []string{"| kill -9", "coordinators have no partition logs", "Seed "} {
		if !strings.Contains(page, text) {
			t.Errorf("the page does not have %q:\n%s", text, page)
		}
	}
}

func TestMergedInto(t *testing.T) {
	page := func(rows []*fault, evidence string) *matrix {
		m := &matrix{}
		for _, f := range rows {
			for _, r := range roles {
				m.results = append(m.results, &result{cell: cell{f, r}, evidence: evidence, notes: []string{"noted " + evidence}})
			}
		}
		return m
	}
	first := page(processFaults, "before")
	again := page(processFaults[:1], "again")
	merged, err := again.mergedInto(first.document(), "Because.")
	if err != nil {
		t.Fatal(err)
	}
	if before, after := strings.Count(merged, "noted before"), strings.Count(merged, "noted again"); before != len(roles)*(len(processFaults)-1) || after != len(roles) {
		t.Errorf("%d stories of before, %d of again:\n%s", before, after, merged)
	}
	if !strings.Contains(merged, "Run again since, and replaced below: `"+processFaults[0].name+"`") {
		t.Errorf("it does not say what was run again:\n%s", merged)
	}
	if _, err := page(clockFaults, "").mergedInto(first.document(), ""); err == nil {
		t.Error("a row that is not in the page was put there")
	}
}

func TestChoose(t *testing.T) {
	all, err := choose(nil, nil)
	if err != nil || len(all) != len(faults)*len(roles) {
		t.Errorf("%d cells of %d rows and %d columns: %v", len(all), len(faults), len(roles), err)
	}
	names := map[string]bool{}
	for _, f := range faults {
		if names[f.name] || f.expected == "" || f.strike == nil {
			t.Errorf("row %q is there twice, or not whole", f.name)
		}
		names[f.name] = true
		if f.scope != both && f.whyScope == "" {
			t.Errorf("row %q does not say why some cells make no sense", f.name)
		}
	}
	if _, err := choose([]string{"kill", "nonsense"}, nil); err == nil {
		t.Error("an unknown row was accepted")
	}
}

func TestGap(t *testing.T) {
	var g gap
	before := time.Now()
	g.success()
	g.begin()
	if !g.since(before) || g.since(time.Now().Add(time.Minute)) {
		t.Error("since tells wrongly")
	}
	g.last = g.last.Add(-time.Hour)
	if got := g.end(); got < time.Hour {
		t.Errorf("a gap that lasts an hour ends as %v", got)
	}
}
