package coordination

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/znode"
)

// checker holds the truth and judges by it.
type checker struct {
	w          *world
	leaders    map[uint64]*member    // by term
	votes      map[memberTerm]uint64 // whom a member voted for
	leadsSince map[uint64]time.Duration

	// The canonical log: entries that somebody has applied, and the machine that applies them
	// from the beginning.
	log     map[uint64]*canonical
	last    uint64
	machine *znode.Machine
	model   *treeModel
	stamps  struct {
		term uint64
		time int64
	}

	writes   map[writeKey]*outcome
	sessions map[jute.SessionID]*sessionTruth
	clients  map[jute.SessionID]*session // as far as clients have learnt their ids
	changes  []change
	happen   map[change]bool
	nodes    map[string][]nodeState     // by path, ascending by zxid
	children map[string][]childrenState // likewise
	seen     jute.Zxid                  // the highest zxid that any client has seen

	leaderChangedAt time.Duration
}

type memberTerm struct {
	m    *member
	term uint64
}

// canonical is one applied entry with the state and the results after it.
type canonical struct {
	term     uint64
	data     []byte
	checksum uint64
	results  []appliedRequest
}

// appliedRequest is a request and its result, as far as members are compared.
type appliedRequest struct {
	kind       znode.Kind
	session    jute.SessionID
	xid        int32
	code       jute.Code
	zxid       jute.Zxid
	moved      bool
	skipped    bool
	closed     bool
	reply      string
	events     string
	generation uint64
}

func copyApplied(req *znode.Request, res *znode.Result) appliedRequest {
	a := appliedRequest{
		kind: req.Kind, session: res.Session, xid: req.Xid, code: res.Code, zxid: res.Zxid, moved: res.SessionMoved,
		skipped: res.Skipped, closed: res.ClosedSession, reply: string(res.Reply), generation: res.Generation,
	}
	var events []byte
	for _, e := range res.Events {
		events = append(append(events, byte('0'+e.Type)), e.Path...)
	}
	a.events = string(events)
	return a
}

type writeKey struct {
	session jute.SessionID
	xid     int32
}

// outcome is what became of a write.
type outcome struct {
	count int
	zxid  jute.Zxid
	code  jute.Code
	reply []byte
}

// sessionTruth is a session as the canonical log has it.
type sessionTruth struct {
	id         jute.SessionID
	live       bool
	generation uint64
	owner      znode.MemberID
	asked      uint64 // the incarnation of its owner that asked for it, 0: not known
	timeout    time.Duration
	grace      time.Duration
	attachedAt time.Duration
	lostAt     time.Duration // of its connection, with fast expiry; 0: it is not
	connection int           // of the last write applied
	place      int           // how many of that connection's writes were applied
}

type change struct {
	zxid jute.Zxid
	t    jute.EventType
	path string
}

type nodeState struct {
	zxid   jute.Zxid
	exists bool
	data   string
	stat   jute.Stat
}

type childrenState struct {
	zxid  jute.Zxid
	names string
}

func newChecker(w *world) *checker {
	return &checker{
		w: w, leaders: map[uint64]*member{}, votes: map[memberTerm]uint64{}, leadsSince: map[uint64]time.Duration{}, log: map[uint64]*canonical{}, machine: znode.New(), model: newTreeModel(w),
		writes: map[writeKey]*outcome{}, sessions: map[jute.SessionID]*sessionTruth{}, clients: map[jute.SessionID]*session{},
		happen: map[change]bool{}, nodes: map[string][]nodeState{}, children: map[string][]childrenState{},
	}
}

func (c *checker) leads(m *member, term uint64) {
	if before := c.leaders[term]; before != nil && before != m {
		c.w.fail("one-leader-per-term", "%s and %s lead in term %d", before.name, m.name, term)
	}
	if c.leaders[term] == nil {
		c.leadsSince[term] = c.w.now
	}
	c.leaders[term] = m
}

func (c *checker) voted(m *member, term, candidate uint64) {
	key := memberTerm{m, term}
	if before, ok := c.votes[key]; ok && before != candidate {
		c.w.fail("one-vote-per-term", "%s voted for %d and for %d in term %d", m.name, before, candidate, term)
	}
	c.votes[key] = candidate
	if m.disk.struck {
		return
	}
	log, err := m.disk.withoutPower()
	if err != nil {
		c.w.fail("durable-before-answer", "%s votes, and its disk has: %v", m.name, err)
	}
	hs, _, _ := log.InitialState()
	_ = log.Abandon()
	if hs.GetTerm() < term || hs.GetTerm() == term && hs.GetVote() != candidate {
		c.w.fail("durable-before-answer", "%s votes for %d in term %d, and its disk has a vote for %d in term %d", m.name, candidate, term, hs.GetVote(), hs.GetTerm())
	}
}

// entryApplied is told of each entry that a member has applied, with its requests' results.
func (c *checker) entryApplied(m *member, results []appliedRequest) {
	before, _ := m.stepped.Applied()
	index := before + 1
	entries, err := m.stepped.Log().Entries(index, index+1, 1<<30)
	if err != nil && m.disk.struck {
		// The disk was damaged under the member's feet: another member's log must have it.
		for _, other := range c.w.members {
			if other != m && other.up && err != nil {
				entries, err = other.stepped.Log().Entries(index, index+1, 1<<30)
			}
		}
	}
	if err != nil || len(entries) != 1 {
		c.w.fail("log-matching", "%s applies entry %d and its log has none: %v", m.name, index, err)
	}
	term, data := entries[0].GetTerm(), entries[0].GetData()
	known := c.log[index]
	switch {
	case known == nil && index <= c.last:
		c.w.fail("log-matching", "%s applies entry %d, which changed nothing for others", m.name, index)
	case known == nil:
		known = c.apply(m, index, term, data)
	case known.term != term || !bytes.Equal(known.data, data):
		c.w.fail("log-matching", "%s applies at %d an entry of term %d with %d bytes, another member had one of term %d with %d bytes",
			m.name, index, term, len(data), known.term, len(known.data))
	}
	m.stepped.View(func(machine *znode.Machine) {
		if sum := machine.Checksum(); sum != known.checksum {
			c.w.fail("identical-state", "%s has checksum %x after entry %d, the log gives %x", m.name, sum, index, known.checksum)
		}
	})
	if !slices.Equal(results, known.results) {
		c.w.fail("identical-result", "%s gives other results for entry %d:\n%+v\nthe log gives\n%+v", m.name, index, results, known.results)
	}
}

// recovered compares a state that comes from a snapshot.
func (c *checker) recovered(m *member) {
	index, _ := m.stepped.Applied()
	if index == 0 {
		return
	}
	// The last entry with requests up to there.
	for index > 0 && c.log[index] == nil {
		index--
	}
	want := znode.New().Checksum()
	if index > 0 {
		want = c.log[index].checksum
	}
	m.stepped.View(func(machine *znode.Machine) {
		if sum := machine.Checksum(); sum != want {
			c.w.fail("snapshot-state", "%s restored a state with checksum %x, after entry %d the log gives %x", m.name, sum, index, want)
		}
	})
	c.w.counts["snapshots restored"]++
}

// apply takes an entry that nobody had applied before.
func (c *checker) apply(m *member, index, term uint64, data []byte) *canonical {
	c.w.counts["entries"]++
	batch, err := znode.DecodeBatch(data)
	if err != nil {
		c.w.fail("log-matching", "entry %d cannot be decoded: %v", index, err)
	}
	if c.w.oneIn(24) {
		c.majorityHas(index, term)
	}
	if term == c.stamps.term && batch.TimeMs < c.stamps.time {
		c.w.fail("stamp-backwards", "entry %d of term %d has the time %d, an earlier one %d", index, term, batch.TimeMs, c.stamps.time)
	}
	before := c.machine.LastZxid()
	epoch := before >> 32
	if term > c.stamps.term {
		epoch++ // as with ZooKeeper's NEWLEADER
	}
	c.stamps.term, c.stamps.time = term, batch.TimeMs
	k := &canonical{term: term, data: bytes.Clone(data)}
	next := c.machine.NextSequence(batch.Origin, batch.Incarnation)
	c.machine.Apply(term, &batch, func(i int, r *znode.Result) {
		req := &batch.Requests[i]
		if req.Kind == znode.KindExpire && batch.Origin != 0 {
			c.w.fail("expiry-by-leader-only", "member %d asks for the end of session %x", batch.Origin, uint64(req.Session))
		}
		sequence := batch.FirstSequence + uint64(i)
		if batch.Origin != 0 && (batch.FirstSequence > next || sequence < next) {
			if !r.Skipped {
				c.w.fail("applied-twice", "entry %d applies sequence %d of member %d, expected was %d", index, sequence, batch.Origin, next)
			}
			return
		}
		k.results = append(k.results, copyApplied(req, r))
		c.applied(m, index, req, r)
		if s := c.sessions[req.Session]; s != nil && attaches(req) && s.generation == r.Generation {
			s.asked = batch.Incarnation
		}
	})
	if after := c.machine.LastZxid(); after>>32 != epoch || after < before {
		c.w.fail("zxid-epoch", "entry %d of term %d takes the last zxid from %x to %x", index, term, uint64(before), uint64(after))
	}
	k.checksum = c.machine.Checksum()
	c.log[index], c.last = k, index
	if c.w.oneIn(10) {
		c.model.compare(c.machine)
	}
	return k
}

func attaches(req *znode.Request) bool {
	return req.Kind == znode.KindCreateSession || req.Kind == znode.KindReattach
}

// majorityHas looks at the disks as a power loss would leave them.
func (c *checker) majorityHas(index, term uint64) {
	have := 0
	for _, m := range c.w.members {
		if m.broken || m.disk.struck {
			have++ // it had it, or will not say anything any more
			continue
		}
		log, err := m.disk.withoutPower()
		if err != nil {
			c.w.trace(m.name, "its disk, without power: %v", err)
			continue
		}
		first, _ := log.FirstIndex()
		last, _ := log.LastIndex()
		c.w.trace(m.name, "its disk, without power: entries %d to %d", first, last)
		if got, err := log.Term(index); err == nil && got == term || index < first {
			have++
		}
		_ = log.Abandon()
	}
	if have <= len(c.w.members)/2 {
		c.w.fail("majority-durable", "entry %d is applied, and only %d of %d members have it on disk", index, have, len(c.w.members))
	}
}

// applied follows one request that counts.
func (c *checker) applied(m *member, index uint64, req *znode.Request, r *znode.Result) {
	s := c.sessions[req.Session]
	switch req.Kind {
	case znode.KindCreateSession, znode.KindReattach:
		if r.Code != jute.OK || r.SessionMoved || r.Skipped {
			break
		}
		if s == nil {
			s = &sessionTruth{id: req.Session}
			c.sessions[req.Session] = s
		} else if !s.live {
			c.w.fail("ended-session-acts", "session %x is attached after its end, at entry %d", uint64(req.Session), index)
		}
		s.live, s.generation, s.owner = true, r.Generation, r.Owner
		s.timeout, s.grace = time.Duration(r.TimeoutMs)*time.Millisecond, time.Duration(r.GraceMs)*time.Millisecond
		s.attachedAt, s.lostAt = c.w.now, 0
	case znode.KindConnectionLost:
		if !r.Skipped && r.Code == jute.OK && (s == nil || !s.live || s.generation != req.Generation) {
			c.w.fail("connection-lost-stale", "generation %d of session %x lost its connection, and that counts for %+v", req.Generation, uint64(req.Session), s)
		}
		if !r.Skipped && s != nil {
			s.lostAt = c.w.now
		}
	case znode.KindOp, znode.KindCloseSession:
		c.write(index, s, req, r)
	case znode.KindExpire:
		if r.ClosedSession {
			c.w.counts["expiries"]++
			c.expiredInTime(s, req, c.stamps.term)
			c.expired(s, req)
		}
	}
	c.model.apply(req, r)
	if r.ClosedSession {
		if s == nil || !s.live {
			c.w.fail("ended-session-acts", "session %x ends twice", uint64(req.Session))
		}
		s.live = false
	}
	for _, e := range r.Events {
		c.changed(e.Zxid, e.Type, e.Path)
	}
}

// write follows a client's write: once, in order, and none left out.
func (c *checker) write(index uint64, s *sessionTruth, req *znode.Request, r *znode.Result) {
	if r.SessionMoved || r.Code == jute.SessionExpired {
		return
	}
	if s == nil || !s.live {
		c.w.fail("ended-session-acts", "session %x writes after its end, at entry %d: %+v", uint64(req.Session), index, r)
	}
	if req.Generation != s.generation {
		c.w.fail("ended-session-acts", "generation %d of session %x writes at entry %d, it is at %d", req.Generation, uint64(req.Session), index, s.generation)
	}
	key := writeKey{req.Session, req.Xid}
	o := c.writes[key]
	if o == nil {
		o = &outcome{}
		c.writes[key] = o
	}
	o.count++
	if o.count > 1 {
		c.w.fail("applied-twice", "write %d of session %x takes effect again at entry %d", req.Xid, uint64(req.Session), index)
	}
	o.zxid, o.code, o.reply = r.Zxid, r.Code, bytes.Clone(r.Reply)
	client := c.clients[req.Session]
	if client == nil {
		return
	}
	sent := client.sentOn[req.Xid]
	if sent == nil {
		c.w.fail("fifo", "session %x writes %d, which it never sent", uint64(req.Session), req.Xid)
	}
	if sent.connection != s.connection {
		if sent.connection < s.connection {
			c.w.fail("fifo", "write %d of session %x comes after writes of a later connection", req.Xid, uint64(req.Session))
		}
		s.connection, s.place = sent.connection, 0
	}
	if sent.place != s.place {
		c.w.fail("fifo", "write %d of session %x is the %d. of its connection and the %d. applied", req.Xid, uint64(req.Session), sent.place+1, s.place+1)
	}
	s.place++
}

// expiredInTime holds the end of a session against what holds whatever happens: a new leader
// gives every session its time, from the beginning.
func (c *checker) expiredInTime(s *sessionTruth, req *znode.Request, term uint64) {
	if s == nil || req.Generation != s.generation {
		c.w.fail("session-expired-early", "generation %d of session %x ends, and it is at %+v", req.Generation, uint64(req.Session), s)
	}
	const fastest = 300 * time.Millisecond // for sessions of a member that died
	had := c.w.now - max(c.leadsSince[term], s.attachedAt)
	if leader := c.leaders[term]; leader != nil { // while it slept it heard nobody
		had -= leader.slept(c.w.now-had, c.w.config.tick+300*time.Millisecond)
	}
	least := s.timeout
	switch {
	case s.grace > 0 && s.lostAt > 0:
		least = min(least, s.grace, fastest)
		if had < s.timeout*95/100 && !c.ownerDied(s) && c.w.now-s.lostAt < s.grace*95/100 {
			c.w.fail("session-expired-early", "session %x ends %v after the loss of its connection (timeout %v, grace %v)",
				uint64(req.Session), c.w.now-s.lostAt, s.timeout, s.grace)
		}
	case s.grace > 0 && c.ownerDied(s):
		least = min(least, fastest)
	}
	if had < least*95/100 {
		c.w.fail("session-expired-early", "session %x ends %v after its leader of term %d began, or after its attachment (timeout %v, grace %v)",
			uint64(req.Session), had, term, s.timeout, s.grace)
	}
}

// ownerDied says whether the member that a session is attached to has died since, or may seem to
// have. An attachment can be applied long after the process that asked for it has died: it waited
// in a leader's log for a quorum.
func (c *checker) ownerDied(s *sessionTruth) bool {
	owner := c.w.members[s.owner-1]
	return !owner.up || owner.stepped.Incarnation() != s.asked || owner.diedAt+c.w.config.slowMax+time.Second >= s.attachedAt
}

// expired judges the end of a session that its client did not ask for.
func (c *checker) expired(s *sessionTruth, req *znode.Request) {
	w := c.w
	client := c.clients[req.Session]
	if client == nil || client.c.sess != client || client.c.conn == nil || client.c.conn.clientGone {
		return
	}
	k := client.c.conn
	leader := c.leaders[c.stamps.term]
	if k.attachedAt == 0 || leader == nil || w.now < client.c.muteTo {
		return
	}
	since := max(k.attachedAt, k.disturbedAt, k.m.disturbedAt, leader.disturbedAt, c.leaderChangedAt, client.c.muteTo)
	if w.config.slowMax > 20*time.Millisecond || w.config.dropOneIn > 0 {
		if !w.calm {
			return // single frames that are late or lost are disturbance enough
		}
		since = max(since, w.config.duration)
	}
	if quiet := client.timeout*5/4 + 1200*time.Millisecond; w.now-since > quiet {
		w.fail("session-expired-early", "session %x of %s ends, and was connected to %s undisturbed for %v (timeout %v, grace %v)",
			uint64(s.id), client.c.name, k.m.name, w.now-since, client.timeout, client.grace)
	}
}

// changed notes a change of the tree, with the state after the whole transaction.
func (c *checker) changed(zxid jute.Zxid, t jute.EventType, path string) {
	this := change{zxid, t, path}
	c.happen[this] = true
	c.changes = append(c.changes, this)
	if t == jute.EventChildrenChanged {
		names, _ := c.machine.Children(path)
		names = slices.Clone(names)
		slices.Sort(names)
		c.children[path] = append(c.children[path], childrenState{zxid, strings.Join(names, "/")})
		return
	}
	data, stat, exists := c.machine.GetData(path)
	c.nodes[path] = append(c.nodes[path], nodeState{zxid, exists, string(data), stat})
	if t == jute.EventCreated {
		c.children[path] = append(c.children[path], childrenState{zxid, ""})
	}
}

// stateAt is a node as of a zxid.
func (c *checker) stateAt(path string, zxid jute.Zxid) nodeState {
	states := c.nodes[path]
	n, _ := slices.BinarySearchFunc(states, zxid+1, func(s nodeState, z jute.Zxid) int { return cmp.Compare(s.zxid, z) })
	if n == 0 {
		return nodeState{}
	}
	return states[n-1]
}

func (c *checker) childrenAt(path string, zxid jute.Zxid) childrenState {
	states := c.children[path]
	n, _ := slices.BinarySearchFunc(states, zxid+1, func(s childrenState, z jute.Zxid) int { return cmp.Compare(s.zxid, z) })
	if n == 0 {
		return childrenState{}
	}
	return states[n-1]
}

func (c *checker) happened(zxid jute.Zxid, t jute.EventType, path string) bool {
	return c.happen[change{zxid, t, path}]
}

// changesUpTo is how many changes there are up to a zxid.
func (c *checker) changesUpTo(zxid jute.Zxid) int {
	n, _ := slices.BinarySearchFunc(c.changes, zxid+1, func(s change, z jute.Zxid) int { return cmp.Compare(s.zxid, z) })
	return n
}

// nextChange is the next one that a watch should tell of; watch.checked is its place then.
func (c *checker) nextChange(key watchKey, watch *watch) (change, bool) {
	from := watch.checked
	if key.kind.once() {
		from = max(from, c.changesUpTo(watch.since))
	}
	for i := from; i < len(c.changes); i++ {
		if this := c.changes[i]; this.zxid > watch.since && key.matches(this.t, this.path) {
			watch.checked = i // nothing for it in between
			return this, true
		}
	}
	watch.checked = len(c.changes)
	return change{}, false
}

// missedSince says whether setWatches at zxid must tell of something since before.
func (c *checker) missedSince(key watchKey, before, zxid jute.Zxid) (must bool, why string) {
	state := c.stateAt(key.path, zxid)
	switch key.kind {
	case existWatch:
		return state.exists, "the node exists"
	case childWatch:
		if !state.exists {
			return true, "the node is gone"
		}
		return c.childrenAt(key.path, zxid).zxid > before, "its children have changed"
	default:
		if !state.exists {
			return true, "the node is gone"
		}
		return state.zxid > before, "its data has changed"
	}
}

func (c *checker) saw(zxid jute.Zxid) { c.seen = max(c.seen, zxid) }

func (c *checker) attached(s *session) {
	c.clients[s.id] = s
}

// refused is a session that a member says is over.
func (c *checker) refused(s *session) {
	if truth := c.sessions[s.id]; s.id != 0 && truth != nil && truth.live {
		c.w.fail("live-session-refused", "session %x of %s is refused and lives", uint64(s.id), s.c.name)
	}
}

// written judges the answer to a write.
func (c *checker) written(client *client, r *request, h jute.ReplyHeader, body []byte) {
	o := c.writes[writeKey{client.sess.id, r.xid}]
	if h.Err == jute.SessionExpired && o == nil {
		return
	}
	if o == nil || o.zxid != h.Zxid || o.code != h.Err || h.Err == jute.OK && !bytes.Equal(o.reply, body) {
		c.w.fail("acknowledged-lost", "%s was answered %v with zxid %x for write %d %s %s, the log has %+v", client.name, h.Err, uint64(h.Zxid), r.xid, r.op, r.path, o)
	}
	if o.zxid <= r.floor && h.Err == jute.OK {
		c.w.fail("linearizable-writes", "write %d of %s has zxid %x, and %x had been seen before it was sent", r.xid, client.name, uint64(o.zxid), uint64(r.floor))
	}
}

// read judges the answer to a read.
func (c *checker) read(client *client, r *request, h jute.ReplyHeader, body []byte) {
	if h.Zxid < r.syncFloor {
		c.w.fail("sync-read", "%s read %s at zxid %x behind a sync, and %x had been seen before that", client.name, r.path, uint64(h.Zxid), uint64(r.syncFloor))
	}
	want := c.stateAt(r.path, h.Zxid)
	wrong := func(got any) {
		c.w.fail("read-content", "%s read %s %s at zxid %x: %v %+v, the log gives %+v, children %+v",
			client.name, r.op, r.path, uint64(h.Zxid), h.Err, got, want, c.childrenAt(r.path, h.Zxid))
	}
	if want.exists != (h.Err == jute.OK) || h.Err != jute.OK && h.Err != jute.NoNode {
		wrong("")
	}
	if h.Err != jute.OK {
		return
	}
	d := jute.NewDecoder(body)
	switch r.op {
	case jute.OpGetData:
		var got jute.GetDataResponse
		got.Decode(&d)
		if string(got.Data) != want.data || got.Stat.Mzxid != want.stat.Mzxid || got.Stat.Version != want.stat.Version {
			wrong(got)
		}
	case jute.OpExists:
		var got jute.Stat
		got.Decode(&d)
		if got.Mzxid != want.stat.Mzxid || got.Czxid != want.stat.Czxid || got.EphemeralOwner != want.stat.EphemeralOwner {
			wrong(got)
		}
	case jute.OpGetChildren2:
		var got jute.GetChildren2Response
		got.Decode(&d)
		slices.Sort(got.Children)
		if strings.Join(got.Children, "/") != c.childrenAt(r.path, h.Zxid).names {
			wrong(got)
		}
	}
}

// stuckAfter is when a request that is not applied is stuck, while everything is well.
const stuckAfter = 2 * time.Second

// rememberPending notes the oldest request that waits at each member.
func (c *checker) rememberPending() {
	for _, m := range c.w.members {
		m.oldest = 0
		if m.up {
			if oldest, count := m.stepped.Pending(); count > 0 {
				m.oldest, m.oldestOf = oldest, m.life
			}
		}
	}
}

// final is what must hold when everything has been well for a while.
func (c *checker) final() {
	w := c.w
	c.model.compare(c.machine)
	for _, m := range w.members {
		if m.disk.struck {
			w.counts["damaged"]++
		}
		if !m.up {
			w.fail("no-progress", "%s is down", m.name)
		}
	}
	for _, m := range w.members {
		if oldest, count := m.stepped.Pending(); count > 0 && m.life == m.oldestOf && oldest == m.oldest {
			w.fail("no-progress", "request %d of %s has waited for %v, and %d with it", oldest, m.name, stuckAfter, count)
		}
	}
	for _, cl := range w.clients {
		if cl.sess == nil && !cl.waits || cl.sess != nil && (cl.conn == nil || cl.conn.attachedAt == 0) {
			w.fail("no-progress", "%s is not connected: session %+v", cl.name, cl.sess)
		}
	}
	for _, cl := range w.clients {
		if s := cl.sess; s != nil && !s.leaving && c.sessions[s.id] != nil && !c.sessions[s.id].live && cl.conn.attachedAt > 0 && cl.conn.attachedAt < w.config.duration {
			w.fail("ended-session-served", "%s is connected to %s with session %x, which has ended", cl.name, cl.conn.m.name, uint64(s.id))
		}
	}
	for _, m := range w.members {
		index, _ := m.stepped.Applied()
		for index > 0 && c.log[index] == nil {
			index--
		}
		if index < c.last {
			w.fail("no-convergence", "%s has applied %d, others %d", m.name, index, c.last)
		}
	}
	live := map[jute.SessionID]bool{}
	for _, cl := range w.clients {
		if cl.sess != nil {
			live[cl.sess.id] = true
		}
	}
	for id, s := range c.sessions {
		if s.live && !live[id] && c.silence(s) > s.timeout+expirySlack {
			w.fail("session-lives-on", "session %x has had no client for %v (timeout %v)", uint64(id), c.silence(s), s.timeout)
		}
	}
}

// expirySlack is what the end of a silent session may take beyond its timeout: a leader, which
// gives it its whole time again, and then the log.
const expirySlack = 4 * time.Second

// silence is for how long a session has had no client while everything was well.
func (c *checker) silence(s *sessionTruth) time.Duration {
	since := max(c.w.config.duration, s.attachedAt)
	if client := c.clients[s.id]; client != nil {
		since = max(since, client.left)
	}
	return c.w.now - since
}
