// Command chaos is the fault matrix: it strikes real servers of a cluster under load with one
// fault after the other, each in every role that a server can have, and gives an account of
// what the clients noticed:
//
//	go run ./bench/chaos                                  everything; writes docs/reliability.md
//	go run ./bench/chaos -faults kill,pause -roles leader  some cells; writes nothing
//	go run ./bench/chaos -faults kill -into docs/reliability.md   a row again, after a full run
//	go run ./bench/chaos -cells                            lists the cells
//
// Every cell has a cluster of its own (three coordinators, three brokers, each a process). The
// load is a producer with acks=all and idempotence and a consumer group (trial.Load), an
// impatient prober (trial.Probe), a client that commits offsets, and writers of znodes. A cell
// finds the server that has the role at that moment, strikes it, mends what it broke, waits until
// every replica is in sync and every coordinator serves, and then reads everything back: what
// was acknowledged and is gone, doubled or out of order is a violation, and so are replicas
// that differ. The exit status tells whether there was one.
//
// Network faults need root (they put each server into a network namespace), a full disk needs
// it for a small file system. Faults of disks and clocks run a program built with the tag chaos
// (internal/vfs), all others the plain one.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	only := flag.String("faults", "", "the rows to run, by name, separated by commas; all without it")
	onlyRoles := flag.String("roles", "", "the columns to run, by name, separated by commas; all without it")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "decides which file is damaged and where; timing is the machine's")
	list := flag.Bool("cells", false, "list the cells and run nothing")
	keep := flag.String("dir", "", "keep configuration, data and logs here")
	doc := flag.String("doc", "", "write the table into this file; a run of everything writes docs/reliability.md without it")
	into := flag.String("into", "", "put the rows of this run in place of those of an earlier, full run in this file")
	why := flag.String("why", "", "with -into: why the rows are run again, for the page")
	flag.Parse()
	cells, err := choose(split(*only), split(*onlyRoles))
	if err != nil {
		return err
	}
	if *list {
		for _, c := range cells {
			fmt.Printf("%-24s %-18s %s\n", c.fault.name, c.role.name, c.fault.senseless(c.role))
		}
		return nil
	}
	if *doc == "" && *only == "" && *onlyRoles == "" {
		*doc = "docs/reliability.md"
	}
	m := &matrix{seed: *seed, keep: *keep, began: time.Now()}
	failed, err := m.run(ctx, cells)
	if err != nil {
		return err
	}
	if *doc != "" {
		if err := os.WriteFile(*doc, []byte(m.document()), 0o644); err != nil {
			return err
		}
	}
	if *into != "" {
		page, err := os.ReadFile(*into)
		if err != nil {
			return err
		}
		merged, err := m.mergedInto(string(page), *why)
		if err != nil {
			return fmt.Errorf("%s: %w", *into, err)
		}
		if err := os.WriteFile(*into, []byte(merged), 0o644); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d cells have a violation", failed, len(cells))
	}
	return nil
}

func split(names string) []string {
	if names == "" {
		return nil
	}
	return strings.Split(names, ",")
}

// cell is one fault in one role.
type cell struct {
	fault *fault
	role  *role
}

// choose returns the cells of the named rows and columns, in the table's order.
func choose(faultNames, roleNames []string) ([]cell, error) {
	wanted := func(names []string, name string) bool {
		if names == nil {
			return true
		}
		for i, wanted := range names {
			if wanted == name {
				names[i] += " " // found; no name has a space
				return true
			}
			if wanted == name+" " {
				return true
			}
		}
		return false
	}
	var cells []cell
	for _, f := range faults {
		if !wanted(faultNames, f.name) {
			continue
		}
		for _, r := range roles {
			if wanted(roleNames, r.name) {
				cells = append(cells, cell{f, r})
			}
		}
	}
	var unknown []error
	for _, name := range append(faultNames, roleNames...) {
		if !strings.HasSuffix(name, " ") {
			unknown = append(unknown, fmt.Errorf("there is no fault or role %q; -cells lists them", name))
		}
	}
	return cells, errors.Join(unknown...)
}
