package zkclient

import "sync"

// item is one thing to deliver: a change of state, an event or a finished call.
type item struct {
	call  *call
	event *Event
	state State
}

// mailbox is the queue in front of the event goroutine. Its length is bounded by
// what may be in flight, the watches set, and, after a loss, what callers queued.
type mailbox struct {
	mu     sync.Mutex
	filled sync.Cond
	items  []item
	closed bool
}

func newMailbox() *mailbox {
	m := &mailbox{}
	m.filled.L = &m.mu
	return m
}

func (m *mailbox) put(items []item) bool {
	if len(items) == 0 {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.items = append(m.items, items...)
	m.filled.Signal()
	return true
}

func (m *mailbox) putState(s State) { m.put([]item{{state: s}}) }

func (m *mailbox) putCalls(calls []*call) bool {
	items := make([]item, len(calls))
	for i, c := range calls {
		items[i].call = c
	}
	return m.put(items)
}

// take waits for items and swaps them for the empty slice given; false when the
// mailbox is closed and empty.
func (m *mailbox) take(spare []item) ([]item, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.items) == 0 {
		if m.closed {
			return nil, false
		}
		m.filled.Wait()
	}
	items := m.items
	m.items = spare[:0]
	return items, true
}

// close lets take return false once all is taken.
func (m *mailbox) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.filled.Signal()
}

// deliver is the event goroutine.
func (c *Client) deliver() {
	var items []item
	for {
		var more bool
		if items, more = c.mail.take(items); !more {
			return
		}
		c.inCallback.Store(true)
		sent := 0
		for i := range items {
			c.deliverOne(&items[i])
			if call := items[i].call; call != nil && call.sent {
				sent++
			}
			items[i] = item{}
		}
		c.inCallback.Store(false)
		c.release(sent)
	}
}

func (c *Client) deliverOne(it *item) {
	switch {
	case it.call != nil:
		it.call.finish()
	case it.event != nil:
		if c.cfg.OnEvent != nil {
			c.cfg.OnEvent(*it.event)
		}
	case c.cfg.OnState != nil:
		c.cfg.OnState(it.state)
	}
}

// release makes room in the window for n more requests: results count until they are
// delivered, which bounds the mailbox.
func (c *Client) release(n int) {
	if n == 0 {
		return
	}
	c.mu.Lock()
	c.mu.inFlight -= n
	l := c.mu.link
	waiting := c.mu.queue.len() > 0
	c.mu.Unlock()
	if l != nil && waiting {
		l.wakeWriter()
	}
}

// fifo is a queue of calls that reuses its memory.
type fifo struct {
	calls []*call
	head  int
}

func (q *fifo) len() int { return len(q.calls) - q.head }

func (q *fifo) push(c *call) {
	if q.head > 0 && len(q.calls) == cap(q.calls) && q.head >= len(q.calls)/2 {
		n := copy(q.calls, q.calls[q.head:])
		clear(q.calls[n:])
		q.calls, q.head = q.calls[:n], 0
	}
	q.calls = append(q.calls, c)
}

func (q *fifo) pop() *call {
	c := q.calls[q.head]
	q.calls[q.head] = nil
	if q.head++; q.head == len(q.calls) {
		q.calls, q.head = q.calls[:0], 0
	}
	return c
}
