package controller

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/registry"
)

// threeBrokers is a world with brokers 1 to 3, a controller on 1, and topic t with one
// partition on 2, 3, 1.
func threeBrokers(t *testing.T) (*world, cluster.TopicID) {
	w := newWorld(t)
	for id := cluster.BrokerID(1); id <= 3; id++ {
		w.register(id)
	}
	w.electedCore(1)
	id := w.addTopic("t", ids(2, 3, 1))
	w.step(topicsChanged{})
	return w, id
}

func wantState(t *testing.T, w *world, leader cluster.BrokerID, epoch cluster.LeaderEpoch, isr ...cluster.BrokerID) {
	t.Helper()
	state := w.state("t", 0)
	if state.Leader != leader || state.LeaderEpoch != epoch || !slices.Equal(state.ISR, isr) {
		t.Fatalf("leader %d epoch %d ISR %v, want %d, %d, %v", state.Leader, state.LeaderEpoch, state.ISR, leader, epoch, isr)
	}
}

func TestNewTopicGetsItsLeader(t *testing.T) {
	w, id := threeBrokers(t)
	wantState(t, w, 2, 0, 2, 3, 1)
	var first kmsg.Request
	told := map[cluster.BrokerID]bool{}
	for _, send := range w.sends {
		if request, ok := send.Request.(*kmsg.LeaderAndISRRequest); ok {
			if first == nil {
				first = request
				if send.To != 2 {
					t.Errorf("the first LeaderAndIsr goes to %d, not to the new leader", send.To)
				}
			}
			told[send.To] = true
			topic := request.TopicStates[0]
			if topic.TopicID != id || !topic.PartitionStates[0].IsNew || request.Version != 7 {
				t.Errorf("request %+v", request)
			}
			if len(request.LiveLeaders) != 1 || request.LiveLeaders[0].BrokerID != 2 {
				t.Errorf("live leaders %+v", request.LiveLeaders)
			}
		}
	}
	if len(told) != 3 {
		t.Errorf("told %v", told)
	}
}

func TestFailoverSendsTheBrokersFirst(t *testing.T) {
	w, _ := threeBrokers(t)
	w.sends = nil
	w.electedCore(3)
	seen := map[cluster.BrokerID][]string{}
	for _, send := range w.sends {
		seen[send.To] = append(seen[send.To], kmsg.NameForKey(send.Request.Key()))
		if request, ok := send.Request.(*kmsg.UpdateMetadataRequest); ok && len(request.LiveBrokers) != 3 {
			t.Errorf("UpdateMetadata with brokers %+v", request.LiveBrokers)
		}
	}
	for id, order := range seen {
		if got := strings.Join(order, " "); got != "UpdateMetadata LeaderAndISR UpdateMetadata" {
			t.Errorf("broker %d got %s", id, got)
		}
	}
	wantState(t, w, 2, 0, 2, 3, 1) // nothing was changed
}

func TestLostBrokerIsOneWave(t *testing.T) {
	w, id := threeBrokers(t)
	w.sends = nil
	w.unregister(2)
	w.step(brokersChanged{})
	wantState(t, w, 3, 1, 3, 1)
	if w.sends[0].To != 3 || w.sends[0].Request.Key() != 4 {
		t.Errorf("first comes %v to %d", w.sends[0].Request, w.sends[0].To)
	}
	for _, send := range w.sends {
		if request, ok := send.Request.(*kmsg.UpdateMetadataRequest); ok && len(request.TopicStates) > 0 {
			state := request.TopicStates[0]
			if state.TopicID != id || !slices.Equal(state.PartitionStates[0].OfflineReplicas, []int32{2}) {
				t.Errorf("UpdateMetadata %+v", state)
			}
		}
	}
	if w.state("t", 0).PartitionEpoch != 1 {
		t.Error("more than one write")
	}
	w.unregister(3)
	w.step(brokersChanged{})
	w.unregister(1)
	w.step(brokersChanged{})
	wantState(t, w, -1, 3, 1)
	w.register(3) // not in sync: must not lead
	w.step(brokersChanged{})
	wantState(t, w, -1, 3, 1)
	w.register(1)
	w.step(brokersChanged{})
	wantState(t, w, 1, 4, 1)
}

func TestUncleanElectionWhereTheTopicAllowsIt(t *testing.T) {
	w, _ := threeBrokers(t)
	for _, id := range ids(3, 1) {
		w.unregister(id)
		w.step(brokersChanged{})
	}
	wantState(t, w, 2, 2, 2)
	w.register(3)
	w.step(brokersChanged{})
	w.create(registry.TopicConfigPath("t"), registry.EncodeConfig(map[string]string{"unclean.leader.election.enable": "true"}))
	w.unregister(2)
	w.step(brokersChanged{})
	wantState(t, w, 3, 3, 3)
	if w.state("t", 0).Recovery != cluster.Recovering {
		t.Error("the leader is not recovering")
	}
}

func TestEvidenceIsActedOnAndUndone(t *testing.T) {
	w, _ := threeBrokers(t)
	w.step(brokerRefused{2, w.epochOf(2) - 1}) // of an earlier incarnation
	wantState(t, w, 2, 0, 2, 3, 1)
	w.step(brokerRefused{2, w.epochOf(2)})
	wantState(t, w, 3, 1, 3, 1)
	w.sends = nil
	w.step(brokerAnswered{2, w.epochOf(2)})
	asked := false
	for _, send := range w.sends {
		asked = asked || send.To == 2 && send.Request.Key() == 4
	}
	if !asked {
		t.Error("the broker was not told what it is now")
	}
	r := alterRequest(w, 3, 1, 1, 3, 1, 2)
	if got := w.step(r)[0].(*kmsg.AlterPartitionResponse).Topics[0].Partitions[0].ErrorCode; got != 0 {
		t.Errorf("it may not join again: %d", got)
	}
	// It is really gone: the only in-sync replica is not taken from.
	for _, id := range ids(1, 2) {
		w.unregister(id)
		w.step(brokersChanged{})
	}
	wantState(t, w, 3, 3, 3)
	w.step(brokerRefused{3, w.epochOf(3)})
	wantState(t, w, 3, 3, 3)
}

func TestBouncedBrokerComesBack(t *testing.T) {
	w, _ := threeBrokers(t)
	w.sends = nil
	w.unregister(2)
	w.register(2)
	w.step(brokersChanged{})
	wantState(t, w, 3, 1, 3, 1)
	order := ""
	for _, send := range w.sends {
		if send.To == 2 {
			order += kmsg.NameForKey(send.Request.Key()) + " "
		}
	}
	if order != "UpdateMetadata LeaderAndISR UpdateMetadata " {
		t.Errorf("the new incarnation got %s", order)
	}
}

func TestControlledShutdown(t *testing.T) {
	w, _ := threeBrokers(t)
	w.addTopic("alone", ids(2))
	w.step(topicsChanged{})
	request := kmsg.NewPtrControlledShutdownRequest()
	request.Version, request.BrokerID, request.BrokerEpoch = 3, 2, int64(w.epochOf(2))
	response := w.step(controlledShutdown{request})[0].(*kmsg.ControlledShutdownResponse)
	if response.ErrorCode != 0 || len(response.PartitionsRemaining) != 0 {
		t.Fatalf("response %+v", response)
	}
	wantState(t, w, 3, 1, 3, 1)
	request.BrokerEpoch--
	if response := w.step(controlledShutdown{request})[0].(*kmsg.ControlledShutdownResponse); response.ErrorCode != kerr.StaleBrokerEpoch.Code {
		t.Errorf("stale epoch: %+v", response)
	}
	request.BrokerID, request.BrokerEpoch = 9, -1
	if response := w.step(controlledShutdown{request})[0].(*kmsg.ControlledShutdownResponse); response.ErrorCode != kerr.BrokerNotAvailable.Code {
		t.Errorf("unknown broker: %+v", response)
	}
	// Everybody else leaves too: the last in-sync replica's leadership remains.
	for _, id := range ids(1, 3) {
		request.BrokerID, request.BrokerEpoch = int32(id), int64(w.epochOf(id))
		response = w.step(controlledShutdown{request})[0].(*kmsg.ControlledShutdownResponse)
	}
	if len(response.PartitionsRemaining) != 1 || w.state("t", 0).Leader != 3 {
		t.Errorf("response %+v", response)
	}
}

func alterRequest(w *world, broker cluster.BrokerID, leaderEpoch cluster.LeaderEpoch, partitionEpoch cluster.PartitionEpoch, isr ...cluster.BrokerID) alterPartition {
	request := kmsg.NewPtrAlterPartitionRequest()
	request.Version, request.BrokerID, request.BrokerEpoch = 3, int32(broker), int64(w.epochOf(broker))
	part := kmsg.NewAlterPartitionRequestTopicPartition()
	part.LeaderEpoch, part.PartitionEpoch = int32(leaderEpoch), int32(partitionEpoch)
	for _, id := range isr {
		part.NewEpochISR = append(part.NewEpochISR, kmsg.AlterPartitionRequestTopicPartitionNewEpochISR{BrokerID: int32(id), BrokerEpoch: -1})
	}
	topic := kmsg.NewAlterPartitionRequestTopic()
	topic.TopicID = w.core.topics["t"].id
	topic.Partitions = append(topic.Partitions, part)
	request.Topics = append(request.Topics, topic)
	return alterPartition{request}
}

// TestAlterPartitionChecks walks through the table of controller.md 14, on a state with
// leader 3, leader epoch 1, partition epoch 1, ISR 3, 1, brokers 1 and 3 alive.
func TestAlterPartitionChecks(t *testing.T) {
	tests := []struct {
		name   string
		change func(w *world, r *kmsg.AlterPartitionRequest)
		want   *kerr.Error
		top    *kerr.Error
	}{
		{name: "granted"},
		{name: "broker epoch differs", change: func(_ *world, r *kmsg.AlterPartitionRequest) { r.BrokerEpoch++ }, top: kerr.StaleBrokerEpoch},
		{name: "broker unknown", change: func(_ *world, r *kmsg.AlterPartitionRequest) { r.BrokerID = 9 }, top: kerr.StaleBrokerEpoch},
		{name: "topic id unknown", change: func(_ *world, r *kmsg.AlterPartitionRequest) { r.Topics[0].TopicID[3] = 9 }, want: kerr.UnknownTopicID},
		{name: "partition unknown", change: func(_ *world, r *kmsg.AlterPartitionRequest) { r.Topics[0].Partitions[0].Partition = 5 }, want: kerr.UnknownTopicOrPartition},
		{name: "partition epoch ahead", change: func(_ *world, r *kmsg.AlterPartitionRequest) { r.Topics[0].Partitions[0].PartitionEpoch = 2 }, want: kerr.NotController},
		{name: "leader epoch ahead", change: func(_ *world, r *kmsg.AlterPartitionRequest) { r.Topics[0].Partitions[0].LeaderEpoch = 2 }, want: kerr.NotController},
		{name: "leader epoch behind", change: func(_ *world, r *kmsg.AlterPartitionRequest) { r.Topics[0].Partitions[0].LeaderEpoch = 0 }, want: kerr.FencedLeaderEpoch},
		{name: "same as it is, partition epoch behind", change: func(_ *world, r *kmsg.AlterPartitionRequest) {
			r.Topics[0].Partitions[0].PartitionEpoch = 0
			r.Topics[0].Partitions[0].NewEpochISR = append(r.Topics[0].Partitions[0].NewEpochISR, kmsg.AlterPartitionRequestTopicPartitionNewEpochISR{BrokerID: 1, BrokerEpoch: -1})
		}},
		{name: "partition epoch behind", change: func(_ *world, r *kmsg.AlterPartitionRequest) { r.Topics[0].Partitions[0].PartitionEpoch = 0 }, want: kerr.InvalidUpdateVersion},
		{name: "recovering", change: func(_ *world, r *kmsg.AlterPartitionRequest) { r.Topics[0].Partitions[0].LeaderRecoveryState = 1 }, want: kerr.InvalidRequest},
		{name: "a dead member", change: func(_ *world, r *kmsg.AlterPartitionRequest) {
			r.Topics[0].Partitions[0].NewEpochISR[0].BrokerID = 2
		}, want: kerr.IneligibleReplica},
		{name: "a member's registered epoch", change: func(w *world, r *kmsg.AlterPartitionRequest) {
			r.Topics[0].Partitions[0].NewEpochISR[0].BrokerEpoch = int64(w.epochOf(3))
		}},
		{name: "an earlier incarnation of a member", change: func(w *world, r *kmsg.AlterPartitionRequest) {
			r.Topics[0].Partitions[0].NewEpochISR[0].BrokerEpoch = int64(w.epochOf(3)) - 1
		}, want: kerr.IneligibleReplica},
		{name: "changed behind our back", change: func(w *world, _ *kmsg.AlterPartitionRequest) {
			w.before = func() { w.nodes[registry.StatePath(cluster.TopicPartition{Topic: "t"})].version++ }
		}, want: kerr.InvalidUpdateVersion},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w, _ := threeBrokers(t)
			w.unregister(2)
			w.step(brokersChanged{})
			event := alterRequest(w, 3, 1, 1, 3)
			if test.change != nil {
				test.change(w, event.request)
			}
			replies := w.step(event)
			if len(replies) != 1 {
				t.Fatalf("%d replies", len(replies))
			}
			response := replies[0].(*kmsg.AlterPartitionResponse)
			if test.top != nil {
				if response.ErrorCode != test.top.Code {
					t.Fatalf("code %d, want %v", response.ErrorCode, test.top)
				}
				return
			}
			answer := response.Topics[0].Partitions[0]
			if got := kerr.ErrorForCode(answer.ErrorCode); test.want != nil && !errors.Is(got, test.want) || test.want == nil && got != nil {
				t.Fatalf("got %v, want %v", got, test.want)
			}
			if test.want == nil && (answer.LeaderID != 3 || answer.LeaderEpoch != 1) {
				t.Fatalf("answer %+v", answer)
			}
		})
	}
}

func TestConflictsAreReadAgain(t *testing.T) {
	w, _ := threeBrokers(t)
	path := registry.StatePath(cluster.TopicPartition{Topic: "t"})
	w.unregister(2)
	w.before = func() {
		w.before = func() { // the reads of the brokers come first
			w.before = func() {
				state := w.state("t", 0)
				state.ISR = ids(2, 1)
				w.set(path, registry.EncodePartitionState(&state), registry.AnyVersion)
			}
		}
	}
	w.step(brokersChanged{})
	wantState(t, w, 1, 1, 1)
}

func TestLaterControllersStateIsNeverOverwritten(t *testing.T) {
	w, _ := threeBrokers(t)
	path := registry.StatePath(cluster.TopicPartition{Topic: "t"})
	state := w.state("t", 0)
	state.ControllerEpoch = 50
	w.set(path, registry.EncodePartitionState(&state), registry.AnyVersion)
	w.unregister(2)
	w.step(brokersChanged{})
	wantState(t, w, 2, 0, 2, 3, 1)
}

func TestFencedCoreResigns(t *testing.T) {
	w, _ := threeBrokers(t)
	w.nodes[registry.PathControllerEpoch].version++
	w.unregister(2)
	w.step(brokersChanged{})
	if !errors.Is(w.resign, registry.ErrControllerMoved) {
		t.Fatalf("resigned for %v", w.resign)
	}
	wantState(t, w, 2, 0, 2, 3, 1)
	if replies := w.step(alterRequest(w, 2, 0, 0, 2)); len(replies) != 0 {
		t.Error("a core that has resigned replies")
	}
}

func TestTopicDeletion(t *testing.T) {
	w, _ := threeBrokers(t)
	alive := func(id cluster.BrokerID) bool { return true }
	w.create(registry.DeleteTopicPath("unknown"), nil)
	w.create(registry.DeleteTopicPath("t"), nil)
	w.unregister(1)
	w.step(brokersChanged{})
	w.sends = nil
	w.step(deletionsAsked{})
	if w.nodes[registry.DeleteTopicPath("unknown")] != nil {
		t.Error("the mark of an unknown topic stays")
	}
	gone := false
	for _, send := range w.sends {
		if request, ok := send.Request.(*kmsg.UpdateMetadataRequest); ok && len(request.TopicStates) > 0 {
			gone = gone || request.TopicStates[0].PartitionStates[0].Leader == -2
		}
	}
	if !gone {
		t.Error("nobody was told that the topic goes")
	}
	w.answer(alive)
	if w.nodes[registry.TopicPath("t")] == nil {
		t.Fatal("deleted though a replica's broker is down")
	}
	w.register(1)
	w.step(brokersChanged{})
	w.answer(alive)
	for p := range w.nodes {
		if strings.Contains(p, "/t") && !strings.HasPrefix(p, "/brokers/topics") || strings.HasPrefix(p, registry.TopicPath("t")) {
			if strings.HasSuffix(p, "/t") || strings.HasPrefix(p, registry.TopicPath("t")) {
				t.Errorf("%s is left", p)
			}
		}
	}
	id := w.addTopic("t", ids(1, 2))
	w.step(topicsChanged{})
	if w.core.topics["t"].id != id || w.state("t", 0).Leader != 1 {
		t.Error("the name cannot be used again")
	}
}

func TestPreferredElections(t *testing.T) {
	w, _ := threeBrokers(t)
	w.unregister(2)
	w.step(brokersChanged{})
	w.register(2)
	w.step(brokersChanged{})
	elect := func() *kmsg.ElectLeadersResponse {
		request := kmsg.NewPtrElectLeadersRequest()
		request.Version = 2
		request.Topics = []kmsg.ElectLeadersRequestTopic{{Topic: "t", Partitions: []int32{0, 7}}}
		return w.step(electLeaders{request})[0].(*kmsg.ElectLeadersResponse)
	}
	code := func(r *kmsg.ElectLeadersResponse, i int) int16 { return r.Topics[0].Partitions[i].ErrorCode }
	if r := elect(); code(r, 0) != kerr.PreferredLeaderNotAvailable.Code || code(r, 1) != kerr.UnknownTopicOrPartition.Code {
		t.Errorf("response %+v", r)
	}
	w.step(rebalanceTicked{})
	wantState(t, w, 3, 1, 3, 1)
	w.step(alterRequest(w, 3, 1, 1, 3, 1, 2))
	w.step(rebalanceTicked{})
	wantState(t, w, 2, 2, 3, 1, 2)
	if r := elect(); code(r, 0) != kerr.ElectionNotNeeded.Code {
		t.Errorf("response %+v", r)
	}
}

func TestReassignment(t *testing.T) {
	w, _ := threeBrokers(t)
	w.register(4)
	w.step(brokersChanged{})
	request := kmsg.NewPtrAlterPartitionAssignmentsRequest()
	request.Topics = []kmsg.AlterPartitionAssignmentsRequestTopic{{Topic: "t", Partitions: []kmsg.AlterPartitionAssignmentsRequestTopicPartition{
		{Partition: 0, Replicas: []int32{4, 3}},
	}}}
	response := w.step(alterReassignments{request})[0].(*kmsg.AlterPartitionAssignmentsResponse)
	if got := response.Topics[0].Partitions[0].ErrorCode; got != 0 {
		t.Fatalf("code %d", got)
	}
	document := func() registry.Assignment {
		found, err := registry.DecodeTopic("t", w.nodes[registry.TopicPath("t")].data)
		if err != nil {
			t.Fatal(err)
		}
		return found.Partitions[0]
	}
	if got := document(); !slices.Equal(got.Replicas, ids(4, 3, 2, 1)) || !slices.Equal(got.Adding, ids(4)) || !slices.Equal(got.Removing, ids(2, 1)) {
		t.Fatalf("assignment %+v", got)
	}
	wantState(t, w, 2, 1, 2, 3, 1)
	w.electedCore(3) // a new controller goes on with it
	state := w.state("t", 0)
	w.sends = nil
	w.step(alterRequest(w, 2, state.LeaderEpoch, state.PartitionEpoch, 2, 3, 1, 4))
	if got := document(); !slices.Equal(got.Replicas, ids(4, 3)) || got.Reassigning() {
		t.Fatalf("assignment %+v", got)
	}
	if state := w.state("t", 0); state.Leader != 4 || !slices.Equal(state.ISR, ids(3, 4)) {
		t.Fatalf("state %+v", state)
	}
	stopped := map[cluster.BrokerID]bool{}
	for _, send := range w.sends {
		if r, ok := send.Request.(*kmsg.StopReplicaRequest); ok && r.Topics[0].PartitionStates[0].Delete {
			stopped[send.To] = true
		}
	}
	if !stopped[1] || !stopped[2] || len(stopped) != 2 {
		t.Errorf("stopped %v", stopped)
	}
}

func TestProducerIDBlocks(t *testing.T) {
	w, _ := threeBrokers(t)
	request := kmsg.NewPtrAllocateProducerIDsRequest()
	request.BrokerID, request.BrokerEpoch = 2, int64(w.epochOf(2))
	for want := range int64(3) {
		response := w.step(allocateProducerIDs{request})[0].(*kmsg.AllocateProducerIDsResponse)
		if response.ErrorCode != 0 || response.ProducerIDStart != want*1000 || response.ProducerIDLen != 1000 {
			t.Fatalf("response %+v", response)
		}
	}
}

// What brokers did while there was no controller is seen by the age of their registrations:
// one that came back is out of the ISR, and leads in a new epoch at best.
func TestFailoverNoticesWhoHasBounced(t *testing.T) {
	bounce := func(w *world, list ...cluster.BrokerID) {
		for _, id := range list {
			w.unregister(id)
			w.register(id)
		}
		w.electedCore(3)
	}
	t.Run("leader", func(t *testing.T) {
		w, _ := threeBrokers(t)
		bounce(w, 2)
		wantState(t, w, 3, 1, 3, 1)
	})
	t.Run("follower", func(t *testing.T) {
		w, _ := threeBrokers(t)
		bounce(w, 1)
		wantState(t, w, 2, 1, 2, 3)
	})
	t.Run("everybody", func(t *testing.T) {
		w, _ := threeBrokers(t)
		bounce(w, 1, 2, 3)
		wantState(t, w, 2, 1, 2, 3, 1)
	})
	t.Run("nobody", func(t *testing.T) {
		w, _ := threeBrokers(t)
		bounce(w)
		wantState(t, w, 2, 0, 2, 3, 1)
	})
}
