package ensemble

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/znode"
)

// BenchmarkSubmit writes with fsync on: one write at a time, and many under way, through the
// leader and through a follower.
func BenchmarkSubmit(b *testing.B) {
	for _, size := range []int{1, 3} {
		for _, via := range []string{"leader", "follower"} {
			for _, window := range []int{1, 64, 1024} {
				if size == 1 && via == "follower" {
					continue
				}
				b.Run(fmt.Sprintf("members=%d/via=%s/window=%d", size, via, window), func(b *testing.B) {
					benchmarkSubmit(b, size, via, window)
				})
			}
		}
	}
}

func benchmarkSubmit(b *testing.B, size int, via string, window int) {
	c := newCluster(b, size, func(config *Config) { config.TickTime = 2 * time.Second })
	m := c.leader()
	leader := m
	if via == "follower" {
		m = c.follower()
	}
	generation := m.session(b, 1, longTimeout, 0)
	if o := await(b, m.submit(create(1, generation, "/n", "x", 0))); o.Code != jute.OK {
		b.Fatal(o.Code)
	}
	set := jute.SetDataRequest{Path: "/n", Data: make([]byte, 100), Version: -1}
	req := znode.Request{Kind: znode.KindOp, Session: 1, Generation: generation, Op: jute.OpSetData, Body: set.Append(nil)}
	syncs, requests := leader.Status().Syncs, leader.Status().Requests
	slots := make(chan outcome, window)
	b.ResetTimer()
	for i := range b.N {
		if i >= window {
			<-slots
		}
		m.Submit(req, slots)
	}
	for range min(b.N, window) {
		<-slots
	}
	b.StopTimer()
	s := leader.Status()
	b.ReportMetric(float64(s.Requests-requests)/b.Elapsed().Seconds(), "writes/s")
	b.ReportMetric(float64(s.Requests-requests)/float64(s.Syncs-syncs), "writes/fsync")
}

// BenchmarkView reads while writes go on: a read waits for neither disk nor commit.
func BenchmarkView(b *testing.B) {
	c := newCluster(b, 1)
	m := c.leader()
	generation := m.session(b, 1, longTimeout, 0)
	await(b, m.submit(create(1, generation, "/n", "x", 0)))
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; !stop.Load(); i++ {
			await(b, m.submit(create(1, generation, fmt.Sprintf("/w%d", i), "x", 0)))
		}
	}()
	b.ResetTimer()
	for range b.N {
		m.View(func(machine *znode.Machine) { machine.Exists("/n") })
	}
	b.StopTimer()
	stop.Store(true)
	<-done
}

// BenchmarkStart is from nothing to serving, and from an existing directory.
func BenchmarkStart(b *testing.B) {
	for _, fresh := range []bool{true, false} {
		b.Run(fmt.Sprintf("fresh=%v", fresh), func(b *testing.B) {
			dir := b.TempDir()
			for i := range b.N {
				config := Config{Dir: dir}
				if fresh {
					config.Dir = fmt.Sprintf("%s/%d", dir, i)
				}
				m, err := Start(b.Context(), config)
				if err != nil {
					b.Fatal(err)
				}
				serving := make(chan struct{})
				m.OnServing(func(on bool) {
					if on {
						close(serving)
					}
				})
				<-serving
				b.StopTimer()
				m.kill()
				b.StartTimer()
			}
		})
	}
}
