package controller

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/registry"
)

// returned registers a broker that tells how it stopped.
func (w *world) returned(id cluster.BrokerID, stop cluster.StopKind) {
	broker := cluster.Broker{
		ID: id, Stop: stop,
		Endpoints: []cluster.Endpoint{{Listener: "PLAINTEXT", Protocol: "PLAINTEXT", Host: "h", Port: 9000 + int32(id)}},
	}
	w.create(registry.BrokerPath(id), registry.EncodeBroker(&broker, 0))
}

// tellLogEnds answers, for brokers that have been asked, where the log of "t"-0 ends, and where
// epochs began that they have led.
func (w *world) tellLogEnds(ends map[cluster.BrokerID]logEnd, begins map[cluster.BrokerID]epochBegin) (asked []cluster.BrokerID) {
	sends := w.sends
	w.sends = nil
	for _, send := range sends {
		request, ok := send.Request.(*kmsg.ListOffsetsRequest)
		end, known := ends[send.To]
		if !ok {
			continue
		}
		if !asksEpochBegins(request) {
			asked = append(asked, send.To)
		}
		if !known {
			continue
		}
		response := request.ResponseKind().(*kmsg.ListOffsetsResponse)
		topic := kmsg.NewListOffsetsResponseTopic()
		topic.Topic = "t"
		answer := kmsg.NewListOffsetsResponseTopicPartition()
		switch begin, noted := begins[send.To]; {
		case !asksEpochBegins(request):
			answer.LeaderEpoch, answer.Offset, answer.Timestamp = int32(end.epoch), int64(end.offset), int64(end.damagedTo)
			if end.lost {
				answer.ErrorCode = kerr.OffsetNotAvailable.Code
			}
		case noted:
			answer.LeaderEpoch, answer.Offset, answer.Timestamp = int32(begin.epoch), int64(begin.start), int64(begin.before)
		case send.To == 2: // of a version that does not know the question
			answer.ErrorCode = kerr.UnsupportedVersion.Code
		}
		topic.Partitions = append(topic.Partitions, answer)
		response.Topics = append(response.Topics, topic)
		w.step(Answered(send.To, w.epochOf(send.To), request, response))
	}
	slices.Sort(asked)
	return asked
}

// A partition all of whose in-sync replicas have been away and stopped uncleanly.
func TestUncleanStops(t *testing.T) {
	type ends = map[cluster.BrokerID]logEnd
	type begins = map[cluster.BrokerID]epochBegin
	type returns = map[cluster.BrokerID]cluster.StopKind
	const none = cluster.NoBroker
	at := func(epoch cluster.LeaderEpoch, offset cluster.Offset) logEnd {
		return logEnd{epoch: epoch, offset: offset}
	}
	began := func(epoch, before cluster.LeaderEpoch, start cluster.Offset) epochBegin {
		return epochBegin{epoch: epoch, before: before, start: start}
	}
	short := func(epoch cluster.LeaderEpoch, offset cluster.Offset) logEnd {
		return logEnd{epoch: epoch, offset: offset, lost: true}
	}
	damaged := func(epoch cluster.LeaderEpoch, offset, to cluster.Offset) logEnd {
		return logEnd{epoch: epoch, offset: offset, lost: true, damagedTo: to}
	}
	tests := []struct {
		name    string
		isr     []cluster.BrokerID // when the last one went
		back    returns
		ends    ends
		begins  begins
		leader  cluster.BrokerID // at once
		later   cluster.BrokerID // when patience is over
		isrThen []cluster.BrokerID
		unclean bool
		stuck   bool
	}{
		{name: "the last one standing has stopped cleanly", isr: ids(1), back: returns{1: cluster.StopClean, 2: cluster.StopClean, 3: cluster.StopClean},
			leader: 1, later: 1, isrThen: ids(1)},
		{name: "Apache's does not say", isr: ids(1), back: returns{1: cluster.StopUntold}, leader: 1, later: 1, isrThen: ids(1)},
		{name: "it is the furthest", isr: ids(1), back: returns{1: cluster.StopUnclean, 2: cluster.StopClean, 3: cluster.StopClean},
			ends: ends{1: at(4, 90), 2: at(4, 80), 3: at(4, 70)}, leader: 1, later: 1, isrThen: ids(1)},
		{name: "it is alone, and not known to lack anything", isr: ids(1), back: returns{1: cluster.StopUnclean},
			ends: ends{1: at(4, 90)}, leader: 1, later: 1, isrThen: ids(1)},
		{name: "it is alone, and has lost records", isr: ids(1), back: returns{1: cluster.StopUnclean},
			ends: ends{1: short(4, 60)}, leader: none, later: none, stuck: true},
		{name: "it is alone, has lost records, and that is accepted", isr: ids(1), back: returns{1: cluster.StopUnclean},
			ends: ends{1: short(4, 60)}, leader: none, later: 1, isrThen: ids(1), unclean: true},
		{name: "it has lost records, and one of two others is there", isr: ids(1), back: returns{1: cluster.StopUnclean, 2: cluster.StopClean},
			ends: ends{1: short(4, 60), 2: at(4, 80)}, leader: none, later: none, stuck: true},
		{name: "it has lost records, and all are there", isr: ids(1), back: returns{1: cluster.StopUnclean, 2: cluster.StopClean, 3: cluster.StopClean},
			ends: ends{1: short(4, 60), 2: at(4, 80), 3: at(4, 80)}, leader: 2, later: 2, isrThen: ids(2, 3)},
		{name: "one outside the isr goes further, and the third may go further still", isr: ids(1), back: returns{1: cluster.StopUnclean, 2: cluster.StopClean},
			ends: ends{1: at(4, 60), 2: at(4, 80)}, leader: none, later: none, stuck: true},
		{name: "of equals the one without a loss", isr: ids(1, 2), back: returns{1: cluster.StopUnclean, 2: cluster.StopUnclean, 3: cluster.StopClean},
			ends: ends{1: short(4, 80), 2: at(4, 80), 3: at(4, 70)}, leader: 2, later: 2, isrThen: ids(2)},
		{name: "the furthest is damaged, and another has a copy", isr: ids(1, 2), back: returns{1: cluster.StopUnclean, 2: cluster.StopUnclean, 3: cluster.StopClean},
			ends: ends{1: damaged(4, 80, 60), 2: at(4, 70), 3: at(4, 50)}, leader: 1, later: 1, isrThen: ids(1)},
		{name: "the furthest is damaged beyond all the others", isr: ids(1, 2), back: returns{1: cluster.StopUnclean, 2: cluster.StopUnclean, 3: cluster.StopClean},
			ends: ends{1: damaged(4, 80, 75), 2: at(4, 70), 3: at(4, 50)}, leader: 2, later: 2, isrThen: ids(2)},
		{name: "the furthest is damaged beyond all the others, none of them whole", isr: ids(1, 2), back: returns{1: cluster.StopUnclean, 2: cluster.StopUnclean, 3: cluster.StopClean},
			ends: ends{1: damaged(4, 80, 75), 2: short(4, 70), 3: at(4, 50)}, leader: 1, later: 1, isrThen: ids(1)},
		{name: "it alone is in sync, and damaged, though it does not say that it has lost anything", isr: ids(1), back: returns{1: cluster.StopUnclean},
			ends: ends{1: {epoch: 4, offset: 80, damagedTo: 75}}, leader: 1, later: 1, isrThen: ids(1)},
		{name: "a longer log of an earlier epoch is not further", isr: ids(1), back: returns{1: cluster.StopUnclean, 2: cluster.StopClean, 3: cluster.StopClean},
			ends: ends{1: at(5, 60), 2: at(4, 80), 3: at(4, 90)}, leader: 1, later: 1, isrThen: ids(1)},
		{name: "all lost power, all are back", isr: ids(1, 2, 3), back: returns{1: cluster.StopUnclean, 2: cluster.StopUnclean, 3: cluster.StopUnclean},
			ends: ends{1: at(4, 60), 2: at(4, 80), 3: at(4, 70)}, leader: 2, later: 2, isrThen: ids(2)},
		{name: "all lost power, one is missing", isr: ids(1, 2, 3), back: returns{1: cluster.StopUnclean, 2: cluster.StopUnclean},
			ends: ends{1: at(4, 80), 2: at(4, 80)}, leader: none, later: 1, isrThen: ids(1, 2)},
		{name: "one of two has stopped cleanly", isr: ids(1, 2), back: returns{1: cluster.StopUnclean, 2: cluster.StopClean},
			leader: 2, later: 2, isrThen: ids(2)},
		{name: "one does not answer", isr: ids(1, 2), back: returns{1: cluster.StopUnclean, 2: cluster.StopUnclean},
			ends: ends{1: at(4, 80)}, leader: none, later: 1, isrThen: ids(1)},
		{name: "it has lost records, and one does not answer", isr: ids(1), back: returns{1: cluster.StopUnclean, 2: cluster.StopClean, 3: cluster.StopClean},
			ends: ends{1: short(4, 60), 2: at(4, 80)}, leader: none, later: none, stuck: true},

		// Records that earlier leaders had left were committed by a leader that appended nothing.
		{name: "a leader between has records that nobody else has", isr: ids(3), back: returns{1: cluster.StopClean, 2: cluster.StopClean, 3: cluster.StopUnclean},
			ends: ends{1: at(0, 70), 2: at(1, 90), 3: at(0, 86)}, begins: begins{3: began(2, 0, 86)}, leader: 3, later: 3, isrThen: ids(3)},
		{name: "a leader between, and the third is missing", isr: ids(3), back: returns{2: cluster.StopClean, 3: cluster.StopUnclean},
			ends: ends{2: at(1, 90), 3: at(0, 86)}, begins: begins{3: began(2, 0, 86)}, leader: 3, later: 3, isrThen: ids(3)},
		{name: "a leader between, and nothing was noted: it may have been the last", isr: ids(3), back: returns{1: cluster.StopClean, 2: cluster.StopClean, 3: cluster.StopUnclean},
			ends: ends{1: at(0, 70), 2: at(1, 90), 3: at(0, 86)}, leader: 2, later: 2, isrThen: ids(2)},
		{name: "a leader between noted its epoch, too", isr: ids(3), back: returns{1: cluster.StopClean, 2: cluster.StopClean, 3: cluster.StopUnclean},
			ends: ends{1: at(0, 70), 2: at(1, 90), 3: at(0, 86)}, begins: begins{2: began(1, 0, 83), 3: began(2, 0, 86)}, leader: 3, later: 3, isrThen: ids(3)},
		{name: "a follower that has what its leader began with stays in sync", isr: ids(3, 1), back: returns{1: cluster.StopUnclean, 2: cluster.StopClean, 3: cluster.StopUnclean},
			ends: ends{1: at(0, 86), 2: at(1, 90), 3: at(0, 86)}, begins: begins{3: began(2, 0, 86)}, leader: 1, later: 1, isrThen: ids(1, 3)},
		{name: "its leader has lost what it began with", isr: ids(3, 1), back: returns{1: cluster.StopUnclean, 2: cluster.StopClean, 3: cluster.StopUnclean},
			ends: ends{1: at(0, 86), 2: at(1, 90), 3: at(0, 50)}, begins: begins{3: began(2, 0, 86)}, leader: 1, later: 1, isrThen: ids(1)},
		{name: "a follower has the leader's own records, another one old ones", isr: ids(3, 1), back: returns{1: cluster.StopUnclean, 2: cluster.StopClean, 3: cluster.StopUnclean},
			ends: ends{1: at(2, 87), 2: at(0, 90), 3: at(0, 50)}, begins: begins{3: began(2, 0, 86)}, leader: 1, later: 1, isrThen: ids(1)},
		{name: "one outside has noted a newer epoch, and no more records", isr: ids(1), back: returns{1: cluster.StopUnclean, 3: cluster.StopClean},
			ends: ends{1: at(4, 86), 3: at(4, 86)}, begins: begins{3: began(4, 3, 80)}, leader: 1, later: 1, isrThen: ids(1, 3)},
		{name: "one outside has noted a newer epoch, and fewer records", isr: ids(1), back: returns{1: cluster.StopUnclean, 3: cluster.StopClean},
			ends: ends{1: at(3, 88), 3: at(3, 86)}, begins: begins{3: began(4, 3, 86)}, leader: 1, later: 1, isrThen: ids(1)},
		{name: "one outside has noted a newer epoch, and the others have lost what it began with", isr: ids(1), back: returns{1: cluster.StopUnclean, 3: cluster.StopClean},
			ends: ends{1: at(3, 70), 3: at(3, 86)}, begins: begins{3: began(4, 3, 86)}, leader: none, later: none, stuck: true},
		{name: "a note of an epoch that there has not been", isr: ids(1), back: returns{1: cluster.StopUnclean, 2: cluster.StopClean, 3: cluster.StopClean},
			ends: ends{1: at(4, 90), 2: at(4, 80), 3: at(3, 70)}, begins: begins{3: began(9, 3, 70)}, leader: 1, later: 1, isrThen: ids(1)},
	}
	for _, test := range tests {
		for _, failover := range []bool{false, true} {
			name := test.name
			if failover {
				name += ", found by a new controller"
			}
			t.Run(name, func(t *testing.T) {
				w := newWorld(t)
				w.register(9) // the controller
				w.addTopic("t", ids(1, 2, 3))
				state := cluster.PartitionState{Leader: test.isr[0], LeaderEpoch: 4, ISR: test.isr}
				w.create(registry.PartitionsPath("t"), nil)
				w.create(registry.PartitionPath(cluster.TopicPartition{Topic: "t"}), nil)
				w.create(registry.StatePath(cluster.TopicPartition{Topic: "t"}), registry.EncodePartitionState(&state))
				if test.unclean {
					w.create(registry.TopicConfigPath("t"), []byte(`{"version":1,"config":{"`+uncleanKey+`":"true"}}`))
				}
				if failover { // they went and came back while there was no controller
					for id, stop := range test.back {
						w.returned(id, stop)
					}
					w.electedCore(9)
				} else {
					w.electedCore(9)
					if got := w.state("t", 0); got.Leader != none && !test.unclean {
						t.Fatalf("%d leads from its grave", got.Leader)
					}
					for id, stop := range test.back {
						w.returned(id, stop)
					}
					w.step(brokersChanged{})
				}
				for asked := []cluster.BrokerID{0}; len(asked) > 0; {
					asked = w.tellLogEnds(test.ends, test.begins)
				}
				check := func(when string, leader cluster.BrokerID) {
					t.Helper()
					got := w.state("t", 0)
					if got.Leader != leader {
						t.Fatalf("%s: leader %d, want %d", when, got.Leader, leader)
					}
					if leader != none && !slices.Equal(got.ISR, test.isrThen) {
						t.Fatalf("%s: isr %v, want %v", when, got.ISR, test.isrThen)
					}
				}
				check("at once", test.leader)
				w.step(alwaysPreferred())
				w.step(rebalanceTicked{})
				check("preferred elections", test.leader)
				w.now = w.now.Add(defaultUncleanStopPatience + time.Second)
				w.step(inquiryTicked{})
				w.tellLogEnds(nil, nil)
				check("later", test.later)
				if stuck := strings.Contains(strings.Join(w.logs, ";"), "no leader: committed records are missing"); stuck != test.stuck {
					t.Errorf("stuck and said so: %v", stuck)
				}
			})
		}
	}
}

func alwaysPreferred() Event { return electLeaders{kmsg.NewPtrElectLeadersRequest()} }

// What a broker said in an earlier incarnation does not count, and while a partition waits, a
// controller that is elected finds it waiting still.
func TestUncleanStopsAcrossIncarnations(t *testing.T) {
	w := newWorld(t)
	w.register(9)
	for id := cluster.BrokerID(1); id <= 3; id++ {
		w.register(id)
	}
	w.addTopic("t", ids(1, 2, 3))
	w.electedCore(9)
	for id := cluster.BrokerID(1); id <= 3; id++ {
		w.unregister(id)
	}
	w.step(brokersChanged{})
	w.returned(1, cluster.StopUnclean)
	w.step(brokersChanged{})
	w.tellLogEnds(map[cluster.BrokerID]logEnd{1: {epoch: 1, offset: 10}}, nil)
	w.electedCore(9)
	if got := w.state("t", 0); got.Leader != cluster.NoBroker {
		t.Fatalf("broker %d was elected though others may have more", got.Leader)
	}
	w.sends = nil
	w.unregister(1)
	w.returned(1, cluster.StopUnclean)
	w.returned(2, cluster.StopUnclean)
	w.returned(3, cluster.StopUnclean)
	w.step(brokersChanged{})
	asked := w.tellLogEnds(map[cluster.BrokerID]logEnd{1: {epoch: 1, offset: 5}, 2: {epoch: 1, offset: 7}, 3: {epoch: 1, offset: 6}}, nil)
	if !slices.Equal(asked, ids(1, 2, 3)) {
		t.Errorf("asked %v", asked)
	}
	got := w.state("t", 0)
	if got.Leader != 2 || !slices.Equal(got.ISR, ids(2)) {
		t.Errorf("leader %d, isr %v", got.Leader, got.ISR)
	}
	if !slices.ContainsFunc(w.logs, func(line string) bool { return strings.HasPrefix(line, "elected the furthest log") }) {
		t.Error("it is not said why")
	}
}

// A state that takes a broker into the ISR is written late: its controller has died meanwhile, and
// the broker has stopped uncleanly and is back. The state says what its controller knew of.
func TestUncleanStopBeforeALateWrite(t *testing.T) {
	w := newWorld(t)
	for _, id := range ids(9, 1, 2) {
		w.register(id)
	}
	w.addTopic("t", ids(1, 2))
	w.electedCore(9)
	state := w.state("t", 0)
	if !slices.Equal(state.ISR, ids(1, 2)) || state.Leader != 1 {
		t.Fatalf("%+v", state)
	}
	w.unregister(2)
	w.returned(2, cluster.StopUnclean)
	w.set(registry.StatePath(cluster.TopicPartition{Topic: "t"}), registry.EncodePartitionState(&state), registry.AnyVersion)
	w.unregister(1)
	w.returned(1, cluster.StopUnclean)
	w.sends = nil
	w.electedCore(9)
	if got := w.state("t", 0); got.Leader == 2 {
		t.Fatal("broker 2 leads, and may have lost what it had")
	}
	w.tellLogEnds(map[cluster.BrokerID]logEnd{1: {offset: 20}, 2: {offset: 10}}, nil)
	if got := w.state("t", 0); got.Leader != 1 || !slices.Equal(got.ISR, ids(1)) {
		t.Errorf("leader %d, isr %v", got.Leader, got.ISR)
	}
}
