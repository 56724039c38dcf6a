package broker

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/controller"
	"understudy/internal/streaming/metadata"
	"understudy/internal/streaming/wire"
)

// DeleteTopics (key 20), versions 0 to 6, served by the active controller's broker. v3
// TOPIC_DELETION_DISABLED, v5 messages, v6 topics by id. It marks the topics; the answer
// comes when this broker's metadata has forgotten them. Their nodes go when every replica
// has answered, which may be later.

func (b *Broker) registerDeleteTopics() { b.server.Handle(20, 0, 6, b.handleDeleteTopics) }

func (b *Broker) handleDeleteTopics(request *wire.Request) {
	body := request.Body.(*kmsg.DeleteTopicsRequest)
	response := respond[*kmsg.DeleteTopicsResponse](request)
	messages := b.parseDeletions(request, body, response)
	go func() {
		timeout := time.Duration(body.TimeoutMillis) * time.Millisecond
		ctx, cancel := context.WithTimeout(context.Background(), max(timeout, b.config.RequestTimeout))
		defer cancel()
		b.deleteTopics(ctx, timeout, response, messages)
		request.Reply(response)
	}()
}

// parseDeletions lays out the response, refusing what can be refused at once. The result
// are the names to delete, by place in the response; "" where there is nothing to do.
func (b *Broker) parseDeletions(request *wire.Request, body *kmsg.DeleteTopicsRequest, response *kmsg.DeleteTopicsResponse) []string {
	image := b.metadata.Image()
	asked := body.Topics
	for i := range body.TopicNames {
		asked = append(asked, kmsg.DeleteTopicsRequestTopic{Topic: &body.TopicNames[i]})
	}
	names := make([]string, len(asked))
	twofold := slices.ContainsFunc(asked, func(topic kmsg.DeleteTopicsRequestTopic) bool {
		return topic.Topic != nil && topic.TopicID != [16]byte{}
	})
	for i := range asked {
		answer := kmsg.NewDeleteTopicsResponseTopic()
		answer.Topic, answer.TopicID = asked[i].Topic, asked[i].TopicID
		names[i], answer.ErrorCode = resolveDeletion(image, &asked[i])
		switch {
		case !b.controller.Active(): // which comes before what is wrong with a topic
			names[i], answer.ErrorCode = "", kerr.NotController.Code
		case twofold && b.config.DeleteTopics: // one topic by name and by id at once spoils the whole request
			names[i], answer.ErrorCode = "", kerr.InvalidRequest.Code
		}
		if names[i] != "" {
			name := names[i]
			answer.Topic = &name
		}
		response.Topics = append(response.Topics, answer)
	}
	for i, name := range names {
		if name == "" {
			continue
		}
		if err := b.refuseDeletion(request.Version, image, name); err != nil {
			b.failDeletion(&response.Topics[i], err)
			names[i] = ""
		}
	}
	return names
}

// resolveDeletion finds the name, from version 6 possibly by id.
func resolveDeletion(image *metadata.Image, asked *kmsg.DeleteTopicsRequestTopic) (name string, code int16) {
	id := cluster.TopicID(asked.TopicID)
	switch {
	case asked.Topic != nil && *asked.Topic != "":
		return *asked.Topic, 0
	case id.IsZero() && asked.Topic == nil:
		return "", kerr.TopicAuthorizationFailed.Code // that is what Apache's broker makes of it
	case id.IsZero():
		return "", kerr.UnknownTopicOrPartition.Code
	}
	name, found := image.TopicName(id)
	if !found {
		return "", kerr.UnknownTopicID.Code
	}
	return name, 0
}

func (b *Broker) refuseDeletion(version int16, image *metadata.Image, name string) error {
	switch {
	case !b.config.DeleteTopics && version < 3:
		return controller.Refuse(kerr.InvalidRequest, "Topic deletion is disabled.")
	case !b.config.DeleteTopics:
		return controller.Refuse(kerr.TopicDeletionDisabled, "Topic deletion is disabled.")
	case image.Topic(name) == nil:
		return controller.Refuse(kerr.UnknownTopicOrPartition, "This server does not host this topic-partition.")
	}
	return nil
}

func (b *Broker) failDeletion(answer *kmsg.DeleteTopicsResponseTopic, err error) {
	answer.ErrorCode = b.code(err) // the message stays null in Apache's answer, too
}

func (b *Broker) deleteTopics(ctx context.Context, timeout time.Duration, response *kmsg.DeleteTopicsResponse, names []string) {
	var marking []string
	var at []int
	for i, name := range names {
		if name != "" {
			marking, at = append(marking, name), append(at, i)
		}
	}
	for i, err := range b.registry.MarkTopicsDeleted(ctx, marking) {
		if err != nil {
			b.failDeletion(&response.Topics[at[i]], err)
			names[at[i]] = ""
		}
	}
	gone := func(image *metadata.Image, name string) bool { return name == "" || image.Topic(name) == nil }
	waiting, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	_, err := b.metadata.WaitFor(waiting, func(image *metadata.Image) bool {
		return !slices.ContainsFunc(names, func(name string) bool { return !gone(image, name) })
	})
	if err == nil {
		return
	}
	image := b.metadata.Image()
	for i, name := range names {
		if !gone(image, name) {
			b.failDeletion(&response.Topics[i], kerr.RequestTimedOut)
		}
	}
}
