package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// Operation names what a scripted fault is asked about.
type Operation string

const (
	OpCreate   Operation = "create"
	OpOpen     Operation = "open"
	OpRemove   Operation = "remove"
	OpRename   Operation = "rename"
	OpMkdir    Operation = "mkdir"
	OpSyncDir  Operation = "syncdir"
	OpRead     Operation = "read"
	OpWrite    Operation = "write"
	OpTruncate Operation = "truncate"
	OpSync     Operation = "sync"
)

// WithFaults returns fsys with a script in front: script is asked before each operation,
// and what it returns, if not nil, is the operation's outcome. It may be called from
// several goroutines. A fault of type *ShortWrite lets a write put some bytes down first.
func WithFaults(fsys FS, script func(op Operation, path string) error) FS {
	return &faultFS{FS: fsys, script: script}
}

// ShortWrite is a fault for writes: the first Bytes are written, then Err is returned.
type ShortWrite struct {
	Bytes int
	Err   error
}

func (s *ShortWrite) Error() string { return "short write: " + s.Err.Error() }

// Unwrap gives the cause.
func (s *ShortWrite) Unwrap() error { return s.Err }

type faultFS struct {
	FS
	script func(Operation, string) error
}

func (f *faultFS) file(op Operation, path string, open func(string) (File, error)) (File, error) {
	if err := f.script(op, path); err != nil {
		return nil, err
	}
	file, err := open(path)
	if err != nil {
		return nil, err
	}
	return &faultFile{file: file, path: path, script: f.script}, nil
}

func (f *faultFS) Create(path string) (File, error) { return f.file(OpCreate, path, f.FS.Create) }
func (f *faultFS) Open(path string) (File, error)   { return f.file(OpOpen, path, f.FS.Open) }
func (f *faultFS) OpenFile(path string) (File, error) {
	return f.file(OpOpen, path, f.FS.OpenFile)
}

func (f *faultFS) Remove(path string) error {
	if err := f.script(OpRemove, path); err != nil {
		return err
	}
	return f.FS.Remove(path)
}

func (f *faultFS) RemoveAll(path string) error {
	if err := f.script(OpRemove, path); err != nil {
		return err
	}
	return f.FS.RemoveAll(path)
}

func (f *faultFS) Rename(from, to string) error {
	if err := f.script(OpRename, from); err != nil {
		return err
	}
	return f.FS.Rename(from, to)
}

func (f *faultFS) MkdirAll(path string) error {
	if err := f.script(OpMkdir, path); err != nil {
		return err
	}
	return f.FS.MkdirAll(path)
}

func (f *faultFS) SyncDir(path string) error {
	if err := f.script(OpSyncDir, path); err != nil {
		return err
	}
	return f.FS.SyncDir(path)
}

// faultFile hides the operating system's file: with faults in play everything goes through
// the script.
type faultFile struct {
	file   File
	path   string
	script func(Operation, string) error
}

func (f *faultFile) ReadAt(p []byte, offset int64) (int, error) {
	if err := f.script(OpRead, f.path); err != nil {
		return 0, err
	}
	return f.file.ReadAt(p, offset)
}

func (f *faultFile) write(p []byte, write func([]byte) (int, error)) (int, error) {
	err := f.script(OpWrite, f.path)
	var short *ShortWrite
	if errors.As(err, &short) {
		n, writeErr := write(p[:min(short.Bytes, len(p))])
		if writeErr != nil {
			return n, writeErr
		}
		return n, short.Err
	}
	if err != nil {
		return 0, err
	}
	return write(p)
}

func (f *faultFile) WriteAt(p []byte, offset int64) (int, error) {
	return f.write(p, func(p []byte) (int, error) { return f.file.WriteAt(p, offset) })
}

func (f *faultFile) Write(p []byte) (int, error) { return f.write(p, f.file.Write) }

func (f *faultFile) Truncate(size int64) error {
	if err := f.script(OpTruncate, f.path); err != nil {
		return err
	}
	return f.file.Truncate(size)
}

func (f *faultFile) Sync() error {
	if err := f.script(OpSync, f.path); err != nil {
		return err
	}
	return f.file.Sync()
}

func (f *faultFile) Stat() (fs.FileInfo, error) { return f.file.Stat() }
func (f *faultFile) Close() error               { return f.file.Close() }
func (f *faultFile) OSFile() *os.File           { return nil }

var _ io.WriterAt = (*faultFile)(nil)
