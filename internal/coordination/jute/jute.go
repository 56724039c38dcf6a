// Package jute is the vocabulary of ZooKeeper's client protocol: its identifiers, operation and error codes, and the
// records that go over the wire, encoded by hand and without reflection.
//
// Encoding appends to a byte slice (AppendInt32, (*Stat).Append, …) and cannot fail. Decoding reads from a byte slice
// through a Decoder, whose error is sticky: decode a whole record, then look at Err once. A Decoder never allocates by
// a length it has not compared with the bytes that are there. All integers are big-endian; a record is its fields in
// order, without tags or padding; bytes after a record are ignored, as ZooKeeper ignores them.
//
// A null buffer or vector (length -1) is a nil slice and an empty one is a non-nil slice of length 0; both come back
// as they were sent. A null ustring reads as "".
//
// The package is deterministic and holds no state.
package jute

// Zxid numbers a change of the tree: epoch<<32 | counter.
type Zxid int64

// SessionID names a client session; 0 is none.
type SessionID int64

// OpCode is the type field of a request header.
type OpCode int32

// The operations of the client protocol. The two negative ones are made by servers.
const (
	OpNotification      OpCode = 0
	OpCreate            OpCode = 1
	OpDelete            OpCode = 2
	OpExists            OpCode = 3
	OpGetData           OpCode = 4
	OpSetData           OpCode = 5
	OpGetACL            OpCode = 6
	OpSetACL            OpCode = 7
	OpGetChildren       OpCode = 8
	OpSync              OpCode = 9
	OpPing              OpCode = 11
	OpGetChildren2      OpCode = 12
	OpCheck             OpCode = 13
	OpMulti             OpCode = 14
	OpCreate2           OpCode = 15
	OpReconfig          OpCode = 16
	OpCheckWatches      OpCode = 17
	OpRemoveWatches     OpCode = 18
	OpCreateContainer   OpCode = 19
	OpDeleteContainer   OpCode = 20
	OpCreateTTL         OpCode = 21
	OpMultiRead         OpCode = 22
	OpAuth              OpCode = 100
	OpSetWatches        OpCode = 101
	OpSASL              OpCode = 102
	OpGetEphemerals     OpCode = 103
	OpGetAllChildrenNum OpCode = 104
	OpSetWatches2       OpCode = 105
	OpAddWatch          OpCode = 106
	OpWhoAmI            OpCode = 107
	OpCreateSession     OpCode = -10
	OpCloseSession      OpCode = -11
	OpError             OpCode = -1 // a failed entry in a multi's reply, and the type of its end mark
)

// The xids with a meaning of their own.
const (
	XidNotification int32 = -1
	XidPing         int32 = -2
	XidAuth         int32 = -4
	XidSetWatches   int32 = -8
)

// EventType says what happened to a watched node.
type EventType int32

// The events a server sends.
const (
	EventNone            EventType = -1
	EventCreated         EventType = 1
	EventDeleted         EventType = 2
	EventDataChanged     EventType = 3
	EventChildrenChanged EventType = 4
)

// String gives the name the Java client uses.
func (t EventType) String() string {
	switch t {
	case EventNone:
		return "None"
	case EventCreated:
		return "NodeCreated"
	case EventDeleted:
		return "NodeDeleted"
	case EventDataChanged:
		return "NodeDataChanged"
	case EventChildrenChanged:
		return "NodeChildrenChanged"
	}
	return "EventType(" + itoa(int64(t)) + ")"
}

// StateSyncConnected is the state field of every event a server sends.
const StateSyncConnected int32 = 3

// CreateFlags is the flags field of a create request: one mode, not a set of bits.
type CreateFlags int32

// The modes of a created node.
const (
	FlagPersistent              CreateFlags = 0
	FlagEphemeral               CreateFlags = 1
	FlagPersistentSequential    CreateFlags = 2
	FlagEphemeralSequential     CreateFlags = 3
	FlagContainer               CreateFlags = 4
	FlagPersistentTTL           CreateFlags = 5
	FlagPersistentSequentialTTL CreateFlags = 6
)

// Known reports whether it is one of the modes.
func (f CreateFlags) Known() bool { return f >= FlagPersistent && f <= FlagPersistentSequentialTTL }

// Ephemeral reports whether a node of this mode goes with its session.
func (f CreateFlags) Ephemeral() bool { return f == FlagEphemeral || f == FlagEphemeralSequential }

// Sequential reports whether the server completes the name.
func (f CreateFlags) Sequential() bool {
	return f == FlagPersistentSequential || f == FlagEphemeralSequential || f == FlagPersistentSequentialTTL
}

// TTL reports whether the mode carries a time to live.
func (f CreateFlags) TTL() bool { return f == FlagPersistentTTL || f == FlagPersistentSequentialTTL }

// WatcherType selects registrations in checkWatches and removeWatches.
type WatcherType int32

// The watcher types a client may name; anything else is MarshallingError.
const (
	WatcherChildren            WatcherType = 1
	WatcherData                WatcherType = 2
	WatcherAny                 WatcherType = 3
	WatcherPersistent          WatcherType = 4
	WatcherPersistentRecursive WatcherType = 5
)

// AddWatchMode is the mode field of addWatch.
type AddWatchMode int32

// The modes of addWatch; anything else is MarshallingError.
const (
	AddWatchPersistent          AddWatchMode = 0
	AddWatchPersistentRecursive AddWatchMode = 1
)

// The permission bits of an ACL.
const (
	PermRead   int32 = 1
	PermWrite  int32 = 2
	PermCreate int32 = 4
	PermDelete int32 = 8
	PermAdmin  int32 = 16
	PermAll    int32 = 31
)

// AnyVersion in a request matches every version.
const AnyVersion int32 = -1

// DefaultMaxBuffer is ZooKeeper's jute.maxbuffer: the largest frame a server takes.
const DefaultMaxBuffer = 0xfffff

// OpenACL is OPEN_ACL_UNSAFE: everybody may do everything. Callers must not change it.
var OpenACL = []ACL{{Perms: PermAll, ID: ID{Scheme: "world", ID: "anyone"}}}

// ReadOnlyACL is READ_ACL_UNSAFE: everybody may read. Callers must not change it.
var ReadOnlyACL = []ACL{{Perms: PermRead, ID: ID{Scheme: "world", ID: "anyone"}}}
