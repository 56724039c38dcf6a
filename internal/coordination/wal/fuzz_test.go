package wal

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"understudy/internal/vfs"
)

// resealed gives a changed segment header its checksum again.
func resealed(header []byte) []byte {
	binary.LittleEndian.PutUint32(header[12:], crc32.Checksum(header[:12], castagnoli))
	return header
}

// FuzzParseRecord: never panics, and what it takes encodes to the same bytes.
func FuzzParseRecord(f *testing.F) {
	f.Add(appendEntryRecord(nil, entry(7, 3, "data")))
	f.Add(appendHardStateRecord(nil, 1, 2, 3))
	f.Add(appendPositionRecord(nil, recordReset, 1, 2))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRecord(data)
		if err != nil {
			return
		}
		var again []byte
		switch r.kind {
		case recordEntry:
			again = appendEntryRecord(nil, r.entry())
		case recordHardState:
			p := r.payload
			again = appendHardStateRecord(nil, binary.LittleEndian.Uint64(p), binary.LittleEndian.Uint64(p[8:]), binary.LittleEndian.Uint64(p[16:]))
		default:
			index, term := r.position()
			again = appendPositionRecord(nil, r.kind, index, term)
		}
		if !bytes.Equal(again, data[:r.size]) {
			t.Errorf("%x came back as %x", data[:r.size], again)
		}
	})
}

// FuzzOpenSegment puts any bytes where the first segment should be: Open answers or refuses,
// and what it recovers can be read and written on.
func FuzzOpenSegment(f *testing.F) {
	fs := vfs.NewMem()
	l := openLog(f, fs)
	fill(f, l, 1, 5, 1)
	path := l.segmentPath(1)
	_ = l.Close()
	data, _ := readFile(fs, path)
	f.Add(data)
	f.Add(data[:len(data)-5])
	f.Add([]byte{})
	identity, _ := readFile(fs, testDir+"/"+identityFile)
	f.Fuzz(func(t *testing.T, segment []byte) {
		fs := vfs.NewMem()
		for _, dir := range []string{testDir, testDir + "/log", testDir + "/snapshot"} {
			_ = fs.MkdirAll(dir)
		}
		for name, text := range map[string][]byte{testDir + "/" + identityFile: identity, path: segment} {
			file, err := fs.Create(name)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = file.Write(text)
			_ = file.Close()
		}
		l, err := tryOpen(fs)
		if err != nil {
			return
		}
		before := content(t, l)
		last, _ := l.LastIndex()
		fill(t, l, last+1, last+2, 1<<40)
		_ = l.Close()
		l = openLog(t, fs)
		if after := content(t, l); len(after) < len(before) || after[:len(before)] != before {
			t.Errorf("recovered %q, and then %q", before, after)
		}
	})
}

func FuzzHighestTerm(f *testing.F) {
	f.Add(appendHardStateRecord(nil, 5, 1, 2))
	f.Add(appendHardStateRecord([]byte{1, 2, 3}, 9, 1, 2))
	f.Fuzz(func(t *testing.T, data []byte) {
		if term := highestTermIn(appendHardStateRecord(data, 1<<40, 1, 2)); term < 1<<40 {
			t.Fatalf("term %d", term)
		}
	})
}

// FuzzSnapshotFile: any file that is taken for a snapshot has its checksum.
func FuzzSnapshotFile(f *testing.F) {
	fs := vfs.NewMem()
	l := openLog(f, fs)
	fill(f, l, 1, 3, 1)
	saveSnapshot(f, l, 2)
	whole, err := readFile(fs, l.snapshotPath(2))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add(make([]byte, 40))
	f.Fuzz(func(t *testing.T, data []byte) {
		fs := vfs.NewMem()
		file, err := fs.Create("s")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.Write(data); err != nil {
			t.Fatal(err)
		}
		if _, err := verifySnapshot(file, "s"); err == nil && crc32.Checksum(data[:len(data)-4], castagnoli) != binary.LittleEndian.Uint32(data[len(data)-4:]) {
			t.Fatal("taken with a wrong checksum")
		}
	})
}

// FuzzDirectory puts anything in the place of the small files: they are taken or refused.
func FuzzDirectory(f *testing.F) {
	f.Add([]byte(`{"format":1,"member":1,"members":[1,2,3],"incarnation":5}`), []byte(`{"floor":3,"term":4,"cause":"x"}`))
	f.Add([]byte("{"), []byte("{}"))
	f.Fuzz(func(t *testing.T, identity, mark []byte) {
		fs := vfs.NewMem()
		if err := fs.MkdirAll(testDir); err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string][]byte{identityFile: identity, recoveryFile: mark} {
			file, err := fs.Create(testDir + "/" + name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := file.Write(data); err != nil {
				t.Fatal(err)
			}
		}
		if found, err := ReadRecovery(fs, testDir); err != nil || found == nil {
			t.Fatalf("the mark went unnoticed: %v", err)
		}
		if l, err := tryOpen(fs); err == nil {
			_ = l.Close()
		}
	})
}
