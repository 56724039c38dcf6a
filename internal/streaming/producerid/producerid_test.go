package producerid

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// controller gives out blocks of ten, after a delay, and fails while it is down.
type controller struct {
	mu    sync.Mutex
	next  int64
	down  bool
	calls int
}

func (c *controller) allocate(ctx context.Context) (Block, error) {
	time.Sleep(5 * time.Millisecond)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
	if c.down {
		return Block{}, kerr.NotController
	}
	c.next += 10
	return Block{Start: c.next - 10, Count: 10}, ctx.Err()
}

func TestIDsAreDistinctAndAscending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &controller{next: 4000}
		m := New(c.allocate, nil)
		defer m.Close()
		for want := int64(4000); want < 4095; want++ {
			if got, err := m.Next(t.Context()); err != nil || got != want {
				t.Fatalf("got %d %v, want %d", got, err, want)
			}
		}
		synctest.Wait()
		if c.calls != 10 {
			t.Errorf("%d blocks for 95 ids", c.calls)
		}
	})
}

func TestBlocksArePrefetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New((&controller{}).allocate, nil)
		defer m.Close()
		if _, ok := m.TryNext(); ok {
			t.Fatal("an id before the first block")
		}
		for range 100 {
			time.Sleep(6 * time.Millisecond) // the first block, and each next one, has had its time
			if _, ok := m.TryNext(); !ok {
				t.Fatal("a producer would have waited")
			}
		}
	})
}

func TestAControllerThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &controller{down: true}
		m := New(c.allocate, nil)
		defer m.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := m.Next(ctx); !errors.Is(err, kerr.CoordinatorLoadInProgress) {
			t.Fatalf("got %v", err)
		}
		c.mu.Lock()
		c.down = false
		c.mu.Unlock()
		if id, err := m.Next(t.Context()); err != nil || id != 0 {
			t.Fatalf("got %d %v", id, err)
		}
	})
}

func TestABlockThatGoesBackIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		starts := []int64{100, 50, 90, 110}
		m := New(func(ctx context.Context) (Block, error) {
			if len(starts) == 0 {
				<-ctx.Done()
				return Block{}, ctx.Err()
			}
			block := Block{Start: starts[0], Count: 10}
			starts = starts[1:]
			return block, nil
		}, nil)
		defer m.Close()
		for want := int64(100); want < 120; want++ {
			if id, err := m.Next(t.Context()); err != nil || id != want {
				t.Fatalf("got %d %v, want %d", id, err, want)
			}
		}
	})
}

func TestCloseEndsTheWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New((&controller{down: true}).allocate, nil)
		result := make(chan error)
		go func() {
			_, err := m.Next(t.Context())
			result <- err
		}()
		synctest.Wait()
		m.Close()
		if err := <-result; !errors.Is(err, kerr.CoordinatorNotAvailable) {
			t.Fatalf("got %v", err)
		}
	})
}
