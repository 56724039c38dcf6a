package controller

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
)

// BenchmarkLostBroker is one wave: three brokers, ten thousand partitions with a replica on
// each, one broker gone. It measures from the moment its port is closed to the moment the
// last heir has been told of its last partition.
func BenchmarkLostBroker(b *testing.B) {
	const partitions = 10_000
	for b.Loop() {
		b.StopTimer()
		s := newStage(b, 3)
		controller := s.createMany(partitions)
		victim := s.brokers[1+controller.id%3]
		for len(s.received) > 0 {
			<-s.received
		}
		b.StartTimer()
		struck := time.Now()
		victim.silence()
		first := time.Duration(0)
		for told := 0; told < partitions/3; {
			s.await("the elections", func(got received) bool {
				told += leading(got, got.by)
				if told > 0 && first == 0 {
					first = time.Since(struck)
				}
				return true
			})
		}
		b.StopTimer()
		b.ReportMetric(float64(first.Milliseconds()), "ms-to-first")
		for _, broker := range s.brokers {
			broker.stop()
		}
		b.StartTimer()
	}
}

// leading counts the partitions of a LeaderAndIsr that by leads with an epoch above 0, or,
// for by 0, all of them.
func leading(got received, by cluster.BrokerID) int {
	count := 0
	if request, ok := got.request.(*kmsg.LeaderAndISRRequest); ok {
		for _, topic := range request.TopicStates {
			for _, state := range topic.PartitionStates {
				if by == 0 || state.Leader == int32(by) && state.LeaderEpoch > 0 && len(state.ISR) == 2 && state.ZKVersion == 1 {
					count++
				}
			}
		}
	}
	return count
}

// createMany makes a topic whose partitions have their replicas on brokers 1 to 3, and waits
// until they have been told.
func (s *stage) createMany(partitions int) *scriptedBroker {
	controller := s.awaitController(0)
	lists := make([][]cluster.BrokerID, partitions)
	for i := range lists {
		first := cluster.BrokerID(i%3) + 1
		lists[i] = ids(first, 1+first%3, 1+(first+1)%3)
	}
	s.createTopic("t", lists...)
	for told := 0; told < 3*partitions; {
		s.await("the new partitions", func(got received) bool { told += leading(got, 0); return true })
	}
	return controller
}

// BenchmarkFailover is the same with the controller as the victim, from the end of its
// session on: a new controller reads everything, elects and tells.
func BenchmarkFailover(b *testing.B) {
	const partitions = 10_000
	for b.Loop() {
		b.StopTimer()
		s := newStage(b, 3)
		victim := s.createMany(partitions)
		victim.silence()
		for len(s.received) > 0 {
			<-s.received
		}
		b.StartTimer()
		victim.stop()
		for told := 0; told < partitions/3; {
			s.await("the elections", func(got received) bool { told += leading(got, got.by); return true })
		}
		b.StopTimer()
		for _, broker := range s.brokers {
			broker.stop()
		}
		b.StartTimer()
	}
}
