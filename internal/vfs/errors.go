package vfs

import "errors"

// ErrLocked says that somebody, in this process or another, holds the lock asked for.
var ErrLocked = errors.New("locked by another holder")
