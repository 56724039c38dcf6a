package main

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/record"
)

// client is a producer or a reader of one partition.
type client struct {
	w        *world
	node     node
	tp       cluster.TopicPartition
	producer bool

	leaders // of its partition
	links   links

	// A producer's.
	serial  int      // of values
	window  []*batch // not acknowledged, in order
	trusted bool     // the last attempt of the head succeeded: five may be in flight
	round   int      // attempts before the last failure are void
	waiting bool     // between a failure and the next attempt
	stuck   bool     // an idempotent producer's unrecoverable error
	acked   int

	// A reader's.
	fetching *fetching
	topicID  cluster.TopicID // of the topic that position is in
	position cluster.Offset
	readTo   cluster.LeaderEpoch // of the last record read
	latest   cluster.Offset
}

// leaders is what a client knows of who leads a partition.
type leaders struct {
	leader cluster.BrokerID
	epoch  cluster.LeaderEpoch
	id     cluster.TopicID
}

// learn takes over what is newer than what is known. A topic created anew begins anew.
func (l *leaders) learn(leader cluster.BrokerID, epoch cluster.LeaderEpoch, id cluster.TopicID) {
	if !id.IsZero() && id != l.id || epoch > l.epoch || epoch == l.epoch && l.leader < 1 {
		l.leader, l.epoch = leader, epoch
		if !id.IsZero() {
			l.id = id
		}
	}
}

// links are a client's connections, by broker.
type links struct {
	w  *world
	me node
	to map[cluster.BrokerID]*link
}

func newLinks(w *world, me node) links { return links{w, me, map[cluster.BrokerID]*link{}} }

func (l *links) linkTo(id cluster.BrokerID) *link {
	if l.to[id] == nil {
		l.to[id] = l.w.network.link(l.me, node(id))
	}
	return l.to[id]
}

// ask sends a request to a broker and hands its response, or why there is none, to done.
func ask[R kmsg.Response](l *links, to cluster.BrokerID, timeout time.Duration, request kmsg.Request, done func(R, error)) {
	b := l.w.brokers[to-1]
	l.linkTo(to).call(timeout, func(reply func(any)) {
		b.serve(request, l.me, func(response kmsg.Response, err error) { reply(served{response, err}) })
	}, func(answer any, err error) {
		response, err := responseOf[R](answer, err)
		done(response, err)
	})
}

// askMetadata asks some broker about topics.
func (l *links) askMetadata(topics []string, done func(*kmsg.MetadataResponse, error)) {
	request := kmsg.NewPtrMetadataRequest()
	request.Version = 12
	for _, topic := range topics {
		asked := kmsg.NewMetadataRequestTopic()
		asked.Topic = &topic
		request.Topics = append(request.Topics, asked)
	}
	ask(l, l.w.brokers[l.w.chance.IntN(len(l.w.brokers))].id, 200*time.Millisecond, request, done)
}

type batch struct {
	sequence int32
	values   []string
	sent     int // round of the attempt under way; 0: none
}

const windowMax = 5

// producerID is the id of the producer at a node.
func producerID(at int) int64 { return 1000 + int64(at) }

// sequenceOf is the sequence of a producer's record. Those at every other node have come so far
// that it wraps soon: a broker takes any from a producer that it does not know.
func sequenceOf(at, serial int) int32 {
	first := int32(0)
	if at%2 == 1 {
		first = math.MaxInt32 - 20
	}
	return record.AddSequence(first, int32(serial-1))
}

func newClient(w *world, index int, tp cluster.TopicPartition, producer bool) *client {
	c := &client{
		w: w, node: firstClient + node(index), tp: tp, producer: producer,
		leaders: leaders{leader: cluster.NoBroker, epoch: cluster.NoLeaderEpoch}, round: 1, latest: -1, readTo: cluster.NoLeaderEpoch,
	}
	c.links = newLinks(w, c.node)
	c.fetching = newFetching(w, &c.links)
	return c
}

func (c *client) begin() {
	if c.producer {
		c.w.after(c.w.between(0, 50*time.Millisecond), c.produce)
	} else {
		c.w.after(c.w.between(0, 50*time.Millisecond), c.read)
	}
}

// refresh asks some broker who leads; then is called when that is known better or not.
func (c *client) refresh(then func()) {
	c.links.askMetadata([]string{c.tp.Topic}, func(response *kmsg.MetadataResponse, err error) {
		if err == nil {
			for _, part := range response.Topics[0].Partitions {
				if part.Partition == c.tp.Partition && response.Topics[0].ErrorCode == 0 {
					c.learn(cluster.BrokerID(part.Leader), cluster.LeaderEpoch(part.LeaderEpoch), response.Topics[0].TopicID)
				}
			}
		}
		then()
	})
}

// offer gives the producer some batches to send, as far as it takes them.
func (c *client) offer(count int, chance *rand.Rand) {
	for range count {
		if len(c.window) >= 2*windowMax || c.stuck {
			return
		}
		b := &batch{sequence: sequenceOf(int(c.node), c.serial+1)}
		for range 1 + chance.IntN(3) {
			c.serial++
			b.values = append(b.values, fmt.Sprintf("%d/%d", c.node, c.serial))
		}
		c.window = append(c.window, b)
	}
	c.send()
}

// produce sends what may be sent, again and again.
func (c *client) produce() {
	w := c.w
	if c.stuck {
		return
	}
	c.send()
	if !w.calm || len(c.window) > 0 {
		w.after(w.between(5*time.Millisecond, 60*time.Millisecond), c.produce)
	}
}

func (c *client) send() {
	if c.waiting || len(c.window) == 0 || c.stuck {
		return
	}
	if c.leader < 1 {
		c.retry()
		return
	}
	if l := c.links.linkTo(c.leader); l.lost() && c.window[0].sent == c.round {
		// What is under way went with its connection.
		c.trusted = false
		c.round++
		l.reset()
		c.retry()
		return
	}
	limit := 1
	if c.trusted {
		limit = windowMax
	}
	for i := range min(limit, len(c.window)) {
		if b := c.window[i]; b.sent != c.round {
			b.sent = c.round
			c.sendBatch(b, c.round)
		}
	}
}

func (c *client) build(b *batch) []byte {
	options := record.DefaultOptions()
	options.ProducerID, options.ProducerEpoch, options.BaseSequence = producerID(int(c.node)), 0, b.sequence
	builder := record.NewBuilder(options)
	for _, value := range b.values {
		builder.Append(1_700_000_000_000+c.w.now.Milliseconds(), nil, []byte(value))
	}
	data, err := builder.Build()
	if err != nil {
		panic(err)
	}
	return data
}

// produced is what comes back, and the topic for which it holds.
type produced struct {
	served
	id cluster.TopicID
}

func (c *client) sendBatch(b *batch, round int) {
	w, id := c.w, c.leader
	leader := w.brokers[id-1]
	request := kmsg.NewPtrProduceRequest()
	request.Version, request.Acks, request.TimeoutMillis = 11, -1, 400
	asked, part := kmsg.NewProduceRequestTopic(), kmsg.NewProduceRequestTopicPartition()
	part.Partition, part.Records = c.tp.Partition, c.build(b)
	asked.Topic, asked.Partitions = c.tp.Topic, append(asked.Partitions, part)
	request.Topics = append(request.Topics, asked)
	c.links.linkTo(id).call(w.between(150*time.Millisecond, 600*time.Millisecond), func(reply func(any)) {
		leader.serve(request, c.node, func(response kmsg.Response, err error) {
			if err == nil && response.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode == 0 {
				w.check.ackLeaves(leader, c.tp)
			}
			reply(produced{served{response, err}, leader.topicIDOf(c.tp)})
		})
	}, func(answer any, err error) {
		var hint leaders
		var first cluster.Offset
		var topicID cluster.TopicID
		if err == nil {
			got := answer.(produced)
			if err = got.err; err == nil {
				part := &got.response.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
				err = kerr.ErrorForCode(part.ErrorCode)
				first, topicID = cluster.Offset(part.BaseOffset), got.id
				hint = leaders{leader: cluster.BrokerID(part.CurrentLeader.LeaderID), epoch: cluster.LeaderEpoch(part.CurrentLeader.LeaderEpoch)}
			}
		}
		if err == nil {
			// Also to an attempt that was given up: it is true all the same.
			w.check.acknowledged(c, b, id, topicID, first)
		}
		if round != c.round || len(c.window) == 0 {
			return
		}
		if err == nil {
			c.acknowledged(b)
			return
		}
		c.failed(b, id, err, hint)
	})
}

func (c *client) acknowledged(b *batch) {
	c.trusted = true
	if c.window[0] != b {
		// An earlier one was lost on the way: it cannot be, on one connection in order.
		c.w.fail("ack-order", "client %d: batch %d was acknowledged before %d", c.node, b.sequence, c.window[0].sequence)
	}
	c.window = c.window[1:]
	c.acked++
	c.send()
}

func (c *client) failed(b *batch, id cluster.BrokerID, err error, hint leaders) {
	c.w.trace("refused", "client %d batch %d by broker %d: %v", c.node, b.sequence, id, err)
	if b == c.window[0] && (errors.Is(err, kerr.OutOfOrderSequenceNumber) || errors.Is(err, kerr.UnknownProducerID) || errors.Is(err, kerr.InvalidProducerEpoch)) {
		c.w.check.producerRefused(c, b, id, err)
		return
	}
	c.trusted = false
	c.round++
	c.links.linkTo(id).reset()
	if hint.leader >= 1 {
		c.learn(hint.leader, hint.epoch, cluster.TopicID{})
	}
	c.retry()
}

func (c *client) retry() {
	if c.waiting {
		return
	}
	c.waiting = true
	c.w.after(c.w.between(time.Millisecond, 40*time.Millisecond), func() {
		c.refresh(func() {
			c.waiting = false
			c.send()
		})
	})
}
