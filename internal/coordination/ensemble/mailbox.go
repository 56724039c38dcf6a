package ensemble

import "sync"

// mailbox is a queue from many goroutines to one. It is not bounded itself: each user says
// what bounds it. The wake channel holds at most one token, so waking costs nothing when the
// receiver is busy; it takes everything at once.
type mailbox[T any] struct {
	wake chan struct{}
	mu   struct {
		sync.Mutex
		items  []T
		closed bool
	}
}

func newMailbox[T any]() *mailbox[T] { return &mailbox[T]{wake: make(chan struct{}, 1)} }

// put queues an item; false if the mailbox is closed.
func (b *mailbox[T]) put(item T) bool {
	b.mu.Lock()
	if b.mu.closed {
		b.mu.Unlock()
		return false
	}
	b.mu.items = append(b.mu.items, item)
	b.mu.Unlock()
	b.ring()
	return true
}

// close refuses what comes from now on and returns what was left.
func (b *mailbox[T]) close() []T {
	b.mu.Lock()
	b.mu.closed = true
	b.mu.Unlock()
	return b.take()
}

// ring wakes the receiver without an item.
func (b *mailbox[T]) ring() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *mailbox[T]) take() []T {
	b.mu.Lock()
	defer b.mu.Unlock()
	items := b.mu.items
	b.mu.items = nil
	return items
}
