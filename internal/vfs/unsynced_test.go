package vfs

import (
	"fmt"
	"io/fs"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever is done, the directory on disk is what Mem says that a crash leaves.
func TestUnsyncedStaysInMemory(t *testing.T) {
	for seed := range int64(60) {
		root := t.TempDir()
		fsys := must[FS](t)(WithUnsyncedInMemory(OS(), root, nil))
		twin := NewMem()
		if err := twin.MkdirAll(root); err != nil {
			t.Fatal(err)
		}
		for dir := root; dir != "/"; dir = filepath.Dir(dir) {
			if err := twin.SyncDir(filepath.Dir(dir)); err != nil {
				t.Fatal(err)
			}
		}
		random := rand.New(rand.NewSource(seed))
		var steps []string
		for range 60 {
			step := anyStep(random, root)
			steps = append(steps, step.name)
			got, want := step.do(fsys), step.do(twin)
			if (got == nil) != (want == nil) {
				t.Fatalf("seed %d, %s: %v, the twin says %v", seed, step.name, got, want)
			}
			if onDisk, crashed := describeTree(t, OS(), root), describeTree(t, twin.Crash(nil), root); onDisk != crashed {
				t.Fatalf("seed %d: after %s the disk has\n%sa crash leaves\n%s", seed, strings.Join(steps, ", "), onDisk, crashed)
			}
			if seen, written := describeTree(t, fsys, root), describeTree(t, twin, root); seen != written {
				t.Fatalf("seed %d: after %s the process sees\n%sit wrote\n%s", seed, strings.Join(steps, ", "), seen, written)
			}
		}
	}
}

type step struct {
	name string
	do   func(FS) error
}

func anyStep(random *rand.Rand, root string) step {
	dir := func() string { return filepath.Join(root, []string{"", "a", "b"}[random.Intn(3)]) }
	path := func() string { return filepath.Join(dir(), []string{"x", "y", "z"}[random.Intn(3)]) }
	switch one, other := path(), path(); random.Intn(8) {
	case 0:
		made := filepath.Join(root, []string{"a", "b"}[random.Intn(2)])
		return step{"mkdir " + made, func(fsys FS) error { return fsys.MkdirAll(made) }}
	case 1:
		synced := dir()
		return step{"syncdir " + synced, func(fsys FS) error { return fsys.SyncDir(synced) }}
	case 2:
		return step{"remove " + one, func(fsys FS) error { return fsys.Remove(one) }}
	case 3:
		return step{fmt.Sprintf("rename %s %s", one, other), func(fsys FS) error { return fsys.Rename(one, other) }}
	case 4:
		from, to := filepath.Join(root, "a"), filepath.Join(root, "b")
		return step{"rename a b", func(fsys FS) error { return fsys.Rename(from, to) }}
	case 5:
		size := int64(random.Intn(20))
		return step{fmt.Sprintf("truncate %s %d", one, size), func(fsys FS) error {
			return withFile(fsys, one, func(f File) error { return f.Truncate(size) })
		}}
	case 6:
		return step{"sync " + one, func(fsys FS) error { return withFile(fsys, one, File.Sync) }}
	default:
		data, offset := fmt.Appendf(nil, "%04d", random.Intn(10000)), int64(random.Intn(16))
		return step{fmt.Sprintf("write %s %s@%d", one, data, offset), func(fsys FS) error {
			return withFile(fsys, one, func(f File) error { _, err := f.WriteAt(data, offset); return err })
		}}
	}
}

func withFile(fsys FS, path string, do func(File) error) error {
	file, err := fsys.OpenFile(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return do(file)
}

func describeTree(t *testing.T, fsys FS, dir string) string {
	t.Helper()
	var text strings.Builder
	for _, entry := range must[[]fs.DirEntry](t)(fsys.List(dir)) {
		path := filepath.Join(dir, entry.Name())
		if entry.IsDir() {
			fmt.Fprintf(&text, "%s/\n%s", path, describeTree(t, fsys, path))
			continue
		}
		fmt.Fprintf(&text, "%s %q\n", path, readFile(t, fsys, path))
	}
	return text.String()
}

func TestUnsyncedLeavesOtherPathsAlone(t *testing.T) {
	root, outside := t.TempDir(), filepath.Join(t.TempDir(), "f")
	fsys := must[FS](t)(WithUnsyncedInMemory(OS(), root, nil))
	file := must[File](t)(fsys.Create(outside))
	must[int](t)(file.Write([]byte("at once")))
	file.Close()
	if got := must[[]byte](t)(os.ReadFile(outside)); string(got) != "at once" {
		t.Fatalf("content %q", got)
	}
}
