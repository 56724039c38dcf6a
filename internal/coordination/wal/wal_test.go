package wal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand"
	"strings"
	"testing"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"understudy/internal/vfs"
)

const testDir = "/data"

var testIdentity = Identity{Member: 1, Members: []uint64{1, 2, 3}}

func openLog(t testing.TB, fs vfs.FS, adjust ...func(*Options)) *Log {
	t.Helper()
	l, err := tryOpen(fs, adjust...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func tryOpen(fs vfs.FS, adjust ...func(*Options)) (*Log, error) {
	o := Options{Dir: testDir, FS: fs, Identity: testIdentity, SegmentBytes: 2000, CacheBytes: 1000}
	for _, f := range adjust {
		f(&o)
	}
	return Open(o)
}

func entry(index, term uint64, data string) *pb.Entry {
	return &pb.Entry{Index: &index, Term: &term, Type: pb.EntryNormal.Enum(), Data: []byte(data)}
}

func state(term, vote, commit uint64) *pb.HardState {
	return &pb.HardState{Term: &term, Vote: &vote, Commit: &commit}
}

// fill appends entries from..to, one frame each.
func fill(t testing.TB, l *Log, from, to, term uint64) {
	t.Helper()
	for i := from; i <= to; i++ {
		if err := l.Append([]Write{{HardState: state(term, 1, i-1), Entries: []*pb.Entry{entry(i, term, fmt.Sprintf("entry %d", i))}}}); err != nil {
			t.Fatal(err)
		}
	}
}

// content is all of a log's entries, as text.
func content(t testing.TB, l *Log) string {
	t.Helper()
	first, _ := l.FirstIndex()
	last, _ := l.LastIndex()
	entries, err := l.Entries(first, last+1, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&b, "%d/%d:%s ", e.GetIndex(), e.GetTerm(), e.GetData())
	}
	return b.String()
}

func TestReopen(t *testing.T) {
	fs := vfs.NewMem()
	l := openLog(t, fs)
	fill(t, l, 1, 100, 1)
	fill(t, l, 60, 120, 2) // replaces 60..100, across segments
	want := content(t, l)
	incarnation := l.Incarnation()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openLog(t, fs)
	if got := content(t, l); got != want {
		t.Errorf("after reopening:\n%s\nwant\n%s", got, want)
	}
	if hs, _, _ := l.InitialState(); hs.GetTerm() != 2 || hs.GetVote() != 1 || hs.GetCommit() != 119 {
		t.Errorf("hard state %v", hs)
	}
	if l.Incarnation() <= incarnation {
		t.Error("the incarnation did not grow")
	}
	if term, err := l.Term(59); term != 1 || err != nil {
		t.Errorf("term of 59: %d, %v", term, err)
	}
	if _, err := l.Term(121); !errors.Is(err, raft.ErrUnavailable) {
		t.Errorf("term beyond the end: %v", err)
	}
}

func TestGroupIsOneSync(t *testing.T) {
	l := openLog(t, vfs.NewMem())
	before := l.Syncs()
	var group []Write
	for i := uint64(1); i <= 50; i++ {
		group = append(group, Write{HardState: state(1, 1, 0), Entries: []*pb.Entry{entry(i, 1, "x")}})
	}
	if err := l.Append(group); err != nil {
		t.Fatal(err)
	}
	if got := l.Syncs() - before; got != 1 {
		t.Errorf("%d syncs for a group", got)
	}
	before = l.Syncs()
	if err := l.Append([]Write{{HardState: state(1, 1, 50)}}); err != nil {
		t.Fatal(err)
	}
	if l.Syncs() != before {
		t.Error("a new commit index alone was synced")
	}
}

// TestTornTail cuts the last segment at every byte of its last frame, and puts zeros there:
// all before it is kept, and it goes on.
func TestTornTail(t *testing.T) {
	base := vfs.NewMem()
	l := openLog(t, base)
	fill(t, l, 1, 9, 1)
	want := content(t, l)
	start := l.active.size
	fill(t, l, 10, 10, 1)
	end, path := l.active.size, l.active.path
	if err := l.Abandon(); err != nil {
		t.Fatal(err)
	}
	for _, zeros := range []bool{false, true} {
		for at := start; at < end; at++ {
			fs := base.Clone()
			f, err := fs.OpenFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Truncate(at); err != nil {
				t.Fatal(err)
			}
			if zeros && at == start { // the size became durable, the data did not
				if _, err := f.WriteAt(make([]byte, end-at), at); err != nil {
					t.Fatal(err)
				}
			}
			_ = f.Close()
			l := openLog(t, fs)
			if got := content(t, l); got != want {
				t.Fatalf("cut at %d: %s", at, got)
			}
			fill(t, l, 10, 12, 2)
			_ = l.Abandon()
			l = openLog(t, fs)
			if last, _ := l.LastIndex(); last != 12 {
				t.Fatalf("cut at %d: goes on to %d", at, last)
			}
			_ = l.Abandon()
		}
	}
}

// TestBitFlip flips each bit of every segment: nothing durable may be lost or changed in
// silence.
func TestBitFlip(t *testing.T) {
	base := vfs.NewMem()
	l := openLog(t, base)
	fill(t, l, 1, 40, 1)
	paths := []string{}
	for _, s := range l.mu.segments {
		paths = append(paths, s.path)
	}
	if err := l.Abandon(); err != nil {
		t.Fatal(err)
	}
	if len(paths) < 2 {
		t.Fatal("one segment only")
	}
	for _, path := range paths {
		data, _ := readFile(base, path)
		for at := range data {
			fs := base.Clone()
			f, _ := fs.OpenFile(path)
			_, _ = f.WriteAt([]byte{data[at] ^ 1<<(at%8)}, int64(at))
			_ = f.Close()
			l, err := tryOpen(fs)
			if err == nil {
				t.Fatalf("%s: a flipped bit at %d of %d went unnoticed: %s", path, at, len(data), content(t, l))
			}
			var corrupt *CorruptionError
			if errors.As(err, &corrupt) && (corrupt.File != path || corrupt.Offset > int64(at)) {
				t.Fatalf("%s at %d: reported as %v", path, at, err)
			}
		}
	}
}

// TestCrash clones the disk as a crash would leave it, after random work: what was
// acknowledged is there.
func TestCrash(t *testing.T) {
	for seed := range int64(200) {
		random := rand.New(rand.NewSource(seed))
		fs := vfs.NewMem()
		l := openLog(t, fs)
		last := uint64(0)
		for range random.Intn(60) {
			switch random.Intn(10) {
			case 0:
				if last > 0 {
					saveSnapshot(t, l, 1+uint64(random.Int63n(int64(last))))
				}
			case 1:
				if err := l.Compact(uint64(random.Intn(int(last) + 1))); err != nil {
					t.Fatal(err)
				}
			default:
				n := uint64(random.Intn(5) + 1)
				fill(t, l, last+1, last+n, 1)
				last += n
			}
		}
		acknowledged := content(t, l)
		crashed := fs.Crash(random)
		l2, err := tryOpen(crashed)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if got := content(t, l2); !strings.HasSuffix(got, acknowledged) && !strings.HasSuffix(acknowledged, got) || lastOf(l2) != lastOf(l) {
			t.Fatalf("seed %d: after a crash\n%s\nwas\n%s", seed, got, acknowledged)
		}
	}
}

func lastOf(l *Log) uint64 { last, _ := l.LastIndex(); return last }

func saveSnapshot(t testing.TB, l *Log, index uint64) {
	t.Helper()
	term, err := l.Term(index)
	if err != nil || index <= l.NewestSnapshot().Index {
		return
	}
	if err := l.SaveSnapshot(SnapshotID{index, term}, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "state at %d", index)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// TestAgainstTwin does random work, with reopening, against a map of entries.
func TestAgainstTwin(t *testing.T) {
	for seed := range int64(100) {
		random := rand.New(rand.NewSource(seed))
		fs := vfs.NewMem()
		l := openLog(t, fs)
		twin := map[uint64]string{}
		var base, last, term, commit uint64
		term = 1
		for step := range 120 {
			least := 0 // entries in the next write
			switch random.Intn(8) {
			case 0: // a new leader replaces a tail that was not committed
				term++
				if last > commit {
					from := commit + 1 + uint64(random.Int63n(int64(last-commit)))
					for i := from; i <= last; i++ {
						delete(twin, i)
					}
					last = from - 1
					least = 1
				}
				fallthrough
			case 1, 2, 3:
				var writes []Write
				for range random.Intn(3) + 1 {
					w := Write{HardState: state(term, 1, commit)}
					for range random.Intn(4) + least {
						last++
						twin[last] = fmt.Sprintf("%d.%d", term, random.Int())
						w.Entries = append(w.Entries, entry(last, term, twin[last]))
					}
					writes = append(writes, w)
				}
				if err := l.Append(writes); err != nil {
					t.Fatal(err)
				}
			case 4:
				commit += uint64(random.Int63n(int64(last-commit) + 1))
			case 5:
				if lastOf(l) >= commit && commit > 0 {
					saveSnapshot(t, l, commit)
				}
			case 6:
				to := min(l.NewestSnapshot().Index, lastOf(l))
				if to > base {
					base += uint64(random.Int63n(int64(to-base) + 1))
					if err := l.Compact(base); err != nil {
						t.Fatal(err)
					}
				}
			case 7:
				if random.Intn(2) == 0 {
					_ = l.Abandon()
				} else if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				var err error
				if l, err = tryOpen(fs); err != nil {
					t.Fatalf("seed %d step %d: %v", seed, step, err)
				}
				for first, _ := l.FirstIndex(); first <= base; first++ {
					delete(twin, first) // more may be there than was kept
				}
			}
			if lastOf(l) > last {
				t.Fatalf("seed %d step %d: the log ends at %d", seed, step, last)
			}
			for i := base + 1; i <= lastOf(l); i++ {
				got, err := l.Entries(i, i+1, 1<<20)
				if err != nil || string(got[0].GetData()) != twin[i] {
					t.Fatalf("seed %d step %d entry %d: %v %v, twin has %q", seed, step, i, got, err, twin[i])
				}
			}
		}
	}
}

func TestFailedSyncIsFinal(t *testing.T) {
	broken := errors.New("input/output error")
	fail := false
	fs := vfs.WithFaults(vfs.NewMem(), func(op vfs.Operation, _ string) error {
		if fail && op == vfs.OpSync {
			return broken
		}
		return nil
	})
	l := openLog(t, fs)
	fill(t, l, 1, 3, 1)
	fail = true
	err := l.Append([]Write{{Entries: []*pb.Entry{entry(4, 1, "x")}}})
	if !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	fail = false
	if again := l.Append([]Write{{Entries: []*pb.Entry{entry(4, 1, "x")}}}); !errors.Is(again, broken) {
		t.Errorf("after a failed sync: %v", again)
	}
	if last, _ := l.LastIndex(); last != 3 {
		t.Errorf("entry %d is readable and was not synced", last)
	}
}

func TestCacheIsBounded(t *testing.T) {
	l := openLog(t, vfs.NewMem(), func(o *Options) { o.CacheBytes = 2000 })
	fill(t, l, 1, 500, 1)
	if l.mu.cacheBytes > 2000 || len(l.mu.cache) > 20 {
		t.Errorf("%d entries, %d bytes cached", len(l.mu.cache), l.mu.cacheBytes)
	}
	entries, err := l.Entries(1, 501, 1<<30)
	if err != nil || len(entries) != 500 || string(entries[6].GetData()) != "entry 7" {
		t.Errorf("%d entries, %v", len(entries), err)
	}
	if entries, _ := l.Entries(5, 400, 1); len(entries) != 1 {
		t.Errorf("%d entries in one byte, want 1", len(entries))
	}
}

func TestSnapshots(t *testing.T) {
	fs := vfs.NewMem()
	l := openLog(t, fs)
	fill(t, l, 1, 300, 1)
	saveSnapshot(t, l, 200)
	if err := l.Compact(180); err != nil {
		t.Fatal(err)
	}
	segments := len(l.mu.segments)
	if _, err := l.Entries(180, 181, 100); !errors.Is(err, raft.ErrCompacted) {
		t.Errorf("entry 180: %v", err)
	}
	saveSnapshot(t, l, 299)
	if err := l.Compact(299); err != nil {
		t.Fatal(err)
	}
	if n := len(l.mu.segments); n >= segments || n > 2 {
		t.Errorf("%d segments are kept for one entry", n)
	}
	_ = l.Close()
	l = openLog(t, fs)
	body, err := l.ReadSnapshot(l.NewestSnapshot())
	if err != nil {
		t.Fatal(err)
	}
	if data, _ := io.ReadAll(body); string(data) != "state at 299" {
		t.Errorf("snapshot holds %q", data)
	}
	_ = body.Close()

	// Another member takes it over the wire.
	other := vfs.NewMem()
	behind := openLog(t, other)
	fill(t, behind, 1, 5, 1)
	id := l.NewestSnapshot()
	file, size, err := l.SnapshotFile(id)
	if err != nil {
		t.Fatal(err)
	}
	sent, _ := io.ReadAll(file)
	damaged := bytes.Clone(sent)
	damaged[30] ^= 4
	if err := behind.ReceiveSnapshot(id, size, bytes.NewReader(damaged)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a damaged snapshot: %v", err)
	}
	if err := behind.ReceiveSnapshot(id, size, bytes.NewReader(sent)); err != nil {
		t.Fatal(err)
	}
	crashedEarly := other.Clone() // before the log was reset
	if err := behind.InstallSnapshot(id, []Write{{HardState: state(3, 2, 299)}}); err != nil {
		t.Fatal(err)
	}
	if err := behind.Append([]Write{{Entries: []*pb.Entry{entry(300, 3, "next")}}}); err != nil {
		t.Fatal(err)
	}
	for i, fs := range []*vfs.Mem{other.Clone(), crashedEarly} {
		l := openLog(t, fs.Crash(nil))
		first, _ := l.FirstIndex()
		if term, _ := l.Term(299); first != 300 || term != 1 || l.NewestSnapshot() != id {
			t.Errorf("case %d: log begins at %d after term %d, snapshot %v", i, first, term, l.NewestSnapshot())
		}
	}
}

func TestDamagedSnapshotIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	l := openLog(t, fs)
	fill(t, l, 1, 200, 1)
	saveSnapshot(t, l, 190)
	if err := l.Compact(180); err != nil {
		t.Fatal(err)
	}
	path := l.snapshotPath(190)
	_ = l.Close()
	data, _ := readFile(fs, path)
	for at := range data {
		clone := fs.Clone()
		f, _ := clone.OpenFile(path)
		_, _ = f.WriteAt([]byte{data[at] ^ 0x10}, int64(at))
		if _, err := tryOpen(clone); err == nil {
			t.Fatalf("a flipped bit at %d went unnoticed", at)
		}
	}
}

// A damaged snapshot is no loss while the log still has all that was in it.
func TestDamagedSnapshotIsMadeUpForByTheLog(t *testing.T) {
	fs := vfs.NewMem()
	l := openLog(t, fs)
	fill(t, l, 1, 10, 1)
	saveSnapshot(t, l, 8)
	want, path := content(t, l), l.snapshotPath(8)
	_ = l.Close()
	f, _ := fs.OpenFile(path)
	_, _ = f.WriteAt([]byte{0xff}, 30)
	l = openLog(t, fs)
	if got := content(t, l); got != want || l.NewestSnapshot().Index != 0 {
		t.Errorf("snapshot %v, log\n%s\nwant\n%s", l.NewestSnapshot(), got, want)
	}
	if _, err := fs.Stat(path + ".damaged"); err != nil {
		t.Error("the damaged file was not kept: ", err)
	}
}

// What is set aside leaves a mark with the highest term that could be read, and a directory
// that Open takes for a member's that knows nothing.
func TestSetAside(t *testing.T) {
	fs := vfs.NewMem()
	l := openLog(t, fs)
	fill(t, l, 1, 100, 3)
	if err := l.Append([]Write{{HardState: state(7, 2, 99)}}); err != nil {
		t.Fatal(err)
	}
	path := l.mu.segments[0].path
	_ = l.Close()
	f, _ := fs.OpenFile(path)
	_, _ = f.WriteAt([]byte{0xff}, 40)
	options := Options{Dir: testDir, FS: fs, Identity: testIdentity}
	_, cause := tryOpen(fs)
	if !errors.Is(cause, ErrCorrupt) || !strings.Contains(cause.Error(), path) || !strings.Contains(cause.Error(), "offset 16") {
		t.Fatal(cause)
	}
	mark, err := SetAside(options, cause)
	if err != nil || mark.Floor != 7 || mark.Term != 0 {
		t.Fatalf("%+v, %v", mark, err)
	}
	fs = fs.Crash(nil)
	l = openLog(t, fs)
	if last, _ := l.LastIndex(); last != 0 {
		t.Errorf("the log still ends at %d", last)
	}
	_ = l.Close()
	if mark, err = ReadRecovery(fs, testDir); err != nil || mark == nil || mark.Floor != 7 {
		t.Fatalf("%+v, %v", mark, err)
	}
	kept := 0
	entries, _ := fs.List(testDir)
	for _, e := range entries {
		if strings.Contains(e.Name(), ".damaged-") {
			kept++
		}
	}
	if kept != 2 {
		t.Errorf("%d damaged directories are kept, want log and snapshot", kept)
	}
	if err := EndRecovery(fs, testDir); err != nil {
		t.Fatal(err)
	}
	if mark, err = ReadRecovery(fs.Crash(nil), testDir); mark != nil || err != nil {
		t.Fatalf("%+v, %v", mark, err)
	}
}

func TestDirectoryIsRefused(t *testing.T) {
	write := func(name, text string) func(*vfs.Mem) {
		return func(fs *vfs.Mem) {
			f, err := fs.Create(testDir + "/" + name)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = f.Write([]byte(text))
			_ = f.Close()
		}
	}
	tests := []struct {
		name, message string
		prepare       func(*vfs.Mem)
	}{
		{"Apache's data", "version-2", func(fs *vfs.Mem) { _ = fs.MkdirAll(testDir + "/version-2") }},
		{"log without identity", "restore that file", func(fs *vfs.Mem) { _ = fs.MkdirAll(testDir + "/log") }},
		{"newer format", "data format 2", write(identityFile, `{"format":2}`)},
		{"damaged identity", "not JSON", write(identityFile, `{"for`)},
		{"another member", "belongs to member 2", write(identityFile, `{"format":1,"member":2,"members":[1,2,3]}`)},
		{"another ensemble", "[1 5 7]", write(identityFile, `{"format":1,"member":1,"members":[1,5,7]}`)},
		{"newer segment", "segment format version 9", func(fs *vfs.Mem) {
			l := openLog(t, fs)
			path := l.active.path
			_ = l.Close()
			header := appendSegmentHeader(nil)
			header[8] = 9
			f, _ := fs.OpenFile(path)
			_, _ = f.WriteAt(resealed(header), 0)
			_ = f.Close()
		}},
		{"in use", "in use by another process", func(fs *vfs.Mem) { openLog(t, fs) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			fs := vfs.NewMem()
			_ = fs.MkdirAll(testDir)
			test.prepare(fs)
			if _, err := tryOpen(fs); err == nil || !strings.Contains(err.Error(), test.message) {
				t.Errorf("got %v, want something about %q", err, test.message)
			}
		})
	}
}

func TestTornTailIsReported(t *testing.T) {
	fs := vfs.NewMem()
	l := openLog(t, fs)
	fill(t, l, 1, 3, 1)
	path, size := l.active.path, l.active.size
	_ = l.Abandon()
	f, _ := fs.OpenFile(path)
	_ = f.Truncate(size - 3)
	var out bytes.Buffer
	openLog(t, fs, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&out, nil)) })
	if !strings.Contains(out.String(), path) || !strings.Contains(out.String(), "offset=") {
		t.Errorf("reported: %q", out.String())
	}
}
