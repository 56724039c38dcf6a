package broker

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/group/classic"
	"understudy/internal/streaming/metadata"
	"understudy/internal/streaming/wire"
)

// OffsetCommit (key 8), versions 1 to 9. v0 (offsets in ZooKeeper) is not served. v1 member
// and generation; v2 to v4 a retention of its own; v6 leader epoch; v7 instance id
// (KIP-345); v9 as v8 (KIP-848's errors do not occur in ZooKeeper mode).

func (b *Broker) registerOffsetCommit() { b.server.Handle(8, 1, 9, b.handleOffsetCommit) }

func (b *Broker) handleOffsetCommit(request *wire.Request) {
	body := request.Body.(*kmsg.OffsetCommitRequest)
	commit := &classic.CommitRequest{MemberID: body.MemberID, InstanceID: body.InstanceID, Generation: body.Generation}
	retention := time.Duration(-1)
	if request.Version >= 2 && request.Version <= 4 && body.RetentionTimeMillis >= 0 {
		retention = time.Duration(body.RetentionTimeMillis) * time.Millisecond
	}
	image := b.metadata.Image()
	response := respond[*kmsg.OffsetCommitResponse](request)
	topics := map[string]int{} // where each is in the response
	answerFor := func(topic string, partition int32, code int16) (int, int) {
		at, there := topics[topic]
		if !there {
			at = len(response.Topics)
			topics[topic] = at
			response.Topics = append(response.Topics, kmsg.OffsetCommitResponseTopic{Topic: topic})
		}
		list := &response.Topics[at].Partitions
		*list = append(*list, kmsg.OffsetCommitResponseTopicPartition{Partition: partition, ErrorCode: code})
		return at, len(*list) - 1
	}
	type place struct{ topic, partition int }
	var places []place // of the partitions in commit, by index
	committed := map[cluster.TopicPartition]int{}
	for i := range body.Topics {
		for j := range body.Topics[i].Partitions {
			asked := &body.Topics[i].Partitions[j]
			tp := cluster.TopicPartition{Topic: body.Topics[i].Topic, Partition: asked.Partition}
			if !known(image, tp) {
				answerFor(tp.Topic, tp.Partition, kerr.UnknownTopicOrPartition.Code)
				continue
			}
			offset := classic.CommitOffset{
				TP: tp, Offset: asked.Offset, LeaderEpoch: asked.LeaderEpoch, Metadata: textOrEmpty(asked.Metadata), Retention: retention,
			}
			if at, twice := committed[tp]; twice { // the last one counts, as in Kafka
				commit.Offsets[at] = offset
				continue
			}
			committed[tp] = len(commit.Offsets)
			commit.Offsets = append(commit.Offsets, offset)
			topic, partition := answerFor(tp.Topic, tp.Partition, 0)
			places = append(places, place{topic, partition})
		}
	}
	if len(commit.Offsets) == 0 { // the group does not hear of it
		request.Reply(response)
		return
	}
	b.groups.Commit(body.Group, commit, func(result classic.CommitResult) {
		for i, at := range places {
			response.Topics[at.topic].Partitions[at.partition].ErrorCode = codeOf(result.Errs[i])
		}
		request.Reply(response)
	})
}

// known reports whether a partition exists as far as this broker knows.
func known(image *metadata.Image, tp cluster.TopicPartition) bool {
	_, found := image.Partition(tp)
	return found
}

func textOrEmpty(text *string) string {
	if text == nil {
		return ""
	}
	return *text
}
