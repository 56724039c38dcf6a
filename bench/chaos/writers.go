package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/zkclient"
	"understudy/internal/fleet"
)

const (
	writeEvery     = 10 * time.Millisecond
	writersRoot    = "/chaos"
	sessionTimeout = 3 * time.Second
)

// writers create znodes at the coordinators, each writer with a session and a parent of its
// own, one request at a time, and keep account of what was acknowledged.
type writers struct {
	each []*writer
	gap  gap // of all together: any writer's success
	stop context.CancelFunc
	done sync.WaitGroup
}

// writer is one of them. Its fields are of its goroutine; read after it has ended.
type writer struct {
	parent       string
	servers      string
	gap          *gap
	sent         int
	acknowledged []int
	sessions     int
	findings     []string
}

func startWriters(ctx context.Context, nodes []*fleet.Node) (*writers, error) {
	w := &writers{}
	addresses := make([]string, len(nodes))
	for i, node := range nodes {
		addresses[i] = node.Addr
	}
	first, err := zkclient.Connect(ctx, zkclient.Config{Servers: strings.Join(addresses, ","), SessionTimeout: sessionTimeout})
	if err != nil {
		return nil, err
	}
	defer first.Abandon()
	if result := first.Do(ctx, zkclient.Create(writersRoot, nil, zkclient.Persistent)); result.Err != nil {
		return nil, fmt.Errorf("create %s: %w", writersRoot, result.Err)
	}
	running, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	for i := range nodes {
		each := &writer{parent: fmt.Sprintf("%s/w%d", writersRoot, i), gap: &w.gap,
			servers: strings.Join(slices.Concat(addresses[i:], addresses[:i]), ",")}
		if result := first.Do(ctx, zkclient.Create(each.parent, nil, zkclient.Persistent)); result.Err != nil {
			cancel()
			return nil, fmt.Errorf("create %s: %w", each.parent, result.Err)
		}
		w.each = append(w.each, each)
		w.done.Go(func() { each.run(running) })
	}
	return w, nil
}

func (w *writer) run(ctx context.Context) {
	for ctx.Err() == nil {
		client, err := zkclient.Connect(ctx, zkclient.Config{Servers: w.servers, SessionTimeout: sessionTimeout})
		if err != nil {
			continue
		}
		w.sessions++
		w.write(ctx, client)
		client.Abandon() // closing waits for an answer, which may not come
	}
}

// write creates one znode after the other until the session ends.
func (w *writer) write(ctx context.Context, client *zkclient.Client) {
	for ctx.Err() == nil {
		number := w.sent
		w.sent++
		result := w.create(ctx, client, number)
		switch {
		case result.Err == nil:
			w.acknowledged = append(w.acknowledged, number)
			w.gap.success()
		case errors.Is(result.Err, zkclient.ErrSessionExpired):
			return
		case errors.Is(result.Err, jute.NodeExists): // its name is used once
			w.findings = append(w.findings, fmt.Sprintf("znode %s existed before it was created", nodeName(w.parent, number)))
		}
		select {
		case <-ctx.Done():
		case <-time.After(writeEvery):
		}
	}
}

// create writes one znode. It waits for the answer even when the writers are stopped, so that
// nothing is written behind the reader's back.
func (w *writer) create(ctx context.Context, client *zkclient.Client, number int) zkclient.Result {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleBound)
	defer cancel()
	return client.Do(ctx, zkclient.Create(nodeName(w.parent, number), []byte(strconv.Itoa(number)), zkclient.Persistent))
}

func nodeName(parent string, number int) string { return fmt.Sprintf("%s/n%08d", parent, number) }

// finish stops the writers, reads everything back from each coordinator by itself, and returns
// how many writes were acknowledged and what is wrong.
func (w *writers) finish(ctx context.Context, nodes []*fleet.Node) (acknowledged int, findings []string, err error) {
	w.stop()
	w.done.Wait()
	for _, each := range w.each {
		acknowledged += len(each.acknowledged)
		findings = append(findings, each.findings...)
	}
	var first *tree
	for _, node := range nodes {
		read, err := w.read(ctx, node)
		if err != nil {
			return acknowledged, findings, fmt.Errorf("read %s's znodes back: %w", node.Name, err)
		}
		for _, each := range w.each {
			findings = append(findings, each.check(node.Name, read)...)
		}
		if first == nil {
			first = read
		} else if difference := first.differs(read); difference != "" {
			findings = append(findings, fmt.Sprintf("%s and %s differ: %s", nodes[0].Name, node.Name, difference))
		}
	}
	return acknowledged, findings, nil
}

// tree is what one coordinator has below the writers' root.
type tree struct {
	data map[string]string
	stat map[string]jute.Stat
}

func (w *writers) read(ctx context.Context, node *fleet.Node) (*tree, error) {
	client, err := zkclient.Connect(ctx, zkclient.Config{Servers: node.Addr, SessionTimeout: 10 * time.Second})
	if err != nil {
		return nil, err
	}
	defer client.Abandon()
	if result := client.Do(ctx, zkclient.Sync("/")); result.Err != nil {
		return nil, fmt.Errorf("sync: %w", result.Err)
	}
	read := &tree{data: map[string]string{}, stat: map[string]jute.Stat{}}
	for _, each := range w.each {
		listed := client.Do(ctx, zkclient.Children(each.parent, false))
		if listed.Err != nil {
			return nil, fmt.Errorf("children of %s: %w", each.parent, listed.Err)
		}
		gets := make([]zkclient.Op, len(listed.Children))
		for i, name := range listed.Children {
			gets[i] = zkclient.GetData(each.parent+"/"+name, false)
		}
		for i, result := range client.DoAll(ctx, gets) {
			if result.Err != nil {
				return nil, fmt.Errorf("get %s: %w", gets[i].Path, result.Err)
			}
			read.data[gets[i].Path], read.stat[gets[i].Path] = string(result.Data), result.Stat
		}
	}
	return read, nil
}

// check compares a coordinator's znodes with what was acknowledged to a writer: all of it is
// there, with its data, in the order of its writing.
func (w *writer) check(who string, read *tree) (findings []string) {
	var last jute.Zxid
	for _, number := range w.acknowledged {
		path := nodeName(w.parent, number)
		data, ok := read.data[path]
		switch {
		case !ok:
			findings = append(findings, fmt.Sprintf("znode %s was acknowledged and is not at %s", path, who))
			continue
		case data != strconv.Itoa(number):
			findings = append(findings, fmt.Sprintf("znode %s holds %q at %s", path, data, who))
		case read.stat[path].Czxid <= last:
			findings = append(findings, fmt.Sprintf("znode %s has zxid 0x%x at %s, an earlier one has 0x%x", path, uint64(read.stat[path].Czxid), who, uint64(last)))
		}
		last = read.stat[path].Czxid
	}
	for path := range read.data {
		if strings.HasPrefix(path, w.parent+"/") {
			if number, err := strconv.Atoi(path[len(w.parent)+2:]); err != nil || number >= w.sent {
				findings = append(findings, fmt.Sprintf("znode %s at %s was never written", path, who))
			}
		}
	}
	if len(findings) > 3 {
		findings = append(findings[:3], fmt.Sprintf("and %d more of %s", len(findings)-3, w.parent))
	}
	return findings
}

// differs says how two trees differ, "" if they do not.
func (t *tree) differs(other *tree) string {
	for path, data := range t.data {
		if otherData, ok := other.data[path]; !ok || data != otherData || t.stat[path] != other.stat[path] {
			return fmt.Sprintf("%s is %q %+v and %q %+v", path, data, t.stat[path], otherData, other.stat[path])
		}
	}
	for path := range other.data {
		if _, ok := t.data[path]; !ok {
			return path + " is missing at the first"
		}
	}
	return ""
}
