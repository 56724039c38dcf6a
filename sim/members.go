package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
)

const (
	memberGroup = "g" // of consumers that share the topic
	plainGroup  = "s" // of somebody who only keeps offsets there

	memberSession   = 900 * time.Millisecond
	memberRebalance = 1200 * time.Millisecond
)

// member is a consumer in a group: it joins, is given partitions, reads them from where the
// group has come to, and commits how far it is.
type member struct {
	w        *world
	node     node
	instance string // of a static member; "": a dynamic one
	links    links
	fetching *fetching

	life        int  // changes when it starts, stops, or joins anew: what is under way is void then
	alive       bool //
	coordinator cluster.BrokerID
	id          string
	generation  int32
	stable      bool // it has its partitions
	assigned    []cluster.TopicPartition
	positions   map[cluster.TopicPartition]cluster.Offset
	committed   map[cluster.TopicPartition]cluster.Offset
	leaders     map[cluster.TopicPartition]*leaders
	committing  bool
	lastOK      time.Duration // when its coordinator last said that all is well
	okTerm      term
}

// offsetCommit is one committed offset on its way.
type offsetCommit struct {
	key        offsetKey
	id         int
	member     string
	generation int32
	offset     cluster.Offset
	until      time.Duration
}

func newMember(w *world, index int, static bool) *member {
	m := &member{w: w, node: firstMember + node(index), coordinator: cluster.NoBroker}
	if static {
		m.instance = fmt.Sprintf("static-%d", index)
	}
	m.links = newLinks(w, m.node)
	return m
}

// start begins a process of the member: a static one comes back as itself.
func (m *member) start() {
	m.alive = true
	m.id, m.lastOK = "", 0 // nobody has heard of this process
	m.fetching = newFetching(m.w, &m.links)
	m.w.trace("member", "%d starts", m.node)
	m.rejoin(0)
}

// halt ends the process, without a word or with one.
func (m *member) halt(leave bool) {
	if !m.alive {
		return
	}
	m.w.trace("member", "%d halts (leaves %v)", m.node, leave)
	if leave && m.id != "" && m.coordinator >= 1 {
		request := kmsg.NewPtrLeaveGroupRequest()
		request.Version, request.Group = 4, memberGroup
		leaver := kmsg.NewLeaveGroupRequestMember()
		leaver.MemberID = m.id
		if m.instance != "" {
			leaver.InstanceID = &m.instance
		}
		request.Members = append(request.Members, leaver)
		ask(&m.links, m.coordinator, 300*time.Millisecond, request, func(*kmsg.LeaveGroupResponse, error) {})
	}
	m.alive, m.stable = false, false
	m.life++
}

// rejoin joins the group, or joins it again, after a while.
func (m *member) rejoin(delay time.Duration) {
	m.life++
	m.stable, m.committing = false, false
	m.w.after(delay, m.living(m.join))
}

// living makes something happen only if the member has not begun anew until then.
func (m *member) living(do func()) func() {
	life := m.life
	return func() {
		if m.life == life && m.alive {
			do()
		}
	}
}

// find looks for the coordinator first if it is not known.
func (m *member) find(then func()) {
	if m.coordinator >= 1 {
		then()
		return
	}
	found, again := m.living(then), m.living(func() { m.find(then) })
	findCoordinator(&m.links, memberGroup, func(id cluster.BrokerID) {
		m.coordinator = id
		if id < 1 {
			m.w.after(m.w.between(20*time.Millisecond, 80*time.Millisecond), again)
			return
		}
		found()
	})
}

// findCoordinator asks some broker; done gets NoBroker if it does not know.
func findCoordinator(l *links, name string, done func(cluster.BrokerID)) {
	request := kmsg.NewPtrFindCoordinatorRequest()
	request.Version, request.CoordinatorKeys = 4, []string{name}
	ask(l, l.w.brokers[l.w.chance.IntN(len(l.w.brokers))].id, 300*time.Millisecond, request, func(response *kmsg.FindCoordinatorResponse, err error) {
		if err != nil || response.Coordinators[0].ErrorCode != 0 {
			done(cluster.NoBroker)
			return
		}
		done(cluster.BrokerID(response.Coordinators[0].NodeID))
	})
}

func (m *member) join() {
	m.find(func() {
		request := kmsg.NewPtrJoinGroupRequest()
		request.Version, request.Group, request.MemberID = 9, memberGroup, m.id
		request.SessionTimeoutMillis, request.RebalanceTimeoutMillis = int32(memberSession.Milliseconds()), int32(memberRebalance.Milliseconds())
		request.ProtocolType = "consumer"
		protocol := kmsg.NewJoinGroupRequestProtocol()
		protocol.Name, protocol.Metadata = "range", (&kmsg.ConsumerMemberMetadata{Topics: []string{topic}}).AppendTo(nil)
		request.Protocols = append(request.Protocols, protocol)
		if m.instance != "" {
			request.InstanceID = &m.instance
		}
		b := m.w.brokers[m.coordinator-1]
		done := m.answered(func(answer kmsg.Response, err error) { m.joined(answer, err) })
		m.links.linkTo(m.coordinator).call(4*time.Second, func(reply func(any)) {
			b.serve(request, m.node, func(response kmsg.Response, err error) {
				if joined, ok := response.(*kmsg.JoinGroupResponse); ok && joined.ErrorCode == 0 {
					m.w.check.groups.joinAnswered(b, memberGroup, m.instance, joined.MemberID, joined.Generation)
				}
				reply(served{response, err})
			})
		}, done)
	})
}

// answered turns what comes back into a response, if the member still waits for it.
func (m *member) answered(do func(kmsg.Response, error)) func(any, error) {
	life := m.life
	return func(answer any, err error) {
		if m.life == life && m.alive {
			response, err := responseOf[kmsg.Response](answer, err)
			do(response, err)
		}
	}
}

func (m *member) joined(answer kmsg.Response, err error) {
	var response *kmsg.JoinGroupResponse
	if err == nil {
		response = answer.(*kmsg.JoinGroupResponse)
		err = kerr.ErrorForCode(response.ErrorCode)
	}
	if errors.Is(err, kerr.MemberIDRequired) {
		m.id = response.MemberID
		m.rejoin(0)
		return
	}
	if err != nil {
		m.refused("join", err)
		return
	}
	m.id, m.generation = response.MemberID, response.Generation
	m.w.trace("member", "%d joined generation %d as %s (leader %v)", m.node, m.generation, m.id, response.LeaderID == m.id)
	m.sync(response)
}

// share deals the topic's partitions out to the members.
func (m *member) share(response *kmsg.JoinGroupResponse) (assignments []kmsg.SyncGroupRequestGroupAssignment) {
	if len(response.Members) == 0 || response.LeaderID != m.id || response.SkipAssignment {
		return nil
	}
	for i := range response.Members {
		var mine []string
		for p := range m.w.config.partitions {
			if p%len(response.Members) == i {
				mine = append(mine, strconv.Itoa(p))
			}
		}
		assignments = append(assignments, kmsg.SyncGroupRequestGroupAssignment{MemberID: response.Members[i].MemberID, MemberAssignment: []byte(strings.Join(mine, ","))})
	}
	return assignments
}

func (m *member) sync(joined *kmsg.JoinGroupResponse) {
	if m.coordinator < 1 { // lost meanwhile
		m.rejoin(0)
		return
	}
	request := kmsg.NewPtrSyncGroupRequest()
	request.Version, request.Group, request.MemberID, request.Generation = 5, memberGroup, m.id, m.generation
	request.ProtocolType, request.Protocol = kmsg.StringPtr("consumer"), kmsg.StringPtr("range")
	if m.instance != "" {
		request.InstanceID = &m.instance
	}
	request.GroupAssignment = m.share(joined)
	b := m.w.brokers[m.coordinator-1]
	owner, generation := m.owner(), m.generation
	m.links.linkTo(m.coordinator).call(4*time.Second, func(reply func(any)) {
		given := m.w.check.groups.given(b, memberGroup)
		b.serve(request, m.node, func(response kmsg.Response, err error) {
			if synced, ok := response.(*kmsg.SyncGroupResponse); ok && synced.ErrorCode == 0 {
				m.w.check.groups.memberServed(b, "sync", generation, given)
				m.w.check.groups.syncAnswered(b, memberGroup, owner, generation, assignedIn(synced))
			}
			reply(served{response, err})
		})
	}, m.answered(func(answer kmsg.Response, err error) {
		var response *kmsg.SyncGroupResponse
		if err == nil {
			response = answer.(*kmsg.SyncGroupResponse)
			err = kerr.ErrorForCode(response.ErrorCode)
		}
		if err != nil {
			m.refused("sync", err)
			return
		}
		m.assigned = assignedIn(response)
		m.w.trace("member", "%d is given %v in generation %d", m.node, m.assigned, m.generation)
		m.position()
	}))
}

// owner is who a partition belongs to: a static member stays the same when it starts anew.
func (m *member) owner() string {
	if m.instance != "" {
		return m.instance
	}
	return m.id
}

func assignedIn(response *kmsg.SyncGroupResponse) (assigned []cluster.TopicPartition) {
	for _, number := range strings.Split(string(response.MemberAssignment), ",") {
		if p, err := strconv.Atoi(number); err == nil {
			assigned = append(assigned, tpOf(p))
		}
	}
	return assigned
}

// position finds out where the group is, and begins to work.
func (m *member) position() {
	if m.coordinator < 1 {
		m.rejoin(0)
		return
	}
	fetchOffsets(&m.links, m.coordinator, memberGroup, m.assigned, m.living2(func(offsets map[cluster.TopicPartition]cluster.Offset, err error) {
		if err != nil {
			m.refused("offset fetch", err)
			return
		}
		m.positions, m.committed, m.leaders = offsets, map[cluster.TopicPartition]cluster.Offset{}, map[cluster.TopicPartition]*leaders{}
		for tp, offset := range offsets {
			m.committed[tp] = offset
			m.leaders[tp] = &leaders{leader: cluster.NoBroker, epoch: cluster.NoLeaderEpoch}
			if read := m.w.check.groups.consumed[tp]; offset > read {
				m.w.fail("poll-skip", "member %d begins %v at %d; the group has read to %d", m.node, tp, offset, read)
			}
		}
		m.stable = true
		m.w.after(0, m.living(m.heartbeat))
		m.w.after(0, m.living(m.poll))
		m.w.after(m.w.between(20*time.Millisecond, 200*time.Millisecond), m.living(m.commit))
	}))
}

func (m *member) living2(do func(map[cluster.TopicPartition]cluster.Offset, error)) func(map[cluster.TopicPartition]cluster.Offset, error) {
	life := m.life
	return func(offsets map[cluster.TopicPartition]cluster.Offset, err error) {
		if m.life == life && m.alive {
			do(offsets, err)
		}
	}
}

// fetchOffsets asks a coordinator for a group's offsets, and has the answer judged.
func fetchOffsets(l *links, coordinator cluster.BrokerID, name string, partitions []cluster.TopicPartition, done func(map[cluster.TopicPartition]cluster.Offset, error)) {
	w := l.w
	request := kmsg.NewPtrOffsetFetchRequest()
	request.Version = 8
	asked := kmsg.NewOffsetFetchRequestGroup()
	asked.Group, asked.Topics = name, []kmsg.OffsetFetchRequestGroupTopic{}
	if len(partitions) > 0 {
		asked.Topics = append(asked.Topics, kmsg.OffsetFetchRequestGroupTopic{Topic: topic})
	}
	for _, tp := range partitions {
		asked.Topics[0].Partitions = append(asked.Topics[0].Partitions, tp.Partition)
	}
	request.Groups = append(request.Groups, asked)
	b := w.brokers[coordinator-1]
	bounds := map[cluster.TopicPartition]int{}
	for _, tp := range partitions {
		bounds[tp] = w.check.groups.bound(offsetKey{name, tp})
	}
	l.linkTo(coordinator).call(400*time.Millisecond, func(reply func(any)) {
		b.serve(request, l.me, func(response kmsg.Response, err error) {
			if got, ok := response.(*kmsg.OffsetFetchResponse); ok && got.Groups[0].ErrorCode == 0 {
				w.check.groups.offsetsAnswered(b, name, got, bounds)
			}
			reply(served{response, err})
		})
	}, func(answer any, err error) {
		response, err := responseOf[*kmsg.OffsetFetchResponse](answer, err)
		if err == nil {
			err = kerr.ErrorForCode(response.Groups[0].ErrorCode)
		}
		if err != nil {
			done(nil, err)
			return
		}
		offsets := map[cluster.TopicPartition]cluster.Offset{}
		for i := range response.Groups[0].Topics {
			t := &response.Groups[0].Topics[i]
			for j := range t.Partitions {
				if err := kerr.ErrorForCode(t.Partitions[j].ErrorCode); err != nil {
					done(nil, err)
					return
				}
				offsets[cluster.TopicPartition{Topic: t.Topic, Partition: t.Partitions[j].Partition}] = max(cluster.Offset(t.Partitions[j].Offset), 0)
			}
		}
		done(offsets, nil)
	})
}

// offsetsAnswered judges the offsets that a coordinator gives; one that has been replaced and
// does not know it is behind, as in Kafka.
func (g *groupTruth) offsetsAnswered(b *broker, name string, response *kmsg.OffsetFetchResponse, bounds map[cluster.TopicPartition]int) {
	t, ok := g.termOf(b)
	p := g.c.live[offsetsPartition]
	if !ok || p.state().Leader != b.id || p.state().LeaderEpoch != t.epoch {
		return
	}
	for i := range response.Groups[0].Topics {
		got := &response.Groups[0].Topics[i]
		for j := range got.Partitions {
			part := &got.Partitions[j]
			if part.ErrorCode != 0 {
				continue
			}
			tp := cluster.TopicPartition{Topic: got.Topic, Partition: part.Partition}
			id := 0
			if part.Offset >= 0 && part.Metadata != nil {
				id, _ = strconv.Atoi(*part.Metadata)
			}
			g.fetched(b, offsetKey{name, tp}, part.Offset, id, bounds[tp])
		}
	}
}

// refused is what a member does when something is not granted.
func (m *member) refused(what string, err error) {
	m.w.trace("member", "%d, generation %d: %s refused: %v", m.node, m.generation, what, err)
	switch {
	case errors.Is(err, kerr.UnknownMemberID):
		m.expelled()
		m.id, m.lastOK = "", 0
		m.rejoin(m.w.between(0, 30*time.Millisecond))
	case errors.Is(err, kerr.FencedInstanceID):
		// Somebody with this instance id has started; that was this very member, earlier.
		m.id, m.lastOK = "", 0
		m.rejoin(m.w.between(10*time.Millisecond, 60*time.Millisecond))
	case errors.Is(err, kerr.RebalanceInProgress), errors.Is(err, kerr.IllegalGeneration):
		m.rejoin(0)
	default: // another coordinator, or this one again
		m.links.linkTo(max(m.coordinator, 1)).reset()
		m.coordinator = cluster.NoBroker
		if m.stable && what == "heartbeat" {
			m.find(func() { m.w.after(m.w.between(10*time.Millisecond, 100*time.Millisecond), m.living(m.heartbeat)) })
			return
		}
		m.rejoin(m.w.between(10*time.Millisecond, 100*time.Millisecond))
	}
}

// expelled: the coordinator that has just said that all is well cannot have lost the member.
func (m *member) expelled() {
	t := m.okTerm
	b := m.w.brokers[max(m.coordinator, 1)-1]
	if now, ok := m.termIf(b); ok && now == t && m.w.now-m.lastOK < memberSession*7/10 && m.lastOK > 0 {
		m.w.fail("member-expelled", "member %d (%s): coordinator %d said at %v that all is well, and does not know it at %v", m.node, m.id, b.id, m.lastOK, m.w.now)
	}
}

func (m *member) termIf(b *broker) (term, bool) {
	if b.rep == nil {
		return term{}, false
	}
	return m.w.check.groups.termOf(b)
}

func (m *member) heartbeat() {
	if m.coordinator < 1 {
		m.find(m.heartbeat)
		return
	}
	request := kmsg.NewPtrHeartbeatRequest()
	request.Version, request.Group, request.MemberID, request.Generation = 4, memberGroup, m.id, m.generation
	if m.instance != "" {
		request.InstanceID = &m.instance
	}
	b := m.w.brokers[m.coordinator-1]
	done := m.answered(func(answer kmsg.Response, err error) {
		if err == nil {
			err = kerr.ErrorForCode(answer.(*kmsg.HeartbeatResponse).ErrorCode)
		}
		if err != nil {
			m.refused("heartbeat", err)
			return
		}
		m.w.after(m.w.between(100*time.Millisecond, 200*time.Millisecond), m.living(m.heartbeat))
	})
	id := m.id
	m.links.linkTo(m.coordinator).call(400*time.Millisecond, func(reply func(any)) {
		given := m.w.check.groups.given(b, memberGroup)
		b.serve(request, m.node, func(response kmsg.Response, err error) {
			if err == nil && response.(*kmsg.HeartbeatResponse).ErrorCode == 0 {
				m.w.check.groups.memberServed(b, "heartbeat", request.Generation, given)
			}
			if t, ok := m.termIf(b); ok && err == nil && id == m.id && response.(*kmsg.HeartbeatResponse).ErrorCode == 0 && !b.groups.Loading() {
				m.lastOK, m.okTerm = m.w.now, t
			}
			reply(served{response, err})
		})
	}, done)
}

// poll reads what the member owns, from the leaders.
func (m *member) poll() {
	w := m.w
	again := func() { w.after(w.between(10*time.Millisecond, 60*time.Millisecond), m.living(m.poll)) }
	byLeader := map[cluster.BrokerID][]cluster.TopicPartition{}
	for _, tp := range m.assigned {
		if l := m.leaders[tp]; l.leader >= 1 {
			byLeader[l.leader] = append(byLeader[l.leader], tp)
		}
	}
	var targets []cluster.BrokerID
	for id := range byLeader {
		targets = append(targets, id)
	}
	slices.Sort(targets)
	if len(targets) == 0 || w.oneIn(10) {
		m.refresh(again)
		return
	}
	target := targets[w.chance.IntN(len(targets))]
	wants := map[cluster.TopicPartition]wanted{}
	for _, tp := range byLeader[target] {
		wants[tp] = wanted{m.leaders[tp].id, m.positions[tp], m.leaders[tp].epoch}
	}
	life := m.life
	m.fetching.fetch(target, wants, byLeader[target], func(got map[cluster.TopicPartition]found, err error) {
		if m.life != life || !m.alive {
			return
		}
		stale := err != nil
		for _, tp := range byLeader[target] {
			answer, any := got[tp]
			switch {
			case !any:
			case errors.Is(answer.err, kerr.OffsetOutOfRange) && wants[tp].epoch < w.check.live[tp].state().LeaderEpoch:
				stale = true // that leader has been replaced; clients know by the epoch committed with the offset (KIP-320)
			case errors.Is(answer.err, kerr.OffsetOutOfRange):
				w.fail("reader-goes-on", "member %d: broker %d, leader of %v in epoch %d, has no offset %d, which the group has read", m.node, target, tp, wants[tp].epoch, wants[tp].position)
			case answer.err != nil:
				stale = true
			default:
				m.consume(target, tp, answer)
			}
		}
		if stale {
			m.refresh(again)
			return
		}
		again()
	})
}

func (m *member) consume(from cluster.BrokerID, tp cluster.TopicPartition, answer found) {
	eachRecord(m.w, from, answer.data, m.positions[tp], func(offset cluster.Offset, epoch cluster.LeaderEpoch, value string) {
		if offset > m.positions[tp] {
			m.w.fail("poll-skip", "member %d of %v was at %d and got %d from broker %d", m.node, tp, m.positions[tp], offset, from)
		}
		m.w.check.wasRead(tp, answer.id, from, offset, value)
		m.positions[tp] = offset + 1
		m.w.check.groups.consumed[tp] = max(m.w.check.groups.consumed[tp], offset+1)
	})
}

// refresh asks who leads.
func (m *member) refresh(then func()) {
	life := m.life
	m.links.askMetadata([]string{topic}, func(response *kmsg.MetadataResponse, err error) {
		if m.life != life || !m.alive {
			return
		}
		if err == nil && response.Topics[0].ErrorCode == 0 {
			for _, part := range response.Topics[0].Partitions {
				if l := m.leaders[tpOf(int(part.Partition))]; l != nil {
					l.learn(cluster.BrokerID(part.Leader), cluster.LeaderEpoch(part.LeaderEpoch), response.Topics[0].TopicID)
				}
			}
		}
		then()
	})
}

// commit commits how far the member is.
func (m *member) commit() {
	again := func() { m.w.after(m.w.between(40*time.Millisecond, 200*time.Millisecond), m.living(m.commit)) }
	var moved []cluster.TopicPartition
	for _, tp := range m.assigned {
		if m.positions[tp] != m.committed[tp] {
			moved = append(moved, tp)
		}
	}
	if len(moved) == 0 || m.coordinator < 1 {
		again()
		return
	}
	var commits []*offsetCommit
	for _, tp := range moved {
		m.w.commits++
		commits = append(commits, &offsetCommit{key: offsetKey{memberGroup, tp}, id: m.w.commits, member: m.id, generation: m.generation, offset: m.positions[tp]})
	}
	life, to := m.life, m.coordinator
	sendCommits(&m.links, to, m.instance, -1, commits, func(err error) {
		if m.life != life || !m.alive {
			return
		}
		switch {
		case err != nil && to != m.coordinator: // a coordinator that was left meanwhile
			again()
		case err == nil:
			for _, c := range commits {
				m.committed[c.key.tp] = c.offset
			}
			again()
		case errors.Is(err, kerr.RequestTimedOut), errors.Is(err, errTimeout):
			again()
		default:
			m.refused("commit", err)
		}
	})
}

// sendCommits sends commits of one group in one request, and has the answer judged.
func sendCommits(l *links, coordinator cluster.BrokerID, instance string, retention time.Duration, commits []*offsetCommit, done func(error)) {
	w := l.w
	request := kmsg.NewPtrOffsetCommitRequest()
	request.Version, request.Group, request.MemberID, request.Generation = 8, commits[0].key.group, commits[0].member, commits[0].generation
	if instance != "" {
		request.InstanceID = &instance
	}
	if retention >= 0 {
		request.Version, request.RetentionTimeMillis = 4, retention.Milliseconds()
	}
	asked := kmsg.OffsetCommitRequestTopic{Topic: topic}
	for _, c := range commits {
		part := kmsg.NewOffsetCommitRequestTopicPartition()
		part.Partition, part.Offset, part.Metadata = c.key.tp.Partition, int64(c.offset), kmsg.StringPtr(strconv.Itoa(c.id))
		asked.Partitions = append(asked.Partitions, part)
	}
	request.Topics = append(request.Topics, asked)
	b := w.brokers[coordinator-1]
	l.linkTo(coordinator).call(800*time.Millisecond, func(reply func(any)) {
		given := w.check.groups.given(b, request.Group)
		// A coordinator that has not got as far as that generation cannot know: nobody has synced in it.
		since, fenced := w.check.groups.fenced[request.MemberID]
		fenced = fenced && given >= since
		b.serve(request, l.me, func(response kmsg.Response, err error) {
			if got, ok := response.(*kmsg.OffsetCommitResponse); ok {
				for i, c := range commits {
					if got.Topics[0].Partitions[i].ErrorCode == 0 {
						w.check.groups.commitAnswered(b, c, given, fenced)
					}
				}
			}
			reply(served{response, err})
		})
	}, func(answer any, err error) {
		response, err := responseOf[*kmsg.OffsetCommitResponse](answer, err)
		for i := range commits {
			if err == nil {
				err = kerr.ErrorForCode(response.Topics[0].Partitions[i].ErrorCode)
			}
		}
		done(err)
	})
}

// keeper is somebody who keeps offsets in a group without being a member: it commits, deletes
// and looks, one thing at a time.
type keeper struct {
	w           *world
	links       links
	coordinator cluster.BrokerID
	count       int
}

func newKeeper(w *world) *keeper {
	return &keeper{w: w, links: newLinks(w, firstMember-1), coordinator: cluster.NoBroker}
}

func (k *keeper) act() {
	w := k.w
	if w.calm {
		return
	}
	again := func(err error) {
		if err != nil {
			k.coordinator = cluster.NoBroker
		}
		w.after(w.between(30*time.Millisecond, 250*time.Millisecond), k.act)
	}
	if k.coordinator < 1 {
		findCoordinator(&k.links, plainGroup, func(id cluster.BrokerID) {
			k.coordinator = id
			again(nil)
		})
		return
	}
	tp := tpOf(w.chance.IntN(w.config.partitions))
	switch w.chance.IntN(8) {
	case 0:
		k.delete(tp, again)
	case 1, 2, 3:
		fetchOffsets(&k.links, k.coordinator, plainGroup, []cluster.TopicPartition{tp}, func(_ map[cluster.TopicPartition]cluster.Offset, err error) { again(err) })
	default:
		k.count++
		w.commits++
		c := &offsetCommit{key: offsetKey{plainGroup, tp}, id: w.commits, generation: -1, offset: cluster.Offset(k.count)}
		retention := time.Duration(-1)
		if w.config.retention > 0 && w.oneIn(2) {
			retention = w.config.retention
			c.until = w.now + w.config.retention - clockDrift
		}
		sendCommits(&k.links, k.coordinator, "", retention, []*offsetCommit{c}, again)
	}
}

// clockDrift is by how much two brokers' clocks may have come apart in a run in which offsets
// expire (there they start together).
const clockDrift = 3500 * time.Millisecond

func (k *keeper) delete(tp cluster.TopicPartition, done func(error)) {
	w := k.w
	request := kmsg.NewPtrOffsetDeleteRequest()
	request.Group = plainGroup
	request.Topics = append(request.Topics, kmsg.OffsetDeleteRequestTopic{Topic: tp.Topic, Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: tp.Partition}}})
	b := w.brokers[k.coordinator-1]
	k.links.linkTo(k.coordinator).call(800*time.Millisecond, func(reply func(any)) {
		sent := len(w.check.live[offsetsPartition].ledger)
		b.serve(request, k.links.me, func(response kmsg.Response, err error) {
			if got, ok := response.(*kmsg.OffsetDeleteResponse); ok && got.ErrorCode == 0 && got.Topics[0].Partitions[0].ErrorCode == 0 {
				w.check.groups.deleteAnswered(b, offsetKey{plainGroup, tp}, sent)
			}
			reply(served{response, err})
		})
	}, func(answer any, err error) {
		response, err := responseOf[*kmsg.OffsetDeleteResponse](answer, err)
		if err == nil {
			err = kerr.ErrorForCode(response.ErrorCode)
		}
		done(err)
	})
}
