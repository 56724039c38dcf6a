package main

import (
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/record"
)

// fetching is a consumer's side of fetch sessions (KIP-227): one with each broker.
type fetching struct {
	w        *world
	links    *links
	sessions map[cluster.BrokerID]*clientSession
}

type clientSession struct {
	id, epoch int32
	known     map[cluster.TopicPartition]wanted
}

// wanted is what a consumer asks for of a partition.
type wanted struct {
	id       cluster.TopicID
	position cluster.Offset
	epoch    cluster.LeaderEpoch // of the leader as it knows it; -1: none
}

// found is what it gets. Without an error and data there is no news.
type found struct {
	err     error
	id      cluster.TopicID // of the topic that the broker has
	data    []byte
	hint    leaders
	visible cluster.Offset // the high watermark, -1: no news
}

func newFetching(w *world, links *links) *fetching {
	return &fetching{w: w, links: links, sessions: map[cluster.BrokerID]*clientSession{}}
}

// fetch asks a broker for partitions; done gets what there is of each that the answer names.
func (f *fetching) fetch(to cluster.BrokerID, wants map[cluster.TopicPartition]wanted, order []cluster.TopicPartition, done func(map[cluster.TopicPartition]found, error)) {
	s := f.sessions[to]
	if s == nil {
		s = &clientSession{}
		f.sessions[to] = s
	}
	request := s.request(wants, order)
	b := f.w.brokers[to-1]
	type answered struct {
		served
		ids map[cluster.TopicPartition]cluster.TopicID
	}
	f.links.linkTo(to).call(300*time.Millisecond, func(reply func(any)) {
		b.serve(request, f.links.me, func(response kmsg.Response, err error) {
			ids := map[cluster.TopicPartition]cluster.TopicID{}
			for _, tp := range order {
				ids[tp] = b.topicIDOf(tp)
			}
			f.w.check.fetchAnswered(b, wants, response)
			reply(answered{served{response, err}, ids})
		})
	}, func(answer any, err error) {
		if err == nil {
			err = answer.(answered).err
		}
		if err != nil {
			delete(f.sessions, to)
			done(nil, err)
			return
		}
		response := answer.(answered).response.(*kmsg.FetchResponse)
		if err := kerr.ErrorForCode(response.ErrorCode); err != nil {
			delete(f.sessions, to)
			done(nil, err)
			return
		}
		s.id = response.SessionID
		s.epoch++
		s.known = wants
		done(foundIn(response, answer.(answered).ids), nil)
	})
}

// fetchAnswered: a request for a leader epoch is not answered by another leader.
func (c *checker) fetchAnswered(b *broker, wants map[cluster.TopicPartition]wanted, response kmsg.Response) {
	answer, ok := response.(*kmsg.FetchResponse)
	if !ok {
		return
	}
	for i := range answer.Topics {
		for j := range answer.Topics[i].Partitions {
			part := &answer.Topics[i].Partitions[j]
			tp := cluster.TopicPartition{Topic: answer.Topics[i].Topic, Partition: part.Partition}
			d, hosted := b.rep.Describe(tp)
			if want := wants[tp].epoch; part.ErrorCode == 0 && hosted && want >= 0 && want != d.LeaderEpoch {
				c.w.fail("epoch-fence", "broker %d, in leader epoch %d of %v, answers a fetch for epoch %d", b.id, d.LeaderEpoch, tp, want)
			}
		}
	}
}

// request names what is new since the last one of the session.
func (s *clientSession) request(wants map[cluster.TopicPartition]wanted, order []cluster.TopicPartition) *kmsg.FetchRequest {
	request := kmsg.NewPtrFetchRequest()
	request.Version = 12
	request.MaxWaitMillis, request.MinBytes, request.MaxBytes = 50, 1, 1500
	request.SessionID, request.SessionEpoch = s.id, s.epoch
	if s.id == 0 {
		request.SessionEpoch = 0
		s.epoch, s.known = 0, nil
	}
	for _, tp := range order {
		if want := wants[tp]; s.known == nil || s.known[tp] != want {
			asked, part := kmsg.NewFetchRequestTopic(), kmsg.NewFetchRequestTopicPartition()
			part.Partition, part.FetchOffset, part.CurrentLeaderEpoch, part.PartitionMaxBytes = tp.Partition, int64(want.position), int32(want.epoch), 1000
			asked.Topic, asked.Partitions = tp.Topic, append(asked.Partitions, part)
			request.Topics = append(request.Topics, asked)
		}
	}
	var forgotten []cluster.TopicPartition
	for tp := range s.known {
		if _, still := wants[tp]; !still {
			forgotten = append(forgotten, tp)
		}
	}
	slices.SortFunc(forgotten, comparePartitions)
	for _, tp := range forgotten {
		request.ForgottenTopics = append(request.ForgottenTopics, kmsg.FetchRequestForgottenTopic{Topic: tp.Topic, Partitions: []int32{tp.Partition}})
	}
	return request
}

func comparePartitions(a, b cluster.TopicPartition) int {
	switch {
	case a.Less(b):
		return -1
	case b.Less(a):
		return 1
	}
	return 0
}

func foundIn(response *kmsg.FetchResponse, ids map[cluster.TopicPartition]cluster.TopicID) map[cluster.TopicPartition]found {
	all := map[cluster.TopicPartition]found{}
	for i := range response.Topics {
		for j := range response.Topics[i].Partitions {
			part := &response.Topics[i].Partitions[j]
			tp := cluster.TopicPartition{Topic: response.Topics[i].Topic, Partition: part.Partition}
			all[tp] = found{
				err: kerr.ErrorForCode(part.ErrorCode), data: part.RecordBatches, id: ids[tp], visible: cluster.Offset(part.HighWatermark),
				hint: leaders{leader: cluster.BrokerID(part.CurrentLeader.LeaderID), epoch: cluster.LeaderEpoch(part.CurrentLeader.LeaderEpoch)},
			}
		}
	}
	return all
}

// read fetches from the leader, sometimes from a follower, and checks what it sees.
func (c *client) read() {
	w := c.w
	again := func() { w.after(w.between(3*time.Millisecond, 50*time.Millisecond), c.read) }
	target, epoch := c.leader, c.epoch
	fromLeader := true
	if w.oneIn(4) {
		target, fromLeader = w.brokers[w.chance.IntN(len(w.brokers))].id, false
	}
	if target < 1 {
		c.refresh(again)
		return
	}
	if fromLeader && w.oneIn(5) {
		if w.oneIn(3) && c.readTo >= 0 {
			c.validate(target, epoch, again)
		} else {
			c.askLatest(target, epoch, again)
		}
		return
	}
	if c.topicID != c.id { // a topic of this name has been created anew
		c.topicID, c.position, c.latest, c.readTo = c.id, 0, -1, cluster.NoLeaderEpoch
	}
	position, id := c.position, c.topicID
	wants := map[cluster.TopicPartition]wanted{c.tp: {id, position, epoch}}
	c.fetching.fetch(target, wants, []cluster.TopicPartition{c.tp}, func(got map[cluster.TopicPartition]found, err error) {
		answer := got[c.tp]
		if err == nil {
			err = answer.err
		}
		switch {
		case err != nil && fromLeader && errors.Is(err, kerr.OffsetOutOfRange) && answer.id == id && !w.check.doomed(c.tp, id):
			w.fail("reader-goes-on", "reader of %v: broker %d, leader in epoch %d, has no offset %d, which was readable before", c.tp, target, epoch, position)
		case err != nil:
			if answer.hint.leader >= 1 {
				c.learn(answer.hint.leader, answer.hint.epoch, cluster.TopicID{})
			}
			c.refresh(again)
		case answer.id == id && c.topicID == id:
			c.consume(target, answer)
			again()
		default:
			c.refresh(again)
		}
	})
}

func (c *client) consume(from cluster.BrokerID, answer found) {
	eachRecord(c.w, from, answer.data, c.position, func(offset cluster.Offset, epoch cluster.LeaderEpoch, value string) {
		if offset > c.position {
			c.w.fail("reader-goes-on", "reader of %v was at %d and got %d from broker %d", c.tp, c.position, offset, from)
		}
		c.w.check.wasRead(c.tp, answer.id, from, offset, value)
		c.position++
		c.readTo = epoch
		if epoch > c.epoch {
			// A client knows by what it has read that the leader it knew is over (KIP-320).
			c.leader, c.epoch = cluster.NoBroker, epoch
		}
	})
}

// eachRecord decodes what a broker sent, from an offset on.
func eachRecord(w *world, from cluster.BrokerID, data []byte, position cluster.Offset, each func(cluster.Offset, cluster.LeaderEpoch, string)) {
	for batch, err := range record.All(data) {
		if err == nil {
			err = batch.Check()
		}
		if err != nil && w.brokers[from-1].harmed {
			return // a client sees the checksum, too, and comes again
		}
		if err != nil {
			w.fail("corrupt-read", "broker %d sent a batch that is damaged: %v", from, err)
		}
		for r, err := range batch.Records(1 << 20) {
			if err != nil {
				w.fail("corrupt-read", "broker %d sent a record that is damaged: %v", from, err)
			}
			if r.Offset >= position {
				each(r.Offset, batch.LeaderEpoch(), string(r.Value))
			}
		}
	}
}

// askLatest asks for the end as readers see it; it does not go back in a leader epoch or a
// later one.
func (c *client) askLatest(target cluster.BrokerID, epoch cluster.LeaderEpoch, again func()) {
	before, id := c.latest, c.id
	request := kmsg.NewPtrListOffsetsRequest()
	request.Version, request.ReplicaID = 7, -1
	asked, part := kmsg.NewListOffsetsRequestTopic(), kmsg.NewListOffsetsRequestTopicPartition()
	part.Partition, part.CurrentLeaderEpoch, part.Timestamp = c.tp.Partition, int32(epoch), -1
	asked.Topic, asked.Partitions = c.tp.Topic, append(asked.Partitions, part)
	request.Topics = append(request.Topics, asked)
	ask(&c.links, target, 300*time.Millisecond, request, func(response *kmsg.ListOffsetsResponse, err error) {
		if err != nil {
			again()
			return
		}
		part := &response.Topics[0].Partitions[0]
		if part.ErrorCode != 0 {
			c.refresh(again)
			return
		}
		offset := cluster.Offset(part.Offset)
		if id == c.id && id == c.topicID && !c.w.check.doomed(c.tp, id) {
			if offset < before {
				c.w.fail("latest-goes-back", "the end of %v was %d and is %d at broker %d, epoch %d", c.tp, before, offset, target, epoch)
			}
			c.latest = max(c.latest, offset)
		}
		again()
	})
}

// validate asks whether what was read is still there (KIP-320): where the epoch of the last
// record read ends.
func (c *client) validate(target cluster.BrokerID, epoch cluster.LeaderEpoch, again func()) {
	position, id, readTo := c.position, c.topicID, c.readTo
	request := kmsg.NewPtrOffsetForLeaderEpochRequest()
	request.Version, request.ReplicaID = 4, -1
	asked, part := kmsg.NewOffsetForLeaderEpochRequestTopic(), kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
	part.Partition, part.CurrentLeaderEpoch, part.LeaderEpoch = c.tp.Partition, int32(epoch), int32(readTo)
	asked.Topic, asked.Partitions = c.tp.Topic, append(asked.Partitions, part)
	request.Topics = append(request.Topics, asked)
	ask(&c.links, target, 300*time.Millisecond, request, func(response *kmsg.OffsetForLeaderEpochResponse, err error) {
		if err != nil {
			again()
			return
		}
		part := &response.Topics[0].Partitions[0]
		if part.ErrorCode != 0 {
			c.refresh(again)
			return
		}
		if id == c.id && !c.w.check.doomed(c.tp, id) && (cluster.LeaderEpoch(part.LeaderEpoch) != readTo || cluster.Offset(part.EndOffset) < position) {
			c.w.fail("reader-goes-on", "reader of %v has read to %d, epoch %d; broker %d, leader in epoch %d, says that epoch %d ends at %d", c.tp, position, readTo, target, epoch, part.LeaderEpoch, part.EndOffset)
		}
		again()
	})
}

// doomed says whether a topic is about to be deleted, or is.
func (c *checker) doomed(tp cluster.TopicPartition, id cluster.TopicID) bool {
	p := c.partOf(tp, id)
	return p == nil || p.doomed || p.gone
}
