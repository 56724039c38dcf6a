// Package coordinator is one whole coordinator: an ensemble member and the client port in
// front of it, started and stopped in a reasoned order. It owns the listener and the order;
// everything else is the ensemble's and zkserver's.
package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"understudy/internal/coordination/ensemble"
	"understudy/internal/coordination/zkserver"
	"understudy/internal/coordination/znode"
	"understudy/internal/port"
	"understudy/internal/vfs"
)

// Config of a coordinator; zero values mean ZooKeeper's defaults.
type Config struct {
	ID      znode.MemberID            // myid; 0 when alone
	Members map[znode.MemberID]string // raft addresses, this member's included; empty when alone
	DataDir string
	FS      vfs.FS // nil is the operating system's

	// ClientAddr is the address of the client port, "" for none: then Pipe is the only way in.
	ClientAddr string

	TickTime                             time.Duration
	InitLimit, SyncLimit                 int // ticks
	MinSessionTimeout, MaxSessionTimeout time.Duration
	MaxClientConnections                 int // per address; 0 = unlimited, as in zoo.cfg
	FourLetterWhitelist                  []string
	SnapshotEntries                      uint64
	ContainerCheckInterval               time.Duration // 0 = a minute
	// SuperDigest is the user:hash that may do everything, "" for nobody.
	SuperDigest string

	Logger *slog.Logger
}

// Coordinator is a running one.
type Coordinator struct {
	member   *ensemble.Member
	server   *zkserver.Server
	listener net.Listener // nil without a client port
	serving  sync.WaitGroup
}

// Start takes the client port first, so that a port in use is found before anything is
// touched on disk, then recovers the data directory and joins the ensemble. The client port
// answers from the moment Start returns; Ready tells when there is a leader.
func Start(ctx context.Context, config Config) (*Coordinator, error) {
	c := &Coordinator{}
	if config.ClientAddr != "" {
		listener, err := port.Listen("clientPort", config.ClientAddr)
		if err != nil {
			return nil, err
		}
		c.listener = listener
	}
	if err := c.start(ctx, config); err != nil {
		if c.listener != nil {
			c.listener.Close()
		}
		return nil, err
	}
	return c, nil
}

func (c *Coordinator) start(ctx context.Context, config Config) error {
	member, err := ensemble.Start(ctx, ensemble.Config{
		ID: config.ID, Peers: config.Members, Dir: config.DataDir, FS: config.FS,
		TickTime: config.TickTime, InitLimit: config.InitLimit, SyncLimit: config.SyncLimit,
		SnapshotEntries: config.SnapshotEntries, ContainerCheckInterval: config.ContainerCheckInterval, Logger: config.Logger,
	})
	if err != nil {
		return err
	}
	maxPerClient := config.MaxClientConnections
	if maxPerClient == 0 {
		maxPerClient = -1 // zkserver's zero is ZooKeeper's default of 60
	}
	server, err := zkserver.New(zkserver.Config{
		Member: member, ClientAddr: c.Addr(), TickTime: config.TickTime,
		MinSessionTimeout: config.MinSessionTimeout, MaxSessionTimeout: config.MaxSessionTimeout,
		MaxClientConnections: maxPerClient, FourLetterWhitelist: config.FourLetterWhitelist,
		SuperDigest: config.SuperDigest, DataDir: config.DataDir, Logger: config.Logger,
	})
	if err != nil {
		return errors.Join(err, member.Stop(ctx))
	}
	c.member, c.server = member, server
	if c.listener != nil {
		c.serving.Go(func() { server.Serve(c.listener) })
	}
	return nil
}

// Addr is the client port's actual address, "" without one.
func (c *Coordinator) Addr() string {
	if c.listener == nil {
		return ""
	}
	return c.listener.Addr().String()
}

// Dial opens a client connection in memory; it has the shape of zkclient's dialer, and the
// address is ignored.
func (c *Coordinator) Dial(context.Context, string) (net.Conn, error) { return c.server.Pipe() }

// AwaitServing waits until there is a leader and clients are served.
func (c *Coordinator) AwaitServing(ctx context.Context) error {
	served := make(chan struct{})
	var once sync.Once
	c.member.OnServing(func(serving bool) {
		if serving {
			once.Do(func() { close(served) })
		}
	})
	select {
	case <-served:
		return nil
	case <-c.member.Done():
		return c.Err()
	case <-ctx.Done():
		return fmt.Errorf("no quorum of the ensemble was found: %w", ctx.Err())
	}
}

// Done is closed when the coordinator ended by itself, because its disk failed.
func (c *Coordinator) Done() <-chan struct{} { return c.member.Done() }

// Err is the reason, once Done is closed.
func (c *Coordinator) Err() error { return c.member.Err() }

// Stop closes the client port, then leaves the ensemble: a leader hands over first.
func (c *Coordinator) Stop(ctx context.Context) error {
	err := errors.Join(c.server.Close(ctx), c.member.Stop(ctx))
	c.serving.Wait()
	return err
}
