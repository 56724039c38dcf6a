package zkclient

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"understudy/internal/coordination/jute"
)

// Errors that a Result carries beside the server's own codes (jute.Code).
var (
	// ErrConnectionLoss: the connection was lost before the reply came; the
	// request may or may not have been applied.
	ErrConnectionLoss = errors.New("zookeeper connection lost before the reply")
	// ErrSessionExpired: the ensemble has ended the session; the client is finished.
	ErrSessionExpired = errors.New("zookeeper session expired")
	// ErrClosed: the client was closed by its owner.
	ErrClosed = errors.New("zookeeper client closed")
)

// State of a client as its owner sees it.
type State int

// The states. Expired and Closed are final.
const (
	Connecting   State = iota // no session yet
	Connected                 // the session is attached to a server
	Disconnected              // the connection is lost, the session presumably alive
	Doubtful                  // disconnected for longer than the session was promised: act as if it were gone
	Expired                   // the ensemble has ended the session
	Closed                    // Close or Abandon was called
)

func (s State) String() string {
	switch s {
	case Connecting:
		return "connecting"
	case Connected:
		return "connected"
	case Disconnected:
		return "disconnected"
	case Doubtful:
		return "doubtful"
	case Expired:
		return "expired"
	case Closed:
		return "closed"
	}
	return "unknown"
}

// EventType is what happened to a watched znode.
type EventType = jute.EventType

// The events a server sends.
const (
	NodeCreated         = jute.EventCreated
	NodeDeleted         = jute.EventDeleted
	NodeDataChanged     = jute.EventDataChanged
	NodeChildrenChanged = jute.EventChildrenChanged
)

// Event is one watch that fired. The watch is gone; reading again sets it again.
type Event struct {
	Type EventType
	Path string    // without the chroot
	Zxid jute.Zxid // the change's, or -1 from a server that does not tell
}

// Session identifies a session: what it takes to re-attach to it or to close it.
type Session struct {
	ID       jute.SessionID
	Password []byte
	Timeout  time.Duration // as negotiated
	Grace    time.Duration // fast expiry as negotiated; 0: the server has none
}

// Config of a client.
type Config struct {
	// Servers is ZooKeeper's connection string: "host:port,host:port[/chroot]",
	// IPv6 hosts in brackets, port 2181 when left out. Names are resolved at each dial.
	Servers string
	// SessionTimeout asked for; the server clamps it. Default 18 s (Kafka's).
	SessionTimeout time.Duration
	// ConnectTimeout bounds one attempt on one server, dial and handshake. Default: the
	// session timeout divided by the number of servers, at least one second, at most three.
	ConnectTimeout time.Duration
	// MaxInFlight bounds the requests sent and not yet answered. Default 1000.
	MaxInFlight int
	// FastExpiryGrace asks for fast expiry with this grace; 0 does not ask.
	// Apache's servers ignore it, then Session().Grace is 0.
	FastExpiryGrace time.Duration
	// Dial opens a connection; nil: TCP.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Resume re-attaches to this session instead of creating one.
	Resume *Session
	// MaxReplyBytes bounds a reply's frame (Java: jute.maxbuffer). Default 64 MiB.
	MaxReplyBytes int
	Logger        *slog.Logger
	// OnState and OnEvent are called by the client's event goroutine (see the package comment).
	OnState func(State)
	OnEvent func(Event)
}

// CreateFlags choose the kind of a new znode.
type CreateFlags int32

// The kinds that Create makes.
const (
	Persistent          CreateFlags = 0
	Ephemeral           CreateFlags = 1
	Sequential          CreateFlags = 2
	EphemeralSequential CreateFlags = 3
)

// AnyVersion matches every version.
const AnyVersion int32 = -1

// Op is one request. Make it with the constructors; the fields are exported so
// that a stand-in for the ensemble in a test can read them.
type Op struct {
	Code    jute.OpCode
	Path    string
	Data    []byte // nil and empty are different, and both are stored
	Version int32
	Flags   CreateFlags
	ACL     []jute.ACL // create; nil: world may do everything
	Watch   bool
	Ops     []Op // multi
}

// Create a znode. The result's Path is the name it got; no Stat (Apache Kafka's op 1).
func Create(path string, data []byte, flags CreateFlags) Op {
	return Op{Code: jute.OpCreate, Path: path, Data: data, Flags: flags}
}

// CreateEphemeral creates a znode that goes with the session.
func CreateEphemeral(path string, data []byte) Op { return Create(path, data, Ephemeral) }

// CreateSequential creates a persistent znode with a sequence number behind its name.
func CreateSequential(path string, data []byte) Op { return Create(path, data, Sequential) }

// Delete a znode.
func Delete(path string, version int32) Op {
	return Op{Code: jute.OpDelete, Path: path, Version: version}
}

// SetData of a znode; the result has its Stat.
func SetData(path string, data []byte, version int32) Op {
	return Op{Code: jute.OpSetData, Path: path, Data: data, Version: version}
}

// GetData of a znode, with its Stat.
func GetData(path string, watch bool) Op {
	return Op{Code: jute.OpGetData, Path: path, Watch: watch}
}

// Exists gives the Stat, or jute.NoNode; the watch stays in both cases.
func Exists(path string, watch bool) Op {
	return Op{Code: jute.OpExists, Path: path, Watch: watch}
}

// Children of a znode in no particular order, with its Stat.
func Children(path string, watch bool) Op {
	return Op{Code: jute.OpGetChildren2, Path: path, Watch: watch}
}

// Check a version; only inside Multi.
func Check(path string, version int32) Op {
	return Op{Code: jute.OpCheck, Path: path, Version: version}
}

// Sync with the leader: reads started after its result see everything committed before.
func Sync(path string) Op { return Op{Code: jute.OpSync, Path: path} }

// Multi executes all of ops (Create, Delete, SetData, Check) or none.
func Multi(ops ...Op) Op { return Op{Code: jute.OpMulti, Ops: ops} }

// Result of an Op.
type Result struct {
	// Err is nil, a jute.Code, ErrConnectionLoss, ErrSessionExpired, ErrClosed or a
	// context's error. A failed multi has the code of the op that failed.
	Err      error
	Path     string // create, sync; without the chroot
	Data     []byte
	Stat     jute.Stat
	Children []string
	Results  []Result  // multi: one for each op
	Zxid     jute.Zxid // of the reply: a write's own, else the last one the server had applied
}
