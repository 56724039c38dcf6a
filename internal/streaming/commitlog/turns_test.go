package commitlog

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/record"
	"understudy/internal/vfs"
)

// Logs go at once while what they cover is little; then all wait for those under way, and each
// turn is for half of them, in the order in which they came.
func TestTurns(t *testing.T) {
	const kib = 1 << 10
	sizes := []int64{10 * kib, 22 * kib, 1, 1, 40 * kib, 1, 1, 1, 1}
	synctest.Test(t, func(t *testing.T) {
		var turns syncTurns
		begun := make(chan int, len(sizes))
		done := make([]chan struct{}, len(sizes))
		for i, size := range sizes {
			done[i] = make(chan struct{})
			go func() {
				turn := turns.begin(size)
				begun <- i
				<-done[i]
				turns.end(turn)
			}()
			synctest.Wait()
		}
		for _, step := range []struct {
			done int // -1: none yet
			want string
		}{
			{-1, "0 1"},
			{0, ""},
			{1, "2 3 4 5"}, // of seven
			{5, ""},
			{2, ""},
			{3, ""},
			{4, "6 7"}, // of three
			{7, ""},
			{6, "8"},
			{8, ""},
		} {
			if step.done >= 0 {
				close(done[step.done])
				synctest.Wait()
			}
			now := map[int]bool{}
			for len(begun) > 0 {
				now[<-begun] = true
			}
			var got []string
			for i := range done {
				if now[i] {
					got = append(got, fmt.Sprint(i))
				}
			}
			if got := strings.Join(got, " "); got != step.want {
				t.Fatalf("after log %d: %q begin, want %q", step.done, got, step.want)
			}
		}
		if turns.mu.running != 0 || turns.mu.bytes != 0 || len(turns.mu.waiting) != 0 {
			t.Errorf("left: %d logs under way with %d bytes, %d waiting", turns.mu.running, turns.mu.bytes, len(turns.mu.waiting))
		}
	})
}

// What is appended while a log waits for its turn is covered by its fsync; and if an fsync
// before it has failed, it makes none.
func TestSyncInTurn(t *testing.T) {
	for _, failing := range []bool{false, true} {
		t.Run(fmt.Sprint("failing ", failing), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { syncInTurn(t, failing) })
		})
	}
}

func syncInTurn(t *testing.T, failing bool) {
	var synced sync.Map
	disk := make(chan error)
	fsys := vfs.WithFaults(vfs.NewMem(), func(op vfs.Operation, path string) error {
		if op != vfs.OpSync || !strings.HasSuffix(path, logSuffix) {
			return nil
		}
		synced.Store(path, true)
		return <-disk
	})
	config := testConfig(fsys, testDir)
	config.Stepped = true
	m := openManager(t, config)
	outcomes := make([]error, 2)
	logs := make([]*Log, len(outcomes))
	for i := range logs {
		l, err := m.GetOrCreate(cluster.TopicPartition{Topic: "turns", Partition: int32(i)}, cluster.TopicID{1}, DefaultLogConfig(), true)
		if err != nil {
			t.Fatal(err)
		}
		logs[i] = l
		end := mustAppend(t, l, batchOf(t, record.DefaultOptions(), 1, strings.Repeat("before", sideBySide/6))).Last + 1
		go func() { outcomes[i] = l.SyncInTurn(end) }()
		synctest.Wait()
	}
	last := logs[1]
	mustAppend(t, last, batchOf(t, record.DefaultOptions(), 1, "while it waits"))
	if _, began := synced.Load(last.filePath(offsetName(0, logSuffix))); began {
		t.Fatal("large fsyncs side by side")
	}
	if failing {
		disk <- errors.New("on script")
		synctest.Wait()
	}
	close(disk)
	synctest.Wait()
	_, began := synced.Load(last.filePath(offsetName(0, logSuffix)))
	if began == failing {
		t.Errorf("fsync of the log that waited: %v", began)
	}
	switch end := last.SyncedOffset(); {
	case failing && (!errors.Is(outcomes[1], kerr.KafkaStorageError) || end != 0):
		t.Errorf("synced to %d after a failed fsync, %v", end, outcomes[1])
	case !failing && (errors.Join(outcomes...) != nil || end != 2):
		t.Errorf("synced to %d, %v", end, outcomes)
	}
}
