package broker

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/commitlog"
	"understudy/internal/streaming/controller"
	"understudy/internal/streaming/metadata"
	"understudy/internal/streaming/record"
	"understudy/internal/streaming/replication"
	"understudy/internal/streaming/wire"
)

// Produce (key 0), versions 0 to 11. v0 to v2 carry message formats 0 and 1, which are refused
// as Kafka 4 refuses them; they stay advertised because librdkafka turns compression off
// without v0 (KAFKA-18659). v3 batches of format 2 and transactional ids; v7 zstd; v8
// messages with errors; v10 the leader with NOT_LEADER_OR_FOLLOWER (KIP-951); v11 as v10.
// acks=0 gets no answer; an error then closes the connection, which is how such a producer
// learns that its metadata is stale.

func (b *Broker) registerProduce() { b.server.Handle(0, 0, 11, b.handleProduce) }

// adminClientID may write to internal topics (KafkaApis: AdminUtils.ADMIN_CLIENT_ID).
const adminClientID = "__admin_client"

const transactionsMessage = "transactions are not supported by this broker: produce without transactional.id"

// produce is one request on its way: the topics in the order of the request, and for each
// partition either its place in the append or why it was not appended.
type produce struct {
	b       *Broker
	request *wire.Request
	body    *kmsg.ProduceRequest
	parts   []replication.AppendPart
	refused map[cluster.TopicPartition]error
}

func (b *Broker) handleProduce(request *wire.Request) {
	p := &produce{b: b, request: request, body: request.Body.(*kmsg.ProduceRequest)}
	if err := p.corrupt(); err != nil {
		p.refuseAll(err)
		return
	}
	p.body.Topics = mergeProduced(p.body.Topics)
	image := b.metadata.Image()
	for i := range p.body.Topics {
		topic := &p.body.Topics[i]
		for j := range topic.Partitions {
			tp := cluster.TopicPartition{Topic: topic.Topic, Partition: topic.Partitions[j].Partition}
			if err := p.refuse(image, tp, topic.Partitions[j].Records); err != nil {
				if p.refused == nil {
					p.refused = map[cluster.TopicPartition]error{}
				}
				p.refused[tp] = err
				continue
			}
			p.parts = append(p.parts, replication.AppendPart{TP: tp, Records: wholeBatches(topic.Partitions[j].Records)})
		}
	}
	if len(p.parts) == 0 {
		p.answer(nil)
		return
	}
	b.replicas.Append(replication.AppendRequest{
		Parts:   p.parts,
		Acks:    p.body.Acks,
		Timeout: time.Duration(max(p.body.TimeoutMillis, 0)) * time.Millisecond,
		Origin:  commitlog.Client,
	}, p.answer)
}

// Batch header fields that are looked at before the log does (log-format.md).
const (
	magicAt          = 16
	attributesAt     = 21
	codecMask        = 0x07
	codecZstd        = 4
	transactionalBit = 0x10
)

// checkProduced: from version 3 on a partition's records are one batch of format 2
// (ProduceRequest.validateRecords); before, they are batches.
func checkProduced(version int16, records []byte) error {
	if version < 3 {
		batch, rest, err := cutBatch(records)
		for err == nil && batch != nil {
			batch, rest, err = cutBatch(rest)
		}
		if err != nil {
			return kerr.CorruptMessage
		}
		return nil
	}
	first, rest, err := cutBatch(records)
	switch {
	case err != nil:
		return err
	case first == nil:
		return controller.Refuse(kerr.InvalidRecord, "Produce requests with version %d must have at least one record batch per partition", version)
	case first[magicAt] != record.CurrentMagic:
		return controller.Refuse(kerr.InvalidRecord, "Produce requests with version %d are only allowed to contain record batches with magic version 2", version)
	case len(first) > attributesAt+1 && first[attributesAt+1]&codecMask == codecZstd && version < 7:
		return controller.Refuse(kerr.UnsupportedCompressionType, "Produce requests with version %d are not allowed to use ZStandard compression", version)
	}
	switch second, _, err := cutBatch(rest); {
	case err != nil:
		return kerr.CorruptMessage
	case second != nil:
		return controller.Refuse(kerr.InvalidRecord, "Produce requests with version %d are only allowed to contain exactly one record batch per partition", version)
	}
	return nil
}

// corrupt looks at the frames of each partition's first batch: one that cannot be right fails
// the whole request (RequestUtils.hasTransactionalRecords looks at them in Apache's broker).
// What is wrong behind it is that partition's alone.
func (p *produce) corrupt() error {
	for i := range p.body.Topics {
		for j := range p.body.Topics[i].Partitions {
			if _, _, err := cutBatch(p.body.Topics[i].Partitions[j].Records); err != nil {
				return err
			}
		}
	}
	return nil
}

// wholeBatches leaves out what follows the last whole batch, of which Kafka takes no notice.
func wholeBatches(records []byte) []byte {
	_, rest, err := cutBatch(records)
	for err == nil && len(rest) > 0 {
		var batch, left []byte
		if batch, left, err = cutBatch(rest); batch == nil {
			return records[:len(records)-len(rest)]
		}
		rest = left
	}
	return records
}

// refuseAll answers every partition with one error (ProduceRequest.getErrorResponse).
func (p *produce) refuseAll(err error) {
	p.body.Topics, p.refused = mergeProduced(p.body.Topics), map[cluster.TopicPartition]error{}
	for i := range p.body.Topics {
		for j := range p.body.Topics[i].Partitions {
			p.refused[cluster.TopicPartition{Topic: p.body.Topics[i].Topic, Partition: p.body.Topics[i].Partitions[j].Partition}] = err
		}
	}
	p.answer(nil)
}

// cutBatch cuts the first batch off by its frame alone; nil if the bytes end before it does
// (ByteBufferLogInputStream).
func cutBatch(records []byte) (batch, rest []byte, err error) {
	const leastOverhead = 14 // of a message of format 0
	if len(records) < record.LengthOverhead {
		return nil, nil, nil
	}
	size := int32(binary.BigEndian.Uint32(records[record.LengthOverhead-4:]))
	switch {
	case size < leastOverhead:
		return nil, nil, controller.Refuse(kerr.CorruptMessage, "Record size %d is less than the minimum record overhead (%d)", size, leastOverhead)
	case len(records) <= magicAt:
		return nil, nil, nil
	case records[magicAt] > record.CurrentMagic:
		return nil, nil, controller.Refuse(kerr.CorruptMessage, "Invalid magic found in record: %d", int8(records[magicAt]))
	case int64(size) > int64(len(records)-record.LengthOverhead):
		return nil, nil, nil
	}
	end := record.LengthOverhead + int(size)
	return records[:end], records[end:], nil
}

// mergeProduced: see merged.
func mergeProduced(topics []kmsg.ProduceRequestTopic) []kmsg.ProduceRequestTopic {
	return merged(topics, func(topic *kmsg.ProduceRequestTopic) (string, *[]kmsg.ProduceRequestTopicPartition) {
		return topic.Topic, &topic.Partitions
	}, func(partition *kmsg.ProduceRequestTopicPartition) int32 { return partition.Partition })
}

// refuse says why a partition's records are not even given to the log, or nil. The order is
// that of KafkaApis.handleProduceRequest.
func (p *produce) refuse(image *metadata.Image, tp cluster.TopicPartition, records []byte) error {
	if !known(image, tp) {
		return kerr.UnknownTopicOrPartition
	}
	if err := checkProduced(p.request.Version, records); err != nil {
		return err
	}
	switch {
	case p.body.Acks < -1 || p.body.Acks > 1:
		return kerr.InvalidRequiredAcks
	case p.body.TransactionID != nil:
		return kerr.TransactionalIDAuthorizationFailed
	case isInternalTopic(tp.Topic) && p.request.ClientID != adminClientID:
		return kerr.InvalidTopicException
	case p.request.Version < 3 && len(records) > magicAt && records[magicAt] < 2:
		return kerr.UnsupportedForMessageFormat
	case len(records) > attributesAt+1 && records[attributesAt+1]&transactionalBit != 0:
		return kerr.TransactionalIDAuthorizationFailed
	}
	return nil
}

// isInternalTopic names the topics that belong to the coordinators.
func isInternalTopic(topic string) bool {
	return topic == "__consumer_offsets" || topic == "__transaction_state"
}

// answer replies when every partition has its outcome; results are those of parts by index.
func (p *produce) answer(results []replication.AppendResult) {
	if p.body.Acks == 0 {
		p.answerNothing(results)
		return
	}
	response := respond[*kmsg.ProduceResponse](p.request)
	response.Topics = make([]kmsg.ProduceResponseTopic, len(p.body.Topics))
	leaders := leaderEndpoints{b: p.b, listener: p.request.Listener}
	for i := range p.body.Topics {
		topic, asked := &response.Topics[i], &p.body.Topics[i]
		topic.Topic = asked.Topic
		topic.Partitions = make([]kmsg.ProduceResponseTopicPartition, len(asked.Partitions))
		for j := range asked.Partitions {
			tp := cluster.TopicPartition{Topic: asked.Topic, Partition: asked.Partitions[j].Partition}
			var result replication.AppendResult
			if err := p.refused[tp]; err != nil {
				result.Err = err
			} else {
				result, results = results[0], results[1:]
			}
			p.fill(&topic.Partitions[j], tp, &result, &leaders)
		}
	}
	for _, leader := range leaders.brokers {
		endpoint := kmsg.NewProduceResponseBroker()
		endpoint.NodeID, endpoint.Host, endpoint.Port, endpoint.Rack = int32(leader.id), leader.host, leader.port, rackOrNil(leader.rack)
		response.Brokers = append(response.Brokers, endpoint)
	}
	p.request.Reply(response)
}

func (p *produce) fill(answer *kmsg.ProduceResponseTopicPartition, tp cluster.TopicPartition, result *replication.AppendResult, leaders *leaderEndpoints) {
	answer.Default()
	answer.Partition = tp.Partition
	answer.BaseOffset, answer.LogAppendTime, answer.LogStartOffset = -1, -1, -1
	if result.Err == nil || errors.Is(result.Err, kerr.NotEnoughReplicasAfterAppend) {
		answer.BaseOffset = int64(result.Info.First)
		answer.LogAppendTime = result.Info.LogAppendTimeMs
		answer.LogStartOffset = int64(result.Info.LogStart)
	}
	if result.Err == nil {
		return
	}
	answer.ErrorCode = p.b.code(result.Err)
	if log := p.b.logs.Get(tp); log != nil && p.refused[tp] == nil && withLogStart(result.Err) {
		answer.LogStartOffset = int64(log.StartOffset())
	}
	answer.ErrorMessage = p.message(result.Err)
	if p.request.Version >= 10 && hinted(result.Err, nil) {
		answer.CurrentLeader.LeaderID = int32(result.Leader.Leader)
		answer.CurrentLeader.LeaderEpoch = int32(result.Leader.Epoch)
		leaders.add(result.Leader)
	}
}

// message is what the error says beyond its code. Apache's broker adds one only where it
// tells which records it refused; the text that it has for others goes to its log.
func (p *produce) message(err error) *string {
	if errors.Is(err, kerr.TransactionalIDAuthorizationFailed) {
		return kmsg.StringPtr(transactionsMessage)
	}
	var refusal *controller.Refusal
	if errors.As(err, &refusal) && errors.Is(err, kerr.CorruptMessage) {
		return &refusal.Message
	}
	return nil
}

// withLogStart reports whether an append that failed still tells the log start offset: it
// does not if the partition was not to be written at all (ReplicaManager.appendToLocalLog).
func withLogStart(err error) bool {
	for _, without := range []*kerr.Error{
		kerr.UnknownTopicOrPartition, kerr.NotLeaderForPartition, kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.CorruptMessage, kerr.KafkaStorageError,
	} {
		if errors.Is(err, without) {
			return false
		}
	}
	return true
}

func (p *produce) answerNothing(results []replication.AppendResult) {
	failed := len(p.refused) > 0
	for i := range results {
		failed = failed || results[i].Err != nil
	}
	if failed {
		p.request.CloseConnection()
		return
	}
	p.request.NoReply()
}
