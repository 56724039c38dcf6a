package ensemble

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/wal"
	"understudy/internal/coordination/znode"
	"understudy/internal/vfs"
)

// damage flips a bit in the middle of a stopped member's oldest log segment.
func (c *cluster) damage(id znode.MemberID) {
	c.t.Helper()
	paths, err := filepath.Glob(filepath.Join(c.configs[id].Dir, "log", "*.wal"))
	if err != nil || len(paths) == 0 {
		c.t.Fatal(paths, err)
	}
	data, err := os.ReadFile(paths[0])
	if err != nil {
		c.t.Fatal(err)
	}
	data[len(data)/2] ^= 8
	if err := os.WriteFile(paths[0], data, 0o644); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) write(n *node, generation uint64, from, to int) {
	c.t.Helper()
	for i := from; i < to; i++ {
		if got := await(c.t, n.submit(create(1, generation, fmt.Sprintf("/n%d", i), "x", 0))); got.Code != jute.OK {
			c.t.Fatalf("create %d: %v", i, got.Code)
		}
	}
}

// awaitRecovered waits until a member has the others' state and votes again.
func (c *cluster) awaitRecovered(id znode.MemberID) {
	c.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for c.members[id].Recovering() {
		if time.Now().After(deadline) {
			c.t.Fatalf("member %d is still recovering: %+v", id, c.members[id].Status())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A member whose log is damaged sets it aside, copies the others' state, and is a full
// member again: the ensemble then survives the loss of another one.
func TestDamagedMemberCopiesTheOthers(t *testing.T) {
	for _, victim := range []string{"follower", "leader"} {
		t.Run(victim, func(t *testing.T) {
			c := newCluster(t, 3)
			id := c.leader().config.ID
			if victim == "follower" {
				id = id%3 + 1
			}
			witness := c.members[id%3+1]
			generation := witness.session(t, 1, longTimeout, 0)
			c.write(witness, generation, 0, 100)
			c.agree()
			c.kill(id)
			c.damage(id)
			before := c.leader().Status().Term
			c.write(witness, generation, 100, 150)
			c.start(id)
			c.awaitRecovered(id)
			if term := c.leader().Status().Term; term <= before {
				t.Errorf("the leader of term %d was not replaced", before)
			}
			c.write(witness, generation, 150, 160)
			c.agree()
			kept, err := filepath.Glob(filepath.Join(c.configs[id].Dir, "log.damaged-*"))
			if err != nil || len(kept) != 1 {
				t.Errorf("the damaged log was not kept: %v %v", kept, err)
			}
			// Without a third one, the recovered member and the witness are the majority.
			c.kill((id+1)%3 + 1)
			c.write(witness, generation, 160, 170)
		})
	}
}

// While another member is missing, a damaged member of three does not take part: what it
// acknowledged might be known to the missing one alone.
func TestDamagedMemberWaitsForEnoughOthers(t *testing.T) {
	c := newCluster(t, 3)
	id := c.leader().config.ID
	generation := c.members[id].session(t, 1, longTimeout, 0)
	c.write(c.members[id], generation, 0, 20)
	missing, damaged := id%3+1, (id+1)%3+1
	c.kill(damaged)
	c.kill(missing)
	c.damage(damaged)
	c.start(damaged)
	time.Sleep(1200 * time.Millisecond) // two rounds of questions, and more than an election
	if m := c.members[damaged]; !m.Recovering() || m.Serving() || m.Status().AppliedIndex != 0 {
		t.Fatalf("the member takes part: %+v", m.Status())
	}
	if m := c.members[id]; m.Status().SyncedFollowers > 0 {
		t.Fatalf("the damaged member was counted: %+v", m.Status())
	}
	c.start(missing)
	c.awaitRecovered(damaged)
	c.agree()
}

// A crash in recovery begins it again.
func TestCrashDuringRecovery(t *testing.T) {
	c := newCluster(t, 3)
	id := c.leader().config.ID%3 + 1
	witness := c.members[id%3+1]
	generation := witness.session(t, 1, longTimeout, 0)
	c.write(witness, generation, 0, 50)
	c.kill(id)
	c.damage(id)
	for range 4 {
		c.start(id)
		c.kill(id)
	}
	c.start(id)
	c.awaitRecovered(id)
	c.agree()
}

// Alone, a member has nobody to copy from: it refuses, and says where the damage is.
func TestDamagedStandaloneRefuses(t *testing.T) {
	c := newCluster(t, 1)
	m := c.leader()
	generation := m.session(t, 1, longTimeout, 0)
	c.write(m, generation, 0, 50)
	c.kill(1)
	c.damage(1)
	_, err := Start(t.Context(), c.configs[1])
	if !errors.Is(err, wal.ErrCorrupt) || !strings.Contains(err.Error(), ".wal is corrupt at offset ") {
		t.Fatalf("started with a damaged log: %v", err)
	}
}

// A replaced disk with the mark in it is a damaged member's: it does not vote from nothing.
func TestEmptyDirectoryWithTheMarkRecovers(t *testing.T) {
	c := newCluster(t, 3)
	id := c.leader().config.ID%3 + 1
	witness := c.members[id%3+1]
	generation := witness.session(t, 1, longTimeout, 0)
	c.write(witness, generation, 0, 50)
	c.kill(id)
	dir := c.configs[id].Dir
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "recovering.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	c.start(id)
	if !c.members[id].Recovering() {
		t.Fatal("the mark was not taken")
	}
	c.awaitRecovered(id)
	c.agree()
}

// A snapshot whose fsync fails stops the member, too: the entries that it would have replaced
// stay, and are what a restart has.
func TestFailedSyncOfASnapshotStopsTheMember(t *testing.T) {
	var broken atomic.Bool
	c := newCluster(t, 1, func(config *Config) {
		config.SnapshotEntries, config.KeepEntries = 20, 1
		config.FS = vfs.WithFaults(vfs.OS(), func(op vfs.Operation, path string) error {
			if broken.Load() && op == vfs.OpSync && strings.Contains(path, "snapshot") {
				return errors.New("input/output error")
			}
			return nil
		})
	})
	m := c.leader()
	generation := m.session(t, 1, longTimeout, 0)
	broken.Store(true)
	acknowledged := 0
	for i := range 1000 {
		got := await(t, m.submit(create(1, generation, fmt.Sprintf("/n%d", i), "", 0)))
		if got.dropped {
			break
		}
		acknowledged++
	}
	<-m.Done()
	if err := m.Err(); err == nil || !strings.Contains(err.Error(), "input/output error") {
		t.Fatalf("stopped for %v", err)
	}
	broken.Store(false)
	delete(c.members, 1)
	c.start(1)
	c.leader().View(func(machine *znode.Machine) {
		for i := range acknowledged {
			if _, ok := machine.Exists(fmt.Sprintf("/n%d", i)); !ok {
				t.Fatalf("/n%d of %d was acknowledged and is not there", i, acknowledged)
			}
		}
	})
}
