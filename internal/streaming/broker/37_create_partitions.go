package broker

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/controller"
	"understudy/internal/streaming/metadata"
	"understudy/internal/streaming/registry"
	"understudy/internal/streaming/wire"
)

// CreatePartitions (key 37), versions 0 to 3, served by the active controller's broker: it
// writes the longer assignment, which the controller finds by its watch, and answers when
// this broker's metadata shows the new leaders.

func (b *Broker) registerCreatePartitions() { b.server.Handle(37, 0, 3, b.handleCreatePartitions) }

func (b *Broker) handleCreatePartitions(request *wire.Request) {
	body := request.Body.(*kmsg.CreatePartitionsRequest)
	response := respond[*kmsg.CreatePartitionsResponse](request)
	go func() {
		timeout := time.Duration(body.TimeoutMillis) * time.Millisecond
		ctx, cancel := context.WithTimeout(context.Background(), max(timeout, b.config.RequestTimeout))
		defer cancel()
		grown := map[string]int32{}   // to be awaited: topic and its new count
		answered := map[string]bool{} // one answer for each name
		for i := range body.Topics {
			asked := &body.Topics[i]
			if answered[asked.Topic] {
				continue
			}
			answered[asked.Topic] = true
			err := b.growTopic(ctx, body, asked)
			message := messageOf(err)
			if errors.Is(err, kerr.NotController) {
				message = nil
			}
			if err == nil && !body.ValidateOnly {
				grown[asked.Topic] = asked.Count
			}
			answer := kmsg.NewCreatePartitionsResponseTopic()
			answer.Topic, answer.ErrorCode, answer.ErrorMessage = asked.Topic, b.code(err), message
			response.Topics = append(response.Topics, answer)
		}
		b.awaitPartitions(timeout, grown, response)
		request.Reply(response)
	}()
}

// growTopic checks one topic of the request and writes its new assignment.
func (b *Broker) growTopic(ctx context.Context, body *kmsg.CreatePartitionsRequest, asked *kmsg.CreatePartitionsRequestTopic) error {
	if !b.controller.Active() {
		return kerr.NotController
	}
	times := 0
	for i := range body.Topics {
		if body.Topics[i].Topic == asked.Topic {
			times++
		}
	}
	if times > 1 {
		return controller.Refuse(kerr.InvalidRequest, "Duplicate topic in request.")
	}
	marked, err := b.registry.TopicsMarkedDeleted(ctx)
	if err != nil {
		return err
	}
	if slices.Contains(marked, asked.Topic) {
		return controller.Refuse(kerr.InvalidTopicException, "The topic is queued for deletion.")
	}
	found, err := b.registry.TopicAssignments(ctx, []string{asked.Topic}, false)
	if err != nil {
		return err
	}
	assignment, there := found[asked.Topic]
	if !there || len(assignment.Partitions) == 0 {
		return controller.Refuse(kerr.UnknownTopicOrPartition, "The topic '%s' does not exist.", asked.Topic)
	}
	added, err := b.addedPartitions(ctx, asked, &assignment)
	if err != nil || body.ValidateOnly {
		return err
	}
	for number, replicas := range added {
		assignment.Partitions[number] = replicas
	}
	return b.registry.SetTopicAssignment(ctx, asked.Topic, &assignment)
}

func (b *Broker) addedPartitions(ctx context.Context, asked *kmsg.CreatePartitionsRequestTopic, assignment *registry.TopicAssignment) (map[int32]registry.Assignment, error) {
	old := int32(len(assignment.Partitions))
	for _, p := range assignment.Partitions {
		if p.Reassigning() {
			return nil, controller.Refuse(kerr.ReassignmentInProgress, "A partition reassignment is in progress for the topic '%s'.", asked.Topic)
		}
	}
	switch {
	case asked.Count == old:
		return nil, controller.Refuse(kerr.InvalidPartitions, "Topic already has %d partitions.", old)
	case asked.Count < old:
		return nil, controller.Refuse(kerr.InvalidPartitions, "Topic currently has %d partitions, which is higher than the requested %d.", old, asked.Count)
	}
	live, err := b.registry.Brokers(ctx, false)
	if err != nil {
		return nil, err
	}
	first := assignment.Partitions[0].Replicas
	if asked.Assignment != nil {
		return givenPartitions(asked, old, len(first), live)
	}
	start := slices.IndexFunc(live, func(broker cluster.Broker) bool { return len(first) > 0 && broker.ID == first[0] })
	placement := controller.Placement{
		Brokers: live, Partitions: asked.Count - old, Factor: int16(len(first)), First: old, FixedStart: max(start, 0),
	}
	lists, err := placement.Place()
	if err != nil {
		return nil, err
	}
	return numbered(lists, old), nil
}

func givenPartitions(asked *kmsg.CreatePartitionsRequestTopic, old int32, factor int, live []cluster.Broker) (map[int32]registry.Assignment, error) {
	if len(asked.Assignment) != int(asked.Count-old) {
		return nil, controller.Refuse(kerr.InvalidReplicaAssignment,
			"Increasing the number of partitions by %d but %d assignments provided.", asked.Count-old, len(asked.Assignment))
	}
	var lists [][]cluster.BrokerID
	var unknown []cluster.BrokerID
	for _, entry := range asked.Assignment {
		replicas, err := checkReplicas(entry.Replicas)
		if err != nil {
			return nil, err
		}
		if len(replicas) != factor {
			return nil, controller.Refuse(kerr.InvalidReplicaAssignment,
				"Inconsistent replication factor between partitions, partition 0 has %d while partitions [%d] have replication factors [%d], respectively.",
				factor, int(old)+len(lists), len(replicas))
		}
		for _, id := range replicas {
			if !slices.ContainsFunc(live, func(broker cluster.Broker) bool { return broker.ID == id }) {
				unknown = append(unknown, id)
			}
		}
		lists = append(lists, replicas)
	}
	if len(unknown) > 0 {
		return nil, controller.Refuse(kerr.InvalidReplicaAssignment, "Unknown broker(s) in replica assignment: %s.", brokerList(unknown))
	}
	return numbered(lists, old), nil
}

func (b *Broker) awaitPartitions(timeout time.Duration, grown map[string]int32, response *kmsg.CreatePartitionsResponse) {
	led := func(image *metadata.Image, topic string) bool {
		for number := range grown[topic] {
			p, found := image.Partition(cluster.TopicPartition{Topic: topic, Partition: number})
			if !found || p.Leader < 0 {
				return false
			}
		}
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	_, err := b.metadata.WaitFor(ctx, func(image *metadata.Image) bool {
		for topic := range grown {
			if !led(image, topic) {
				return false
			}
		}
		return true
	})
	if err == nil {
		return
	}
	image := b.metadata.Image()
	for i := range response.Topics {
		answer := &response.Topics[i]
		if _, waited := grown[answer.Topic]; waited && !led(image, answer.Topic) {
			answer.ErrorCode = kerr.RequestTimedOut.Code
		}
	}
}
