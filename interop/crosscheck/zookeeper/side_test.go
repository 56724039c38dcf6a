package zookeeper

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"understudy/internal/coordination/jute"
	"understudy/internal/fleet"
)

// patience bounds each wait for a server.
const patience = 20 * time.Second

const (
	// longTimeout outlives any run, so that a session ends only where a step says so.
	longTimeout  = 3_000_000
	shortTimeout = 1000
)

// slots is how many clients there are; one more, the walker, looks at the whole tree.
const slots = 4

// side is one of the two servers (or ensembles), and the clients that a run has there.
type side struct {
	names
	addrs   []string // slot i connects to addrs[i % len(addrs)]
	clients [slots]client
	walker  client
	barrier request // what is sent on each connection after each step: all events come before its reply
}

// client is a slot: a session, and the connection it has at the moment, if any.
type client struct {
	conn     net.Conn
	in       *bufio.Reader
	addr     string
	session  jute.SessionID
	password []byte
	lastZxid jute.Zxid
	replied  jute.Zxid // of the newest reply
}

// newSide connects the walker, which knows all passwords, and takes the zxid from which all others count.
func newSide(addrs []string) (*side, error) {
	s := &side{addrs: addrs, names: names{sessions: map[jute.SessionID]string{}}}
	s.barrier = request{xid: jute.XidPing, op: jute.OpPing}
	if len(addrs) > 1 { // brings the member up to date first
		s.barrier = request{xid: barrierXid, op: jute.OpSync, body: (&jute.PathRequest{Path: "/"}).Append(nil)}
	}
	for i := range s.clients {
		s.clients[i].addr = addrs[i%len(addrs)]
	}
	s.walker.addr = addrs[0]
	var seen []string
	s.connect(&s.walker, hello{session: newSession, timeout: longTimeout, readOnly: []byte{0}}, nil, &seen)
	if s.walker.conn == nil {
		return nil, fmt.Errorf("%s refuses the first connection: %q", addrs[0], seen)
	}
	for _, user := range users {
		s.exchange(&s.walker, []request{authRequest("digest", user)}, &seen)
	}
	s.exchange(&s.walker, []request{{xid: jute.XidPing, op: jute.OpPing}}, &seen)
	s.base = s.walker.lastZxid
	return s, nil
}

// barrierXid is no xid of the generator's.
const barrierXid = 0x7ffffff0

func (s *side) close() {
	for _, c := range s.all() {
		if c.conn != nil {
			c.conn.Close()
		}
	}
}

func (s *side) all() []*client {
	list := make([]*client, 0, slots+1)
	for i := range s.clients {
		list = append(list, &s.clients[i])
	}
	return append(list, &s.walker)
}

// perform does a step and says what each connection got, in order.
func (s *side) perform(st *step) []string {
	var seen []string
	c := &s.clients[st.slot]
	switch st.kind {
	case connects:
		if h := st.hello; h.session >= 0 && len(s.addrs) > 1 {
			// The other members hear of the move at once with us, and only with the session's next write in Apache's.
			s.hangUpOthers(c, s.clients[h.session].session, &seen)
		}
		s.connect(c, s.resolved(st.hello, c), st.requests, &seen)
	case sends:
		s.ensureConnected(c, st.slot, &seen)
		s.exchange(c, st.requests, &seen)
	case drops:
		s.hangUp(c, &seen)
	case expires:
		s.expire(c, st.silent, &seen)
	case breaks:
		s.breakOff(c, st, &seen)
	case strays:
		s.stray(c.addr, st, &seen)
	case asks:
		seen = append(seen, s.ask(c.addr, st.word)...)
	case walks:
		s.walk(&seen)
	}
	seen = append(seen, "then")
	s.settle(&seen)
	if st.endsSession() {
		sortEvents(seen)
	}
	return seen
}

// sortEvents sorts neighbouring events of one zxid: the ephemerals of a session go in no defined order.
func sortEvents(seen []string) {
	zxidOf := func(line string) string {
		if !strings.HasPrefix(line, "event ") {
			return ""
		}
		_, zxid, _ := strings.Cut(line, " zxid ")
		return zxid
	}
	for from := 0; from < len(seen); {
		to := from + 1
		for to < len(seen) && zxidOf(seen[from]) != "" && zxidOf(seen[to]) == zxidOf(seen[from]) {
			to++
		}
		slices.Sort(seen[from:to])
		from = to
	}
}

// resolved names the session that a slot's handshake asks for.
func (s *side) resolved(h hello, c *client) hello {
	if h.session >= 0 && h.session < slots {
		other := &s.clients[h.session]
		if other != c {
			c.session, c.password, c.lastZxid = other.session, slices.Clone(other.password), max(c.lastZxid, other.lastZxid)
		}
	}
	return h
}

// connect makes a connection and says what came of it; the requests go out with the handshake.
func (s *side) connect(c *client, h hello, requests []request, seen *[]string) {
	old := *c
	if !h.stay {
		s.hangUp(c, seen)
	}
	r := jute.ConnectRequest{TimeoutMs: h.timeout, Password: make([]byte, 16)}
	switch {
	case h.session == noSession:
		r.SessionID = 0x7e57
	case h.session >= 0:
		r.SessionID, r.Password = c.session, slices.Clone(c.password)
	}
	switch h.password {
	case wrongPassword:
		r.Password = slices.Repeat([]byte{1}, 16)
	case shortPassword:
		r.Password = []byte{1, 2, 3}
	case nullPassword:
		r.Password = nil
	}
	switch h.seen {
	case seenAll:
		r.LastZxidSeen = c.lastZxid
	case seenFuture:
		r.LastZxidSeen = s.base + 1_000_000_000
	}
	conn, err := net.Dial("tcp", c.addr)
	if err != nil {
		*seen = append(*seen, "not to be reached: "+err.Error())
		return
	}
	out := appendFrame(nil, append(r.Append(nil), h.readOnly...))
	for i := range requests {
		out = s.appendRequest(out, &requests[i])
	}
	c.conn, c.in = conn, bufio.NewReaderSize(conn, 64<<10)
	_, _ = conn.Write(out) // a refusal shows when reading
	frame, err := c.frame()
	if err != nil {
		s.lost(c, err, seen)
	} else {
		s.greeted(c, h, frame, seen)
	}
	if old.conn != nil && h.stay {
		s.readToEnd(&old, seen)
	}
	if c.conn != nil {
		s.collect(c, requests, seen)
	}
}

func (s *side) greeted(c *client, h hello, frame []byte, seen *[]string) {
	var r jute.ConnectResponse
	d := jute.NewDecoder(frame)
	r.Decode(&d)
	if r.SessionID != 0 {
		s.name(r.SessionID)
	}
	password := "a password"
	switch {
	case string(r.Password) == string(make([]byte, 16)):
		password = "zeros"
	case h.session >= 0 && string(r.Password) == string(c.password):
		password = "the same password"
	}
	*seen = append(*seen, fmt.Sprintf("handshake of %d bytes: version %d timeout %d %s, %s of %d, read only %v%s", len(frame), r.ProtocolVersion,
		r.TimeoutMs, s.session(r.SessionID), password, len(r.Password), r.ReadOnly, leftover(&d)))
	if r.SessionID != 0 {
		c.session, c.password = r.SessionID, r.Password
		return
	}
	s.readToEnd(c, seen)
}

// ensureConnected gives a client that has lost its connection a new session, so that no request is wasted.
func (s *side) ensureConnected(c *client, slot int, seen *[]string) {
	if c.conn != nil {
		return
	}
	var requests []request
	if slot < len(users) {
		requests = append(requests, authRequest("digest", users[slot]))
	}
	s.connect(c, hello{session: newSession, timeout: longTimeout, readOnly: []byte{0}}, requests, seen)
}

// hangUp closes the client's end and waits until the server has noticed.
func (s *side) hangUp(c *client, seen *[]string) {
	if c.conn == nil {
		return
	}
	_ = c.conn.(*net.TCPConn).CloseWrite() // the server's end is what counts
	s.readToEnd(c, seen)
}

// hangUpOthers hangs up for all clients but c that have a session.
func (s *side) hangUpOthers(c *client, session jute.SessionID, seen *[]string) {
	for i := range s.clients {
		if other := &s.clients[i]; other.session == session && other != c {
			s.hangUp(other, seen)
		}
	}
}

// readToEnd notes all that comes until the server closes.
func (s *side) readToEnd(c *client, seen *[]string) {
	for c.conn != nil {
		s.next(c, jute.OpNotification, seen)
	}
}

// exchange sends requests in one write and reads as many replies.
func (s *side) exchange(c *client, requests []request, seen *[]string) {
	if c.conn == nil {
		return // a new connection was refused, which has been noted
	}
	var out []byte
	for i := range requests {
		out = s.appendRequest(out, &requests[i])
	}
	_, _ = c.conn.Write(out) // a failure shows when reading
	s.collect(c, requests, seen)
}

func (s *side) collect(c *client, requests []request, seen *[]string) {
	for i := 0; i < len(requests) && c.conn != nil; {
		if s.next(c, requests[i].op, seen) {
			i++
		}
	}
	if n := len(requests); n > 0 && requests[n-1].closes {
		s.readToEnd(c, seen)
	}
}

// next notes one frame and tells whether it was a reply.
func (s *side) next(c *client, op jute.OpCode, seen *[]string) (isReply bool) {
	frame, err := c.frame()
	if err != nil {
		s.lost(c, err, seen)
		return false
	}
	d := jute.NewDecoder(frame)
	var h jute.ReplyHeader
	h.Decode(&d)
	c.lastZxid = max(c.lastZxid, h.Zxid)
	if h.Xid == jute.XidNotification {
		*seen = append(*seen, s.event(h, &d))
		return false
	}
	c.replied = h.Zxid
	*seen = append(*seen, s.reply(op, h, &d))
	return true
}

func (s *side) lost(c *client, err error, seen *[]string) {
	what := "closed"
	if errors.Is(err, os.ErrDeadlineExceeded) {
		what = "no answer"
	}
	*seen = append(*seen, what)
	c.conn.Close()
	c.conn = nil
}

func (s *side) appendRequest(dst []byte, r *request) []byte {
	payload := (&jute.RequestHeader{Xid: r.xid, Type: r.op}).Append(nil)
	at := len(payload)
	payload = append(payload, r.body...)
	if r.relative {
		binary.BigEndian.PutUint64(payload[at:], binary.BigEndian.Uint64(payload[at:])+uint64(s.base))
	}
	return appendFrame(dst, payload)
}

func appendFrame(dst, payload []byte) []byte {
	start := len(dst)
	return jute.EndFrame(append(jute.BeginFrame(dst), payload...), start)
}

func (c *client) frame() ([]byte, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	var size [4]byte
	if _, err := io.ReadFull(c.in, size[:]); err != nil {
		return nil, err
	}
	payload := make([]byte, min(binary.BigEndian.Uint32(size[:]), 64<<20))
	_, err := io.ReadFull(c.in, payload)
	return payload, err
}

// settle sends a barrier on every connection and notes what had come before its reply. In an ensemble it does so twice, and
// again where the reply is from before what some client has seen: Apache's sync can be answered a moment before the last
// change is applied, by another thread.
func (s *side) settle(seen *[]string) {
	all := s.all()
	events := make([][]string, len(all))
	again := func(*client) bool { return true }
	for round := min(len(s.addrs), 2); round > 0; round-- {
		s.round(all, events, again)
	}
	for deadline := time.Now().Add(patience); len(s.addrs) > 1 && time.Now().Before(deadline); {
		var last jute.Zxid
		for _, c := range all {
			last = max(last, c.lastZxid)
		}
		behind := func(c *client) bool { return c.replied < last }
		if !slices.ContainsFunc(all, func(c *client) bool { return c.conn != nil && behind(c) }) {
			break
		}
		s.round(all, events, behind)
	}
	for i, lines := range events {
		if len(lines) > 0 {
			*seen = append(append(*seen, fmt.Sprintf("connection %d:", i)), lines...)
		}
	}
}

// round sends a barrier on the connections that are chosen; the reply takes the place of the one before.
func (s *side) round(all []*client, events [][]string, chosen func(*client) bool) {
	var asked []int
	for i, c := range all {
		if c.conn != nil && chosen(c) {
			asked = append(asked, i)
			_, _ = c.conn.Write(s.appendRequest(nil, &s.barrier)) // a failure shows when reading
		}
	}
	for _, i := range asked {
		if n := len(events[i]); n > 0 && strings.HasPrefix(events[i][n-1], "reply ") {
			events[i] = events[i][:n-1]
		}
		s.collect(all[i], []request{s.barrier}, &events[i])
	}
}

// expire has a session time out: re-attached with a short timeout it loses its connection, or stays silent on it.
func (s *side) expire(c *client, silent bool, seen *[]string) {
	if c.session == 0 {
		*seen = append(*seen, "no session")
		return
	}
	s.hangUpOthers(c, c.session, seen) // whoever has it would keep it alive
	before, err := s.globalSessions(c.addr)
	s.shorten(c, seen)
	s.connect(c, hello{session: 0, timeout: shortTimeout, readOnly: []byte{0}}, nil, seen)
	if c.conn == nil {
		return // it was over before
	}
	s.touch(c)
	if silent {
		s.readToEnd(c, seen)
	} else {
		s.hangUp(c, seen)
	}
	if err == nil {
		err = s.awaitFewerSessions(c.addr, before)
	}
	if err != nil {
		*seen = append(*seen, err.Error())
	}
}

// awaitFewerSessions asks until the number of sessions has changed; nobody is told of it.
func (s *side) awaitFewerSessions(addr, before string) error {
	gaveUp := time.After(patience)
	next := time.NewTicker(20 * time.Millisecond)
	defer next.Stop()
	for {
		if now, err := s.globalSessions(addr); err != nil || now != before {
			return err
		}
		select {
		case <-next.C:
		case <-gaveUp:
			return errors.New("the session does not expire")
		}
	}
}

// shorten has every member of an ensemble know a session with the short timeout. A member of Apache's reports a few times a
// second which sessions it has heard of, each with the timeout that it had then, and the leader takes its word: a report
// of before the re-attachment would have the session live on for the long one.
func (s *side) shorten(c *client, seen *[]string) {
	if len(s.addrs) == 1 {
		return
	}
	s.hangUp(c, seen)
	var unseen []string
	for _, addr := range s.addrs {
		there := client{addr: addr, session: c.session, password: c.password}
		if s.connect(&there, hello{session: 0, timeout: shortTimeout, readOnly: []byte{0}}, nil, &unseen); there.conn != nil {
			s.touch(&there)
			s.hangUp(&there, &unseen)
		}
	}
}

// touch has a session be heard of.
func (s *side) touch(c *client) {
	if len(s.addrs) > 1 {
		s.exchange(c, []request{{xid: jute.XidPing, op: jute.OpPing}}, new([]string))
	}
}

// globalSessions asks a server how many sessions there are.
func (s *side) globalSessions(addr string) (string, error) {
	answer, err := fleet.FourLetterWord(addr, "mntr")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(answer) {
		if count, found := strings.CutPrefix(line, "zk_global_sessions\t"); found {
			return count, nil
		}
	}
	return "", fmt.Errorf("mntr of %s names no global sessions", addr)
}

// breakOff writes bytes that are no frame of a request, on a connection that was fine until then.
func (s *side) breakOff(c *client, st *step, seen *[]string) {
	if s.ensureConnected(c, st.slot, seen); c.conn == nil {
		return
	}
	out := slices.Clone(st.bytes)
	if !st.openEnd {
		out = s.appendRequest(out, &s.barrier)
	}
	_, _ = c.conn.Write(out) // a refusal shows when reading
	if st.openEnd {
		s.hangUp(c, seen)
		return
	}
	s.collect(c, []request{s.barrier}, seen)
}

// stray opens a connection and does not begin it as a client does.
func (s *side) stray(addr string, st *step, seen *[]string) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		*seen = append(*seen, "not to be reached: "+err.Error())
		return
	}
	defer conn.Close()
	_, _ = conn.Write(st.bytes) // a refusal shows when reading
	if st.openEnd {
		_ = conn.(*net.TCPConn).CloseWrite() // as above
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	answer, err := io.ReadAll(conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		*seen = append(*seen, "no answer")
		return
	}
	*seen = append(*seen, fmt.Sprintf("%s, closed", hexText(answer)))
}

// walk reads every node.
func (s *side) walk(seen *[]string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var visit func(path string)
	visit = func(path string) {
		if ctx.Err() != nil || s.walker.conn == nil {
			return
		}
		*seen = append(*seen, path)
		read := (&jute.PathWatchRequest{Path: path}).Append(nil)
		s.exchange(&s.walker, []request{{xid: 1, op: jute.OpGetData, body: read}, {xid: 2, op: jute.OpGetACL, body: read[:len(read)-1]}}, seen)
		for _, child := range s.children(path) {
			if child = strings.TrimSuffix(path, "/") + "/" + child; child == "/zookeeper/config" && len(s.addrs) > 1 {
				continue // Apache's ensembles show their members there
			}
			visit(child)
		}
	}
	s.exchange(&s.walker, []request{s.barrier}, new([]string))
	visit("/")
}

func (s *side) children(path string) []string {
	if s.walker.conn == nil {
		return nil
	}
	body := (&jute.PathWatchRequest{Path: path}).Append(nil)
	_, _ = s.walker.conn.Write(s.appendRequest(nil, &request{xid: 3, op: jute.OpGetChildren, body: body})) // a failure shows when reading
	frame, err := s.walker.frame()
	if err != nil {
		return nil
	}
	d := jute.NewDecoder(frame)
	var h jute.ReplyHeader
	h.Decode(&d)
	if h.Err != jute.OK {
		return nil
	}
	list := d.Strings()
	slices.Sort(list)
	return list
}
