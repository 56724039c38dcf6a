package zkserver

import (
	"testing"
	"time"

	"understudy/internal/coordination/jute"
)

// heldBarrier is a member whose barriers end when the test says so.
type heldBarrier struct {
	*fakeMember
	end func(bool)
}

func (m *heldBarrier) Barrier(_ any, f func(bool)) { m.end = f }

// TestSteppedReadsAgainBehindASync: what arrives while the reader waits for a sync is in the
// socket, and reading it is a sign of life.
func TestSteppedReadsAgainBehindASync(t *testing.T) {
	m := &heldBarrier{fakeMember: newFakeMember()}
	defer m.stop()
	s, err := NewStepped(Config{Member: m}, time.Now, zeros{})
	if err != nil {
		t.Fatal(err)
	}
	c := s.Connect(func([]byte) error { return nil }, func() {})
	connect := jute.ConnectRequest{TimeoutMs: 8000, Password: make([]byte, 16)}
	c.Input(connect.Append(nil))
	c.Read(time.Now())
	<-c.c.ready
	sync := jute.PathRequest{Path: "/"}
	header := jute.RequestHeader{Xid: 1, Type: jute.OpSync}
	c.Input(sync.Append(header.Append(nil)))
	c.Read(time.Now())
	if m.end == nil {
		t.Fatal("the sync was not asked for")
	}
	touches := func() int {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.touched[c.Session()]
	}
	before := touches()
	ping := jute.RequestHeader{Xid: jute.XidPing, Type: jute.OpPing}
	c.Input(ping.Append(nil))
	c.Read(time.Now())
	if touches() != before {
		t.Error("the ping was taken before the sync had ended")
	}
	m.end(true)
	c.Read(time.Now())
	if touches() != before+1 {
		t.Errorf("%d signs of life, the sync's and the ping's would be %d", touches(), before+1)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
