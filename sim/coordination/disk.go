package coordination

import (
	"errors"
	"io"
	"io/fs"
	mathrand "math/rand"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"understudy/internal/coordination/wal"
	"understudy/internal/vfs"
)

// dataDir is where each member keeps its state, on a disk of its own.
const dataDir = "/data"

var errDead = errors.New("the process is dead")

// disk is a member's disk with its faults.
type disk struct {
	w   *world
	m   *member
	mem *vfs.Mem

	unsynced   map[string]bool // files whose sync failed: what is synced later does not arrive either
	crashIn    int             // the process dies before this many operations from now; 0: it does not
	crashPower bool            // and the power with it
	failSyncs  int
	fullTo     time.Duration
	slowTo     time.Duration
	misdirect  uint64 // the next write to the log goes elsewhere
	damaged    bool   // was given to damage for good
	struck     bool   // and has been damaged
	refused    bool   // an operation failed on purpose since the process began
}

func newDisk(w *world, m *member) *disk {
	return &disk{w: w, m: m, mem: vfs.NewMem(), unsynced: map[string]bool{}}
}

func (d *disk) heal() {
	d.crashIn, d.failSyncs, d.fullTo, d.slowTo, d.misdirect = 0, 0, 0, 0, 0
}

// crashNow is the panic that ends a process in the middle of what it does.
type crashNow struct{ power bool }

// after is the disk as the next process finds it.
func (d *disk) after(power bool) {
	clear(d.unsynced)
	if power {
		d.mem = d.mem.Crash(mathrand.New(mathrand.NewSource(d.w.chance.Int64())))
	} else {
		d.mem = d.mem.Clone()
	}
}

// operation is asked before anything that changes the disk.
func (d *disk) operation(life int, kind, path string) error {
	m := d.m
	if m.life != life {
		return errDead
	}
	if m.stepped != nil {
		m.stepped.Yield()
	}
	if m.life != life {
		return errDead
	}
	if d.crashIn > 0 {
		if d.crashIn--; d.crashIn == 0 {
			d.w.trace(m.name, "dies before %s %s", kind, path)
			panic(crashNow{d.crashPower})
		}
	}
	switch {
	case kind == "sync" && d.failSyncs > 0 && strings.Contains(path, "/log/"):
		d.failSyncs--
		d.refused = true
		d.unsynced[path] = true
		d.w.trace(m.name, "fsync of %s fails", path)
		return &fs.PathError{Op: "sync", Path: path, Err: syscall.EIO}
	case (kind == "write" || kind == "create") && d.w.now < d.fullTo:
		d.refused = true
		return &fs.PathError{Op: kind, Path: path, Err: syscall.ENOSPC}
	}
	return nil
}

// withoutPower is the log as a power loss would leave it now.
func (d *disk) withoutPower() (*wal.Log, error) {
	identity := wal.Identity{Member: uint64(d.m.id)}
	for _, m := range d.w.members {
		identity.Members = append(identity.Members, uint64(m.id))
	}
	return wal.Open(wal.Options{
		Dir: dataDir, FS: d.mem.Crash(nil), Identity: identity, Stepped: true, Now: func() time.Time { return start0 },
	})
}

// flip damages a byte of a file that is there, behind the process's back.
func (d *disk) flip(n uint64) {
	var files []string
	for _, dir := range []string{"log", "snapshot"} {
		entries, _ := d.mem.List(filepath.Join(dataDir, dir))
		for _, e := range entries {
			if info, err := e.Info(); err == nil && info.Size() > 0 && !strings.HasSuffix(e.Name(), ".tmp") {
				files = append(files, filepath.Join(dataDir, dir, e.Name()))
			}
		}
	}
	if len(files) == 0 {
		return
	}
	path := files[n%uint64(len(files))]
	f, err := d.mem.OpenFile(path)
	if err != nil {
		return
	}
	defer f.Close()
	info, _ := f.Stat()
	at := int64(n / 64 % uint64(info.Size()))
	var one [1]byte
	if _, err := f.ReadAt(one[:], at); err != nil {
		return
	}
	one[0] ^= 1 << (n % 8)
	_, _ = f.WriteAt(one[:], at)
	_ = f.Sync()
	d.struck = true
	d.w.trace(d.m.name, "a bit flips in %s at %d of %d", path, at, info.Size())
}

// lifeFS is the disk as one process sees it.
type lifeFS struct {
	d    *disk
	life int
	mem  *vfs.Mem
}

func (f *lifeFS) open(path string, open func(string) (vfs.File, error)) (vfs.File, error) {
	file, err := open(path)
	if err != nil {
		return nil, err
	}
	return &lifeFile{fs: f, path: path, file: file}, nil
}

func (f *lifeFS) Create(path string) (vfs.File, error) {
	if err := f.d.operation(f.life, "create", path); err != nil {
		return nil, err
	}
	return f.open(path, f.mem.Create)
}

func (f *lifeFS) Open(path string) (vfs.File, error) { return f.open(path, f.mem.Open) }

func (f *lifeFS) OpenFile(path string) (vfs.File, error) { return f.open(path, f.mem.OpenFile) }

func (f *lifeFS) Remove(path string) error {
	if err := f.d.operation(f.life, "remove", path); err != nil {
		return err
	}
	return f.mem.Remove(path)
}

func (f *lifeFS) RemoveAll(path string) error {
	if err := f.d.operation(f.life, "remove", path); err != nil {
		return err
	}
	return f.mem.RemoveAll(path)
}

func (f *lifeFS) Rename(from, to string) error {
	if err := f.d.operation(f.life, "rename", from); err != nil {
		return err
	}
	return f.mem.Rename(from, to)
}

func (f *lifeFS) MkdirAll(path string) error {
	if err := f.d.operation(f.life, "mkdir", path); err != nil {
		return err
	}
	return f.mem.MkdirAll(path)
}

func (f *lifeFS) List(path string) ([]fs.DirEntry, error) { return f.mem.List(path) }
func (f *lifeFS) Stat(path string) (fs.FileInfo, error)   { return f.mem.Stat(path) }

func (f *lifeFS) SyncDir(path string) error {
	if err := f.d.operation(f.life, "syncdir", path); err != nil {
		return err
	}
	if err := f.mem.SyncDir(path); err != nil {
		return err
	}
	return f.d.operation(f.life, "after syncdir", path)
}

func (f *lifeFS) Lock(path string) (io.Closer, error) { return f.mem.Lock(path) }

type lifeFile struct {
	fs   *lifeFS
	path string
	file vfs.File
}

func (f *lifeFile) ReadAt(p []byte, at int64) (int, error) { return f.file.ReadAt(p, at) }

func (f *lifeFile) write(p []byte, write func([]byte) (int, error)) (int, error) {
	if err := f.fs.d.operation(f.fs.life, "write", f.path); err != nil {
		if errors.Is(err, syscall.ENOSPC) && len(p) > 1 { // some of it finds room
			n, _ := write(p[:len(p)/2])
			return n, err
		}
		return 0, err
	}
	return write(p)
}

func (f *lifeFile) WriteAt(p []byte, at int64) (int, error) {
	d := f.fs.d
	return f.write(p, func(p []byte) (int, error) {
		if d.misdirect > 0 && strings.Contains(f.path, "/log/") && at > 0 {
			elsewhere := int64(d.misdirect) * 64 % (at + 4096)
			if elsewhere != at {
				d.misdirect, d.struck = 0, true
				d.w.trace(d.m.name, "a write to %s at %d goes to %d", f.path, at, elsewhere)
				at = elsewhere
			}
		}
		return f.file.WriteAt(p, at)
	})
}

func (f *lifeFile) Write(p []byte) (int, error) { return f.write(p, f.file.Write) }

func (f *lifeFile) Truncate(size int64) error {
	if err := f.fs.d.operation(f.fs.life, "truncate", f.path); err != nil {
		return err
	}
	return f.file.Truncate(size)
}

func (f *lifeFile) Sync() error {
	if err := f.fs.d.operation(f.fs.life, "sync", f.path); err != nil {
		return err
	}
	if !f.fs.d.unsynced[f.path] {
		if err := f.file.Sync(); err != nil {
			return err
		}
	}
	return f.fs.d.operation(f.fs.life, "after sync", f.path)
}

func (f *lifeFile) Stat() (fs.FileInfo, error) { return f.file.Stat() }
func (f *lifeFile) Close() error               { return f.file.Close() }
func (f *lifeFile) OSFile() *os.File           { return nil }
