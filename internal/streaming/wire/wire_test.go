package wire

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// startServer serves handlers on a free port and closes with the test.
func startServer(t *testing.T, options ServerOptions, register func(*Server)) string {
	t.Helper()
	server := NewServer(options)
	register(server)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server.Serve(listener, "PLAINTEXT")
	server.Enable()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = server.Close(ctx)
	})
	return listener.Addr().String()
}

func dial(t *testing.T, addr string) *Client {
	t.Helper()
	client, err := Dial(t.Context(), addr, ClientOptions{ClientID: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func metadataRequest(topic string) *kmsg.MetadataRequest {
	request := kmsg.NewPtrMetadataRequest()
	request.SetVersion(12)
	name := kmsg.NewMetadataRequestTopic()
	name.Topic = kmsg.StringPtr(topic)
	request.Topics = append(request.Topics, name)
	return request
}

func echoTopic(request *Request) *kmsg.MetadataResponse {
	response := request.Body.ResponseKind().(*kmsg.MetadataResponse)
	response.ClusterID = request.Body.(*kmsg.MetadataRequest).Topics[0].Topic
	return response
}

// Answers leave in the order of the requests even when they are given in the opposite one.
func TestAnswersLeaveInOrder(t *testing.T) {
	const count = 50
	var mu sync.Mutex
	var held []*Request
	addr := startServer(t, ServerOptions{}, func(s *Server) {
		s.Handle(3, 0, 12, func(r *Request) {
			mu.Lock()
			defer mu.Unlock()
			held = append(held, r)
			if len(held) == count {
				go func() {
					for i := count - 1; i >= 0; i-- {
						held[i].Reply(echoTopic(held[i]))
					}
				}()
			}
		})
	})
	client := dial(t, addr)
	answers := make(chan string, count)
	for i := range count {
		client.Start(metadataRequest(string(rune('a'+i))), func(response kmsg.Response, err error) {
			if err != nil {
				answers <- err.Error()
				return
			}
			answers <- *response.(*kmsg.MetadataResponse).ClusterID
		})
	}
	for i := range count {
		if got, want := <-answers, string(rune('a'+i)); got != want {
			t.Fatalf("answer %d: got %q, want %q", i, got, want)
		}
	}
}

type rawBytes struct {
	body     []byte
	send     int
	released chan struct{}
}

func (r *rawBytes) Size() int { return len(r.body) }
func (r *rawBytes) WriteTo(conn net.Conn, prefix []byte) (int64, error) {
	n, err := conn.Write(append(prefix, r.body[:r.send]...))
	return int64(n), err
}
func (r *rawBytes) Release() { close(r.released) }

func TestRawResponse(t *testing.T) {
	response := kmsg.NewPtrMetadataResponse()
	response.SetVersion(12)
	response.ClusterID = kmsg.StringPtr("raw")
	body := response.AppendTo(nil)
	for _, test := range []struct {
		name string
		send int
		ok   bool
	}{{"whole", len(body), true}, {"short", len(body) - 1, false}} {
		t.Run(test.name, func(t *testing.T) {
			raw := &rawBytes{body: body, send: test.send, released: make(chan struct{})}
			addr := startServer(t, ServerOptions{}, func(s *Server) {
				s.Handle(3, 0, 12, func(r *Request) { r.ReplyRaw(raw) })
			})
			client := dial(t, addr)
			got, err := client.Do(t.Context(), metadataRequest("x"))
			<-raw.released
			if test.ok != (err == nil) {
				t.Fatalf("err = %v", err)
			}
			if err == nil && *got.(*kmsg.MetadataResponse).ClusterID != "raw" {
				t.Fatalf("got %+v", got)
			}
		})
	}
}

func TestUnknownApiVersionsVersion(t *testing.T) {
	addr := startServer(t, ServerOptions{}, func(s *Server) {
		s.Handle(18, 0, 4, func(r *Request) { t.Error("the handler was called") })
	})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = conn.Write([]byte{0, 0, 0, 11, 0, 18, 0, 99, 0, 0, 0, 7, 0xff, 0xff, 0})
	frame, err := readFrame(bufio.NewReader(conn), 1000, nil)
	want := []byte{0, 0, 0, 7, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4}
	if err != nil || !bytes.Equal(frame, want) {
		t.Fatalf("got % x, %v", frame, err)
	}
}

func TestBadInputClosesOnlyThatConnection(t *testing.T) {
	addr := startServer(t, ServerOptions{MaxRequestBytes: 1 << 20}, func(s *Server) {
		s.Handle(3, 0, 12, func(r *Request) { r.Reply(echoTopic(r)) })
		s.Handle(7, 0, 3, func(r *Request) { panic("on purpose") })
	})
	good := dial(t, addr)
	for name, bytes := range map[string][]byte{
		"HTTP":             []byte("GET / HTTP/1.1\r\n\r\n"),
		"negative size":    {0x80, 0, 0, 0},
		"2 GiB":            {0x7f, 0xff, 0xff, 0xff},
		"above the bound":  {0, 0x10, 0, 1},
		"short header":     {0, 0, 0, 2, 0, 3},
		"empty":            {0, 0, 0, 0},
		"unknown key":      {0, 0, 0, 10, 3, 0xe8, 0, 0, 0, 0, 0, 1, 0xff, 0xff},
		"unknown version":  {0, 0, 0, 10, 0, 3, 0, 99, 0, 0, 0, 1, 0xff, 0xff},
		"unparsable body":  {0, 0, 0, 14, 0, 3, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff},
		"client id length": {0, 0, 0, 10, 0, 3, 0, 0, 0, 0, 0, 1, 0x7f, 0xff},
		"panic":            {0, 0, 0, 12, 0, 7, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			_, _ = conn.Write(bytes)
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			if n, err := conn.Read(make([]byte, 1)); n != 0 || errors.Is(err, context.DeadlineExceeded) || err == nil {
				t.Fatalf("read %d bytes, %v; want the connection closed", n, err)
			}
		})
	}
	if _, err := good.Do(t.Context(), metadataRequest("x")); err != nil {
		t.Fatalf("a bystander's connection: %v", err)
	}
}

// A client that floods is not read any further than the bound.
func TestInFlightIsBounded(t *testing.T) {
	handled := make(chan *Request, 100)
	addr := startServer(t, ServerOptions{MaxInFlight: 3}, func(s *Server) {
		s.Handle(3, 0, 12, func(r *Request) { handled <- r })
	})
	client := dial(t, addr)
	answered := make(chan struct{}, 10)
	for range 10 {
		client.Start(metadataRequest("x"), func(kmsg.Response, error) { answered <- struct{}{} })
	}
	for answers := range 10 {
		if waiting := len(handled); waiting > 3 {
			t.Fatalf("%d requests in flight", waiting)
		}
		r := <-handled
		r.Reply(echoTopic(r))
		<-answered
		_ = answers
	}
}

func TestClosedFiresWhenThePeerDies(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	client := dial(t, listener.Addr().String())
	peer, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	client.Start(metadataRequest("x"), func(_ kmsg.Response, err error) { failed <- err })
	_ = peer.Close()
	<-client.Closed()
	if err := <-failed; err == nil {
		t.Fatal("the request did not fail")
	}
	client.Start(metadataRequest("x"), func(_ kmsg.Response, err error) { failed <- err })
	if err := <-failed; err == nil {
		t.Fatal("a request on a dead connection did not fail")
	}
}

func TestPeerGoneIsToldToTheHandler(t *testing.T) {
	told := make(chan struct{})
	handled := make(chan *Request, 1)
	addr := startServer(t, ServerOptions{}, func(s *Server) {
		s.Handle(3, 0, 12, func(r *Request) {
			r.OnClose(func() { close(told) })
			handled <- r
		})
	})
	client := dial(t, addr)
	client.Start(metadataRequest("x"), func(kmsg.Response, error) {})
	r := <-handled
	client.Close()
	<-told
	r.Reply(echoTopic(r)) // must not panic, goes nowhere
}

func TestConnectionLimits(t *testing.T) {
	addr := startServer(t, ServerOptions{MaxConnectionsPerIP: 1}, func(s *Server) {
		s.Handle(3, 0, 12, func(r *Request) { r.Reply(echoTopic(r)) })
	})
	first := dial(t, addr)
	if _, err := first.Do(t.Context(), metadataRequest("x")); err != nil {
		t.Fatal(err)
	}
	<-dial(t, addr).Closed()
	if _, err := first.Do(t.Context(), metadataRequest("x")); err != nil {
		t.Fatal(err)
	}
}

func TestIdleConnectionIsClosed(t *testing.T) {
	addr := startServer(t, ServerOptions{MaxIdle: 20 * time.Millisecond}, func(*Server) {})
	<-dial(t, addr).Closed()
}

// StopReplica version 4 as Kafka writes it (StopReplicaRequest.json), not as kmsg does.
func TestStopReplicaVersion4(t *testing.T) {
	request := kmsg.NewPtrStopReplicaRequest()
	request.SetVersion(4)
	request.ControllerID, request.ControllerEpoch, request.BrokerEpoch = 1, 2, 3
	request.IsKRaftController = true
	body := appendBody(nil, request)
	want := []byte{0, 0, 0, 1, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 1, 0}
	if !bytes.Equal(body, want) {
		t.Fatalf("encoded % x\nwant    % x", body, want)
	}
	decoded := kmsg.NewPtrStopReplicaRequest()
	decoded.SetVersion(4)
	if err := readBody(decoded, body); err != nil {
		t.Fatal(err)
	}
	if decoded.ControllerEpoch != 2 || !decoded.IsKRaftController || decoded.BrokerEpoch != 3 {
		t.Fatalf("decoded %+v", decoded)
	}
}

func TestReadFrameGrowsWithItsBytes(t *testing.T) {
	content := bytes.Repeat([]byte("understudy"), 500_000)
	framed := append(binary.BigEndian.AppendUint32(nil, uint32(len(content))), content...)
	got, err := readFrame(bufio.NewReader(iotest.HalfReader(bytes.NewReader(framed))), 100<<20, nil)
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	// 90 MiB announced, ten bytes sent: an error, and no 90 MiB allocated for it.
	lie := append([]byte{5, 0xa0, 0, 0}, "0123456789"...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const connections = 100
	for range connections {
		if _, err = readFrame(bufio.NewReader(bytes.NewReader(lie)), 100<<20, nil); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / connections; each > 256<<10 {
		t.Fatalf("%d bytes are allocated for each", each)
	}
}

// A large buffer is kept while large responses come, and given up when they stop.
func TestReusedBufferIsGivenUp(t *testing.T) {
	var r reusedBuffer
	large := make([]byte, 1<<20)
	for range 3 * reusedIdleFrames {
		r.put(large)
		r.put(large[:10])
	}
	if cap(r.buffer) != cap(large) {
		t.Fatalf("%d bytes are kept of %d in use", cap(r.buffer), cap(large))
	}
	for range reusedIdleFrames {
		r.put(r.buffer[:min(10, cap(r.buffer))])
	}
	if r.buffer != nil {
		t.Errorf("%d bytes are kept for nothing", cap(r.buffer))
	}
	if r.put(make([]byte, reusedBytesMax+1)); r.buffer != nil {
		t.Error("a huge buffer is kept")
	}
}
