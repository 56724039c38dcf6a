package zkserver

import (
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"understudy/internal/coordination/jute"
)

// connStats are a connection's counters, guarded by conn.mu.
type connStats struct {
	received, sent  uint64
	lastOp          string
	lastCxid        int64 // -1: none
	lastZxid        jute.Zxid
	lastResponse    time.Time
	latency         latencies
	lastLatency     int64
	unflushed       uint64 // replies appended since the last flush, and the arrival of the oldest of their requests
	oldest          time.Time
	receivedCounted uint64 // what of received the server's counters have
}

func (s *connStats) reset() { *s = connStats{lastOp: "NA", lastCxid: -1, lastZxid: -1} }

func (s *connStats) replied(r *request, zxid jute.Zxid) {
	if s.unflushed == 0 {
		s.oldest = r.received
	}
	s.unflushed++
	s.lastOp, s.lastZxid = shortName(r.op), zxid
	s.lastXid(r.xid)
}

// lastXid notes the xid of a request, unless it is one of the special ones.
func (s *connStats) lastXid(xid int32) {
	if xid >= 0 {
		s.lastCxid = int64(xid)
	}
}

// greeted counts the handshake's reply. A new session is a request to ZooKeeper, with xid 0; a re-attached one is not.
func (s *connStats) greeted(zxid jute.Zxid, created bool) {
	if created {
		s.lastCxid = 0
	}
	s.unflushed++
	s.oldest = time.Now()
	s.lastZxid = zxid
}

// latencies in milliseconds, as ZooKeeper keeps them.
type latencies struct{ count, total, min, max int64 }

func (l *latencies) add(n, ms int64) {
	if l.count == 0 || ms < l.min {
		l.min = ms
	}
	l.max = max(l.max, ms)
	l.count += n
	l.total += n * ms
}

// average with ZooKeeper's format: four decimals, trailing zeros dropped but one.
func (l *latencies) average() string {
	if l.count == 0 {
		return "0.0"
	}
	text := strconv.FormatFloat(float64(l.total)/float64(l.count), 'f', 4, 64)
	text = strings.TrimRight(text, "0")
	if strings.HasSuffix(text, ".") {
		text += "0"
	}
	return text
}

// serverStats are the server's counters.
type serverStats struct {
	rejected, authFailed atomic.Int64

	mu             sync.Mutex
	received, sent uint64
	latency        latencies
}

// flushed is told of each write to a client; conn.mu is held.
func (s *serverStats) flushed(c *connStats, now time.Time) {
	n := c.unflushed
	received := c.received - c.receivedCounted
	c.receivedCounted = c.received
	if n > 0 {
		ms := max(now.Sub(c.oldest).Milliseconds(), 0)
		c.sent += n
		c.lastResponse, c.lastLatency = now, ms
		c.latency.add(int64(n), ms)
		c.unflushed = 0
	}
	s.mu.Lock()
	s.received += received
	s.sent += n
	if n > 0 {
		s.latency.add(int64(n), c.lastLatency)
	}
	s.mu.Unlock()
}

func (s *serverStats) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received, s.sent, s.latency = 0, 0, latencies{}
}

func (s *serverStats) snapshot() (received, sent uint64, l latencies) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.received, s.sent, s.latency
}

// shortName is what cons calls an operation (Request.op2String's four letters).
func shortName(op jute.OpCode) string {
	switch op {
	case jute.OpPing:
		return "PING"
	case jute.OpCreate, jute.OpCreate2, jute.OpCreateTTL, jute.OpCreateContainer:
		return "CREA"
	case jute.OpDelete, jute.OpDeleteContainer:
		return "DELE"
	case jute.OpSetData:
		return "SETD"
	case jute.OpSetACL:
		return "SETA"
	case jute.OpReconfig:
		return "RECO"
	case jute.OpCheck:
		return "CHEC"
	case jute.OpSync:
		return "SYNC"
	case jute.OpExists:
		return "EXIS"
	case jute.OpGetData:
		return "GETD"
	case jute.OpGetACL:
		return "GETA"
	case jute.OpGetChildren, jute.OpGetChildren2:
		return "GETC"
	case jute.OpGetAllChildrenNum:
		return "GETACN"
	case jute.OpGetEphemerals:
		return "GETE"
	case jute.OpMulti:
		return "MULT"
	case jute.OpMultiRead:
		return "MLTR"
	case jute.OpSetWatches:
		return "SETW"
	case jute.OpSetWatches2:
		return "STW2"
	case jute.OpAddWatch:
		return "ADDW"
	case jute.OpRemoveWatches:
		return "REMW"
	case jute.OpCheckWatches:
		return "CHKW"
	case jute.OpWhoAmI:
		return "HOMI"
	case jute.OpCloseSession:
		return "CLOS"
	}
	return "UNKN"
}
