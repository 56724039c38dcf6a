package broker

import (
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"understudy/internal/coordination/zkclient"
	"understudy/internal/streaming/metadata"
)

// endSession expires a broker's session behind its back.
func endSession(t *testing.T, c *testCluster, b *Broker) {
	t.Helper()
	session := b.session.current().Session()
	if err := zkclient.CloseSession(t.Context(), zkclient.Config{Servers: c.servers, SessionTimeout: 3 * time.Second}, session); err != nil {
		t.Fatal(err)
	}
}

// A broker whose session ends registers anew, with a new epoch, and leads and writes again.
func TestSessionExpiry(t *testing.T) {
	for _, test := range []struct {
		name    string
		brokers int
		victim  func(*testCluster) int
	}{
		{"alone", 1, func(*testCluster) int { return 1 }},
		{"controller among three", 3, func(c *testCluster) int { return int(c.brokers[1].metadata.Image().ControllerID()) }},
		{"leader among three", 3, func(c *testCluster) int { return c.leader("expiry", 0) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newTestCluster(t, test.brokers, nil)
			c.createTopic("expiry", 4, int16(test.brokers), nil)
			producer := c.client(kgo.DefaultProduceTopic("expiry"), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()), kgo.ProducerLinger(0),
				kgo.RecordDeliveryTimeout(60*time.Second))
			const count = 400
			for i := range count {
				if i == count/2 {
					victim := c.brokers[test.victim(c)]
					before := victim.Epoch()
					endSession(t, c, victim)
					c.await("the new registration", func(image *metadata.Image) bool {
						return victim.Epoch() > before && len(image.Brokers()) == test.brokers && allLed(image, "expiry")
					})
				}
				producer.Produce(t.Context(), kgo.StringRecord("x"), func(_ *kgo.Record, err error) {
					if err != nil {
						t.Errorf("record %d: %v", i, err)
					}
				})
			}
			if err := producer.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			consume(t, c.client(kgo.ConsumeTopics("expiry"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())), count)
		})
	}
}

// A broker that comes back at once finds its old session's node still there, ends that
// session and registers without waiting for it to run out.
func TestRestartClosesTheOldSession(t *testing.T) {
	c := newTestCluster(t, 0, map[string]string{"zookeeper.session.timeout.ms": "30000"})
	c.grace = -1 // as with an Apache ensemble
	c.start(1)
	c.awaitAlive(1)
	c.createTopic("back", 1, 1, nil)
	epoch := c.brokers[1].Epoch()
	c.crash(1)
	began := time.Now()
	b := c.start(1)
	c.await("its leader again", func(image *metadata.Image) bool { return allLed(image, "back") })
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("back after %v", took)
	}
	if b.Epoch() <= epoch {
		t.Errorf("epoch %d after %d", b.Epoch(), epoch)
	}
	info, err := os.Stat(b.session.mu.file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("session file: %v, %v", info, err)
	}
}

func TestAnotherClusterIsRefused(t *testing.T) {
	c := newTestCluster(t, 1, nil)
	c.shutdown(1)
	other := newTestCluster(t, 0, nil)
	other.dir = c.dir
	err := other.tryStart(1)
	if err == nil {
		t.Fatal("the log directory of another cluster was taken")
	}
	t.Log(err)
}

func TestTwoListeners(t *testing.T) {
	c := newTestCluster(t, 1, map[string]string{
		"listeners":                      "INSIDE://127.0.0.1:0,OUTSIDE://[::1]:0",
		"listener.security.protocol.map": "INSIDE:PLAINTEXT,OUTSIDE:PLAINTEXT",
		"inter.broker.listener.name":     "INSIDE",
	})
	endpoints := c.brokers[1].Endpoints()
	if len(endpoints) != 2 || endpoints[0].Port == 0 || endpoints[0].Port == endpoints[1].Port {
		t.Fatalf("endpoints %v", endpoints)
	}
	for _, endpoint := range endpoints {
		client := c.client(kgo.SeedBrokers(address(endpoint)), kgo.DefaultProduceTopic("two"))
		if err := client.ProduceSync(t.Context(), kgo.StringRecord("x")).FirstErr(); err != nil {
			t.Fatalf("%v: %v", endpoint, err)
		}
		seen := client.DiscoveredBrokers()
		if len(seen) != 1 {
			t.Fatalf("%v leads to %v", endpoint, seen)
		}
	}
}
