package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// mergedInto returns a page of an earlier run with this run's rows in place of its own, and a
// line that says so.
func (m *matrix) mergedInto(page, why string) (string, error) {
	if !slices.Equal(m.columns(), roles) {
		return "", errors.New("rows can only be replaced whole: run them without -roles")
	}
	var names []string
	violated := 0
	for _, f := range m.rows() {
		var err error
		if page, err = m.mergeRow(page, f); err != nil {
			return "", err
		}
		names = append(names, "`"+f.name+"`")
	}
	for _, r := range m.results {
		if len(r.violations) > 0 {
			violated++
		}
	}
	if why != "" {
		why = " " + why
	}
	again := fmt.Sprintf("\nRun again since, and replaced below: %s (%s, seed %d, understudy %s; %d with a violation).%s\n",
		strings.Join(names, ", "), m.began.UTC().Format(time.DateOnly+" 15:04 UTC"), m.seed, revision(), violated, why)
	before, after, ok := strings.Cut(page, "\n"+matrixHeading)
	if !ok {
		return "", errors.New("it is no page of the fault matrix")
	}
	return before + again + "\n" + matrixHeading + after, nil
}

func (m *matrix) mergeRow(page string, f *fault) (string, error) {
	start := strings.Index(page, "\n| "+f.title+" |")
	if start < 0 {
		return "", fmt.Errorf("it has no row %q", f.title)
	}
	end := start + 1 + strings.Index(page[start+1:], "\n")
	page = page[:start+1] + m.tableRow(f, roles) + page[end:]
	heading := "\n### " + f.title + "\n"
	start = strings.Index(page, heading)
	story := m.storyOf(f)
	if start < 0 {
		if story == "" {
			return page, nil
		}
		start = strings.Index(page, "\n"+senselessHeading)
		return page[:start] + story + page[start:], nil
	}
	rest := page[start+len(heading):]
	next := strings.Index(rest, "\n##") // the next story or the next chapter
	if next < 0 {
		return "", errors.New("it ends within its stories")
	}
	return page[:start] + story + rest[next:], nil
}
