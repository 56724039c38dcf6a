package vfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func must[T any](t *testing.T) func(T, error) T {
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func readFile(t *testing.T, fsys FS, path string) []byte {
	t.Helper()
	file := must[File](t)(fsys.Open(path))
	defer file.Close()
	info := must[fs.FileInfo](t)(file.Stat())
	data := make([]byte, info.Size())
	if _, err := file.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return data
}

// Both file systems behave alike.
func TestFileSystems(t *testing.T) {
	for name, make := range map[string]func() (FS, string){
		"os":  func() (FS, string) { return OS(), t.TempDir() },
		"mem": func() (FS, string) { return NewMem(), "/" },
	} {
		t.Run(name, func(t *testing.T) {
			fsys, root := make()
			dir := filepath.Join(root, "a", "b")
			if err := fsys.MkdirAll(dir); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "f")
			if _, err := fsys.Open(path); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("open of a missing file: %v", err)
			}
			file := must[File](t)(fsys.OpenFile(path))
			must[int](t)(file.Write([]byte("hello")))
			must[int](t)(file.WriteAt([]byte("J"), 0))
			must[int](t)(file.WriteAt([]byte("end"), 8))
			if err := file.Sync(); err != nil {
				t.Fatal(err)
			}
			file.Close()
			if got := readFile(t, fsys, path); string(got) != "Jello\x00\x00\x00end" {
				t.Fatalf("content %q", got)
			}
			file = must[File](t)(fsys.OpenFile(path))
			must[int](t)(file.Write([]byte("!")))
			if err := file.Truncate(5); err != nil {
				t.Fatal(err)
			}
			must[int](t)(file.WriteAt([]byte("."), 7))
			file.Close()
			if got := readFile(t, fsys, path); string(got) != "Jello\x00\x00." {
				t.Fatalf("content after truncate %q", got)
			}
			if err := fsys.Rename(path, path+"2"); err != nil {
				t.Fatal(err)
			}
			if err := fsys.SyncDir(dir); err != nil {
				t.Fatal(err)
			}
			entries := must[[]fs.DirEntry](t)(fsys.List(dir))
			if len(entries) != 1 || entries[0].Name() != "f2" || entries[0].IsDir() {
				t.Fatalf("entries %v", entries)
			}
			if err := fsys.Remove(dir); err == nil {
				t.Fatal("a directory with entries was removed")
			}
			if err := fsys.RemoveAll(filepath.Join(root, "a")); err != nil {
				t.Fatal(err)
			}
			if _, err := fsys.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("stat after RemoveAll: %v", err)
			}
			lock := must[io.Closer](t)(fsys.Lock(filepath.Join(root, ".lock")))
			if _, err := fsys.Lock(filepath.Join(root, ".lock")); !errors.Is(err, ErrLocked) {
				t.Fatalf("second lock: %v", err)
			}
			lock.Close()
			lock.Close() // harmless
			must[io.Closer](t)(fsys.Lock(filepath.Join(root, ".lock"))).Close()
		})
	}
}

// The lock keeps other processes out: this test runs itself again as one.
func TestLockBetweenProcesses(t *testing.T) {
	if path := os.Getenv("VFS_TEST_LOCK"); path != "" {
		if _, err := OS().Lock(path); errors.Is(err, ErrLocked) {
			os.Exit(7)
		}
		os.Exit(0)
	}
	path := filepath.Join(t.TempDir(), ".lock")
	lock := must[io.Closer](t)(OS().Lock(path))
	try := func() int {
		command := exec.Command(os.Args[0], "-test.run=^TestLockBetweenProcesses$")
		command.Env = append(os.Environ(), "VFS_TEST_LOCK="+path)
		_ = command.Run()
		return command.ProcessState.ExitCode()
	}
	// A second holder within the process must not disturb the first (closing any
	// descriptor of the file would drop the lock).
	if _, err := OS().Lock(path); !errors.Is(err, ErrLocked) {
		t.Fatalf("second lock in the process: %v", err)
	}
	if code := try(); code != 7 {
		t.Fatalf("another process got the lock, exit %d", code)
	}
	lock.Close()
	if code := try(); code != 0 {
		t.Fatalf("the lock stayed held, exit %d", code)
	}
}

func TestMemCrash(t *testing.T) {
	mem := NewMem()
	if err := mem.MkdirAll("/d"); err != nil {
		t.Fatal(err)
	}
	file := must[File](t)(mem.Create("/d/f"))
	must[int](t)(file.Write([]byte("synced")))
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
	if _, err := mem.Crash(nil).Stat("/d"); err == nil {
		t.Fatal("a directory survived whose name was not synced")
	}
	if err := errors.Join(mem.SyncDir("/"), mem.SyncDir("/d")); err != nil {
		t.Fatal(err)
	}
	must[int](t)(file.Write([]byte(" and not")))
	must[int](t)(file.WriteAt([]byte("S"), 0))
	if err := mem.Rename("/d/f", "/d/g"); err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, mem.Crash(nil), "/d/f"); string(got) != "synced" {
		t.Fatalf("after a crash: %q", got)
	}
	if got := readFile(t, mem.Clone(), "/d/g"); string(got) != "Synced and not" {
		t.Fatalf("after kill -9: %q", got)
	}
	if err := file.Truncate(3); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(file.Sync(), mem.SyncDir("/d")); err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, mem.Crash(nil), "/d/g"); string(got) != "Syn" {
		t.Fatalf("after truncate and a crash: %q", got)
	}
	must[int](t)(file.WriteAt(bytes.Repeat([]byte{1}, 20000), 3))
	chance := rand.New(rand.NewSource(1))
	for range 50 {
		got := readFile(t, mem.Crash(chance), "/d/g")
		if !bytes.HasPrefix(got, []byte("Syn")) || len(got) > 20003 {
			t.Fatalf("a torn file lost what was synced: %d bytes", len(got))
		}
	}
}

func TestFaults(t *testing.T) {
	boom := errors.New("boom")
	var fault error
	fsys := WithFaults(NewMem(), func(op Operation, path string) error {
		if op == OpWrite || op == OpSync {
			return fault
		}
		return nil
	})
	file := must[File](t)(fsys.Create("f"))
	fault = &ShortWrite{Bytes: 2, Err: boom}
	if n, err := file.WriteAt([]byte("abc"), 0); n != 2 || !errors.Is(err, boom) {
		t.Fatalf("short write: %d %v", n, err)
	}
	fault = boom
	if err := file.Sync(); !errors.Is(err, boom) {
		t.Fatalf("sync: %v", err)
	}
	fault = nil
	if got := readFile(t, fsys, "f"); string(got) != "ab" {
		t.Fatalf("content %q", got)
	}
}
