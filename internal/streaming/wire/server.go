package wire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ServerOptions tune a Server; zero values get Kafka's defaults.
type ServerOptions struct {
	MaxRequestBytes     int32         // socket.request.max.bytes, 100 MiB
	MaxIdle             time.Duration // connections.max.idle.ms, 10 min
	MaxConnections      int           // max.connections; one more is closed at once
	MaxConnectionsPerIP int           // max.connections.per.ip; likewise
	SendBufferBytes     int           // socket.send.buffer.bytes; -1 or 0: the system's
	ReceiveBufferBytes  int           // socket.receive.buffer.bytes; likewise
	// MaxInFlight and MaxInFlightBytes bound what one connection may have unanswered; it is
	// not read any further until there is room. 128 requests, 32 MiB beyond the first.
	MaxInFlight      int
	MaxInFlightBytes int
	Logger           *slog.Logger
}

// API is a range of versions that a Server serves.
type API struct{ Key, Min, Max int16 }

// Server accepts connections and calls handlers. Register every handler before Serve.
type Server struct {
	options ServerOptions
	logger  *slog.Logger
	peers   *peerLog
	apis    map[int16]*handler
	enabled chan struct{} // closed by Enable: requests are read from then on

	mu struct {
		sync.Mutex
		listeners []net.Listener
		conns     map[*conn]struct{}
		perIP     map[string]int
		accepted  uint64 // connections so far
		closing   bool
	}
	wait sync.WaitGroup // accept loops and connections
}

type handler struct {
	API
	handle func(*Request)
	body   func(version int16) kmsg.Request
}

// NewServer returns a server without handlers. Connections are accepted once Serve is
// called, and read once Enable is.
func NewServer(options ServerOptions) *Server {
	if options.MaxRequestBytes <= 0 {
		options.MaxRequestBytes = 100 << 20
	}
	if options.MaxIdle <= 0 {
		options.MaxIdle = 10 * time.Minute
	}
	if options.MaxInFlight <= 0 {
		options.MaxInFlight = 128
	}
	if options.MaxInFlightBytes <= 0 {
		options.MaxInFlightBytes = 32 << 20
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		options: options,
		logger:  options.Logger,
		peers:   newPeerLog(options.Logger),
		apis:    map[int16]*handler{},
		enabled: make(chan struct{}),
	}
	s.mu.conns = map[*conn]struct{}{}
	s.mu.perIP = map[string]int{}
	return s
}

// Handle registers the handler of a key for the versions min to max. Handlers of one
// connection's requests are called in order, one at a time, on its reading goroutine: a
// handler that has to wait hands over and returns.
func (s *Server) Handle(key, minVersion, maxVersion int16, handle func(*Request)) {
	if s.apis[key] != nil {
		panic(fmt.Sprintf("wire: two handlers for %s", kmsg.NameForKey(key)))
	}
	template := kmsg.RequestForKey(key)
	if template == nil || template.MaxVersion() < maxVersion {
		panic(fmt.Sprintf("wire: %s version %d cannot be decoded", kmsg.NameForKey(key), maxVersion))
	}
	s.apis[key] = &handler{
		API:    API{Key: key, Min: minVersion, Max: maxVersion},
		handle: handle,
		body: func(version int16) kmsg.Request {
			body := kmsg.RequestForKey(key)
			body.SetVersion(version)
			return body
		},
	}
}

// APIs lists what is served, by key: the content of an ApiVersions response.
func (s *Server) APIs() []API {
	apis := make([]API, 0, len(s.apis))
	for _, h := range s.apis {
		apis = append(apis, h.API)
	}
	slices.SortFunc(apis, func(a, b API) int { return int(a.Key) - int(b.Key) })
	return apis
}

// Enable lets requests be read. Until then connections wait, with what they sent in the
// sockets' buffers: a broker binds its ports before it registers, and serves after.
func (s *Server) Enable() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.enabled:
	default:
		close(s.enabled)
	}
}

// Serve accepts connections on a listener in the background until Close. Requests carry the
// listener's name.
func (s *Server) Serve(listener net.Listener, listenerName string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closing {
		_ = listener.Close()
		return
	}
	s.mu.listeners = append(s.mu.listeners, listener)
	s.wait.Add(1)
	go func() {
		defer s.wait.Done()
		s.acceptLoop(listener, listenerName)
	}()
}

func (s *Server) acceptLoop(listener net.Listener, listenerName string) {
	for {
		socket, err := listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors, most likely: connections that close make room.
			s.peers.warn("accept", "cannot accept a connection", "listener", listenerName, "error", err)
			time.Sleep(50 * time.Millisecond)
			continue
		}
		s.adopt(socket, listenerName)
	}
}

// adopt starts serving a connection, or closes it if there are too many.
func (s *Server) adopt(socket net.Conn, listenerName string) {
	ip := hostOf(socket.RemoteAddr())
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.mu.closing:
		_ = socket.Close()
		return
	case s.options.MaxConnections > 0 && len(s.mu.conns) >= s.options.MaxConnections:
		_ = socket.Close()
		s.peers.warn(ip, "connection refused", "peer", ip, "limit", "max.connections", "connections", len(s.mu.conns))
		return
	case s.options.MaxConnectionsPerIP > 0 && s.mu.perIP[ip] >= s.options.MaxConnectionsPerIP:
		_ = socket.Close()
		s.peers.warn(ip, "connection refused", "peer", ip, "limit", "max.connections.per.ip", "connections", s.mu.perIP[ip])
		return
	}
	s.tune(socket)
	s.mu.accepted++
	c := newConn(s, socket, listenerName, ip, s.mu.accepted)
	s.mu.conns[c] = struct{}{}
	s.mu.perIP[ip]++
	s.wait.Add(2)
	go func() { defer s.wait.Done(); c.readLoop() }()
	go func() { defer s.wait.Done(); c.writeLoop(); s.forget(c) }()
}

func (s *Server) tune(socket net.Conn) {
	tcp, ok := socket.(*net.TCPConn)
	if !ok {
		return
	}
	_ = tcp.SetNoDelay(true)
	_ = tcp.SetKeepAlive(true)
	if s.options.SendBufferBytes > 0 {
		_ = tcp.SetWriteBuffer(s.options.SendBufferBytes)
	}
	if s.options.ReceiveBufferBytes > 0 {
		_ = tcp.SetReadBuffer(s.options.ReceiveBufferBytes)
	}
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.conns, c)
	if s.mu.perIP[c.ip]--; s.mu.perIP[c.ip] <= 0 {
		delete(s.mu.perIP, c.ip)
	}
}

// StopAccepting closes the listeners; connections live on.
func (s *Server) StopAccepting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, listener := range s.mu.listeners {
		_ = listener.Close()
	}
	s.mu.listeners = nil
}

// Close stops accepting and reading, lets the requests in progress be answered until ctx
// ends, and closes the connections.
func (s *Server) Close(ctx context.Context) error {
	s.StopAccepting()
	s.Enable() // readers that still wait must learn that it is over
	s.mu.Lock()
	s.mu.closing = true
	for c := range s.mu.conns {
		c.drain()
	}
	s.mu.Unlock()

	gone := make(chan struct{})
	go func() { s.wait.Wait(); close(gone) }()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	for c := range s.mu.conns {
		c.close(errServerClosed)
	}
	s.mu.Unlock()
	<-gone
	return nil
}

func hostOf(addr net.Addr) string {
	if addr == nil {
		return ""
	}
	host, _, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	return host
}
