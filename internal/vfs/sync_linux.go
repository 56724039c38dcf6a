package vfs

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncData flushes a file's data and the metadata needed to read it back (its size), but
// not its times: fdatasync saves a journal commit for a file that is rewritten in place.
func syncData(file *os.File) error {
	for {
		err := unix.Fdatasync(int(file.Fd()))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "fdatasync", Path: file.Name(), Err: err}
		}
		return nil
	}
}
