package znode

import (
	"io"

	"understudy/internal/coordination/jute"
)

// Machine is the replicated state. See the package comment for who may call what when.
type Machine struct{}

// New makes the fresh tree: "/", /zookeeper, /zookeeper/config and /zookeeper/quota, no sessions, zxid 0.
func New() *Machine { return &Machine{} }

// Apply performs one log entry and calls emit once per request, in order.
func (m *Machine) Apply(raftTerm uint64, b *Batch, emit func(i int, r *Result)) {}

// HandleRead answers the local reads: exists, getData, getACL, getChildren, getChildren2, multiRead, getEphemerals and
// getAllChildrenNumber.
func (m *Machine) HandleRead(op jute.OpCode, body []byte, auth []jute.ID, session jute.SessionID) (reply []byte, code jute.Code, reg WatchRegistration) {
	return nil, jute.Unimplemented, reg
}

// AppendRead is HandleRead into the caller's buffer: the reply body is appended to dst. With an error dst comes back as
// it was.
func (m *Machine) AppendRead(dst []byte, op jute.OpCode, body []byte, auth []jute.ID, session jute.SessionID) ([]byte, jute.Code, WatchRegistration) {
	return dst, jute.Unimplemented, WatchRegistration{}
}

// LastZxid is the last zxid given out.
func (m *Machine) LastZxid() jute.Zxid { return 0 }

// Exists gives a node's Stat.
func (m *Machine) Exists(path string) (jute.Stat, bool) { return jute.Stat{}, false }

// GetData gives a copy of a node's data (nil is null) and its Stat. No ACL is checked.
func (m *Machine) GetData(path string) ([]byte, jute.Stat, bool) { return nil, jute.Stat{}, false }

// Children lists a node's children in the order of their creation. No ACL is checked.
func (m *Machine) Children(path string) ([]string, bool) { return nil, false }

// NodeZxids gives what setWatches compares with.
func (m *Machine) NodeZxids(path string) (mzxid, pzxid jute.Zxid, exists bool) { return }

// Ephemerals lists the paths of a session's ephemerals that begin with prefix, sorted.
func (m *Machine) Ephemerals(session jute.SessionID, prefix string) []string { return nil }

// Session looks up a session.
func (m *Machine) Session(id jute.SessionID) (SessionInfo, bool) { return SessionInfo{}, false }

// Sessions calls visit for every session, ordered by id, until it returns false.
func (m *Machine) Sessions(visit func(SessionInfo) bool) {}

// SessionCount is the number of sessions.
func (m *Machine) SessionCount() int { return 0 }

// EphemeralCount is the number of ephemeral nodes.
func (m *Machine) EphemeralCount() int { return 0 }

// NodeCount is the number of nodes as ZooKeeper counts them: the root is there twice, as "" and as "/".
func (m *Machine) NodeCount() int { return 0 }

// ApproximateDataSize is the sum of the lengths of all paths and data, as ZooKeeper reports it.
func (m *Machine) ApproximateDataSize() int64 { return 0 }

// NextSequence is the sequence that Apply waits for from an incarnation of a member: what a member sends again from
// after a change of raft leader. A new incarnation begins at 1.
func (m *Machine) NextSequence(origin MemberID, incarnation uint64) uint64 { return 0 }

// RaftTerm is the highest raft term applied.
func (m *Machine) RaftTerm() uint64 { return 0 }

// ReapCandidates lists at most limit containers that were used and are empty now, sorted by path.
func (m *Machine) ReapCandidates(nowMs int64, limit int) []string { return nil }

// Checksum is a hash of the whole state. It walks everything.
func (m *Machine) Checksum() uint64 { return 0 }

// Freeze gives the state as it is now, to be written while Apply goes on. It takes microseconds; what Apply changes
// afterwards is copied first, in pieces of 64 KiB, until the snapshot is closed.
func (m *Machine) Freeze() *Snapshot { return &Snapshot{} }

// Snapshot is a frozen state. It must be closed.
type Snapshot struct{}

// WriteTo writes the snapshot as a stream with a version and checksums.
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) { return 0, nil }

// LastZxid is the last zxid of the frozen state.
func (s *Snapshot) LastZxid() jute.Zxid { return 0 }

// Close lets the machine write in place again. It may be called more than once.
func (s *Snapshot) Close() {}

// Restore reads what WriteTo wrote, to its end, and checks all of it. It reads exactly the snapshot's bytes.
func Restore(r io.Reader) (*Machine, error) { return New(), nil }
