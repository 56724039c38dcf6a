package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/group"
	"understudy/internal/streaming/group/classic"
	"understudy/internal/streaming/record"
)

// groupTruth is what is true of the groups: what their partition's committed records say, and
// what was answered. One partition holds them all.
type groupTruth struct {
	c        *checker
	seen     int                                       // committed records taken in
	offsets  map[offsetKey]*offsetPast                 // by group and partition
	metas    map[string][]groupMeta                    // committed metadata, by group
	joined   map[term]map[string]joined                // the last generation that a coordinator gave out
	owners   map[ownership]string                      // who was given a partition
	fenced   map[string]int32                          // member ids of static members that were started anew since: in which generation
	static   map[string]string                         // by group and instance, the member id given out last
	consumed map[cluster.TopicPartition]cluster.Offset // by the group's members, without a gap
}

type offsetKey struct {
	group string
	tp    cluster.TopicPartition
}

// offsetPast are the committed commits and deletions of one partition's offset, in order.
type offsetPast struct {
	at    []int // in the ledger
	ids   []int // of the commit; 0: a tombstone
	acked int   // place in the ledger of the latest that was acknowledged, -1: none
	since time.Duration
	until time.Duration // when the acknowledged one may expire; 0: never
}

// groupMeta is a group's committed metadata record.
type groupMeta struct {
	at         int
	generation int32 // -1: the group was deleted
}

// term is a coordinator's time in office.
type term struct {
	broker      cluster.BrokerID
	incarnation int
	epoch       cluster.LeaderEpoch
}

type ownership struct {
	group      string
	life       int // of the group: it may be deleted and come again
	generation int32
	tp         cluster.TopicPartition
}

func newGroupTruth(c *checker) *groupTruth {
	return &groupTruth{
		c: c, offsets: map[offsetKey]*offsetPast{}, metas: map[string][]groupMeta{}, joined: map[term]map[string]joined{},
		owners: map[ownership]string{}, fenced: map[string]int32{}, static: map[string]string{}, consumed: map[cluster.TopicPartition]cluster.Offset{},
	}
}

var offsetsPartition = cluster.TopicPartition{Topic: group.Topic}

// describeGroupRecord makes a group coordinator's record readable:
//
//	offset GROUP TOPIC PARTITION OFFSET ID, deleted GROUP TOPIC PARTITION,
//	group GROUP GENERATION, gone GROUP
func describeGroupRecord(r *record.Record) string {
	key, err := classic.DecodeKey(r.Key)
	switch {
	case err != nil:
		return "unreadable"
	case key.Kind == classic.GroupKey && r.Value == nil:
		return "gone " + key.Group
	case key.Kind == classic.GroupKey:
		meta, err := classic.DecodeGroup(r.Value)
		if err != nil {
			return "unreadable"
		}
		return fmt.Sprintf("group %s %d", key.Group, meta.Generation)
	case r.Value == nil:
		return fmt.Sprintf("deleted %s %s %d", key.Group, key.Topic, key.Partition)
	default:
		offset, err := classic.DecodeOffset(r.Value)
		if err != nil {
			return "unreadable"
		}
		return fmt.Sprintf("offset %s %s %d %d %s", key.Group, key.Topic, key.Partition, offset.Offset, offset.Metadata)
	}
}

func (g *groupTruth) past(key offsetKey) *offsetPast {
	if g.offsets[key] == nil {
		g.offsets[key] = &offsetPast{acked: -1}
	}
	return g.offsets[key]
}

// committed takes in what has been committed of the coordinator's records.
func (g *groupTruth) committed(p *partitionTruth) {
	for ; g.seen < len(p.ledger); g.seen++ {
		fields := strings.Fields(p.ledger[g.seen].value)
		number := func(i int) int {
			n, _ := strconv.Atoi(fields[i])
			return n
		}
		switch fields[0] {
		case "offset", "deleted":
			past := g.past(offsetKey{fields[1], cluster.TopicPartition{Topic: fields[2], Partition: int32(number(3))}})
			id := 0
			if fields[0] == "offset" {
				id = number(5)
			}
			past.at, past.ids = append(past.at, g.seen), append(past.ids, id)
		case "group", "gone":
			generation := int32(-1)
			if fields[0] == "group" {
				generation = int32(number(2))
			}
			metas := g.metas[fields[1]]
			if n := len(metas); n > 0 && generation >= 0 && generation < metas[n-1].generation {
				g.c.w.fail("generation-goes-back", "group %s: generation %d is committed at %d after %d", fields[1], generation, g.seen, metas[n-1].generation)
			}
			g.metas[fields[1]] = append(metas, groupMeta{g.seen, generation})
		default:
			g.c.w.fail("state-node", "%v has a record at %d that cannot be read", p, g.seen)
		}
	}
}

// peek takes in what a coordinator's log has, in the middle of its step.
func (g *groupTruth) peek(b *broker) {
	p := g.c.live[offsetsPartition]
	if log := p.logOf(b); log != nil && log.Failed() == nil {
		g.c.refresh(p, b, log)
		g.c.lookAtRole(p, b)
	}
}

// termOf is the term in which a broker answers for the groups now; ok is false if it does not
// lead their partition.
func (g *groupTruth) termOf(b *broker) (term, bool) {
	d, hosted := b.rep.Describe(offsetsPartition)
	return term{b.id, b.incarnation, d.LeaderEpoch}, hosted && d.IsLeader
}

// joined is a generation that a coordinator gave out, and where its log ended then. A tombstone
// behind that is the end of the group; the next of its name begins anew.
type joined struct {
	generation int32
	behind     int
}

// joinAnswered: a coordinator gives out a generation.
func (g *groupTruth) joinAnswered(b *broker, name, instance, member string, generation int32) {
	t, ok := g.termOf(b)
	if !ok {
		return // it lost its partition with this very step
	}
	if g.joined[t] == nil {
		g.joined[t] = map[string]joined{}
	}
	g.peek(b)
	entries := g.c.live[offsetsPartition].mirror(b.id).entries
	gone := func(e entry) bool { return e.value == "gone "+name }
	if last := g.joined[t][name]; generation < last.generation && !slices.ContainsFunc(entries[min(last.behind, len(entries)):], gone) {
		g.c.w.fail("generation-goes-back", "group %s: coordinator %d gives out generation %d after %d", name, b.id, generation, last.generation)
	}
	g.joined[t][name] = joined{generation, len(entries)}
	if instance != "" {
		if before := g.static[name+"/"+instance]; before != "" && before != member {
			g.fenced[before] = generation
		}
		g.static[name+"/"+instance] = member
	}
}

// deletedOn says whether a coordinator's log has a tombstone behind a place, committed or not.
func (g *groupTruth) deletedOn(b *broker, key offsetKey, behind int) bool {
	g.peek(b)
	tombstone := fmt.Sprintf("deleted %s %s %d", key.group, key.tp.Topic, key.tp.Partition)
	entries := g.c.live[offsetsPartition].mirror(b.id).entries
	return behind < len(entries) && slices.ContainsFunc(entries[behind:], func(e entry) bool { return e.value == tombstone })
}

// given is the last generation that a coordinator gave out in this term.
func (g *groupTruth) given(b *broker, name string) int32 {
	t, ok := g.termOf(b)
	if !ok {
		return -1
	}
	return g.joined[t][name].generation
}

// syncAnswered: a member is given its partitions.
func (g *groupTruth) syncAnswered(b *broker, name, owner string, generation int32, assigned []cluster.TopicPartition) {
	g.peek(b)
	t, ok := g.termOf(b)
	if !ok {
		return
	}
	if !slices.ContainsFunc(g.metas[name], func(m groupMeta) bool { return m.generation == generation }) {
		// A coordinator goes by all that was in its log when it was elected.
		value := fmt.Sprintf("group %s %d", name, generation)
		p := g.c.live[offsetsPartition]
		if !slices.ContainsFunc(p.mirror(b.id).entries, func(e entry) bool { return e.value == value && e.epoch < t.epoch }) {
			g.c.w.fail("commit-unreplicated", "group %s: coordinator %d gives out the assignment of generation %d, which is not committed", name, b.id, generation)
		}
		return
	}
	life := 0
	for _, meta := range g.metas[name] {
		if meta.generation < 0 {
			life++
		}
	}
	for _, tp := range assigned {
		o := ownership{name, life, generation, tp}
		if before := g.owners[o]; before != "" && before != owner {
			g.c.w.fail("double-owner", "group %s, generation %d: %v belongs to %s and to %s", name, generation, tp, before, owner)
		}
		g.owners[o] = owner
	}
}

// memberServed: a heartbeat or a sync of a generation is answered without an error. given is the
// generation that the coordinator had given out when the request arrived.
func (g *groupTruth) memberServed(b *broker, what string, generation, given int32) {
	if generation < given {
		g.c.w.fail("stale-generation", "coordinator %d takes a %s of generation %d; it had given out generation %d", b.id, what, generation, given)
	}
}

// commitAnswered: a commit is acknowledged. given is the generation that the coordinator had
// given out when the request arrived, fenced whether its sender had been replaced by then.
func (g *groupTruth) commitAnswered(b *broker, c *offsetCommit, given int32, fenced bool) {
	g.peek(b)
	past := g.past(c.key)
	i := slices.Index(past.ids, c.id)
	if i < 0 {
		g.c.w.fail("commit-unreplicated", "group %s: coordinator %d acknowledges offset %d of %v (commit %d), which is not committed", c.key.group, b.id, c.offset, c.key.tp, c.id)
	}
	if c.generation >= 0 {
		newest := int32(0)
		for _, meta := range g.metas[c.key.group] {
			if meta.at < past.at[i] {
				newest = meta.generation
			}
		}
		if newest > c.generation {
			g.c.w.fail("stale-commit", "group %s: commit %d of generation %d stands behind generation %d", c.key.group, c.id, c.generation, newest)
		}
		if c.generation < given || fenced {
			g.c.w.fail("stale-commit", "group %s: coordinator %d takes commit %d of generation %d from %s; it had given out generation %d (member fenced: %v)", c.key.group, b.id, c.id, c.generation, c.member, given, fenced)
		}
	}
	past.note(past.at[i], g.c.w.now, c.until)
	g.c.w.trace("committed", "group %s %v offset %d commit %d", c.key.group, c.key.tp, c.offset, c.id)
}

func (p *offsetPast) note(at int, now, until time.Duration) {
	if at > p.acked {
		p.acked, p.since, p.until = at, now, until
	}
}

// deleteAnswered: the deletion of an offset is acknowledged.
func (g *groupTruth) deleteAnswered(b *broker, key offsetKey, sent int) {
	g.peek(b)
	past := g.past(key)
	for i := len(past.at) - 1; i >= 0; i-- {
		if past.ids[i] == 0 {
			past.note(past.at[i], g.c.w.now, 0)
			return
		}
		if past.at[i] < sent {
			return // there was nothing to delete
		}
	}
}

// bound is what a reader of an offset that asks now may not fall behind.
func (g *groupTruth) bound(key offsetKey) int { return g.past(key).acked }

// fetched judges an offset that was read: id is its commit's, 0 if there is none. bound was
// taken when it was asked for.
func (g *groupTruth) fetched(b *broker, key offsetKey, offset int64, id, bound int) {
	past := g.past(key)
	for i := range past.at {
		if past.at[i] >= bound && past.ids[i] == id && (id != 0 || past.at[i] >= 0) {
			return
		}
	}
	if id == 0 {
		if bound < 0 || past.until > 0 && g.c.w.now >= past.until || g.deletedOn(b, key, bound) {
			return
		}
	} else if !slices.Contains(past.ids, id) {
		return // on its way: it may be seen before it is committed, after a change of coordinators
	}
	g.c.w.fail("commit-lost", "group %s: coordinator %d says offset %d (commit %d) for %v; the latest acknowledged one stands at %d", key.group, b.id, offset, id, key.tp, bound)
}

// settled: every member has its share and has read and committed everything.
func (g *groupTruth) settled() bool {
	w := g.c.w
	covered := map[cluster.TopicPartition]bool{}
	for _, m := range w.members {
		if !m.stable || m.generation != w.members[0].generation {
			return false
		}
		for _, tp := range m.assigned {
			if covered[tp] || int(m.positions[tp]) != len(g.c.live[tp].ledger) || m.committed[tp] != m.positions[tp] {
				return false
			}
			covered[tp] = true
		}
	}
	return len(covered) == w.config.partitions
}
