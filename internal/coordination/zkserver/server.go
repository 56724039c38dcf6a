package zkserver

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"understudy/internal/coordination/ensemble"
	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/watch"
	"understudy/internal/coordination/znode"
)

// Member is what the server needs of an ensemble member; *ensemble.Member is one.
type Member interface {
	Submit(req znode.Request, token any)
	View(f func(*znode.Machine))
	Barrier(token any, f func(ok bool))
	Touch(session jute.SessionID)
	ConnectionLost(session jute.SessionID, generation uint64)
	SetObserver(o ensemble.Observer)
	Status() ensemble.Status
	Serving() bool
	OnServing(f func(bool))
}

var _ Member = (*ensemble.Member)(nil)

// DefaultVersion is what the version line of srvr says; tools read it as ZooKeeper 3.9.
const DefaultVersion = "3.9.5-understudy, built on 2026-02-11 20:15 UTC"

// Config of a server. Zero values mean ZooKeeper's defaults where there is one.
type Config struct {
	Member Member
	// ClientAddr is the address that conf shows and that belongs to the listener given to Serve.
	ClientAddr string
	TickTime   time.Duration // default 2 s
	// MinSessionTimeout and MaxSessionTimeout bound what a client may ask for; default 2 and 20 ticks.
	MinSessionTimeout, MaxSessionTimeout time.Duration
	// MaxClientConnections per client address; 0 means 60, negative no limit.
	MaxClientConnections int
	// MaxFrameBytes is jute.maxbuffer; default 1 MiB - 1.
	MaxFrameBytes int
	// FourLetterWhitelist names the words that are answered; "*" is all, nil is srvr alone.
	FourLetterWhitelist []string
	// SuperDigest is DigestAuthenticationProvider.superDigest: the user:hash that may do everything; "" is nobody.
	SuperDigest string
	Version     string // default DefaultVersion
	DataDir     string // shown by conf and dirs
	Logger      *slog.Logger
}

const (
	// sessionlessTimeout ends a connection that has no session (upstream 10 to 20 s).
	sessionlessTimeout = 15 * time.Second
	defaultHoldServing = 2 * time.Second
	defaultHoldZxid    = 500 * time.Millisecond

	defaultMaxClientConnections = 60
)

// Server serves clients of one ensemble member.
type Server struct {
	config Config
	log    *slog.Logger
	member Member
	self   znode.MemberID
	start  time.Time

	// How long a handshake is held when this member has no leader yet, or is behind the client. A client that is
	// refused loses up to a second in its own back-off.
	holdServing, holdZxid time.Duration

	watches struct {
		sync.Mutex
		table *watch.Table[*conn]
		fired []*conn // scratch of Applied
	}
	unsent []*conn // have output from Applied that their writers do not know of; the apply loop's
	event  []byte  // scratch of Applied: the frame of an event

	sessionID atomic.Int64     // the last one given out
	now       func() time.Time // the wall clock of new session ids
	random    io.Reader        // of session ids and passwords
	accepted  atomic.Uint64
	stats     serverStats

	mu struct {
		sync.Mutex
		conns     map[*conn]struct{}
		sessions  map[jute.SessionID]*conn // attached here
		perIP     map[netip.Addr]int
		warned    map[string]time.Time // last time of each message of warn
		listeners map[net.Listener]struct{}
		closed    bool
		serving   bool
		changed   chan struct{} // closed and renewed when serving changes or the server closes
	}
	running sync.WaitGroup
}

var _ ensemble.Observer = (*Server)(nil)

// New makes a server and makes it the member's observer. It takes no connections before Serve or Pipe.
func New(config Config) (*Server, error) {
	if config.Member == nil {
		return nil, errors.New("zkserver: no ensemble member given")
	}
	if err := config.complete(); err != nil {
		return nil, err
	}
	s := &Server{config: config, log: config.Logger, member: config.Member, start: time.Now(),
		holdServing: defaultHoldServing, holdZxid: defaultHoldZxid, now: time.Now, random: crand.Reader}
	s.self = max(config.Member.Status().ID, 1)
	s.watches.table = watch.New[*conn]()
	s.mu.conns = make(map[*conn]struct{})
	s.mu.sessions = make(map[jute.SessionID]*conn)
	s.mu.perIP = make(map[netip.Addr]int)
	s.mu.warned = make(map[string]time.Time)
	s.mu.listeners = make(map[net.Listener]struct{})
	s.mu.changed = make(chan struct{})
	s.member.SetObserver(s)
	s.member.OnServing(s.servingChanged)
	return s, nil
}

func (c *Config) complete() error {
	if c.TickTime <= 0 {
		c.TickTime = 2 * time.Second
	}
	if c.MinSessionTimeout <= 0 {
		c.MinSessionTimeout = 2 * c.TickTime
	}
	if c.MaxSessionTimeout <= 0 {
		c.MaxSessionTimeout = 20 * c.TickTime
	}
	if c.MinSessionTimeout > c.MaxSessionTimeout {
		return fmt.Errorf("zkserver: minSessionTimeout %v is more than maxSessionTimeout %v", c.MinSessionTimeout, c.MaxSessionTimeout)
	}
	if c.MaxClientConnections == 0 {
		c.MaxClientConnections = defaultMaxClientConnections
	}
	if c.MaxFrameBytes <= 0 {
		c.MaxFrameBytes = jute.DefaultMaxBuffer
	}
	if c.FourLetterWhitelist == nil {
		c.FourLetterWhitelist = []string{"srvr"}
	}
	if c.Version == "" {
		c.Version = DefaultVersion
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return nil
}

// Serve accepts connections until the listener or the server is closed. Several listeners may be served.
func (s *Server) Serve(ln net.Listener) {
	s.mu.Lock()
	if s.mu.closed {
		s.mu.Unlock()
		ln.Close()
		return
	}
	s.mu.listeners[ln] = struct{}{}
	s.running.Add(1)
	s.mu.Unlock()
	defer s.running.Done()
	for pause := time.Duration(0); ; {
		nc, err := ln.Accept()
		switch {
		case err == nil:
			pause = 0
			s.serve(nc)
		case errors.Is(err, net.ErrClosed):
			return
		default: // out of descriptors, most often: it passes
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.log.Warn("accepting a zookeeper client failed", "addr", ln.Addr(), "err", err, "again", pause)
			time.Sleep(pause)
		}
	}
}

// Pipe gives a client's end of a connection in memory, served as any other.
func (s *Server) Pipe() (net.Conn, error) {
	client, server := newPipe()
	if !s.serve(server) {
		return nil, net.ErrClosed
	}
	return client, nil
}

// serve starts a connection's goroutines; false and closed if it is one too many.
func (s *Server) serve(nc net.Conn) bool {
	c := newConn(s, nc)
	if !s.admit(c) {
		return false
	}
	go func() { defer s.running.Done(); c.run() }()
	go func() { defer s.running.Done(); c.writeLoop() }()
	return true
}

// admit takes a connection into the tables, and counts its goroutines; false and closed if it is
// one too many.
func (s *Server) admit(c *conn) bool {
	s.mu.Lock()
	limit := s.config.MaxClientConnections
	over := limit > 0 && !c.inMemory && s.mu.perIP[c.addr] >= limit
	if s.mu.closed || over {
		s.mu.Unlock()
		if over {
			s.stats.rejected.Add(1)
			s.warn("too many zookeeper clients from one address", "addr", c.addr, "limit", limit)
		}
		c.net.Close()
		return false
	}
	s.mu.conns[c] = struct{}{}
	if !c.inMemory {
		s.mu.perIP[c.addr]++
	}
	if !c.stepped {
		s.running.Add(2)
	}
	s.mu.Unlock()
	return true
}

// warn logs what a client can provoke as often as it likes, at most once a second for each message.
func (s *Server) warn(msg string, args ...any) {
	now := time.Now()
	s.mu.Lock()
	often := now.Sub(s.mu.warned[msg]) < time.Second
	if !often {
		s.mu.warned[msg] = now
	}
	s.mu.Unlock()
	if !often {
		s.log.Warn(msg, args...)
	}
}

// forget takes a closed connection out of the tables.
func (s *Server) forget(c *conn, session jute.SessionID) {
	s.mu.Lock()
	if _, known := s.mu.conns[c]; known {
		delete(s.mu.conns, c)
		if c.inMemory {
			// not counted
		} else if s.mu.perIP[c.addr]--; s.mu.perIP[c.addr] <= 0 {
			delete(s.mu.perIP, c.addr)
		}
	}
	if session != 0 && s.mu.sessions[session] == c {
		delete(s.mu.sessions, session)
	}
	s.mu.Unlock()
	s.watches.Lock()
	c.unwatched = true
	s.watches.table.RemoveAll(c)
	s.watches.Unlock()
}

// Close closes the listeners and all connections; the sessions live on. It returns when
// all goroutines have ended or ctx has.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	s.mu.closed = true
	for ln := range s.mu.listeners {
		ln.Close()
	}
	s.announceLocked()
	s.mu.Unlock()
	s.closeAll("server shutdown", func(*conn) bool { return true })
	ended := make(chan struct{})
	go func() { s.running.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("zkserver: connections still busy: %w", ctx.Err())
	}
}

// servingChanged follows the member: without a quorum no client is served, so that it finds a member that has one.
func (s *Server) servingChanged(serving bool) {
	s.mu.Lock()
	s.mu.serving = serving
	s.announceLocked()
	s.mu.Unlock()
	if !serving {
		s.closeAll("no quorum", (*conn).attached)
	}
}

func (s *Server) announceLocked() {
	close(s.mu.changed)
	s.mu.changed = make(chan struct{})
}

// waitServing holds a handshake until there is a leader; false if that takes too long.
func (s *Server) waitServing(gone <-chan struct{}) bool {
	timeout := time.NewTimer(s.holdServing)
	defer timeout.Stop()
	for {
		s.mu.Lock()
		serving, closed, changed := s.mu.serving, s.mu.closed, s.mu.changed
		s.mu.Unlock()
		if serving || closed {
			return serving && !closed
		}
		select {
		case <-changed:
		case <-timeout.C:
			return false
		case <-gone:
			return false
		}
	}
}

func (s *Server) closeAll(why string, which func(*conn) bool) {
	for _, c := range s.connections() {
		if which(c) {
			c.close(why)
		}
	}
}

// connections lists them all, the oldest first.
func (s *Server) connections() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*conn, 0, len(s.mu.conns))
	for c := range s.mu.conns {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b *conn) int { return cmp.Compare(a.number, b.number) })
	return list
}

// bySession is the connection that a session has here, or nil.
func (s *Server) bySession(id jute.SessionID) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.sessions[id]
}

// mustRandom fills b with chance.
func (s *Server) mustRandom(b []byte) {
	if _, err := io.ReadFull(s.random, b); err != nil {
		panic(fmt.Sprintf("zkserver: the source of chance failed: %v", err))
	}
}

// newSessionID makes an id that has never been one: the member's number in the top byte, below it the wall clock in
// milliseconds (40 bits, 35 years) and 16 bits to count with, random at first; never less than the last one plus
// one. Upstream uses a clock that starts again with the machine, so that it can repeat itself; Kafka, Curator and
// Patroni compare ephemeral owners with session ids and rely on it that it does not.
func (s *Server) newSessionID() jute.SessionID {
	for {
		last := s.sessionID.Load()
		var random [2]byte
		s.mustRandom(random[:])
		low := s.now().UnixMilli()&(1<<40-1)<<16 | int64(binary.BigEndian.Uint16(random[:]))
		next := low | int64(s.self)<<56
		if last&(1<<56-1) >= low {
			next = last + 1
		}
		if next != -1<<63 && s.sessionID.CompareAndSwap(last, next) {
			return jute.SessionID(next)
		}
		runtime.Gosched()
	}
}
