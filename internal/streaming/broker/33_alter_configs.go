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

// AlterConfigs (key 33), versions 0 to 2: replaces all overrides of a topic, of this broker,
// or of all brokers (broker ""). Any broker serves it and writes to ZooKeeper itself; every
// broker then reads the change.

func (b *Broker) registerAlterConfigs() { b.server.Handle(33, 0, 2, b.handleAlterConfigs) }

func (b *Broker) handleAlterConfigs(request *wire.Request) {
	body := request.Body.(*kmsg.AlterConfigsRequest)
	go func() { // it waits for the ensemble
		response := respond[*kmsg.AlterConfigsResponse](request)
		for i := range body.Resources {
			asked := &body.Resources[i]
			overrides := map[string]string{}
			err := distinctKeys(len(asked.Configs), func(i int) string { return asked.Configs[i].Name })
			for _, entry := range asked.Configs {
				if err == nil && entry.Value == nil {
					err = controller.Refuse(kerr.InvalidRequest, "Null value not supported for : %s", entry.Name)
				}
				if err != nil {
					break
				}
				overrides[entry.Name] = *entry.Value
			}
			if err == nil {
				err = b.alterResource(asked.ResourceType, asked.ResourceName, body.ValidateOnly,
					func(map[string]string) (map[string]string, error) { return overrides, nil })
			}
			answer := kmsg.NewAlterConfigsResponseResource()
			answer.ResourceType, answer.ResourceName = asked.ResourceType, asked.ResourceName
			answer.ErrorCode, answer.ErrorMessage = b.code(err), messageOf(err)
			response.Resources = append(response.Resources, answer)
		}
		request.Reply(response)
	}()
}

// distinctKeys refuses a key that is named twice.
func distinctKeys(count int, name func(int) string) error {
	seen := make(map[string]bool, count)
	for i := range count {
		if seen[name(i)] {
			return controller.Refuse(kerr.InvalidRequest, "Error due to duplicate config keys")
		}
		seen[name(i)] = true
	}
	return nil
}

// alterResource reads a resource's overrides, has them edited, checks the result and writes
// it. Last writer wins, as in Kafka.
func (b *Broker) alterResource(kind kmsg.ConfigResourceType, name string, validateOnly bool,
	edit func(current map[string]string) (map[string]string, error),
) error {
	ctx, cancel := context.WithTimeout(context.Background(), configReadTimeout)
	defer cancel()
	switch kind {
	case kmsg.ConfigResourceTypeTopic:
		return b.alterTopicConfig(ctx, name, validateOnly, edit)
	case kmsg.ConfigResourceTypeBroker:
		return b.alterBrokerConfig(ctx, name, validateOnly, edit)
	}
	return controller.Refuse(kerr.InvalidRequest, "AlterConfigs is only supported for topics and brokers, but resource type is %v", kind)
}

func (b *Broker) alterTopicConfig(ctx context.Context, topic string, validateOnly bool, edit func(map[string]string) (map[string]string, error)) error {
	if topic == "" {
		return controller.Refuse(kerr.InvalidRequest, "Default topic resources are not allowed.")
	}
	if b.metadata.Image().Topic(topic) == nil {
		if _, err := edit(nil); err != nil {
			return err
		}
		return controller.Refuse(kerr.UnknownTopicOrPartition, "The topic '%s' does not exist.", topic)
	}
	current, err := b.registry.TopicConfig(ctx, topic)
	if err != nil {
		return err
	}
	next, err := edit(current)
	if err != nil {
		return err
	}
	if err := config.ValidateTopic(next); err != nil {
		return refuseConfig(err)
	}
	if validateOnly {
		return nil
	}
	return b.registry.SetTopicConfig(ctx, topic, next)
}

func (b *Broker) alterBrokerConfig(ctx context.Context, name string, validateOnly bool, edit func(map[string]string) (map[string]string, error)) error {
	id := cluster.NoBroker // the cluster-wide default
	if name != "" {
		number, err := strconv.ParseInt(name, 10, 32)
		switch {
		case err != nil:
			return controller.Refuse(kerr.InvalidRequest, "Node id must be an integer, but it is: %s", name)
		case cluster.BrokerID(number) != b.id:
			return controller.Refuse(kerr.InvalidRequest, "Unexpected broker id, expected %d, but received %s", b.id, name)
		}
		id = b.id
	}
	current, err := b.registry.BrokerConfig(ctx, id)
	if err != nil {
		return err
	}
	next, err := edit(current)
	if err != nil {
		return err
	}
	if err := b.checkDynamic(current, next); err != nil {
		return err
	}
	if validateOnly {
		return nil
	}
	return b.registry.SetBrokerConfig(ctx, id, next)
}

// checkDynamic refuses keys that only a restart can change, and values that are not valid.
func (b *Broker) checkDynamic(current, next map[string]string) error {
	known := map[string]config.Entry{}
	for _, entry := range config.DescribeBroker(config.BrokerLayers{}) {
		known[entry.Name] = entry
	}
	var fixed []string
	for name, value := range next {
		entry, found := known[name]
		if found && !entry.ReadOnly || current[name] == value {
			continue
		}
		fixed = append(fixed, name)
	}
	if len(fixed) > 0 {
		slices.Sort(fixed)
		return controller.Refuse(kerr.InvalidRequest, "Cannot update these configs dynamically: Set(%s)", strings.Join(fixed, ", "))
	}
	values := map[string]string{}
	for name, value := range b.config.Values {
		values[name] = value
	}
	for name, value := range next {
		values[name] = value
	}
	if _, _, err := config.ParseBroker(values, false); err != nil {
		return controller.Refuse(kerr.InvalidRequest, "%s", err)
	}
	return nil
}

// noteUnclean tells the controller, if this broker is it, that a topic whose configuration
// has changed now allows unclean elections: partitions without a leader may get one.
func (b *Broker) noteUnclean(topic string) {
	if !b.controller.Active() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), configReadTimeout)
	defer cancel()
	overrides, err := b.registry.TopicConfig(ctx, topic)
	if err != nil {
		b.logger.Warn("cannot read a topic's configuration", "topic", topic, "error", err)
		return
	}
	b.controller.TopicConfigChanged(topic, overrides["unclean.leader.election.enable"] == "true")
}
