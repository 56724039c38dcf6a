package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/metadata"
	"understudy/internal/streaming/replication"
	"understudy/internal/streaming/wire"
)

// Fetch (key 1), versions 4 to 17: records for consumers and followers. Versions 0 to 3 would
// need message formats that we do not write. v4 isolation level; v5 log start offset; v7
// fetch sessions (KIP-227); v9 current leader epoch; v10 zstd; v11 any replica may serve
// (KIP-392); v12 divergence by last fetched epoch (KIP-595); v13 topic ids; v15 replica epoch
// (KIP-903); v16 leader and its address with errors (KIP-951); v17 directory ids, not used.
//
// Records never pass through our memory when there are many: the answer is built around
// slices of segment files, which the connection's writer sends by sendfile.

func (b *Broker) registerFetch() { b.server.Handle(1, 4, 17, b.handleFetch) }

// futureReplica is the replica id with which Apache's broker copies a log to another directory.
const futureReplica cluster.BrokerID = -3

// copiedSliceBytes is the size up to which records are read into the answer's own buffer: a
// sendfile costs more than copying so little.
const copiedSliceBytes = 32 << 10

func (b *Broker) handleFetch(request *wire.Request) {
	body := request.Body.(*kmsg.FetchRequest)
	replica, epoch := cluster.BrokerID(body.ReplicaID), cluster.UnknownBrokerEpoch
	if request.Version >= 15 {
		replica, epoch = cluster.BrokerID(body.ReplicaState.ID), cluster.BrokerEpoch(body.ReplicaState.Epoch)
	}
	follower := replica >= 0
	if replica < 0 && replica != futureReplica {
		replica = replication.ConsumerReplica // FetchRequest.isConsumer
	}
	context, err := b.fetches.open(request.Version, body, follower, b.now())
	if err != nil {
		response := respond[*kmsg.FetchResponse](request)
		response.ErrorCode = b.code(err)
		request.Reply(response)
		return
	}
	f := &fetch{b: b, request: request, context: context, version: request.Version, isolation: body.IsolationLevel}
	if replica != replication.ConsumerReplica {
		f.isolation = replication.ReadUncommitted // others read to the log end, whatever they ask for
	}
	fetchRequest := replication.FetchRequest{
		Replica:      replica,
		ReplicaEpoch: epoch,
		MaxWait:      time.Duration(max(body.MaxWaitMillis, 0)) * time.Millisecond,
		MinBytes:     body.MinBytes,
		MaxBytes:     max(min(body.MaxBytes, b.config.FetchMaxBytes), 1), // with 0, too, the first batch is given
		Isolation:    body.IsolationLevel,
		LeaderOnly:   follower || replica == replication.ConsumerReplica && request.Version <= 10,
	}
	if follower {
		fetchRequest.MaxBytes = max(body.MaxBytes, 1)
	}
	if b.config.RackAwareReads && request.Version >= 11 {
		fetchRequest.NearRack, fetchRequest.Listener = body.Rack, request.Listener
	}
	f.resolve(&fetchRequest)
	if len(fetchRequest.Parts) == 0 && fetchRequest.Standing == nil {
		f.answer(nil)
		return
	}
	request.OnClose(b.replicas.Fetch(fetchRequest, f.answer))
}

// fetch is one request on its way.
type fetch struct {
	b       *Broker
	request *wire.Request
	context *fetchContext
	version int16
	// isolation is the request's; image what this broker knew of the cluster when it came.
	isolation int8
	image     *metadata.Image
	// unknown are partitions of topic ids that nobody knows; they are not part of what was
	// asked of replication.
	unknown []*fetchPartition
}

// resolve turns the context's partitions into the parts of a fetch, with names for ids.
func (f *fetch) resolve(request *replication.FetchRequest) {
	image := f.b.metadata.Image()
	f.image = image
	if session := f.context.session; session != nil {
		session.mu.Lock()
		defer session.mu.Unlock()
		request.Standing = &session.standing
	}
	request.Parts = make([]replication.FetchPart, 0, len(f.context.partitions))
	for _, partition := range f.context.partitions {
		part := partition.part
		part.Tag = partition
		if request.Standing != nil {
			part.Standing = &partition.standing
			part.KnownHighWatermark, part.KnownLogStart = partition.sentHighWatermark, partition.sentLogStart
		}
		if f.version >= 13 {
			name, found := image.TopicName(part.TopicID)
			if !found {
				f.unknown = append(f.unknown, partition)
				request.MaxWait = 0 // an error is answered at once
				continue
			}
			part.TP.Topic = name
		}
		request.Parts = append(request.Parts, part)
	}
}

// fetched is one partition of the answer. records is nil if there are none.
type fetched struct {
	partition *fetchPartition
	result    replication.FetchResult
	records   slice
}

// answer encodes the results and sends them. It owns their slices.
func (f *fetch) answer(results []replication.FetchResult) {
	included := make([]fetched, 0, len(results)+len(f.unknown))
	for i := range results {
		result := &results[i]
		partition := result.Tag.(*fetchPartition)
		if f.context.news(partition, result) {
			one := fetched{partition: partition, result: *result}
			if result.Slice != nil {
				one.records = result.Slice
			}
			included = append(included, one)
		} else if result.Slice != nil {
			_ = result.Slice.Close()
		}
	}
	for _, partition := range f.unknown {
		result := replication.FetchResult{Err: kerr.UnknownTopicID, HighWatermark: cluster.NoOffset, LastStableOffset: cluster.NoOffset, LogStartOffset: cluster.NoOffset}
		if f.context.news(partition, &result) {
			included = append(included, fetched{partition: partition, result: result})
		}
	}
	response := newFetchBody()
	f.encode(response, included)
	f.request.ReplyRaw(response)
}

// encode writes the answer's body (FetchResponse.json); partitions of a topic that follow
// each other stand under one topic.
func (f *fetch) encode(out *fetchBody, included []fetched) {
	flexible := f.version >= 12
	out.int32(0) // throttle time
	if f.version >= 7 {
		out.int16(0)
		out.int32(f.context.sessionID())
	}
	leaders := leaderEndpoints{b: f.b, listener: f.request.Listener}
	out.arrayLen(countTopics(included), flexible)
	for len(included) > 0 {
		run := topicRun(included)
		if f.version >= 13 {
			out.buffer = append(out.buffer, included[0].partition.part.TopicID[:]...)
		} else {
			out.string(included[0].partition.part.TP.Topic, flexible)
		}
		out.arrayLen(run, flexible)
		for i := range included[:run] {
			f.encodePartition(out, &included[i], &leaders)
		}
		out.noTags(flexible)
		included = included[run:]
	}
	if !flexible {
		return
	}
	if f.version < 16 || len(leaders.brokers) == 0 {
		out.noTags(flexible)
		return
	}
	out.tagged(map[int]func(*fetchBody){0: func(tag *fetchBody) {
		tag.arrayLen(len(leaders.brokers), true)
		for _, leader := range leaders.brokers {
			tag.int32(int32(leader.id))
			tag.string(leader.host, true)
			tag.int32(leader.port)
			tag.nullableString(rackOrNil(leader.rack))
			tag.noTags(true)
		}
	}})
}

func sameTopic(a, b *fetchPartition) bool {
	return a.part.TP.Topic == b.part.TP.Topic && a.part.TopicID == b.part.TopicID
}

// topicRun is how many partitions at the front are of one topic.
func topicRun(included []fetched) int {
	run := 1
	for run < len(included) && sameTopic(included[0].partition, included[run].partition) {
		run++
	}
	return run
}

func countTopics(included []fetched) int {
	count := 0
	for len(included) > 0 {
		included = included[topicRun(included):]
		count++
	}
	return count
}

// encodePartition writes one partition. Records that should be copied and cannot be read
// make it a partition with an error.
func (f *fetch) encodePartition(out *fetchBody, p *fetched, leaders *leaderEndpoints) {
	start := len(out.buffer)
	if err := f.tryEncodePartition(out, p, leaders); err != nil {
		f.b.logger.Error("cannot read records for a fetch", "topic", p.partition.part.TP.Topic, "partition", p.partition.part.TP.Partition, "error", err)
		out.buffer = out.buffer[:start]
		p.records = nil
		p.result = replication.FetchResult{Err: kerr.KafkaStorageError, HighWatermark: cluster.NoOffset, LastStableOffset: cluster.NoOffset, LogStartOffset: cluster.NoOffset}
		_ = f.tryEncodePartition(out, p, leaders)
	}
}

func (f *fetch) tryEncodePartition(out *fetchBody, p *fetched, leaders *leaderEndpoints) error {
	flexible, result := f.version >= 12, &p.result
	out.int32(p.partition.part.TP.Partition)
	out.int16(f.b.code(result.Err))
	out.int64(int64(result.HighWatermark))
	out.int64(int64(result.LastStableOffset))
	if f.version >= 5 {
		if result.Err != nil {
			out.int64(int64(cluster.NoOffset))
		} else {
			out.int64(int64(result.LogStartOffset))
		}
	}
	switch {
	case f.isolation == replication.ReadCommitted && result.Err == nil && result.Diverging == nil && result.NearReader == nil && !f.cutShort(p) || f.unheardOf(p):
		out.arrayLen(len(result.Aborted), flexible)
	default: // null: nobody asked, or nothing is read
		out.arrayLen(-1, flexible)
	}
	for _, aborted := range result.Aborted {
		out.int64(aborted.ProducerID)
		out.int64(int64(aborted.FirstOffset))
		out.noTags(flexible)
	}
	if f.version >= 11 {
		preferred := cluster.NoBroker
		if result.NearReader != nil {
			preferred = *result.NearReader
		}
		out.int32(int32(preferred))
	}
	if err := out.records(p.records, flexible); err != nil {
		return err
	}
	if flexible {
		out.tagged(f.partitionTags(result, leaders))
	}
	return nil
}

// cutShort reports whether there are records and not one was given, for want of room.
func (f *fetch) cutShort(p *fetched) bool {
	return (p.records == nil || p.records.Size() == 0) && p.partition.part.MaxBytes > 0 && p.partition.part.FetchOffset < p.result.LastStableOffset
}

// unheardOf reports whether a partition is one that the cluster does not have, which Apache's
// broker finds out before it looks at its logs.
func (f *fetch) unheardOf(p *fetched) bool {
	if p.result.Err == nil {
		return false
	}
	tp := p.partition.part.TP
	if f.version >= 13 {
		name, found := f.image.TopicName(p.partition.part.TopicID)
		if !found {
			return true
		}
		tp.Topic = name
	}
	return !known(f.image, tp)
}

func (f *fetch) partitionTags(result *replication.FetchResult, leaders *leaderEndpoints) map[int]func(*fetchBody) {
	var tags map[int]func(*fetchBody)
	if result.Diverging != nil {
		tags = map[int]func(*fetchBody){0: func(tag *fetchBody) {
			tag.int32(int32(result.Diverging.Epoch))
			tag.int64(int64(result.Diverging.EndOffset))
			tag.noTags(true)
		}}
	}
	if f.version >= 16 && result.Err != nil && hinted(result.Err, kerr.FencedLeaderEpoch) {
		leaders.add(result.Leader)
		if tags == nil {
			tags = map[int]func(*fetchBody){}
		}
		tags[1] = func(tag *fetchBody) {
			tag.int32(int32(result.Leader.Leader))
			tag.int32(int32(result.Leader.Epoch))
			tag.noTags(true)
		}
	}
	return tags
}

// slice is what fetchBody needs of a *commitlog.Slice.
type slice interface {
	Size() int
	AppendTo(dst []byte) ([]byte, error)
	SendTo(conn net.Conn) (int64, error)
	Close() error
}

// fetchBody is a response body of encoded bytes with slices of files between them. It is the
// gather writer that kmsg lacks, and a wire.RawResponse.
type fetchBody struct {
	buffer []byte
	pieces []piece
	extra  int // bytes in pieces
}

// piece is a slice that stands before the byte of the buffer at an index.
type piece struct {
	at    int
	slice slice
}

var fetchBodies = sync.Pool{New: func() any { return new(fetchBody) }}

func newFetchBody() *fetchBody { return fetchBodies.Get().(*fetchBody) }

func (o *fetchBody) int16(v int16) { o.buffer = binary.BigEndian.AppendUint16(o.buffer, uint16(v)) }
func (o *fetchBody) int32(v int32) { o.buffer = binary.BigEndian.AppendUint32(o.buffer, uint32(v)) }
func (o *fetchBody) int64(v int64) { o.buffer = binary.BigEndian.AppendUint64(o.buffer, uint64(v)) }
func (o *fetchBody) uvarint(v int) { o.buffer = binary.AppendUvarint(o.buffer, uint64(v)) }

func (o *fetchBody) arrayLen(count int, flexible bool) {
	if flexible {
		o.uvarint(count + 1)
	} else {
		o.int32(int32(count))
	}
}

func (o *fetchBody) string(text string, flexible bool) {
	if flexible {
		o.uvarint(len(text) + 1)
	} else {
		o.int16(int16(len(text)))
	}
	o.buffer = append(o.buffer, text...)
}

func (o *fetchBody) nullableString(text *string) {
	if text == nil {
		o.uvarint(0)
		return
	}
	o.string(*text, true)
}

func (o *fetchBody) noTags(flexible bool) {
	if flexible {
		o.buffer = append(o.buffer, 0)
	}
}

// tagged writes a section of tagged fields; there are no tags but 0 and 1.
func (o *fetchBody) tagged(tags map[int]func(*fetchBody)) {
	o.uvarint(len(tags))
	for tag := range 2 {
		if write := tags[tag]; write != nil {
			var field fetchBody
			write(&field)
			o.uvarint(tag)
			o.uvarint(len(field.buffer))
			o.buffer = append(o.buffer, field.buffer...)
		}
	}
}

// records takes over a slice: its bytes if they are few, else the slice itself. On an error
// the slice is closed.
func (o *fetchBody) records(records slice, flexible bool) error {
	size := 0
	if records != nil {
		size = records.Size()
	}
	if flexible {
		o.uvarint(size + 1)
	} else {
		o.int32(int32(size))
	}
	switch {
	case size == 0:
		if records != nil {
			_ = records.Close()
		}
		return nil
	case size > copiedSliceBytes:
		o.pieces = append(o.pieces, piece{at: len(o.buffer), slice: records})
		o.extra += size
		return nil
	}
	before := len(o.buffer)
	buffer, err := records.AppendTo(o.buffer)
	closeErr := records.Close()
	if err == nil && len(buffer)-before != size {
		err = fmt.Errorf("%d bytes where %d were promised", len(buffer)-before, size)
	}
	if err = errors.Join(err, closeErr); err != nil {
		return err
	}
	o.buffer = buffer
	return nil
}

// Size is the body's size.
func (o *fetchBody) Size() int { return len(o.buffer) + o.extra }

// WriteTo sends the prefix and the body: each run of bytes in one write, the slices by
// sendfile.
func (o *fetchBody) WriteTo(conn net.Conn, prefix []byte) (int64, error) {
	var sent int64
	at := 0
	for i := 0; i <= len(o.pieces); i++ {
		end := len(o.buffer)
		if i < len(o.pieces) {
			end = o.pieces[i].at
		}
		n, err := writeBoth(conn, prefix, o.buffer[at:end])
		sent += n
		if err != nil {
			return sent, err
		}
		prefix, at = nil, end
		if i < len(o.pieces) {
			n, err := o.pieces[i].slice.SendTo(conn)
			sent += n
			if err != nil {
				return sent, err
			}
			if n != int64(o.pieces[i].slice.Size()) {
				return sent, fmt.Errorf("sent %d bytes of a slice of %d", n, o.pieces[i].slice.Size())
			}
		}
	}
	return sent, nil
}

func writeBoth(conn net.Conn, first, second []byte) (int64, error) {
	if len(first) == 0 {
		if len(second) == 0 {
			return 0, nil
		}
		n, err := conn.Write(second)
		return int64(n), err
	}
	buffers := net.Buffers{first, second}
	return buffers.WriteTo(conn)
}

// Release closes the slices and gives the body back to the pool.
func (o *fetchBody) Release() {
	for i := range o.pieces {
		_ = o.pieces[i].slice.Close()
		o.pieces[i] = piece{}
	}
	if cap(o.buffer) > 1<<20 {
		return
	}
	o.buffer, o.pieces, o.extra = o.buffer[:0], o.pieces[:0], 0
	fetchBodies.Put(o)
}
