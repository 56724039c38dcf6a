package broker

import (
	"context"
	"strconv"
	"time"

	"understudy/internal/config"
	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/commitlog"
)

// configReadTimeout bounds the reading of one entity's configuration: a role change that
// waits for it holds up the controller's request.
const configReadTimeout = 10 * time.Second

// defaultEntity names the settings that hold for all brokers (/config/brokers/<default>).
const defaultEntity = "<default>"

// layers are the places that give this broker's keys their values now.
func (b *Broker) layers() config.BrokerLayers { return *b.dynamic.Load() }

// loadDynamicConfig reads the broker's own and the cluster-wide overrides. A failure is
// logged: the static configuration then holds, and the next change reads again.
func (b *Broker) loadDynamicConfig(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, configReadTimeout)
	defer cancel()
	layers := config.BrokerLayers{Static: b.config.Values}
	var err error
	if layers.Dynamic, err = b.registry.BrokerConfig(ctx, b.id); err != nil {
		b.logger.Warn("cannot read the broker's dynamic configuration", "error", err)
	}
	if layers.DynamicDefault, err = b.registry.BrokerConfig(ctx, cluster.NoBroker); err != nil {
		b.logger.Warn("cannot read the cluster's dynamic configuration", "error", err)
	}
	b.dynamic.Store(&layers)
}

// topicLogConfig is the effective configuration of a topic's logs. Values that are not valid
// are skipped, as in Kafka; only a failure to read is an error.
func (b *Broker) topicLogConfig(topic string) (commitlog.LogConfig, error) {
	ctx, cancel := context.WithTimeout(context.Background(), configReadTimeout)
	defer cancel()
	overrides, err := b.registry.TopicConfig(ctx, topic)
	if err != nil {
		return commitlog.LogConfig{}, err
	}
	effective, err := config.LogConfig(b.layers(), overrides)
	if err != nil {
		b.logger.Warn("skipping invalid values of a topic's configuration", "topic", topic, "error", err)
	}
	return effective, nil
}

// configChanged takes a note from /config/changes.
func (b *Broker) configChanged(kind, entity string) {
	switch kind {
	case "topics":
		b.logger.Info("topic configuration changed", "topic", entity)
		b.replicas.UpdateTopicConfig(entity)
		b.noteUnclean(entity)
	case "brokers":
		if entity != defaultEntity && entity != strconv.Itoa(int(b.id)) {
			return
		}
		b.logger.Info("broker configuration changed", "entity", entity)
		b.loadDynamicConfig(context.Background())
		topics := map[string]bool{}
		for _, log := range b.logs.All() {
			topics[log.TopicPartition().Topic] = true
		}
		for topic := range topics {
			b.replicas.UpdateTopicConfig(topic)
		}
	}
}
