package kafka

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"understudy/internal/verify"
)

const t0, t1, group = "t-0", "t-1", "g"

// planted makes a history of entries in their order, all of t-0 unless they say otherwise.
func planted(entries ...Entry) *History {
	h := &History{Header: verify.Header{History: "kafka"}, Setting: Setting{Topics: []string{"t"}, Partitions: 1, Group: group}}
	next := map[string]int{}
	for _, e := range entries {
		if e.Partition == "" {
			e.Partition = t0
		}
		e.N = next[e.Client]
		next[e.Client]++
		h.Entries = append(h.Entries, e)
	}
	return h
}

func acked(client string, from, to int64, value string, offset int64) Entry {
	return Entry{Kind: kindSend, Client: client, At: from, Return: to, Value: value, Outcome: outcomeOK, Offset: offset, Ordered: client == "p"}
}

func sent(client string, from int64, value, outcome string) Entry {
	return Entry{Kind: kindSend, Client: client, At: from, Value: value, Outcome: outcome, Ordered: client == "p"}
}

// records are offsets and values by turns.
func records(kind, client string, at int64, first int64, values ...string) Entry {
	e := Entry{Kind: kind, Client: client, At: at, Values: values}
	for i := range values {
		e.Offsets = append(e.Offsets, first+int64(i))
	}
	return e
}

func poll(client string, at int64, first int64, values ...string) Entry {
	return records(kindPoll, client, at, first, values...)
}

func position(client string, at int64, offset int64) Entry {
	return Entry{Kind: kindPosition, Client: client, At: at, Offset: offset}
}

func joined(client string, at int64, offset int64) Entry {
	e := position(client, at, offset)
	e.Group = group
	return e
}

// whole is a reading back of everything, from offset 0.
func whole(at int64, values ...string) []Entry {
	return []Entry{
		records(kindReadback, "readback", at, 0, values...),
		{Kind: kindWhole, Client: "readback", At: at, Offset: int64(len(values))},
	}
}

func stood(client string, at, offset int64) Entry {
	return Entry{Kind: kindEnd, Client: client, At: at, Offset: offset}
}

func commit(from, to, offset int64) Entry {
	e := Entry{Kind: kindCommit, Client: "m", Group: group, At: from, Return: to, Offset: offset, Outcome: outcomeOpen}
	if to != 0 {
		e.Outcome = outcomeOK
	}
	return e
}

func committed(from, to, offset int64) Entry {
	return Entry{Kind: kindCommitted, Client: "o", Group: group, At: from, Return: to, Offset: offset}
}

func elsewhere(e Entry) Entry { e.Partition = t1; return e }

func both(first []Entry, rest ...Entry) []Entry { return append(first, rest...) }

// The rules that a planted history violates, and no others; none: it is right.
var cases = []struct {
	name    string
	entries []Entry
	want    []string
}{
	{name: "as it should be", entries: slices.Concat([]Entry{
		acked("p", 1, 2, "a", 0), acked("p", 2, 3, "b", 1), sent("p", 4, "c", outcomeOpen), sent("s", 5, "d", outcomeRefused),
		position("c", 0, 0), poll("c", 3, 0, "a", "b"), poll("c", 6, 2, "c"),
		joined("m", 1, 0), poll("m", 3, 0, "a", "b"), commit(4, 5, 2), joined("n", 6, 2), poll("n", 7, 2, "c"), commit(8, 9, 3), committed(10, 11, 3),
	}, whole(12, "a", "b", "c"), []Entry{stood("c", 13, 3), stood(group, 13, 3)})},
	{name: "an acknowledged record that is gone while a later one is there", want: []string{ruleInconsistent, ruleLostWrite}, entries: both(whole(9, "a", "c"),
		acked("p", 1, 2, "a", 0), acked("p", 2, 3, "b", 1), sent("q", 4, "c", outcomeOpen))},
	{name: "a tail that is gone", want: []string{ruleLostWrite}, entries: both(whole(9, "a"),
		acked("p", 1, 2, "a", 0), acked("p", 2, 3, "b", 1))},
	{name: "which nobody can say of a partition that was not read back", entries: []Entry{
		acked("p", 1, 2, "a", 0), acked("p", 2, 3, "b", 1)}},
	{name: "a record that was read, and is gone", want: []string{ruleVanished}, entries: both(whole(9, "a"),
		acked("p", 1, 2, "a", 0), sent("p", 2, "b", outcomeOpen), position("c", 0, 0), poll("c", 3, 0, "a", "b"))},
	{name: "a record at two offsets", want: []string{ruleDuplicate}, entries: both(whole(9, "a", "a"),
		acked("p", 1, 2, "a", 0))},
	{name: "a record elsewhere than acknowledged", want: []string{ruleDuplicate, ruleInconsistent}, entries: both(whole(9, "b", "a"),
		acked("p", 1, 2, "a", 0), sent("q", 1, "b", outcomeOpen))},
	{name: "two readers, two values at an offset", want: []string{ruleInconsistent}, entries: []Entry{
		sent("p", 1, "a", outcomeOpen), sent("p", 1, "b", outcomeOpen),
		position("c", 0, 0), position("d", 0, 0), poll("c", 3, 0, "a"), poll("d", 3, 0, "b")}},
	{name: "one offset acknowledged to two", want: []string{ruleAckedTwice}, entries: []Entry{
		acked("s", 1, 9, "a", 0), acked("q", 1, 9, "b", 0)}},
	{name: "a consumer that skips", want: []string{rulePollSkip}, entries: []Entry{
		acked("p", 1, 2, "a", 0), acked("p", 2, 3, "b", 1), acked("p", 3, 4, "c", 2),
		position("c", 0, 0), poll("c", 5, 0, "a"), poll("c", 6, 2, "c")}},
	{name: "a consumer that skips within one poll", want: []string{rulePollSkip}, entries: []Entry{
		acked("p", 1, 2, "a", 0), acked("p", 2, 3, "b", 1), acked("p", 3, 4, "c", 2),
		position("c", 0, 0), {Kind: kindPoll, Client: "c", At: 5, Offsets: []int64{0, 2}, Values: []string{"a", "c"}}}},
	{name: "a consumer that skips the start", want: []string{rulePollSkip}, entries: []Entry{
		acked("p", 1, 2, "a", 0), acked("p", 2, 3, "b", 1), position("c", 0, 0), poll("c", 5, 1, "b")}},
	{name: "a group that skips between two members", want: []string{rulePollSkip}, entries: both(whole(9, "a", "b", "c"),
		acked("p", 1, 2, "a", 0), acked("p", 2, 3, "b", 1), acked("p", 3, 4, "c", 2),
		joined("m", 0, 0), poll("m", 5, 0, "a"), joined("n", 6, 2), poll("n", 7, 2, "c"), stood(group, 10, 3))},
	{name: "a consumer that goes back", want: []string{ruleNonmonotonicPoll}, entries: []Entry{
		acked("p", 1, 2, "a", 0), acked("p", 2, 3, "b", 1), position("c", 0, 0), poll("c", 5, 0, "a", "b"), poll("c", 6, 1, "b")}},
	{name: "unless it was set back", entries: []Entry{
		acked("p", 1, 2, "a", 0), acked("p", 2, 3, "b", 1), joined("m", 0, 0), poll("m", 5, 0, "a", "b"), joined("m", 6, 1), poll("m", 7, 1, "b")}},
	{name: "records of a producer in another order than sent", want: []string{ruleNonmonotonicSend}, entries: []Entry{
		acked("p", 1, 9, "a", 1), acked("p", 2, 9, "b", 0)}},
	{name: "the same, without their acknowledgements", want: []string{ruleNonmonotonicSend}, entries: both(whole(9, "b", "a"),
		sent("p", 1, "a", outcomeOpen), sent("p", 2, "b", outcomeOpen))},
	{name: "an offset below one acknowledged before", want: []string{ruleNonmonotonicSend}, entries: []Entry{
		acked("s", 1, 2, "a", 5), acked("q", 3, 4, "b", 4)}},
	{name: "which at the same time is right", entries: []Entry{
		acked("s", 1, 4, "a", 5), acked("q", 3, 4, "b", 4)}},
	{name: "a refused record that is there", want: []string{ruleAborted}, entries: []Entry{
		sent("s", 1, "a", outcomeRefused), position("c", 0, 0), poll("c", 3, 0, "a")}},
	{name: "a record that nobody sent", want: []string{ruleUnwritten}, entries: []Entry{
		position("c", 0, 0), poll("c", 3, 0, "x")}},
	{name: "a record with other bytes", want: []string{ruleDamaged}, entries: []Entry{
		position("c", 0, 0), poll("c", 3, 0, damaged+`"zzz"`)}},
	{name: "a record in another partition", want: []string{ruleMisplaced}, entries: []Entry{
		sent("p", 1, "a", outcomeOpen), elsewhere(position("c", 0, 0)), elsewhere(poll("c", 3, 0, "a"))}},
	{name: "a hole", want: []string{ruleHole}, entries: []Entry{
		acked("p", 1, 2, "a", 0), acked("p", 2, 3, "c", 2),
		{Kind: kindReadback, Client: "r", At: 9, Offsets: []int64{0, 2}, Values: []string{"a", "c"}}, {Kind: kindWhole, Client: "r", At: 9, Offset: 3}}},
	{name: "a consumer that never sees the end", want: []string{ruleUnseen}, entries: both(whole(9, "a", "b"),
		acked("p", 1, 2, "a", 0), acked("p", 2, 3, "b", 1), position("c", 0, 0), poll("c", 5, 0, "a"), stood("c", 10, 1))},
	{name: "a committed offset that goes back", want: []string{ruleCommitBack}, entries: []Entry{
		acked("p", 1, 2, "a", 0), commit(3, 4, 1), commit(5, 6, 2), committed(7, 8, 1)}},
	{name: "a committed offset that is forgotten after it was shown", want: []string{ruleCommitBack}, entries: []Entry{
		acked("p", 1, 2, "a", 0), commit(3, 4, 1), commit(5, 0, 2), committed(7, 8, 2), committed(9, 10, 1)}},
	{name: "one asked for while it is committed", entries: []Entry{
		acked("p", 1, 2, "a", 0), commit(3, 4, 1), commit(5, 9, 2), committed(6, 7, 1), committed(6, 8, 2)}},
	{name: "one that a group which was set back has committed", entries: []Entry{
		acked("p", 1, 2, "a", 0), commit(3, 4, 9), commit(5, 6, 1), committed(7, 8, 1)}},
}

func TestPlantedHistories(t *testing.T) {
	covered := map[string]bool{}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			for _, rule := range test.want {
				covered[rule] = true
			}
			report := Check(planted(test.entries...))
			if got := report.Rules(); !slices.Equal(got, test.want) {
				var text strings.Builder
				report.Print(&text)
				t.Errorf("violated: %v, want %v\n%s", got, test.want, &text)
			}
		})
	}
	for _, rule := range []string{
		ruleLostWrite, ruleVanished, ruleDuplicate, ruleInconsistent, ruleAckedTwice, rulePollSkip, ruleNonmonotonicPoll,
		ruleNonmonotonicSend, ruleAborted, ruleUnwritten, ruleDamaged, ruleMisplaced, ruleHole, ruleUnseen, ruleCommitBack,
	} {
		if !covered[rule] {
			t.Errorf("no planted history violates %s", rule)
		}
	}
}

// A reported violation names the operations that show it.
func TestAViolationNamesItsOperations(t *testing.T) {
	report := Check(planted(both(whole(9, "a"), acked("p", 1, 2, "a", 0), acked("p", 2000000, 3000000, "b", 1))...))
	var text strings.Builder
	report.Print(&text)
	for _, want := range []string{`p, 0.002000 to 0.003000 s: send "b" to t-0 -> ok at offset 1`, "lost-write: 1"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, &text)
		}
	}
}

func TestAHistoryIsReadAsItWasWritten(t *testing.T) {
	for _, test := range cases {
		h := planted(test.entries...)
		path := filepath.Join(t.TempDir(), "history.jsonl")
		if err := h.Write(path); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ReadHistory(file)
		file.Close()
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if !reflect.DeepEqual(got.Entries, h.Entries) || !reflect.DeepEqual(got.Setting, h.Setting) {
			t.Errorf("%s: %+v, want %+v", test.name, got, h)
		}
	}
}

func FuzzCheck(f *testing.F) {
	for _, test := range cases {
		path := filepath.Join(f.TempDir(), "history.jsonl")
		if err := planted(test.entries...).Write(path); err != nil {
			f.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if h, err := ReadHistory(bytes.NewReader(text)); err == nil {
			Check(h) // whatever it says, it does not panic
		}
	})
}

func TestADamagedValueIsTold(t *testing.T) {
	value := pack("1/p/7", 60)
	if len(value) != 60 || unpack(value) != "1/p/7" {
		t.Fatalf("%q", value)
	}
	if got := unpack(pack("a-long-name-for-a-short-record", 3)); got != "a-long-name-for-a-short-record" {
		t.Fatal(got)
	}
	for i := range value {
		broken := slices.Clone(value)
		broken[i] ^= 1
		if got := unpack(broken); !strings.HasPrefix(got, damaged) {
			t.Errorf("with byte %d flipped it is taken for %q", i, got)
		}
	}
	for _, text := range []string{"", "x", "|", "?|abc"} {
		if got := unpack([]byte(text)); !strings.HasPrefix(got, damaged) {
			t.Errorf("%q is taken for %q", text, got)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add([]byte("1/p/7|abc"))
	f.Add(pack("1/p/7", 60))
	f.Fuzz(func(t *testing.T, value []byte) {
		if name := unpack(value); !strings.HasPrefix(name, damaged) && !slices.Equal(pack(name, len(value)), value) {
			t.Fatalf("%q is taken for %q", value, name)
		}
	})
}
