package replication

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
)

// sessionClient is broker 2 as broker 1 sees it: it fetches by a session and counts what it
// gets. There is no log behind it.
type sessionClient struct {
	t       testing.TB
	c       *testCluster
	session Standing
	parts   map[int32]*sessionPart
	busy    map[*sessionPart]struct{} // to be named by the next fetch
}

type sessionPart struct {
	tp                cluster.TopicPartition
	epoch             cluster.LeaderEpoch
	offset            cluster.Offset
	knownHW, knownLow cluster.Offset
	standing          StandingPart
}

func newSessionClient(c *testCluster, partitions int32) *sessionClient {
	s := &sessionClient{t: c.t, c: c, parts: map[int32]*sessionPart{}, busy: map[*sessionPart]struct{}{}}
	for number := range partitions {
		tp := cluster.TopicPartition{Topic: "t", Partition: number}
		c.elect(tp, 1, ids(1, 2), 1)
		p := &sessionPart{tp: tp, knownHW: cluster.NoOffset, knownLow: cluster.NoOffset}
		p.standing.Session, p.standing.Owner = &s.session, p
		s.parts[number] = p
		s.busy[p] = struct{}{}
	}
	return s
}

// start sends a fetch of what is not quiet.
func (s *sessionClient) start(maxWait time.Duration) <-chan []FetchResult {
	for _, stirred := range s.session.TakeStirred() {
		s.busy[stirred.Owner.(*sessionPart)] = struct{}{}
	}
	request := FetchRequest{Replica: 2, ReplicaEpoch: 200, MaxWait: maxWait, MinBytes: 1, MaxBytes: 1 << 20, LeaderOnly: true, Standing: &s.session}
	for p := range s.busy {
		if p.standing.Quiet() {
			delete(s.busy, p)
			continue
		}
		request.Parts = append(request.Parts, FetchPart{
			TP: p.tp, CurrentLeaderEpoch: p.epoch, FetchOffset: p.offset, LastFetchedEpoch: cluster.NoLeaderEpoch, MaxBytes: 1 << 20,
			Tag: p, Standing: &p.standing, KnownHighWatermark: p.knownHW, KnownLogStart: p.knownLow,
		})
	}
	done := make(chan []FetchResult, 1)
	s.c.brokers[1].manager.Fetch(request, func(results []FetchResult) { done <- results })
	return done
}

// take works an answer off and returns the partitions in it.
func (s *sessionClient) take(done <-chan []FetchResult) map[int32]FetchResult {
	s.t.Helper()
	got := map[int32]FetchResult{}
	select {
	case results := <-done:
		for _, result := range results {
			p := result.Tag.(*sessionPart)
			if _, twice := got[p.tp.Partition]; twice {
				s.t.Errorf("%v is in the answer twice", p.tp)
			}
			got[p.tp.Partition] = result
			s.busy[p] = struct{}{}
			if result.Err != nil {
				continue
			}
			p.knownHW, p.knownLow = result.HighWatermark, result.LogStartOffset
			if result.Slice != nil {
				if result.Slice.FirstOffset() != p.offset {
					s.t.Errorf("%v: records from %d, asked from %d", p.tp, result.Slice.FirstOffset(), p.offset)
				}
				p.offset = result.Slice.NextOffset()
				_ = result.Slice.Close()
			}
		}
	case <-time.After(10 * time.Second):
		s.t.Fatal("the fetch was never answered")
	}
	return got
}

// settle fetches until everything is quiet.
func (s *sessionClient) settle() {
	s.t.Helper()
	for range 10 {
		s.take(s.start(0))
		quiet := 0
		for _, p := range s.parts {
			if p.standing.Quiet() {
				quiet++
			}
		}
		if quiet == len(s.parts) {
			return
		}
	}
	s.t.Fatal("the session does not fall quiet")
}

func waitersOf(m *Manager) (count int) {
	for _, h := range m.allHosts() {
		h.mu.Lock()
		for w := h.waiters.head; w != nil; w = w.next {
			count++
		}
		h.mu.Unlock()
	}
	return count
}

// A quiet partition is in no request, and an append to it wakes the fetch that waits.
func TestQuietPartitionIsStirredByAppend(t *testing.T) {
	c := newTestCluster(t, 1, nil)
	s := newSessionClient(c, 20)
	if got := s.take(s.start(0)); len(got) != 20 {
		t.Fatalf("the first answer has %d partitions", len(got))
	}
	s.settle()
	done := s.start(time.Minute)
	appended := c.produce(1, s.parts[3].tp, AcksAll, "x")
	if got := s.take(done); len(got) != 1 || s.parts[3].offset != 1 {
		t.Fatalf("answer %v, next offset %d", got, s.parts[3].offset)
	}
	s.take(s.start(0)) // tells the leader the new offset
	if result := c.await(appended); result.Err != nil {
		t.Fatal(result.Err)
	}
	s.settle()
	if s.parts[3].knownHW != 1 {
		t.Errorf("high watermark %d", s.parts[3].knownHW)
	}
}

// What is stirred while no fetch waits is in the next one, though it does not name it first.
func TestQuietPartitionIsStirredBetweenFetches(t *testing.T) {
	c := newTestCluster(t, 1, nil)
	s := newSessionClient(c, 3)
	s.settle()
	appended := c.produce(1, s.parts[1].tp, AcksAll, "x")
	if got := s.take(s.start(time.Minute)); len(got) != 1 || s.parts[1].offset != 1 {
		t.Fatalf("%v", got)
	}
	s.take(s.start(0))
	if result := c.await(appended); result.Err != nil {
		t.Fatal(result.Err)
	}
}

func TestQuietPartitionIsStirredByNewEpoch(t *testing.T) {
	c := newTestCluster(t, 1, nil)
	s := newSessionClient(c, 3)
	s.settle()
	done := s.start(time.Minute)
	c.elect(s.parts[2].tp, 1, ids(1, 2), 1)
	if got := s.take(done); len(got) != 1 || !errors.Is(got[2].Err, kerr.FencedLeaderEpoch) {
		t.Fatalf("%+v", got)
	}
	s.parts[2].epoch = 1
	s.parts[2].knownHW = cluster.NoOffset
	s.settle()
}

// A request may name a partition that is quiet, with another offset: it is fetched once.
func TestQuietPartitionNamedAgain(t *testing.T) {
	c := newTestCluster(t, 1, nil)
	s := newSessionClient(c, 2)
	s.settle()
	appended := c.produce(1, s.parts[0].tp, AcksAll, "x", "y")
	s.take(s.start(time.Minute))
	s.settle()
	if result := c.await(appended); result.Err != nil {
		t.Fatal(result.Err)
	}
	s.parts[0].offset = 0
	if got := s.take(s.startNaming(s.parts[0])); len(got) != 1 || s.parts[0].offset != 2 {
		t.Fatalf("%+v, next offset %d", got, s.parts[0].offset)
	}
}

func (s *sessionClient) startNaming(p *sessionPart) <-chan []FetchResult {
	done := make(chan []FetchResult, 1)
	s.c.brokers[1].manager.Fetch(FetchRequest{
		Replica: 2, ReplicaEpoch: 200, MaxWait: time.Minute, MinBytes: 1, MaxBytes: 1 << 20, LeaderOnly: true, Standing: &s.session,
		Parts: []FetchPart{{
			TP: p.tp, CurrentLeaderEpoch: p.epoch, FetchOffset: p.offset, LastFetchedEpoch: cluster.NoLeaderEpoch, MaxBytes: 1 << 20,
			Tag: p, Standing: &p.standing, KnownHighWatermark: p.knownHW, KnownLogStart: p.knownLow,
		}},
	}, func(results []FetchResult) { done <- results })
	return done
}

func TestForgottenPartsLeaveNothingBehind(t *testing.T) {
	c := newTestCluster(t, 1, nil)
	s := newSessionClient(c, 5)
	s.settle()
	if count := waitersOf(c.brokers[1].manager); count != 5 {
		t.Fatalf("%d waiters", count)
	}
	s.session.Close()
	for _, p := range s.parts {
		p.standing.Forget()
	}
	for _, p := range s.parts {
		s.busy[p] = struct{}{}
	}
	s.take(s.start(0)) // a fetch that came late must not settle anything
	if count := waitersOf(c.brokers[1].manager); count != 0 {
		t.Fatalf("%d waiters are left", count)
	}
}

// Producers wait for acks=all, which only the session can bring: a stir that gets lost would
// leave one waiting. What the client has fetched in the end is what full fetches would have.
func TestSessionMissesNothing(t *testing.T) {
	const partitions, producers, appends = 50, 4, 150
	c := newTestCluster(t, 1, nil)
	s := newSessionClient(c, partitions)
	stop := make(chan struct{})
	var fetching, producing sync.WaitGroup
	fetching.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				s.take(s.start(20 * time.Millisecond))
			}
		}
	})
	for producer := range producers {
		producing.Go(func() {
			for i := range appends {
				number := int32((i*7 + producer*13) % partitions)
				tp := cluster.TopicPartition{Topic: "t", Partition: number}
				select {
				case result := <-c.produce(1, tp, AcksAll, fmt.Sprint(i)):
					if result.Err != nil {
						t.Errorf("%v: %v", tp, result.Err)
					}
				case <-time.After(20 * time.Second):
					t.Errorf("%v: never acknowledged", tp)
					return
				}
			}
		})
	}
	producing.Wait()
	close(stop)
	fetching.Wait()
	s.settle()
	total := cluster.Offset(0)
	for number, p := range s.parts {
		end := c.describe(1, p.tp)
		if p.offset != end.LogEnd || p.knownHW != end.HighWatermark || end.HighWatermark != end.LogEnd {
			t.Errorf("partition %d: fetched to %d, told high watermark %d; leader %+v", number, p.offset, p.knownHW, end)
		}
		total += p.offset
	}
	if total != producers*appends {
		t.Errorf("%d records of %d", total, producers*appends)
	}
}

// BenchmarkIdleSession is what an idle follower's fetch costs the leader, by partitions held.
func BenchmarkIdleSession(b *testing.B) {
	for _, partitions := range []int32{10, 1000} {
		b.Run(fmt.Sprint(partitions), func(b *testing.B) {
			c := newTestCluster(b, 1, nil)
			s := newSessionClient(c, partitions)
			s.settle()
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				s.take(s.start(0))
			}
		})
	}
}
