//go:build !linux

package vfs

import "os"

// syncData flushes a file; os.File.Sync asks for F_FULLFSYNC on Darwin.
func syncData(file *os.File) error { return file.Sync() }
