package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"understudy/internal/config"
	"understudy/internal/port"
	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/commitlog"
	"understudy/internal/streaming/controller"
	"understudy/internal/streaming/group"
	"understudy/internal/streaming/metadata"
	"understudy/internal/streaming/producerid"
	"understudy/internal/streaming/registry"
	"understudy/internal/streaming/replication"
	"understudy/internal/streaming/wire"
)

// Broker is one broker. Make it with New, then Start, then Shutdown.
//
// The fields are set by Start in its order and never change after, so handlers read them
// without a lock; what changes is atomic or has a lock of its own.
type Broker struct {
	config Config
	logger *slog.Logger

	id        cluster.BrokerID
	clusterID string
	lastStop  cluster.StopKind
	epoch     atomic.Int64 // cluster.BrokerEpoch of the present registration

	control    controlOrder
	logs       *commitlog.Manager
	session    *sessionKeeper
	registry   *registry.Registry
	metadata   *metadata.Cache
	server     *wire.Server
	replicas   *replication.Manager
	controller *controller.Controller
	configs    *registry.ConfigChanges

	groups                *group.Coordinator
	producerIDs           *producerid.Manager
	offsetsTopicComplaint complaint
	features              featuresEpoch

	listeners  []net.Listener
	advertised []cluster.Endpoint
	fetches    *fetchSessions
	created    *autoCreator

	now     func() time.Time                    // time.Now, or the owner's of a stepped broker
	dynamic atomic.Pointer[config.BrokerLayers] // what is configured for this broker now
	fatal   chan error                          // capacity 1: why the broker cannot go on

	failed struct { // log directories
		sync.Mutex
		dirs map[string]bool
	}

	background sync.WaitGroup
	stop       context.CancelFunc
	stopping   atomic.Bool
}

// New returns a broker that has done nothing yet.
func New(cfg Config) *Broker {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	b := &Broker{
		config:   cfg,
		logger:   loggerOf(cfg.Logger, cfg.ID),
		id:       cfg.ID,
		metadata: metadata.New(),
		now:      time.Now,
		fatal:    make(chan error, 1),
	}
	b.epoch.Store(int64(cluster.UnknownBrokerEpoch))
	b.dynamic.Store(&config.BrokerLayers{Static: cfg.Values})
	return b
}

// loggerOf marks every line with the broker that wrote it; the key "broker" is for the one that
// a line is about.
func loggerOf(logger *slog.Logger, id cluster.BrokerID) *slog.Logger {
	return logger.With("node", int32(id))
}

// ID is broker.id; final after Start.
func (b *Broker) ID() cluster.BrokerID { return b.id }

// ClusterID is the cluster's id; known after Start.
func (b *Broker) ClusterID() string { return b.clusterID }

// Epoch is the czxid of the present registration.
func (b *Broker) Epoch() cluster.BrokerEpoch { return cluster.BrokerEpoch(b.epoch.Load()) }

// Endpoints are the advertised addresses, with the ports that were really bound.
func (b *Broker) Endpoints() []cluster.Endpoint { return b.advertised }

// Fatal delivers an error after which the broker must be shut down (its last log directory
// failed).
func (b *Broker) Fatal() <-chan error { return b.fatal }

// Start brings the broker up; it returns when requests are served. When it fails, everything
// that it had started is stopped again.
func (b *Broker) Start(ctx context.Context) (err error) {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	b.stop = stop
	started := time.Now()
	defer func() {
		if err != nil {
			_ = b.teardown(context.Background()) // the failure to start is what matters
		}
	}()
	if err := b.checkPorts(); err != nil {
		return err
	}
	if err := b.openLogs(); err != nil {
		return err
	}
	if err := b.joinEnsemble(ctx); err != nil {
		return err
	}
	b.loadDynamicConfig(ctx)
	if err := b.bind(); err != nil {
		return err
	}
	b.startReplication()
	if err := b.startCoordinators(running); err != nil {
		return err
	}
	b.registerHandlers()
	for i, listener := range b.listeners {
		b.server.Serve(listener, b.config.Listeners[i].Listener)
	}
	if err := b.register(ctx); err != nil {
		return err
	}
	b.startController(running)
	b.server.Enable()
	b.awaitMetadata(ctx)
	b.logger.Info("broker started", "clusterId", b.clusterID, "brokerEpoch", int64(b.Epoch()), "took", time.Since(started).Round(time.Millisecond))
	return nil
}

// firstMetadataWait bounds how long Start waits for the controller's first word.
const firstMetadataWait = 3 * time.Second

// awaitMetadata holds Start back until the controller has told this broker that it is part of
// the cluster, so that who waits for the ready line finds a broker that knows the others. A
// cluster without a controller must not keep its brokers from starting.
func (b *Broker) awaitMetadata(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, firstMetadataWait)
	defer cancel()
	if _, err := b.metadata.WaitFor(ctx, func(image *metadata.Image) bool { return image.Alive(b.id) }); err != nil {
		b.logger.Warn("started without a word from the controller", "waited", firstMetadataWait)
	}
}

// AwaitBrokers waits until this broker's metadata names all of the given brokers as alive.
func (b *Broker) AwaitBrokers(ctx context.Context, ids []cluster.BrokerID) error {
	_, err := b.metadata.WaitFor(ctx, func(image *metadata.Image) bool {
		return !slices.ContainsFunc(ids, func(id cluster.BrokerID) bool { return !image.Alive(id) })
	})
	return err
}

// openLogs locks and recovers the log directories. It comes before anything that could
// depose an earlier incarnation, which may still own them.
func (b *Broker) openLogs() error {
	logs, err := commitlog.Open(commitlog.Config{
		Dirs:                    b.config.LogDirs,
		FS:                      b.config.FS,
		BrokerID:                b.config.ID,
		RecoveryThreads:         b.config.NumRecoveryThreadsPerDataDir,
		RetentionCheckInterval:  b.config.LogRetentionCheckInterval,
		CheckpointInterval:      b.config.LogFlushCheckpointInterval,
		ProducerExpiration:      b.config.ProducerIDExpiration,
		ProducerExpirationCheck: b.config.ProducerIDExpirationCheck,
		ScrubBytesPerSecond:     b.config.LogScrubBytesPerSecond,
		OnDirFailure:            b.logDirFailed,
		Logger:                  b.logger,
	})
	if err != nil {
		return err
	}
	b.logs = logs
	b.lastStop = cluster.StopClean
	if logs.UncleanStop() {
		b.lastStop = cluster.StopUnclean
	}
	return nil
}

// joinEnsemble connects to ZooKeeper, finds out who we are, and ends the session that an
// earlier incarnation left behind.
func (b *Broker) joinEnsemble(ctx context.Context) error {
	b.session = newSessionKeeper(b)
	if err := b.session.connect(ctx); err != nil {
		return err
	}
	b.registry = b.session.registry
	if err := b.registry.EnsurePaths(ctx); err != nil {
		return err
	}
	var err error
	if b.clusterID, err = b.registry.ClusterID(ctx); err != nil {
		return err
	}
	if b.id == cluster.NoBroker {
		b.id = b.logs.BrokerID()
	}
	if b.id == cluster.NoBroker {
		if !b.config.IDGeneration {
			return errors.New("broker.id is not set and broker.id.generation.enable is false: set broker.id")
		}
		if b.id, err = b.registry.GenerateBrokerID(ctx, b.config.ReservedBrokerMaxID); err != nil {
			return err
		}
	}
	if b.config.ID == cluster.NoBroker {
		b.logger = loggerOf(b.config.Logger, b.id)
	}
	if err := b.logs.BindCluster(b.clusterID, b.id); err != nil {
		return err
	}
	b.session.closePrevious(ctx)
	return nil
}

// checkPorts finds a port in use before anything is touched. The ports are not held from here
// on: until the broker is registered its address must refuse connections, as a dead broker's
// does, or peers would wait for answers from it.
func (b *Broker) checkPorts() error {
	for _, endpoint := range b.config.Listeners {
		if err := port.Check("listeners", net.JoinHostPort(endpoint.Host, strconv.Itoa(int(endpoint.Port)))); err != nil {
			return err
		}
	}
	return nil
}

// bind opens the ports; connections wait until Enable.
func (b *Broker) bind() error {
	b.server = wire.NewServer(wire.ServerOptions{
		MaxRequestBytes:     b.config.SocketRequestMaxBytes,
		MaxIdle:             b.config.ConnectionsMaxIdle,
		MaxConnections:      b.config.MaxConnections,
		MaxConnectionsPerIP: b.config.MaxConnectionsPerIP,
		Logger:              b.logger,
	})
	for _, endpoint := range b.config.Listeners {
		address := net.JoinHostPort(endpoint.Host, strconv.Itoa(int(endpoint.Port)))
		listener, err := port.Listen("listeners", address)
		if err != nil {
			return err
		}
		b.listeners = append(b.listeners, listener)
	}
	advertised, err := advertise(b.config.Listeners, b.config.AdvertisedListeners, b.listeners)
	if err != nil {
		return err
	}
	b.advertised = advertised
	return nil
}

// advertise fills in what only binding tells: the port where 0 was asked for, and this
// machine's name where no host was given.
func advertise(listeners, advertised []cluster.Endpoint, bound []net.Listener) ([]cluster.Endpoint, error) {
	out := make([]cluster.Endpoint, 0, len(advertised))
	for _, endpoint := range advertised {
		if endpoint.Port == 0 {
			for i := range listeners {
				if address, ok := bound[i].Addr().(*net.TCPAddr); ok && listeners[i].Listener == endpoint.Listener {
					endpoint.Port = int32(address.Port)
				}
			}
		}
		if endpoint.Host == "" {
			host, err := os.Hostname() // as Kafka does
			if err != nil {
				return nil, fmt.Errorf("advertised.listeners: this machine's name is unknown (%w): set advertised.listeners", err)
			}
			endpoint.Host = host
		}
		if ip := net.ParseIP(endpoint.Host); ip != nil && ip.IsUnspecified() {
			return nil, fmt.Errorf("advertised.listeners: nobody can connect to %s: set advertised.listeners to an address that clients and brokers reach", endpoint.Host)
		}
		out = append(out, endpoint)
	}
	return out, nil
}

// register enters the broker under /brokers/ids; from then on its epoch is the new node's
// czxid. The controller calls it again after an expired session.
func (b *Broker) register(ctx context.Context) error {
	epoch, err := b.registry.RegisterBroker(ctx, registry.Registration{
		Broker:        cluster.Broker{ID: b.id, Endpoints: b.advertised, Rack: b.config.Rack, Stop: b.lastStop},
		NowMs:         time.Now().UnixMilli(),
		Previous:      b.session.previous(),
		WaitForExpiry: 2*b.config.ZooKeeperSessionTimeout + 10*time.Second,
	})
	if err != nil {
		return err
	}
	b.epoch.Store(int64(epoch))
	b.logger.Info("registered", "brokerEpoch", int64(epoch), "endpoints", fmt.Sprint(b.advertised))
	return nil
}

// startReplication makes the manager of the hosted partitions. It hosts none until the
// controller says so.
func (b *Broker) startReplication() {
	b.replicas = replication.New(replication.Config{
		Self:                  b.id,
		Epoch:                 b.Epoch,
		Logs:                  b.logs,
		Metadata:              b.metadata,
		TopicConfig:           b.topicLogConfig,
		InterBrokerListener:   b.config.InterBrokerListener,
		ConfirmSession:        b.session.confirm,
		ReplicaLagTimeMax:     b.config.ReplicaLagTimeMax,
		NumFetchers:           b.config.NumReplicaFetchers,
		FetchMaxWait:          b.config.ReplicaFetchWaitMax,
		FetchMinBytes:         b.config.ReplicaFetchMinBytes,
		FetchMaxBytes:         b.config.ReplicaFetchMaxBytes,
		FetchResponseMaxBytes: b.config.ReplicaFetchResponseMaxBytes,
		HighWatermarkInterval: b.config.HighWatermarkCheckpoint,
		SocketTimeout:         b.config.ReplicaSocketTimeout,
		Logger:                b.logger,
	})
	b.fetches = newFetchSessions(b.config.MaxFetchSessions)
	b.created = newAutoCreator(b)
}

// startController takes part in the election and follows configuration changes.
func (b *Broker) startController(running context.Context) {
	b.controller = controller.New(controller.Config{
		Self:     b.id,
		Registry: b.registry,
		Register: b.register,
		Listener: b.config.InterBrokerListener,
		Settings: controller.Settings{
			AutoLeaderRebalance:     b.config.AutoLeaderRebalance,
			LeaderImbalancePercent:  b.config.LeaderImbalancePerBroker,
			LeaderImbalanceInterval: b.config.LeaderImbalanceCheckInterval,
			UncleanLeaderElection:   b.config.UncleanLeaderElection,
			DeleteTopics:            b.config.DeleteTopics,
			SocketTimeout:           b.config.ControllerSocketTimeout,
			RequestTimeout:          b.config.RequestTimeout,
		},
		Logger: b.logger,
	})
	b.configs = b.registry.ConfigChanges(b.configChanged)
	b.session.follow(b.controller, b.configs)
	b.background.Go(func() { b.configs.Run(running) })
	b.controller.Start()
}

// logDirFailed is told by the log, possibly under its locks. The controller hears of it, so
// that the directory's replicas go offline; without its last directory the broker cannot go
// on.
func (b *Broker) logDirFailed(dir string, cause error) {
	b.failed.Lock()
	if b.failed.dirs == nil {
		b.failed.dirs = map[string]bool{}
	}
	b.failed.dirs[dir] = true
	last := len(b.failed.dirs) >= len(b.config.LogDirs)
	b.failed.Unlock()
	b.logger.Error("log directory failed", "dir", dir, "last", last, "error", cause)
	if last {
		select {
		case b.fatal <- fmt.Errorf("log directory %s failed and there is no other: %w", dir, cause):
		default:
		}
		return
	}
	if b.registry == nil || b.stopping.Load() {
		return // while starting: the answers to LeaderAndIsr will tell
	}
	b.background.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), configReadTimeout)
		defer cancel()
		if err := b.registry.ReportLogDirFailure(ctx, b.id); err != nil {
			b.logger.Error("cannot report the failed log directory to the controller", "dir", dir, "error", err)
		}
	})
}

// Shutdown hands leadership over (unless controlled.shutdown.enable is false), answers what
// is in progress, and closes everything; the ZooKeeper session goes last. ctx bounds it: what
// is not done by then is cut short.
func (b *Broker) Shutdown(ctx context.Context) error {
	if !b.stopping.CompareAndSwap(false, true) {
		return nil
	}
	started := time.Now()
	if b.config.ControlledShutdown && b.server != nil {
		b.controlledShutdown(ctx)
		b.linger(ctx)
	}
	err := b.teardown(ctx)
	b.logger.Info("broker stopped", "took", time.Since(started).Round(time.Millisecond))
	return err
}

// tellingPatience bounds how long a controller that stops waits for the brokers to hear of
// their new leaders; those that answer do so within milliseconds, a JVM under load within some
// hundred.
const tellingPatience = time.Second

// farewell is how long a broker that has handed over goes on answering. Requests under way
// to it then get NOT_LEADER_OR_FOLLOWER with the new leader's address, where a closed
// connection would send their clients looking for it.
const farewell = 30 * time.Millisecond

func (b *Broker) linger(ctx context.Context) {
	if b.alone(b.metadata.Image()) || b.controller == nil {
		return
	}
	telling, cancel := context.WithTimeout(ctx, tellingPatience)
	b.controller.AwaitAnswers(telling)
	cancel()
	select {
	case <-time.After(farewell):
	case <-ctx.Done():
	}
}

// teardown stops whatever Start had started, in the reverse order that peers expect.
func (b *Broker) teardown(ctx context.Context) error {
	b.stopping.Store(true)
	if b.stop != nil {
		b.stop()
	}
	b.background.Wait()
	if b.server != nil {
		b.server.StopAccepting()
	}
	for _, listener := range b.listeners {
		_ = listener.Close()
	}
	b.stopCoordinators(ctx)
	if b.replicas != nil {
		b.replicas.Close() // answers what waits
	}
	if b.server != nil {
		closing, cancel := context.WithTimeout(ctx, time.Second)
		_ = b.server.Close(closing)
		cancel()
	}
	var err error
	if b.logs != nil {
		err = b.logs.Close(true)
	}
	if b.controller != nil {
		_ = b.controller.Stop(ctx)
	}
	if b.session != nil {
		b.session.close()
	}
	return err
}
