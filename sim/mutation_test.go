//go:build mutation

package main

import (
	"path/filepath"
	"slices"
	"testing"

	"understudy/sim/mutant"
)

// A mutation is a bug planted into a source file, see package mutant.
type mutation struct {
	name    string
	file    string // in the module
	edits   []edit
	caught  []string // by one of these invariants; nil: by none, because is why
	because string
}

type edit struct {
	old, new string
	kind     mutant.Kind
	typ      string // of a value whose making has effects
}

func when(old, new string) []edit { return []edit{{old: old, new: new, kind: mutant.Condition}} }
func expr(old, new string) []edit { return []edit{{old: old, new: new, kind: mutant.Value}} }
func stmt(old, new string) []edit { return []edit{{old: old, new: new, kind: mutant.Statement}} }

func always(old, new string) []edit {
	return []edit{{old: old, new: new, kind: mutant.Always}}
}

func call(typ, old, new string) []edit {
	return []edit{{old: old, new: new, kind: mutant.Effect, typ: typ}}
}

const (
	inPartition   = "internal/streaming/partition/"
	inReplication = "internal/streaming/replication/"
	inLog         = "internal/streaming/commitlog/"
	inController  = "internal/streaming/controller/"
	inGroup       = "internal/streaming/group/"
)

// TestMutations plants each bug and has it caught within 1,000 seeds.
func TestMutations(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	var bugs []mutant.Bug
	for _, m := range slices.Concat(mutations, moreMutations, noteMutations) {
		bug := mutant.Bug{Name: m.name, Caught: m.caught, Because: m.because}
		for _, e := range m.edits {
			bug.Edits = append(bug.Edits, mutant.Edit{File: m.file, Old: e.old, New: e.new, Kind: e.kind, Type: e.typ})
		}
		bugs = append(bugs, bug)
	}
	list := mutant.List{World: "streaming", Root: root, Bugs: bugs, Seen: "testdata/caught.txt"}
	list.Catch(t)
}
