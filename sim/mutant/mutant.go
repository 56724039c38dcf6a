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
// path. how is the go command's beginning: build, or test -c with the tags. An edit whose text
// is no longer found fails the test: it has to be brought up to date.
func Build(t *testing.T, root, pkg string, edits []Edit, how ...string) (program string) {
	t.Helper()
	texts := map[string]string{}
	for _, e := range edits {
		if _, ok := texts[e.File]; !ok {
			texts[e.File] = Source(t, root, e.File)
		}
		if n := strings.Count(texts[e.File], e.Old); n != 1 {
			t.Fatalf("%s has the text %d times, which the mutation replaces: bring the mutation up to date\n%s", e.File, n, e.Old)
		}
		texts[e.File] = strings.Replace(texts[e.File], e.Old, e.New, 1)
	}
	return Compile(t, root, pkg, texts, how...)
}

// Source is the text of a file of the module at root.
func Source(t *testing.T, root, file string) string {
	t.Helper()
	source, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(source)
}

// Compile compiles a package with files of the module changed to these texts, or added.
func Compile(t *testing.T, root, pkg string, texts map[string]string, how ...string) (program string) {
	t.Helper()
	dir := t.TempDir()
	replace := map[string]string{}
	for file, text := range texts {
		copied := filepath.Join(dir, fmt.Sprintf("mutant%d.go", len(replace)))
		write(t, copied, []byte(text))
		replace[filepath.Join(root, file)] = copied
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
