package controller

import (
	"errors"
	"log/slog"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/registry"
)

// electionUnclean is ElectLeaders' other election type; 0 is preferred.
const electionUnclean = 1

// onElectLeaders elects on request (controller.md 12).
func (c *Core) onElectLeaders(request *kmsg.ElectLeadersRequest) {
	response := request.ResponseKind().(*kmsg.ElectLeadersResponse)
	unclean := request.Version >= 1 && request.ElectionType == electionUnclean
	codes := map[cluster.TopicPartition]error{}
	var order []cluster.TopicPartition
	var parts []*partition
	consider := func(tp cluster.TopicPartition) {
		if _, twice := codes[tp]; twice {
			return
		}
		p := c.partition(tp)
		codes[tp] = c.checkElection(p, unclean)
		order = append(order, tp)
		if codes[tp] == nil {
			parts = append(parts, p)
		}
	}
	everything := request.Topics == nil
	if everything {
		c.eachPartition(func(p *partition) { consider(p.tp) })
	}
	for _, t := range request.Topics {
		for _, number := range t.Partitions {
			consider(cluster.TopicPartition{Topic: t.Topic, Partition: number})
		}
	}
	c.electRequested(parts, unclean, func(o outcome) { codes[o.p.tp] = o.err }, func() {
		for _, tp := range order {
			if err := codes[tp]; !everything || !errors.Is(err, kerr.ElectionNotNeeded) {
				addElectionResult(response, tp, err)
			}
		}
		c.reply(response)
	})
}

func (c *Core) checkElection(p *partition, unclean bool) error {
	switch {
	case p == nil:
		return kerr.UnknownTopicOrPartition
	case p.topic.deletion != nil:
		return kerr.InvalidTopicException
	case unclean && p.known && c.leaderOnline(p):
		return kerr.ElectionNotNeeded
	case !unclean && p.known && len(p.assignment.Replicas) > 0 && p.state.Leader == p.assignment.Replicas[0]:
		return kerr.ElectionNotNeeded
	case !p.known && unclean:
		return kerr.EligibleLeadersNotAvailable
	case !p.known:
		return kerr.PreferredLeaderNotAvailable
	}
	return nil
}

func (c *Core) electRequested(parts []*partition, unclean bool, each func(outcome), done func()) {
	if unclean {
		c.electWith(parts, "unclean election requested", kerr.EligibleLeadersNotAvailable, func(p *partition) (cluster.PartitionState, bool) {
			if p.inquiry != nil {
				if next, ok := c.furthest(p); ok {
					return next, true
				}
			}
			next, _, ok := electOffline(p.assignment.Replicas, &p.state, c.online(p.tp), true)
			return next, ok
		}, assigned, each, done)
		return
	}
	c.electWith(parts, "preferred leader", kerr.PreferredLeaderNotAvailable, func(p *partition) (cluster.PartitionState, bool) {
		return electPreferred(p.assignment.Replicas, &p.state, c.eligible(p))
	}, assigned, each, done)
}

func addElectionResult(response *kmsg.ElectLeadersResponse, tp cluster.TopicPartition, err error) {
	last := len(response.Topics) - 1
	if last < 0 || response.Topics[last].Topic != tp.Topic {
		response.Topics = append(response.Topics, kmsg.ElectLeadersResponseTopic{Topic: tp.Topic})
		last++
	}
	result := kmsg.NewElectLeadersResponseTopicPartition()
	result.Partition, result.ErrorCode = tp.Partition, codeOf(err)
	result.ErrorMessage = messageOf(err)
	response.Topics[last].Partitions = append(response.Topics[last].Partitions, result)
}

// readPreferredElection serves the old tools' way of asking: a node with a list, which is
// deleted when the elections are done.
func (c *Core) readPreferredElection(then func()) {
	c.execute([]registry.Op{{Kind: registry.OpGet, Path: registry.PathPreferredElection}}, func(results []registry.OpResult) {
		if results[0].Err != nil {
			then()
			return
		}
		tps, err := registry.DecodePartitionList(registry.PathPreferredElection, results[0].Data)
		if err != nil {
			c.log(slog.LevelWarn, "ignoring an unreadable preferred replica election", "error", err)
		}
		var parts []*partition
		for _, tp := range tps {
			if p := c.partition(tp); c.checkElection(p, false) == nil && !slices.Contains(parts, p) {
				parts = append(parts, p)
			}
		}
		c.electRequested(parts, false, func(outcome) {}, func() {
			c.forget([]registry.Op{
				{Kind: registry.OpDelete, Path: registry.PathPreferredElection, Version: registry.AnyVersion},
				{Kind: registry.OpExists, Path: registry.PathPreferredElection, Watch: true},
			}, then)
		})
	})
}

// rebalance gives leadership back to preferred replicas that lead too few of their
// partitions (auto.leader.rebalance.enable).
func (c *Core) rebalance() {
	total := map[cluster.BrokerID]int{}
	misplaced := map[cluster.BrokerID][]*partition{}
	c.eachPartition(func(p *partition) {
		if p.topic.deletion != nil || !p.known || len(p.assignment.Replicas) == 0 {
			return
		}
		preferred := p.assignment.Replicas[0]
		total[preferred]++
		if p.state.Leader != preferred {
			misplaced[preferred] = append(misplaced[preferred], p)
		}
	})
	var parts []*partition
	for _, id := range c.brokerIDs() {
		if len(misplaced[id])*100 <= total[id]*c.settings.LeaderImbalancePercent {
			continue
		}
		for _, p := range misplaced[id] {
			if _, ok := electPreferred(p.assignment.Replicas, &p.state, c.eligible(p)); ok {
				parts = append(parts, p)
			}
		}
	}
	if len(parts) == 0 {
		return
	}
	c.log(slog.LevelInfo, "giving leadership back to preferred replicas", "partitions", len(parts))
	c.electRequested(parts, false, func(outcome) {}, nothing)
}
