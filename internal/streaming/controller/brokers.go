package controller

import (
	"log/slog"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/registry"
)

// readBrokers lists the registered brokers and acts on what has changed. The reads set
// their watches again.
func (c *Core) readBrokers() {
	c.execute([]registry.Op{{Kind: registry.OpChildren, Path: registry.PathBrokerIDs, Watch: true}}, func(results []registry.OpResult) {
		ops, ids := brokerReads(results[0].Children)
		c.execute(ops, func(results []registry.OpResult) {
			c.onBrokers(c.decodeBrokers(ids, results))
		})
	})
}

func brokerReads(names []string) (ops []registry.Op, ids []cluster.BrokerID) {
	for _, name := range names {
		id, err := strconv.ParseInt(name, 10, 32)
		if err != nil || id < 0 {
			continue
		}
		ids = append(ids, cluster.BrokerID(id))
		ops = append(ops, registry.Op{Kind: registry.OpGet, Path: registry.BrokerPath(cluster.BrokerID(id)), Watch: true})
	}
	return ops, ids
}

// decodeBrokers leaves out brokers that have vanished since the listing, and those whose
// registration cannot be read.
func (c *Core) decodeBrokers(ids []cluster.BrokerID, results []registry.OpResult) map[cluster.BrokerID]cluster.Broker {
	found := map[cluster.BrokerID]cluster.Broker{}
	for i, id := range ids {
		if results[i].Err != nil {
			continue
		}
		broker, err := registry.BrokerFromResult(id, &results[i])
		if err != nil {
			c.log(slog.LevelWarn, "ignoring an unreadable broker registration", "broker", id, "error", err)
			continue
		}
		found[id] = broker
	}
	return found
}

// onBrokers compares the registered brokers with those known. A broker that is back with a
// larger epoch has bounced: first it is lost, then it starts.
func (c *Core) onBrokers(found map[cluster.BrokerID]cluster.Broker) {
	var lost, reported, started []cluster.BrokerID
	for _, id := range slices.Clone(c.brokerIDs()) {
		b := c.brokers[id]
		now, there := found[id]
		if there && now.Epoch <= b.Epoch {
			continue
		}
		lost = append(lost, id)
		if !b.suspected && !b.shuttingDown {
			c.logLost(b, "session")
			reported = append(reported, id)
		}
		c.removeBroker(id)
		c.effects.Channels = append(c.effects.Channels, ChannelChange{Broker: b.Broker, Remove: true})
	}
	for id := range found {
		if !c.registered(id) {
			started = append(started, id)
		}
	}
	slices.Sort(started)
	start := func() {
		for _, id := range started {
			c.addBroker(found[id])
			c.effects.Channels = append(c.effects.Channels, ChannelChange{Broker: found[id]})
			c.log(slog.LevelInfo, "broker started", "broker", id, "brokerEpoch", found[id].Epoch)
		}
		c.startup(started)
	}
	if len(lost) == 0 {
		start()
		return
	}
	c.lose(lost, reported, "broker lost", start)
}

// startup tells brokers that have appeared what they need to know, and uses them: in this
// order everybody knows the brokers before a LeaderAndIsr names one as leader.
func (c *Core) startup(started []cluster.BrokerID) {
	if len(started) == 0 {
		return
	}
	for _, id := range c.brokerIDs() {
		c.tellMetadata(id, slices.Contains(started, id))
	}
	c.flush()
	for _, p := range c.partitionsOn(started...) {
		c.tellLeader(filter(p.assignment.Replicas, func(id cluster.BrokerID) bool { return slices.Contains(started, id) }), p, false)
	}
	c.wake("broker started", nil, func() {
		c.inquire()
		c.resumeReassignments(started, func() {
			c.resumeDeletions(started)
		})
	})
}

// readBroker follows a change of one broker's endpoints.
func (c *Core) readBroker(id cluster.BrokerID) {
	ops := []registry.Op{{Kind: registry.OpGet, Path: registry.BrokerPath(id), Watch: true}}
	c.execute(ops, func(results []registry.OpResult) {
		known := c.brokers[id]
		found, there := c.decodeBrokers([]cluster.BrokerID{id}, results)[id]
		if known == nil || !there || found.Epoch != known.Epoch || slices.Equal(found.Endpoints, known.Endpoints) {
			return // appearing and vanishing are the child watch's business
		}
		known.Broker = found
		c.effects.Channels = append(c.effects.Channels, ChannelChange{Broker: found})
		c.tellEveryone()
	})
}

// onRefused acts on our own evidence that a broker is dead: as if it were shutting down.
func (c *Core) onRefused(id cluster.BrokerID, epoch cluster.BrokerEpoch) {
	b := c.brokers[id]
	if b == nil || b.Epoch != epoch || b.suspected || b.shuttingDown || id == c.self {
		return // one that is shutting down has been seen to
	}
	b.suspected = true
	c.logLost(b, "refused")
	c.lose([]cluster.BrokerID{id}, []cluster.BrokerID{id}, "broker refused connections", nothing)
}

// onAnswered undoes onRefused: the broker was there all the time.
func (c *Core) onAnswered(id cluster.BrokerID, epoch cluster.BrokerEpoch) {
	b := c.brokers[id]
	if b == nil || b.Epoch != epoch || !b.suspected {
		return
	}
	b.suspected = false
	c.log(slog.LevelWarn, "broker answers after all", "broker", id, "brokerEpoch", epoch)
	c.startup([]cluster.BrokerID{id})
}

// onControlledShutdown moves leaderships off a broker that wants to stop and takes it out of
// the ISRs. It may be asked again: the status stays until the broker's node goes.
func (c *Core) onControlledShutdown(request *kmsg.ControlledShutdownRequest) {
	response := request.ResponseKind().(*kmsg.ControlledShutdownResponse)
	id := cluster.BrokerID(request.BrokerID)
	b := c.brokers[id]
	switch {
	case b == nil && request.BrokerEpoch >= 0:
		response.ErrorCode = kerr.UnknownServerError.Code
	case b == nil:
		response.ErrorCode = kerr.BrokerNotAvailable.Code
	case request.BrokerEpoch != int64(cluster.UnknownBrokerEpoch) && cluster.BrokerEpoch(request.BrokerEpoch) < b.Epoch:
		response.ErrorCode = kerr.StaleBrokerEpoch.Code
	}
	if response.ErrorCode != 0 {
		c.reply(response)
		return
	}
	if !b.shuttingDown {
		b.shuttingDown = true
		c.logLost(b, "shutdown")
	}
	c.shutDown(id, func(remaining []*partition) {
		for _, p := range remaining {
			response.PartitionsRemaining = append(response.PartitionsRemaining,
				kmsg.ControlledShutdownResponsePartitionsRemaining{Topic: p.tp.Topic, Partition: p.tp.Partition})
		}
		c.reply(response)
	})
}

// shutDown handles the broker's partitions in two steps: those it leads get another leader;
// from those it follows it is removed, and told to stop.
func (c *Core) shutDown(id cluster.BrokerID, done func(remaining []*partition)) {
	since := c.now
	var led, followed []*partition
	for _, p := range c.partitionsOn(id) {
		switch {
		case len(p.assignment.Replicas) < 2 || !p.known:
		case p.state.Leader == id:
			led = append(led, p)
		default:
			followed = append(followed, p)
		}
	}
	leaving := func(b cluster.BrokerID) bool { return c.registered(b) && !c.live(b) }
	moved := 0
	rule := func(p *partition) (cluster.PartitionState, bool) {
		present := func(b cluster.BrokerID) bool { return c.registered(b) && !c.logFailed(b, p.tp) }
		return electShutdown(p.assignment.Replicas, &p.state, present, leaving)
	}
	c.electWith(led, "controlled shutdown", kerr.LeaderNotAvailable, rule, assigned, func(o outcome) {
		if o.err == nil {
			moved++
		}
	}, func() {
		c.flush() // the new leaders first
		remove := func(p *partition) (cluster.PartitionState, bool, error) {
			next, changed := removeFromISR(&p.state, func(b cluster.BrokerID) bool { return b == id })
			return next, changed, nil
		}
		c.change(followed, remove, func(o outcome) {
			c.tellStop(id, o.p, false) // after the ISR: nobody waits for a replica that has stopped
			if o.err == nil {
				c.tellLeader(without(o.p.assignment.Replicas, id), o.p, false)
			}
		}, func() {
			c.log(slog.LevelInfo, "partitions elected", "broker", id, "partitions", moved, "took", c.now.Sub(since))
			var remaining []*partition
			for _, p := range c.partitionsOn(id) {
				if len(p.assignment.Replicas) > 1 && p.known && p.state.Leader == id {
					remaining = append(remaining, p)
				}
			}
			done(remaining)
		})
	})
}

func without(list []cluster.BrokerID, id cluster.BrokerID) []cluster.BrokerID {
	return filter(list, func(other cluster.BrokerID) bool { return other != id })
}

// onLeaderAndISRAnswered learns of failed log directories: the only per-partition errors
// that matter here.
func (c *Core) onLeaderAndISRAnswered(event leaderAndISRAnswered) {
	b := c.brokers[event.id]
	if b == nil || b.Epoch != event.epoch || event.response.ErrorCode != 0 {
		return
	}
	var failed []*partition
	for _, answered := range event.response.Topics {
		t := c.byTopicID[answered.TopicID]
		if t == nil {
			continue
		}
		for _, answer := range answered.Partitions {
			p := t.partition(answer.Partition)
			if p == nil {
				continue
			}
			_, known := b.offline[p.tp]
			switch {
			case answer.ErrorCode == kerr.KafkaStorageError.Code && !known:
				b.offline[p.tp] = struct{}{}
				failed = append(failed, p)
			case answer.ErrorCode == 0 && known:
				delete(b.offline, p.tp)
			}
		}
	}
	if len(failed) > 0 {
		c.log(slog.LevelWarn, "replicas on a failed log directory", "broker", event.id, "partitions", len(failed))
		slices.SortFunc(failed, comparePartitions)
		c.settle(failed, "log directory failed", func(map[cluster.BrokerID]int) {})
	}
}

// readLogDirEvents asks brokers that report a failed log directory, by sending them all
// their partitions, which replicas are concerned.
func (c *Core) readLogDirEvents() {
	c.readNotes(registry.PathLogDirEvents, func(data [][]byte) {
		for _, note := range data {
			id, err := registry.DecodeLogDirEvent(note)
			if err != nil || !c.registered(id) {
				continue
			}
			for _, p := range c.partitionsOn(id) {
				c.tellLeader([]cluster.BrokerID{id}, p, false)
			}
		}
	})
}

// readISRChanges refreshes what leaders at protocols before 2.7 have written themselves.
func (c *Core) readISRChanges() {
	c.readNotes(registry.PathISRChanges, func(data [][]byte) {
		changed := map[*partition]struct{}{}
		for _, note := range data {
			tps, err := registry.DecodePartitionList(registry.PathISRChanges, note)
			if err != nil {
				continue
			}
			for _, tp := range tps {
				if p := c.partition(tp); p != nil {
					changed[p] = struct{}{}
				}
			}
		}
		c.reread(sortedPartitions(changed), nil, func(fresh []*partition) {
			if len(fresh) > 0 {
				c.tellEveryone(fresh...)
			}
		})
	})
}

// readNotes lists, reads and deletes the notifications under a path.
func (c *Core) readNotes(parent string, then func(data [][]byte)) {
	c.execute([]registry.Op{{Kind: registry.OpChildren, Path: parent, Watch: true}}, func(results []registry.OpResult) {
		var reads, deletes []registry.Op
		for _, name := range results[0].Children {
			reads = append(reads, registry.Op{Kind: registry.OpGet, Path: parent + "/" + name})
			deletes = append(deletes, registry.Op{Kind: registry.OpDelete, Path: parent + "/" + name, Version: registry.AnyVersion})
		}
		c.execute(reads, func(results []registry.OpResult) {
			var data [][]byte
			for i := range results {
				if results[i].Err == nil {
					data = append(data, results[i].Data)
				}
			}
			c.forget(deletes, func() { then(data) })
		})
	})
}
