package zkserver

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"strings"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/watch"
	"understudy/internal/coordination/znode"
)

// dispatch sends the current request on its way. It is the reader's.
func (c *conn) dispatch() error {
	r := &c.current
	switch r.op {
	case jute.OpCreate, jute.OpCreate2, jute.OpCreateContainer, jute.OpCreateTTL, jute.OpDelete,
		jute.OpSetData, jute.OpSetACL, jute.OpMulti, jute.OpReconfig:
		return c.submit(znode.KindOp)
	case jute.OpCloseSession:
		if err := c.submit(znode.KindCloseSession); err != nil {
			return err
		}
		return errLast
	case jute.OpSync:
		return c.sync()
	case jute.OpAuth:
		r.code = c.authenticate(r.body)
		r.final = r.code != jute.OK
	case jute.OpSASL:
		// Without a JAAS section upstream answers a null token, and the client goes on unauthenticated.
		d := jute.NewDecoder(r.body)
		if d.BufferView() == nil {
			return errors.New("sasl request without a token")
		}
	case jute.OpExists, jute.OpGetData, jute.OpGetACL, jute.OpGetChildren, jute.OpGetChildren2, jute.OpMultiRead,
		jute.OpGetEphemerals, jute.OpGetAllChildrenNum, jute.OpPing, jute.OpWhoAmI, jute.OpSetWatches,
		jute.OpSetWatches2, jute.OpAddWatch, jute.OpCheckWatches, jute.OpRemoveWatches:
	default:
		// check outside of a multi, what only servers may ask for (createSession, deleteContainer), and the unknown.
		r.code, r.final = jute.Unimplemented, true
	}
	c.perform()
	if r.final {
		return errLast
	}
	return nil
}

// submit queues a write and hands it to the ensemble. The order matters: the outcome may come before Submit returns.
func (c *conn) submit(kind znode.Kind) error {
	r := c.current
	r.waits = true
	r.final = kind == znode.KindCloseSession
	r.body = bytes.Clone(r.body)
	c.mu.Lock()
	if c.mu.closed {
		c.mu.Unlock()
		return net.ErrClosed
	}
	c.mu.queue.push(r)
	c.mu.Unlock()
	c.server.member.Submit(znode.Request{
		Kind: kind, Session: c.mu.session, Generation: c.mu.generation, // both are set once, before
		Xid: r.xid, Op: r.op, Body: r.body, Auth: r.auth,
	}, c)
	return nil
}

// perform answers the current request now, or queues it behind unfinished writes. Only the reader queues, so a queue
// that is empty stays so meanwhile.
func (c *conn) perform() {
	c.mu.Lock()
	queued := c.mu.queue.len() > 0
	if queued {
		r := c.current
		r.body = bytes.Clone(r.body)
		c.mu.queue.push(r)
	}
	c.mu.Unlock()
	if !queued {
		c.server.member.View(c.view)
	}
}

// performCurrent is perform under the tree's read lock.
func (c *conn) performCurrent(m *znode.Machine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.queue.len() > 0 { // a sync's reply behind unfinished writes
		c.mu.queue.push(c.current)
		return
	}
	c.performLocked(m, &c.current)
}

// sync waits until all that was committed anywhere when it came in has been applied here. Nothing behind it is looked
// at meanwhile: a read must not come before it, and a write behind that read not before the read.
func (c *conn) sync() error {
	c.flush()
	c.current.body = bytes.Clone(c.current.body)
	d := jute.NewDecoder(c.current.body)
	if !hasString(&d) {
		c.current.code = jute.MarshallingError
		c.perform()
		return nil
	}
	c.current.body = c.current.body[:len(c.current.body)-len(d.Rest())] // what is echoed
	c.server.member.Barrier(c, c.barrier)
	if c.stepped {
		return errSyncing
	}
	select {
	case ok := <-c.synced:
		return c.syncEnds(ok)
	case <-c.done:
		return net.ErrClosed
	}
}

// errSyncing says that a Stepped goes on with syncEnds once the barrier has answered.
var errSyncing = errors.New("sync under way")

// syncEnds answers the sync that is the current request.
func (c *conn) syncEnds(ok bool) error {
	if !ok {
		return errors.New("sync: no quorum")
	}
	c.server.member.View(c.view)
	return nil
}

func hasString(d *jute.Decoder) bool {
	d.StringView()
	return d.Err() == nil
}

// authenticate adds the identity that an auth packet claims; it counts for every request behind it.
func (c *conn) authenticate(body []byte) jute.Code {
	var packet jute.AuthPacket
	d := jute.NewDecoder(body)
	packet.Decode(&d)
	if d.Err() != nil {
		return jute.MarshallingError
	}
	switch packet.Scheme {
	case znode.SchemeIP: // known already
		return jute.OK
	case znode.SchemeDigest:
	default:
		c.server.stats.authFailed.Add(1)
		c.server.warn("zookeeper client asks for an unknown authentication scheme", "client", c.remote, "scheme", packet.Scheme)
		return jute.AuthFailed
	}
	id := znode.DigestID(string(packet.Auth))
	if id.ID == c.server.config.SuperDigest {
		c.addIdentity(jute.ID{Scheme: znode.SchemeSuper})
	}
	c.addIdentity(id)
	return jute.OK
}

func (c *conn) addIdentity(id jute.ID) {
	for _, have := range c.mu.auth { // only this goroutine changes it
		if have == id {
			return
		}
	}
	auth := append(append(make([]jute.ID, 0, len(c.mu.auth)+1), c.mu.auth...), id)
	c.mu.Lock()
	c.mu.auth = auth
	c.mu.Unlock()
}

// performLocked answers a request from the tree as it is. The tree's lock, in either mode, and c.mu are held.
func (c *conn) performLocked(m *znode.Machine, r *request) {
	if c.mu.closed || c.mu.last {
		return
	}
	zxid := m.LastZxid()
	if r.code != jute.OK {
		switch r.code {
		case jute.Unimplemented:
			zxid = -1
		case jute.AuthFailed:
			zxid = 0
		}
		c.replyLocked(r, zxid, r.code, nil)
		c.mu.last = r.final
		return
	}
	switch r.op {
	case jute.OpPing:
		pong := *r // counted under the xid that was sent
		pong.xid = jute.XidPing
		c.replyLocked(&pong, zxid, jute.OK, nil)
		c.mu.stats.lastXid(r.xid)
	case jute.OpAuth:
		c.replyLocked(r, 0, jute.OK, nil)
	case jute.OpSASL:
		c.replyLocked(r, 0, jute.OK, []byte{0xff, 0xff, 0xff, 0xff})
	case jute.OpSync:
		c.replyLocked(r, zxid, jute.OK, r.body)
	case jute.OpWhoAmI:
		c.replyLocked(r, zxid, jute.OK, whoAmI(r.auth))
	case jute.OpSetWatches, jute.OpSetWatches2:
		c.setWatchesLocked(m, r, zxid)
	case jute.OpAddWatch, jute.OpCheckWatches, jute.OpRemoveWatches:
		c.watchOpLocked(r, zxid)
	default:
		c.readLocked(m, r, zxid)
	}
}

const replyHeaderBytes = 16

// readLocked reads from the tree straight into the output.
func (c *conn) readLocked(m *znode.Machine, r *request, zxid jute.Zxid) {
	start := len(c.mu.out)
	header := jute.ReplyHeader{Xid: r.xid, Zxid: zxid}
	out := header.Append(jute.BeginFrame(c.mu.out))
	out, code, registration := m.AppendRead(out, r.op, r.body, r.auth, c.mu.session)
	binary.BigEndian.PutUint32(out[start+replyHeaderBytes:], uint32(code)) // the header's last field, behind the length
	c.mu.out = jute.EndFrame(out, start)
	if registration.Kind != watch.None {
		c.watch(func(t *watch.Table[*conn]) { t.Add(registration.Kind, registration.Path, c) })
	}
	c.mu.stats.replied(r, zxid)
}

// watch changes the table of watches, unless the connection is gone.
func (c *conn) watch(change func(*watch.Table[*conn])) {
	c.server.watches.Lock()
	defer c.server.watches.Unlock()
	if !c.unwatched {
		change(c.server.watches.table)
	}
}

func (c *conn) setWatchesLocked(m *znode.Machine, r *request, zxid jute.Zxid) {
	var request jute.SetWatches
	d := jute.NewDecoder(r.body)
	if r.op == jute.OpSetWatches2 {
		request.Decode(&d)
	} else {
		request.DecodeOneShot(&d)
		request.Persistent, request.PersistentRecursive = []string{}, []string{} // as if sent empty
	}
	if d.Err() != nil {
		c.replyLocked(r, zxid, jute.MarshallingError, nil)
		return
	}
	var missed []jute.WatcherEvent
	code := jute.OK
	c.watch(func(t *watch.Table[*conn]) { missed, code = t.Restore(nil, &request, c, m.NodeZxids) })
	for i := range missed {
		c.mu.out = appendEvent(c.mu.out, &missed[i], -1)
	}
	c.replyLocked(r, zxid, code, nil)
}

func (c *conn) watchOpLocked(r *request, zxid jute.Zxid) {
	var add jute.AddWatchRequest
	var which jute.WatcherRequest
	d := jute.NewDecoder(r.body)
	if r.op == jute.OpAddWatch {
		add.Decode(&d)
	} else {
		which.Decode(&d)
	}
	code := jute.MarshallingError
	var body []byte
	if d.Err() == nil {
		c.watch(func(t *watch.Table[*conn]) {
			switch r.op {
			case jute.OpAddWatch:
				code, body = t.AddWatch(&add, c), []byte{0, 0, 0, 0}
			case jute.OpCheckWatches:
				code = t.Check(which.Type, which.Path, c)
			default:
				code = t.Remove(which.Type, which.Path, c)
			}
		})
	}
	c.replyLocked(r, zxid, code, body)
}

// whoAmI shows of a digest the user alone.
func whoAmI(auth []jute.ID) []byte {
	response := jute.WhoAmIResponse{Clients: make([]jute.ClientInfo, len(auth))}
	for i, id := range auth {
		user := id.ID
		if id.Scheme == znode.SchemeDigest {
			user, _, _ = strings.Cut(user, ":")
		}
		response.Clients[i] = jute.ClientInfo{Scheme: id.Scheme, User: user}
	}
	return response.Append(nil)
}

func appendEvent(dst []byte, event *jute.WatcherEvent, zxid jute.Zxid) []byte {
	start := len(dst)
	header := jute.ReplyHeader{Xid: jute.XidNotification, Zxid: zxid}
	return jute.EndFrame(event.Append(header.Append(jute.BeginFrame(dst))), start)
}
