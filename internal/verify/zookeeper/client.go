package zookeeper

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"time"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/zkclient"
	"understudy/internal/verify"
)

const (
	dialTimeout = time.Second
	// handshakeTimeout is more than a server holds a handshake while it looks for a leader.
	handshakeTimeout = 3 * time.Second
	// answerTimeoutMax bounds the wait for the answers to one burst.
	answerTimeoutMax = 5 * time.Second
	frameBytesMax    = 16 << 20
	// reattachPause is the pause after every server has refused once.
	reattachPause = 20 * time.Millisecond
)

// client is one actor: a session at a time over a connection at a time. It belongs to one
// goroutine.
type client struct {
	number  int
	clock   *verify.Clock
	random  *rand.Rand
	servers []string
	root    string // the run's own znode; every path is below it
	asked   time.Duration
	entries []Entry
	written int // values that this client has written

	// The session; id 0: none.
	id       jute.SessionID
	password []byte
	timeout  time.Duration
	lastZxid jute.Zxid // highest in a reply: a server behind it must not serve the session

	// The connection; nil: none.
	conn   net.Conn
	in     *bufio.Reader
	server string
	xid    int32

	// What a reconnection has to put back, by path.
	dataWatches, existWatches, childWatches map[string]bool
}

func newClient(number int, clock *verify.Clock, random *rand.Rand, servers []string, root string, timeout time.Duration) *client {
	c := &client{number: number, clock: clock, random: random, servers: servers, root: root, asked: timeout}
	c.forgetSession()
	return c
}

func (c *client) forgetSession() {
	c.id, c.password, c.lastZxid = 0, make([]byte, 16), 0
	c.dataWatches, c.existWatches, c.childWatches = map[string]bool{}, map[string]bool{}, map[string]bool{}
}

// record appends an entry of this moment.
func (c *client) record(entry Entry) {
	entry.Client, entry.N, entry.Session, entry.Server = c.number, len(c.entries), int64(c.id), c.server
	if entry.At == 0 {
		entry.At = c.clock.Now()
	}
	c.entries = append(c.entries, entry)
}

// value makes a value that is written once.
func (c *client) value() string {
	c.written++
	return fmt.Sprintf("c%d-%d", c.number, c.written)
}

// attach gives the client a session with a connection, trying the servers until ctx ends. A
// session that is found expired is recorded as such and followed by a new one.
func (c *client) attach(ctx context.Context) error {
	for c.conn == nil {
		var last error
		for _, i := range c.random.Perm(len(c.servers)) {
			if last = c.try(ctx, c.servers[i]); last == nil {
				return nil
			}
			if ctx.Err() != nil {
				return fmt.Errorf("no server takes client %d: %w", c.number, errors.Join(ctx.Err(), last))
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no server takes client %d: %w", c.number, errors.Join(ctx.Err(), last))
		case <-time.After(reattachPause):
		}
	}
	return nil
}

// try dials one server, shakes hands and puts the watches back.
func (c *client) try(ctx context.Context, server string) error {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", server)
	if err != nil {
		return err
	}
	in := bufio.NewReaderSize(conn, 64<<10)
	response, err := handshake(conn, in, &jute.ConnectRequest{
		LastZxidSeen: c.lastZxid, TimeoutMs: int32(c.asked.Milliseconds()),
		SessionID: c.id, Password: c.password, HasReadOnly: true,
	})
	if err != nil {
		conn.Close()
		return fmt.Errorf("handshake with %s: %w", server, err)
	}
	c.server = server
	if response.TimeoutMs <= 0 || response.SessionID == 0 {
		conn.Close()
		if c.id == 0 {
			return fmt.Errorf("%s refuses a new session", server)
		}
		c.record(Entry{Kind: kindExpired})
		c.forgetSession()
		return fmt.Errorf("%s says that the session has expired", server)
	}
	resumed := c.id != 0
	if resumed && response.SessionID != c.id {
		c.record(Entry{Kind: kindProtocol, Text: fmt.Sprintf("the server resumed session 0x%x instead", uint64(response.SessionID))})
		c.forgetSession()
		resumed = false
	}
	c.conn, c.in, c.xid = conn, in, 0
	c.id, c.password = response.SessionID, response.Password
	c.timeout = time.Duration(response.TimeoutMs) * time.Millisecond
	c.record(Entry{Kind: kindAttached, TimeoutMs: int64(response.TimeoutMs)})
	if resumed {
		return c.restoreWatches()
	}
	return nil
}

func handshake(conn net.Conn, in *bufio.Reader, request *jute.ConnectRequest) (*jute.ConnectResponse, error) {
	if err := conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(jute.EndFrame(request.Append(jute.BeginFrame(nil)), 0)); err != nil {
		return nil, err
	}
	body, err := readFrame(in)
	if err != nil {
		return nil, err
	}
	var response jute.ConnectResponse
	d := jute.NewDecoder(body)
	response.Decode(&d)
	return &response, d.Err()
}

// readFrame reads one frame into memory of its own.
func readFrame(in *bufio.Reader) ([]byte, error) {
	var prefix [4]byte
	if _, err := io.ReadFull(in, prefix[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(prefix[:])
	if n > frameBytesMax {
		return nil, fmt.Errorf("frame of %d bytes announced, at most %d are taken", n, frameBytesMax)
	}
	body := make([]byte, n)
	_, err := io.ReadFull(in, body)
	return body, err
}

// restoreWatches tells the new server which watches the session has.
func (c *client) restoreWatches() error {
	if len(c.dataWatches)+len(c.existWatches)+len(c.childWatches) == 0 {
		return nil
	}
	set := jute.SetWatches{RelativeZxid: c.lastZxid, Data: c.paths(c.dataWatches), Exist: c.paths(c.existWatches), Child: c.paths(c.childWatches)}
	header := jute.RequestHeader{Xid: jute.XidSetWatches, Type: jute.OpSetWatches}
	if err := c.write(jute.EndFrame(set.AppendOneShot(header.Append(jute.BeginFrame(nil))), 0)); err != nil {
		return c.lose(err)
	}
	for {
		reply, _, err := c.next()
		if err != nil {
			return c.lose(err)
		}
		if reply == nil {
			continue
		}
		if reply.Xid != jute.XidSetWatches {
			return c.broken("the reply to setWatches has xid %d", reply.Xid)
		}
		if reply.Err != jute.OK {
			return c.lose(fmt.Errorf("setWatches: %w", reply.Err))
		}
		c.record(Entry{Kind: kindRestored})
		return nil
	}
}

// paths lists watches for the wire; an empty list is not null, which Apache's server refuses.
func (c *client) paths(watches map[string]bool) []string {
	paths := make([]string, 0, len(watches))
	for _, path := range slices.Sorted(maps.Keys(watches)) {
		paths = append(paths, c.root+path)
	}
	return paths
}

// write sends bytes and sets the time by which the answers must be there.
func (c *client) write(frames []byte) error {
	if err := c.conn.SetDeadline(time.Now().Add(min(c.timeout*2/3, answerTimeoutMax))); err != nil {
		return err
	}
	_, err := c.conn.Write(frames)
	return err
}

// next reads one frame. An event is recorded and gives no reply.
func (c *client) next() (*jute.ReplyHeader, []byte, error) {
	body, err := readFrame(c.in)
	if err != nil {
		return nil, nil, err
	}
	var header jute.ReplyHeader
	d := jute.NewDecoder(body)
	header.Decode(&d)
	if err := d.Err(); err != nil {
		return nil, nil, err
	}
	if header.Xid != jute.XidNotification {
		c.lastZxid = max(c.lastZxid, header.Zxid)
		return &header, d.Rest(), nil
	}
	var event jute.WatcherEvent
	event.Decode(&d)
	if err := d.Err(); err != nil {
		return nil, nil, err
	}
	path := strings.TrimPrefix(event.Path, c.root)
	c.record(Entry{Kind: kindEvent, Request: Request{Path: path}, Event: event.Type.String(), Zxid: max(int64(header.Zxid), 0)})
	c.fired(event.Type, path)
	return nil, nil, nil
}

func (c *client) fired(event jute.EventType, path string) {
	if event != jute.EventChildrenChanged {
		delete(c.dataWatches, path)
		delete(c.existWatches, path)
	}
	if event == jute.EventChildrenChanged || event == jute.EventDeleted {
		delete(c.childWatches, path)
	}
}

// lose gives the connection up.
func (c *client) lose(cause error) error {
	c.conn.Close()
	c.conn = nil
	c.record(Entry{Kind: kindLost, Text: cause.Error()})
	return cause
}

// broken records that the server broke the protocol and gives the connection up.
func (c *client) broken(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	c.record(Entry{Kind: kindProtocol, Text: text})
	return c.lose(errors.New(text))
}

// call is a request on its way. sync has a sync sent right before it.
type call struct {
	Request
	sync bool
	op   zkclient.Op
}

// do sends requests in one write and waits for all answers. What is not answered is recorded
// as open; then the connection is gone.
func (c *client) do(calls ...call) []*Entry {
	first := len(c.entries)
	began := c.clock.Now()
	var frames []byte
	var pending []*call // of each frame; nil: a sync, of which only its answer matters
	for i := range calls {
		calls[i].op = c.operation(&calls[i].Request)
		if calls[i].sync {
			sync := zkclient.Sync(c.root)
			frames = c.frame(frames, &sync)
			pending = append(pending, nil)
		}
		frames = c.frame(frames, &calls[i].op)
		pending = append(pending, &calls[i])
	}
	xid := c.xid - int32(len(pending))
	err := c.write(frames)
	synced := false
	for done := 0; done < len(pending); {
		var reply *jute.ReplyHeader
		var body []byte
		if err == nil {
			reply, body, err = c.next()
		}
		if err == nil && reply == nil {
			continue
		}
		if err == nil && reply.Xid != xid+int32(done)+1 {
			err = c.broken("the reply has xid %d, that of xid %d is due", reply.Xid, xid+int32(done)+1)
		}
		call := pending[done]
		done++
		if call == nil {
			synced = err == nil && reply.Err == jute.OK
			continue
		}
		entry := Entry{Kind: kindOp, At: began, Request: call.Request, Outcome: outcomeOpen}
		if err == nil {
			entry.Return = c.clock.Now()
			entry.Zxid = int64(reply.Zxid)
			if call.sync && synced {
				entry.SyncAt = began
			}
			c.conclude(&entry, call.op.DecodeReply(reply.Err, body))
		}
		c.record(entry)
		if code := jute.OK; err == nil && entry.unreadable != nil && !errors.As(entry.unreadable, &code) {
			err = c.broken("%v", entry.unreadable)
		}
	}
	if err != nil && c.conn != nil {
		_ = c.lose(err) // recorded; the answers that are missing are open already
	}
	var done []*Entry
	for i := first; i < len(c.entries); i++ {
		if c.entries[i].Kind == kindOp {
			done = append(done, &c.entries[i])
		}
	}
	return done
}

func (c *client) frame(dst []byte, op *zkclient.Op) []byte {
	start := len(dst)
	c.xid++
	header := jute.RequestHeader{Xid: c.xid, Type: op.Code}
	return jute.EndFrame(op.AppendBody(header.Append(jute.BeginFrame(dst))), start)
}

// operation is a request as it goes over the wire.
func (c *client) operation(r *Request) zkclient.Op {
	path := c.root + r.Path
	switch r.Name {
	case opCreate:
		flags := zkclient.Persistent
		if r.Ephemeral {
			flags |= zkclient.Ephemeral
		}
		if r.Sequential {
			flags |= zkclient.Sequential
		}
		return zkclient.Create(path, []byte(r.Data), flags)
	case opDelete:
		return zkclient.Delete(path, r.Version)
	case opSetData:
		return zkclient.SetData(path, []byte(r.Data), r.Version)
	case opCheck:
		return zkclient.Check(path, r.Version)
	case opGetData:
		return zkclient.GetData(path, r.Watch)
	case opExists:
		return zkclient.Exists(path, r.Watch)
	case opChildren:
		return zkclient.Children(path, r.Watch)
	case opClose:
		return zkclient.Op{Code: jute.OpCloseSession}
	case opMulti:
		ops := make([]zkclient.Op, len(r.Ops))
		for i := range r.Ops {
			ops[i] = c.operation(&r.Ops[i])
		}
		return zkclient.Multi(ops...)
	}
	panic("no such operation: " + r.Name)
}

// conclude enters a reply into an operation's entry and notes the watch it set.
func (c *client) conclude(entry *Entry, result zkclient.Result) {
	entry.Outcome = outcomeOf(result.Err)
	if entry.Outcome == outcomeOpen {
		entry.Text, entry.unreadable = result.Err.Error(), result.Err
	}
	if entry.Name == opMulti {
		concludeMulti(entry, result.Results)
	}
	if entry.Outcome == outcomeOK {
		switch entry.Name {
		case opCreate:
			entry.Created = strings.TrimPrefix(result.Path, c.root)
		case opGetData:
			entry.Value, entry.Stat = string(result.Data), statOf(&result.Stat)
		case opSetData, opExists:
			entry.Stat = statOf(&result.Stat)
		case opChildren:
			entry.Children, entry.Stat = result.Children, statOf(&result.Stat)
		}
	}
	if !entry.Watch {
		return
	}
	switch {
	case entry.Outcome == outcomeOK && entry.Name == opChildren:
		c.childWatches[entry.Path] = true
	case entry.Outcome == outcomeOK:
		c.dataWatches[entry.Path] = true
	case entry.Outcome == outcomeNoNode && entry.Name == opExists:
		c.existWatches[entry.Path] = true
	}
}

func concludeMulti(entry *Entry, results []zkclient.Result) {
	for i := range results {
		code := results[i].Err
		if entry.Outcome == outcomeOK {
			var stat *Stat
			if entry.Ops[i].Name == opSetData {
				stat = statOf(&results[i].Stat)
			}
			entry.Stats = append(entry.Stats, stat)
		} else if code != nil && !errors.Is(code, jute.RuntimeInconsistency) {
			entry.Failed = i
			return
		}
	}
}

func statOf(stat *jute.Stat) *Stat {
	return &Stat{
		Czxid: int64(stat.Czxid), Mzxid: int64(stat.Mzxid), Pzxid: int64(stat.Pzxid),
		Version: stat.Version, Owner: int64(stat.EphemeralOwner),
	}
}

// outcomeOf names what a reply's code says. A code that does not tell whether the operation
// was applied leaves it open.
func outcomeOf(err error) string {
	switch {
	case err == nil:
		return outcomeOK
	case errors.Is(err, jute.NoNode):
		return outcomeNoNode
	case errors.Is(err, jute.NodeExists):
		return outcomeNodeExists
	case errors.Is(err, jute.BadVersion):
		return outcomeBadVersion
	case errors.Is(err, jute.NotEmpty):
		return outcomeNotEmpty
	}
	return outcomeOpen
}

// hop drops the connection; the session goes on at whichever server takes it next.
func (c *client) hop() {
	if c.conn != nil {
		_ = c.lose(errors.New("the client hangs up"))
	}
}

// closeSession ends the session the proper way.
func (c *client) closeSession() {
	c.do(call{Request: Request{Name: opClose}})
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
	c.forgetSession()
}

// abandon leaves the session to its timeout.
func (c *client) abandon() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
	c.record(Entry{Kind: kindAbandoned})
	c.forgetSession()
}
