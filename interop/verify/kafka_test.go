package verify

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"understudy/internal/fleet"
	"understudy/interop/foreign"
)

// brokerProperties suit three Apache brokers on one machine; ours take them, too.
var brokerProperties = map[string]string{
	"inter.broker.protocol.version":            "3.9",
	"zookeeper.session.timeout.ms":             "4000", // Apache's brokers notice a death by the session alone
	"transaction.state.log.replication.factor": "3",
	"transaction.state.log.min.isr":            "1",
	"log.cleaner.dedupe.buffer.size":           "4194304", // Kafka's default is more than our heap
	"auto.leader.rebalance.enable":             "false",
}

// A cluster one of whose brokers is killed and comes back.
func TestKafkaUnderKills(t *testing.T) {
	t.Parallel()
	for _, kind := range []kind{apache, ours} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			f := servers(t, kind, 1, brokerProperties, nil)
			start(t, f.Coordinators...)
			start(t, f.Brokers...)
			r := launch(t, "kafka", strings.Join(f.Bootstrap(), ","), "--duration", "10m", "--min-insync-replicas", "2", "--out", t.TempDir())
			if rounds(t) == 1 {
				r.kill(t, f.Brokers[0])
			} else {
				r.strike(t, f.Brokers...)
			}
			r.finish(t)
			r.expect(t, 0)
		})
	}
}

// Apache Kafka 4 has no ZooKeeper: three nodes of KRaft, one of which is killed.
func TestKafka4UnderKills(t *testing.T) {
	t.Parallel()
	nodes, bootstrap := kraft(t)
	r := launch(t, "kafka", bootstrap, "--duration", "10m", "--min-insync-replicas", "2", "--out", t.TempDir())
	r.work(t)
	nodes[0].Kill()
	r.finish(t)
	r.expect(t, 0)
}

// kraft starts three nodes of Apache Kafka 4, each broker and controller.
func kraft(t *testing.T) (nodes []*fleet.Process, bootstrap string) {
	t.Helper()
	const cluster = "verifyverifyverifyverA"
	ports := freePorts(t, 6)
	var voters, brokers []string
	for i := range 3 {
		voters = append(voters, fmt.Sprintf("%d@127.0.0.1:%d", i+1, ports[i]))
		brokers = append(brokers, fmt.Sprintf("127.0.0.1:%d", ports[3+i]))
	}
	nodes = make([]*fleet.Process, 3)
	errs := make(chan error, 3)
	for i := range nodes {
		dir := t.TempDir()
		file := filepath.Join(dir, "server.properties")
		text := fmt.Sprintf(`process.roles=broker,controller
node.id=%d
controller.quorum.voters=%s
listeners=PLAINTEXT://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d
advertised.listeners=PLAINTEXT://127.0.0.1:%d
controller.listener.names=CONTROLLER
log.dirs=%s/data
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
offsets.topic.num.partitions=6
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=4194304
`, i+1, strings.Join(voters, ","), ports[3+i], ports[i], ports[3+i], dir)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		format := foreign.Java(limited(t), t, foreign.Kafka4, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", file)
		server := foreign.Java(t.Context(), t, foreign.Kafka4, "kafka.Kafka", file)
		go func() {
			if output, err := format.CombinedOutput(); err != nil {
				errs <- fmt.Errorf("format node %d: %w\n%s", i+1, err, output)
				return
			}
			var err error
			nodes[i], err = fleet.Start(limited(t), fleet.ProcessSpec{
				Name: fmt.Sprintf("node %d", i+1), Command: server.Args, Dir: dir, LogFile: filepath.Join(dir, "log"), Await: serving(brokers[i]),
			})
			errs <- err
		}()
	}
	t.Cleanup(func() {
		for _, node := range nodes {
			if node != nil {
				node.Kill()
			}
		}
	})
	for range nodes {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	return nodes, strings.Join(brokers, ",")
}
