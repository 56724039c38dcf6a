package commitlog

import (
	"fmt"
	"strconv"
	"strings"

	"understudy/internal/streaming/cluster"
)

// metaProperties is the content of meta.properties, version 0 (ZooKeeper mode).
type metaProperties struct {
	clusterID string
	brokerID  cluster.BrokerID
}

func (p metaProperties) encode() []byte {
	return fmt.Appendf(nil, "#\nversion=0\nbroker.id=%d\ncluster.id=%s\n", p.brokerID, p.clusterID)
}

func decodeMetaProperties(data []byte) (metaProperties, error) {
	values, err := decodeProperties(data)
	if err != nil {
		return metaProperties{}, err
	}
	if version := values["version"]; version != "0" {
		return metaProperties{}, fmt.Errorf("its format version is %q; only 0 (ZooKeeper mode) is known here", version)
	}
	found := metaProperties{clusterID: values["cluster.id"], brokerID: cluster.NoBroker}
	if text, ok := values["broker.id"]; ok {
		id, err := strconv.ParseInt(text, 10, 32)
		if err != nil || id < 0 {
			return metaProperties{}, fmt.Errorf("its broker.id is %q", text)
		}
		found.brokerID = cluster.BrokerID(id)
	}
	return found, nil
}

// decodeProperties reads what java.util.Properties.store writes for short plain values:
// comments, key=value lines, and backslashes before special characters.
func decodeProperties(data []byte) (map[string]string, error) {
	values := make(map[string]string)
	for number, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == '!' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, fmt.Errorf("line %d is not key=value", number+1)
		}
		values[strings.TrimSpace(unescape(key))] = strings.TrimSpace(unescape(value))
	}
	return values, nil
}

func unescape(text string) string {
	if !strings.Contains(text, `\`) {
		return text
	}
	var out strings.Builder
	escaped := false
	for _, r := range text {
		if r == '\\' && !escaped {
			escaped = true
			continue
		}
		out.WriteRune(r)
		escaped = false
	}
	return out.String()
}

// partition.metadata has no newline at its end.
func encodePartitionMetadata(id cluster.TopicID) []byte {
	return fmt.Appendf(nil, "version: 0\ntopic_id: %s", id)
}

func decodePartitionMetadata(data []byte) (cluster.TopicID, error) {
	values := make(map[string]string)
	for line := range strings.SplitSeq(string(data), "\n") {
		if key, value, ok := strings.Cut(line, ":"); ok {
			values[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	if version := values["version"]; version != "0" {
		return cluster.TopicID{}, fmt.Errorf("version is %q, not 0", version)
	}
	return cluster.ParseTopicID(values["topic_id"])
}
