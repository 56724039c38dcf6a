package replication

import (
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/partition"
)

// What a fetched response does to a follower's replica.

func positionOf(h *hosted) position {
	return position{offset: h.log.EndOffset(), lastEpoch: h.log.LatestEpoch(), logStart: h.log.StartOffset()}
}

// stillFollowedLocked is the check under the role lock (shared or not) that makes a late
// response harmless.
func (h *hosted) stillFollowedLocked(epoch cluster.LeaderEpoch) error {
	if err := h.usableLocked(); err != nil {
		return err
	}
	if h.replica.Role() != partition.Follower || h.replica.LeaderEpoch() != epoch {
		return errUnfollowed
	}
	return nil
}

// appendFetched appends what a fetch brought and takes the leader's high watermark and log
// start. It returns where to fetch next.
func (m *Manager) appendFetched(state *fetchState, part *kmsg.FetchResponseTopicPartition) (position, error) {
	h, next := state.host, state.next
	effects := takeEffects()
	defer func() { m.run(effects) }() // after the locks below
	h.role.RLock()
	defer h.role.RUnlock()
	h.mu.Lock()
	err := h.stillFollowedLocked(state.epoch)
	h.mu.Unlock()
	if err != nil {
		return next, err
	}
	if len(part.RecordBatches) > 0 {
		if end := h.log.EndOffset(); end != next.offset {
			// Not what was asked for any more. The next fetch begins at the log's end and is
			// checked for divergence like any other.
			m.logger.Warn("fetched records not wanted", "topic", h.tp.Topic, "partition", h.tp.Partition, "fetchOffset", next.offset, "logEnd", end)
			return positionOf(h), nil
		}
		info, err := h.log.AppendFollower(part.RecordBatches)
		if err != nil {
			m.storageMayHaveFailed(h, err, effects)
			if errors.Is(err, kerr.CorruptMessage) || errors.Is(err, kerr.KafkaStorageError) {
				return next, err
			}
			return next, fmt.Errorf("%w: %w", errBroken, err)
		}
		if info.Last >= info.First {
			next.offset, next.lastEpoch = info.Last+1, info.LastLeaderEpoch
		}
	}
	if leaderStart := cluster.Offset(part.LogStartOffset); leaderStart > next.logStart && leaderStart <= next.offset {
		if err := h.log.AdvanceStart(leaderStart); err != nil {
			m.logger.Warn("log start not advanced", "topic", h.tp.Topic, "partition", h.tp.Partition, "logStart", leaderStart, "err", err)
		} else {
			next.logStart = leaderStart
		}
	}

	h.mu.Lock()
	defer h.mu.Unlock()
	if h.replica.FollowerHighWatermark(cluster.Offset(part.HighWatermark), next.logStart, next.offset) {
		h.highWatermarkMovedLocked(effects)
	}
	h.waiters.wakeFollowers(next.offset, effects) // only debugging consumers read a follower's end
	return next, nil
}

// truncateDiverging cuts the log where it leaves the leader's, by leader epoch.
func (m *Manager) truncateDiverging(state *fetchState, leaderEpoch int32, leaderEnd int64) (position, error) {
	h := state.host
	leader := partition.EpochEnd{Epoch: cluster.LeaderEpoch(leaderEpoch), End: cluster.Offset(leaderEnd)}
	localEpoch, localEnd := h.log.EndOffsetForEpoch(leader.Epoch)
	local := partition.EpochEnd{Epoch: localEpoch, End: localEnd}
	// Whether the logs agree below is the next fetch's question: it carries the last epoch.
	to, _ := partition.TruncationOffset(leader, local, state.next.offset, h.log.EndOffset())
	return m.truncateFollower(state, to, false)
}

// truncateFollower cuts a follower's log at an offset, or drops it and starts there.
func (m *Manager) truncateFollower(state *fetchState, to cluster.Offset, fully bool) (position, error) {
	h := state.host
	effects := takeEffects()
	defer func() { m.run(effects) }() // after the locks below
	h.role.Lock()
	defer h.role.Unlock()
	h.mu.Lock()
	err := h.stillFollowedLocked(state.epoch)
	highWatermark := h.replica.HighWatermark()
	h.mu.Unlock()
	if err != nil {
		return state.next, err
	}
	m.logger.Info("log truncated", "topic", h.tp.Topic, "partition", h.tp.Partition, "leaderEpoch", state.epoch,
		"from", h.log.EndOffset(), "to", to, "highWatermark", highWatermark, "fully", fully)
	if fully {
		err = h.log.TruncateFullyAndStartAt(to)
	} else {
		err = h.log.TruncateTo(to)
	}
	if err != nil {
		m.storageMayHaveFailed(h, err, effects)
		return state.next, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.replica.Truncated(h.log.StartOffset(), h.log.EndOffset())
	h.highWatermarkMovedLocked(effects)
	h.wakeAllLocked(effects)
	return positionOf(h), nil
}
