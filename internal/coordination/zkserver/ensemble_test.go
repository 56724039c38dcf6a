package zkserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"understudy/internal/coordination/ensemble"
	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/znode"
)

// node is one member of an ensemble with its client port.
type node struct {
	member *ensemble.Member
	server *Server
	addr   string
}

func (n *node) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(n.server.Close(ctx), n.member.Stop(ctx))
}

// startEnsemble runs three members in this process and waits until all serve.
func startEnsemble(t *testing.T) []*node {
	t.Helper()
	peers := make(map[znode.MemberID]string)
	listeners := make(map[znode.MemberID]net.Listener)
	for id := znode.MemberID(1); id <= 3; id++ {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		peers[id], listeners[id] = ln.Addr().String(), ln
	}
	nodes := make([]*node, 0, 3)
	for id := znode.MemberID(1); id <= 3; id++ {
		n := &node{}
		var err error
		n.member, err = ensemble.Start(context.Background(), ensemble.Config{ID: id, Peers: peers, Listener: listeners[id], Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		if n.server, err = New(Config{Member: n.member, MaxClientConnections: -1}); err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		n.addr = ln.Addr().String()
		go n.server.Serve(ln)
		t.Cleanup(func() { _ = n.stop() })
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		if !n.server.waitServing(nil) {
			t.Fatal("no leader was found")
		}
	}
	return nodes
}

func leaderAndFollower(nodes []*node) (leader, follower *node) {
	for _, n := range nodes {
		if n.member.Status().Mode == ensemble.ModeLeader {
			leader = n
		} else {
			follower = n
		}
	}
	return leader, follower
}

// A client sees the same bytes from a follower as from a server that is alone.
func TestTranscriptsOnAFollower(t *testing.T) {
	_, follower := leaderAndFollower(startEnsemble(t))
	for _, script := range scripts {
		if script.name == "words" { // show the mode
			continue
		}
		t.Run(script.name, func(t *testing.T) {
			want, err := os.ReadFile(filepath.Join("testdata", script.name+".txt"))
			if err != nil {
				t.Fatal(err)
			}
			s := newTranscript(t, follower.addr)
			script.run(s)
			compare(t, string(want), s.text.String())
		})
	}
}

// A session that moves to another member sees its own writes there, and its old connection is closed.
func TestSessionMovesBetweenMembers(t *testing.T) {
	nodes := startEnsemble(t)
	r := open(t, nodes[0].addr)
	r.do(jute.OpCreate, create("/moves", "", 0))
	for i := range 20 {
		written := r.do(jute.OpSetData, setData("/moves", fmt.Sprint(i), -1))
		next := dialRaw(t, nodes[(i+1)%3].addr)
		next.handshake(jute.ConnectRequest{
			TimeoutMs: 10_000, SessionID: r.session.SessionID, Password: r.session.Password,
			LastZxidSeen: written.Zxid, HasReadOnly: true,
		})
		if next.session.SessionID != r.session.SessionID {
			t.Fatalf("move %d: %+v", i, next.session)
		}
		p := next.do(jute.OpGetData, read("/moves", false))
		d := jute.NewDecoder(p.body)
		if data := string(d.BufferView()); data != fmt.Sprint(i) {
			t.Fatalf("move %d: read %q", i, data)
		}
		r.eof()
		r = next
	}
}

// Sync and a read see what another session was acknowledged elsewhere.
func TestSyncSeesWhatWasAcknowledgedElsewhere(t *testing.T) {
	leader, follower := leaderAndFollower(startEnsemble(t))
	writer, reader := open(t, leader.addr), open(t, follower.addr)
	writer.do(jute.OpCreate, create("/synced", "", 0))
	for i := range 200 {
		writer.do(jute.OpSetData, setData("/synced", fmt.Sprint(i), -1))
		reader.send(reader.request(jute.OpSync, onlyPath("/")), reader.request(jute.OpGetData, read("/synced", false)))
		reader.reply()
		p := reader.reply()
		d := jute.NewDecoder(p.body)
		if data := string(d.BufferView()); data != fmt.Sprint(i) {
			t.Fatalf("after sync %d: %q", i, data)
		}
	}
}

// When the leader leaves, clients of the others keep their sessions and go on.
func TestClientsOfFollowersSurviveTheLeader(t *testing.T) {
	leader, follower := leaderAndFollower(startEnsemble(t))
	r := open(t, follower.addr)
	r.do(jute.OpCreate, create("/e", "", jute.FlagEphemeral))
	if err := leader.stop(); err != nil {
		t.Fatal(err)
	}
	if p := r.do(jute.OpSetData, setData("/e", "x", -1)); p.Err != jute.OK {
		t.Errorf("%+v", p)
	}
}
