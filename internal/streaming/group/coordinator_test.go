package group

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/group/classic"
	"understudy/internal/streaming/record"
)

// memoryLog is the replicated log in memory: appends are acknowledged after a delay, in
// order, unless it fails.
type memoryLog struct {
	mu      sync.Mutex
	batches map[int32][]record.Batch
	end     map[int32]cluster.Offset
	delay   time.Duration
	fail    error
	appends int
	reading chan struct{} // if not nil, reads wait for it
}

func newMemoryLog() *memoryLog {
	return &memoryLog{batches: map[int32][]record.Batch{}, end: map[int32]cluster.Offset{}, delay: time.Millisecond}
}

func (l *memoryLog) Append(tp cluster.TopicPartition, data []byte, acks int16, _ time.Duration, done func(error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.appends++
	err := l.fail
	if err == nil {
		batch := record.Batch(data)
		batch.SetBaseOffset(l.end[tp.Partition])
		l.batches[tp.Partition] = append(l.batches[tp.Partition], batch)
		l.end[tp.Partition] = batch.NextOffset()
	}
	if acks == 1 {
		go done(err)
		return
	}
	time.AfterFunc(l.delay, func() { done(err) })
}

func (l *memoryLog) Read(tp cluster.TopicPartition, from cluster.Offset, _ int) ([]byte, cluster.Offset, cluster.Offset, error) {
	if l.reading != nil {
		<-l.reading
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	end := l.end[tp.Partition]
	for _, batch := range l.batches[tp.Partition] { // one batch at a time
		if batch.NextOffset() > from {
			return batch, batch.NextOffset(), end, nil
		}
	}
	return nil, from, end, nil
}

const partitions = 4

func start(t *testing.T, log *memoryLog) *Coordinator {
	t.Helper()
	c := New(Config{Log: log, Partitions: func() int32 { return partitions }})
	t.Cleanup(c.Close)
	return c
}

func elect(c *Coordinator, epoch cluster.LeaderEpoch) {
	for p := range int32(partitions) {
		c.OnElection(p, epoch)
	}
	synctest.Wait()
}

func joinRequest(memberID string) *classic.JoinRequest {
	return &classic.JoinRequest{
		MemberID: memberID, ClientID: "client", RebalanceTimeout: 20 * time.Second, SessionTimeout: 10 * time.Second,
		ProtocolType: "consumer", Protocols: []classic.Protocol{{Name: "range", Metadata: []byte{0, 1, 0, 0, 0, 0}}},
	}
}

func await[R any](t *testing.T, call func(done func(R))) R {
	t.Helper()
	result := make(chan R, 1)
	call(func(r R) { result <- r })
	return <-result
}

func join(t *testing.T, c *Coordinator, group, memberID string) classic.JoinResult {
	t.Helper()
	return await(t, func(done func(classic.JoinResult)) { c.Join(group, joinRequest(memberID), done) })
}

func syncGroup(t *testing.T, c *Coordinator, group string, joined classic.JoinResult) classic.SyncResult {
	t.Helper()
	return await(t, func(done func(classic.SyncResult)) {
		c.Sync(group, &classic.SyncRequest{
			MemberID: joined.MemberID, Generation: joined.Generation, Assignments: map[string][]byte{joined.MemberID: []byte("all")},
		}, done)
	})
}

func commit(t *testing.T, c *Coordinator, group string, joined classic.JoinResult, offset int64) *kerr.Error {
	t.Helper()
	return await(t, func(done func(classic.CommitResult)) {
		c.Commit(group, &classic.CommitRequest{
			MemberID: joined.MemberID, Generation: joined.Generation,
			Offsets: []classic.CommitOffset{{TP: cluster.TopicPartition{Topic: "t"}, Offset: offset, LeaderEpoch: 3, Metadata: "m", Retention: -1}},
		}, done)
	}).Errs[0]
}

func committed(t *testing.T, c *Coordinator, group string) int64 {
	t.Helper()
	offsets, code := c.FetchOffsets(group, []cluster.TopicPartition{{Topic: "t"}}, false)
	if code != nil {
		t.Fatal(code)
	}
	return offsets[0].Offset
}

// TestTheNextCoordinatorGoesOn: a group with its member and offsets moves to a coordinator
// that has only the log.
func TestTheNextCoordinatorGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemoryLog()
		first := start(t, log)
		elect(first, 1)
		member := join(t, first, "g", "")
		if member.Err != nil || member.Leader != member.MemberID {
			t.Fatalf("got %+v", member)
		}
		if r := syncGroup(t, first, "g", member); r.Err != nil || string(r.Assignment) != "all" {
			t.Fatalf("got %+v", r)
		}
		if code := commit(t, first, "g", member, 42); code != nil {
			t.Fatal(code)
		}
		for p := range int32(partitions) {
			first.OnResignation(p, 2)
		}
		if code := first.Heartbeat("g", &classic.HeartbeatRequest{MemberID: member.MemberID, Generation: member.Generation}); code != kerr.NotCoordinator {
			t.Fatalf("the old coordinator: %v", code)
		}

		second := start(t, log)
		elect(second, 2)
		if got := committed(t, second, "g"); got != 42 {
			t.Fatalf("offset %d", got)
		}
		if code := second.Heartbeat("g", &classic.HeartbeatRequest{MemberID: member.MemberID, Generation: member.Generation}); code != nil {
			t.Fatalf("the member must not notice: %v", code)
		}
		if code := commit(t, second, "g", member, 43); code != nil || committed(t, second, "g") != 43 {
			t.Fatal(code)
		}
		if description, _ := second.Describe("g"); description.State != classic.Stable || len(description.Members) != 1 {
			t.Fatalf("got %+v", description)
		}
		time.Sleep(time.Minute) // the member dies
		if description, _ := second.Describe("g"); description.State != classic.Empty {
			t.Fatalf("got %+v", description)
		}
	})
}

func TestWhileLoading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemoryLog()
		log.reading = make(chan struct{})
		c := start(t, log)
		if r := join(t, c, "g", ""); r.Err != kerr.NotCoordinator {
			t.Fatalf("before the election: %v", r.Err)
		}
		elect(c, 1)
		if r := join(t, c, "g", ""); r.Err != kerr.CoordinatorLoadInProgress {
			t.Fatalf("join: %v", r.Err)
		}
		if code := c.Heartbeat("g", &classic.HeartbeatRequest{MemberID: "m"}); code != nil {
			t.Fatalf("heartbeat: %v", code)
		}
		if r := syncGroup(t, c, "g", classic.JoinResult{MemberID: "m"}); r.Err != kerr.RebalanceInProgress {
			t.Fatalf("sync: %v", r.Err)
		}
		if _, code := c.List(); code != kerr.CoordinatorLoadInProgress {
			t.Fatalf("list: %v", code)
		}
		close(log.reading)
		synctest.Wait()
		if r := join(t, c, "g", ""); r.Err != nil {
			t.Fatal(r.Err)
		}
		if list, code := c.List(); code != nil || len(list) != 1 || list[0].Group != "g" {
			t.Fatalf("got %v %v", list, code)
		}
	})
}

// TestEverythingThatWaitsIsAnswered when the partition moves away.
func TestEverythingThatWaitsIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemoryLog()
		c := start(t, log)
		elect(c, 1)
		leader := join(t, c, "g", "")
		syncGroup(t, c, "g", leader)
		second := make(chan classic.JoinResult, 1)
		c.Join("g", joinRequest(""), func(r classic.JoinResult) { second <- r })
		log.mu.Lock()
		log.delay = time.Hour
		log.mu.Unlock()
		committing := make(chan *kerr.Error, 1)
		go func() { committing <- commit(t, c, "g", leader, 7) }()
		synctest.Wait()
		c.OnResignation(c.PartitionOf("g"), 2)
		if r := <-second; r.Err != kerr.NotCoordinator {
			t.Fatalf("join: %v", r.Err)
		}
		if code := <-committing; code != nil {
			t.Fatalf("the commit is in the log, and its write says so: %v", code)
		}
	})
}

func TestAnOlderEpochChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, newMemoryLog())
		elect(c, 5)
		leader := join(t, c, "g", "")
		c.OnElection(c.PartitionOf("g"), 4)
		c.OnElection(c.PartitionOf("g"), 5)
		c.OnResignation(c.PartitionOf("g"), 4)
		if code := c.Heartbeat("g", &classic.HeartbeatRequest{MemberID: leader.MemberID, Generation: leader.Generation}); code != nil {
			t.Fatal(code)
		}
		c.OnResignation(c.PartitionOf("g"), cluster.NoLeaderEpoch)
		if code := c.Heartbeat("g", &classic.HeartbeatRequest{MemberID: leader.MemberID}); code != kerr.NotCoordinator {
			t.Fatal(code)
		}
	})
}

// TestCommitsShareAppends: what arrives while an append is handed over goes together, and
// every commit has its own answer.
func TestCommitsShareAppends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemoryLog()
		c := start(t, log)
		elect(c, 1)
		var wait sync.WaitGroup
		for i := range 500 {
			wait.Go(func() {
				if code := commit(t, c, fmt.Sprintf("g%d", i), classic.JoinResult{Generation: -1}, int64(i)); code != nil {
					t.Errorf("g%d: %v", i, code)
				}
			})
		}
		wait.Wait()
		for i := range 500 {
			if got := committed(t, c, fmt.Sprintf("g%d", i)); got != int64(i) {
				t.Fatalf("g%d: %d", i, got)
			}
		}
		if log.appends > 500 {
			t.Errorf("%d appends for 500 commits", log.appends)
		}
		next := start(t, log)
		elect(next, 2)
		if list, _ := next.List(); len(list) != 500 || !slices.IsSortedFunc(list, func(a, b Listed) int {
			if a.Group < b.Group {
				return -1
			}
			return 1
		}) {
			t.Errorf("%d groups after a replay", len(list))
		}
	})
}

func TestFailedCommitsAndDeletes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemoryLog()
		c := start(t, log)
		elect(c, 1)
		simple := classic.JoinResult{Generation: -1}
		log.fail = kerr.NotEnoughReplicas
		if code := commit(t, c, "g", simple, 1); code != kerr.CoordinatorNotAvailable || committed(t, c, "g") != -1 {
			t.Fatalf("got %v", code)
		}
		if list, _ := c.List(); len(list) != 1 || list[0].State != classic.Empty {
			t.Errorf("a group of which nothing came stays until the next expiry, as in Kafka: %v", list)
		}
		log.fail = nil
		if code := commit(t, c, "g", simple, 1); code != nil {
			t.Fatal(code)
		}
		for group, want := range map[string]*kerr.Error{"g": nil, "unknown": kerr.GroupIDNotFound} {
			if code := await(t, func(done func(*kerr.Error)) { c.Delete(group, done) }); code != want {
				t.Errorf("delete %s: %v", group, code)
			}
		}
		next := start(t, log)
		elect(next, 2)
		if list, _ := next.List(); len(list) != 0 {
			t.Errorf("deleted groups came back: %v", list)
		}
	})
}

func TestExpiryAndDeletedTopics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemoryLog()
		c := start(t, log)
		elect(c, 1)
		simple := classic.JoinResult{Generation: -1}
		for _, group := range []string{"a", "b"} {
			if code := commit(t, c, group, simple, 1); code != nil {
				t.Fatal(code)
			}
		}
		c.PartitionsDeleted([]cluster.TopicPartition{{Topic: "other"}})
		synctest.Wait()
		if list, _ := c.List(); len(list) != 2 {
			t.Fatalf("got %v", list)
		}
		time.Sleep(8 * 24 * time.Hour)
		synctest.Wait()
		if list, _ := c.List(); len(list) != 0 {
			t.Fatalf("got %v", list)
		}
		next := start(t, log)
		elect(next, 2)
		if list, _ := next.List(); len(list) != 0 {
			t.Fatalf("no tombstones: %v", list)
		}
	})
}

// TestTransactionalCommits, as a broker of Apache's writes them: they count when their
// transaction commits, unless a later plain commit stands in the log.
func TestTransactionalCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemoryLog()
		before := start(t, log)
		elect(before, 1)
		simple := classic.JoinResult{Generation: -1}
		offsets := map[string]int64{"commit": 10, "abort": 20, "open": 30, "overtaken": 40}
		for _, group := range []string{"commit", "abort", "open", "overtaken"} {
			if code := commit(t, before, group, simple, 1); code != nil {
				t.Fatal(code)
			}
			plain := log.batches[before.PartitionOf(group)]
			producer := offsets[group]
			log.appendTransactional(before.PartitionOf(group), plain[len(plain)-1], producer)
			if group == "overtaken" {
				if code := commit(t, before, group, simple, 2); code != nil {
					t.Fatal(code)
				}
			}
			switch group {
			case "commit", "overtaken":
				log.appendMarker(before.PartitionOf(group), record.Commit, producer)
			case "abort":
				log.appendMarker(before.PartitionOf(group), record.Abort, producer)
			}
		}
		after := start(t, log)
		elect(after, 2)
		for group, want := range map[string]int64{"commit": 1000, "abort": 1, "open": 1, "overtaken": 2} {
			if got := committed(t, after, group); got != want {
				t.Errorf("%s: %d, want %d", group, got, want)
			}
		}
	})
}

// appendTransactional writes the key of a plain commit again, with another offset, in a
// transaction of the producer.
func (l *memoryLog) appendTransactional(partition int32, plain record.Batch, producer int64) {
	options := record.DefaultOptions()
	options.ProducerID, options.ProducerEpoch, options.BaseSequence, options.Transactional = producer, 0, 0, true
	builder := record.NewBuilder(options)
	for r := range plain.Records(1 << 20) {
		value := slices.Clone(r.Value)
		copy(value[2:10], []byte{0, 0, 0, 0, 0, 0, 3, 232}) // offset 1000
		builder.Append(0, r.Key, value)
	}
	batch, err := builder.Build()
	if err != nil {
		panic(err)
	}
	l.put(partition, batch)
}

func (l *memoryLog) appendMarker(partition int32, kind record.ControlType, producer int64) {
	l.put(partition, record.BuildMarker(record.Marker{Type: kind}, producer, 0, 0, 0))
}

func (l *memoryLog) put(partition int32, batch record.Batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	batch.SetBaseOffset(l.end[partition])
	l.batches[partition] = append(l.batches[partition], batch)
	l.end[partition] = batch.NextOffset()
}

// TestTheSameLeaderGoesOn: a new leader epoch of a broker that led in the one before keeps the
// groups and their members as they are; if somebody may have led in between, only the log counts.
func TestTheSameLeaderGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, newMemoryLog())
		elect(c, 5)
		member := join(t, c, "g", "") // of whom the log knows nothing until it has an assignment
		heartbeat := &classic.HeartbeatRequest{MemberID: member.MemberID, Generation: member.Generation}
		elect(c, 6)
		if code := c.Heartbeat("g", heartbeat); code != nil {
			t.Fatalf("in the next epoch: %v", code)
		}
		elect(c, 8)
		if code := c.Heartbeat("g", heartbeat); code != kerr.UnknownMemberID {
			t.Fatalf("after an epoch of somebody else: %v", code)
		}
	})
}
