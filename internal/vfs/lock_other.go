//go:build !unix

package vfs

import (
	"fmt"
	"io"
	"os"
)

// lockFile falls back on exclusive creation where there is no fcntl; a crash leaves the
// file behind.
func lockFile(path string) (io.Closer, error) {
	file, err := os.OpenFile(path+".held", os.O_RDWR|os.O_CREATE|os.O_EXCL, osFileMode)
	if os.IsExist(err) {
		return nil, fmt.Errorf("lock %s: %w (remove %s.held if no server runs)", path, ErrLocked, path)
	}
	if err != nil {
		return nil, err
	}
	return heldFile{file}, nil
}

type heldFile struct{ file *os.File }

func (h heldFile) Close() error {
	err := h.file.Close()
	if removeErr := os.Remove(h.file.Name()); err == nil {
		err = removeErr
	}
	return err
}
