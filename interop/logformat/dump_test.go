// Package logformat judges the files of the partition logs by Apache Kafka's own reader of
// them, kafka-dump-log: every record, index entry and producer snapshot.
package logformat

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/commitlog"
	"understudy/internal/streaming/record"
	"understudy/interop/foreign"
)

const patience = 2 * time.Minute

// complaint is what kafka-dump-log prints when a file does not add up.
var complaint = regexp.MustCompile(`(?i)mismatch|not found|invalid|corrupt|exception|isvalid: false|out of order`)

// writeLog fills a partition's log with batches in every codec, of plain, idempotent and
// transactional producers, over several segments. It returns the partition's directory and
// the number of batches.
func writeLog(t *testing.T) (dir string, batches int) {
	t.Helper()
	root := t.TempDir()
	manager, err := commitlog.Open(commitlog.Config{Dirs: []string{root}, ClusterID: "Zx1o3hRjS9y0vXQ0vV5x5A", BrokerID: 1})
	if err != nil {
		t.Fatal(err)
	}
	config := commitlog.DefaultLogConfig()
	config.SegmentBytes = 150_000
	tp := cluster.TopicPartition{Topic: "songs"}
	log, err := manager.GetOrCreate(tp, cluster.NewTopicID(), config, true)
	if err != nil {
		t.Fatal(err)
	}
	write := func(batch record.Batch, origin commitlog.Origin) {
		t.Helper()
		if _, err := log.AppendLeader(batch, commitlog.AppendOptions{LeaderEpoch: cluster.LeaderEpoch(batches / 500), Origin: origin}); err != nil {
			t.Fatal(err)
		}
		batches++
	}
	sequence := int32(0)
	const base = 1_700_000_000_000
	for i := range int64(2000) {
		options := record.DefaultOptions()
		options.Codec = record.Codec(i % 5)
		if i%3 == 0 {
			options.ProducerID, options.ProducerEpoch, options.BaseSequence = 17, 0, sequence
			sequence += 2
		}
		builder := record.NewBuilder(options)
		builder.Append(base+7*i, fmt.Append(nil, "key", i), []byte(strings.Repeat("la", int(i)%300)), record.Header{Key: "h", Value: []byte("v")})
		builder.Append(base+7*i-3, nil, nil)
		batch, err := builder.Build()
		if err != nil {
			t.Fatal(err)
		}
		write(batch, commitlog.Client)
	}
	options := record.DefaultOptions()
	options.ProducerID, options.ProducerEpoch, options.BaseSequence, options.Transactional = 23, 0, 0, true
	builder := record.NewBuilder(options)
	builder.Append(base, nil, []byte("never"))
	batch, err := builder.Build()
	if err != nil {
		t.Fatal(err)
	}
	write(batch, commitlog.Client)
	write(record.BuildMarker(record.Marker{Type: record.Abort, CoordinatorEpoch: 3}, 23, 0, -1, base), commitlog.Coordinator)
	if err := manager.Close(true); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, tp.String()), batches
}

func TestKafkaDumpLog(t *testing.T) {
	dir, batches := writeLog(t)
	dump := func(t *testing.T, pattern string, flags ...string) string {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("no files %s: %v", pattern, err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		command := foreign.KafkaTool(ctx, t, foreign.Kafka39, "kafka-dump-log", append(flags, "--files", strings.Join(files, ","))...)
		output, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("kafka-dump-log: %v\n%s", err, output)
		}
		if found := complaint.FindAll(output, 3); found != nil {
			t.Errorf("kafka-dump-log complains of %s: %q\n%s", pattern, found, output)
		}
		return string(output)
	}
	t.Run("log", func(t *testing.T) {
		output := dump(t, "*.log", "--deep-iteration")
		if found := strings.Count(output, "baseOffset: "); found != batches {
			t.Errorf("%d batches of %d", found, batches)
		}
	})
	// These are checked against the .log files beside them.
	t.Run("index", func(t *testing.T) { dump(t, "*.index") })
	t.Run("timeindex", func(t *testing.T) { dump(t, "*.timeindex") })
	t.Run("txnindex", func(t *testing.T) {
		if output := dump(t, "*.txnindex"); !strings.Contains(output, "producerId: 23") {
			t.Errorf("the aborted transaction is missing:\n%s", output)
		}
	})
	t.Run("snapshot", func(t *testing.T) {
		output := dump(t, "*.snapshot")
		if !strings.Contains(output, "lastSequence: 1333") || !strings.Contains(output, "producerId: 23") {
			t.Errorf("the producers are missing:\n%s", output)
		}
	})
}
