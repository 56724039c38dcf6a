package ensemble

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

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
	m := c.members[id]
	m.until(c.t, "the member has recovered", func() bool {
		return m.logged["recovered from damaged state: this member votes again"] > 0
	})
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
	c := newSteppedCluster(t)
	leader := c.awaitLeader(t)
	c.write(t, leader, 1, 2, 3, 4, 5)
	id := leader.config.ID
	missing, damaged := id%3+1, (id+1)%3+1
	c.kill(damaged)
	c.kill(missing)
	damageFile(t, c.disks[damaged-1], firstSegment)
	m := c.start(t, damaged)
	takesPart := func() bool {
		index, _ := m.Applied()
		return !m.Recovering() || m.Serving() || index > 0
	}
	if c.run(t, takesPart) {
		t.Fatalf("the member takes part: %+v", m.Status())
	}
	if leads, _ := leader.Leading(); leads {
		t.Fatalf("the damaged member was counted: %+v", leader.Status())
	}
	c.start(t, missing)
	if !c.run(t, func() bool { return !m.Recovering() && c.leader() != nil }) {
		t.Fatalf("the member is still recovering: %+v", m.Status())
	}
	c.write(t, c.leader(), 6)
}

const firstSegment = "/data/log/00000001.wal"

// damageFile flips a bit in the middle of a file.
func damageFile(t *testing.T, disk *vfs.Mem, path string) {
	t.Helper()
	f, err := disk.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	var one [1]byte
	if _, err := f.ReadAt(one[:], info.Size()/2); err != nil {
		t.Fatal(err)
	}
	one[0] ^= 8
	if _, err := f.WriteAt(one[:], info.Size()/2); err != nil {
		t.Fatal(err)
	}
}

// cutFile takes the end of a file away.
func cutFile(t *testing.T, disk *vfs.Mem, path string, size int64) {
	t.Helper()
	f, err := disk.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
}

func fileSize(t *testing.T, disk *vfs.Mem, path string) int64 {
	t.Helper()
	info, err := disk.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// Two of three lose the end of their logs, which raft does not survive: the third one must not go
// on under them as if it had not known better.
func TestLeaderWithoutCommittedEntriesIsRefused(t *testing.T) {
	for _, further := range []int{0, 1, 100} {
		t.Run(fmt.Sprintf("%d entries later", further), func(t *testing.T) {
			c := newSteppedCluster(t)
			leader := c.awaitLeader(t)
			c.write(t, leader, 1, 2, 3)
			id := leader.config.ID
			witness := id%3 + 1
			sizes := map[znode.MemberID]int64{}
			for other := range znode.MemberID(3) {
				sizes[other+1] = fileSize(t, c.disks[other], firstSegment)
			}
			c.write(t, leader, 4, 5, 6)
			for other := range znode.MemberID(3) {
				c.kill(other + 1)
				if other+1 != witness {
					cutFile(t, c.disks[other], firstSegment, sizes[other+1])
				}
			}
			for other := range sizes {
				if other != witness {
					c.start(t, other)
				}
			}
			leader = c.awaitLeader(t)
			if _, ok := leader.machine.Session(6); ok {
				t.Fatal("nothing was lost")
			}
			for i := range further {
				c.write(t, leader, jute.SessionID(100+i))
			}
			m := c.start(t, witness)
			if !c.run(t, m.Ended) {
				t.Fatalf("the member goes on under a leader that has lost what it knows to be committed: %+v", m.Status())
			}
			if err := m.Failure(); err == nil || !strings.Contains(err.Error(), "have lost the end of their logs") {
				t.Errorf("it stopped with: %v", err)
			}
		})
	}
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
