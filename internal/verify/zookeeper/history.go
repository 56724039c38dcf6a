package zookeeper

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"understudy/internal/verify"
)

// The kinds of entries.
const (
	kindOp        = "op"        // a request and its outcome
	kindEvent     = "event"     // a watch fired
	kindAttached  = "attached"  // the session, new or old, has a connection
	kindRestored  = "restored"  // the answer to setWatches after a reconnection
	kindLost      = "lost"      // the connection is gone
	kindExpired   = "expired"   // a server said that the session is no more
	kindAbandoned = "abandoned" // the client let its session go without closing it
	kindProtocol  = "protocol"  // the server broke the protocol
	kindDeadline  = "deadline"  // the last moment by which every ended session's znodes had to be gone
)

// The operations.
const (
	opCreate   = "create"
	opDelete   = "delete"
	opSetData  = "setData"
	opCheck    = "check"
	opMulti    = "multi"
	opGetData  = "getData"
	opExists   = "exists"
	opChildren = "getChildren"
	opClose    = "closeSession"
)

// The outcomes that tell whether an operation was applied. Everything else is open.
const (
	outcomeOK         = "ok"
	outcomeOpen       = "open" // no answer, or one that does not tell
	outcomeNoNode     = "NoNode"
	outcomeNodeExists = "NodeExists"
	outcomeBadVersion = "BadVersion"
	outcomeNotEmpty   = "NotEmpty"
)

// Stat is what a reply said of a znode.
type Stat struct {
	Czxid   int64 `json:"czxid"`
	Mzxid   int64 `json:"mzxid"`
	Pzxid   int64 `json:"pzxid,omitempty"`
	Version int32 `json:"version"`
	Owner   int64 `json:"owner,omitempty"`
}

// Request is what was asked.
type Request struct {
	Name       string    `json:"op,omitempty"`
	Path       string    `json:"path,omitempty"` // below the run's own znode
	Data       string    `json:"data,omitempty"`
	Version    int32     `json:"version,omitempty"` // -1: any
	Ephemeral  bool      `json:"ephemeral,omitempty"`
	Sequential bool      `json:"sequential,omitempty"`
	Watch      bool      `json:"watch,omitempty"`
	Ops        []Request `json:"ops,omitempty"` // of a multi
}

// write reports whether the request changes something.
func (r *Request) write() bool {
	switch r.Name {
	case opCreate, opDelete, opSetData, opMulti, opClose:
		return true
	}
	return false
}

// Entry is one line of a history. A client's entries in the order of N are the order in which
// it learned of them, which is that of the wire.
type Entry struct {
	Kind    string `json:"kind"`
	Client  int    `json:"client"`
	N       int    `json:"n"`
	Session int64  `json:"session,omitempty"`
	Server  string `json:"server,omitempty"`
	At      int64  `json:"at"`               // when it was sent, or happened
	Return  int64  `json:"return,omitempty"` // of an op: when the reply was read
	// SyncAt is when the sync was sent that went before a read on the same connection.
	SyncAt int64 `json:"sync_at,omitempty"`

	Request

	Outcome  string   `json:"outcome,omitempty"`
	Zxid     int64    `json:"zxid,omitempty"` // of the reply or of the event
	Created  string   `json:"created,omitempty"`
	Value    string   `json:"value,omitempty"`
	Stat     *Stat    `json:"stat,omitempty"`
	Children []string `json:"children,omitempty"`
	Stats    []*Stat  `json:"stats,omitempty"`  // of a multi's setDatas
	Failed   int      `json:"failed,omitempty"` // of a multi: which of its ops did

	Event     string `json:"event,omitempty"`
	TimeoutMs int64  `json:"timeout_ms,omitempty"` // attached: as negotiated
	Text      string `json:"text,omitempty"`

	// unreadable is the error of a reply that tells nothing, while the client looks at it.
	unreadable error
}

// History is a run, each client's entries in its order.
type History struct {
	Header  verify.Header
	Clients [][]Entry
}

// Entries are all entries in the order of time.
func (h *History) Entries() []Entry {
	var all []Entry
	for _, entries := range h.Clients {
		all = append(all, entries...)
	}
	slices.SortStableFunc(all, func(a, b Entry) int { return int(a.At - b.At) })
	return all
}

// Write keeps the history in a file.
func (h *History) Write(path string) error {
	return verify.WriteHistory(path, h.Header, h.Entries())
}

// ReadHistory reads what Write wrote.
func ReadHistory(r io.Reader) (*History, error) {
	header, entries, err := verify.ReadHistory[Entry](r, "zookeeper")
	if err != nil {
		return nil, err
	}
	h := &History{Header: header}
	for _, entry := range entries {
		if err := entry.check(len(entries)); err != nil {
			return nil, fmt.Errorf("read a history: entry %d of client %d: %w", entry.N, entry.Client, err)
		}
		for entry.Client >= len(h.Clients) {
			h.Clients = append(h.Clients, nil)
		}
		h.Clients[entry.Client] = append(h.Clients[entry.Client], entry)
	}
	for _, entries := range h.Clients {
		slices.SortStableFunc(entries, func(a, b Entry) int { return a.N - b.N })
	}
	return h, nil
}

// check refuses what no recording writes and the checks rely on.
func (e *Entry) check(clients int) error {
	switch {
	case e.Client < 0 || e.Client > clients:
		return errors.New("there are not that many clients")
	case e.Kind == kindOp && e.Session == 0:
		return errors.New("an operation without a session")
	case e.Kind == kindOp && e.Outcome == outcomeOK && e.Stat == nil && (e.Name == opGetData || e.Name == opExists || e.Name == opChildren):
		return errors.New("a reading without a stat")
	}
	return nil
}

// each calls visit for every operation.
func (h *History) each(visit func(*Entry)) {
	for _, entries := range h.Clients {
		for i := range entries {
			if entries[i].Kind == kindOp {
				visit(&entries[i])
			}
		}
	}
}

// String names an entry in a report: who, when, where, what, and what came of it.
func (e *Entry) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "client %d, session 0x%x at %s, ", e.Client, uint64(e.Session), e.Server)
	if e.Kind != kindOp {
		fmt.Fprintf(&text, "%s: %s", verify.Seconds(e.At), e.Kind)
		if e.Kind == kindEvent {
			fmt.Fprintf(&text, " %s %s", e.Event, e.Path)
			if e.Zxid > 0 {
				fmt.Fprintf(&text, " of zxid 0x%x", e.Zxid)
			}
		}
		if e.Text != "" {
			text.WriteString(" " + e.Text)
		}
		return text.String()
	}
	fmt.Fprintf(&text, "%s: %s -> %s", verify.Span(e.At, e.Return), e.Request.String(), e.Outcome)
	if e.SyncAt != 0 {
		text.WriteString(" after a sync")
	}
	if e.Zxid > 0 {
		fmt.Fprintf(&text, ", zxid 0x%x", e.Zxid)
	}
	if e.Outcome == outcomeOK && e.Name == opGetData {
		fmt.Fprintf(&text, ", %q", e.Value)
	}
	if e.Created != "" {
		text.WriteString(", created " + e.Created)
	}
	if e.Stat != nil {
		fmt.Fprintf(&text, ", version %d, czxid 0x%x, mzxid 0x%x", e.Stat.Version, e.Stat.Czxid, e.Stat.Mzxid)
	}
	return text.String()
}

// String writes a request.
func (r *Request) String() string {
	var text strings.Builder
	text.WriteString(r.Name)
	if r.Path != "" {
		text.WriteString(" " + r.Path)
	}
	if r.Data != "" {
		text.WriteString(" " + strconv.Quote(r.Data))
	}
	switch r.Name {
	case opDelete, opSetData, opCheck:
		if r.Version >= 0 {
			fmt.Fprintf(&text, " if version %d", r.Version)
		}
	}
	if r.Ephemeral {
		text.WriteString(" ephemeral")
	}
	if r.Sequential {
		text.WriteString(" sequential")
	}
	if r.Watch {
		text.WriteString(" with a watch")
	}
	for i := range r.Ops {
		if i == 0 {
			text.WriteString(" of ")
		} else {
			text.WriteString(", ")
		}
		text.WriteString(r.Ops[i].String())
	}
	return text.String()
}
