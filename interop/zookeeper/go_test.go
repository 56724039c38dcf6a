package zookeeper

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
)

type quiet struct{}

func (quiet) Printf(string, ...any) {}

func goClient(t *testing.T, addr string, options ...any) (*zk.Conn, <-chan zk.Event) {
	t.Helper()
	c, events, err := zk.Connect([]string{addr}, 6*time.Second, zk.WithLogger(quiet{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, events
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestGoZookeeper(t *testing.T) {
	addr := server(t)
	c, _ := goClient(t, addr)
	base := must[string](t)(c.Create("/go-", nil, zk.FlagSequence, zk.WorldACL(zk.PermAll)))

	t.Run("operations", func(t *testing.T) {
		path := must[string](t)(c.Create(base+"/a", []byte("one"), 0, zk.WorldACL(zk.PermAll)))
		data, stat, err := c.Get(path)
		if err != nil || string(data) != "one" || stat.Version != 0 {
			t.Errorf("%q %+v %v", data, stat, err)
		}
		if stat := must[*zk.Stat](t)(c.Set(path, []byte("two"), 0)); stat.Version != 1 {
			t.Errorf("%+v", stat)
		}
		if _, err := c.Set(path, nil, 0); !errors.Is(err, zk.ErrBadVersion) {
			t.Errorf("%v", err)
		}
		children, _, err := c.Children(base)
		if err != nil || fmt.Sprint(children) != "[a]" {
			t.Errorf("%v %v", children, err)
		}
		if _, err := c.Sync(base); err != nil {
			t.Error(err)
		}
		if _, err := c.CreateContainer(base+"/container", nil, zk.FlagTTL, zk.WorldACL(zk.PermAll)); !errors.Is(err, zk.ErrInvalidFlags) {
			t.Errorf("%v", err)
		}
		must[string](t)(c.CreateContainer(base+"/container", nil, 4, zk.WorldACL(zk.PermAll)))
	})
	t.Run("multi", func(t *testing.T) {
		results, err := c.Multi(&zk.CreateRequest{Path: base + "/m", Acl: zk.WorldACL(zk.PermAll)},
			&zk.SetDataRequest{Path: base + "/m", Data: []byte("x"), Version: 0}, &zk.CheckVersionRequest{Path: base + "/m", Version: 1})
		if err != nil || results[0].String != base+"/m" || results[1].Stat.Version != 1 {
			t.Errorf("%+v %v", results, err)
		}
		_, err = c.Multi(&zk.CreateRequest{Path: base + "/m2", Acl: zk.WorldACL(zk.PermAll)}, &zk.DeleteRequest{Path: base + "/none"})
		if !errors.Is(err, zk.ErrNoNode) {
			t.Errorf("%v", err)
		}
	})
	t.Run("auth", func(t *testing.T) {
		if err := c.AddAuth("digest", []byte("user:pass")); err != nil {
			t.Fatal(err)
		}
		must[string](t)(c.Create(base+"/mine", []byte("x"), 0, zk.DigestACL(zk.PermAll, "user", "pass")))
		stranger, _ := goClient(t, addr)
		if _, _, err := stranger.Get(base + "/mine"); !errors.Is(err, zk.ErrNoAuth) {
			t.Errorf("%v", err)
		}
	})
	t.Run("lock", func(t *testing.T) {
		var group sync.WaitGroup
		inside := 0
		for range 4 {
			group.Go(func() {
				c, _ := goClient(t, addr)
				lock := zk.NewLock(c, base+"/lock", zk.WorldACL(zk.PermAll))
				for range 10 {
					if err := lock.Lock(); err != nil {
						t.Error(err)
						return
					}
					if inside++; inside != 1 {
						t.Error("two hold the lock")
					}
					inside--
					if err := lock.Unlock(); err != nil {
						t.Error(err)
					}
				}
			})
		}
		group.Wait()
	})
	t.Run("watches survive a lost connection", func(t *testing.T) { goWatches(t, addr, c, base) })
	t.Run("four-letter words", func(t *testing.T) {
		if ok := zk.FLWRuok([]string{addr}, time.Second); !ok[0] {
			t.Error("ruok")
		}
		// The second result is false on any server: the asking connection has no session.
		if clients, _ := zk.FLWCons([]string{addr}, time.Second); len(clients[0].Clients) == 0 {
			t.Errorf("cons: %+v", clients[0])
		}
	})
}

// goWatches cuts the connection of a watching client and changes what it watches meanwhile: setWatches makes up for it.
func goWatches(t *testing.T, addr string, writer *zk.Conn, base string) {
	var mu sync.Mutex
	var conns []net.Conn
	cut := make(chan struct{})
	dial := func(network, address string, timeout time.Duration) (net.Conn, error) {
		conn, err := net.DialTimeout(network, address, timeout)
		mu.Lock()
		defer mu.Unlock()
		if len(conns) > 0 {
			<-cut
		}
		conns = append(conns, conn)
		return conn, err
	}
	c, events, err := zk.Connect([]string{addr}, 6*time.Second, zk.WithLogger(quiet{}), zk.WithDialer(dial))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	must[string](t)(writer.Create(base+"/watched", nil, 0, zk.WorldACL(zk.PermAll)))
	_, _, data, err := c.GetW(base + "/watched")
	if err != nil {
		t.Fatal(err)
	}
	_, _, later, err := c.ExistsW(base + "/later")
	if err != nil {
		t.Fatal(err)
	}
	session := c.SessionID()
	mu.Lock()
	conns[0].Close()
	mu.Unlock()
	must[*zk.Stat](t)(writer.Set(base+"/watched", []byte("x"), -1))
	close(cut)
	if e := <-data; e.Type != zk.EventNodeDataChanged || e.Err != nil {
		t.Errorf("%+v", e)
	}
	for e := range events {
		if e.State == zk.StateHasSession && c.SessionID() == session {
			break
		}
	}
	must[string](t)(writer.Create(base+"/later", nil, 0, zk.WorldACL(zk.PermAll)))
	if e := <-later; e.Type != zk.EventNodeCreated {
		t.Errorf("%+v", e)
	}
}
