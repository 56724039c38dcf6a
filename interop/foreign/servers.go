package foreign

import (
	"os"
	"path/filepath"
	"testing"

	"understudy/internal/fleet"
)

// The servers say more than the tools: their logs explain a failed test.
const serverLogging = `log4j.rootLogger=INFO,out
log4j.logger.kafka.server.KafkaConfig=WARN
log4j.logger.org.apache.zookeeper.ZooKeeper=WARN
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.target=System.err
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d{HH:mm:ss.SSS} %-5p %c{1} %m%n
`

// terminatedJVM is the exit status of a JVM that SIGTERM shut down.
const terminatedJVM = 143

// Apache returns Apache ZooKeeper 3.9 for coordinators and Apache Kafka 3.9 in ZooKeeper mode
// for brokers. The process of a node is the JVM itself, with a small heap; it is ready when
// it answers by its own protocol.
func Apache(t testing.TB) *fleet.Program {
	t.Helper()
	kafka, zookeeper := jars(t, Kafka39), jars(t, ZooKeeper39)
	logging := filepath.Join(t.TempDir(), "log4j.properties")
	if err := os.WriteFile(logging, []byte(serverLogging), 0o644); err != nil {
		t.Fatal(err)
	}
	common := []string{
		"java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xms64m",
		"-Dlog4j.configuration=file:" + logging,
		"-Dlogback.configurationFile=" + filepath.Join(zookeeper, "logback.xml"),
	}
	return &fleet.Program{
		Name: "Apache", Await: fleet.AwaitServing, Terminated: terminatedJVM,
		Command: func(role, config string) []string {
			command := append([]string(nil), common...)
			if role == "coordinator" {
				return append(command, "-Xmx128m", "-Dzookeeper.admin.enableServer=false",
					"-Dznode.container.checkIntervalMs=3600000", // at a time of its own; interop/crosscheck/zookeeper compares trees
					"-cp", filepath.Join(zookeeper, "libs", "*"), "org.apache.zookeeper.server.quorum.QuorumPeerMain", config)
			}
			return append(command, "-Xmx256m", "-cp", filepath.Join(kafka, "libs", "*"), "kafka.Kafka", config)
		},
	}
}
