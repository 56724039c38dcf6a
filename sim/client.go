package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/commitlog"
	"understudy/internal/streaming/record"
	"understudy/internal/streaming/replication"
)

// client is a producer or a reader of one partition.
type client struct {
	w         *world
	node      node
	partition int
	producer  bool

	leader cluster.BrokerID // as far as it knows
	epoch  cluster.LeaderEpoch
	links  map[cluster.BrokerID]*link

	// A producer's.
	pid     int64
	serial  int // of values
	next    int32
	window  []*batch // not acknowledged, in order
	trusted bool     // the last attempt of the head succeeded: five may be in flight
	round   int      // attempts before the last failure are void
	waiting bool     // between a failure and the next attempt
	stuck   bool     // an idempotent producer's unrecoverable error
	acked   int

	// A reader's.
	position cluster.Offset
	latest   cluster.Offset
}

type batch struct {
	sequence int32
	values   []string
	sent     int // round of the attempt under way; 0: none
}

const windowMax = 5

func newClient(w *world, index, partition int, producer bool) *client {
	return &client{
		w: w, node: firstClient + node(index), partition: partition, producer: producer, pid: int64(1000 + index),
		leader: cluster.NoBroker, epoch: cluster.NoLeaderEpoch, links: map[cluster.BrokerID]*link{}, round: 1, latest: -1,
	}
}

func (c *client) begin() {
	if c.producer {
		c.w.after(c.w.between(0, 50*time.Millisecond), c.produce)
	} else {
		c.w.after(c.w.between(0, 50*time.Millisecond), c.read)
	}
}

func (c *client) linkTo(id cluster.BrokerID) *link {
	if c.links[id] == nil {
		c.links[id] = c.w.network.link(c.node, node(id))
	}
	return c.links[id]
}

// refresh asks some broker who leads; then is called when that is known better or not.
func (c *client) refresh(then func()) {
	w := c.w
	b := w.brokers[w.chance.IntN(len(w.brokers))]
	type leadership struct {
		leader cluster.BrokerID
		epoch  cluster.LeaderEpoch
	}
	c.linkTo(b.id).call(200*time.Millisecond, func(reply func(any)) {
		state, found := b.meta.Image().Partition(tpOf(c.partition))
		if !found {
			state.Leader, state.LeaderEpoch = cluster.NoBroker, cluster.NoLeaderEpoch
		}
		reply(leadership{state.Leader, state.LeaderEpoch})
	}, func(answer any, err error) {
		if err == nil {
			if l := answer.(leadership); l.epoch > c.epoch || l.epoch == c.epoch && c.leader < 1 {
				c.leader, c.epoch = l.leader, l.epoch
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
		b := &batch{sequence: c.next}
		for range 1 + chance.IntN(3) {
			c.serial++
			b.values = append(b.values, fmt.Sprintf("%d/%d", c.node, c.serial))
		}
		c.next += int32(len(b.values))
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
	if l := c.linkTo(c.leader); l.lost() && c.window[0].sent == c.round {
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

func (c *client) sendBatch(b *batch, round int) {
	w, id := c.w, c.leader
	leader := w.brokers[id-1]
	options := record.DefaultOptions()
	options.ProducerID, options.ProducerEpoch, options.BaseSequence = c.pid, 0, b.sequence
	builder := record.NewBuilder(options)
	for _, value := range b.values {
		builder.Append(1_700_000_000_000+w.now.Milliseconds(), nil, []byte(value))
	}
	data, err := builder.Build()
	if err != nil {
		panic(err)
	}
	c.linkTo(id).call(w.between(150*time.Millisecond, 600*time.Millisecond), func(reply func(any)) {
		leader.rep.Append(replication.AppendRequest{
			Parts: []replication.AppendPart{{TP: tpOf(c.partition), Records: data}}, Acks: replication.AcksAll,
			Timeout: 400 * time.Millisecond, Origin: commitlog.Client,
		}, func(results []replication.AppendResult) {
			if results[0].Err == nil {
				w.check.ackLeaves(leader, c.partition)
			}
			reply(results[0])
		})
	}, func(answer any, err error) {
		result, _ := answer.(replication.AppendResult)
		if err == nil {
			err = result.Err
		}
		if err == nil {
			// Also to an attempt that was given up: it is true all the same.
			w.check.acknowledged(c, b, id, result.Info)
		}
		if round != c.round || len(c.window) == 0 {
			return
		}
		if err == nil {
			c.acknowledged(b)
			return
		}
		c.failed(b, id, err, result.Leader)
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

func (c *client) failed(b *batch, id cluster.BrokerID, err error, hint replication.LeaderHint) {
	c.w.trace("refused", "client %d batch %d by broker %d: %v", c.node, b.sequence, id, err)
	if b == c.window[0] && (errors.Is(err, kerr.OutOfOrderSequenceNumber) || errors.Is(err, kerr.UnknownProducerID) || errors.Is(err, kerr.InvalidProducerEpoch)) {
		c.w.check.producerRefused(c, b, id, err)
		return
	}
	c.trusted = false
	c.round++
	c.linkTo(id).reset()
	if hint.Epoch > c.epoch && hint.Leader >= 1 {
		c.leader, c.epoch = hint.Leader, hint.Epoch
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
	b := w.brokers[target-1]
	if fromLeader && w.oneIn(5) {
		c.askLatest(b, epoch, again)
		return
	}
	position := c.position
	c.linkTo(target).call(300*time.Millisecond, func(reply func(any)) {
		b.rep.Fetch(replication.FetchRequest{
			Replica: replication.ConsumerReplica, ReplicaEpoch: cluster.UnknownBrokerEpoch, MaxWait: 50 * time.Millisecond, MinBytes: 1, MaxBytes: 1000,
			Parts: []replication.FetchPart{{TP: tpOf(c.partition), CurrentLeaderEpoch: epoch, FetchOffset: position, LastFetchedEpoch: cluster.NoLeaderEpoch, MaxBytes: 1000}},
		}, func(results []replication.FetchResult) {
			result := &results[0]
			answer := readAnswer{err: result.Err, highWatermark: result.HighWatermark, hint: result.Leader}
			if result.Slice != nil {
				data, err := result.Slice.ReadAll()
				_ = result.Slice.Close()
				if err != nil {
					w.fail("read", "broker %d: %v", b.id, err)
				}
				answer.data = append([]byte(nil), data...)
			}
			reply(answer)
		})
	}, func(answer any, err error) {
		got, _ := answer.(readAnswer)
		if err == nil {
			err = got.err
		}
		switch {
		case err == nil:
			c.consume(target, got.data)
			again()
		case fromLeader && errors.Is(err, kerr.OffsetOutOfRange):
			w.fail("reader-goes-on", "reader of %d: broker %d, leader in epoch %d, has no offset %d, which was readable before", c.partition, target, epoch, position)
		default:
			if got.hint.Leader >= 1 && got.hint.Epoch > c.epoch {
				c.leader, c.epoch = got.hint.Leader, got.hint.Epoch
			}
			c.refresh(again)
		}
	})
}

type readAnswer struct {
	err           error
	highWatermark cluster.Offset
	data          []byte
	hint          replication.LeaderHint
}

func (c *client) consume(from cluster.BrokerID, data []byte) {
	for batch, err := range record.All(data) {
		if err != nil {
			c.w.fail("read", "broker %d sent a batch that does not parse: %v", from, err)
		}
		for r, err := range batch.Records(1 << 20) {
			if err != nil {
				c.w.fail("read", "broker %d sent a record that does not parse: %v", from, err)
			}
			if r.Offset < c.position {
				continue
			}
			if r.Offset > c.position {
				c.w.fail("reader-goes-on", "reader of %d was at %d and got %d from broker %d", c.partition, c.position, r.Offset, from)
			}
			c.w.check.wasRead(c, from, r.Offset, string(r.Value))
			c.position++
		}
		if batch.LeaderEpoch() > c.epoch {
			// A client knows by what it has read that the leader it knew is over (KIP-320).
			c.leader, c.epoch = cluster.NoBroker, batch.LeaderEpoch()
		}
	}
}

// askLatest asks for the end as readers see it; it does not go back in a leader epoch or a
// later one.
func (c *client) askLatest(b *broker, epoch cluster.LeaderEpoch, again func()) {
	before := c.latest
	c.linkTo(b.id).call(300*time.Millisecond, func(reply func(any)) {
		reply(b.rep.ListOffsets(replication.ConsumerReplica, replication.ReadUncommitted, []replication.ListOffsetsPart{{
			TP: tpOf(c.partition), CurrentLeaderEpoch: epoch, Timestamp: -1,
		}})[0])
	}, func(answer any, err error) {
		result, _ := answer.(replication.ListOffsetsResult)
		if err == nil && result.Err == nil {
			if result.Offset < before {
				c.w.fail("latest-goes-back", "the end of %d was %d and is %d at broker %d, epoch %d", c.partition, before, result.Offset, b.id, epoch)
			}
			c.latest = max(c.latest, result.Offset)
		}
		if err == nil && result.Err != nil {
			c.refresh(again)
			return
		}
		again()
	})
}
