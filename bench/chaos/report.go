package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// surroundings is what the run was made on.
func surroundings() string {
	kernel := "unknown kernel"
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel = strings.TrimSpace(string(text))
	}
	model := runtime.GOARCH
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, ok := strings.CutPrefix(line, "model name"); ok {
				model = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(name), ":"))
				break
			}
		}
	}
	return fmt.Sprintf("%s %s, %d CPUs (%s), %s, understudy %s", runtime.GOOS, kernel, runtime.NumCPU(), model, runtime.Version(), revision())
}

func revision() string {
	output, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "of an unknown revision"
	}
	text := strings.TrimSpace(string(output))
	if exec.Command("git", "diff", "--quiet", "HEAD").Run() != nil {
		text += " with changes"
	}
	return text
}

func seconds(d time.Duration) string {
	if d < 100*time.Millisecond {
		return fmt.Sprintf("%.3f", d.Seconds())
	}
	return fmt.Sprintf("%.2f", d.Seconds())
}

// line sums a cell up for the terminal.
func (r *result) line() string {
	name := fmt.Sprintf("%-22s %-18s", r.fault.name, r.role.name)
	switch {
	case r.fault.senseless(r.role) != "":
		return name + " makes no sense: " + r.fault.senseless(r.role)
	case r.skipped != "":
		return name + " SKIPPED: " + r.skipped
	}
	return fmt.Sprintf("%s %5.1f s; without an answer: produce %s, commit %s, znode %s; %d records, %d commits, %d znodes; %v %v %s %v", name, r.took.Seconds(),
		seconds(r.produce), seconds(r.commit), seconds(r.write), r.account.Acknowledged, r.commits, r.writes, r.refused, r.said, r.excused, r.notes)
}
