package broker

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/config"
	"understudy/internal/coordination/coordinator"
	"understudy/internal/streaming/cluster"
)

// shutdownTogether stops all brokers at once, as one does who stops a machine. None may use
// up the bound it is given: waiting for a retry would.
func (c *testCluster) shutdownTogether() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 25*time.Second)
	defer cancel()
	results := make(chan error, len(c.brokers))
	for id, b := range c.brokers {
		delete(c.brokers, id)
		go func() {
			if err := b.Shutdown(ctx); err != nil {
				results <- fmt.Errorf("broker %d: %w", id, err)
				return
			}
			results <- nil
		}()
	}
	for range cap(results) {
		if err := <-results; err != nil {
			c.t.Error(err)
		}
	}
	if ctx.Err() != nil {
		c.t.Error("the shutdown took all the time it had")
	}
}

// neverAgain makes a second request for a controlled shutdown outlast every bound.
var neverAgain = map[string]string{"controlled.shutdown.retry.backoff.ms": "600000"}

func TestBrokersStoppedTogetherDoNotWaitForEachOther(t *testing.T) {
	c := newTestCluster(t, 3, neverAgain)
	for _, factor := range []int16{2, 3} {
		c.createTopic(fmt.Sprintf("together-%d", factor), 12, factor, nil)
	}
	c.shutdownTogether()
}

func TestBrokersStopThoughTheEnsembleIsGone(t *testing.T) {
	ensemble, err := coordinator.Start(t.Context(), coordinator.Config{
		DataDir: t.TempDir(), ClientAddr: "127.0.0.1:0", TickTime: 500 * time.Millisecond,
		MinSessionTimeout: time.Second, MaxSessionTimeout: time.Minute, Logger: testLogger(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := ensemble.AwaitServing(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := &testCluster{t: t, dir: t.TempDir(), servers: ensemble.Addr(), brokers: map[int]*Broker{}, extra: neverAgain}
	for id := 1; id <= 3; id++ {
		c.start(id)
	}
	c.awaitAlive(3)
	c.createTopic("orphans", 12, 3, nil)
	if err := ensemble.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.shutdownTogether()
}

func TestIrreplaceable(t *testing.T) {
	tp := cluster.TopicPartition{Topic: "t"}
	for _, test := range []struct {
		name     string
		alive    []int32
		replicas []int32
		offline  []int32
		want     bool
	}{
		{"another replica is there", []int32{1, 2}, []int32{1, 2}, nil, false},
		{"the other replica is leaving", []int32{1, 2}, []int32{1, 2}, []int32{2}, true},
		{"the other replica's broker is gone", []int32{1, 3}, []int32{1, 2}, nil, true},
		{"one of the others stays", []int32{1, 2, 3}, []int32{1, 2, 3}, []int32{2}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := New(Config{Broker: &config.Broker{ID: 1}})
			update := kmsg.NewPtrUpdateMetadataRequest()
			update.SetVersion(8)
			for _, id := range test.alive {
				update.LiveBrokers = append(update.LiveBrokers, kmsg.UpdateMetadataRequestLiveBroker{ID: id})
			}
			update.TopicStates = []kmsg.UpdateMetadataRequestTopicState{{Topic: tp.Topic, PartitionStates: []kmsg.UpdateMetadataRequestTopicPartition{{
				Leader: 1, ISR: []int32{1}, Replicas: test.replicas, OfflineReplicas: test.offline,
			}}}}
			b.metadata.ApplyUpdateMetadata(update)
			if got := b.irreplaceable(b.metadata.Image(), []cluster.TopicPartition{tp}); got != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
