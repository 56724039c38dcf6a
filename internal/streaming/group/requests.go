package group

import (
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/group/classic"
)

// answerTo makes the token under which a reply of package classic comes back to done.
func answerTo[R any](done func(R)) classic.Token {
	return func(body any) { done(body.(R)) }
}

// newMemberID is the instance or client id and something random.
func (c *Coordinator) newMemberID(r *classic.JoinRequest) string {
	prefix := r.ClientID
	if r.InstanceID != nil {
		prefix = *r.InstanceID
	}
	var uuid [16]byte
	if c.stepped != nil {
		uuid = c.stepped.stepping.UUID()
	} else {
		_, _ = rand.Read(uuid[:]) // never fails: crypto/rand ends the program instead
	}
	uuid[6] = uuid[6]&0x0f | 0x40
	uuid[8] = uuid[8]&0x3f | 0x80
	return fmt.Sprintf("%s-%x-%x-%x-%x-%x", prefix, uuid[:4], uuid[4:6], uuid[6:8], uuid[8:10], uuid[10:])
}

// Join handles JoinGroup. The request's Token and NewMemberID are filled in here.
func (c *Coordinator) Join(group string, r *classic.JoinRequest, done func(classic.JoinResult)) {
	fail := func(code *kerr.Error) { done(classic.JoinResult{Err: code, MemberID: r.MemberID}) }
	if group == "" {
		fail(kerr.InvalidGroupID)
		return
	}
	s, code := c.shardOf(group)
	if code != nil {
		fail(code)
		return
	}
	if settings := &c.config.Settings; r.SessionTimeout < settings.MinSessionTimeout || r.SessionTimeout > settings.MaxSessionTimeout {
		fail(kerr.InvalidSessionTimeout) // before the group is made
		return
	}
	r.Token, r.NewMemberID = answerTo(done), c.newMemberID(r)
	run := s.withNew
	if r.MemberID != "" {
		run = s.with
	}
	code = run(group, func(g *classic.Group, now time.Time, out *classic.Effects) {
		if g == nil {
			out.Replies = append(out.Replies, classic.Reply{To: r.Token, Body: classic.JoinResult{Err: kerr.UnknownMemberID, MemberID: r.MemberID}})
			return
		}
		g.Join(now, r, out)
	})
	if code != nil {
		fail(code)
	}
}

// Sync handles SyncGroup. While the group is being loaded the member joins again rather than
// waiting for a generation that may be gone.
func (c *Coordinator) Sync(group string, r *classic.SyncRequest, done func(classic.SyncResult)) {
	fail := func(code *kerr.Error) { done(classic.SyncResult{Err: code}) }
	if group == "" {
		fail(kerr.InvalidGroupID)
		return
	}
	s, code := c.shardOf(group)
	if code != nil {
		fail(code)
		return
	}
	r.Token = answerTo(done)
	code = s.with(group, func(g *classic.Group, now time.Time, out *classic.Effects) {
		if g == nil {
			out.Replies = append(out.Replies, classic.Reply{To: r.Token, Body: classic.SyncResult{Err: kerr.UnknownMemberID}})
			return
		}
		g.Sync(now, r, out)
	})
	if code == kerr.CoordinatorLoadInProgress {
		code = kerr.RebalanceInProgress
	}
	if code != nil {
		fail(code)
	}
}

// Heartbeat handles Heartbeat; nil means all is well. While the group is being loaded all is.
func (c *Coordinator) Heartbeat(group string, r *classic.HeartbeatRequest) *kerr.Error {
	if group == "" {
		return kerr.InvalidGroupID
	}
	s, code := c.shardOf(group)
	if code != nil {
		return code
	}
	result := kerr.UnknownMemberID
	code = s.with(group, func(g *classic.Group, now time.Time, _ *classic.Effects) {
		if g != nil {
			result = g.Heartbeat(now, r)
		}
	})
	switch code {
	case nil:
		return result
	case kerr.CoordinatorLoadInProgress:
		return nil
	default:
		return code
	}
}

// Leave handles LeaveGroup: an error for the whole, or one for each member.
func (c *Coordinator) Leave(group string, members []classic.LeaveRequest) ([]*kerr.Error, *kerr.Error) {
	if group == "" {
		return nil, kerr.InvalidGroupID
	}
	s, code := c.shardOf(group)
	if code != nil {
		return nil, code
	}
	results := make([]*kerr.Error, len(members))
	code = s.with(group, func(g *classic.Group, now time.Time, out *classic.Effects) {
		for i := range members {
			results[i] = kerr.UnknownMemberID
			if g != nil {
				results[i] = g.Leave(now, &members[i], out)
			}
		}
	})
	return results, code
}

// Commit handles OffsetCommit.
func (c *Coordinator) Commit(group string, r *classic.CommitRequest, done func(classic.CommitResult)) {
	s, code := c.shardOf(group)
	r.Token = answerTo(done)
	if code == nil {
		run := s.with
		if r.Generation < 0 {
			run = s.withNew
		}
		code = run(group, func(g *classic.Group, now time.Time, out *classic.Effects) {
			if g == nil {
				out.Replies = append(out.Replies, classic.Reply{To: r.Token, Body: failedCommit(r, kerr.IllegalGeneration)})
				return
			}
			g.Commit(now, r, out)
		})
	}
	if code != nil {
		done(failedCommit(r, code))
	}
}

func failedCommit(r *classic.CommitRequest, code *kerr.Error) classic.CommitResult {
	return classic.CommitResult{Errs: slices.Repeat([]*kerr.Error{code}, len(r.Offsets))}
}

// FetchedOffset is a committed offset; Offset is -1 if there is none.
type FetchedOffset struct {
	TP          cluster.TopicPartition
	Offset      int64
	LeaderEpoch int32
	Metadata    string
}

// FetchOffsets handles OffsetFetch for one group: the partitions asked for, or all that have
// an offset.
func (c *Coordinator) FetchOffsets(group string, partitions []cluster.TopicPartition, all bool) ([]FetchedOffset, *kerr.Error) {
	s, code := c.shardOf(group)
	if code != nil {
		return nil, code
	}
	var offsets []FetchedOffset
	code = s.with(group, func(g *classic.Group, _ time.Time, _ *classic.Effects) {
		if all && g != nil {
			partitions = g.Partitions()
		}
		offsets = make([]FetchedOffset, len(partitions))
		for i, tp := range partitions {
			offsets[i] = FetchedOffset{TP: tp, Offset: -1, LeaderEpoch: -1}
			if g == nil {
				continue
			}
			if offset, found := g.Fetch(tp); found {
				offsets[i] = FetchedOffset{tp, offset.Offset, offset.LeaderEpoch, offset.Metadata}
			}
		}
	})
	return offsets, code
}

// Listed is one group of a List.
type Listed struct {
	Group        string
	ProtocolType string
	State        classic.State
}

// List lists the groups of all partitions that this broker leads, in order. The error tells
// that some are still being loaded; the list is good as far as it goes.
func (c *Coordinator) List() ([]Listed, *kerr.Error) {
	c.mu.RLock()
	isClosed := c.mu.closed
	c.mu.RUnlock()
	if isClosed {
		return nil, kerr.CoordinatorNotAvailable
	}
	var list []Listed
	var code *kerr.Error
	for _, s := range c.allShards() {
		s.mu.Lock()
		if s.mu.phase == loading {
			code = kerr.CoordinatorLoadInProgress
		}
		for id, e := range s.mu.groups {
			list = append(list, Listed{id, e.group.ProtocolType(), e.group.State()})
		}
		s.mu.Unlock()
	}
	slices.SortFunc(list, func(a, b Listed) int {
		if a.Group < b.Group {
			return -1
		}
		return 1
	})
	return list, code
}

// Describe handles DescribeGroups for one group; one that does not exist is Dead.
func (c *Coordinator) Describe(group string) (classic.Description, *kerr.Error) {
	description := classic.Description{State: classic.Dead}
	s, code := c.shardOf(group)
	if code == nil {
		code = s.with(group, func(g *classic.Group, _ time.Time, _ *classic.Effects) {
			if g != nil {
				description = g.Describe()
			}
		})
	}
	return description, code
}

// Delete handles DeleteGroups for one group.
func (c *Coordinator) Delete(group string, done func(*kerr.Error)) {
	s, code := c.shardOf(group)
	if code == nil {
		token := answerTo(func(r classic.DeleteResult) { done(r.Err) })
		code = s.with(group, func(g *classic.Group, now time.Time, out *classic.Effects) {
			if g == nil {
				out.Replies = append(out.Replies, classic.Reply{To: token, Body: classic.DeleteResult{Err: kerr.GroupIDNotFound}})
				return
			}
			g.Delete(now, token, out)
		})
	}
	if code != nil {
		done(code)
	}
}

// DeleteOffsets handles OffsetDelete.
func (c *Coordinator) DeleteOffsets(group string, partitions []cluster.TopicPartition, done func(classic.OffsetDeleteResult)) {
	s, code := c.shardOf(group)
	if code == nil {
		r := &classic.OffsetDeleteRequest{Token: answerTo(done), Partitions: partitions}
		code = s.with(group, func(g *classic.Group, _ time.Time, out *classic.Effects) {
			if g == nil {
				out.Replies = append(out.Replies, classic.Reply{To: r.Token, Body: classic.OffsetDeleteResult{Err: kerr.GroupIDNotFound}})
				return
			}
			g.DeleteOffsets(r, out)
		})
	}
	if code != nil {
		done(classic.OffsetDeleteResult{Err: code})
	}
}
