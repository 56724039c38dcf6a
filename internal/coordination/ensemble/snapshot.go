package ensemble

import (
	"encoding/binary"
	"errors"
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
	begin := m.config.now()
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
	m.logger.Info("snapshot saved", "index", id.Index, "term", id.Term, "took", m.config.now().Sub(begin).Round(time.Millisecond))
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
	m.beside(func() {
		id := m.log.NewestSnapshot()
		begin := m.config.now()
		m.streamSnapshot(to, id, message, func(err error) {
			status := raft.SnapshotFinish
			if err != nil {
				status = raft.SnapshotFailure
				m.logger.Warn("snapshot not sent", "member", uint64(to), "index", id.Index, "error", err)
				m.mendSnapshot(id)
			} else {
				m.logger.Info("snapshot sent", "member", uint64(to), "index", id.Index, "took", m.config.now().Sub(begin).Round(time.Millisecond))
			}
			m.events.put(func(l *loop) { l.node.ReportSnapshot(uint64(to), status) })
		})
	})
}

// mendSnapshot looks at a snapshot that could not be sent. The receiver refuses one whose file
// has been damaged since it was written, and would for ever; what it was made from is here.
func (m *Member) mendSnapshot(id wal.SnapshotID) {
	err := m.log.CheckSnapshot(id)
	if !errors.Is(err, wal.ErrCorrupt) || m.stopped() {
		return
	}
	m.logger.Error("a snapshot is damaged: one of the present state is written in its place", "index", id.Index, "cause", err)
	m.applier.put(applyItem{anew: true})
}

// streamSnapshot sends a snapshot's file and calls done once with what came of it.
func (m *Member) streamSnapshot(to znode.MemberID, id wal.SnapshotID, message *pb.Message, done func(error)) {
	file, size, err := m.log.SnapshotFile(id)
	if err != nil {
		done(err)
		return
	}
	frame, err := snapshotFrame(id, size, message)
	if err != nil {
		_ = file.Close()
		done(err)
		return
	}
	m.carrier.sendSnapshot(to, frame, file, time.Duration(m.config.InitLimit)*m.config.TickTime, func(err error) {
		_ = file.Close()
		done(err)
	})
}

// snapshotFrame is raft's message with the identity of the snapshot that is sent in fact.
func snapshotFrame(id wal.SnapshotID, size int64, message *pb.Message) ([]byte, error) {
	meta := &pb.SnapshotMetadata{ConfState: message.GetSnapshot().GetMetadata().GetConfState(), Index: &id.Index, Term: &id.Term}
	message = &pb.Message{
		Type: message.Type, To: message.To, From: message.From, Term: message.Term,
		Snapshot: &pb.Snapshot{Metadata: meta},
	}
	frame := binary.LittleEndian.AppendUint64(beginFrame(nil, frameSnapshot), uint64(size))
	frame, err := proto.MarshalOptions{}.MarshalAppend(frame, message)
	if err != nil {
		return nil, err
	}
	return endFrame(frame, 0), nil
}

// parseSnapshotFrame decodes what stands before a snapshot's file, and the file's size.
func parseSnapshotFrame(payload []byte, from, self znode.MemberID) (*pb.Message, int64, error) {
	if len(payload) < 8 {
		return nil, 0, io.ErrUnexpectedEOF
	}
	size := int64(binary.LittleEndian.Uint64(payload))
	message, err := parseRaft(payload[8:], from, self)
	if err != nil {
		return nil, 0, err
	}
	if message.GetType() != pb.MsgSnap || raft.IsEmptySnap(message.GetSnapshot()) || size < 0 {
		return nil, 0, fmt.Errorf("a %s on a snapshot stream", message.GetType())
	}
	return message, size, nil
}

// snapshot takes a snapshot stream: the file first, checked and durable, then the message to
// raft, which decides whether it is wanted.
func (m *Member) snapshot(from znode.MemberID, payload []byte, body io.Reader) error {
	message, size, err := parseSnapshotFrame(payload, from, m.config.ID)
	if err != nil {
		return err
	}
	m.receiving.Lock() // one at a time: they are large
	defer m.receiving.Unlock()
	if err := m.storeReceived(message, size, body); err != nil {
		return err
	}
	delivered := make(chan struct{})
	select {
	case m.inbound <- inbound{from: from, message: message, delivered: func() { close(delivered) }}:
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

// storeReceived makes a snapshot that arrives durable, unless the tree is beyond it.
func (m *Member) storeReceived(message *pb.Message, size int64, body io.Reader) error {
	id := snapshotID(message)
	if id.Index > m.applier.applied.Load() {
		if err := m.log.ReceiveSnapshot(id, size, body); err != nil {
			return err
		}
		return nil
	}
	_, err := io.CopyN(io.Discard, body, size)
	return err
}
