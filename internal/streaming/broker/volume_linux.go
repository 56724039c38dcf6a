package broker

import "golang.org/x/sys/unix"

// volumeSize is the size of the volume that holds a directory and what may still be written to
// it; -1 where that is unknown.
func volumeSize(dir string) (total, usable int64) {
	var stat unix.Statfs_t
	if unix.Statfs(dir, &stat) != nil {
		return -1, -1
	}
	return int64(stat.Blocks) * stat.Bsize, int64(stat.Bavail) * stat.Bsize
}
