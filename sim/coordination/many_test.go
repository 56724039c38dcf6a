package coordination

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

// TestMany runs SIM_SEEDS seeds from SIM_FROM, for debugging without the command.
func TestMany(t *testing.T) {
	if os.Getenv("SIM_SEEDS") == "" {
		t.Skip("SIM_SEEDS is not set")
	}
	count, _ := strconv.ParseUint(os.Getenv("SIM_SEEDS"), 10, 64)
	from, _ := strconv.ParseUint(os.Getenv("SIM_FROM"), 10, 64)
	var mu sync.Mutex
	next, total, counts := from, 0, map[string]int{}
	failures := 0
	began := time.Now()
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			for {
				mu.Lock()
				seed := next
				next++
				stop := seed >= from+count || failures > 25
				mu.Unlock()
				if stop {
					return
				}
				watchdog := time.AfterFunc(20*time.Second, func() { panic(fmt.Sprint("seed hangs: ", seed)) })
				r := Run(seed, Options{})
				watchdog.Stop()
				mu.Lock()
				total += r.Steps
				for k, n := range r.Counts {
					counts[k] += n
				}
				if r.Failure != nil {
					failures++
					text := r.Failure.Error()
					fmt.Printf("seed %d: %s\n", seed, text[:min(len(text), 420)])
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	fmt.Println(failures, "failed;", total, "steps", time.Since(began), counts)
}
