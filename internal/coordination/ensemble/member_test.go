package ensemble

import (
	"context"
	"fmt"
	"testing"
	"time"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/znode"
)

const longTimeout = time.Minute

func TestStandaloneKeepsWhatItAcknowledged(t *testing.T) {
	c := newCluster(t, 1)
	m := c.leader()
	generation := m.session(t, 1, longTimeout, 0)
	var last outcome
	for i := range 100 {
		last = await(t, m.submit(create(1, generation, fmt.Sprintf("/n%d", i), "x", 0)))
		if last.Code != jute.OK {
			t.Fatalf("create %d: %v", i, last.Code)
		}
	}
	_, sum := m.checksum()
	c.kill(1)
	m = c.start(1)
	c.leader()
	if _, again := m.checksum(); again != sum {
		t.Error("the state after kill and restart differs")
	}
	if zxid := m.Status().AppliedZxid; zxid != last.Zxid {
		t.Errorf("last zxid is %#x, acknowledged was %#x", zxid, last.Zxid)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := m.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	m = c.start(1)
	c.leader()
	if _, again := m.checksum(); again != sum {
		t.Error("the state after a clean stop differs")
	}
}

func TestWritesFromEveryMember(t *testing.T) {
	for _, size := range []int{1, 3, 5} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			c := newCluster(t, size)
			c.leader()
			for id, m := range c.members {
				generation := m.session(t, jute.SessionID(id), longTimeout, 0)
				var outcomes []chan outcome
				for i := range 200 {
					outcomes = append(outcomes, m.submit(create(jute.SessionID(id), generation, fmt.Sprintf("/m%d-%d", id, i), "x", 0)))
				}
				var before jute.Zxid
				for i, o := range outcomes {
					got := await(t, o)
					if got.Code != jute.OK || got.Zxid <= before {
						t.Fatalf("member %d write %d: %+v after zxid %#x", id, i, got, before)
					}
					before = got.Zxid
				}
			}
			c.agree()
			var nodes int
			c.leader().View(func(m *znode.Machine) { nodes = m.NodeCount() })
			if want := 5 + 200*size; nodes != want {
				t.Errorf("%d nodes, want %d", nodes, want)
			}
		})
	}
}
