package foreign

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Set is a set of jars with everything they need, by Maven coordinates (group:artifact:version).
type Set struct {
	Name string
	Jars []string
}

// The sets of jars that the tests use.
var (
	// Kafka39 is the last line with ZooKeeper mode: broker, tools and clients.
	Kafka39 = Set{"kafka39", []string{
		"org.apache.kafka:kafka_2.13:3.9.2", "org.apache.kafka:kafka-clients:3.9.2", "org.apache.kafka:kafka-tools:3.9.2",
		"org.slf4j:slf4j-reload4j:1.7.36", "ch.qos.reload4j:reload4j:1.2.25",
	}}
	// Kafka4 brings the newest clients and tools.
	Kafka4 = Set{"kafka4", []string{
		"org.apache.kafka:kafka_2.13:4.2.0", "org.apache.kafka:kafka-clients:4.2.0", "org.apache.kafka:kafka-tools:4.2.0",
		"org.apache.logging.log4j:log4j-slf4j-impl:2.25.1", "org.apache.logging.log4j:log4j-core:2.25.1",
	}}
	// ZooKeeper39 is the server and zkCli.
	ZooKeeper39 = Set{"zookeeper39", []string{
		"org.apache.zookeeper:zookeeper:3.9.5", "org.xerial.snappy:snappy-java:1.1.10.7", "io.dropwizard.metrics:metrics-core:4.1.12.1",
		"commons-cli:commons-cli:1.5.0", "jline:jline:2.14.6", "ch.qos.logback:logback-classic:1.3.15",
	}}
	// Curator is the recipes library on ZooKeeper's own client.
	Curator = Set{"curator", []string{
		"org.apache.curator:curator-recipes:5.9.0", "org.slf4j:slf4j-nop:1.7.36",
	}}
)

const logging = `log4j.rootLogger=WARN,out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.target=System.err
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d{HH:mm:ss.SSS} %-5p %c{1} %m%n
`

const logging2 = `appender.out.type=Console
appender.out.name=out
appender.out.target=SYSTEM_ERR
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{HH:mm:ss.SSS} %-5p %c{1} %m%n
rootLogger.level=WARN
rootLogger.appenderRef.out.ref=out
`

const logback = `<configuration><appender name="out" class="ch.qos.logback.core.ConsoleAppender"><target>System.err</target>
<encoder><pattern>%d{HH:mm:ss.SSS} %-5level %logger{0} %msg%n</pattern></encoder></appender>
<root level="WARN"><appender-ref ref="out"/></root></configuration>
`

// jars fetches a set and returns its folder.
func jars(t testing.TB, set Set) string {
	t.Helper()
	need(t, "java and mvn", "java", "mvn")
	dir, err := Jars(set)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Jars is jars for programs that are no tests: the folder holds libs and logging configurations.
func Jars(set Set) (string, error) {
	return installed(set.Name, strings.Join(set.Jars, " "), func(dir string) error {
		var pom strings.Builder
		fmt.Fprintf(&pom, "<project><modelVersion>4.0.0</modelVersion><groupId>interop</groupId><artifactId>%s</artifactId><version>1</version><dependencies>\n", set.Name)
		for _, jar := range set.Jars {
			part := strings.Split(jar, ":")
			fmt.Fprintf(&pom, "<dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version></dependency>\n", part[0], part[1], part[2])
		}
		pom.WriteString("</dependencies></project>\n")
		for name, text := range map[string]string{
			"pom.xml": pom.String(), "log4j.properties": logging, "log4j2.properties": logging2, "logback.xml": logback,
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				return err
			}
		}
		return run(dir, "mvn", "-q", "-B", "-f", "pom.xml", "dependency:copy-dependencies", "-DoutputDirectory=libs")
	})
}

// ClassPath fetches a set and returns its class path.
func ClassPath(t testing.TB, set Set) string {
	t.Helper()
	return filepath.Join(jars(t, set), "libs", "*")
}

// Java returns a command that runs a main class of a set. The process is the JVM itself, so
// that signals reach it.
func Java(ctx context.Context, t testing.TB, set Set, class string, args ...string) *exec.Cmd {
	t.Helper()
	dir := jars(t, set)
	options := []string{
		"-Xmx256m", "-XX:TieredStopAtLevel=1",
		"-Dlog4j.configuration=file:" + filepath.Join(dir, "log4j.properties"),
		"-Dlog4j.configurationFile=" + filepath.Join(dir, "log4j2.properties"),
		"-Dlogback.configurationFile=" + filepath.Join(dir, "logback.xml"),
		"-Dzookeeper.admin.enableServer=false", "-Dzookeeper.4lw.commands.whitelist=*",
		"-cp", filepath.Join(dir, "libs", "*") + string(os.PathListSeparator) + os.Getenv("CLASSPATH"), class,
	}
	return exec.CommandContext(ctx, "java", append(options, args...)...)
}

// The main classes of Kafka's command-line tools. Where Kafka 4 moved one, its new place is the second.
var tools = map[string][2]string{
	"kafka-topics":               {"org.apache.kafka.tools.TopicCommand"},
	"kafka-configs":              {"kafka.admin.ConfigCommand"},
	"kafka-broker-api-versions":  {"kafka.admin.BrokerApiVersionsCommand", "org.apache.kafka.tools.BrokerApiVersionsCommand"},
	"kafka-console-producer":     {"kafka.tools.ConsoleProducer", "org.apache.kafka.tools.ConsoleProducer"},
	"kafka-console-consumer":     {"org.apache.kafka.tools.consumer.ConsoleConsumer"},
	"kafka-consumer-groups":      {"org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"},
	"kafka-leader-election":      {"org.apache.kafka.tools.LeaderElectionCommand"},
	"kafka-dump-log":             {"kafka.tools.DumpLogSegments", "org.apache.kafka.tools.DumpLogSegments"},
	"kafka-producer-perf-test":   {"org.apache.kafka.tools.ProducerPerformance"},
	"kafka-consumer-perf-test":   {"org.apache.kafka.tools.ConsumerPerformance"},
	"kafka-verifiable-producer":  {"org.apache.kafka.tools.VerifiableProducer"},
	"kafka-verifiable-consumer":  {"org.apache.kafka.tools.VerifiableConsumer"},
	"kafka-get-offsets":          {"org.apache.kafka.tools.GetOffsetShell"},
	"kafka-cluster":              {"org.apache.kafka.tools.ClusterTool"},
	"kafka-reassign-partitions":  {"org.apache.kafka.tools.reassign.ReassignPartitionsCommand"},
	"kafka-e2e-latency":          {"org.apache.kafka.tools.EndToEndLatency"},
	"kafka-replica-verification": {"org.apache.kafka.tools.ReplicaVerificationTool"},
}

// KafkaTool returns a command that runs one of Kafka's tools by its usual name.
func KafkaTool(ctx context.Context, t testing.TB, set Set, name string, args ...string) *exec.Cmd {
	t.Helper()
	classes, ok := tools[name]
	if !ok {
		t.Fatalf("no main class is known for %s", name)
	}
	class := classes[0]
	if set.Name == Kafka4.Name && classes[1] != "" {
		class = classes[1]
	}
	return Java(ctx, t, set, class, args...)
}

// ZKCli returns a command that runs ZooKeeper's command line against a server.
func ZKCli(ctx context.Context, t testing.TB, server string, args ...string) *exec.Cmd {
	t.Helper()
	return Java(ctx, t, ZooKeeper39, "org.apache.zookeeper.ZooKeeperMain", append([]string{"-server", server}, args...)...)
}

// CompileJava compiles sources against a set into a folder of the test and returns it.
func CompileJava(t testing.TB, set Set, sources ...string) string {
	t.Helper()
	need(t, "javac", "javac")
	dir := t.TempDir()
	args := append([]string{"-nowarn", "-d", dir, "-cp", ClassPath(t, set)}, sources...)
	if err := run(dir, "javac", args...); err != nil {
		t.Fatal(err)
	}
	return dir
}
