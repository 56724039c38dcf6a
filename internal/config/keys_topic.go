package config

// topicKey is a key of a topic, with the broker keys that give its default, the most
// specific first.
type topicKey struct {
	key
	synonyms []synonym
}

// synonym is a broker key and the factor from its unit to the topic key's.
type synonym struct {
	name   string
	factor int64
}

// topicKeys is every key that Kafka 3.9 defines for a topic (LogConfig, and the synonyms
// of ServerTopicConfigSynonyms), in order.
var topicKeys = []topicKey{
	{key{"cleanup.policy", List, "delete", oneOf("compact", "delete"), clusterWide, supported, "What becomes of old segments: delete, compact, or both."}, []synonym{{"log.cleanup.policy", 1}}},
	{key{"compression.gzip.level", Int, "-1", gzipLevel, clusterWide, supported, "Level when the broker compresses with gzip."}, []synonym{{"compression.gzip.level", 1}}},
	{key{"compression.lz4.level", Int, "9", between(1, 17), clusterWide, supported, "Level when the broker compresses with lz4."}, []synonym{{"compression.lz4.level", 1}}},
	{key{"compression.type", String, "producer", oneOf("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"), clusterWide, supported, "The codec of the topic's batches; producer keeps what the producer chose."}, []synonym{{"compression.type", 1}}},
	{key{"compression.zstd.level", Int, "3", between(-131072, 22), clusterWide, supported, "Level when the broker compresses with zstd."}, []synonym{{"compression.zstd.level", 1}}},
	{key{"delete.retention.ms", Long, "86400000", atLeast(0), clusterWide, supported, "How long tombstones stay in a compacted topic."}, []synonym{{"log.cleaner.delete.retention.ms", 1}}},
	{key{"file.delete.delay.ms", Long, "60000", atLeast(0), clusterWide, supported, "How long the files of a deleted segment stay."}, []synonym{{"log.segment.delete.delay.ms", 1}}},
	{key{"flush.messages", Long, longMax, atLeast(1), clusterWide, supported, "Records after which the log is flushed to disk."}, []synonym{{"log.flush.interval.messages", 1}}},
	{key{"flush.ms", Long, longMax, atLeast(0), clusterWide, supported, "Time after which the log is flushed to disk."}, []synonym{{"log.flush.interval.ms", 1}, {"log.flush.scheduler.interval.ms", 1}}},
	{key{"follower.replication.throttled.replicas", List, "", throttled, clusterWide, supported, "Replicas whose replication is throttled on the follower's side."}, nil},
	{key{"index.interval.bytes", Int, "4096", atLeast(0), clusterWide, supported, "Bytes of log between two entries of its index."}, []synonym{{"log.index.interval.bytes", 1}}},
	{key{"leader.replication.throttled.replicas", List, "", throttled, clusterWide, supported, "Replicas whose replication is throttled on the leader's side."}, nil},
	{key{"local.retention.bytes", Long, "-2", atLeast(-2), clusterWide, supported, "Size kept on local disk with tiered storage."}, []synonym{{"log.local.retention.bytes", 1}}},
	{key{"local.retention.ms", Long, "-2", atLeast(-2), clusterWide, supported, "Time kept on local disk with tiered storage."}, []synonym{{"log.local.retention.ms", 1}}},
	{key{"max.compaction.lag.ms", Long, longMax, atLeast(1), clusterWide, supported, "Longest time that a record may stay uncompacted."}, []synonym{{"log.cleaner.max.compaction.lag.ms", 1}}},
	{key{"max.message.bytes", Int, "1048588", atLeast(0), clusterWide, supported, "Largest batch of records."}, []synonym{{"message.max.bytes", 1}}},
	{key{"message.downconversion.enable", Bool, "true", nil, clusterWide, supported, "Allows old message formats for old clients."}, []synonym{{"log.message.downconversion.enable", 1}}},
	{key{"message.format.version", String, "3.0-IV1", aVersion, clusterWide, supported, "Old message format (deprecated, ignored)."}, []synonym{{"log.message.format.version", 1}}},
	{key{"message.timestamp.after.max.ms", Long, longMax, atLeast(0), clusterWide, supported, "How far a record's timestamp may lie in the future."}, []synonym{{"log.message.timestamp.after.max.ms", 1}}},
	{key{"message.timestamp.before.max.ms", Long, longMax, atLeast(0), clusterWide, supported, "How far a record's timestamp may lie in the past."}, []synonym{{"log.message.timestamp.before.max.ms", 1}}},
	{key{"message.timestamp.difference.max.ms", Long, longMax, atLeast(0), clusterWide, supported, "How far a record's timestamp may lie from the broker's (deprecated)."}, []synonym{{"log.message.timestamp.difference.max.ms", 1}}},
	{key{"message.timestamp.type", String, "CreateTime", oneOf("CreateTime", "LogAppendTime"), clusterWide, supported, "Whose time a record carries: CreateTime or LogAppendTime."}, []synonym{{"log.message.timestamp.type", 1}}},
	{key{"min.cleanable.dirty.ratio", Double, "0.5", between(0, 1), clusterWide, supported, "Share of the log that must be uncompacted before it is compacted."}, []synonym{{"log.cleaner.min.cleanable.ratio", 1}}},
	{key{"min.compaction.lag.ms", Long, "0", atLeast(0), clusterWide, supported, "Shortest time that a record stays uncompacted."}, []synonym{{"log.cleaner.min.compaction.lag.ms", 1}}},
	{key{"min.insync.replicas", Int, "1", atLeast(1), clusterWide, supported, "In-sync replicas that acks=all needs."}, []synonym{{"min.insync.replicas", 1}}},
	{key{"preallocate", Bool, "false", nil, clusterWide, supported, "Whether segments are allocated in advance."}, []synonym{{"log.preallocate", 1}}},
	{key{"remote.log.copy.disable", Bool, "false", nil, clusterWide, supported, "Stops copying to tiered storage."}, nil},
	{key{"remote.log.delete.on.disable", Bool, "false", nil, clusterWide, supported, "Deletes from tiered storage when it is turned off."}, nil},
	{key{"remote.storage.enable", Bool, "false", nil, clusterWide, supported, "Turns tiered storage on."}, nil},
	{key{"retention.bytes", Long, "-1", nil, clusterWide, supported, "Size of a partition above which its oldest segments are deleted; -1: none."}, []synonym{{"log.retention.bytes", 1}}},
	{key{"retention.ms", Long, "604800000", atLeast(-1), clusterWide, supported, "How long records are kept; -1: for ever."}, []synonym{{"log.retention.ms", 1}, {"log.retention.minutes", 60000}, {"log.retention.hours", 3600000}}},
	{key{"segment.bytes", Int, "1073741824", atLeast(14), clusterWide, supported, "Size at which a segment is closed."}, []synonym{{"log.segment.bytes", 1}}},
	{key{"segment.index.bytes", Int, "10485760", atLeast(4), clusterWide, supported, "Largest size of an index file."}, []synonym{{"log.index.size.max.bytes", 1}}},
	{key{"segment.jitter.ms", Long, "0", atLeast(0), clusterWide, supported, "Random part of the age at which a segment is closed."}, []synonym{{"log.roll.jitter.ms", 1}, {"log.roll.jitter.hours", 3600000}}},
	{key{"segment.ms", Long, "604800000", atLeast(1), clusterWide, supported, "Age at which a segment is closed."}, []synonym{{"log.roll.ms", 1}, {"log.roll.hours", 3600000}}},
	{key{"unclean.leader.election.enable", Bool, "false", nil, clusterWide, supported, "Whether a replica that is not in sync may lead when no other is left."}, []synonym{{"unclean.leader.election.enable", 1}}},
}
