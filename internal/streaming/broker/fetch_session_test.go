package broker

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// busyPartitions counts what the sessions of a broker look at in each request, and all they hold.
func busyPartitions(b *Broker) (busy, all int) {
	b.fetches.mu.Lock()
	defer b.fetches.mu.Unlock()
	for _, session := range b.fetches.byID {
		session.mu.Lock()
		busy += session.busy.Len()
		all += len(session.all)
		session.mu.Unlock()
	}
	return busy, all
}

// The followers of an idle topic look at a few partitions in turn, not at all, and take in
// what is written after that.
func TestIdleSessionsFallQuiet(t *testing.T) {
	const partitions = 120
	c := newTestCluster(t, 2, nil)
	c.createTopic("idle", partitions, 2, nil)
	deadline := time.Now().Add(20 * time.Second)
	for {
		quiet, held := true, 0
		for _, b := range c.brokers {
			busy, all := busyPartitions(b)
			quiet = quiet && busy <= 2*reviewCount
			held += all
		}
		if quiet && held >= partitions { // more where a session was begun anew
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the sessions hold %d partitions and are not quiet", held)
		}
		time.Sleep(10 * time.Millisecond)
	}
	producer := c.client(kgo.DefaultProduceTopic("idle"), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()), kgo.ProducerLinger(0))
	for i := range 2 * partitions {
		if err := producer.ProduceSync(t.Context(), kgo.StringRecord("x")).FirstErr(); err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
	}
	consume(t, c.client(kgo.ConsumeTopics("idle"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())), 2*partitions)
}
