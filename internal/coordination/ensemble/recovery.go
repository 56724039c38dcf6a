package ensemble

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"

	"understudy/internal/coordination/wal"
	"understudy/internal/coordination/znode"
)

// recovery is a member's way back after its durable state was damaged: it has forgotten for
// whom it voted and what it acknowledged. DESIGN.md has the argument. In short:
//
//	asking     nothing of raft's is taken or sent, until enough members have said their terms
//	following  in a term above all those; appends are taken and acknowledged, but there is no
//	           vote and no campaign, until an entry of such a term has been applied here
//	           and every other member has said its term
type recovery struct {
	mark    wal.Recovery
	terms   map[znode.MemberID]uint64 // that the others have said since this start
	askedAt time.Time
	toldAt  time.Time
	storing bool // the mark is being written
}

const (
	recoveryAskInterval  = 500 * time.Millisecond
	recoveryTellInterval = 10 * time.Second
)

// openLog opens the log. Where it is damaged, and the others can make up for it, it is set
// aside and the member begins anew in recovery.
func (m *Member) openLog(options wal.Options) (*wal.Log, *wal.Recovery, error) {
	log, err := wal.Open(options)
	if errors.Is(err, wal.ErrCorrupt) && len(m.config.Peers) >= 3 {
		mark, asideErr := wal.SetAside(options, err)
		if asideErr != nil {
			return nil, nil, errors.Join(err, asideErr)
		}
		m.logger.Error("the log or a snapshot is damaged: it is set aside, and the others' state is copied before this member votes again",
			"dir", options.Dir, "cause", err, "highestTermRead", mark.Floor)
		log, err = wal.Open(options)
	}
	if err != nil {
		return nil, nil, err
	}
	mark, err := wal.ReadRecovery(m.config.FS, options.Dir)
	if err == nil && mark != nil && len(m.config.Peers) < 3 {
		err = fmt.Errorf("ensemble: %s was damaged and set aside (%s), and there are not enough members to make up for it: put the damaged files back if they are better than nothing, or remove recovering.json to begin with an empty tree",
			options.Dir, mark.Cause)
	}
	if err != nil {
		_ = log.Abandon()
		return nil, nil, err
	}
	return log, mark, nil
}

// askedEnough says whether so many of the others have answered that every majority that this
// member was part of has one of them: it had at least n/2 of the others.
func (r *recovery) askedEnough(members int) bool { return len(r.terms) >= (members+1)/2 }

// floor is a term above every one in which this member can have helped to elect or commit.
func (r *recovery) floor() uint64 {
	floor := r.mark.Floor
	for _, term := range r.terms {
		floor = max(floor, term)
	}
	return floor + 1
}

// admits says which of the others' messages raft may see.
func (r *recovery) admits(m *pb.Message) bool {
	if r.mark.Term == 0 {
		return false
	}
	switch m.GetType() {
	case pb.MsgVote, pb.MsgPreVote, pb.MsgTimeoutNow:
		return false
	}
	return true
}

// recover is a recovering member's tick.
func (l *loop) recover() {
	r := l.recovery
	if l.now.Sub(r.askedAt) >= recoveryAskInterval {
		r.askedAt = l.now
		for _, id := range l.unheard() {
			l.m.carrier.send(id, encodedFrame(frameTermAsk, appendTermAsk(nil, l.m.log.Incarnation())))
		}
	}
	l.recoverFurther()
	if l.now.Sub(r.toldAt) >= recoveryTellInterval {
		r.toldAt = l.now
		l.m.logger.Warn("recovering from damaged state: this member does not vote yet", "term", r.mark.Term, "applied", l.m.applier.applied.Load(),
			"members", len(l.m.config.Peers), "notHeardFrom", l.unheard(),
			"hint", "a member that is recovering, too, has nothing to say: the files set aside (*.damaged-*) of one of them have to be restored")
	}
}

// unheard are the members that have not said their term yet.
func (l *loop) unheard() (missing []znode.MemberID) {
	for _, id := range memberIDs(l.m.config.Peers) {
		if _, said := l.recovery.terms[id]; !said && id != l.m.config.ID {
			missing = append(missing, id)
		}
	}
	return missing
}

// recoverFurther takes the next step of recovery if it can be taken.
func (l *loop) recoverFurther() {
	r := l.recovery
	if r.storing {
		return
	}
	if r.mark.Term == 0 {
		if r.askedEnough(len(l.m.config.Peers)) {
			next := r.mark
			next.Term = r.floor()
			l.storeMark(next)
		}
		return
	}
	needed := r.mark.Term
	for _, term := range r.terms {
		needed = max(needed, term)
	}
	if l.node.BasicStatus().GetTerm() < needed {
		l.adoptTerm(needed)
	}
	// What was applied is durable here, and so is the term that it came in.
	if len(r.terms) == len(l.peers) && l.m.applier.term.Load() >= needed {
		r.storing = true
		l.m.beside(func() {
			err := wal.EndRecovery(l.m.config.FS, l.m.config.Dir)
			l.m.events.put(func(l *loop) { l.recovered(err) })
		})
	}
}

func (l *loop) storeMark(next wal.Recovery) {
	l.recovery.storing = true
	l.m.beside(func() {
		err := next.Store(l.m.config.FS, l.m.config.Dir)
		l.m.events.put(func(l *loop) {
			if err != nil {
				l.m.fail(fmt.Errorf("ensemble: the mark of the recovery cannot be stored: %w", err))
				return
			}
			l.recovery.storing, l.recovery.mark = false, next
			l.m.logger.Info("recovering: following from a new term on", "term", next.Term, "heardFrom", len(l.recovery.terms))
			l.recoverFurther()
		})
	})
}

func (l *loop) recovered(err error) {
	if err != nil {
		l.m.fail(fmt.Errorf("ensemble: the mark of the recovery cannot be removed: %w", err))
		return
	}
	l.recovery = nil
	l.m.logger.Info("recovered from damaged state: this member votes again", "term", l.term, "applied", l.m.applier.applied.Load())
}

// adoptTerm brings raft to a term without a leader, as an answer from one who is in it would.
// A leader of an older term learns of it by the answer to its next message, and stands down.
func (l *loop) adoptTerm(term uint64) {
	self, from := uint64(l.m.config.ID), uint64(0)
	for id := range l.peers {
		from = max(from, uint64(id))
	}
	if err := l.node.Step(&pb.Message{Type: pb.MsgHeartbeatResp.Enum(), From: &from, To: &self, Term: &term}); err != nil {
		l.m.fail(fmt.Errorf("ensemble: raft does not take term %d: %w", term, err))
	}
}

// sayTerm answers a recovering member. One that is recovering itself does not know.
func (l *loop) sayTerm(to znode.MemberID, incarnation uint64) {
	if l.recovery != nil {
		return
	}
	term := l.node.BasicStatus().GetTerm()
	l.m.carrier.send(to, encodedFrame(frameTermSaid, appendTermSaid(nil, incarnation, term)))
}

// termSaid takes an answer to this start's question.
func (l *loop) termSaid(from znode.MemberID, incarnation, term uint64) {
	if l.recovery == nil || incarnation != l.m.log.Incarnation() || !slices.Contains(l.unheard(), from) {
		return
	}
	l.recovery.terms[from] = term
	l.recoverFurther()
}

// Recovering says whether the member copies the others' state because its own was damaged.
func (m *Member) Recovering() bool {
	mark, err := wal.ReadRecovery(m.config.FS, m.config.Dir)
	return mark != nil || err != nil
}

func appendTermAsk(dst []byte, incarnation uint64) []byte {
	start := len(dst)
	dst = binary.LittleEndian.AppendUint64(beginFrame(dst, frameTermAsk), incarnation)
	return endFrame(dst, start)
}

func parseTermAsk(payload []byte) (incarnation uint64, err error) {
	if len(payload) != 8 {
		return 0, io.ErrUnexpectedEOF
	}
	return binary.LittleEndian.Uint64(payload), nil
}

func appendTermSaid(dst []byte, incarnation, term uint64) []byte {
	start := len(dst)
	dst = binary.LittleEndian.AppendUint64(beginFrame(dst, frameTermSaid), incarnation)
	dst = binary.LittleEndian.AppendUint64(dst, term)
	return endFrame(dst, start)
}

func parseTermSaid(payload []byte) (incarnation, term uint64, err error) {
	if len(payload) != 16 {
		return 0, 0, io.ErrUnexpectedEOF
	}
	return binary.LittleEndian.Uint64(payload), binary.LittleEndian.Uint64(payload[8:]), nil
}
