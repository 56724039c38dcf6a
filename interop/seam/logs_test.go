package seam

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// flood writes records of many sizes as fast as they go, with each codec, so that followers of
// each kind copy large and compressed batches from leaders of each kind.
func (s *stage) flood(t *testing.T) {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 1<<16)
	for i := range noise {
		noise[i] = "the show goes on "[random.IntN(17)]
	}
	for _, codec := range []kgo.CompressionCodec{
		kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression(),
	} {
		producer, err := kgo.NewClient(kgo.SeedBrokers(s.Bootstrap()...), kgo.ProducerBatchCompression(codec), kgo.ProducerBatchMaxBytes(1<<20))
		if err != nil {
			t.Fatal(err)
		}
		records := make([]*kgo.Record, 2000)
		for i := range records {
			from := random.IntN(len(noise) / 2)
			records[i] = &kgo.Record{Topic: topic, Key: fmt.Appendf(nil, "%d", i), Value: noise[from : from+1<<random.IntN(15)]}
		}
		err = producer.ProduceSync(limited(t), records...).FirstErr()
		producer.Close()
		if err != nil {
			t.Fatalf("flood: %v", err)
		}
	}
}

// sameLogs waits until the replicas of each partition hold the same bytes.
func (s *stage) sameLogs(t *testing.T) {
	t.Helper()
	until(t, "the same log on every replica", func() string {
		for partition := range partitions {
			var first *replicaLog
			for _, node := range s.Brokers {
				log, err := readLog(filepath.Join(node.Dir(), "data", fmt.Sprintf("%s-%d", topic, partition)))
				if err != nil {
					return err.Error()
				}
				if log == nil {
					continue
				}
				log.broker = node.ID
				if first == nil {
					first = log
				} else if first.sum != log.sum {
					return fmt.Sprintf("partition %d: broker %d (%s) has %d bytes, sum %x, broker %d (%s) has %d, sum %x", partition,
						first.broker, s.kinds[first.broker], first.size, first.sum[:4], log.broker, s.kinds[log.broker], log.size, log.sum[:4])
				}
			}
		}
		return ""
	})
}

type replicaLog struct {
	broker int
	data   []byte
	size   int
	sum    [sha256.Size]byte
}

// readLog reads all segments of a partition; nil if there is none here.
func readLog(dir string) (*replicaLog, error) {
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	var all bytes.Buffer
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), ".log") {
			segment, err := os.ReadFile(filepath.Join(dir, entry.Name()))
			if err != nil {
				return nil, err
			}
			all.Write(segment)
		}
	}
	return &replicaLog{data: all.Bytes(), size: all.Len(), sum: sha256.Sum256(all.Bytes())}, nil
}
