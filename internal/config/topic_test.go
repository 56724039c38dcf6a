package config

import (
	"math"
	"sort"
	"strings"
	"testing"

	"understudy/internal/streaming/commitlog"
	"understudy/internal/streaming/record"
)

func TestLogConfigDefaultsAgreeWithTheLogs(t *testing.T) {
	got, err := LogConfig(BrokerLayers{}, nil)
	if want := commitlog.DefaultLogConfig(); err != nil || got != want {
		t.Errorf("got %+v %v\nwant %+v", got, err, want)
	}
}

func TestLogConfigLayers(t *testing.T) {
	broker := BrokerLayers{
		Static:         map[string]string{"log.retention.hours": "2", "log.segment.bytes": "1000", "min.insync.replicas": "2", "compression.type": "gzip", "log.roll.hours": "9999999999"},
		Dynamic:        map[string]string{"log.segment.bytes": "2000"},
		DynamicDefault: map[string]string{"log.retention.minutes": "3", "message.max.bytes": "junk"},
	}
	topic := map[string]string{"cleanup.policy": "compact , delete", "compression.type": "zstd", "compression.zstd.level": "7", "flush.ms": "junk"}
	c, err := LogConfig(broker, topic)
	if err == nil || !strings.Contains(err.Error(), "flush.ms=junk") {
		t.Errorf("the bad value must be reported: %v", err)
	}
	if c.RetentionMs != 180_000 || c.SegmentBytes != 2000 || c.MinInsyncReplicas != 2 || !c.Compact || !c.Delete ||
		c.Compression == nil || *c.Compression != record.Zstd || c.CompressionLevel != 7 || c.MaxMessageBytes != 1048588 || c.FlushMs != math.MaxInt64 {
		t.Errorf("got %+v", c)
	}
}

func TestValidateTopic(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"retention.ms=-1", ""},
		{"retention.ms=-2", "retention.ms=-2: must be at least -1; give -1 or more"},
		{"segment.bytes=13", "segment.bytes=13: must be at least 14; give 14 or more"},
		{"cleanup.policy=compact,delete", ""},
		{"cleanup.policy=keep", `cleanup.policy=keep: "keep" is not known; give compact or delete`},
		{"retension.ms=1", "retension.ms=1: no such topic key; did you mean retention.ms?"},
		{"log.retention.ms=1", "log.retention.ms=1: no such topic key; did you mean retention.ms?"},
		{"max.compaction.lag.ms=5 min.compaction.lag.ms=6", "min.compaction.lag.ms=6: is above max.compaction.lag.ms; give at most 5"},
		{"remote.storage.enable=true", "remote.storage.enable=true: there is no tiered storage; remove it"},
		{"leader.replication.throttled.replicas=0:1,1:2", ""},
		{"leader.replication.throttled.replicas=0-1", "leader.replication.throttled.replicas=0-1: not a list of replicas; give * or partition:broker,partition:broker"},
	} {
		topic := map[string]string{}
		for _, pair := range strings.Fields(c.line) {
			name, value, _ := strings.Cut(pair, "=")
			topic[name] = value
		}
		if got := textOf(ValidateTopic(topic)); got != c.want {
			t.Errorf("%s\n got  %s\n want %s", c.line, got, c.want)
		}
	}
}

func TestDescribeTopic(t *testing.T) {
	broker := BrokerLayers{Static: map[string]string{"log.retention.hours": "2"}, Dynamic: map[string]string{"log.retention.ms": "5000"}}
	entries := map[string]Entry{}
	for _, entry := range DescribeTopic(map[string]string{"segment.bytes": "100"}, broker) {
		entries[entry.Name] = entry
	}
	retention := entries["retention.ms"]
	if *retention.Value != "5000" || retention.Source != SourceDynamicBroker || len(retention.Synonyms) != 3 {
		t.Errorf("got %+v", retention)
	}
	if last := retention.Synonyms[2]; last.Name != "log.retention.hours" || *last.Value != "168" || last.Source != SourceDefault {
		t.Errorf("got %+v", last)
	}
	if segment := entries["segment.bytes"]; *segment.Value != "100" || segment.Source != SourceDynamicTopic || segment.Synonyms[1].Source != SourceDefault {
		t.Errorf("got %+v", segment)
	}
}

func TestDescribeBroker(t *testing.T) {
	entries := map[string]Entry{}
	for _, entry := range DescribeBroker(BrokerLayers{Static: map[string]string{"broker.id": "4", "log.retention.hours": "2", "my.plugin": "x"}}) {
		entries[entry.Name] = entry
	}
	if id := entries["broker.id"]; *id.Value != "4" || id.Source != SourceStaticBroker || !id.ReadOnly {
		t.Errorf("got %+v", id)
	}
	if retention := entries["log.retention.ms"]; retention.Value != nil || retention.ReadOnly || retention.Source != SourceDefault || len(retention.Synonyms) != 0 {
		t.Errorf("got %+v", retention)
	}
	if plugin := entries["my.plugin"]; plugin.Value != nil || !plugin.Sensitive {
		t.Errorf("got %+v", plugin)
	}
}

// TestTables checks the data itself: order, defaults within their own bounds, synonyms.
func TestTables(t *testing.T) {
	for name, keys := range map[string]table{"broker": brokerKeys, "coordinator": coordinatorKeys} {
		if !sort.SliceIsSorted(keys.ordered, func(i, j int) bool { return keys.ordered[i].name < keys.ordered[j].name }) || len(keys.byName) != len(keys.ordered) {
			t.Errorf("the %s keys are out of order or double", name)
		}
		for i := range keys.ordered {
			checkDefault(t, &keys.ordered[i])
		}
	}
	for i := range topicKeys {
		checkDefault(t, &topicKeys[i].key)
		if i > 0 && topicKeys[i-1].name >= topicKeys[i].name {
			t.Errorf("%s is out of order", topicKeys[i].name)
		}
		for _, synonym := range topicKeys[i].synonyms {
			if brokerKeys.byName[synonym.name] == nil {
				t.Errorf("%s has the unknown synonym %s", topicKeys[i].name, synonym.name)
			}
		}
		if effective := Effective(BrokerLayers{}, nil)[topicKeys[i].name]; effective != topicKeys[i].fallback {
			t.Errorf("%s: default %s, by its synonyms %s", topicKeys[i].name, topicKeys[i].fallback, effective)
		}
	}
}

func checkDefault(t *testing.T, k *key) {
	t.Helper()
	if k.fallback == unset {
		return
	}
	if reason, _ := k.examine(k.fallback); reason != "" {
		t.Errorf("%s: its own default %s: %s", k.name, k.fallback, reason)
	}
	if k.text == "" {
		t.Errorf("%s has no text", k.name)
	}
}

// What a topic's own values are told as is what was read from them; the synonyms have them as
// they were written.
func TestDescribedValuesAreParsed(t *testing.T) {
	written := map[string]string{"unclean.leader.election.enable": "TRUE", "min.cleanable.dirty.ratio": "1"}
	told := map[string]string{"unclean.leader.election.enable": "true", "min.cleanable.dirty.ratio": "1.0"}
	for _, entry := range DescribeTopic(written, BrokerLayers{}) {
		if want, found := told[entry.Name]; found && (*entry.Value != want || *entry.Synonyms[0].Value != written[entry.Name]) {
			t.Errorf("%s: %q from %q, want %q from %q", entry.Name, *entry.Value, *entry.Synonyms[0].Value, want, written[entry.Name])
		}
	}
}
