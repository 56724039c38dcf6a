package ensemble

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"understudy/internal/coordination/wal"
	"understudy/internal/coordination/znode"
)

// loop is the goroutine that owns the RawNode. It takes events, steps raft, and hands raft's
// work on: to the log writer, the apply loop and the transport. It waits for none of them.
type loop struct {
	m      *Member
	node   *raft.RawNode
	random *rand.Rand
	now    time.Time // of this round

	// What raft said last.
	leader znode.MemberID
	term   uint64
	state  raft.StateType

	peers      map[znode.MemberID]*link
	cursor     cursor
	intake     map[znode.MemberID]taken // what this leader proposed in this term, by origin
	lastStamp  int64
	campaign   campaign
	barriers   barriers
	serving    serving
	quorum     bool
	handover   *handover
	lostLogAt  time.Time               // when a member without its log was last noticed
	unreported map[znode.MemberID]bool // peers with a dropped message, told to raft once per round
	beforeTick func()                  // Stepped's, else nil
	recovery   *recovery               // nil: the member has all that it ever knew
}

// link is what the loop knows of a peer's streams.
type link struct {
	out         bool
	in          int
	refusedAt   time.Time // nobody listens there, since both directions were lost; zero: not so
	stream      uint64
	incarnation uint64
	heard       time.Time
}

// dead says that the peer's process is gone as far as sockets can tell.
func (l *link) dead(now time.Time) bool { return l.refuses(now) && !l.out && l.in == 0 }

// refuses says whether the peer's address refuses. A dead process's goes on doing so, with each
// attempt of ours; of one that was not up yet, and that we have been cut off from since, we have
// heard nothing more.
func (l *link) refuses(now time.Time) bool {
	return !l.refusedAt.IsZero() && now.Sub(l.refusedAt) < 4*redialMax
}

// taken is the last sequence of an origin's incarnation that this leader has proposed in its
// term: those need no second proposal, whatever the origin sends again.
type taken struct{ incarnation, last uint64 }

// event is what other goroutines tell the loop. The mailbox is not bounded; each kind is: raft
// answers by what raft asked for, link events by the peers, the rest is asked for by clients
// whose requests are bounded elsewhere.
type event func(*loop)

// inbound is a frame from a peer. They come through a channel, not the mailbox: when the loop
// is behind, the peers' streams are not read.
type inbound struct {
	from      znode.MemberID
	message   *pb.Message
	forward   *forwarded
	delivered func() // if given, called once raft has it
}

func newLoop(m *Member, node *raft.RawNode) *loop {
	l := &loop{
		m: m, node: node, peers: make(map[znode.MemberID]*link), intake: make(map[znode.MemberID]taken),
		random:     rand.New(rand.NewPCG(m.log.Incarnation(), uint64(m.config.ID))),
		unreported: make(map[znode.MemberID]bool), quorum: true, now: m.config.now(),
	}
	for id := range m.config.Peers {
		if id != m.config.ID {
			l.peers[id] = &link{}
		}
	}
	l.serving.leaderlessSince = l.now
	l.cursor.next = 1
	l.barriers.context = l.random.Uint64() >> 1
	return l
}

func (l *loop) run(stop <-chan struct{}) {
	defer l.recoverRaft()
	ticker := time.NewTicker(raftTick)
	defer ticker.Stop()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	l.begin()
	for {
		timer.Reset(l.wait())
		select {
		case <-stop:
			l.barriers.fail()
			return
		case <-ticker.C:
			l.round(true, nil)
		case in := <-l.m.inbound:
			l.round(false, &in)
		case <-l.m.events.wake:
			l.round(false, nil)
		case <-timer.C:
			l.round(false, nil)
		}
	}
}

// begin lets a lone member elect itself at once.
func (l *loop) begin() {
	if l.recovery != nil && l.recovery.mark.Term > l.node.BasicStatus().GetTerm() {
		l.adoptTerm(l.recovery.mark.Term) // before anything of an older one can come
		l.ready()
	}
	if l.alone() {
		l.campaignNow()
		l.ready()
	}
}

// round is one turn of the loop, for whatever woke it: a tick, a frame from a peer, or an
// event or a time that is due. It takes everything else that has come meanwhile, too, so that
// one Ready serves it all.
func (l *loop) round(ticked bool, first *inbound) {
	l.now = l.m.config.now()
	if ticked {
		l.tick()
	}
	if first != nil {
		l.takeEvents() // what is known of a stream comes before what it brings
		l.receive(*first)
	}
	l.drain()
	l.barriers.next(l)
	l.campaignIfDue()
	l.propose()
	l.ready()
}

// raftFailure is what raft's logger panics with: a broken log or a broken invariant of the
// stored state. The member stops; nothing is acknowledged on such ground.
type raftFailure struct{ text string }

func (l *loop) recoverRaft() {
	switch r := recover().(type) {
	case nil:
	case raftFailure:
		l.m.fail(fmt.Errorf("ensemble: raft cannot go on: %s", r.text))
	case runtime.Error:
		panic(r)
	case error: // of the log: raft panics with it as it is
		l.m.fail(fmt.Errorf("ensemble: raft cannot go on: %w", r))
	default:
		panic(r)
	}
}

func (l *loop) alone() bool { return len(l.peers) == 0 }

// wait is how long until something is due by time alone (ticks come by themselves).
func (l *loop) wait() time.Duration {
	due := l.campaign.due
	if !l.cursor.resume.IsZero() && (due.IsZero() || l.cursor.resume.Before(due)) {
		due = l.cursor.resume
	}
	if due.IsZero() {
		return time.Hour
	}
	return max(0, due.Sub(l.m.config.now()))
}

// drain takes what has come in meanwhile, in bounded amounts, so that one Ready serves many.
func (l *loop) drain() {
	l.takeEvents()
	for _, f := range l.m.barriers.take() {
		l.barriers.add(l, f)
	}
	for range 256 {
		select {
		case in := <-l.m.inbound:
			l.takeEvents()
			l.receive(in)
		default:
			return
		}
	}
}

func (l *loop) takeEvents() {
	for _, e := range l.m.events.take() {
		e(l)
	}
}

func (l *loop) tick() {
	if l.beforeTick != nil {
		l.beforeTick()
	}
	if l.recovery != nil {
		l.recover() // raft's clock only makes it campaign
	} else {
		l.node.Tick()
	}
	l.checkQuorum()
	l.cursor.check(l)
	l.barriers.check(l)
	l.serving.check(l)
	l.handover.check(l)
}

// checkQuorum tells the sessions' clock whether this leader hears a majority.
func (l *loop) checkQuorum() {
	heard := 1
	for _, p := range l.peers {
		if l.now.Sub(p.heard) < 6*raftTick {
			heard++
		}
	}
	has := l.state == raft.StateLeader && heard > (len(l.peers)+1)/2
	if has != l.quorum {
		l.quorum = has
		l.m.sessions.setQuorum(has)
	}
}

func (l *loop) receive(in inbound) {
	if p := l.peers[in.from]; p != nil {
		p.heard = l.now
	}
	if in.forward != nil {
		l.takeForward(in.from, in.forward)
		return
	}
	l.step(in.message)
	if in.delivered != nil {
		in.delivered()
	}
}

// step gives raft a message that came over the network or from the log.
func (l *loop) step(m *pb.Message) {
	if l.recovery != nil && m.GetFrom() != uint64(l.m.config.ID) && !l.recovery.admits(m) {
		return
	}
	switch {
	case m.GetType() == pb.MsgHeartbeat:
		m = l.cappedHeartbeat(m)
	case m.GetType() == pb.MsgApp && l.refusesLeader(m):
		return
	case m.GetType() == pb.MsgAppResp && m.GetReject():
		l.noticeLostLog(m)
	case m.GetType() == pb.MsgPreVote && l.outranks(m):
		return
	}
	if err := l.node.Step(m); err != nil && !errors.Is(err, raft.ErrProposalDropped) {
		l.m.logger.Debug("raft message not taken", "type", m.GetType().String(), "from", m.GetFrom(), "error", err)
	}
}

// cappedHeartbeat keeps the commit index of a heartbeat within this member's log. It can only
// lie beyond if the member came back without its disk; raft would panic.
func (l *loop) cappedHeartbeat(m *pb.Message) *pb.Message {
	st := l.node.BasicStatus()
	if m.GetCommit() <= st.GetCommit() {
		return m
	}
	last := max(st.GetCommit(), l.lastAppended())
	if m.GetCommit() <= last {
		return m
	}
	return &pb.Message{Type: m.Type, To: m.To, From: m.From, Term: m.Term, Commit: &last, Context: m.Context}
}

// noticeLostLog recognises a member that came back without its disk: it rejects what it had
// acknowledged. raft never goes back behind an acknowledgement within a term, so it would stay
// behind for ever; the next leader begins without such knowledge. (A member that forgot its
// vote weakens raft's promise as it does ZooKeeper's; it needs a healthy majority beside it.)
func (l *loop) noticeLostLog(m *pb.Message) {
	if l.state != raft.StateLeader || m.GetTerm() != l.term || l.now.Sub(l.lostLogAt) < time.Second {
		return
	}
	var lost bool
	l.node.WithProgress(func(id uint64, _ raft.ProgressType, p trackerProgress) {
		lost = lost || (id == m.GetFrom() && m.GetRejectHint() < p.Match && m.GetIndex() <= p.Match)
	})
	if !lost {
		return
	}
	l.lostLogAt = l.now
	successor := l.successor(znode.MemberID(m.GetFrom()))
	l.m.logger.Warn("a member came back without its log; handing over so that it can catch up",
		"member", m.GetFrom(), "successor", uint64(successor))
	if successor != 0 {
		l.node.TransferLeader(uint64(successor))
	}
}

// successor is the connected member that has most of the log, 0 if there is none.
func (l *loop) successor(not znode.MemberID) (best znode.MemberID) {
	var match uint64
	l.node.WithProgress(func(id uint64, _ raft.ProgressType, p trackerProgress) {
		z := l.peers[znode.MemberID(id)]
		if z != nil && z.out && znode.MemberID(id) != not && p.RecentActive && p.Match >= match {
			best, match = znode.MemberID(id), p.Match
		}
	})
	return best
}

func (l *loop) lastAppended() uint64 {
	last, _ := l.m.log.LastIndex()
	return last
}

// ready hands on what raft wants done, until it wants nothing.
func (l *loop) ready() {
	for l.node.HasReady() {
		rd := l.node.Ready()
		for _, rs := range rd.ReadStates {
			l.barriers.confirmed(l, rs)
		}
		for _, m := range rd.Messages {
			l.dispatch(m)
		}
		l.follow()
		for id := range l.unreported {
			delete(l.unreported, id)
			l.node.ReportUnreachable(uint64(id))
		}
	}
}

func (l *loop) dispatch(m *pb.Message) {
	switch {
	case m.GetTo() == raft.LocalAppendThread:
		l.standBack(m.GetResponses())
		l.m.writer.put(m)
	case m.GetTo() == raft.LocalApplyThread:
		l.m.applier.put(applyItem{entries: m.GetEntries(), answers: m.GetResponses()})
	case m.GetType() == pb.MsgSnap:
		l.m.sendSnapshot(m)
	case m.GetFrom() != uint64(l.m.config.ID):
		// raft relays another member's MsgReadIndex. Messages travel in their senders' own
		// streams only; that member asks again (see barriers.check).
	default:
		if !l.m.carrier.send(znode.MemberID(m.GetTo()), raftFrame(m)) && m.GetType() == pb.MsgApp {
			l.unreported[znode.MemberID(m.GetTo())] = true
		}
	}
}

// follow looks whether leader, term or role have changed.
func (l *loop) follow() {
	st := l.node.BasicStatus()
	leader, term, state := znode.MemberID(st.Lead), st.GetTerm(), st.RaftState
	if leader == l.leader && term == l.term && state == l.state {
		return
	}
	wasLeader, before, beforeTerm := l.state == raft.StateLeader, l.leader, l.term
	l.leader, l.term, l.state = leader, term, state
	l.m.view.Store(&raftView{leader: leader, term: term, state: state})
	if leader != before || (leader != 0 && term != beforeTerm) {
		if leader != 0 {
			l.m.logger.Info("raft leader changed", "leader", uint64(leader), "term", term)
		} else {
			l.m.logger.Info("raft leader lost", "leader", uint64(before), "term", term)
		}
		l.serving.leaderChanged(l)
		l.barriers.again(l)
	}
	switch {
	case leader != 0:
		l.campaign = campaign{}
	case state == raft.StateCandidate:
		l.standBackAfterVote() // a new attempt before that would undo this one
	case l.campaign.due.IsZero():
		l.campaignAfter(retryDelay(l.random))
	}
	isLeader := state == raft.StateLeader
	if wasLeader != isLeader || (isLeader && term != beforeTerm) {
		clear(l.intake)
		l.changeSessions(isLeader)
	}
	l.handover.check(l)
}

// changeSessions starts or ends the leader's clock of the sessions.
func (l *loop) changeSessions(isLeader bool) {
	if !isLeader {
		l.m.sessions.resign()
		return
	}
	var dead []znode.MemberID
	for _, id := range memberIDs(l.m.config.Peers) {
		if p := l.peers[id]; p != nil {
			p.heard = l.now
			if p.dead(l.now) {
				dead = append(dead, id)
			}
		}
	}
	l.quorum = true
	l.m.sessions.lead(l.term, dead)
}

// linkChanged is evidence about a peer. A leader whose streams are closed and whose address
// refuses, or that comes back as another incarnation, is dead: do not wait for the timeout.
func (l *loop) linkChanged(e linkEvent) {
	p := l.peers[e.peer]
	if p == nil {
		return
	}
	switch e.change {
	case linkOutUp:
		p.out, p.stream, p.refusedAt = true, e.stream, time.Time{}
		l.m.logger.Info("ensemble member connected", "member", uint64(e.peer))
	case linkOutDown:
		p.out = false
		l.m.logger.Info("ensemble member disconnected", "member", uint64(e.peer))
		l.node.ReportUnreachable(uint64(e.peer))
		l.handover.check(l)
	case linkInUp:
		p.in++
		p.refusedAt = time.Time{}
	case linkInDown:
		p.in--
	case linkRefused:
		known := p.refuses(l.now)
		p.refusedAt = l.now
		if !known {
			l.suspect(e.peer, p)
		}
		return
	}
	if e.incarnation != 0 {
		if p.incarnation != 0 && p.incarnation != e.incarnation {
			l.memberDied(e.peer)
		}
		p.incarnation = e.incarnation
		if l.leader == 0 && l.campaign.due.IsZero() || l.campaign.idle {
			// A member that starts beside a living leader hears from it first.
			l.campaignAfter(time.Duration(30+l.random.IntN(30)) * time.Millisecond)
		}
	}
	l.suspect(e.peer, p)
}

func (l *loop) suspect(id znode.MemberID, p *link) {
	if p.dead(l.now) {
		l.memberDied(id)
	}
}

func (l *loop) memberDied(id znode.MemberID) {
	l.m.sessions.memberLost(id)
	if id != l.leader || l.state == raft.StateLeader {
		return
	}
	if err := l.node.ForgetLeader(); err != nil {
		return
	}
	l.campaignAfter(time.Duration(l.random.Int64N(int64(15 * time.Millisecond))))
}

// campaign is the plan of the next attempt to be elected, while there is no leader. The
// members that saw the leader die all make one, within milliseconds. What keeps them from
// undoing each other's: a pre-vote costs nothing and is repeated every 20 to 50 ms; of two
// that ask for it at once the one with the lower number goes first (outranks); who gave or
// asked for a real vote, which takes an fsync on both sides, stands back for longer; and for longer
// still where nothing comes of it, as votes are worth nothing once their candidate tries anew, and
// take as long as the members are apart.
type campaign struct {
	due   time.Time
	idle  bool // no majority is reachable: nothing is tried
	votes int  // asked for and given since there was a leader
}

func retryDelay(random *rand.Rand) time.Duration {
	return time.Duration(20+random.IntN(30)) * time.Millisecond
}

// standBackAfterVote lets a vote that was asked for or given be counted.
func (l *loop) standBackAfterVote() {
	wait := time.Duration(100+l.random.IntN(50)) * time.Millisecond
	l.campaignAfter(wait << min(max(l.campaign.votes-1, 0), 4))
	l.campaign.votes++
}

// outranks says that another's pre-vote is not answered because this member's own attempt goes
// first: both would get it, and split the votes. Not answering is always safe.
func (l *loop) outranks(m *pb.Message) bool {
	if l.state != raft.StatePreCandidate || m.GetFrom() < uint64(l.m.config.ID) {
		return false
	}
	index := l.lastAppended()
	term, err := l.m.log.Term(index)
	return err == nil && (term > m.GetLogTerm() || term == m.GetLogTerm() && index >= m.GetIndex())
}

// standBack gives another member's attempt its time, after this one voted for it.
func (l *loop) standBack(responses []*pb.Message) {
	for _, r := range responses {
		if r.GetTo() == uint64(l.m.config.ID) || r.GetReject() || l.campaign.due.IsZero() {
			continue
		}
		switch r.GetType() {
		case pb.MsgVoteResp:
			l.standBackAfterVote()
		case pb.MsgPreVoteResp:
			if due := l.now.Add(retryDelay(l.random)); due.After(l.campaign.due) {
				l.campaign.due = due
			}
		}
	}
}

func (l *loop) campaignAfter(wait time.Duration) {
	l.campaign.due = l.now.Add(wait)
	l.campaign.idle = false
}

func (l *loop) campaignIfDue() {
	if l.campaign.due.IsZero() || l.now.Before(l.campaign.due) {
		return
	}
	if l.recovery != nil {
		l.campaign = campaign{}
		return
	}
	if l.leader != 0 {
		l.campaign = campaign{}
		return
	}
	connected := 1
	for _, p := range l.peers {
		if p.out {
			connected++
		}
	}
	if connected <= (len(l.peers)+1)/2 {
		l.campaign = campaign{idle: true}
		return
	}
	l.campaignNow()
}

func (l *loop) campaignNow() {
	if err := l.node.Campaign(); err != nil {
		l.m.logger.Debug("raft campaign not begun", "error", err)
	}
	l.campaignAfter(retryDelay(l.random))
}

// propose moves this member's pending requests on: into raft's log on the leader, over the
// stream to it elsewhere.
func (l *loop) propose() {
	l.cursor.follow(l)
	if !l.cursor.resume.IsZero() {
		if l.now.Before(l.cursor.resume) {
			return
		}
		l.cursor.resume = time.Time{}
	}
	switch {
	case l.state == raft.StateLeader:
		l.proposeOwn()
	case l.cursor.stream != 0:
		l.forwardOwn()
	}
}

// proposalsUnsynced is how many rounds of the log writer may be under way when a leader
// proposes its own requests: one is being synced, one waits. More would only make the entries
// smaller; requests that come meanwhile share the next one.
const proposalsUnsynced = 2

func (l *loop) proposeOwn() {
	for l.m.writer.waiting.Load() < proposalsUnsynced {
		batch, ok := l.m.forward.batch(l.cursor.next)
		if !ok {
			return
		}
		last := batch.FirstSequence + uint64(len(batch.Requests)) - 1
		if !l.proposeBatch(batch.Append(nil), batch.Requests) {
			l.cursor.pause(l.now)
			return
		}
		l.cursor.next = last + 1
		l.ready() // begins the sync
	}
}

// forwardsUnapplied bounds the batches under way to the leader: what comes meanwhile shares
// the next one.
const forwardsUnapplied = 4

func (l *loop) forwardOwn() {
	for l.cursor.windowOpen(l.m.forward) {
		batch, ok := l.m.forward.batch(l.cursor.next)
		if !ok {
			return
		}
		frame := appendForward(nil, l.term, batch.Append(nil))
		if !l.m.carrier.send(l.leader, encodedFrame(frameForward, frame)) {
			l.cursor.pause(l.now)
			return
		}
		l.cursor.sent(batch.FirstSequence+uint64(len(batch.Requests))-1, l.now)
	}
}

// takeForward is the leader's intake of another member's requests.
func (l *loop) takeForward(from znode.MemberID, f *forwarded) {
	batch, encoded := &f.batch, f.encoded
	known, ok := l.intake[from]
	if !ok || known.incarnation != batch.Incarnation {
		known = taken{incarnation: batch.Incarnation, last: batch.FirstSequence - 1}
	}
	last := batch.FirstSequence + uint64(len(batch.Requests)) - 1
	switch {
	case l.state != raft.StateLeader || f.term != l.term || batch.FirstSequence > known.last+1:
		l.refuse(from, f.term)
		return
	case last <= known.last:
		return // in the log of this term already
	case batch.FirstSequence <= known.last:
		batch.Requests = batch.Requests[known.last+1-batch.FirstSequence:]
		batch.FirstSequence = known.last + 1
		encoded = batch.Append(nil)
	}
	if !l.proposeBatch(encoded, batch.Requests) {
		l.refuse(from, f.term)
		return
	}
	known.last = last
	l.intake[from] = known
}

// forgetIntake lets an origin send again what apply found out of order.
func (l *loop) forgetIntake(origin znode.MemberID) { delete(l.intake, origin) }

func (l *loop) refuse(to znode.MemberID, term uint64) {
	l.m.carrier.send(to, encodedFrame(frameRefused, appendRefused(nil, term)))
}

// proposeBatch stamps the leader's time into an encoded batch and proposes it.
func (l *loop) proposeBatch(encoded []byte, requests []znode.Request) bool {
	l.lastStamp = max(l.lastStamp, l.m.config.wall(l.now).UnixMilli())
	znode.StampTime(encoded, l.lastStamp)
	if err := l.node.Propose(encoded); err != nil {
		return false
	}
	l.m.sessions.proposed(requests)
	return true
}

// proposeDecisions proposes what this leader decided itself (expiry, containers). Such a
// batch has no origin and is never forwarded: another leader decides for itself.
func (l *loop) proposeDecisions(term uint64, requests []znode.Request) {
	if l.state != raft.StateLeader || l.term != term {
		return
	}
	for len(requests) > 0 {
		n := min(len(requests), batchRequestsMax)
		batch := znode.Batch{Requests: requests[:n]}
		if !l.proposeBatch(batch.Append(nil), nil) {
			return // the clock decides again
		}
		requests = requests[n:]
	}
}

// cursor is how far this member's pending requests have been handed on, and to whom. Whatever
// could have lost some of them in between makes it go back to the oldest one not applied.
type cursor struct {
	next   uint64
	leader znode.MemberID
	term   uint64
	stream uint64 // our stream to the leader; 0: none, or we are the leader
	resume time.Time

	under    []uint64 // last sequences of the batches under way to another member
	oldest   uint64   // the oldest pending request when progress was last seen
	progress time.Time
}

// follow goes back if the leader, its term or the stream to it changed.
func (c *cursor) follow(l *loop) {
	var stream uint64
	if p := l.peers[l.leader]; p != nil && p.out {
		stream = p.stream
	}
	if c.leader == l.leader && c.term == l.term && c.stream == stream {
		return
	}
	c.leader, c.term, c.stream = l.leader, l.term, stream
	c.back(l)
}

func (c *cursor) back(l *loop) {
	c.next, _ = l.m.forward.oldest()
	c.oldest, c.progress = c.next, l.now
	c.under = c.under[:0]
	c.resume = time.Time{}
}

// pause waits a little before trying again: the leader or its stream is full, or unwilling.
func (c *cursor) pause(now time.Time) { c.resume = now.Add(10 * time.Millisecond) }

func (c *cursor) sent(last uint64, now time.Time) {
	if len(c.under) == 0 {
		c.progress = now
	}
	c.next = last + 1
	c.under = append(c.under, last)
}

func (c *cursor) windowOpen(f *forwarder) bool {
	oldest, _ := f.oldest()
	n := 0
	for n < len(c.under) && c.under[n] < oldest {
		n++
	}
	c.under = slices.Delete(c.under, 0, n)
	return len(c.under) < forwardsUnapplied
}

// refusedBy is the leader's word that it did not take a batch.
func (c *cursor) refusedBy(l *loop, from znode.MemberID, term uint64) {
	if from == l.leader && term == l.term {
		c.back(l)
		c.pause(l.now)
	}
}

// check goes back if nothing moves.
func (c *cursor) check(l *loop) {
	oldest, pending := l.m.forward.oldest()
	if oldest != c.oldest || pending == 0 || c.next <= oldest || c.stream == 0 {
		c.oldest, c.progress = oldest, l.now
		return
	}
	if l.now.Sub(c.progress) > l.m.config.stalledAfter {
		c.back(l) // for no reason that is known; the leader takes none twice
	}
}

// barriers are the syncs under way: those that wait for the next ReadIndex, and those that one
// was asked for. One request serves all that came before it.
type barriers struct {
	waiting []func(bool)
	asked   []func(bool)
	first   uint64 // contexts first..context ask for asked; an answer to any of them will do
	context uint64 // begins by chance: an answer to this member's former life may still come
	sent    time.Time
}

// add takes a barrier. While clients are not served it fails at once, but for the one that
// serving itself waits for.
func (b *barriers) add(l *loop, f func(bool)) {
	if !l.serving.on {
		f(false)
		return
	}
	b.enqueue(l, f)
}

func (b *barriers) enqueue(l *loop, f func(bool)) {
	b.waiting = append(b.waiting, f)
	b.next(l)
}

func (b *barriers) next(l *loop) {
	if len(b.asked) > 0 || len(b.waiting) == 0 || !b.answerable(l) {
		return
	}
	b.asked, b.waiting = b.waiting, nil
	b.first = b.context + 1
	b.ask(l)
}

// answerable says whether raft's answer would be right. A lone member is answered by raft with
// the commit index it knows, even before it has committed anything in its term; after a restart
// that may lie below what it acknowledged (the commit index alone is never synced).
func (b *barriers) answerable(l *loop) bool {
	return l.leader != 0 && (!l.alone() || l.m.applier.term.Load() >= l.term)
}

func (b *barriers) ask(l *loop) {
	b.context++
	b.sent = l.now
	l.node.ReadIndex(binary.LittleEndian.AppendUint64(nil, b.context))
}

// again repeats the question after a change of leader, which loses it.
func (b *barriers) again(l *loop) {
	if len(b.asked) > 0 && b.answerable(l) {
		b.ask(l)
	}
	b.next(l)
}

func (b *barriers) check(l *loop) {
	if len(b.asked) > 0 && l.now.Sub(b.sent) > 4*raftTick {
		b.again(l)
	}
	b.next(l)
}

// confirmed hands the barriers to the apply loop, which runs them at that index.
func (b *barriers) confirmed(l *loop, rs raft.ReadState) {
	if len(rs.RequestCtx) != 8 || len(b.asked) == 0 {
		return
	}
	if context := binary.LittleEndian.Uint64(rs.RequestCtx); context < b.first || context > b.context {
		return
	}
	l.m.applier.put(applyItem{barriers: b.asked, index: rs.Index})
	b.asked = nil
	b.next(l)
}

func (b *barriers) fail() {
	for _, f := range append(b.asked, b.waiting...) {
		f(false)
	}
	b.asked, b.waiting = nil, nil
}

// serving is whether clients may be served.
type serving struct {
	on              bool
	leaderlessSince time.Time // zero: there is a leader
	attempt         int
}

// leaderChanged asks, when a leader is there, for one barrier before serving begins; when it
// is gone, waits for the next one before serving ends: most are replaced unnoticed.
func (s *serving) leaderChanged(l *loop) {
	s.attempt++
	if l.leader == 0 {
		s.leaderlessSince = l.now
		return
	}
	s.leaderlessSince = time.Time{}
	if s.on {
		return
	}
	attempt := s.attempt
	l.barriers.enqueue(l, func(ok bool) {
		if ok {
			l.m.events.put(func(l *loop) { l.serving.caughtUp(l, attempt) })
		}
	})
}

func (s *serving) caughtUp(l *loop, attempt int) {
	if attempt == s.attempt {
		s.set(l, true)
	}
}

func (s *serving) check(l *loop) {
	if s.on && !s.leaderlessSince.IsZero() && l.now.Sub(s.leaderlessSince) > servingPatience {
		s.set(l, false)
		l.barriers.fail()
	}
}

func (s *serving) set(l *loop, on bool) {
	if s.on != on {
		s.on = on
		l.m.serving.changes.put(on)
	}
}

// handover is a leader's attempt to give its office to another before it stops.
type handover struct {
	done      chan<- struct{}
	due       time.Time
	successor znode.MemberID
}

func (l *loop) beginHandover(done chan<- struct{}) {
	if l.state != raft.StateLeader || l.alone() {
		close(done)
		return
	}
	best := l.successor(0)
	if best == 0 {
		close(done)
		return
	}
	l.node.TransferLeader(uint64(best))
	l.handover = &handover{done: done, due: l.now.Add(300 * time.Millisecond), successor: best}
}

func (h *handover) check(l *loop) {
	if h == nil {
		return
	}
	if l.state != raft.StateLeader || l.now.After(h.due) || !l.peers[h.successor].out {
		close(h.done)
		l.handover = nil
	}
}

// snapshotID names the snapshot of a MsgSnap.
func snapshotID(m *pb.Message) wal.SnapshotID {
	meta := m.GetSnapshot().GetMetadata()
	return wal.SnapshotID{Index: meta.GetIndex(), Term: meta.GetTerm()}
}
