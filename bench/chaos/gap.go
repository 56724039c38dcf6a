package main

import (
	"sync"
	"time"
)

// gap finds the longest time between two successes while it is open.
type gap struct {
	mu      sync.Mutex
	last    time.Time
	longest time.Duration
	open    bool
}

func (g *gap) success() {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if g.open {
		g.longest = max(g.longest, now.Sub(g.last))
	}
	g.last = now
}

func (g *gap) begin() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open, g.longest = true, 0
}

// end returns the longest gap, the one that still lasts included.
func (g *gap) end() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = false
	return max(g.longest, time.Since(g.last))
}

// since reports whether there was a success after an instant.
func (g *gap) since(instant time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last.After(instant)
}
