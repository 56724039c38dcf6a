package commitlog

import (
	"bytes"
	"math/rand"
	"path/filepath"
	"testing"

	"understudy/internal/streaming/cluster"
	"understudy/internal/vfs"
)

func FuzzEpochBegin(f *testing.F) {
	f.Add(EpochBegin{Epoch: 4, Before: 2, Start: 17}.encode())
	f.Add(EpochBegin{Epoch: 0, Before: cluster.NoLeaderEpoch, Start: 0}.encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		begin, err := decodeEpochBegin(data)
		if err != nil {
			return
		}
		if again, err := decodeEpochBegin(begin.encode()); err != nil || again != begin {
			t.Fatalf("%v comes back as %v: %v", begin, again, err)
		}
	})
}

// Where an epoch began stays true, and known, whatever becomes of the log.
func TestEpochBegin(t *testing.T) {
	fsys := vfs.NewMem()
	m := openManager(t, testConfig(fsys, testDir))
	l := openLog(t, m, DefaultLogConfig())
	if begin, known := l.EpochBegin(); known {
		t.Fatalf("a new log knows of %v", begin)
	}
	mustAppend(t, l, batchOf(t, idempotent(1, 0, 0), 1, "a", "b", "c"))
	want := EpochBegin{Epoch: 4, Before: 1, Start: 3}
	check := func(when string, l *Log) {
		t.Helper()
		if begin, known := l.EpochBegin(); !known || begin != want {
			t.Fatalf("%s: %v (known %v), want %v", when, begin, known, want)
		}
	}
	note := func(l *Log, begin EpochBegin) {
		t.Helper()
		if err := l.NoteEpochBegin(begin, false); err != nil {
			t.Fatal(err)
		}
	}
	note(l, want)
	check("noted", l)
	note(l, EpochBegin{Epoch: 3, Before: 1, Start: 2})
	check("an earlier one came late", l)
	if err := l.TruncateTo(1); err != nil {
		t.Fatal(err)
	}
	check("truncated", l)

	m = openManager(t, testConfig(fsys.Clone(), testDir)) // killed
	l = m.Get(testPartition)
	check("after a kill", l)
	if err := l.TruncateFullyAndStartAt(9); err != nil {
		t.Fatal(err)
	}
	check("begun anew", l)
	want = EpochBegin{Epoch: 6, Before: cluster.NoLeaderEpoch, Start: 9}
	note(l, want)
	check("a later one", l)
	if err := m.Delete(testPartition); err != nil {
		t.Fatal(err)
	}
	if err := l.NoteEpochBegin(EpochBegin{Epoch: 7, Start: 9}, false); err == nil {
		t.Error("a deleted log takes a note")
	}
	l = openLog(t, m, DefaultLogConfig())
	if begin, known := l.EpochBegin(); known {
		t.Errorf("the next log of its name knows of %v", begin)
	}
}

// A durable note survives a loss of power, whatever was not synced; another one may be lost, and
// is not made up.
func TestEpochBeginWithoutPower(t *testing.T) {
	for _, durable := range []bool{true, false} {
		for seed := range int64(20) {
			fsys := vfs.NewMem()
			m := openManager(t, testConfig(fsys, testDir))
			l := openLog(t, m, DefaultLogConfig())
			mustAppend(t, l, batchOf(t, idempotent(1, 0, 0), 1, "a", "b", "c"))
			if err := l.Flush(); err != nil {
				t.Fatal(err)
			}
			want := EpochBegin{Epoch: 4, Before: 1, Start: 3}
			if err := l.NoteEpochBegin(want, durable); err != nil {
				t.Fatal(err)
			}
			m = openManager(t, testConfig(fsys.Crash(rand.New(rand.NewSource(seed))), testDir))
			begin, known := m.Get(testPartition).EpochBegin()
			if (known || durable) && begin != want {
				t.Errorf("durable %v, seed %d: %v", durable, seed, begin)
			}
		}
	}
}

// No flipped bit and no cut makes another note of it.
func TestDamagedEpochBegin(t *testing.T) {
	fsys := vfs.NewMem()
	m := openManager(t, testConfig(fsys, testDir))
	l := openLog(t, m, DefaultLogConfig())
	whole := EpochBegin{Epoch: 12, Before: 9, Start: 4711}.encode()
	path := filepath.Join(testDir, testPartition.String(), epochBeginName)
	for bit := range 8 * len(whole) {
		data := bytes.Clone(whole)
		data[bit/8] ^= 1 << (bit % 8)
		if err := writeFile(fsys, path, data, true); err != nil {
			t.Fatal(err)
		}
		l.begin.read = false
		if begin, known := l.EpochBegin(); known {
			t.Errorf("bit %d flipped: %v", bit, begin)
		}
	}
	for size := range whole {
		if begin, err := decodeEpochBegin(whole[:size]); err == nil {
			t.Errorf("cut to %d bytes: %v", size, begin)
		}
	}
}
