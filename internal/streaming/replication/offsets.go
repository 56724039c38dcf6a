package replication

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
)

// Timestamps with a meaning of their own in ListOffsets.
const (
	timestampLatest        = -1
	timestampEarliest      = -2
	timestampMaximum       = -3
	timestampEarliestLocal = -4
	timestampLatestTiered  = -5
)

// leaderAccess makes the checks for requests that only a leader answers.
func (m *Manager) leaderAccess(tp cluster.TopicPartition, epoch cluster.LeaderEpoch) (*hosted, error) {
	h := m.host(tp)
	if h == nil {
		return nil, m.notHosted(tp)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.usableLocked(); err != nil {
		return nil, err
	}
	if err := h.replica.CheckEpoch(epoch); err != nil {
		return nil, err
	}
	if !h.replica.IsLeader() {
		return nil, errNotLeader
	}
	return h, nil
}

// usable finds a replica that is hosted here and can be used, whatever its role.
func (m *Manager) usable(tp cluster.TopicPartition) (*hosted, error) {
	h := m.host(tp)
	if h == nil {
		return nil, m.notHosted(tp)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h, h.usableLocked()
}

// logEnd tells of a replica that does not lead where its log ends and in which leader epoch its
// last record was written: with that the controller finds the furthest log of a partition that
// has lost its leader. A log that is known to lack committed records says so by
// OFFSET_NOT_AVAILABLE, beside where it ends; the timestamp is the offset behind its last
// damaged batch, if it has any. (Apache's broker, too, answers for any replica
// if asked by DebugReplica, but with the partition's leader epoch.)
func (m *Manager) logEnd(tp cluster.TopicPartition) ListOffsetsResult {
	result := ListOffsetsResult{Timestamp: -1, Offset: cluster.NoOffset, LeaderEpoch: cluster.NoLeaderEpoch}
	h, err := m.usable(tp)
	if err != nil {
		result.Err = err
		return result
	}
	result.LeaderEpoch, result.Offset = h.log.LastEpoch()
	if h.durable.Load() {
		// Who is elected by what it says here is in sync at once: it must have that on disk.
		if err := h.log.SyncTo(result.Offset); err != nil {
			effects := takeEffects()
			m.storageMayHaveFailed(h, err, effects)
			m.run(effects)
			result.Err = err
			return result
		}
	}
	if h.log.LostTail() {
		result.Err = kerr.OffsetNotAvailable
	}
	for _, d := range h.log.Damages() {
		result.Timestamp = max(result.Timestamp, int64(d.Next))
	}
	return result
}

// epochBegin tells of a replica, whatever its role, what commitlog.EpochBegin says.
func (m *Manager) epochBegin(tp cluster.TopicPartition) ListOffsetsResult {
	result := ListOffsetsResult{Timestamp: -1, Offset: cluster.NoOffset, LeaderEpoch: cluster.NoLeaderEpoch}
	h, err := m.usable(tp)
	if err != nil {
		result.Err = err
		return result
	}
	if begin, known := h.log.EpochBegin(); known {
		result.LeaderEpoch, result.Offset, result.Timestamp = begin.Epoch, begin.Start, int64(begin.Before)
	}
	return result
}

// ListOffsets answers by index. replica is ConsumerReplica, DebugReplica or a follower.
func (m *Manager) ListOffsets(replica cluster.BrokerID, isolation int8, parts []ListOffsetsPart) []ListOffsetsResult {
	results := make([]ListOffsetsResult, len(parts))
	for i := range parts {
		results[i] = m.listOffset(replica, isolation, &parts[i])
	}
	return results
}

func (m *Manager) listOffset(replica cluster.BrokerID, isolation int8, part *ListOffsetsPart) ListOffsetsResult {
	none := ListOffsetsResult{Timestamp: -1, Offset: cluster.NoOffset, LeaderEpoch: cluster.NoLeaderEpoch}
	failed := func(err error) ListOffsetsResult { none.Err = err; return none }
	if part.Timestamp == cluster.EpochBeginTimestamp {
		if replica != DebugReplica {
			return failed(kerr.UnsupportedVersion)
		}
		return m.epochBegin(part.TP)
	}
	h, err := m.leaderAccess(part.TP, part.CurrentLeaderEpoch)
	if errors.Is(err, errNotLeader) && replica == DebugReplica && part.Timestamp == timestampLatest {
		return m.logEnd(part.TP)
	}
	if err != nil {
		return failed(err)
	}
	h.mu.Lock()
	epoch, highWatermark, epochStart := h.replica.LeaderEpoch(), h.replica.HighWatermark(), h.replica.EpochStartOffset()
	h.mu.Unlock()

	limit := highWatermark
	switch {
	case replica != ConsumerReplica:
		limit = h.log.EndOffset()
	case isolation == ReadCommitted:
		limit = min(limit, h.log.LastStableOffset())
	}
	// A new leader's high watermark may still stand below what its predecessor has shown:
	// offsets that depend on it must not go back in a consumer's eyes (KIP-207).
	behind := replica == ConsumerReplica && highWatermark < epochStart

	switch part.Timestamp {
	case timestampLatest:
		if behind {
			return failed(kerr.OffsetNotAvailable)
		}
		return ListOffsetsResult{Timestamp: -1, Offset: limit, LeaderEpoch: epoch}
	case timestampEarliest, timestampEarliestLocal:
		start := h.log.StartOffset()
		return ListOffsetsResult{Timestamp: -1, Offset: start, LeaderEpoch: h.log.EpochForOffset(start)}
	case timestampLatestTiered:
		return none
	}
	found, ok, err := h.log.OffsetForTimestamp(part.Timestamp)
	if part.Timestamp == timestampMaximum {
		found, ok, err = h.log.MaxTimestampOffset()
	}
	switch {
	case err != nil:
		return failed(err)
	case ok && found.Offset < limit:
		return ListOffsetsResult{Timestamp: found.TimestampMs, Offset: found.Offset, LeaderEpoch: found.LeaderEpoch}
	case behind:
		return failed(kerr.OffsetNotAvailable)
	default:
		return none
	}
}

// EndOffsetForLeaderEpoch answers OffsetForLeaderEpoch by index.
func (m *Manager) EndOffsetForLeaderEpoch(parts []EndOffsetPart) []EndOffsetResult {
	results := make([]EndOffsetResult, len(parts))
	for i := range parts {
		results[i] = EndOffsetResult{Epoch: cluster.NoLeaderEpoch, EndOffset: cluster.NoOffset}
		h, err := m.leaderAccess(parts[i].TP, parts[i].CurrentLeaderEpoch)
		if err != nil {
			results[i].Err = err
			continue
		}
		results[i].Epoch, results[i].EndOffset = h.log.EndOffsetForEpoch(parts[i].LeaderEpoch)
	}
	return results
}

// ReadLocal reads a partition that this broker leads, for a coordinator that loads its state:
// whole batches from an offset up to the log end. Not the high watermark: a new leader's may
// lag, and everything in its log is going to be committed. next is where to go on and end the
// log end: the load is complete when next reaches it.
func (m *Manager) ReadLocal(tp cluster.TopicPartition, from cluster.Offset, maxBytes int) (records []byte, next, end cluster.Offset, err error) {
	h, err := m.leaderAccess(tp, cluster.NoLeaderEpoch)
	if err != nil {
		return nil, from, from, err
	}
	end = h.log.EndOffset()
	from = max(from, h.log.StartOffset())
	if from >= end {
		return nil, from, end, nil
	}
	slice, err := h.log.Read(from, maxBytes, end, true)
	if err != nil {
		return nil, from, end, err
	}
	defer slice.Close()
	if slice.Size() == 0 {
		return nil, from, end, nil
	}
	records, err = slice.ReadAll()
	return records, slice.NextOffset(), end, err
}
