package verify

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// historyVersion is that of the file's format; another one is refused.
const historyVersion = 1

// lineBytesMax bounds one line of a history file: a poll holds at most what one fetch brings.
const lineBytesMax = 64 << 20

// Clock gives the times of a history: nanoseconds since its beginning, on the monotonic clock.
type Clock struct {
	base  int64
	began time.Time
}

// NewClock starts a clock at base, which is 0 for a new history and later than its last entry
// for one that is continued by another process.
func NewClock(base int64) *Clock { return &Clock{base: base, began: time.Now()} }

// Now is the time of the history.
func (c *Clock) Now() int64 { return c.base + int64(time.Since(c.began)) }

// Header is the first line of a history file.
type Header struct {
	History string          `json:"history"` // "zookeeper" or "kafka"
	Version int             `json:"version"`
	Began   time.Time       `json:"began"` // wall clock, for finding the place in the servers' logs
	Servers []string        `json:"servers"`
	Seed    uint64          `json:"seed"`
	Setting json.RawMessage `json:"setting,omitempty"` // what the judge of this kind needs beside
}

// WriteHistory writes a history as JSON lines: the header, then one line for each entry. The
// file appears under its name only when it is whole.
func WriteHistory[E any](path string, header Header, entries []E) error {
	header.Version = historyVersion
	partial := path + ".part"
	file, err := os.Create(partial)
	if err != nil {
		return fmt.Errorf("write the history: %w", err)
	}
	defer os.Remove(partial) // nothing is left under that name when all went well
	out := bufio.NewWriterSize(file, 1<<20)
	encoder := json.NewEncoder(out)
	err = encoder.Encode(header)
	for i := range entries {
		if err != nil {
			break
		}
		err = encoder.Encode(&entries[i])
	}
	if err = errors.Join(err, out.Flush(), file.Close()); err != nil {
		return fmt.Errorf("write the history %s: %w", path, err)
	}
	return os.Rename(partial, path)
}

// ReadHeader reads only a history's first line.
func ReadHeader(path string) (Header, error) {
	file, err := os.Open(path)
	if err != nil {
		return Header{}, fmt.Errorf("read the history: %w", err)
	}
	defer file.Close()
	return decodeHeader(path, lines(file))
}

// ReadHistory reads what WriteHistory wrote. kind is the kind of history that is wanted.
func ReadHistory[E any](path, kind string) (Header, []E, error) {
	file, err := os.Open(path)
	if err != nil {
		return Header{}, nil, fmt.Errorf("read the history: %w", err)
	}
	defer file.Close()
	scanner := lines(file)
	header, err := decodeHeader(path, scanner)
	if err != nil {
		return header, nil, err
	}
	if header.History != kind {
		return header, nil, fmt.Errorf("%s is a history of %s, not of %s", path, header.History, kind)
	}
	entries, err := decodeEntries[E](scanner)
	if err != nil {
		return header, nil, fmt.Errorf("read the history %s: %w", path, err)
	}
	return header, entries, nil
}

func lines(r io.Reader) *bufio.Scanner {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, lineBytesMax)
	return scanner
}

func decodeHeader(path string, scanner *bufio.Scanner) (Header, error) {
	var header Header
	if !scanner.Scan() {
		return header, fmt.Errorf("read the history %s: no first line: %w", path, errors.Join(scanner.Err(), io.ErrUnexpectedEOF))
	}
	if err := json.Unmarshal(scanner.Bytes(), &header); err != nil {
		return header, fmt.Errorf("read the history %s: line 1: %w", path, err)
	}
	if header.Version != historyVersion {
		return header, fmt.Errorf("the history %s has version %d of the format, this program reads version %d", path, header.Version, historyVersion)
	}
	return header, nil
}

func decodeEntries[E any](scanner *bufio.Scanner) ([]E, error) {
	var entries []E
	for line := 2; scanner.Scan(); line++ {
		var entry E
		if err := json.Unmarshal(scanner.Bytes(), &entry); err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		entries = append(entries, entry)
	}
	return entries, scanner.Err()
}
