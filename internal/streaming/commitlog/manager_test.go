package commitlog

import (
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/record"
	"understudy/internal/vfs"

	"github.com/twmb/franz-go/pkg/kerr"
)

// A directory that is not ours to use is refused by name.
func TestRefusedDirectories(t *testing.T) {
	cases := map[string]struct {
		prepare func(dir string) error
		want    string
	}{
		"another cluster's": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, metaPropertiesName), []byte("#\n#Thu Jan 01\nversion=0\nbroker.id=1\ncluster.id=other\n"), 0o644)
		}, "belongs to cluster other"},
		"another broker's": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, metaPropertiesName), []byte("version=0\nbroker.id=4\ncluster.id="+testClusterID+"\n"), 0o644)
		}, "belongs to broker 4"},
		"a KRaft broker's": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, metaPropertiesName), []byte("version=1\nnode.id=1\ncluster.id="+testClusterID+"\n"), 0o644)
		}, `format version is "1"`},
		"a future format's": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, metaPropertiesName), []byte("version=7\n"), 0o644)
		}, `format version is "7"`},
		"somebody's photographs": {func(dir string) error {
			return os.Mkdir(filepath.Join(dir, "holidays"), 0o755)
		}, `"holidays"`},
		"a file's": {func(dir string) error {
			return errors.Join(os.Remove(dir), os.WriteFile(dir, nil, 0o644))
		}, "file of that name"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "logs")
			if err := errors.Join(os.Mkdir(dir, 0o755), c.prepare(dir)); err != nil {
				t.Fatal(err)
			}
			_, err := Open(testConfig(nil, dir))
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
				t.Fatalf("error %v does not say %q", err, c.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Fatalf("error has more than a line: %v", err)
			}
		})
	}
	dir := t.TempDir()
	m := openManager(t, testConfig(nil, dir))
	if _, err := Open(testConfig(nil, dir)); err == nil || !strings.Contains(err.Error(), "in use by another broker") {
		t.Fatalf("second broker: %v", err)
	}
	if err := m.Close(true); err != nil {
		t.Fatal(err)
	}
	openManager(t, testConfig(nil, dir))
}

func TestIdentity(t *testing.T) {
	mem := vfs.NewMem()
	config := testConfig(mem, testDir)
	config.ClusterID, config.BrokerID = "", cluster.NoBroker
	m := openManager(t, config)
	if m.ClusterID() != "" || m.BrokerID() != cluster.NoBroker {
		t.Fatalf("%q %d", m.ClusterID(), m.BrokerID())
	}
	if err := m.BindCluster(testClusterID, 8); err != nil {
		t.Fatal(err)
	}
	_ = m.Close(true)
	m = openManager(t, config)
	if m.ClusterID() != testClusterID || m.BrokerID() != 8 {
		t.Fatalf("%q %d", m.ClusterID(), m.BrokerID())
	}
	if err := m.BindCluster("another", 8); err == nil {
		t.Fatal("bound to another cluster")
	}
	if err := m.BindCluster(testClusterID, 8); err != nil {
		t.Fatal(err)
	}
}

func TestHighWatermarkSurvives(t *testing.T) {
	mem := vfs.NewMem()
	m := openManager(t, testConfig(mem, testDir))
	l := openLog(t, m, DefaultLogConfig())
	for range 5 {
		mustAppend(t, l, batchOf(t, record.DefaultOptions(), 1, "v"))
	}
	l.SetHighWatermark(3)
	if err := m.CheckpointHighWatermarks(func(yield func(cluster.TopicPartition, cluster.Offset)) { yield(testPartition, 4) }); err != nil {
		t.Fatal(err)
	}
	_ = m.Close(false)
	m = openManager(t, testConfig(mem, testDir))
	if got := m.CheckpointedHighWatermark(testPartition); got != 4 || m.Get(testPartition).HighWatermark() != 4 {
		t.Fatalf("checkpointed %d, log %d", got, m.Get(testPartition).HighWatermark())
	}
}

// Several directories share the partitions; a failed one takes only its own along.
func TestDirectories(t *testing.T) {
	boom := errors.New("boom")
	var failing atomic.Bool
	fsys := vfs.WithFaults(vfs.NewMem(), func(op vfs.Operation, path string) error {
		if failing.Load() && op == vfs.OpWrite && strings.HasPrefix(path, "/a/") {
			return boom
		}
		return nil
	})
	config := testConfig(fsys, "/a")
	config.Dirs = []string{"/a", "/b"}
	m := openManager(t, config)
	perDir := map[string]int{}
	logs := map[string]*Log{}
	for partition := range int32(6) {
		l, err := m.GetOrCreate(cluster.TopicPartition{Topic: "t", Partition: partition}, cluster.TopicID{}, DefaultLogConfig(), true)
		if err != nil {
			t.Fatal(err)
		}
		perDir[l.Dir()]++
		logs[l.Dir()] = l
	}
	if perDir["/a"] != 3 || perDir["/b"] != 3 || len(m.All()) != 6 {
		t.Fatalf("%v", perDir)
	}
	failing.Store(true)
	_, err := logs["/a"].AppendLeader(batchOf(t, record.DefaultOptions(), 1, "v"), AppendOptions{})
	wantCode(t, err, kerr.KafkaStorageError)
	mustAppend(t, logs["/b"], batchOf(t, record.DefaultOptions(), 1, "v"))
	failing.Store(false)
	_, err = logs["/a"].Read(0, 1, 0, true)
	wantCode(t, err, kerr.KafkaStorageError)
	lost := cluster.TopicPartition{Topic: "maybe-there", Partition: 0}
	_, err = m.GetOrCreate(lost, cluster.TopicID{}, DefaultLogConfig(), false)
	wantCode(t, err, kerr.KafkaStorageError)
	if l, err := m.GetOrCreate(lost, cluster.TopicID{}, DefaultLogConfig(), true); err != nil || l.Dir() != "/b" {
		t.Fatalf("%v", err)
	}
	_, err = m.GetOrCreate(cluster.TopicPartition{Topic: "../up", Partition: 0}, cluster.TopicID{}, DefaultLogConfig(), true)
	wantCode(t, err, kerr.InvalidTopicException)
}

// Readers, writers, flushes, syncs, truncations and retention at once, with few open files.
// It is the race detector's business.
func TestConcurrency(t *testing.T) {
	config := testConfig(nil, t.TempDir())
	config.OpenFilesMax = 4
	config.FlushBytes = 20_000
	m := openManager(t, config)
	logConfig := DefaultLogConfig()
	logConfig.SegmentBytes = 10_000
	logConfig.IndexIntervalBytes = 300
	logConfig.RetentionBytes = 50_000
	logConfig.RetentionMs = -1
	logConfig.FileDeleteDelayMs = 0
	l := openLog(t, m, logConfig)
	const appends = 1500
	var work sync.WaitGroup
	done := make(chan struct{})
	work.Go(func() {
		defer close(done)
		for i := range appends {
			info := mustAppend(t, l, batchOf(t, record.DefaultOptions(), int64(i), strings.Repeat("x", 100)))
			l.SetHighWatermark(info.Last + 1)
			if i%500 == 499 {
				m.RunRetention()
				if err := l.TruncateTo(l.EndOffset() - 3); err != nil {
					t.Error(err)
				}
			}
		}
	})
	running := func() bool {
		select {
		case <-done:
			return false
		default:
			return true
		}
	}
	for range 3 {
		work.Go(func() {
			for at := cluster.Offset(0); running(); {
				slice, err := l.Read(at, 2000, l.HighWatermark(), true)
				if errors.Is(err, kerr.OffsetOutOfRange) {
					at = l.StartOffset()
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = slice.ReadAll() // may be cut short by a truncation
				at = slice.NextOffset()
				_ = slice.Close()
			}
		})
	}
	work.Go(func() {
		for running() {
			_ = l.SyncTo(l.EndOffset()) // may have been truncated meanwhile
			if _, _, err := l.OffsetForTimestamp(700); err != nil {
				t.Error(err)
				return
			}
			_, _ = l.EndOffsetForEpoch(1)
			_ = l.Producers()
		}
	})
	work.Wait()
	m.files.mu.Lock()
	open := m.files.mu.open
	m.files.mu.Unlock()
	if open > config.OpenFilesMax {
		t.Fatalf("%d files open", open)
	}
}

// Those who wait for an fsync share it.
func TestSyncsAreShared(t *testing.T) {
	var syncs atomic.Int32
	var logFile sync.Mutex // held: syncs of the log wait
	fsys := vfs.WithFaults(vfs.NewMem(), func(op vfs.Operation, path string) error {
		if op == vfs.OpSync && strings.HasSuffix(path, logSuffix) {
			syncs.Add(1)
			logFile.Lock()
			defer logFile.Unlock()
		}
		return nil
	})
	m := openManager(t, testConfig(fsys, testDir))
	l := openLog(t, m, DefaultLogConfig())
	logFile.Lock()
	var waiting sync.WaitGroup
	for range 20 {
		info := mustAppend(t, l, batchOf(t, record.DefaultOptions(), 1, "v"))
		waiting.Go(func() {
			if err := l.SyncTo(info.Last + 1); err != nil {
				t.Error(err)
			}
		})
	}
	logFile.Unlock()
	waiting.Wait()
	if n := syncs.Load(); l.SyncedOffset() != 20 || n > 20 {
		t.Fatalf("synced to %d with %d fsyncs", l.SyncedOffset(), n)
	}
	before := syncs.Load()
	if err := l.SyncTo(20); err != nil || syncs.Load() != before {
		t.Fatalf("an fsync for nothing: %v", err)
	}
	if err := l.SyncTo(21); err == nil {
		t.Fatal("synced what is not there")
	}
}

func TestSendTo(t *testing.T) {
	m := openManager(t, testConfig(nil, t.TempDir()))
	l := openLog(t, m, DefaultLogConfig())
	for i := range 30 {
		mustAppend(t, l, batchOf(t, record.DefaultOptions(), 1, strings.Repeat(fmt.Sprint(i), 10_000)))
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for _, maxBytes := range []int{15_000, 1 << 20} { // through a buffer, and by sendfile
		slice, err := l.Read(0, maxBytes, 30, true)
		if err != nil {
			t.Fatal(err)
		}
		want, err := slice.ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		for name, dial := range map[string]func() (net.Conn, net.Conn){
			"tcp": func() (net.Conn, net.Conn) {
				client, err := net.Dial("tcp", listener.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				server, err := listener.Accept()
				if err != nil {
					t.Fatal(err)
				}
				return client, server
			},
			"pipe": net.Pipe,
		} {
			client, server := dial()
			received := make(chan []byte, 1)
			go func() {
				data, _ := io.ReadAll(client)
				received <- data
			}()
			n, err := slice.SendTo(server)
			if err != nil || n != int64(slice.Size()) {
				t.Fatalf("%s: sent %d of %d: %v", name, n, slice.Size(), err)
			}
			_ = server.Close()
			if got := <-received; string(got) != string(want) {
				t.Fatalf("%s: %d bytes came for %d", name, len(got), len(want))
			}
			_ = client.Close()
		}
		_ = slice.Close()
	}
	// A truncation under a slice in use ends in an error, not in other bytes.
	slice, err := l.Read(0, 1<<20, 30, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.TruncateTo(10); err != nil {
		t.Fatal(err)
	}
	client, server := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, client) }()
	if _, err := slice.SendTo(server); err == nil {
		t.Fatal("a cut file was sent in full")
	}
	_ = slice.Close()
}

// A retry of any of the last five batches is recognised after every kind of restart, also
// behind a snapshot of Apache's that knows only one batch.
func TestWindowSurvives(t *testing.T) {
	for name, restart := range map[string]func(mem *vfs.Mem, m *Manager, l *Log) *vfs.Mem{
		"clean": func(mem *vfs.Mem, m *Manager, l *Log) *vfs.Mem { _ = m.Close(true); return mem },
		"kill":  func(mem *vfs.Mem, m *Manager, l *Log) *vfs.Mem { return mem.Clone() },
		"flushed and killed": func(mem *vfs.Mem, m *Manager, l *Log) *vfs.Mem {
			_ = l.Flush()
			return mem.Crash(nil)
		},
		"truncation": func(mem *vfs.Mem, m *Manager, l *Log) *vfs.Mem {
			_ = l.Flush()
			_ = l.TruncateTo(l.EndOffset() - 1)
			return mem.Clone()
		},
		"clean, by Apache": func(mem *vfs.Mem, m *Manager, l *Log) *vfs.Mem {
			_ = m.Close(true)
			// What its snapshot would hold: one batch for each producer.
			for _, p := range l.writer.producers.producers {
				p.window[0] = p.window[p.length-1]
				p.length = 1
			}
			path := l.filePath(offsetName(l.EndOffset(), snapshotSuffix))
			if err := writeFile(mem, path, l.writer.producers.encode(), true); err != nil {
				t.Fatal(err)
			}
			return mem
		},
	} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewMem()
			m := openManager(t, testConfig(mem, testDir))
			config := DefaultLogConfig()
			config.SegmentBytes = 2000
			l := openLog(t, m, config)
			for i := range int32(40) {
				mustAppend(t, l, batchOf(t, idempotent(1, 3, i), 1, "mine"))
				mustAppend(t, l, batchOf(t, idempotent(2, 0, 2*i), 1, "hers", "too"))
				mustAppend(t, l, batchOf(t, record.DefaultOptions(), 1, "nobody's"))
			}
			mem = restart(mem, m, l)
			m = openManager(t, testConfig(mem, testDir))
			l = openLog(t, m, config)
			for i := int32(35); i < 40; i++ {
				info := mustAppend(t, l, batchOf(t, idempotent(1, 3, i), 1, "mine"))
				if !info.Duplicate || info.First != cluster.Offset(4*i) {
					t.Fatalf("retry of %d: %+v", i, info)
				}
				info = mustAppend(t, l, batchOf(t, idempotent(2, 0, 2*i), 1, "hers", "too"))
				if !info.Duplicate || info.First != cluster.Offset(4*i+1) || info.Last != cluster.Offset(4*i+2) {
					t.Fatalf("retry of %d: %+v", i, info)
				}
			}
		})
	}
}

// An idle partition costs a few KiB, no goroutine and no open file.
func TestIdlePartitionsAreCheap(t *testing.T) {
	const partitions = 200
	dir := t.TempDir()
	config := testConfig(nil, dir)
	m := openManager(t, config)
	for partition := range int32(partitions) {
		l, err := m.GetOrCreate(cluster.TopicPartition{Topic: "idle", Partition: partition}, cluster.TopicID{1}, DefaultLogConfig(), true)
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, l, batchOf(t, idempotent(1, 0, 0), 1, "v"))
	}
	if err := m.Close(true); err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before, goroutines := heap(), runtime.NumGoroutine()
	m = openManager(t, config)
	if grown := runtime.NumGoroutine() - goroutines; grown > 4 {
		t.Errorf("%d goroutines more", grown)
	}
	perPartition := int64(heap()-before) / partitions
	t.Logf("%d bytes per idle partition", perPartition)
	if perPartition > 6<<10 {
		t.Errorf("%d bytes per idle partition", perPartition)
	}
	runtime.KeepAlive(m)
}

// What a restart can tell of a log that has lost its tail.
func TestLostTail(t *testing.T) {
	mem := vfs.NewMem()
	m := openManager(t, testConfig(mem, testDir))
	if !m.UncleanStop() {
		t.Error("an empty disk is not what a clean stop leaves")
	}
	l := openLog(t, m, DefaultLogConfig())
	for range 3 {
		mustAppend(t, l, batchOf(t, record.DefaultOptions(), 1, "v"))
	}
	l.SetHighWatermark(3)
	if epoch, end := l.LastEpoch(); epoch != 1 || end != 3 || l.LostTail() {
		t.Fatalf("last epoch %d, end %d, lost %v", epoch, end, l.LostTail())
	}
	if err := m.Close(true); err != nil {
		t.Fatal(err)
	}

	m = openManager(t, testConfig(mem, testDir))
	if m.UncleanStop() || m.Get(testPartition).LostTail() {
		t.Error("a clean stop is taken for an unclean one")
	}
	if err := m.Close(false); err != nil {
		t.Fatal(err)
	}

	path := filepath.Join(testDir, testPartition.String(), offsetName(0, logSuffix))
	cut := func(size int64) {
		file, err := mem.OpenFile(path)
		if err == nil {
			err = errors.Join(file.Truncate(size), file.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	whole, err := mem.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	cut(whole.Size() - 1)
	m = openManager(t, testConfig(mem, testDir))
	l = m.Get(testPartition)
	if !m.UncleanStop() || !l.LostTail() || l.EndOffset() != 2 {
		t.Fatalf("unclean %v, lost %v, end %d", m.UncleanStop(), l.LostTail(), l.EndOffset())
	}
	if err := l.AssignEpoch(2, 2); err != nil || l.LostTail() {
		t.Errorf("a leader's log lacks nothing: %v", err)
	}
	other, err := m.GetOrCreate(cluster.TopicPartition{Topic: "other"}, cluster.TopicID{2}, DefaultLogConfig(), false)
	if err != nil || !other.LostTail() {
		t.Errorf("an empty log of a partition that is not new: %v", err)
	}
}

// The name of partition.metadata may be lost with the power, but not if records of the topic stay.
func TestTopicIDIsDurableWithTheRecords(t *testing.T) {
	mem := vfs.NewMem()
	config := testConfig(mem, testDir)
	config.Stepped = true
	m := openManager(t, config)
	l := openLog(t, m, DefaultLogConfig())
	sync := func(values ...string) {
		if err := l.SyncTo(mustAppend(t, l, batchOf(t, record.DefaultOptions(), 1, values...)).Last + 1); err != nil {
			t.Fatal(err)
		}
	}
	sync("before partition.metadata is written")
	m.Background()
	sync("after")
	config.FS = mem.Crash(nil)
	reopened := openManager(t, config).Get(testPartition)
	if reopened.EndOffset() != 2 || reopened.TopicID() != (cluster.TopicID{1, 2, 3}) {
		t.Errorf("end %d, topic id %v", reopened.EndOffset(), reopened.TopicID())
	}
}

// A deleted log stays deleted when the power goes: it would stand in the way of the next topic
// of its name.
func TestDeletionsSurviveAPowerLoss(t *testing.T) {
	fsys := vfs.NewMem()
	m := openManager(t, testConfig(fsys, testDir))
	l := openLog(t, m, DefaultLogConfig())
	mustAppend(t, l, batchOf(t, record.DefaultOptions(), 1, "value"))
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.Delete(testPartition), m.SecureDeletions()); err != nil {
		t.Fatal(err)
	}
	for seed := range int64(10) {
		again := openManager(t, testConfig(fsys.Crash(rand.New(rand.NewSource(seed))), testDir))
		if l := again.Get(testPartition); l != nil {
			t.Fatalf("seed %d: the log is there again, with %d records", seed, l.EndOffset())
		}
	}
}
