package kafka

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"understudy/interop/foreign"
)

func TestKcat(t *testing.T) {
	kcat, topic := foreign.Kcat(t), topicName(t)
	run := func(input []byte, args ...string) string {
		return output(t, exec.CommandContext(limited(t), kcat, append([]string{"-b", bootstrap(), "-q"}, args...)...), input)
	}
	if listing := run(nil, "-L"); !strings.Contains(listing, "3 brokers") {
		t.Fatalf("kcat -L does not show three brokers:\n%s", listing)
	}
	for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		t.Run(codec, func(t *testing.T) {
			topic, want := topic+"-"+codec, lines("kcat with "+codec, 5000)
			run(want, "-P", "-t", topic, "-z", codec, "-X", "acks=all")
			sameLines(t, []byte(run(nil, "-C", "-t", topic, "-e", "-o", "beginning")), want)
		})
	}
	t.Run("idempotent", func(t *testing.T) {
		topic, want := topic+"-idempotent", lines("kcat, idempotent", 5000)
		run(want, "-P", "-t", topic, "-X", "enable.idempotence=true")
		sameLines(t, []byte(run(nil, "-C", "-t", topic, "-e", "-o", "beginning")), want)
	})
	t.Run("group", func(t *testing.T) {
		topic, want := topic+"-group", lines("kcat, in a group", 1000)
		run(want, "-P", "-t", topic)
		got := run(nil, "-G", topic+"-readers", "-c", "1000", "-X", "auto.offset.reset=earliest", topic)
		sameLines(t, []byte(got), want)
	})
	t.Run("transactional id", func(t *testing.T) {
		command := exec.CommandContext(limited(t), kcat, "-b", bootstrap(), "-P", "-t", topic+"-kcat", "-X", "transactional.id=tx")
		command.Stdin = strings.NewReader("never\n")
		if text, err := command.CombinedOutput(); err == nil {
			t.Fatalf("a transactional producer was not refused:\n%s", text)
		}
	})
}

// apacheTools runs Apache Kafka's own command line of one generation.
func apacheTools(t *testing.T, set foreign.Set) {
	topic := topicName(t)
	tool := func(t *testing.T, input []byte, name string, args ...string) string {
		t.Helper()
		return output(t, foreign.KafkaTool(limited(t), t, set, name, append([]string{"--bootstrap-server", bootstrap()}, args...)...), input)
	}
	t.Run("topics", func(t *testing.T) {
		tool(t, nil, "kafka-topics", "--create", "--topic", topic, "--partitions", "12", "--replication-factor", "3")
		description := tool(t, nil, "kafka-topics", "--describe", "--topic", topic)
		if strings.Count(description, "Isr: ") != 12 || !strings.Contains(description, "ReplicationFactor: 3") {
			t.Errorf("unexpected description:\n%s", description)
		}
		tool(t, nil, "kafka-topics", "--alter", "--topic", topic, "--partitions", "15")
		if description := tool(t, nil, "kafka-topics", "--describe", "--topic", topic); strings.Count(description, "Isr: ") != 15 {
			t.Errorf("after adding three partitions:\n%s", description)
		}
		if listing := tool(t, nil, "kafka-topics", "--list"); !strings.Contains(listing, topic) {
			t.Errorf("the topic is not listed:\n%s", listing)
		}
	})
	t.Run("console", func(t *testing.T) {
		want := lines("from the console of "+set.Name, 2000)
		tool(t, want, "kafka-console-producer", "--topic", topic)
		got := tool(t, nil, "kafka-console-consumer", "--topic", topic, "--from-beginning", "--max-messages", "2000", "--group", topic+"-group")
		sameLines(t, []byte(got), want)
	})
	t.Run("groups", func(t *testing.T) {
		listing := tool(t, nil, "kafka-consumer-groups", "--list")
		if !strings.Contains(listing, topic+"-group") {
			t.Errorf("the group is not listed:\n%s", listing)
		}
		description := tool(t, nil, "kafka-consumer-groups", "--describe", "--group", topic+"-group")
		if !strings.Contains(description, topic) {
			t.Errorf("the group's offsets are not described:\n%s", description)
		}
		tool(t, nil, "kafka-consumer-groups", "--delete", "--group", topic+"-group")
	})
	t.Run("perf", func(t *testing.T) {
		properties := filepath.Join(t.TempDir(), "producer.properties")
		if err := os.WriteFile(properties, fmt.Appendf(nil, "bootstrap.servers=%s\nacks=all\n", bootstrap()), 0o644); err != nil {
			t.Fatal(err)
		}
		producer := foreign.KafkaTool(limited(t), t, set, "kafka-producer-perf-test", "--topic", topic, "--num-records", "50000", "--record-size", "1000",
			"--throughput", "-1", "--producer.config", properties)
		if report := output(t, producer, nil); !strings.Contains(report, "50000 records sent") {
			t.Errorf("unexpected report:\n%s", report)
		}
		report := tool(t, nil, "kafka-consumer-perf-test", "--topic", topic, "--messages", "50000", "--timeout", "60000")
		if !strings.Contains(report, "MB.sec") {
			t.Errorf("unexpected report:\n%s", report)
		}
	})
	t.Run("election", func(t *testing.T) {
		command := foreign.KafkaTool(limited(t), t, set, "kafka-leader-election", "--bootstrap-server", bootstrap(), "--election-type", "preferred", "--all-topic-partitions")
		if text, err := command.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, clip(string(text)))
		}
	})
	t.Run("offsets", func(t *testing.T) {
		offsets := tool(t, nil, "kafka-get-offsets", "--topic", topic)
		if strings.Count(offsets, topic+":") != 15 {
			t.Errorf("not an offset for each of 15 partitions:\n%s", offsets)
		}
	})
	t.Run("configuration", func(t *testing.T) {
		description := tool(t, nil, "kafka-configs", "--describe", "--all", "--entity-type", "topics", "--entity-name", topic)
		if !strings.Contains(description, "min.insync.replicas=1") {
			t.Errorf("unexpected configuration:\n%s", description)
		}
	})
	t.Run("versions", func(t *testing.T) {
		if versions := tool(t, nil, "kafka-broker-api-versions"); !strings.Contains(versions, "Produce(0)") {
			t.Errorf("unexpected versions:\n%s", versions)
		}
	})
	t.Run("deletion", func(t *testing.T) {
		tool(t, nil, "kafka-topics", "--delete", "--topic", topic)
		if listing := tool(t, nil, "kafka-topics", "--list"); strings.Contains(listing, topic+"\n") {
			t.Errorf("the topic is still listed:\n%s", listing)
		}
	})
}

func TestApacheKafka39Tools(t *testing.T) { apacheTools(t, foreign.Kafka39) }
func TestApacheKafka4Tools(t *testing.T)  { apacheTools(t, foreign.Kafka4) }

// script runs a client program in another language that does the whole round itself and ends
// with exit status 0 if it is content.
func script(t *testing.T, ctx context.Context, dir, interpreter, name string, args ...string) {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(ctx, interpreter, append([]string{path, bootstrap(), topicName(t)}, args...)...)
	if dir != "" {
		command.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(dir, "node_modules"))
	}
	t.Log(clip(output(t, command, nil)))
}

func TestKafkaPython(t *testing.T) {
	script(t, limited(t), "", foreign.Python(t, "kafka-python==3.0.12"), "kafka_python_client.py")
}

func TestConfluentKafka(t *testing.T) {
	script(t, limited(t), "", foreign.Python(t, "confluent-kafka==2.16.1"), "confluent_client.py")
}

func TestKafkaJS(t *testing.T) {
	script(t, limited(t), foreign.Node(t, "kafkajs@2.2.4"), "node", "kafkajs_client.js")
}
