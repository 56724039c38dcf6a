package replication

import (
	"sync"
	"testing"
	"testing/synctest"
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

// An fsync waits for those who shared the last one, and for no others.
func TestGatherWaitsForTheSameProducers(t *testing.T) {
	const ms = time.Millisecond
	tests := []struct {
		name               string
		covered, meanwhile int           // of the last fsync
		took, since        time.Duration // how long it took, and when it ended
		arrivals           []time.Duration
		waited             time.Duration
		gathered           int
	}{
		{name: "the first append", arrivals: []time.Duration{0}, gathered: 1},
		{name: "a producer alone", covered: 1, took: ms, arrivals: []time.Duration{0}, gathered: 1},
		{name: "all come back", covered: 2, meanwhile: 1, took: 4 * ms, arrivals: []time.Duration{0, 2 * ms}, waited: 2 * ms, gathered: 3},
		{name: "one has gone", covered: 3, took: ms, arrivals: []time.Duration{0, ms / 2}, waited: ms * 3 / 2, gathered: 2},
		{name: "they come slowly", covered: 5, took: ms, arrivals: []time.Duration{0, 2 * ms}, waited: ms, gathered: 1},
		{name: "they go on coming", covered: 9, took: ms, arrivals: []time.Duration{0, ms / 2, ms, 2*ms - 1}, waited: 2 * ms, gathered: 4},
		{name: "half are enough", covered: 6, meanwhile: 6, took: ms, gathered: 6},
		{name: "four are enough", covered: 4, meanwhile: 2, took: ms, arrivals: []time.Duration{0, ms / 4, ms / 2}, waited: ms / 4, gathered: 4},
		{name: "a slow disk", covered: 3, took: time.Second, arrivals: []time.Duration{0}, waited: gatherMax, gathered: 1},
		{name: "long after", covered: 3, took: ms, since: 4 * ms, arrivals: []time.Duration{0}, gathered: 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &Manager{stop: t.Context()}
				h := &hosted{}
				h.group.arrived = test.meanwhile
				h.group.synced(test.covered, test.took)
				time.Sleep(test.since)
				for _, after := range test.arrivals {
					time.AfterFunc(after, func() {
						h.mu.Lock()
						defer h.mu.Unlock()
						h.group.arrive()
					})
				}
				synctest.Wait()
				began := time.Now()
				if got := m.gather(h); got != test.gathered {
					t.Errorf("gathered %d, want %d", got, test.gathered)
				}
				if waited := time.Since(began); waited != test.waited {
					t.Errorf("waited %v, want %v", waited, test.waited)
				}
			})
		})
	}
}
