package znode

import (
	"fmt"

	"understudy/internal/coordination/jute"
)

// A write happens in two steps. A checker looks at the request and the tree, in ZooKeeper's order of checks, and gives a
// change: what is to be done, with every decision taken. Then the change is performed, which cannot fail. A multi checks
// all its operations first; what the earlier ones will have done the checker keeps beside the tree (pending), as
// ZooKeeper's PrepRequestProcessor keeps its outstanding changes. So nothing is ever to be undone.

// change is a checked operation.
type change struct {
	op     jute.OpCode
	path   string // of the node, complete; may alias the request
	id     nodeID // of the node, or 0 if it is to be looked up (it is new, or made by the same multi)
	parent nodeID // create and delete: of the parent, likewise
	data   []byte // create, setData; aliases the request
	acl    []jute.ACL
	owner  jute.SessionID
	// container marks a create of a container.
	container bool
}

// view is what the checks need to know of a node.
type view struct {
	exists      bool
	id          nodeID // 0 if made by the same multi
	ephemeral   bool
	version     int32
	aversion    int32
	numChildren int32
	counter     int32
	acl         []jute.ACL
}

// checker checks the operations of one request.
type checker struct {
	m       *Machine
	request *Request
	pending map[string]view // by canonical path; nil unless in a multi
}

func (c *checker) view(path string) view {
	path = canonical(path)
	if v, touched := c.pending[path]; touched {
		return v
	}
	id := c.m.tree.lookup(path)
	if id == 0 {
		return view{}
	}
	n := c.m.tree.node(id)
	return view{
		exists: true, id: id, ephemeral: n.owner != 0, version: n.version, aversion: n.aversion,
		numChildren: n.numChildren, counter: n.counter, acl: c.m.acls.list(n.acl),
	}
}

func (c *checker) permitted(v *view, perm int32) bool { return Permitted(v.acl, perm, c.request.Auth) }

// createMode checks a create's mode. The mode says what the node is called and whether it is ephemeral; the operation, whether
// it is a container: as in ZooKeeper they need not match. Only a createTTL without a time to live is refused here, for
// what ZooKeeper makes of it then is nobody's wish.
func createMode(op jute.OpCode, flags jute.CreateFlags) jute.Code {
	switch {
	case !flags.Known():
		return jute.BadArguments
	case flags.TTL():
		return jute.Unimplemented // extendedTypesEnabled=false, ZooKeeper's default
	case op == jute.OpCreateTTL:
		return jute.BadArguments
	}
	return jute.OK
}

// create checks a create whose mode has been checked.
func (c *checker) create(op jute.OpCode, r *jute.CreateRequest) (change, jute.Code) {
	parentPath, _, ok := splitPath(r.Path)
	if !ok {
		return change{}, jute.BadArguments
	}
	acl, code := resolveACL(r.ACL, c.request.Auth)
	if code != jute.OK {
		return change{}, code
	}
	parent := c.view(parentPath)
	if !parent.exists {
		return change{}, jute.NoNode
	}
	if !c.permitted(&parent, jute.PermCreate) {
		return change{}, jute.NoAuth
	}
	path := r.Path
	if r.Flags.Sequential() {
		path = fmt.Sprintf("%s%010d", path, parent.counter)
	}
	if !ValidPath(path) {
		return change{}, jute.BadArguments
	}
	if existing := c.view(path); existing.exists {
		return change{}, jute.NodeExists
	}
	if parent.ephemeral {
		return change{}, jute.NoChildrenForEphemerals
	}
	made := change{op: op, path: path, parent: parent.id, data: r.Data, acl: acl, container: op == jute.OpCreateContainer}
	if r.Flags.Ephemeral() && !made.container {
		made.owner = c.request.Session
	}
	if c.pending != nil {
		parent.numChildren++
		parent.counter = nextCounter(parent.counter)
		c.pending[canonical(parentPath)] = parent
		c.pending[path] = view{exists: true, ephemeral: r.Flags.Ephemeral(), acl: acl}
	}
	return made, jute.OK
}

func (c *checker) delete(path string, version int32) (change, jute.Code) {
	parentPath, _, ok := splitPath(path)
	if !ok || isSystemPath(path) {
		return change{}, jute.BadArguments
	}
	parent := c.view(parentPath)
	if !parent.exists {
		return change{}, jute.NoNode
	}
	if !c.permitted(&parent, jute.PermDelete) {
		return change{}, jute.NoAuth
	}
	node := c.view(path)
	switch {
	case !node.exists:
		return change{}, jute.NoNode
	case version != jute.AnyVersion && version != node.version:
		return change{}, jute.BadVersion
	case node.numChildren > 0:
		return change{}, jute.NotEmpty
	}
	if c.pending != nil {
		parent.numChildren--
		c.pending[canonical(parentPath)] = parent
		c.pending[path] = view{}
	}
	return change{op: jute.OpDelete, path: path, id: node.id, parent: parent.id}, jute.OK
}

// existing is the part that setData, setACL and check have in common.
func (c *checker) existing(path string, perm int32) (view, jute.Code) {
	node := c.view(path)
	if !node.exists {
		return node, jute.NoNode
	}
	if !c.permitted(&node, perm) {
		return node, jute.NoAuth
	}
	return node, jute.OK
}

func (c *checker) setData(path string, data []byte, version int32) (change, jute.Code) {
	if !ValidPath(path) {
		return change{}, jute.BadArguments
	}
	node, code := c.existing(path, jute.PermWrite)
	if code != jute.OK {
		return change{}, code
	}
	if version != jute.AnyVersion && version != node.version {
		return change{}, jute.BadVersion
	}
	if c.pending != nil {
		node.version++
		c.pending[path] = node
	}
	return change{op: jute.OpSetData, path: path, id: node.id, data: data}, jute.OK
}

func (c *checker) setACL(path string, list []jute.ACL, version int32) (change, jute.Code) {
	if !ValidPath(path) {
		return change{}, jute.BadArguments
	}
	acl, code := resolveACL(list, c.request.Auth)
	if code != jute.OK {
		return change{}, code
	}
	node, code := c.existing(path, jute.PermAdmin)
	if code != jute.OK {
		return change{}, code
	}
	if version != jute.AnyVersion && version != node.aversion {
		return change{}, jute.BadVersion
	}
	return change{op: jute.OpSetACL, path: path, id: node.id, acl: acl}, jute.OK
}

func (c *checker) check(path string, version int32) (change, jute.Code) {
	if !ValidPath(path) {
		return change{}, jute.BadArguments
	}
	node, code := c.existing(path, jute.PermRead)
	if code != jute.OK {
		return change{}, code
	}
	if version != jute.AnyVersion && version != node.version {
		return change{}, jute.BadVersion
	}
	return change{op: jute.OpCheck, path: path}, jute.OK
}
