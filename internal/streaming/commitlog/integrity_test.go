package commitlog

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/record"
	"understudy/internal/vfs"

	"github.com/twmb/franz-go/pkg/kerr"
)

// damageLog makes a log of several segments, in three leader epochs, and closes it cleanly.
// It returns the files and the records that are in it.
func damageLog(t testing.TB) (fsys *vfs.Mem, values []string) {
	t.Helper()
	fsys = vfs.NewMem()
	m := openManager(t, testConfig(fsys, testDir))
	l := openLog(t, m, damageConfig())
	for i := range 24 {
		batch := batchOf(t, record.DefaultOptions(), int64(1000+10*i), fmt.Sprintf("value %d", i), strings.Repeat("x", 20+7*i%50))
		epoch := cluster.LeaderEpoch(1 + i/8)
		if _, err := l.AppendLeader(batch, AppendOptions{LeaderEpoch: epoch, NowMs: 1}); err != nil {
			t.Fatal(err)
		}
	}
	values = readValues(t, l, 0, l.EndOffset(), 1<<20)
	l.SetHighWatermark(l.EndOffset())
	if err := m.Close(true); err != nil {
		t.Fatal(err)
	}
	return fsys, values
}

func damageConfig() LogConfig {
	config := DefaultLogConfig()
	config.SegmentBytes, config.IndexIntervalBytes = 1000, 150
	config.RetentionMs = -1
	return config
}

// flip changes one bit of a file.
func flip(t testing.TB, fsys vfs.FS, path string, at int64, bit uint) {
	t.Helper()
	file, err := fsys.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	var b [1]byte
	if _, err := file.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << bit
	if _, err := file.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

func filesOf(t testing.TB, fsys vfs.FS, suffix string) (paths []string, sizes []int64) {
	t.Helper()
	dir := filepath.Join(testDir, testPartition.String())
	entries, err := fsys.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(entry.Name(), suffix) && info.Size() > 0 {
			paths, sizes = append(paths, filepath.Join(dir, entry.Name())), append(sizes, info.Size())
		}
	}
	return paths, sizes
}

// readAround reads all that is served, offset by offset; refused are the offsets that are
// answered with damage.
func readAround(t testing.TB, l *Log) (values []string, refused []cluster.Offset) {
	t.Helper()
	for at := l.StartOffset(); at < l.EndOffset(); {
		slice, err := l.Read(at, 400, l.EndOffset(), true)
		if errors.Is(err, ErrCorrupt) {
			if !errors.As(err, new(*DamageError)) {
				t.Fatalf("refused without naming the damage: %v", err)
			}
			refused = append(refused, at)
			at++
			continue
		}
		if err != nil {
			t.Fatalf("read at %d: %v", at, err)
		}
		data, err := slice.ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		next := slice.NextOffset()
		_ = slice.Close()
		for batch, err := range record.All(data) {
			if err == nil {
				err = batch.Check()
			}
			if err != nil {
				t.Fatalf("served at %d: %v", at, err)
			}
			for r, err := range batch.Records(1 << 20) {
				if err != nil {
					t.Fatal(err)
				}
				if r.Offset >= at {
					values = append(values, fmt.Sprintf("%d=%s", r.Offset, r.Value))
				}
			}
		}
		if next <= at {
			t.Fatalf("slice at %d goes on at %d", at, next)
		}
		at = next
	}
	return values, refused
}

// Whatever bit of a segment flips: what is served is what was written, what is not is refused
// with its place, and a copy from another replica makes the log whole again.
func TestFlippedBitsInSegments(t *testing.T) {
	fsys, values := damageLog(t)
	original := openLog(t, openManager(t, testConfig(fsys.Clone(), testDir)), damageConfig())
	paths, sizes := filesOf(t, fsys, ".log")
	if len(paths) < 3 {
		t.Fatalf("%d segments", len(paths))
	}
	random := rand.New(rand.NewSource(1))
	for i, path := range paths {
		for at := int64(0); at < sizes[i]; at++ {
			// The header of each batch in full, the records here and there.
			if testing.Short() && at%7 != 0 {
				continue
			}
			bit := uint(random.Intn(8))
			damaged := fsys.Clone()
			flip(t, damaged, path, at, bit)
			name := fmt.Sprintf("%s byte %d bit %d", filepath.Base(path), at, bit)
			var log bytes.Buffer
			config := testConfig(damaged, testDir)
			config.Logger = slog.New(slog.NewTextHandler(&log, nil))
			m, err := Open(config)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			l := openLog(t, m, damageConfig())
			got, refused := readAround(t, l)
			if len(refused) == 0 && strings.Contains(log.String(), "contradicts the batches") && slices.Equal(got, values) {
				// The leader epoch of a batch at an epoch's end became the neighbour's: that or
				// the checkpoint is wrong, and nothing tells which.
				_ = m.Close(false)
				continue
			}
			if len(refused) == 0 {
				t.Fatalf("%s: nothing was refused\n%s", name, &log)
			}
			if want := without(values, refused); !slices.Equal(got, want) {
				t.Fatalf("%s: served\n%v\nwant\n%v", name, got, want)
			}
			if !strings.Contains(log.String(), path) || !strings.Contains(log.String(), "position=") {
				t.Fatalf("%s: the log does not say so:\n%s", name, &log)
			}
			for _, d := range l.Damages() {
				copied, err := original.Read(d.First, int(d.To-d.From), d.Next, true)
				if err != nil {
					t.Fatal(err)
				}
				data, _ := copied.ReadAll()
				_ = copied.Close()
				if err := l.Repair(d, data); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			if got, refused = readAround(t, l); !slices.Equal(got, values) || len(refused) > 0 || len(l.Damages()) > 0 {
				t.Fatalf("%s: after the repair: %v refused, %v", name, refused, l.Damages())
			}
			_ = m.Close(false)
			// The bytes are as they were.
			if !bytes.Equal(content(t, damaged, path), content(t, fsys, path)) {
				t.Fatalf("%s: the repaired file is another one", name)
			}
		}
	}
}

func content(t testing.TB, fsys vfs.FS, path string) []byte {
	t.Helper()
	data, err := readWholeFile(fsys, path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func without(values []string, refused []cluster.Offset) []string {
	return slices.DeleteFunc(slices.Clone(values), func(value string) bool {
		for _, offset := range refused {
			if strings.HasPrefix(value, fmt.Sprintf("%d=", offset)) {
				return true
			}
		}
		return false
	})
}

// A flipped bit in an index, a checkpoint or a producer snapshot changes nothing of what is
// served.
func TestFlippedBitsInOtherFiles(t *testing.T) {
	fsys, values := damageLog(t)
	var timestamps []int64
	for ts := int64(990); ts < 1250; ts += 5 {
		timestamps = append(timestamps, ts)
	}
	search := func(l *Log) (found []string) {
		for _, ts := range timestamps {
			answer, ok, err := l.OffsetForTimestamp(ts)
			if err != nil {
				t.Fatalf("search for %d: %v", ts, err)
			}
			found = append(found, fmt.Sprint(answer, ok))
		}
		return found
	}
	ends := func(l *Log) (answers []string) {
		for epoch := range cluster.LeaderEpoch(5) {
			found, end := l.EndOffsetForEpoch(epoch)
			answers = append(answers, fmt.Sprint(found, end))
		}
		return answers
	}
	original := openLog(t, openManager(t, testConfig(fsys.Clone(), testDir)), damageConfig())
	wantSearch, wantEnds := search(original), ends(original)
	paths, sizes := []string{}, []int64{}
	for _, suffix := range []string{indexSuffix, timeIndexSuffix, snapshotSuffix, epochCheckpointName} {
		more, theirs := filesOf(t, fsys, suffix)
		paths, sizes = append(paths, more...), append(sizes, theirs...)
	}
	for i, path := range paths {
		for at := range sizes[i] {
			for bit := range uint(8) {
				damaged := fsys.Clone()
				flip(t, damaged, path, at, bit)
				name := fmt.Sprintf("%s byte %d bit %d", filepath.Base(path), at, bit)
				m, err := Open(testConfig(damaged, testDir))
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				l := openLog(t, m, damageConfig())
				if got := search(l); !slices.Equal(got, wantSearch) {
					t.Fatalf("%s: by time\n%v\nwant\n%v", name, got, wantSearch)
				}
				if got, refused := readAround(t, l); !slices.Equal(got, values) || len(refused) > 0 {
					t.Fatalf("%s: served %v\nwant %v", name, got, values)
				}
				if got := ends(l); !slices.Equal(got, wantEnds) {
					t.Fatalf("%s: epochs end %v, want %v", name, got, wantEnds)
				}
				_ = m.Close(false)
			}
		}
	}
}

// A whole entry of another index: it leads behind everything in the segment, and a reader must
// not be led on to the next one.
func TestIndexThatPointsBehindTheSegment(t *testing.T) {
	fsys, values := damageLog(t)
	paths, _ := filesOf(t, fsys, indexSuffix)
	for _, path := range paths {
		damaged := fsys.Clone()
		file, err := damaged.OpenFile(path)
		if err == nil {
			_, err = file.WriteAt([]byte{0, 0, 0, 0, 0x7f, 0, 0, 0}, 0)
			err = errors.Join(err, file.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		l := openLog(t, openManager(t, testConfig(damaged, testDir)), damageConfig())
		if got, refused := readAround(t, l); !slices.Equal(got, values) || len(refused) > 0 {
			t.Fatalf("%s: served %v\nwant %v", path, got, values)
		}
	}
}

// The scrubber finds what nobody reads, in segments that this process wrote, too.
func TestScrub(t *testing.T) {
	fsys := vfs.NewMem()
	m := openManager(t, testConfig(fsys, testDir))
	l := openLog(t, m, damageConfig())
	for i := range 24 {
		mustAppend(t, l, batchOf(t, record.DefaultOptions(), int64(i), strings.Repeat("y", 60)))
	}
	m.Scrub()
	if len(m.Damaged()) != 0 {
		t.Fatalf("damaged: %v", l.Damages())
	}
	paths, _ := filesOf(t, fsys, ".log")
	flip(t, fsys, paths[1], 70, 3)
	m.Scrub()
	if damages := l.Damages(); len(m.Damaged()) != 1 || len(damages) != 1 || damages[0].Path != paths[1] || damages[0].From != 0 {
		t.Fatalf("damaged: %v", damages)
	}
	m.Scrub() // passes over it
	if len(l.Damages()) != 1 {
		t.Fatalf("damaged: %v", l.Damages())
	}
}

// A copy that is not what stood there is refused.
func TestRepairTakesNoOtherBatches(t *testing.T) {
	fsys, _ := damageLog(t)
	paths, _ := filesOf(t, fsys, ".log")
	flip(t, fsys, paths[0], 80, 0)
	l := openLog(t, openManager(t, testConfig(fsys, testDir)), damageConfig())
	_, refused := readAround(t, l)
	if len(refused) == 0 || len(l.Damages()) != 1 {
		t.Fatalf("refused %v", refused)
	}
	d := l.Damages()[0]
	right := batchOf(t, record.DefaultOptions(), 1000, "value 0", strings.Repeat("x", 20))
	right.SetBaseOffset(d.First)
	right.SetLeaderEpoch(1)
	if int64(len(right)) != d.To-d.From {
		t.Fatalf("%d bytes, not %d", len(right), d.To-d.From)
	}
	for name, spoil := range map[string]func(b record.Batch) []byte{
		"another leader epoch": func(b record.Batch) []byte { b.SetLeaderEpoch(2); return b },
		"another offset":       func(b record.Batch) []byte { b.SetBaseOffset(d.First + 1); return b },
		"a wrong checksum":     func(b record.Batch) []byte { b[len(b)-1] ^= 1; return b },
		"too little":           func(b record.Batch) []byte { return b[:len(b)-1] },
		"nothing":              func(record.Batch) []byte { return nil },
	} {
		if err := l.Repair(d, spoil(bytes.Clone(right))); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if err := l.Repair(d, right); err != nil {
		t.Fatal(err)
	}
	if _, refused := readAround(t, l); len(refused) > 0 {
		t.Fatalf("refused %v", refused)
	}
}

// After kill -9, recovery reads what lies above the recovery point. A flipped bit there is no
// torn end: what follows stays, and the rest is served and mended.
func TestFlippedBitsAboveTheRecoveryPoint(t *testing.T) {
	fsys := vfs.NewMem()
	m := openManager(t, testConfig(fsys, testDir))
	l := openLog(t, m, DefaultLogConfig())
	for i := range 12 {
		batch := batchOf(t, record.DefaultOptions(), int64(1000+10*i), fmt.Sprintf("value %d", i), strings.Repeat("x", 30))
		if _, err := l.AppendLeader(batch, AppendOptions{LeaderEpoch: cluster.LeaderEpoch(1 + i/4), NowMs: 1}); err != nil {
			t.Fatal(err)
		}
	}
	values := readValues(t, l, 0, l.EndOffset(), 1<<20)
	paths, sizes := filesOf(t, fsys, logSuffix)
	last := sizes[0] / 12 * 11 // the last batch could be a torn one
	for at := range last {
		damaged := fsys.Clone()
		flip(t, damaged, paths[0], at, uint(at%8))
		m, err := Open(testConfig(damaged, testDir))
		if err != nil {
			t.Fatal(err)
		}
		l := openLog(t, m, DefaultLogConfig())
		got, refused := readAround(t, l)
		if len(refused) > 2 || !slices.Equal(got, without(values, refused)) {
			t.Fatalf("byte %d: refused %v, served\n%v\nof\n%v", at, refused, got, values)
		}
		_ = m.Close(false)
	}
}

// No checksum covers a batch's base offset, and no batch behind the last one contradicts it: after
// kill -9 the last batch is taken for torn if it does not follow the one before it at once.
func TestFlippedBitsInTheLastBaseOffset(t *testing.T) {
	for _, batches := range []int{1, 5} {
		fsys := vfs.NewMem()
		l := openLog(t, openManager(t, testConfig(fsys, testDir)), DefaultLogConfig())
		for i := range batches {
			batch := batchOf(t, record.DefaultOptions(), int64(1000+10*i), fmt.Sprintf("value %d", i), "more")
			if _, err := l.AppendLeader(batch, AppendOptions{LeaderEpoch: 1, NowMs: 1}); err != nil {
				t.Fatal(err)
			}
		}
		values := readValues(t, l, 0, l.EndOffset(), 1<<20)
		paths, sizes := filesOf(t, fsys, logSuffix)
		for bit := range int64(64) {
			damaged := fsys.Clone()
			flip(t, damaged, paths[0], sizes[0]/int64(batches)*int64(batches-1)+bit/8, uint(bit%8))
			m, err := Open(testConfig(damaged, testDir))
			if err != nil {
				t.Fatal(err)
			}
			l := openLog(t, m, DefaultLogConfig())
			got, _ := readAround(t, l)
			if want := values[:2*(batches-1)]; !slices.Equal(got, want) || l.EndOffset() != cluster.Offset(len(want)) {
				t.Fatalf("bit %d: served %v up to %d, not %v", bit, got, l.EndOffset(), want)
			}
			_ = m.Close(false)
		}
	}
}

// The batch with which a leader epoch begins is damaged: what is left says that the epoch before
// ends behind it. A follower that cuts its log there lets go of what may be of either.
func TestCutAtAnEpochThatBeginsBehindDamage(t *testing.T) {
	fsys, _ := damageLog(t)
	if err := errors.Join(fsys.Remove(filepath.Join(testDir, cleanShutdownName)),
		fsys.Remove(filepath.Join(testDir, testPartition.String(), epochCheckpointName))); err != nil {
		t.Fatal(err)
	}
	paths, sizes := filesOf(t, fsys, logSuffix)
	cuts := 0
	for i, path := range paths {
		for at := int64(0); at < sizes[i]; at += 40 {
			damaged := fsys.Clone()
			flip(t, damaged, path, at, 0)
			m := openManager(t, testConfig(damaged, testDir))
			l := openLog(t, m, damageConfig())
			readAround(t, l)
			for _, d := range l.Damages() {
				epoch, end := l.EndOffsetForEpoch(l.epochs.forOffset(d.First - 1))
				if d.First == 0 || end != d.Next || end == l.EndOffset() {
					continue
				}
				cuts++
				if err := l.TruncateTo(end); err != nil {
					t.Fatal(err)
				}
				if l.EndOffset() != d.First || len(l.Damages()) != 0 {
					t.Errorf("%s, bit at %d: cut where epoch %d ends, at %d, the log ends at %d, with damages %v; want %d", path, at, epoch, end, l.EndOffset(), l.Damages(), d.First)
				}
			}
		}
	}
	if cuts == 0 {
		t.Error("no epoch began behind damage")
	}
}

// Good batches are believed, and not a checkpoint in which a digit is wrong.
func TestWrongEpochCheckpointAfterACrash(t *testing.T) {
	fsys, values := damageLog(t)
	if err := fsys.Remove(filepath.Join(testDir, cleanShutdownName)); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"0\n1\n9 0\n", "0\n3\n1 0\n2 16\n7 32\n", "0\n2\n5 0\n6 3\n", "0\n0\n"} {
		damaged := fsys.Clone()
		path := filepath.Join(testDir, testPartition.String(), epochCheckpointName)
		if err := writeFile(damaged, path, []byte(text), true); err != nil {
			t.Fatal(err)
		}
		for _, recoveryPoint := range []string{"0\n0\n", "0\n1\nsongs 0 20\n"} {
			if err := writeFile(damaged, filepath.Join(testDir, recoveryPointName), []byte(recoveryPoint), true); err != nil {
				t.Fatal(err)
			}
			m := openManager(t, testConfig(damaged.Clone(), testDir))
			l := openLog(t, m, damageConfig())
			if got, refused := readAround(t, l); !slices.Equal(got, values) {
				t.Fatalf("%q: refused %v, served %v", text, refused, got)
			}
			if epoch, end := l.EndOffsetForEpoch(2); epoch != 2 || end != 32 {
				t.Fatalf("%q: epoch 2 is answered with %d, which ends at %d", text, epoch, end)
			}
		}
	}
}

// An offset checkpoint that does not parse is kept aside; the log is what its segments say.
func TestDamagedOffsetCheckpointsAreDoneWithout(t *testing.T) {
	fsys, values := damageLog(t)
	for _, name := range []string{recoveryPointName, highWatermarkName, logStartName} {
		for _, clean := range []bool{true, false} {
			damaged := fsys.Clone()
			if err := writeFile(damaged, filepath.Join(testDir, name), []byte("0\n2\nsongs 0 1\n"), true); err != nil {
				t.Fatal(err)
			}
			if !clean {
				if err := damaged.Remove(filepath.Join(testDir, cleanShutdownName)); err != nil {
					t.Fatal(err)
				}
			}
			l := openLog(t, openManager(t, testConfig(damaged, testDir)), damageConfig())
			if got, refused := readAround(t, l); !slices.Equal(got, values) {
				t.Fatalf("%s: refused %v, served %v", name, refused, got)
			}
			if _, err := damaged.Stat(filepath.Join(testDir, name+damagedSuffix)); err != nil {
				t.Errorf("%s was not kept: %v", name, err)
			}
		}
	}
}

// A checkpointed start offset beyond the log and all that was committed does not empty it.
func TestWrongStartCheckpointIsNotBelieved(t *testing.T) {
	fsys, values := damageLog(t)
	if err := writeFile(fsys, filepath.Join(testDir, logStartName), []byte("0\n1\nsongs 0 4000\n"), true); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, openManager(t, testConfig(fsys, testDir)), damageConfig())
	if got, _ := readAround(t, l); !slices.Equal(got, values) {
		t.Fatalf("served %v", got)
	}
}

// A failed fsync, of whatever file, ends acknowledging: the directory is given up, and what
// was said to be synced before stays so.
func TestFailedSyncGivesUpTheDirectory(t *testing.T) {
	for _, name := range []string{logSuffix, indexSuffix, timeIndexSuffix, snapshotSuffix, epochCheckpointName, recoveryPointName, highWatermarkName} {
		broken := false
		fsys := vfs.WithFaults(vfs.NewMem(), func(op vfs.Operation, path string) error {
			if broken && op == vfs.OpSync && strings.HasSuffix(strings.TrimSuffix(path, ".tmp"), name) {
				return errors.New("input/output error")
			}
			return nil
		})
		config := testConfig(fsys, testDir)
		config.Stepped = true
		m := openManager(t, config)
		l := openLog(t, m, damageConfig())
		for i := range 12 {
			mustAppend(t, l, batchOf(t, idempotent(1, 0, int32(i)), int64(i), strings.Repeat("z", 100)))
		}
		broken = true
		err := errors.Join(l.Flush(), m.writeAllCheckpoints())
		l.SetHighWatermark(l.EndOffset())
		err = errors.Join(err, m.CheckpointHighWatermarks(nil))
		broken = false
		if err == nil || l.Failed() == nil {
			t.Errorf("%s: the failed fsync went unnoticed", name)
			continue
		}
		if _, err := l.AppendLeader(batchOf(t, record.DefaultOptions(), 1, "later"), AppendOptions{LeaderEpoch: 1}); !errors.Is(err, kerr.KafkaStorageError) {
			t.Errorf("%s: an append afterwards: %v", name, err)
		}
		if err := l.SyncTo(l.EndOffset()); err == nil && l.SyncedOffset() < l.EndOffset() {
			t.Errorf("%s: synced to %d of %d after the failure", name, l.SyncedOffset(), l.EndOffset())
		}
	}
}
