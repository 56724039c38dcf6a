package commitlog

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"

	"understudy/internal/streaming/cluster"
	"understudy/internal/vfs"
)

// fileCache bounds the open files of all logs. A file is opened when it is first acquired
// and stays open while anybody holds it; of those that nobody holds, the least recently
// used are closed when there are more than max. Files in use are never closed, so the
// bound is exceeded while more than max are in use at once.
type fileCache struct {
	fs  vfs.FS
	max int

	mu struct {
		sync.Mutex
		open int
		// idle is the ring of open files that nobody holds, least recently used first.
		idle cachedFile
	}
}

// cachedFile is one file of a segment. Its zero value with dir, base and suffix set is
// ready; the fields below are guarded by the cache's lock.
type cachedFile struct {
	dir    string
	base   cluster.Offset
	suffix string

	opening    sync.Mutex // held by who opens the file, so that others wait for one open
	file       vfs.File   // nil while closed
	holders    int
	forgotten  bool
	prev, next *cachedFile // in the idle ring; nil outside
}

// errForgotten says that the file was deleted or replaced: whoever found it in an old list
// of segments looks again.
var errForgotten = fmt.Errorf("commitlog: segment is gone: %w", fs.ErrNotExist)

func newFileCache(fsys vfs.FS, max int) *fileCache {
	cache := &fileCache{fs: fsys, max: max}
	cache.mu.idle.prev, cache.mu.idle.next = &cache.mu.idle, &cache.mu.idle
	return cache
}

func (f *cachedFile) path() string { return filepath.Join(f.dir, offsetName(f.base, f.suffix)) }

// acquire returns the open file and holds it until release. Files are made if missing.
func (c *fileCache) acquire(f *cachedFile) (vfs.File, error) {
	if file, err := c.hold(f); file != nil || err != nil {
		return file, err
	}
	f.opening.Lock()
	defer f.opening.Unlock()
	if file, err := c.hold(f); file != nil || err != nil {
		return file, err
	}
	file, err := c.fs.OpenFile(f.path())
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	if f.forgotten {
		c.mu.Unlock()
		_ = file.Close()
		return nil, errForgotten
	}
	f.file, f.holders = file, 1
	c.mu.open++
	victims := c.evictLocked()
	c.mu.Unlock()
	closeFiles(victims)
	return file, nil
}

// hold returns the file if it is open.
func (c *fileCache) hold(f *cachedFile) (vfs.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.forgotten {
		return nil, errForgotten
	}
	if f.file == nil {
		return nil, nil
	}
	c.unlinkLocked(f)
	f.holders++
	return f.file, nil
}

func (c *fileCache) release(f *cachedFile) {
	c.mu.Lock()
	var victims []vfs.File
	f.holders--
	if f.holders == 0 {
		if f.forgotten {
			victims = append(victims, f.file)
			f.file = nil
			c.mu.open--
		} else {
			last := c.mu.idle.prev
			f.prev, f.next = last, &c.mu.idle
			last.next, c.mu.idle.prev = f, f
			victims = c.evictLocked()
		}
	}
	c.mu.Unlock()
	closeFiles(victims)
}

// forget makes further acquires fail; the file is closed when its last holder releases it.
// It waits for an open under way: nobody opens (and so creates) the file afterwards, which
// may be renamed or removed now.
func (c *fileCache) forget(f *cachedFile) {
	f.opening.Lock()
	defer f.opening.Unlock()
	c.mu.Lock()
	var victims []vfs.File
	f.forgotten = true
	if f.file != nil && f.holders == 0 {
		c.unlinkLocked(f)
		victims = append(victims, f.file)
		f.file = nil
		c.mu.open--
	}
	c.mu.Unlock()
	closeFiles(victims)
}

func (c *fileCache) unlinkLocked(f *cachedFile) {
	if f.next != nil {
		f.prev.next, f.next.prev = f.next, f.prev
		f.prev, f.next = nil, nil
	}
}

func (c *fileCache) evictLocked() (victims []vfs.File) {
	for c.mu.open > c.max && c.mu.idle.next != &c.mu.idle {
		f := c.mu.idle.next
		c.unlinkLocked(f)
		victims = append(victims, f.file)
		f.file = nil
		c.mu.open--
	}
	return victims
}

// closeFiles closes files outside the lock. Written data is in the page cache and a later
// fsync through another descriptor reports what went wrong, so errors say nothing here.
func closeFiles(files []vfs.File) {
	for _, file := range files {
		_ = file.Close()
	}
}
