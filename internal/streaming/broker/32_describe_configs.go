package broker

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/config"
	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/controller"
	"understudy/internal/streaming/wire"
)

// DescribeConfigs (key 32), versions 0 to 4: topics from any broker, a broker's own
// configuration from that broker, and the cluster-wide dynamic defaults (broker ""). v1
// synonyms and sources, v3 types and documentation.

func (b *Broker) registerDescribeConfigs() { b.server.Handle(32, 0, 4, b.handleDescribeConfigs) }

func (b *Broker) handleDescribeConfigs(request *wire.Request) {
	body := request.Body.(*kmsg.DescribeConfigsRequest)
	go func() { // it reads the topics' nodes
		ctx, cancel := context.WithTimeout(context.Background(), configReadTimeout)
		defer cancel()
		response := respond[*kmsg.DescribeConfigsResponse](request)
		var refused error // one resource of an unknown kind fails all of them
		for i := range body.Resources {
			if kind := body.Resources[i].ResourceType; kind != kmsg.ConfigResourceTypeTopic && kind != kmsg.ConfigResourceTypeBroker {
				refused = kerr.InvalidRequest
			}
		}
		for i := range body.Resources {
			asked := &body.Resources[i]
			answer := kmsg.NewDescribeConfigsResponseResource()
			answer.ResourceType, answer.ResourceName = asked.ResourceType, asked.ResourceName
			var entries []config.Entry
			err := refused
			if err == nil {
				entries, err = b.describeResource(ctx, asked)
			}
			answer.ErrorCode, answer.ErrorMessage = b.code(err), messageOf(err)
			if err == nil {
				answer.ErrorMessage = kmsg.StringPtr("")
			}
			for j := range entries {
				if len(asked.ConfigNames) == 0 || slices.Contains(asked.ConfigNames, entries[j].Name) {
					answer.Configs = append(answer.Configs, describedConfig(body, &entries[j]))
				}
			}
			response.Resources = append(response.Resources, answer)
		}
		request.Reply(response)
	}()
}

func (b *Broker) describeResource(ctx context.Context, asked *kmsg.DescribeConfigsRequestResource) ([]config.Entry, error) {
	switch asked.ResourceType {
	case kmsg.ConfigResourceTypeTopic:
		return b.describeTopic(ctx, asked.ResourceName)
	case kmsg.ConfigResourceTypeBroker:
		if asked.ResourceName == "" {
			return b.describeClusterDefaults(), nil
		}
		id, err := strconv.ParseInt(asked.ResourceName, 10, 32)
		switch {
		case err != nil:
			return nil, controller.Refuse(kerr.InvalidRequest, "Broker id must be an integer, but it is: %s", asked.ResourceName)
		case cluster.BrokerID(id) != b.id:
			return nil, controller.Refuse(kerr.InvalidRequest, "Unexpected broker id, expected %d or empty string, but received %s", b.id, asked.ResourceName)
		}
		return b.describeBroker(), nil
	}
	return nil, kerr.InvalidRequest
}

// undescribed are keys that Kafka knows and does not list unless they are set: what is internal
// to it, and what belongs to a plugin.
var undescribed = map[string]bool{
	"allow.everyone.if.no.acl.found": true, "super.users": true,
	"group.consumer.migration.policy": true, "group.coordinator.new.enable": true, "group.share.enable": true,
	"log.initial.task.delay.ms": true, "metadata.log.segment.min.bytes": true, "producer.id.expiration.check.interval.ms": true,
	"remote.log.manager.task.retry.backoff.max.ms": true, "remote.log.manager.task.retry.backoff.ms": true, "remote.log.manager.task.retry.jitter": true,
	"server.max.startup.time.ms": true, "unclean.leader.election.interval.ms": true, "unstable.api.versions.enable": true, "unstable.feature.versions.enable": true,
	"zookeeper.metadata.migration.min.batch.size": true,
}

func (b *Broker) describeBroker() []config.Entry {
	entries := config.DescribeBroker(b.layers())
	if at := slices.IndexFunc(entries, func(entry config.Entry) bool { return entry.Name == "node.id" }); at >= 0 && entries[at].Source == config.SourceDefault {
		value := strconv.Itoa(int(b.id)) // it follows broker.id
		entries[at].Value, entries[at].Source = &value, config.SourceStaticBroker
		entries[at].Synonyms = []config.Synonym{{Name: "node.id", Value: &value, Source: config.SourceStaticBroker}, {Name: "node.id", Value: kmsg.StringPtr("-1"), Source: config.SourceDefault}}
	}
	return slices.DeleteFunc(entries, func(entry config.Entry) bool {
		return entry.Source == config.SourceDefault && (undescribed[entry.Name] || strings.HasPrefix(entry.Name, "understudy."))
	})
}

func (b *Broker) describeTopic(ctx context.Context, topic string) ([]config.Entry, error) {
	if err := controller.ValidateTopicName(topic); err != nil {
		return nil, err
	}
	if b.metadata.Image().Topic(topic) == nil {
		return nil, kerr.UnknownTopicOrPartition
	}
	overrides, err := b.registry.TopicConfig(ctx, topic)
	if err != nil {
		return nil, err
	}
	return config.DescribeTopic(overrides, b.layers()), nil
}

// describeClusterDefaults lists only what has been set dynamically for all brokers.
func (b *Broker) describeClusterDefaults() []config.Entry {
	defaults := b.layers().DynamicDefault
	var out []config.Entry
	for _, entry := range config.DescribeBroker(config.BrokerLayers{DynamicDefault: defaults}) {
		if _, set := defaults[entry.Name]; set {
			entry.Synonyms = slices.DeleteFunc(entry.Synonyms, func(s config.Synonym) bool { return s.Source != config.SourceDynamicDefaultBroker })
			out = append(out, entry)
		}
	}
	return out
}

func describedConfig(body *kmsg.DescribeConfigsRequest, entry *config.Entry) kmsg.DescribeConfigsResponseResourceConfig {
	described := kmsg.NewDescribeConfigsResponseResourceConfig()
	described.Name, described.Value = entry.Name, entry.Value
	described.ReadOnly, described.IsSensitive = entry.ReadOnly, entry.Sensitive
	described.Source = kmsg.ConfigSource(entry.Source)
	described.ConfigType = kmsg.ConfigType(entry.Type)
	if body.IncludeDocumentation {
		described.Documentation = kmsg.StringPtr(entry.Doc)
	}
	if body.IncludeSynonyms {
		for _, synonym := range entry.Synonyms {
			described.ConfigSynonyms = append(described.ConfigSynonyms, kmsg.DescribeConfigsResponseResourceConfigConfigSynonym{
				Name: synonym.Name, Value: synonym.Value, Source: kmsg.ConfigSource(synonym.Source),
			})
		}
	}
	return described
}
