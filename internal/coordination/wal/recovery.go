package wal

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"understudy/internal/vfs"
)

const recoveryFile = "recovering.json"

// Recovery marks a directory whose durable state was damaged and set aside: the member has
// forgotten what it voted for and acknowledged, and must not act on what is left until it
// knows as much as the others. It is there from before the damaged files move until the
// member may be trusted again.
type Recovery struct {
	// Floor is the highest term that could be read from the damaged files.
	Floor uint64 `json:"floor"`
	// Term is the one that the member has gone over to, above any in which it may have acted; 0
	// until the others have been asked.
	Term  uint64 `json:"term"`
	Cause string `json:"cause"`
}

// ReadRecovery returns the mark of a directory, nil if there is none. One that is damaged
// itself counts: the others are asked again.
func ReadRecovery(fsys vfs.FS, dir string) (*Recovery, error) {
	data, err := readFile(fsys, filepath.Join(dir, recoveryFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := Recovery{Cause: "unknown"}
	if !json.Valid(data) {
		return &r, nil
	}
	if err := json.Unmarshal(data, &r); err != nil {
		r = Recovery{Cause: err.Error()}
	}
	return &r, nil
}

// Store makes the mark durable.
func (r *Recovery) Store(fsys vfs.FS, dir string) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return replaceFile(fsys, filepath.Join(dir, recoveryFile), func(f vfs.File) error {
		_, err := f.Write(append(data, '\n'))
		return err
	})
}

// EndRecovery removes the mark, durably.
func EndRecovery(fsys vfs.FS, dir string) error {
	if err := fsys.Remove(filepath.Join(dir, recoveryFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fsys.SyncDir(dir)
}

// SetAside marks the directory of o and moves its log and snapshots away, under names that
// say when; nothing is deleted. After it Open finds a member that knows nothing. cause is
// what Open said.
func SetAside(o Options, cause error) (*Recovery, error) {
	lock, err := o.FS.Lock(filepath.Join(o.Dir, ".lock"))
	if err != nil {
		return nil, fmt.Errorf("wal: locking %s: %w", o.Dir, err)
	}
	defer func() { _ = lock.Close() }()
	mark, err := ReadRecovery(o.FS, o.Dir)
	if err != nil {
		return nil, err
	}
	if mark == nil {
		mark = &Recovery{}
	}
	floor, err := highestTerm(o.FS, o.Dir)
	if err != nil {
		return nil, err
	}
	mark.Floor, mark.Term, mark.Cause = max(mark.Floor, mark.Term, floor), 0, cause.Error()
	if err := mark.Store(o.FS, o.Dir); err != nil {
		return nil, err
	}
	now := time.Now
	if o.Now != nil {
		now = o.Now
	}
	suffix := ".damaged-" + now().UTC().Format("20060102T150405.000")
	names := []string{"log", "snapshot"}
	var corrupt *CorruptionError
	if errors.As(cause, &corrupt) && filepath.Base(corrupt.File) == identityFile {
		names = append(names, identityFile)
	}
	for _, name := range names {
		from := filepath.Join(o.Dir, name)
		if err := o.FS.Rename(from, from+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return mark, o.FS.SyncDir(o.Dir)
}

// highestTerm reads what can be read of a damaged directory: the terms in hard states and
// snapshots whose checksums are right, wherever they stand. Every frame has a hard state.
func highestTerm(fsys vfs.FS, dir string) (term uint64, err error) {
	l := &Log{fs: fsys, dir: dir}
	numbers, err := l.listSegments()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	for _, number := range numbers {
		data, err := readFile(fsys, l.segmentPath(number))
		if err != nil {
			return 0, err
		}
		term = max(term, highestTermIn(data))
	}
	indexes, err := l.listSnapshots()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	for _, index := range indexes {
		f, err := fsys.Open(l.snapshotPath(index))
		if err != nil {
			return 0, err
		}
		id, err := verifySnapshot(f, l.snapshotPath(index))
		_ = f.Close()
		if err == nil {
			term = max(term, id.Term)
		}
	}
	return term, nil
}

// highestTermIn looks for hard states at every byte: their places are not to be trusted.
func highestTermIn(data []byte) (term uint64) {
	const size = recordHeader + 1 + hardStatePayload
	for at := 0; at+size <= len(data); at++ {
		if binary.LittleEndian.Uint32(data[at:]) != 1+hardStatePayload || recordType(data[at+recordHeader]) != recordHardState {
			continue
		}
		if r, err := parseRecord(data[at : at+size]); err == nil {
			term = max(term, binary.LittleEndian.Uint64(r.payload))
		}
	}
	return term
}
