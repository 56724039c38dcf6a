package kafka

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/fleet"
	"understudy/internal/trial"
)

// closesOn sends bytes to a server and demands that it closes the connection without an answer.
func closesOn(t *testing.T, addr string, bytes []byte) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(bytes); err != nil {
		return // closed while we were writing
	}
	answer, err := io.ReadAll(conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the connection stays open after %d bytes that are no request", len(bytes))
	}
	if len(answer) > 0 {
		t.Errorf("answered %d bytes to what is no request", len(answer))
	}
}

func TestGarbageOnEitherPort(t *testing.T) {
	noise := make([]byte, 4096)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	noise[0] = 0x7f // a length of about 2 GiB, so that the server need not wait for the rest
	for _, port := range []struct{ name, addr string }{{"kafka", seeds()[0]}, {"zookeeper", single.Field("zookeeper")}} {
		t.Run(port.name, func(t *testing.T) {
			closesOn(t, port.addr, noise)
			closesOn(t, port.addr, binary.BigEndian.AppendUint32(nil, 0x7fffffff))
			closesOn(t, port.addr, binary.BigEndian.AppendUint32(nil, 0xfffffff0))
			closesOn(t, port.addr, []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))
		})
	}
	if answer, err := fleet.FourLetterWord(single.Field("zookeeper"), "ruok"); err != nil || answer != "imok" {
		t.Errorf("ruok is answered by %q, %v", answer, err)
	}
	produceLines(t, limited(t), seeds()[0], topicName(t), lines("still serving", 10))
}

// leaderOf returns the leader of partition 0 and a broker that is not it. It waits until the
// broker asked knows the topic: CreateTopics only waits for the controller.
func leaderOf(t *testing.T, ctx context.Context, client *kgo.Client, topic string) (leader, other int32) {
	t.Helper()
	request := kmsg.NewPtrMetadataRequest()
	asked := kmsg.NewMetadataRequestTopic()
	asked.Topic = &topic
	request.Topics = append(request.Topics, asked)
	for {
		response, err := request.RequestWith(ctx, client)
		if err != nil {
			t.Fatal(err)
		}
		if len(response.Topics) == 1 && len(response.Topics[0].Partitions) == 1 && response.Topics[0].Partitions[0].Leader >= 0 {
			leader = response.Topics[0].Partitions[0].Leader
			for _, broker := range response.Brokers {
				if broker.NodeID != leader {
					return leader, broker.NodeID
				}
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s has no leader, or there is one broker only: %+v", topic, response.Topics)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func produceRaw(t *testing.T, ctx context.Context, client *kgo.Client, broker int32, topic string, records []byte) kmsg.ProduceResponse {
	t.Helper()
	request := kmsg.NewPtrProduceRequest()
	request.Acks, request.TimeoutMillis = -1, 10000
	asked := kmsg.NewProduceRequestTopic()
	asked.Topic = topic
	partition := kmsg.NewProduceRequestTopicPartition()
	partition.Records = records
	asked.Partitions = append(asked.Partitions, partition)
	request.Topics = append(request.Topics, asked)
	response, err := client.Broker(int(broker)).RetriableRequest(ctx, request)
	if err != nil {
		t.Fatal(err)
	}
	return *response.(*kmsg.ProduceResponse)
}

func TestWrongProduceRequests(t *testing.T) {
	ctx, topic := limited(t), topicName(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(seeds()...), kgo.MaxVersions(kafka39()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	createTopic(t, ctx, client, topic, 1, 3)
	leader, follower := leaderOf(t, ctx, client, topic)
	good := trial.OneRecord([]byte("one"))
	flipped := bytes.Clone(good)
	flipped[len(flipped)-2] ^= 0x40
	for _, test := range []struct {
		name    string
		broker  int32
		topic   string
		records []byte
		want    *kerr.Error
	}{
		{"good", leader, topic, good, nil},
		{"wrong CRC", leader, topic, flipped, kerr.CorruptMessage},
		{"cut short", leader, topic, good[:len(good)-3], kerr.InvalidRecord},
		{"follower", follower, topic, good, kerr.NotLeaderForPartition},
		{"unknown topic", leader, topic + "-unknown", good, kerr.UnknownTopicOrPartition},
	} {
		t.Run(test.name, func(t *testing.T) {
			response := produceRaw(t, ctx, client, test.broker, test.topic, test.records)
			partition := response.Topics[0].Partitions[0]
			if err := kerr.ErrorForCode(partition.ErrorCode); !errors.Is(err, errorOrNil(test.want)) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if test.want == kerr.NotLeaderForPartition && (partition.CurrentLeader.LeaderID != leader || len(response.Brokers) == 0) {
				t.Errorf("the new leader is not named: %+v, %v", partition.CurrentLeader, response.Brokers)
			}
		})
	}
}

func errorOrNil(err *kerr.Error) error {
	if err == nil {
		return nil
	}
	return err
}

// refusesToStart runs the program and demands exit status 1 and one line that contains what is given.
func refusesToStart(t *testing.T, wants []string, args ...string) {
	t.Helper()
	command := exec.CommandContext(limited(t), program, args...)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	err := command.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Fatalf("%v: %v, want exit status 1\n%s%s", args, err, stdout.String(), stderr.String())
	}
	last := stderr.String()
	last = strings.TrimRight(last, "\n")
	last = last[strings.LastIndexByte(last, '\n')+1:]
	for _, want := range wants {
		if !strings.Contains(last, want) {
			t.Errorf("%v: the last line does not say %q:\n%s", args, want, last)
		}
	}
}

func TestRefusedStarts(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	zookeeper, kafka := single.Field("zookeeper"), seeds()[0]
	broker := "broker.id=77\nzookeeper.connect=" + zookeeper + "\nlisteners=PLAINTEXT://127.0.0.1:0\n"

	t.Run("kafka port in use", func(t *testing.T) {
		refusesToStart(t, []string{kafka}, "start", "--kafka", kafka, "--zookeeper", "127.0.0.1:0", "--data", filepath.Join(dir, "a"))
	})
	t.Run("zookeeper port in use", func(t *testing.T) {
		refusesToStart(t, []string{zookeeper}, "start", "--kafka", "127.0.0.1:0", "--zookeeper", zookeeper, "--data", filepath.Join(dir, "b"))
	})
	t.Run("data in use", func(t *testing.T) {
		refusesToStart(t, []string{single.Field("data")}, "start", "--kafka", "127.0.0.1:0", "--zookeeper", "127.0.0.1:0", "--data", single.Field("data"))
	})
	t.Run("another cluster's directory", func(t *testing.T) {
		file("foreign/meta.properties", "version=0\nbroker.id=77\ncluster.id=AAAAAAAAAAAAAAAAAAAAAA\n")
		refusesToStart(t, []string{"AAAAAAAAAAAAAAAAAAAAAA"}, "broker", "--config", file("c.properties", broker+"log.dirs="+filepath.Join(dir, "foreign")+"\n"))
	})
	t.Run("bad value", func(t *testing.T) {
		refusesToStart(t, []string{"log.segment.bytes", "lots"}, "broker", "--config", file("d.properties", broker+"log.segment.bytes=lots\n"))
	})
	t.Run("security setting", func(t *testing.T) {
		refusesToStart(t, []string{"authorizer.class.name"}, "broker", "--config", file("e.properties", broker+"authorizer.class.name=kafka.security.authorizer.AclAuthorizer\n"))
	})
	t.Run("unknown key, strict", func(t *testing.T) {
		refusesToStart(t, []string{"num.partitons", "num.partitions"}, "broker", "--strict", "--config", file("f.properties", broker+"num.partitons=3\n"))
	})
	t.Run("advertised 0.0.0.0", func(t *testing.T) {
		refusesToStart(t, []string{"advertised.listeners"}, "broker", "--config", file("g.properties", broker+"advertised.listeners=PLAINTEXT://0.0.0.0:9092\n"))
	})
	t.Run("Apache's coordinator data", func(t *testing.T) {
		file("apache/version-2/snapshot.0", "")
		refusesToStart(t, []string{"version-2"}, "coordinator", "--config", file("zoo.cfg", "clientPort=0\ndataDir="+filepath.Join(dir, "apache")+"\n"))
	})
}

// TestCorruptedTail damages the end of a segment after kill -9; everything before it must survive.
func TestCorruptedTail(t *testing.T) {
	dir, topic, ctx := filepath.Join(t.TempDir(), "data"), topicName(t), limited(t)
	spec := fleet.ProcessSpec{Name: "understudy start", Command: []string{program, "start", "--kafka", "127.0.0.1:0", "--zookeeper", "127.0.0.1:0", "--data", dir}}
	process, err := fleet.Start(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	want := lines("before the damage", 1000)
	produceLines(t, ctx, process.Field("kafka"), topic, want)
	process.Kill()
	segments, err := filepath.Glob(filepath.Join(dir, "*", topic+"-0", "*.log"))
	if err != nil || len(segments) != 1 {
		nested, _ := filepath.Glob(filepath.Join(dir, "*", "*", topic+"-0", "*.log"))
		if segments = nested; len(segments) != 1 {
			t.Fatalf("the segment of %s-0 is not found below %s: %v, %v", topic, dir, segments, err)
		}
	}
	segment, err := os.OpenFile(segments[0], os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := segment.Write(bytes.Repeat([]byte("torn"), 100)); err != nil {
		t.Fatal(err)
	}
	segment.Close()
	process, err = fleet.Start(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	sameLines(t, consumeLines(t, ctx, process.Field("kafka"), topic, 1000), want)
	produceLines(t, ctx, process.Field("kafka"), topic, lines("after the damage", 10))
	if err := process.Stop(ctx); err != nil {
		t.Fatal(err)
	}
}
