package ensemble

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// refusesLeader holds a leader's MsgApp against what this member knows to be committed. By raft's
// promise a leader has all of it. One that does not was elected by members that lost the end of
// their logs: disks that dropped what they had synced, files cut short or restored from an older
// copy. raft itself would go on in silence: it answers with its own commit index, which the leader
// takes for an acknowledgement of entries that it does not even have. So the member stops, and what
// it has stays as it is. True if the message must not be handed to raft.
func (l *loop) refusesLeader(m *pb.Message) bool {
	st := l.node.BasicStatus()
	if m.GetTerm() < st.GetTerm() || m.GetIndex() > st.GetCommit() {
		return false // a deposed leader's, or all of it lies behind what is committed
	}
	applied := l.m.applier.applied.Load()
	// The entry before those of the message is said to be the same, too.
	differs := m.GetLogTerm() > 0 && l.hasAnother(m.GetIndex(), m.GetLogTerm())
	at, term := m.GetIndex(), m.GetLogTerm()
	for _, e := range m.GetEntries() {
		if differs || e.GetIndex() > st.GetCommit() {
			break
		}
		at, term = e.GetIndex(), e.GetTerm()
		differs = l.hasAnother(at, term)
	}
	switch {
	case !differs:
		return false
	case at > applied:
		// The log on disk, which was looked at, may still have what the committed entry replaces.
		// It is applied soon, and the leader repeats itself.
		return true
	}
	l.m.fail(fmt.Errorf("ensemble: member %d leads in term %d and has another entry %d (of term %d) than the one that was committed and is applied here (up to entry %d): it and others have lost the end of their logs. This member stops, so as to keep what they lost. Restore their files; or, to go on without it, move %s away, put a new directory with a file recovering.json that holds {} in its place, and start this member again",
		m.GetFrom(), m.GetTerm(), at, term, applied, l.m.config.Dir))
	return true
}

// hasAnother says whether the log on disk has an entry of another term at an index that is
// committed. What is applied is on disk for good; where it has been compacted away, its term was
// not above that of the last entry applied.
func (l *loop) hasAnother(index, term uint64) bool {
	own, err := l.m.log.Term(index)
	if errors.Is(err, raft.ErrCompacted) {
		return term > l.m.applier.term.Load()
	}
	return err == nil && own != term
}
