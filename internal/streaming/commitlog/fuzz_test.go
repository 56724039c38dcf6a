package commitlog

import (
	"bytes"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/record"
	"understudy/internal/vfs"
)

func FuzzOffsetCheckpoint(f *testing.F) {
	f.Add([]byte("0\n2\nsongs 0 17\na.b-c_d 11 0\n"))
	f.Add([]byte("0\n0\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		offsets, err := decodeOffsets(data)
		if err != nil {
			return
		}
		again, err := decodeOffsets(encodeOffsets(offsets))
		if err != nil || !maps.Equal(again, offsets) {
			t.Fatalf("%v comes back as %v: %v", offsets, again, err)
		}
	})
}

func FuzzEpochCheckpoint(f *testing.F) {
	f.Add([]byte("0\n2\n1 0\n4 17\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := decodeEpochs(data)
		if err != nil {
			return
		}
		again, err := decodeEpochs(encodeEpochs(entries))
		if err != nil || !slices.Equal(again, entries) {
			t.Fatalf("%v comes back as %v: %v", entries, again, err)
		}
	})
}

func FuzzProducerSnapshot(f *testing.F) {
	table := producerTable{producers: map[int64]*producer{}}
	for i := range int32(8) {
		builder := record.NewBuilder(idempotent(int64(i%3), 1, i/3))
		builder.Append(5, nil, nil)
		batch, err := builder.Build()
		if err != nil {
			f.Fatal(err)
		}
		table.note(batch, nil, 0)
	}
	f.Add(table.encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		producers, err := decodeProducers(data, 0)
		if err != nil {
			return
		}
		table := producerTable{}
		table.adopt(producers)
		encoded := table.encode()
		again, err := decodeProducers(encoded, 0)
		if err != nil {
			t.Fatal(err)
		}
		second := producerTable{producers: again}
		if !bytes.Equal(second.encode(), encoded) {
			t.Fatal("a snapshot does not come back")
		}
	})
}

func FuzzTxnIndex(f *testing.F) {
	f.Add(abortedEntry{1, 2, 3, 4}.append(nil), int64(0))
	f.Fuzz(func(t *testing.T, data []byte, base int64) {
		entries, err := decodeTxnIndex(data, cluster.Offset(base))
		if err != nil {
			return
		}
		var encoded []byte
		for _, entry := range entries {
			encoded = entry.append(encoded)
		}
		if !bytes.Equal(encoded, data) {
			t.Fatal("an index does not come back")
		}
	})
}

func FuzzMetaProperties(f *testing.F) {
	f.Add(metaProperties{"Zx1o3hRjS9y0vXQ0vV5x5A", 7}.encode())
	f.Add([]byte("#\n#Sun Nov 22 17:27:15 UTC 2026\nversion=0\nbroker.id=1\ncluster.id=a\\:b\ndirectory.id=x\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = decodeMetaProperties(data)
		if id, err := decodePartitionMetadata(data); err == nil {
			if again, err := decodePartitionMetadata(encodePartitionMetadata(id)); err != nil || again != id {
				t.Fatalf("%s comes back as %s: %v", id, again, err)
			}
		}
	})
}

func FuzzNames(f *testing.F) {
	f.Add("songs-0")
	f.Add("a.b-0.0123456789abcdef0123456789abcdef-delete")
	f.Fuzz(func(t *testing.T, name string) {
		if tp, kind := parseDirName(name); kind == dirPartition {
			again, kind := parseDirName(tp.String())
			if kind != dirPartition || again != tp {
				t.Fatalf("%q is %v, whose name is %v", name, tp, again)
			}
			if _, kind := parseDirName(deleteDirName(tp)); kind != dirDelete || len(deleteDirName(tp)) > dirNameLengthMax {
				t.Fatalf("%q", deleteDirName(tp))
			}
		}
	})
}

// FuzzSegment opens a log whose segment and indexes hold anything at all.
func FuzzSegment(f *testing.F) {
	builder := record.NewBuilder(record.DefaultOptions())
	builder.Append(5, []byte("k"), []byte("v"))
	batch, err := builder.Build()
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(batch), []byte{0, 0, 0, 0, 0, 0, 0, 9}, bytes.Repeat([]byte{0}, 12), false)
	f.Add(append(bytes.Clone(batch), make([]byte, 100)...), []byte{}, []byte{}, true)
	f.Fuzz(func(t *testing.T, log, index, times []byte, clean bool) {
		mem := vfs.NewMem()
		m := openManager(t, testConfig(mem, testDir))
		l := openLog(t, m, DefaultLogConfig())
		_ = m.Close(clean)
		for suffix, data := range map[string][]byte{logSuffix: log, indexSuffix: index, timeIndexSuffix: times} {
			if err := writeFile(mem, l.filePath(offsetName(0, suffix)), data, true); err != nil {
				t.Fatal(err)
			}
		}
		m, err := Open(testConfig(mem, testDir))
		if err != nil {
			return // refused by name: messages of an old format
		}
		defer func() { _ = m.Close(true) }()
		l = m.Get(testPartition)
		for at := l.StartOffset(); at < l.EndOffset(); {
			slice, err := l.Read(at, 100, l.EndOffset(), true)
			if err != nil || slice.Size() == 0 {
				return
			}
			_, _ = slice.ReadAll()
			_ = slice.Close()
			if slice.NextOffset() <= at {
				t.Fatalf("read at %d goes on at %d", at, slice.NextOffset())
			}
			at = slice.NextOffset()
		}
		_, _, _ = l.OffsetForTimestamp(5)
	})
}

// FuzzDamage overwrites a stretch of a log's segments: what is served is what was written, in
// order, or it is refused.
func FuzzDamage(f *testing.F) {
	pristine, values := damageLog(f)
	paths, sizes := filesOf(f, pristine, logSuffix)
	f.Add(uint8(0), uint16(300), []byte{1}, true)
	f.Add(uint8(1), uint16(0), make([]byte, 512), true)
	f.Add(uint8(2), uint16(200), []byte("garbage"), false)
	f.Fuzz(func(t *testing.T, segment uint8, at uint16, data []byte, clean bool) {
		i := int(segment) % len(paths)
		from := int64(at) % sizes[i]
		data = data[:min(int64(len(data)), sizes[i]-from)]
		mem := pristine.Clone()
		file, err := mem.OpenFile(paths[i])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt(data, from); err != nil {
			t.Fatal(err)
		}
		if !clean {
			if err := mem.Remove(filepath.Join(testDir, cleanShutdownName)); err != nil {
				t.Fatal(err)
			}
		}
		m, err := Open(testConfig(mem, testDir))
		if err != nil {
			return // refused by name: messages of an old format
		}
		defer func() { _ = m.Close(false) }()
		got, _ := readAround(t, openLog(t, m, damageConfig()))
		rest := values
		for _, value := range got {
			found := slices.Index(rest, value)
			if found < 0 {
				t.Fatalf("served %s, which is not, or not there, in %v", value, values)
			}
			rest = rest[found+1:]
		}
	})
}

// FuzzIndexes puts anything in the place of indexes: they are not believed.
func FuzzIndexes(f *testing.F) {
	pristine, values := damageLog(f)
	paths, _ := filesOf(f, pristine, indexSuffix)
	times, _ := filesOf(f, pristine, timeIndexSuffix)
	f.Add(uint8(0), content(f, pristine, paths[0]), content(f, pristine, times[0]))
	f.Add(uint8(1), []byte{0, 0, 0, 1, 0, 0, 0, 50, 0, 0, 0, 3, 0, 0, 0, 90}, make([]byte, 24))
	f.Fuzz(func(t *testing.T, segment uint8, offsets, timestamps []byte) {
		mem := pristine.Clone()
		i := int(segment) % len(paths)
		for path, data := range map[string][]byte{paths[i]: offsets, times[i]: timestamps} {
			if err := writeFile(mem, path, data, true); err != nil {
				t.Fatal(err)
			}
		}
		m, err := Open(testConfig(mem, testDir))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = m.Close(false) }()
		l := openLog(t, m, damageConfig())
		for at, value := range map[int64]cluster.Offset{1000: 0, 1065: 14, 1070: 14, 1150: 30} {
			if found, ok, err := l.OffsetForTimestamp(at); err != nil || !ok || found.Offset != value {
				t.Fatalf("timestamp %d is found at %+v, %v, not at %d", at, found, err, value)
			}
		}
		if got, refused := readAround(t, l); !slices.Equal(got, values) || len(refused) > 0 {
			t.Fatalf("served %v\nwant %v", got, values)
		}
	})
}
