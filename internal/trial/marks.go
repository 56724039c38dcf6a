package trial

import (
	"sync"
	"time"
)

// marks remembers, for each partition, the longest time between two successive
// acknowledgements within a window that a fault opens.
type marks struct {
	mu         sync.Mutex
	open       bool
	partitions []mark
}

type mark struct {
	last     time.Time     // when the last acknowledgement came
	lastSent time.Time     // when the record of that acknowledgement was sent
	longest  time.Duration // longest gap that ended since the window was opened
}

func newMarks(partitions int32) *marks {
	return &marks{partitions: make([]mark, partitions)}
}

func (m *marks) acknowledged(partition int32, sent, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	mark := &m.partitions[partition]
	if m.open && !mark.last.IsZero() {
		mark.longest = max(mark.longest, now.Sub(mark.last))
	}
	mark.last, mark.lastSent = now, sent
}

// openWindow begins a measurement.
func (m *marks) openWindow() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open = true
	for i := range m.partitions {
		m.partitions[i].longest = 0
	}
}

// settled reports whether each of the partitions had an acknowledgement of a record that was
// sent after an instant.
func (m *marks) settled(partitions []int32, after time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, partition := range partitions {
		if !m.partitions[partition].lastSent.After(after) {
			return false
		}
	}
	return true
}

// closeWindow ends the measurement and returns the longest gap of each of the partitions.
func (m *marks) closeWindow(partitions []int32) map[int32]time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open = false
	gaps := make(map[int32]time.Duration, len(partitions))
	for _, partition := range partitions {
		gaps[partition] = m.partitions[partition].longest
	}
	return gaps
}
