package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const introduction = `# Reliability: the fault matrix

This file is written by ` + "`go run ./bench/chaos`" + `; do not edit it. CONTRIBUTING.md says how to run parts of it.

Each cell is a fresh cluster of three coordinators and three brokers, each a process, with default settings but where the row says otherwise.
Topics have three replicas and min.insync.replicas 2. Against it run, from before the fault until all is well again:

- a producer with acks=all and idempotence and a consumer group that commits offsets (franz-go), whose every record is entered in a ledger;
- a prober that sends one record at a time, waits 50 ms and asks the next broker: the first number of a cell is the longest time in which it got no acknowledgement;
- a client that commits ever greater offsets for a group, waits 150 ms and asks the next broker: the second number, the same for commits;
- three writers that create znodes, each with a session of its own: the third number, the longest time in which none of them succeeded.

The times are in seconds and cover the fault, its mending and the return of the victim, until every replica is in sync. They are of one run on a machine that does other things, too;
docs/performance.md has measurements. The victim is the server that has the role at that moment, as asked from the cluster itself; partition leader, follower,
controller and group coordinator are different brokers. “All at once” is all six servers, or all three that have such a file.

Afterwards everything is read back: each acknowledged record (by a new client, from the first offset on, without holes), the committed offset, each acknowledged znode from each coordinator by itself.
The servers are stopped, and the brokers' logs compared byte by byte.
` + "`ok`" + ` means: nothing acknowledged was lost, doubled, out of order or changed, no committed offset moved back, all replicas and all coordinators are alike, and everybody came back without help.
` + "`ok, restarted`: a server ended by itself, as it should, and was started again. `ok, helped`: a server refused to start and an operator did what it said. `refuses to start`: too many refused for the others to have the data, and they serve nothing. " +
	"`loses`: more was taken away than any rule can make up for; the story below says how much is gone, and who said so." + `
`

// document is the whole page.
func (m *matrix) document() string {
	var text strings.Builder
	text.WriteString(introduction)
	m.writeRun(&text)
	m.writeTable(&text)
	m.writeLegend(&text)
	m.writeFindings(&text)
	m.writeSenseless(&text)
	return text.String()
}

func (m *matrix) writeRun(text *strings.Builder) {
	var ran, violated, skipped, records, commits, writes int
	for _, r := range m.results {
		switch {
		case r.fault.senseless(r.role) != "":
			continue
		case r.skipped != "":
			skipped++
			continue
		}
		ran++
		if len(r.violations) > 0 {
			violated++
		}
		records, commits, writes = records+r.account.Acknowledged, commits+r.commits, writes+r.writes
	}
	fmt.Fprintf(text, "\n## The run\n\n%s, %v; %s.\n\n", m.began.UTC().Format("2006-01-02 15:04 UTC"), m.took.Round(time.Second), surroundings())
	fmt.Fprintf(text, "%d cells ran, %d with a violation, %d skipped; %d records, %d offset commits and %d znodes acknowledged and accounted for. Seed %d (`go run ./bench/chaos -seed %d` damages the same places; timing is the machine's).\n",
		ran, violated, skipped, records, commits, writes, m.seed, m.seed)
}

// result finds a cell's result, nil if it was not chosen.
func (m *matrix) result(f *fault, r *role) *result {
	for _, result := range m.results {
		if result.fault == f && result.role == r {
			return result
		}
	}
	return nil
}

// rows and columns are those of which any cell was chosen.
func (m *matrix) rows() (rows []*fault) {
	for _, r := range m.results {
		if !slices.Contains(rows, r.fault) {
			rows = append(rows, r.fault)
		}
	}
	return rows
}

func (m *matrix) columns() (columns []*role) {
	for _, r := range roles {
		if slices.ContainsFunc(m.results, func(result *result) bool { return result.role == r }) {
			columns = append(columns, r)
		}
	}
	return columns
}

func (m *matrix) writeTable(text *strings.Builder) {
	text.WriteString("\n" + matrixHeading + "\n\nLongest time without an acknowledged record / commit / znode, in seconds; – makes no sense (see below).\n\n| fault |")
	columns := m.columns()
	for _, r := range columns {
		fmt.Fprintf(text, " %s |", r.title)
	}
	text.WriteString("\n| --- |" + strings.Repeat(" --- |", len(columns)) + "\n")
	for _, f := range m.rows() {
		text.WriteString(m.tableRow(f, columns) + "\n")
	}
}

const (
	matrixHeading    = "## The matrix"
	senselessHeading = "## Cells that make no sense"
)

func (m *matrix) tableRow(f *fault, columns []*role) string {
	row := "| " + f.title + " |"
	for _, r := range columns {
		row += " " + m.result(f, r).short() + " |"
	}
	return row
}

// short is a cell's text in the table.
func (r *result) short() string {
	switch {
	case r == nil:
		return "not run"
	case r.fault.senseless(r.role) != "":
		return "–"
	case r.skipped != "":
		return "skipped"
	}
	word := "ok"
	switch {
	case len(r.violations) > 0:
		word = "**violation**"
	case len(r.refused) > 0 && !r.helped:
		return "refuses to start"
	case r.excused != "":
		word = "loses"
	case r.helped:
		word = "ok, helped"
	case r.restarted:
		word = "ok, restarted"
	}
	if !r.measured {
		return word
	}
	return fmt.Sprintf("%s %s / %s / %s", word, brief(r.produce), brief(r.commit), brief(r.write))
}

func brief(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%.2f", d.Seconds())
	}
	return fmt.Sprintf("%.1f", d.Seconds())
}

func (m *matrix) writeLegend(text *strings.Builder) {
	text.WriteString("\n## What is done in each row, and what is expected\n\n| row (`-faults`) | what is done | expected | program |\n| --- | --- | --- | --- |\n")
	for _, f := range m.rows() {
		program := "as shipped"
		if f.needs&(hook|unsyncedHook|clockHook) != 0 {
			program = "built with the tag `chaos`"
		}
		fmt.Fprintf(text, "| `%s` | %s | %s | %s |\n", f.name, f.title, f.expected, program)
	}
}

// writeFindings tells of every cell that has more to say than numbers.
func (m *matrix) writeFindings(text *strings.Builder) {
	text.WriteString("\n## What happened, cell by cell\n\nOnly cells with more to say than their numbers. Quoted lines are the servers' own.\n")
	for _, f := range m.rows() {
		text.WriteString(m.storyOf(f))
	}
}

// storyOf is the section of a row, "" if there is nothing to tell.
func (m *matrix) storyOf(f *fault) string {
	var lines []string
	for _, r := range m.results {
		if r.fault == f {
			lines = append(lines, r.story()...)
		}
	}
	if len(lines) == 0 {
		return ""
	}
	return fmt.Sprintf("\n### %s\n\n%s\n", f.title, strings.Join(lines, "\n"))
}

func (r *result) story() (lines []string) {
	add := func(format string, args ...any) {
		lines = append(lines, fmt.Sprintf("  - "+format, args...))
	}
	for _, violation := range r.violations {
		add("**violation**: %s", violation)
	}
	if r.excused != "" {
		add("**loses**: %s", strings.TrimSpace(r.excused))
	}
	for _, note := range r.notes {
		add("%s", note)
	}
	for _, refusal := range r.refused {
		add("refuses to start: `%s`", refusal)
	}
	for _, said := range r.said {
		add("said: `%s`", said)
	}
	if r.skipped != "" {
		add("skipped: %s", r.skipped)
	}
	if len(lines) == 0 {
		return nil
	}
	return append([]string{fmt.Sprintf("- **%s** (%s)", r.role.title, r.evidence)}, lines...)
}

func (m *matrix) writeSenseless(text *strings.Builder) {
	text.WriteString("\n" + senselessHeading + "\n\n")
	for _, f := range m.rows() {
		var titles []string
		for _, r := range m.columns() {
			if f.senseless(r) != "" {
				titles = append(titles, r.title)
			}
		}
		if len(titles) > 0 {
			fmt.Fprintf(text, "- %s × %s: %s\n", f.title, strings.Join(titles, ", "), f.whyScope)
		}
	}
}
