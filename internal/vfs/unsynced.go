package vfs

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// WithUnsyncedInMemory returns a file system that keeps below root, an existing directory, only
// what was synced, and everything else in memory: when the process is killed, the directory is
// as a machine would find it after a power failure. It is Mem's strict model (a name is durable
// with SyncDir of its directory, a new directory is a name in its parent, content is durable
// with Sync). With a source of chance, a part of what was not synced reaches the disk now and then
// nevertheless, as the kernel's write-back has it.
//
// It holds all files below root in memory and is meant for fault tests on real processes. Locks
// and paths outside of root are those of the file system below.
func WithUnsyncedInMemory(below FS, root string, chance *rand.Rand) (FS, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	u := &unsyncedFS{FS: below, root: root, mem: NewMem()}
	if err := u.load(root); err != nil {
		return nil, err
	}
	syncAll(u.mem.root)
	if chance != nil {
		go u.writeBack(chance)
	}
	return u, nil
}

type unsyncedFS struct {
	FS   // below
	root string
	mem  *Mem // its lock is held while the disk is brought up to date
}

func (u *unsyncedFS) load(dir string) error {
	if err := u.mem.MkdirAll(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if entry.IsDir() {
			err = u.load(path)
		} else {
			err = u.loadFile(path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (u *unsyncedFS) loadFile(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	dir, name, err := u.mem.parent("load", path)
	if err != nil {
		return err
	}
	dir.entries[name] = &memInode{data: data, synced: slices.Clone(data), clean: int64(len(data)), modified: time.Now()}
	return nil
}

func syncAll(dir *memDir) {
	dir.synced = maps.Clone(dir.entries)
	for _, node := range dir.entries {
		if child, ok := node.(*memDir); ok {
			syncAll(child)
		}
	}
}

func (u *unsyncedFS) inside(path string) (string, bool) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return path, false
	}
	return absolute, absolute == u.root || strings.HasPrefix(absolute, u.root+string(filepath.Separator))
}

// on is the file system that has a path, and the path there.
func (u *unsyncedFS) on(path string) (FS, string) {
	if absolute, inside := u.inside(path); inside {
		return u.mem, absolute
	}
	return u.FS, path
}

func (u *unsyncedFS) open(path string, open func(FS, string) (File, error)) (File, error) {
	fsys, path := u.on(path)
	file, err := open(fsys, path)
	if inMemory, ok := file.(*memFile); ok && err == nil {
		return &unsyncedFile{memFile: inMemory, fs: u}, nil
	}
	return file, err
}

func (u *unsyncedFS) Create(path string) (File, error)   { return u.open(path, FS.Create) }
func (u *unsyncedFS) Open(path string) (File, error)     { return u.open(path, FS.Open) }
func (u *unsyncedFS) OpenFile(path string) (File, error) { return u.open(path, FS.OpenFile) }

func (u *unsyncedFS) Remove(path string) error {
	fsys, path := u.on(path)
	return fsys.Remove(path)
}

func (u *unsyncedFS) RemoveAll(path string) error {
	fsys, path := u.on(path)
	return fsys.RemoveAll(path)
}

func (u *unsyncedFS) Rename(from, to string) error {
	fsys, from := u.on(from)
	target, to := u.on(to)
	if fsys != target {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: errors.ErrUnsupported}
	}
	return fsys.Rename(from, to)
}

func (u *unsyncedFS) MkdirAll(path string) error {
	fsys, path := u.on(path)
	return fsys.MkdirAll(path)
}

func (u *unsyncedFS) List(path string) ([]fs.DirEntry, error) {
	fsys, path := u.on(path)
	return fsys.List(path)
}

func (u *unsyncedFS) Stat(path string) (fs.FileInfo, error) {
	fsys, path := u.on(path)
	return fsys.Stat(path)
}

// SyncDir makes a directory's names durable, and brings them to the disk if the directory
// itself is there.
func (u *unsyncedFS) SyncDir(path string) error {
	absolute, inside := u.inside(path)
	if !inside {
		return u.FS.SyncDir(path)
	}
	u.mem.mu.Lock()
	defer u.mem.mu.Unlock()
	node, err := u.mem.lookup("sync", absolute)
	if err != nil {
		return err
	}
	dir, ok := node.(*memDir)
	if !ok {
		return &fs.PathError{Op: "sync", Path: path, Err: errNotDirectory}
	}
	where := u.durable(dir)
	before := dir.synced
	dir.synced = maps.Clone(dir.entries)
	for _, path := range where {
		if err := bringNames(path, before, dir.synced); err != nil {
			return err
		}
	}
	return nil
}

// durable returns the paths under which the disk has a node: its names as of the last SyncDir
// of each directory on the way.
func (u *unsyncedFS) durable(node memNode) (paths []string) {
	var walk func(dir *memDir, path string)
	walk = func(dir *memDir, path string) {
		if memNode(dir) == node {
			paths = append(paths, path)
		}
		for name, child := range dir.synced {
			switch child := child.(type) {
			case *memDir:
				walk(child, filepath.Join(path, name))
			case *memInode:
				if memNode(child) == node {
					paths = append(paths, filepath.Join(path, name))
				}
			}
		}
	}
	walk(u.mem.root, "/")
	return paths
}

// bringNames makes a directory on disk hold the names of after instead of before.
func bringNames(path string, before, after map[string]memNode) error {
	leaving := map[memNode]string{} // where a node's old name is no longer its own
	for name, node := range before {
		if after[name] != node {
			leaving[node] = name
		}
	}
	var written []string
	for _, name := range slices.Sorted(maps.Keys(after)) { // renames before anything is put under an old name
		node := after[name]
		if before[name] == node {
			continue
		}
		old, moved := leaving[node]
		if !moved || leavesFor(before[name], leaving, after) || os.RemoveAll(filepath.Join(path, name)) != nil ||
			os.Rename(filepath.Join(path, old), filepath.Join(path, name)) != nil {
			written = append(written, name)
			continue
		}
		delete(leaving, node)
	}
	for _, name := range written {
		if err := bringNode(filepath.Join(path, name), after[name]); err != nil {
			return err
		}
	}
	for name := range before {
		if _, stays := after[name]; stays {
			continue
		}
		if err := os.RemoveAll(filepath.Join(path, name)); err != nil {
			return err
		}
	}
	return nil
}

// leavesFor reports whether a node that is to be replaced is needed under another name.
func leavesFor(node memNode, leaving map[memNode]string, after map[string]memNode) bool {
	if _, leaves := leaving[node]; !leaves {
		return false
	}
	for _, other := range after {
		if other == node {
			return true
		}
	}
	return false
}

// bringNode writes what is durable of a node under a name.
func bringNode(path string, node memNode) error {
	switch node := node.(type) {
	case *memInode:
		temporary := path + "~" // atomic: the process may be killed at any moment
		if err := os.WriteFile(temporary, node.synced, osFileMode); err != nil {
			return err
		}
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
		return os.Rename(temporary, path)
	case *memDir:
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		if err := os.Mkdir(path, osDirMode); err != nil {
			return err
		}
		for name, child := range node.synced {
			if err := bringNode(filepath.Join(path, name), child); err != nil {
				return err
			}
		}
	}
	return nil
}

// unsyncedFile is a file in memory whose Sync reaches the disk.
type unsyncedFile struct {
	*memFile
	fs *unsyncedFS
}

func (f *unsyncedFile) Sync() error {
	unlock, err := f.lock("sync")
	if err != nil {
		return err
	}
	defer unlock()
	from := f.inode.clean
	f.inode.sync()
	for _, path := range f.fs.durable(f.inode) {
		if err := bringBytes(path, f.inode.data[from:], from, int64(len(f.inode.data))); err != nil {
			return err
		}
	}
	return nil
}

// bringBytes writes bytes into a file on disk and gives it its size; size < 0 leaves the size
// alone.
func bringBytes(path string, data []byte, offset, size int64) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, osFileMode)
	if err != nil {
		return err
	}
	if size >= 0 {
		err = file.Truncate(size)
	}
	if err == nil {
		_, err = file.WriteAt(data, offset)
	}
	return errors.Join(err, file.Close())
}

const writeBackEvery = 20 * time.Millisecond

// writeBack lets some of what was not synced reach the disk.
func (u *unsyncedFS) writeBack(chance *rand.Rand) {
	for range time.Tick(writeBackEvery) {
		u.writeSomeBack(chance)
	}
}

func (u *unsyncedFS) writeSomeBack(chance *rand.Rand) {
	u.mem.mu.Lock()
	defer u.mem.mu.Unlock()
	dirty := map[string]*memInode{}
	var walk func(dir *memDir, path string)
	walk = func(dir *memDir, path string) {
		for name, child := range dir.synced {
			switch child := child.(type) {
			case *memDir:
				walk(child, filepath.Join(path, name))
			case *memInode:
				if child.clean < int64(len(child.data)) {
					dirty[filepath.Join(path, name)] = child
				}
			}
		}
	}
	walk(u.mem.root, "/")
	if len(dirty) == 0 {
		return
	}
	path := slices.Sorted(maps.Keys(dirty))[chance.Intn(len(dirty))]
	inode := dirty[path]
	if inode.clean < int64(len(inode.synced)) {
		return // overwritten, not appended to
	}
	part := inode.data[inode.clean:]
	part = part[:1+chance.Intn(len(part))]
	_ = bringBytes(path, part, inode.clean, -1) // nobody was promised this
}

var _ io.Closer = (*unsyncedFile)(nil)
