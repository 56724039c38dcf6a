package kafka

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/record"
)

// What producers and consumers ask for: Produce, Fetch, ListOffsets, OffsetForLeaderEpoch,
// InitProducerId, DeleteRecords.

// firstTime is when produced records say they were made; all is then the same on both sides.
// It lies within every retention, and before what the broker calls the future.
const firstTime = 1_790_000_000_000

func (g *generator) produce() kmsg.Request {
	request := kmsg.NewPtrProduceRequest()
	request.Acks = pick[int16](g, -1, -1, -1, 1, 1, 1, 0, 2, -2)
	request.TimeoutMillis = pick[int32](g, 30_000, 30_000, 0, -1)
	if g.cluster() {
		request.TimeoutMillis = 30_000 // whether followers are quicker than no time at all is chance
	}
	made := map[string][]byte{}
	request.Topics = few(g, 3, func() kmsg.ProduceRequestTopic {
		topic := kmsg.NewProduceRequestTopic()
		topic.Topic = g.topic()
		topic.Partitions = few(g, 3, func() kmsg.ProduceRequestTopicPartition {
			partition := kmsg.NewProduceRequestTopicPartition()
			partition.Partition = g.partition(topic.Topic)
			place := fmt.Sprint(topic.Topic, partition.Partition)
			if made[place] == nil { // a partition named twice gets the same records
				made[place] = g.records(topic.Topic, partition.Partition)
			}
			partition.Records = made[place]
			return partition
		})
		return topic
	})
	return request
}

func (g *generator) records(topic string, partition int32) []byte {
	if g.chance(24) && g.version >= 3 {
		return pick(g, []byte{}, []byte{1, 2, 3}, make([]byte, 61), make([]byte, 200))
	}
	out := g.batchSpec(topic, partition).build()
	switch g.rng.IntN(24) {
	case 0: // two batches
		if g.version < 3 {
			break
		}
		out = append(out, g.batchSpec(topic, partition).build()...)
	case 1: // message format 1
		if g.version >= 3 {
			out = legacyMessage()
		}
	}
	return out
}

func (g *generator) batchSpec(topic string, partition int32) batchSpec {
	spec := batchSpec{
		count: 1 + g.rng.IntN(4), valueBytes: g.rng.IntN(200), codec: record.Codec(g.rng.IntN(5)),
		producerID: -1, epoch: -1, sequence: -1, firstTime: firstTime + int64(g.rng.IntN(1000)), nullKeys: g.chance(4),
	}
	if g.chance(3) {
		g.idempotent(&spec, topic, partition)
	}
	wrong := g.rng.IntN(20)
	if g.version < 3 { // old versions take what is sound, whatever surrounds it
		return spec
	}
	switch wrong {
	case 0:
		spec.spoil = pick(g, spoiledBatches...)
	case 1:
		spec.edit = pick(g, wrongBatches...)
		spec.codec = record.None // compressed records are not opened: docs/compatibility.md
	case 2:
		spec.firstTime = pick[int64](g, -1, 0, 1, math.MaxInt64-10, 4_000_000_000_000)
	case 3:
		spec.valueBytes = 1_100_000 // more than max.message.bytes
	case 4:
		spec.control = g.chance(3)
	}
	return spec
}

// idempotent gives a batch a producer and a sequence, in one of four cases a wrong one.
func (g *generator) idempotent(spec *batchSpec, topic string, partition int32) {
	if len(g.producers) == 0 {
		spec.producerID, spec.epoch, spec.sequence = 123_456, 0, pick[int32](g, 0, 3)
		return
	}
	producer := pick(g, g.producers...)
	place := fmt.Sprint(topic, partition)
	spec.producerID, spec.epoch, spec.sequence = producer.id, producer.epoch, producer.next[place]
	switch g.rng.IntN(12) {
	case 0:
		spec.sequence++
	case 1:
		spec.sequence = max(spec.sequence-int32(spec.count), 0) // perhaps a duplicate
	case 2:
		spec.sequence = pick[int32](g, -1, -2, math.MaxInt32, 1000)
	case 3:
		spec.epoch = producer.epoch + 1
	case 4:
		spec.producerID = pick[int64](g, 0, 999_999, math.MaxInt64, -2)
	default:
		producer.next[place] = spec.sequence + int32(spec.count)
	}
}

// wrongBatches are edited before the checksum is made: it holds, and they are wrong.
var wrongBatches = []func([]byte){
	func(b []byte) { binary.BigEndian.PutUint32(b[57:], 0) },                                   // no records
	func(b []byte) { binary.BigEndian.PutUint32(b[57:], binary.BigEndian.Uint32(b[57:])+1) },   // one more than there are
	func(b []byte) { binary.BigEndian.PutUint32(b[57:], 0xffffffff) },                          // a negative count
	func(b []byte) { binary.BigEndian.PutUint32(b[23:], binary.BigEndian.Uint32(b[23:])+1) },   // the last offset delta
	func(b []byte) { b[22] |= 0x07 },                                                           // a codec that there is not
	func(b []byte) { b[22] |= 0x20 },                                                           // control
	func(b []byte) { b[22] |= 0x40 },                                                           // a delete horizon
	func(b []byte) { b[21] |= 0x80 },                                                           // an unused attribute
	func(b []byte) { binary.BigEndian.PutUint64(b[35:], binary.BigEndian.Uint64(b[35:])+100) }, // the largest time
	func(b []byte) { binary.BigEndian.PutUint64(b[0:], 17) },                                   // the base offset
	func(b []byte) { binary.BigEndian.PutUint32(b[12:], 9) },                                   // the leader epoch
	func(b []byte) { b[len(b)-1] ^= 0x55 },                                                     // the last byte of the records
	func(b []byte) { b[61] ^= 0x55 },                                                           // the first
}

// spoiledBatches are spoiled after the checksum was made.
var spoiledBatches = []func([]byte) []byte{
	func(b []byte) []byte { b[20] ^= 1; return b },                                                          // the checksum
	func(b []byte) []byte { b[len(b)-1] ^= 1; return b },                                                    // the records
	func(b []byte) []byte { return b[:len(b)-1] },                                                           // the end is missing
	func(b []byte) []byte { return append(b, 0, 0, 0) },                                                     // something follows
	func(b []byte) []byte { return b[:30] },                                                                 // half a header
	func(b []byte) []byte { b[16] = 3; return b },                                                           // format 3
	func(b []byte) []byte { b[16] = 0xff; return b },                                                        // format -1
	func(b []byte) []byte { binary.BigEndian.PutUint32(b[8:], binary.BigEndian.Uint32(b[8:])+1); return b }, // the length
	func(b []byte) []byte { binary.BigEndian.PutUint32(b[8:], 0xffffff00); return b },                       // a negative one
	func(b []byte) []byte { binary.BigEndian.PutUint32(b[8:], 10); return b },                               // a small one
}

// legacyMessage is one message of format 1 in a message set.
func legacyMessage() []byte {
	message := kmsg.MessageV1{Magic: 1, Timestamp: firstTime, Key: []byte("k"), Value: []byte("v")}
	raw := message.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	return raw
}

func (g *generator) fetch() kmsg.Request {
	request := kmsg.NewPtrFetchRequest()
	request.MaxWaitMillis = pick[int32](g, 0, 0, 0, -1, 20)
	request.MinBytes = pick[int32](g, 0, 1, 1, 1, -1, 100_000)
	request.MaxBytes = pick[int32](g, 1<<20, 1<<20, 1<<20, 100, 0, math.MaxInt32)
	request.IsolationLevel = pick[int8](g, 0, 0, 1)
	request.SessionEpoch = -1
	if g.chance(10) {
		request.ReplicaID = pick[int32](g, -2, -3, 77)
		if g.version >= 15 {
			request.ReplicaState.ID, request.ReplicaState.Epoch = request.ReplicaID, pick[int64](g, -1, 0, 12345)
		}
	}
	request.Rack = pick(g, "", "", racks[0], "some-rack")
	request.Topics = few(g, 3, func() kmsg.FetchRequestTopic {
		topic := kmsg.NewFetchRequestTopic()
		topic.Topic, topic.TopicID = g.dataTopic(), g.dataTopicID()
		if topic.TopicID == [16]byte{} { // over which Apache's broker fails
			topic.TopicID[0] = 7
		}
		if g.version >= 13 {
			topic.Topic = ""
		} else {
			topic.TopicID = [16]byte{}
		}
		topic.Partitions = few(g, 3, func() kmsg.FetchRequestTopicPartition { return g.fetchPartition(topic.Topic) })
		return topic
	})
	if g.version >= 7 {
		g.fetchSession(request)
	}
	return request
}

func (g *generator) fetchPartition(topic string) kmsg.FetchRequestTopicPartition {
	partition := kmsg.NewFetchRequestTopicPartition()
	partition.Partition = g.partition(topic)
	partition.FetchOffset = g.offset()
	partition.CurrentLeaderEpoch = g.epoch()
	partition.LastFetchedEpoch = pick[int32](g, -1, -1, -1, 0, 1)
	partition.LogStartOffset = pick[int64](g, -1, -1, 0, 5)
	partition.PartitionMaxBytes = pick[int32](g, 1<<20, 1<<20, 1<<20, 100, 1, 0)
	return partition
}

func (g *generator) fetchSession(request *kmsg.FetchRequest) {
	if g.chance(3) {
		request.SessionEpoch = pick[int32](g, 0, 0, 0, 1, -2, 7)
		request.SessionID = pick[int32](g, 0, 0, 0, 424242, -1)
		g.roomy(request)
		return
	}
	var usable []*fetchState
	for _, session := range g.sessions {
		across := session.version >= 12 && g.version < 12 // where Apache's broker fails if the logs diverge
		if session.broker == g.target && !across && (session.byID == (g.version >= 13) || g.chance(10)) {
			usable = append(usable, session)
		}
	}
	if len(usable) == 0 || g.chance(3) {
		return
	}
	session := pick(g, usable...)
	if request.ReplicaID >= 0 {
		request.ReplicaID, request.ReplicaState = -1, kmsg.NewFetchRequestReplicaState() // nobody else's session
	}
	g.roomy(request)
	request.SessionID, request.SessionEpoch = session.id, session.epoch
	if g.chance(8) {
		request.SessionEpoch = pick(g, session.epoch+1, session.epoch-1, 0, -1)
	}
	request.ForgottenTopics = few(g, 2, func() kmsg.FetchRequestForgottenTopic {
		topic := kmsg.NewFetchRequestForgottenTopic()
		if g.version >= 13 {
			topic.TopicID = g.dataTopicID()
			if topic.TopicID == [16]byte{} {
				topic.TopicID[0] = 7
			}
		} else {
			topic.Topic = g.dataTopic()
		}
		topic.Partitions = slices.DeleteFunc(g.partitions(topic.Topic), func(number int32) bool { // not what is asked for at the same time
			return slices.ContainsFunc(request.Topics, func(asked kmsg.FetchRequestTopic) bool {
				return asked.Topic == topic.Topic && asked.TopicID == topic.TopicID &&
					slices.ContainsFunc(asked.Partitions, func(p kmsg.FetchRequestTopicPartition) bool { return p.Partition == number })
			})
		})
		return topic
	})
}

// roomy lets everything fit: who of a session's partitions gets what room there is depends on
// their order.
func (g *generator) roomy(request *kmsg.FetchRequest) {
	request.MaxBytes = 1 << 24
	for i := range request.Topics {
		for j := range request.Topics[i].Partitions {
			request.Topics[i].Partitions[j].PartitionMaxBytes = 1 << 20
		}
	}
}

// fetched follows the sessions that the reference opens, continues and closes.
func (g *generator) fetched(request *kmsg.FetchRequest, response *kmsg.FetchResponse) {
	at := -1
	for i, session := range g.sessions {
		if session.id == request.SessionID && session.broker == g.target {
			at = i
		}
	}
	switch {
	case request.Version < 7:
	case response.ErrorCode == 0 && response.SessionID > 0 && at >= 0 && response.SessionID == request.SessionID:
		g.sessions[at].epoch++
		g.sessions[at].version = max(g.sessions[at].version, request.Version)
	case response.SessionID > 0 && (request.ReplicaID >= 0 || request.ReplicaState.ID >= 0): // a follower's: see docs/compatibility.md on newer epochs
	case response.SessionID > 0:
		g.sessions = append(g.sessions, &fetchState{id: response.SessionID, epoch: 1, byID: request.Version >= 13, version: request.Version, broker: g.target})
	case response.ErrorCode == 0 && at >= 0 && request.SessionID != 0:
		g.sessions = append(g.sessions[:at], g.sessions[at+1:]...)
	}
}

func (g *generator) listOffsets() kmsg.Request {
	request := kmsg.NewPtrListOffsetsRequest()
	request.ReplicaID = pick[int32](g, -1, -1, -1, -1, -2, 77, -3)
	if g.cluster() {
		request.ReplicaID = max(request.ReplicaID, -1) // replicas that do not lead answer others only
	}
	request.IsolationLevel = pick[int8](g, 0, 0, 1)
	request.TimeoutMillis = g.wait()
	request.Topics = few(g, 3, func() kmsg.ListOffsetsRequestTopic {
		topic := kmsg.NewListOffsetsRequestTopic()
		topic.Topic = g.dataTopic()
		topic.Partitions = few(g, 3, func() kmsg.ListOffsetsRequestTopicPartition {
			partition := kmsg.NewListOffsetsRequestTopicPartition()
			partition.Partition = g.partition(topic.Topic)
			partition.CurrentLeaderEpoch = g.epoch()
			partition.Timestamp = pick[int64](g, -1, -2, -3, -4, -5, -6, 0, 1, firstTime, firstTime+500, firstTime+1003, math.MaxInt64, math.MinInt64)
			partition.MaxNumOffsets = pick[int32](g, 1, 1, 10, 0, -1)
			if g.version == 0 { // the bases of segments, of which we give one
				partition.Timestamp, partition.MaxNumOffsets = pick[int64](g, -1, -2), 1
			}
			return partition
		})
		return topic
	})
	return request
}

func (g *generator) offsetForLeaderEpoch() kmsg.Request {
	request := kmsg.NewPtrOffsetForLeaderEpochRequest()
	request.ReplicaID = pick[int32](g, -1, -2, 1, 77)
	request.Topics = few(g, 3, func() kmsg.OffsetForLeaderEpochRequestTopic {
		topic := kmsg.NewOffsetForLeaderEpochRequestTopic()
		topic.Topic = g.dataTopic()
		topic.Partitions = few(g, 3, func() kmsg.OffsetForLeaderEpochRequestTopicPartition {
			partition := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
			partition.Partition, partition.CurrentLeaderEpoch, partition.LeaderEpoch = g.partition(topic.Topic), g.epoch(), g.epoch()
			return partition
		})
		return topic
	})
	return request
}

func (g *generator) initProducerID() kmsg.Request {
	request := kmsg.NewPtrInitProducerIDRequest()
	request.TransactionTimeoutMillis = pick[int32](g, 60_000, 0, -1, math.MaxInt32)
	if g.chance(8) {
		request.TransactionalID = kmsg.StringPtr("")
	}
	if g.chance(4) {
		request.ProducerID, request.ProducerEpoch = pick[int64](g, -1, 0, 5), pick[int16](g, -1, 0, 3)
	}
	return request
}

func (g *generator) initialized(response *kmsg.InitProducerIDResponse) {
	if response.ErrorCode == 0 {
		g.producers = append(g.producers, &producerState{id: response.ProducerID, epoch: response.ProducerEpoch, next: map[string]int32{}})
		if len(g.producers) > 4 {
			g.producers = g.producers[1:]
		}
	}
}

func (g *generator) deleteRecords() kmsg.Request {
	request := kmsg.NewPtrDeleteRecordsRequest()
	request.TimeoutMillis = g.wait()
	request.Topics = few(g, 3, func() kmsg.DeleteRecordsRequestTopic {
		topic := kmsg.NewDeleteRecordsRequestTopic()
		topic.Topic = g.dataTopic()
		topic.Partitions = few(g, 3, func() kmsg.DeleteRecordsRequestTopicPartition {
			partition := kmsg.NewDeleteRecordsRequestTopicPartition()
			partition.Partition = g.partition(topic.Topic)
			partition.Offset = pick[int64](g, -1, 0, 1, 2, 3, -2, math.MaxInt64)
			return partition
		})
		return topic
	})
	return request
}

func (g *generator) describeProducers() kmsg.Request {
	request := kmsg.NewPtrDescribeProducersRequest()
	request.Topics = few(g, 3, func() kmsg.DescribeProducersRequestTopic {
		topic := kmsg.NewDescribeProducersRequestTopic()
		topic.Topic = g.topic()
		topic.Partitions = g.partitions(topic.Topic)
		return topic
	})
	return request
}

// translateProduce gives a request's batches the candidate's producer ids.
func (b *bindings) translateProduce(request *kmsg.ProduceRequest) {
	for i := range request.Topics {
		for j := range request.Topics[i].Partitions {
			records := &request.Topics[i].Partitions[j].Records
			if len(*records) > 0 {
				*records = b.translateBatches(bytes.Clone(*records))
			}
		}
	}
}
