package replication

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/partition"
)

// leadershipRight says whether this broker may act as the leader that it was told to be. Two
// things take the right away, and are counted apart, because different things give it back:
//
//   - a pause of the process ends for all partitions when the ensemble confirms that the
//     present registration stands;
//   - the loss of a session ends partition by partition, with a LeaderAndIsr to a newer
//     incarnation of this broker (or for all, if the owner knows better: ResumeLeadership).
//
// And a leader whose log has failed does not acknowledge what its followers have either: it
// counts itself among those who have it, and may not.
//
// The right is asked for when an acknowledgement leaves, and then the clock is looked at,
// too: after a pause the goroutine that acknowledges may well run before the ticker's does.
type leadershipRight struct {
	pauses, pausesOver atomic.Uint64
	losses, lossesOver atomic.Uint64
	lastTick           atomic.Int64 // when the ticker last ran (Manager.now)
	closed             atomic.Bool  // shut down: no acknowledgement leaves any more

	mu          sync.Mutex
	brokerEpoch cluster.BrokerEpoch // highest known at the last loss
}

// granted asks nothing of the clock.
func (r *leadershipRight) granted(h *hosted) bool {
	losses := r.losses.Load()
	return r.pauses.Load() <= r.pausesOver.Load() &&
		(losses <= r.lossesOver.Load() || losses <= h.confirmedLoss.Load()) &&
		!r.closed.Load() && h.log.Failed() == nil
}

func (r *leadershipRight) close() { r.closed.Store(true) }

// raise moves a counter up to a value.
func raise(counter *atomic.Uint64, value uint64) (raised bool) {
	for {
		old := counter.Load()
		if old >= value {
			return false
		}
		if counter.CompareAndSwap(old, value) {
			return true
		}
	}
}

// mayLead is the check to make before an append and when an acknowledgement leaves.
func (m *Manager) mayLead(h *hosted) bool {
	m.detectPause()
	return m.right.granted(h)
}

const (
	tickInterval = 100 * time.Millisecond
	confirmRetry = 50 * time.Millisecond
)

// detectPause suspends leadership if the ticker has not run for the pause limit: then neither
// did the rest of this process, and somebody else may lead by now.
func (m *Manager) detectPause() {
	if m.config.ConfirmSession == nil || m.right.closed.Load() {
		return
	}
	last := m.right.lastTick.Load()
	gap := time.Duration(int64(m.now()) - last)
	if gap < m.config.PauseLimit || !m.right.lastTick.CompareAndSwap(last, int64(m.now())) {
		return
	}
	pause := m.right.pauses.Add(1)
	m.logger.Warn("leadership suspended", "reason", "the process was paused", "gap", gap)
	if m.stepped == nil {
		m.start(func(ctx context.Context) { m.confirmSession(ctx, pause) })
	}
	m.failWaiting()
}

// confirmSession asks until the ensemble confirms our registration.
func (m *Manager) confirmSession(ctx context.Context, pause uint64) {
	for {
		attempt, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := m.config.ConfirmSession(attempt)
		cancel()
		if err == nil {
			m.pauseConfirmed(pause)
			return
		}
		m.logger.Warn("session not confirmed after a pause", "err", err)
		select {
		case <-time.After(confirmRetry):
		case <-ctx.Done():
			return
		}
	}
}

func (m *Manager) pauseConfirmed(pause uint64) {
	if raise(&m.right.pausesOver, pause) {
		m.logger.Info("leadership resumed", "reason", "session confirmed after a pause")
	}
}

// SuspendLeadership takes away this broker's right to act as a leader: its session is known
// to be gone. Waiting appends leave with NOT_LEADER_OR_FOLLOWER.
func (m *Manager) SuspendLeadership(reason string) {
	m.right.mu.Lock()
	m.right.brokerEpoch = max(m.right.brokerEpoch, m.config.Epoch())
	m.right.losses.Add(1)
	m.right.mu.Unlock()
	m.logger.Warn("leadership suspended", "reason", reason)
	m.failWaiting()
}

// ResumeLeadership gives it back for all partitions: the very session under which they were
// led is confirmed. After a new registration do not call it: LeaderAndIsr with the new broker
// epoch confirms each partition.
func (m *Manager) ResumeLeadership() {
	raise(&m.right.pausesOver, m.right.pauses.Load())
	if raise(&m.right.lossesOver, m.right.losses.Load()) {
		m.logger.Info("leadership resumed", "reason", "session confirmed")
	}
}

// failWaiting answers all waiting appends: their high watermark may be reached too late.
func (m *Manager) failWaiting() {
	effects := takeEffects()
	for _, h := range m.allHosts() {
		h.mu.Lock()
		h.releaseAllLocked(errNotLeader, effects)
		h.mu.Unlock()
	}
	m.run(effects)
}

// confirmByController notes that the controller names this broker the leader of h in a request
// to its incarnation brokerEpoch. A request that was sent before the loss proves nothing: it
// counts only if it went to a later incarnation than the one that was lost.
func (m *Manager) confirmByController(h *hosted, brokerEpoch cluster.BrokerEpoch) {
	m.right.mu.Lock()
	defer m.right.mu.Unlock()
	if brokerEpoch > m.right.brokerEpoch {
		h.confirmedLoss.Store(m.right.losses.Load())
	}
}

// tick is the manager's own ticker: it notices pauses, and looks for followers that fell out
// of the in-sync set.
func (m *Manager) tick(ctx context.Context) {
	ticker := time.NewTicker(tickInterval)
	defer ticker.Stop()
	state := tickState{lastISRCheck: m.now()}
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		m.tickOnce(&state)
	}
}

// tickState is what the ticker remembers from one tick to the next.
type tickState struct {
	lastISRCheck partition.Instant
	pausesSeen   uint64
}

func (m *Manager) tickOnce(state *tickState) {
	m.detectPause()
	now := m.now()
	gap := time.Duration(now - partition.Instant(m.right.lastTick.Swap(int64(now))))
	if pauses := m.right.pauses.Load(); gap >= m.config.PauseLimit || pauses != state.pausesSeen {
		state.pausesSeen = pauses
		state.lastISRCheck = now // followers could not fetch from a process that slept
	}
	if time.Duration(now-state.lastISRCheck) >= m.config.ReplicaLagTimeMax/2 {
		state.lastISRCheck = now
		m.shrinkISRs()
	}
}

func (m *Manager) shrinkISRs() {
	effects := takeEffects()
	for _, h := range m.allHosts() {
		h.mu.Lock()
		env := m.environment(h)
		effects.submit(h, h.replica.MaybeShrink(&env))
		h.mu.Unlock()
	}
	m.run(effects)
}
