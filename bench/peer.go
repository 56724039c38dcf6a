package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"understudy/internal/fleet"
	"understudy/interop/foreign"
)

// The JVM flags are those of the projects' own start scripts (kafka-run-class.sh, zkServer.sh),
// except that the heap may start small.
var (
	kafkaFlags = []string{
		"-Xms256m", "-Xmx1g", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
		"-XX:+ExplicitGCInvokesConcurrent", "-XX:MaxInlineLevel=15", "-Djava.awt.headless=true",
	}
	zooKeeperFlags = []string{"-Xmx1000m", "-Dzookeeper.admin.enableServer=false"}
)

// terminatedJVM is the exit status of a JVM that SIGTERM shut down.
const terminatedJVM = 143

// apache fetches Apache's servers and returns the program that runs them as an operator would.
func apache() (*fleet.Program, error) {
	kafka, err := foreign.Jars(foreign.Kafka39)
	if err != nil {
		return nil, err
	}
	zooKeeper, err := foreign.Jars(foreign.ZooKeeper39)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("Apache Kafka %s, ZooKeeper %s", jarVersion(foreign.Kafka39, "kafka_2.13"), jarVersion(foreign.ZooKeeper39, "zookeeper"))
	return &fleet.Program{
		Name: name, Await: fleet.AwaitServing, Terminated: terminatedJVM,
		Command: func(role, config string) []string {
			command := []string{"java"}
			if role == "coordinator" {
				command = append(command, zooKeeperFlags...)
				return append(command, "-Dlogback.configurationFile="+filepath.Join(zooKeeper, "logback.xml"),
					"-cp", filepath.Join(zooKeeper, "libs", "*"), "org.apache.zookeeper.server.quorum.QuorumPeerMain", config)
			}
			command = append(command, kafkaFlags...)
			return append(command, "-Dlog4j.configuration=file:"+filepath.Join(kafka, "log4j.properties"),
				"-cp", filepath.Join(kafka, "libs", "*"), "kafka.Kafka", config)
		},
	}, nil
}

func jarVersion(set foreign.Set, artifact string) string {
	for _, jar := range set.Jars {
		if parts := strings.Split(jar, ":"); parts[1] == artifact {
			return parts[2]
		}
	}
	return "?"
}
