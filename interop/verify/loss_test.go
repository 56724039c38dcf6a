package verify

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"understudy/internal/fleet"
)

// The outage in which Apache Kafka's ZooKeeper mode loses acknowledged records. All three
// replicas have them when they are acknowledged. Then two brokers are shut down, properly, and
// the in-sync set is the third alone; it loses its power, and with it the end of its log, which
// was never on the disk. When all are started again, the state in ZooKeeper says that it alone
// is in sync: Apache's controller has it lead, and the two who have the records cut them off.
// A broker that stopped uncleanly must not be preferred to one that has the records.
//
//	go test ./interop/verify -run TestLastReplicaComesBackWithLess -v
func TestLastReplicaComesBackWithLess(t *testing.T) {
	t.Parallel()
	t.Run("Apache loses", func(t *testing.T) {
		t.Parallel()
		if report := lastReplicaComesBackWithLess(t, apache, 1); !strings.Contains(report, "lost-write: ") {
			t.Fatal("no lost write was reported")
		}
	})
	t.Run("understudy does not", func(t *testing.T) {
		t.Parallel()
		lastReplicaComesBackWithLess(t, ours, 0)
	})
}

const (
	lossPartitions = 2
	last           = 1 // the broker that is the last in sync
)

// lastReplicaComesBackWithLess plays the outage and returns what verify says of it.
func lastReplicaComesBackWithLess(t *testing.T, kind kind, status int) string {
	f := servers(t, kind, 1, brokerProperties, nil)
	start(t, f.Coordinators...)
	start(t, f.Brokers...)
	history := filepath.Join(t.TempDir(), "history.jsonl")
	phase := func(phase string, duration time.Duration) *run {
		return launch(t, "kafka", strings.Join(f.Bootstrap(), ","), "--phase", phase, "--history", history, "--duration", duration.String(),
			"--settle", "30s", "--topics", "1", "--partitions", fmt.Sprint(lossPartitions), "--replication-factor", "3", "--min-insync-replicas", "1",
			"--consumers", "1", "--group-members", "0")
	}
	phase("write", 1500*time.Millisecond).expect(t, 0)
	admin := connect(t, f)
	topic := onlyTopic(t, admin)
	awaitState(t, admin, topic, func(p kadm.PartitionDetail) bool { return len(p.ISR) == 3 })

	for _, node := range f.Brokers {
		if node.ID != last {
			if err := node.Stop(limited(t)); err != nil {
				t.Fatal(err)
			}
		}
	}
	awaitState(t, admin, topic, func(p kadm.PartitionDetail) bool {
		return p.Leader == last && slices.Equal(p.ISR, []int32{last})
	})
	victim, _ := f.Broker(last)
	victim.Kill()
	loseTail(t, victim, topic)

	// The victim last: an Apache broker would exit while the node of its former session exists.
	start(t, slices.DeleteFunc(slices.Clone(f.Brokers), func(node *fleet.Node) bool { return node == victim })...)
	start(t, victim)
	awaitState(t, admin, topic, func(p kadm.PartitionDetail) bool { return p.Leader >= 0 && len(p.ISR) == 3 })
	phase("write", 500*time.Millisecond).expect(t, 0)
	return phase("check", time.Second).expect(t, status)
}

func connect(t *testing.T, f *fleet.Fleet) *kadm.Client {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(f.Bootstrap()...), kgo.MetadataMinAge(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return kadm.NewClient(client)
}

func onlyTopic(t *testing.T, admin *kadm.Client) string {
	t.Helper()
	topics, err := admin.ListTopics(limited(t))
	if err != nil || len(topics.Names()) != 1 {
		t.Fatalf("topics %v, %v", topics.Names(), err)
	}
	return topics.Names()[0]
}

// awaitState waits until all partitions are as they should be, by the metadata of any broker.
func awaitState(t *testing.T, admin *kadm.Client, topic string, fits func(kadm.PartitionDetail) bool) {
	t.Helper()
	ctx := limited(t)
	for {
		metadata, err := admin.Metadata(ctx, topic)
		partitions := metadata.Topics[topic].Partitions.Sorted()
		if err == nil && len(partitions) == lossPartitions && !slices.ContainsFunc(partitions, func(p kadm.PartitionDetail) bool { return !fits(p) }) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the partitions are %+v, %v", partitions, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// loseTail does to a stopped broker what a loss of power does to records that were written and
// not synced: the newer half of each newest segment is gone.
func loseTail(t *testing.T, node *fleet.Node, topic string) {
	t.Helper()
	for partition := range lossPartitions {
		segments, err := filepath.Glob(filepath.Join(node.Dir(), "data", fmt.Sprintf("%s-%d", topic, partition), "*.log"))
		if err != nil || len(segments) == 0 {
			t.Fatalf("segments of partition %d: %v, %v", partition, segments, err)
		}
		newest := slices.Max(segments)
		info, err := os.Stat(newest)
		if err == nil {
			err = os.Truncate(newest, info.Size()/2)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %s cut from %d bytes to %d", node.Name, filepath.Base(newest), info.Size(), info.Size()/2)
	}
}
