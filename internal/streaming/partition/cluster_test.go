package partition

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
)

// TestClusterKeepsWhatItAcknowledged drives three replicas, with logs of plain slices and a
// controller that is a few lines, through seeded runs of appends, fetches, lost and late
// messages, elections and restarts. After each step: a leader's high watermark has not moved
// back, it is nowhere past what any member of the maximal ISR holds at the moment it moves,
// and every acknowledged record is in the log of the present leader.
func TestClusterKeepsWhatItAcknowledged(t *testing.T) {
	acknowledged := 0
	for seed := range uint64(300) {
		sim := newSim(seed)
		for step := range 600 {
			sim.step()
			if err := sim.check(); err != nil {
				t.Fatalf("seed %d step %d: %v", seed, step, err)
			}
		}
		acknowledged += sim.acknowledged
	}
	t.Logf("%d records acknowledged", acknowledged)
	if acknowledged < 3000 {
		t.Errorf("only %d records were acknowledged; the runs prove little", acknowledged)
	}
}

type simRecord struct {
	epoch cluster.LeaderEpoch
	id    int
}

type simBroker struct {
	id      cluster.BrokerID
	up      bool
	replica *Replica
	log     []simRecord
	epochs  []EpochEnd // epoch and its *start*, ascending
	highest cluster.Offset
}

type simAlter struct {
	from   cluster.BrokerID
	change *Change
}

type sim struct {
	random  *rand.Rand
	now     Instant
	brokers [3]*simBroker
	// the controller's truth
	state  cluster.PartitionState
	alters []simAlter
	nextID int
	acked  map[int]cluster.Offset

	acknowledged int
	violation    error
}

func newSim(seed uint64) *sim {
	s := &sim{random: rand.New(rand.NewPCG(seed, 7)), now: second, acked: map[int]cluster.Offset{}}
	s.state = cluster.PartitionState{Leader: 1, ISR: []cluster.BrokerID{1, 2, 3}}
	for i := range s.brokers {
		s.brokers[i] = &simBroker{id: cluster.BrokerID(i + 1), up: true}
		s.brokers[i].replica = New(&Settings{Self: s.brokers[i].id, LagTimeMax: testSettings.LagTimeMax}, 0, 0)
	}
	s.tellAll()
	return s
}

func (s *sim) env() *Environment {
	return &Environment{Now: s.now, MinISR: 2, Alive: func(id cluster.BrokerID) bool { return s.brokers[id-1].up }}
}

func (b *simBroker) end() cluster.Offset { return cluster.Offset(len(b.log)) }

func (b *simBroker) assignEpoch(epoch cluster.LeaderEpoch, start cluster.Offset) {
	if n := len(b.epochs); n > 0 && b.epochs[n-1].Epoch == epoch && b.epochs[n-1].End <= start {
		return
	}
	for n := len(b.epochs); n > 0 && (b.epochs[n-1].Epoch >= epoch || b.epochs[n-1].End >= start); n-- {
		b.epochs = b.epochs[:n-1]
	}
	b.epochs = append(b.epochs, EpochEnd{epoch, start})
}

func (b *simBroker) endOffsetFor(epoch cluster.LeaderEpoch) EpochEnd {
	n := len(b.epochs)
	if epoch == -1 || n == 0 || epoch > b.epochs[n-1].Epoch {
		return EpochEnd{-1, -1}
	}
	if epoch == b.epochs[n-1].Epoch {
		return EpochEnd{epoch, b.end()}
	}
	above := slices.IndexFunc(b.epochs, func(e EpochEnd) bool { return e.Epoch > epoch })
	if above == 0 {
		return EpochEnd{epoch, b.epochs[0].End}
	}
	return EpochEnd{b.epochs[above-1].Epoch, b.epochs[above].End}
}

func (b *simBroker) truncate(to cluster.Offset) {
	b.log = b.log[:min(to, b.end())]
	for n := len(b.epochs); n > 0 && b.epochs[n-1].End >= to; n-- {
		b.epochs = b.epochs[:n-1]
	}
	b.replica.Truncated(0, b.end())
}

func (s *sim) leader() *simBroker {
	for _, b := range s.brokers {
		if b.up && b.replica.IsLeader() && b.replica.LeaderEpoch() == s.state.LeaderEpoch {
			return b
		}
	}
	return nil
}

// tell delivers the controller's state to one broker, as LeaderAndIsr would.
func (s *sim) tell(b *simBroker) {
	if !b.up {
		return
	}
	assignment := &Assignment{PartitionState: s.state, Replicas: []cluster.BrokerID{1, 2, 3}}
	verdict, _ := Judge(b.id, b.replica.LeaderEpoch(), b.replica.Role(), cluster.TopicID{}, cluster.TopicID{}, assignment)
	switch verdict {
	case BecomeLeader:
		b.highest = 0
		if taken, _ := b.replica.MakeLeader(assignment, 0, b.end(), s.env()); taken {
			b.assignEpoch(s.state.LeaderEpoch, b.end())
		}
	case BecomeFollower:
		if s.state.Leader != cluster.NoBroker {
			b.replica.MakeFollower(assignment)
		}
	}
	s.release(b)
}

func (s *sim) tellAll() {
	for _, b := range s.brokers {
		s.tell(b)
	}
}

func (s *sim) release(b *simBroker) {
	for _, released := range b.replica.TakeReleased(2, nil) {
		id := released.Token.(int)
		if released.Err != nil {
			continue
		}
		s.acknowledged++
		s.acked[id] = cluster.Offset(slices.IndexFunc(b.log, func(r simRecord) bool { return r.id == id }))
		if s.acked[id] < 0 {
			s.violation = fmt.Errorf("broker %d acknowledged record %d, which it does not hold", b.id, id)
		}
	}
}

func (s *sim) elect() {
	leader := cluster.NoBroker
	var isr []cluster.BrokerID
	for _, id := range s.state.ISR {
		if s.brokers[id-1].up {
			isr = append(isr, id)
		}
	}
	if len(isr) == 0 {
		isr = s.state.ISR[:1] // nobody: offline, one member is kept
	} else if leader = s.state.Leader; leader == cluster.NoBroker || !s.brokers[leader-1].up || s.random.IntN(2) == 0 {
		leader = isr[s.random.IntN(len(isr))]
	}
	s.state.Leader, s.state.ISR = leader, isr
	s.state.LeaderEpoch++
	s.state.PartitionEpoch++
}

func (s *sim) step() {
	s.now += Instant(s.random.IntN(int(second)))
	b := s.brokers[s.random.IntN(3)]
	switch draw := s.random.IntN(100); {
	case draw < 30: // an append at whoever believes to lead
		if !b.up || !b.replica.IsLeader() || !b.replica.EnoughReplicas(2) {
			return
		}
		s.nextID++
		b.log = append(b.log, simRecord{b.replica.LeaderEpoch(), s.nextID})
		b.replica.Appended(b.end(), s.env())
		b.replica.Await(b.end(), s.nextID)
		s.release(b)
	case draw < 72:
		s.fetch(b)
	case draw < 84:
		s.answerAlter()
	case draw < 86:
		if change := b.replica.MaybeShrink(s.env()); b.up && change != nil {
			s.alters = append(s.alters, simAlter{b.id, change})
		}
	case draw < 89: // LeaderAndIsr gets through to one
		s.tell(b)
	case draw < 90: // the note of a leadership is on disk
		if since, _, unnoted := b.replica.Unnoted(); b.up && unnoted {
			b.replica.Noted(since, s.env())
			s.release(b)
		}
	case draw < 91:
		s.elect()
		if s.random.IntN(2) == 0 {
			s.tellAll()
		}
	case draw < 92: // killed: the page cache survives, the replica's state does not
		up := 0
		for _, other := range s.brokers {
			if other.up {
				up++
			}
		}
		if b.up && up > 1 {
			b.up = false
			s.elect()
		}
	default:
		if !b.up {
			b.up = true
			// The checkpoint of the high watermark may be old.
			checkpoint := cluster.Offset(s.random.IntN(int(b.replica.HighWatermark()) + 1))
			b.replica = New(&Settings{Self: b.id, LagTimeMax: testSettings.LagTimeMax}, checkpoint, checkpoint)
			s.elect()
			s.tell(b)
		}
	}
}

// fetch is one round of b's fetcher against the leader it was told.
func (s *sim) fetch(b *simBroker) {
	if !b.up || b.replica.Role() != Follower || b.replica.Leader() == cluster.NoBroker {
		return
	}
	leader := s.brokers[b.replica.Leader()-1]
	if !leader.up || !leader.replica.IsLeader() || leader.replica.CheckEpoch(b.replica.LeaderEpoch()) != nil {
		return
	}
	if len(b.epochs) == 0 {
		b.truncate(b.replica.HighWatermark())
	} else {
		lookup := leader.endOffsetFor(b.epochs[len(b.epochs)-1].Epoch)
		diverging, err := Divergence(b.epochs[len(b.epochs)-1].Epoch, b.end(), 0, lookup)
		if err != nil {
			if leader.end() < b.end() {
				b.truncate(leader.end())
			}
			return
		}
		if diverging {
			to, _ := TruncationOffset(lookup, b.endOffsetFor(lookup.Epoch), b.end(), b.end())
			b.truncate(to)
			return
		}
	}
	if b.end() > leader.end() {
		b.truncate(leader.end())
		return
	}
	_, change := leader.replica.FollowerFetched(&FollowerFetch{Replica: b.id, Epoch: -1, Offset: b.end()}, s.env())
	if change != nil {
		s.alters = append(s.alters, simAlter{leader.id, change})
	}
	s.release(leader)
	if s.random.IntN(5) == 0 {
		return // the answer is lost
	}
	count := min(len(leader.log)-len(b.log), s.random.IntN(4))
	for _, record := range leader.log[len(b.log) : len(b.log)+count] {
		b.assignEpoch(record.epoch, b.end())
		b.log = append(b.log, record)
	}
	b.replica.FollowerHighWatermark(leader.replica.HighWatermark(), 0, b.end())
}

// answerAlter lets the controller work off one AlterPartition, which may be late.
func (s *sim) answerAlter() {
	if len(s.alters) == 0 {
		return
	}
	alter := s.alters[0]
	s.alters = s.alters[1:]
	from := s.brokers[alter.from-1]
	var err error
	switch {
	case alter.change.LeaderEpoch != s.state.LeaderEpoch:
		err = kerr.FencedLeaderEpoch
	case alter.change.PartitionEpoch != s.state.PartitionEpoch:
		err = kerr.InvalidUpdateVersion
	case slices.ContainsFunc(alter.change.ISR, func(id cluster.BrokerID) bool { return !s.brokers[id-1].up }):
		err = kerr.IneligibleReplica
	default:
		s.state.ISR = alter.change.ISR
		s.state.PartitionEpoch++
	}
	if !from.up {
		return
	}
	state := s.state
	_, again := from.replica.ChangeDone(alter.change.Sequence, &state, err, s.env())
	if again != nil {
		s.alters = append(s.alters, simAlter{from.id, again})
	}
	s.release(from)
}

func (s *sim) check() error {
	if s.violation != nil {
		return s.violation
	}
	for _, b := range s.brokers {
		if !b.up || !b.replica.IsLeader() {
			continue
		}
		if hw := b.replica.HighWatermark(); hw < b.highest {
			return fmt.Errorf("broker %d: high watermark went back from %d to %d", b.id, b.highest, hw)
		} else if hw > b.highest {
			b.highest = hw
			for _, id := range b.replica.MaximalISR() {
				if end := b.replica.FollowerEnd(id); id != b.id && end != cluster.NoOffset && end < hw && b.replica.ChangePending() {
					return fmt.Errorf("broker %d: high watermark %d past %d, which is at %d", b.id, hw, id, end)
				}
			}
		}
		if b.replica.HighWatermark() > b.end() {
			return fmt.Errorf("broker %d: high watermark past the log end", b.id)
		}
	}
	leader := s.leader()
	if leader == nil {
		return nil
	}
	for id, offset := range s.acked {
		if offset >= leader.end() || leader.log[offset].id != id {
			return fmt.Errorf("record %d was acknowledged at %d and leader %d (epoch %d) does not have it there", id, offset, leader.id, s.state.LeaderEpoch)
		}
	}
	return nil
}
