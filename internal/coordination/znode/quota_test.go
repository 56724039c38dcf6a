package znode

import (
	"bytes"
	"testing"

	"understudy/internal/coordination/jute"
)

func TestQuotaStats(t *testing.T) {
	m := withSession(t)
	create := func(path, data string) {
		t.Helper()
		if r := apply(m, write(jute.OpCreate, createBody(path, data, 0))); r.Code != jute.OK {
			t.Fatal(path, r.Code)
		}
	}
	set := func(path, data string) {
		t.Helper()
		if r := apply(m, write(jute.OpSetData, (&jute.SetDataRequest{Path: path, Data: []byte(data), Version: -1}).Append(nil))); r.Code != jute.OK {
			t.Fatal(path, r.Code)
		}
	}
	remove := func(path string) {
		t.Helper()
		if r := apply(m, write(jute.OpDelete, deleteBody(path))); r.Code != jute.OK {
			t.Fatal(path, r.Code)
		}
	}
	stats := func(quota, want string) {
		t.Helper()
		data, stat, exists := m.GetData("/zookeeper/quota" + quota + "/zookeeper_stats")
		if !exists || string(data) != want || stat.Version != 0 || stat.Mzxid != stat.Czxid {
			t.Errorf("%s: %q %+v, want %q", quota, data, stat, want)
		}
	}
	create("/a", "12345")
	create("/a/b", "")
	for _, path := range []string{"/a", "/a/b"} {
		create("/zookeeper/quota"+path, "")
		create("/zookeeper/quota"+path+"/zookeeper_limits", "count=1,bytes=-1")
		create("/zookeeper/quota"+path+"/zookeeper_stats", "count=0,bytes=0")
	}
	stats("/a", "count=2,bytes=5")
	stats("/a/b", "count=1,bytes=0")
	create("/a/c", "67")
	create("/a/b/d", "8") // counts for the innermost alone
	create("/ab", "not below")
	stats("/a", "count=3,bytes=7")
	stats("/a/b", "count=2,bytes=1")
	set("/a", "1")
	set("/a/b/d", "888")
	stats("/a", "count=3,bytes=3")
	stats("/a/b", "count=2,bytes=3")

	var snapshot bytes.Buffer
	frozen := m.Freeze()
	if _, err := frozen.WriteTo(&snapshot); err != nil {
		t.Fatal(err)
	}
	frozen.Close()
	restored, err := Restore(&snapshot)
	if err != nil || restored.Checksum() != m.Checksum() {
		t.Fatal(err)
	}
	m = restored
	remove("/a/b/d")
	stats("/a/b", "count=1,bytes=0")
	remove("/zookeeper/quota/a/b/zookeeper_limits")
	remove("/a/b") // counts for the outer one now, which never counted its create apart
	stats("/a", "count=2,bytes=3")
	stats("/a/b", "count=1,bytes=0")

	set("/zookeeper/quota/a/zookeeper_stats", "no numbers=x")
	create("/a/e", "left alone")
	if data, _, _ := m.GetData("/zookeeper/quota/a/zookeeper_stats"); string(data) != "no numbers=x" {
		t.Errorf("%q", data)
	}
	create("/zookeeper/quota/zookeeper_limits", "of nothing")
	create("/zookeeper/quota/zookeeper_stats", "")
	if data, _, _ := m.GetData("/zookeeper/quota/zookeeper_stats"); !bytes.HasPrefix(data, []byte("count=15,bytes=")) {
		t.Errorf("all: %q", data)
	}
}

func TestStatsText(t *testing.T) {
	for text, want := range map[string]string{
		"": "count=-1,bytes=-1", "count=1,bytes=2": "count=1,bytes=2", "bytes=2": "count=-1,bytes=2",
		"count=1,bytes=2=;countHardLimit=5;byteHardLimit=7": "count=1,bytes=2=;byteHardLimit=7;countHardLimit=5",
		"count=x": "", "count": "", "=": "",
	} {
		stats, ok := parseStats([]byte(text))
		if got := string(stats.append(nil)); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q, %v", text, got, ok)
		}
	}
}
