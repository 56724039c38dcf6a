package main

import (
	"slices"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/znode"
	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/commitlog"
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
//	hw-goes-back           nor does it go back while the leader leads
//	isr-by-controller      state nodes are written by the present controller alone, and a
//	                       leader's ISR is one that was written
//	state-node             leader in the ISR, epochs that grow, ISR within the assignment
//	ack-uncommitted        an acknowledgement is for records that are committed, at that place
//	ack-without-right      no acknowledgement leaves a broker that knows its session to be
//	                       gone, or was paused, until it is confirmed
//	duplicate              no record is in a log twice
//	producer-forgotten     a leader that has a producer's last batch takes the next
//	reader-goes-on         a reader gets every committed record, once, in order; and no end
//	latest-goes-back       that goes back
//	identical-state        two machines with the same entries are the same, also by snapshot
//	session-life           an ended session leaves no ephemeral node
//	no-convergence         without faults everything gets in sync and acknowledged in the end
type checker struct {
	w      *world
	parts  []*partitionTruth
	writer *registry.Fence // whose write is being applied; nil: nobody's with a fence
	epoch  cluster.ControllerEpoch
}

// partitionTruth is what is true of a partition, whoever knows it.
type partitionTruth struct {
	number   int
	replicas []cluster.BrokerID
	moving   bool                     // a reassignment is in progress
	states   []cluster.PartitionState // by partition epoch
	ledger   []entry                  // committed records
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
	known   bool
	led     int // incarnation in which it was seen leading without a break
	hw      cluster.Offset
}

func newChecker(w *world) *checker {
	c := &checker{w: w}
	for p := range w.config.partitions {
		c.parts = append(c.parts, &partitionTruth{
			number: p, leaders: map[cluster.LeaderEpoch]cluster.BrokerID{}, chains: map[place]uint64{},
			mirrors: make([]*mirror, w.config.brokers+1),
		})
	}
	return c
}

func (p *partitionTruth) state() *cluster.PartitionState {
	if len(p.states) == 0 {
		return nil
	}
	return &p.states[len(p.states)-1]
}

func (p *partitionTruth) mirror(id cluster.BrokerID) *mirror {
	if p.mirrors[id] == nil {
		p.mirrors[id] = &mirror{places: map[string]int{}}
	}
	return p.mirrors[id]
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
		log := b.logs.Get(tpOf(p.number))
		if log == nil {
			if m := p.mirror(b.id); len(m.entries) > 0 {
				c.deleted(p, b, m)
			}
			continue
		}
		c.refresh(p, b, log)
		c.lookAtLeader(p, b)
	}
}

// deleted: the controller had a replica removed.
func (c *checker) deleted(p *partitionTruth, b *broker, m *mirror) {
	c.w.trace("deleted", "broker %d partition %d with %d records", b.id, p.number, len(m.entries))
	if state := p.state(); !b.wiped && slices.Contains(state.ISR, b.id) {
		c.w.fail("committed-lost", "broker %d is in the ISR %v of partition %d and its log is deleted", b.id, state.ISR, p.number)
	}
	m.entries, m.places, m.led = nil, map[string]int{}, -1
}

// refresh brings the mirror up to the log.
func (c *checker) refresh(p *partitionTruth, b *broker, log *commitlog.Log) {
	m := p.mirror(b.id)
	end := int(log.EndOffset())
	if end < len(m.entries) {
		c.w.trace("truncated", "broker %d partition %d from %d to %d", b.id, p.number, len(m.entries), end)
		if state := p.state(); end < len(p.ledger) && !b.wiped && state != nil && slices.Contains(state.ISR, b.id) {
			c.w.fail("committed-lost", "broker %d is in the ISR %v of partition %d and cut its log to %d; %d records are committed", b.id, state.ISR, p.number, end, len(p.ledger))
		}
		for _, e := range m.entries[end:] {
			delete(m.places, e.value)
		}
		m.entries = m.entries[:end]
	}
	for len(m.entries) < end {
		from := cluster.Offset(len(m.entries))
		slice, err := log.Read(from, 1<<20, cluster.Offset(end), true)
		if err != nil {
			c.w.fail("read", "broker %d partition %d at %d: %v", b.id, p.number, from, err)
		}
		data, err := slice.ReadAll()
		if err != nil {
			c.w.fail("read", "broker %d partition %d at %d: %v", b.id, p.number, from, err)
		}
		for found, err := range record.All(data) {
			if err != nil {
				c.w.fail("read", "broker %d partition %d at %d: %v", b.id, p.number, from, err)
			}
			for r, err := range found.Records(1 << 20) {
				if err != nil {
					c.w.fail("read", "broker %d partition %d at %d: %v", b.id, p.number, r.Offset, err)
				}
				if int(r.Offset) >= len(m.entries) {
					c.noteRecord(p, b, m, r.Offset, found.LeaderEpoch(), string(r.Value))
				}
			}
		}
		_ = slice.Close()
		if cluster.Offset(len(m.entries)) == from {
			c.w.fail("read", "broker %d partition %d: nothing at %d below the end %d", b.id, p.number, from, end)
		}
	}
	m.known = true
}

func (c *checker) noteRecord(p *partitionTruth, b *broker, m *mirror, offset cluster.Offset, epoch cluster.LeaderEpoch, value string) {
	if int(offset) != len(m.entries) {
		c.w.fail("log-matching", "broker %d partition %d has offset %d after %d records", b.id, p.number, offset, len(m.entries))
	}
	before := uint64(14695981039346656037)
	if offset > 0 {
		before = m.entries[offset-1].chain
	}
	chain := chainOf(before, epoch, value)
	key := place{offset, epoch}
	if known, seen := p.chains[key]; seen && known != chain {
		c.w.fail("log-matching", "broker %d partition %d: the log up to offset %d of epoch %d (%s) differs from another one's", b.id, p.number, offset, epoch, value)
	}
	p.chains[key] = chain
	if at, twice := m.places[value]; twice {
		c.w.fail("duplicate", "broker %d partition %d has %s at %d and at %d", b.id, p.number, value, at, offset)
	}
	m.places[value] = int(offset)
	m.entries = append(m.entries, entry{epoch, value, chain})
}

// lookAtLeader checks a replica that leads.
func (c *checker) lookAtLeader(p *partitionTruth, b *broker) {
	d, hosted := b.rep.Describe(tpOf(p.number))
	m := p.mirror(b.id)
	if !hosted || !d.IsLeader {
		m.led = -1
		return
	}
	if other, seen := p.leaders[d.LeaderEpoch]; seen && other != b.id {
		c.w.fail("one-leader-per-epoch", "brokers %d and %d lead partition %d in epoch %d", other, b.id, p.number, d.LeaderEpoch)
	}
	p.leaders[d.LeaderEpoch] = b.id
	if m.led == b.incarnation && d.HighWatermark < m.hw {
		c.w.fail("hw-goes-back", "leader %d of partition %d, epoch %d: from %d to %d", b.id, p.number, d.LeaderEpoch, m.hw, d.HighWatermark)
	}
	m.led, m.hw = b.incarnation, d.HighWatermark
	if int(d.PartitionEpoch) >= len(p.states) || d.PartitionEpoch < 0 {
		c.w.fail("isr-by-controller", "leader %d of partition %d has partition epoch %d, which was never written", b.id, p.number, d.PartitionEpoch)
	}
	if written := p.states[d.PartitionEpoch]; !slices.Equal(written.ISR, d.ISR) {
		c.w.fail("isr-by-controller", "leader %d of partition %d has ISR %v at partition epoch %d; written was %v", b.id, p.number, d.ISR, d.PartitionEpoch, written.ISR)
	}
	c.noteCommitted(p, b, m, int(d.HighWatermark))
	state := p.state()
	if state.Leader != b.id || state.LeaderEpoch != d.LeaderEpoch {
		return
	}
	for _, id := range state.ISR {
		other := p.mirror(id)
		if c.w.brokers[id-1].wiped || d.HighWatermark == 0 {
			continue
		}
		if len(other.entries) < int(d.HighWatermark) || other.entries[d.HighWatermark-1].chain != m.entries[d.HighWatermark-1].chain {
			c.w.fail("hw-beyond-isr", "leader %d of partition %d, epoch %d, has high watermark %d; broker %d of the ISR %v has %d records", b.id, p.number, d.LeaderEpoch, d.HighWatermark, id, state.ISR, len(other.entries))
		}
	}
}

// noteCommitted enters into the ledger what a leader's high watermark says.
func (c *checker) noteCommitted(p *partitionTruth, b *broker, m *mirror, hw int) {
	if hw > len(m.entries) {
		c.w.fail("hw-beyond-isr", "leader %d of partition %d has high watermark %d and %d records", b.id, p.number, hw, len(m.entries))
	}
	common := min(hw, len(p.ledger))
	if common > 0 && m.entries[common-1].chain != p.ledger[common-1].chain {
		c.w.fail("committed-lost", "leader %d of partition %d has other committed records below %d than were committed before", b.id, p.number, common)
	}
	if hw > len(p.ledger) {
		p.ledger = append(p.ledger, m.entries[len(p.ledger):hw]...)
	}
}

// holds reports whether a replica has everything committed.
func (p *partitionTruth) holds(id cluster.BrokerID) bool {
	m, n := p.mirror(id), len(p.ledger)
	return n == 0 || len(m.entries) >= n && m.entries[n-1].chain == p.ledger[n-1].chain
}

// treeChanged looks at the state nodes that an entry has changed.
func (c *checker) treeChanged(events []znode.Event) {
	for _, event := range events {
		if event.Path == registry.TopicPath(topic) && event.Type != jute.EventChildrenChanged {
			c.assignmentWritten(event.Path)
		}
	}
	for _, p := range c.parts {
		path := registry.StatePath(tpOf(p.number))
		for _, event := range events {
			if event.Path == path && event.Type != jute.EventChildrenChanged {
				c.stateWritten(p, path)
				break
			}
		}
	}
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

func (c *checker) assignmentWritten(path string) {
	data, _ := c.nodeAt(path)
	assignment, err := registry.DecodeTopic(topic, data)
	if err != nil {
		c.w.fail("state-node", "%v", err)
	}
	c.w.trace("assigned", "%s", data)
	for _, p := range c.parts {
		at := assignment.Partitions[int32(p.number)]
		p.replicas, p.moving = at.Replicas, at.Reassigning()
	}
}

func (c *checker) stateWritten(p *partitionTruth, path string) {
	data, stat := c.nodeAt(path)
	state, err := registry.DecodePartitionState(tpOf(p.number), data, stat.Version)
	if err != nil {
		c.w.fail("state-node", "%v", err)
	}
	c.w.trace("state", "partition %d: %s version %d", p.number, data, stat.Version)
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
	for _, id := range state.ISR {
		if !slices.Contains(p.replicas, id) {
			c.w.fail("state-node", "%s: %d of the ISR %v is not assigned %v", path, id, state.ISR, p.replicas)
		}
		if !c.w.brokers[id-1].wiped && !p.holds(id) {
			c.w.fail("committed-lost", "%s: broker %d comes into the ISR %v (leader %d, epoch %d) and does not have all of %d committed records", path, id, state.ISR, state.Leader, state.LeaderEpoch, len(p.ledger))
		}
	}
	if state.Leader >= 1 && c.w.brokers[state.Leader-1].wiped && (before == nil || before.Leader != state.Leader) && !p.holds(state.Leader) {
		c.w.fail("committed-lost", "%s: broker %d is elected and has lost committed records with its power", path, state.Leader)
	}
	if !slices.ContainsFunc(state.ISR, func(id cluster.BrokerID) bool { return !c.w.brokers[id-1].wiped }) {
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
		m.led = -1
		log := b.logs.Get(tpOf(p.number))
		end := 0
		if log != nil {
			end = int(log.EndOffset())
		}
		if state := p.state(); !b.wiped && end < len(m.entries) && end < len(p.ledger) && state != nil && slices.Contains(state.ISR, b.id) {
			c.w.fail("committed-lost", "broker %d was killed with %d records of partition %d, %d committed, and finds %d", b.id, len(m.entries), p.number, len(p.ledger), end)
		}
		// Everything is read again: what recovery made of the files is to be seen.
		m.entries, m.places = nil, map[string]int{}
		if log != nil {
			c.refresh(p, b, log)
		}
	}
	b.wiped = false
}

func (c *checker) died(b *broker) {
	for _, p := range c.parts {
		p.mirror(b.id).led = -1
	}
}

func (c *checker) inAnyISR(id cluster.BrokerID) bool {
	return slices.ContainsFunc(c.parts, func(p *partitionTruth) bool {
		return p.state() != nil && slices.Contains(p.state().ISR, id)
	})
}

// fragile: a broker that has lost its power is still in an ISR. Until it is out nothing else
// goes wrong: Kafka's default durability does not stand two such failures.
func (c *checker) fragile() bool {
	return slices.ContainsFunc(c.w.brokers, func(b *broker) bool { return b.wiped && c.inAnyISR(b.id) })
}

// mayLosePower: another member of each ISR has everything, is up and will stay so.
func (c *checker) mayLosePower(b *broker) bool {
	if c.w.config.durable {
		return true
	}
	if c.fragile() || c.w.coordinator.sessions[b.session] == nil && b.session != 0 {
		return false
	}
	for _, p := range c.parts {
		state := p.state()
		if state == nil {
			return false
		}
		if !slices.Contains(state.ISR, b.id) {
			continue
		}
		if !slices.ContainsFunc(state.ISR, func(id cluster.BrokerID) bool {
			other := c.w.brokers[id-1]
			return other != b && other.registered && !other.paused && !other.expired && !other.wiped && p.holds(id) && !c.w.network.isolated(node(id))
		}) {
			return false
		}
	}
	return true
}

// ackLeaves checks a broker's right at the moment it acknowledges.
func (c *checker) ackLeaves(b *broker, partition int) {
	if b.lossSeen && b.named[tpOf(partition)] <= b.lostEpoch {
		c.w.fail("ack-without-right", "broker %d acknowledges for partition %d; it knows that its session is lost and was not named leader since", b.id, partition)
	}
	if b.unconfirmed {
		c.w.fail("ack-without-right", "broker %d acknowledges for partition %d after a pause, before its session is confirmed", b.id, partition)
	}
}

func (c *checker) acknowledged(client *client, b *batch, by cluster.BrokerID, info commitlog.AppendInfo) {
	p := c.parts[client.partition]
	c.w.trace("acked", "client %d batch %d by broker %d at %d (duplicate %v)", client.node, b.sequence, by, info.First, info.Duplicate)
	for i, value := range b.values {
		at := int(info.First) + i
		if at >= len(p.ledger) {
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
	p := c.parts[client.partition]
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

func (c *checker) wasRead(client *client, from cluster.BrokerID, offset cluster.Offset, value string) {
	p := c.parts[client.partition]
	if int(offset) >= len(p.ledger) || p.ledger[offset].value != value {
		c.w.fail("reader-goes-on", "broker %d showed %s at offset %d of partition %d, which is not committed there", from, value, offset, client.partition)
	}
}

// settled: nothing is left to do after the faults are over.
func (w *world) settled() bool {
	for _, client := range w.clients {
		if client.producer && !client.stuck && len(client.window) > 0 {
			return false
		}
		if !client.producer && int(client.position) < len(w.check.parts[client.partition].ledger) {
			return false
		}
	}
	for _, p := range w.check.parts {
		state := p.state()
		if state == nil || state.Leader < 1 || len(state.ISR) != len(p.replicas) || p.moving {
			return false
		}
		length := len(p.mirror(state.Leader).entries)
		if length != len(p.ledger) {
			return false
		}
		for _, id := range p.replicas {
			if b := w.brokers[id-1]; !b.registered || b.paused || len(p.mirror(id).entries) != length {
				return false
			}
		}
	}
	return true
}

// final is the look at the end, when the faults are over and everything had time.
func (c *checker) final() {
	c.w.coordinator.compare()
	if !c.w.settled() {
		for _, p := range c.parts {
			for _, b := range c.w.brokers {
				if b.rep != nil {
					d, _ := b.rep.Describe(tpOf(p.number))
					image := b.meta.Image()
					c.w.trace("stuck", "broker %d: registered %v, controller %v (knows %d, queue %d, busy %v), sees %v, %+v", b.id, b.registered, b.control.core != nil,
						image.ControllerID(), len(b.control.queue), b.control.busy, image.Brokers(), d)
				}
			}
			c.w.trace("stuck", "partition %d: %+v, %d committed", p.number, p.state(), len(p.ledger))
		}
		for _, client := range c.w.clients {
			c.w.trace("stuck", "client %d: leader %d epoch %d window %d position %d waiting %v", client.node, client.leader, client.epoch, len(client.window), client.position, client.waiting)
		}
		c.w.fail("no-convergence", "20 s after the last fault something is still missing (the trace says what)")
	}
	for _, p := range c.parts {
		for _, id := range p.replicas {
			if !p.holds(id) {
				c.w.fail("committed-lost", "broker %d does not have all of partition %d in the end", id, p.number)
			}
		}
	}
}
