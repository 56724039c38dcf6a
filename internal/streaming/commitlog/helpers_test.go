package commitlog

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/record"
	"understudy/internal/vfs"
)

const (
	testClusterID = "Zx1o3hRjS9y0vXQ0vV5x5A"
	testDir       = "/data"
)

var testPartition = cluster.TopicPartition{Topic: "songs", Partition: 0}

// clock is a settable time.
type clock struct{ ms int64 }

func (c *clock) now() time.Time { return time.UnixMilli(c.ms) }

func testConfig(fsys vfs.FS, dir string) Config {
	return Config{Dirs: []string{dir}, FS: fsys, ClusterID: testClusterID, BrokerID: 1}
}

func openManager(t testing.TB, config Config) *Manager {
	t.Helper()
	m, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close(false) })
	return m
}

func openLog(t testing.TB, m *Manager, config LogConfig) *Log {
	t.Helper()
	l, err := m.GetOrCreate(testPartition, cluster.TopicID{1, 2, 3}, config, true)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// batchOf builds a produced batch with one record for each value.
func batchOf(t testing.TB, options record.BuilderOptions, timestamp int64, values ...string) record.Batch {
	t.Helper()
	builder := record.NewBuilder(options)
	for i, value := range values {
		builder.Append(timestamp+int64(i), []byte("k"), []byte(value))
	}
	batch, err := builder.Build()
	if err != nil {
		t.Fatal(err)
	}
	return batch
}

func idempotent(producerID int64, epoch int16, sequence int32) record.BuilderOptions {
	options := record.DefaultOptions()
	options.ProducerID, options.ProducerEpoch, options.BaseSequence = producerID, epoch, sequence
	return options
}

func mustAppend(t testing.TB, l *Log, batch record.Batch) AppendInfo {
	t.Helper()
	info, err := l.AppendLeader(bytes.Clone(batch), AppendOptions{LeaderEpoch: 1, NowMs: 1})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// readValues reads all records through Read, in pieces of at most maxBytes.
func readValues(t testing.TB, l *Log, from, upTo cluster.Offset, maxBytes int) []string {
	t.Helper()
	var values []string
	for at := from; at < upTo; {
		slice, err := l.Read(at, maxBytes, upTo, true)
		if err != nil {
			t.Fatalf("read at %d: %v", at, err)
		}
		data, err := slice.ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		next := slice.NextOffset()
		_ = slice.Close()
		if len(data) == 0 {
			break
		}
		last := cluster.Offset(-1)
		for batch, err := range record.All(data) {
			if err == nil {
				err = batch.Check()
			}
			if err != nil {
				t.Fatal(err)
			}
			for r, err := range batch.Records(1 << 20) {
				if err != nil {
					t.Fatal(err)
				}
				if r.Offset >= at {
					values = append(values, fmt.Sprintf("%d=%s", r.Offset, r.Value))
				}
			}
			last = batch.LastOffset()
		}
		if last+1 > next {
			t.Fatalf("slice says it ends at %d and holds offset %d", next, last)
		}
		if next <= at {
			t.Fatalf("slice at %d goes on at %d", at, next)
		}
		at = next
	}
	return values
}

func wantCode(t testing.TB, err, code error) {
	t.Helper()
	if !errors.Is(err, code) {
		t.Fatalf("error %v, want %v", err, code)
	}
}
