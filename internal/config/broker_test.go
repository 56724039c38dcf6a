package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"understudy/internal/streaming/cluster"
)

// minimal is the least that a broker needs.
func minimal(more ...string) map[string]string {
	values := map[string]string{"zookeeper.connect": "127.0.0.1:2181", "broker.id": "1"}
	for _, line := range more {
		name, value, _ := strings.Cut(line, "=")
		values[name] = value
	}
	return values
}

func TestDefaultsAreKafkas(t *testing.T) {
	b, warnings, err := ParseBroker(minimal(), true)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	for _, check := range []struct {
		name      string
		got, want any
	}{
		{"listeners", b.Listeners, []cluster.Endpoint{{Listener: "PLAINTEXT", Protocol: "PLAINTEXT", Port: 9092}}},
		{"log dirs", b.LogDirs, []string{"/tmp/kafka-logs"}},
		{"inter-broker listener", b.InterBrokerListener, "PLAINTEXT"},
		{"lag", b.ReplicaLagTimeMax, 30 * time.Second},
		{"session (ours, not Kafka's 18 s)", b.ZooKeeperSessionTimeout, 3 * time.Second},
		{"connection timeout follows the session", b.ZooKeeperConnectionTimeout, 3 * time.Second},
		{"offsets partitions", b.OffsetsTopicPartitions, int32(50)},
		{"offsets retention", b.OffsetsRetention, 7 * 24 * time.Hour},
		{"rebalance delay", b.GroupInitialRebalanceDelay, 3 * time.Second},
		{"controlled shutdown", b.ControlledShutdown, true},
		{"largest request", b.SocketRequestMaxBytes, int32(104857600)},
	} {
		if !reflect.DeepEqual(check.got, check.want) {
			t.Errorf("%s: got %v, want %v", check.name, check.got, check.want)
		}
	}
}

// TestBadBrokerValues has one row for each kind of fault and the whole message it gives.
func TestBadBrokerValues(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"num.partitions=0", "num.partitions=0: must be at least 1; give 1 or more"},
		{"num.partitions=1k", "num.partitions=1k: not a whole number; give digits only, without a unit"},
		{"num.partitions=99999999999", "num.partitions=99999999999: outside the range of 32 bits; give a whole number of at most 2147483647"},
		{"delete.topic.enable=yes", "delete.topic.enable=yes: neither true nor false; give true or false"},
		{"log.cleaner.min.cleanable.ratio=2", "log.cleaner.min.cleanable.ratio=2: must be at most 1; give a value from 0 to 1"},
		{"log.cleaner.min.cleanable.ratio=half", "log.cleaner.min.cleanable.ratio=half: not a number; give a number such as 0.5"},
		{"log.cleanup.policy=delete,squash", `log.cleanup.policy=delete,squash: "squash" is not known; give compact or delete`},
		{"compression.type=brotli", `compression.type=brotli: "brotli" is not known; give uncompressed, zstd, lz4, snappy, gzip or producer`},
		{"compression.gzip.level=0", "compression.gzip.level=0: no gzip level; give 1 to 9, or -1 for the usual level"},
		{"inter.broker.protocol.version=new", "inter.broker.protocol.version=new: no version of Kafka; give a Kafka version such as 3.9"},
		{"log.retention.ms=0", "log.retention.ms=0: must not be 0; give how long records are kept, or -1 for ever"},
		{"log.dirs=/a,/a/", `log.dirs=/a,/a/: names "/a/" twice or an empty directory; name each directory once`},
		{"log.dirs=", "log.dirs: names no directory; give the directory for the data"},
		{"zookeeper.connect=", "zookeeper.connect: is not set: a broker needs its ensemble; write host:port, or host:port,host:port/chroot"},
		{"zookeeper.connect=zk:port", `zookeeper.connect=zk:port: "zk:port" has no port from 0 to 65535; write host:port, or host:port,host:port/chroot`},
		{"zookeeper.connect=zk:1/a//b", "zookeeper.connect=zk:1/a//b: has an invalid chroot /a//b; write host:port, or host:port,host:port/chroot"},
		{"broker.id=-2", "broker.id=-2: must be 0 or more, or -1 to ask the cluster for one; set broker.id to this broker's number"},
		{"broker.id=2000", "broker.id=2000: is above reserved.broker.max.id, where generated numbers begin; give at most 1000, or raise reserved.broker.max.id, or set broker.id.generation.enable=false"},
		{"node.id=7", "node.id=7: differs from broker.id=1; remove node.id"},
		{"process.roles=broker", "process.roles=broker: this is a KRaft configuration, and understudy runs in ZooKeeper mode; remove process.roles and set zookeeper.connect"},
		{"listeners=localhost:9092", "listeners=localhost:9092: not an address with a listener name; write NAME://host:port, for example PLAINTEXT://127.0.0.1:9092"},
		{"listeners=PLAINTEXT://localhost", "listeners=PLAINTEXT://localhost: has no port; write NAME://host:port, for example PLAINTEXT://127.0.0.1:9092"},
		{"listeners=PLAINTEXT://h:99999", "listeners=PLAINTEXT://h:99999: has no port from 0 to 65535; write NAME://host:port, for example PLAINTEXT://127.0.0.1:9092"},
		{"listeners=INSIDE://h:9092", "listeners=INSIDE://h:9092: listener name INSIDE has no security protocol; add INSIDE:PLAINTEXT to listener.security.protocol.map"},
		{"listeners=PLAINTEXT://h:1,PLAINTEXT://h:2", "listeners=PLAINTEXT://h:2: listener name PLAINTEXT stands twice; give each listener a name of its own"},
		{"advertised.listeners=PLAINTEXT://0.0.0.0:9092", "advertised.listeners=PLAINTEXT://0.0.0.0:9092: nobody can connect to 0.0.0.0; set advertised.listeners to an address that clients and brokers reach"},
		{"listeners=PLAINTEXT://0.0.0.0:9092", "listeners=PLAINTEXT://0.0.0.0:9092: nobody can connect to 0.0.0.0; set advertised.listeners to an address that clients and brokers reach"},
		{"listeners=PLAINTEXT://[::]:9092", "listeners=PLAINTEXT://[::]:9092: nobody can connect to ::; set advertised.listeners to an address that clients and brokers reach"},
		{"inter.broker.listener.name=INSIDE", "inter.broker.listener.name=INSIDE: no advertised listener has this name; add it to advertised.listeners, or name one of them in inter.broker.listener.name"},
		{"replica.fetch.wait.max.ms=40000", "replica.fetch.wait.max.ms=40000: is above replica.lag.time.max.ms, so that idle followers would leave the ISR; give at most 30000"},
		{"offsets.commit.required.acks=4", "offsets.commit.required.acks=4: must be from -1 to offsets.topic.replication.factor; leave it at -1"},
		{"log.cleaner.min.compaction.lag.ms=10", ""},
		{"queued.max.request.bytes=10", "queued.max.request.bytes=10: is below socket.request.max.bytes, so that one request might never fit; give -1, or at least 104857600"},

		{"authorizer.class.name=kafka.security.authorizer.AclAuthorizer", "authorizer.class.name=kafka.security.authorizer.AclAuthorizer: a security setting that is not enforced yet (it names the class that decides who may do what); remove it to run without this protection"},
		{"listeners=SSL://h:9093", "listeners=SSL://h:9093: a security setting that is not enforced yet (the listener is SSL); use PLAINTEXT to run without this protection"},
		{"ssl.keystore.password=secret", "ssl.keystore.password=[hidden]: a security setting that is not enforced yet (it encrypts and authenticates connections); remove it to run without this protection"},
		{"sasl.enabled.mechanisms=PLAIN", "sasl.enabled.mechanisms=PLAIN: a security setting that is not enforced yet (it authenticates clients); remove it to run without this protection"},
		{"zookeeper.set.acl=true", "zookeeper.set.acl=true: a security setting that is not enforced yet (it protects the znodes by ACLs); remove it to run without this protection"},
		{"security.inter.broker.protocol=SASL_SSL", "security.inter.broker.protocol=SASL_SSL: a security setting that is not enforced yet (it encrypts or authenticates the traffic between brokers); remove it to run without this protection"},
		{"listener.name.plaintext.ssl.keystore.location=/k", "listener.name.plaintext.ssl.keystore.location=[hidden]: a security setting that is not enforced yet (it encrypts or authenticates the connections of a listener); remove it to run without this protection"},
		{"zookeeper.set.acl=false", ""},
		{"authorizer.class.name=", ""},
	} {
		_, _, err := ParseBroker(minimal(c.line), false)
		if got := textOf(err); !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%s\n got  %s\n want %s", c.line, got, c.want)
		}
	}
}

// textOf is the first problem, without the words around it.
func textOf(err error) string {
	var problems Problems
	if errors.As(err, &problems) {
		return problems[0].String()
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func TestAllProblemsAtOnceInOneLine(t *testing.T) {
	_, _, err := ParseBroker(minimal("num.partitions=x", "ssl.key.password=s", "replica.lag.time.max.ms=-3", "log.dirs=/a,/a"), false)
	var problems Problems
	if !errors.As(err, &problems) || len(problems) < 4 {
		t.Fatalf("got %v", err)
	}
	if strings.ContainsAny(err.Error(), "\n") || strings.Contains(err.Error(), "=s:") {
		t.Errorf("the message must be one line without secrets: %s", err)
	}
}

func TestWarnings(t *testing.T) {
	values := minimal("num.io.threads=8", "num.partition=3", "confluent.support.metrics.enable=true", "controller.quorum.voters=1@h:1",
		"replica.selector.class=com.example.Nearest")
	_, warnings, err := ParseBroker(values, false)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"num.partition":                    "no such key; did you mean num.partitions?",
		"confluent.support.metrics.enable": "no such key",
		"num.io.threads":                   "known to Kafka, no effect here: it sizes a pool of threads; goroutines need none",
		"replica.selector.class":           "names a Java class that is not here: consumers read from the leader; org.apache.kafka.common.replica.RackAwareReplicaSelector is there",
		"controller.quorum.voters":         "known to Kafka, no effect here: it sets up the KRaft quorum; this is ZooKeeper mode",
	}
	for _, w := range warnings {
		if want[w.Key] != w.Message {
			t.Errorf("%s: %q", w.Key, w.Message)
		}
		delete(want, w.Key)
	}
	if len(want) > 0 {
		t.Errorf("no warning for %v", want)
	}
	_, _, err = ParseBroker(values, true)
	if got := textOf(err); got != "confluent.support.metrics.enable=true: no such key; correct or remove it, or start without --strict" {
		t.Error(got)
	}
}

func TestLoadBroker(t *testing.T) {
	path := filepath.Join(t.TempDir(), "server.properties")
	text := "# a comment\nbroker.id = 3 \nzookeeper.connect:zk1:2181,\\\n   zk2:2181/kafka\nlog.dirs= /a , /b \nbroker.rack=${not.expanded}\n" +
		"listeners=PLAINTEXT://:9092,INSIDE://[::1]:9093\nlistener.security.protocol.map=PLAINTEXT:PLAINTEXT,INSIDE:PLAINTEXT\ninter.broker.listener.name=inside\nlog.retention.hours=1\nlog.retention.hours=2\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b, _, err := LoadBroker(path, []string{"broker.id=4", "num.partitions = 7"}, true)
	if err != nil {
		t.Fatal(err)
	}
	want := []cluster.Endpoint{{Listener: "PLAINTEXT", Protocol: "PLAINTEXT", Port: 9092}, {Listener: "INSIDE", Protocol: "PLAINTEXT", Host: "::1", Port: 9093}}
	if b.ID != 4 || b.NumPartitions != 7 || b.ZooKeeperConnect != "zk1:2181,zk2:2181/kafka" || !reflect.DeepEqual(b.LogDirs, []string{"/a", "/b"}) ||
		b.Rack != "${not.expanded}" || !reflect.DeepEqual(b.Listeners, want) || b.InterBrokerListener != "INSIDE" || b.Values["log.retention.hours"] != "2" {
		t.Errorf("got %+v", b)
	}
	for _, c := range []struct{ path, override, want string }{
		{path + "x", "", "no such file; check the path after --config"},
		{filepath.Dir(path), "", "a directory; name the file in it"},
		{path, "novalue", "--override=novalue: not of the form key=value; write --override key=value"},
	} {
		var overrides []string
		if c.override != "" {
			overrides = []string{c.override}
		}
		if _, _, err := LoadBroker(c.path, overrides, false); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

func FuzzParseProperties(f *testing.F) {
	f.Add([]byte("a=b\n# c\nd : e\\\n f\nbroker.id=\\u0031\n"))
	f.Add([]byte("listeners=PLAINTEXT://[::1]:9092\nzookeeper.connect=h:1/x\nserver.1=h:1:2;3\ndataDir=/nowhere"))
	f.Fuzz(func(t *testing.T, data []byte) {
		values, err := ParseProperties(data)
		if err != nil {
			return
		}
		b, _, err := ParseBroker(values, false)
		if err == nil && (len(b.Listeners) == 0 || len(b.LogDirs) == 0 || b.ZooKeeperConnect == "") {
			t.Fatalf("accepted without listeners, log directories or ensemble: %q", data)
		}
		values["myid"] = "1"
		if c, _, err := ParseCoordinator(values, true); err == nil && c.MinSessionTimeout > c.MaxSessionTimeout {
			t.Fatalf("accepted crossed session limits: %q", data)
		}
		_ = ValidateTopic(values)
	})
}
