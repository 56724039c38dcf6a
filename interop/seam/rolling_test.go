package seam

import (
	"testing"
)

// TestRollingReplacement replaces each server of a cluster of Apache's brokers by ours under load,
// and back again: stopped cleanly, and the other kind started in its directory with the same
// server.properties. The clients notice nothing and are not reconfigured.
func TestRollingReplacement(t *testing.T) {
	s := setUp(t, cast{coordinator: apache, coordinators: 1, brokers: []kind{apache, apache, apache}})
	s.open(t, 1)
	s.begin(t, 1)
	for _, to := range []kind{ours, apache} {
		for _, node := range s.Brokers {
			s.shutDown(t, node)
			s.kinds[node.ID] = to
			node.Use(s.program(to))
			s.restart(t, node)
			s.settle(t)
		}
		// The last of its kind to go gave the controller's part, too, to the other kind.
		s.expectController(t, to)
		s.sameDescription(t)
	}
	s.finish(t)
	s.sameLogs(t)
	s.deleteTopic(t)
}
