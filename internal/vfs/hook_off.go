//go:build !chaos

package vfs

// hooked is the place for a fault hook; this build has none (see hook_on.go).
func hooked(fsys FS) FS { return fsys }
