package ensemble

import (
	"testing"
	"time"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/znode"
)

func (r *recorder) untilEnded(t *testing.T, id jute.SessionID) {
	t.Helper()
	r.until(t, "a session ends", func() bool { return r.ended[id] })
}

func (n *node) alive(id jute.SessionID) (alive bool) {
	n.View(func(m *znode.Machine) { _, alive = m.Session(id) })
	return
}

// TestSilentSessionExpires: one session is touched through a follower, one is not. When the
// second is over, the first, of the same timeout, lives.
func TestSilentSessionExpires(t *testing.T) {
	c := newCluster(t, 3)
	m := c.follower()
	const timeout = 600 * time.Millisecond
	m.session(t, 1, timeout, 0)
	generation := m.session(t, 2, timeout, 0)
	if o := await(t, m.submit(create(2, generation, "/e", "", jute.FlagEphemeral))); o.Code != jute.OK {
		t.Fatal(o.Code)
	}
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for tick := time.Tick(20 * time.Millisecond); ; {
			select {
			case <-tick:
				m.Touch(1)
			case <-stop:
				return
			}
		}
	}()
	m.untilEnded(t, 2)
	if !m.alive(1) {
		t.Error("the session that was touched is gone")
	}
	m.View(func(machine *znode.Machine) {
		if _, ok := machine.Exists("/e"); ok {
			t.Error("the ephemeral outlived its session")
		}
	})
	c.agree()
}

func TestLostConnectionExpiresFast(t *testing.T) {
	c := newCluster(t, 3)
	m := c.follower()
	lost := m.session(t, 1, longTimeout, 100*time.Millisecond)
	ordinary := m.session(t, 2, longTimeout, 0)
	back := m.session(t, 3, longTimeout, 100*time.Millisecond)
	m.ConnectionLost(2, ordinary)
	m.ConnectionLost(3, back)
	again := await(t, m.submit(znode.Request{
		Kind: znode.KindReattach, Session: 3, Password: testPassword, Owner: m.config.ID,
		TimeoutMs: int32(longTimeout.Milliseconds()), GraceMs: 100,
	}))
	if again.Code != jute.OK || again.Generation == back {
		t.Fatalf("re-attach: %+v", again)
	}
	m.ConnectionLost(3, back) // the old connection, noticed late
	m.ConnectionLost(1, lost)
	m.untilEnded(t, 1)
	if !m.alive(2) || !m.alive(3) {
		t.Errorf("alive: without fast expiry %v, re-attached %v", m.alive(2), m.alive(3))
	}
}

// TestLossSurvivesTheLeader: the loss of a connection is a state, told to the next leader.
func TestLossSurvivesTheLeader(t *testing.T) {
	c := newCluster(t, 3)
	leader := c.leader()
	m := c.follower()
	lost := m.session(t, 1, longTimeout, 800*time.Millisecond)
	o := await(t, m.submit(znode.Request{Kind: znode.KindConnectionLost, Session: 1, Generation: lost}))
	if o.dropped || o.Skipped {
		t.Fatalf("loss not noted: %+v", o)
	}
	c.kill(leader.config.ID)
	m.untilEnded(t, 1)
}

// TestDeadMembersSessions: the sessions of a killed member, a follower or the leader itself,
// are over unless they show up elsewhere; ordinary ones keep their timeout.
func TestDeadMembersSessions(t *testing.T) {
	for _, who := range []string{"follower", "leader"} {
		t.Run(who, func(t *testing.T) {
			c := newCluster(t, 3)
			victim := c.leader()
			if who == "follower" {
				victim = c.follower()
			}
			victim.session(t, 1, longTimeout, 100*time.Millisecond)
			victim.session(t, 2, longTimeout, 0)
			victim.session(t, 3, longTimeout, 100*time.Millisecond)
			c.kill(victim.config.ID)
			m := c.leader()
			again := await(t, m.submit(znode.Request{
				Kind: znode.KindReattach, Session: 3, Password: testPassword, Owner: m.config.ID,
				TimeoutMs: int32(longTimeout.Milliseconds()), GraceMs: 100,
			}))
			if again.Code != jute.OK {
				t.Fatalf("re-attach elsewhere: %v", again.Code)
			}
			m.untilEnded(t, 1)
			if !m.alive(2) || !m.alive(3) {
				t.Errorf("alive: without fast expiry %v, re-attached %v", m.alive(2), m.alive(3))
			}
		})
	}
}

func TestEmptyContainerIsReaped(t *testing.T) {
	c := newCluster(t, 1, func(config *Config) { config.ContainerCheckInterval = 50 * time.Millisecond })
	m := c.leader()
	generation := m.session(t, 1, longTimeout, 0)
	container := create(1, generation, "/c", "", jute.FlagContainer)
	container.Op = jute.OpCreateContainer
	remove := jute.PathVersionRequest{Path: "/c/x", Version: -1}
	for i, req := range []znode.Request{
		container, create(1, generation, "/c/x", "", 0),
		{Kind: znode.KindOp, Session: 1, Generation: generation, Op: jute.OpDelete, Body: remove.Append(nil)},
	} {
		if o := await(t, m.submit(req)); o.Code != jute.OK {
			t.Fatalf("step %d: %v", i, o.Code)
		}
	}
	m.until(t, "the container is removed", func() bool { return m.reaped == 1 })
}
