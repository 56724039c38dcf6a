package commitlog

import (
	"bytes"
	"fmt"
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

func TestAppendAndRead(t *testing.T) {
	m := openManager(t, testConfig(vfs.NewMem(), testDir))
	config := DefaultLogConfig()
	config.SegmentBytes = 1000
	config.IndexIntervalBytes = 100
	l := openLog(t, m, config)
	var want []string
	for i := range 100 {
		info := mustAppend(t, l, batchOf(t, record.DefaultOptions(), 1000, fmt.Sprint("a", i), fmt.Sprint("b", i)))
		if info.First != cluster.Offset(2*i) || info.Last != cluster.Offset(2*i+1) {
			t.Fatalf("append %d: %+v", i, info)
		}
		want = append(want, fmt.Sprintf("%d=a%d", 2*i, i), fmt.Sprintf("%d=b%d", 2*i+1, i))
	}
	if len(l.view().segments) < 5 {
		t.Fatalf("%d segments", len(l.view().segments))
	}
	for _, maxBytes := range []int{1, 150, 1 << 20} {
		for _, from := range []cluster.Offset{0, 1, 77, 198} {
			if got := readValues(t, l, from, l.EndOffset(), maxBytes); !slices.Equal(got, want[from:]) {
				t.Fatalf("from %d by %d: %v", from, maxBytes, got)
			}
			if got := readValues(t, l, from, 150, maxBytes); from < 150 && !slices.Equal(got, want[from:150]) {
				t.Fatalf("from %d to 150 by %d: %v", from, maxBytes, got)
			}
		}
	}
	if _, err := l.Read(201, 1, 201, true); err == nil {
		t.Fatal("read past the end")
	} else {
		wantCode(t, err, kerr.OffsetOutOfRange)
	}
	slice, err := l.Read(0, 10, 200, false)
	if err != nil || slice.Size() != 0 || slice.NextOffset() != 0 {
		t.Fatalf("read that fits nothing: %+v %v", slice, err)
	}
	if l.LatestEpoch() != 1 || l.Size() == 0 {
		t.Fatalf("epoch %d size %d", l.LatestEpoch(), l.Size())
	}
}

func TestRefusals(t *testing.T) {
	m := openManager(t, testConfig(vfs.NewMem(), testDir))
	config := DefaultLogConfig()
	config.MaxMessageBytes = 200
	config.TimestampAfterMs = 1000
	config.TimestampBeforeMs = 5000
	const now = 100_000
	good := func() record.Batch { return batchOf(t, record.DefaultOptions(), now, "v") }
	cases := map[string]struct {
		data   func() []byte
		config func(*LogConfig)
		code   error
	}{
		"nothing":       {data: func() []byte { return nil }, code: kerr.InvalidRecord},
		"torn":          {data: func() []byte { return good()[:60] }, code: kerr.CorruptMessage},
		"crc":           {data: func() []byte { b := good(); b[len(b)-1] ^= 1; return b }, code: kerr.CorruptMessage},
		"two batches":   {data: func() []byte { return append(good(), good()...) }, code: kerr.InvalidRecord},
		"too large":     {data: func() []byte { return batchOf(t, record.DefaultOptions(), now, strings.Repeat("x", 300)) }, code: kerr.MessageTooLarge},
		"base offset":   {data: func() []byte { b := good(); b.SetBaseOffset(4); return b }, code: kerr.InvalidRecord},
		"from tomorrow": {data: func() []byte { return batchOf(t, record.DefaultOptions(), now+2000, "v") }, code: kerr.InvalidTimestamp},
		"from long ago": {data: func() []byte { return batchOf(t, record.DefaultOptions(), now-6000, "v") }, code: kerr.InvalidTimestamp},
		"old format": {data: func() []byte {
			b := good()
			b[16] = 1
			return b
		}, code: kerr.UnsupportedForMessageFormat},
		"control": {data: func() []byte {
			return record.BuildMarker(record.Marker{Type: record.Commit}, 1, 0, -1, now)
		}, code: kerr.InvalidRecord},
		"no key in compacted topic": {
			data: func() []byte {
				builder := record.NewBuilder(record.DefaultOptions())
				builder.Append(now, nil, []byte("v"))
				b, _ := builder.Build()
				return b
			},
			config: func(c *LogConfig) { c.Compact = true },
			code:   kerr.InvalidRecord,
		},
		"segment too small": {data: func() []byte { return good() }, config: func(c *LogConfig) { c.SegmentBytes = 20 }, code: kerr.RecordListTooLarge},
		"no sequence": {data: func() []byte {
			return batchOf(t, idempotent(7, 0, -1), now, "v")
		}, code: kerr.InvalidRecord},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			config := config
			if c.config != nil {
				c.config(&config)
			}
			l := openLog(t, m, config)
			_, err := l.AppendLeader(c.data(), AppendOptions{NowMs: now})
			wantCode(t, err, c.code)
			if l.EndOffset() != 0 {
				t.Fatalf("end is %d", l.EndOffset())
			}
		})
	}
	l := openLog(t, m, config)
	if _, err := l.AppendLeader(good(), AppendOptions{NowMs: now}); err != nil {
		t.Fatal(err)
	}
}

func TestLogAppendTimeAndCompression(t *testing.T) {
	m := openManager(t, testConfig(vfs.NewMem(), testDir))
	config := DefaultLogConfig()
	config.TimestampType = record.LogAppendTime
	zstd := record.Zstd
	config.Compression = &zstd
	l := openLog(t, m, config)
	batch := batchOf(t, record.DefaultOptions(), 5, "x", "y")
	info, err := l.AppendLeader(batch, AppendOptions{NowMs: 777, LeaderEpoch: 3})
	if err != nil || info.LogAppendTimeMs != 777 || info.MaxTimestampMs != 777 {
		t.Fatalf("%+v %v", info, err)
	}
	slice, err := l.Read(0, 1<<20, 2, true)
	if err != nil {
		t.Fatal(err)
	}
	data, err := slice.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	_ = slice.Close()
	stored, _, err := record.Next(data)
	if err != nil || stored.Check() != nil || stored.Codec() != record.Zstd || stored.TimestampType() != record.LogAppendTime || stored.LeaderEpoch() != 3 {
		t.Fatalf("stored batch: %v %v", stored, err)
	}
	for r, err := range stored.Records(100) {
		if err != nil || r.TimestampMs != 777 {
			t.Fatalf("%+v %v", r, err)
		}
	}
}

func TestIdempotence(t *testing.T) {
	m := openManager(t, testConfig(vfs.NewMem(), testDir))
	l := openLog(t, m, DefaultLogConfig())
	appendSequence := func(epoch int16, sequence int32, records int) (AppendInfo, error) {
		values := make([]string, records)
		return l.AppendLeader(batchOf(t, idempotent(9, epoch, sequence), 1, values...), AppendOptions{})
	}
	for i := range int32(7) { // sequences 0-1, 2-3 … 12-13
		if info, err := appendSequence(0, 2*i, 2); err != nil || info.Duplicate {
			t.Fatalf("%+v %v", info, err)
		}
	}
	for i := int32(2); i < 7; i++ {
		info, err := appendSequence(0, 2*i, 2)
		if err != nil || !info.Duplicate || info.First != cluster.Offset(2*i) || info.Last != cluster.Offset(2*i+1) {
			t.Fatalf("retry of %d: %+v %v", i, info, err)
		}
	}
	_, err := appendSequence(0, 2, 2) // out of the window
	wantCode(t, err, kerr.OutOfOrderSequenceNumber)
	_, err = appendSequence(0, 15, 1)
	wantCode(t, err, kerr.OutOfOrderSequenceNumber)
	_, err = appendSequence(1, 3, 1)
	wantCode(t, err, kerr.OutOfOrderSequenceNumber)
	if _, err := appendSequence(1, 0, 1); err != nil {
		t.Fatal(err)
	}
	_, err = appendSequence(0, 14, 1)
	wantCode(t, err, kerr.InvalidProducerEpoch)
	if l.EndOffset() != 15 {
		t.Fatalf("end %d", l.EndOffset())
	}
	states := l.Producers()
	if len(states) != 1 || states[0].Epoch != 1 || states[0].LastSequence != 0 {
		t.Fatalf("%+v", states)
	}
}

func TestSequenceWraps(t *testing.T) {
	m := openManager(t, testConfig(vfs.NewMem(), testDir))
	l := openLog(t, m, DefaultLogConfig())
	mustAppend(t, l, batchOf(t, idempotent(9, 0, 1<<31-2), 1, "a", "b", "c")) // last sequence 0
	mustAppend(t, l, batchOf(t, idempotent(9, 0, 1), 1, "d"))
	info := mustAppend(t, l, batchOf(t, idempotent(9, 0, 1<<31-2), 1, "a", "b", "c"))
	if !info.Duplicate || info.First != 0 || info.Last != 2 {
		t.Fatalf("%+v", info)
	}
}

func TestTransactions(t *testing.T) {
	mem := vfs.NewMem()
	m := openManager(t, testConfig(mem, testDir))
	l := openLog(t, m, DefaultLogConfig())
	transactional := func(id int64, sequence int32) record.BuilderOptions {
		options := idempotent(id, 0, sequence)
		options.Transactional = true
		return options
	}
	mustAppend(t, l, batchOf(t, record.DefaultOptions(), 1, "plain")) // 0
	mustAppend(t, l, batchOf(t, transactional(1, 0), 1, "aborted"))   // 1
	mustAppend(t, l, batchOf(t, transactional(2, 0), 1, "committed")) // 2
	_, err := l.AppendLeader(batchOf(t, idempotent(1, 0, 1), 1, "x"), AppendOptions{})
	wantCode(t, err, kerr.InvalidTxnState)
	l.SetHighWatermark(l.EndOffset())
	if l.LastStableOffset() != 1 {
		t.Fatalf("last stable offset %d", l.LastStableOffset())
	}
	marker := func(id int64, kind record.ControlType, coordinatorEpoch int32) error {
		_, err := l.AppendLeader(record.BuildMarker(record.Marker{Type: kind, CoordinatorEpoch: coordinatorEpoch}, id, 0, -1, 1), AppendOptions{LeaderEpoch: 1, Origin: Coordinator})
		return err
	}
	if err := marker(1, record.Abort, 5); err != nil { // 3
		t.Fatal(err)
	}
	wantCode(t, marker(1, record.Abort, 4), kerr.TransactionCoordinatorFenced)
	if l.LastStableOffset() != 1 {
		t.Fatal("a marker above the high watermark counts")
	}
	l.SetHighWatermark(l.EndOffset())
	if l.LastStableOffset() != 2 {
		t.Fatalf("last stable offset %d", l.LastStableOffset())
	}
	if err := marker(2, record.Commit, 5); err != nil { // 4
		t.Fatal(err)
	}
	l.SetHighWatermark(l.EndOffset())
	check := func(l *Log) {
		t.Helper()
		if l.LastStableOffset() != 5 {
			t.Fatalf("last stable offset %d", l.LastStableOffset())
		}
		aborted, err := l.AbortedTransactions(0, 5)
		if err != nil || !slices.Equal(aborted, []AbortedTransaction{{1, 1}}) {
			t.Fatalf("%v %v", aborted, err)
		}
	}
	check(l)
	for _, clean := range []bool{true, false, true} {
		if err := m.CheckpointHighWatermarks(nil); err != nil {
			t.Fatal(err)
		}
		if err := m.Close(clean); err != nil {
			t.Fatal(err)
		}
		m = openManager(t, testConfig(mem, testDir))
		l = openLog(t, m, DefaultLogConfig())
		check(l)
	}
}

func TestFollowerAppend(t *testing.T) {
	m := openManager(t, testConfig(vfs.NewMem(), testDir))
	l := openLog(t, m, DefaultLogConfig())
	stored := func(base cluster.Offset, epoch cluster.LeaderEpoch, values ...string) []byte {
		b := batchOf(t, idempotent(4, 0, int32(base)), 1, values...)
		b.SetBaseOffset(base)
		b.SetLeaderEpoch(epoch)
		return b
	}
	data := slices.Concat(stored(0, 2, "a", "b"), stored(2, 3, "c"), stored(3, 3, "d")[:65])
	info, err := l.AppendFollower(data)
	if err != nil || info.First != 0 || info.Last != 2 || info.LastLeaderEpoch != 3 {
		t.Fatalf("%+v %v", info, err)
	}
	if got := readValues(t, l, 0, 3, 1<<20); !slices.Equal(got, []string{"0=a", "1=b", "2=c"}) {
		t.Fatal(got)
	}
	if _, err := l.AppendFollower(stored(1, 3, "x")); err == nil {
		t.Fatal("an append below the end was taken")
	}
	if info, err := l.AppendFollower(stored(10, 3, "gap")); err != nil || l.EndOffset() != 11 {
		t.Fatalf("%+v %v", info, err)
	}
	if epoch, end := l.EndOffsetForEpoch(2); epoch != 2 || end != 2 {
		t.Fatalf("epoch 2 ends at %d (%d)", end, epoch)
	}
	if got := readValues(t, l, 3, 11, 1<<20); !slices.Equal(got, []string{"10=gap"}) {
		t.Fatal(got)
	}
	// As leader it knows the retries.
	retry := batchOf(t, idempotent(4, 0, 2), 1, "c")
	if info, err := l.AppendLeader(retry, AppendOptions{}); err != nil || !info.Duplicate || info.First != 2 {
		t.Fatalf("%+v %v", info, err)
	}
}

func TestTimeSearch(t *testing.T) {
	mem := vfs.NewMem()
	m := openManager(t, testConfig(mem, testDir))
	config := DefaultLogConfig()
	config.SegmentBytes = 2000
	config.IndexIntervalBytes = 200
	l := openLog(t, m, config)
	random := rand.New(rand.NewSource(3))
	var times []int64
	for range 150 {
		options := record.DefaultOptions()
		options.Codec = record.Codec(random.Intn(5))
		builder := record.NewBuilder(options)
		for range 1 + random.Intn(3) {
			at := int64(1000 + len(times)*10 + random.Intn(100))
			times = append(times, at)
			builder.Append(at, []byte("k"), []byte("v"))
		}
		batch, err := builder.Build()
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, l, batch)
	}
	check := func(l *Log) {
		t.Helper()
		for target := int64(900); target < 1000+int64(len(times))*10+200; target += 7 {
			want := slices.IndexFunc(times, func(at int64) bool { return at >= target })
			found, ok, err := l.OffsetForTimestamp(target)
			if err != nil || ok != (want >= 0) || ok && (found.Offset != cluster.Offset(want) || found.TimestampMs != times[want] || found.LeaderEpoch != 1) {
				t.Fatalf("time %d: %+v %v %v, want offset %d", target, found, ok, err, want)
			}
		}
		largest := slices.Max(times)
		found, ok, err := l.MaxTimestampOffset()
		if err != nil || !ok || found.TimestampMs != largest || found.Offset != cluster.Offset(slices.Index(times, largest)) {
			t.Fatalf("%+v %v %v", found, ok, err)
		}
	}
	check(l)
	if err := m.Close(true); err != nil {
		t.Fatal(err)
	}
	m = openManager(t, testConfig(mem, testDir))
	check(m.Get(testPartition))
	if err := m.Close(false); err != nil {
		t.Fatal(err)
	}
	m = openManager(t, testConfig(mem, testDir))
	check(m.Get(testPartition))
}

func TestRetention(t *testing.T) {
	mem := vfs.NewMem()
	now := &clock{ms: 1_000_000}
	open := func() *Manager {
		config := testConfig(mem, testDir)
		config.Now = now.now
		return openManager(t, config)
	}
	m := open()
	config := DefaultLogConfig()
	config.SegmentBytes = 500
	config.RetentionMs = 10_000
	config.FileDeleteDelayMs = 100
	l := openLog(t, m, config)
	for i := range 40 {
		mustAppend(t, l, batchOf(t, record.DefaultOptions(), now.ms+int64(i), strings.Repeat("x", 50)))
	}
	now.ms += 10_020
	m.RunRetention()
	if l.StartOffset() != 0 {
		t.Fatal("records above the high watermark were deleted")
	}
	l.SetHighWatermark(40)
	held, err := l.Read(0, 100, 40, true)
	if err != nil {
		t.Fatal(err)
	}
	m.RunRetention()
	start := l.StartOffset()
	if start == 0 || start > 21 {
		t.Fatalf("start %d", start)
	}
	if data, err := held.ReadAll(); err != nil || len(data) == 0 {
		t.Fatalf("a slice in use became unreadable: %v", err)
	}
	_ = held.Close()
	compacted := config
	compacted.Compact, compacted.Delete = true, false
	compacted.RetentionBytes = 0
	l.SetConfig(compacted)
	now.ms += 1_000_000
	m.RunRetention()
	if l.StartOffset() != start {
		t.Fatal("retention deleted from a compacted topic")
	}
	bySize := config
	bySize.RetentionMs, bySize.RetentionBytes = -1, 1200
	l.SetConfig(bySize)
	m.RunRetention()
	if size := l.Size(); size < 1200 || size > 1700 {
		t.Fatalf("size %d", size)
	}
	l.SetConfig(config)
	m.RunRetention() // all of it is old: the active segment rolls
	if l.StartOffset() != 40 || l.EndOffset() != 40 || l.Size() != 0 {
		t.Fatalf("start %d end %d size %d", l.StartOffset(), l.EndOffset(), l.Size())
	}
	mustAppend(t, l, batchOf(t, record.DefaultOptions(), now.ms, "after"))
	if err := m.Close(false); err != nil {
		t.Fatal(err)
	}
	m = open()
	l = openLog(t, m, config)
	if l.StartOffset() != 40 || l.EndOffset() != 41 {
		t.Fatalf("after a crash: start %d end %d", l.StartOffset(), l.EndOffset())
	}
}

func TestAdvanceStartSurvives(t *testing.T) {
	mem := vfs.NewMem()
	m := openManager(t, testConfig(mem, testDir))
	l := openLog(t, m, DefaultLogConfig())
	for range 10 {
		mustAppend(t, l, batchOf(t, record.DefaultOptions(), 1, "v"))
	}
	if err := l.AdvanceStart(6); err != nil {
		t.Fatal(err)
	}
	wantCode(t, l.AdvanceStart(11), kerr.OffsetOutOfRange)
	_, err := l.Read(5, 100, 10, true)
	wantCode(t, err, kerr.OffsetOutOfRange)
	if err := m.Close(true); err != nil {
		t.Fatal(err)
	}
	m = openManager(t, testConfig(mem, testDir))
	if l := m.Get(testPartition); l.StartOffset() != 6 || l.EndOffset() != 10 {
		t.Fatalf("start %d end %d", l.StartOffset(), l.EndOffset())
	}
}

func TestDeleteAndRecreate(t *testing.T) {
	dir := t.TempDir()
	m := openManager(t, testConfig(vfs.OS(), dir))
	l := openLog(t, m, DefaultLogConfig())
	mustAppend(t, l, batchOf(t, record.DefaultOptions(), 1, "v"))
	slice, err := l.Read(0, 100, 1, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Delete(testPartition); err != nil {
		t.Fatal(err)
	}
	if data, err := slice.ReadAll(); err != nil || len(data) == 0 {
		t.Fatalf("slice of a deleted log: %v", err)
	}
	_ = slice.Close()
	_, err = l.AppendLeader(batchOf(t, record.DefaultOptions(), 1, "v"), AppendOptions{})
	wantCode(t, err, kerr.KafkaStorageError)
	_, err = l.Read(0, 100, 1, true)
	wantCode(t, err, kerr.KafkaStorageError)
	marked, _ := filepath.Glob(filepath.Join(dir, "songs-0.*-delete"))
	if len(marked) != 1 {
		t.Fatalf("marked directories %v", marked)
	}
	again, err := m.GetOrCreate(testPartition, cluster.TopicID{9}, DefaultLogConfig(), true)
	if err != nil || again == l || again.EndOffset() != 0 || again.TopicID() != (cluster.TopicID{9}) {
		t.Fatalf("%+v %v", again, err)
	}
	_, err = m.GetOrCreate(testPartition, cluster.TopicID{8}, DefaultLogConfig(), false)
	wantCode(t, err, kerr.InconsistentTopicID)
	if err := m.Close(true); err != nil {
		t.Fatal(err)
	}
	m = openManager(t, testConfig(vfs.OS(), dir))
	if id := m.Get(testPartition).TopicID(); id != (cluster.TopicID{9}) {
		t.Fatalf("topic id %s", id)
	}
}

// A log that is made under the name of one that was deleted does not inherit its checkpoints,
// also if the process is killed before they are written the next time.
func TestARecreatedLogDoesNotInheritCheckpoints(t *testing.T) {
	mem := vfs.NewMem()
	m := openManager(t, testConfig(mem, testDir))
	l := openLog(t, m, DefaultLogConfig())
	for range 10 {
		mustAppend(t, l, batchOf(t, record.DefaultOptions(), 1, "v"))
	}
	l.SetHighWatermark(10)
	for _, do := range []func() error{func() error { return l.AdvanceStart(8) }, l.Flush, m.writeAllCheckpoints} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Delete(testPartition); err != nil {
		t.Fatal(err)
	}
	restarted := mem.Clone()
	for _, files := range []*vfs.Mem{mem, restarted} {
		name := "by the same process"
		if files == restarted {
			name = "by the next process"
			m = openManager(t, testConfig(files, testDir))
		}
		l, err := m.GetOrCreate(testPartition, cluster.TopicID{9}, DefaultLogConfig(), true)
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, l, batchOf(t, record.DefaultOptions(), 1, "new"))
		killed := openManager(t, testConfig(files.Clone(), testDir))
		again := killed.Get(testPartition)
		if again.StartOffset() != 0 || again.EndOffset() != 1 || again.HighWatermark() != 0 || again.SyncedOffset() != 0 {
			t.Errorf("created %s: start %d, end %d, high watermark %d, synced %d", name, again.StartOffset(), again.EndOffset(), again.HighWatermark(), again.SyncedOffset())
		}
	}
}

// An append takes no memory of its own.
func TestAppendAllocations(t *testing.T) {
	m := openManager(t, testConfig(vfs.OS(), t.TempDir()))
	l := openLog(t, m, DefaultLogConfig())
	template := batchOf(t, record.DefaultOptions(), 1, strings.Repeat("x", 1000))
	data := bytes.Clone(template)
	allocations := testing.AllocsPerRun(2000, func() {
		copy(data, template)
		if _, err := l.AppendLeader(data, AppendOptions{}); err != nil {
			t.Fatal(err)
		}
	})
	if allocations > 1 {
		t.Fatalf("%v allocations per append", allocations)
	}
}
