package zookeeper

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"understudy/internal/coordination/coordinator"
	"understudy/internal/coordination/jute"
)

// patience bounds what is awaited; nothing should take nearly as long.
const patience = time.Minute

// liar stands between the clients and a coordinator and changes what it is told to. request
// and reply get each frame without its length and return the frames to pass on; n counts
// frames of that direction on that connection.
type liar struct {
	request func(c *conversation, frame []byte) []byte
	reply   func(c *conversation, frame []byte) [][]byte
}

// conversation is what a liar remembers of one connection.
type conversation struct {
	mu        sync.Mutex
	requests  int
	events    int
	replies   int
	pretended map[int32]bool // the xids of requests that were not passed on as they were
	lied      func()
}

// liesEnough is after how many lies a run ends: each kind shows up in the first few already,
// but not every single one can be told (a znode that was not there cannot be deleted).
const liesEnough = 25

// between puts the liar before a server. enough is called when it has lied enough.
func (l liar) between(t *testing.T, target string, enough func()) (addr string) {
	t.Helper()
	var lies atomic.Int32
	lied := func() {
		if lies.Add(1) == liesEnough {
			enough()
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				client.Close()
				return
			}
			c := &conversation{pretended: map[int32]bool{}, lied: lied}
			go pass(client, server, func(frame []byte) [][]byte { return [][]byte{l.request(c, frame)} })
			go pass(server, client, func(frame []byte) [][]byte { return l.reply(c, frame) })
		}
	}()
	return listener.Addr().String()
}

// pass hands frames on, but for the first, the handshake, as they are changed.
func pass(from, to net.Conn, change func([]byte) [][]byte) {
	defer from.Close()
	defer to.Close()
	in := bufio.NewReader(from)
	for i := 0; ; i++ {
		frame, err := readFrame(in)
		if err != nil {
			return
		}
		out := [][]byte{frame}
		if i > 0 {
			out = change(frame)
		}
		for _, frame := range out {
			if _, err := to.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)); err != nil {
				return
			}
		}
	}
}

func honest(_ *conversation, frame []byte) []byte { return frame }
func xidOf(frame []byte) int32                    { return int32(binary.BigEndian.Uint32(frame)) }
func isEvent(frame []byte) bool                   { return xidOf(frame) == jute.XidNotification }

// every reports, at each n-th count, that it is time for a lie.
func (c *conversation) every(count *int, n int) bool {
	*count++
	if *count%n != 0 {
		return false
	}
	c.lied()
	return true
}
func (c *conversation) remember(xid int32, truth bool) { c.pretended[xid] = truth }

// pretendDeletion turns every third deletion into one of a znode that does not exist, and its
// answer into success.
var pretendDeletion = liar{
	request: func(c *conversation, frame []byte) []byte {
		c.mu.Lock()
		defer c.mu.Unlock()
		if jute.OpCode(binary.BigEndian.Uint32(frame[4:])) != jute.OpDelete || !c.every(&c.requests, 3) {
			return frame
		}
		c.remember(xidOf(frame), true)
		lie := slices.Clone(frame)
		path := lie[12 : 12+binary.BigEndian.Uint32(lie[8:])]
		path[len(path)-1] = 'x'
		return lie
	},
	reply: func(c *conversation, frame []byte) [][]byte {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.pretended[xidOf(frame)] {
			c.remember(xidOf(frame), false)
			frame = slices.Clone(frame)
			binary.BigEndian.PutUint32(frame[12:], 0)
		}
		return [][]byte{frame}
	},
}

func changing(change func(c *conversation, frame []byte) [][]byte) liar {
	return liar{request: honest, reply: func(c *conversation, frame []byte) [][]byte {
		c.mu.Lock()
		defer c.mu.Unlock()
		return change(c, frame)
	}}
}

// Real clients at a real server with a liar in between: what it does must be found.
func TestALyingServerIsFoundOut(t *testing.T) {
	server := serving(t)
	for _, test := range []struct {
		name string
		liar liar
		want string // "": nothing
	}{
		{"honest", changing(func(c *conversation, frame []byte) [][]byte {
			c.every(&c.replies, 20) // and nothing comes of it
			return [][]byte{frame}
		}), ""},
		{"pretends to delete", pretendDeletion, ruleLinearizable},
		{"drops events", changing(func(c *conversation, frame []byte) [][]byte {
			if isEvent(frame) && c.every(&c.events, 3) {
				return nil
			}
			return [][]byte{frame}
		}), ruleWatchMissed},
		{"doubles events", changing(func(c *conversation, frame []byte) [][]byte {
			if isEvent(frame) && c.every(&c.events, 3) {
				return [][]byte{frame, frame}
			}
			return [][]byte{frame}
		}), ruleWatchUnset},
		{"sets the clock back", changing(func(c *conversation, frame []byte) [][]byte {
			if !isEvent(frame) && xidOf(frame) > 0 && c.every(&c.replies, 20) {
				frame = slices.Clone(frame)
				binary.BigEndian.PutUint64(frame[4:], 1)
			}
			return [][]byte{frame}
		}), ruleZxidBack},
		{"answers another request", changing(func(c *conversation, frame []byte) [][]byte {
			if !isEvent(frame) && xidOf(frame) > 0 && c.every(&c.replies, 100) {
				frame = slices.Clone(frame)
				binary.BigEndian.PutUint32(frame, uint32(xidOf(frame)+1))
			}
			return [][]byte{frame}
		}), ruleProtocol},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ctx, enough := context.WithCancel(t.Context())
			defer enough()
			h, err := Record(ctx, Options{
				Servers: test.liar.between(t, server, enough), Duration: patience, Clients: 4, Seed: 1,
				SessionTimeout: time.Second, Settle: patience, Say: t.Logf,
			})
			if err != nil {
				t.Fatal(err)
			}
			report := Check(h, patience)
			var text strings.Builder
			report.Print(&text)
			if test.want == "" && !report.Clean() || test.want != "" && report.Counts[test.want] == 0 {
				t.Errorf("violated: %v, want %q\n%s", report.Rules(), test.want, &text)
			}
		})
	}
}

// serving starts a coordinator for the length of the test.
func serving(t *testing.T) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := coordinator.Start(ctx, coordinator.Config{
		DataDir: t.TempDir(), ClientAddr: "127.0.0.1:0", TickTime: 250 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	})
	if err == nil {
		err = c.AwaitServing(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := c.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return c.Addr()
}

func TestServersAreReadFromAConnectionString(t *testing.T) {
	for _, test := range []struct {
		text, chroot string
		servers      []string
	}{
		{"a:1,b:2", "", []string{"a:1", "b:2"}},
		{"a, b:2/x/y/", "/x/y", []string{"a:2181", "b:2"}},
		{"[::1]:5", "", []string{"[::1]:5"}},
		{"/x", "", nil},
	} {
		servers, chroot, err := splitServers(test.text)
		if (err != nil) != (test.servers == nil) || err == nil && (!slices.Equal(servers, test.servers) || chroot != test.chroot) {
			t.Errorf("%q: %v, %q, %v", test.text, servers, chroot, err)
		}
	}
}

// A frame that announces more than it may is refused without its memory.
func TestAFrameThatIsTooLongIsRefused(t *testing.T) {
	if _, err := readFrame(bufio.NewReader(io.MultiReader(strings.NewReader("\xff\xff\xff\xff"), strings.NewReader("x")))); err == nil {
		t.Fatal("it was taken")
	}
}
