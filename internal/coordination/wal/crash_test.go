package wal

import (
	"errors"
	"math/rand"
	"strings"
	"sync"
	"testing"

	pb "go.etcd.io/raft/v3/raftpb"

	"understudy/internal/vfs"
)

var errKilled = errors.New("killed")

// killBefore is a disk whose process dies before the n-th operation of that kind on a path that
// contains part: nothing works from then on.
func killBefore(fs vfs.FS, op vfs.Operation, part string, n int) vfs.FS {
	var mu sync.Mutex // a start works on several files at once
	dead := false
	return vfs.WithFaults(fs, func(o vfs.Operation, path string) error {
		mu.Lock()
		defer mu.Unlock()
		if o == op && strings.Contains(path, part) {
			n--
		}
		dead = dead || n <= 0
		if dead {
			return errKilled
		}
		return nil
	})
}

// TestCrashBetweenRollAndFrame: the new segment must not know the commit index of entries that
// come only with the next frame.
func TestCrashBetweenRollAndFrame(t *testing.T) {
	mem := vfs.NewMem()
	small := func(o *Options) { o.SegmentBytes = 100 }
	l := openLog(t, mem, small)
	fill(t, l, 1, 1, 1)
	want := content(t, l)
	_ = l.Abandon()
	// The roll writes header and frame of a segment; the entries' own frame is the third write.
	l = openLog(t, killBefore(mem.Clone(), vfs.OpWrite, "/log/", 1<<30), small)
	_ = l.Abandon()
	clone := mem.Clone()
	l = openLog(t, killBefore(clone, vfs.OpWrite, "/log/", 3), small)
	err := l.Append([]Write{{HardState: state(1, 1, 3), Entries: []*pb.Entry{entry(2, 1, "b"), entry(3, 1, "c")}}})
	if !errors.Is(err, errKilled) {
		t.Fatalf("the append gave %v", err)
	}
	l, err = tryOpen(clone.Crash(nil), small)
	if err != nil {
		t.Fatalf("a crash behind the roll: %v", err)
	}
	if got := content(t, l); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestKilledBeforeSyncThenPowerLoss: what a restarted process reads from the page cache and
// builds on must outlive the power.
func TestKilledBeforeSyncThenPowerLoss(t *testing.T) {
	mem := vfs.NewMem()
	small := func(o *Options) { o.SegmentBytes = 100 }
	l := openLog(t, mem, small)
	fill(t, l, 1, 1, 1)
	_ = l.Abandon()
	clone := mem.Clone()
	l = openLog(t, killBefore(clone, vfs.OpSync, ".wal", 2), func(o *Options) { o.SegmentBytes = 1000 })
	if err := l.Append([]Write{{HardState: state(1, 1, 1), Entries: []*pb.Entry{entry(2, 1, "b")}}}); !errors.Is(err, errKilled) {
		t.Fatalf("the append gave %v", err)
	}
	clone = clone.Clone() // kill -9
	l = openLog(t, clone, small)
	if lastOf(l) != 2 {
		t.Fatalf("the last entry is %d", lastOf(l))
	}
	fill(t, l, 3, 3, 1) // in a segment of its own
	want := content(t, l)
	l, err := tryOpen(clone.Crash(nil), small)
	if err != nil {
		t.Fatalf("without power: %v", err)
	}
	if got := content(t, l); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestKilledBeforeNamesAreDurable: wherever the first start dies, a second one that works makes
// all names durable.
func TestKilledBeforeNamesAreDurable(t *testing.T) {
	for n := 1; n < 20; n++ {
		mem := vfs.NewMem()
		l, err := tryOpen(killBefore(mem, vfs.OpSyncDir, "", n))
		if err == nil {
			_ = l.Abandon()
		}
		mem = mem.Clone()
		l = openLog(t, mem)
		fill(t, l, 1, 3, 1)
		l, err = tryOpen(mem.Crash(nil))
		if err != nil {
			t.Fatalf("killed before the %d. sync of a directory, then without power: %v", n, err)
		}
		if lastOf(l) != 3 {
			t.Errorf("killed before the %d. sync of a directory, then without power: entries up to %d", n, lastOf(l))
		}
	}
}

// TestUnbornSegmentStaysRemoved: a start removes a segment that a crash left without a header, and
// writes on in the one before. The name must not come back with the next loss of power, which may
// tear that segment's last frame.
func TestUnbornSegmentStaysRemoved(t *testing.T) {
	mem := vfs.NewMem()
	small := func(o *Options) { o.SegmentBytes = 100 }
	l := openLog(t, mem, small)
	fill(t, l, 1, 1, 1)
	written, unborn := l.active.path, l.segmentPath(l.active.number+1)
	_ = l.Abandon()
	clone := mem.Clone()
	l = openLog(t, killBefore(clone, vfs.OpWrite, unborn, 1), small)
	if err := l.Append([]Write{{Entries: []*pb.Entry{entry(2, 1, "b")}}}); !errors.Is(err, errKilled) {
		t.Fatalf("the append gave %v", err)
	}
	large := func(o *Options) { o.SegmentBytes, o.Stepped = 10_000, true }
	for seed := range int64(50) {
		disk := clone.Clone() // kill -9
		l = openLog(t, killBefore(disk, vfs.OpSync, written, 1), large)
		if err := l.Append([]Write{{Entries: []*pb.Entry{entry(2, 1, strings.Repeat("b", 2000))}}}); !errors.Is(err, errKilled) {
			t.Fatalf("the append gave %v", err)
		}
		if _, err := tryOpen(disk.Crash(rand.New(rand.NewSource(seed))), large); err != nil {
			t.Fatalf("power loss %d: %v", seed, err)
		}
	}
}

// TestMisdirectedLastFrame: a frame that was acknowledged and written to another place behind
// the end is not a torn write.
func TestMisdirectedLastFrame(t *testing.T) {
	mem := vfs.NewMem()
	l := openLog(t, mem)
	fill(t, l, 1, 3, 1)
	path, before := l.active.path, l.active.size
	fill(t, l, 4, 4, 1)
	_ = l.Abandon()
	f, err := mem.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data, err := readAll(f)
	if err != nil {
		t.Fatal(err)
	}
	frame := append([]byte(nil), data[before:]...)
	if err := f.Truncate(before); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(frame, before+1000); err != nil {
		t.Fatal(err)
	}
	if _, err := tryOpen(mem.Clone()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a frame at a wrong place gave %v", err)
	}
}

// TestFlippedSnapshotVersionIsDamage: not a file of a newer program.
func TestFlippedSnapshotVersionIsDamage(t *testing.T) {
	mem := vfs.NewMem()
	l := openLog(t, mem)
	fill(t, l, 1, 10, 1)
	saveSnapshot(t, l, 10)
	path := l.snapshotPath(10)
	_ = l.Abandon()
	f, err := mem.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{snapshotVersion ^ 0x20}, 8); err != nil {
		t.Fatal(err)
	}
	if _, err := verifySnapshot(f, path); !errors.Is(err, ErrCorrupt) {
		t.Errorf("got %v", err)
	}
}
