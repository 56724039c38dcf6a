package controller

import (
	"log/slog"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/registry"
)

// Reassignment (KIP-455, controller.md 11). While it is in progress the topic's node lists
// the union of the old and the new replicas, with which of them are being added and
// removed. The leader epoch is raised so that the leader learns the union; when all target
// replicas are in sync, leadership moves into the target if it must, the removed replicas
// leave the ISR and are deleted, and the node is written with the target alone.

// reassigned is the assignment that leads from the current one to target.
func reassigned(current *registry.Assignment, target []cluster.BrokerID) registry.Assignment {
	origin := current.Origin()
	next := registry.Assignment{Replicas: slices.Clone(target)}
	for _, id := range origin {
		if !slices.Contains(target, id) {
			next.Replicas = append(next.Replicas, id)
			next.Removing = append(next.Removing, id)
		}
	}
	for _, id := range target {
		if !slices.Contains(origin, id) {
			next.Adding = append(next.Adding, id)
		}
	}
	return next
}

type move struct {
	p      *partition
	target []cluster.BrokerID
}

// startMoves writes the topics' nodes, stops the replicas that an overridden reassignment
// had been adding, and tells the replicas. What is complete already is completed at once.
func (c *Core) startMoves(moves []move, done func()) {
	topics := map[*topic]bool{}
	var dropped []func()
	for _, m := range moves {
		old := m.p.assignment
		m.p.assignment = reassigned(&old, m.target)
		topics[m.p.topic] = true
		c.log(slog.LevelInfo, "reassignment started", "topic", m.p.tp.Topic, "partition", m.p.tp.Partition,
			"from", old.Replicas, "to", m.target)
		for _, id := range old.Replicas {
			if !m.p.has(id) {
				dropped = append(dropped, func() { c.tellStop(id, m.p, true) })
			}
		}
	}
	c.forget(c.topicWrites(topics), func() {
		var waiting, complete []*partition
		for _, m := range moves {
			if inSync(m.p) && m.p.assignment.Reassigning() {
				complete = append(complete, m.p)
			} else {
				waiting = append(waiting, m.p)
			}
		}
		c.announceMoves(waiting, func() {
			for _, stop := range dropped {
				stop()
			}
			c.completeReassignments(complete, done)
		})
	})
}

func (c *Core) topicWrites(topics map[*topic]bool) []registry.Op {
	var ops []registry.Op
	for _, name := range c.topicNames() {
		if t := c.topics[name]; topics[t] {
			document := t.assignmentDocument()
			ops = append(ops, registry.Op{Kind: registry.OpSet, Path: registry.TopicPath(name), Data: registry.EncodeTopic(&document), Version: registry.AnyVersion})
		}
	}
	return ops
}

func inSync(p *partition) bool {
	for _, id := range p.assignment.Target() {
		if !slices.Contains(p.state.ISR, id) {
			return false
		}
	}
	return p.known
}

// announceMoves raises the leader epochs and tells all replicas of the union; the added
// ones are new.
func (c *Core) announceMoves(parts []*partition, done func()) {
	bump := func(p *partition) (cluster.PartitionState, bool, error) { return c.keepAssigned(p), p.known, nil }
	c.change(parts, bump, func(o outcome) {
		if o.err == nil && o.written {
			if o.p.state.Leader < 0 {
				o.p.status = statusOffline
			}
			c.tellLeader(o.p.assignment.Origin(), o.p, false)
			c.tellLeader(o.p.assignment.Adding, o.p, true)
		}
	}, done)
}

// keepAssigned raises the leader epoch, and takes the leadership and the place in the ISR
// from replicas that are not assigned any more because a reassignment was cancelled or
// overridden; checkTarget has made sure that somebody in sync remains.
func (c *Core) keepAssigned(p *partition) cluster.PartitionState {
	next := p.state
	next.LeaderEpoch++
	if isr := filter(next.ISR, p.has); len(isr) > 0 {
		next.ISR = isr
	}
	if next.Leader >= 0 && !slices.Contains(next.ISR, next.Leader) {
		next.Leader = cluster.NoBroker
		if elected, ok := electReassign(p.assignment.Replicas, &next, c.eligible(p)); ok {
			next.Leader = elected.Leader
		}
	}
	return next
}

// completeReassignments finishes those partitions whose target replicas are all in sync.
func (c *Core) completeReassignments(parts []*partition, done func()) {
	ready := filterPartitions(parts, func(p *partition) bool { return p.assignment.Reassigning() && inSync(p) })
	finish := func(p *partition) (cluster.PartitionState, bool, error) {
		target := p.assignment.Target()
		next := p.state
		if !slices.Contains(target, next.Leader) || !c.leaderOnline(p) {
			var ok bool
			if next, ok = electReassign(target, &p.state, c.eligible(p)); !ok {
				return p.state, false, noLeader(p, kerr.LeaderNotAvailable)
			}
		} else {
			next.LeaderEpoch++
		}
		next.ISR = filter(next.ISR, func(id cluster.BrokerID) bool { return slices.Contains(target, id) })
		return next, true, nil
	}
	topics := map[*topic]bool{}
	c.change(ready, finish, func(o outcome) {
		if o.err != nil {
			c.log(slog.LevelWarn, "cannot complete a reassignment yet", "topic", o.p.tp.Topic, "partition", o.p.tp.Partition, "error", o.err)
			return
		}
		removing := o.p.assignment.Removing
		o.p.assignment = registry.Assignment{Replicas: o.p.assignment.Target()}
		topics[o.p.topic] = true
		c.tellLeader(o.p.assignment.Replicas, o.p, false)
		for _, id := range removing {
			c.tellStop(id, o.p, true)
		}
		delete(c.zkMoves, o.p.tp)
		c.log(slog.LevelInfo, "reassignment completed", "topic", o.p.tp.Topic, "partition", o.p.tp.Partition, "replicas", o.p.assignment.Replicas)
	}, func() {
		if len(topics) == 0 {
			done()
			return
		}
		ops := append(c.topicWrites(topics), c.zkMoveWrites()...)
		c.forget(ops, func() {
			done()
		})
	})
}

// zkMoveWrites keeps /admin/reassign_partitions in line with what is left of it.
func (c *Core) zkMoveWrites() []registry.Op {
	switch {
	case c.zkMoves == nil:
		return nil
	case len(c.zkMoves) == 0:
		c.zkMoves = nil
		return []registry.Op{
			{Kind: registry.OpDelete, Path: registry.PathReassignPartitions, Version: registry.AnyVersion},
			{Kind: registry.OpExists, Path: registry.PathReassignPartitions, Watch: true},
		}
	}
	return []registry.Op{{Kind: registry.OpSet, Path: registry.PathReassignPartitions, Data: registry.EncodeReassignments(c.zkMoves), Version: registry.AnyVersion}}
}

// resumeReassignments goes on with what is in progress, after a failover (started nil) or
// when target replicas have started.
func (c *Core) resumeReassignments(started []cluster.BrokerID, done func()) {
	var waiting, ready []*partition
	c.eachPartition(func(p *partition) {
		switch {
		case p.topic.deletion != nil || !p.assignment.Reassigning() || !p.known:
		case inSync(p):
			ready = append(ready, p)
		case started == nil:
			waiting = append(waiting, p)
		}
	})
	c.announceMoves(waiting, func() { c.completeReassignments(ready, done) })
}

// readReassignments serves the old tools' way of asking.
func (c *Core) readReassignments(then func()) {
	c.execute([]registry.Op{{Kind: registry.OpGet, Path: registry.PathReassignPartitions}}, func(results []registry.OpResult) {
		if results[0].Err != nil {
			then()
			return
		}
		wanted, err := registry.DecodeReassignments(results[0].Data)
		if err != nil {
			c.log(slog.LevelWarn, "ignoring unreadable reassignments", "error", err)
		}
		c.zkMoves = map[cluster.TopicPartition][]cluster.BrokerID{}
		var moves []move
		c.eachPartition(func(p *partition) {
			target, asked := wanted[p.tp]
			if !asked || p.topic.deletion != nil || c.checkTarget(p, target) != nil {
				return
			}
			if slices.Equal(target, p.assignment.Target()) && !p.assignment.Reassigning() {
				return
			}
			c.zkMoves[p.tp] = target
			moves = append(moves, move{p, target})
		})
		c.forget(c.zkMoveWrites(), func() { c.startMoves(moves, then) })
	})
}

func (c *Core) checkTarget(p *partition, target []cluster.BrokerID) error {
	seen := map[cluster.BrokerID]bool{}
	for _, id := range target {
		if id < 0 || seen[id] {
			return Refuse(kerr.InvalidReplicaAssignment, "Replica list %v has a negative or repeated broker.", target)
		}
		seen[id] = true
		if !p.has(id) && !c.live(id) {
			return Refuse(kerr.InvalidReplicaAssignment, "Replica assignment has brokers that are not alive (%d).", id)
		}
	}
	if len(target) == 0 {
		return Refuse(kerr.InvalidReplicaAssignment, "Empty replica list.")
	}
	// Kafka goes ahead here, and deletes the last replica that has all committed records.
	next := reassigned(&p.assignment, target)
	if p.known && !slices.ContainsFunc(p.state.ISR, func(id cluster.BrokerID) bool { return slices.Contains(next.Replicas, id) }) {
		return Refuse(kerr.InvalidReplicaAssignment, "None of the in-sync replicas %v would remain.", p.state.ISR)
	}
	return nil
}

func (c *Core) onAlterReassignments(request *kmsg.AlterPartitionAssignmentsRequest) {
	response := request.ResponseKind().(*kmsg.AlterPartitionAssignmentsResponse)
	var moves []move
	for _, t := range request.Topics {
		answered := kmsg.AlterPartitionAssignmentsResponseTopic{Topic: t.Topic}
		for _, part := range t.Partitions {
			answer := kmsg.NewAlterPartitionAssignmentsResponseTopicPartition()
			answer.Partition = part.Partition
			m, err := c.parseMove(cluster.TopicPartition{Topic: t.Topic, Partition: part.Partition}, part.Replicas)
			if err != nil {
				answer.ErrorCode, answer.ErrorMessage = codeOf(err), messageOf(err)
			} else {
				delete(c.zkMoves, m.p.tp)
				moves = append(moves, m)
			}
			answered.Partitions = append(answered.Partitions, answer)
		}
		response.Topics = append(response.Topics, answered)
	}
	c.startMoves(moves, func() { c.reply(response) })
}

// parseMove checks one asked-for reassignment; a nil list cancels the one in progress.
func (c *Core) parseMove(tp cluster.TopicPartition, replicas []int32) (move, error) {
	p := c.partition(tp)
	if p == nil || p.topic.deletion != nil {
		return move{}, Refuse(kerr.UnknownTopicOrPartition, "%v does not exist.", tp)
	}
	if replicas == nil {
		if !p.assignment.Reassigning() {
			return move{}, Refuse(kerr.NoReassignmentInProgress, "%v is not being reassigned.", tp)
		}
		return move{p, p.assignment.Origin()}, c.checkTarget(p, p.assignment.Origin())
	}
	target := make([]cluster.BrokerID, len(replicas))
	for i, id := range replicas {
		target[i] = cluster.BrokerID(id)
	}
	return move{p, target}, c.checkTarget(p, target)
}

func (c *Core) onListReassignments(request *kmsg.ListPartitionReassignmentsRequest) {
	response := request.ResponseKind().(*kmsg.ListPartitionReassignmentsResponse)
	wanted := func(p *partition) bool { return true }
	if request.Topics != nil {
		asked := map[cluster.TopicPartition]bool{}
		for _, t := range request.Topics {
			for _, number := range t.Partitions {
				asked[cluster.TopicPartition{Topic: t.Topic, Partition: number}] = true
			}
		}
		wanted = func(p *partition) bool { return asked[p.tp] }
	}
	c.eachPartition(func(p *partition) {
		if !p.assignment.Reassigning() || !wanted(p) {
			return
		}
		last := len(response.Topics) - 1
		if last < 0 || response.Topics[last].Topic != p.tp.Topic {
			response.Topics = append(response.Topics, kmsg.ListPartitionReassignmentsResponseTopic{Topic: p.tp.Topic})
			last++
		}
		response.Topics[last].Partitions = append(response.Topics[last].Partitions, kmsg.ListPartitionReassignmentsResponseTopicPartition{
			Partition: p.tp.Partition, Replicas: int32s(p.assignment.Replicas),
			AddingReplicas: int32s(p.assignment.Adding), RemovingReplicas: int32s(p.assignment.Removing),
		})
	})
	c.reply(response)
}
