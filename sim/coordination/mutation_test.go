//go:build mutation

package coordination

import (
	"path/filepath"
	"slices"
	"testing"

	"understudy/sim/mutant"
)

const (
	inEnsemble = "internal/coordination/ensemble/"
	inWal      = "internal/coordination/wal/"
	inServer   = "internal/coordination/zkserver/"
	inZnode    = "internal/coordination/znode/"
	inWatch    = "internal/coordination/watch/"
	inSession  = "internal/coordination/session/"
)

// Texts that several mutations replace.
const (
	hardStateRecord = "	frame = appendHardStateRecord(frame, l.hardState.term, l.hardState.vote, l.hardState.commit)\n	if cap(frame) <= 1<<20 {\n		l.buffer = frame\n	}\n"
	notifyAll       = "	for i := range res.Events {\n		s.notify(&res.Events[i])\n	}\n"
)

func when(file, old, new string) []mutant.Edit {
	return []mutant.Edit{{File: file, Old: old, New: new, Kind: mutant.Condition}}
}

func expr(file, old, new string) []mutant.Edit {
	return []mutant.Edit{{File: file, Old: old, New: new, Kind: mutant.Value}}
}

func stmt(file, old, new string) []mutant.Edit {
	return []mutant.Edit{{File: file, Old: old, New: new, Kind: mutant.Statement}}
}

func call(file, typ, old, new string) []mutant.Edit {
	return []mutant.Edit{{File: file, Old: old, New: new, Kind: mutant.Effect, Type: typ}}
}

// always takes pairs of texts.
func always(file string, texts ...string) (edits []mutant.Edit) {
	for i := 0; i < len(texts); i += 2 {
		edits = append(edits, mutant.Edit{File: file, Old: texts[i], New: texts[i+1], Kind: mutant.Always})
	}
	return edits
}

// TestMutations plants each bug and has it caught within 1,000 seeds.
func TestMutations(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	list := mutant.List{World: "coordination", Root: root, Bugs: slices.Concat(mutations, moreMutations), Seen: "testdata/caught.txt"}
	list.Catch(t)
}
