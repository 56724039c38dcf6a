package main

import (
	"slices"
	"strings"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/znode"
	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/commitlog"
	"understudy/internal/streaming/group"
	"understudy/internal/streaming/record"
	"understudy/internal/streaming/registry"
)

// checker knows everything, and looks at it after every step of a broker and every entry of
// the coordinator. The invariants by name:
//
//	one-leader-per-epoch   at most one broker leads a partition in a leader epoch
//	log-matching           logs with the same epoch at an offset are the same up to it
//	committed-lost         what was committed (below a leader's high watermark) is in the log
//	                       of every member of the ISR, and is not truncated there
//	hw-beyond-isr          a leader's high watermark is not above what a member of the ISR has
//	hw-beyond-log          nor a follower's above its own log
//	hw-goes-back           nor does it go back while the leader leads
//	below-min-isr          nor forward while fewer than min.insync.replicas are in the ISR
//	hw-beyond-commit       what is below a follower's high watermark is committed
//	epoch-fence            who asks for a leader epoch is answered by that leader alone
//	isr-by-controller      state nodes are written by the present controller alone, and a
//	                       leader's ISR is one that was written
//	state-node             leader in the ISR, epochs that grow, ISR within the assignment
//	reassignment-early     a reassignment ends when all its replicas have been in the ISR
//	ack-uncommitted        an acknowledgement is for records that are committed, at that place
//	ack-without-right      no acknowledgement leaves a broker that knows its session to be
//	                       gone, or was paused, until it is confirmed, or whose disk has failed
//	duplicate, order       no record is in a log twice, nor before an earlier one of its producer
//	producer-forgotten     a leader that has a producer's last batch takes the next
//	producer-state         what a log knows of its producers is what its records say,
//	epoch-cache            and so is what it knows of leader epochs
//	reader-goes-on         a reader gets every committed record, once, in order; and no end
//	latest-goes-back       that goes back
//	corrupt-read           nobody is sent what is damaged, except by a broker whose files were
//	                       spoiled (and then its checksum is wrong)
//	poll-skip              the members of a group read everything: none begins behind what was read
//	generation-goes-back   a group's generations grow, in its records and in a coordinator's answers
//	double-owner           no two members of a generation own a partition
//	commit-unreplicated    commits and assignments are answered when their records are committed
//	commit-lost            an offset that was acknowledged is there until a later commit or deletion
//	stale-generation       a member is served by its coordinator in the present generation alone
//	stale-commit           a commit of an old generation, or of a member that was replaced, is refused
//	member-expelled        a member that is heard of is not expelled
//	read, recovery, disk   logs can be opened and read, and are given up for a reason only
//	identical-state        two machines with the same entries are the same, also by snapshot
//	session-life           an ended session leaves no ephemeral node
//	no-convergence         without faults everything gets in sync, acknowledged and read in the end
//	no-progress            every step ends, and so does the run (watchdog.go)
type checker struct {
	w      *world
	parts  []*partitionTruth // of all topics there have been, in the order of their creation
	live   map[cluster.TopicPartition]*partitionTruth
	groups *groupTruth
	writer *registry.Fence // whose write is being applied; nil: nobody's with a fence
	// believed are the incarnations that the writer thought to be there when it decided.
	believed map[cluster.BrokerID]cluster.BrokerEpoch
	epoch    cluster.ControllerEpoch
}

// partitionTruth is what is true of a partition, whoever knows it. A topic that is created
// again under its name is another one.
type partitionTruth struct {
	tp       cluster.TopicPartition
	id       cluster.TopicID
	data     bool // its records are producers', not the group coordinator's
	doomed   bool // the topic is marked for deletion: what is lost now does not matter
	gone     bool // the topic's nodes are deleted
	replicas []cluster.BrokerID
	moving   bool                      // a reassignment is in progress
	target   []cluster.BrokerID        // of the last reassignment
	joined   map[cluster.BrokerID]bool // who has been in the ISR since it began
	states   []cluster.PartitionState  // by partition epoch
	ledger   []entry                   // committed records
	leaders  map[cluster.LeaderEpoch]cluster.BrokerID
	chains   map[place]uint64 // of the log up to a record
	mirrors  []*mirror        // by broker, from 1
}

type place struct {
	offset cluster.Offset
	epoch  cluster.LeaderEpoch
}

type entry struct {
	epoch cluster.LeaderEpoch
	value string
	chain uint64 // hash of everything up to here
}

// mirror is a replica's log as last seen.
type mirror struct {
	entries []entry
	places  map[string]int
	last    map[int]int // by producer, the serial of its last record
	led     int         // incarnation in which it was seen leading without a break
	hw      cluster.Offset
	ledEnd  int    // of its log, as a leader
	looked  uint64 // how often it was looked at
}

func newMirror() *mirror { return &mirror{places: map[string]int{}, last: map[int]int{}} }

func newChecker(w *world) *checker {
	c := &checker{w: w, live: map[cluster.TopicPartition]*partitionTruth{}}
	c.groups = newGroupTruth(c)
	return c
}

// partOf finds the partition that a topic id stands for.
func (c *checker) partOf(tp cluster.TopicPartition, id cluster.TopicID) *partitionTruth {
	if p := c.live[tp]; p != nil && p.id == id {
		return p
	}
	for _, p := range c.parts {
		if p.tp == tp && p.id == id {
			return p
		}
	}
	return nil
}

func (c *checker) newPart(tp cluster.TopicPartition, id cluster.TopicID) *partitionTruth {
	p := &partitionTruth{
		tp: tp, id: id, data: tp.Topic != group.Topic, leaders: map[cluster.LeaderEpoch]cluster.BrokerID{}, chains: map[place]uint64{},
		mirrors: make([]*mirror, c.w.config.brokers+1),
	}
	c.parts = append(c.parts, p)
	c.live[tp] = p
	return p
}

func (p *partitionTruth) String() string { return p.tp.String() }

func (p *partitionTruth) state() *cluster.PartitionState {
	if len(p.states) == 0 {
		return nil
	}
	return &p.states[len(p.states)-1]
}

func (p *partitionTruth) mirror(id cluster.BrokerID) *mirror {
	if p.mirrors[id] == nil {
		p.mirrors[id] = newMirror()
	}
	return p.mirrors[id]
}

// logOf is a broker's log of a partition: not of an earlier topic of that name.
func (p *partitionTruth) logOf(b *broker) *commitlog.Log {
	if log := b.logs.Get(p.tp); log != nil && (log.TopicID() == p.id || log.TopicID().IsZero() && !p.gone) {
		return log
	}
	return nil
}

func chainOf(before uint64, epoch cluster.LeaderEpoch, value string) uint64 {
	h := before*1099511628211 ^ uint64(uint32(epoch))
	for i := range len(value) {
		h = (h ^ uint64(value[i])) * 1099511628211
	}
	return h
}

// afterStep looks at a broker that has done something.
func (c *checker) afterStep(b *broker) {
	if b.rep == nil {
		return
	}
	for _, p := range c.parts {
		log := p.logOf(b)
		if log == nil {
			if m := p.mirrors[b.id]; m != nil && len(m.entries) > 0 {
				c.deleted(p, b, m)
			}
			continue
		}
		if log.Failed() != nil { // it cannot be read any more
			c.lookAtRole(p, b)
			continue
		}
		changed := c.refresh(p, b, log)
		if m := p.mirror(b.id); changed {
			if m.looked++; m.looked%32 == 0 {
				c.lookInside(p, b, log, m)
			}
		}
		c.lookAtRole(p, b)
	}
	c.settleWiped(b)
}

// deleted: the controller had a replica removed.
func (c *checker) deleted(p *partitionTruth, b *broker, m *mirror) {
	c.w.trace("deleted", "broker %d %v with %d records", b.id, p, len(m.entries))
	if state := p.state(); !b.wiped && !p.doomed && slices.Contains(state.ISR, b.id) {
		c.w.fail("committed-lost", "broker %d is in the ISR %v of %v and its log is deleted", b.id, state.ISR, p)
	}
	p.mirrors[b.id] = newMirror()
	p.mirrors[b.id].led = -1
}

// refresh brings the mirror up to the log.
func (c *checker) refresh(p *partitionTruth, b *broker, log *commitlog.Log) (changed bool) {
	m := p.mirror(b.id)
	end := int(log.EndOffset())
	if end < len(m.entries) {
		c.w.trace("truncated", "broker %d %v from %d to %d", b.id, p, len(m.entries), end)
		if state := p.state(); end < len(p.ledger) && !b.wiped && !p.doomed && state != nil && slices.Contains(state.ISR, b.id) {
			c.w.fail("committed-lost", "broker %d is in the ISR %v of %v and cut its log to %d; %d records are committed", b.id, state.ISR, p, end, len(p.ledger))
		}
		m.cut(end)
		c.lookInside(p, b, log, m)
	}
	for len(m.entries) < end {
		changed = true
		from := cluster.Offset(len(m.entries))
		slice, err := log.Read(from, 1<<20, cluster.Offset(end), true)
		if err != nil {
			if c.harmed(b) {
				return changed
			}
			c.w.fail("read", "broker %d %v at %d: %v", b.id, p, from, err)
		}
		data, err := slice.ReadAll()
		if err != nil {
			c.w.fail("read", "broker %d %v at %d: %v", b.id, p, from, err)
		}
		for found, err := range record.All(data) {
			if err == nil {
				err = found.Check()
			}
			if err != nil {
				if c.harmed(b) {
					return changed // what is damaged must not be given to anybody, and that is looked at there
				}
				c.w.fail("read", "broker %d %v at %d: %v", b.id, p, from, err)
			}
			for r, err := range found.Records(1 << 20) {
				if err != nil {
					c.w.fail("read", "broker %d %v at %d: %v", b.id, p, r.Offset, err)
				}
				if c.harmed(b) && !p.fits(m, r.Offset, found.LeaderEpoch(), p.valueOf(&r)) {
					return changed // checksums do not cover offsets and epochs; it must not get any further
				}
				if int(r.Offset) >= len(m.entries) {
					c.noteRecord(p, b, m, r.Offset, found.LeaderEpoch(), p.valueOf(&r))
				}
			}
		}
		_ = slice.Close()
		if cluster.Offset(len(m.entries)) == from {
			if c.harmed(b) {
				return changed
			}
			c.w.fail("read", "broker %d %v: nothing at %d below the end %d", b.id, p, from, end)
		}
	}
	return changed
}

// spoiled says whether something is damaged that the cluster has need of.
func (b *broker) spoiled() bool { return b.harmed && !b.stray }

// harmed says whether a broker's disk has been damaged.
func (c *checker) harmed(b *broker) bool { return b.harmed }

// valueOf is what a record is known by. Those of the group coordinator are not unique.
func (p *partitionTruth) valueOf(r *record.Record) string {
	if p.data {
		return string(r.Value)
	}
	return describeGroupRecord(r)
}

func (m *mirror) cut(end int) {
	for _, e := range m.entries[end:] {
		delete(m.places, e.value)
	}
	m.entries = m.entries[:end]
	m.last = map[int]int{}
	for i := range m.entries {
		if owner := ownerOf(m.entries[i].value); owner > 0 {
			m.last[owner] = serialOf(m.entries[i].value)
		}
	}
}

// lookInside compares what a log knows of its records with the records.
func (c *checker) lookInside(p *partitionTruth, b *broker, log *commitlog.Log, m *mirror) {
	if len(m.entries) < int(log.EndOffset()) || c.harmed(b) {
		return // there is damage
	}
	if end := len(m.entries); end > 0 {
		at := end - 1 - c.w.look(min(end, 200))
		if got := log.EpochForOffset(cluster.Offset(at)); got != m.entries[at].epoch {
			c.w.fail("epoch-cache", "broker %d %v: offset %d is of epoch %d; the cache says %d", b.id, p, at, m.entries[at].epoch, got)
		}
	}
	if latest := log.LatestEpoch(); len(m.entries) > 0 && latest < m.entries[len(m.entries)-1].epoch {
		c.w.fail("epoch-cache", "broker %d %v: the last record is of epoch %d; the cache ends with %d", b.id, p, m.entries[len(m.entries)-1].epoch, latest)
	}
	if !p.data {
		return
	}
	known := map[int64]int32{}
	for _, state := range log.Producers() {
		known[state.ProducerID] = state.LastSequence
	}
	for owner, serial := range m.last {
		if sequence, found := known[producerID(owner)]; !found || sequence != sequenceOf(owner, serial) {
			c.w.fail("producer-state", "broker %d %v: the last record of producer %d has sequence %d; known is %v (%v)", b.id, p, owner, sequenceOf(owner, serial), sequence, found)
		}
	}
	if len(known) != len(m.last) {
		c.w.fail("producer-state", "broker %d %v: records of %d producers, %d are known", b.id, p, len(m.last), len(known))
	}
}

// fits says whether a record can be what a log holds next.
func (p *partitionTruth) fits(m *mirror, offset cluster.Offset, epoch cluster.LeaderEpoch, value string) bool {
	at := len(m.entries)
	if int(offset) < at {
		return true
	}
	before := uint64(14695981039346656037)
	if at > 0 {
		before = m.entries[at-1].chain
	}
	known, seen := p.chains[place{offset, epoch}]
	return int(offset) == at && (!seen || known == chainOf(before, epoch, value))
}

func (c *checker) noteRecord(p *partitionTruth, b *broker, m *mirror, offset cluster.Offset, epoch cluster.LeaderEpoch, value string) {
	if int(offset) != len(m.entries) {
		c.w.fail("log-matching", "broker %d %v has offset %d after %d records", b.id, p, offset, len(m.entries))
	}
	if offset > 0 && epoch < m.entries[offset-1].epoch {
		c.w.fail("log-matching", "broker %d %v: epoch %d at offset %d after %d", b.id, p, epoch, offset, m.entries[offset-1].epoch)
	}
	before := uint64(14695981039346656037)
	if offset > 0 {
		before = m.entries[offset-1].chain
	}
	chain := chainOf(before, epoch, value)
	key := place{offset, epoch}
	if known, seen := p.chains[key]; seen && known != chain {
		c.w.fail("log-matching", "broker %d %v: the log up to offset %d of epoch %d (%s) differs from another one's", b.id, p, offset, epoch, value)
	}
	p.chains[key] = chain
	if at, twice := m.places[value]; twice && p.data {
		c.w.fail("duplicate", "broker %d %v has %s at %d and at %d", b.id, p, value, at, offset)
	}
	if p.data {
		owner, serial := ownerOf(value), serialOf(value)
		if before := m.last[owner]; before != 0 && serial != before+1 {
			c.w.fail("order", "broker %d %v: %s at %d comes after %d of that producer", b.id, p, value, offset, before)
		}
		m.last[owner] = serial
	}
	m.places[value] = int(offset)
	m.entries = append(m.entries, entry{epoch, value, chain})
}

// lookAtRole checks a replica as the leader or follower that it is.
func (c *checker) lookAtRole(p *partitionTruth, b *broker) {
	d, hosted := b.rep.Describe(p.tp)
	m := p.mirror(b.id)
	if !hosted || d.TopicID != p.id {
		m.led = -1
		return
	}
	if !d.IsLeader {
		m.led = -1
		c.lookAtFollower(p, b, m, int(d.HighWatermark))
		return
	}
	if other, seen := p.leaders[d.LeaderEpoch]; seen && other != b.id {
		c.w.fail("one-leader-per-epoch", "brokers %d and %d lead %v in epoch %d", other, b.id, p, d.LeaderEpoch)
	}
	p.leaders[d.LeaderEpoch] = b.id
	if m.led == b.incarnation && d.HighWatermark < m.hw {
		c.w.fail("hw-goes-back", "leader %d of %v, epoch %d: from %d to %d", b.id, p, d.LeaderEpoch, m.hw, d.HighWatermark)
	}
	if least := min(c.w.config.minISR, len(d.Replicas)); m.led == b.incarnation && d.HighWatermark > m.hw && len(d.ISR) < least && !p.doomed {
		c.w.fail("below-min-isr", "leader %d of %v, epoch %d: the high watermark goes from %d to %d with the ISR %v; %d must be in it", b.id, p, d.LeaderEpoch, m.hw, d.HighWatermark, d.ISR, least)
	}
	if least := min(c.w.config.minISR, len(d.Replicas)); p.data && m.led == b.incarnation && len(m.entries) > m.ledEnd && len(d.ISR) < least && !p.doomed && !c.harmed(b) {
		c.w.fail("below-min-isr", "leader %d of %v, epoch %d: takes records at %d with the ISR %v; %d must be in it", b.id, p, d.LeaderEpoch, m.ledEnd, d.ISR, least)
	}
	m.led, m.hw, m.ledEnd = b.incarnation, d.HighWatermark, len(m.entries)
	if p.doomed {
		return
	}
	// Also an epoch without a record: without its start a later leader could not tell where logs part.
	if log := p.logOf(b); log != nil && log.Failed() == nil && !c.harmed(b) && log.LatestEpoch() != d.LeaderEpoch {
		c.w.fail("epoch-cache", "leader %d of %v in epoch %d has noted %d as its latest", b.id, p, d.LeaderEpoch, log.LatestEpoch())
	}
	if int(d.PartitionEpoch) >= len(p.states) || d.PartitionEpoch < 0 {
		c.w.fail("isr-by-controller", "leader %d of %v has partition epoch %d, which was never written", b.id, p, d.PartitionEpoch)
	}
	if written := p.states[d.PartitionEpoch]; !slices.Equal(written.ISR, d.ISR) {
		c.w.fail("isr-by-controller", "leader %d of %v has ISR %v at partition epoch %d; written was %v", b.id, p, d.ISR, d.PartitionEpoch, written.ISR)
	}
	c.noteCommitted(p, b, m, int(d.HighWatermark))
	state := p.state()
	if state.Leader != b.id || state.LeaderEpoch != d.LeaderEpoch {
		return
	}
	if b.harmed && len(m.entries) < int(d.HighWatermark) {
		return // what cannot be read of its log until it is mended
	}
	for _, id := range state.ISR {
		other := p.mirror(id)
		if c.w.brokers[id-1].wiped || c.w.brokers[id-1].harmed || d.HighWatermark == 0 {
			continue
		}
		if len(other.entries) < int(d.HighWatermark) || other.entries[d.HighWatermark-1].chain != m.entries[d.HighWatermark-1].chain {
			c.w.fail("hw-beyond-isr", "leader %d of %v, epoch %d, has high watermark %d; broker %d of the ISR %v has %d records", b.id, p, d.LeaderEpoch, d.HighWatermark, id, state.ISR, len(other.entries))
		}
	}
}

// lookAtFollower: what is below a follower's high watermark is shown to readers, too.
func (c *checker) lookAtFollower(p *partitionTruth, b *broker, m *mirror, hw int) {
	if p.doomed || b.wiped {
		return
	}
	if hw > len(m.entries) && !c.harmed(b) && !b.failed {
		c.w.fail("hw-beyond-log", "follower %d of %v has high watermark %d and %d records", b.id, p, hw, len(m.entries))
	}
	if hw = min(hw, len(m.entries)); hw == 0 {
		return
	}
	if slices.ContainsFunc(p.replicas, func(id cluster.BrokerID) bool { return c.w.brokers[id-1].harmed }) {
		return // a leader whose log cannot be read here may have committed them
	}
	if hw > len(p.ledger) || m.entries[hw-1].chain != p.ledger[hw-1].chain {
		c.w.fail("hw-beyond-commit", "follower %d of %v has high watermark %d; %d records are committed, and not all of its below that", b.id, p, hw, len(p.ledger))
	}
}

// noteCommitted enters into the ledger what a leader's high watermark says.
func (c *checker) noteCommitted(p *partitionTruth, b *broker, m *mirror, hw int) {
	if hw > len(m.entries) {
		if c.harmed(b) || b.failed {
			m, hw = p.better(m, hw)
		} else {
			c.w.fail("hw-beyond-isr", "leader %d of %v has high watermark %d and %d records", b.id, p, hw, len(m.entries))
		}
	}
	common := min(hw, len(p.ledger))
	if common > 0 && m.entries[common-1].chain != p.ledger[common-1].chain {
		c.w.fail("committed-lost", "leader %d of %v has other committed records below %d than were committed before", b.id, p, common)
	}
	if hw > len(p.ledger) {
		p.ledger = append(p.ledger, m.entries[len(p.ledger):hw]...)
		if !p.data {
			c.groups.committed(p)
		}
	}
}

// better finds a replica that has what another one cannot show any more, or else how much that
// one can show.
func (p *partitionTruth) better(m *mirror, hw int) (*mirror, int) {
	n := len(m.entries)
	for _, other := range p.mirrors {
		if other != nil && len(other.entries) >= hw && (n == 0 || other.entries[n-1].chain == m.entries[n-1].chain) {
			return other, hw
		}
	}
	return m, n
}

// holds reports whether a replica has everything committed.
func (p *partitionTruth) holds(id cluster.BrokerID) bool {
	m, n := p.mirror(id), len(p.ledger)
	return n == 0 || len(m.entries) >= n && m.entries[n-1].chain == p.ledger[n-1].chain
}

// treeChanged looks at the nodes that an entry has changed.
func (c *checker) treeChanged(events []znode.Event) {
	for _, event := range events {
		if event.Type == jute.EventChildrenChanged {
			continue
		}
		if topic, ok := registry.TopicOfPath(event.Path); ok {
			if event.Type == jute.EventDeleted {
				c.topicGone(topic)
			} else {
				c.assignmentWritten(topic, event.Path)
			}
		}
		if topic, ok := strings.CutPrefix(event.Path, registry.PathDeleteTopics+"/"); ok && event.Type != jute.EventDeleted {
			c.each(topic, func(p *partitionTruth) { p.doomed = true })
		}
	}
	for _, p := range c.parts {
		if p.gone {
			continue
		}
		path := registry.StatePath(p.tp)
		for _, event := range events {
			if event.Path == path && event.Type != jute.EventChildrenChanged && event.Type != jute.EventDeleted {
				c.stateWritten(p, path)
				break
			}
		}
	}
}

// each does something for the partitions of the topic that has this name now.
func (c *checker) each(topic string, do func(*partitionTruth)) {
	for _, p := range c.parts {
		if p.tp.Topic == topic && !p.gone {
			do(p)
		}
	}
}

func (c *checker) topicGone(topic string) {
	c.w.trace("deleted", "topic %s", topic)
	c.each(topic, func(p *partitionTruth) {
		if !p.doomed {
			c.w.fail("state-node", "the nodes of %v are deleted; nobody asked for it", p)
		}
		p.gone = true
		delete(c.live, p.tp)
	})
}

func (c *checker) nodeAt(path string) (data []byte, stat jute.Stat) {
	body := jute.AppendBool(jute.AppendString(nil, path), false)
	reply, code, _ := c.w.coordinator.machine.HandleRead(jute.OpGetData, body, openAuth, 0)
	if code != jute.OK {
		c.w.fail("state-node", "%s cannot be read: %v", path, code)
	}
	d := jute.NewDecoder(reply)
	data = slices.Clone(d.BufferView())
	stat.Decode(&d)
	return data, stat
}

func (c *checker) assignmentWritten(topic, path string) {
	data, _ := c.nodeAt(path)
	assignment, err := registry.DecodeTopic(topic, data)
	if err != nil {
		c.w.fail("state-node", "%v", err)
	}
	c.w.trace("assigned", "%s %s", topic, data)
	for number := range int32(len(assignment.Partitions)) {
		at := assignment.Partitions[number]
		tp := cluster.TopicPartition{Topic: topic, Partition: number}
		p := c.live[tp]
		if p == nil {
			p = c.newPart(tp, assignment.ID)
		}
		if p.id != assignment.ID {
			c.w.fail("state-node", "%s changes the topic's id from %v to %v", path, p.id, assignment.ID)
		}
		c.reassigned(p, &at)
		p.replicas, p.moving = at.Replicas, at.Reassigning()
	}
}

// reassigned follows a reassignment from its beginning to its end.
func (c *checker) reassigned(p *partitionTruth, at *registry.Assignment) {
	target := at.Target()
	same := p.moving && slices.Equal(target, p.target)
	if same && !at.Reassigning() && !p.doomed {
		for _, id := range target {
			if !p.joined[id] {
				c.w.fail("reassignment-early", "the reassignment of %v to %v ends, and %d has not been in sync since it began", p, target, id)
			}
		}
	}
	if !same {
		p.target, p.joined = slices.Clone(target), map[cluster.BrokerID]bool{}
		if state := p.state(); state != nil {
			p.join(state.ISR)
		}
	}
}

// join notes who is in sync during a reassignment.
func (p *partitionTruth) join(isr []cluster.BrokerID) {
	for _, id := range isr {
		if p.joined != nil {
			p.joined[id] = true
		}
	}
}

func (c *checker) stateWritten(p *partitionTruth, path string) {
	data, stat := c.nodeAt(path)
	state, err := registry.DecodePartitionState(p.tp, data, stat.Version)
	if err != nil {
		c.w.fail("state-node", "%v", err)
	}
	c.w.trace("state", "%v: %s version %d", p, data, stat.Version)
	before := p.state()
	switch {
	case c.writer == nil || c.writer.Epoch != c.epoch || state.ControllerEpoch != c.epoch:
		c.w.fail("isr-by-controller", "%s was written by %+v as of controller epoch %d; the controller's epoch is %d", path, c.writer, state.ControllerEpoch, c.epoch)
	case int(stat.Version) != len(p.states):
		c.w.fail("state-node", "%s has version %d after %d writes", path, stat.Version, len(p.states))
	case len(state.ISR) == 0 || state.Leader >= 0 && !slices.Contains(state.ISR, state.Leader):
		c.w.fail("state-node", "%s: leader %d is not in the ISR %v", path, state.Leader, state.ISR)
	case before != nil && (state.LeaderEpoch < before.LeaderEpoch || state.Leader != before.Leader && state.LeaderEpoch == before.LeaderEpoch):
		c.w.fail("state-node", "%s: from leader %d epoch %d to leader %d epoch %d", path, before.Leader, before.LeaderEpoch, state.Leader, state.LeaderEpoch)
	}
	p.join(state.ISR)
	for _, id := range state.ISR {
		if p.doomed {
			break
		}
		if b := c.w.brokers[id-1]; b.powerLost >= c.believed[id] && !p.holds(id) {
			// It was taken in while it had everything, and has lost its power since. That is
			// as if it had lost it a moment later, in the ISR.
			b.wiped = b.wiped || !c.w.config.durable
		}
		if !slices.Contains(p.replicas, id) {
			c.w.fail("state-node", "%s: %d of the ISR %v is not assigned %v", path, id, state.ISR, p.replicas)
		}
		if !c.w.brokers[id-1].wiped && !c.w.brokers[id-1].harmed && !p.holds(id) {
			if !slices.ContainsFunc(p.replicas, p.holds) && slices.ContainsFunc(p.replicas, func(other cluster.BrokerID) bool { return c.w.brokers[other-1].wiped }) {
				panic(beyondModel{}) // the only one in sync lost its power
			}
			c.w.fail("committed-lost", "%s: broker %d comes into the ISR %v (leader %d, epoch %d) and does not have all of %d committed records", path, id, state.ISR, state.Leader, state.LeaderEpoch, len(p.ledger))
		}
	}
	if !p.doomed && state.Leader >= 1 && c.w.brokers[state.Leader-1].wiped && !c.w.brokers[state.Leader-1].harmed && (before == nil || before.Leader != state.Leader) && !p.holds(state.Leader) {
		if !slices.ContainsFunc(p.replicas, func(id cluster.BrokerID) bool { return p.holds(id) && c.w.brokers[id-1].registered }) {
			panic(beyondModel{}) // nobody has them any more, or who has them is away for longer than the patience
		}
		c.w.fail("committed-lost", "%s: broker %d is elected and has lost committed records with its power", path, state.Leader)
	}
	if !p.doomed && !slices.ContainsFunc(state.ISR, func(id cluster.BrokerID) bool { return !c.w.brokers[id-1].wiped }) {
		panic(beyondModel{})
	}
	state.PartitionEpoch = cluster.PartitionEpoch(stat.Version)
	p.states = append(p.states, state)
}

func (c *checker) controllerElected(b *broker, fence registry.Fence) {
	if fence.Epoch <= c.epoch {
		c.w.fail("isr-by-controller", "broker %d is elected controller in epoch %d after %d", b.id, fence.Epoch, c.epoch)
	}
	c.epoch = fence.Epoch
	c.w.trace("elected", "broker %d controller, epoch %d", b.id, fence.Epoch)
}

func (c *checker) sessionEnded(id jute.SessionID) {
	if left := c.w.coordinator.machine.Ephemerals(id, "/"); len(left) > 0 {
		c.w.fail("session-life", "session 0x%x has ended and left %v", id, left)
	}
}

// started: what the disk has is read with the first step; a log shorter than before a kill
// has lost what the page cache keeps.
func (c *checker) started(b *broker) {
	for _, p := range c.parts {
		m := p.mirror(b.id)
		log := p.logOf(b)
		end := 0
		if log != nil {
			end = int(log.EndOffset())
		}
		if state := p.state(); !b.wiped && !b.harmed && !p.doomed && end < len(m.entries) && end < len(p.ledger) && state != nil && slices.Contains(state.ISR, b.id) {
			c.w.fail("committed-lost", "broker %d was killed with %d records of %v, %d committed, and finds %d", b.id, len(m.entries), p, len(p.ledger), end)
		}
		// Everything is read again: what recovery made of the files is to be seen.
		p.mirrors[b.id] = newMirror()
		p.mirrors[b.id].led = -1
		if log != nil && log.Failed() == nil {
			c.refresh(p, b, log)
			c.lookInside(p, b, log, p.mirror(b.id))
		}
	}
	c.settleWiped(b)
}

// settleWiped: what a broker lost with its power matters no more when every partition that counts
// it in sync has its committed records there.
func (c *checker) settleWiped(b *broker) {
	if b.wiped && !slices.ContainsFunc(c.parts, func(p *partitionTruth) bool {
		return p.state() != nil && !p.doomed && slices.Contains(p.state().ISR, b.id) && !p.holds(b.id)
	}) {
		b.wiped = false
	}
}

func (c *checker) died(b *broker) {
	for _, p := range c.parts {
		p.mirror(b.id).led = -1
	}
}

// counted: a broker is in the ISR of some partition, one that has a leader if so asked: that
// relies on what the broker has.
func (c *checker) counted(id cluster.BrokerID, byLeader bool) bool {
	return slices.ContainsFunc(c.parts, func(p *partitionTruth) bool {
		state := p.state()
		return state != nil && !p.doomed && (state.Leader >= 0 || !byLeader) && slices.Contains(state.ISR, id)
	})
}

// fragile: a broker that has lost its power is still in an ISR. Until it is out nothing else
// goes wrong: Kafka's default durability does not stand two such failures.
func (c *checker) fragile() bool {
	return c.anyHarmed() || slices.ContainsFunc(c.w.brokers, func(b *broker) bool { return b.wiped && c.counted(b.id, false) })
}

// anyHarmed: some broker's files are damaged and not whole again.
func (c *checker) anyHarmed() bool {
	return slices.ContainsFunc(c.w.brokers, (*broker).spoiled)
}

// mayLosePower: nothing that counts can be lost with the broker's power.
func (c *checker) mayLosePower(b *broker) bool { return c.w.config.durable || c.mayBeDamaged(b) }

// mayBeDamaged: another member of each ISR that the broker is in has everything, is up and will
// stay so.
func (c *checker) mayBeDamaged(b *broker) bool {
	if c.fragile() || c.w.coordinator.sessions[b.session] == nil && b.session != 0 {
		return false
	}
	for _, p := range c.parts {
		state := p.state()
		if p.doomed {
			continue
		}
		if state == nil {
			return false
		}
		if !slices.Contains(state.ISR, b.id) {
			continue
		}
		if !slices.ContainsFunc(state.ISR, func(id cluster.BrokerID) bool {
			other := c.w.brokers[id-1]
			return other != b && other.registered && !other.failed && !other.harmed && !other.diskFault.badSync && !other.paused && !other.expired && !other.wiped && p.holds(id) && !c.w.network.isolated(node(id))
		}) {
			return false
		}
	}
	return true
}

// mayBeChosen: a partition has no leader, and the furthest log may be the broker's, also if it is
// not in the ISR. The controller has perhaps decided so already.
func (c *checker) mayBeChosen(b *broker) bool {
	return slices.ContainsFunc(c.parts, func(p *partitionTruth) bool {
		return !p.doomed && p.state() != nil && p.state().Leader < 0 && slices.Contains(p.replicas, b.id)
	})
}

// ackLeaves checks a broker's right at the moment it acknowledges.
func (c *checker) ackLeaves(b *broker, tp cluster.TopicPartition) {
	if b.failed {
		c.w.fail("ack-without-right", "broker %d acknowledges for %v after it has given its disk up", b.id, tp)
	}
	if b.lossSeen && b.named[tp] <= b.lostEpoch {
		c.w.fail("ack-without-right", "broker %d acknowledges for %v; it knows that its session is lost and was not named leader since", b.id, tp)
	}
	if b.unconfirmed {
		c.w.fail("ack-without-right", "broker %d acknowledges for %v after a pause, before its session is confirmed", b.id, tp)
	}
}

// acknowledged: the records of a batch are committed from an offset on, in the topic of that
// name that the broker had when it said so.
func (c *checker) acknowledged(client *client, b *batch, by cluster.BrokerID, id cluster.TopicID, first cluster.Offset) {
	p := c.partOf(client.tp, id)
	if p == nil {
		c.w.fail("ack-uncommitted", "broker %d acknowledged %v for a topic %v that there has never been", by, b.values, id)
	}
	if p.doomed || c.w.brokers[by-1].harmed { // what it has appended behind damage cannot be read yet
		return
	}
	c.w.trace("acked", "client %d batch %d by broker %d at %d", client.node, b.sequence, by, first)
	for i, value := range b.values {
		at := int(first) + i
		if at >= len(p.ledger) || at < 0 {
			c.w.fail("ack-uncommitted", "%s was acknowledged by broker %d at %d; %d records are committed", value, by, at, len(p.ledger))
		}
		if p.ledger[at].value != value {
			c.w.fail("ack-uncommitted", "%s was acknowledged by broker %d at %d, where %s is committed", value, by, at, p.ledger[at].value)
		}
	}
}

// producerRefused judges a refusal after which a producer cannot go on. It is right where an
// old attempt, late on a former connection, has overtaken an earlier batch.
func (c *checker) producerRefused(client *client, b *batch, by cluster.BrokerID, err error) {
	p := c.live[client.tp]
	if p == nil || p.doomed {
		client.stuck = true
		return
	}
	m := p.mirror(by)
	values := b.values
	if _, stored := m.places[values[0]]; !stored {
		last := ""
		for i := len(m.entries) - 1; i >= 0 && last == ""; i-- {
			if ownerOf(m.entries[i].value) == int(client.node) {
				last = m.entries[i].value
			}
		}
		if last == "" || serialOf(last)+1 == serialOf(values[0]) {
			c.w.fail("producer-forgotten", "broker %d refuses batch %d of client %d (%v), whose last record there is %q: %v", by, b.sequence, client.node, values, last, err)
		}
	}
	c.w.trace("stuck", "client %d batch %d: %v", client.node, b.sequence, err)
	client.stuck = true
}

// wasRead: a reader was shown a record, of the topic that the broker had then.
func (c *checker) wasRead(tp cluster.TopicPartition, id cluster.TopicID, from cluster.BrokerID, offset cluster.Offset, value string) {
	p := c.partOf(tp, id)
	if p == nil {
		c.w.fail("reader-goes-on", "broker %d showed %s at offset %d of %v for a topic %v that there has never been", from, value, offset, tp, id)
	}
	if !p.doomed && (int(offset) >= len(p.ledger) || p.ledger[offset].value != value) {
		c.w.fail("reader-goes-on", "broker %d showed %s at offset %d of %v, which is not committed there", from, value, offset, tp)
	}
}

// settled: nothing is left to do after the faults are over.
func (w *world) settled() bool {
	for _, client := range w.clients {
		p := w.check.live[client.tp]
		if p == nil {
			continue
		}
		if client.producer && !client.stuck && len(client.window) > 0 {
			return false
		}
		if !client.producer && int(client.position) < len(p.ledger) {
			return false
		}
	}
	for _, p := range w.check.parts {
		if p.gone {
			continue
		}
		state := p.state()
		if state == nil || state.Leader < 1 || len(state.ISR) != len(p.replicas) || p.moving || p.doomed {
			return false
		}
		length := len(p.mirror(state.Leader).entries)
		if length != len(p.ledger) {
			return false
		}
		for _, id := range p.replicas {
			if b := w.brokers[id-1]; !b.registered || b.paused || b.spoiled() || len(p.mirror(id).entries) != length {
				return false
			}
			// A follower that does not hear of it shows its readers less than there is.
			if d, _ := w.brokers[id-1].rep.Describe(p.tp); int(d.HighWatermark) != length {
				return false
			}
		}
	}
	return w.members == nil || w.check.groups.settled()
}

// final is the look at the end, when the faults are over and everything had time.
func (c *checker) final() {
	c.w.coordinator.compare()
	if !c.w.settled() {
		for _, p := range c.parts {
			for _, b := range c.w.brokers {
				if b.rep != nil {
					d, _ := b.rep.Describe(p.tp)
					image := b.meta.Image()
					c.w.trace("stuck", "broker %d: registered %v, controller %v (knows %d, queue %d, busy %v), sees %v, %+v", b.id, b.registered, b.control.core != nil,
						image.ControllerID(), len(b.control.queue), b.control.busy, image.Brokers(), d)
				}
			}
			c.w.trace("stuck", "%v (doomed %v, gone %v): %+v, %d committed", p, p.doomed, p.gone, p.state(), len(p.ledger))
		}
		for _, client := range c.w.clients {
			c.w.trace("stuck", "client %d: leader %d epoch %d window %d position %d waiting %v", client.node, client.leader, client.epoch, len(client.window), client.position, client.waiting)
		}
		c.w.fail("no-convergence", "20 s after the last fault something is still missing (the trace says what)")
	}
	for _, p := range c.parts {
		if p.gone {
			continue
		}
		for _, id := range p.replicas {
			if !p.holds(id) {
				c.w.fail("committed-lost", "broker %d does not have all of %v in the end", id, p)
			}
			b := c.w.brokers[id-1]
			c.lookInside(p, b, p.logOf(b), p.mirror(id))
		}
	}
}
