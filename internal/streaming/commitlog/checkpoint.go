package commitlog

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"understudy/internal/streaming/cluster"
	"understudy/internal/vfs"
)

// An offset checkpoint is text: a version line "0", a line with the number of entries,
// then a line "<topic> <partition> <offset>" for each. The leader epoch checkpoint is the
// same with lines "<epoch> <start offset>".
const checkpointVersion = "0"

type offsetsByPartition map[cluster.TopicPartition]cluster.Offset

func encodeOffsets(offsets offsetsByPartition) []byte {
	partitions := make([]cluster.TopicPartition, 0, len(offsets))
	for tp := range offsets {
		partitions = append(partitions, tp)
	}
	slices.SortFunc(partitions, comparePartitions)
	out := fmt.Appendf(nil, "%s\n%d\n", checkpointVersion, len(partitions))
	for _, tp := range partitions {
		out = append(out, tp.Topic...)
		out = append(out, ' ')
		out = strconv.AppendInt(out, int64(tp.Partition), 10)
		out = append(out, ' ')
		out = strconv.AppendInt(out, int64(offsets[tp]), 10)
		out = append(out, '\n')
	}
	return out
}

func comparePartitions(a, b cluster.TopicPartition) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
}

func decodeOffsets(data []byte) (offsetsByPartition, error) {
	offsets := make(offsetsByPartition)
	err := decodeCheckpoint(data, 3, func(fields []string) error {
		partition, err := strconv.ParseInt(fields[1], 10, 32)
		if err != nil {
			return err
		}
		offset, err := strconv.ParseInt(fields[2], 10, 64)
		if err != nil {
			return err
		}
		offsets[cluster.TopicPartition{Topic: fields[0], Partition: int32(partition)}] = cluster.Offset(offset)
		return nil
	})
	return offsets, err
}

func encodeEpochs(entries []epochEntry) []byte {
	out := fmt.Appendf(nil, "%s\n%d\n", checkpointVersion, len(entries))
	for _, entry := range entries {
		out = fmt.Appendf(out, "%d %d\n", entry.epoch, entry.start)
	}
	return out
}

func decodeEpochs(data []byte) ([]epochEntry, error) {
	var entries []epochEntry
	err := decodeCheckpoint(data, 2, func(fields []string) error {
		epoch, err := strconv.ParseInt(fields[0], 10, 32)
		if err != nil {
			return err
		}
		start, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return err
		}
		entry := epochEntry{cluster.LeaderEpoch(epoch), cluster.Offset(start)}
		if epoch < 0 || start < 0 {
			return fmt.Errorf("epoch %d or offset %d is negative", epoch, start)
		}
		if n := len(entries); n > 0 && (entries[n-1].epoch >= entry.epoch || entries[n-1].start > entry.start) {
			return fmt.Errorf("epoch %d at %d follows epoch %d at %d", epoch, start, entries[n-1].epoch, entries[n-1].start)
		}
		entries = append(entries, entry)
		return nil
	})
	return entries, err
}

func decodeCheckpoint(data []byte, fieldCount int, entry func(fields []string) error) error {
	if !bytes.HasSuffix(data, []byte("\n")) {
		return errors.New("its last line is not whole")
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	if !lines.Scan() || strings.TrimSpace(lines.Text()) != checkpointVersion {
		return fmt.Errorf("version line is %q, not %s", lines.Text(), checkpointVersion)
	}
	if !lines.Scan() {
		return errors.New("the line with the number of entries is missing")
	}
	announced, err := strconv.Atoi(strings.TrimSpace(lines.Text()))
	if err != nil || announced < 0 {
		return fmt.Errorf("number of entries is %q", lines.Text())
	}
	count := 0
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) != fieldCount {
			return fmt.Errorf("line %d has %d fields, not %d", count+3, len(fields), fieldCount)
		}
		if err := entry(fields); err != nil {
			return fmt.Errorf("line %d: %w", count+3, err)
		}
		count++
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if count != announced {
		return fmt.Errorf("%d entries where %d are announced", count, announced)
	}
	return nil
}

// readOffsets reads an offset checkpoint; one that is missing is empty.
func readOffsets(fsys vfs.FS, path string) (offsetsByPartition, error) {
	data, err := readWholeFile(fsys, path)
	if errors.Is(err, fs.ErrNotExist) {
		return offsetsByPartition{}, nil
	}
	if err != nil {
		return nil, err
	}
	offsets, err := decodeOffsets(data)
	if err != nil {
		return nil, &CorruptionError{Path: path, Cause: err}
	}
	return offsets, nil
}

// readWholeFile reads a file, allocating no more than it has.
func readWholeFile(fsys vfs.FS, path string) ([]byte, error) {
	file, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	data := make([]byte, info.Size())
	n, err := file.ReadAt(data, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return data[:n], nil
}

// replaceFile puts data in the place of a file atomically: whatever happens, the file is
// the old or the new one. durable also syncs the directory, so that it is the new one.
func replaceFile(fsys vfs.FS, path string, data []byte, durable bool) error {
	temporary := path + ".tmp"
	if err := writeFile(fsys, temporary, data, true); err != nil {
		return err
	}
	if err := fsys.Rename(temporary, path); err != nil {
		return err
	}
	if !durable {
		return nil
	}
	return fsys.SyncDir(filepath.Dir(path))
}

func writeFile(fsys vfs.FS, path string, data []byte, durable bool) error {
	file, err := fsys.Create(path)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(data, 0)
	if err == nil && durable {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	return err
}
