package partition

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
)

const second = Instant(time.Second)

var testSettings = &Settings{Self: 1, LagTimeMax: 30 * time.Second}

func alive(cluster.BrokerID) bool { return true }

func at(now Instant) *Environment { return &Environment{Now: now, MinISR: 1, Alive: alive} }

func assign(leader cluster.BrokerID, epoch cluster.LeaderEpoch, version cluster.PartitionEpoch, isr ...cluster.BrokerID) *Assignment {
	return &Assignment{
		PartitionState: cluster.PartitionState{Leader: leader, LeaderEpoch: epoch, PartitionEpoch: version, ISR: isr},
		Replicas:       []cluster.BrokerID{1, 2, 3},
	}
}

func leaderOf(t *testing.T, logEnd cluster.Offset, isr ...cluster.BrokerID) *Replica {
	t.Helper()
	r := New(testSettings, 0, 0)
	if taken, _ := r.MakeLeader(assign(1, 5, 10, isr...), 0, logEnd, at(second)); !taken {
		t.Fatal("leadership not taken")
	}
	r.Noted(5, at(second))
	return r
}

func fetched(r *Replica, id cluster.BrokerID, offset cluster.Offset, now Instant) (bool, *Change) {
	return r.FollowerFetched(&FollowerFetch{Replica: id, Epoch: cluster.UnknownBrokerEpoch, Offset: offset}, at(now))
}

func TestJudge(t *testing.T) {
	id, other := cluster.TopicID{1}, cluster.TopicID{2}
	none := cluster.TopicID{}
	for _, test := range []struct {
		name             string
		current          cluster.LeaderEpoch
		role             Role
		logID, requestID cluster.TopicID
		leader           cluster.BrokerID
		epoch            cluster.LeaderEpoch
		replicas         []cluster.BrokerID
		verdict          Verdict
		err              error
	}{
		{"new leader", -1, Unassigned, none, id, 1, 0, []cluster.BrokerID{1, 2}, BecomeLeader, nil},
		{"new follower", -1, Unassigned, none, id, 2, 0, []cluster.BrokerID{1, 2}, BecomeFollower, nil},
		{"no leader", 3, Leader, id, id, cluster.NoBroker, 4, []cluster.BrokerID{1, 2}, BecomeFollower, nil},
		{"not assigned", 3, Follower, id, id, 2, 4, []cluster.BrokerID{2, 3}, Refuse, kerr.UnknownTopicOrPartition},
		{"old", 3, Follower, id, id, 2, 2, []cluster.BrokerID{1, 2}, Refuse, kerr.StaleControllerEpoch},
		{"equal", 3, Follower, id, id, 2, 3, []cluster.BrokerID{1, 2}, Refuse, kerr.StaleControllerEpoch},
		{"equal, id appears", 3, Follower, none, id, 2, 3, []cluster.BrokerID{1, 2}, AssignTopicID, nil},
		{"equal, id goes", 3, Follower, id, none, 2, 3, []cluster.BrokerID{1, 2}, DropTopicID, nil},
		{"equal, id goes, leader", 3, Leader, id, none, 1, 3, []cluster.BrokerID{1, 2}, Refuse, kerr.StaleControllerEpoch},
		{"another topic", 3, Follower, id, other, 1, 9, []cluster.BrokerID{1, 2}, Refuse, kerr.InconsistentTopicID},
	} {
		assignment := assign(test.leader, test.epoch, 0)
		assignment.Replicas = test.replicas
		verdict, err := Judge(1, test.current, test.role, test.logID, test.requestID, assignment)
		if verdict != test.verdict || !errors.Is(err, test.err) {
			t.Errorf("%s: got %v, %v; want %v, %v", test.name, verdict, err, test.verdict, test.err)
		}
	}
}

func TestJudgeStop(t *testing.T) {
	for _, test := range []struct {
		requested cluster.LeaderEpoch
		err       error
	}{{-1, nil}, {-2, nil}, {5, nil}, {6, nil}, {4, kerr.FencedLeaderEpoch}} {
		if err := JudgeStop(5, test.requested); !errors.Is(err, test.err) {
			t.Errorf("epoch %d: got %v, want %v", test.requested, err, test.err)
		}
	}
}

func TestCheckEpoch(t *testing.T) {
	r := leaderOf(t, 0, 1)
	for _, test := range []struct {
		epoch cluster.LeaderEpoch
		err   error
	}{{-1, nil}, {5, nil}, {4, kerr.FencedLeaderEpoch}, {6, kerr.UnknownLeaderEpoch}} {
		if err := r.CheckEpoch(test.epoch); !errors.Is(err, test.err) {
			t.Errorf("epoch %d: got %v, want %v", test.epoch, err, test.err)
		}
	}
}

func TestDivergence(t *testing.T) {
	for _, test := range []struct {
		name        string
		lastFetched cluster.LeaderEpoch
		offset      cluster.Offset
		lookup      EpochEnd
		diverging   bool
		err         error
	}{
		{"level", 3, 100, EpochEnd{3, 100}, false, nil},
		{"behind", 3, 50, EpochEnd{3, 100}, false, nil},
		{"longer than the epoch", 3, 120, EpochEnd{3, 100}, true, nil},
		{"epoch the leader has not", 3, 90, EpochEnd{2, 80}, true, nil},
		{"unknown epoch", 9, 90, EpochEnd{-1, -1}, false, kerr.OffsetOutOfRange},
		{"below the log start, before divergence", 3, 5, EpochEnd{2, 2}, false, kerr.OffsetOutOfRange},
	} {
		diverging, err := Divergence(test.lastFetched, test.offset, 10, test.lookup)
		if diverging != test.diverging || !errors.Is(err, test.err) {
			t.Errorf("%s: got %v, %v", test.name, diverging, err)
		}
	}
}

func TestTruncationOffset(t *testing.T) {
	for _, test := range []struct {
		name          string
		leader, local EpochEnd
		offset        cluster.Offset
		done          bool
	}{
		{"leader's end undefined", EpochEnd{3, -1}, EpochEnd{3, 50}, 70, true},
		{"leader's epoch undefined", EpochEnd{-1, 60}, EpochEnd{3, 50}, 60, true},
		{"leader's epoch undefined, past our end", EpochEnd{-1, 600}, EpochEnd{3, 50}, 100, true},
		{"nothing known here", EpochEnd{3, 60}, EpochEnd{-1, -1}, 60, true},
		{"epoch unknown here", EpochEnd{3, 60}, EpochEnd{2, 40}, 40, false},
		{"same epoch", EpochEnd{3, 60}, EpochEnd{3, 80}, 60, true},
		{"same epoch, ours shorter", EpochEnd{3, 90}, EpochEnd{3, 80}, 80, true},
	} {
		offset, done := TruncationOffset(test.leader, test.local, 70, 100)
		if offset != test.offset || done != test.done {
			t.Errorf("%s: got %d, %v; want %d, %v", test.name, offset, done, test.offset, test.done)
		}
	}
}

func TestPartitionEpochGuard(t *testing.T) {
	r := leaderOf(t, 0, 1)
	if taken, _ := r.MakeLeader(assign(1, 6, 9, 1), 0, 0, at(0)); taken {
		t.Error("an older partition epoch made a leader")
	}
	if r.MakeFollower(assign(2, 6, 9, 2)) {
		t.Error("an older partition epoch made a follower")
	}
	if r.LeaderEpoch() != 5 {
		t.Errorf("leader epoch became %d", r.LeaderEpoch())
	}
	if !r.MakeFollower(assign(2, 6, 11, 2)) || r.Role() != Follower {
		t.Error("a newer partition epoch was not followed")
	}
}

func TestHighWatermarkWaitsForTheISR(t *testing.T) {
	r := leaderOf(t, 10, 1, 2)
	if r.HighWatermark() != 0 {
		t.Fatalf("moved to %d before the follower spoke", r.HighWatermark())
	}
	if moved, _ := fetched(r, 2, 7, 2*second); !moved || r.HighWatermark() != 7 {
		t.Fatalf("high watermark %d, want 7", r.HighWatermark())
	}
	if moved, _ := fetched(r, 2, 3, 3*second); moved || r.HighWatermark() != 7 {
		t.Fatal("moved back")
	}
	r.Appended(12, at(3*second))
	if moved, _ := fetched(r, 2, 12, 4*second); !moved || r.HighWatermark() != 12 {
		t.Fatalf("high watermark %d, want 12", r.HighWatermark())
	}
}

func TestHighWatermarkStandsBelowMinISR(t *testing.T) {
	r := New(testSettings, 0, 0)
	env := &Environment{Now: second, MinISR: 2, Alive: alive}
	r.MakeLeader(assign(1, 5, 10, 1), 0, 10, env)
	if r.Appended(20, env) || r.HighWatermark() != 0 {
		t.Fatalf("high watermark %d under min ISR", r.HighWatermark())
	}
	if r.EnoughReplicas(2) {
		t.Error("one replica is enough for two")
	}
	if !leaderOf(t, 0, 1).EnoughReplicas(1) {
		t.Error("one replica is not enough for one")
	}
	// A topic with fewer replicas than min.insync.replicas wants all of them.
	single := assign(1, 5, 10, 1)
	single.Replicas = []cluster.BrokerID{1}
	r = New(testSettings, 0, 0)
	if _, moved := r.MakeLeader(single, 0, 10, env); !moved || r.HighWatermark() != 10 {
		t.Errorf("single replica: high watermark %d", r.HighWatermark())
	}
}

func TestHighWatermarkWaitsForAReplicaAboutToJoin(t *testing.T) {
	r := leaderOf(t, 10, 1)
	if r.HighWatermark() != 10 {
		t.Fatalf("high watermark %d", r.HighWatermark())
	}
	if _, change := fetched(r, 2, 10, second); change == nil {
		t.Fatal("no expansion")
	}
	if r.Appended(12, at(2*second)); r.HighWatermark() != 10 {
		t.Fatalf("did not wait for the replica that joins: %d", r.HighWatermark())
	}
}

func TestExpandAndItsOutcomes(t *testing.T) {
	for _, test := range []struct {
		name    string
		err     error
		pending bool
		again   bool
	}{
		{"committed", nil, false, false},
		{"ineligible", kerr.IneligibleReplica, false, false},
		{"not attempted", kerr.OperationNotAttempted, false, false},
		{"fenced", kerr.FencedLeaderEpoch, true, false},
		{"version", kerr.InvalidUpdateVersion, true, false},
		{"unknown", kerr.UnknownServerError, true, true},
	} {
		r := leaderOf(t, 10, 1)
		_, change := fetched(r, 2, 10, second)
		if change == nil || !slices.Equal(change.ISR, []cluster.BrokerID{1, 2}) || change.PartitionEpoch != 10 {
			t.Fatalf("%s: change %+v", test.name, change)
		}
		if _, second := fetched(r, 3, 10, second); second != nil {
			t.Fatalf("%s: a second change while one is under way", test.name)
		}
		state := &cluster.PartitionState{Leader: 1, LeaderEpoch: 5, PartitionEpoch: 11, ISR: change.ISR}
		_, again := r.ChangeDone(change.Sequence, state, test.err, at(second))
		if r.ChangePending() != test.pending || (again != nil) != test.again {
			t.Errorf("%s: pending %v, again %v", test.name, r.ChangePending(), again)
		}
		if test.err == nil && (!slices.Equal(r.ISR(), change.ISR) || r.PartitionEpoch() != 11) {
			t.Errorf("%s: ISR %v epoch %d", test.name, r.ISR(), r.PartitionEpoch())
		}
	}
}

func TestExpandConditions(t *testing.T) {
	r := leaderOf(t, 10, 1) // high watermark 10, epoch started at 10
	if _, change := fetched(r, 2, 9, second); change != nil {
		t.Error("joined below the high watermark")
	}
	dead := &Environment{Now: second, MinISR: 1, Alive: func(cluster.BrokerID) bool { return false }}
	if _, change := r.FollowerFetched(&FollowerFetch{Replica: 2, Offset: 10}, dead); change != nil {
		t.Error("a dead broker joined")
	}
	r = New(testSettings, 4, 4)
	r.MakeLeader(assign(1, 5, 10, 1, 3), 0, 10, at(second)) // high watermark 4, epoch started at 10
	if _, change := fetched(r, 2, 6, second); change != nil {
		t.Error("joined below the start of the epoch")
	}
	if _, change := fetched(r, 7, 10, second); change != nil {
		t.Error("a broker that is not assigned joined")
	}
}

func TestSupersededChangeIsIgnored(t *testing.T) {
	r := leaderOf(t, 10, 1)
	_, change := fetched(r, 2, 10, second)
	r.MakeLeader(assign(1, 6, 12, 1, 3), 0, 10, at(second))
	r.ChangeDone(change.Sequence, &cluster.PartitionState{LeaderEpoch: 6, PartitionEpoch: 13, ISR: change.ISR}, nil, at(second))
	if !slices.Equal(r.ISR(), []cluster.BrokerID{1, 3}) || r.PartitionEpoch() != 12 {
		t.Errorf("ISR %v, partition epoch %d", r.ISR(), r.PartitionEpoch())
	}
}

func TestShrink(t *testing.T) {
	r := leaderOf(t, 10, 1, 2, 3)
	fetched(r, 2, 10, second)
	fetched(r, 3, 5, second)
	if change := r.MaybeShrink(at(31 * second)); change != nil {
		t.Fatalf("shrank within the lag time: %v", change.ISR)
	}
	change := r.MaybeShrink(at(31*second + 1))
	if change == nil || !slices.Equal(change.ISR, []cluster.BrokerID{1, 2}) {
		t.Fatalf("change %+v", change)
	}
	if r.HighWatermark() != 5 {
		t.Fatalf("high watermark %d while the shrink is not committed", r.HighWatermark())
	}
	moved, _ := r.ChangeDone(change.Sequence, &cluster.PartitionState{LeaderEpoch: 5, PartitionEpoch: 11, ISR: change.ISR}, nil, at(40*second))
	if !moved || r.HighWatermark() != 10 {
		t.Errorf("high watermark %d after the shrink", r.HighWatermark())
	}
}

func TestSlowButSteadyFollowerStays(t *testing.T) {
	r := leaderOf(t, 10, 1, 2)
	now := second
	for end := cluster.Offset(20); now < 100*second; end += 10 {
		fetched(r, 2, end-10, now) // always what the leader had at the fetch before
		r.Appended(end, at(now))
		now += 10 * second
		if change := r.MaybeShrink(at(now)); change != nil {
			t.Fatalf("dropped at %d", now)
		}
	}
}

func TestOldIncarnationsAreRefused(t *testing.T) {
	r := leaderOf(t, 10, 1, 2)
	r.FollowerFetched(&FollowerFetch{Replica: 2, Epoch: 70, Offset: 10}, at(second))
	for epoch, refused := range map[cluster.BrokerEpoch]bool{-1: false, 69: true, 70: false, 71: false} {
		if r.RefusesIncarnation(2, epoch) != refused {
			t.Errorf("epoch %d: refused %v", epoch, !refused)
		}
	}
	_, change := r.FollowerFetched(&FollowerFetch{Replica: 3, Epoch: 90, Offset: 10}, at(second))
	if !slices.Equal(change.Epochs, []cluster.BrokerEpoch{-1, 70, 90}) {
		t.Errorf("epochs %v", change.Epochs)
	}
}

func TestWaitingAppends(t *testing.T) {
	r := leaderOf(t, 0, 1, 2)
	r.Appended(10, at(second))
	r.Await(10, "a")
	r.Appended(20, at(second))
	r.Await(20, "c")
	r.Await(15, "b")
	fetched(r, 2, 15, second)
	if got := r.TakeReleased(1, nil); !slices.Equal(got, []Released{{"a", nil}, {"b", nil}}) {
		t.Fatalf("released %v", got)
	}
	// The controller takes broker 2 out: still leader, so c is acknowledged.
	r.MakeLeader(assign(1, 6, 11, 1), 0, 20, at(second))
	if got := r.TakeReleased(1, nil); !slices.Equal(got, []Released{{"c", nil}}) {
		t.Fatalf("released %v", got)
	}
}

func TestWaitingAppendsDoNotSurviveAFollowersTerm(t *testing.T) {
	r := leaderOf(t, 0, 1, 2)
	r.Appended(10, at(second))
	r.Await(10, "a")
	r.MakeFollower(assign(2, 6, 11, 2, 1))
	// Leadership comes back before anybody asked, with other records at the offset.
	r.MakeLeader(assign(1, 7, 12, 1), 0, 10, at(second))
	got := r.TakeReleased(1, nil)
	if len(got) != 1 || !errors.Is(got[0].Err, kerr.NotLeaderForPartition) {
		t.Fatalf("released %v", got)
	}
}

// In the epoch that the leader has missed broker 3 led and broker 2 cut its log for it.
func TestALeaderThatMissedAnEpochForgetsItsFollowers(t *testing.T) {
	r := leaderOf(t, 0, 1, 2, 3)
	r.Appended(33, at(second))
	fetched(r, 2, 30, second)
	fetched(r, 3, 28, second)
	r.Await(30, "a")
	if r.HighWatermark() != 28 {
		t.Fatalf("high watermark %d", r.HighWatermark())
	}
	_, moved := r.MakeLeader(assign(1, 7, 12, 1, 2), 0, 33, at(2*second))
	if moved || r.HighWatermark() != 28 || r.FollowerEnd(2) != cluster.NoOffset {
		t.Fatalf("high watermark %d by what broker 2 had: %d", r.HighWatermark(), r.FollowerEnd(2))
	}
	got := r.TakeReleased(1, nil)
	if len(got) != 1 || !errors.Is(got[0].Err, kerr.NotLeaderForPartition) {
		t.Fatalf("released %v", got)
	}
	r.MakeLeader(assign(1, 8, 13, 1, 2), 0, 33, at(2*second))
	r.Noted(7, at(2*second))
	if moved, _ := fetched(r, 2, 33, 3*second); !moved || r.HighWatermark() != 33 {
		t.Fatalf("high watermark %d", r.HighWatermark())
	}
}

func TestAcknowledgementBelowMinISR(t *testing.T) {
	r := leaderOf(t, 0, 1, 2)
	r.Appended(10, at(second))
	r.Await(10, "a")
	r.Await(10, "forgotten")
	r.Forget("forgotten")
	fetched(r, 2, 10, second)
	r.isr.committed = []cluster.BrokerID{1}
	got := r.TakeReleased(2, nil)
	if len(got) != 1 || !errors.Is(got[0].Err, kerr.NotEnoughReplicasAfterAppend) {
		t.Fatalf("released %v", got)
	}
}

func TestFollowerHighWatermark(t *testing.T) {
	r := New(testSettings, 3, 3)
	r.MakeFollower(assign(2, 1, 1, 2))
	for _, test := range []struct{ leader, start, end, want cluster.Offset }{
		{5, 0, 10, 5}, {20, 0, 10, 10}, {4, 0, 10, 4}, {4, 6, 10, 6},
	} {
		if r.FollowerHighWatermark(test.leader, test.start, test.end); r.HighWatermark() != test.want {
			t.Errorf("%+v: %d", test, r.HighWatermark())
		}
	}
}

// After an unclean stop a follower shows consumers only what was on disk for certain, until a
// leader has compared the logs.
func TestFollowerShowsWhatIsProven(t *testing.T) {
	r := New(testSettings, 30, 20)
	r.MakeFollower(assign(2, 1, 1, 2))
	if r.Readable() != 20 || r.HighWatermark() != 30 {
		t.Fatalf("readable up to %d, the high watermark is %d", r.Readable(), r.HighWatermark())
	}
	if moved := r.FollowerHighWatermark(30, 0, 40); !moved || r.Readable() != 30 {
		t.Fatalf("readable up to %d (moved %v) after the leader has answered", r.Readable(), moved)
	}
	r.MakeFollower(assign(3, 2, 1, 2))
	if r.Readable() != 30 {
		t.Fatalf("readable up to %d under another leader", r.Readable())
	}
	r = New(testSettings, 30, 20)
	r.MakeLeader(assign(1, 1, 1, 2), 0, 40, at(second))
	if r.Readable() != 30 {
		t.Fatalf("a leader shows %d", r.Readable())
	}
}

// A follower that the controller refuses, because it is shutting down, must not hold the high
// watermark back until the lag time is over: acks=all waited for half a minute.
func TestARefusedFollowerDoesNotHoldTheHighWatermark(t *testing.T) {
	r := leaderOf(t, 100, 1, 2)
	fetched(r, 2, 100, second)
	_, change := fetched(r, 3, 100, second)
	if change == nil {
		t.Fatal("no expansion proposed")
	}
	r.Appended(110, at(second))
	fetched(r, 2, 110, second)
	if r.HighWatermark() != 100 {
		t.Fatalf("high watermark %d while replica 3 may be in the ISR", r.HighWatermark())
	}
	if moved, _ := r.ChangeDone(change.Sequence, nil, kerr.IneligibleReplica, at(second)); !moved || r.HighWatermark() != 110 {
		t.Errorf("high watermark %d after the refusal, want 110", r.HighWatermark())
	}
}

// A follower that is gone leaves no event behind at the leader; the others' fetches must do.
func TestADeadFollowerDoesNotHoldTheHighWatermark(t *testing.T) {
	r := leaderOf(t, 100, 1, 2)
	fetched(r, 2, 100, second)
	fetched(r, 3, 99, second) // not in the ISR yet, and about to join
	r.Appended(110, at(second))
	fetched(r, 3, 100, second)
	if change := r.currentChange(); change != nil {
		r.ChangeDone(change.Sequence, nil, kerr.OperationNotAttempted, at(second))
	}
	fetched(r, 2, 110, second)
	if r.HighWatermark() == 110 {
		t.Fatal("the high watermark does not wait for a follower that is about to join")
	}
	dead := &Environment{Now: second, MinISR: 1, Alive: func(id cluster.BrokerID) bool { return id != 3 }}
	if moved, _ := r.FollowerFetched(&FollowerFetch{Replica: 2, Epoch: cluster.UnknownBrokerEpoch, Offset: 110}, dead); !moved || r.HighWatermark() != 110 {
		t.Errorf("high watermark %d after replica 3 died, want 110", r.HighWatermark())
	}
}

// A follower that was known to fetch at the log's end has the whole lag time from then on,
// not from the last fetch that was reported.
func TestAttestedFollowerIsNotBehind(t *testing.T) {
	for _, test := range []struct {
		name     string
		attested Instant // 0: not at all
		shrinks  bool
	}{
		{"silent", 0, true},
		{"attested long ago", 5 * second, true},
		{"attested just now", 99 * second, false},
	} {
		r := leaderOf(t, 0, 1, 2)
		fetched(r, 2, 0, 2*second)
		if !r.Settled(2) || r.Settled(3) {
			t.Fatalf("%s: settled %v, %v", test.name, r.Settled(2), r.Settled(3))
		}
		if test.attested != 0 {
			r.Attest(2, test.attested)
		}
		r.Appended(1, at(100*second))
		if r.Settled(2) {
			t.Errorf("%s: settled behind the log's end", test.name)
		}
		r.Attest(2, 101*second) // too late: it is behind
		if change := r.MaybeShrink(at(101 * second)); (change != nil) != test.shrinks {
			t.Errorf("%s: %+v", test.name, change)
		}
	}
}

// What earlier leaders have left uncommitted is committed when it is on disk that this broker
// leads, or with the first record of its own epochs.
func TestHighWatermarkWaitsForTheNote(t *testing.T) {
	begin := func(highWatermark cluster.Offset, replicas ...cluster.BrokerID) *Replica {
		r := New(testSettings, highWatermark, highWatermark)
		assignment := assign(1, 5, 10, replicas...)
		assignment.Replicas = replicas
		r.MakeLeader(assignment, 0, 10, at(second))
		return r
	}
	tests := []struct {
		name          string
		replica       *Replica
		do            func(r *Replica)
		unnoted       bool
		highWatermark cluster.Offset
	}{
		{"two in sync", begin(4, 1, 2), func(r *Replica) { fetched(r, 2, 10, 2*second) }, true, 4},
		{"two in sync, one of them not there yet", begin(4, 1, 2), func(r *Replica) { fetched(r, 2, 7, 2*second) }, true, 4},
		{"two in sync, noted first", begin(4, 1, 2), func(r *Replica) { r.Noted(5, at(second)); fetched(r, 2, 7, 2*second) }, false, 7},
		{"two in sync, noted then", begin(4, 1, 2), func(r *Replica) { fetched(r, 2, 7, 2*second); r.Noted(5, at(second)) }, false, 7},
		{"the note of another leadership", begin(4, 1, 2), func(r *Replica) { fetched(r, 2, 10, 2*second); r.Noted(4, at(second)) }, true, 4},
		{"a record of its own epoch", begin(4, 1, 2), func(r *Replica) { r.Appended(12, at(second)); fetched(r, 2, 11, 2*second) }, true, 11},
		{"that the other does not have", begin(4, 1, 2), func(r *Replica) { r.Appended(12, at(second)); fetched(r, 2, 10, 2*second) }, true, 4},
		{"all is committed", begin(10, 1, 2), func(r *Replica) {}, false, 10},
		{"no other replica", begin(4, 1), func(r *Replica) {}, false, 10},
		{"the next epoch of the same leadership", begin(4, 1, 2), func(r *Replica) {
			r.Noted(5, at(second))
			r.MakeLeader(assign(1, 6, 11, 1), 0, 10, at(second))
		}, false, 10},
		{"the next leadership", begin(4, 1, 2), func(r *Replica) {
			r.Noted(5, at(second))
			r.MakeFollower(assign(2, 6, 11, 1, 2))
			r.MakeLeader(assign(1, 7, 12, 1), 0, 10, at(second))
		}, true, 4},
		{"a follower", begin(4, 1, 2), func(r *Replica) { r.MakeFollower(assign(2, 6, 11, 1, 2)); r.Noted(5, at(second)) }, false, 4},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.do(test.replica)
			if _, from, unnoted := test.replica.Unnoted(); unnoted != test.unnoted || unnoted && from != 10 {
				t.Errorf("unnoted %v from %d", unnoted, from)
			}
			if got := test.replica.HighWatermark(); got != test.highWatermark {
				t.Errorf("high watermark %d, want %d", got, test.highWatermark)
			}
		})
	}
}
