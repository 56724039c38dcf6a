package ensemble

import (
	"sync"

	"understudy/internal/coordination/znode"
)

// forwarder keeps what was submitted here and not yet applied here, in order. Submit appends,
// the apply loop takes from the front, the raft loop reads in between (see cursor).
type forwarder struct {
	origin      znode.MemberID
	incarnation uint64
	mu          struct {
		sync.Mutex
		room   *sync.Cond
		first  uint64 // sequence of queue[0]; the first of an incarnation is 1
		queue  []submitted
		bytes  int // bound: pendingBytesMax, Submit waits beyond
		closed bool
	}
}

type submitted struct {
	request znode.Request
	token   any
	bytes   int
}

func newForwarder(origin znode.MemberID, incarnation uint64) *forwarder {
	f := &forwarder{origin: origin, incarnation: incarnation}
	f.mu.room = sync.NewCond(&f.mu)
	f.mu.first = 1
	return f
}

// add queues a request, waiting for room; false if the member has stopped.
func (f *forwarder) add(request znode.Request, token any) bool {
	bytes := len(request.Body) + len(request.Path) + 192
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.mu.bytes+bytes > pendingBytesMax && len(f.mu.queue) > 0 && !f.mu.closed {
		f.mu.room.Wait()
	}
	if f.mu.closed {
		return false
	}
	f.mu.queue = append(f.mu.queue, submitted{request, token, bytes})
	f.mu.bytes += bytes
	return true
}

// batch returns the requests from sequence next on that fit one entry; next moves up to the
// oldest one still pending first. Nil if there is none.
func (f *forwarder) batch(next uint64) (znode.Batch, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	next = max(next, f.mu.first)
	from := int(next - f.mu.first)
	if from >= len(f.mu.queue) {
		return znode.Batch{}, false
	}
	to, bytes := from, 0
	for to < len(f.mu.queue) && to-from < batchRequestsMax {
		bytes += f.mu.queue[to].bytes
		if bytes > batchBytesMax && to > from {
			break
		}
		to++
	}
	b := znode.Batch{Origin: f.origin, Incarnation: f.incarnation, FirstSequence: next}
	b.Requests = make([]znode.Request, 0, to-from)
	for i := from; i < to; i++ {
		b.Requests = append(b.Requests, f.mu.queue[i].request)
	}
	return b, true
}

// done takes the request with this sequence, which was just applied, from the front.
func (f *forwarder) done(sequence uint64) (token any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if sequence != f.mu.first || len(f.mu.queue) == 0 {
		return nil
	}
	return f.popLocked()
}

func (f *forwarder) popLocked() (token any) {
	s := f.mu.queue[0]
	f.mu.queue[0] = submitted{}
	f.mu.queue = f.mu.queue[1:]
	f.mu.first++
	before := f.mu.bytes
	f.mu.bytes -= s.bytes
	if before > pendingBytesMax/2 {
		f.mu.room.Broadcast()
	}
	return s.token
}

// skipTo drops what a snapshot has overtaken: it was applied somewhere, its outcome is not
// known here.
func (f *forwarder) skipTo(next uint64) (dropped []any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.mu.first < next && len(f.mu.queue) > 0 {
		dropped = append(dropped, f.popLocked())
	}
	return dropped
}

// close ends the queue and returns what was in it.
func (f *forwarder) close() (dropped []any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.closed = true
	f.mu.room.Broadcast()
	for len(f.mu.queue) > 0 {
		dropped = append(dropped, f.popLocked())
	}
	return dropped
}

// oldest is the sequence of the oldest pending request, and how many are pending.
func (f *forwarder) oldest() (first uint64, pending int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.first, len(f.mu.queue)
}
