package broker

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/metadata"
	"understudy/internal/streaming/wire"
)

// ElectLeaders (key 43), versions 0 to 2, served by the active controller: preferred
// elections, from v1 unclean ones too. The answer waits until this broker's metadata shows
// the new leaders.

func (b *Broker) registerElectLeaders() { b.server.Handle(43, 0, 2, b.handleElectLeaders) }

const (
	electionTypePreferred = 0
	electionTypeUnclean   = 1
)

func (b *Broker) handleElectLeaders(request *wire.Request) {
	body := request.Body.(*kmsg.ElectLeadersRequest)
	if body.Version >= 1 && body.ElectionType != electionTypePreferred && body.ElectionType != electionTypeUnclean {
		response := respond[*kmsg.ElectLeadersResponse](request)
		response.ErrorCode = kerr.UnknownServerError.Code // Apache's broker fails over the number
		b.refuseElections(body, response)
		request.Reply(response)
		return
	}
	b.controller.ElectLeaders(body, func(response *kmsg.ElectLeadersResponse) {
		if response.ErrorCode != 0 {
			b.refuseElections(b.oncePerPartition(body), response)
			if response.ErrorCode == kerr.NotController.Code {
				response.ErrorCode = 0 // it is with the partitions
			}
			request.Reply(response)
			return
		}
		go func() {
			b.awaitElections(body, response)
			request.Reply(response)
		}()
	})
}

// oncePerPartition is a request that names each partition that is asked for once: all, if none
// is named.
func (b *Broker) oncePerPartition(body *kmsg.ElectLeadersRequest) *kmsg.ElectLeadersRequest {
	once := *body
	once.Topics = mergeNumbered(body.Topics, func(topic *kmsg.ElectLeadersRequestTopic) (string, *[]int32) { return topic.Topic, &topic.Partitions })
	if body.Topics == nil {
		for known := range b.metadata.Image().Topics() {
			topic := kmsg.ElectLeadersRequestTopic{Topic: known.Name}
			for number := range known.Partitions {
				topic.Partitions = append(topic.Partitions, int32(number))
			}
			once.Topics = append(once.Topics, topic)
		}
	}
	return &once
}

// refuseElections repeats the error for each partition: version 0 has no other place for it.
func (b *Broker) refuseElections(body *kmsg.ElectLeadersRequest, response *kmsg.ElectLeadersResponse) {
	for _, asked := range body.Topics {
		topic := kmsg.ElectLeadersResponseTopic{Topic: asked.Topic}
		for _, number := range asked.Partitions {
			result := kmsg.NewElectLeadersResponseTopicPartition()
			result.Partition, result.ErrorCode = number, response.ErrorCode
			topic.Partitions = append(topic.Partitions, result)
		}
		response.Topics = append(response.Topics, topic)
	}
}

// awaitElections waits for the metadata; what does not show in time has timed out.
func (b *Broker) awaitElections(body *kmsg.ElectLeadersRequest, response *kmsg.ElectLeadersResponse) {
	unclean := body.Version >= 1 && body.ElectionType == electionTypeUnclean
	shown := func(image *metadata.Image, topic string, number int32) bool {
		p, found := image.Partition(cluster.TopicPartition{Topic: topic, Partition: number})
		if unclean || !found || len(p.Replicas) == 0 {
			return found && p.Leader >= 0
		}
		return p.Leader == p.Replicas[0]
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(body.TimeoutMillis)*time.Millisecond)
	defer cancel()
	image, err := b.metadata.WaitFor(ctx, func(image *metadata.Image) bool {
		return !slices.ContainsFunc(response.Topics, func(topic kmsg.ElectLeadersResponseTopic) bool {
			return slices.ContainsFunc(topic.Partitions, func(p kmsg.ElectLeadersResponseTopicPartition) bool {
				return p.ErrorCode == 0 && !shown(image, topic.Topic, p.Partition)
			})
		})
	})
	if err == nil {
		return
	}
	if image == nil {
		image = b.metadata.Image()
	}
	for i := range response.Topics {
		for j := range response.Topics[i].Partitions {
			p := &response.Topics[i].Partitions[j]
			if p.ErrorCode == 0 && !shown(image, response.Topics[i].Topic, p.Partition) {
				p.ErrorCode = kerr.RequestTimedOut.Code
			}
		}
	}
}
