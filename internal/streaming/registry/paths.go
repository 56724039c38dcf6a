package registry

import (
	"strconv"
	"strings"

	"understudy/internal/streaming/cluster"
)

// Fixed paths, relative to the chroot.
const (
	PathClusterID           = "/cluster/id"
	PathBrokers             = "/brokers"
	PathBrokerIDs           = "/brokers/ids"
	PathBrokerSequence      = "/brokers/seqid"
	PathTopics              = "/brokers/topics"
	PathController          = "/controller"
	PathControllerEpoch     = "/controller_epoch"
	PathConfig              = "/config"
	PathConfigTopics        = "/config/topics"
	PathConfigBrokers       = "/config/brokers"
	PathConfigChanges       = "/config/changes"
	PathConfigChangePrefix  = "/config/changes/config_change_"
	PathDeleteTopics        = "/admin/delete_topics"
	PathReassignPartitions  = "/admin/reassign_partitions"
	PathPreferredElection   = "/admin/preferred_replica_election"
	PathISRChanges          = "/isr_change_notification"
	PathLogDirEvents        = "/log_dir_event_notification"
	PathLogDirEventPrefix   = "/log_dir_event_notification/log_dir_event_"
	PathProducerIDBlock     = "/latest_producer_id_block"
	PathFeature             = "/feature"
	defaultEntity           = "<default>"
	configTypeTopics        = "topics"
	configTypeBrokers       = "brokers"
	configNotificationLimit = 15 * 60 * 1000 // ms that a change notification is kept
)

// persistentPaths is what every broker makes sure of at start-up, parents first
// (KafkaZkClient.makeSurePersistentPathExists over ZkData.PersistentZkPaths).
var persistentPaths = []string{
	"/consumers", PathBrokers, PathBrokerIDs, PathTopics, PathConfig, PathConfigChanges,
	"/admin", PathDeleteTopics, PathBrokerSequence, PathISRChanges, PathProducerIDBlock,
	PathLogDirEvents, PathConfigTopics, "/config/clients", "/config/users",
	PathConfigBrokers, "/config/ips",
}

// BrokerPath is the registration of a broker.
func BrokerPath(id cluster.BrokerID) string {
	return PathBrokerIDs + "/" + strconv.Itoa(int(id))
}

// TopicPath holds a topic's assignment.
func TopicPath(topic string) string { return PathTopics + "/" + topic }

// PartitionsPath is the parent of a topic's partitions.
func PartitionsPath(topic string) string { return PathTopics + "/" + topic + "/partitions" }

// PartitionPath is the parent of a partition's state.
func PartitionPath(tp cluster.TopicPartition) string {
	return PartitionsPath(tp.Topic) + "/" + strconv.Itoa(int(tp.Partition))
}

// StatePath is a partition's leadership; its data version is the partition epoch.
func StatePath(tp cluster.TopicPartition) string { return PartitionPath(tp) + "/state" }

// DeleteTopicPath marks a topic for deletion.
func DeleteTopicPath(topic string) string { return PathDeleteTopics + "/" + topic }

// TopicConfigPath holds a topic's overrides.
func TopicConfigPath(topic string) string { return PathConfigTopics + "/" + topic }

// ConfigPath holds the overrides of an entity, e.g. ("brokers", "1").
func ConfigPath(kind, entity string) string { return PathConfig + "/" + kind + "/" + entity }

// TopicOfPath returns the topic whose assignment node the path is, if it is one.
func TopicOfPath(path string) (string, bool) {
	topic, ok := strings.CutPrefix(path, PathTopics+"/")
	return topic, ok && topic != "" && !strings.Contains(topic, "/")
}

// BrokerOfPath returns the broker whose registration the path is, if it is one.
func BrokerOfPath(path string) (cluster.BrokerID, bool) {
	text, ok := strings.CutPrefix(path, PathBrokerIDs+"/")
	if !ok {
		return cluster.NoBroker, false
	}
	id, err := strconv.ParseInt(text, 10, 32)
	if err != nil || id < 0 {
		return cluster.NoBroker, false
	}
	return cluster.BrokerID(id), true
}
