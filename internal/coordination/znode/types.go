package znode

import (
	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/watch"
)

// MemberID names a member of the ensemble; 0 is none.
type MemberID uint64

// Kind says what a Request asks for.
type Kind uint8

// The kinds of requests.
const (
	// KindOp is a client's write: create, create2, createContainer, createTTL, delete, setData, setACL, multi, reconfig.
	KindOp Kind = 1
	// KindCreateSession makes Session, with TimeoutMs, Password, GraceMs and Owner.
	KindCreateSession Kind = 2
	// KindReattach gives Session a new Owner, a new generation, and TimeoutMs and GraceMs from the handshake. It fails
	// with SessionExpired if there is no such session or Password is not its own.
	KindReattach Kind = 3
	// KindCloseSession is the client's closeSession.
	KindCloseSession Kind = 4
	// KindExpire ends Session if its generation still is Generation; otherwise it is Skipped.
	KindExpire Kind = 5
	// KindConnectionLost notes that the connection of Session is gone, if its generation still is Generation.
	KindConnectionLost Kind = 6
	// KindDeleteContainer removes the container at Path if it still is one, was used, and is empty.
	KindDeleteContainer Kind = 7
)

// Request is one thing to do. Which fields count depends on Kind.
type Request struct {
	Kind    Kind
	Session jute.SessionID
	// Generation of the session's owner, from the Result of KindCreateSession or KindReattach. Apply refuses a stale one
	// (Result.SessionMoved).
	Generation uint64
	Xid        int32
	Op         jute.OpCode
	Body       []byte    // as the client sent it; aliases the input of DecodeBatch
	Auth       []jute.ID // identities of the connection when the request was sent
	TimeoutMs  int32
	GraceMs    int32  // fast expiry; 0 = not asked for
	Password   []byte // aliases the input of DecodeBatch
	Owner      MemberID
	Path       string
}

// Batch is what one log entry holds.
type Batch struct {
	TimeMs int64 // stamped by the raft leader (StampTime)
	// Origin, Incarnation and FirstSequence make forwarding exactly-once: request i of the batch has sequence
	// FirstSequence+i, the first one of an incarnation has 1. Apply takes only the next sequence of (Origin, Incarnation);
	// everything else, and everything of a lower incarnation, is Skipped. A batch without Origin is always taken.
	Origin        MemberID
	Incarnation   uint64
	FirstSequence uint64
	Requests      []Request
}

// Result is what became of a Request. The Result and its Events are valid until emit returns; Reply and Password may
// be kept and must not be changed.
type Result struct {
	Skipped bool // not the next sequence, or a conditional request whose condition no longer holds: nothing happened
	// SessionMoved: the session has another owner (or Generation is stale): the connection must be closed without reply.
	SessionMoved bool
	// ClosedSession: Session ended by this request, at whoever's wish.
	ClosedSession bool
	Session       jute.SessionID
	Zxid          jute.Zxid // for the reply header: the request's own, or the last one where it took none
	Code          jute.Code
	Reply         []byte  // reply body when Code is OK (a failed multi is OK with a body); nil = header only
	Events        []Event // in the order in which they are to be sent, all before the reply
	Generation    uint64  // session kinds
	TimeoutMs     int32   // session kinds
	GraceMs       int32   // session kinds
	Owner         MemberID
	Password      []byte // session kinds
}

// Event is a change that watchers may wait for. A deleted or created node gives two: its own, and ChildrenChanged of
// its parent.
type Event struct {
	Type jute.EventType
	Path string
	Zxid jute.Zxid
	ACL  []jute.ACL // who may be told: see ReadableBy. Of a deleted node, what it was
}

// ReadableBy reports whether a connection with these identities may be told of the event.
func (e *Event) ReadableBy(auth []jute.ID) bool { return Permitted(e.ACL, jute.PermRead, auth) }

// WatchRegistration is the watch that a read sets; Kind is watch.None if it sets none.
type WatchRegistration struct {
	Kind watch.Kind
	Path string
}

// SessionInfo is what the machine knows of a session.
type SessionInfo struct {
	ID         jute.SessionID
	TimeoutMs  int32
	GraceMs    int32 // fast expiry; 0 = not asked for
	Password   []byte
	Owner      MemberID
	Generation uint64
	// ConnectionLost is set by KindConnectionLost and cleared by KindReattach; LostAtMs is the time of that entry.
	ConnectionLost bool
	LostAtMs       int64
	Ephemerals     int
}
