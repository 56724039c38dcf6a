package znode

import (
	"bytes"
	"slices"
	"strings"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/watch"
)

// HandleRead answers the local reads: exists, getData, getACL, getChildren, getChildren2, multiRead, getEphemerals and
// getAllChildrenNumber.
func (m *Machine) HandleRead(op jute.OpCode, body []byte, auth []jute.ID, session jute.SessionID) (reply []byte, code jute.Code, reg WatchRegistration) {
	return m.AppendRead(nil, op, body, auth, session)
}

// AppendRead is HandleRead into the caller's buffer: the reply body is appended to dst. With an error dst comes back as
// it was, but for a multiRead that fails as a whole, whose reply carries the entries so far. A registration may come with the error NoNode: exists waits for nodes that are not there.
func (m *Machine) AppendRead(dst []byte, op jute.OpCode, body []byte, auth []jute.ID, session jute.SessionID) ([]byte, jute.Code, WatchRegistration) {
	d := jute.NewDecoder(body)
	switch op {
	case jute.OpGetData, jute.OpExists, jute.OpGetChildren, jute.OpGetChildren2:
		path, null := d.PathView()
		watched := d.Bool()
		if null || d.Err() != nil {
			return dst, jute.MarshallingError, WatchRegistration{}
		}
		dst, code := m.readNode(dst, op, path, auth)
		return dst, code, registration(op, path, watched, code)
	case jute.OpMultiRead:
		dst, code := m.multiRead(dst, body, auth)
		return dst, code, WatchRegistration{}
	case jute.OpGetACL, jute.OpGetAllChildrenNum, jute.OpGetEphemerals:
		path, null := d.PathView()
		if d.Err() != nil || (null && op != jute.OpGetEphemerals) {
			return dst, jute.MarshallingError, WatchRegistration{}
		}
		if op == jute.OpGetEphemerals {
			return jute.AppendStrings(dst, m.Ephemerals(session, ephemeralPrefix(path))), jute.OK, WatchRegistration{}
		}
		dst, code := m.readNode(dst, op, path, auth)
		return dst, code, WatchRegistration{}
	}
	return dst, jute.Unimplemented, WatchRegistration{}
}

// ephemeralPrefix gives what getEphemerals compares with: "" for all that ZooKeeper takes for no prefix at all.
func ephemeralPrefix(path string) string {
	switch strings.TrimFunc(path, func(r rune) bool { return r <= ' ' }) {
	case "", "/":
		return ""
	}
	return path
}

// registration says which watch a read leaves behind. A read that fails leaves none, but for exists of a missing node.
func registration(op jute.OpCode, path string, watched bool, code jute.Code) WatchRegistration {
	kind := watch.None
	switch {
	case !watched:
	case op == jute.OpExists && (code == jute.OK || code == jute.NoNode):
		kind = watch.Exists
	case code != jute.OK:
	case op == jute.OpGetData:
		kind = watch.Data
	default:
		kind = watch.Child
	}
	if kind == watch.None {
		return WatchRegistration{}
	}
	return WatchRegistration{Kind: kind, Path: strings.Clone(path)}
}

// readNode answers the reads of one node.
func (m *Machine) readNode(dst []byte, op jute.OpCode, path string, auth []jute.ID) ([]byte, jute.Code) {
	if op == jute.OpExists && strings.IndexByte(path, 0) >= 0 {
		return dst, jute.BadArguments
	}
	id := m.tree.lookup(path)
	if id == 0 {
		return dst, jute.NoNode
	}
	n := m.tree.node(id)
	needed := jute.PermRead
	if op == jute.OpGetACL {
		needed |= jute.PermAdmin // either
	}
	if n.acl != openACL && !Permitted(m.acls.list(n.acl), needed, auth) {
		return dst, jute.NoAuth
	}
	stat := n.stat()
	switch op {
	case jute.OpGetData:
		dst = slices.Grow(dst, 4+len(n.data)+jute.StatBytes)
		return stat.Append(jute.AppendBuffer(dst, n.data)), jute.OK
	case jute.OpExists:
		return stat.Append(dst), jute.OK
	case jute.OpGetChildren:
		return m.appendChildren(dst, &n), jute.OK
	case jute.OpGetChildren2:
		return stat.Append(m.appendChildren(dst, &n)), jute.OK
	case jute.OpGetACL:
		list := m.acls.list(n.acl)
		if !Permitted(list, jute.PermAdmin, auth) {
			list = hidePasswords(list)
		}
		return stat.Append(jute.AppendACLs(dst, list)), jute.OK
	case jute.OpGetAllChildrenNum:
		count := m.countBelow(id)
		if path == "" {
			count++ // of what ZooKeeper keeps the root under, "" and "/", the latter counts as below the former
		}
		return jute.AppendInt32(dst, count), jute.OK
	}
	return dst, jute.Unimplemented
}

func (m *Machine) appendChildren(dst []byte, n *node) []byte {
	dst = jute.AppendInt32(dst, n.numChildren)
	for child := n.firstChild; child != 0; {
		record := m.tree.record(child)
		dst = jute.AppendString(dst, recordName(record))
		child = link(record, atNext)
	}
	return dst
}

func (m *Machine) countBelow(id nodeID) int32 {
	if id == rootID {
		return int32(m.tree.count - 1)
	}
	count := int32(0)
	for below := m.tree.following(id, id); below != 0; below = m.tree.following(below, id) {
		count++
	}
	return count
}

// multiRead answers each getData and getChildren for itself; watch flags mean nothing here. As in ZooKeeper
// (FinalRequestProcessor), a body that does not decode, or mixes reads and writes, is an error alone; one that decodes and
// cannot be answered, because it has a null path or consists of writes, an error followed by what was answered until then.
func (m *Machine) multiRead(dst []byte, body []byte, auth []jute.ID) ([]byte, jute.Code) {
	switch kind := multiReadKind(body); kind {
	case multiReadMalformed:
		return dst, jute.MarshallingError
	case multiReadOfWrites:
		return jute.MultiEnd.Append(dst), jute.MarshallingError
	}
	d := jute.NewDecoder(body)
	result := jute.OK
	jute.EachMulti(&d, func(h jute.MultiHeader) bool {
		path, null := d.PathView()
		d.Bool()
		if null {
			result = jute.MarshallingError
			return false
		}
		header, at := jute.MultiHeader{Type: h.Type}, len(dst)
		var code jute.Code
		if dst, code = m.readNode(header.Append(dst), h.Type, path, auth); code != jute.OK {
			header, body := jute.MultiHeader{Type: jute.OpError, Err: code}, jute.ErrorResponse{Err: code}
			dst = body.Append(header.Append(dst[:at]))
		}
		return true
	})
	return jute.MultiEnd.Append(dst), result
}

type multiReadContent uint8

const (
	multiReadOfReads multiReadContent = iota
	multiReadOfWrites
	multiReadMalformed
)

func multiReadKind(body []byte) multiReadContent {
	d := jute.NewDecoder(body)
	kind, count := multiReadOfReads, 0
	jute.EachMulti(&d, func(h jute.MultiHeader) bool {
		if h.Type != jute.OpGetData && h.Type != jute.OpGetChildren {
			kind = multiReadMalformed
			return false
		}
		d.StringView()
		d.Bool()
		count++
		return d.Err() == nil
	})
	if d.Err() != nil {
		return multiReadMalformed
	}
	if kind == multiReadMalformed && count == 0 { // begins with something else
		if _, fault := decodeMulti(nil, body); fault == multiWhole || fault == multiNullPath {
			return multiReadOfWrites
		}
	}
	return kind
}

// Exists gives a node's Stat. No ACL is checked.
func (m *Machine) Exists(path string) (jute.Stat, bool) {
	id := m.tree.lookup(path)
	if id == 0 {
		return jute.Stat{}, false
	}
	n := m.tree.node(id)
	return n.stat(), true
}

// GetData gives a copy of a node's data (nil is null) and its Stat. No ACL is checked.
func (m *Machine) GetData(path string) ([]byte, jute.Stat, bool) {
	id := m.tree.lookup(path)
	if id == 0 {
		return nil, jute.Stat{}, false
	}
	n := m.tree.node(id)
	return bytes.Clone(n.data), n.stat(), true
}

// GetACL gives a node's list, which must not be changed, and its Stat.
func (m *Machine) GetACL(path string) ([]jute.ACL, jute.Stat, bool) {
	id := m.tree.lookup(path)
	if id == 0 {
		return nil, jute.Stat{}, false
	}
	n := m.tree.node(id)
	return m.acls.list(n.acl), n.stat(), true
}

// CheckRead tells whether identities may read a node: OK, NoNode or NoAuth.
func (m *Machine) CheckRead(path string, auth []jute.ID) jute.Code {
	acl, _, exists := m.GetACL(path)
	switch {
	case !exists:
		return jute.NoNode
	case !Permitted(acl, jute.PermRead, auth):
		return jute.NoAuth
	}
	return jute.OK
}

// Children lists a node's children in the order of their creation. No ACL is checked.
func (m *Machine) Children(path string) ([]string, bool) {
	id := m.tree.lookup(path)
	if id == 0 {
		return nil, false
	}
	names := []string{}
	for child := m.tree.firstChild(id); child != 0; child = m.tree.nextSibling(child) {
		names = append(names, strings.Clone(recordName(m.tree.record(child))))
	}
	return names, true
}

// NodeZxids gives what setWatches compares with; it is a watch.NodeZxids.
func (m *Machine) NodeZxids(path string) (mzxid, pzxid jute.Zxid, exists bool) {
	stat, exists := m.Exists(path)
	return stat.Mzxid, stat.Pzxid, exists
}

// Ephemerals lists the paths of a session's ephemerals that begin with prefix, sorted; the result is never nil.
func (m *Machine) Ephemerals(session jute.SessionID, prefix string) []string {
	paths := make([]string, 0, len(m.sessions.ephemerals[session]))
	for id := range m.sessions.ephemerals[session] {
		if path := m.tree.path(id); strings.HasPrefix(path, prefix) {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return paths
}

// NodeCount is the number of nodes as ZooKeeper counts them: the root is there twice, as "" and as "/".
func (m *Machine) NodeCount() int { return m.tree.count + 1 }

// ApproximateDataSize is the sum of the lengths of all paths and data, as ZooKeeper reports it.
func (m *Machine) ApproximateDataSize() int64 { return m.tree.size }

// MemoryBytes is what the nodes take on this member, free slots included and the index apart.
func (m *Machine) MemoryBytes() int64 { return m.tree.bytes() }

// EphemeralCount is the number of ephemeral nodes.
func (m *Machine) EphemeralCount() int { return m.sessions.count }

// SessionCount is the number of sessions.
func (m *Machine) SessionCount() int { return len(m.sessions.at) }

// Session looks up a session.
func (m *Machine) Session(id jute.SessionID) (SessionInfo, bool) {
	s := m.sessions.get(id)
	if s == nil {
		return SessionInfo{}, false
	}
	return m.sessionInfo(s), true
}

// Sessions calls visit for every session, ordered by id, until it returns false.
func (m *Machine) Sessions(visit func(SessionInfo) bool) {
	for _, s := range sortSessions(m.sessions.freeze()) {
		if !visit(m.sessionInfo(s)) {
			return
		}
	}
}

func (m *Machine) sessionInfo(s *session) SessionInfo {
	return SessionInfo{
		ID: s.id, TimeoutMs: s.timeoutMs, GraceMs: s.graceMs, Password: s.password, Owner: s.owner,
		Generation: s.generation, ConnectionLost: s.lost, LostAtMs: s.lostAtMs,
		Ephemerals: len(m.sessions.ephemerals[s.id]),
	}
}
