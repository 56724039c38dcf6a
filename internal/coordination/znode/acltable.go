package znode

import "understudy/internal/coordination/jute"

// aclID numbers a list of ACLs on this member. The number does not leave it: another member may count differently.
type aclID uint32

// openACL is the list that nearly every node has; records leave it out.
const openACL aclID = 0

// aclTable keeps each list of ACLs once, counted by the nodes that have it.
type aclTable struct {
	lists [][]jute.ACL // by aclID; lists are never changed
	uses  []int
	byKey map[string]aclID // by jute encoding
	free  []aclID
}

func newACLTable() aclTable {
	return aclTable{lists: [][]jute.ACL{jute.OpenACL}, uses: []int{0}, byKey: map[string]aclID{}}
}

func (t *aclTable) list(id aclID) []jute.ACL { return t.lists[id] }

// acquire gives the number of a list and counts one more use.
func (t *aclTable) acquire(list []jute.ACL) aclID {
	if len(list) == 1 && list[0] == jute.OpenACL[0] {
		return openACL
	}
	key := jute.AppendACLs(nil, list)
	if id, known := t.byKey[string(key)]; known {
		t.uses[id]++
		return id
	}
	id := aclID(len(t.lists))
	if n := len(t.free); n > 0 {
		id, t.free = t.free[n-1], t.free[:n-1]
		t.lists[id], t.uses[id] = list, 1
	} else {
		t.lists, t.uses = append(t.lists, list), append(t.uses, 1)
	}
	t.byKey[string(key)] = id
	return id
}

// release takes back one use.
func (t *aclTable) release(id aclID) {
	if id == openACL {
		return
	}
	if t.uses[id]--; t.uses[id] > 0 {
		return
	}
	delete(t.byKey, string(jute.AppendACLs(nil, t.lists[id])))
	t.lists[id] = nil
	t.free = append(t.free, id)
}

// freeze gives the lists as they are now. Elements are replaced in the live table, so it is a copy.
func (t *aclTable) freeze() [][]jute.ACL { return append([][]jute.ACL(nil), t.lists...) }
