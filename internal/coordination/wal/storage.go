package wal

import (
	"fmt"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// InitialState implements raft.Storage. The membership is the configured one.
func (l *Log) InitialState() (*pb.HardState, *pb.ConfState, error) {
	hs := l.hardState
	return &pb.HardState{Term: &hs.term, Vote: &hs.vote, Commit: &hs.commit}, l.confState(), nil
}

func (l *Log) confState() *pb.ConfState {
	return &pb.ConfState{Voters: append([]uint64(nil), l.voters...)}
}

// FirstIndex implements raft.Storage.
func (l *Log) FirstIndex() (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.base.index + 1, nil
}

// LastIndex implements raft.Storage.
func (l *Log) LastIndex() (uint64, error) { return l.lastPosition().index, nil }

// Term implements raft.Storage.
func (l *Log) Term(index uint64) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case index < l.mu.base.index:
		return 0, raft.ErrCompacted
	case index == l.mu.base.index:
		return l.mu.base.term, nil
	case index > l.lastLocked().index:
		return 0, raft.ErrUnavailable
	}
	return l.mu.positions[index-l.mu.base.index-1].term, nil
}

// Entries implements raft.Storage: from the cache, and below it from disk.
func (l *Log) Entries(low, high, maxBytes uint64) ([]*pb.Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if low <= l.mu.base.index {
		return nil, raft.ErrCompacted
	}
	last := l.lastLocked().index
	if high > last+1 {
		return nil, raft.ErrUnavailable
	}
	cacheFirst := last + 1 - uint64(len(l.mu.cache))
	var entries []*pb.Entry
	var size uint64
	for index := low; index < high; index++ {
		var e *pb.Entry
		if index >= cacheFirst {
			e = l.mu.cache[index-cacheFirst]
		} else {
			var err error
			if e, err = l.readEntryLocked(index); err != nil {
				return nil, err
			}
		}
		size += uint64(len(e.GetData())) + 24
		if size > maxBytes && len(entries) > 0 {
			break
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// readEntryLocked reads one entry back from its segment and checks it.
func (l *Log) readEntryLocked(index uint64) (*pb.Entry, error) {
	where := l.mu.positions[index-l.mu.base.index-1]
	for _, s := range l.mu.segments {
		if s.number != where.segment {
			continue
		}
		data := make([]byte, where.size)
		if _, err := s.file.ReadAt(data, int64(where.offset)); err != nil {
			return nil, fmt.Errorf("wal: read entry %d from %s at %d: %w", index, s.path, where.offset, err)
		}
		r, err := parseRecord(data)
		if err == nil && r.kind != recordEntry {
			err = fmt.Errorf("a record of type %d where an entry should be", r.kind)
		}
		if err != nil {
			return nil, &CorruptionError{File: s.path, Offset: int64(where.offset), Cause: err.Error()}
		}
		return r.entry(), nil
	}
	return nil, raft.ErrUnavailable
}

// Snapshot implements raft.Storage: the identity of the newest snapshot on disk. Its content
// never goes through raft.
func (l *Log) Snapshot() (*pb.Snapshot, error) {
	id := l.NewestSnapshot()
	if id.Index == 0 {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return &pb.Snapshot{Metadata: &pb.SnapshotMetadata{ConfState: l.confState(), Index: &id.Index, Term: &id.Term}}, nil
}
