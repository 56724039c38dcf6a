package broker

import (
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/commitlog"
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
	for i := range p.body.Topics {
		topic := &p.body.Topics[i]
		for j := range topic.Partitions {
			tp := cluster.TopicPartition{Topic: topic.Topic, Partition: topic.Partitions[j].Partition}
			if err := p.refuse(tp, topic.Partitions[j].Records); err != nil {
				if p.refused == nil {
					p.refused = map[cluster.TopicPartition]error{}
				}
				p.refused[tp] = err
				continue
			}
			p.parts = append(p.parts, replication.AppendPart{TP: tp, Records: topic.Partitions[j].Records})
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
	attributesAt     = 21
	codecMask        = 0x07
	codecZstd        = 4
	transactionalBit = 0x10
)

// refuse says why a partition's records are not even given to the log, or nil.
func (p *produce) refuse(tp cluster.TopicPartition, records []byte) error {
	switch {
	case p.body.Acks < -1 || p.body.Acks > 1:
		return kerr.InvalidRequiredAcks
	case p.body.TransactionID != nil:
		return kerr.TransactionalIDAuthorizationFailed
	case isInternalTopic(tp.Topic) && p.request.ClientID != adminClientID:
		return kerr.InvalidTopicException
	case p.request.Version < 3:
		return kerr.UnsupportedForMessageFormat
	case len(records) > attributesAt+1 && records[attributesAt+1]&transactionalBit != 0:
		return kerr.TransactionalIDAuthorizationFailed
	case len(records) > attributesAt+1 && records[attributesAt+1]&codecMask == codecZstd && p.request.Version < 7:
		return kerr.UnsupportedCompressionType
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
			p.fill(&topic.Partitions[j], tp.Partition, &result, &leaders)
		}
	}
	for _, leader := range leaders.brokers {
		endpoint := kmsg.NewProduceResponseBroker()
		endpoint.NodeID, endpoint.Host, endpoint.Port, endpoint.Rack = int32(leader.id), leader.host, leader.port, rackOrNil(leader.rack)
		response.Brokers = append(response.Brokers, endpoint)
	}
	p.request.Reply(response)
}

func (p *produce) fill(answer *kmsg.ProduceResponseTopicPartition, partition int32, result *replication.AppendResult, leaders *leaderEndpoints) {
	answer.Default()
	answer.Partition = partition
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
	answer.ErrorMessage = p.message(result.Err)
	if p.request.Version >= 10 && hinted(result.Err, nil) {
		answer.CurrentLeader.LeaderID = int32(result.Leader.Leader)
		answer.CurrentLeader.LeaderEpoch = int32(result.Leader.Epoch)
		leaders.add(result.Leader)
	}
}

// message is what the error says beyond its code, if it says more.
func (p *produce) message(err error) *string {
	if errors.Is(err, kerr.TransactionalIDAuthorizationFailed) {
		return kmsg.StringPtr(transactionsMessage)
	}
	if _, bare := err.(*kerr.Error); bare { //nolint:errorlint // a wrapped one says more
		return nil
	}
	return kmsg.StringPtr(err.Error())
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
