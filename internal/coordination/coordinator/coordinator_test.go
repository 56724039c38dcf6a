package coordinator

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"understudy/internal/coordination/zkclient"
)

// patience bounds what is awaited; nothing should take nearly as long.
const patience = time.Minute

func start(t *testing.T, dir string) *Coordinator {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := Start(ctx, Config{DataDir: dir, ClientAddr: "127.0.0.1:0", TickTime: 500 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.AwaitServing(ctx); err != nil {
		t.Fatal(err)
	}
	return c
}

func stop(t *testing.T, c *Coordinator) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.Stop(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestARestartKeepsTheTree goes through the client port and through memory.
func TestARestartKeepsTheTree(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	for round, config := range []func(*Coordinator) zkclient.Config{
		func(c *Coordinator) zkclient.Config { return zkclient.Config{Servers: c.Addr()} },
		func(c *Coordinator) zkclient.Config { return zkclient.Config{Servers: c.Addr(), Dial: c.Dial} },
	} {
		c := start(t, dir)
		client, err := zkclient.Connect(ctx, config(c))
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			if result := client.Do(ctx, zkclient.Create("/a", []byte("kept"), zkclient.Persistent)); result.Err != nil {
				t.Fatal(result.Err)
			}
		}
		if result := client.Do(ctx, zkclient.GetData("/a", false)); result.Err != nil || string(result.Data) != "kept" {
			t.Fatalf("round %d: %q, %v", round, result.Data, result.Err)
		}
		client.Close()
		stop(t, c)
	}
}
