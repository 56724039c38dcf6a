//go:build unix

package vfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// heldLocks knows the files this process has locked. fcntl locks belong to the process: a
// second fcntl from the same process succeeds, and closing *any* descriptor of the file
// drops the lock. So this table is global by nature, it is asked before the file is
// opened, and nobody else may open a lock file.
var heldLocks = struct {
	sync.Mutex
	files map[fileIdentity]bool
}{files: make(map[fileIdentity]bool)}

type fileIdentity struct{ device, inode uint64 }

type fileLock struct {
	file     *os.File
	identity fileIdentity
	once     sync.Once
	closeErr error
}

func lockFile(path string) (io.Closer, error) {
	heldLocks.Lock()
	defer heldLocks.Unlock()
	if info, err := os.Stat(path); err == nil && heldLocks.files[identify(info)] {
		return nil, fmt.Errorf("lock %s: %w (this process)", path, ErrLocked)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, osFileMode)
	if err != nil {
		return nil, err
	}
	// What java.nio's FileChannel.tryLock asks for: a write lock on everything.
	request := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(file.Fd(), unix.F_SETLK, &request); err != nil {
		_ = file.Close()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			return nil, fmt.Errorf("lock %s: %w (another process)", path, ErrLocked)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	info, err := file.Stat()
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	lock := &fileLock{file: file, identity: identify(info)}
	heldLocks.files[lock.identity] = true
	return lock, nil
}

func (l *fileLock) Close() error {
	l.once.Do(func() {
		heldLocks.Lock()
		defer heldLocks.Unlock()
		delete(heldLocks.files, l.identity)
		l.closeErr = l.file.Close() // drops the lock
	})
	return l.closeErr
}

func identify(info os.FileInfo) fileIdentity {
	stat := info.Sys().(*syscall.Stat_t)
	return fileIdentity{device: uint64(stat.Dev), inode: stat.Ino} //nolint:unconvert // an int32 on Darwin
}
