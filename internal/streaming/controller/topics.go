package controller

import (
	"errors"
	"log/slog"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/registry"
)

// readTopics lists the topics and acts on those that have appeared or vanished.
func (c *Core) readTopics(then func()) {
	c.execute([]registry.Op{{Kind: registry.OpChildren, Path: registry.PathTopics, Watch: true}}, func(results []registry.OpResult) {
		listed := results[0].Children
		for _, name := range slices.Clone(c.topicNames()) {
			if _, there := slices.BinarySearch(listed, name); !there {
				c.removeTopic(name)
			}
		}
		var names []string
		for _, name := range listed {
			if c.topics[name] == nil {
				names = append(names, name)
			}
		}
		c.execute(topicReads(names), func(results []registry.OpResult) {
			var fresh []*partition
			for i, name := range names {
				if t := c.decodeTopic(name, &results[i]); t != nil {
					fresh = append(fresh, t.partitions...)
				}
			}
			c.addTopicIDs(names, func() {
				c.settle(fresh, "topic created", func(map[cluster.BrokerID]int) { then() })
			})
		})
	})
}

func topicReads(names []string) []registry.Op {
	ops := make([]registry.Op, len(names))
	for i, name := range names {
		ops[i] = registry.Op{Kind: registry.OpGet, Path: registry.TopicPath(name), Watch: true}
	}
	return ops
}

// decodeTopic adds a topic that was read to the model; nil if it has vanished or is unreadable.
func (c *Core) decodeTopic(name string, result *registry.OpResult) *topic {
	if result.Err != nil {
		return nil
	}
	document, err := registry.DecodeTopic(name, result.Data)
	if err != nil {
		c.log(slog.LevelError, "ignoring an unreadable topic", "topic", name, "error", err)
		return nil
	}
	c.log(slog.LevelInfo, "topic found", "topic", name, "partitions", len(document.Partitions), "topicID", document.ID)
	return c.addTopic(name, document)
}

// addTopicIDs gives topics from before protocol 2.8 an id.
func (c *Core) addTopicIDs(names []string, then func()) {
	var ops []registry.Op
	for _, name := range names {
		t := c.topics[name]
		if t == nil || !t.id.IsZero() {
			continue
		}
		c.setTopicID(t, c.newID())
		document := t.assignmentDocument()
		ops = append(ops, registry.Op{Kind: registry.OpSet, Path: registry.TopicPath(name), Data: registry.EncodeTopic(&document), Version: registry.AnyVersion})
	}
	c.forget(ops, then)
}

// readTopic follows a change of a topic's node: new partitions are created; changes to the
// replica lists of existing ones are the controller's own and ignored.
func (c *Core) readTopic(name string) {
	c.execute(topicReads([]string{name}), func(results []registry.OpResult) {
		t := c.topics[name]
		if t == nil || results[0].Err != nil {
			return
		}
		document, err := registry.DecodeTopic(name, results[0].Data)
		if err != nil {
			c.log(slog.LevelError, "ignoring an unreadable change of a topic", "topic", name, "error", err)
			return
		}
		var fresh []*partition
		for number, assignment := range document.Partitions {
			if t.partition(number) == nil {
				fresh = append(fresh, &partition{tp: cluster.TopicPartition{Topic: name, Partition: number}, assignment: assignment})
			}
		}
		if len(fresh) == 0 {
			return
		}
		if t.deletion != nil { // a topic that is being deleted does not grow
			document := t.assignmentDocument()
			c.forget([]registry.Op{{Kind: registry.OpSet, Path: registry.TopicPath(name), Data: registry.EncodeTopic(&document), Version: registry.AnyVersion}}, nothing)
			return
		}
		slices.SortFunc(fresh, comparePartitions)
		for _, p := range fresh {
			t.add(p)
		}
		c.log(slog.LevelInfo, "topic grown", "topic", name, "partitions", len(t.partitions))
		c.settle(fresh, "partitions added", func(map[cluster.BrokerID]int) {})
	})
}

// deletion is how far the deletion of a topic has come. A replica is asked once, and again
// after a failure when something has changed (its broker started).
type deletion struct {
	asked  map[replica]bool // StopReplica(delete) is under way
	done   map[replica]bool
	failed map[replica]bool // the broker is gone, or answered with an error
}

type replica struct {
	partition int32
	broker    cluster.BrokerID
}

// readDeletions takes up the topics marked for deletion.
func (c *Core) readDeletions() {
	c.execute([]registry.Op{{Kind: registry.OpChildren, Path: registry.PathDeleteTopics, Watch: true}}, func(results []registry.OpResult) {
		c.markDeletions(results[0].Children, c.tryDeletions)
	})
}

// markDeletions queues topics; marks of unknown topics, or all if deletion is off, are removed.
func (c *Core) markDeletions(names []string, then func()) {
	var invalid []registry.Op
	for _, name := range names {
		t := c.topics[name]
		if t == nil || !c.settings.DeleteTopics {
			invalid = append(invalid, registry.Op{Kind: registry.OpDelete, Path: registry.DeleteTopicPath(name), Version: registry.AnyVersion})
			continue
		}
		if t.deletion == nil {
			t.deletion = &deletion{asked: map[replica]bool{}, done: map[replica]bool{}, failed: map[replica]bool{}}
			c.log(slog.LevelInfo, "topic deletion started", "topic", name)
			c.tellEveryone(t.partitions...) // with leader -2: clients are not sent there any more
		}
	}
	c.flush()
	c.forget(invalid, then)
}

// tryDeletions asks the brokers that hold replicas of deleted topics to stop them and then to
// delete them, and finishes the topics of which none is left. All stop before any is deleted,
// so that no follower asks a leader that is gone.
func (c *Core) tryDeletions() {
	var finished []*topic
	var asking []asked
	for _, name := range c.topicNames() {
		t := c.topics[name]
		if t.deletion == nil || reassigning(t) {
			continue
		}
		complete, asks := c.askDeletions(t)
		if complete {
			finished = append(finished, t)
		}
		asking = append(asking, asks...)
	}
	for _, deleteReplica := range []bool{false, true} {
		for _, ask := range asking {
			c.tellStop(ask.id, ask.p, deleteReplica)
		}
		c.flush()
	}
	c.finishDeletions(finished)
}

// asked is a replica that is to be deleted.
type asked struct {
	id cluster.BrokerID
	p  *partition
}

func reassigning(t *topic) bool {
	return slices.ContainsFunc(t.partitions, func(p *partition) bool { return p.assignment.Reassigning() })
}

// askDeletions reports whether all replicas are gone, and which must be asked for now.
func (c *Core) askDeletions(t *topic) (complete bool, asking []asked) {
	complete = true
	for _, p := range t.partitions {
		for _, id := range p.assignment.Replicas {
			r := replica{p.tp.Partition, id}
			if t.deletion.done[r] {
				continue
			}
			complete = false
			if t.deletion.asked[r] || t.deletion.failed[r] {
				continue
			}
			if !c.live(id) {
				t.deletion.failed[r] = true
				continue
			}
			t.deletion.asked[r] = true
			asking = append(asking, asked{id, p})
		}
	}
	return complete, asking
}

// finishDeletions removes the nodes of topics that no broker holds any more; the mark goes
// last, so that a controller that takes over in between finishes the work.
func (c *Core) finishDeletions(topics []*topic) {
	var trees []registry.Op
	for _, t := range topics {
		trees = append(trees,
			registry.Op{Kind: registry.OpDeleteTree, Path: registry.TopicPath(t.name)},
			registry.Op{Kind: registry.OpDeleteTree, Path: registry.TopicConfigPath(t.name)})
	}
	c.execute(trees, func(results []registry.OpResult) {
		var marks []registry.Op
		for i, t := range topics {
			if err := errors.Join(results[2*i].Err, results[2*i+1].Err); err != nil {
				c.log(slog.LevelError, "cannot delete a topic's nodes", "topic", t.name, "error", err)
				continue
			}
			c.removeTopic(t.name)
			c.log(slog.LevelInfo, "topic deleted", "topic", t.name)
			marks = append(marks, registry.Op{Kind: registry.OpDelete, Path: registry.DeleteTopicPath(t.name), Version: registry.AnyVersion})
		}
		c.forget(marks, nothing)
	})
}

func (c *Core) onStopReplicaAnswered(event stopReplicaAnswered) {
	b := c.brokers[event.id]
	if b == nil || b.Epoch != event.epoch {
		return // its replicas have been failed when it was lost
	}
	errs := map[cluster.TopicPartition]int16{}
	for _, answer := range event.response.Partitions {
		errs[cluster.TopicPartition{Topic: answer.Topic, Partition: answer.Partition}] = answer.ErrorCode
	}
	for _, asked := range event.request.Topics {
		t := c.topics[asked.Topic]
		if t == nil || t.deletion == nil {
			continue
		}
		for _, state := range asked.PartitionStates {
			r := replica{state.Partition, event.id}
			if !state.Delete || !t.deletion.asked[r] {
				continue
			}
			delete(t.deletion.asked, r)
			code, answered := errs[cluster.TopicPartition{Topic: asked.Topic, Partition: state.Partition}]
			if event.response.ErrorCode == 0 && (!answered || code == 0) {
				t.deletion.done[r] = true
				continue
			}
			t.deletion.failed[r] = true
			c.log(slog.LevelWarn, "a replica could not be deleted", "topic", asked.Topic, "partition", state.Partition, "broker", event.id,
				"error", kerr.ErrorForCode(max(code, event.response.ErrorCode)))
		}
	}
	c.tryDeletions()
}

// failDeletionsOn notes that a broker will not answer.
func (c *Core) failDeletionsOn(id cluster.BrokerID) {
	for _, t := range c.topics {
		if t.deletion == nil {
			continue
		}
		for r := range t.deletion.asked {
			if r.broker == id {
				delete(t.deletion.asked, r)
				t.deletion.failed[r] = true
			}
		}
	}
}

// resumeDeletions asks brokers that have started for the replicas they failed to delete.
func (c *Core) resumeDeletions(started []cluster.BrokerID) {
	for _, t := range c.topics {
		if t.deletion == nil {
			continue
		}
		for r := range t.deletion.failed {
			if slices.Contains(started, r.broker) {
				delete(t.deletion.failed, r)
			}
		}
	}
	c.tryDeletions()
}
