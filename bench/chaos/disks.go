package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"understudy/internal/fleet"
)

// orders are what a hooked program reads (vfs.Orders, which only exists with the tag).
type orders struct {
	WriteDelayMs int   `json:"write_delay_ms,omitempty"`
	SyncDelayMs  int   `json:"sync_delay_ms,omitempty"`
	SyncFails    bool  `json:"sync_fails,omitempty"`
	ClockSeconds int64 `json:"clock_seconds,omitempty"`
}

func (s *stage) ordersFile(role string, id int) string {
	return filepath.Join(s.dir, fmt.Sprintf("%s-%d.orders", role, id))
}

func nodeOrders(node *fleet.Node) string {
	role, _, _ := strings.Cut(node.Name, " ")
	return filepath.Join(filepath.Dir(node.Dir()), fmt.Sprintf("%s-%d.orders", role, node.ID))
}

// order has the victims' disks and clocks behave in a way.
func order(what orders) func(context.Context, *stage) error {
	return func(ctx context.Context, s *stage) error {
		return s.strikeEach(func(node *fleet.Node) error {
			if err := giveOrders(node, what); err != nil {
				return err
			}
			return awaitObeyed(ctx, node, what)
		})
	}
}

// awaitObeyed waits until a server has taken its orders and its clock shows what it is to show.
func awaitObeyed(ctx context.Context, node *fleet.Node, what orders) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		var obeyed struct {
			Orders orders `json:"orders"`
			Now    int64  `json:"now"`
		}
		text, err := os.ReadFile(nodeOrders(node) + ".obeyed")
		if err == nil && json.Unmarshal(text, &obeyed) == nil && obeyed.Orders == what {
			if off := obeyed.Now - time.Now().Unix() - what.ClockSeconds; off < -2 || off > 2 {
				return fmt.Errorf("%s: its clock is %d s off what was ordered", node.Name, off)
			}
			return nil
		}
		select {
		case <-node.Process().Exited():
			return nil // that is how it took them
		case <-ctx.Done():
			return fmt.Errorf("%s does not take its orders: %w", node.Name, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func giveOrders(node *fleet.Node, what orders) error {
	text, err := json.Marshal(what)
	if err != nil {
		return err
	}
	path := nodeOrders(node)
	if err := os.WriteFile(path+".new", text, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// environment is what a server's command is run with for a fault.
func (s *stage) environment(role string, id int, f *fault) []string {
	var set []string
	if f.needs&(hook|clockHook) != 0 {
		set = append(set, "UNDERSTUDY_CHAOS="+s.ordersFile(role, id))
	}
	if f.needs&unsyncedHook != 0 {
		data := filepath.Join(s.dir, fmt.Sprintf("%s-%d", role, id), "data")
		set = append(set, "UNDERSTUDY_CHAOS_UNSYNCED="+data, fmt.Sprintf("UNDERSTUDY_CHAOS_SEED=%d", s.random.Int64()))
	}
	return set
}

const smallDiskBytes = 64 << 20

// dataDirs makes the servers' data directories before there is anything in them, on file systems
// of their own if the fault fills them.
func (s *stage) dataDirs(ctx context.Context, f *fault) error {
	for _, role := range []string{"coordinator", "broker"} {
		for id := 1; id <= 3; id++ {
			dir := filepath.Join(s.dir, fmt.Sprintf("%s-%d", role, id), "data")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			if f.needs&smallDisk == 0 {
				continue
			}
			if err := command(ctx, fmt.Sprintf("mount -t tmpfs -o size=%d tmpfs %s", smallDiskBytes, dir)); err != nil {
				return err
			}
			s.mounted = append(s.mounted, dir)
		}
	}
	return nil
}

func (s *stage) unmount() {
	for _, dir := range s.mounted {
		_ = command(context.Background(), "umount -l "+dir) // best effort at the end
	}
}

const fillerName = "filler"

func filler(node *fleet.Node) string { return filepath.Join(node.Dir(), "data", fillerName) }

// fill takes what is left of the victims' disks.
func fill(_ context.Context, s *stage) error {
	return s.strikeEach(func(node *fleet.Node) error {
		file, err := os.Create(filler(node))
		if err != nil {
			return err
		}
		defer file.Close()
		chunk := make([]byte, 1<<20)
		for {
			_, err := file.Write(chunk)
			switch {
			case errors.Is(err, syscall.ENOSPC) && len(chunk) > 1:
				chunk = chunk[:len(chunk)/2]
			case errors.Is(err, syscall.ENOSPC):
				return nil
			case err != nil:
				return err
			}
		}
	})
}

// empty gives the space back. What ended by itself is started again by settled.
func empty(_ context.Context, s *stage) error {
	return s.strikeEach(func(node *fleet.Node) error { return os.Remove(filler(node)) })
}

// healAndRestart takes orders back and starts the victims anew: after a failed fsync nobody
// can know what the disk holds, so a server must not go on by itself.
func healAndRestart(ctx context.Context, s *stage) error {
	for _, node := range s.victims {
		select {
		case <-node.Process().Exited():
			s.note("%s had ended by itself: %s", node.Name, lastComplaint(s.said(node)))
		default:
			s.note("%s was still running: %s", node.Name, lastComplaint(s.said(node)))
		}
		node.Kill()
		if err := giveOrders(node, orders{}); err != nil {
			return err
		}
	}
	return start(ctx, s)
}

const (
	slowHold  = 4 * time.Second
	clockHold = 3 * time.Second
	fullHold  = 3 * time.Second
	// ahead is a day. back is less than an hour: records that are an hour ahead of a broker's
	// clock are refused by Kafka's rule (log.message.timestamp.after.max.ms).
	aheadSeconds = 24 * 60 * 60
	backSeconds  = -50 * 60
)

// flushEach has a record synced before it is acknowledged.
var flushEach = map[string]string{"log.flush.interval.messages": "1"}

var diskFaults = []*fault{
	{
		name: "disk-full", title: "full disk for 3 s (a file system of its own, filled to the last byte)", scope: both, needs: smallDisk, hold: fullHold, strike: fill, mend: empty, mayEnd: true,
		expected: "A server whose disk takes nothing more must not acknowledge; it ends, or goes on when there is room again. Others carry on; when all disks are full nobody acknowledges.",
	},
	{
		name: "disk-slow", title: "slow disk for 4 s: 3 ms more for each write, 100 ms for each fsync", scope: both, needs: hook, hold: slowHold,
		strike: order(orders{WriteDelayMs: 3, SyncDelayMs: 100}), mend: order(orders{}),
		expected: "Slower, and nobody is taken for dead.",
	},
	{
		name: "fsync-fails", title: "every fsync fails (EIO) for 1.5 s; then the disk is well, and the victim started anew", scope: both, needs: hook, hold: killHold, brokers: flushEach,
		strike: order(orders{SyncFails: true}), mend: healAndRestart, mayEnd: true,
		expected: "A failed fsync is final: the server acknowledges nothing more and ends. (Brokers with log.flush.interval.messages=1, else they hardly ever fsync.)",
	},
	{
		name: "power", title: "power loss: killed, and what was not synced is gone", scope: both, needs: unsyncedHook, hold: killHold, strike: kill, mend: start,
		expected: "One server: as kill -9; what its disk lost it takes from the others, and it is not elected over one that has it. Coordinators lose nothing ever. When all brokers lose power at once, with Kafka's defaults, " +
			"what none of them had flushed is gone (the next row is the setting against that).",
		losesRecords: "Brokers acknowledge with Kafka's default durability, the page cache of every in-sync replica: what none of them had synced is gone when all lose power at once",
	},
	{
		name: "power-flushed", title: "power loss, brokers with log.flush.interval.messages=1", scope: both, needs: unsyncedHook, hold: killHold, brokers: flushEach, strike: kill, mend: start,
		expected: "As above, and nothing acknowledged is lost when all go at once.",
	},
}

var clockFaults = []*fault{
	{
		name: "clock-ahead", title: "clock put a day ahead, and right again after 3 s", scope: both, needs: clockHook, hold: clockHold,
		strike: order(orders{ClockSeconds: aheadSeconds}), mend: order(orders{}),
		expected: "Unnoticed: sessions, elections and timeouts go by the monotonic clock.",
	},
	{
		name: "clock-back", title: "clock put back by 50 minutes, and right again after 3 s", scope: both, needs: clockHook, hold: clockHold,
		strike: order(orders{ClockSeconds: backSeconds}), mend: order(orders{}),
		expected: "Unnoticed. (An hour and more, and a broker refuses what clients with the right time send, by Kafka's log.message.timestamp.after.max.ms.)",
	},
}
