package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"understudy/internal/fleet"
)

// damage is what was done to one file.
type damage struct {
	node *fleet.Node
	path string
	what string
}

// fileKind names the files that can be damaged, and where a server has them.
type fileKind struct {
	name, title string
	scope       kind
	whyScope    string
	// match tells which files, by their path below the data directory; partition is the
	// directory of the load's partition that is damaged.
	match func(path, partition string) bool
	which age
}

// age is which files of a kind are chosen among.
type age int

const (
	anyAge age = iota
	cold       // not the newest
	newest
)

var fileKinds = []fileKind{
	{"log", "log segment", broker, "coordinators have no partition logs", func(path, partition string) bool {
		return filepath.Dir(path) == partition && strings.HasSuffix(path, ".log")
	}, cold},
	{"index", "index", broker, "coordinators have no indexes", func(path, partition string) bool {
		return filepath.Dir(path) == partition && (strings.HasSuffix(path, ".index") || strings.HasSuffix(path, ".timeindex"))
	}, anyAge},
	{"checkpoint", "checkpoint", broker, "coordinators have no checkpoints", func(path, partition string) bool {
		return strings.HasSuffix(path, "-checkpoint") && (filepath.Dir(path) == partition || filepath.Dir(path) == ".")
	}, anyAge},
	{"wal", "write-ahead log", coordinator, "brokers have no write-ahead log", func(path, _ string) bool { return strings.HasSuffix(path, ".wal") }, anyAge},
	{"snapshot", "snapshot", both, "", func(path, partition string) bool {
		return strings.HasSuffix(path, ".snapshot") && (filepath.Dir(path) == partition || filepath.Base(filepath.Dir(path)) == "snapshot")
	}, newest},
}

// candidates are the files of a kind that a server has, with something in them.
func candidates(node *fleet.Node, k fileKind, partition string) ([]string, error) {
	root := filepath.Join(node.Dir(), "data")
	var found []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil || entry.IsDir() {
			return err
		}
		below, err := filepath.Rel(root, path)
		if err != nil || !k.match(below, partition) {
			return err
		}
		if info, err := entry.Info(); err == nil && info.Size() > 0 {
			found = append(found, path)
		}
		return nil
	})
	if last := len(found) - 1; last > 0 { // WalkDir is in the order of names, and these are offsets
		switch k.which {
		case cold:
			found = found[:last]
		case newest:
			found = found[last:]
		}
	}
	return found, err
}

// awaitFiles waits until every server that can be a victim has a file to be damaged: what an
// index or a snapshot holds is on disk only when the segment is full or there were writes enough.
func (s *stage) awaitFiles(ctx context.Context, k fileKind) error {
	ctx, cancel := context.WithTimeout(ctx, stageBound)
	defer cancel()
	partition := fmt.Sprintf("%s-%d", loadTopic, s.harmed())
	var nodes []*fleet.Node
	if k.scope != coordinator {
		nodes = append(nodes, s.fleet.Brokers...)
	}
	if k.scope != broker {
		nodes = append(nodes, s.fleet.Coordinators...)
	}
	for _, node := range nodes {
		for {
			files, err := candidates(node, k, partition)
			if err != nil {
				return err
			}
			if len(files) > 0 {
				break
			}
			if err := sleep(ctx, 50*time.Millisecond); err != nil {
				return fmt.Errorf("%s has no %s yet: %w", node.Name, k.title, err)
			}
		}
	}
	return nil
}

// harm damages one file of each victim.
func (s *stage) harm(k fileKind, how func(*stage, *os.File, int64) (string, error)) error {
	partition := fmt.Sprintf("%s-%d", loadTopic, s.harmed())
	for _, node := range s.victims {
		files, err := candidates(node, k, partition)
		if err != nil {
			return err
		}
		if len(files) == 0 {
			return fmt.Errorf("%s has no %s", node.Name, k.title)
		}
		path := files[s.random.IntN(len(files))]
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		info, err := file.Stat()
		var what string
		if err == nil {
			what, err = how(s, file, info.Size())
		}
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
		s.damaged = append(s.damaged, damage{node, path, what})
		below, _ := filepath.Rel(filepath.Join(node.Dir(), "data"), path)
		s.note("%s: %s, %s", node.Name, below, what)
	}
	return nil
}

// harmed is the partition whose files are damaged: one that the first broker of the cast leads.
func (s *stage) harmed() int32 { return 0 }

func flip(s *stage, file *os.File, size int64) (string, error) {
	at, bit := s.random.Int64N(size), s.random.IntN(8)
	var b [1]byte
	if _, err := file.ReadAt(b[:], at); err != nil {
		return "", err
	}
	b[0] ^= 1 << bit
	_, err := file.WriteAt(b[:], at)
	return fmt.Sprintf("bit %d of byte %d of %d flipped", bit, at, size), err
}

func truncate(s *stage, file *os.File, size int64) (string, error) {
	to := s.random.Int64N(size)
	return fmt.Sprintf("cut from %d to %d bytes", size, to), file.Truncate(to)
}

// lead makes the victim lead the damaged partition, so that its files are what is read, and
// reads that back. A victim that does not take over has been found out, or is away.
func lead(ctx context.Context, s *stage) error {
	s.takeLead(ctx)
	s.readDamaged(ctx)
	return nil
}

func (s *stage) takeLead(ctx context.Context) {
	if len(s.victims) > 1 || strings.HasPrefix(s.victims[0].Name, "coordinator") {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := s.makeLeader(bounded, s.victims[0], s.harmed()); err != nil {
		s.note("%s does not lead what was damaged: %v", s.victims[0].Name, err)
	}
}

// awaitFound waits for a running server to find its damage: what it wrote itself it does not check
// when it is read, because the page cache has it; the scrubber reads it again and again.
func (s *stage) awaitFound(ctx context.Context) {
	began := time.Now()
	for time.Since(began) < scrubRound {
		if len(s.quotes()) >= len(s.victims) {
			s.note("found after %.1f s", time.Since(began).Seconds())
			return
		}
		if sleep(ctx, 50*time.Millisecond) != nil {
			return
		}
	}
	s.note("not found while it ran")
}

// scrubRound is the scrubber's rest and time to read.
const scrubRound = 13 * time.Second

// readDamaged reads the damaged partition. What cannot be read in the end is found by the account.
func (s *stage) readDamaged(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 6*time.Second)
	defer cancel()
	if _, err := s.load.ReadBack(ctx, s.harmed()); err != nil {
		s.note("reading the damaged partition: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
}

// makeLeader puts a broker first among a partition's replicas and has the preferred leader
// elected.
func (s *stage) makeLeader(ctx context.Context, node *fleet.Node, partition int32) error {
	admin := s.load.Admin()
	order := []int32{int32(node.ID)}
	for _, other := range s.fleet.Brokers {
		if other != node {
			order = append(order, int32(other.ID))
		}
	}
	var request kadm.AlterPartitionAssignmentsReq
	request.Assign(loadTopic, partition, order)
	var topics kadm.TopicsSet
	topics.Add(loadTopic, partition)
	for {
		_, err := admin.AlterPartitionAssignments(ctx, request)
		if err == nil {
			_, err = admin.ElectLeaders(ctx, kadm.ElectPreferredReplica, topics)
		}
		if err == nil {
			var leaders map[int32]int32
			if leaders, err = s.load.Leaders(ctx); err == nil && leaders[partition] == int32(node.ID) {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// damageFaults are a flip while the server runs, a flip while it is down, and a truncation
// while it is down, of each kind of file.
func damageFaults() (rows []*fault) {
	for _, k := range fileKinds {
		coordinators := map[string]string{}
		if k.name == "snapshot" {
			coordinators["snapCount"] = "80"
		}
		warmUp := time.Duration(0)
		switch k.name {
		case "checkpoint":
			warmUp = checkpointed
		case "snapshot":
			warmUp = 3 * time.Second
		}
		row := func(name, title string, strike func(context.Context, *stage) error) *fault {
			rows = append(rows, &fault{
				name: name, title: title, scope: k.scope, whyScope: k.whyScope, coordinators: coordinators,
				hold: damageHold, strike: strike, mend: start, after: lead, damages: &k, warmUp: warmUp, expected: damageExpected(k),
			})
			return rows[len(rows)-1]
		}
		row("flip-"+k.name, "bit flip in the "+k.title+" of a running server, which is then killed and started", func(ctx context.Context, s *stage) error {
			if err := s.harm(k, flip); err != nil {
				return err
			}
			s.takeLead(ctx)
			if k.name == "log" {
				s.awaitFound(ctx)
			}
			s.readDamaged(ctx)
			return errors.Join(sleep(ctx, damageHold), kill(ctx, s))
		})
		row("flip-"+k.name+"-down", "bit flip in the "+k.title+" of a killed server", func(ctx context.Context, s *stage) error {
			return errors.Join(kill(ctx, s), s.harm(k, flip))
		})
		cut := row("cut-"+k.name, "truncation of the "+k.title+" of a killed server", func(ctx context.Context, s *stage) error {
			return errors.Join(kill(ctx, s), s.harm(k, truncate))
		})
		switch k.name {
		case "log":
			cut.losesRecords = "Every replica was cut short, so no copy was left of what stood behind the furthest cut"
		case "wal":
			cut.losesRecords = "A log that ends early cannot be told from one whose last write was torn, and here all members' logs end early"
			cut.losesZnodes = cut.losesRecords
		}
	}
	return rows
}

const (
	damageHold = 300 * time.Millisecond
	// checkpointed is when the high watermarks have been written, every 5 s.
	checkpointed = 6 * time.Second
)

func damageExpected(k fileKind) string {
	switch k.name {
	case "log":
		return "Found by the batch's checksum when it is read or the log recovered, said with file and offset; the replica takes a good copy from the others, and no reader gets other bytes."
	case "index":
		return "Indexes are derived from the log: what they say wrongly costs a search, or is found and rebuilt; no reader gets other bytes."
	case "checkpoint":
		return "Checkpoints are derived, too, and Kafka's format has no checksum: what cannot be read is rebuilt or refused by name, what can be read and is wrong must not lose or change a record."
	case "wal":
		return "Found by a checksum at the start, said with file and offset. One member takes the state from the others; when all are damaged they refuse to start. (A log cut short is taken for one with a torn end: " +
			"one member gets the rest from the others; when all are cut, what they have in common no more is gone.)"
	default:
		return "Coordinators: as the write-ahead log. Brokers (snapshots of producers' state): an older one is used, or the state is rebuilt from the log; a producer's retries are still recognised."
	}
}

// reason is what a server said when it refused to start.
func (s *stage) reason(node *fleet.Node) string {
	for _, d := range s.damaged {
		if said := lineWith(s.said(node), filepath.Base(d.path)); d.node == node && said != "" {
			return said
		}
	}
	return lastComplaint(s.said(node))
}

// removeIt is in the refusals that ask for the damaged file to be removed.
const removeIt = "remove it to start without it"

// remedy is what an operator does with a server that refuses to start because its files are
// damaged, while the others are well: what it says. If that is not to remove the file, it is an
// empty directory, to be filled by the others.
func (s *stage) remedy(ctx context.Context, node *fleet.Node) error {
	if strings.Contains(s.reason(node), removeIt) {
		for _, d := range s.damaged {
			if d.node == node {
				if err := os.Remove(d.path); err != nil {
					return err
				}
			}
		}
		return node.Start(ctx)
	}
	data := filepath.Join(node.Dir(), "data")
	entries, err := os.ReadDir(data)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Name() != "myid" {
			if err := os.RemoveAll(filepath.Join(data, entry.Name())); err != nil {
				return err
			}
		}
	}
	return node.Start(ctx)
}

// quotes returns what the damaged servers said of the damage: lines that name the file, or the
// partition with a warning.
func (s *stage) quotes() (lines []string) {
	for _, d := range s.damaged {
		base, count := filepath.Base(d.path), 0
		for _, line := range s.said(d.node) {
			if count < 2 && strings.Contains(line, base) && !slices.Contains(lines, short(line)) {
				lines, count = append(lines, short(line)), count+1
			}
		}
		if count > 0 {
			continue
		}
		for _, line := range s.said(d.node) {
			warns := strings.Contains(line, `"level":"WARN"`) || strings.Contains(line, `"level":"ERROR"`)
			if count < 2 && warns && strings.Contains(line, filepath.Base(filepath.Dir(d.path))) {
				lines, count = append(lines, short(line)), count+1
			}
		}
	}
	return lines
}

// lineWith is the first warning or error that holds a text, "" if none does.
func lineWith(lines []string, text string) string {
	for _, line := range lines {
		if strings.Contains(line, text) {
			return short(line)
		}
	}
	return ""
}

// lastComplaint is the last warning or error among log lines.
func lastComplaint(lines []string) string {
	for _, line := range slices.Backward(lines) {
		if strings.Contains(line, `"level":"WARN"`) || strings.Contains(line, `"level":"ERROR"`) {
			return short(line)
		}
	}
	return "it said nothing"
}

// short is a log line without its time.
func short(line string) string {
	var fields map[string]any
	if json.Unmarshal([]byte(line), &fields) != nil {
		return strings.TrimSpace(line)
	}
	delete(fields, "time")
	var text strings.Builder
	for _, key := range []string{"level", "msg"} {
		fmt.Fprintf(&text, "%v ", fields[key])
		delete(fields, key)
	}
	var rest []string
	for key, value := range fields {
		rest = append(rest, fmt.Sprintf("%s=%v", key, value))
	}
	slices.Sort(rest)
	return text.String() + strings.Join(rest, " ")
}
