package vfs

import (
	"fmt"
	"io"
	"io/fs"
	"os"
)

// OS returns the file system of the operating system.
func OS() FS { return hooked(osFS{}) }

type osFS struct{}

const (
	osFileMode = 0o644
	osDirMode  = 0o755
)

func (osFS) Create(path string) (File, error) {
	return wrapOSFile(os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, osFileMode))
}

func (osFS) Open(path string) (File, error) { return wrapOSFile(os.Open(path)) }

func (osFS) OpenFile(path string) (File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, osFileMode)
	if err != nil {
		return nil, err
	}
	// Not O_APPEND: Go refuses WriteAt on a file opened so.
	if _, err := file.Seek(0, io.SeekEnd); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("seek to the end of %s: %w", path, err)
	}
	return osFile{file}, nil
}

func (osFS) Remove(path string) error                { return os.Remove(path) }
func (osFS) RemoveAll(path string) error             { return os.RemoveAll(path) }
func (osFS) Rename(from, to string) error            { return os.Rename(from, to) }
func (osFS) MkdirAll(path string) error              { return os.MkdirAll(path, osDirMode) }
func (osFS) List(path string) ([]fs.DirEntry, error) { return os.ReadDir(path) }
func (osFS) Stat(path string) (fs.FileInfo, error)   { return os.Stat(path) }
func (osFS) Lock(path string) (io.Closer, error)     { return lockFile(path) }

func (osFS) SyncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	err = dir.Sync()
	if closeErr := dir.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("sync directory %s: %w", path, err)
	}
	return nil
}

// osFile is an operating system file; os.File has everything but OSFile, and its Sync is
// replaced by the cheaper one where there is one.
type osFile struct{ *os.File }

func wrapOSFile(file *os.File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return osFile{file}, nil
}

func (f osFile) OSFile() *os.File { return f.File }
func (f osFile) Sync() error      { return syncData(f.File) }
