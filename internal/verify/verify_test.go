package verify

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

type line struct {
	Who string `json:"who"`
	At  int64  `json:"at"`
}

func TestAHistoryIsReadAsItWasWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.jsonl")
	entries := []line{{"a", 1}, {"b", 2}}
	if err := WriteHistory(path, Header{History: "kafka", Servers: []string{"x:1"}, Seed: 7}, entries); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	header, got, err := ReadHistory[line](file, "kafka")
	if err != nil || header.Seed != 7 || !reflect.DeepEqual(got, entries) {
		t.Fatalf("%+v, %+v, %v", header, got, err)
	}
	if left, _ := filepath.Glob(path + "*"); len(left) != 1 {
		t.Fatalf("left behind: %v", left)
	}
}

func TestWhatIsNoHistoryIsRefused(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"", "unexpected EOF"},
		{"{", "line 1"},
		{`{"history":"kafka","version":9}`, "version 9"},
		{`{"history":"zookeeper","version":1}`, "a history of zookeeper"},
		{`{"history":"kafka","version":1}` + "\n{", "line 2"},
	} {
		if _, _, err := ReadHistory[line](strings.NewReader(test.text), "kafka"); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v", test.text, err)
		}
	}
}

func TestAReportNamesTheFirstAndCountsAll(t *testing.T) {
	var report Report
	if !report.Clean() {
		t.Fatal("an empty report is not clean")
	}
	report.Fact("operations", 3)
	for range namedPerRule + 2 {
		report.Add("lost-write", "t-0", "offset 5 is gone", "producer 1")
	}
	var text strings.Builder
	report.Print(&text)
	for _, want := range []string{"lost-write: 12", "t-0: offset 5 is gone", "and 2 more", "VIOLATED: lost-write", "producer 1"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, &text)
		}
	}
	if report.Clean() || len(report.Violations) != namedPerRule {
		t.Fatalf("%+v", report)
	}
}

func TestAClockGoesOnFromItsBase(t *testing.T) {
	clock := NewClock(1000)
	if a, b := clock.Now(), clock.Now(); a < 1000 || b < a {
		t.Fatalf("%d, %d", a, b)
	}
}
