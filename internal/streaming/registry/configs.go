package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sort"
	"strconv"
	"strings"
	"time"

	"understudy/internal/coordination/zkclient"
	"understudy/internal/streaming/cluster"
)

// TopicConfig reads a topic's overrides; a missing node is an empty map.
func (r *Registry) TopicConfig(ctx context.Context, topic string) (map[string]string, error) {
	return r.EntityConfig(ctx, configTypeTopics, topic)
}

// TopicConfigs reads the overrides of several topics in one batch.
func (r *Registry) TopicConfigs(ctx context.Context, topics []string) (map[string]map[string]string, error) {
	ops := make([]Op, len(topics))
	for i, topic := range topics {
		ops[i] = Op{Kind: OpGet, Path: TopicConfigPath(topic)}
	}
	out := make(map[string]map[string]string, len(topics))
	for i, result := range r.Execute(ctx, nil, ops) {
		config, err := configOf(ops[i].Path, &result)
		if err != nil {
			return nil, err
		}
		out[topics[i]] = config
	}
	return out, nil
}

// BrokerConfig reads a broker's dynamic overrides; NoBroker means the cluster-wide default.
func (r *Registry) BrokerConfig(ctx context.Context, id cluster.BrokerID) (map[string]string, error) {
	return r.EntityConfig(ctx, configTypeBrokers, brokerEntity(id))
}

func brokerEntity(id cluster.BrokerID) string {
	if id == cluster.NoBroker {
		return defaultEntity
	}
	return strconv.Itoa(int(id))
}

// EntityConfig reads the overrides of any entity, e.g. ("topics", "foo").
func (r *Registry) EntityConfig(ctx context.Context, kind, entity string) (map[string]string, error) {
	path := ConfigPath(kind, entity)
	result := r.Execute(ctx, nil, []Op{{Kind: OpGet, Path: path}})[0]
	return configOf(path, &result)
}

func configOf(path string, result *OpResult) (map[string]string, error) {
	if errors.Is(result.Err, ErrNoNode) {
		return map[string]string{}, nil
	}
	if result.Err != nil {
		return nil, fmt.Errorf("read %s: %w", path, result.Err)
	}
	return DecodeConfig(path, result.Data)
}

// SetTopicConfig replaces a topic's overrides and tells every broker.
func (r *Registry) SetTopicConfig(ctx context.Context, topic string, config map[string]string) error {
	return r.SetEntityConfig(ctx, configTypeTopics, topic, config)
}

// SetBrokerConfig replaces a broker's dynamic overrides (NoBroker: the cluster-wide
// default) and tells every broker.
func (r *Registry) SetBrokerConfig(ctx context.Context, id cluster.BrokerID, config map[string]string) error {
	return r.SetEntityConfig(ctx, configTypeBrokers, brokerEntity(id), config)
}

// SetEntityConfig replaces an entity's overrides, guarded by the version of /controller, and
// creates the change notification (AdminZkClient.changeEntityConfig).
func (r *Registry) SetEntityConfig(ctx context.Context, kind, entity string, config map[string]string) error {
	id, version, kraftEpoch, err := r.controller(ctx, false)
	switch {
	case err != nil:
		return err
	case id == cluster.NoBroker:
		return fmt.Errorf("write the configuration of %s %s: %w", kind, entity, ErrNoController)
	case kraftEpoch > 0:
		return fmt.Errorf("write the configuration of %s %s: the controller is in KRaft mode", kind, entity)
	}
	path, data := ConfigPath(kind, entity), EncodeConfig(config)
	result := r.do(ctx, zkclient.Multi(zkclient.Check(PathController, version), zkclient.SetData(path, data, AnyVersion)))
	if errors.Is(result.Err, ErrNoNode) {
		result.Err = r.createRecursive(ctx, path, data)
		if errors.Is(result.Err, ErrNodeExists) {
			result = r.do(ctx, zkclient.SetData(path, data, AnyVersion))
		}
	}
	if result.Err != nil {
		return fmt.Errorf("write %s: %w", path, result.Err)
	}
	note := r.do(ctx, zkclient.CreateSequential(PathConfigChangePrefix, encodeConfigChange(kind+"/"+entity)))
	if note.Err != nil {
		return fmt.Errorf("announce the change of %s: %w", path, note.Err)
	}
	return nil
}

// ConfigChanges follows /config/changes: every broker learns through it which entity's
// overrides to read again. OnEvent and Resync only wake it; Run does the work.
type ConfigChanges struct {
	registry *Registry
	handle   func(kind, entity string)
	logger   *slog.Logger
	wake     chan struct{} // holds one: several events are one rescan
	last     int64         // sequence of the last change processed; memory only
}

// ConfigChanges makes the follower. handle is called on Run's goroutine with e.g.
// ("topics", "foo") or ("brokers", "<default>").
func (r *Registry) ConfigChanges(handle func(kind, entity string)) *ConfigChanges {
	return &ConfigChanges{registry: r, handle: handle, logger: r.logger, wake: make(chan struct{}, 1), last: -1}
}

// OnEvent takes a watch event; it does not block.
func (c *ConfigChanges) OnEvent(event zkclient.Event) {
	if event.Path == PathConfigChanges {
		c.Resync()
	}
}

// Resync scans again, after a new session.
func (c *ConfigChanges) Resync() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Run scans once, which sets the watch, and again whenever woken, until ctx ends.
func (c *ConfigChanges) Run(ctx context.Context) {
	c.Resync()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		if err := c.scan(ctx); err != nil && ctx.Err() == nil {
			c.logger.Warn("cannot read configuration changes", "error", err)
			if pause(ctx, time.Second) == nil {
				c.Resync()
			}
		}
	}
}

// scan processes the notes newer than the last one seen and deletes old ones.
// Any broker deletes: the second one finds the node gone.
func (c *ConfigChanges) scan(ctx context.Context) error {
	listing := c.registry.Execute(ctx, nil, []Op{{Kind: OpChildren, Path: PathConfigChanges, Watch: true}})[0]
	if listing.Err != nil {
		return fmt.Errorf("list %s: %w", PathConfigChanges, listing.Err)
	}
	ops := make([]Op, len(listing.Children))
	for i, name := range listing.Children {
		ops[i] = Op{Kind: OpGet, Path: PathConfigChanges + "/" + name}
	}
	var stale []Op
	nowMs := time.Now().UnixMilli()
	for i, result := range c.registry.Execute(ctx, nil, ops) {
		if errors.Is(result.Err, ErrNoNode) {
			continue
		}
		if result.Err != nil {
			return fmt.Errorf("read %s: %w", ops[i].Path, result.Err)
		}
		c.process(listing.Children[i], result.Data)
		if nowMs-result.CtimeMs > configNotificationLimit {
			stale = append(stale, Op{Kind: OpDelete, Path: ops[i].Path, Version: AnyVersion})
		}
	}
	c.registry.Execute(ctx, nil, stale)
	return nil
}

func (c *ConfigChanges) process(name string, data []byte) {
	sequence, err := strconv.ParseInt(name[strings.LastIndexByte(name, '_')+1:], 10, 64)
	if err != nil || sequence <= c.last {
		return
	}
	c.last = sequence
	entityPath, err := decodeConfigChange(data)
	if err != nil {
		c.logger.Warn("ignoring an unreadable configuration change", "node", name, "error", err)
		return
	}
	kind, entity, found := strings.Cut(entityPath, "/")
	if found {
		c.handle(kind, entity)
	}
}

// ReportLogDirFailure tells the controller that a log directory of this broker failed.
func (r *Registry) ReportLogDirFailure(ctx context.Context, broker cluster.BrokerID) error {
	return r.do(ctx, zkclient.CreateSequential(PathLogDirEventPrefix, encodeLogDirEvent(broker))).Err
}

// ConfiguredEntities lists the entities of a kind that have overrides, for loading at start.
func (r *Registry) ConfiguredEntities(ctx context.Context, kind string) ([]string, error) {
	result := r.Execute(ctx, nil, []Op{{Kind: OpChildren, Path: PathConfig + "/" + kind}})[0]
	if errors.Is(result.Err, ErrNoNode) {
		return nil, nil
	}
	sort.Strings(result.Children)
	return result.Children, result.Err
}
