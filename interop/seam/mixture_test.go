package seam

import "testing"

func TestOurBrokersOnApacheZooKeeper(t *testing.T) {
	perform(t, cast{coordinator: apache, brokers: []kind{ours, ours, ours}}, 1)
}

func TestApacheBrokersOnOurCoordinators(t *testing.T) {
	perform(t, cast{coordinator: ours, brokers: []kind{apache, apache, apache}}, 1)
}

func TestOneApacheBrokerAmongOurs(t *testing.T) {
	perform(t, cast{coordinator: ours, brokers: []kind{ours, apache, ours}}, 2)
}

func TestOneOfOursAmongApacheBrokers(t *testing.T) {
	perform(t, cast{coordinator: apache, brokers: []kind{apache, ours, apache}}, 2)
}

func TestOneApacheBrokerAmongOursOnApacheZooKeeper(t *testing.T) {
	everyCombination(t)
	perform(t, cast{coordinator: apache, brokers: []kind{ours, apache, ours}}, 2)
}

func TestOneOfOursAmongApacheBrokersOnOurCoordinators(t *testing.T) {
	everyCombination(t)
	perform(t, cast{coordinator: ours, brokers: []kind{apache, ours, apache}}, 2)
}

// perform is the whole play. The star, the only broker of its kind in a mixed cluster, is first
// the controller, the coordinator of the consumer group and a leader, and a broker of the other
// kind dies; then the star dies, and these parts pass to the other kind.
func perform(t *testing.T, cast cast, star int) {
	s := setUp(t, cast)
	s.open(t, star)
	s.begin(t, star)
	others := 3
	other := s.kinds[others]
	s.sameDescription(t)

	s.kill(t, s.broker(others))
	s.expectController(t, s.kinds[star])
	s.restart(t, s.broker(others))
	s.settle(t)

	s.kill(t, s.broker(star))
	s.expectController(t, other)
	if id := s.coordinatorOf(t, s.group); s.kinds[id] != other {
		t.Fatalf("broker %d coordinates the group and is %s: this test needs %s", id, s.kinds[id], other)
	}
	s.restart(t, s.broker(star))
	s.settle(t)
	s.sameDescription(t)

	s.shutDown(t, s.broker(star))
	s.restart(t, s.broker(star))
	s.settle(t)
	controller := s.expectController(t, other)
	s.shutDown(t, s.broker(controller))
	s.restart(t, s.broker(controller))
	s.settle(t)

	s.sameDescription(t)
	s.finish(t)
	s.flood(t)
	s.sameLogs(t)
	s.deleteTopic(t)
}
