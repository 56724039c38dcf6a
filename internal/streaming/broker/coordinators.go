package broker

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/commitlog"
	"understudy/internal/streaming/group"
	"understudy/internal/streaming/group/classic"
	"understudy/internal/streaming/metadata"
	"understudy/internal/streaming/producerid"
	"understudy/internal/streaming/record"
	"understudy/internal/streaming/replication"
	"understudy/internal/streaming/wire"
)

// startCoordinators starts the coordinators of groups and producer ids. It runs before the
// first request, so that no role change of an internal topic is missed.
func (b *Broker) startCoordinators(context.Context) error {
	b.groups = group.New(group.Config{
		Log:        groupLog{b.replicas},
		Partitions: b.offsetsPartitions,
		Settings: classic.Settings{
			MinSessionTimeout:     max(b.config.GroupMinSessionTimeout, 1), // 0 would mean the default
			MaxSessionTimeout:     b.config.GroupMaxSessionTimeout,
			InitialRebalanceDelay: b.config.GroupInitialRebalanceDelay,
			MaxSize:               b.config.GroupMaxSize,
			MaxOffsetMetadata:     b.config.OffsetMetadataMaxBytes,
			OffsetsRetention:      b.config.OffsetsRetention,
		},
		CommitAcks:      b.config.OffsetsCommitRequiredAcks,
		CommitTimeout:   b.config.OffsetsCommitTimeout,
		Codec:           record.Codec(b.config.OffsetsTopicCompressionCodec),
		LoadBufferBytes: b.config.OffsetsLoadBufferBytes,
		ExpiryInterval:  b.config.OffsetsRetentionCheckInterval,
		MessageMaxBytes: b.config.MessageMaxBytes,
		Logger:          b.logger,
	})
	b.replicas.OnRoleChange(group.Topic, b.groups.OnRoleChange)
	b.producerIDs = producerid.New(b.allocateProducerIDs, b.logger)
	return nil
}

// stopCoordinators stops them; requests that wait for them are answered.
func (b *Broker) stopCoordinators(context.Context) {
	if b.producerIDs != nil {
		b.producerIDs.Close()
	}
	if b.groups != nil {
		b.groups.Close()
	}
}

// coordinatorsMetadataChanged tells them of partitions that were deleted.
func (b *Broker) coordinatorsMetadataChanged(change metadata.Change) {
	if len(change.Removed) > 0 && b.groups != nil {
		b.groups.PartitionsDeleted(change.Removed)
	}
}

// offsetsPartitions is the partition count of the offsets topic: its own if it exists, else
// what it will be created with.
func (b *Broker) offsetsPartitions() int32 {
	if topic := b.metadata.Image().Topic(group.Topic); topic != nil {
		return int32(len(topic.Partitions))
	}
	return b.config.OffsetsTopicPartitions
}

// groupLog gives the group coordinator its partitions of the replicated log.
type groupLog struct{ replicas *replication.Manager }

func (l groupLog) Append(tp cluster.TopicPartition, batch []byte, acks int16, timeout time.Duration, done func(error)) {
	l.replicas.Append(replication.AppendRequest{
		Parts: []replication.AppendPart{{TP: tp, Records: batch}}, Acks: acks, Timeout: timeout, Origin: commitlog.Coordinator,
	}, func(results []replication.AppendResult) { done(results[0].Err) })
}

func (l groupLog) Read(tp cluster.TopicPartition, from cluster.Offset, maxBytes int) ([]byte, cluster.Offset, cluster.Offset, error) {
	return l.replicas.ReadLocal(tp, from, maxBytes)
}

// allocateProducerIDs asks the controller for a block of producer ids.
func (b *Broker) allocateProducerIDs(ctx context.Context) (producerid.Block, error) {
	ctx, cancel := context.WithTimeout(ctx, b.config.ControllerSocketTimeout)
	defer cancel()
	client, err := b.dialController(ctx)
	if err != nil {
		return producerid.Block{}, err
	}
	defer client.Close()
	request := kmsg.NewPtrAllocateProducerIDsRequest()
	request.BrokerID, request.BrokerEpoch = int32(b.id), int64(b.Epoch())
	answer, err := client.Do(ctx, request)
	if err != nil {
		return producerid.Block{}, err
	}
	response := answer.(*kmsg.AllocateProducerIDsResponse)
	return producerid.Block{Start: response.ProducerIDStart, Count: response.ProducerIDLen}, kerr.ErrorForCode(response.ErrorCode)
}

// complaint lets a line be logged now and then, where clients ask again and again.
type complaint struct{ last atomic.Int64 } // in Unix seconds

const complaintSeconds = 30

func (c *complaint) allow() bool {
	last, now := c.last.Load(), time.Now().Unix()
	return now-last >= complaintSeconds && c.last.CompareAndSwap(last, now)
}

// codeOf is the protocol's number of an error from the coordinators, 0 for none.
func codeOf(err *kerr.Error) int16 {
	if err == nil {
		return 0
	}
	return err.Code
}

// clientHost is a member's host as Java prints an address, which tools expect.
func clientHost(request *wire.Request) string {
	if request.RemoteAddr == nil {
		return "/unknown"
	}
	host, _, err := net.SplitHostPort(request.RemoteAddr.String())
	if err != nil {
		host = request.RemoteAddr.String()
	}
	return "/" + host
}
