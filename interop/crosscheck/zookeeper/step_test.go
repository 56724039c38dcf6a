package zookeeper

import (
	"fmt"
	"strings"

	"understudy/internal/coordination/jute"
)

// kind is what a step does.
type kind int

const (
	connects kind = iota // opens a connection: handshake and requests in one write
	sends                // writes requests at once and reads their replies
	drops                // closes the client's end of a connection and waits for the server's
	expires              // lets a session time out and waits until it is gone
	breaks               // writes bytes that are no proper frame
	strays               // writes bytes on a connection of their own, in place of a handshake
	asks                 // a four-letter word on a connection of its own
	walks                // reads the whole tree
)

// step is one thing that one client does. It holds nothing that a server gave: session ids, passwords and zxids are
// named, so that the same steps, or a part of them, can go to any fresh server.
type step struct {
	slot     int // whose connection: each slot has at most one
	kind     kind
	hello    hello
	requests []request
	bytes    []byte
	// openEnd of breaks and strays: the bytes are part of a frame, and the client closes its end after them.
	openEnd bool
	silent  bool // expires: the connection stays open and says nothing
	word    string
}

// request is one request on an established connection.
type request struct {
	xid  int32
	op   jute.OpCode
	body []byte
	// relative: body begins with a zxid that counts from the run's first.
	relative bool
	// closes: the server closes the connection after its reply.
	closes bool
	text   string
}

// hello is a handshake.
type hello struct {
	session  int // the slot whose session is to be re-attached, or newSession, or noSession
	password passwordKind
	timeout  int32
	readOnly []byte // what follows the password: nothing, the byte, or more
	seen     seenKind
	stay     bool // the slot's present connection is left to the server to close
}

const (
	newSession = -1
	noSession  = -2 // an id that nobody ever got
)

type passwordKind int

const (
	rightPassword passwordKind = iota // zeros for a new session
	wrongPassword
	shortPassword
	nullPassword
)

type seenKind int

const (
	seenNothing seenKind = iota
	seenAll              // the last zxid that this client got
	seenFuture           // more than the server can know
)

// endsSession tells whether ephemerals may go in this step; in which order is not defined.
func (s *step) endsSession() bool {
	if s.kind == expires {
		return true
	}
	for _, r := range s.requests {
		if r.op == jute.OpCloseSession {
			return true
		}
	}
	return false
}

// operations is how many requests the step makes of the server.
func (s *step) operations() int { return max(len(s.requests), 1) }

func (s *step) String() string {
	text := fmt.Sprintf("connection %d ", s.slot)
	switch s.kind {
	case connects:
		text += fmt.Sprintf("connects %+v", s.hello)
	case sends:
		text += "sends"
	case drops:
		text += "drops"
	case expires:
		text += fmt.Sprintf("expires silent=%v", s.silent)
	case breaks:
		text += fmt.Sprintf("breaks openEnd=%v %s", s.openEnd, hexText(s.bytes))
	case strays:
		text += fmt.Sprintf("strays openEnd=%v %s", s.openEnd, hexText(s.bytes))
	case asks:
		text += "asks " + s.word
	case walks:
		text += "walks"
	}
	var b strings.Builder
	b.WriteString(text)
	for _, r := range s.requests {
		fmt.Fprintf(&b, "\n      xid %d %v %s\n        %s", r.xid, r.op, r.text, hexText(r.body))
	}
	return b.String()
}

func hexText(b []byte) string {
	if len(b) > 200 {
		return fmt.Sprintf("%x… (%d bytes)", b[:200], len(b))
	}
	return fmt.Sprintf("%x", b)
}
