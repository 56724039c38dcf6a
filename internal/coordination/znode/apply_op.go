package znode

import (
	"bytes"
	"strings"

	"understudy/internal/coordination/jute"
)

// applyOp performs a client's write. A write of a session that is not there any more, or has another owner, is dropped
// and takes no zxid. Any other write takes one whether it succeeds or not, as in ZooKeeper, but for a single operation
// that does not decode.
func (m *Machine) applyOp(r *Request, timeMs int64) {
	if !m.ownedSession(r) {
		return
	}
	if r.Op == jute.OpMulti {
		m.multi(r, timeMs)
		return
	}
	if r.Op == jute.OpSetData { // the hot one
		d := jute.NewDecoder(r.Body)
		path, data, version := d.StringView(), d.BufferView(), d.Int32()
		if d.Err() != nil {
			m.result.Code = jute.MarshallingError
			return
		}
		m.takeZxid()
		c := checker{m: m, request: r}
		checked, code := c.setData(path, data, version)
		m.finish(r.Op, checked, code, timeMs)
		return
	}
	m.singleOp(r, timeMs)
}

func (m *Machine) singleOp(r *Request, timeMs int64) {
	if !isWrite(r.Op) {
		m.result.Code = jute.Unimplemented
		return
	}
	var o operation
	d := jute.NewDecoder(r.Body)
	o.decode(&d, r.Op)
	if d.Err() != nil {
		m.result.Code = jute.MarshallingError
		return
	}
	m.takeZxid()
	c := checker{m: m, request: r}
	checked, code := o.check(&c)
	m.finish(r.Op, checked, code, timeMs)
}

// ownedSession checks that the request's session exists and that the sender owns it.
func (m *Machine) ownedSession(r *Request) bool {
	s := m.sessions.get(r.Session)
	switch {
	case s == nil:
		m.result.Code = jute.SessionExpired
		return false
	case s.generation != r.Generation:
		m.result.SessionMoved = true
		m.result.Code = jute.SessionMoved
		return false
	}
	return true
}

func isWrite(op jute.OpCode) bool {
	switch op {
	case jute.OpCreate, jute.OpCreate2, jute.OpCreateContainer, jute.OpCreateTTL, jute.OpDelete, jute.OpSetData,
		jute.OpSetACL, jute.OpReconfig:
		return true
	}
	return false
}

// operation is a decoded write.
type operation struct {
	op      jute.OpCode
	create  jute.CreateRequest
	path    string // all but create; aliases the request
	noPath  bool   // the path is null
	data    []byte
	acl     []jute.ACL
	version int32
}

var openACLEncoded = jute.AppendACLs(nil, jute.OpenACL)

func (o *operation) decode(d *jute.Decoder, op jute.OpCode) {
	o.op = op
	switch op {
	case jute.OpCreate, jute.OpCreate2, jute.OpCreateContainer, jute.OpCreateTTL:
		o.create.Path, o.noPath = d.PathView()
		o.create.Data = d.BufferView()
		if bytes.HasPrefix(d.Rest(), openACLEncoded) {
			d.Skip(len(openACLEncoded))
			o.create.ACL = jute.OpenACL
		} else {
			o.create.ACL = jute.DecodeACLs(d)
		}
		o.create.Flags = jute.CreateFlags(d.Int32())
		if op == jute.OpCreateTTL {
			d.Int64()
		}
	case jute.OpDelete, jute.OpCheck:
		o.path, o.noPath = d.PathView()
		o.version = d.Int32()
	case jute.OpSetData:
		o.path, o.noPath = d.PathView()
		o.data, o.version = d.BufferView(), d.Int32()
	case jute.OpSetACL:
		o.path, o.noPath = d.PathView()
		o.acl, o.version = jute.DecodeACLs(d), d.Int32()
	case jute.OpReconfig:
		var r jute.ReconfigRequest
		r.Decode(d)
	}
}

func (o *operation) check(c *checker) (change, jute.Code) {
	switch o.op {
	case jute.OpCreate, jute.OpCreate2, jute.OpCreateContainer, jute.OpCreateTTL:
		if code := createMode(o.op, o.create.Flags); code != jute.OK {
			return change{}, code
		}
		if o.noPath {
			return change{}, jute.MarshallingError
		}
		return c.create(o.op, &o.create)
	case jute.OpDelete:
		if o.noPath {
			return change{}, jute.MarshallingError
		}
		return c.delete(o.path, o.version)
	case jute.OpSetData:
		return c.setData(o.path, o.data, o.version)
	case jute.OpSetACL:
		return c.setACL(o.path, o.acl, o.version)
	case jute.OpCheck:
		return c.check(o.path, o.version)
	case jute.OpReconfig:
		return change{}, jute.ReconfigDisabled
	}
	return change{}, jute.Unimplemented
}

// finish performs a single checked operation and makes its reply.
func (m *Machine) finish(op jute.OpCode, checked change, code jute.Code, timeMs int64) {
	m.result.Code = code
	if code != jute.OK {
		return
	}
	stat := m.perform(&checked, timeMs)
	switch op {
	case jute.OpCreate:
		m.endReply(jute.AppendString(m.beginReply(), checked.path))
	case jute.OpCreate2, jute.OpCreateContainer, jute.OpCreateTTL:
		m.endReply(stat.Append(jute.AppendString(m.beginReply(), checked.path)))
	case jute.OpSetData, jute.OpSetACL:
		m.endReply(stat.Append(m.beginReply()))
	}
}

// multi checks all operations of a multi and then performs them all or none. A failed one is OK in its header; the
// codes are in the entries.
func (m *Machine) multi(r *Request, timeMs int64) {
	operations, fault := decodeMulti(m.operations[:0], r.Body)
	m.operations = operations
	defer m.forgetMulti()
	if fault != multiNullACL {
		m.takeZxid()
	}
	if fault != multiWhole {
		m.result.Code = jute.MarshallingError
		return
	}
	c := checker{m: m, request: r, pending: m.pending}
	for i := range operations {
		checked, code := operations[i].check(&c)
		if code != jute.OK {
			m.endReply(appendFailedMulti(m.beginReply(), len(operations), i, code))
			return
		}
		m.changes = append(m.changes, checked)
	}
	reply := m.beginReply()
	for i := range m.changes {
		stat := m.perform(&m.changes[i], timeMs)
		reply = appendMultiResult(reply, operations[i].op, m.changes[i].path, &stat)
	}
	m.endReply(jute.MultiEnd.Append(reply))
}

// keptOperations bounds what is kept from one request for the next ones.
const keptOperations = 1024

// forgetMulti drops all that aliases the request, and the memory itself after an unusually large one.
func (m *Machine) forgetMulti() {
	if len(m.operations) > keptOperations {
		m.operations, m.changes, m.pending = nil, nil, map[string]view{}
		return
	}
	clear(m.operations)
	clear(m.changes)
	clear(m.pending)
	m.changes = m.changes[:0]
}

func allowedInMulti(op jute.OpCode) bool {
	switch op {
	case jute.OpCreate, jute.OpCreate2, jute.OpCreateContainer, jute.OpCreateTTL, jute.OpDelete, jute.OpSetData,
		jute.OpCheck:
		return true
	}
	return false
}

// multiFault says what is wrong with a multi as a whole.
type multiFault uint8

const (
	multiWhole     multiFault = iota
	multiMalformed            // does not decode, an operation that does not belong there, or an impossible mode
	multiNullPath             // decodes, but one of the paths is null
	multiNullACL              // a create with a null list: ZooKeeper trips over it before it takes a zxid
)

// decodeMulti decodes a multi's operations, with the checks that ZooKeeper makes meanwhile (MultiOperationRecord): the
// first fault decides.
func decodeMulti(operations []operation, body []byte) (_ []operation, fault multiFault) {
	d := jute.NewDecoder(body)
	reads, noPath := false, false
	jute.EachMulti(&d, func(h jute.MultiHeader) bool {
		switch {
		case h.Type == jute.OpGetData || h.Type == jute.OpGetChildren: // decoded with the others, refused afterwards
			d.StringView()
			d.Bool()
			if reads = true; len(operations) > 0 {
				fault = multiMalformed
			}
		case allowedInMulti(h.Type):
			var o operation
			o.decode(&d, h.Type)
			if fault = o.completeInMulti(); d.Err() != nil || (reads && fault == multiWhole) {
				fault = multiMalformed
			}
			noPath = noPath || o.noPath
			operations = append(operations, o)
		default:
			fault = multiMalformed
		}
		return fault == multiWhole
	})
	switch {
	case fault != multiWhole:
	case reads || d.Err() != nil:
		fault = multiMalformed
	case noPath:
		fault = multiNullPath
	}
	return operations, fault
}

// completeInMulti checks what a multi checks of a create when it is decoded. There the mode has a say in which operation it
// is: that of a container makes one, and a createTTL without a time to live is a plain create (Op.Create).
func (o *operation) completeInMulti() multiFault {
	flags := o.create.Flags
	switch o.op {
	case jute.OpCreate, jute.OpCreate2, jute.OpCreateContainer:
		switch {
		case !flags.Known():
			return multiMalformed
		case o.create.ACL == nil:
			return multiNullACL
		case flags.TTL():
			return multiMalformed
		}
	case jute.OpCreateTTL:
		if !flags.TTL() {
			o.op = jute.OpCreate
		}
	default:
		return multiWhole
	}
	if flags == jute.FlagContainer {
		o.op = jute.OpCreateContainer
	}
	return multiWhole
}

func appendMultiResult(dst []byte, op jute.OpCode, path string, stat *jute.Stat) []byte {
	header := jute.MultiHeader{Type: op}
	switch op {
	case jute.OpCreate:
		return jute.AppendString(header.Append(dst), path)
	case jute.OpCreate2, jute.OpCreateContainer, jute.OpCreateTTL:
		header.Type = jute.OpCreate2 // all three come back as this one
		return stat.Append(jute.AppendString(header.Append(dst), path))
	case jute.OpSetData:
		return stat.Append(header.Append(dst))
	}
	return header.Append(dst)
}

// appendFailedMulti makes the reply of a multi whose operation at failed was refused: 0 for those before it, though
// nothing was done, and RuntimeInconsistency for those after.
func appendFailedMulti(dst []byte, count, failed int, code jute.Code) []byte {
	for i := range count {
		entry := jute.OK
		switch {
		case i == failed:
			entry = code
		case i > failed:
			entry = jute.RuntimeInconsistency
		}
		header, body := jute.MultiHeader{Type: jute.OpError, Err: entry}, jute.ErrorResponse{Err: entry}
		dst = body.Append(header.Append(dst))
	}
	return jute.MultiEnd.Append(dst)
}

// perform does what has been checked, under the zxid of the request under way, and gives the node's Stat where the
// reply may need it.
func (m *Machine) perform(c *change, timeMs int64) (stat jute.Stat) {
	switch c.op {
	case jute.OpCreate, jute.OpCreate2, jute.OpCreateContainer, jute.OpCreateTTL:
		return m.performCreate(c, timeMs)
	case jute.OpDelete:
		m.performDelete(m.resolve(c.id, c.path), strings.Clone(c.path))
	case jute.OpSetData:
		return m.performSetData(c, timeMs)
	case jute.OpSetACL:
		return m.performSetACL(c)
	}
	return stat
}

// resolve finds a node that the check knew by its path only.
func (m *Machine) resolve(id nodeID, path string) nodeID {
	if id != 0 {
		return id
	}
	return m.tree.lookup(path)
}

func (m *Machine) performCreate(c *change, timeMs int64) jute.Stat {
	path := strings.Clone(c.path) // events outlive the request
	parentPath, name, _ := splitPath(path)
	parent := m.resolve(c.parent, parentPath)
	zxid := m.result.Zxid
	created := node{
		name: name, acl: m.acls.acquire(c.acl), czxid: zxid, mzxid: zxid, pzxid: zxid, ctime: timeMs, mtime: timeMs,
		owner: c.owner, data: c.data,
	}
	if c.container {
		created.flags = flagContainer
	}
	id := m.tree.insert(parent, &created)
	m.tree.touchChildren(parent, nextCounter(m.tree.counter(parent)), zxid)
	m.tree.size += int64(textUnits(path) + len(c.data))
	if c.owner != 0 {
		m.sessions.addEphemeral(c.owner, id)
	}
	if c.container {
		m.containers[id] = struct{}{}
	}
	m.countCreated(path, parentPath, name, len(c.data))
	m.event(jute.EventCreated, path, c.acl)
	m.event(jute.EventChildrenChanged, canonical(parentPath), m.aclOf(parent))
	return created.stat()
}

func (m *Machine) performDelete(id nodeID, path string) {
	gone := m.tree.node(id)
	dataBytes := len(gone.data)
	parentPath, name, _ := splitPath(path)
	parent, acl := gone.parent, m.acls.list(gone.acl)
	if gone.owner != 0 {
		m.sessions.removeEphemeral(gone.owner, id)
	}
	if gone.flags&flagContainer != 0 {
		delete(m.containers, id)
	}
	m.tree.size -= int64(textUnits(path) + dataBytes)
	m.acls.release(gone.acl)
	m.tree.removeLeaf(id)
	m.tree.touchChildren(parent, m.tree.counter(parent), m.result.Zxid)
	m.countDeleted(path, parentPath, name, dataBytes)
	m.event(jute.EventDeleted, path, acl)
	m.event(jute.EventChildrenChanged, canonical(parentPath), m.aclOf(parent))
}

func (m *Machine) performSetData(c *change, timeMs int64) jute.Stat {
	id := m.resolve(c.id, c.path)
	n := m.tree.node(id)
	grown := len(c.data) - len(n.data)
	m.tree.size += int64(grown)
	n.flags |= flagChanged
	n.version++
	n.data, n.mzxid, n.mtime = c.data, m.result.Zxid, timeMs
	stat := n.stat()
	acl := m.acls.list(n.acl)
	m.tree.update(id, &n)
	m.count(c.path, 0, grown)
	m.event(jute.EventDataChanged, strings.Clone(c.path), acl)
	return stat
}

func (m *Machine) performSetACL(c *change) jute.Stat {
	id := m.resolve(c.id, c.path)
	n := m.tree.node(id)
	before := n.acl
	n.flags |= flagChanged
	n.aversion++
	n.acl = m.acls.acquire(c.acl)
	m.acls.release(before)
	stat := n.stat()
	m.tree.update(id, &n)
	return stat
}

func (m *Machine) aclOf(id nodeID) []jute.ACL {
	record := m.tree.record(id)
	if record[0]&flagACL == 0 {
		return jute.OpenACL
	}
	n := m.tree.node(id)
	return m.acls.list(n.acl)
}
