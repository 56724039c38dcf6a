package broker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/zkclient"
	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/controller"
	"understudy/internal/streaming/registry"
)

// sessionKeeper owns the broker's ZooKeeper session: it connects, keeps what the next
// incarnation needs on disk, and begins a new session when one has expired.
//
// An expired session takes the registration with it, so the controller elects other leaders:
// until its LeaderAndIsr arrives this broker must not act as a leader. The mere loss of the
// connection changes nothing: a leader serves through that.
type sessionKeeper struct {
	b        *Broker
	registry *registry.Registry
	expired  chan struct{} // capacity 1
	ctx      context.Context
	cancel   context.CancelFunc
	done     chan struct{} // closed when run has ended; nil before follow

	mu struct {
		sync.Mutex
		client     *zkclient.Client
		old        []jute.SessionID // sessions of ours whose registration may still stand
		file       string           // where the session was saved last
		controller *controller.Controller
		configs    *registry.ConfigChanges
	}
}

// rememberedSessions bounds the former sessions that are remembered as ours.
const rememberedSessions = 16

func newSessionKeeper(b *Broker) *sessionKeeper {
	k := &sessionKeeper{b: b, expired: make(chan struct{}, 1)}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	return k
}

func (k *sessionKeeper) clientConfig() zkclient.Config {
	return zkclient.Config{
		Servers:         k.b.config.ZooKeeperConnect,
		SessionTimeout:  k.b.config.ZooKeeperSessionTimeout,
		FastExpiryGrace: k.b.config.fastExpiryGrace(),
		Dial:            k.b.config.DialZooKeeper,
		Logger:          k.b.logger,
	}
}

// connect begins the first session.
func (k *sessionKeeper) connect(ctx context.Context) error {
	timeout := k.b.config.ZooKeeperConnectionTimeout
	if timeout <= 0 {
		timeout = k.b.config.ZooKeeperSessionTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := registry.EnsureChroot(ctx, k.clientConfig()); err != nil {
		return k.connectError(err)
	}
	client, err := k.begin(ctx)
	if err != nil {
		return k.connectError(err)
	}
	k.registry = registry.New(client, k.b.logger)
	return nil
}

func (k *sessionKeeper) connectError(err error) error {
	return fmt.Errorf("zookeeper.connect=%s: %w; is the ensemble running?", k.b.config.ZooKeeperConnect, err)
}

// begin makes a client whose events reach whoever follows.
func (k *sessionKeeper) begin(ctx context.Context) (*zkclient.Client, error) {
	cfg := k.clientConfig()
	var self *zkclient.Client
	ready := make(chan struct{})
	cfg.OnEvent = func(event zkclient.Event) {
		controller, configs := k.followers()
		if controller != nil {
			controller.OnZkEvent(event)
			configs.OnEvent(event)
		}
	}
	cfg.OnState = func(state zkclient.State) {
		if state != zkclient.Expired {
			return
		}
		go func() { // the callback may run before Connect has returned
			<-ready
			k.onExpired(self)
		}()
	}
	client, err := zkclient.Connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	self = client
	k.mu.Lock()
	k.mu.client = client
	k.mu.Unlock()
	close(ready)
	return client, nil
}

func (k *sessionKeeper) followers() (*controller.Controller, *registry.ConfigChanges) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mu.controller, k.mu.configs
}

func (k *sessionKeeper) current() *zkclient.Client {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mu.client
}

// closePrevious ends the session of an earlier incarnation, so that its registration goes
// now and not when the session times out, and saves the present one. What cannot be closed
// is waited for when registering.
func (k *sessionKeeper) closePrevious(ctx context.Context) {
	for _, file := range k.b.config.sessionFiles() {
		saved, ok, err := registry.LoadSession(file, k.b.config.ZooKeeperConnect, k.b.clusterID, int32(k.b.id))
		if err != nil {
			k.b.logger.Warn("cannot use the saved session", "error", err)
			continue
		}
		if !ok {
			continue
		}
		k.mu.Lock()
		k.mu.old = append(k.mu.old, saved.ID)
		k.mu.Unlock()
		closing, cancel := context.WithTimeout(ctx, 5*time.Second)
		err = zkclient.CloseSession(closing, k.clientConfig(), saved.Session())
		cancel()
		switch {
		case err == nil:
			k.b.logger.Info("closed the session of the previous incarnation", "session", fmt.Sprintf("0x%x", uint64(saved.ID)))
		case errors.Is(err, zkclient.ErrSessionExpired):
		default:
			k.b.logger.Warn("cannot close the session of the previous incarnation", "session", fmt.Sprintf("0x%x", uint64(saved.ID)), "error", err)
		}
	}
	k.save(k.current().Session())
}

// save writes the session for the next incarnation, to the first place that takes it.
func (k *sessionKeeper) save(session zkclient.Session) {
	var err error
	for _, file := range k.b.config.sessionFiles() {
		err = registry.SaveSession(file, registry.SavedSession{
			Servers: k.b.config.ZooKeeperConnect, ClusterID: k.b.clusterID, BrokerID: int32(k.b.id), ID: session.ID, Password: session.Password,
		})
		if err == nil {
			k.mu.Lock()
			k.mu.file = file
			k.mu.Unlock()
			return
		}
	}
	k.b.logger.Warn("cannot save the session: after a crash the next start has to wait for it to expire", "error", err)
}

// previous lists sessions of ours whose registration may be deleted.
func (k *sessionKeeper) previous() []jute.SessionID {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]jute.SessionID(nil), k.mu.old...)
}

// follow names who is told of events, and starts to react to expiry.
func (k *sessionKeeper) follow(controller *controller.Controller, configs *registry.ConfigChanges) {
	k.mu.Lock()
	k.mu.controller, k.mu.configs = controller, configs
	k.done = make(chan struct{})
	k.mu.Unlock()
	go k.run()
}

// onExpired suspends what depends on the session and has run begin a new one.
func (k *sessionKeeper) onExpired(client *zkclient.Client) {
	if client != k.current() || k.ctx.Err() != nil {
		return
	}
	k.b.logger.Warn("zookeeper session expired", "session", fmt.Sprintf("0x%x", uint64(client.Session().ID)))
	if k.b.replicas != nil {
		k.b.replicas.SuspendLeadership("session expired")
	}
	if controller, _ := k.followers(); controller != nil {
		controller.OnSession(expiredChange)
	}
	select {
	case k.expired <- struct{}{}:
	default:
	}
}

const (
	expiredChange = controller.SessionExpired
	renewedChange = controller.SessionRenewed
)

// run begins a new session after each expiry, however long that takes.
func (k *sessionKeeper) run() {
	defer close(k.done)
	for {
		select {
		case <-k.ctx.Done():
			return
		case <-k.expired:
		}
		k.renew()
	}
}

func (k *sessionKeeper) renew() {
	old := k.current().Session().ID
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		client, err := k.begin(k.ctx)
		if err == nil {
			k.mu.Lock()
			k.mu.old = append(k.mu.old, old)
			if len(k.mu.old) > rememberedSessions {
				k.mu.old = k.mu.old[1:]
			}
			k.mu.Unlock()
			k.save(client.Session())
			k.registry.Attach(client)
			k.b.logger.Info("new zookeeper session", "session", fmt.Sprintf("0x%x", uint64(client.Session().ID)))
			controller, configs := k.followers()
			controller.OnSession(renewedChange)
			configs.Resync()
			return
		}
		if k.ctx.Err() != nil {
			return
		}
		k.b.logger.Warn("cannot begin a new zookeeper session", "error", err)
		select {
		case <-k.ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// confirm asks the ensemble whether our registration still stands: nil if it does.
func (k *sessionKeeper) confirm(ctx context.Context) error {
	path := registry.BrokerPath(k.b.id)
	client := k.current()
	if result := client.Do(ctx, zkclient.Sync(path)); result.Err != nil {
		return result.Err
	}
	result := client.Do(ctx, zkclient.Exists(path, false))
	if result.Err != nil {
		return result.Err
	}
	if epoch := cluster.BrokerEpoch(result.Stat.Czxid); epoch != k.b.Epoch() {
		return fmt.Errorf("%s has broker epoch %d, ours is %d", path, epoch, k.b.Epoch())
	}
	return nil
}

// reconnectWait is how long close waits for a server to end the session on.
const reconnectWait = 500 * time.Millisecond

// close ends the session, and with it the registration, and forgets it on disk.
func (k *sessionKeeper) close() {
	k.cancel()
	if k.done != nil {
		<-k.done
	}
	client := k.current()
	if client == nil {
		return
	}
	// An ensemble that is not there may be stopping as we are.
	waiting, cancel := context.WithTimeout(context.Background(), reconnectWait)
	defer cancel()
	if client.WaitConnected(waiting) != nil {
		client.Abandon()
		k.b.logger.Warn("the zookeeper session is left to expire: no server answers", "session", fmt.Sprintf("0x%x", uint64(client.Session().ID)))
		return // the file stays: the next start closes it
	}
	if err := client.Close(); err != nil {
		k.b.logger.Warn("cannot close the zookeeper session", "error", err)
		return // the file stays: the next start tries again
	}
	k.mu.Lock()
	file := k.mu.file
	k.mu.Unlock()
	if file != "" {
		if err := registry.RemoveSession(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			k.b.logger.Warn("cannot remove the saved session", "error", err)
		}
	}
}
