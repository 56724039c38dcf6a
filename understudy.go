// Package understudy runs a whole cluster, a coordinator and brokers that speak the protocols
// of Apache ZooKeeper and Apache Kafka, inside a Go program: for a test, a tool or a laptop.
//
//	cluster, err := understudy.Start(ctx, understudy.Config{Data: t.TempDir()})
//	…
//	defer cluster.Stop(ctx)
//	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.Kafka()...))
//
// The servers are those of the command line; nothing is simulated.
package understudy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"understudy/internal/config"
	"understudy/internal/coordination/coordinator"
	"understudy/internal/port"
	"understudy/internal/streaming/broker"
	"understudy/internal/streaming/cluster"
	"understudy/internal/vfs"
)

// Config of a cluster. The zero value runs one broker on free loopback ports and needs Data
// alone.
type Config struct {
	// Kafka is the address of the first broker, "127.0.0.1:0" if empty. Brokers 2..N take
	// the next ports, or free ones if the port is 0.
	Kafka string
	// ZooKeeper is the coordinator's client address, "127.0.0.1:0" if empty.
	ZooKeeper string
	// Data is the directory that everything is kept in; it is created if missing. A cluster
	// that is started on it again finds its data again.
	Data string
	// Brokers is their number, 1 if zero.
	Brokers int
	// Properties are added to every broker's configuration (Kafka's keys).
	Properties map[string]string
	// Logger gets the servers' log; nil drops it.
	Logger *slog.Logger
}

// Cluster is a running one.
type Cluster struct {
	config      Config
	lock        interface{ Close() error } // of the data directory
	coordinator *coordinator.Coordinator
	brokers     []*broker.Broker
	done        chan struct{} // closed when a server ended by itself
	failure     error         // why; set before done is closed
	stop        chan struct{}
	watching    sync.WaitGroup
}

const (
	// tickTime is short, so that a paused broker's session of three seconds is granted and
	// its end is noticed soon.
	tickTime           = 500 * time.Millisecond
	minSessionTimeout  = time.Second
	maxSessionTimeout  = time.Minute
	internalReplicas   = 3
	coordinatorDirName = "coordinator"
)

// Start brings a cluster up; it serves when Start returns.
func Start(ctx context.Context, config Config) (*Cluster, error) {
	if config.Data == "" {
		return nil, errors.New("understudy: no data directory is given")
	}
	if config.Kafka == "" {
		config.Kafka = "127.0.0.1:0"
	}
	if config.ZooKeeper == "" {
		config.ZooKeeper = "127.0.0.1:0"
	}
	if config.Brokers < 0 {
		return nil, fmt.Errorf("understudy: %d brokers are asked for: give 1 or more", config.Brokers)
	}
	config.Brokers = max(config.Brokers, 1)
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Cluster{config: config, done: make(chan struct{}), stop: make(chan struct{})}
	if err := c.start(ctx); err != nil {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = c.Stop(stopping) // the failure to start is what matters
		return nil, err
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) error {
	if err := c.lockData(); err != nil {
		return err
	}
	addresses, err := c.addresses()
	if err != nil {
		return err
	}
	c.coordinator, err = coordinator.Start(ctx, coordinator.Config{
		DataDir: filepath.Join(c.config.Data, coordinatorDirName), ClientAddr: c.config.ZooKeeper,
		TickTime: tickTime, MinSessionTimeout: minSessionTimeout, MaxSessionTimeout: maxSessionTimeout,
		FourLetterWhitelist: []string{"*"}, Logger: c.config.Logger,
	})
	if err != nil {
		return err
	}
	if err := c.coordinator.AwaitServing(ctx); err != nil {
		return err
	}
	if err := c.startBrokers(ctx, addresses); err != nil {
		return err
	}
	c.watch()
	return nil
}

// addresses lists the brokers' addresses. What is wrong with them, and with the coordinator's,
// is found here, before anything runs.
func (c *Cluster) addresses() ([]string, error) {
	host, first, err := port.Split(kafkaSetting, c.config.Kafka)
	if err != nil {
		return nil, err
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		return nil, fmt.Errorf("%s: nobody can connect to %s: give an address of this machine that clients reach", kafkaSetting, host)
	}
	if first != 0 && first+c.config.Brokers-1 > port.Max {
		return nil, fmt.Errorf("%s: %s leaves no room below port %d for %d brokers: choose a lower port, or 0 for free ones", kafkaSetting, c.config.Kafka, port.Max, c.config.Brokers)
	}
	addresses := make([]string, c.config.Brokers)
	for i := range addresses {
		number := 0
		if first != 0 {
			number = first + i
		}
		addresses[i] = net.JoinHostPort(host, strconv.Itoa(number))
		if err := port.Check(kafkaSetting, addresses[i]); err != nil {
			return nil, err
		}
	}
	return addresses, port.Check("the ZooKeeper address", c.config.ZooKeeper)
}

// kafkaSetting is what errors call Config.Kafka.
const kafkaSetting = "the Kafka address"

// lockData keeps a second cluster out of the directory before any server touches it.
func (c *Cluster) lockData() error {
	if err := os.MkdirAll(c.config.Data, 0o755); err != nil {
		return fmt.Errorf("the data directory %s cannot be made: %w", c.config.Data, err)
	}
	lock, err := vfs.OS().Lock(filepath.Join(c.config.Data, ".lock"))
	if errors.Is(err, vfs.ErrLocked) {
		return fmt.Errorf("the data directory %s is in use by another understudy; stop it or choose another directory", c.config.Data)
	}
	if err != nil {
		return fmt.Errorf("the data directory %s cannot be locked: %w", c.config.Data, err)
	}
	c.lock = lock
	return nil
}

// startBrokers starts the first broker alone, so that it is the controller and the others
// find one, then the others side by side.
func (c *Cluster) startBrokers(ctx context.Context, addresses []string) error {
	configs := make([]broker.Config, len(addresses))
	for i, address := range addresses {
		var err error
		if configs[i], err = c.brokerConfig(i+1, address); err != nil {
			return err
		}
	}
	errs := make([]error, len(configs))
	var starting sync.WaitGroup
	for i, brokerConfig := range configs {
		one := broker.New(brokerConfig)
		c.brokers = append(c.brokers, one)
		if i == 0 {
			if err := one.Start(ctx); err != nil {
				c.brokers = nil
				return err
			}
			continue
		}
		starting.Go(func() { errs[i] = one.Start(ctx) })
	}
	starting.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return c.awaitMetadata(ctx)
}

// metadataWait bounds how long Start waits for the brokers to hear of each other.
const metadataWait = 5 * time.Second

// awaitMetadata waits until every broker knows all of them: a client that is told "ready" and
// asks one of them for a topic with a replica on each must get it.
func (c *Cluster) awaitMetadata(ctx context.Context) error {
	ids := make([]cluster.BrokerID, len(c.brokers))
	for i, one := range c.brokers {
		ids[i] = one.ID()
	}
	waiting, cancel := context.WithTimeout(ctx, metadataWait)
	defer cancel()
	for _, one := range c.brokers {
		if err := one.AwaitBrokers(waiting, ids); err != nil {
			return fmt.Errorf("broker %d does not hear of all brokers: %w", one.ID(), err)
		}
	}
	return nil
}

func (c *Cluster) brokerConfig(id int, addr string) (broker.Config, error) {
	dir := filepath.Join(c.config.Data, fmt.Sprintf("broker-%d", id))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return broker.Config{}, err
	}
	replicas := fmt.Sprint(min(internalReplicas, c.config.Brokers))
	values := map[string]string{
		"broker.id":                        strconv.Itoa(id),
		"listeners":                        "PLAINTEXT://" + addr,
		"zookeeper.connect":                c.coordinator.Addr(),
		"log.dirs":                         filepath.Join(dir, "log"),
		"offsets.topic.replication.factor": replicas,
		"transaction.state.log.replication.factor": replicas,
		"transaction.state.log.min.isr":            fmt.Sprint(min(2, c.config.Brokers)),
		"group.initial.rebalance.delay.ms":         "0",
	}
	for key, value := range c.config.Properties {
		values[key] = value
	}
	settings, _, err := config.ParseBroker(values, false)
	if err != nil {
		return broker.Config{}, err
	}
	return broker.Config{
		Broker: settings, SessionFile: filepath.Join(dir, "zookeeper-session"),
		DialZooKeeper: c.coordinator.Dial, Logger: c.config.Logger,
	}, nil
}

// watch notices a server that ends by itself.
func (c *Cluster) watch() {
	ended := make(chan error, len(c.brokers)+1)
	c.watching.Go(func() {
		select {
		case <-c.coordinator.Done():
			ended <- fmt.Errorf("the coordinator ended: %w", c.coordinator.Err())
		case <-c.stop:
		}
	})
	for _, one := range c.brokers {
		c.watching.Go(func() {
			select {
			case err := <-one.Fatal():
				ended <- fmt.Errorf("broker %d cannot go on: %w", one.ID(), err)
			case <-c.stop:
			}
		})
	}
	c.watching.Go(func() {
		select {
		case c.failure = <-ended:
			close(c.done)
		case <-c.stop:
		}
	})
}

// Kafka returns the brokers' addresses.
func (c *Cluster) Kafka() []string {
	var addrs []string
	for _, one := range c.brokers {
		for _, endpoint := range one.Endpoints() {
			addrs = append(addrs, net.JoinHostPort(endpoint.Host, strconv.Itoa(int(endpoint.Port))))
		}
	}
	return addrs
}

// ZooKeeper returns the coordinator's client address.
func (c *Cluster) ZooKeeper() string { return c.coordinator.Addr() }

// Done is closed when a server of the cluster ended by itself; Err then tells why. The rest
// still runs and wants to be stopped.
func (c *Cluster) Done() <-chan struct{} { return c.done }

// Err is the reason, once Done is closed.
func (c *Cluster) Err() error { return c.failure }

// Stop shuts the cluster down: the brokers, each handing its leaderships over, then the
// coordinator. ctx bounds it.
func (c *Cluster) Stop(ctx context.Context) error {
	close(c.stop)
	c.watching.Wait()
	var errs []error
	// One after the other, the first last: handing over leads to those that still run.
	for i := len(c.brokers) - 1; i >= 0; i-- {
		errs = append(errs, c.brokers[i].Shutdown(ctx))
	}
	if c.coordinator != nil {
		errs = append(errs, c.coordinator.Stop(ctx))
	}
	if c.lock != nil {
		errs = append(errs, c.lock.Close())
	}
	return errors.Join(errs...)
}
