package classic

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// world is a group with clients that do what they like, in virtual time. After each step it
// checks what must always hold.
type world struct {
	t       *testing.T
	rng     *rand.Rand
	seed    uint64
	g       *Group
	now     time.Time
	clients []*client
	serial  int
	waiting map[string]sent // by token
	writes  []Write
	log     []Record
	highest int32            // generation
	leaders map[int32]string // who was told all members of a generation
	trace   []string
}

// sent is a request without an answer: who sent it, and as whom.
type sent struct {
	client     *client
	memberID   string
	generation int32
}

// client is a consumer as the protocol sees it; it may also misbehave.
type client struct {
	name       string
	instance   *string
	memberID   string
	generation int32
	leads      bool
	members    []JoinMember
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), now: epoch,
		waiting: map[string]sent{}, leaders: map[int32]string{},
	}
	settings := testSettings()
	if w.rng.IntN(2) == 0 {
		settings.InitialRebalanceDelay = 2 * time.Second
	}
	settings.MaxSize = 3 + w.rng.IntN(5)
	w.g = New("g", settings, w.now)
	for i := range 6 {
		c := &client{name: fmt.Sprintf("c%d", i)}
		if i >= 4 {
			instance := fmt.Sprintf("static%d", i)
			c.instance = &instance
		}
		w.clients = append(w.clients, c)
	}
	return w
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	for _, line := range w.trace[max(0, len(w.trace)-40):] {
		w.t.Log(line)
	}
	w.t.Fatalf("seed %d: "+format, append([]any{w.seed}, args...)...)
}

func (w *world) token(c *client, what string) string {
	w.serial++
	token := fmt.Sprintf("%s-%s-%d", c.name, what, w.serial)
	w.waiting[token] = sent{c, c.memberID, c.generation}
	return token
}

func (w *world) step() {
	c := w.clients[w.rng.IntN(len(w.clients))]
	var out Effects
	switch action := w.rng.IntN(20); {
	case action < 5:
		w.join(c, &out)
	case action < 9:
		w.syncGroup(c, &out)
	case action < 11:
		_ = w.g.Heartbeat(w.now, &HeartbeatRequest{MemberID: c.memberID, InstanceID: c.instance, Generation: c.generation})
	case action < 13:
		w.commit(c, &out)
	case action == 13:
		if w.g.Leave(w.now, &LeaveRequest{MemberID: c.memberID, InstanceID: c.instance}, &out) == nil {
			c.memberID = ""
		}
	case action == 14:
		c.memberID = "" // the process died and came again
	case action < 18:
		w.complete(&out)
	default:
		w.pass(time.Duration(w.rng.IntN(4000))*time.Millisecond, &out)
	}
	w.take(&out)
	w.check()
}

func (w *world) join(c *client, out *Effects) {
	r := request(w.token(c, "join"), c.memberID)
	r.InstanceID = c.instance
	r.RequireKnownMember = c.instance == nil && w.rng.IntN(2) == 0
	r.SkipAssignment = w.rng.IntN(2) == 0
	if w.rng.IntN(4) == 0 {
		r.Protocols = append([]Protocol{{"sticky", []byte(c.name)}}, r.Protocols...)
	}
	w.trace = append(w.trace, fmt.Sprintf("join %s as %q", r.Token, c.memberID))
	w.g.Join(w.now, r, out)
}

func (w *world) syncGroup(c *client, out *Effects) {
	r := &SyncRequest{Token: w.token(c, "sync"), MemberID: c.memberID, InstanceID: c.instance, Generation: c.generation}
	if c.leads {
		r.Assignments = map[string][]byte{}
		for _, m := range c.members {
			r.Assignments[m.MemberID] = fmt.Appendf(nil, "%s@%d", m.MemberID, c.generation)
		}
	}
	w.trace = append(w.trace, fmt.Sprintf("sync %s as %q in %d", r.Token, c.memberID, c.generation))
	w.g.Sync(w.now, r, out)
}

func (w *world) commit(c *client, out *Effects) {
	w.g.Commit(w.now, &CommitRequest{
		Token: w.token(c, "commit"), MemberID: c.memberID, InstanceID: c.instance, Generation: c.generation,
		Offsets: []CommitOffset{at(c.name, 0, int64(w.serial))},
	}, out)
}

// complete ends the oldest write, mostly well.
func (w *world) complete(out *Effects) {
	if len(w.writes) == 0 {
		return
	}
	write := w.writes[0]
	w.writes = w.writes[1:]
	var err error
	if w.rng.IntN(10) == 0 {
		err = kerr.NotEnoughReplicas
	} else {
		w.log = append(w.log, write.Records...)
	}
	w.trace = append(w.trace, fmt.Sprintf("write completes: %v", err))
	write.Complete(w.now, err, out)
}

func (w *world) pass(d time.Duration, out *Effects) {
	end := w.now.Add(d)
	for wake, rounds := w.g.Wake(), 0; !wake.IsZero() && !wake.After(end); wake, rounds = w.g.Wake(), rounds+1 {
		if rounds > 10_000 {
			w.fail("the group wants to be called without end, at %v", wake)
		}
		if wake.After(w.now) {
			w.now = wake
		}
		w.trace = append(w.trace, fmt.Sprintf("tick at %v", w.now.Sub(epoch)))
		w.g.Tick(w.now, out)
	}
	w.now = end
}

func (w *world) take(out *Effects) {
	w.writes = append(w.writes, out.Writes...)
	for _, reply := range out.Replies {
		token := reply.To.(string)
		s, found := w.waiting[token]
		c := s.client
		if !found {
			w.fail("%s was answered twice, or never asked: %+v", token, reply.Body)
		}
		delete(w.waiting, token)
		w.trace = append(w.trace, fmt.Sprintf("%s <- %+v", token, reply.Body))
		switch r := reply.Body.(type) {
		case JoinResult:
			w.joined(c, token, &r)
		case SyncResult:
			if r.Err == nil && len(r.Assignment) > 0 && w.g.state == Stable && s.generation == w.g.generation {
				if want := fmt.Sprintf("%s@%d", s.memberID, s.generation); c.instance == nil && string(r.Assignment) != want {
					w.fail("%s got the assignment %q, want %q", token, r.Assignment, want)
				}
			}
		}
	}
}

func (w *world) joined(c *client, token string, r *JoinResult) {
	switch r.Err {
	case nil:
		c.memberID, c.generation, c.leads, c.members = r.MemberID, r.Generation, len(r.Members) > 0 && !r.SkipAssignment, r.Members
		if c.leads {
			if other, found := w.leaders[r.Generation]; found && other != r.MemberID && c.instance == nil {
				w.fail("generation %d has two leaders, %s and %s", r.Generation, other, r.MemberID)
			}
			w.leaders[r.Generation] = r.MemberID
			if r.Leader != r.MemberID {
				w.fail("%s got the members but %s leads", r.MemberID, r.Leader)
			}
		}
	case kerr.MemberIDRequired:
		c.memberID = r.MemberID
	case kerr.UnknownMemberID, kerr.FencedInstanceID:
		c.memberID = ""
	}
}

func (w *world) check() {
	g := w.g
	if g.generation < w.highest {
		w.fail("generation went from %d to %d", w.highest, g.generation)
	}
	w.highest = g.generation
	if len(g.members) != len(g.byID) {
		w.fail("%d members, %d by id", len(g.members), len(g.byID))
	}
	if (g.leader == "") != (len(g.members) == 0) || g.leader != "" && g.byID[g.leader] == nil {
		w.fail("leader %q of %d members", g.leader, len(g.members))
	}
	if g.state == Empty && len(g.members) > 0 || (g.state == Stable || g.state == CompletingRebalance) && len(g.members) == 0 {
		w.fail("%s with %d members", g.state, len(g.members))
	}
	for _, m := range g.members {
		if m.join != nil && g.state != PreparingRebalance {
			w.fail("%s waits to join while the group is %s", m.id, g.state)
		}
		if m.sync != nil && g.state != CompletingRebalance {
			w.fail("%s waits for its assignment while the group is %s", m.id, g.state)
		}
		if m.deadline.IsZero() && m.join == nil && m.sync == nil {
			w.fail("%s would live for ever", m.id)
		}
		if m.instanceID != nil && g.static[*m.instanceID] != m {
			w.fail("static member %s is not found by its instance id", m.id)
		}
		if (g.state == Stable || g.state == CompletingRebalance) && !m.supports(g.protocol) {
			w.fail("%s does not support the protocol %s", m.id, g.protocol)
		}
	}
	if g.state == PreparingRebalance && g.joinDeadline.IsZero() {
		w.fail("a join phase without an end")
	}
}

// quiesce lets time run until everybody's session is over: then nobody may be waiting.
func (w *world) quiesce() {
	for range 50 {
		var out Effects
		for len(w.writes) > 0 {
			w.complete(&out)
			w.take(&out)
			out = Effects{}
		}
		w.pass(time.Minute, &out)
		w.take(&out)
		w.check()
	}
	if w.g.state != Empty || len(w.waiting) > 0 {
		w.fail("at the end the group is %s, and %v wait", w.g.state, w.tokens())
	}
}

func (w *world) tokens() (tokens []string) {
	for token := range w.waiting {
		tokens = append(tokens, token)
	}
	slices.Sort(tokens)
	return tokens
}

func TestSimulation(t *testing.T) {
	seeds := uint64(300)
	if testing.Short() {
		seeds = 50
	}
	for seed := range seeds {
		w := newWorld(t, seed)
		for range 400 {
			w.step()
		}
		w.quiesce()
		replayed := restore(t, w.log, w.now)
		for _, tp := range w.g.Partitions() {
			want, _ := w.g.Fetch(tp)
			if got, found := replayed.Fetch(tp); !found || got.Offset != want.Offset {
				w.fail("%v: %+v after a replay, %+v before", tp, got, want)
			}
		}
	}
}

// TestSimulationIsDeterministic: the same events give the same records.
func TestSimulationIsDeterministic(t *testing.T) {
	run := func() []Record {
		w := newWorld(t, 7)
		for range 2000 {
			w.step()
		}
		return w.log
	}
	if first, second := run(), run(); fmt.Sprint(first) != fmt.Sprint(second) {
		t.Error("two runs of the same events wrote different records")
	}
}
