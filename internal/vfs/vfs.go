// Package vfs is the seam between the servers and the disk: a small file system interface
// with a real implementation, so that tests can put an in-memory one below the log and the
// write-ahead log that loses what was not synced, or that fails on script.
//
// Paths are those of the operating system. All methods may be called concurrently; a File's
// positional reads and writes may be called concurrently with each other.
package vfs

import (
	"io"
	"io/fs"
	"os"
)

// FS is a file system.
type FS interface {
	// Create makes an empty file for reading and writing, truncating one that is there.
	Create(path string) (File, error)
	// Open opens a file for reading.
	Open(path string) (File, error)
	// OpenFile opens a file for reading and writing, creating it if it is missing.
	OpenFile(path string) (File, error)
	// Remove deletes a file or an empty directory; RemoveAll a whole tree.
	Remove(path string) error
	RemoveAll(path string) error
	// Rename replaces the target atomically. It is durable only after SyncDir of the
	// directories concerned.
	Rename(from, to string) error
	MkdirAll(path string) error
	// List returns the entries of a directory sorted by name.
	List(path string) ([]fs.DirEntry, error)
	Stat(path string) (fs.FileInfo, error)
	// SyncDir makes creations, removals and renames in a directory durable.
	SyncDir(path string) error
	// Lock takes an exclusive fcntl lock on a file (created if missing), as Java's
	// FileChannel.tryLock does, with a guard against a second holder in this process,
	// which fcntl alone would let through. It fails at once, with an error for which
	// errors.Is(err, ErrLocked) holds, if somebody else has it.
	Lock(path string) (io.Closer, error)
}

// File is an open file.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Write appends at the file's own write position, which starts at 0 for Create and at
	// the end for OpenFile.
	io.Writer
	Truncate(size int64) error
	Sync() error
	Stat() (fs.FileInfo, error)
	// OSFile is the operating system's file below, for sendfile; nil if there is none.
	OSFile() *os.File
}
