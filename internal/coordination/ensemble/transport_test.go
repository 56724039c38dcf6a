package ensemble

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/znode"
	"understudy/internal/vfs"
)

func TestFramesComeBack(t *testing.T) {
	batch := znode.Batch{Origin: 2, Incarnation: 9, FirstSequence: 5, Requests: []znode.Request{{Kind: znode.KindExpire, Session: 1, Generation: 2}}}
	touches := []touch{{1, 250 * time.Millisecond}, {-2, 0}}
	stream := appendForward(nil, 7, batch.Append(nil))
	stream = appendRefused(stream, 8)
	stream = appendTouches(stream, touches)
	in := bytes.NewReader(stream)

	kind, payload, err := readFrame(in)
	if err != nil || kind != frameForward {
		t.Fatal(kind, err)
	}
	f, err := parseForward(payload, 2)
	if err != nil || f.term != 7 || !reflect.DeepEqual(f.batch, batch) {
		t.Errorf("forward: %+v, %v", f, err)
	}
	if _, err := parseForward(payload, 3); err == nil {
		t.Error("a forward of another member's requests was taken")
	}
	_, payload, _ = readFrame(in)
	if term, err := parseRefused(payload); term != 8 || err != nil {
		t.Errorf("refused: %d, %v", term, err)
	}
	_, payload, _ = readFrame(in)
	if got, err := parseTouches(payload); err != nil || !reflect.DeepEqual(got, touches) {
		t.Errorf("touches: %v, %v", got, err)
	}
	if _, _, err := readFrame(in); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

// FuzzFrame: whatever arrives on a stream is refused or decoded, without a panic and without
// memory for what was only announced.
func FuzzFrame(f *testing.F) {
	batch := znode.Batch{Origin: 2, Incarnation: 9, FirstSequence: 5, Requests: []znode.Request{{Kind: znode.KindOp}}}
	f.Add(appendForward(nil, 7, batch.Append(nil)))
	f.Add(appendTouches(nil, []touch{{1, time.Second}}))
	message, _ := proto.Marshal(&pb.Message{Type: pb.MsgApp.Enum(), From: new(uint64(2)), To: new(uint64(1)), Entries: []*pb.Entry{{Index: new(uint64(1))}}})
	f.Add(endFrame(append(beginFrame(nil, frameRaft), message...), 0))
	f.Add([]byte{0xff, 0xff, 0xff, 0x03, 0, 0, 0, 0, 1})
	f.Add(appendTermAsk(nil, 5))
	f.Add(appendTermSaid(nil, 5, 6))
	f.Fuzz(func(t *testing.T, data []byte) {
		// With its checksum made right, so that the decoders are reached.
		if len(data) > frameHeader {
			data = endFrame(bytes.Clone(data), 0)
		}
		kind, payload, err := readFrame(bytes.NewReader(data))
		if err != nil {
			return
		}
		switch kind {
		case frameRaft:
			_, _ = parseRaft(payload, 2, 1)
		case frameForward:
			if f, err := parseForward(payload, 2); err == nil {
				again := appendForward(nil, f.term, f.batch.Append(nil))
				_, payload, _ := readFrame(bytes.NewReader(again))
				if g, err := parseForward(payload, 2); err != nil || !reflect.DeepEqual(g.batch, f.batch) {
					t.Errorf("%+v came back as %+v, %v", f.batch, g.batch, err)
				}
			}
		case frameTouches:
			if touches, err := parseTouches(payload); err == nil && !bytes.Equal(appendTouches(nil, touches), data) {
				t.Errorf("touches %v", touches)
			}
		case frameRefused:
			_, _ = parseRefused(payload)
		case frameTermAsk:
			if incarnation, err := parseTermAsk(payload); err == nil && !bytes.Equal(appendTermAsk(nil, incarnation), data) {
				t.Errorf("asked by %d", incarnation)
			}
		case frameTermSaid:
			if incarnation, term, err := parseTermSaid(payload); err == nil && !bytes.Equal(appendTermSaid(nil, incarnation, term), data) {
				t.Errorf("term %d said to %d", term, incarnation)
			}
		case frameSnapshot:
			_, _, _ = parseSnapshotFrame(payload, 2, 1)
		}
	})
}

func FuzzHello(f *testing.F) {
	f.Add(hello{version: 1, purpose: purposeStream, from: 1, to: 2, members: 3, incarnation: 4}.append(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		if h, err := parseHello(data); err == nil && !bytes.Equal(h.append(nil), data) {
			t.Errorf("%+v", h)
		}
	})
}

// TestGarbageClosesTheConnection throws things at the raft port: each connection is closed,
// and the ensemble goes on.
func TestGarbageClosesTheConnection(t *testing.T) {
	c := newCluster(t, 3)
	m := c.leader()
	generation := m.session(t, 1, longTimeout, 0)
	good := hello{version: helloVersion, purpose: purposeStream, from: 2, to: m.config.ID, members: membersHash(memberIDs(m.config.Peers)), incarnation: 1}
	if m.config.ID == 2 {
		good.from = 3
	}
	change := func(f func(*hello)) []byte { h := good; f(&h); return h.append(nil) }
	tests := map[string][]byte{
		"http":             []byte("GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: somebody who is lost here\r\n\r\n"),
		"zeros":            make([]byte, 200),
		"flipped":          func() []byte { b := good.append(nil); b[20] ^= 1; return b }(),
		"version":          change(func(h *hello) { h.version = 9 }),
		"other ensemble":   change(func(h *hello) { h.members++ }),
		"unknown member":   change(func(h *hello) { h.from = 77 }),
		"for another":      change(func(h *hello) { h.to = 99 }),
		"from ourselves":   change(func(h *hello) { h.from = m.config.ID }),
		"huge frame":       append(good.append(nil), 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 1),
		"wrong checksum":   append(good.append(nil), 2, 0, 0, 0, 1, 2, 3, 4, 1, 1),
		"unknown frame":    append(good.append(nil), endFrame(beginFrame(nil, 99), 0)...),
		"not protobuf":     append(good.append(nil), endFrame(append(beginFrame(nil, frameRaft), 0xff, 0xff), 0)...),
		"forged sender":    append(good.append(nil), rawMessage(&pb.Message{Type: pb.MsgHeartbeat.Enum(), From: new(uint64(88)), To: new(uint64(m.config.ID))})...),
		"local message":    append(good.append(nil), rawMessage(&pb.Message{Type: pb.MsgHup.Enum(), From: new(uint64(good.from)), To: new(uint64(m.config.ID))})...),
		"snapshot of none": append(change(func(h *hello) { h.purpose = purposeSnapshot }), endFrame(beginFrame(nil, frameSnapshot), 0)...),
	}
	for name, bytes := range tests {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", m.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.Write(bytes); err != nil {
				t.Fatal(err)
			}
			_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			_, err = io.Copy(io.Discard, conn)
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				t.Error("the connection stays open")
			}
		})
	}
	if o := await(t, m.submit(create(1, generation, "/after", "", 0))); o.Code != jute.OK {
		t.Errorf("a write after that: %v", o.Code)
	}
	c.agree()
}

func rawMessage(m *pb.Message) []byte {
	data, _ := proto.Marshal(m)
	return endFrame(append(beginFrame(nil, frameRaft), data...), 0)
}

// TestFailedSyncStopsTheMember: nothing is acknowledged after a failed fsync, the others go
// on without it.
func TestFailedSyncStopsTheMember(t *testing.T) {
	var broken atomic.Bool
	c := newCluster(t, 3, func(config *Config) {
		if config.ID == 1 {
			config.FS = vfs.WithFaults(vfs.OS(), func(op vfs.Operation, path string) error {
				if broken.Load() && op == vfs.OpSync && strings.HasSuffix(path, ".wal") {
					return errors.New("input/output error")
				}
				return nil
			})
		}
	})
	c.leader()
	m := c.members[1]
	generation := m.session(t, 1, longTimeout, 0)
	broken.Store(true)
	o := await(t, m.submit(create(1, generation, "/x", "", 0)))
	<-m.Done()
	if err := m.Err(); err == nil || !strings.Contains(err.Error(), "input/output error") {
		t.Errorf("stopped for %v", err)
	}
	if m.Serving() {
		t.Error("it still serves")
	}
	if after := await(t, m.submit(create(1, generation, "/y", "", 0))); !after.dropped {
		t.Errorf("a write afterwards: %+v", after)
	}
	delete(c.members, 1)
	c.agree()
	c.leader().View(func(machine *znode.Machine) {
		if _, ok := machine.Exists("/x"); !ok && !o.dropped {
			t.Error("the write was acknowledged and is not there")
		}
	})
}

func TestStartIsRefused(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	dir := t.TempDir()
	running, err := Start(context.Background(), Config{Dir: filepath.Join(dir, "taken")})
	if err != nil {
		t.Fatal(err)
	}
	defer running.kill()
	tests := []struct {
		name, message string
		config        Config
	}{
		{"no directory", "no data directory", Config{}},
		{"not a member", "check myid", Config{ID: 4, Dir: dir, Peers: map[znode.MemberID]string{1: "a:1", 2: "b:1"}}},
		{"port in use", "free the port", Config{ID: 1, Dir: dir, Peers: map[znode.MemberID]string{1: busy.Addr().String(), 2: "127.0.0.1:1"}}},
		{"directory in use", "in use by another process", Config{Dir: filepath.Join(dir, "taken")}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if m, err := Start(context.Background(), test.config); err == nil || !strings.Contains(err.Error(), test.message) {
				t.Errorf("got %v, want something about %q", err, test.message)
				if m != nil {
					m.kill()
				}
			}
		})
	}
}

// TestStopHandsOver: a leader that is stopped orderly is replaced before it goes, and within
// its bound.
func TestStopHandsOver(t *testing.T) {
	c := newCluster(t, 3)
	old := c.leader()
	term := old.Status().Term
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := old.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	delete(c.members, old.config.ID)
	if got := c.leader().Status().Term; got != term+1 {
		t.Errorf("the term went from %d to %d: there was an election besides the handover", term, got)
	}
	if o := await(t, old.submit(znode.Request{Kind: znode.KindExpire})); !o.dropped {
		t.Errorf("a stopped member took a request: %+v", o)
	}
	done := make(chan bool, 1)
	old.Barrier(nil, func(ok bool) { done <- ok })
	if <-done {
		t.Error("a stopped member passed a barrier")
	}
}
