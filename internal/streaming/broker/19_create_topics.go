package broker

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/config"
	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/controller"
	"understudy/internal/streaming/metadata"
	"understudy/internal/streaming/registry"
	"understudy/internal/streaming/wire"
)

// CreateTopics (key 19), versions 0 to 7, served by the active controller's broker. v1
// validateOnly and messages; v4 the broker's default counts (-1); v5 the effective
// configuration in the answer; v7 the topic id. It writes the topics' nodes, which the
// controller finds by its watch, and answers when this broker's metadata shows the leaders.

func (b *Broker) registerCreateTopics() { b.server.Handle(19, 0, 7, b.handleCreateTopics) }

// topicCreation is one topic of a request on its way; err set means it is refused.
type topicCreation struct {
	asked  *kmsg.CreateTopicsRequestTopic
	topic  registry.NewTopic
	factor int16
	err    error
}

func (b *Broker) handleCreateTopics(request *wire.Request) {
	body := request.Body.(*kmsg.CreateTopicsRequest)
	go func() { // it waits for the ensemble and for the controller
		timeout := time.Duration(body.TimeoutMillis) * time.Millisecond
		ctx, cancel := context.WithTimeout(context.Background(), max(timeout, b.config.RequestTimeout))
		defer cancel()
		creations := b.createTopics(ctx, request, body)
		if !body.ValidateOnly {
			b.awaitTopics(timeout, creations)
		}
		request.Reply(b.createTopicsResponse(request, body, creations))
	}()
}

var errNotController = controller.Refuse(kerr.NotController, "This is not the correct controller for this cluster.")

func (b *Broker) createTopics(ctx context.Context, request *wire.Request, body *kmsg.CreateTopicsRequest) []*topicCreation {
	creations := make([]*topicCreation, len(body.Topics))
	for i := range body.Topics {
		creations[i] = &topicCreation{asked: &body.Topics[i]}
	}
	if !b.controller.Active() {
		refuseAll(creations, errNotController)
		return creations
	}
	existing, err := b.existingTopics(ctx)
	if err != nil {
		refuseAll(creations, err)
		return creations
	}
	seen := map[string]int{}
	for _, creation := range creations {
		seen[creation.asked.Topic]++
	}
	for _, creation := range creations {
		if seen[creation.asked.Topic] > 1 {
			creation.err = controller.Refuse(kerr.InvalidRequest, "Found multiple entries for this topic.")
			continue
		}
		creation.err = b.prepareTopic(creation, existing)
	}
	if !body.ValidateOnly {
		b.writeTopics(ctx, creations)
	}
	return creations
}

func refuseAll(creations []*topicCreation, err error) {
	for _, creation := range creations {
		creation.err = err
	}
}

// existingTopics are those with a node and those waiting for their deletion: neither name
// can be taken.
func (b *Broker) existingTopics(ctx context.Context) ([]string, error) {
	topics, err := b.registry.Topics(ctx, false)
	if err != nil {
		return nil, err
	}
	marked, err := b.registry.TopicsMarkedDeleted(ctx)
	if err != nil {
		return nil, err
	}
	topics = append(topics, marked...)
	sort.Strings(topics)
	return slices.Compact(topics), nil
}

// prepareTopic checks a topic and decides where its replicas go.
func (b *Broker) prepareTopic(creation *topicCreation, existing []string) error {
	asked := creation.asked
	if err := b.checkTopicName(asked.Topic, existing); err != nil {
		return err
	}
	overrides, err := topicOverrides(asked.Configs)
	if err != nil {
		return err
	}
	assignment, err := b.assignTopic(asked)
	if err != nil {
		return err
	}
	if err := config.ValidateTopic(overrides); err != nil {
		return refuseConfig(err)
	}
	creation.factor = int16(len(assignment[0].Replicas))
	creation.topic = registry.NewTopic{
		Name: asked.Topic, Config: overrides,
		Assignment: registry.TopicAssignment{ID: cluster.NewTopicID(), Partitions: assignment},
	}
	return nil
}

func (b *Broker) checkTopicName(name string, existing []string) error {
	if _, exists := slices.BinarySearch(existing, name); exists {
		return controller.Refuse(kerr.TopicAlreadyExists, "Topic '%s' already exists.", name)
	}
	if err := controller.ValidateTopicName(name); err != nil {
		return err
	}
	if name == "__cluster_metadata" {
		return controller.Refuse(kerr.InvalidRequest, "Creation of internal topic __cluster_metadata is prohibited.")
	}
	if colliding := controller.CollidingTopics(name, existing); len(colliding) > 0 {
		return controller.Refuse(kerr.InvalidTopicException, "Topic '%s' collides with existing topics: %s", name, strings.Join(colliding, ", "))
	}
	return nil
}

func topicOverrides(configs []kmsg.CreateTopicsRequestTopicConfig) (map[string]string, error) {
	overrides := make(map[string]string, len(configs))
	for _, entry := range configs {
		if entry.Value == nil {
			return nil, controller.Refuse(kerr.InvalidConfig, "Null value not supported for topic configs: %s", entry.Name)
		}
		overrides[entry.Name] = *entry.Value
	}
	return overrides, nil
}

// assignTopic takes the replica lists given, or places replicas itself. The result has
// partitions 0 to n-1, at least one.
func (b *Broker) assignTopic(asked *kmsg.CreateTopicsRequestTopic) (map[int32]registry.Assignment, error) {
	if len(asked.ReplicaAssignment) > 0 {
		if asked.NumPartitions != -1 || asked.ReplicationFactor != -1 {
			return nil, controller.Refuse(kerr.InvalidRequest,
				"Both numPartitions or replicationFactor and replicasAssignments were set. Both cannot be used at the same time.")
		}
		return givenAssignment(asked.ReplicaAssignment)
	}
	placement := controller.Placement{
		Brokers: b.metadata.Image().Brokers(), Partitions: asked.NumPartitions, Factor: asked.ReplicationFactor,
		FixedStart: -1, Random: newRandom(),
	}
	if placement.Partitions == -1 {
		placement.Partitions = b.config.NumPartitions
	}
	if placement.Factor == -1 {
		placement.Factor = b.config.DefaultReplicationFactor
	}
	lists, err := placement.Place()
	if err != nil {
		return nil, err
	}
	return numbered(lists, 0), nil
}

func newRandom() *rand.Rand { return rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())) }

func numbered(lists [][]cluster.BrokerID, first int32) map[int32]registry.Assignment {
	out := make(map[int32]registry.Assignment, len(lists))
	for i, replicas := range lists {
		out[first+int32(i)] = registry.Assignment{Replicas: replicas}
	}
	return out
}

// givenAssignment checks replica lists as AdminZkClient.validateTopicCreate does. Brokers
// that do not exist are accepted, as in Kafka, and the last of several lists for one partition
// stands.
func givenAssignment(given []kmsg.CreateTopicsRequestTopicReplicaAssignment) (map[int32]registry.Assignment, error) {
	lists := make(map[int32][]int32, len(given))
	for _, entry := range given {
		lists[entry.Partition] = entry.Replicas
	}
	out := make(map[int32]registry.Assignment, len(lists))
	for _, number := range slices.Sorted(maps.Keys(lists)) {
		replicas, err := checkReplicas(lists[number])
		if err != nil {
			return nil, err
		}
		out[number] = registry.Assignment{Replicas: replicas}
	}
	for number := range int32(len(out)) {
		assignment, there := out[number]
		if !there {
			return nil, controller.Refuse(kerr.InvalidReplicaAssignment, "partitions should be a consecutive 0-based integer sequence")
		}
		if len(assignment.Replicas) != len(out[0].Replicas) {
			return nil, controller.Refuse(kerr.InvalidReplicaAssignment, "All partitions should have the same number of replicas")
		}
	}
	return out, nil
}

func checkReplicas(list []int32) ([]cluster.BrokerID, error) {
	if len(list) == 0 {
		return nil, controller.Refuse(kerr.InvalidReplicaAssignment, "Replica assignment has an empty replica list.")
	}
	var replicas []cluster.BrokerID
	for _, id := range list {
		if id < 0 || slices.Contains(replicas, cluster.BrokerID(id)) {
			return nil, controller.Refuse(kerr.InvalidReplicaAssignment, "Duplicate or negative replica in assignment: %v", list)
		}
		replicas = append(replicas, cluster.BrokerID(id))
	}
	return replicas, nil
}

func (b *Broker) writeTopics(ctx context.Context, creations []*topicCreation) {
	var topics []registry.NewTopic
	var writing []*topicCreation
	for _, creation := range creations {
		if creation.err == nil {
			topics, writing = append(topics, creation.topic), append(writing, creation)
		}
	}
	for i, err := range b.createWhenDeleted(ctx, topics) {
		switch {
		case errors.Is(err, registry.ErrBeingDeleted):
			writing[i].err = controller.Refuse(kerr.TopicAlreadyExists, "Topic '%s' is marked for deletion.", topics[i].Name)
		case errors.Is(err, registry.ErrNodeExists):
			writing[i].err = controller.Refuse(kerr.TopicAlreadyExists, "Topic '%s' already exists.", topics[i].Name)
		case err != nil:
			writing[i].err = err
		default:
			b.logger.Info("topic created", "topic", topics[i].Name, "partitions", len(topics[i].Assignment.Partitions),
				"replicationFactor", writing[i].factor, "topicId", topics[i].Assignment.ID.String())
		}
	}
}

// createWhenDeleted creates topics. Between the end of an earlier topic of the same name and the
// removal of the mark for its deletion there is a moment in which clients know nothing of
// either: that is waited for.
func (b *Broker) createWhenDeleted(ctx context.Context, topics []registry.NewTopic) []error {
	const patience, pause = time.Second, 5 * time.Millisecond
	errs := b.registry.CreateTopics(ctx, topics)
	for waited := time.Duration(0); waited < patience && ctx.Err() == nil; waited += pause {
		var again []registry.NewTopic
		var at []int
		for i, err := range errs {
			if errors.Is(err, registry.ErrBeingDeleted) {
				again, at = append(again, topics[i]), append(at, i)
			}
		}
		if len(again) == 0 {
			break
		}
		time.Sleep(pause)
		for i, err := range b.registry.CreateTopics(ctx, again) {
			errs[at[i]] = err
		}
	}
	return errs
}

// awaitTopics waits until this broker knows leaders for all partitions; a topic that does
// not get there in time is reported as timed out, though it exists.
func (b *Broker) awaitTopics(timeout time.Duration, creations []*topicCreation) {
	led := func(image *metadata.Image, creation *topicCreation) bool {
		for number := range creation.topic.Assignment.Partitions {
			p, found := image.Partition(cluster.TopicPartition{Topic: creation.topic.Name, Partition: number})
			if !found || p.Leader < 0 {
				return false
			}
		}
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	_, err := b.metadata.WaitFor(ctx, func(image *metadata.Image) bool {
		return !slices.ContainsFunc(creations, func(c *topicCreation) bool { return c.err == nil && !led(image, c) })
	})
	if err == nil && timeout > 0 {
		return
	}
	image := b.metadata.Image()
	for _, creation := range creations {
		if creation.err == nil && (timeout <= 0 || !led(image, creation)) {
			creation.err = kerr.RequestTimedOut
		}
	}
}

func (b *Broker) createTopicsResponse(request *wire.Request, body *kmsg.CreateTopicsRequest, creations []*topicCreation) *kmsg.CreateTopicsResponse {
	response := respond[*kmsg.CreateTopicsResponse](request)
	for _, creation := range creations {
		answer := kmsg.NewCreateTopicsResponseTopic()
		answer.Topic = creation.asked.Topic
		answer.ErrorCode, answer.ErrorMessage = b.code(creation.err), messageOf(creation.err)
		answer.NumPartitions, answer.ReplicationFactor = -1, -1
		answer.Configs = []kmsg.CreateTopicsResponseTopicConfig{} // null is for who must not see them
		if creation.err == nil {
			answer.NumPartitions, answer.ReplicationFactor = int32(len(creation.topic.Assignment.Partitions)), creation.factor
			answer.Configs = b.createdConfigs(creation.topic.Config)
			if !body.ValidateOnly {
				answer.TopicID = creation.topic.Assignment.ID
			}
		}
		response.Topics = append(response.Topics, answer)
	}
	return response
}

// messageOf is the error's text for clients: Kafka's where there is one, nothing otherwise.
func messageOf(err error) *string {
	var refusal *controller.Refusal
	var protocol *kerr.Error
	switch {
	case errors.As(err, &refusal):
		return &refusal.Message
	case errors.As(err, &protocol):
		return &protocol.Description
	}
	return nil
}

func (b *Broker) createdConfigs(overrides map[string]string) []kmsg.CreateTopicsResponseTopicConfig {
	var out []kmsg.CreateTopicsResponseTopicConfig
	for _, entry := range config.DescribeTopic(overrides, b.layers()) {
		described := kmsg.NewCreateTopicsResponseTopicConfig()
		described.Name, described.Value = entry.Name, entry.Value
		described.ReadOnly, described.Source, described.IsSensitive = entry.ReadOnly, int8(entry.Source), entry.Sensitive
		out = append(out, described)
	}
	return out
}

// brokerList writes ids as Kafka's messages do: 1,2,3.
func brokerList(ids []cluster.BrokerID) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = strconv.Itoa(int(id))
	}
	return strings.Join(texts, ",")
}

// refuseConfig answers for a topic's overrides that are not valid; Kafka's words where tools
// look for them.
func refuseConfig(err error) error {
	var problems config.Problems
	if errors.As(err, &problems) && len(problems) > 0 && strings.HasPrefix(problems[0].Reason, "no such topic key") {
		return controller.Refuse(kerr.InvalidConfig, "Unknown topic config name: %s", problems[0].Key)
	}
	return controller.Refuse(kerr.InvalidConfig, "%s", strings.TrimPrefix(err.Error(), "configuration: "))
}
