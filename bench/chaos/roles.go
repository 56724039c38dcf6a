package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"understudy/internal/fleet"
)

// role is a column of the table: what the victim is at the moment of the fault.
type role struct {
	name, title string
	kind        kind
	// find returns the servers that have the role now and how that was seen.
	find func(context.Context, *stage) ([]*fleet.Node, string, error)
}

// kind is which half of the program plays a role.
type kind int

const (
	broker kind = iota
	coordinator
	both // all at once: as many of either as the fault has to do with
)

var roles = []*role{
	{"leader", "partition leader", broker, findLeader},
	{"follower", "follower", broker, findFollower},
	{"controller", "controller", broker, findController},
	{"raft-leader", "raft leader", coordinator, findRaft("leader")},
	{"raft-follower", "raft follower", coordinator, findRaft("follower")},
	{"group-coordinator", "group coordinator", broker, findGroupCoordinator},
	{"all", "all at once", both, nil}, // the fault says which
}

// The stage is set so that the roles are different brokers (stage.cast), but what holds is
// asked of the cluster at the moment of the fault.

func findLeader(ctx context.Context, s *stage) ([]*fleet.Node, string, error) {
	leaders, err := s.load.Leaders(ctx)
	if err != nil {
		return nil, "", err
	}
	return s.broker(leaders[0], fmt.Sprintf("Metadata names broker %d as the leader of partition 0", leaders[0]))
}

func findFollower(ctx context.Context, s *stage) ([]*fleet.Node, string, error) {
	metadata, err := s.load.Admin().Metadata(ctx, loadTopic)
	if err != nil {
		return nil, "", err
	}
	for _, node := range s.fleet.Brokers {
		id, leads, follows := int32(node.ID), 0, 0
		for _, partition := range metadata.Topics[loadTopic].Partitions {
			switch {
			case partition.Leader == id:
				leads++
			case slices.Contains(partition.ISR, id):
				follows++
			}
		}
		if leads == 0 && follows == loadPartitions {
			return []*fleet.Node{node}, fmt.Sprintf("Metadata has broker %d in sync with all %d partitions and leading none", id, follows), nil
		}
	}
	return nil, "", fmt.Errorf("no broker follows every partition and leads none")
}

func findController(ctx context.Context, s *stage) ([]*fleet.Node, string, error) {
	id, err := s.load.Controller(ctx)
	if err != nil {
		return nil, "", err
	}
	return s.broker(id, fmt.Sprintf("Metadata names broker %d as the controller", id))
}

func findGroupCoordinator(ctx context.Context, s *stage) ([]*fleet.Node, string, error) {
	id, err := s.groupCoordinator(ctx, s.commits.group)
	if err != nil {
		return nil, "", err
	}
	return s.broker(id, fmt.Sprintf("FindCoordinator names broker %d for both groups", id))
}

func findRaft(mode string) func(context.Context, *stage) ([]*fleet.Node, string, error) {
	return func(_ context.Context, s *stage) ([]*fleet.Node, string, error) {
		for _, node := range s.fleet.Coordinators {
			text, err := fleet.FourLetterWord(node.Addr, "srvr")
			if err == nil && strings.Contains(text, "Mode: "+mode) {
				return []*fleet.Node{node}, fmt.Sprintf("coordinator %d says “Mode: %s”", node.ID, mode), nil
			}
		}
		return nil, "", fmt.Errorf("no coordinator says that it is the %s", mode)
	}
}

// everybody returns the servers that a fault in all at once strikes.
func everybody(s *stage, scope kind) ([]*fleet.Node, string) {
	switch scope {
	case broker:
		return s.fleet.Brokers, "all three brokers"
	case coordinator:
		return s.fleet.Coordinators, "all three coordinators"
	}
	return slices.Concat(s.fleet.Coordinators, s.fleet.Brokers), "all six servers"
}

func (s *stage) broker(id int32, evidence string) ([]*fleet.Node, string, error) {
	node, ok := s.fleet.Broker(id)
	if !ok {
		return nil, "", fmt.Errorf("%s, which is none of ours", evidence)
	}
	return []*fleet.Node{node}, evidence, nil
}
