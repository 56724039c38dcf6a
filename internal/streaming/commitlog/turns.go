package commitlog

import (
	"slices"
	"sync"
)

// syncTurns has the logs of a directory fsync in turns instead of all at once. An fsync costs
// about the same whatever it covers, so fewer and larger ones win: while a log waits for its
// turn, more appends come that its fsync will cover.
//
// Small fsyncs side by side, on the other hand, share the file system's journal commits, and
// waiting would only delay them. So
//
//   - little by little goes at once, while all that is under way is no more than sideBySide;
//   - whatever comes then waits for all of that, and half of the logs that wait, those that
//     came first, are the next turn.
type syncTurns struct {
	mu struct {
		sync.Mutex
		running int             // logs
		bytes   int64           // that they cover; full during a turn of logs that had waited
		waiting []chan struct{} // in the order in which they came; closed when it is their turn
	}
}

const (
	sideBySide = 32 << 10
	full       = sideBySide + 1
)

// begin waits until a log may fsync what are about so many bytes. The caller then gives the
// result to end.
func (t *syncTurns) begin(bytes int64) int64 {
	t.mu.Lock()
	if len(t.mu.waiting) == 0 && (t.mu.running == 0 || t.mu.bytes+bytes <= sideBySide) {
		t.mu.running++
		t.mu.bytes += bytes
		t.mu.Unlock()
		return bytes
	}
	turn := make(chan struct{})
	t.mu.waiting = append(t.mu.waiting, turn)
	t.mu.Unlock()
	<-turn
	return full
}

// end notes that a log is done; the last one under way starts the next turn.
func (t *syncTurns) end(bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.running--
	t.mu.bytes -= bytes
	if t.mu.running > 0 {
		return
	}
	next := (len(t.mu.waiting) + 1) / 2
	for _, turn := range t.mu.waiting[:next] {
		close(turn)
	}
	t.mu.waiting = slices.Delete(t.mu.waiting, 0, next)
	t.mu.running, t.mu.bytes = next, int64(next)*full
}
