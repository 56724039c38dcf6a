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

// ReadHistory reads what WriteHistory wrote. kind is the kind of history that is wanted.
func ReadHistory[E any](r io.Reader, kind string) (Header, []E, error) {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, lineBytesMax)
	header, err := decodeHeader(scanner)
	if err != nil {
		return header, nil, fmt.Errorf("read a history: line 1: %w", err)
	}
	if header.History != kind {
		return header, nil, fmt.Errorf("this is a history of %s, not of %s", header.History, kind)
	}
	entries, err := decodeEntries[E](scanner)
	if err != nil {
		return header, nil, fmt.Errorf("read a history: %w", err)
	}
	return header, entries, nil
}

func decodeHeader(scanner *bufio.Scanner) (Header, error) {
	var header Header
	if !scanner.Scan() {
		return header, errors.Join(scanner.Err(), io.ErrUnexpectedEOF)
	}
	if err := json.Unmarshal(scanner.Bytes(), &header); err != nil {
		return header, err
	}
	if header.Version != historyVersion {
		return header, fmt.Errorf("it has version %d of the format, this program reads version %d", header.Version, historyVersion)
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
