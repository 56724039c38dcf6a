package wal

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"understudy/internal/vfs"
)

const (
	identityFile    = "understudy-coordinator.json"
	identityVersion = 1
)

// Identity is whose data a directory holds.
type Identity struct {
	Member  uint64
	Members []uint64 // sorted
}

// identityRecord is the file's content.
type identityRecord struct {
	Format      int      `json:"format"`
	Member      uint64   `json:"member"`
	Members     []uint64 `json:"members"`
	Incarnation uint64   `json:"incarnation"`
	// Sum is the CRC-32C of the rest; older files have none.
	Sum uint32 `json:"crc,omitempty"`
}

func (r identityRecord) sum() uint32 {
	r.Sum = 0
	data, err := json.Marshal(r)
	if err != nil {
		panic(err) // numbers
	}
	return crc32.Checksum(data, castagnoli)
}

// claim is a checked right to a directory, with the next incarnation: a number that grows with
// every start, and (by the clock) even when the directory was lost.
type claim struct {
	fs     vfs.FS
	dir    string
	known  bool // the directory was ours before
	record identityRecord
}

// store makes the claim durable; before that nothing may be done as this incarnation.
func (c claim) store() error { return writeIdentity(c.fs, c.dir, c.record) }

// claimDirectory checks that the directory is ours or empty.
func claimDirectory(fsys vfs.FS, dir string, want Identity, now time.Time) (claim, error) {
	path := filepath.Join(dir, identityFile)
	found, err := readIdentity(fsys, path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := refuseForeign(fsys, dir); err != nil {
			return claim{}, err
		}
	case err != nil:
		return claim{}, err
	case found.Member != want.Member:
		return claim{}, fmt.Errorf("wal: %s belongs to member %d and this is member %d; check dataDir and myid", dir, found.Member, want.Member)
	case !slices.Equal(found.Members, want.Members):
		return claim{}, fmt.Errorf("wal: %s belongs to an ensemble of the members %v and the configuration says %v; it is another ensemble's directory, or the membership was changed in the file, which is not supported", dir, found.Members, want.Members)
	}
	incarnation := max(found.Incarnation+1, uint64(now.UnixNano()))
	record := identityRecord{Format: identityVersion, Member: want.Member, Members: want.Members, Incarnation: incarnation}
	return claim{fs: fsys, dir: dir, known: err == nil, record: record}, nil
}

func readIdentity(fsys vfs.FS, path string) (identityRecord, error) {
	var record identityRecord
	data, err := readFile(fsys, path)
	if err != nil {
		return record, err
	}
	if err := json.Unmarshal(data, &record); err != nil {
		return record, &CorruptionError{File: path, Cause: "not JSON: " + err.Error()}
	}
	if record.Sum != 0 && record.Sum != record.sum() {
		return record, &CorruptionError{File: path, Cause: "its checksum does not match"}
	}
	if record.Format != identityVersion {
		return record, fmt.Errorf("wal: %s has data format %d, this program knows %d; it was written by a newer understudy", path, record.Format, identityVersion)
	}
	return record, nil
}

// refuseForeign refuses a directory without our identity that is not free to take.
func refuseForeign(fsys vfs.FS, dir string) error {
	if _, err := fsys.Stat(filepath.Join(dir, "version-2")); err == nil {
		return fmt.Errorf("wal: %s holds Apache ZooKeeper's version-2 and none of our data; importing it is not supported yet, and serving an empty tree instead would be wrong: choose an empty dataDir", dir)
	}
	if _, err := fsys.Stat(filepath.Join(dir, "log")); err == nil {
		return fmt.Errorf("wal: %s holds a log but no %s; restore that file or choose an empty directory", dir, identityFile)
	}
	return nil
}

func writeIdentity(fsys vfs.FS, dir string, record identityRecord) error {
	record.Sum = record.sum()
	data, err := json.Marshal(record)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, identityFile)
	return replaceFile(fsys, path, func(f vfs.File) error {
		_, err := f.Write(append(data, '\n'))
		return err
	})
}

// replaceFile writes a file under a temporary name, syncs it, renames it and syncs the
// directory: after a crash there is the old one or the new one, whole.
func replaceFile(fsys vfs.FS, path string, write func(vfs.File) error) error {
	return replaceFileBy(fsys, path, ".tmp", write)
}

// replaceFileBy is replaceFile with a suffix of the temporary name, which must end in ".tmp",
// for two that may write the same file.
func replaceFileBy(fsys vfs.FS, path, suffix string, write func(vfs.File) error) error {
	tmp := path + suffix
	f, err := fsys.Create(tmp)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = fsys.Rename(tmp, path)
	}
	if err != nil {
		_ = fsys.Remove(tmp)
		return err
	}
	return fsys.SyncDir(filepath.Dir(path))
}

func readFile(fsys vfs.FS, path string) ([]byte, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f)
}

func readAll(f vfs.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	data := make([]byte, info.Size())
	n, err := f.ReadAt(data, 0)
	if n == len(data) {
		err = nil
	}
	return data[:n], err
}
