package controller

import (
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/registry"
)

const uncleanKey = "unclean.leader.election.enable"

// settle brings partitions in line with who is alive, in one wave: a partition that never
// had a leader is initialised, one whose leader is not online gets another, and replicas
// that are not online leave the ISR. done gets how many leaders were elected, by the
// broker that led before.
func (c *Core) settle(parts []*partition, reason string, done func(electedFrom map[cluster.BrokerID]int)) {
	var fresh, known []*partition
	for _, p := range parts {
		switch {
		case p.topic.deletion != nil:
		case p.known:
			known = append(known, p)
		default:
			fresh = append(fresh, p)
		}
	}
	electedFrom := map[cluster.BrokerID]int{}
	c.whereUnclean(known, func(unclean map[*topic]bool) {
		decide := func(p *partition) (cluster.PartitionState, bool, error) { return c.decideSettled(p, unclean[p.topic]) }
		c.change(electionsFirst(c, known), decide, func(o outcome) {
			c.settled(o, reason)
			if o.written && o.p.state.Leader >= 0 && o.before.Leader != o.p.state.Leader {
				electedFrom[o.before.Leader]++
			}
		}, func() {
			c.initialise(fresh, func() { done(electedFrom) })
		})
	})
}

// electionsFirst moves the partitions without a leader that is online to the front.
func electionsFirst(c *Core, parts []*partition) []*partition {
	out := make([]*partition, 0, len(parts))
	var rest []*partition
	for _, p := range parts {
		if c.leaderOnline(p) {
			rest = append(rest, p)
		} else {
			out = append(out, p)
		}
	}
	return append(out, rest...)
}

func (c *Core) leaderOnline(p *partition) bool {
	return p.state.Leader >= 0 && c.eligible(p)(p.state.Leader)
}

func (c *Core) decideSettled(p *partition, unclean bool) (cluster.PartitionState, bool, error) {
	eligible := c.eligible(p)
	if len(p.bounced) > 0 {
		if next, ok := electBounced(p.assignment.Replicas, &p.state, eligible, p.bounced); ok {
			return next, true, nil
		}
	}
	if c.onlySuspects(p) { // see inquire; until then it is written that nobody leads
		next := p.state
		next.Leader = cluster.NoBroker
		next.LeaderEpoch++
		return next, p.state.Leader >= 0, nil
	}
	if c.leaderOnline(p) {
		next, changed := removeFromISR(&p.state, func(id cluster.BrokerID) bool { return !eligible(id) })
		return next, changed, nil
	}
	// A leader that is only suspected, or is shutting down, leads on while nobody can
	// take over: it may well be alive.
	mayServe := p.state.Leader >= 0 && !c.certainlyGone(p, p.state.Leader)
	next, _, ok := electOffline(p.assignment.Replicas, &p.state, eligible, unclean && !mayServe)
	if ok {
		return next, true, nil
	}
	if mayServe {
		return p.state, false, nil
	}
	next, changed := removeFromISR(&p.state, func(id cluster.BrokerID) bool { return c.certainlyGone(p, id) })
	return next, changed, nil
}

func (c *Core) certainlyGone(p *partition, id cluster.BrokerID) bool {
	return !c.registered(id) || c.logFailed(id, p.tp)
}

func (c *Core) settled(o outcome, reason string) {
	p := o.p
	if o.err != nil {
		c.log(slog.LevelWarn, "cannot change a partition", "topic", p.tp.Topic, "partition", p.tp.Partition, "reason", reason, "error", o.err)
		return
	}
	if p.state.Leader >= 0 && c.registered(p.state.Leader) {
		p.status = statusOnline
	} else {
		p.status = statusOffline
	}
	if !o.written {
		c.tellEveryone(p) // its offline replicas have changed
		return
	}
	if o.before.Leader != p.state.Leader {
		c.logElection(p, reason)
	}
	c.tellLeader(p.assignment.Replicas, p, false)
}

// whereUnclean reads the topics' configurations where a clean election is impossible and an
// unclean one is not.
func (c *Core) whereUnclean(parts []*partition, then func(map[*topic]bool)) {
	c.readUnclean(topicsOf(filterPartitions(parts, c.needsUnclean)), then)
}

func (c *Core) needsUnclean(p *partition) bool {
	if p.state.Leader >= 0 && !c.certainlyGone(p, p.state.Leader) {
		return false
	}
	eligible := c.eligible(p)
	if _, _, clean := electOffline(p.assignment.Replicas, &p.state, eligible, false); clean {
		return false
	}
	_, _, possible := electOffline(p.assignment.Replicas, &p.state, eligible, true)
	return possible
}

// initialise gives partitions that have no state node their first leader: the first
// replica that is online; the ISR is all that are. Without any the partition stays new.
func (c *Core) initialise(parts []*partition, done func()) {
	var starting []*partition
	asOf := c.newestRegistration()
	for _, p := range parts {
		replicas := filter(p.assignment.Replicas, c.online(p.tp))
		if len(replicas) == 0 {
			c.log(slog.LevelWarn, "no replica is alive to lead a new partition", "topic", p.tp.Topic, "partition", p.tp.Partition, "replicas", p.assignment.Replicas)
			continue
		}
		p.state = cluster.PartitionState{Leader: replicas[0], ISR: replicas, ControllerEpoch: c.epoch, AsOf: asOf}
		starting = append(starting, p)
	}
	c.initialiseChunk(starting, done)
}

func (c *Core) initialiseChunk(parts []*partition, done func()) {
	if len(parts) == 0 {
		done()
		return
	}
	now, rest := parts, []*partition(nil)
	if len(parts) > chunk {
		now, rest = parts[:chunk], parts[chunk:]
	}
	var ops []registry.Op
	parent := ""
	for _, p := range now {
		if p.tp.Topic != parent {
			parent = p.tp.Topic
			ops = append(ops, registry.Op{Kind: registry.OpCreate, Path: registry.PartitionsPath(parent)})
		}
		ops = append(ops,
			registry.Op{Kind: registry.OpCreate, Path: registry.PartitionPath(p.tp)},
			registry.Op{Kind: registry.OpCreate, Path: registry.StatePath(p.tp), Data: registry.EncodePartitionState(&p.state)})
	}
	byPath := make(map[string]error, len(ops))
	c.execute(ops, func(results []registry.OpResult) {
		for i := range ops {
			byPath[ops[i].Path] = results[i].Err
		}
		var existing []*partition
		for _, p := range now {
			switch err := byPath[registry.StatePath(p.tp)]; {
			case err == nil:
				c.initialised(p)
			case isExists(err):
				existing = append(existing, p) // an earlier controller's, or our own lost reply
			default:
				c.log(slog.LevelWarn, "cannot initialise a partition", "topic", p.tp.Topic, "partition", p.tp.Partition, "error", err)
			}
		}
		c.reread(existing, nil, func(fresh []*partition) {
			for _, p := range fresh {
				c.initialised(p)
			}
			c.flush()
			c.initialiseChunk(rest, done)
		})
	})
}

func (c *Core) initialised(p *partition) {
	p.known, p.status = true, statusOnline
	if !c.leaderOnline(p) {
		p.status = statusOffline
	}
	c.logElection(p, "new partition")
	c.tellLeader(p.assignment.Replicas, p, true)
}

// wake settles the partitions that have no live leader.
func (c *Core) wake(reason string, only func(*partition) bool, done func()) {
	var parts []*partition
	c.eachPartition(func(p *partition) {
		if p.topic.deletion == nil && p.status != statusOnline && (only == nil || only(p)) {
			parts = append(parts, p)
		}
	})
	c.settle(parts, reason, func(map[cluster.BrokerID]int) { done() })
}

func (c *Core) onUncleanEnabled(name string) {
	if name == "" {
		c.settings.UncleanLeaderElection = true
	}
	c.wake("unclean election enabled", func(p *partition) bool { return name == "" || p.tp.Topic == name }, nothing)
}

// lose is the wave for brokers that are gone, or are taken to be: their leaderships move and
// they leave the ISRs. It reports on the brokers in reported, and on others only if they
// still led something: one that was suspected has been reported on then.
func (c *Core) lose(ids, reported []cluster.BrokerID, reason string, done func()) {
	since := c.now
	for _, id := range ids {
		c.failDeletionsOn(id)
	}
	c.settle(c.partitionsOn(ids...), reason, func(electedFrom map[cluster.BrokerID]int) {
		c.tellEveryone() // also where no partition is concerned: the list of brokers has changed
		for _, id := range ids {
			if electedFrom[id] > 0 || slices.Contains(reported, id) {
				c.log(slog.LevelInfo, "partitions elected", "broker", id, "partitions", electedFrom[id], "took", c.now.Sub(since))
			}
		}
		c.inquire()
		done()
	})
}

func (c *Core) logLost(b *broker, evidence string) {
	c.log(slog.LevelInfo, "broker lost", "broker", b.ID, "brokerEpoch", b.Epoch, "evidence", evidence,
		"at", c.now.UTC().Format(time.RFC3339Nano))
}

// electWith runs one election rule over partitions; each gets the outcome of every one, an
// error carrying code where the rule finds no leader.
func (c *Core) electWith(parts []*partition, reason string, code *kerr.Error,
	rule func(*partition) (cluster.PartitionState, bool), recipients func(*partition) []cluster.BrokerID,
	each func(outcome), done func(),
) {
	decide := func(p *partition) (cluster.PartitionState, bool, error) {
		next, ok := rule(p)
		if !ok {
			return p.state, false, noLeader(p, code)
		}
		return next, true, nil
	}
	c.change(parts, decide, func(o outcome) {
		if o.err == nil {
			o.p.status = statusOnline
			c.logElection(o.p, reason)
			c.tellLeader(recipients(o.p), o.p, false)
		}
		each(o)
	}, done)
}

func assigned(p *partition) []cluster.BrokerID { return p.assignment.Replicas }

func isExists(err error) bool { return errors.Is(err, registry.ErrNodeExists) }
