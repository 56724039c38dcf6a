package seam

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"understudy/internal/fleet"
	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/record"
	"understudy/internal/trial"
)

// evidence tells what stands at the places of an account's findings in every replica's log, what
// each broker logged about those partitions, and what the producer's client did. Two copies of one
// batch with the same producer epoch and sequence were let through by the leader of the second
// one's leader epoch; with different ones, the client renumbered after a refusal that its diary names.
func (s *stage) evidence(account trial.Account) string {
	var text strings.Builder
	touched := map[int32]bool{}
	for _, place := range account.Places {
		touched[place.Partition] = true
	}
	for _, partition := range slices.Sorted(maps.Keys(touched)) {
		places := slices.DeleteFunc(slices.Clone(account.Places), func(place trial.Place) bool { return place.Partition != partition })
		for _, node := range s.Brokers {
			fmt.Fprintf(&text, "%s-%d on %s (%s):\n", topic, partition, node.Name, s.kinds[node.ID])
			s.tellBatches(&text, node, partition, places)
		}
		for _, node := range s.Brokers {
			tellLines(&text, node, fmt.Sprintf("%s-%d", topic, partition))
		}
	}
	fmt.Fprintf(&text, "what the producer's client said:\n%s", s.diary.String())
	return text.String()
}

// tellBatches shows the batches at some places, and each one's neighbours.
func (s *stage) tellBatches(to *strings.Builder, node *fleet.Node, partition int32, places []trial.Place) {
	log, err := readLog(filepath.Join(node.Dir(), "data", fmt.Sprintf("%s-%d", topic, partition)))
	if err != nil || log == nil {
		fmt.Fprintf(to, "  no log: %v\n", err)
		return
	}
	var batches []record.Batch
	shown := map[int]bool{}
	for batch, err := range record.All(log.data) {
		if err != nil {
			fmt.Fprintf(to, "  behind %d batches: %v\n", len(batches), err)
			break
		}
		for _, place := range places {
			if offset := cluster.Offset(place.Offset); offset >= batch.BaseOffset() && offset <= batch.LastOffset() {
				at := len(batches)
				shown[at-1], shown[at], shown[at+1] = true, true, true
			}
		}
		batches = append(batches, batch)
	}
	for _, at := range slices.Sorted(maps.Keys(shown)) {
		if at < 0 || at >= len(batches) {
			continue
		}
		b := batches[at]
		fmt.Fprintf(to, "  offsets %d to %d, leader epoch %d, producer %d epoch %d sequence %d to %d, made %s to %s, crc %08x\n",
			b.BaseOffset(), b.LastOffset(), b.LeaderEpoch(), b.ProducerID(), b.ProducerEpoch(), b.BaseSequence(), b.LastSequence(),
			clock(b.BaseTimestamp()), clock(b.MaxTimestamp()), b.CRC())
	}
}

func clock(ms int64) string { return time.UnixMilli(ms).Format("15:04:05.000") }

// tellLines shows what a broker logged about a partition: leaderships and truncations among it.
func tellLines(to *strings.Builder, node *fleet.Node, name string) {
	text, err := os.ReadFile(node.LogFile())
	if err != nil {
		fmt.Fprintf(to, "the log of %s: %v\n", node.Name, err)
		return
	}
	fmt.Fprintf(to, "%s logged of %s:\n", node.Name, name)
	for line := range bytes.Lines(text) {
		for _, word := range bytes.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" ,:;()[]{}=\"", r) }) {
			if string(bytes.TrimRight(word, ".\n")) == name {
				fmt.Fprintf(to, "  %s", line[:min(len(line), 1000)])
				break
			}
		}
	}
}

// diary keeps what franz-go's producer says that decides over doubled records: of batches and of
// producer ids, and of requests that got no answer.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) Level() kgo.LogLevel { return kgo.LogLevelInfo }

func (d *diary) Log(_ kgo.LogLevel, message string, fields ...any) {
	lower := strings.ToLower(message)
	about := strings.Contains(lower, "produc") || strings.Contains(lower, "batch") || strings.Contains(lower, "retr")
	if !about || strings.Contains(lower, "partition load error") { // while a topic is being made
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	const enough = 5000
	if len(d.lines) < enough {
		d.lines = append(d.lines, fmt.Sprintln(append([]any{"  " + time.Now().Format("15:04:05.000"), message}, fields...)...))
	}
}

// renumberings are the lines that tell of batches sent again under other sequence numbers: what
// an earlier attempt has left in the log stands there twice then, and no broker can tell.
func (d *diary) renumberings() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(slices.DeleteFunc(slices.Clone(d.lines), func(line string) bool {
		return !strings.Contains(line, "producer ID and resetting") && !strings.Contains(line, "producer epoch")
	}), "")
}

func (d *diary) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.lines, "")
}

func TestEvidence(t *testing.T) {
	batch := func(at int64, epoch int16, sequence int32) []byte {
		options := record.DefaultOptions()
		options.BaseOffset, options.LeaderEpoch = cluster.Offset(at), cluster.LeaderEpoch(at)
		options.ProducerID, options.ProducerEpoch, options.BaseSequence = 7, epoch, sequence
		builder := record.NewBuilder(options)
		builder.Append(0, nil, []byte("once"))
		built, err := builder.Build()
		if err != nil {
			t.Fatal(err)
		}
		return built
	}
	dir := t.TempDir()
	s := &stage{kinds: map[int]kind{1: ours}}
	f, err := fleet.New(fleet.Options{Binary: program, Dir: dir, Brokers: 1})
	if err != nil {
		t.Fatal(err)
	}
	s.Fleet = f
	partition := filepath.Join(f.Brokers[0].Dir(), "data", topic+"-3")
	if err := os.MkdirAll(partition, 0o755); err != nil {
		t.Fatal(err)
	}
	data := slices.Concat(batch(0, 0, 0), batch(1, 0, 1), batch(2, 1, 0))
	if err := os.WriteFile(filepath.Join(partition, "00000000000000000000.log"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	s.diary.Log(kgo.LogLevelInfo, "batch errored", "partition", 3)
	got := s.evidence(trial.Account{Places: []trial.Place{{Partition: 3, Offset: 2}}})
	for _, want := range []string{
		"seam-3 on broker 1 (ours)", "offsets 1 to 1, leader epoch 1, producer 7 epoch 0 sequence 1 to 1",
		"offsets 2 to 2, leader epoch 2, producer 7 epoch 1 sequence 0 to 0", "batch errored partition 3",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in:\n%s", want, got)
		}
	}
	if strings.Contains(got, "offsets 0 to 0") {
		t.Errorf("shows batches far away:\n%s", got)
	}
}
