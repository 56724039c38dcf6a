package replication

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/partition"
)

// Manager hosts this broker's replicas.
type Manager struct {
	config   Config
	logger   *slog.Logger
	settings partition.Settings
	started  time.Time
	wheel    *wheel
	alter    AlterPartitionSender
	clock    func() time.Time // time.Now, or the owner's of a stepped manager
	stepped  *Stepping        // nil: the manager runs by itself
	// aliveFunc is m.alive, made into a value once.
	aliveFunc func(cluster.BrokerID) bool
	right     leadershipRight
	leaving   atomic.Bool   // see Leave
	repairs   chan struct{} // capacity 1: a reader has come upon damage
	// repairFetch is how a stepped manager's repairer asks; nil: over a connection.
	repairFetch RepairFetch

	// control serialises LeaderAndISR, StopReplica and the checks of UpdateMetadata.
	control struct {
		sync.Mutex
		controllerEpoch cluster.ControllerEpoch // last seen; starts at 0 with the process
	}
	hosts struct {
		sync.RWMutex
		byTP map[cluster.TopicPartition]*hosted
		// strangers are followers' fetches that wait for a partition that is not hosted yet.
		strangers []*fetchOp
	}
	roleChanges struct {
		sync.RWMutex
		byTopic map[string]RoleChange
	}
	fetchers struct {
		sync.Mutex
		byKey  map[fetcherKey]*fetcher
		closed bool
	}

	syncs struct { // guards the start of syncSoonLocked's goroutines; the innermost lock
		sync.Mutex
		closed bool
	}

	stop       context.Context // ended by Close
	cancel     context.CancelFunc
	goroutines sync.WaitGroup
}

// New returns a manager that hosts nothing yet, and starts its goroutines.
func New(config Config) *Manager {
	m := newManager(config, nil)
	if m.alter == nil {
		channel := newAlterPartitionChannel(m)
		go channel.run()
		m.alter = channel
	}
	m.start(m.wheel.run)
	m.start(m.tick)
	m.start(m.repair)
	return m
}

func newManager(config Config, stepping *Stepping) *Manager {
	config.setDefaults()
	clock := time.Now
	if stepping != nil {
		clock = stepping.Clock
	}
	m := &Manager{
		config:   config,
		logger:   config.Logger,
		settings: partition.Settings{Self: config.Self, LagTimeMax: config.ReplicaLagTimeMax},
		started:  clock(),
		clock:    clock,
		stepped:  stepping,
		alter:    config.AlterPartition,
		repairs:  make(chan struct{}, 1),
	}
	m.hosts.byTP = map[cluster.TopicPartition]*hosted{}
	m.roleChanges.byTopic = map[string]RoleChange{}
	m.fetchers.byKey = map[fetcherKey]*fetcher{}
	m.stop, m.cancel = context.WithCancel(context.Background())
	m.aliveFunc = m.alive
	m.wheel = newWheelAt(m.since)
	m.right.lastTick.Store(int64(m.now()))
	return m
}

func (c *Config) setDefaults() {
	setDefault(&c.ReplicaLagTimeMax, 30*time.Second)
	setDefault(&c.NumFetchers, 1)
	setDefault(&c.FetchMaxWait, 500*time.Millisecond)
	setDefault(&c.FetchMinBytes, 1)
	setDefault(&c.FetchMaxBytes, 1<<20)
	setDefault(&c.FetchResponseMaxBytes, 10<<20)
	setDefault(&c.FetchBackoff, 10*time.Millisecond)
	setDefault(&c.HighWatermarkInterval, 5*time.Second)
	setDefault(&c.SocketTimeout, 30*time.Second)
	setDefault(&c.PauseLimit, time.Second)
	setDefault(&c.InterBrokerListener, "PLAINTEXT")
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Epoch == nil {
		c.Epoch = func() cluster.BrokerEpoch { return cluster.UnknownBrokerEpoch }
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// start runs a goroutine that ends with m.stop and that Close waits for.
func (m *Manager) start(run func(ctx context.Context)) {
	m.goroutines.Add(1)
	go func() {
		defer m.goroutines.Done()
		run(m.stop)
	}()
}

// now is the core's clock: monotonic, and never near zero.
func (m *Manager) now() partition.Instant { return partition.Instant(m.since() + time.Hour) }

func (m *Manager) since() time.Duration { return m.clock().Sub(m.started) }

func comparePartitions(a, b cluster.TopicPartition) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
}

func (m *Manager) environment(h *hosted) partition.Environment {
	return partition.Environment{Now: m.now(), MinISR: h.minISR, Alive: m.aliveFunc}
}

func (m *Manager) alive(id cluster.BrokerID) bool { return m.config.Metadata.Image().Alive(id) }

func (m *Manager) host(tp cluster.TopicPartition) *hosted {
	m.hosts.RLock()
	defer m.hosts.RUnlock()
	return m.hosts.byTP[tp]
}

// allHosts returns the hosted partitions; in order only where a run must be repeatable.
func (m *Manager) allHosts() []*hosted {
	m.hosts.RLock()
	defer m.hosts.RUnlock()
	all := make([]*hosted, 0, len(m.hosts.byTP))
	for _, h := range m.hosts.byTP {
		all = append(all, h)
	}
	if m.stepped != nil {
		slices.SortFunc(all, func(a, b *hosted) int { return comparePartitions(a.tp, b.tp) })
	}
	return all
}

// LeaderOf says who leads a partition: what the last LeaderAndIsr said if it is hosted here,
// else what the metadata cache says.
func (m *Manager) LeaderOf(tp cluster.TopicPartition) LeaderHint {
	if h := m.host(tp); h != nil {
		return h.leaderHint()
	}
	if state, found := m.config.Metadata.Image().Partition(tp); found {
		return LeaderHint{Leader: state.Leader, Epoch: state.LeaderEpoch}
	}
	return LeaderHint{Leader: cluster.NoBroker, Epoch: cluster.NoLeaderEpoch}
}

// Hosted reports whether this broker has a replica of the partition.
func (m *Manager) Hosted(tp cluster.TopicPartition) bool { return m.host(tp) != nil }

// Describe returns a snapshot of one hosted partition.
func (m *Manager) Describe(tp cluster.TopicPartition) (PartitionDescription, bool) {
	h := m.host(tp)
	if h == nil {
		return PartitionDescription{}, false
	}
	return h.describe(m), true
}

// DescribeAll returns a snapshot of every hosted partition, by topic and number.
func (m *Manager) DescribeAll() []PartitionDescription {
	all := m.allHosts()
	slices.SortFunc(all, func(a, b *hosted) int { return comparePartitions(a.tp, b.tp) })
	descriptions := make([]PartitionDescription, len(all))
	for i, h := range all {
		descriptions[i] = h.describe(m)
	}
	return descriptions
}

// OnRoleChange registers the coordinator of an internal topic. Register before the first
// LeaderAndISR.
func (m *Manager) OnRoleChange(topic string, change RoleChange) {
	m.roleChanges.Lock()
	defer m.roleChanges.Unlock()
	m.roleChanges.byTopic[topic] = change
}

func (m *Manager) roleChange(topic string) RoleChange {
	m.roleChanges.RLock()
	defer m.roleChanges.RUnlock()
	return m.roleChanges.byTopic[topic]
}

// UpdateTopicConfig reads a topic's configuration again (/config/changes) and gives it to the
// topic's logs.
func (m *Manager) UpdateTopicConfig(topic string) {
	config, err := m.config.TopicConfig(topic)
	if err != nil {
		m.logger.Warn("topic configuration not read, the old one stays", "topic", topic, "err", err)
		return
	}
	effects := takeEffects()
	for _, h := range m.allHosts() {
		if h.tp.Topic == topic {
			h.log.SetConfig(config)
			h.mu.Lock()
			h.minISR = int(config.MinInsyncReplicas)
			m.setDurableLocked(h, config.FlushMessages)
			m.syncSoonLocked(h)
			env := m.environment(h)
			if h.replica.Reconsider(&env) {
				h.highWatermarkMovedLocked(effects)
			}
			h.mu.Unlock()
		}
	}
	m.run(effects)
}

// Leave says that the broker is about to be shut down: from now on it does not begin to follow
// leaders whose in-sync set it is not in. Following them would bring nothing but the offer to
// take us in again, and a leader of Apache's, whose controller refuses that, falls behind with
// its acknowledgements: while it asks, its high watermark waits for our fetches, and when it is
// refused it does not look at the high watermark until a follower gets on.
func (m *Manager) Leave() { m.leaving.Store(true) }

// Close stops fetching and acknowledging, answers what waits, and waits for the goroutines.
// The logs stay open and have the high watermarks.
func (m *Manager) Close() {
	m.fetchers.Lock()
	m.fetchers.closed = true
	m.fetchers.Unlock()
	m.syncs.Lock()
	m.syncs.closed = true
	m.syncs.Unlock()
	m.right.close()
	m.cancel()
	m.alter.Close()
	effects := takeEffects()
	for _, h := range m.allHosts() {
		h.mu.Lock()
		h.releaseAllLocked(errNotLeader, effects)
		h.wakeAllLocked(effects)
		h.mu.Unlock()
	}
	m.run(effects)
	m.completeStrangers()
	m.goroutines.Wait()
}
