package coordination

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"understudy/internal/coordination/jute"
)

// client is a program that uses the ensemble, with one session after the other.
type client struct {
	w       *world
	index   int
	name    string
	sess    *session
	conn    *connection
	last    *member    // tried last
	pending []*request // sent on conn, in order
	muteTo  time.Duration
	backlog []func()
	heard   time.Duration
	sent    time.Duration
	tokens  int
	ticks   int // number of the running ticker
	waits   bool
	thief   bool // a stranger with somebody's session id, who does not know the password
}

// session is one session as its client knows it.
type session struct {
	c        *client
	id       jute.SessionID
	password []byte
	timeout  time.Duration
	grace    time.Duration
	seen     jute.Zxid // the zxid of the last answer
	xid      int32
	reads    bool // it only ever reads
	over     bool
	leaving  bool
	left     time.Duration // when the client let go of it

	watches map[watchKey]*watch
	sentOn  map[int32]*sentWrite // by xid
	expect  map[int][]int32      // writes sent, by connection
}

// sentWrite is a write that was sent, and where in its connection's order.
type sentWrite struct{ connection, place int }

type watchKind uint8

const (
	dataWatch watchKind = iota
	existWatch
	childWatch
	persistentWatch
	recursiveWatch
)

func (k watchKind) once() bool { return k <= childWatch }

type watchKey struct {
	kind watchKind
	path string
}

// watch is one that a server holds for the client, or did before the connection was lost.
type watch struct {
	since   jute.Zxid // changes behind this one count
	active  bool      // on the present connection
	checked int       // changes looked at, of a lasting one
}

// request is one that was sent and not answered.
type request struct {
	xid       int32
	op        jute.OpCode
	path      string
	watch     bool
	mode      jute.AddWatchMode
	floor     jute.Zxid // of a write: what anybody had seen before it was sent
	syncFloor jute.Zxid // of a read behind a sync: what anybody had seen before the sync
	restore   *jute.SetWatches
	missed    []jute.WatcherEvent // that came before the answer to restore
}

func newClient(w *world, index int) *client {
	return &client{w: w, index: index, name: fmt.Sprintf("client %d", index+1)}
}

// begin makes a new session.
func (c *client) begin() {
	w := c.w
	c.waits = false
	c.sess = &session{
		c: c, timeout: w.config.tick * time.Duration(3+w.chance.IntN(10)),
		watches: map[watchKey]*watch{}, sentOn: map[int32]*sentWrite{}, expect: map[int][]int32{},
	}
	if w.oneIn(3) { // long enough to see its member stop serving
		c.sess.timeout = w.config.tick * time.Duration(12+w.chance.IntN(19))
	}
	c.sess.reads = w.oneIn(4)
	if w.oneIn(2) {
		c.sess.grace = w.between(30*time.Millisecond, 300*time.Millisecond)
	}
	c.connect()
	c.ticks++
	c.tick(c.ticks)
}

func (c *client) muted() bool { return c.w.now < c.muteTo }

// connect tries some member.
func (c *client) connect() {
	w, s := c.w, c.sess
	m := w.members[w.chance.IntN(len(w.members))]
	if c.last != nil && w.oneIn(3) {
		m = c.last // it is the one that the client knows
	}
	c.last = m
	c.conn, c.pending = w.connect(c, m), nil
	c.heard, c.sent = w.now, w.now
	r := jute.ConnectRequest{
		LastZxidSeen: s.seen, TimeoutMs: int32(s.timeout.Milliseconds()), SessionID: s.id, Password: s.password,
		HasReadOnly: true, HasFastExpiry: s.grace > 0, GraceMs: int32(s.grace.Milliseconds()),
	}
	if r.Password == nil {
		r.Password = make([]byte, 16)
	}
	w.trace(c.name, "connects to %s, session %x, seen %x", m.name, uint64(s.id), uint64(s.seen))
	c.conn.send(r.Append(nil))
}

// tick pings, and gives up a connection that is silent.
func (c *client) tick(number int) {
	if c.ticks != number || c.sess == nil {
		return
	}
	w, s := c.w, c.sess
	if !c.muted() && c.conn != nil {
		attached := c.conn.attachedAt > 0
		switch {
		case w.now-c.heard > s.timeout*2/3:
			w.trace(c.name, "has heard nothing for %v", w.now-c.heard)
			c.breakConnection(w.chance.IntN(2))
		case attached && w.now-c.sent >= s.timeout/3:
			c.issue(&request{xid: jute.XidPing, op: jute.OpPing}, nil)
		}
	}
	w.after(s.timeout/6, func() { c.tick(number) })
}

// breakConnection ends the connection; the session goes on with another.
func (c *client) breakConnection(how int) {
	k := c.conn
	if k == nil || c.muted() {
		return
	}
	k.drop(how)
	c.disconnected(k)
}

// disconnected is the end of the connection.
func (c *client) disconnected(k *connection) {
	if c.conn != k || c.sess == nil {
		return
	}
	if c.muted() {
		c.backlog = append(c.backlog, func() { c.disconnected(k) })
		return
	}
	s := c.sess
	c.w.trace(c.name, "is disconnected, %d unanswered", len(c.pending))
	c.conn, c.pending = nil, nil
	for _, watch := range s.watches {
		watch.active = false
	}
	if s.leaving || s.over {
		c.sessionEnds()
		return
	}
	c.w.after(c.w.between(time.Millisecond, 60*time.Millisecond), func() {
		if c.sess == s && c.conn == nil && !c.muted() {
			c.connect()
		} else if c.muted() {
			c.backlog = append(c.backlog, func() {
				if c.sess == s && c.conn == nil {
					c.connect()
				}
			})
		}
	})
}

// sessionEnds lets go of the session, and begins another one some time.
func (c *client) sessionEnds() {
	if c.sess == nil {
		return
	}
	c.sess.left = c.w.now
	c.sess, c.conn, c.pending = nil, nil, nil
	if !c.waits {
		c.waits = true
		c.w.after(c.w.between(10*time.Millisecond, 600*time.Millisecond), func() { c.begin() })
	}
}

// mute has the client say and hear nothing until then.
func (c *client) mute(until time.Duration) {
	w := c.w
	if c.muted() {
		return
	}
	c.muteTo = until
	w.at(until, func() { c.unmute() })
}

func (c *client) unmute() {
	if c.muted() {
		return
	}
	backlog := c.backlog
	c.backlog = nil
	for _, f := range backlog {
		f()
	}
}

// leave closes the session.
func (c *client) leave() {
	if c.ready() {
		c.sess.leaving = true
		c.write(jute.OpCloseSession, "", nil)
	}
}

// robbed has a stranger ask some member for the client's session.
func (c *client) robbed() {
	s, w := c.sess, c.w
	if s == nil || s.id == 0 {
		return
	}
	k := w.connect(&client{w: w, name: "a thief", thief: true}, w.members[w.chance.IntN(len(w.members))])
	password := bytes.Clone(s.password)
	password[w.chance.IntN(len(password))] ^= 1
	r := jute.ConnectRequest{
		LastZxidSeen: s.seen, TimeoutMs: int32(s.timeout.Milliseconds()), SessionID: s.id, Password: password, HasReadOnly: true,
	}
	w.trace(k.c.name, "asks %s for session %x", k.m.name, uint64(s.id))
	k.send(r.Append(nil))
}

// refusedAsThief judges the answer.
func (c *client) refusedAsThief(k *connection, frame []byte) {
	var r jute.ConnectResponse
	d := jute.NewDecoder(frame)
	r.Decode(&d)
	if r.SessionID != 0 {
		c.w.fail("session-stolen", "%s gives session %x to somebody with a wrong password", k.m.name, uint64(r.SessionID))
	}
	c.w.counts["thieves refused"]++
	k.drop(endWithEOF)
}

// dropSession forgets the session, as a process that was killed does.
func (c *client) dropSession() {
	if c.sess == nil || c.muted() {
		return
	}
	if k := c.conn; k != nil {
		c.conn = nil
		k.drop(c.w.chance.IntN(3))
	}
	c.w.trace(c.name, "forgets its session")
	c.sessionEnds()
}

func (c *client) heal() {
	c.muteTo = 0
	c.unmute()
	if c.conn != nil {
		c.conn.stallTo = 0
	}
}

func (c *client) ready() bool {
	return c.sess != nil && !c.sess.over && !c.sess.leaving && !c.muted() && c.conn != nil && !c.conn.clientGone && c.conn.attachedAt > 0
}

var (
	tops  = []string{"/a", "/b", "/c"}
	names = []string{"x", "y", "z"}
	acl   = []jute.ACL{{Perms: jute.PermAll, ID: jute.ID{Scheme: "world", ID: "anyone"}}}
)

// operate does what n says.
func (c *client) operate(n uint64) {
	if !c.ready() {
		return
	}
	chance := rand.New(rand.NewPCG(n, 1))
	top := tops[chance.IntN(len(tops))]
	child := top + "/" + names[chance.IntN(len(names))]
	either := child
	if chance.IntN(3) == 0 {
		either = top
	}
	watch := chance.IntN(2) == 0
	version := int32(-1)
	if chance.IntN(4) == 0 {
		version = int32(chance.IntN(4))
	}
	what := chance.IntN(22)
	if c.sess.reads && what < 14 {
		what = []int{14, 17, 18, 18}[what%4] // nothing of its own is in the way of its syncs
	}
	switch what {
	case 0, 1:
		c.create(top, 0)
	case 2, 3:
		if chance.IntN(4) == 0 {
			child += "/deep" // perhaps below an ephemeral one
		}
		c.create(child, 0)
	case 4, 5:
		c.create(child, jute.FlagEphemeral)
	case 6:
		c.create(top+"/s-", jute.FlagPersistentSequential)
	case 7:
		c.create(top+"/e-", jute.FlagEphemeralSequential)
	case 8, 9, 10:
		c.setData(either, version)
	case 11, 12:
		path := either
		if chance.IntN(4) == 0 {
			path = child + "/deep"
		}
		r := jute.PathVersionRequest{Path: path, Version: version}
		c.write(jute.OpDelete, path, r.Append(nil))
	case 13:
		c.multi(chance)
	case 14, 15:
		c.read(jute.OpGetData, either, watch, 0)
	case 16:
		c.read(jute.OpExists, either, watch, 0)
	case 17:
		c.read(jute.OpGetChildren2, top, watch, 0)
	case 18, 19:
		c.syncThenRead(either, watch)
	case 20:
		mode := jute.AddWatchPersistent
		if watch {
			mode = jute.AddWatchPersistentRecursive
		}
		r := jute.AddWatchRequest{Path: either, Mode: mode}
		c.issue(&request{xid: c.nextXid(), op: jute.OpAddWatch, path: either, mode: mode}, r.Append(nil))
	case 21:
		if c.sess.reads {
			return
		}
		// A write that shows its own watch: the event comes first.
		c.read(jute.OpGetData, either, true, 0)
		c.setData(either, -1)
	}
}

func (c *client) nextXid() int32 {
	c.sess.xid++
	return c.sess.xid
}

// token is data that nobody else writes.
func (c *client) token() []byte {
	c.tokens++
	return fmt.Appendf(nil, "%s, %d", c.name, c.tokens)
}

func (c *client) create(path string, flags jute.CreateFlags) {
	r := jute.CreateRequest{Path: path, Data: c.token(), ACL: acl, Flags: flags}
	c.write(jute.OpCreate, path, r.Append(nil))
}

func (c *client) setData(path string, version int32) {
	r := jute.SetDataRequest{Path: path, Data: c.token(), Version: version}
	c.write(jute.OpSetData, path, r.Append(nil))
}

// multi sets a node's data and does some things with its children, together. They may get into
// each other's way.
func (c *client) multi(chance *rand.Rand) {
	var body []byte
	part := func(op jute.OpCode, request []byte) {
		h := jute.MultiHeader{Type: op, Err: -1}
		body = append(h.Append(body), request...)
	}
	version := func() int32 {
		if chance.IntN(2) == 0 {
			return -1
		}
		return int32(chance.IntN(3))
	}
	top := tops[chance.IntN(len(tops))]
	set := jute.SetDataRequest{Path: top, Data: c.token(), Version: -1}
	part(jute.OpSetData, set.Append(nil))
	child := top + "/" + names[chance.IntN(len(names))]
	for range 1 + chance.IntN(3) {
		switch chance.IntN(10) {
		case 0, 1, 2:
			create := jute.CreateRequest{Path: child, Data: c.token(), ACL: acl, Flags: jute.CreateFlags(chance.IntN(2))}
			part(jute.OpCreate, create.Append(nil))
		case 3, 4, 5:
			del := jute.PathVersionRequest{Path: child, Version: version()}
			part(jute.OpDelete, del.Append(nil))
		case 6:
			create := jute.CreateRequest{Path: top + "/s-", Data: c.token(), ACL: acl, Flags: jute.FlagPersistentSequential}
			part(jute.OpCreate, create.Append(nil))
		case 7:
			check := jute.PathVersionRequest{Path: top, Version: version()}
			part(jute.OpCheck, check.Append(nil))
		case 8:
			check := jute.PathVersionRequest{Path: child, Version: version()}
			part(jute.OpCheck, check.Append(nil))
		default:
			set := jute.SetDataRequest{Path: child, Data: c.token(), Version: version()}
			part(jute.OpSetData, set.Append(nil))
		}
	}
	end := jute.MultiHeader{Type: jute.OpError, Done: true, Err: -1}
	c.write(jute.OpMulti, top, end.Append(body))
}

func (c *client) write(op jute.OpCode, path string, body []byte) {
	s, r := c.sess, &request{xid: c.nextXid(), op: op, path: path, floor: c.w.check.seen}
	k := c.conn.number
	s.sentOn[r.xid] = &sentWrite{k, len(s.expect[k])}
	s.expect[k] = append(s.expect[k], r.xid)
	c.w.counts["writes"]++
	c.issue(r, body)
}

func (c *client) read(op jute.OpCode, path string, watch bool, syncFloor jute.Zxid) {
	r := jute.PathWatchRequest{Path: path, Watch: watch}
	c.w.counts["reads"]++
	c.issue(&request{xid: c.nextXid(), op: op, path: path, watch: watch, syncFloor: syncFloor}, r.Append(nil))
}

func (c *client) syncThenRead(path string, watch bool) {
	r := jute.PathRequest{Path: path}
	floor := c.w.check.seen
	c.issue(&request{xid: c.nextXid(), op: jute.OpSync, path: path}, r.Append(nil))
	c.read(jute.OpGetData, path, watch, floor)
}

func (c *client) issue(r *request, body []byte) {
	header := jute.RequestHeader{Xid: r.xid, Type: r.op}
	c.pending = append(c.pending, r)
	c.sent = c.w.now
	c.conn.send(append(header.Append(nil), body...))
	c.w.trace(c.name, "sends %d %s %s", r.xid, r.op, r.path)
}

// deliver takes a frame from the server.
func (c *client) deliver(k *connection, frame []byte) {
	if c.thief {
		c.refusedAsThief(k, frame)
		return
	}
	if c.conn != k || c.sess == nil {
		return
	}
	if c.muted() {
		frame = slices.Clone(frame)
		c.backlog = append(c.backlog, func() { c.deliver(k, frame) })
		return
	}
	c.heard = c.w.now
	if k.attachedAt == 0 {
		c.handshake(k, frame)
		return
	}
	d := jute.NewDecoder(frame)
	var h jute.ReplyHeader
	h.Decode(&d)
	if h.Xid == jute.XidNotification {
		var e jute.WatcherEvent
		e.Decode(&d)
		c.event(h.Zxid, e)
		return
	}
	c.answer(h, d.Rest())
}

func (c *client) handshake(k *connection, frame []byte) {
	s := c.sess
	var r jute.ConnectResponse
	d := jute.NewDecoder(frame)
	r.Decode(&d)
	if r.SessionID == 0 {
		c.w.trace(c.name, "session %x is over", uint64(s.id))
		c.w.check.refused(s)
		s.over = true
		k.drop(endWithEOF)
		c.disconnected(k)
		return
	}
	if s.id != 0 && r.SessionID != s.id {
		c.w.fail("live-session-refused", "%s asked for session %x and got %x", c.name, uint64(s.id), uint64(r.SessionID))
	}
	s.id, s.password = r.SessionID, bytes.Clone(r.Password)
	s.timeout = time.Duration(r.TimeoutMs) * time.Millisecond
	s.grace = time.Duration(r.GraceMs) * time.Millisecond
	k.attachedAt = c.w.now
	c.w.check.attached(s)
	c.w.trace(c.name, "is connected to %s, session %x", k.m.name, uint64(s.id))
	c.w.counts["handshakes"]++
	c.restoreWatches()
}

// restoreWatches sets the watches of the former connection again.
func (c *client) restoreWatches() {
	s := c.sess
	if len(s.watches) == 0 {
		return
	}
	r := &jute.SetWatches{
		RelativeZxid: s.seen, Data: []string{}, Exist: []string{}, Child: []string{}, Persistent: []string{}, PersistentRecursive: []string{},
	}
	lists := map[watchKind]*[]string{
		dataWatch: &r.Data, existWatch: &r.Exist, childWatch: &r.Child,
		persistentWatch: &r.Persistent, recursiveWatch: &r.PersistentRecursive,
	}
	for _, key := range sortedKeys(s.watches) {
		*lists[key.kind] = append(*lists[key.kind], key.path)
	}
	c.w.counts["setWatches"]++
	c.issue(&request{xid: jute.XidSetWatches, op: jute.OpSetWatches2, restore: r}, r.Append(nil))
}

func sortedKeys(watches map[watchKey]*watch) []watchKey {
	return slices.SortedFunc(maps.Keys(watches), func(a, b watchKey) int {
		if a.kind != b.kind {
			return int(a.kind) - int(b.kind)
		}
		return strings.Compare(a.path, b.path)
	})
}

// answer takes the answer to the oldest request.
func (c *client) answer(h jute.ReplyHeader, body []byte) {
	w, s := c.w, c.sess
	if len(c.pending) == 0 || c.pending[0].xid != h.Xid {
		w.fail("reply-order", "%s got an answer to %d, and waits for %+v", c.name, h.Xid, c.pending)
	}
	r := c.pending[0]
	c.pending = c.pending[1:]
	w.trace(c.name, "got %d %s %s: %v, zxid %x", h.Xid, r.op, r.path, h.Err, uint64(h.Zxid))
	w.counts["answers"]++
	if h.Zxid < s.seen {
		w.fail("zxid-monotone", "%s saw %x, and now %x in the answer to %d %s %s", c.name, uint64(s.seen), uint64(h.Zxid), h.Xid, r.op, r.path)
	}
	w.check.saw(h.Zxid)
	if r.restore != nil {
		c.watchesRestored(r, h)
	}
	s.seen = h.Zxid
	c.checkWatches(h.Zxid, fmt.Sprintf("the answer to %d %s %s", h.Xid, r.op, r.path))
	switch r.op {
	case jute.OpPing, jute.OpSync, jute.OpSetWatches2:
	case jute.OpGetData, jute.OpExists, jute.OpGetChildren2:
		w.check.read(c, r, h, body)
		c.watchSet(r, h)
	case jute.OpAddWatch:
		kind := persistentWatch
		if r.mode == jute.AddWatchPersistentRecursive {
			kind = recursiveWatch
		}
		if key := (watchKey{kind, r.path}); s.watches[key] == nil || !s.watches[key].active {
			s.watches[key] = &watch{since: h.Zxid, active: true, checked: len(w.check.changes)}
			s.watches[key].checked = w.check.changesUpTo(h.Zxid)
		}
	case jute.OpCloseSession:
		w.check.written(c, r, h, body)
		s.over = true
	default:
		w.check.written(c, r, h, body)
	}
}

// watchSet notes the watch that a read leaves behind, as Java's client does.
func (c *client) watchSet(r *request, h jute.ReplyHeader) {
	if !r.watch {
		return
	}
	kind := dataWatch
	switch {
	case r.op == jute.OpExists && h.Err == jute.NoNode:
		kind = existWatch
	case h.Err != jute.OK:
		return
	case r.op == jute.OpGetChildren2:
		kind = childWatch
	}
	c.sess.watches[watchKey{kind, r.path}] = &watch{since: h.Zxid, active: true}
}

// matches says whether a change concerns a watch.
func (k watchKey) matches(t jute.EventType, path string) bool {
	switch k.kind {
	case dataWatch, existWatch:
		return path == k.path && t != jute.EventChildrenChanged
	case childWatch:
		return path == k.path && (t == jute.EventChildrenChanged || t == jute.EventDeleted)
	case persistentWatch:
		return path == k.path
	default:
		return t != jute.EventChildrenChanged && (path == k.path || strings.HasPrefix(path, k.path+"/"))
	}
}

// event takes a notification.
func (c *client) event(zxid jute.Zxid, e jute.WatcherEvent) {
	w, s := c.w, c.sess
	w.trace(c.name, "event %d %s, zxid %x", e.Type, e.Path, uint64(zxid))
	w.counts["events"]++
	if zxid <= 0 {
		if len(c.pending) == 0 || c.pending[0].restore == nil {
			w.fail("watch-spurious", "%s got a missed event %d %s and is not setting watches", c.name, e.Type, e.Path)
		}
		c.pending[0].missed = append(c.pending[0].missed, e)
		return
	}
	if !w.check.happened(zxid, e.Type, e.Path) {
		w.fail("watch-spurious", "%s got the event %d %s of zxid %x, which did not happen", c.name, e.Type, e.Path, uint64(zxid))
	}
	w.check.saw(zxid)
	wanted := false
	for _, key := range sortedKeys(s.watches) {
		watch := s.watches[key]
		if !watch.active || !key.matches(e.Type, e.Path) || watch.since >= zxid {
			continue
		}
		if key.kind.once() {
			wanted = true
			delete(s.watches, key)
			continue
		}
		if next, ok := w.check.nextChange(key, watch); ok && next == (change{zxid, e.Type, e.Path}) {
			wanted = true
			watch.checked++
		} else if ok && next.zxid < zxid {
			w.fail("watch-order", "%s got the event %d %s of zxid %x before %d %s of zxid %x", c.name, e.Type, e.Path, uint64(zxid), next.t, next.path, uint64(next.zxid))
		} else if ok && next.zxid == zxid {
			// Events of one transaction come in its order.
			w.fail("watch-order", "%s got the event %d %s of zxid %x before %d %s of the same", c.name, e.Type, e.Path, uint64(zxid), next.t, next.path)
		}
	}
	if !wanted {
		w.fail("watch-spurious", "%s got the event %d %s of zxid %x and has no watch for it", c.name, e.Type, e.Path, uint64(zxid))
	}
}

// checkWatches makes sure that all events up to zxid have come: what shows the state at zxid is here.
func (c *client) checkWatches(zxid jute.Zxid, what string) {
	for _, key := range sortedKeys(c.sess.watches) {
		watch := c.sess.watches[key]
		if !watch.active {
			continue
		}
		if missing, ok := c.w.check.nextChange(key, watch); ok && missing.zxid <= zxid {
			c.w.fail("watch-order", "%s got %s with zxid %x, and not yet the event %d %s of zxid %x, for which it has a watch (kind %d on %s) since %x",
				c.name, what, uint64(zxid), missing.t, missing.path, uint64(missing.zxid), key.kind, key.path, uint64(watch.since))
		}
	}
}

// watchesRestored judges the events before the answer of setWatches.
func (c *client) watchesRestored(r *request, h jute.ReplyHeader) {
	w, s := c.w, c.sess
	missed := map[watchKey]jute.EventType{}
	for _, e := range r.missed {
		kinds := []watchKind{dataWatch}
		switch e.Type {
		case jute.EventChildrenChanged:
			kinds = []watchKind{childWatch}
		case jute.EventCreated:
			kinds = []watchKind{existWatch}
		case jute.EventDeleted:
			kinds = []watchKind{dataWatch, childWatch}
		}
		known := false
		for _, kind := range kinds {
			key := watchKey{kind, e.Path}
			if s.watches[key] != nil && !s.watches[key].active {
				known = true
				missed[key] = e.Type
			}
		}
		if !known {
			w.fail("watch-spurious", "%s got the missed event %d %s and set no such watch again", c.name, e.Type, e.Path)
		}
	}
	for _, key := range sortedKeys(s.watches) {
		watch := s.watches[key]
		if watch.active {
			continue
		}
		if key.kind.once() {
			event, told := missed[key]
			must, why := w.check.missedSince(key, r.restore.RelativeZxid, h.Zxid)
			switch {
			case must && !told:
				w.fail("watch-lost", "%s set its watch (kind %d on %s) again at %x since %x and was not told that %s",
					c.name, key.kind, key.path, uint64(h.Zxid), uint64(r.restore.RelativeZxid), why)
			case told && !must:
				w.fail("watch-spurious", "%s set its watch (kind %d on %s) again at %x since %x and was told %d although nothing happened",
					c.name, key.kind, key.path, uint64(h.Zxid), uint64(r.restore.RelativeZxid), event)
			case told:
				delete(s.watches, key)
				continue
			}
		}
		watch.active, watch.since = true, h.Zxid
		watch.checked = w.check.changesUpTo(h.Zxid)
	}
}
