package controller

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/registry"
)

// chunk bounds the conditional writes in flight together. After each chunk the brokers are
// told, so that in a wave over ten thousand partitions the first clients wait for a few
// hundred writes, not for all.
const chunk = 1000

// decision computes a partition's next state from the one cached. write is false if nothing
// is to be written. It is asked again after a conflict, so it must not have side effects.
type decision func(p *partition) (next cluster.PartitionState, write bool, err error)

// outcome of one partition of a change; err nil and written false means that nothing was
// to be done.
type outcome struct {
	p       *partition
	before  cluster.PartitionState
	written bool
	err     error
}

// errControllerEpoch: the state node was written by a controller later than this one.
var errControllerEpoch = errors.New("the partition's state was written by a later controller")

// change writes new states for partitions, conditionally on the versions cached. What
// conflicts is read again and decided again. each is called once for each partition, in
// order within a chunk, when its outcome is known; done when all are.
func (c *Core) change(parts []*partition, decide decision, each func(outcome), done func()) {
	if len(parts) == 0 {
		done()
		return
	}
	now, rest := parts, []*partition(nil)
	if len(parts) > chunk {
		now, rest = parts[:chunk], parts[chunk:]
	}
	c.changeChunk(now, nil, decide, each, func() {
		c.flush()
		c.change(rest, decide, each, done)
	})
}

// attempt remembers what was tried before a conflict: if the node holds just that, the
// write was ours and its reply had been lost.
type attempt map[*partition]cluster.PartitionState

func (c *Core) changeChunk(parts []*partition, tried attempt, decide decision, each func(outcome), done func()) {
	var (
		ops     []registry.Op
		writing []*partition
		wanted  = attempt{}
		asOf    = c.newestRegistration()
	)
	for _, p := range parts {
		if last, ok := tried[p]; ok && sameState(&p.state, &last) {
			each(outcome{p: p, written: true})
			continue
		}
		if p.known && p.state.ControllerEpoch > c.epoch {
			c.refuseLaterController(p, each)
			continue
		}
		next, write, err := decide(p)
		if err != nil || !write {
			each(outcome{p: p, err: err})
			continue
		}
		next.ControllerEpoch, next.AsOf = c.epoch, asOf
		wanted[p] = next
		writing = append(writing, p)
		ops = append(ops, registry.Op{
			Kind: registry.OpSet, Path: registry.StatePath(p.tp),
			Data: registry.EncodePartitionState(&next), Version: int32(p.state.PartitionEpoch),
		})
	}
	c.execute(ops, func(results []registry.OpResult) {
		var conflicts []*partition
		for i, p := range writing {
			switch {
			case results[i].Err == nil:
				before := p.state
				p.state = wanted[p]
				p.state.PartitionEpoch = cluster.PartitionEpoch(results[i].Version)
				each(outcome{p: p, before: before, written: true})
			case errors.Is(results[i].Err, registry.ErrBadVersion):
				conflicts = append(conflicts, p)
			default:
				each(outcome{p: p, err: fmt.Errorf("write the state of %v: %w", p.tp, results[i].Err)})
			}
		}
		c.reread(conflicts, each, func(fresh []*partition) {
			if len(fresh) == 0 {
				done()
				return
			}
			c.changeChunk(fresh, wanted, decide, each, done)
		})
	})
}

// newestRegistration is what states that are decided on now are as of.
func (c *Core) newestRegistration() (newest cluster.BrokerEpoch) {
	for _, b := range c.brokers {
		newest = max(newest, b.Epoch)
	}
	return newest
}

// refuseLaterController reports a partition that a later controller has written: ours is
// over, though the ensemble has not told us yet.
func (c *Core) refuseLaterController(p *partition, each func(outcome)) {
	c.log(slog.LevelError, "partition state is from a later controller", "topic", p.tp.Topic, "partition", p.tp.Partition,
		"controllerEpoch", p.state.ControllerEpoch, "ours", c.epoch)
	each(outcome{p: p, err: errControllerEpoch})
}

// reread refreshes the cache from the state nodes; those that cannot be read are reported
// to each (which may be nil) and left out of what then gets.
func (c *Core) reread(parts []*partition, each func(outcome), then func(fresh []*partition)) {
	ops := make([]registry.Op, len(parts))
	for i, p := range parts {
		ops[i] = registry.Op{Kind: registry.OpGet, Path: registry.StatePath(p.tp)}
	}
	c.execute(ops, func(results []registry.OpResult) {
		var fresh []*partition
		for i, p := range parts {
			err := results[i].Err
			if err == nil {
				var state cluster.PartitionState
				state, err = registry.DecodePartitionState(p.tp, results[i].Data, results[i].Version)
				if err == nil {
					p.state, p.known = state, true
					fresh = append(fresh, p)
					continue
				}
			}
			if each != nil {
				each(outcome{p: p, err: err})
			}
		}
		then(fresh)
	})
}

// logElection is the debug line of one election.
func (c *Core) logElection(p *partition, reason string) {
	c.log(slog.LevelDebug, "leader elected", "topic", p.tp.Topic, "partition", p.tp.Partition,
		"leader", p.state.Leader, "leaderEpoch", p.state.LeaderEpoch, "isr", p.state.ISR, "reason", reason)
}

// noLeader is why an election failed; it carries the code for clients.
func noLeader(p *partition, code *kerr.Error) error {
	return Refuse(code, "No replica of %v that could lead is alive and in sync (assigned %v, in sync %v).", p.tp, p.assignment.Replicas, p.state.ISR)
}
