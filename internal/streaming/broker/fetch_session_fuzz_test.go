package broker

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// fetchScript makes fetch requests of bytes: each takes six.
func fetchScript(data []byte) (requests []*kmsg.FetchRequest, versions []int16) {
	for ; len(data) >= 6; data = data[6:] {
		request := kmsg.NewPtrFetchRequest()
		version := int16(12)
		if data[0]&1 == 1 {
			version = 13
		}
		request.SetVersion(version)
		request.SessionID, request.SessionEpoch = int32(data[1]%4), int32(data[2]%5)-1
		topic := kmsg.NewFetchRequestTopic()
		topic.Topic, topic.TopicID = string('a'+rune(data[3]%3)), [16]byte{data[3] % 3}
		for number := range int32(data[4] % 4) {
			part := kmsg.NewFetchRequestTopicPartition()
			part.Partition, part.FetchOffset = number, int64(data[5])
			topic.Partitions = append(topic.Partitions, part)
		}
		request.Topics = append(request.Topics, topic)
		if data[0]&2 == 2 {
			forgotten := kmsg.NewFetchRequestForgottenTopic()
			forgotten.Topic, forgotten.TopicID = topic.Topic, topic.TopicID
			forgotten.Partitions = []int32{0, int32(data[5] % 4)}
			request.ForgottenTopics = append(request.ForgottenTopics, forgotten)
		}
		requests, versions = append(requests, request), append(versions, version)
	}
	return requests, versions
}

// FuzzFetchSession runs any sequence of requests through the table of sessions: its size
// stays bounded, and a session holds each partition once.
func FuzzFetchSession(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0, 3, 1, 0, 1, 2, 0, 2, 2, 2, 1, 3, 0, 1, 1})
	f.Add([]byte{1, 0, 1, 1, 3, 9, 3, 1, 2, 1, 0, 1, 1, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		const slots = 3
		sessions := newFetchSessions(slots)
		ids := []int32{0}
		now := time.Unix(1000, 0)
		requests, versions := fetchScript(data)
		for i, request := range requests {
			request.SessionID = ids[int(request.SessionID)%len(ids)]
			context, err := sessions.open(versions[i], request, i%2 == 1, now)
			now = now.Add(time.Minute)
			if len(sessions.byID) > slots || sessions.used.Len() != len(sessions.byID) {
				t.Fatalf("%d sessions, %d in order of use", len(sessions.byID), sessions.used.Len())
			}
			if err != nil {
				continue
			}
			seen := map[fetchKey]bool{}
			for _, partition := range context.partitions {
				key := fetchKey{topic: partition.part.TP.Topic, id: partition.part.TopicID, partition: partition.part.TP.Partition}
				if context.incremental && seen[key] {
					t.Fatalf("%+v stands twice in a session", key)
				}
				seen[key] = true
			}
			if context.session == nil {
				continue
			}
			if id := context.session.id; sessions.byID[id] == context.session {
				ids = append(ids, id)
			}
			if len(context.session.all) != len(context.session.partitions) {
				t.Fatalf("%d partitions in a list, %d in a map", len(context.session.all), len(context.session.partitions))
			}
		}
	})
}
