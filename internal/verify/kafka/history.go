package kafka

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"

	"understudy/internal/verify"
)

// The kinds of entries.
const (
	kindSend      = "send"      // a record and what became of it
	kindPosition  = "position"  // a consumer goes on from an offset of a partition
	kindPoll      = "poll"      // records that a consumer got of a partition, in its order
	kindCommit    = "commit"    // a group member commits
	kindCommitted = "committed" // a group's committed offset was asked for
	kindReadback  = "readback"  // like poll, by the reading of everything at the end
	kindWhole     = "whole"     // a partition has been read back from Start to Offset
	kindEnd       = "end"       // where a consumer stood when the run ended
	kindTrouble   = "trouble"   // what a client complained of; nothing is concluded from it
)

// The outcomes of a send or commit.
const (
	outcomeOK      = "ok"
	outcomeOpen    = "open"    // no answer, or one that does not tell
	outcomeRefused = "refused" // certainly not written
)

// Entry is one line of a history.
type Entry struct {
	Kind   string `json:"kind"`
	Client string `json:"client"`
	N      int    `json:"n"` // a client's entries in its order: of sending, of polling
	At     int64  `json:"at"`
	Return int64  `json:"return,omitempty"`

	Partition string `json:"partition,omitempty"` // topic-number
	Group     string `json:"group,omitempty"`
	Value     string `json:"value,omitempty"`
	Outcome   string `json:"outcome,omitempty"`
	// Ordered: the producer promises that its records stand in the order of sending.
	Ordered bool     `json:"ordered,omitempty"`
	Start   int64    `json:"start,omitempty"`
	Offset  int64    `json:"offset,omitempty"`
	Offsets []int64  `json:"offsets,omitempty"`
	Values  []string `json:"values,omitempty"`
	Text    string   `json:"text,omitempty"`
}

// Setting is what a history's header says beside.
type Setting struct {
	Topics      []string `json:"topics"`
	Partitions  int      `json:"partitions"`
	Group       string   `json:"group"`
	RecordBytes int      `json:"record_bytes"`
	Runs        int      `json:"runs"` // processes that have worked on it
}

// History is what was recorded.
type History struct {
	Header  verify.Header
	Setting Setting
	Entries []Entry
}

// Write keeps the history in a file.
func (h *History) Write(path string) error {
	setting, err := json.Marshal(h.Setting)
	if err != nil {
		return err
	}
	h.Header.Setting = setting
	return verify.WriteHistory(path, h.Header, h.Entries)
}

// ReadHistory reads what Write wrote.
func ReadHistory(r io.Reader) (*History, error) {
	header, entries, err := verify.ReadHistory[Entry](r, "kafka")
	if err != nil {
		return nil, err
	}
	h := &History{Header: header, Entries: entries}
	if err := json.Unmarshal(header.Setting, &h.Setting); err != nil {
		return nil, fmt.Errorf("read a history: its setting: %w", err)
	}
	for i := range entries {
		e := &entries[i]
		if len(e.Offsets) != len(e.Values) {
			return nil, fmt.Errorf("read a history: entry %d has %d offsets and %d values", i, len(e.Offsets), len(e.Values))
		}
		if e.Partition == "" && e.Kind != kindTrouble {
			return nil, fmt.Errorf("read a history: entry %d, a %s, names no partition", i, e.Kind)
		}
	}
	return h, nil
}

// recorder collects entries from many goroutines.
type recorder struct {
	clock *verify.Clock
	mu    struct {
		sync.Mutex
		entries []*Entry
		next    map[string]int // of each client
	}
}

// add enters an entry and gives it its number. The caller may complete it with finish.
func (r *recorder) add(e *Entry) *Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.At == 0 {
		e.At = r.clock.Now()
	}
	e.N = r.mu.next[e.Client]
	r.mu.next[e.Client]++
	r.mu.entries = append(r.mu.entries, e)
	return e
}

// finish completes an entry that was added before its outcome was known.
func (r *recorder) finish(complete func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	complete()
}

// taken returns copies of all entries.
func (r *recorder) taken() []Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	entries := make([]Entry, len(r.mu.entries))
	for i, e := range r.mu.entries {
		entries[i] = *e
	}
	return entries
}

// String names an entry in a report: who, when, where, what.
func (e *Entry) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s, %s: %s", e.Client, verify.Span(e.At, e.Return), e.Kind)
	if e.Kind != kindSend && e.Kind != kindCommit && e.Return == 0 {
		text.Reset()
		fmt.Fprintf(&text, "%s, %s: %s", e.Client, verify.Seconds(e.At), e.Kind)
	}
	switch e.Kind {
	case kindSend:
		fmt.Fprintf(&text, " %q to %s -> %s", e.Value, e.Partition, e.Outcome)
		if e.Outcome == outcomeOK {
			fmt.Fprintf(&text, " at offset %d", e.Offset)
		}
	case kindPoll, kindReadback:
		fmt.Fprintf(&text, " of %s, %d records", e.Partition, len(e.Offsets))
		if n := len(e.Offsets); n > 0 {
			fmt.Fprintf(&text, " from offset %d to %d", e.Offsets[0], e.Offsets[n-1])
		}
	case kindCommit:
		fmt.Fprintf(&text, " %d of %s for %s -> %s", e.Offset, e.Partition, e.Group, e.Outcome)
	default:
		fmt.Fprintf(&text, " %d of %s", e.Offset, e.Partition)
	}
	if e.Text != "" {
		text.WriteString(" (" + e.Text + ")")
	}
	return text.String()
}
