package registry

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/zkclient"
	"understudy/internal/streaming/cluster"
)

// EnsureChroot creates the path behind the servers in a connection string, if there is one,
// with a client of its own that has no chroot.
func EnsureChroot(ctx context.Context, config zkclient.Config) error {
	servers, chroot, found := strings.Cut(config.Servers, "/")
	if !found || strings.Trim(chroot, "/") == "" {
		return nil
	}
	config.Servers, config.Resume, config.OnState, config.OnEvent = servers, nil, nil, nil
	client, err := zkclient.Connect(ctx, config)
	if err != nil {
		return fmt.Errorf("create the chroot /%s: %w", chroot, err)
	}
	defer func() { _ = client.Close() }() // the path stands; the session would expire by itself
	err = New(client, config.Logger).createRecursive(ctx, "/"+strings.Trim(chroot, "/"), nil)
	if err != nil && !errors.Is(err, ErrNodeExists) {
		return fmt.Errorf("create the chroot /%s: %w", chroot, err)
	}
	return nil
}

// EnsurePaths creates the persistent paths that every broker makes sure of at start-up.
func (r *Registry) EnsurePaths(ctx context.Context) error {
	ops := make([]Op, len(persistentPaths))
	for i, path := range persistentPaths {
		ops[i] = Op{Kind: OpCreate, Path: path}
	}
	for i, result := range r.Execute(ctx, nil, ops) {
		if result.Err != nil && !errors.Is(result.Err, ErrNodeExists) {
			return fmt.Errorf("create %s: %w", persistentPaths[i], result.Err)
		}
	}
	return nil
}

// ClusterID reads the cluster's id, and writes a random one if it has none yet.
func (r *Registry) ClusterID(ctx context.Context) (string, error) {
	var random [16]byte
	if _, err := rand.Read(random[:]); err != nil {
		return "", fmt.Errorf("make a cluster id: %w", err)
	}
	proposal := base64.RawURLEncoding.EncodeToString(random[:])
	for {
		result := r.do(ctx, zkclient.GetData(PathClusterID, false))
		if result.Err == nil {
			return decodeClusterID(result.Data)
		}
		if !errors.Is(result.Err, ErrNoNode) {
			return "", fmt.Errorf("read %s: %w", PathClusterID, result.Err)
		}
		err := r.createRecursive(ctx, PathClusterID, encodeClusterID(proposal))
		if err != nil && !errors.Is(err, ErrNodeExists) {
			return "", fmt.Errorf("create %s: %w", PathClusterID, err)
		}
	}
}

// GenerateBrokerID takes the next free broker id; the first one is reservedMax + 1
// (reserved.broker.max.id).
func (r *Registry) GenerateBrokerID(ctx context.Context, reservedMax int32) (cluster.BrokerID, error) {
	result := r.do(ctx, zkclient.SetData(PathBrokerSequence, []byte{}, AnyVersion))
	if errors.Is(result.Err, ErrNoNode) {
		if err := r.createRecursive(ctx, PathBrokerSequence, nil); err != nil && !errors.Is(err, ErrNodeExists) {
			return cluster.NoBroker, fmt.Errorf("create %s: %w", PathBrokerSequence, err)
		}
		result = r.do(ctx, zkclient.SetData(PathBrokerSequence, []byte{}, AnyVersion))
	}
	if result.Err != nil {
		return cluster.NoBroker, fmt.Errorf("take a broker id from %s: %w", PathBrokerSequence, result.Err)
	}
	return cluster.BrokerID(reservedMax + result.Stat.Version), nil
}

// Registration is how a broker enters itself under /brokers/ids.
type Registration struct {
	Broker cluster.Broker // its Epoch is ignored
	NowMs  int64
	// Previous are sessions that this broker is known to have had, from its own memory or
	// disk: a node that one of them owns is a leftover and is deleted. 0 entries are ignored.
	Previous []jute.SessionID
	// WaitForExpiry bounds how long to wait for a node of a session not known to be ours to
	// go away. Apache's broker does not wait; ours would rather come back late than not.
	WaitForExpiry time.Duration
}

// RegisterBroker creates the broker's ephemeral node and returns its czxid, the broker
// epoch. It fails with ErrNodeExists if another session holds the id.
func (r *Registry) RegisterBroker(ctx context.Context, registration Registration) (cluster.BrokerEpoch, error) {
	broker := &registration.Broker
	if err := r.checkEndpoints(ctx, broker); err != nil {
		return cluster.UnknownBrokerEpoch, err
	}
	path := BrokerPath(broker.ID)
	data := EncodeBroker(broker, registration.NowMs)
	deadline := time.Now().Add(registration.WaitForExpiry)
	waiting := false
	for {
		result := r.do(ctx, zkclient.Multi(zkclient.CreateEphemeral(path, nil), zkclient.SetData(path, data, 0)))
		if result.Err == nil {
			return cluster.BrokerEpoch(result.Results[1].Stat.Czxid), nil
		}
		if !errors.Is(result.Err, ErrNodeExists) {
			return cluster.UnknownBrokerEpoch, fmt.Errorf("register broker %d: %w", broker.ID, result.Err)
		}
		current := r.do(ctx, zkclient.GetData(path, false))
		if errors.Is(current.Err, ErrNoNode) {
			continue
		}
		if current.Err != nil {
			return cluster.UnknownBrokerEpoch, fmt.Errorf("register broker %d: %w", broker.ID, current.Err)
		}
		owner := current.Stat.EphemeralOwner
		switch {
		case owner == r.store.Load().Session().ID: // our own write whose reply was lost
			return cluster.BrokerEpoch(current.Stat.Czxid), nil
		case isPrevious(owner, registration.Previous):
			if err := r.do(ctx, zkclient.Delete(path, AnyVersion)).Err; err != nil && !errors.Is(err, ErrNoNode) {
				return cluster.UnknownBrokerEpoch, fmt.Errorf("remove the old registration of broker %d: %w", broker.ID, err)
			}
		case time.Now().After(deadline):
			return cluster.UnknownBrokerEpoch, fmt.Errorf(
				"register broker %d: %s belongs to session 0x%x; is another broker with this broker.id running? %w",
				broker.ID, path, uint64(owner), ErrNodeExists)
		default:
			if !waiting {
				waiting = true
				r.logger.Info("waiting for an old registration to expire", "broker", broker.ID,
					"session", fmt.Sprintf("0x%x", uint64(owner)), "atMost", registration.WaitForExpiry)
			}
			if err := pause(ctx, 50*time.Millisecond); err != nil {
				return cluster.UnknownBrokerEpoch, fmt.Errorf("register broker %d: %w", broker.ID, err)
			}
		}
	}
}

func isPrevious(owner jute.SessionID, previous []jute.SessionID) bool {
	for _, session := range previous {
		if session != 0 && session == owner {
			return true
		}
	}
	return false
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// checkEndpoints refuses an address that another broker advertises (KafkaServer.checkAdvertised…).
func (r *Registry) checkEndpoints(ctx context.Context, broker *cluster.Broker) error {
	others, err := r.Brokers(ctx, false)
	if err != nil {
		return err
	}
	for i := range others {
		if others[i].ID == broker.ID {
			continue
		}
		for _, theirs := range others[i].Endpoints {
			for _, ours := range broker.Endpoints {
				if ours.Host == theirs.Host && ours.Port == theirs.Port {
					return fmt.Errorf("configured end points %s:%d in advertised listeners are already registered by broker %d",
						ours.Host, ours.Port, others[i].ID)
				}
			}
		}
	}
	return nil
}

// UpdateBroker rewrites the registration with changed endpoints; the epoch stays.
func (r *Registry) UpdateBroker(ctx context.Context, broker cluster.Broker, nowMs int64) error {
	err := r.do(ctx, zkclient.SetData(BrokerPath(broker.ID), EncodeBroker(&broker, nowMs), AnyVersion)).Err
	if err != nil {
		return fmt.Errorf("update the registration of broker %d: %w", broker.ID, err)
	}
	return nil
}

// Brokers reads all registered brokers, sorted by id; watch sets the child watch on
// /brokers/ids. A broker that vanishes between the listing and the reading is left out, and
// so is a node that does not decode (logged).
func (r *Registry) Brokers(ctx context.Context, watch bool) ([]cluster.Broker, error) {
	listing := r.Execute(ctx, nil, []Op{{Kind: OpChildren, Path: PathBrokerIDs, Watch: watch}})[0]
	if errors.Is(listing.Err, ErrNoNode) && !watch {
		return nil, nil
	}
	if listing.Err != nil {
		return nil, fmt.Errorf("list %s: %w", PathBrokerIDs, listing.Err)
	}
	return r.readBrokers(ctx, listing.Children, false)
}

func (r *Registry) readBrokers(ctx context.Context, names []string, watch bool) ([]cluster.Broker, error) {
	ids := make([]cluster.BrokerID, 0, len(names))
	ops := make([]Op, 0, len(names))
	for _, name := range names {
		id, err := strconv.ParseInt(name, 10, 32)
		if err != nil {
			r.logger.Warn("ignoring a broker whose id is not a number", "node", name)
			continue
		}
		ids = append(ids, cluster.BrokerID(id))
		ops = append(ops, Op{Kind: OpGet, Path: BrokerPath(cluster.BrokerID(id)), Watch: watch})
	}
	out := make([]cluster.Broker, 0, len(ids))
	for i, result := range r.Execute(ctx, nil, ops) {
		if errors.Is(result.Err, ErrNoNode) {
			continue
		}
		if result.Err != nil {
			return nil, fmt.Errorf("read %s: %w", ops[i].Path, result.Err)
		}
		broker, err := BrokerFromResult(ids[i], &result)
		if err != nil {
			r.logger.Warn("ignoring an unreadable broker registration", "broker", ids[i], "error", err)
			continue
		}
		out = append(out, broker)
	}
	sortBrokers(out)
	return out, nil
}

// BrokerFromResult decodes a registration that was read; its czxid is the broker epoch.
func BrokerFromResult(id cluster.BrokerID, result *OpResult) (cluster.Broker, error) {
	broker, err := DecodeBroker(id, result.Data)
	broker.Epoch = cluster.BrokerEpoch(result.Czxid)
	return broker, err
}
