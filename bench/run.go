package main

import (
	"context"
	"fmt"
	"os"

	"understudy/internal/fleet"
)

// run is what every benchmark begins with: the program built from this tree, a directory for
// its servers, and who is compared.
type run struct {
	binary   string
	dir      string // removed by close
	programs []*fleet.Program
	close    func()
}

// openRun builds the program, asks for its processor profiles if a folder for them is named,
// fetches Apache's servers if they are to be measured, too, and prints what is compared on what.
func openRun(ctx context.Context, peer bool, profile string) (*run, error) {
	if err := profiled(profile); err != nil {
		return nil, err
	}
	binary, dir, remove, err := fleet.Build(ctx)
	if err != nil {
		return nil, err
	}
	r := &run{binary: binary, dir: dir, close: remove, programs: []*fleet.Program{fleet.Understudy(binary, "")}}
	fmt.Println(machine())
	if !peer {
		return r, nil
	}
	program, err := apache()
	if err != nil {
		r.close()
		return nil, err
	}
	r.programs = append(r.programs, program)
	fmt.Printf("peer: %s, JVM flags of its start scripts\n", program.Name)
	return r, nil
}

// peer is Apache's servers, nil if they are not measured.
func (r *run) peer() *fleet.Program {
	if len(r.programs) < 2 {
		return nil
	}
	return r.programs[1]
}

// folder makes a new directory for one measurement.
func (r *run) folder(what string) (string, error) { return os.MkdirTemp(r.dir, what) }

// each measures with every program, in a directory of its own. Nothing is removed before the
// last has been measured: see measureCreation.
func (r *run) each(what string, measure func(dir string, program *fleet.Program) error) error {
	for _, program := range r.programs {
		dir, err := r.folder(what)
		if err != nil {
			return err
		}
		if err := measure(dir, program); err != nil {
			return fmt.Errorf("%s: %w", program.Name, err)
		}
	}
	return nil
}
