package ensemble

import (
	"sync/atomic"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"understudy/internal/coordination/wal"
)

// logWriter is the goroutine that owns the write-ahead log. raft's storage requests queue up
// while it syncs (bounded by raft: uncommittedMax on a leader, the inflight window on a
// follower); the next round takes all of them, writes them as one frame and syncs once. Only
// then do their answers leave: to raft here, and to the other members.
type logWriter struct {
	log     *wal.Log
	queue   *mailbox[*pb.Message]
	waiting atomic.Int32 // requests with answers that wait for a sync

	toRaft  func([]*pb.Message)
	toPeer  func(*pb.Message)
	restore func(wal.SnapshotID)
	fail    func(error)
}

func (w *logWriter) put(m *pb.Message) {
	w.waiting.Add(1)
	w.queue.put(m)
}

func (w *logWriter) run(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-w.queue.wake:
		}
		if !w.round() {
			return
		}
	}
}

// round stores everything that is queued and answers it; false if that failed.
func (w *logWriter) round() bool {
	messages := w.queue.take()
	if len(messages) == 0 {
		return true
	}
	if err := w.store(messages); err != nil {
		w.fail(err) // nothing of this round is acknowledged, nor anything after it
		return false
	}
	w.answer(messages)
	return true
}

// store makes a round durable: everything between two snapshots with one sync.
func (w *logWriter) store(messages []*pb.Message) error {
	writes := make([]wal.Write, 0, len(messages))
	for _, m := range messages {
		write := wal.Write{HardState: hardStateOf(m), Entries: m.GetEntries()}
		if raft.IsEmptySnap(m.GetSnapshot()) {
			writes = append(writes, write)
			continue
		}
		if err := w.log.Append(writes); err != nil {
			return err
		}
		writes = writes[:0]
		meta := m.GetSnapshot().GetMetadata()
		id := wal.SnapshotID{Index: meta.GetIndex(), Term: meta.GetTerm()}
		if err := w.log.InstallSnapshot(id, []wal.Write{{HardState: write.HardState}}); err != nil {
			return err
		}
		// Before the answer: the entries that follow must find the tree of the snapshot.
		w.restore(id)
		writes = append(writes, wal.Write{Entries: write.Entries})
	}
	return w.log.Append(writes)
}

// hardStateOf rebuilds the hard state of a MsgStorageAppend, nil if it has none.
func hardStateOf(m *pb.Message) *pb.HardState {
	if m.Term == nil && m.Vote == nil && m.Commit == nil {
		return nil
	}
	return &pb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}
}

// answer sends the answers of a round that is durable.
func (w *logWriter) answer(messages []*pb.Message) {
	w.waiting.Add(-int32(len(messages)))
	var local []*pb.Message
	for _, m := range messages {
		for _, r := range m.GetResponses() {
			if r.GetTo() == m.GetFrom() {
				local = append(local, r)
			} else {
				w.toPeer(r)
			}
		}
	}
	w.toRaft(local)
}
