package kafka

import (
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// What administrators ask for.

func (g *generator) metadata() kmsg.Request {
	request := kmsg.NewPtrMetadataRequest()
	request.AllowAutoTopicCreation = false
	request.IncludeClusterAuthorizedOperations, request.IncludeTopicAuthorizedOperations = g.chance(4), g.chance(4)
	switch {
	case g.chance(6):
		return request // all topics, by null
	case g.chance(8):
		request.Topics = []kmsg.MetadataRequestTopic{} // all in version 0, none after
		return request
	}
	request.Topics = few(g, 3, func() kmsg.MetadataRequestTopic {
		topic := kmsg.NewMetadataRequestTopic()
		name := g.topic()
		if g.version < 4 && name != "no-such-topic" && g.topicNamed(name) == nil && name != "__consumer_offsets" {
			name = g.existing().name // these versions create what is missing
		}
		if g.version < 4 && name == "no-such-topic" {
			name = g.existing().name
		}
		topic.Topic = &name
		if g.version >= 10 && g.chance(3) {
			topic.TopicID = g.topicID()
			if g.version >= 12 && topic.TopicID != [16]byte{} && !g.chance(4) {
				topic.Topic = nil
			}
		}
		return topic
	})
	return request
}

var topicKeys = []string{
	"cleanup.policy", "compression.type", "retention.ms", "retention.bytes", "segment.bytes", "max.message.bytes", "min.insync.replicas",
	"message.timestamp.type", "unclean.leader.election.enable", "flush.messages", "preallocate", "no.such.key", "",
	"leader.replication.throttled.replicas", "delete.retention.ms", "min.cleanable.dirty.ratio", "message.timestamp.after.max.ms", "segment.index.bytes",
	"compression.gzip.level", "compression.lz4.level", "compression.zstd.level", "remote.storage.enable", "local.retention.ms", "index.interval.bytes",
	"segment.ms", "segment.jitter.ms", "max.compaction.lag.ms", "min.compaction.lag.ms", "file.delete.delay.ms", "message.downconversion.enable",
}

var topicValues = []string{
	"delete", "compact", "compact,delete", "producer", "gzip", "zstd", "lz4", "1", "0", "-1", "-2", "1000", "1048576", "9223372036854775807",
	"99999999999999999999", "true", "false", "yes", "", "CreateTime", "LogAppendTime", "nonsense", "0.5", "1.5", "*", "3.0-IV1", "uncompressed", "TRUE", "1.0",
}

// sensibleKeys are set to what does not change how records are stored behind the generator's back.
func (g *generator) topicConfig() (name string, value *string) {
	name, text := pick(g, topicKeys...), pick(g, topicValues...)
	if g.chance(12) {
		return name, nil
	}
	return name, &text
}

func (g *generator) createTopics() kmsg.Request {
	request := kmsg.NewPtrCreateTopicsRequest()
	request.TimeoutMillis = g.wait()
	request.ValidateOnly = g.chance(3) && g.version >= 1 // which version 0 does not know
	request.Topics = few(g, 3, func() kmsg.CreateTopicsRequestTopic {
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic = g.newName("crosscheck")
		topic.NumPartitions, topic.ReplicationFactor = 1+g.rng.Int32N(4), 1
		switch g.rng.IntN(12) {
		case 0:
			topic.Topic = g.topic()
		case 1:
			topic.Topic = strings.ReplaceAll(g.existing().name, "-", "_") + pick(g, "", ".")
		case 2:
			topic.NumPartitions = pick[int32](g, 0, -1, -2, math.MinInt32)
		case 3:
			topic.ReplicationFactor = pick[int16](g, 0, -1, -2, 9, math.MaxInt16)
		case 4, 5, 6:
			topic.NumPartitions, topic.ReplicationFactor = -1, -1
			if g.chance(6) {
				topic.NumPartitions = 1
			}
			topic.ReplicaAssignment = g.assignments()
		}
		if factor := topic.ReplicationFactor; g.cluster() && !request.ValidateOnly && topic.ReplicaAssignment == nil && (factor == 1 || factor == -1) {
			topic.NumPartitions, topic.ReplicationFactor = -1, -1 // each side would place the replicas by a chance of its own
			topic.ReplicaAssignment = g.assignments()
		}
		if g.chance(3) {
			topic.Configs = few(g, 2, func() kmsg.CreateTopicsRequestTopicConfig {
				entry := kmsg.NewCreateTopicsRequestTopicConfig()
				entry.Name, entry.Value = g.topicConfig()
				return entry
			})
		}
		return topic
	})
	return request
}

func (g *generator) assignments() []kmsg.CreateTopicsRequestTopicReplicaAssignment {
	next, width := int32(0), 1
	if g.cluster() {
		width = 1 + g.rng.IntN(len(g.live))
	}
	list := few[kmsg.CreateTopicsRequestTopicReplicaAssignment]
	if g.cluster() {
		list = several // none would leave the placement to each side
	}
	return list(g, 3, func() kmsg.CreateTopicsRequestTopicReplicaAssignment {
		assignment := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		assignment.Partition, assignment.Replicas = next, g.replicas(width)
		next++
		switch g.rng.IntN(10) {
		case 0:
			assignment.Partition = pick[int32](g, 7, 0)
		case 1:
			assignment.Replicas = []int32{1, 1}
		}
		return assignment
	})
}

func (g *generator) deleteTopics() kmsg.Request {
	request := kmsg.NewPtrDeleteTopicsRequest()
	request.TimeoutMillis = g.wait()
	allRun := len(g.live) == g.brokers // else a deletion waits for those that do not
	name := func() string {
		if g.chance(4) && len(g.topics) > 6 && allRun {
			if topic := g.topics[4+g.rng.IntN(len(g.topics)-4)]; !topic.internal && !topic.kept {
				return topic.name
			}
		}
		return pick(g, "no-such-topic", "not a name!", "", ".", "__transaction_state")
	}
	request.TopicNames = few(g, 2, name)
	request.Topics = few(g, 2, func() kmsg.DeleteTopicsRequestTopic {
		topic := kmsg.NewDeleteTopicsRequestTopic()
		if g.bool() {
			text := name()
			topic.Topic = &text
		}
		if topic.Topic == nil || g.chance(6) {
			topic.TopicID = pick(g, g.deletedID, [16]byte{}, [16]byte{9, 9})
			if known := g.topicNamed(name()); known != nil && !known.kept && allRun {
				topic.TopicID = known.id
			}
		}
		return topic
	})
	return request
}

func (g *generator) createPartitions() kmsg.Request {
	request := kmsg.NewPtrCreatePartitionsRequest()
	request.TimeoutMillis = g.wait()
	request.ValidateOnly = g.chance(3)
	request.Topics = few(g, 2, func() kmsg.CreatePartitionsRequestTopic {
		topic := kmsg.NewCreatePartitionsRequestTopic()
		topic.Topic = g.topic()
		if topic.Topic == "__consumer_offsets" || topic.Topic == "" || topic.Topic == "." || topic.Topic == ".." { // an empty name fails the whole request in Apache's broker
			topic.Topic = "no-such-topic"
		}
		have := int32(1)
		if known := g.topicNamed(topic.Topic); known != nil {
			have = known.partitions
		}
		topic.Count = have + pick[int32](g, 0, 1, 1, 2, -1, -have, -have-1)
		if g.chance(3) {
			topic.Assignment = []kmsg.CreatePartitionsRequestTopicAssignment{}
			for range max(topic.Count-have, 0) + pick[int32](g, 0, 0, 0, 1) {
				entry := kmsg.CreatePartitionsRequestTopicAssignment{
					Replicas: pick(g, []int32{1}, []int32{1}, []int32{1}, []int32{9}, []int32{}, []int32{1, 1}, []int32{1, 2}, []int32{-1}),
				}
				if known := g.topicNamed(topic.Topic); g.cluster() && known != nil && !g.chance(4) {
					entry.Replicas = g.replicas(known.width)
				}
				topic.Assignment = append(topic.Assignment, entry)
			}
		}
		return topic
	})
	return request
}

// resource is a topic, a broker or something else that has a configuration.
func (g *generator) resource() (kmsg.ConfigResourceType, string) {
	switch g.rng.IntN(10) {
	case 0, 1:
		return kmsg.ConfigResourceTypeBroker, pick(g, "1", "1", "", "2", "x", "-1", " 1")
	case 3:
		return pick[kmsg.ConfigResourceType](g, 0, 3, 99, -1), g.topic()
	}
	name := g.topic()
	if name == "." || name == ".." { // which Apache's broker hands to ZooKeeper
		name = "no-such-topic"
	}
	return kmsg.ConfigResourceTypeTopic, name
}

func (g *generator) describeConfigs() kmsg.Request {
	request := kmsg.NewPtrDescribeConfigsRequest()
	request.IncludeSynonyms, request.IncludeDocumentation = g.bool(), g.chance(4)
	request.Resources = few(g, 2, func() kmsg.DescribeConfigsRequestResource {
		resource := kmsg.NewDescribeConfigsRequestResource()
		resource.ResourceType, resource.ResourceName = g.resource()
		if g.bool() {
			resource.ConfigNames = few(g, 3, func() string {
				return pick(g, append([]string{"log.retention.ms", "broker.id", "num.io.threads"}, topicKeys...)...)
			})
		}
		return resource
	})
	return request
}

// brokerConfig is an override of a broker's configuration that changes nothing that is compared.
func (g *generator) brokerConfig() (name string, value *string) {
	name = pick(g, "log.cleaner.backoff.ms", "broker.id", "log.retention.hours",
		"log.retention.ms")
	if g.chance(12) {
		return name, nil
	}
	text := pick(g, "1", "2", "nonsense", "", "-5", "604800000", "1000000")
	return name, &text
}

// configOf is an override. What is written reaches the logs some time later, on either side,
// so that what decides how records are taken is only validated.
func (g *generator) configOf(kind kmsg.ConfigResourceType, validateOnly bool) (string, *string) {
	if kind == kmsg.ConfigResourceTypeBroker {
		name, value := g.brokerConfig()
		if g.cluster() && !validateOnly {
			name = "broker.id" // which is refused; of others the other brokers would hear some time later
		}
		return name, value
	}
	name, value := g.topicConfig()
	switch name {
	case "cleanup.policy", "compression.type", "max.message.bytes", "message.timestamp.type", "min.insync.replicas", "message.timestamp.after.max.ms":
		if !validateOnly {
			name = "retention.ms"
		}
	}
	return name, value
}

func (g *generator) alterConfigs() kmsg.Request {
	request := kmsg.NewPtrAlterConfigsRequest()
	request.ValidateOnly = g.bool()
	request.Resources = some(g, func() kmsg.AlterConfigsRequestResource {
		resource := kmsg.NewAlterConfigsRequestResource()
		resource.ResourceType, resource.ResourceName = g.resource()
		if resource.ResourceName == "__consumer_offsets" {
			resource.ResourceName = "no-such-topic"
		}
		resource.Configs = few(g, 2, func() kmsg.AlterConfigsRequestResourceConfig {
			entry := kmsg.NewAlterConfigsRequestResourceConfig()
			entry.Name, entry.Value = g.configOf(resource.ResourceType, request.ValidateOnly)
			return entry
		})
		return resource
	})
	return request
}

func (g *generator) incrementalAlterConfigs() kmsg.Request {
	request := kmsg.NewPtrIncrementalAlterConfigsRequest()
	request.ValidateOnly = g.bool()
	request.Resources = few(g, 2, func() kmsg.IncrementalAlterConfigsRequestResource {
		resource := kmsg.NewIncrementalAlterConfigsRequestResource()
		resource.ResourceType, resource.ResourceName = g.resource()
		if resource.ResourceName == "__consumer_offsets" {
			resource.ResourceName = "no-such-topic"
		}
		resource.Configs = few(g, 2, func() kmsg.IncrementalAlterConfigsRequestResourceConfig {
			entry := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
			entry.Name, entry.Value = g.configOf(resource.ResourceType, request.ValidateOnly)
			entry.Op = pick[kmsg.IncrementalAlterConfigOp](g, 0, 0, 0, 1, 1, 2, 3)
			if entry.Name == "no.such.key" || entry.Name == "" {
				entry.Op = pick[kmsg.IncrementalAlterConfigOp](g, 0, 1) // Apache's broker fails over the others
			}
			return entry
		})
		return resource
	})
	return request
}

func (g *generator) describeLogDirs() kmsg.Request {
	request := kmsg.NewPtrDescribeLogDirsRequest()
	request.Topics = few(g, 3, func() kmsg.DescribeLogDirsRequestTopic {
		topic := kmsg.NewDescribeLogDirsRequestTopic()
		topic.Topic = g.topic()
		topic.Partitions = g.partitions(topic.Topic)
		return topic
	})
	if g.chance(6) {
		request.Topics = nil
	}
	return request
}

func (g *generator) alterReplicaLogDirs() kmsg.Request {
	request := kmsg.NewPtrAlterReplicaLogDirsRequest()
	request.Dirs = few(g, 2, func() kmsg.AlterReplicaLogDirsRequestDir {
		dir := kmsg.NewAlterReplicaLogDirsRequestDir()
		dir.Dir = pick(g, "/no/such/dir", "relative", "")
		dir.Topics = few(g, 2, func() kmsg.AlterReplicaLogDirsRequestDirTopic {
			topic := kmsg.NewAlterReplicaLogDirsRequestDirTopic()
			topic.Topic = g.topic()
			topic.Partitions = g.partitions(topic.Topic)
			return topic
		})
		return dir
	})
	return request
}

func (g *generator) electLeaders() kmsg.Request {
	request := kmsg.NewPtrElectLeadersRequest()
	request.ElectionType = pick[int8](g, 0, 0, 1, 2, -1)
	request.TimeoutMillis = g.wait()
	if g.chance(8) {
		return request // all partitions, by null
	}
	request.Topics = few(g, 3, func() kmsg.ElectLeadersRequestTopic {
		topic := kmsg.NewElectLeadersRequestTopic()
		topic.Topic = g.topic()
		topic.Partitions = g.partitions(topic.Topic)
		return topic
	})
	return request
}

func (g *generator) alterReassignments() kmsg.Request {
	request := kmsg.NewPtrAlterPartitionAssignmentsRequest()
	request.TimeoutMillis = g.wait()
	request.Topics = few(g, 2, func() kmsg.AlterPartitionAssignmentsRequestTopic {
		topic := kmsg.NewAlterPartitionAssignmentsRequestTopic()
		topic.Topic = g.topic()
		if g.cluster() && g.bool() {
			topic.Topic = pick(g, slices.Sorted(maps.Keys(g.moving))...)
		}
		topic.Partitions = few(g, 2, func() kmsg.AlterPartitionAssignmentsRequestTopicPartition {
			partition := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
			partition.Partition = g.partition(topic.Topic)
			partition.Replicas = pick(g, nil, []int32{}, []int32{1}, []int32{9}, []int32{-1}, []int32{1, 1}, []int32{1, 9})
			if g.cluster() && !g.moving[topic.Topic] {
				partition.Replicas = pick(g, []int32{}, []int32{9}, []int32{-1}, []int32{1, 1}, []int32{1, 9}) // all of which is refused
			} else if g.cluster() {
				partition.Replicas = g.replicas(1 + g.rng.IntN(3))
			}
			if known := g.topicNamed(topic.Topic); known == nil || partition.Partition < 0 || partition.Partition >= known.partitions {
				partition.Replicas = []int32{1} // which of two faults is told is chance
			}
			return partition
		})
		return topic
	})
	return request
}

func (g *generator) listReassignments() kmsg.Request {
	request := kmsg.NewPtrListPartitionReassignmentsRequest()
	request.TimeoutMillis = g.wait()
	if g.chance(6) {
		return request
	}
	request.Topics = few(g, 2, func() kmsg.ListPartitionReassignmentsRequestTopic {
		topic := kmsg.NewListPartitionReassignmentsRequestTopic()
		topic.Topic = g.topic()
		topic.Partitions = g.partitions(topic.Topic)
		return topic
	})
	return request
}

func (g *generator) describeCluster() kmsg.Request {
	request := kmsg.NewPtrDescribeClusterRequest()
	request.IncludeClusterAuthorizedOperations = g.bool()
	request.EndpointType = pick[int8](g, 1, 1, 1, 0, 2, 3, -1)
	return request
}

func (g *generator) apiVersions() kmsg.Request {
	request := kmsg.NewPtrApiVersionsRequest()
	request.ClientSoftwareName = pick(g, "crosscheck", "", "a b", "-x", "x-", "a.b-c")
	request.ClientSoftwareVersion = pick(g, "1.0", "", "v 1", "ü", "1")
	return request
}

func (g *generator) describeACLs() kmsg.Request {
	request := kmsg.NewPtrDescribeACLsRequest()
	request.ResourceType = pick[kmsg.ACLResourceType](g, 1, 2, 3, 4, 5, 6) // an unknown one makes Apache's broker close the connection
	request.ResourceName = pick(g, nil, kmsg.StringPtr("x"), kmsg.StringPtr("*"))
	request.ResourcePatternType = pick[kmsg.ACLResourcePatternType](g, 1, 2, 3, 4)
	request.Operation, request.PermissionType = pick[kmsg.ACLOperation](g, 1, 2, 3), pick[kmsg.ACLPermissionType](g, 1, 2, 3)
	return request
}

func (g *generator) createACLs() kmsg.Request {
	request := kmsg.NewPtrCreateACLsRequest()
	request.Creations = few(g, 3, func() kmsg.CreateACLsRequestCreation {
		creation := kmsg.NewCreateACLsRequestCreation()
		creation.ResourceType, creation.ResourceName, creation.ResourcePatternType = pick[kmsg.ACLResourceType](g, 2, 3), pick(g, "x", "*"), pick[kmsg.ACLResourcePatternType](g, 3, 4)
		creation.Principal, creation.Host, creation.Operation, creation.PermissionType = "User:x", "*", 3, 3
		return creation
	})
	return request
}

func (g *generator) deleteACLs() kmsg.Request {
	request := kmsg.NewPtrDeleteACLsRequest()
	request.Filters = few(g, 3, func() kmsg.DeleteACLsRequestFilter {
		filter := kmsg.NewDeleteACLsRequestFilter()
		filter.ResourceType, filter.ResourcePatternType, filter.Operation, filter.PermissionType = 2, 3, 1, 1
		return filter
	})
	return request
}

func (g *generator) saslHandshake() kmsg.Request {
	request := kmsg.NewPtrSASLHandshakeRequest()
	request.Mechanism = pick(g, "PLAIN", "", "SCRAM-SHA-256")
	return request
}

func (g *generator) saslAuthenticate() kmsg.Request {
	request := kmsg.NewPtrSASLAuthenticateRequest()
	request.SASLAuthBytes = g.bytes(8)
	return request
}

func (g *generator) createToken() kmsg.Request {
	request := kmsg.NewPtrCreateDelegationTokenRequest()
	request.MaxLifetimeMillis = pick[int64](g, -1, 0, 1000)
	request.Renewers = few(g, 2, func() kmsg.CreateDelegationTokenRequestRenewer {
		return kmsg.CreateDelegationTokenRequestRenewer{PrincipalType: pick(g, "User", "Group"), PrincipalName: "x"}
	})
	return request
}

func (g *generator) renewToken() kmsg.Request {
	request := kmsg.NewPtrRenewDelegationTokenRequest()
	request.HMAC, request.RenewTimeMillis = g.bytes(8), 1000
	return request
}

func (g *generator) expireToken() kmsg.Request {
	request := kmsg.NewPtrExpireDelegationTokenRequest()
	request.HMAC, request.ExpiryPeriodMillis = g.bytes(8), 1000
	return request
}

func (g *generator) describeToken() kmsg.Request {
	request := kmsg.NewPtrDescribeDelegationTokenRequest()
	if g.bool() {
		request.Owners = []kmsg.DescribeDelegationTokenRequestOwner{{PrincipalType: "User", PrincipalName: "x"}}
	}
	return request
}

func (g *generator) describeQuotas() kmsg.Request {
	request := kmsg.NewPtrDescribeClientQuotasRequest()
	request.Strict = g.bool()
	request.Components = few(g, 2, func() kmsg.DescribeClientQuotasRequestComponent {
		component := kmsg.NewDescribeClientQuotasRequestComponent()
		component.EntityType = pick(g, "user", "client-id", "ip", "", "nonsense")
		component.MatchType = pick[kmsg.QuotasMatchType](g, 0, 1, 2, 3, -1)
		if component.MatchType == 0 || g.chance(4) {
			component.Match = kmsg.StringPtr(pick(g, "x", "", "127.0.0.1"))
		}
		return component
	})
	return request
}

func (g *generator) describeSCRAM() kmsg.Request {
	request := kmsg.NewPtrDescribeUserSCRAMCredentialsRequest()
	request.Users = few(g, 3, func() kmsg.DescribeUserSCRAMCredentialsRequestUser {
		return kmsg.DescribeUserSCRAMCredentialsRequestUser{Name: pick(g, "nobody", "noone", "")}
	})
	if g.chance(4) {
		request.Users = nil
	}
	return request
}

func (g *generator) updateFeatures() kmsg.Request {
	request := kmsg.NewPtrUpdateFeaturesRequest()
	request.TimeoutMillis = g.wait()
	request.ValidateOnly = g.bool()
	request.FeatureUpdates = few(g, 2, func() kmsg.UpdateFeaturesRequestFeatureUpdate {
		update := kmsg.NewUpdateFeaturesRequestFeatureUpdate()
		update.Feature, update.MaxVersionLevel = pick(g, "metadata.version", "nonsense", ""), pick[int16](g, 0, 1, -1)
		update.AllowDowngrade, update.UpgradeType = g.bool(), pick[int8](g, 1, 1, 2, 3, 0, 9)
		return update
	})
	return request
}

func (g *generator) listTransactions() kmsg.Request {
	request := kmsg.NewPtrListTransactionsRequest()
	request.StateFilters = few(g, 2, func() string { return pick(g, "Ongoing", "Empty", "nonsense", "") })
	request.ProducerIDFilters = few(g, 2, func() int64 { return pick[int64](g, 0, 5, -1) })
	request.DurationFilterMillis = pick[int64](g, -1, 0, 1000)
	return request
}
