package zkserver

import (
	"sync"
	"time"

	"understudy/internal/coordination/ensemble"
	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/znode"
)

// fakeMember is an ensemble of one without a log: it applies what it is given in order, on a goroutine of its own. hold
// and release stop and resume applying, as a slow quorum would.
type fakeMember struct {
	tree    sync.RWMutex
	machine *znode.Machine

	mu        sync.Mutex
	arrived   sync.Cond
	queue     []func()
	held      bool
	stopped   bool
	observer  ensemble.Observer
	onServing []func(bool)
	serving   bool
	sequence  uint64
	lost      chan jute.SessionID
	touched   map[jute.SessionID]int
}

func newFakeMember() *fakeMember {
	m := &fakeMember{machine: znode.New(), serving: true, lost: make(chan jute.SessionID, 100), touched: map[jute.SessionID]int{}}
	m.arrived.L = &m.mu
	go m.apply()
	return m
}

func (m *fakeMember) apply() {
	for {
		m.mu.Lock()
		for (len(m.queue) == 0 || m.held) && !m.stopped {
			m.arrived.Wait()
		}
		if m.stopped {
			m.mu.Unlock()
			return
		}
		next := m.queue[0]
		m.queue = m.queue[1:]
		m.mu.Unlock()
		next()
	}
}

func (m *fakeMember) enqueue(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queue = append(m.queue, f)
	m.arrived.Signal()
}

func (m *fakeMember) hold(held bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held = held
	m.arrived.Signal()
}

func (m *fakeMember) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopped = true
	m.arrived.Signal()
}

func (m *fakeMember) Submit(req znode.Request, token any) {
	m.enqueue(func() {
		m.tree.Lock()
		m.sequence++
		b := znode.Batch{TimeMs: time.Now().UnixMilli(), Origin: 1, Incarnation: 1, FirstSequence: m.sequence, Requests: []znode.Request{req}}
		m.machine.Apply(1, &b, func(_ int, r *znode.Result) { m.observer.Applied(&req, r, token) })
		m.tree.Unlock()
		m.observer.(*Server).Flush()
	})
}

func (m *fakeMember) View(f func(*znode.Machine)) {
	m.tree.RLock()
	defer m.tree.RUnlock()
	f(m.machine)
}

func (m *fakeMember) Barrier(_ any, f func(bool)) { m.enqueue(func() { f(true) }) }

func (m *fakeMember) Touch(session jute.SessionID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.touched[session]++
}

func (m *fakeMember) ConnectionLost(session jute.SessionID, _ uint64) { m.lost <- session }

func (m *fakeMember) SetObserver(o ensemble.Observer) {
	m.tree.Lock()
	defer m.tree.Unlock()
	m.observer = o
}

func (m *fakeMember) Status() ensemble.Status {
	return ensemble.Status{Mode: ensemble.ModeStandalone, ID: 1, Members: 1}
}

func (m *fakeMember) Serving() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.serving
}

func (m *fakeMember) OnServing(f func(bool)) {
	m.mu.Lock()
	m.onServing = append(m.onServing, f)
	serving := m.serving
	m.mu.Unlock()
	f(serving)
}

func (m *fakeMember) setServing(serving bool) {
	m.mu.Lock()
	m.serving = serving
	list := m.onServing
	m.mu.Unlock()
	for _, f := range list {
		f(serving)
	}
}

// expire ends a session as the leader does.
func (m *fakeMember) expire(session jute.SessionID) {
	var generation uint64
	m.View(func(machine *znode.Machine) {
		info, _ := machine.Session(session)
		generation = info.Generation
	})
	m.Submit(znode.Request{Kind: znode.KindExpire, Session: session, Generation: generation}, nil)
}
