package controller

import (
	"log/slog"
	"slices"
	"time"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/registry"
)

// failover reads everything in three batches and takes over (controller.md 2): brokers,
// topics and requests left in znodes; then their content; then every partition's state.
func (c *Core) failover() {
	since := c.now
	c.execute([]registry.Op{
		{Kind: registry.OpChildren, Path: registry.PathBrokerIDs, Watch: true},
		{Kind: registry.OpChildren, Path: registry.PathTopics, Watch: true},
		{Kind: registry.OpChildren, Path: registry.PathDeleteTopics, Watch: true},
		{Kind: registry.OpChildren, Path: registry.PathLogDirEvents, Watch: true},
		{Kind: registry.OpChildren, Path: registry.PathISRChanges, Watch: true},
		{Kind: registry.OpExists, Path: registry.PathPreferredElection, Watch: true},
		{Kind: registry.OpExists, Path: registry.PathReassignPartitions, Watch: true},
	}, func(results []registry.OpResult) {
		names, deleted := results[1].Children, results[2].Children
		brokerOps, ids := brokerReads(results[0].Children)
		notes := append(children(registry.PathLogDirEvents, results[3]), children(registry.PathISRChanges, results[4])...)
		c.execute(slices.Concat(brokerOps, topicReads(names)), func(results []registry.OpResult) {
			c.adopt(ids, names, results)
			c.readStates(notes, func() {
				c.addTopicIDs(names, func() {
					c.markDeletions(deleted, func() {
						c.log(slog.LevelInfo, "controller state read", "brokers", len(c.brokers), "topics", len(c.topics), "took", c.now.Sub(since))
						c.takeOver()
					})
				})
			})
		})
	})
}

func children(parent string, listing registry.OpResult) []registry.Op {
	var ops []registry.Op
	for _, name := range listing.Children {
		ops = append(ops, registry.Op{Kind: registry.OpDelete, Path: parent + "/" + name, Version: registry.AnyVersion})
	}
	return ops
}

// adopt fills the model with brokers and topics, and lets every broker know at once who is
// there and who the controller is: a LeaderAndIsr that names a broker unknown to its
// receiver would be lost on it.
func (c *Core) adopt(ids []cluster.BrokerID, names []string, results []registry.OpResult) {
	found := c.decodeBrokers(ids, results)
	for _, id := range ids {
		if broker, ok := found[id]; ok {
			c.addBroker(broker)
			c.effects.Channels = append(c.effects.Channels, ChannelChange{Broker: broker})
		}
	}
	c.tellEveryone()
	c.flush()
	for i, name := range names {
		c.decodeTopic(name, &results[len(ids)+i])
	}
}

// readStates reads every partition's state, and removes the notifications, which it makes
// superfluous.
func (c *Core) readStates(notes []registry.Op, then func()) {
	var parts []*partition
	ops := notes
	c.eachPartition(func(p *partition) {
		parts = append(parts, p)
		ops = append(ops, registry.Op{Kind: registry.OpGet, Path: registry.StatePath(p.tp)})
	})
	c.execute(ops, func(results []registry.OpResult) {
		for i, p := range parts {
			result := &results[len(notes)+i]
			if result.Err != nil {
				continue
			}
			state, err := registry.DecodePartitionState(p.tp, result.Data, result.Version)
			if err != nil {
				c.log(slog.LevelError, "ignoring an unreadable partition state", "topic", p.tp.Topic, "partition", p.tp.Partition, "error", err)
				continue
			}
			p.state, p.known = state, true
			p.bounced = c.bouncedSince(&state, result.Mzxid)
			p.status = statusOffline
			if c.leaderOnline(p) {
				p.status = statusOnline
			}
		}
		then()
	})
}

// bouncedSince lists the members of an ISR whose registration is younger than the decision on the
// state, or than the state node where that is not told (a write can be under way for longer than
// its controller lives): they have been away while there was no controller to see it, as a broker
// is that comes back with a larger epoch before its loss was noticed (onBrokers), and they are
// treated as those. Without that a leader that lost its power would lead on in the same leader
// epoch, and give offsets which its followers have got from it once to other records; nothing
// would tell the two apart, and a record acknowledged by such a follower would be lost with the
// leader. Kafka does not look.
func (c *Core) bouncedSince(state *cluster.PartitionState, mzxid int64) []cluster.BrokerID {
	if mzxid == 0 {
		return nil // not told
	}
	since := cluster.BrokerEpoch(mzxid)
	if state.AsOf > 0 {
		since = min(since, state.AsOf)
	}
	var bounced []cluster.BrokerID
	for _, id := range state.ISR {
		if b := c.brokers[id]; b != nil && b.Epoch > since {
			bounced = append(bounced, id)
		}
	}
	return bounced
}

// takeOver elects where a leader is missing, then tells every broker all its partitions,
// then takes up what earlier controllers left unfinished.
func (c *Core) takeOver() {
	var parts []*partition
	since := c.now
	missing := map[cluster.BrokerID]bool{}
	c.eachPartition(func(p *partition) {
		if p.topic.deletion == nil {
			parts = append(parts, p)
			if p.known && p.state.Leader >= 0 && !c.leaderOnline(p) {
				missing[p.state.Leader] = true
			}
		}
	})
	for _, id := range sortedIDs(missing) {
		if !c.registered(id) { // its node went together with, or before, the last controller
			c.log(slog.LevelInfo, "broker lost", "broker", id, "brokerEpoch", cluster.UnknownBrokerEpoch, "evidence", "session",
				"at", c.now.UTC().Format(time.RFC3339Nano))
		}
	}
	unsettled := filterPartitions(parts, c.unsettled)
	c.settle(unsettled, "controller failover", func(electedFrom map[cluster.BrokerID]int) {
		for _, p := range unsettled {
			p.bounced = nil
		}
		for _, id := range sortedIDs(missing) {
			c.log(slog.LevelInfo, "partitions elected", "broker", id, "partitions", electedFrom[id], "took", c.now.Sub(since))
		}
		c.flush()
		for _, p := range parts {
			if p.known {
				c.tellLeader(p.assignment.Replicas, p, false)
			}
		}
		c.inquire()
		c.flush()
		c.readReassignments(func() {
			c.resumeReassignments(nil, func() {
				c.readPreferredElection(func() {
					c.tryDeletions()
				})
			})
		})
	})
}

func filterPartitions(parts []*partition, keep func(*partition) bool) []*partition {
	var out []*partition
	for _, p := range parts {
		if keep(p) {
			out = append(out, p)
		}
	}
	return out
}

// unsettled reports whether a partition needs a leader or a smaller ISR.
func (c *Core) unsettled(p *partition) bool {
	return !p.known || !c.leaderOnline(p) || len(p.bounced) > 0 ||
		slices.ContainsFunc(p.state.ISR, func(id cluster.BrokerID) bool { return !c.online(p.tp)(id) })
}

func sortedIDs(set map[cluster.BrokerID]bool) []cluster.BrokerID {
	ids := make([]cluster.BrokerID, 0, len(set))
	for id := range set {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
