package replication

import (
	"sync"
	"testing"
	"time"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/commitlog"
)

// With flush.messages=1 whatever is acknowledged with acks=all has been fsynced by all of the
// in-sync set, and what consumers may read, too.
func TestDurableAcknowledgements(t *testing.T) {
	c := newTestCluster(t, 3, nil)
	c.topic.FlushMessages = 1
	tps := []cluster.TopicPartition{t0, {Topic: "t", Partition: 1}}
	for _, tp := range tps {
		c.elect(tp, 1, ids(1, 2, 3))
	}
	var producing sync.WaitGroup
	for producer := range 8 {
		producing.Go(func() {
			for range 25 {
				tp := tps[producer%2]
				result := <-c.produce(1, tp, AcksAll, "x")
				if result.Err != nil {
					t.Error(result.Err)
					return
				}
				for id := range c.brokers {
					log := c.brokers[id].logs.Get(tp)
					if synced := log.SyncedOffset(); synced <= result.Info.Last {
						t.Errorf("broker %d acknowledged offset %d and has fsynced up to %d", id, result.Info.Last, synced)
					}
				}
			}
		})
	}
	producing.Wait()
	if hw := c.describe(1, t0).HighWatermark; hw != 100 {
		t.Errorf("high watermark %d", hw)
	}
}

// The setting may come later: what is in the log already is fsynced then, too.
func TestTopicBecomesDurable(t *testing.T) {
	c := newTestCluster(t, 2, nil)
	c.elect(t0, 1, ids(1, 2))
	c.mustProduce(1, t0, "a", "b")
	c.topic.FlushMessages = 1
	for _, b := range c.brokers {
		b.manager.UpdateTopicConfig("t")
	}
	c.mustProduce(1, t0, "c")
	for id, b := range c.brokers {
		log := b.logs.Get(t0)
		if synced := log.SyncedOffset(); synced != 3 {
			t.Errorf("broker %d has fsynced up to %d", id, synced)
		}
	}
}

// A new leader goes on from what it has fsynced, and the old one fsyncs what it missed.
func TestDurableAfterFailover(t *testing.T) {
	c := newTestCluster(t, 3, nil)
	c.topic.FlushMessages = 1
	c.elect(t0, 1, ids(1, 2, 3))
	c.mustProduce(1, t0, "a")
	c.kill(1)
	c.publish()
	c.elect(t0, 2, ids(2, 3))
	c.mustProduce(2, t0, "b")
	c.restart(1)
	c.tell(1, t0)
	c.eventually("broker 1 has fsynced both", func() bool {
		log := c.brokers[1].logs.Get(t0)
		return log != nil && log.SyncedOffset() == 2
	})
}

// Who tells the controller where its log ends may be elected for it, and is in sync then: what it
// found in the page cache after a kill is on its disk by the time that it answers.
func TestDurableLogEndIsOnDisk(t *testing.T) {
	c := newTestCluster(t, 2, nil)
	c.elect(t0, 1, ids(1, 2))
	c.mustProduce(1, t0, "a", "b")
	c.kill(1)
	c.topic.FlushMessages = 1
	b := c.brokers[2]
	b.manager.UpdateTopicConfig("t")
	log := b.logs.Get(t0)
	if synced := log.SyncedOffset(); synced != 0 {
		t.Fatalf("%d records have been fsynced already", synced)
	}
	ask := []ListOffsetsPart{{TP: t0, CurrentLeaderEpoch: cluster.NoLeaderEpoch, Timestamp: timestampLatest}}
	got := b.manager.ListOffsets(DebugReplica, ReadUncommitted, ask)[0]
	if synced := log.SyncedOffset(); got.Err != nil || got.Offset != 2 || synced != 2 {
		t.Errorf("answered %+v with %d records fsynced", got, synced)
	}
}

// BenchmarkDurableAppend keeps 64 appends with acks=all in flight, with and without fsync.
func BenchmarkDurableAppend(b *testing.B) {
	for name, flushMessages := range map[string]int64{"page-cache": commitlog.DefaultLogConfig().FlushMessages, "fsync": 1} {
		b.Run(name, func(b *testing.B) {
			c := newTestCluster(b, 1, nil)
			c.topic.FlushMessages = flushMessages
			c.elect(t0, 1, ids(1))
			batch := kilobyteBatch(b, 1)
			tokens := make(chan struct{}, 64)
			b.ResetTimer()
			for range b.N {
				tokens <- struct{}{}
				c.brokers[1].manager.Append(AppendRequest{
					Parts: []AppendPart{{t0, append([]byte(nil), batch...)}}, Acks: AcksAll, Timeout: 30 * time.Second, Origin: commitlog.Client,
				}, func(results []AppendResult) {
					if results[0].Err != nil {
						b.Error(results[0].Err)
					}
					<-tokens
				})
			}
			for range cap(tokens) {
				tokens <- struct{}{}
			}
		})
	}
}
