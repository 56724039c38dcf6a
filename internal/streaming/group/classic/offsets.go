package classic

import (
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
)

// TopicPartition names the partition that an offset is for.
type TopicPartition = cluster.TopicPartition

// NoTimestamp says that an offset has no expiry of its own.
const NoTimestamp int64 = -1

// Offset is a committed offset.
type Offset struct {
	Offset      int64
	LeaderEpoch int32
	Metadata    string
	CommitMs    int64
	ExpireMs    int64 // NoTimestamp: by the group's retention

	seq uint64 // order of the commits in this group's life
}

// CommitRequest commits offsets, all in one write.
type CommitRequest struct {
	Token      Token
	MemberID   string
	InstanceID *string
	Generation int32 // -1 for consumers that are no members
	Offsets    []CommitOffset
}

// CommitOffset is one partition's offset.
type CommitOffset struct {
	TP          TopicPartition
	Offset      int64
	LeaderEpoch int32
	Metadata    string
	Retention   time.Duration // explicit retention (versions 2 to 4); negative: none
}

// CommitResult answers a CommitRequest: one error for each of its Offsets, nil for success.
type CommitResult struct {
	Errs []*kerr.Error
}

// Commit handles a CommitRequest. Offsets become visible when they are durable.
func (g *Group) Commit(now time.Time, r *CommitRequest, out *Effects) {
	result := CommitResult{Errs: make([]*kerr.Error, len(r.Offsets))}
	if code := g.checkCommit(now, r); code != nil {
		for i := range result.Errs {
			result.Errs[i] = code
		}
		out.reply(r.Token, result)
		return
	}
	write := Write{Acknowledged: true}
	pending := map[TopicPartition]*Offset{}
	var order []TopicPartition
	for i := range r.Offsets {
		commit := &r.Offsets[i]
		if len(commit.Metadata) > g.settings.MaxOffsetMetadata {
			result.Errs[i] = kerr.OffsetMetadataTooLarge
			continue
		}
		g.nextSeq++
		offset := &Offset{
			Offset: commit.Offset, LeaderEpoch: commit.LeaderEpoch, Metadata: commit.Metadata,
			CommitMs: now.UnixMilli(), ExpireMs: NoTimestamp, seq: g.nextSeq,
		}
		if commit.Retention >= 0 {
			offset.ExpireMs = now.Add(commit.Retention).UnixMilli()
		}
		if pending[commit.TP] == nil {
			order = append(order, commit.TP)
			g.commits[commit.TP]++
		}
		pending[commit.TP] = offset
		write.Records = append(write.Records, Record{Key: encodeOffsetKey(g.id, commit.TP), Value: encodeOffset(offset)})
	}
	if len(write.Records) == 0 {
		out.reply(r.Token, result)
		return
	}
	write.complete = func(_ time.Time, err error, out *Effects) {
		code := commitWriteError(err)
		for _, tp := range order {
			if code == nil && (g.offsets[tp] == nil || g.offsets[tp].seq < pending[tp].seq) && g.state != Dead && g.voided[tp] < pending[tp].seq {
				g.offsets[tp] = pending[tp]
			}
			if g.commits[tp]--; g.commits[tp] == 0 {
				delete(g.commits, tp)
				delete(g.voided, tp)
			}
		}
		for i := range result.Errs {
			if result.Errs[i] == nil {
				result.Errs[i] = code
			}
		}
		out.reply(r.Token, result)
	}
	out.write(write)
}

// checkCommit also extends the member's session.
func (g *Group) checkCommit(now time.Time, r *CommitRequest) *kerr.Error {
	if g.state == Dead {
		return kerr.CoordinatorNotAvailable
	}
	switch {
	case r.Generation < 0 && g.state == Empty:
		return nil // a simple consumer, or a tool
	case r.Generation >= 0 || r.MemberID != "" || r.InstanceID != nil:
		if code := g.validateMember(r.MemberID, r.InstanceID); code != nil {
			return code
		}
		if r.Generation != g.generation {
			return kerr.IllegalGeneration
		}
	default:
		return kerr.UnknownMemberID
	}
	if m := g.byID[r.MemberID]; m != nil {
		g.extendSession(m, now)
	}
	if g.state == CompletingRebalance {
		return kerr.RebalanceInProgress
	}
	return nil
}

// Fetch returns a committed offset.
func (g *Group) Fetch(tp TopicPartition) (Offset, bool) {
	if offset := g.offsets[tp]; offset != nil && g.state != Dead {
		return *offset, true
	}
	return Offset{}, false
}

// Partitions lists the partitions with a committed offset, in order.
func (g *Group) Partitions() []TopicPartition {
	partitions := make([]TopicPartition, 0, len(g.offsets))
	for tp := range g.offsets {
		partitions = append(partitions, tp)
	}
	slices.SortFunc(partitions, comparePartitions)
	return partitions
}

func comparePartitions(a, b TopicPartition) int {
	switch {
	case a.Less(b):
		return -1
	case b.Less(a):
		return 1
	}
	return 0
}

// subscribes reports whether a member reads a topic; true if that cannot be told.
func (g *Group) subscribes(topic string) bool {
	for _, m := range g.members {
		topics, known := subscribedTopics(m.metadata(g.protocol))
		if !known || slices.Contains(topics, topic) {
			return true
		}
	}
	return false
}

// OffsetDeleteRequest deletes committed offsets.
type OffsetDeleteRequest struct {
	Token      Token
	Partitions []TopicPartition
}

// OffsetDeleteResult answers it: an error for the whole, or one for each partition.
type OffsetDeleteResult struct {
	Err  *kerr.Error
	Errs []*kerr.Error
}

// DeleteOffsets handles an OffsetDeleteRequest.
func (g *Group) DeleteOffsets(r *OffsetDeleteRequest, out *Effects) {
	result := OffsetDeleteResult{Errs: make([]*kerr.Error, len(r.Partitions))}
	switch {
	case g.state == Dead:
		result.Err = kerr.GroupIDNotFound
	case g.state != Empty && g.protocolType != ConsumerProtocolType:
		result.Err = kerr.NonEmptyGroup
	}
	if result.Err != nil {
		out.reply(r.Token, result)
		return
	}
	var doomed []TopicPartition
	for i, tp := range r.Partitions {
		switch {
		case g.state != Empty && g.subscribes(tp.Topic):
			result.Errs[i] = kerr.GroupSubscribedToTopic
		case g.offsets[tp] != nil || g.commits[tp] > 0:
			doomed = append(doomed, tp)
		}
	}
	if len(doomed) == 0 {
		if len(r.Partitions) > 0 {
			g.end(nil, g.stateSince, out) // an empty group without offsets ends here, as in Kafka
		}
		out.reply(r.Token, result)
		return
	}
	// They stay until the tombstones are durable: if those cannot be written, an offset that
	// was acknowledged must not be gone.
	g.nextSeq++
	seq := g.nextSeq
	out.write(Write{Records: tombstones(g.id, doomed), Acknowledged: true, complete: func(now time.Time, err error, out *Effects) {
		result.Err = groupWriteError(err)
		for _, tp := range doomed {
			if offset := g.offsets[tp]; result.Err == nil && offset != nil && offset.seq < seq {
				delete(g.offsets, tp)
			}
		}
		if result.Err == nil {
			g.end(nil, now, out) // an empty group goes with its last offset, as in Kafka
		}
		out.reply(r.Token, result)
	}})
}

// tombstones are the records that delete offsets.
func tombstones(group string, partitions []TopicPartition) []Record {
	records := make([]Record, 0, len(partitions)+1)
	for _, tp := range partitions {
		records = append(records, Record{Key: encodeOffsetKey(group, tp)})
	}
	return records
}

// forget removes offsets and returns their tombstones.
func (g *Group) forget(partitions []TopicPartition) []Record {
	for _, tp := range partitions {
		delete(g.offsets, tp)
	}
	return tombstones(g.id, partitions)
}

// DeleteResult answers Delete.
type DeleteResult struct {
	Err *kerr.Error
}

// Delete ends an empty group with all its offsets. The owner drops a dead group once it has
// written its records.
func (g *Group) Delete(now time.Time, token Token, out *Effects) {
	switch g.state {
	case Dead:
		out.reply(token, DeleteResult{kerr.GroupIDNotFound})
		return
	case Empty:
	default:
		out.reply(token, DeleteResult{kerr.NonEmptyGroup})
		return
	}
	records := tombstones(g.id, g.Partitions())
	if g.generation > 0 { // before there is no record of the group
		records = append(records, Record{Key: encodeGroupKey(g.id)})
	}
	since := g.stateSince
	g.transition(Dead, now)
	if len(records) == 0 {
		out.reply(token, DeleteResult{})
		return
	}
	out.write(Write{Records: records, Acknowledged: true, complete: func(_ time.Time, err error, out *Effects) {
		code := groupWriteError(err)
		if code != nil {
			g.state, g.stateSince = Empty, since // it is not deleted: its offsets were acknowledged
		}
		out.reply(token, DeleteResult{code})
	}})
}

// Expire drops the offsets that nobody has cared for long enough, and ends the group when
// nothing is left of it (GroupMetadata.removeExpiredOffsets).
func (g *Group) Expire(now time.Time, out *Effects) {
	if g.state == Dead {
		return
	}
	var doomed []TopicPartition
	for _, tp := range g.Partitions() {
		if g.commits[tp] == 0 && g.expired(tp, now) {
			doomed = append(doomed, tp)
		}
	}
	g.end(doomed, now, out)
}

// PartitionsDeleted drops the offsets of partitions that are no more.
func (g *Group) PartitionsDeleted(gone func(TopicPartition) bool, now time.Time, out *Effects) {
	if g.state == Dead {
		return
	}
	var doomed []TopicPartition
	for _, tp := range g.Partitions() {
		if gone(tp) {
			doomed = append(doomed, tp)
		}
	}
	for _, tp := range slices.SortedFunc(maps.Keys(g.commits), comparePartitions) {
		if gone(tp) { // what is being written is for the topic that is gone, not for the next of its name
			g.voided[tp] = g.nextSeq
			if g.offsets[tp] == nil {
				doomed = append(doomed, tp)
			}
		}
	}
	g.end(doomed, now, out)
}

// end forgets offsets, and the group itself if that was all.
func (g *Group) end(doomed []TopicPartition, now time.Time, out *Effects) {
	write := Write{Records: g.forget(doomed)}
	if g.state == Empty && len(g.offsets) == 0 && len(g.commits) == 0 { // ids given out do not hold it, as in Kafka
		since := g.stateSince
		g.transition(Dead, now)
		if g.generation > 0 {
			write.Records = append(write.Records, Record{Key: encodeGroupKey(g.id)})
			write.complete = func(_ time.Time, err error, _ *Effects) {
				if err != nil { // or the next group of this name would begin with generations that have been
					g.state, g.stateSince = Empty, since
				}
			}
		}
	}
	if len(write.Records) > 0 {
		out.write(write)
	}
}

func (g *Group) expired(tp TopicPartition, now time.Time) bool {
	offset := g.offsets[tp]
	if offset.ExpireMs != NoTimestamp {
		return now.UnixMilli() >= offset.ExpireMs
	}
	base := offset.CommitMs
	switch {
	case g.protocolType == "":
	case g.state == Empty:
		// Kafka counts from the state's timestamp alone, so that an offset which a tool has
		// just set in a group long empty is dropped at the next check; the later counts here.
		if !g.stateSince.IsZero() {
			base = max(base, g.stateSince.UnixMilli())
		}
	case g.protocolType == ConsumerProtocolType && g.state == Stable:
		if g.subscribes(tp.Topic) {
			return false
		}
	default:
		return false
	}
	return now.UnixMilli()-base >= g.settings.OffsetsRetention.Milliseconds()
}
