package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/zkclient"
	"understudy/internal/verify"
)

// The shape of the tree under the run's znode.
const (
	directories       = 16
	sequenceParents   = 4
	ephemeralParent   = "/e"
	operationsAnyhow  = 120 // calls that one object gets before the next takes its place
	objectsAtATime    = 4
	ephemeralsAtATime = 64
)

// Options of a recording. Servers is ZooKeeper's connection string: host:port,host:port/chroot.
type Options struct {
	Servers        string
	Duration       time.Duration
	Clients        int
	Seed           uint64
	SessionTimeout time.Duration
	// Settle bounds the end of the run: last readings at every server, and the wait for the
	// znodes of ended sessions.
	Settle time.Duration
	// Keep leaves the run's znodes where they are.
	Keep bool
	// Say tells how it goes on.
	Say func(format string, args ...any)
}

// run is what the clients of a recording share.
type run struct {
	options Options
	servers []string
	root    string
	clock   *verify.Clock
	calls   atomic.Int64 // on objects

	mu struct {
		sync.Mutex
		ephemerals []string // the latest
	}
}

// Record runs the clients and returns what they saw. An error means that there is nothing to
// judge: the servers could not be reached, or would not let the run create its znodes.
func Record(ctx context.Context, options Options) (*History, error) {
	servers, chroot, err := splitServers(options.Servers)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	r := &run{
		options: options, servers: servers, clock: verify.NewClock(0),
		root: fmt.Sprintf("%s/understudy-verify-%x", chroot, began.UnixNano()),
	}
	admin, err := r.setUp(ctx)
	if err != nil {
		return nil, err
	}
	defer admin.Abandon()
	clients := make([]*client, options.Clients+len(servers))
	for i := range clients {
		random := rand.New(rand.NewPCG(options.Seed, uint64(i)))
		clients[i] = newClient(i, r.clock, random, servers, r.root, options.SessionTimeout)
	}
	options.Say("%d clients at work under %s for %v", options.Clients, r.root, options.Duration)
	r.play(ctx, clients[:options.Clients])
	settling, cancel := context.WithTimeout(context.WithoutCancel(ctx), options.Settle)
	defer cancel()
	r.settle(settling, clients)
	history := &History{Header: verify.Header{History: "zookeeper", Began: began, Servers: servers, Seed: options.Seed}}
	for _, c := range clients {
		history.Clients = append(history.Clients, c.entries)
	}
	if !options.Keep {
		if err := r.tearDown(settling, admin); err != nil {
			options.Say("the run's znodes under %s could not be removed: %v", r.root, err)
		}
	}
	return history, nil
}

// splitServers reads a connection string; the port is 2181 when left out.
func splitServers(text string) (servers []string, chroot string, err error) {
	list := text
	if slash := strings.IndexByte(text, '/'); slash >= 0 {
		list, chroot = text[:slash], strings.TrimRight(text[slash:], "/")
	}
	for server := range strings.SplitSeq(list, ",") {
		if server = strings.TrimSpace(server); server == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(server); err != nil {
			server = net.JoinHostPort(strings.Trim(server, "[]"), "2181")
		}
		servers = append(servers, server)
	}
	if len(servers) == 0 {
		return nil, "", fmt.Errorf("%q names no server; it should look like host:2181,host:2181/chroot", text)
	}
	return servers, chroot, nil
}

// setUpPatience bounds the start: a cluster that does not answer by then is not there.
const setUpPatience = 30 * time.Second

func (r *run) setUp(ctx context.Context) (*zkclient.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, setUpPatience)
	defer cancel()
	admin, err := zkclient.Connect(ctx, zkclient.Config{Servers: strings.Join(r.servers, ","), SessionTimeout: r.options.SessionTimeout})
	if err != nil {
		return nil, err
	}
	paths := []string{r.root, r.root + ephemeralParent}
	for i := range directories {
		paths = append(paths, fmt.Sprintf("%s/d%d", r.root, i))
	}
	for i := range sequenceParents {
		paths = append(paths, fmt.Sprintf("%s/s%d", r.root, i))
	}
	for _, path := range paths {
		if err := insist(ctx, admin, zkclient.Create(path, nil, zkclient.Persistent), jute.NodeExists); err != nil {
			admin.Abandon()
			return nil, fmt.Errorf("create %s: %w", path, err)
		}
	}
	return admin, nil
}

// insist does op until its outcome is known; fine is an error that is as good as none.
func insist(ctx context.Context, c *zkclient.Client, op zkclient.Op, fine jute.Code) error {
	for {
		err := c.Do(ctx, op).Err
		if err == nil || errors.Is(err, fine) {
			return nil
		}
		if !errors.Is(err, zkclient.ErrConnectionLoss) {
			return err
		}
	}
}

// tearDown removes what the run has created.
func (r *run) tearDown(ctx context.Context, admin *zkclient.Client) error {
	parents := admin.Do(ctx, zkclient.Children(r.root, false))
	if parents.Err != nil {
		return parents.Err
	}
	for _, parent := range parents.Children {
		parent = r.root + "/" + parent
		children := admin.Do(ctx, zkclient.Children(parent, false))
		var ops []zkclient.Op
		for _, child := range children.Children {
			ops = append(ops, zkclient.Delete(parent+"/"+child, zkclient.AnyVersion))
		}
		admin.DoAll(ctx, append(ops, zkclient.Delete(parent, zkclient.AnyVersion))) // what is left over, the last deletion tells
	}
	return insist(ctx, admin, zkclient.Delete(r.root, zkclient.AnyVersion), jute.NoNode)
}

// play runs the clients until the duration is over.
func (r *run) play(ctx context.Context, clients []*client) {
	ctx, cancel := context.WithTimeout(ctx, r.options.Duration)
	defer cancel()
	var wait sync.WaitGroup
	for _, c := range clients {
		wait.Go(func() {
			actor := &actor{run: r, client: c, versions: map[string]int32{}}
			for ctx.Err() == nil && c.attach(ctx) == nil {
				actor.act()
				select {
				case <-time.After(time.Duration(c.random.Int64N(int64(actorPause)))):
				case <-ctx.Done():
				}
			}
		})
	}
	wait.Wait()
}

// settle ends the run: every client reads what it watches, and ends its session one way or
// the other; then each server is asked for everything, and the ephemerals have to go.
func (r *run) settle(ctx context.Context, clients []*client) {
	r.options.Say("the clients have finished; reading everything at each server")
	var wait sync.WaitGroup
	for i, c := range clients[:r.options.Clients] {
		wait.Go(func() {
			if c.attach(ctx) != nil {
				return
			}
			c.readWatched()
			if i%2 == 0 {
				c.closeSession()
			} else {
				c.abandon()
			}
		})
	}
	wait.Wait()
	readers := clients[r.options.Clients:]
	for i, c := range readers {
		c.servers = r.servers[i : i+1]
		wait.Go(func() { r.readEverything(ctx, c) })
	}
	wait.Wait()
	r.awaitEphemerals(ctx, readers)
	for _, c := range readers {
		if c.conn != nil {
			c.closeSession()
		}
	}
}

// readWatched reads every watched znode after a sync: a change that the client was not told of
// comes to light.
func (c *client) readWatched() {
	var calls []call
	for _, watches := range []map[string]bool{c.dataWatches, c.existWatches} {
		for path := range watches {
			calls = append(calls, call{sync: true, Request: Request{Name: opGetData, Path: path}})
		}
	}
	for path := range c.childWatches {
		calls = append(calls, call{sync: true, Request: Request{Name: opChildren, Path: path}})
	}
	if len(calls) > 0 {
		c.do(calls...)
	}
}

// readBurst is how many readings go out at once.
const readBurst = 90

// oneServerPatience bounds the last visit to a server that may be down for good.
const oneServerPatience = 10 * time.Second

// readEverything reads every object at one server, after a sync.
func (r *run) readEverything(ctx context.Context, c *client) {
	reaching, cancel := context.WithTimeout(ctx, oneServerPatience)
	defer cancel()
	var calls []call
	last := r.calls.Load() / operationsAnyhow
	for object := int64(0); object <= last; object++ {
		for _, letter := range letters {
			calls = append(calls, call{sync: true, Request: Request{Name: opGetData, Path: objectPath(object, letter)}})
		}
	}
	for len(calls) > 0 {
		if c.conn == nil && c.attach(reaching) != nil {
			r.options.Say("%s was not there for the last readings", c.servers[0])
			return
		}
		burst := calls[:min(readBurst, len(calls))]
		calls = calls[len(burst):]
		c.do(burst...)
	}
}

// awaitEphemerals watches the ephemerals of the ended sessions go. The sessions that were left
// to themselves have their timeout, twice over for a change of the leader in between.
func (r *run) awaitEphemerals(ctx context.Context, readers []*client) {
	negotiated := r.options.SessionTimeout
	for _, c := range readers {
		negotiated = max(negotiated, c.timeout)
	}
	bounded, cancel := context.WithTimeout(ctx, 3*negotiated+5*time.Second)
	defer cancel()
	for i := 0; ; i++ {
		c := readers[i%len(readers)]
		reaching, stop := context.WithTimeout(ctx, time.Second)
		reached := c.attach(reaching) == nil
		stop()
		if reached {
			if bounded.Err() != nil {
				c.record(Entry{Kind: kindDeadline})
			}
			for _, done := range c.do(call{sync: true, Request: Request{Name: opChildren, Path: ephemeralParent}}) {
				if done.Outcome == outcomeOK && (len(done.Children) == 0 || bounded.Err() != nil) {
					return
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}
