// Package producerid hands out the ids of idempotent producers. The controller allocates
// them to brokers in blocks (AllocateProducerIds); the next block is asked for when the
// present one is nearly used up, so that producers do not wait for it. What is left of a
// block is lost at the end of the process; ids are 63 bits wide.
package producerid

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Block is a range of ids: Start up to, not including, Start+Count.
type Block struct {
	Start int64
	Count int32
}

// Allocate asks the controller for a block.
type Allocate func(ctx context.Context) (Block, error)

const (
	retryFirst = 10 * time.Millisecond
	retryMax   = 500 * time.Millisecond
)

// Manager hands out ids. Its methods may be called from any goroutine.
type Manager struct {
	allocate Allocate
	logger   *slog.Logger
	ctx      context.Context
	cancel   context.CancelFunc
	wait     sync.WaitGroup

	mu struct {
		sync.Mutex
		next, end int64 // of the present block; next == end: used up
		size      int32 // of the present block
		ahead     *Block
		highest   int64 // end of the last block received: the next must not be below
		fetching  bool
		arrived   chan struct{} // closed when a block arrives
	}
}

// New returns a manager without a block; the first is asked for with the first id.
func New(allocate Allocate, logger *slog.Logger) *Manager {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	m := &Manager{allocate: allocate, logger: logger}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.mu.arrived = make(chan struct{})
	return m
}

// TryNext returns an id if there is one at hand, and asks for more otherwise.
func (m *Manager) TryNext() (id int64, ok bool) {
	id, _, ok = m.take()
	return id, ok
}

// Next returns an id, waiting for a block as long as ctx allows. Then the error is
// COORDINATOR_LOAD_IN_PROGRESS, upon which clients try again (Kafka gives it at once).
func (m *Manager) Next(ctx context.Context) (int64, error) {
	for {
		id, arrived, ok := m.take()
		if ok {
			return id, nil
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return 0, fmt.Errorf("no block of producer ids from the controller yet: %w", kerr.CoordinatorLoadInProgress)
		case <-m.ctx.Done():
			return 0, fmt.Errorf("the broker is stopping: %w", kerr.CoordinatorNotAvailable)
		}
	}
}

// take returns an id, or the channel that tells of the next block. It has a block fetched
// when nine tenths of the present one are gone.
func (m *Manager) take() (id int64, arrived <-chan struct{}, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.next == m.mu.end && m.mu.ahead != nil {
		m.mu.next, m.mu.end, m.mu.size = m.mu.ahead.Start, m.mu.ahead.Start+int64(m.mu.ahead.Count), m.mu.ahead.Count
		m.mu.ahead = nil
	}
	if m.mu.next < m.mu.end {
		id, ok = m.mu.next, true
		m.mu.next++
	}
	if left := m.mu.end - m.mu.next; left <= int64(m.mu.size)/10 && m.mu.ahead == nil && !m.mu.fetching && m.ctx.Err() == nil {
		m.mu.fetching = true
		m.wait.Go(m.fetch)
	}
	return id, m.mu.arrived, ok
}

// fetch asks until it gets a block.
func (m *Manager) fetch() {
	for delay := retryFirst; ; delay = min(2*delay, retryMax) {
		block, err := m.allocate(m.ctx)
		if err == nil {
			err = m.accept(block)
		}
		if err == nil {
			return
		}
		if m.ctx.Err() != nil {
			return
		}
		m.logger.Warn("cannot get a block of producer ids, trying again", "error", err, "after", delay)
		select {
		case <-m.ctx.Done():
			return
		case <-time.After(delay):
		}
	}
}

func (m *Manager) accept(block Block) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if block.Count <= 0 || block.Start < m.mu.highest {
		return fmt.Errorf("controller gave the block %d+%d, which is not above %d", block.Start, block.Count, m.mu.highest)
	}
	m.mu.ahead, m.mu.highest = &block, block.Start+int64(block.Count)
	m.mu.fetching = false
	close(m.mu.arrived)
	m.mu.arrived = make(chan struct{})
	return nil
}

// Close ends the asking and waits for it. Ids at hand are still given out.
func (m *Manager) Close() {
	m.mu.Lock() // so that no fetch starts after the wait
	m.cancel()
	m.mu.Unlock()
	m.wait.Wait()
}
