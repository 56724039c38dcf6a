package znode

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	"understudy/internal/coordination/jute"
)

// filled makes a machine with a session (1, generation 1) and directories of a thousand nodes of 100 bytes each.
func filled(tb testing.TB, nodes int) (*Machine, []string) {
	tb.Helper()
	m := New()
	b := Batch{TimeMs: 1_760_000_000_000}
	b.Requests = []Request{{Kind: KindCreateSession, Session: 1, TimeoutMs: 4000}}
	m.Apply(1, &b, nil)
	data := bytes.Repeat([]byte("d"), 100)
	paths := make([]string, 0, nodes)
	apply := func(path string, data []byte) {
		body := (&jute.CreateRequest{Path: path, Data: data, ACL: jute.OpenACL}).Append(nil)
		b.Requests = []Request{{Kind: KindOp, Session: 1, Generation: 1, Op: jute.OpCreate, Body: body}}
		b.TimeMs++
		m.Apply(1, &b, func(_ int, r *Result) {
			if r.Code != jute.OK {
				tb.Fatal(path, r.Code)
			}
		})
	}
	for i := range nodes {
		if i%1000 == 0 {
			apply(fmt.Sprintf("/dir%04d", i/1000), nil)
		}
		path := fmt.Sprintf("/dir%04d/n%08d", i/1000, i)
		apply(path, data)
		paths = append(paths, path)
	}
	return m, paths
}

const benchNodes = 200_000

func BenchmarkGetData(b *testing.B) {
	m, paths := filled(b, benchNodes)
	bodies := make([][]byte, len(paths))
	for i, path := range paths {
		bodies[i] = (&jute.PathWatchRequest{Path: path}).Append(nil)
	}
	var buf []byte
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		var code jute.Code
		if buf, code, _ = m.AppendRead(buf[:0], jute.OpGetData, bodies[i*7919%len(bodies)], nil, 1); code != jute.OK {
			b.Fatal(code)
		}
	}
}

func benchmarkWrites(b *testing.B, m *Machine, requests func(i int) Request) {
	b.ReportAllocs()
	entry := Batch{TimeMs: 1_760_000_000_000}
	var encoded []byte
	var decoded Batch
	i := 0
	for b.Loop() {
		entry.Requests = append(entry.Requests[:0], requests(i))
		encoded = entry.Append(encoded[:0])
		if err := decoded.Decode(encoded); err != nil {
			b.Fatal(err)
		}
		m.Apply(1, &decoded, func(_ int, r *Result) {
			if r.Code != jute.OK {
				b.Fatal(r.Code)
			}
		})
		i++
	}
}

// BenchmarkSetData includes encoding and decoding the entry, one request each.
func BenchmarkSetData(b *testing.B) {
	m, paths := filled(b, benchNodes)
	bodies := make([][]byte, len(paths))
	for i, path := range paths {
		bodies[i] = (&jute.SetDataRequest{Path: path, Data: bytes.Repeat([]byte("e"), 100), Version: -1}).Append(nil)
	}
	benchmarkWrites(b, m, func(i int) Request {
		return Request{Kind: KindOp, Session: 1, Generation: 1, Op: jute.OpSetData, Body: bodies[i*7919%len(bodies)]}
	})
}

func BenchmarkCreate(b *testing.B) {
	m, _ := filled(b, 1000)
	data := bytes.Repeat([]byte("e"), 100)
	var body []byte
	benchmarkWrites(b, m, func(i int) Request {
		body = (&jute.CreateRequest{Path: fmt.Sprintf("/dir0000/m%08d", i), Data: data, ACL: jute.OpenACL}).Append(body[:0])
		return Request{Kind: KindOp, Session: 1, Generation: 1, Op: jute.OpCreate, Body: body}
	})
}

// BenchmarkMultiFenced is what Kafka's controller does most: check the epoch, set a partition's state.
func BenchmarkMultiFenced(b *testing.B) {
	m, paths := filled(b, benchNodes)
	var body []byte
	check, set := jute.MultiHeader{Type: jute.OpCheck, Err: -1}, jute.MultiHeader{Type: jute.OpSetData, Err: -1}
	data := bytes.Repeat([]byte("e"), 100)
	benchmarkWrites(b, m, func(i int) Request {
		body = (&jute.PathVersionRequest{Path: "/dir0000", Version: 0}).Append(check.Append(body[:0]))
		body = (&jute.SetDataRequest{Path: paths[i*7919%len(paths)], Data: data, Version: -1}).Append(set.Append(body))
		body = jute.MultiEnd.Append(body)
		return Request{Kind: KindOp, Session: 1, Generation: 1, Op: jute.OpMulti, Body: body}
	})
}

// BenchmarkMemory builds the tree that ZooKeeper takes 489 MB for: 1.13 million nodes of 100 bytes.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		m, paths := filled(b, 1_130_000)
		clear(paths)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "heapMB")
		b.ReportMetric(float64(m.MemoryBytes())/1e6, "recordMB")
		begin := time.Now()
		s := m.Freeze()
		b.ReportMetric(float64(time.Since(begin).Microseconds()), "freezeµs")
		begin = time.Now()
		n, _ := s.WriteTo(io.Discard)
		b.ReportMetric(float64(n)/1e6, "snapshotMB")
		b.ReportMetric(time.Since(begin).Seconds()*1000, "writeMs")
		var buf bytes.Buffer
		buf.Grow(int(n))
		_, _ = s.WriteTo(&buf)
		begin = time.Now()
		if _, err := Restore(&buf); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(begin).Seconds()*1000, "restoreMs")
		s.Close()
		runtime.KeepAlive(m)
	}
}
