package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/record"
)

func TestMerged(t *testing.T) {
	topic := func(name string, partitions ...int32) kmsg.OffsetFetchRequestTopic {
		return kmsg.OffsetFetchRequestTopic{Topic: name, Partitions: partitions}
	}
	many := make([]int32, 20)
	for i := range many {
		many[i] = int32(i % 15)
	}
	for _, test := range []struct {
		name string
		in   []kmsg.OffsetFetchRequestTopic
		want string
	}{
		{"nothing", nil, "[]"},
		{"tidy", []kmsg.OffsetFetchRequestTopic{topic("a", 1, 0), topic("b", 1)}, "[a[1 0] b[1]]"},
		{"a topic again", []kmsg.OffsetFetchRequestTopic{topic("a", 1), topic("b", 1), topic("a", 2, 1)}, "[a[1 2] b[1]]"},
		{"a partition again", []kmsg.OffsetFetchRequestTopic{topic("a", 1, 1, 1)}, "[a[1]]"},
		{"an empty topic", []kmsg.OffsetFetchRequestTopic{topic("a"), topic("b", 3)}, "[b[3]]"},
		{"many", []kmsg.OffsetFetchRequestTopic{topic("a", many...)}, "[a[0 1 2 3 4 5 6 7 8 9 10 11 12 13 14]]"},
	} {
		got := []string{}
		for _, topic := range mergeNumbered(test.in, func(topic *kmsg.OffsetFetchRequestTopic) (string, *[]int32) { return topic.Topic, &topic.Partitions }) {
			got = append(got, fmt.Sprint(topic.Topic, topic.Partitions))
		}
		if fmt.Sprint(got) != test.want {
			t.Errorf("%s: %v, want %s", test.name, got, test.want)
		}
	}
}

// What is produced is looked at in Kafka's order: the frame, the number of batches, the format.
func TestCheckProduced(t *testing.T) {
	builder := record.NewBuilder(record.DefaultOptions())
	builder.Append(1, nil, []byte("value"))
	batch, err := builder.Build()
	if err != nil {
		t.Fatal(err)
	}
	edited := func(edit func(b []byte)) []byte {
		out := append([]byte(nil), batch...)
		edit(out)
		return out
	}
	for _, test := range []struct {
		name    string
		version int16
		records []byte
		want    *kerr.Error
	}{
		{"sound", 9, batch, nil},
		{"nothing", 9, nil, kerr.InvalidRecord},
		{"nothing, long ago", 2, nil, nil},
		{"the end is missing", 9, batch[:len(batch)-1], kerr.InvalidRecord},
		{"two batches", 9, append(edited(func([]byte) {}), batch...), kerr.InvalidRecord},
		{"two batches, long ago", 2, append(edited(func([]byte) {}), batch...), nil},
		{"format 1", 9, edited(func(b []byte) { b[16] = 1 }), kerr.InvalidRecord},
		{"format 3", 9, edited(func(b []byte) { b[16] = 3 }), kerr.CorruptMessage},
		{"a small size", 9, edited(func(b []byte) { binary.BigEndian.PutUint32(b[8:], 13) }), kerr.CorruptMessage},
		{"a negative size", 9, edited(func(b []byte) { b[8] = 0xff }), kerr.CorruptMessage},
		{"zstd too early", 6, edited(func(b []byte) { b[22] |= 4 }), kerr.UnsupportedCompressionType},
		{"zstd", 7, edited(func(b []byte) { b[22] |= 4 }), nil},
	} {
		err := checkProduced(test.version, test.records)
		if test.want == nil && err != nil || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
}
