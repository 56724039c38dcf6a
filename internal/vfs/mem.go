package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Mem is a file system in memory for tests. It knows what has been synced: Crash gives the
// file system as a machine would find it after a power failure, Clone as a process would
// after kill -9.
//
// The model is the strict one: a file's content survives a crash as of its last Sync, its
// name as of the last SyncDir of the directory that holds it; a new directory is a name in
// its parent like any other. Locks do not survive.
type Mem struct {
	mu    sync.Mutex
	root  *memDir
	locks map[string]bool
}

// NewMem returns an empty file system.
func NewMem() *Mem {
	return &Mem{root: newMemDir(), locks: make(map[string]bool)}
}

// memNode is a *memDir or a *memInode.
type memNode any

type memDir struct {
	entries map[string]memNode
	synced  map[string]memNode // entries as of the last SyncDir
}

func newMemDir() *memDir {
	return &memDir{entries: make(map[string]memNode), synced: make(map[string]memNode)}
}

type memInode struct {
	data   []byte
	synced []byte // data as of the last Sync
	// clean is the length of the prefix that data and synced are known to share.
	clean    int64
	modified time.Time
}

// Crash returns a copy that holds only what was synced. With a source of chance, a file
// may keep some of what was not: a prefix of the bytes written since, possibly with pages
// of zeros where data did not arrive.
func (m *Mem) Crash(chance *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	clones := make(map[memNode]memNode)
	return &Mem{root: crashDir(m.root, chance, clones), locks: make(map[string]bool)}
}

// Clone returns a copy of everything that was written, synced or not.
func (m *Mem) Clone() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	clones := make(map[memNode]memNode)
	return &Mem{root: cloneNode(m.root, clones).(*memDir), locks: make(map[string]bool)}
}

func crashDir(dir *memDir, chance *rand.Rand, clones map[memNode]memNode) *memDir {
	clone := newMemDir()
	for _, name := range slices.Sorted(maps.Keys(dir.synced)) {
		switch node := dir.synced[name].(type) {
		case *memDir:
			clone.entries[name] = crashDir(node, chance, clones)
		case *memInode:
			if clones[node] == nil {
				data := crashData(node, chance)
				clones[node] = &memInode{data: data, synced: slices.Clone(data), clean: int64(len(data)), modified: node.modified}
			}
			clone.entries[name] = clones[node]
		}
	}
	clone.synced = maps.Clone(clone.entries)
	return clone
}

const memPageSize = 4096

func crashData(inode *memInode, chance *rand.Rand) []byte {
	if chance == nil || chance.Intn(2) == 0 {
		return slices.Clone(inode.synced)
	}
	from := min(len(inode.synced), len(inode.data))
	data := slices.Clone(inode.data[:from+chance.Intn(len(inode.data)-from+1)])
	for page := (from + memPageSize - 1) / memPageSize * memPageSize; page < len(data); page += memPageSize {
		if chance.Intn(8) == 0 {
			clear(data[page:min(page+memPageSize, len(data))])
		}
	}
	return data
}

func cloneNode(node memNode, clones map[memNode]memNode) memNode {
	if clone := clones[node]; clone != nil {
		return clone
	}
	switch node := node.(type) {
	case *memDir:
		clone := newMemDir()
		clones[node] = clone
		for name, entry := range node.entries {
			clone.entries[name] = cloneNode(entry, clones)
		}
		for name, entry := range node.synced {
			clone.synced[name] = cloneNode(entry, clones)
		}
		return clone
	case *memInode:
		clone := *node
		clone.data, clone.synced = slices.Clone(node.data), slices.Clone(node.synced)
		clones[node] = &clone
		return &clone
	}
	panic(fmt.Sprintf("vfs: node is a %T", node))
}

func splitPath(path string) []string {
	path = strings.Trim(filepath.ToSlash(filepath.Clean(path)), "/")
	if path == "" || path == "." {
		return nil
	}
	return strings.Split(path, "/")
}

func (m *Mem) lookup(op, path string) (memNode, error) {
	var node memNode = m.root
	for _, name := range splitPath(path) {
		dir, ok := node.(*memDir)
		if !ok || dir.entries[name] == nil {
			return nil, &fs.PathError{Op: op, Path: path, Err: fs.ErrNotExist}
		}
		node = dir.entries[name]
	}
	return node, nil
}

// parent returns the directory that holds (or would hold) path, and the last name.
func (m *Mem) parent(op, path string) (*memDir, string, error) {
	names := splitPath(path)
	if len(names) == 0 {
		return nil, "", &fs.PathError{Op: op, Path: path, Err: fs.ErrInvalid}
	}
	node, err := m.lookup(op, strings.Join(names[:len(names)-1], "/"))
	if err != nil {
		return nil, "", &fs.PathError{Op: op, Path: path, Err: fs.ErrNotExist}
	}
	dir, ok := node.(*memDir)
	if !ok {
		return nil, "", &fs.PathError{Op: op, Path: path, Err: errNotDirectory}
	}
	return dir, names[len(names)-1], nil
}

var (
	errNotDirectory = errors.New("not a directory")
	errIsDirectory  = errors.New("is a directory")
	errNotEmpty     = errors.New("directory not empty")
)

func (m *Mem) open(op, path string, create, truncate bool) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, name, err := m.parent(op, path)
	if err != nil {
		return nil, err
	}
	switch node := dir.entries[name].(type) {
	case *memDir:
		return nil, &fs.PathError{Op: op, Path: path, Err: errIsDirectory}
	case *memInode:
		if truncate {
			node.truncate(0)
		}
		return &memFile{mem: m, inode: node, name: name, position: int64(len(node.data))}, nil
	}
	if !create {
		return nil, &fs.PathError{Op: op, Path: path, Err: fs.ErrNotExist}
	}
	inode := &memInode{modified: time.Now()}
	dir.entries[name] = inode
	return &memFile{mem: m, inode: inode, name: name}, nil
}

// Create implements FS.
func (m *Mem) Create(path string) (File, error) { return m.open("create", path, true, true) }

// Open implements FS.
func (m *Mem) Open(path string) (File, error) { return m.open("open", path, false, false) }

// OpenFile implements FS.
func (m *Mem) OpenFile(path string) (File, error) { return m.open("open", path, true, false) }

// Remove implements FS.
func (m *Mem) Remove(path string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, name, err := m.parent("remove", path)
	if err != nil {
		return err
	}
	switch node := dir.entries[name].(type) {
	case nil:
		return &fs.PathError{Op: "remove", Path: path, Err: fs.ErrNotExist}
	case *memDir:
		if len(node.entries) > 0 {
			return &fs.PathError{Op: "remove", Path: path, Err: errNotEmpty}
		}
	}
	delete(dir.entries, name)
	return nil
}

// RemoveAll implements FS.
func (m *Mem) RemoveAll(path string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, name, err := m.parent("remove", path)
	if err != nil {
		return nil // as os.RemoveAll: what is not there is removed
	}
	delete(dir.entries, name)
	return nil
}

// Rename implements FS.
func (m *Mem) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	fromDir, fromName, err := m.parent("rename", from)
	if err != nil {
		return err
	}
	toDir, toName, err := m.parent("rename", to)
	if err != nil {
		return err
	}
	node := fromDir.entries[fromName]
	if node == nil {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	if target, ok := toDir.entries[toName].(*memDir); ok && len(target.entries) > 0 {
		return &fs.PathError{Op: "rename", Path: to, Err: errNotEmpty}
	}
	delete(fromDir.entries, fromName)
	toDir.entries[toName] = node
	return nil
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(path string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir := m.root
	for _, name := range splitPath(path) {
		if dir.entries[name] == nil {
			dir.entries[name] = newMemDir()
		}
		next, ok := dir.entries[name].(*memDir)
		if !ok {
			return &fs.PathError{Op: "mkdir", Path: path, Err: errNotDirectory}
		}
		dir = next
	}
	return nil
}

// List implements FS.
func (m *Mem) List(path string) ([]fs.DirEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	node, err := m.lookup("list", path)
	if err != nil {
		return nil, err
	}
	dir, ok := node.(*memDir)
	if !ok {
		return nil, &fs.PathError{Op: "list", Path: path, Err: errNotDirectory}
	}
	entries := make([]fs.DirEntry, 0, len(dir.entries))
	for _, name := range slices.Sorted(maps.Keys(dir.entries)) {
		entries = append(entries, fs.FileInfoToDirEntry(describe(name, dir.entries[name])))
	}
	return entries, nil
}

// Stat implements FS.
func (m *Mem) Stat(path string) (fs.FileInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	node, err := m.lookup("stat", path)
	if err != nil {
		return nil, err
	}
	return describe(filepath.Base(path), node), nil
}

// SyncDir implements FS.
func (m *Mem) SyncDir(path string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	node, err := m.lookup("sync", path)
	if err != nil {
		return err
	}
	dir, ok := node.(*memDir)
	if !ok {
		return &fs.PathError{Op: "sync", Path: path, Err: errNotDirectory}
	}
	dir.synced = maps.Clone(dir.entries)
	return nil
}

// Lock implements FS.
func (m *Mem) Lock(path string) (io.Closer, error) {
	file, err := m.OpenFile(path)
	if err != nil {
		return nil, err
	}
	_ = file.Close()
	m.mu.Lock()
	defer m.mu.Unlock()
	key := strings.Join(splitPath(path), "/")
	if m.locks[key] {
		return nil, fmt.Errorf("lock %s: %w", path, ErrLocked)
	}
	m.locks[key] = true
	return memLock{m, key}, nil
}

type memLock struct {
	mem *Mem
	key string
}

func (l memLock) Close() error {
	l.mem.mu.Lock()
	defer l.mem.mu.Unlock()
	delete(l.mem.locks, l.key)
	return nil
}

func (i *memInode) truncate(size int64) {
	if size <= int64(len(i.data)) {
		i.data = i.data[:size]
	} else {
		i.data = append(i.data, make([]byte, size-int64(len(i.data)))...)
	}
	i.clean = min(i.clean, size)
	i.modified = time.Now()
}

func (i *memInode) writeAt(p []byte, offset int64) {
	i.clean = min(i.clean, offset, int64(len(i.data)))
	if end := offset + int64(len(p)); end > int64(len(i.data)) {
		// Bytes between are zero: truncate clears what the array held before.
		length := len(i.data)
		i.data = slices.Grow(i.data, int(end)-length)[:end]
		clear(i.data[length:])
	}
	copy(i.data[offset:], p)
	i.modified = time.Now()
}

func (i *memInode) sync() {
	i.synced = append(i.synced[:min(i.clean, int64(len(i.synced)))], i.data[min(i.clean, int64(len(i.synced))):]...)
	i.clean = int64(len(i.data))
}

// memFile is an open file; it keeps its inode when the name goes.
type memFile struct {
	mem      *Mem
	inode    *memInode
	name     string
	position int64
	closed   bool
}

func (f *memFile) lock(op string) (unlock func(), err error) {
	f.mem.mu.Lock()
	if f.closed {
		f.mem.mu.Unlock()
		return nil, &fs.PathError{Op: op, Path: f.name, Err: fs.ErrClosed}
	}
	return f.mem.mu.Unlock, nil
}

func (f *memFile) ReadAt(p []byte, offset int64) (int, error) {
	unlock, err := f.lock("read")
	if err != nil {
		return 0, err
	}
	defer unlock()
	if offset >= int64(len(f.inode.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.inode.data[offset:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, offset int64) (int, error) {
	unlock, err := f.lock("write")
	if err != nil {
		return 0, err
	}
	defer unlock()
	f.inode.writeAt(p, offset)
	return len(p), nil
}

func (f *memFile) Write(p []byte) (int, error) {
	unlock, err := f.lock("write")
	if err != nil {
		return 0, err
	}
	defer unlock()
	f.inode.writeAt(p, f.position)
	f.position += int64(len(p))
	return len(p), nil
}

func (f *memFile) Truncate(size int64) error {
	unlock, err := f.lock("truncate")
	if err != nil {
		return err
	}
	defer unlock()
	f.inode.truncate(size)
	return nil
}

func (f *memFile) Sync() error {
	unlock, err := f.lock("sync")
	if err != nil {
		return err
	}
	defer unlock()
	f.inode.sync()
	return nil
}

func (f *memFile) Stat() (fs.FileInfo, error) {
	unlock, err := f.lock("stat")
	if err != nil {
		return nil, err
	}
	defer unlock()
	return describe(f.name, f.inode), nil
}

func (f *memFile) Close() error {
	unlock, err := f.lock("close")
	if err != nil {
		return err
	}
	defer unlock()
	f.closed = true
	return nil
}

func (f *memFile) OSFile() *os.File { return nil }

type memInfo struct {
	name     string
	size     int64
	dir      bool
	modified time.Time
}

func describe(name string, node memNode) memInfo {
	if inode, ok := node.(*memInode); ok {
		return memInfo{name: name, size: int64(len(inode.data)), modified: inode.modified}
	}
	return memInfo{name: name, dir: true}
}

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return i.size }
func (i memInfo) ModTime() time.Time { return i.modified }
func (i memInfo) IsDir() bool        { return i.dir }
func (i memInfo) Sys() any           { return nil }
func (i memInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | osDirMode
	}
	return osFileMode
}
