package config

import (
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"understudy/internal/streaming/cluster"
)

// Broker is a checked server.properties as plain values. Everything in it is within
// bounds and consistent; a field that a key leaves unset holds Kafka's default.
type Broker struct {
	// Values is every key that was given (file and overrides), as written: the static
	// layer of DescribeBroker, DescribeTopic and LogConfig.
	Values map[string]string

	ID                  cluster.BrokerID // NoBroker: ask the cluster for one (broker.id.generation.enable)
	IDGeneration        bool
	ReservedBrokerMaxID int32
	Rack                string

	Listeners           []cluster.Endpoint // to bind; an empty host means every interface
	AdvertisedListeners []cluster.Endpoint // to register; an empty host means this machine's name
	InterBrokerListener string

	ZooKeeperConnect           string // hosts and optional chroot, as written
	ZooKeeperSessionTimeout    time.Duration
	ZooKeeperConnectionTimeout time.Duration

	LogDirs []string

	NumPartitions            int32
	DefaultReplicationFactor int16
	AutoCreateTopics         bool
	DeleteTopics             bool
	UncleanLeaderElection    bool

	ControlledShutdown             bool
	ControlledShutdownMaxRetries   int
	ControlledShutdownRetryBackoff time.Duration

	AutoLeaderRebalance           bool
	LeaderImbalancePerBroker      int // percent
	LeaderImbalanceCheckInterval  time.Duration
	ControllerSocketTimeout       time.Duration
	ReplicaLagTimeMax             time.Duration
	ReplicaFetchMaxBytes          int32
	ReplicaFetchResponseMaxBytes  int32
	ReplicaFetchMinBytes          int32
	ReplicaFetchWaitMax           time.Duration
	ReplicaSocketTimeout          time.Duration
	RackAwareReads                bool // replica.selector.class is Kafka's RackAwareReplicaSelector
	HighWatermarkCheckpoint       time.Duration
	NumReplicaFetchers            int
	MessageMaxBytes               int32
	FetchMaxBytes                 int32
	MaxFetchSessions              int
	SocketRequestMaxBytes         int32
	ConnectionsMaxIdle            time.Duration
	MaxConnections                int
	MaxConnectionsPerIP           int
	RequestTimeout                time.Duration
	NumRecoveryThreadsPerDataDir  int
	LogRetentionCheckInterval     time.Duration
	LogFlushCheckpointInterval    time.Duration
	ProducerIDExpiration          time.Duration
	ProducerIDExpirationCheck     time.Duration
	LogScrubBytesPerSecond        int64
	GroupMinSessionTimeout        time.Duration
	GroupMaxSessionTimeout        time.Duration
	GroupInitialRebalanceDelay    time.Duration
	GroupMaxSize                  int
	OffsetMetadataMaxBytes        int
	OffsetsTopicPartitions        int32
	OffsetsTopicReplicationFactor int16
	OffsetsTopicSegmentBytes      int32
	OffsetsTopicCompressionCodec  int
	OffsetsLoadBufferBytes        int
	OffsetsRetention              time.Duration
	OffsetsRetentionCheckInterval time.Duration
	OffsetsCommitTimeout          time.Duration
	OffsetsCommitRequiredAcks     int16
	InterBrokerProtocol           string // "3.9-IV0"
}

// LoadBroker reads a server.properties (none if path is ""), puts the overrides
// ("key=value") over it and checks everything. The error is a Problems with every fault
// found; warnings name keys that have no effect and keys that nobody knows (which are
// problems when strict).
func LoadBroker(path string, overrides []string, strict bool) (*Broker, []Warning, error) {
	values, err := load(path, overrides)
	if err != nil {
		return nil, nil, err
	}
	return ParseBroker(values, strict)
}

// ParseBroker checks the keys of a server.properties.
func ParseBroker(values map[string]string, strict bool) (*Broker, []Warning, error) {
	s := newSettings(brokerKeys, values, strict, "Kafka", otherBrokerKey)
	b := &Broker{Values: s.values}
	s.identity(b)
	s.listeners(b)
	s.zookeeper(b)
	s.topics(b)
	s.replication(b)
	s.network(b)
	s.logs(b)
	s.groups(b)
	s.consistency(b)
	return b, s.warnings, s.problems.err()
}

// otherBrokerKey takes keys that exist for every listener.
func otherBrokerKey(s *settings, name, value string) bool {
	rest, found := strings.CutPrefix(name, "listener.name.")
	if !found {
		return false
	}
	_, suffix, _ := strings.Cut(rest, ".")
	if strings.Contains(suffix, "ssl.") || strings.Contains(suffix, "sasl.") || strings.HasSuffix(suffix, "principal.builder.class") ||
		strings.HasSuffix(suffix, "connections.max.reauth.ms") {
		s.refuseSecurity(name, "[hidden]", "encrypts or authenticates the connections of a listener")
		return true
	}
	s.warnings = append(s.warnings, Warning{name, value, "known to Kafka, no effect here: it tunes a single listener"})
	return true
}

func (s *settings) identity(b *Broker) {
	if roles := s.str("process.roles"); roles != "" {
		s.problems.add("process.roles", roles, "this is a KRaft configuration, and understudy runs in ZooKeeper mode",
			"remove process.roles and set zookeeper.connect")
	}
	brokerID, brokerGiven := s.values["broker.id"]
	nodeID, nodeGiven := s.values["node.id"]
	b.ID = cluster.BrokerID(s.int32("broker.id"))
	if nodeGiven && !brokerGiven {
		b.ID = cluster.BrokerID(s.int32("node.id"))
	}
	if brokerGiven && nodeGiven {
		s.require(brokerID == nodeID, "node.id", "differs from broker.id="+brokerID, "remove node.id")
	}
	b.IDGeneration = s.bool("broker.id.generation.enable")
	b.ReservedBrokerMaxID = s.int32("reserved.broker.max.id")
	b.Rack = s.str("broker.rack")
	switch {
	case b.ID < 0 && !b.IDGeneration:
		s.problems.add("broker.id", s.str("broker.id"), "is not set and broker.id.generation.enable is false", "set broker.id to this broker's number, 0 or more")
	case b.ID < -1:
		s.problems.add("broker.id", s.str("broker.id"), "must be 0 or more, or -1 to ask the cluster for one", "set broker.id to this broker's number")
	case b.IDGeneration && int32(b.ID) > b.ReservedBrokerMaxID:
		s.problems.add("broker.id", s.str("broker.id"), "is above reserved.broker.max.id, where generated numbers begin",
			"give at most "+s.str("reserved.broker.max.id")+", or raise reserved.broker.max.id, or set broker.id.generation.enable=false")
	}
	b.InterBrokerProtocol = s.str("inter.broker.protocol.version")
	if !strings.HasPrefix(b.InterBrokerProtocol, "3.9") {
		s.warnings = append(s.warnings, Warning{"inter.broker.protocol.version", b.InterBrokerProtocol, "only 3.9 is spoken between brokers: it is taken as 3.9"})
	}
	b.InterBrokerProtocol = "3.9-IV0"
}

func (s *settings) zookeeper(b *Broker) {
	b.ZooKeeperConnect = s.str("zookeeper.connect")
	if reason := connectString(b.ZooKeeperConnect); reason != "" {
		s.problems.add("zookeeper.connect", b.ZooKeeperConnect, reason, "write host:port, or host:port,host:port/chroot")
	}
	b.ZooKeeperSessionTimeout = s.ms("zookeeper.session.timeout.ms")
	s.require(b.ZooKeeperSessionTimeout > 0, "zookeeper.session.timeout.ms", "must be positive", "give milliseconds, for example 3000")
	b.ZooKeeperConnectionTimeout = s.ms("zookeeper.connection.timeout.ms")
	if _, given := s.text("zookeeper.connection.timeout.ms"); !given {
		b.ZooKeeperConnectionTimeout = b.ZooKeeperSessionTimeout
	}
}

// connectString says what is wrong with hosts and chroot, "" if nothing.
func connectString(text string) string {
	if text == "" {
		return "is not set: a broker needs its ensemble"
	}
	hosts, chroot, hasChroot := strings.Cut(text, "/")
	if hasChroot && (strings.HasSuffix(chroot, "/") || strings.Contains(chroot, "//")) {
		return "has an invalid chroot /" + chroot
	}
	if strings.TrimSpace(hosts) == "" {
		return "names no host"
	}
	for _, host := range list(hosts) {
		name, port, reason := splitHostPort(host, 2181)
		if reason != "" {
			return strconv.Quote(host) + " " + reason
		}
		if name == "" || port == 0 {
			return strconv.Quote(host) + " is no address"
		}
	}
	return ""
}

// splitHostPort reads host, host:port or [v6]:port.
func splitHostPort(text string, defaultPort int) (host string, port int, reason string) {
	host, port = text, defaultPort
	if separator := strings.LastIndexByte(text, ':'); separator >= 0 && !strings.HasSuffix(text, "]") && (strings.HasPrefix(text, "[") || strings.Count(text, ":") == 1) {
		parsed, err := strconv.ParseUint(text[separator+1:], 10, 16)
		if err != nil {
			return "", 0, "has no port from 0 to 65535"
		}
		host, port = text[:separator], int(parsed)
	}
	if strings.HasPrefix(host, "[") != strings.HasSuffix(host, "]") || strings.ContainsAny(host, " /") {
		return "", 0, "has no valid host"
	}
	return strings.Trim(host, "[]"), port, ""
}

func (s *settings) topics(b *Broker) {
	b.NumPartitions = s.int32("num.partitions")
	b.DefaultReplicationFactor = s.int16("default.replication.factor")
	s.require(b.DefaultReplicationFactor > 0 && s.whole("default.replication.factor") <= 32767, "default.replication.factor", "must be from 1 to 32767", "give the number of replicas")
	b.AutoCreateTopics = s.bool("auto.create.topics.enable")
	b.DeleteTopics = s.bool("delete.topic.enable")
	b.UncleanLeaderElection = s.bool("unclean.leader.election.enable")
	b.ControlledShutdown = s.bool("controlled.shutdown.enable")
	b.ControlledShutdownMaxRetries = s.int("controlled.shutdown.max.retries")
	b.ControlledShutdownRetryBackoff = s.ms("controlled.shutdown.retry.backoff.ms")
	b.AutoLeaderRebalance = s.bool("auto.leader.rebalance.enable")
	b.LeaderImbalancePerBroker = s.int("leader.imbalance.per.broker.percentage")
	b.LeaderImbalanceCheckInterval = duration(s.whole("leader.imbalance.check.interval.seconds"), time.Second)
}

func (s *settings) replication(b *Broker) {
	b.ControllerSocketTimeout = s.ms("controller.socket.timeout.ms")
	b.ReplicaLagTimeMax = s.ms("replica.lag.time.max.ms")
	b.ReplicaFetchMaxBytes = s.int32("replica.fetch.max.bytes")
	b.ReplicaFetchResponseMaxBytes = s.int32("replica.fetch.response.max.bytes")
	b.ReplicaFetchMinBytes = s.int32("replica.fetch.min.bytes")
	b.ReplicaFetchWaitMax = s.ms("replica.fetch.wait.max.ms")
	b.ReplicaSocketTimeout = s.ms("replica.socket.timeout.ms")
	s.replicaSelector(b)
	b.HighWatermarkCheckpoint = s.ms("replica.high.watermark.checkpoint.interval.ms")
	b.NumReplicaFetchers = s.int("num.replica.fetchers")
	for _, name := range []string{"controller.socket.timeout.ms", "replica.lag.time.max.ms", "replica.fetch.wait.max.ms", "replica.socket.timeout.ms",
		"replica.high.watermark.checkpoint.interval.ms", "num.replica.fetchers", "replica.fetch.min.bytes"} {
		s.require(s.whole(name) > 0, name, "must be positive", "give 1 or more")
	}
}

// replicaSelector knows Kafka's own two classes. Another one is a plugin in Java, which is no
// reason not to serve.
func (s *settings) replicaSelector(b *Broker) {
	const replica = "org.apache.kafka.common.replica."
	switch class := s.str("replica.selector.class"); class {
	case replica + "RackAwareReplicaSelector":
		b.RackAwareReads = true
	case "", replica + "LeaderSelector":
	default:
		s.warnings = append(s.warnings, Warning{"replica.selector.class", class,
			"names a Java class that is not here: consumers read from the leader; " + replica + "RackAwareReplicaSelector is there"})
	}
}

func (s *settings) network(b *Broker) {
	b.MessageMaxBytes = s.int32("message.max.bytes")
	b.FetchMaxBytes = s.int32("fetch.max.bytes")
	b.MaxFetchSessions = s.int("max.incremental.fetch.session.cache.slots")
	b.SocketRequestMaxBytes = s.int32("socket.request.max.bytes")
	b.ConnectionsMaxIdle = s.ms("connections.max.idle.ms")
	b.MaxConnections = s.int("max.connections")
	b.MaxConnectionsPerIP = s.int("max.connections.per.ip")
	b.RequestTimeout = s.ms("request.timeout.ms")
	s.require(b.RequestTimeout > 0, "request.timeout.ms", "must be positive", "give milliseconds, for example 30000")
}

func (s *settings) logs(b *Broker) {
	key := "log.dirs"
	if _, given := s.text(key); !given { // an empty one is a mistake, as it is to Kafka: the data would go to log.dir's default
		key = "log.dir"
	}
	b.LogDirs = s.list(key)
	seen := map[string]bool{}
	for _, dir := range b.LogDirs {
		clean := filepath.Clean(dir)
		if dir == "" || seen[clean] {
			s.problems.add(key, s.str(key), "names "+strconv.Quote(dir)+" twice or an empty directory", "name each directory once")
		}
		seen[clean] = true
	}
	s.require(len(b.LogDirs) > 0, key, "names no directory", "give the directory for the data")
	b.NumRecoveryThreadsPerDataDir = s.int("num.recovery.threads.per.data.dir")
	b.LogRetentionCheckInterval = s.ms("log.retention.check.interval.ms")
	b.LogFlushCheckpointInterval = s.ms("log.flush.offset.checkpoint.interval.ms")
	b.ProducerIDExpiration = s.ms("producer.id.expiration.ms")
	b.ProducerIDExpirationCheck = s.ms("producer.id.expiration.check.interval.ms")
	b.LogScrubBytesPerSecond = s.whole("understudy.log.scrub.bytes.per.second")
	for _, name := range []string{"log.retention.ms", "log.retention.minutes", "log.retention.hours"} {
		if _, given := s.text(name); given {
			s.require(s.whole(name) != 0, name, "must not be 0", "give how long records are kept, or -1 for ever")
		}
	}
	for _, name := range []string{"log.roll.ms"} {
		if _, given := s.text(name); given {
			s.require(s.whole(name) > 0, name, "must be positive", "give the age at which a segment is closed")
		}
	}
}

func (s *settings) groups(b *Broker) {
	b.GroupMinSessionTimeout = s.ms("group.min.session.timeout.ms")
	b.GroupMaxSessionTimeout = s.ms("group.max.session.timeout.ms")
	b.GroupInitialRebalanceDelay = s.ms("group.initial.rebalance.delay.ms")
	s.require(b.GroupInitialRebalanceDelay >= 0, "group.initial.rebalance.delay.ms", "must not be negative", "give 0 for no delay")
	b.GroupMaxSize = s.int("group.max.size")
	b.OffsetMetadataMaxBytes = s.int("offset.metadata.max.bytes")
	b.OffsetsTopicPartitions = s.int32("offsets.topic.num.partitions")
	b.OffsetsTopicReplicationFactor = s.int16("offsets.topic.replication.factor")
	b.OffsetsTopicSegmentBytes = s.int32("offsets.topic.segment.bytes")
	b.OffsetsTopicCompressionCodec = s.int("offsets.topic.compression.codec")
	s.require(b.OffsetsTopicCompressionCodec >= 0 && b.OffsetsTopicCompressionCodec <= 4, "offsets.topic.compression.codec", "is no codec",
		"give 0 (none), 1 (gzip), 2 (snappy), 3 (lz4) or 4 (zstd)")
	b.OffsetsLoadBufferBytes = s.int("offsets.load.buffer.size")
	b.OffsetsRetention = duration(s.whole("offsets.retention.minutes"), time.Minute)
	b.OffsetsRetentionCheckInterval = s.ms("offsets.retention.check.interval.ms")
	b.OffsetsCommitTimeout = s.ms("offsets.commit.timeout.ms")
	b.OffsetsCommitRequiredAcks = s.int16("offsets.commit.required.acks")
	s.require(b.OffsetsCommitRequiredAcks >= -1 && b.OffsetsCommitRequiredAcks <= b.OffsetsTopicReplicationFactor, "offsets.commit.required.acks",
		"must be from -1 to offsets.topic.replication.factor", "leave it at -1")
}

// consistency checks what keys say about each other.
func (s *settings) consistency(b *Broker) {
	s.require(b.ReplicaFetchWaitMax <= b.ReplicaLagTimeMax, "replica.fetch.wait.max.ms", "is above replica.lag.time.max.ms, so that idle followers would leave the ISR",
		"give at most "+s.str("replica.lag.time.max.ms"))
	s.require(b.ReplicaFetchWaitMax <= b.ReplicaSocketTimeout, "replica.fetch.wait.max.ms", "is above replica.socket.timeout.ms, so that a fetch would time out while it waits",
		"give at most "+s.str("replica.socket.timeout.ms"))
	s.require(b.GroupMinSessionTimeout <= b.GroupMaxSessionTimeout, "group.min.session.timeout.ms", "is above group.max.session.timeout.ms",
		"give at most "+s.str("group.max.session.timeout.ms"))
	if queued := s.whole("queued.max.request.bytes"); queued > 0 {
		s.require(queued >= int64(b.SocketRequestMaxBytes), "queued.max.request.bytes", "is below socket.request.max.bytes, so that one request might never fit",
			"give -1, or at least "+s.str("socket.request.max.bytes"))
	}
	if len(s.problems) == 0 {
		s.problems = append(s.problems, topicProblems(Effective(BrokerLayers{Static: s.values}, nil), nil)...)
	}
}
