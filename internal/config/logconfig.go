package config

import (
	"strconv"
	"strings"

	"understudy/internal/streaming/commitlog"
	"understudy/internal/streaming/record"
)

// LogConfig builds the settings of a topic's logs from the broker's layers and the topic's
// own values. Own values that are wrong (a znode written by hand, or by a newer Kafka) are
// skipped, as Kafka skips them, and reported as the error; the settings are usable all the
// same.
func LogConfig(broker BrokerLayers, topic map[string]string) (commitlog.LogConfig, error) {
	valid, err := usable(topic)
	values := Effective(broker, valid)
	whole := func(name string) int64 {
		number, _ := strconv.ParseInt(values[name], 10, 64)
		return number
	}
	is := func(name string) bool { return strings.EqualFold(values[name], "true") }
	policies := list(values["cleanup.policy"])
	c := commitlog.LogConfig{
		SegmentBytes:          whole("segment.bytes"),
		SegmentMs:             whole("segment.ms"),
		SegmentJitterMs:       whole("segment.jitter.ms"),
		SegmentIndexBytes:     int32(whole("segment.index.bytes")),
		IndexIntervalBytes:    int32(whole("index.interval.bytes")),
		Delete:                contains(policies, "delete"),
		Compact:               contains(policies, "compact"),
		RetentionMs:           whole("retention.ms"),
		RetentionBytes:        whole("retention.bytes"),
		FileDeleteDelayMs:     whole("file.delete.delay.ms"),
		MaxMessageBytes:       int32(whole("max.message.bytes")),
		MinInsyncReplicas:     int32(whole("min.insync.replicas")),
		TimestampType:         record.CreateTime,
		TimestampBeforeMs:     whole("message.timestamp.before.max.ms"),
		TimestampAfterMs:      whole("message.timestamp.after.max.ms"),
		FlushMessages:         whole("flush.messages"),
		FlushMs:               whole("flush.ms"),
		UncleanLeaderElection: is("unclean.leader.election.enable"),
	}
	if values["message.timestamp.type"] == "LogAppendTime" {
		c.TimestampType = record.LogAppendTime
	}
	// The deprecated key limits both directions where the newer ones are left alone
	// (LogConfig.messageTimestampBeforeMaxMs and …AfterMaxMs).
	if difference := whole("message.timestamp.difference.max.ms"); values["message.timestamp.difference.max.ms"] != longMax {
		if values["message.timestamp.before.max.ms"] == longMax {
			c.TimestampBeforeMs = difference
		}
		if values["message.timestamp.after.max.ms"] == longMax {
			c.TimestampAfterMs = difference
		}
	}
	if name := values["compression.type"]; name != "producer" {
		codec := record.None
		if name != "uncompressed" {
			codec, _ = record.ParseCodec(name) // checked with the key
		}
		c.Compression = &codec
		if level := int(whole("compression." + name + ".level")); level != -1 || name != "gzip" {
			c.CompressionLevel = level
		}
	}
	return c, err
}

// usable drops a topic's values that do not pass.
func usable(topic map[string]string) (map[string]string, error) {
	err := ValidateTopic(topic)
	if err == nil {
		return topic, nil
	}
	valid := make(map[string]string, len(topic))
	for name, value := range topic {
		if ValidateTopic(map[string]string{name: value}) == nil {
			valid[name] = value
		}
	}
	return valid, err
}
