package znode

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"understudy/internal/coordination/jute"
)

// TestReadersBesideApply runs what may run side by side, for the race detector: reads under a read lock, and a snapshot
// that is written without any lock while Apply goes on.
func TestReadersBesideApply(t *testing.T) {
	m, paths := filled(t, 5000)
	var lock sync.RWMutex
	var all sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		all.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				lock.RLock()
				_, code, _ := m.HandleRead(jute.OpGetData, (&jute.PathWatchRequest{Path: paths[i%len(paths)]}).Append(nil), nil, 1)
				m.Sessions(func(SessionInfo) bool { return true })
				lock.RUnlock()
				if code != jute.OK && code != jute.NoNode {
					t.Error(code)
					return
				}
			}
		})
	}
	for round := range 5 {
		lock.Lock()
		want, s := m.Checksum(), m.Freeze()
		lock.Unlock()
		var buf bytes.Buffer
		written := make(chan error)
		go func() {
			_, err := s.WriteTo(&buf)
			s.Close()
			written <- err
		}()
		for i := range 2000 {
			path := paths[(i*7+round*1000)%len(paths)]
			lock.Lock()
			apply(m, write(jute.OpSetData, (&jute.SetDataRequest{Path: path, Data: make([]byte, i%300), Version: -1}).Append(nil)))
			apply(m, write(jute.OpCreate, createBody(fmt.Sprintf("/dir0000/r%d-%d", round, i), "", 0)))
			apply(m, write(jute.OpDelete, deleteBody(paths[(i*3+round)%len(paths)])))
			lock.Unlock()
		}
		if err := <-written; err != nil {
			t.Fatal(err)
		}
		again, err := Restore(&buf)
		if err != nil || again.Checksum() != want {
			t.Fatal("the snapshot is not the state at the freeze", err)
		}
	}
	close(stop)
	all.Wait()
}
