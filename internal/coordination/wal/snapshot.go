package wal

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"understudy/internal/vfs"
)

const (
	snapshotMagic   = "USTDYSNP"
	snapshotVersion = 1
	snapshotHeader  = 28
	snapshotTrailer = 12
	snapshotSuffix  = ".snapshot"
)

// SnapshotID names a snapshot: the last entry it includes.
type SnapshotID struct{ Index, Term uint64 }

// NewestSnapshot is the newest one on disk; Index 0 if there is none.
func (l *Log) NewestSnapshot() SnapshotID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.snapshot
}

// SaveSnapshot stores the tree at id as write gives it. It may run beside Append.
func (l *Log) SaveSnapshot(id SnapshotID, write func(io.Writer) error) error {
	err := replaceFile(l.fs, l.snapshotPath(id.Index), func(f vfs.File) error {
		out := newSnapshotWriter(f, id)
		if err := write(out); err != nil {
			return err
		}
		return out.finish()
	})
	if err != nil {
		return fmt.Errorf("wal: saving the snapshot at entry %d: %w", id.Index, err)
	}
	return l.adoptSnapshot(id)
}

// ReceiveSnapshot stores the file of a snapshot as SnapshotFile gave it on another member,
// and checks it. It is used only after InstallSnapshot.
func (l *Log) ReceiveSnapshot(id SnapshotID, size int64, r io.Reader) error {
	err := replaceFileBy(l.fs, l.snapshotPath(id.Index), ".received.tmp", func(f vfs.File) error {
		if _, err := io.CopyN(writerOnly{f}, r, size); err != nil {
			return err
		}
		got, err := verifySnapshot(f, l.snapshotPath(id.Index))
		if err == nil && got != id {
			err = fmt.Errorf("it is of entry %d term %d, announced was entry %d term %d", got.Index, got.Term, id.Index, id.Term)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("wal: receiving the snapshot at entry %d: %w", id.Index, err)
	}
	return nil
}

// writerOnly hides everything but Write.
type writerOnly struct{ io.Writer }

// InstallSnapshot makes a received snapshot the beginning of the log: every entry before it
// is gone. It belongs to the writer.
func (l *Log) InstallSnapshot(id SnapshotID, writes []Write) error {
	if l.failed != nil {
		return l.failed
	}
	for _, w := range writes {
		if hs := w.HardState; hs != nil {
			l.hardState = hardState{hs.GetTerm(), hs.GetVote(), hs.GetCommit()}
		}
	}
	if err := l.resetTo(id); err != nil {
		return l.fail(err)
	}
	if err := l.adoptSnapshot(id); err != nil {
		return l.fail(err)
	}
	return nil
}

// resetTo begins a segment that says that everything before it was replaced by a snapshot,
// and removes the older ones.
func (l *Log) resetTo(id SnapshotID) error {
	if l.hardState.term < id.Term {
		l.hardState = hardState{term: id.Term}
	}
	l.hardState.commit = max(l.hardState.commit, id.Index)
	frame := beginFrame(nil)
	frame = appendPositionRecord(frame, recordReset, id.Index, id.Term)
	frame = appendHardStateRecord(frame, l.hardState.term, l.hardState.vote, l.hardState.commit)
	if err := l.beginSegment(l.active.number+1, frame); err != nil {
		return err
	}
	l.mu.Lock()
	removed := l.unusedSegmentsLocked()
	l.mu.Unlock()
	var errs []error
	for _, s := range removed {
		errs = append(errs, s.file.Close(), l.fs.Remove(s.path))
	}
	return errors.Join(errs...)
}

// adoptSnapshot makes id the newest and removes the older ones. A file that is open for
// sending stays readable until it is closed.
func (l *Log) adoptSnapshot(id SnapshotID) error {
	l.mu.Lock()
	if id.Index > l.mu.snapshot.Index {
		l.mu.snapshot = id
	}
	newest := l.mu.snapshot.Index
	l.mu.Unlock()
	indexes, err := l.listSnapshots()
	if err != nil {
		return err
	}
	for _, index := range indexes {
		if index < newest {
			err := l.fs.Remove(l.snapshotPath(index))
			if err != nil && !errors.Is(err, fs.ErrNotExist) { // saver and writer may meet here
				return err
			}
		}
	}
	return nil
}

// SnapshotFile opens a snapshot's file as it is, for sending.
func (l *Log) SnapshotFile(id SnapshotID) (io.ReadCloser, int64, error) {
	f, err := l.fs.Open(l.snapshotPath(id.Index))
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return fileReader{io.NewSectionReader(f, 0, info.Size()), f}, info.Size(), nil
}

// CheckSnapshot reads a snapshot's file as a whole; ErrCorrupt says that it is damaged.
func (l *Log) CheckSnapshot(id SnapshotID) error {
	_, err := l.checkSnapshot(id.Index)
	return err
}

// ReadSnapshot opens a snapshot's body: what SaveSnapshot's write gave. The file's checksum is
// verified first.
func (l *Log) ReadSnapshot(id SnapshotID) (io.ReadCloser, error) {
	path := l.snapshotPath(id.Index)
	f, err := l.fs.Open(path)
	if err != nil {
		return nil, err
	}
	got, err := verifySnapshot(f, path)
	if err == nil && got != id {
		err = &CorruptionError{File: path, Cause: fmt.Sprintf("it is of entry %d term %d, not of entry %d term %d", got.Index, got.Term, id.Index, id.Term)}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	body := io.NewSectionReader(f, snapshotHeader, info.Size()-snapshotHeader-snapshotTrailer)
	return fileReader{bufio.NewReaderSize(body, 256<<10), f}, nil
}

type fileReader struct {
	io.Reader
	io.Closer
}

func (l *Log) snapshotPath(index uint64) string {
	return filepath.Join(l.dir, "snapshot", fmt.Sprintf("%016x%s", index, snapshotSuffix))
}

// listSnapshots returns the indexes of the snapshot files, ascending.
func (l *Log) listSnapshots() ([]uint64, error) {
	entries, err := l.fs.List(filepath.Join(l.dir, "snapshot"))
	if err != nil {
		return nil, err
	}
	var indexes []uint64
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), snapshotSuffix)
		if !ok {
			continue
		}
		if index, err := strconv.ParseUint(name, 16, 64); err == nil {
			indexes = append(indexes, index)
		}
	}
	sort.Slice(indexes, func(i, j int) bool { return indexes[i] < indexes[j] })
	return indexes, nil
}

// snapshotWriter frames a body: header before, length and checksum after.
type snapshotWriter struct {
	out  *bufio.Writer
	sum  hash.Hash32
	body uint64
	err  error
}

func newSnapshotWriter(w io.Writer, id SnapshotID) *snapshotWriter {
	s := &snapshotWriter{sum: crc32.New(castagnoli)}
	s.out = bufio.NewWriterSize(io.MultiWriter(writerOnly{w}, s.sum), 256<<10)
	header := append([]byte(nil), snapshotMagic...)
	header = binary.LittleEndian.AppendUint32(header, snapshotVersion)
	header = binary.LittleEndian.AppendUint64(header, id.Index)
	header = binary.LittleEndian.AppendUint64(header, id.Term)
	_, s.err = s.out.Write(header)
	return s
}

func (s *snapshotWriter) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	s.body += uint64(len(p))
	return s.out.Write(p)
}

func (s *snapshotWriter) finish() error {
	var trailer [snapshotTrailer]byte
	binary.LittleEndian.PutUint64(trailer[:], s.body)
	if _, err := s.out.Write(trailer[:8]); err != nil {
		return err
	}
	if err := s.out.Flush(); err != nil { // the checksum now covers all but itself
		return err
	}
	binary.LittleEndian.PutUint32(trailer[8:], s.sum.Sum32())
	if _, err := s.out.Write(trailer[8:]); err != nil {
		return err
	}
	return s.out.Flush()
}

// verifySnapshot reads a whole snapshot file and checks it.
func verifySnapshot(f vfs.File, path string) (SnapshotID, error) {
	info, err := f.Stat()
	if err != nil {
		return SnapshotID{}, err
	}
	size := info.Size()
	if size < snapshotHeader+snapshotTrailer {
		return SnapshotID{}, &CorruptionError{File: path, Offset: size, Cause: "the snapshot is cut off"}
	}
	var header [snapshotHeader]byte
	if _, err := f.ReadAt(header[:], 0); err != nil {
		return SnapshotID{}, err
	}
	if string(header[:8]) != snapshotMagic {
		return SnapshotID{}, &CorruptionError{File: path, Cause: "not a snapshot of ours"}
	}
	sum := crc32.New(castagnoli)
	if _, err := io.CopyBuffer(sum, io.NewSectionReader(f, 0, size-4), make([]byte, 256<<10)); err != nil {
		return SnapshotID{}, err
	}
	var trailer [snapshotTrailer]byte
	if _, err := f.ReadAt(trailer[:], size-snapshotTrailer); err != nil && !errors.Is(err, io.EOF) {
		return SnapshotID{}, err
	}
	if sum.Sum32() != binary.LittleEndian.Uint32(trailer[8:]) {
		return SnapshotID{}, &CorruptionError{File: path, Cause: "the snapshot's checksum does not match"}
	}
	// Behind the checksum: a flipped bit is not a newer version.
	if v := binary.LittleEndian.Uint32(header[8:]); v != snapshotVersion {
		return SnapshotID{}, fmt.Errorf("wal: %s has snapshot format version %d, this program knows %d; it was written by a newer understudy", path, v, snapshotVersion)
	}
	if body := binary.LittleEndian.Uint64(trailer[:]); body != uint64(size-snapshotHeader-snapshotTrailer) {
		return SnapshotID{}, &CorruptionError{File: path, Cause: "the snapshot's length does not match"}
	}
	return SnapshotID{binary.LittleEndian.Uint64(header[12:]), binary.LittleEndian.Uint64(header[20:])}, nil
}
