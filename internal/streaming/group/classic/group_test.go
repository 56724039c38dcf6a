package classic

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

var epoch = time.UnixMilli(1_700_000_000_000)

func testSettings() *Settings {
	return &Settings{
		MinSessionTimeout: time.Second, MaxSessionTimeout: time.Minute, MaxSize: 100, MaxOffsetMetadata: 10, OffsetsRetention: time.Hour,
	}
}

// bench drives one group by hand: it keeps the time, what has been answered, and the writes
// that have not been completed.
type bench struct {
	t       *testing.T
	g       *Group
	now     time.Time
	answers map[string]any
	writes  []Write
	log     []Record
	hold    bool // writes are not completed at once
}

func newBench(t *testing.T, settings *Settings) *bench {
	return &bench{t: t, g: New("g", settings, epoch), now: epoch, answers: map[string]any{}}
}

func (b *bench) take(out *Effects) {
	b.t.Helper()
	for _, reply := range out.Replies {
		token := reply.To.(string)
		if _, double := b.answers[token]; double {
			b.t.Fatalf("%s was answered twice", token)
		}
		b.answers[token] = reply.Body
	}
	b.writes = append(b.writes, out.Writes...)
	for !b.hold && len(b.writes) > 0 {
		b.complete(nil)
	}
}

func (b *bench) complete(err error) {
	b.t.Helper()
	w := b.writes[0]
	b.writes = b.writes[1:]
	if err == nil {
		b.log = append(b.log, w.Records...)
	}
	var out Effects
	w.Complete(b.now, err, &out)
	b.take(&out)
}

func (b *bench) pass(d time.Duration) {
	b.t.Helper()
	end := b.now.Add(d)
	for wake := b.g.Wake(); !wake.IsZero() && !wake.After(end); wake = b.g.Wake() {
		if wake.After(b.now) {
			b.now = wake
		}
		var out Effects
		b.g.Tick(b.now, &out)
		b.take(&out)
	}
	b.now = end
}

func request(token, memberID string) *JoinRequest {
	return &JoinRequest{
		Token: token, MemberID: memberID, NewMemberID: "id-" + token, ClientID: "c", ClientHost: "/h",
		RebalanceTimeout: 10 * time.Second, SessionTimeout: 5 * time.Second, ProtocolType: "consumer",
		Protocols: []Protocol{{"range", subscription("t")}},
	}
}

// subscription is consumer metadata for some topics.
func subscription(topics ...string) []byte {
	data := []byte{0, 1, 0, 0, 0, byte(len(topics))}
	for _, topic := range topics {
		data = append(append(data, 0, byte(len(topic))), topic...)
	}
	return data
}

func (b *bench) join(r *JoinRequest) {
	b.t.Helper()
	var out Effects
	b.g.Join(b.now, r, &out)
	b.take(&out)
}

func (b *bench) sync(token, memberID string, assignments map[string][]byte) {
	b.t.Helper()
	var out Effects
	b.g.Sync(b.now, &SyncRequest{Token: token, MemberID: memberID, Generation: b.g.generation, Assignments: assignments}, &out)
	b.take(&out)
}

func (b *bench) commit(token, memberID string, generation int32, offsets ...CommitOffset) {
	b.t.Helper()
	var out Effects
	b.g.Commit(b.now, &CommitRequest{Token: token, MemberID: memberID, Generation: generation, Offsets: offsets}, &out)
	b.take(&out)
}

func (b *bench) joined(token string) JoinResult {
	b.t.Helper()
	result, ok := b.answers[token].(JoinResult)
	if !ok {
		b.t.Fatalf("%s: no answer to the join, but %v", token, b.answers[token])
	}
	return result
}

func (b *bench) expectJoinError(token string, want *kerr.Error) {
	b.t.Helper()
	if got := b.joined(token).Err; got != want {
		b.t.Fatalf("%s: got %v, want %v", token, got, want)
	}
}

func (b *bench) expectState(want State) {
	b.t.Helper()
	if b.g.state != want {
		b.t.Fatalf("the group is %s, want %s", b.g.state, want)
	}
}

// stable makes a stable group of the members id-a and id-b; id-a leads.
func (b *bench) stable() {
	b.t.Helper()
	b.join(request("a", ""))
	b.join(request("b", ""))
	b.join(request("a2", "id-a"))
	if r := b.joined("b"); r.Err != nil || r.Leader != "id-a" || len(r.Members) != 0 {
		b.t.Fatalf("b got %+v", r)
	}
	if r := b.joined("a2"); r.Err != nil || len(r.Members) != 2 {
		b.t.Fatalf("a got %+v", r)
	}
	b.sync("b-sync", "id-b", nil)
	b.sync("a-sync", "id-a", map[string][]byte{"id-a": {1}, "id-b": {2}})
	b.expectState(Stable)
	if r := b.answers["b-sync"].(SyncResult); r.Err != nil || !reflect.DeepEqual(r.Assignment, []byte{2}) {
		b.t.Fatalf("b's assignment is %+v", r)
	}
}

func TestTwoMembers(t *testing.T) { newBench(t, testSettings()).stable() }

func TestInitialDelayGathersMembers(t *testing.T) {
	settings := testSettings()
	settings.InitialRebalanceDelay = 3 * time.Second
	b := newBench(t, settings)
	b.join(request("a", ""))
	b.pass(2 * time.Second)
	b.join(request("b", "")) // the delay is prolonged once more
	b.pass(2 * time.Second)
	if b.answers["a"] != nil {
		t.Fatal("the delay was not prolonged")
	}
	b.pass(2 * time.Second)
	if a, c := b.joined("a"), b.joined("b"); a.Generation != 1 || c.Generation != 1 || len(a.Members) != 2 {
		t.Fatalf("got %+v %+v", a, c)
	}
}

func TestMemberIDRequired(t *testing.T) {
	b := newBench(t, testSettings())
	first := request("a", "")
	first.RequireKnownMember = true
	b.join(first)
	b.expectJoinError("a", kerr.MemberIDRequired)
	b.expectState(Empty)
	b.join(request("a2", "id-a"))
	if r := b.joined("a2"); r.Err != nil || r.MemberID != "id-a" {
		t.Fatalf("got %+v", r)
	}
	other := request("b", "")
	other.RequireKnownMember = true
	b.join(other)
	b.pass(6 * time.Second) // longer than the session
	b.join(request("b2", "id-b"))
	b.expectJoinError("b2", kerr.UnknownMemberID)
}

func TestSessionExpiry(t *testing.T) {
	b := newBench(t, testSettings())
	b.stable()
	for range 3 {
		b.pass(4 * time.Second)
		if code := b.g.Heartbeat(b.now, &HeartbeatRequest{MemberID: "id-a", Generation: b.g.generation}); code != nil && code != kerr.RebalanceInProgress {
			t.Fatalf("a's heartbeat: %v", code)
		}
	}
	if b.g.byID["id-b"] != nil {
		t.Fatal("b has not expired")
	}
	b.expectState(PreparingRebalance)
	b.join(request("a3", "id-a"))
	if r := b.joined("a3"); r.Generation != 3 || len(r.Members) != 1 {
		t.Fatalf("got %+v", r)
	}
}

func TestEverybodyVanishes(t *testing.T) {
	b := newBench(t, testSettings())
	b.stable()
	b.pass(time.Minute)
	b.expectState(Empty)
	last, err := DecodeGroup(b.log[len(b.log)-1].Value)
	if err != nil || last.Generation != 3 || len(last.Members) != 0 || last.Leader != nil {
		t.Fatalf("persisted %+v %v", last, err)
	}
}

func TestLateMembersAreDropped(t *testing.T) {
	b := newBench(t, testSettings())
	b.stable()
	b.join(request("c", ""))
	for range 5 { // a and b are alive, but only a comes back
		b.pass(2 * time.Second)
		_ = b.g.Heartbeat(b.now, &HeartbeatRequest{MemberID: "id-b", Generation: b.g.generation})
		if b.g.byID["id-a"].join == nil && b.answers["a3"] == nil {
			b.join(request("a3", "id-a"))
		}
	}
	if r := b.joined("c"); r.Err != nil || r.Generation != 3 || r.Leader != "id-a" {
		t.Fatalf("got %+v", r)
	}
	if code := b.g.Heartbeat(b.now, &HeartbeatRequest{MemberID: "id-b", Generation: 3}); code != kerr.UnknownMemberID {
		t.Fatalf("b: %v", code)
	}
}

func TestMembersThatNeverSyncAreRemoved(t *testing.T) {
	b := newBench(t, testSettings())
	b.join(request("a", ""))
	b.join(request("b", ""))
	b.join(request("a2", "id-a"))
	b.sync("a-sync", "id-a", nil)
	for range 6 {
		b.pass(2 * time.Second)
		_ = b.g.Heartbeat(b.now, &HeartbeatRequest{MemberID: "id-a", Generation: b.g.generation})
		_ = b.g.Heartbeat(b.now, &HeartbeatRequest{MemberID: "id-b", Generation: b.g.generation})
	}
	if b.g.byID["id-b"] != nil || b.g.byID["id-a"] == nil {
		t.Fatal("b, which never sent Sync, must be gone, and a not")
	}
	b.expectState(PreparingRebalance)
}

func TestRebalanceWhileTheAssignmentIsWritten(t *testing.T) {
	b := newBench(t, testSettings())
	b.join(request("a", ""))
	b.hold = true
	b.sync("a-sync", "id-a", nil)
	b.join(request("b", ""))
	if r := b.answers["a-sync"].(SyncResult); r.Err != kerr.RebalanceInProgress {
		t.Fatalf("got %+v", r)
	}
	b.complete(nil) // of the generation that is over
	b.expectState(PreparingRebalance)
}

func TestFailedWriteOfTheAssignment(t *testing.T) {
	for _, c := range []struct {
		err  error
		want *kerr.Error
	}{
		{kerr.NotLeaderForPartition, kerr.NotCoordinator},
		{fmt.Errorf("wrapped: %w", kerr.NotEnoughReplicas), kerr.CoordinatorNotAvailable},
		{kerr.RequestTimedOut, kerr.RebalanceInProgress},
		{errors.New("disk"), kerr.UnknownServerError},
	} {
		b := newBench(t, testSettings())
		b.join(request("a", ""))
		b.hold = true
		b.sync("a-sync", "id-a", nil)
		b.complete(c.err)
		if r := b.answers["a-sync"].(SyncResult); r.Err != c.want {
			t.Errorf("%v: got %v, want %v", c.err, r.Err, c.want)
		}
		b.expectState(PreparingRebalance)
	}
}

func TestRefusals(t *testing.T) {
	b := newBench(t, testSettings())
	b.stable()
	short, otherType, otherProtocol, none := request("short", ""), request("type", ""), request("protocol", ""), request("none", "")
	short.SessionTimeout = time.Millisecond
	otherType.ProtocolType = "connect"
	otherProtocol.Protocols = []Protocol{{"sticky", nil}}
	none.Protocols = nil
	for r, want := range map[*JoinRequest]*kerr.Error{
		short: kerr.InvalidSessionTimeout, otherType: kerr.InconsistentGroupProtocol,
		otherProtocol: kerr.InconsistentGroupProtocol, none: kerr.InconsistentGroupProtocol,
		request("stranger", "id-x"): kerr.UnknownMemberID,
	} {
		b.join(r)
		b.expectJoinError(r.Token.(string), want)
	}
	b.expectState(Stable)
	beat := func(member string, generation int32) *kerr.Error {
		return b.g.Heartbeat(b.now, &HeartbeatRequest{MemberID: member, Generation: generation})
	}
	if beat("id-x", 2) != kerr.UnknownMemberID || beat("id-a", 1) != kerr.IllegalGeneration || beat("id-a", 2) != nil {
		t.Fatal("heartbeats")
	}
}

func TestGroupMaxSize(t *testing.T) {
	settings := testSettings()
	settings.MaxSize = 2
	b := newBench(t, settings)
	b.stable()
	b.join(request("c", ""))
	b.expectJoinError("c", kerr.GroupMaxSizeReached)
	b.join(request("b2", "id-b"))
	if r := b.joined("b2"); r.Err != nil {
		t.Fatalf("a member must stay welcome: %+v", r)
	}
}

func TestStaticMemberComesBackWithoutARebalance(t *testing.T) {
	b := newBench(t, testSettings())
	one, two := "one", "two"
	static := func(token string, instance *string) *JoinRequest {
		r := request(token, "")
		r.InstanceID, r.SkipAssignment = instance, true
		return r
	}
	b.join(static("a", &one))
	b.join(static("b", &two))
	again := request("a2", "id-a")
	again.InstanceID = &one
	b.join(again)
	b.sync("a-sync", "id-a", map[string][]byte{"id-a": {1}, "id-b": {2}})
	b.sync("b-sync", "id-b", nil)
	generation := b.g.generation

	b.join(static("b3", &two))
	if r := b.joined("b3"); r.Err != nil || r.Generation != generation || r.Leader != "id-a" || r.SkipAssignment {
		t.Fatalf("follower: %+v", r)
	}
	b.join(static("a3", &one))
	if r := b.joined("a3"); r.Err != nil || r.Leader != "id-a3" || !r.SkipAssignment || len(r.Members) != 2 {
		t.Fatalf("leader: %+v", r)
	}
	b.expectState(Stable)
	if code := b.g.Heartbeat(b.now, &HeartbeatRequest{MemberID: "id-b", InstanceID: &two, Generation: generation}); code != kerr.FencedInstanceID {
		t.Fatalf("the old incarnation: %v", code)
	}
	b.sync("b-sync2", "id-b3", nil)
	if r := b.answers["b-sync2"].(SyncResult); !reflect.DeepEqual(r.Assignment, []byte{2}) {
		t.Fatalf("got %+v", r)
	}
	var out Effects
	if code := b.g.Leave(b.now, &LeaveRequest{InstanceID: &two}, &out); code != nil || b.g.static[two] != nil {
		t.Fatalf("leave by instance id: %v", code)
	}
}

func TestProtocolSelection(t *testing.T) {
	b := newBench(t, testSettings())
	protocols := func(names ...string) (list []Protocol) {
		for _, name := range names {
			list = append(list, Protocol{name, nil})
		}
		return list
	}
	b.g.members = []*member{
		{id: "1", protocols: protocols("only-one", "range", "sticky")},
		{id: "2", protocols: protocols("sticky", "range")},
		{id: "3", protocols: protocols("sticky", "range")},
	}
	if got := b.g.selectProtocol(); got != "sticky" {
		t.Errorf("got %s: two of three prefer sticky", got)
	}
}

func at(topic string, partition int32, offset int64) CommitOffset {
	return CommitOffset{TP: TopicPartition{Topic: topic, Partition: partition}, Offset: offset, LeaderEpoch: -1, Retention: -1}
}

func TestCommits(t *testing.T) {
	b := newBench(t, testSettings())
	b.commit("simple", "", -1, at("t", 0, 5))
	if r := b.answers["simple"].(CommitResult); r.Errs[0] != nil {
		t.Fatalf("a simple consumer: %v", r.Errs)
	}
	b.stable()
	for token, c := range map[string]struct {
		member     string
		generation int32
		want       *kerr.Error
	}{
		"member": {"id-a", 2, nil}, "old": {"id-a", 1, kerr.IllegalGeneration}, "stranger": {"id-x", 2, kerr.UnknownMemberID},
		"tool": {"", -1, kerr.UnknownMemberID},
	} {
		b.commit(token, c.member, c.generation, at("t", 1, 7))
		if r := b.answers[token].(CommitResult); r.Errs[0] != c.want {
			t.Errorf("%s: got %v, want %v", token, r.Errs[0], c.want)
		}
	}
	long := at("t", 2, 9)
	long.Metadata = "longer than ten"
	b.commit("mixed", "id-a", 2, long, at("t", 3, 9))
	if r := b.answers["mixed"].(CommitResult); r.Errs[0] != kerr.OffsetMetadataTooLarge || r.Errs[1] != nil {
		t.Errorf("got %v", r.Errs)
	}
	b.join(request("c", ""))
	b.commit("while joining", "id-a", 2, at("t", 1, 8))
	if r := b.answers["while joining"].(CommitResult); r.Errs[0] != nil {
		t.Errorf("a commit in the join phase is what a consumer does before it gives partitions up: %v", r.Errs[0])
	}
	if offset, _ := b.g.Fetch(TopicPartition{Topic: "t", Partition: 1}); offset.Offset != 8 {
		t.Errorf("got %+v", offset)
	}
}

func TestCommitIsVisibleWhenDurable(t *testing.T) {
	b := newBench(t, testSettings())
	b.hold = true
	tp := TopicPartition{Topic: "t"}
	b.commit("first", "", -1, at("t", 0, 1))
	b.commit("second", "", -1, at("t", 0, 2))
	if _, found := b.g.Fetch(tp); found || b.answers["first"] != nil {
		t.Fatal("visible before it is durable")
	}
	second := b.writes[1]
	b.complete(nil)
	b.complete(kerr.NotEnoughReplicas)
	if offset, _ := b.g.Fetch(tp); offset.Offset != 1 {
		t.Fatalf("got %+v", offset)
	}
	if r := b.answers["second"].(CommitResult); r.Errs[0] != kerr.CoordinatorNotAvailable {
		t.Fatalf("got %v", r.Errs)
	}
	_ = second
}

func TestOffsetExpiry(t *testing.T) {
	b := newBench(t, testSettings())
	explicit := at("t", 9, 1)
	explicit.Retention = time.Minute
	b.commit("a", "", -1, at("t", 0, 1), explicit)
	expire := func() {
		var out Effects
		b.g.Expire(b.now, &out)
		b.take(&out)
	}
	b.pass(2 * time.Minute)
	expire()
	if got := b.g.Partitions(); len(got) != 1 || got[0].Partition != 0 {
		t.Fatalf("the offset with a retention of its own must be gone: %v", got)
	}
	b.pass(time.Hour)
	expire()
	b.expectState(Dead)
	if last := b.log[len(b.log)-1]; last.Value != nil {
		t.Error("no tombstone")
	}

	b = newBench(t, testSettings())
	b.stable()
	b.commit("member", "id-a", 2, at("t", 0, 1), at("left", 0, 1))
	for range 1000 {
		b.pass(4 * time.Second)
		for _, id := range []string{"id-a", "id-b"} {
			if code := b.g.Heartbeat(b.now, &HeartbeatRequest{MemberID: id, Generation: 2}); code != nil {
				t.Fatal(code)
			}
		}
	}
	expire()
	if got := b.g.Partitions(); len(got) != 1 || got[0].Topic != "t" {
		t.Fatalf("only the topic that nobody reads may go: %v", got)
	}
}

func TestDeleteAndOffsetDelete(t *testing.T) {
	b := newBench(t, testSettings())
	b.stable()
	b.commit("c", "id-a", 2, at("t", 0, 1), at("left", 0, 1))
	var out Effects
	b.g.Delete(b.now, "busy", &out)
	b.g.DeleteOffsets(&OffsetDeleteRequest{Token: "offsets", Partitions: []TopicPartition{{Topic: "t"}, {Topic: "left"}, {Topic: "x"}}}, &out)
	b.take(&out)
	if r := b.answers["busy"].(DeleteResult); r.Err != kerr.NonEmptyGroup {
		t.Fatal(r.Err)
	}
	if r := b.answers["offsets"].(OffsetDeleteResult); r.Err != nil || r.Errs[0] != kerr.GroupSubscribedToTopic || r.Errs[1] != nil || r.Errs[2] != nil {
		t.Fatalf("got %+v", r)
	}
	b.pass(time.Minute)
	out = Effects{}
	b.g.Delete(b.now, "empty", &out)
	b.take(&out)
	if r := b.answers["empty"].(DeleteResult); r.Err != nil {
		t.Fatal(r.Err)
	}
	b.expectState(Dead)
}

func TestAPauseIsForgiven(t *testing.T) {
	b := newBench(t, testSettings())
	b.stable()
	b.now = b.now.Add(time.Hour) // nobody was listening
	b.g.Postpone(time.Hour)
	b.pass(4 * time.Second)
	b.expectState(Stable)
	b.pass(4 * time.Second)
	b.expectState(Empty)
}

// TestRestore: what the log holds makes the same group again.
func TestRestore(t *testing.T) {
	b := newBench(t, testSettings())
	b.stable()
	b.commit("c", "id-a", 2, at("t", 0, 11))
	restored := restore(t, b.log, b.now)
	if !reflect.DeepEqual(restored.Describe(), b.g.Describe()) || restored.generation != b.g.generation || restored.leader != b.g.leader {
		t.Fatalf("got %+v\nwant %+v", restored.Describe(), b.g.Describe())
	}
	if offset, found := restored.Fetch(TopicPartition{Topic: "t"}); !found || offset.Offset != 11 {
		t.Fatalf("got %+v", offset)
	}
	if code := restored.Heartbeat(b.now, &HeartbeatRequest{MemberID: "id-b", Generation: 2}); code != nil {
		t.Fatal(code)
	}
	b.g = restored
	b.pass(time.Minute)
	b.expectState(Empty) // sessions run on under the new coordinator
}

// restore replays the records of one group.
func restore(t *testing.T, log []Record, now time.Time) *Group {
	t.Helper()
	offsets := map[TopicPartition]Offset{}
	last := map[string][]byte{}
	for _, r := range log {
		last[string(r.Key)] = r.Value
	}
	g := New("g", testSettings(), now)
	for key, value := range last {
		k, err := DecodeKey([]byte(key))
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case value == nil:
		case k.Kind == OffsetKey:
			offset, err := DecodeOffset(value)
			if err != nil {
				t.Fatal(err)
			}
			offsets[TopicPartition{Topic: k.Topic, Partition: k.Partition}] = offset
		case k.Kind == GroupKey:
			metadata, err := DecodeGroup(value)
			if err != nil {
				t.Fatal(err)
			}
			g = Restore("g", testSettings(), metadata, offsets, now)
		}
	}
	for tp, offset := range offsets {
		g.offsets[tp] = &offset
	}
	return g
}

func FuzzRecords(f *testing.F) {
	b := New("g", testSettings(), epoch)
	b.add(&member{id: "m", protocols: []Protocol{{"range", subscription("t")}}})
	record := b.metadataRecord(map[string][]byte{"m": {1}})
	f.Add(record.Key, record.Value)
	f.Add(encodeOffsetKey("g", TopicPartition{Topic: "t", Partition: 3}), encodeOffset(&Offset{Offset: 4, Metadata: "m", ExpireMs: NoTimestamp}))
	f.Add(encodeOffsetKey("g", TopicPartition{Topic: "t"}), encodeOffset(&Offset{ExpireMs: 5}))
	f.Add([]byte{0, 3}, []byte{0, 4, 1, 2})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		if k, err := DecodeKey(key); err == nil && k.Kind == OffsetKey {
			again, err := DecodeKey(encodeOffsetKey(k.Group, TopicPartition{Topic: k.Topic, Partition: k.Partition}))
			if err != nil || again != k {
				t.Fatalf("%+v became %+v, %v", k, again, err)
			}
		}
		if offset, err := DecodeOffset(value); err == nil {
			again, err := DecodeOffset(encodeOffset(&offset))
			if offset.ExpireMs != NoTimestamp {
				again.LeaderEpoch = offset.LeaderEpoch // version 1 has an expiry, but no leader epoch
			}
			if err != nil || again != offset {
				t.Fatalf("%+v became %+v, %v", offset, again, err)
			}
		}
		if metadata, err := DecodeGroup(value); err == nil {
			g := Restore("g", testSettings(), metadata, nil, epoch)
			if _, err := DecodeGroup(g.metadataRecord(g.assignments()).Value); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = subscribedTopics(value)
	})
}

// completeWith ends the writes of an event as the log would, with an outcome.
func completeWith(now time.Time, out *Effects, err error) (replies []Reply) {
	var after Effects
	for i := range out.Writes {
		out.Writes[i].Complete(now, err, &after)
	}
	return after.Replies
}

// TestADeletionThatFailsDeletesNothing: acknowledged offsets outlive one that was refused.
func TestADeletionThatFailsDeletesNothing(t *testing.T) {
	tp := TopicPartition{Topic: "t"}
	g := New("g", testSettings(), time.Unix(1000, 0))
	now := time.Unix(1000, 0)
	var out Effects
	g.Commit(now, &CommitRequest{Generation: -1, Offsets: []CommitOffset{{TP: tp, Offset: 7, Retention: -1}}}, &out)
	completeWith(now, &out, nil)
	for name, remove := range map[string]func(*Effects){
		"offset": func(out *Effects) {
			g.DeleteOffsets(&OffsetDeleteRequest{Token: 1, Partitions: []TopicPartition{tp}}, out)
		},
		"group": func(out *Effects) { g.Delete(now, 1, out) },
	} {
		out = Effects{}
		remove(&out)
		if replies := completeWith(now, &out, kerr.NotEnoughReplicas); len(replies) != 1 {
			t.Fatalf("%s: %v", name, replies)
		}
		if offset, found := g.Fetch(tp); !found || offset.Offset != 7 || g.State() != Empty {
			t.Errorf("%s: offset %v (%v), state %v", name, offset, found, g.State())
		}
	}
	out = Effects{}
	g.DeleteOffsets(&OffsetDeleteRequest{Token: 1, Partitions: []TopicPartition{tp}}, &out)
	completeWith(now, &out, nil)
	if _, found := g.Fetch(tp); found {
		t.Error("the offset is still there")
	}
}

// TestACommitForADeletedPartitionIsVoid: it must not count for the next topic of that name.
func TestACommitForADeletedPartitionIsVoid(t *testing.T) {
	tp := TopicPartition{Topic: "t"}
	now := time.Unix(1000, 0)
	g := New("g", testSettings(), now)
	var writing, out Effects
	g.Commit(now, &CommitRequest{Generation: -1, Offsets: []CommitOffset{{TP: tp, Offset: 7, Retention: -1}}}, &writing)
	g.PartitionsDeleted(func(gone TopicPartition) bool { return gone == tp }, now, &out)
	if len(out.Writes) != 1 || len(out.Writes[0].Records) != 1 {
		t.Fatalf("no tombstone: %+v", out)
	}
	completeWith(now, &writing, nil)
	if offset, found := g.Fetch(tp); found {
		t.Errorf("offset %v", offset)
	}
	writing = Effects{}
	g.Commit(now, &CommitRequest{Generation: -1, Offsets: []CommitOffset{{TP: tp, Offset: 1, Retention: -1}}}, &writing)
	completeWith(now, &writing, nil)
	if offset, found := g.Fetch(tp); !found || offset.Offset != 1 {
		t.Errorf("the next topic's offset: %v (%v)", offset, found)
	}
}

// TestAGroupWhoseEndIsNotWrittenGoesOn: its generations must not begin anew.
func TestAGroupWhoseEndIsNotWrittenGoesOn(t *testing.T) {
	b := newBench(t, testSettings())
	b.stable()
	b.pass(time.Minute) // all members are gone
	b.expectState(Empty)
	generation := b.g.Generation()
	var out Effects
	b.g.Expire(b.now, &out)
	completeWith(b.now, &out, kerr.NotLeaderForPartition)
	if b.g.State() != Empty || b.g.Generation() != generation {
		t.Errorf("state %v, generation %d after %d", b.g.State(), b.g.Generation(), generation)
	}
	out = Effects{}
	b.g.Expire(b.now, &out)
	completeWith(b.now, &out, nil)
	b.expectState(Dead)
}
