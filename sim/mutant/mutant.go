// Package mutant builds programs with a bug planted into them, for tests that want to see it
// caught. The tree itself stays as it is, and production code has no hooks: the build puts
// changed copies in the files' places (go build -overlay).
package mutant

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Edit replaces a text, which the file must hold exactly once. Several edits of one file apply
// one after the other.
type Edit struct{ File, Old, New string }

// Build compiles a package of the module at root with the edits, and returns the program's
// path. how is the go command's beginning: build, or test -c with the tags. An edit whose text is no longer found fails the test: it has to be brought up to date.
func Build(t *testing.T, root, pkg string, edits []Edit, how ...string) (program string) {
	t.Helper()
	dir := t.TempDir()
	texts := map[string]string{}
	for _, e := range edits {
		path := filepath.Join(root, e.File)
		if _, ok := texts[path]; !ok {
			source, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			texts[path] = string(source)
		}
		if n := strings.Count(texts[path], e.Old); n != 1 {
			t.Fatalf("%s has the text %d times, which the mutation replaces: bring the mutation up to date\n%s", e.File, n, e.Old)
		}
		texts[path] = strings.Replace(texts[path], e.Old, e.New, 1)
	}
	replace := map[string]string{}
	for path, text := range texts {
		replace[path] = filepath.Join(dir, fmt.Sprintf("mutant%d.go", len(replace)))
		write(t, replace[path], []byte(text))
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "overlay.json"), overlay)
	program = filepath.Join(dir, "program")
	build := exec.Command("go", append(slices.Clone(how), "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, pkg)...)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("the mutant does not compile: %v\n%s", err, out)
	}
	return program
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}
