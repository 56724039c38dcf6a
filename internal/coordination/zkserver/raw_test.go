package zkserver

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"understudy/internal/coordination/jute"
)

// start runs a server on a fake member.
func start(t testing.TB, config Config) (*Server, *fakeMember, string) {
	t.Helper()
	m := newFakeMember()
	config.Member = m
	if config.FourLetterWhitelist == nil {
		config.FourLetterWhitelist = []string{"*"}
	}
	if config.MaxClientConnections == 0 {
		config.MaxClientConnections = -1
	}
	if testing.Verbose() {
		config.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	s, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(ln)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
		m.stop()
	})
	return s, m, ln.Addr().String()
}

// raw is a client that sends exactly what the test says.
type raw struct {
	t              testing.TB
	conn           net.Conn
	xid            int32
	session        jute.ConnectResponse
	handshakeBytes int
}

func dialRaw(t testing.TB, addr string) *raw {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	return &raw{t: t, conn: conn}
}

// open shakes hands for a new session.
func open(t testing.TB, addr string) *raw {
	t.Helper()
	r := dialRaw(t, addr)
	r.handshake(jute.ConnectRequest{TimeoutMs: 10_000, Password: make([]byte, 16), HasReadOnly: true})
	return r
}

func (r *raw) handshake(request jute.ConnectRequest) {
	r.t.Helper()
	r.send(request.Append(nil))
	frame, err := r.frame()
	if err != nil {
		r.t.Fatalf("handshake: %v", err)
	}
	r.handshakeBytes = len(frame)
	d := jute.NewDecoder(frame)
	r.session = jute.ConnectResponse{}
	r.session.Decode(&d)
	if d.Err() != nil {
		r.t.Fatal(d.Err())
	}
}

// send frames.
func (r *raw) send(bodies ...[]byte) {
	r.t.Helper()
	var buf []byte
	for _, body := range bodies {
		start := len(buf)
		buf = jute.EndFrame(append(jute.BeginFrame(buf), body...), start)
	}
	if _, err := r.conn.Write(buf); err != nil {
		r.t.Fatal(err)
	}
}

// request makes one with the next xid.
func (r *raw) request(op jute.OpCode, body func([]byte) []byte) []byte {
	r.xid++
	return requestXid(r.xid, op, body)
}

func requestXid(xid int32, op jute.OpCode, body func([]byte) []byte) []byte {
	h := jute.RequestHeader{Xid: xid, Type: op}
	b := h.Append(nil)
	if body != nil {
		b = body(b)
	}
	return b
}

func (r *raw) frame() ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r.conn, size[:]); err != nil {
		return nil, err
	}
	frame := make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err := io.ReadFull(r.conn, frame)
	return frame, err
}

type reply struct {
	jute.ReplyHeader
	body []byte
}

func (r *raw) reply() reply {
	r.t.Helper()
	frame, err := r.frame()
	if err != nil {
		r.t.Fatalf("waiting for a reply: %v", err)
	}
	d := jute.NewDecoder(frame)
	var p reply
	p.ReplyHeader.Decode(&d)
	if d.Err() != nil {
		r.t.Fatal(d.Err())
	}
	p.body = d.Rest()
	return p
}

// do sends one request and returns its reply; events in front of it are an error.
func (r *raw) do(op jute.OpCode, body func([]byte) []byte) reply {
	r.t.Helper()
	r.send(r.request(op, body))
	p := r.reply()
	if p.Xid != r.xid {
		r.t.Fatalf("op %v: reply with xid %d, sent was %d", op, p.Xid, r.xid)
	}
	return p
}

// eof expects the server to close without another byte.
func (r *raw) eof() {
	r.t.Helper()
	var one [1]byte
	n, err := r.conn.Read(one[:])
	var timeout net.Error
	if n > 0 || err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		r.t.Fatalf("the connection should be closed: %d bytes, %v", n, err)
	}
}

func (p reply) event(t testing.TB) jute.WatcherEvent {
	t.Helper()
	if p.Xid != jute.XidNotification {
		t.Fatalf("xid %d, expected an event", p.Xid)
	}
	d := jute.NewDecoder(p.body)
	var e jute.WatcherEvent
	e.Decode(&d)
	return e
}

func create(path, data string, flags jute.CreateFlags) func([]byte) []byte {
	r := jute.CreateRequest{Path: path, Data: []byte(data), ACL: jute.OpenACL, Flags: flags}
	return r.Append
}

func setData(path, data string, version int32) func([]byte) []byte {
	return func(b []byte) []byte {
		return jute.AppendInt32(jute.AppendBuffer(jute.AppendString(b, path), []byte(data)), version)
	}
}

func read(path string, watch bool) func([]byte) []byte {
	return func(b []byte) []byte { return jute.AppendBool(jute.AppendString(b, path), watch) }
}

func remove(path string, version int32) func([]byte) []byte {
	return func(b []byte) []byte { return jute.AppendInt32(jute.AppendString(b, path), version) }
}

func onlyPath(path string) func([]byte) []byte {
	return func(b []byte) []byte { return jute.AppendString(b, path) }
}
