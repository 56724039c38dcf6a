package commitlog

import (
	"errors"
	"fmt"
	"math"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/record"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Origin says who wrote a batch, which decides what is checked.
type Origin int8

const (
	Client      Origin = iota // a producer: everything is checked
	Coordinator               // a group or transaction coordinator of this broker
	Replication               // a leader, for follower appends
)

// AppendOptions are the circumstances of a leader's append.
type AppendOptions struct {
	LeaderEpoch cluster.LeaderEpoch
	Origin      Origin
	NowMs       int64 // append time, and what timestamps are checked against
	// Mendable says that other replicas may have what is damaged here. An idempotent producer
	// whose latest batch may be among that is refused until it is mended: a retry of that batch
	// would not be recognised, and the next one taken for one out of sequence.
	Mendable bool
}

// AppendInfo is the outcome of an append.
type AppendInfo struct {
	First, Last     cluster.Offset // of the original append if Duplicate; Last < First if nothing was appended
	LogAppendTimeMs int64          // -1 for topics with CreateTime
	MaxTimestampMs  int64
	LogStart        cluster.Offset
	Duplicate       bool // a retry of a batch that is in the log; nothing was appended
	LastLeaderEpoch cluster.LeaderEpoch
}

// UnexpectedOffsetError says that a leader's batch does not go at the end of the log.
type UnexpectedOffsetError struct {
	First cluster.Offset // of the batch
	End   cluster.Offset // where it would have to go, or after
}

func (e *UnexpectedOffsetError) Error() string {
	return fmt.Sprintf("commitlog: batch at offset %d does not follow the log's end offset %d", e.First, e.End)
}

// AppendLeader checks what a leader must, assigns offsets, and appends. It patches data in
// place and keeps no reference to it. Errors are kerr errors, wrapped; after one nothing
// has been appended, except after KAFKA_STORAGE_ERROR, when nobody knows.
func (l *Log) AppendLeader(data []byte, options AppendOptions) (AppendInfo, error) {
	if err := l.Failed(); err != nil {
		return AppendInfo{}, err
	}
	config := l.config.Load()
	data, facts, err := validate(data, config, options)
	if err != nil {
		return AppendInfo{}, fmt.Errorf("commitlog: append to %s: %w", l.tp, err)
	}
	l.writer.Lock()
	defer l.writer.Unlock()
	if facts.producer {
		if info, done, err := l.checkProducerLocked(record.Batch(data), config, options); done || err != nil {
			return info, err
		}
	}
	next := l.published.end
	info := AppendInfo{First: next, LogAppendTimeMs: record.NoTimestamp, MaxTimestampMs: facts.maxTimestamp,
		LogStart: l.published.start, LastLeaderEpoch: options.LeaderEpoch}
	if config.TimestampType == record.LogAppendTime {
		info.LogAppendTimeMs = options.NowMs
	}
	for rest := data; len(rest) > 0; {
		batch, after, err := record.Next(rest)
		if err != nil {
			panic(fmt.Sprintf("commitlog: validated batch does not parse: %v", err))
		}
		if next > math.MaxInt64-cluster.Offset(facts.offsets) {
			return AppendInfo{}, fmt.Errorf("commitlog: %s: offsets are used up: %w", l.tp, kerr.InvalidRecord)
		}
		batch.SetBaseOffset(next)
		batch.SetLeaderEpoch(options.LeaderEpoch)
		next = batch.NextOffset()
		rest = after
	}
	info.Last = next - 1
	if err := l.writeLocked(data, info.First, info.Last, facts.maxTimestamp, config, options.NowMs); err != nil {
		return AppendInfo{}, err
	}
	return info, nil
}

// checkProducerLocked applies the rules for idempotent producers to the only batch of an
// append; done means that it is a duplicate, and info the answer.
func (l *Log) checkProducerLocked(batch record.Batch, config *LogConfig, options AppendOptions) (info AppendInfo, done bool, err error) {
	producers := &l.writer.producers
	if options.Origin == Client {
		if original, ok := producers.duplicate(batch); ok {
			info = AppendInfo{First: original.firstOffset(), Last: original.lastOffset, Duplicate: true,
				LogAppendTimeMs: record.NoTimestamp, MaxTimestampMs: original.timestamp,
				LogStart: l.published.start, LastLeaderEpoch: l.epochs.forOffset(original.lastOffset)}
			if config.TimestampType == record.LogAppendTime {
				info.LogAppendTimeMs = original.timestamp
			}
			return info, true, nil
		}
	}
	err = producers.check(batch, options.Origin)
	if options.Origin == Client && options.Mendable {
		if d, may := producers.mayLack(batch.ProducerID(), err); may {
			err = fmt.Errorf("batches of producer %d may be among what is damaged: %w", batch.ProducerID(), l.damageError(d))
		}
	}
	if err != nil {
		return AppendInfo{}, false, fmt.Errorf("commitlog: append to %s: %w", l.tp, err)
	}
	return AppendInfo{}, false, nil
}

// AppendFollower appends what a leader sent as it is. An incomplete batch at the end of
// data is ignored; Last < First if there was no complete one.
func (l *Log) AppendFollower(data []byte) (AppendInfo, error) {
	if err := l.Failed(); err != nil {
		return AppendInfo{}, err
	}
	valid, maxTimestamp, err := validateReplicated(data)
	if err != nil {
		return AppendInfo{}, fmt.Errorf("commitlog: append to %s as follower: %w", l.tp, err)
	}
	l.writer.Lock()
	defer l.writer.Unlock()
	end := l.published.end
	info := AppendInfo{First: end, Last: end - 1, LogAppendTimeMs: record.NoTimestamp,
		MaxTimestampMs: maxTimestamp, LogStart: l.published.start, LastLeaderEpoch: cluster.NoLeaderEpoch}
	if valid == 0 {
		return info, nil
	}
	expected := end
	for batch := range record.All(data[:valid]) {
		if batch.BaseOffset() < expected {
			return AppendInfo{}, &UnexpectedOffsetError{First: batch.BaseOffset(), End: expected}
		}
		if expected == end {
			info.First = batch.BaseOffset()
		}
		expected = batch.NextOffset()
		info.LastLeaderEpoch = batch.LeaderEpoch()
	}
	info.Last = expected - 1
	if err := l.writeLocked(data[:valid], info.First, info.Last, maxTimestamp, l.config.Load(), l.nowMs()); err != nil {
		return AppendInfo{}, err
	}
	return info, nil
}

// writeLocked writes checked batches with their final offsets at the end of the log, and
// everything that follows from them: roll, indexes, producers, epochs, publication.
func (l *Log) writeLocked(data []byte, first, last cluster.Offset, maxTimestamp int64, config *LogConfig, nowMs int64) error {
	if err := l.Failed(); err != nil { // it may have failed while this append waited
		return err
	}
	active, err := l.maybeRollLocked(int64(len(data)), last, maxTimestamp, config, nowMs)
	if err != nil {
		return err
	}
	if err := l.writeBytes(active, data); err != nil {
		return err
	}
	if err := l.noteBatchesLocked(active, data, config, nowMs); err != nil {
		return l.fail(err)
	}
	size := active.size.Add(int64(len(data)))
	l.writer.dirty = true

	p := &l.published
	p.Lock()
	p.activeSize, p.end = size, last+1
	if len(l.writer.producers.transactions) > 0 || p.hasUnstable {
		p.unstable, p.hasUnstable = l.writer.producers.firstUnstable(p.highWatermark)
	}
	p.Unlock()

	if l.writer.unflushed == 0 {
		l.writer.unflushedMs = nowMs
	}
	l.writer.unflushed += int64(len(data))
	if l.writer.unflushed >= l.flushBytes && !l.writer.flushAsked {
		l.writer.flushAsked = true
		l.background(l, choreFlush)
	}
	return nil
}

func (l *Log) writeBytes(active *segment, data []byte) error {
	file, err := l.files.acquire(&active.log)
	if err != nil {
		return l.storageError(err) // nothing was written: no reason to give up the directory
	}
	n, err := file.WriteAt(data, active.size.Load())
	l.files.release(&active.log)
	if err != nil {
		return l.fail(fmt.Errorf("write %d bytes to %s (wrote %d): %w", len(data), active.log.path(), n, err))
	}
	return nil
}

// noteBatchesLocked brings indexes, epoch cache and producers up to the batches in data,
// which begin at the active segment's end.
func (l *Log) noteBatchesLocked(active *segment, data []byte, config *LogConfig, nowMs int64) error {
	position := active.size.Load()
	for len(data) > 0 {
		batch, rest, err := record.Next(data)
		if err != nil {
			panic(fmt.Sprintf("commitlog: validated batch does not parse: %v", err))
		}
		size := int64(len(batch))
		if err := active.noteBatch(l.files, batch.LastOffset(), batch.MaxTimestamp(), position, size, config.IndexIntervalBytes); err != nil {
			return err
		}
		if l.epochs.assign(batch.LeaderEpoch(), batch.BaseOffset()) {
			l.background(l, choreFiles)
		}
		if batch.ProducerID() >= 0 {
			if err := l.noteProducerLocked(active, batch, nowMs); err != nil {
				return err
			}
		}
		position += size
		data = rest
	}
	return nil
}

func (l *Log) noteProducerLocked(active *segment, batch record.Batch, nowMs int64) error {
	marker, err := readMarker(batch)
	if err != nil {
		return err
	}
	if ended, ok := l.writer.producers.note(batch, marker, nowMs); ok && ended.aborted {
		return active.appendTxnIndex(l.files, ended)
	}
	return nil
}

// readMarker returns what a control batch says, nil for other batches and other records.
func readMarker(batch record.Batch) (*record.Marker, error) {
	if !batch.Control() {
		return nil, nil
	}
	marker, ok, err := batch.Marker()
	if err != nil || !ok {
		return nil, err
	}
	return &marker, nil
}

// facts are what validate found out about the batches of an append.
type facts struct {
	offsets      int64 // how many they take
	maxTimestamp int64
	producer     bool // it is one batch of an idempotent producer
}

// validate checks a leader's append against the format and the topic's configuration
// (log-format.md 6), and puts the batches into the form to be stored, except for what
// depends on the log's state. It returns data, or a copy where the codec has to change.
func validate(data []byte, config *LogConfig, options AppendOptions) ([]byte, facts, error) {
	found := facts{maxTimestamp: record.NoTimestamp}
	if len(data) == 0 {
		return nil, found, refuse(kerr.InvalidRecord, "there is no batch")
	}
	var converted []byte
	batches := 0
	for rest := data; len(rest) > 0; batches++ {
		batch, after, err := record.Next(rest)
		if errors.Is(err, record.ErrIncomplete) {
			return nil, found, refuse(kerr.CorruptMessage, "the last batch is incomplete")
		}
		if err != nil {
			return nil, found, err
		}
		if batches > 0 && (options.Origin == Client || found.producer || batch.ProducerID() >= 0) {
			return nil, found, refuse(kerr.InvalidRecord, "there is more than one batch")
		}
		stored, err := validateBatch(batch, config, options)
		if err != nil {
			return nil, found, err
		}
		if converted != nil || &stored[0] != &batch[0] {
			if converted == nil {
				converted = append(make([]byte, 0, len(data)), data[:len(data)-len(rest)]...)
			}
			converted = append(converted, stored...)
		}
		found.offsets += int64(batch.LastOffsetDelta()) + 1
		found.maxTimestamp = max(found.maxTimestamp, stored.MaxTimestamp())
		found.producer = batch.ProducerID() >= 0
		rest = after
	}
	if converted != nil {
		data = converted
	}
	if int64(len(data)) > config.SegmentBytes {
		return nil, found, refuse(kerr.RecordListTooLarge, "%d bytes do not fit into a segment of %d", len(data), config.SegmentBytes)
	}
	return data, found, nil
}

func refuse(code *kerr.Error, format string, args ...any) error {
	return &record.Error{Code: code, Reason: fmt.Sprintf(format, args...)}
}

// decompressedMax bounds what one batch may inflate to where it must be looked into.
const decompressedMax = 256 << 20

func validateBatch(batch record.Batch, config *LogConfig, options AppendOptions) (record.Batch, error) {
	if len(batch) > int(config.MaxMessageBytes) {
		return nil, refuse(kerr.MessageTooLarge, "batch of %d bytes exceeds max.message.bytes %d", len(batch), config.MaxMessageBytes)
	}
	if err := batch.Check(); err != nil {
		return nil, err
	}
	if options.Origin == Client {
		if err := batch.CheckProduced(); err != nil {
			return nil, err
		}
	}
	if err := batch.CheckFraming(); err != nil {
		return nil, err
	}
	if config.TimestampType == record.CreateTime && !batch.Control() {
		if err := checkTimestamps(batch, config, options.NowMs); err != nil {
			return nil, err
		}
	}
	if config.Compact && !batch.Control() {
		if err := checkKeys(batch); err != nil {
			return nil, err
		}
	}
	if config.Compression != nil && *config.Compression != batch.Codec() && !batch.Control() {
		var err error
		if batch, err = batch.Recompress(*config.Compression, config.CompressionLevel, decompressedMax); err != nil {
			return nil, err
		}
		if len(batch) > int(config.MaxMessageBytes) {
			return nil, refuse(kerr.MessageTooLarge, "batch of %d bytes, recompressed, exceeds max.message.bytes %d", len(batch), config.MaxMessageBytes)
		}
	}
	if config.TimestampType == record.LogAppendTime {
		batch.SetLogAppendTime(options.NowMs)
	}
	return batch, nil
}

// checkTimestamps compares the producer's timestamps with the clock. How far they may lie
// ahead is answered by the header's maximum; only a bound on their age looks at each.
func checkTimestamps(batch record.Batch, config *LogConfig, nowMs int64) error {
	if ahead := batch.MaxTimestamp() - nowMs; batch.MaxTimestamp() >= 0 && ahead > config.TimestampAfterMs {
		return refuse(kerr.InvalidTimestamp, "timestamp %d is %d ms ahead of the broker's clock, more than message.timestamp.after.max.ms", batch.MaxTimestamp(), ahead)
	}
	if config.TimestampBeforeMs == math.MaxInt64 {
		return nil
	}
	for found, err := range batch.Records(decompressedMax) {
		if err != nil {
			return err
		}
		if found.TimestampMs >= 0 && nowMs-found.TimestampMs > config.TimestampBeforeMs {
			return refuse(kerr.InvalidTimestamp, "timestamp %d is older than message.timestamp.before.max.ms allows", found.TimestampMs)
		}
	}
	return nil
}

func checkKeys(batch record.Batch) error {
	for found, err := range batch.Records(decompressedMax) {
		if err != nil {
			return err
		}
		if found.Key == nil {
			return refuse(kerr.InvalidRecord, "a compacted topic takes no record without a key")
		}
	}
	return nil
}

// validateReplicated checks what a leader sent; valid is the number of bytes in complete
// batches.
func validateReplicated(data []byte) (valid int, maxTimestamp int64, err error) {
	maxTimestamp = record.NoTimestamp
	for batch, err := range record.All(data) {
		if err == nil {
			err = batch.Check()
		}
		if err != nil {
			return 0, 0, err
		}
		maxTimestamp = max(maxTimestamp, batch.MaxTimestamp())
		valid += len(batch)
	}
	return valid, maxTimestamp, nil
}
