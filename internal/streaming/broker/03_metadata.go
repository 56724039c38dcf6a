package broker

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/controller"
	"understudy/internal/streaming/metadata"
	"understudy/internal/streaming/wire"
)

// Metadata (key 3), versions 0 to 12. v0 an empty list means all topics, from v1 null does;
// v4 the client may forbid auto-creation; v7 leader epochs; v8 authorized operations, which
// are unknown without an authorizer; v10 topic ids, v12 asking by them.
//
// A topic that is created because somebody asked for it is answered once it has leaders, or
// after a moment without: Kafka answers at once, and every client then waits and asks again.

func (b *Broker) registerMetadata() { b.server.Handle(3, 0, 12, b.handleMetadata) }

func (b *Broker) handleMetadata(request *wire.Request) {
	body := request.Body.(*kmsg.MetadataRequest)
	if request.Version < 12 && namesNeeded(body) {
		b.refuseMetadata(request, body)
		return
	}
	body.Topics = distinctTopics(onlyIDs(body.Topics))
	image := b.metadata.Image()
	missing := b.missingTopics(image, request.Version, body)
	if len(missing) == 0 {
		b.replyMetadata(request, image, nil)
		return
	}
	b.created.create(missing, func(errs map[string]error) {
		b.replyMetadata(request, b.metadata.Image(), errs)
	})
}

// namesNeeded reports whether a request before version 12 has a topic without a name, or with
// an id, which versions 10 and 11 carry and do not support.
func namesNeeded(body *kmsg.MetadataRequest) bool {
	return slices.ContainsFunc(body.Topics, func(topic kmsg.MetadataRequestTopic) bool {
		return topic.Topic == nil || topic.TopicID != [16]byte{}
	})
}

func (b *Broker) refuseMetadata(request *wire.Request, body *kmsg.MetadataRequest) {
	response := respond[*kmsg.MetadataResponse](request)
	response.ControllerID = -1
	for i := range body.Topics {
		topic := kmsg.NewMetadataResponseTopic()
		topic.Topic, topic.TopicID, topic.ErrorCode = kmsg.StringPtr(textOrEmpty(body.Topics[i].Topic)), body.Topics[i].TopicID, kerr.InvalidRequest.Code
		response.Topics = append(response.Topics, topic)
	}
	request.Reply(response)
}

// onlyIDs: if one topic is asked for by id, those without an id are not answered, and names do
// not count.
func onlyIDs(topics []kmsg.MetadataRequestTopic) []kmsg.MetadataRequestTopic {
	if !slices.ContainsFunc(topics, func(topic kmsg.MetadataRequestTopic) bool { return topic.TopicID != [16]byte{} }) {
		return topics
	}
	topics = slices.DeleteFunc(topics, func(topic kmsg.MetadataRequestTopic) bool { return topic.TopicID == [16]byte{} })
	for i := range topics {
		topics[i].Topic = nil
	}
	return topics
}

// distinctTopics leaves out topics that are named again: they are answered once.
func distinctTopics(topics []kmsg.MetadataRequestTopic) []kmsg.MetadataRequestTopic {
	if len(topics) < 2 {
		return topics
	}
	seen := make(map[topicKey]bool, len(topics))
	return slices.DeleteFunc(topics, func(topic kmsg.MetadataRequestTopic) bool {
		key := topicKey{textOrEmpty(topic.Topic), topic.TopicID}
		again := seen[key]
		seen[key] = true
		return again
	})
}

// missingTopics lists the topics of a request that are to be created.
func (b *Broker) missingTopics(image *metadata.Image, version int16, body *kmsg.MetadataRequest) []string {
	if !b.config.AutoCreateTopics && !b.asksForInternal(body) || version >= 4 && !body.AllowAutoTopicCreation {
		return nil
	}
	var missing []string
	for i := range body.Topics {
		name := body.Topics[i].Topic
		if name == nil || image.Topic(*name) != nil || controller.ValidateTopicName(*name) != nil {
			continue
		}
		if b.config.AutoCreateTopics || isInternalTopic(*name) {
			missing = append(missing, *name)
		}
	}
	return missing
}

// asksForInternal: internal topics are created whatever auto.create.topics.enable says.
func (b *Broker) asksForInternal(body *kmsg.MetadataRequest) bool {
	for i := range body.Topics {
		if body.Topics[i].Topic != nil && isInternalTopic(*body.Topics[i].Topic) {
			return true
		}
	}
	return false
}

func (b *Broker) replyMetadata(request *wire.Request, image *metadata.Image, errs map[string]error) {
	body := request.Body.(*kmsg.MetadataRequest)
	response := respond[*kmsg.MetadataResponse](request)
	for i := range image.Brokers() {
		known := &image.Brokers()[i]
		if endpoint, found := known.Endpoint(request.Listener); found {
			broker := kmsg.NewMetadataResponseBroker()
			broker.NodeID, broker.Host, broker.Port, broker.Rack = int32(known.ID), endpoint.Host, endpoint.Port, rackOrNil(known.Rack)
			response.Brokers = append(response.Brokers, broker)
		}
	}
	response.ClusterID = &b.clusterID
	response.ControllerID = int32(image.ControllerID())
	if body.IncludeClusterAuthorizedOperations {
		response.AuthorizedOperations = clusterOperations
	}

	view := metadataView{image: image, listener: request.Listener, version: request.Version, operations: body.IncludeTopicAuthorizedOperations}
	if body.Topics == nil || request.Version == 0 && len(body.Topics) == 0 {
		response.Topics = make([]kmsg.MetadataResponseTopic, 0, image.TopicCount())
		for topic := range image.Topics() {
			response.Topics = append(response.Topics, view.topic(topic))
		}
	}
	for i := range body.Topics {
		response.Topics = append(response.Topics, view.asked(&body.Topics[i], errs, b.code))
	}
	request.Reply(response)
}

// metadataView renders an image for one request.
type metadataView struct {
	image    *metadata.Image
	listener string
	version  int16
	// operations says that the client wants to know what it may do with each topic.
	operations bool
}

// asked renders one topic that was asked for, by name or, from version 12, by id.
func (v *metadataView) asked(asked *kmsg.MetadataRequestTopic, errs map[string]error, code func(error) int16) kmsg.MetadataResponseTopic {
	refused := kmsg.NewMetadataResponseTopic()
	refused.Topic, refused.TopicID = asked.Topic, asked.TopicID
	var name string
	switch id := cluster.TopicID(asked.TopicID); {
	case asked.Topic != nil && *asked.Topic != "":
		name = *asked.Topic
		refused.TopicID = [16]byte{}
	case !id.IsZero() && v.version >= 12:
		known, found := v.image.TopicName(id)
		if !found {
			refused.ErrorCode = kerr.UnknownTopicID.Code
			return refused
		}
		name = known
	default:
		if refused.Topic == nil {
			refused.Topic = kmsg.StringPtr("")
		}
		if v.operations && asked.Topic != nil {
			refused.AuthorizedOperations = topicOperations
		}
		refused.ErrorCode = kerr.InvalidTopicException.Code
		return refused
	}
	if topic := v.image.Topic(name); topic != nil {
		return v.topic(topic)
	}
	refused.IsInternal = isInternalTopic(name)
	if v.operations {
		refused.AuthorizedOperations = topicOperations
	}
	switch err := errs[name]; {
	case err != nil:
		refused.ErrorCode = code(err)
	case controller.ValidateTopicName(name) != nil:
		refused.ErrorCode = kerr.InvalidTopicException.Code
	default:
		refused.ErrorCode = kerr.UnknownTopicOrPartition.Code
	}
	return refused
}

func (v *metadataView) topic(topic *metadata.Topic) kmsg.MetadataResponseTopic {
	answer := kmsg.NewMetadataResponseTopic()
	answer.Topic, answer.TopicID = &topic.Name, topic.ID
	answer.IsInternal = isInternalTopic(topic.Name)
	if v.operations {
		answer.AuthorizedOperations = topicOperations
	}
	answer.Partitions = make([]kmsg.MetadataResponseTopicPartition, 0, len(topic.Partitions))
	for number, partition := range topic.Partitions {
		if partition != nil {
			answer.Partitions = append(answer.Partitions, v.partition(int32(number), partition))
		}
	}
	return answer
}

// partition renders one partition by the rules of ZkMetadataCache.getPartitionMetadata.
func (v *metadataView) partition(number int32, partition *metadata.Partition) kmsg.MetadataResponseTopicPartition {
	answer := kmsg.NewMetadataResponseTopicPartition()
	answer.Partition = number
	answer.Leader, answer.LeaderEpoch = int32(partition.Leader), int32(partition.LeaderEpoch)
	answer.Replicas, answer.ISR, answer.OfflineReplicas = int32s(partition.Replicas), int32s(partition.ISR), int32s(partition.Offline)
	leader, alive := v.image.Broker(partition.Leader)
	switch {
	case !alive:
		answer.Leader, answer.ErrorCode = -1, kerr.LeaderNotAvailable.Code
	case !hasListener(leader, v.listener):
		answer.Leader, answer.ErrorCode = -1, kerr.ListenerNotFound.Code
		if v.version < 6 {
			answer.ErrorCode = kerr.LeaderNotAvailable.Code
		}
	}
	if v.version == 0 { // v0 leaves out what is not alive, and says so
		answer.Replicas, answer.ISR = v.onlyAlive(answer.Replicas), v.onlyAlive(answer.ISR)
		if answer.ErrorCode == 0 && (len(answer.Replicas) < len(partition.Replicas) || len(answer.ISR) < len(partition.ISR)) {
			answer.ErrorCode = kerr.ReplicaNotAvailable.Code
		}
	}
	return answer
}

func hasListener(broker *cluster.Broker, listener string) bool {
	_, found := broker.Endpoint(listener)
	return found
}

func (v *metadataView) onlyAlive(ids []int32) []int32 {
	alive := make([]int32, 0, len(ids))
	for _, id := range ids {
		if broker, found := v.image.Broker(cluster.BrokerID(id)); found && hasListener(broker, v.listener) {
			alive = append(alive, id)
		}
	}
	return alive
}

func int32s(ids []cluster.BrokerID) []int32 {
	out := make([]int32, len(ids))
	for i, id := range ids {
		out[i] = int32(id)
	}
	return out
}
