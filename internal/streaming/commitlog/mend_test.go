package commitlog

import (
	"bytes"
	"errors"
	"math/rand"
	"path/filepath"
	"testing"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/record"
	"understudy/internal/vfs"

	"github.com/twmb/franz-go/pkg/kerr"
)

// mendingLog is a log of two producers in several leader epochs whose process was killed, and
// its batches.
func mendingLog(t testing.TB) (fsys *vfs.Mem, batches []record.Batch) {
	t.Helper()
	fsys = vfs.NewMem()
	m := openManager(t, testConfig(fsys, testDir))
	l := openLog(t, m, DefaultLogConfig())
	for i := range 10 {
		batch := batchOf(t, idempotent(int64(1+i/5), 0, int32(i%5)), int64(1000+i), "a value of some length, so that there is something to flip")
		if _, err := l.AppendLeader(batch, AppendOptions{LeaderEpoch: cluster.LeaderEpoch(1 + i/3), NowMs: 1}); err != nil {
			t.Fatal(err)
		}
		batches = append(batches, batch)
	}
	return fsys.Clone(), batches
}

func reopened(t testing.TB, fsys *vfs.Mem) *Log {
	t.Helper()
	return openLog(t, openManager(t, testConfig(fsys, testDir)), DefaultLogConfig())
}

// A leader epoch that begins with a batch that was damaged begins there again once it is mended:
// truncation goes by it.
func TestMendedBatchesAreInTheEpochCache(t *testing.T) {
	fsys, batches := mendingLog(t)
	whole := reopened(t, fsys.Clone())
	paths, _ := filesOf(t, fsys, logSuffix)
	at := int64(0)
	for i, batch := range batches[:len(batches)-1] { // a damaged end is cut off
		damaged := fsys.Clone()
		flip(t, damaged, paths[0], at+record.HeaderSize+5, 2)
		at += int64(len(batch))
		if i == 4 { // the cache need not have been made anew
			if err := writeFile(damaged, filepath.Join(testDir, recoveryPointName), []byte("0\n1\nsongs 0 3\n"), true); err != nil {
				t.Fatal(err)
			}
		}
		l := reopened(t, damaged)
		damages := l.Damages()
		if len(damages) != 1 || damages[0].First != cluster.Offset(i) {
			t.Fatalf("batch %d: damaged: %v", i, damages)
		}
		if err := l.Repair(damages[0], bytes.Clone(batch)); err != nil {
			t.Fatal(err)
		}
		for offset := range cluster.Offset(len(batches)) {
			if got, want := l.EpochForOffset(offset), whole.EpochForOffset(offset); got != want {
				t.Errorf("batch %d mended: offset %d is of epoch %d, not %d", i, offset, got, want)
			}
		}
	}
}

// The epoch cache learns its entries in any order.
func TestEpochsAreLearnedInAnyOrder(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	for range 300 {
		var want epochCache
		type at struct {
			epoch  cluster.LeaderEpoch
			offset cluster.Offset
		}
		var batches []at
		epoch := cluster.LeaderEpoch(0)
		for offset := range cluster.Offset(20) {
			if random.Intn(3) == 0 {
				epoch += cluster.LeaderEpoch(1 + random.Intn(2))
			}
			want.assign(epoch, offset)
			batches = append(batches, at{epoch, offset})
		}
		var got epochCache
		for _, i := range random.Perm(len(batches)) {
			got.learn(batches[i].epoch, batches[i].offset)
		}
		for _, b := range batches {
			if got.forOffset(b.offset) != b.epoch {
				t.Fatalf("learned %v: %v, not %v", batches, got.list(), want.list())
			}
		}
		if len(got.entries) != len(want.entries) {
			t.Fatalf("learned %v: %v, not %v", batches, got.list(), want.list())
		}
	}
}

// What a producer sent last may be among the damaged batches: until they are mended nothing is
// taken from it, so that its next batch is not refused for good as out of sequence, and a retry
// not appended twice. Nor is the gap forgotten with a flush or a restart.
func TestProducersBehindDamageWait(t *testing.T) {
	fsys, batches := mendingLog(t)
	paths, _ := filesOf(t, fsys, logSuffix)
	at := int64(0)
	for _, batch := range batches[:4] {
		at += int64(len(batch))
	}
	flip(t, fsys, paths[0], at+record.HeaderSize+5, 2) // the last batch of producer 1
	appendOf := func(l *Log, producer int64, sequence int32) (AppendInfo, error) {
		return l.AppendLeader(batchOf(t, idempotent(producer, 0, sequence), 2000, "another"), AppendOptions{LeaderEpoch: 7, NowMs: 1, Mendable: true})
	}
	waits := func(l *Log, producer int64, sequence int32) {
		t.Helper()
		if _, err := appendOf(l, producer, sequence); !errors.As(err, new(*DamageError)) {
			t.Fatalf("producer %d, sequence %d: %v", producer, sequence, err)
		}
	}
	m := openManager(t, testConfig(fsys, testDir))
	l := openLog(t, m, DefaultLogConfig())
	waits(l, 1, 4) // perhaps a retry
	waits(l, 1, 5)
	waits(l, 3, 0)
	if info, err := appendOf(l, 1, 3); err != nil || !info.Duplicate || info.First != 3 {
		t.Fatalf("a retry of what is known: %+v, %v", info, err)
	}
	if _, err := appendOf(l, 2, 5); err != nil {
		t.Fatalf("a producer whose latest batch lies behind the damage: %v", err)
	}
	waits(l, 2, 7) // what comes before it may be hidden
	if _, err := l.AppendLeader(batchOf(t, idempotent(3, 0, 0), 2000, "another"), AppendOptions{LeaderEpoch: 7, NowMs: 1}); err != nil {
		t.Fatalf("without other replicas there is nothing to wait for: %v", err)
	}
	if err := m.Close(true); err != nil {
		t.Fatal(err)
	}
	l = reopened(t, fsys)
	waits(l, 1, 5)
	damages := l.Damages()
	if len(damages) != 1 {
		t.Fatalf("damaged: %v", damages)
	}
	if err := l.Repair(damages[0], bytes.Clone(batches[4])); err != nil {
		t.Fatal(err)
	}
	if info, err := appendOf(l, 1, 4); err != nil || !info.Duplicate || info.First != 4 {
		t.Fatalf("a retry after the damage is mended: %+v, %v", info, err)
	}
	if _, err := appendOf(l, 1, 5); err != nil {
		t.Fatal(err)
	}
	if _, err := appendOf(l, 1, 7); !errors.Is(err, kerr.OutOfOrderSequenceNumber) {
		t.Fatalf("a gap: %v", err)
	}
}

// What lies behind the recovery point of an unclean stop may be older than the checkpointed high
// watermark: a power loss can undo a truncation.
func TestProvenOffset(t *testing.T) {
	fsys, batches := mendingLog(t)
	if l := reopened(t, fsys.Clone()); l.ProvenOffset() != 0 {
		t.Errorf("proven up to %d without a flush", l.ProvenOffset())
	}
	if err := writeFile(fsys, filepath.Join(testDir, recoveryPointName), []byte("0\n1\nsongs 0 3\n"), true); err != nil {
		t.Fatal(err)
	}
	m := openManager(t, testConfig(fsys, testDir))
	if l := openLog(t, m, DefaultLogConfig()); l.ProvenOffset() != 3 {
		t.Errorf("proven up to %d, the recovery point was 3", l.ProvenOffset())
	}
	if err := m.Close(true); err != nil {
		t.Fatal(err)
	}
	if l := reopened(t, fsys); int(l.ProvenOffset()) != len(batches) {
		t.Errorf("proven up to %d after a clean stop", l.ProvenOffset())
	}
}
