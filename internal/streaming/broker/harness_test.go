package broker

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"understudy/internal/config"
	"understudy/internal/coordination/coordinator"
	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/metadata"
)

// testLogger is silent unless UNDERSTUDY_TEST_LOG names a level.
func testLogger(t testing.TB) *slog.Logger {
	var level slog.Level
	if text := os.Getenv("UNDERSTUDY_TEST_LOG"); text == "" || level.UnmarshalText([]byte(text)) != nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("test", t.Name())
}

// testCluster is an ensemble of one and some brokers, in this process.
type testCluster struct {
	t       testing.TB
	dir     string
	servers string // zookeeper.connect
	brokers map[int]*Broker
	extra   map[string]string
	logger  *slog.Logger
	grace   time.Duration // asked of the ensemble, as Config.FastExpiryGrace
}

// newTestCluster starts an ensemble and brokers 1 to n. UNDERSTUDY_TEST_ZOOKEEPER names a
// running ensemble to use instead (an Apache one, say).
func newTestCluster(t testing.TB, n int, extra map[string]string) *testCluster {
	t.Helper()
	c := &testCluster{t: t, dir: t.TempDir(), brokers: map[int]*Broker{}, extra: extra, logger: testLogger(t)}
	if servers := os.Getenv("UNDERSTUDY_TEST_ZOOKEEPER"); servers != "" {
		c.servers = servers + "/" + strings.ReplaceAll(t.Name(), "/", "-") + strconv.FormatInt(time.Now().UnixNano(), 36)
	} else {
		c.servers = startEnsemble(t)
	}
	for id := 1; id <= n; id++ {
		c.start(id)
	}
	t.Cleanup(func() {
		for id := range c.brokers {
			c.shutdown(id)
		}
	})
	c.awaitAlive(n)
	return c
}

func startEnsemble(t testing.TB) string {
	t.Helper()
	ensemble, err := coordinator.Start(t.Context(), coordinator.Config{
		DataDir: t.TempDir(), ClientAddr: "127.0.0.1:0", TickTime: 500 * time.Millisecond,
		MinSessionTimeout: time.Second, MaxSessionTimeout: time.Minute, Logger: testLogger(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = ensemble.Stop(ctx)
	})
	if err := ensemble.AwaitServing(t.Context()); err != nil {
		t.Fatal(err)
	}
	return ensemble.Addr()
}

// start starts a broker on its directory.
func (c *testCluster) start(id int) *Broker {
	c.t.Helper()
	if err := c.tryStart(id); err != nil {
		c.t.Fatal(err)
	}
	return c.brokers[id]
}

func (c *testCluster) tryStart(id int) error {
	c.t.Helper()
	dir := filepath.Join(c.dir, strconv.Itoa(id))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		c.t.Fatal(err)
	}
	values := map[string]string{
		"broker.id":                        strconv.Itoa(id),
		"listeners":                        "PLAINTEXT://127.0.0.1:0",
		"zookeeper.connect":                c.servers,
		"log.dirs":                         filepath.Join(dir, "log"),
		"offsets.topic.replication.factor": "1",
		"offsets.topic.num.partitions":     "3",
		"group.initial.rebalance.delay.ms": "0",
	}
	for key, value := range c.extra {
		values[key] = value
	}
	settings, _, err := config.ParseBroker(values, false)
	if err != nil {
		c.t.Fatal(err)
	}
	b := New(Config{Broker: settings, FastExpiryGrace: c.grace, Logger: c.logger})
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	if err := b.Start(ctx); err != nil {
		return err
	}
	c.brokers[id] = b
	return nil
}

func (c *testCluster) shutdown(id int) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := c.brokers[id].Shutdown(ctx); err != nil {
		c.t.Errorf("shutdown of broker %d: %v", id, err)
	}
	delete(c.brokers, id)
}

// crash ends a broker as kill -9 does, as far as its peers can tell: sockets close, the
// session is left behind, and so is the file that names it.
func (c *testCluster) crash(id int) {
	b := c.brokers[id]
	delete(c.brokers, id)
	b.stopping.Store(true)
	b.stop()
	b.session.cancel()
	b.session.current().Abandon()
	for _, listener := range b.listeners {
		_ = listener.Close()
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = b.server.Close(ctx)
	_ = b.controller.Stop(ctx)
	b.stopCoordinators(ctx)
	b.replicas.Close()
	_ = b.logs.Close(false)
	b.background.Wait()
}

func (c *testCluster) seeds() []string {
	var addrs []string
	for _, b := range c.brokers {
		addrs = append(addrs, address(b.Endpoints()[0]))
	}
	return addrs
}

func address(endpoint cluster.Endpoint) string {
	return net.JoinHostPort(endpoint.Host, strconv.Itoa(int(endpoint.Port)))
}

func (c *testCluster) client(options ...kgo.Opt) *kgo.Client {
	c.t.Helper()
	options = append([]kgo.Opt{
		kgo.SeedBrokers(c.seeds()...), kgo.MetadataMinAge(10 * time.Millisecond), kgo.AllowAutoTopicCreation(),
		kgo.RetryBackoffFn(func(int) time.Duration { return 10 * time.Millisecond }),
	}, options...)
	client, err := kgo.NewClient(options...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(client.Close)
	return client
}

// createTopic makes a topic and waits until every broker knows its leaders.
func (c *testCluster) createTopic(name string, partitions int32, factor int16, configs map[string]*string) {
	c.t.Helper()
	if _, err := kadm.NewClient(c.client()).CreateTopic(c.t.Context(), partitions, factor, configs, name); err != nil {
		c.t.Fatalf("create %s: %v", name, err)
	}
	c.await(fmt.Sprintf("leaders of %s", name), func(image *metadata.Image) bool { return allLed(image, name) })
}

// await waits until every broker's metadata satisfies a condition.
func (c *testCluster) await(what string, condition func(*metadata.Image) bool) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	for id, b := range c.brokers {
		if _, err := b.metadata.WaitFor(ctx, condition); err != nil {
			c.t.Fatalf("broker %d never saw %s", id, what)
		}
	}
}

func (c *testCluster) awaitAlive(count int) {
	c.t.Helper()
	c.await(fmt.Sprintf("%d brokers", count), func(image *metadata.Image) bool {
		return len(image.Brokers()) == count && image.ControllerID() != cluster.NoBroker
	})
}

func (c *testCluster) leader(topic string, partition int32) int {
	for _, b := range c.brokers {
		state, _ := b.metadata.Image().Partition(cluster.TopicPartition{Topic: topic, Partition: partition})
		return int(state.Leader)
	}
	return -1
}
