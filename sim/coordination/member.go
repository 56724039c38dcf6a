package coordination

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/raft/v3/raftpb"

	"understudy/internal/coordination/ensemble"
	"understudy/internal/coordination/wal"
	"understudy/internal/coordination/zkserver"
	"understudy/internal/coordination/znode"
)

// start0 is the wall clock's time at the beginning of a run.
var start0 = time.Unix(1_700_000_000, 0)

// member is one member's machine: its disk, its clocks, and the process if it runs.
type member struct {
	w     *world
	index int
	id    znode.MemberID
	name  string
	disk  *disk

	rate       float64 // of the monotonic clock
	wallOffset time.Duration

	up       bool
	broken   bool // its disk is damaged and it refuses to start: for good
	life     int  // number of the process
	paused   bool
	pausedAt time.Duration
	pauses   []span
	resumeAt time.Duration
	backlog  []func() // of a paused process
	starting bool

	stepped *ensemble.Stepped
	server  *zkserver.Stepped
	conns   []*connection
	atDeath []func()     // what others learn by it
	planned map[int]bool // steps that are on their way

	known       uint64 // the last entry that anybody had applied when the process began
	restored    bool   // the state came from a snapshot in this step
	applied     []appliedRequest
	disturbedAt time.Duration
	leads       bool

	diedAt   time.Duration
	finished bool // Close ended a round of the log writer
	acked    ackedState

	oldest   uint64 // the request that waited when everything had been well for long, 0: none
	oldestOf int    // in which life
}

// ackedState is what a member has told others, or itself, that it has stored.
type ackedState struct {
	entry    wal.SnapshotID // the last entry
	term     uint64
	vote     uint64
	inRound  bool // the log writer was in the middle of something when the process ended
	anything bool
}

func newMember(w *world, index int) *member {
	m := &member{w: w, index: index, id: znode.MemberID(index + 1), name: fmt.Sprintf("member %d", index+1)}
	m.disk = newDisk(w, m)
	m.rate = 1 + (w.chance.Float64()-0.5)*0.06
	m.wallOffset = w.between(-time.Minute, time.Minute)
	return m
}

// monotonic and wall are the member's clocks.
func (m *member) monotonic() time.Time {
	return start0.Add(time.Duration(float64(m.w.now) * m.rate))
}

func (m *member) wall() time.Time { return m.monotonic().Add(m.wallOffset) }

// inWorld turns a duration of the member's clock into the world's.
func (m *member) inWorld(d time.Duration) time.Duration { return time.Duration(float64(d) / m.rate) }

func (m *member) disturbed() { m.disturbedAt = m.w.now }

// start begins a process.
func (m *member) start() {
	if m.up || m.broken {
		return
	}
	m.life++
	m.up, m.paused, m.restored, m.finished = true, false, false, false
	m.planned, m.conns, m.backlog = map[int]bool{}, nil, nil
	m.stepped, m.server = nil, nil
	m.known = m.w.check.last
	m.disk.refused = false
	m.disturbed()
	m.starting = true
	defer func() { m.starting = false }()
	m.protect("start", func() {
		if err := m.open(); err != nil {
			m.refuse(err)
		}
	})
	if !m.up {
		return
	}
	m.w.trace(m.name, "starts, life %d, incarnation %d", m.life, m.stepped.Incarnation())
	m.w.counts["starts"]++
	m.tick(m.life)
	m.sessions(m.life)
	for _, other := range m.w.members {
		if other != m {
			m.w.network.dial(m, other, m.life, 0)
		}
	}
	m.settle()
}

func (m *member) open() error {
	w, config := m.w, m.w.config
	peers := map[znode.MemberID]string{}
	for _, other := range w.members {
		peers[other.id] = ""
	}
	life := m.life
	logger := w.logger
	if w.out != nil {
		logger = slog.New(&traceHandler{m: m})
	}
	stepped, err := ensemble.NewStepped(ensemble.Config{
		ID: m.id, Peers: peers, Dir: dataDir, FS: &lifeFS{m.disk, life, m.disk.mem}, TickTime: config.tick,
		SnapshotEntries: config.snapshotEntries, SnapshotBytes: 20_000, KeepEntries: config.keepEntries,
		CacheBytes: config.cacheBytes, ContainerCheckInterval: time.Second, Logger: logger,
	}, ensemble.Surroundings{
		Now: m.monotonic, Wall: m.wall, SegmentBytes: config.segmentBytes,
		Send: func(to znode.MemberID, frame []byte, label string) bool {
			m.checkAcknowledgement(frame, label)
			return w.network.send(m, w.members[to-1], frame, label)
		},
		SendSnapshot: func(to znode.MemberID, frame, file []byte, done func(error)) {
			w.network.sendSnapshot(m, w.members[to-1], frame, file, done)
		},
	})
	if err != nil {
		return err
	}
	m.stepped = stepped
	stepped.OnServing(func(on bool) {
		if index, _ := stepped.Applied(); on && index < m.known {
			w.fail("sync-read", "%s begins to serve clients with entry %d applied, and %d was when it started", m.name, index, m.known)
		}
	})
	m.checkKept()
	m.acked.anything = true
	m.rememberStored()
	tap := &tap{Stepped: stepped, m: m}
	m.server, err = zkserver.NewStepped(zkserver.Config{
		Member: tap, TickTime: config.tick, MinSessionTimeout: 2 * config.tick, MaxSessionTimeout: 40 * config.tick,
		MaxFrameBytes: 1 << 20, Logger: logger,
	}, m.wall, &randomReader{rand.NewPCG(w.seed, uint64(m.index)<<32|uint64(life))})
	if err == nil {
		w.check.recovered(m)
	}
	return err
}

// refuse is a start that failed.
func (m *member) refuse(err error) {
	m.w.trace(m.name, "does not start: %v", err)
	m.up = false
	switch {
	case m.disk.refused:
		m.disk.after(true)
		m.restartAfter(m.w.between(100*time.Millisecond, time.Second))
	case m.disk.struck && errors.Is(err, wal.ErrCorrupt):
		m.broken = true
		m.w.counts["refused damaged"]++
	default:
		m.w.fail("start-refused", "%s: %v", m.name, err)
	}
}

func (m *member) restartAfter(delay time.Duration) {
	m.w.after(delay, func() { m.start() })
}

// die ends the process, and with power what was not synced.
func (m *member) die(power bool, why string) {
	if !m.up {
		if power && !m.starting {
			m.disk.after(true)
		}
		return
	}
	m.w.trace(m.name, "%s", why)
	m.w.counts["deaths"]++
	if m.stepped != nil {
		// A round that failed, or that was finished by Close, may have replaced entries, too.
		m.acked.inRound = m.stepped.Work().Writing || m.stepped.Failure() != nil || m.finished
	}
	m.up, m.paused, m.leads, m.diedAt = false, false, false, m.w.now
	m.life++
	m.release()
	m.disk.after(power)
	m.disk.crashIn, m.disk.misdirect = 0, 0
	m.disturbed()
	m.w.network.memberDied(m, power)
	for _, c := range m.conns {
		c.processDied(power)
	}
	for _, f := range m.atDeath {
		f()
	}
	m.conns, m.backlog, m.atDeath = nil, nil, nil
}

// release lets go of what a dead process left in the middle.
func (m *member) release() {
	if m.stepped != nil {
		m.stepped.Abandon()
	}
}

// stop ends the process properly.
func (m *member) stop(down time.Duration) {
	if !m.up || m.paused {
		return
	}
	m.w.trace(m.name, "is stopped")
	life := m.life
	var handed <-chan struct{}
	m.step("stop", func() { handed = m.stepped.HandOver() })
	m.w.after(m.w.between(0, 400*time.Millisecond), func() {
		if m.life != life || !m.up {
			return
		}
		m.disturbed()
		m.finished = m.stepped.Work().Writing
		m.protect("close", func() {
			select {
			case <-handed:
			default: // its time is up
			}
			_ = m.stepped.Close()
		})
		if m.life == life {
			m.die(false, "has stopped")
		}
		m.restartAfter(down)
	})
}

func (m *member) pause(length time.Duration) {
	if !m.up || m.paused {
		return
	}
	m.disturbed()
	m.paused, m.pausedAt, m.resumeAt = true, m.w.now, m.w.now+length
	life := m.life
	m.w.after(length, func() {
		if m.life == life {
			m.resume()
		}
	})
}

// span is from a time to a time.
type span struct{ from, to time.Duration }

// slept is for how long the process was paused since then, but for what each pause may have been
// without its being noticed.
func (m *member) slept(since, unnoticed time.Duration) (sum time.Duration) {
	for _, p := range m.pauses {
		sum += max(0, p.to-max(p.from, since)-unnoticed)
	}
	return sum
}

func (m *member) resume() {
	if !m.paused {
		return
	}
	m.paused = false
	m.pauses = append(m.pauses, span{m.pausedAt, m.w.now})
	m.disturbed()
	m.w.trace(m.name, "goes on")
	backlog := m.backlog
	m.backlog = nil
	for _, f := range backlog {
		f()
	}
}

// step lets the process do something: later if it is paused, never if it is another's.
func (m *member) step(what string, f func()) {
	if !m.up {
		return
	}
	if m.paused {
		life := m.life
		m.backlog = append(m.backlog, func() {
			if m.life == life {
				m.step(what, f)
			}
		})
		return
	}
	m.w.steps++
	m.protect(what, f)
	if m.up {
		m.settle()
	}
}

// protect runs f in the process, which may die of it.
func (m *member) protect(what string, f func()) {
	died, power := false, false
	func() {
		defer func() {
			if raised := recover(); raised != nil {
				crash, ok := raised.(crashNow)
				if !ok {
					panic(raised)
				}
				died, power = true, crash.power
			}
		}()
		f()
	}()
	if died {
		m.die(power, "dies in the middle of "+what)
		m.restartAfter(m.w.between(10*time.Millisecond, 800*time.Millisecond))
		return
	}
	if !m.up || m.stepped == nil {
		return
	}
	if m.restored {
		m.restored = false
		m.w.check.recovered(m)
	}
	if m.stepped.Ended() && what != "close" {
		m.endedByItself()
	}
}

// endedByItself is a member that gave up: rightly only if its disk failed.
func (m *member) endedByItself() {
	err := m.stepped.Failure()
	if !m.disk.refused && !m.disk.struck {
		m.w.fail("stopped-by-itself", "%s: %v", m.name, err)
	}
	m.die(true, fmt.Sprintf("stops: %v", err))
	m.restartAfter(m.w.between(50*time.Millisecond, 800*time.Millisecond))
}

// The parts of a process, of which each has at most one step planned. From partConn on there are
// three for each connection: its reader, its writer, and time.
const (
	partLoop = iota
	partLog
	partApply
	partSessions
	partServing
	partBeside
	partConn
)

var partNames = []string{"loop", "log", "apply", "sessions", "serving", "beside", "connection"}

// plan has a part's step come after a delay, unless it is on its way.
func (m *member) plan(part int, delay time.Duration, f func()) {
	if m.planned[part] {
		return
	}
	m.planned[part] = true
	life := m.life
	m.w.after(delay, func() {
		if m.life != life {
			return
		}
		m.step(partNames[min(part, partConn)], func() {
			m.planned[part] = false
			f()
		})
	})
}

// settle plans the steps that the last one made necessary.
func (m *member) settle() {
	w := m.w
	work := m.stepped.Work()
	if work.Loop {
		m.plan(partLoop, w.between(0, 200*time.Microsecond), func() { m.stepped.Round(false); m.afterRound() })
	}
	if work.Log {
		m.plan(partLog, m.diskDelay(), func() {
			m.stepped.WriteLog()
			if !m.stepped.Work().Writing && !m.stepped.Ended() {
				m.rememberStored()
			}
		})
	}
	if work.Apply {
		delay := w.between(0, 300*time.Microsecond)
		if !w.calm && w.oneIn(100) {
			delay = w.between(0, 40*time.Millisecond)
		}
		m.plan(partApply, delay, func() { m.stepped.Apply() })
	}
	if work.Sessions {
		m.plan(partSessions, w.between(0, time.Millisecond), func() { m.runSessions() })
	}
	if work.Serving {
		delay := w.between(0, 300*time.Microsecond)
		if !w.calm && w.oneIn(3) {
			delay = w.between(0, 40*time.Millisecond)
		}
		m.plan(partServing, delay, func() { m.stepped.TellServing() })
	}
	if work.Besides > 0 {
		m.plan(partBeside, w.between(0, 10*time.Millisecond), func() { m.stepped.Beside(w.chance.IntN(work.Besides)) })
	}
	for _, c := range m.conns {
		c.settle()
	}
}

func (m *member) diskDelay() time.Duration {
	w := m.w
	switch {
	case w.now < m.disk.slowTo:
		return w.between(0, 100*time.Millisecond)
	case !w.calm && w.oneIn(50):
		return w.between(0, 5*w.config.fsyncMax)
	}
	return w.between(0, w.config.fsyncMax)
}

func (m *member) tick(life int) {
	if m.life != life {
		return
	}
	if !m.paused { // a ticker drops ticks
		m.step("tick", func() { m.stepped.Round(true); m.afterRound() })
	}
	m.w.after(m.inWorld(50*time.Millisecond), func() { m.tick(life) })
}

// afterRound looks at what the raft loop has come to, and wakes it when time alone will.
func (m *member) afterRound() {
	if m.stepped.Ended() {
		return
	}
	leads, term := m.stepped.Leading()
	if leads {
		m.w.check.leads(m, term)
	}
	if leads != m.leads {
		m.leads = leads
		m.w.trace(m.name, "leads: %v, term %d", leads, term)
		m.w.check.leaderChangedAt = m.w.now
		m.w.counts["elections"]++
	}
	if due := m.stepped.RoundDue(); due < 50*time.Millisecond {
		life := m.life
		m.w.after(m.inWorld(due)+time.Microsecond, func() {
			if m.life == life {
				m.plan(partLoop, 0, func() { m.stepped.Round(false); m.afterRound() })
			}
		})
	}
}

func (m *member) sessions(life int) {
	if m.life != life {
		return
	}
	next := 50 * time.Millisecond
	run := func() { next = m.runSessions() }
	if m.paused {
		m.w.after(next, func() { m.sessions(life) })
		return
	}
	m.step("sessions", run)
	m.w.after(max(m.inWorld(next), time.Millisecond), func() { m.sessions(life) })
}

func (m *member) runSessions() time.Duration { return m.stepped.Sessions() }

// checkAcknowledgement looks at what a member tells another that it has stored.
func (m *member) checkAcknowledgement(frame []byte, label string) {
	if label != pb.MsgAppResp.String() && label != pb.MsgVoteResp.String() {
		return
	}
	var message pb.Message
	if err := proto.Unmarshal(frame[9:], &message); err != nil {
		m.w.fail("panic", "%s sends a frame that cannot be read: %v", m.name, err)
	}
	if message.GetReject() {
		return
	}
	hs, _, _ := m.stepped.Log().InitialState()
	if message.GetTerm() > hs.GetTerm() {
		m.w.fail("durable-before-answer", "%s answers in term %d and has stored term %d", m.name, message.GetTerm(), hs.GetTerm())
	}
	if message.GetType() == pb.MsgVoteResp {
		m.w.check.voted(m, message.GetTerm(), message.GetTo())
		if hs.GetTerm() == message.GetTerm() && hs.GetVote() != message.GetTo() {
			m.w.fail("durable-before-answer", "%s votes for %d in term %d and has stored a vote for %d", m.name, message.GetTo(), message.GetTerm(), hs.GetVote())
		}
		return
	}
	if last, _ := m.stepped.Log().LastIndex(); message.GetIndex() > last && message.GetTerm() == hs.GetTerm() {
		m.w.fail("durable-before-answer", "%s acknowledges entry %d and has stored %d", m.name, message.GetIndex(), last)
	}
}

// rememberStored notes what the log writer has just said that it has stored.
func (m *member) rememberStored() {
	log := m.stepped.Log()
	hs, _, _ := log.InitialState()
	last, _ := log.LastIndex()
	term, err := log.Term(last)
	if err == nil {
		m.acked.entry = wal.SnapshotID{Index: last, Term: term}
	}
	m.acked.term, m.acked.vote = hs.GetTerm(), hs.GetVote()
}

// checkKept compares a recovered log with what was acknowledged before.
func (m *member) checkKept() {
	mark, err := wal.ReadRecovery(m.disk.mem, dataDir)
	if err != nil || mark != nil {
		if !m.disk.struck {
			m.w.fail("start-refused", "%s sets its state aside as damaged (%+v, %v), and nothing was", m.name, mark, err)
		}
		m.w.counts["recoveries"]++
		return // it found the damage, and has no vote until it has the others' state
	}
	if !m.acked.anything {
		return
	}
	log := m.stepped.Log()
	hs, _, _ := log.InitialState()
	if hs.GetTerm() < m.acked.term || hs.GetTerm() == m.acked.term && m.acked.vote != 0 && hs.GetVote() != m.acked.vote {
		m.w.fail("hard-state-kept", "%s came back in term %d with a vote for %d, and had stored term %d, vote %d",
			m.name, hs.GetTerm(), hs.GetVote(), m.acked.term, m.acked.vote)
	}
	want := m.acked.entry
	first, _ := log.FirstIndex()
	term, err := log.Term(want.Index)
	if m.acked.inRound || want.Index+1 < first {
		return
	}
	if err != nil || term != want.Term {
		last, _ := log.LastIndex()
		m.w.fail("log-kept", "%s came back with the entries %d to %d, term of %d is %d (%v), and had stored it with term %d",
			m.name, first, last, want.Index, term, err, want.Term)
	}
}

// tap is the member as its zkserver sees it: the observer is ours first.
type tap struct {
	*ensemble.Stepped
	m *member
}

func (t *tap) SetObserver(o ensemble.Observer) {
	t.Stepped.SetObserver(&observer{Observer: o, m: t.m})
}

// observer hears what is applied before the zkserver does.
type observer struct {
	ensemble.Observer
	m *member
}

func (o *observer) Applied(req *znode.Request, res *znode.Result, done any) {
	o.m.applied = append(o.m.applied, copyApplied(req, res))
	o.Observer.Applied(req, res, done)
}

func (o *observer) Flush() {
	o.Observer.(interface{ Flush() }).Flush()
	o.m.w.check.entryApplied(o.m, o.m.applied)
	o.m.applied = o.m.applied[:0]
}

func (o *observer) Reset() {
	o.m.restored = true
	o.Observer.Reset()
}

// randomReader makes session ids and passwords.
type randomReader struct{ source *rand.PCG }

func (r *randomReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r.source.Uint64())
	}
	return len(p), nil
}

var _ io.Reader = (*randomReader)(nil)

// traceHandler puts a member's log lines into the trace.
type traceHandler struct {
	m     *member
	attrs []slog.Attr
}

func (h *traceHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo
}

func (h *traceHandler) Handle(_ context.Context, r slog.Record) error {
	var line strings.Builder
	line.WriteString(r.Message)
	for _, attr := range h.attrs {
		fmt.Fprintf(&line, " %s=%v", attr.Key, attr.Value)
	}
	r.Attrs(func(attr slog.Attr) bool {
		fmt.Fprintf(&line, " %s=%v", attr.Key, attr.Value)
		return true
	})
	h.m.w.trace(h.m.name, "log: %s", line.String())
	return nil
}

func (h *traceHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &traceHandler{h.m, append(h.attrs[:len(h.attrs):len(h.attrs)], attrs...)}
}

func (h *traceHandler) WithGroup(string) slog.Handler { return h }
