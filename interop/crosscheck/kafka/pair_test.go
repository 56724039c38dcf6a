package kafka

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/fleet"
	"understudy/interop/foreign"
)

// side is one of the two clusters that are compared.
type side struct {
	name  string
	fleet *fleet.Fleet
	zk    *zk.Conn
	// conns are the client connections by broker and session; a closed one is nil.
	conns map[connKey]*conn
}

type connKey struct{ broker, session int }

// pair is Apache's cluster and ours: the reference and the candidate.
type pair struct {
	reference, candidate *side
	controllers          int // how many connections have been a controller's
}

// properties are both sides' server.properties beyond those that fleet writes.
var properties = map[string]string{
	"inter.broker.protocol.version":             "3.9",
	"transaction.state.log.replication.factor":  "1",
	"transaction.state.log.min.isr":             "1",
	"transaction.state.log.num.partitions":      "3",
	"log.cleaner.dedupe.buffer.size":            "4194304",
	"group.min.session.timeout.ms":              "6000",
	"group.max.size":                            "4",
	"max.incremental.fetch.session.cache.slots": "200",
	"zookeeper.session.timeout.ms":              "18000", // ours is 3 s by default: docs/compatibility.md
	"zookeeper.connection.timeout.ms":           "18000",
	"auto.leader.rebalance.enable":              "false", // it would come at a time of its own
	"log.retention.ms":                          "-1",    // what is produced has times of its own
	"log.initial.task.delay.ms":                 "3600000",
	"log.retention.check.interval.ms":           "600000",
	"controlled.shutdown.enable":                "false",
}

// startPair starts both clusters, each with one coordinator. The brokers start one after the
// other, so that the first is the controller on both sides.
func startPair(t *testing.T, brokers int, more map[string]string) *pair {
	t.Helper()
	apache := foreign.Apache(t)
	start := func(name string, choose func(int) *fleet.Program) (*side, error) {
		settings := maps.Clone(properties)
		maps.Copy(settings, more)
		f, err := fleet.New(fleet.Options{
			Binary: program, Dir: path.Join(t.TempDir(), name), Coordinators: 1, Brokers: brokers, StartTimeout: patience,
			CoordinatorProgram: choose, BrokerProgram: choose, BrokerProperties: settings,
		})
		if err != nil {
			return nil, err
		}
		s := &side{name: name, fleet: f, conns: map[connKey]*conn{}}
		if brokers > 1 {
			if err := s.setRacks(); err != nil {
				return nil, err
			}
		}
		t.Cleanup(func() { s.end(t) })
		return s, s.start()
	}
	p := &pair{}
	var errs [2]error
	var wait sync.WaitGroup
	wait.Go(func() { p.reference, errs[0] = start("Apache", func(int) *fleet.Program { return apache }) })
	wait.Go(func() { p.candidate, errs[1] = start("understudy", nil) })
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []*side{p.reference, p.candidate} {
		err := s.await("the brokers in the metadata", func() bool {
			for id := 1; id <= brokers; id++ {
				response, err := s.ask(id, metadataOf("no-such-topic"))
				if err != nil || len(response.(*kmsg.MetadataResponse).Brokers) != brokers {
					return false
				}
			}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (s *side) start() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, node := range s.fleet.Coordinators {
		if err := node.Start(ctx); err != nil {
			return err
		}
	}
	connection, _, err := zk.Connect(strings.Split(s.fleet.ZooKeeperConnect(), ","), 30*time.Second, zk.WithLogger(quiet{}))
	if err != nil {
		return err
	}
	s.zk = connection
	for i, node := range s.fleet.Brokers {
		if err := node.Start(ctx); err != nil {
			return err
		}
		if err := s.await("broker's registration", func() bool { return s.exists(fmt.Sprintf("/brokers/ids/%d", i+1)) }); err != nil {
			return err
		}
	}
	return s.await("a controller", func() bool {
		data, _, err := s.zk.Get("/controller")
		var holder struct {
			Broker int `json:"brokerid"`
		}
		return err == nil && json.Unmarshal(data, &holder) == nil && holder.Broker == 1
	})
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}

func (s *side) exists(path string) bool {
	found, _, err := s.zk.Exists(path)
	return err == nil && found
}

// await asks until something has happened, of which the servers do not tell.
func (s *side) await(what string, happened func() bool) error {
	gaveUp := time.After(patience)
	next := time.NewTicker(5 * time.Millisecond)
	defer next.Stop()
	for !happened() {
		select {
		case <-next.C:
		case <-gaveUp:
			return fmt.Errorf("%s: gave up waiting for %s", s.name, what)
		}
	}
	return nil
}

func (s *side) end(t *testing.T) {
	for _, c := range s.conns {
		if c != nil {
			c.close()
		}
	}
	if s.zk != nil {
		s.zk.Close()
	}
	s.fleet.KillAll()
	if !t.Failed() {
		return
	}
	for _, node := range s.fleet.Brokers {
		if text, err := os.ReadFile(node.LogFile()); err == nil {
			t.Logf("the end of the log of %s's %s:\n%s", s.name, node.Name, text[max(0, len(text)-4000):])
			if keep := os.Getenv("UNDERSTUDY_CROSSCHECK_KEEP"); keep != "" {
				_ = os.WriteFile(path.Join(keep, fmt.Sprintf("%s-%d.log", s.name, node.ID)), text, 0o644)
			}
		}
	}
}
