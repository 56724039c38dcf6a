package replication

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"understudy/internal/streaming/cluster"
)

// TestNothingAcknowledgedIsLost kills and restarts brokers, with crashed logs, under a steady
// stream of appends with acks=all, and then looks for every acknowledged record.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	c := newTestCluster(t, 3, func(config *Config) { config.ReplicaLagTimeMax = 400 * time.Millisecond })
	c.topic.MinInsyncReplicas = 2
	c.elect(t0, 1, ids(1, 2, 3))

	load := newLoad(c)
	for range 12 {
		load.awaitProgress(t, 20)
		victim := cluster.BrokerID(random.IntN(3) + 1)
		load.pause() // the test's map of brokers is not locked
		c.kill(victim)
		c.publish()
		c.electFromISR(random)
		load.resume()
		if random.IntN(2) == 0 {
			load.awaitProgress(t, 20)
		}
		load.pause()
		c.restart(victim)
		c.electFromISR(random)
		load.resume()
	}
	load.awaitProgress(t, 20)
	acknowledged := load.stop()

	c.eventually("all are in sync", func() bool {
		c.mu.Lock()
		leader := c.states[t0].Leader
		c.mu.Unlock()
		return len(c.describe(leader, t0).ISR) == 3
	})
	for id := range c.brokers {
		log := c.values(id, t0)
		places := map[string]int{}
		for at, value := range log {
			if _, twice := places[value]; twice {
				t.Errorf("broker %d holds %s twice", id, value)
			}
			places[value] = at
		}
		last := -1
		for _, value := range acknowledged {
			at, found := places[value]
			if !found {
				t.Errorf("broker %d lost %s, which was acknowledged", id, value)
			} else if at < last {
				t.Errorf("broker %d holds %s out of order", id, value)
			}
			last = at
		}
	}
	t.Logf("%d records acknowledged", len(acknowledged))
}

// electFromISR is the controller's reaction to brokers that came or went: dead members leave
// the ISR while one is left, and the first that is alive leads.
func (c *testCluster) electFromISR(random *rand.Rand) {
	c.mu.Lock()
	state := *c.states[t0]
	c.mu.Unlock()
	alive := slices.DeleteFunc(slices.Clone(state.ISR), func(id cluster.BrokerID) bool { return !c.brokers[id].alive })
	if len(alive) == 0 {
		c.elect(t0, cluster.NoBroker, state.ISR[:1], 1, 2, 3)
		return
	}
	leader := state.Leader
	if leader == cluster.NoBroker || !slices.Contains(alive, leader) || random.IntN(3) == 0 {
		leader = alive[random.IntN(len(alive))]
	}
	c.elect(t0, leader, alive)
}

// load appends one record after the other to whoever leads.
type load struct {
	c     *testCluster
	gate  sync.RWMutex // held for writing: paused
	ended chan struct{}
	done  chan struct{}

	mu           sync.Mutex
	acknowledged []string
	failures     int
}

func newLoad(c *testCluster) *load {
	l := &load{c: c, ended: make(chan struct{}), done: make(chan struct{})}
	go l.run()
	return l
}

func (l *load) run() {
	defer close(l.done)
	for number := 0; ; number++ {
		select {
		case <-l.ended:
			return
		default:
		}
		value := fmt.Sprint("record-", number)
		if !l.produce(value) {
			time.Sleep(time.Millisecond)
		}
	}
}

func (l *load) produce(value string) bool {
	l.gate.RLock()
	l.c.mu.Lock()
	leader := l.c.states[t0].Leader
	l.c.mu.Unlock()
	if leader == cluster.NoBroker || !l.c.brokers[leader].alive {
		l.gate.RUnlock()
		return false
	}
	answered := l.c.produce(leader, t0, AcksAll, value)
	l.gate.RUnlock()
	result := <-answered
	l.mu.Lock()
	defer l.mu.Unlock()
	if result.Err == nil {
		l.acknowledged = append(l.acknowledged, value)
		return true
	}
	l.failures++
	return false
}

func (l *load) pause()  { l.gate.Lock() }
func (l *load) resume() { l.gate.Unlock() }

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acknowledged)
}

func (l *load) awaitProgress(t *testing.T, more int) {
	t.Helper()
	target := l.count() + more
	l.c.eventually("more records are acknowledged", func() bool { return l.count() >= target })
}

func (l *load) stop() []string {
	close(l.ended)
	<-l.done
	return l.acknowledged
}
