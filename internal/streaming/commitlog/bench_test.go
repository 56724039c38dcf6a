package commitlog

import (
	"bytes"
	"testing"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/record"
)

func benchLog(b *testing.B) *Log {
	m := openManager(b, testConfig(nil, b.TempDir()))
	config := DefaultLogConfig()
	config.SegmentBytes = 256 << 20
	config.RetentionBytes = 512 << 20 // keeps long runs within the disk
	config.FileDeleteDelayMs = 0
	return openLog(b, m, config)
}

func benchBatch(b *testing.B, records, size int) record.Batch {
	builder := record.NewBuilder(record.DefaultOptions())
	for range records {
		builder.Append(1, nil, make([]byte, size))
	}
	batch, err := builder.Build()
	if err != nil {
		b.Fatal(err)
	}
	return batch
}

func benchAppend(b *testing.B, records, size int) {
	l := benchLog(b)
	template := benchBatch(b, records, size)
	data := bytes.Clone(template)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		copy(data, template)
		if _, err := l.AppendLeader(data, AppendOptions{LeaderEpoch: 1}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendOne1KiB(b *testing.B)  { benchAppend(b, 1, 1024) }
func BenchmarkAppendOne100B(b *testing.B)  { benchAppend(b, 1, 100) }
func BenchmarkAppend16x1KiB(b *testing.B)  { benchAppend(b, 16, 1024) }
func BenchmarkAppend160x100B(b *testing.B) { benchAppend(b, 160, 100) }

func benchRead(b *testing.B, maxBytes int) {
	l := benchLog(b)
	template := benchBatch(b, 16, 1024)
	data := bytes.Clone(template)
	for range 2000 {
		copy(data, template)
		if _, err := l.AppendLeader(data, AppendOptions{LeaderEpoch: 1}); err != nil {
			b.Fatal(err)
		}
	}
	end := l.EndOffset()
	buffer := make([]byte, 0, maxBytes)
	b.SetBytes(int64(maxBytes))
	b.ReportAllocs()
	at := cluster.Offset(0)
	for b.Loop() {
		slice, err := l.Read(at, maxBytes, end, true)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := slice.AppendTo(buffer); err != nil {
			b.Fatal(err)
		}
		if at = slice.NextOffset(); at >= end {
			at = 0
		}
		_ = slice.Close()
	}
}

func BenchmarkRead20KiB(b *testing.B) { benchRead(b, 20<<10) }
func BenchmarkRead1MiB(b *testing.B)  { benchRead(b, 1<<20) }
