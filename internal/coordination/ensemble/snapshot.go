package ensemble

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"understudy/internal/coordination/wal"
	"understudy/internal/coordination/znode"
)

// saveSnapshot writes a frozen tree and forgets the log before it, but for a tail for members
// that are a little behind. It runs beside apply.
func (m *Member) saveSnapshot(id wal.SnapshotID, frozen *znode.Snapshot) {
	begin := time.Now()
	err := m.log.SaveSnapshot(id, func(w io.Writer) error {
		_, err := frozen.WriteTo(w)
		return err
	})
	frozen.Close()
	if err == nil && id.Index > m.config.KeepEntries {
		err = m.log.Compact(id.Index - m.config.KeepEntries)
	}
	if err != nil {
		if !m.stopped() {
			m.fail(err)
		}
		return
	}
	m.logger.Info("snapshot saved", "index", id.Index, "term", id.Term, "took", time.Since(begin).Round(time.Millisecond))
}

// readSnapshot builds a tree from a snapshot on disk.
func (m *Member) readSnapshot(id wal.SnapshotID) (*znode.Machine, error) {
	body, err := m.log.ReadSnapshot(id)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	machine, err := znode.Restore(body)
	if err != nil {
		return nil, fmt.Errorf("ensemble: the snapshot at entry %d cannot be restored: %w", id.Index, err)
	}
	return machine, nil
}

// sendSnapshot streams the newest snapshot to a member that fell behind the log, on a
// connection of its own; raft goes on meanwhile. The newest one may be newer than raft asked
// for, which serves as well.
func (m *Member) sendSnapshot(message *pb.Message) {
	to := znode.MemberID(message.GetTo())
	m.wg.Go(func() {
		id := m.log.NewestSnapshot()
		begin := time.Now()
		err := m.streamSnapshot(to, id, message)
		status := raft.SnapshotFinish
		if err != nil {
			status = raft.SnapshotFailure
			m.logger.Warn("snapshot not sent", "member", uint64(to), "index", id.Index, "error", err)
		} else {
			m.logger.Info("snapshot sent", "member", uint64(to), "index", id.Index, "took", time.Since(begin).Round(time.Millisecond))
		}
		m.events.put(func(l *loop) { l.node.ReportSnapshot(uint64(to), status) })
	})
}

func (m *Member) streamSnapshot(to znode.MemberID, id wal.SnapshotID, message *pb.Message) error {
	file, size, err := m.log.SnapshotFile(id)
	if err != nil {
		return err
	}
	defer file.Close()
	meta := &pb.SnapshotMetadata{ConfState: message.GetSnapshot().GetMetadata().GetConfState(), Index: &id.Index, Term: &id.Term}
	message = &pb.Message{
		Type: message.Type, To: message.To, From: message.From, Term: message.Term,
		Snapshot: &pb.Snapshot{Metadata: meta},
	}
	frame := binary.LittleEndian.AppendUint64(beginFrame(nil, frameSnapshot), uint64(size))
	frame, err = proto.MarshalOptions{}.MarshalAppend(frame, message)
	if err != nil {
		return err
	}
	return m.transport.sendSnapshot(to, endFrame(frame, 0), file, time.Duration(m.config.InitLimit)*m.config.TickTime)
}

// snapshot takes a snapshot stream: the file first, checked and durable, then the message to
// raft, which decides whether it is wanted.
func (m *Member) snapshot(from znode.MemberID, payload []byte, body io.Reader) error {
	if len(payload) < 8 {
		return io.ErrUnexpectedEOF
	}
	size := int64(binary.LittleEndian.Uint64(payload))
	message, err := parseRaft(payload[8:], from, m.config.ID)
	if err != nil {
		return err
	}
	if message.GetType() != pb.MsgSnap || raft.IsEmptySnap(message.GetSnapshot()) || size < 0 {
		return fmt.Errorf("a %s on a snapshot stream", message.GetType())
	}
	m.receiving.Lock() // one at a time: they are large
	defer m.receiving.Unlock()
	id := snapshotID(message)
	if id.Index > m.applier.applied.Load() {
		if err := m.log.ReceiveSnapshot(id, size, body); err != nil {
			return err
		}
	} else if _, err := io.CopyN(io.Discard, body, size); err != nil {
		return err
	}
	delivered := make(chan struct{})
	select {
	case m.inbound <- inbound{from: from, message: message, delivered: delivered}:
	case <-m.stopping:
		return ErrStopped
	}
	select {
	case <-delivered:
		return nil
	case <-m.stopping:
		return ErrStopped
	}
}
