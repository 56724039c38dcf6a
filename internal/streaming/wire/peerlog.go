package wire

import (
	"log/slog"
	"sync"
	"time"
)

const (
	peerLogInterval = 10 * time.Second // one line per peer and interval
	peerLogPeersMax = 1024             // beyond that the table starts anew
)

// peerLog logs what peers do wrong, at most one line per peer and interval; the next line
// says how many were left out.
type peerLog struct {
	logger *slog.Logger
	mu     sync.Mutex
	peers  map[string]*peerLogEntry
}

type peerLogEntry struct {
	last       time.Time
	suppressed int
}

func newPeerLog(logger *slog.Logger) *peerLog {
	return &peerLog{logger: logger, peers: map[string]*peerLogEntry{}}
}

func (l *peerLog) warn(peer, message string, args ...any) {
	now := time.Now()
	l.mu.Lock()
	entry := l.peers[peer]
	if entry == nil {
		if len(l.peers) >= peerLogPeersMax {
			clear(l.peers)
		}
		entry = &peerLogEntry{}
		l.peers[peer] = entry
	}
	if !entry.last.IsZero() && now.Sub(entry.last) < peerLogInterval {
		entry.suppressed++
		l.mu.Unlock()
		return
	}
	suppressed := entry.suppressed
	entry.last, entry.suppressed = now, 0
	l.mu.Unlock()
	if suppressed > 0 {
		args = append(args, "suppressed", suppressed)
	}
	l.logger.Warn(message, args...)
}
