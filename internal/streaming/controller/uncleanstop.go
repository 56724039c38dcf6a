package controller

import (
	"cmp"
	"log/slog"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/registry"
)

// A broker that stopped uncleanly may have lost the tails of its logs: what it had not synced
// when its machine lost power. As long as another in-sync replica has stayed, that one leads and
// the returned broker copies what it lacks. But where it is the last one standing, or all went
// at once, Kafka's ZooKeeper mode elects whichever in-sync replica comes back first, however
// short its log, and the others cut theirs to match: records are lost that three disks have.
//
// Here a member of the ISR that has come back from an unclean stop is suspect until a leader has
// been elected. A partition that only suspects could lead asks every replica where its log ends
// and elects the one whose log goes furthest. That log holds every committed record that any of
// those asked still has, so it need not be a member of the ISR. The new ISR is the replicas whose
// log ends in the same place; the others come back into it by copying.
//
// Furthest is, nearly as raft elects, the largest pair of the last record's leader epoch and the
// end offset: in one leader epoch all logs are prefixes of one leader's, and a leader was elected
// with everything committed before. But a leader also commits what it finds in its log of earlier
// epochs; raft's does so only with an entry of its own, and Kafka's logs have no room for one.
// Then a leader between, that was cut off with records which nobody else has, has the newer epoch
// in its last record, and lacks what is committed. So a leader that is about to commit such
// records first notes where its epoch began: behind which record (commitlog.EpochBegin). A log
// that has that record, and ends with it or with others of the same epoch, has what that leader
// began with, and stands for that leader's epoch (inquiry.standing), whoever's note it is. The
// order is by that, then by the last record's epoch (a log with records of that leader's epoch has
// more of it), then by the end.
//
// Why it holds: let e be the leader epoch in which something was last committed. Whoever has all
// of that has records of epoch e, or it was left by earlier leaders, and the leader of e has noted
// where it began: so there is a log that stands for e at least. A log that stands for a later
// epoch has what that epoch's leader began with, and so everything. Of those that stand for e, the
// ones with records of e have what the leader began with and more of it the longer they are; if
// there are none, what was committed is what it began with, and all of them have that.
//
// How long to wait for replicas that are not there:
//
//   - As long as a suspect of the ISR may be whole, only for the other members of the ISR, and
//     no longer than Settings.UncleanStopPatience: most unclean stops are killed processes,
//     which lose nothing, and the missing one may never come back.
//   - If each that is there knows that its log has lost committed records (commitlog's LostTail:
//     OFFSET_NOT_AVAILABLE), or a log outside the ISR goes further, for all assigned replicas,
//     without end; unclean election (unclean.leader.election.enable, or kafka-leader-election)
//     is the operator's way out.
//
// The idea is KIP-966's, whose eligible leader replicas ZooKeeper's znodes have no room for.
// Brokers that do not tell how they stopped, Apache's, are elected as ever, and not asked.

// inquiry is what a partition without a leader has learned of its replicas' logs.
type inquiry struct {
	since time.Time
	ends  map[cluster.BrokerID]logEnd
	// begins is where replicas noted that an epoch began which they led. Notes stay true, but each
	// incarnation is asked: an earlier one may have had none.
	begins map[cluster.BrokerID]epochBegin
	asked  map[cluster.BrokerID]cluster.BrokerEpoch // since the last tick: nobody is asked again at once
	told   bool                                     // the log says that the partition stays without a leader
}

// logEnd is where a replica's log ends, as one incarnation of its broker tells.
type logEnd struct {
	broker cluster.BrokerEpoch
	epoch  cluster.LeaderEpoch // of the last record
	offset cluster.Offset
	lost   bool // committed records are missing
	// damagedTo is where the last damaged stretch of the log ends; not positive: there is none.
	damagedTo cluster.Offset
}

// epochBegin is where a leader epoch began, as one incarnation of its leader tells: at an offset,
// behind a record of the epoch before. NoLeaderEpoch: it knows of none.
type epochBegin struct {
	broker        cluster.BrokerEpoch
	epoch, before cluster.LeaderEpoch
	start         cluster.Offset
}

// within reports whether a log has what the epoch's leader began with.
func (b epochBegin) within(end logEnd) bool { return end.epoch == b.before && end.offset >= b.start }

// standing is the newest leader epoch of which a log is known to have all that its leader began
// with: that of its last record, or one whose leader appended nothing before the log ended.
func (q *inquiry) standing(end logEnd) cluster.LeaderEpoch {
	newest := end.epoch
	for _, begin := range q.begins {
		if begin.within(end) {
			newest = max(newest, begin.epoch)
		}
	}
	return newest
}

// preferred orders the logs of replicas that have answered for an election: the furthest first, of
// equals the one that knows of no loss.
func (q *inquiry) preferred(a, b cluster.BrokerID) int {
	one, other := q.ends[a], q.ends[b]
	further := cmp.Or(cmp.Compare(q.standing(other), q.standing(one)), cmp.Compare(other.epoch, one.epoch), cmp.Compare(other.offset, one.offset))
	switch {
	case further != 0:
		return further
	case one.lost == other.lost:
		return 0
	case one.lost:
		return 1
	}
	return -1
}

// The versions and values of the question: ListOffsets answers it for any replica with the end
// of its log, not the high watermark, where the replica id is the one for debugging.
const (
	listOffsetsVersion = 7
	debugReplica       = -2
	latestTimestamp    = -1
)

// suspect reports whether a member of the ISR may have lost the end of its log since the
// partition last had a leader. A partition that has lost its last member, whose leader is
// written as none, had nobody to elect then, so whoever is there now has come back since.
func (c *Core) suspect(p *partition, id cluster.BrokerID) bool {
	b := c.brokers[id]
	return b != nil && b.Stop == cluster.StopUnclean && len(p.assignment.Replicas) > 1 &&
		slices.Contains(p.state.ISR, id) && (p.state.Leader < 0 || slices.Contains(p.bounced, id))
}

// eligible reports whether a replica can be elected: it is online and not suspect.
func (c *Core) eligible(p *partition) func(cluster.BrokerID) bool {
	online := c.online(p.tp)
	return func(id cluster.BrokerID) bool { return online(id) && !c.suspect(p, id) }
}

// onlySuspects reports whether a partition has lost its leader and nobody of its ISR can lead but
// suspects.
func (c *Core) onlySuspects(p *partition) bool {
	if !p.known || p.topic.deletion != nil || p.state.Leader >= 0 && !c.certainlyGone(p, p.state.Leader) && !c.suspect(p, p.state.Leader) {
		return false
	}
	online, eligible := c.online(p.tp), c.eligible(p)
	return slices.ContainsFunc(p.state.ISR, func(id cluster.BrokerID) bool { return online(id) }) &&
		!slices.ContainsFunc(p.state.ISR, eligible)
}

// inquire asks for the logs' ends where only suspects could lead, what it has not asked yet,
// and forgets what it has learned elsewhere. The questions leave after what has been told so
// far: a broker that has just come back knows its partitions by then.
func (c *Core) inquire() {
	questions := map[cluster.BrokerID][]*partition{}
	waiting := 0
	c.eachPartition(func(p *partition) {
		if !c.onlySuspects(p) {
			p.inquiry = nil
			return
		}
		waiting++
		if p.inquiry == nil {
			p.inquiry = &inquiry{
				since: c.now, ends: map[cluster.BrokerID]logEnd{}, begins: map[cluster.BrokerID]epochBegin{},
				asked: map[cluster.BrokerID]cluster.BrokerEpoch{},
			}
		}
		for _, id := range p.assignment.Replicas {
			if b := c.brokers[id]; c.asks(p, id) && !p.inquiry.knows(b) && p.inquiry.asked[id] != b.Epoch {
				p.inquiry.asked[id] = b.Epoch
				questions[id] = append(questions[id], p)
			}
		}
	})
	if waiting == 0 {
		return
	}
	c.flush()
	for _, id := range c.brokerIDs() {
		if len(questions[id]) > 0 {
			c.send(id, askLogs(questions[id], cluster.EpochBeginTimestamp))
			c.send(id, askLogs(questions[id], latestTimestamp))
		}
	}
	c.effects.WakeAfter = inquiryInterval
}

// defaultUncleanStopPatience is about what brokers that stopped together differ in when they
// start.
const defaultUncleanStopPatience = 10 * time.Second

// inquiryInterval is how often partitions that wait for replicas are looked at again: for the
// end of their patience, and for brokers that had no answer yet.
const inquiryInterval = 500 * time.Millisecond

func (c *Core) asks(p *partition, id cluster.BrokerID) bool {
	return c.online(p.tp)(id) && c.brokers[id].Stop != cluster.StopUntold
}

func (q *inquiry) knows(b *broker) bool {
	end, ended := q.ends[b.ID]
	begin, begun := q.begins[b.ID]
	return ended && begun && end.broker == b.Epoch && begin.broker == b.Epoch
}

// askLogs asks one of the two questions, latestTimestamp or cluster.EpochBeginTimestamp. (One
// request cannot ask both: ListOffsets refuses a partition that is named twice.)
func askLogs(parts []*partition, question int64) *kmsg.ListOffsetsRequest {
	request := kmsg.NewPtrListOffsetsRequest()
	request.Version = listOffsetsVersion
	request.ReplicaID = debugReplica
	var current *kmsg.ListOffsetsRequestTopic
	for _, p := range parts {
		if current == nil || current.Topic != p.tp.Topic {
			topic := kmsg.NewListOffsetsRequestTopic()
			topic.Topic = p.tp.Topic
			request.Topics = append(request.Topics, topic)
			current = &request.Topics[len(request.Topics)-1]
		}
		asked := kmsg.NewListOffsetsRequestTopicPartition()
		asked.Partition, asked.Timestamp = p.tp.Partition, question
		current.Partitions = append(current.Partitions, asked)
	}
	return request
}

func asksEpochBegins(request *kmsg.ListOffsetsRequest) bool {
	return len(request.Topics) > 0 && len(request.Topics[0].Partitions) > 0 && request.Topics[0].Partitions[0].Timestamp == cluster.EpochBeginTimestamp
}

// onEpochBegins takes what a broker says of the epochs it has led. One of an earlier version does
// not know the question, and has noted nothing; and no epoch is newer than the partition's.
func (c *Core) onEpochBegins(event epochBeginsAnswered) {
	c.takeAnswers(event.id, event.epoch, event.response, func(p *partition, answer *kmsg.ListOffsetsResponseTopicPartition) (taken bool) {
		if answer.ErrorCode != 0 && answer.ErrorCode != kerr.UnsupportedVersion.Code {
			return false
		}
		begin := epochBegin{event.epoch, cluster.LeaderEpoch(answer.LeaderEpoch), cluster.LeaderEpoch(answer.Timestamp), cluster.Offset(answer.Offset)}
		if answer.ErrorCode != 0 || begin.epoch > p.state.LeaderEpoch {
			begin.epoch = cluster.NoLeaderEpoch
		}
		p.inquiry.begins[event.id] = begin
		return true
	})
}

// onLogEnds takes what a broker says of its logs. Other errors than the loss of a tail say
// nothing: the broker does not host the replica yet, or its disk has failed.
func (c *Core) onLogEnds(event logEndsAnswered) {
	c.takeAnswers(event.id, event.epoch, event.response, func(p *partition, answer *kmsg.ListOffsetsResponseTopicPartition) (taken bool) {
		lost := answer.ErrorCode == kerr.OffsetNotAvailable.Code
		if answer.ErrorCode != 0 && !lost {
			return false
		}
		p.inquiry.ends[event.id] = logEnd{event.epoch, cluster.LeaderEpoch(answer.LeaderEpoch), cluster.Offset(answer.Offset), lost, cluster.Offset(answer.Timestamp)}
		return true
	})
}

// takeAnswers gives the answers of one incarnation of a broker to take, those for partitions that
// still wait, and looks again at the partitions of which something was taken.
func (c *Core) takeAnswers(id cluster.BrokerID, epoch cluster.BrokerEpoch, response *kmsg.ListOffsetsResponse,
	take func(*partition, *kmsg.ListOffsetsResponseTopicPartition) (taken bool),
) {
	if b := c.brokers[id]; b == nil || b.Epoch != epoch {
		return
	}
	var parts []*partition
	for _, t := range response.Topics {
		for i := range t.Partitions {
			p := c.partition(cluster.TopicPartition{Topic: t.Topic, Partition: t.Partitions[i].Partition})
			if p != nil && p.inquiry != nil && take(p, &t.Partitions[i]) {
				parts = append(parts, p)
			}
		}
	}
	c.electFurthest(parts, c.inquire)
}

// onInquiryTick looks again at the partitions that wait.
func (c *Core) onInquiryTick() {
	var parts []*partition
	c.eachPartition(func(p *partition) {
		if p.inquiry != nil {
			clear(p.inquiry.asked)
			parts = append(parts, p)
		}
	})
	c.electFurthest(parts, c.inquire)
}

// verdict of what is known of a partition's logs.
type verdict uint8

const (
	waitOn    verdict = iota // for answers, or for replicas
	ifUnclean                // elect where unclean election is allowed
	elect
)

// judge says whether the partition's furthest log can be elected. candidates are those that
// have answered, the furthest first; among equals the order of the assignment decides.
func (c *Core) judge(p *partition) (candidates []cluster.BrokerID, v verdict) {
	whole, absentISR, absent, silent := false, false, false, false
	for _, id := range p.assignment.Replicas {
		member := slices.Contains(p.state.ISR, id)
		switch b := c.brokers[id]; {
		case b == nil || !c.online(p.tp)(id):
			absent = true
			absentISR = absentISR || member
		case b.Stop == cluster.StopUntold: // Apache's, and not in the ISR: it is not asked
		case !p.inquiry.knows(b): // it has yet to answer, or cannot: a replica without a log to speak of
			absent, silent = true, true
			absentISR = absentISR || member
		default:
			candidates = append(candidates, id)
			whole = whole || member && !p.inquiry.ends[id].lost
		}
	}
	slices.SortStableFunc(candidates, func(a, b cluster.BrokerID) int {
		return p.inquiry.preferred(a, b)
	})
	candidates = p.withoutUnmendable(candidates)
	if whole { // a log outside the ISR that goes further is evidence that those in it have lost records
		whole = slices.ContainsFunc(candidates, func(id cluster.BrokerID) bool {
			return slices.Contains(p.state.ISR, id) && p.inquiry.preferred(id, candidates[0]) == 0
		})
	}
	patient := c.now.Sub(p.inquiry.since) < c.settings.UncleanStopPatience
	switch {
	case len(candidates) == 0, silent && patient:
		return nil, waitOn
	case !absent, whole && !absentISR, whole && !patient:
		return candidates, elect
	case !patient:
		return candidates, ifUnclean
	}
	return candidates, waitOn
}

// withoutUnmendable leaves out the logs with damage that nobody's log goes beyond, if a member
// of the ISR is whole. There is no copy of what is damaged, and such a leader could never let
// anybody read or copy past it. What was committed that member has, unless it has lost the end
// of its log at the same time.
func (p *partition) withoutUnmendable(candidates []cluster.BrokerID) []cluster.BrokerID {
	mendable := func(id cluster.BrokerID) bool {
		damagedTo := p.inquiry.ends[id].damagedTo
		return damagedTo <= 0 || slices.ContainsFunc(candidates, func(other cluster.BrokerID) bool {
			return other != id && p.inquiry.ends[other].offset >= damagedTo
		})
	}
	whole := func(id cluster.BrokerID) bool { return slices.Contains(p.state.ISR, id) && !p.inquiry.ends[id].lost }
	if left := filter(candidates, mendable); slices.ContainsFunc(left, whole) {
		return left
	}
	return candidates
}

// electFurthest elects where the judgement is to.
func (c *Core) electFurthest(parts []*partition, done func()) {
	var ready, unclean []*partition
	for _, p := range parts {
		if p.inquiry == nil || !c.onlySuspects(p) {
			continue
		}
		switch _, v := c.judge(p); v {
		case elect:
			ready = append(ready, p)
		case ifUnclean:
			unclean = append(unclean, p)
		}
	}
	c.readUnclean(topicsOf(unclean), func(allowed map[*topic]bool) {
		for _, p := range unclean {
			if allowed[p.topic] {
				ready = append(ready, p)
			} else {
				c.logStuck(p)
			}
		}
		decide := func(p *partition) (cluster.PartitionState, bool, error) {
			if p.inquiry == nil || !c.onlySuspects(p) {
				return p.state, false, nil // somebody else has written it meanwhile
			}
			next, ok := c.furthest(p)
			return next, ok, nil
		}
		c.change(ready, decide, func(o outcome) {
			if o.written {
				c.logFurthest(o)
				o.p.inquiry, o.p.bounced = nil, nil
			}
			c.settled(o, "furthest log after unclean stops")
		}, func() {
			// The new ISR may have all that a reassignment was waiting for, and then nobody joins
			// it any more, which would complete it.
			c.completeReassignments(ready, done)
		})
	})
}

// furthest is the state in which the furthest log leads, together with its equals.
func (c *Core) furthest(p *partition) (next cluster.PartitionState, ok bool) {
	candidates, _ := c.judge(p)
	if len(candidates) == 0 {
		return p.state, false
	}
	next = p.state
	next.Leader = candidates[0]
	next.LeaderEpoch++
	next.ISR = filter(candidates, func(id cluster.BrokerID) bool { return p.inquiry.preferred(id, next.Leader) == 0 })
	return next, true
}

// logStuck says once why a partition stays without a leader.
func (c *Core) logStuck(p *partition) {
	if p.inquiry.told {
		return
	}
	p.inquiry.told = true
	c.log(slog.LevelError, "no leader: committed records are missing from every in-sync replica that is back; "+
		"start the other replicas' brokers, or accept the loss with unclean.leader.election.enable or kafka-leader-election --election-type unclean",
		"topic", p.tp.Topic, "partition", p.tp.Partition, "replicas", p.assignment.Replicas, "isr", p.state.ISR,
		"absent", filter(p.assignment.Replicas, func(id cluster.BrokerID) bool { return !c.online(p.tp)(id) }))
}

func (c *Core) logFurthest(o outcome) {
	p := o.p
	end := p.inquiry.ends[p.state.Leader]
	level, message := slog.LevelInfo, "elected the furthest log after unclean stops"
	if end.lost {
		level, message = slog.LevelError, "elected the furthest log after unclean stops, though committed records are missing from it"
	}
	c.log(level, message, "topic", p.tp.Topic, "partition", p.tp.Partition, "leader", p.state.Leader,
		"standing", p.inquiry.standing(end), "lastEpoch", end.epoch, "logEnd", end.offset, "isrBefore", o.before.ISR, "asked", len(p.inquiry.ends))
}

// topicsOf returns each topic of some partitions once, in their order.
func topicsOf(parts []*partition) []*topic {
	seen := map[*topic]bool{}
	var topics []*topic
	for _, p := range parts {
		if !seen[p.topic] {
			seen[p.topic] = true
			topics = append(topics, p.topic)
		}
	}
	return topics
}

// readUnclean reads which topics allow unclean election.
func (c *Core) readUnclean(topics []*topic, then func(map[*topic]bool)) {
	ops := make([]registry.Op, len(topics))
	for i, t := range topics {
		ops[i] = registry.Op{Kind: registry.OpGet, Path: registry.TopicConfigPath(t.name)}
	}
	c.execute(ops, func(results []registry.OpResult) {
		unclean := map[*topic]bool{}
		for i, t := range topics {
			unclean[t] = c.settings.UncleanLeaderElection
			config, err := registry.DecodeConfig(ops[i].Path, results[i].Data)
			if value, ok := config[uncleanKey]; err == nil && ok {
				unclean[t] = value == "true"
			}
		}
		then(unclean)
	})
}
