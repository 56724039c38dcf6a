package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"sort"
	"strconv"
	"strings"

	"understudy/internal/streaming/cluster"
)

// ErrMalformed marks a znode whose content is not the document that belongs there.
var ErrMalformed = errors.New("malformed znode content")

func malformed(what string, data []byte, cause any) error {
	const shown = 80
	if len(data) > shown {
		data = data[:shown]
	}
	return fmt.Errorf("%s %q: %w: %v", what, data, ErrMalformed, cause)
}

func mustMarshal(v any) []byte {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false) // "<default>" stays readable, as Kafka writes it
	if err := encoder.Encode(v); err != nil {
		panic(fmt.Sprintf("registry: cannot encode %T: %v", v, err)) // plain structs always encode
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}

// --- /cluster/id ---

type clusterIDDocument struct {
	Version string `json:"version"` // a JSON string, unlike everywhere else
	ID      string `json:"id"`
}

func encodeClusterID(id string) []byte { return mustMarshal(clusterIDDocument{"1", id}) }

func decodeClusterID(data []byte) (string, error) {
	var doc struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return "", malformed(PathClusterID, data, err)
	}
	if doc.ID == "" {
		return "", malformed(PathClusterID, data, "no id")
	}
	return doc.ID, nil
}

// --- /brokers/ids/N ---

type brokerDocument struct {
	Features    struct{}          `json:"features"`
	ProtocolMap map[string]string `json:"listener_security_protocol_map"`
	Endpoints   []string          `json:"endpoints"`
	JMXPort     int32             `json:"jmx_port"`
	Port        int32             `json:"port"`
	Host        *string           `json:"host"`
	Version     int32             `json:"version"`
	Timestamp   string            `json:"timestamp"`
	Rack        *string           `json:"rack,omitempty"`
	UncleanStop *bool             `json:"unclean_stop,omitempty"` // ours: see cluster.StopKind
}

// EncodeBroker is the version 5 document of a broker's registration.
func EncodeBroker(broker *cluster.Broker, nowMs int64) []byte {
	doc := brokerDocument{
		ProtocolMap: map[string]string{},
		Endpoints:   []string{},
		JMXPort:     -1,
		Port:        -1,
		Version:     5,
		Timestamp:   strconv.FormatInt(nowMs, 10),
	}
	for _, endpoint := range broker.Endpoints {
		doc.Endpoints = append(doc.Endpoints, formatEndpoint(endpoint))
		doc.ProtocolMap[endpoint.Listener] = endpoint.Protocol
		if endpoint.Protocol == "PLAINTEXT" && doc.Host == nil {
			doc.Host, doc.Port = &endpoint.Host, endpoint.Port
		}
	}
	if broker.Rack != "" {
		doc.Rack = &broker.Rack
	}
	if broker.Stop != cluster.StopUntold {
		unclean := broker.Stop == cluster.StopUnclean
		doc.UncleanStop = &unclean
	}
	return mustMarshal(doc)
}

func formatEndpoint(endpoint cluster.Endpoint) string {
	return endpoint.Listener + "://" + net.JoinHostPort(endpoint.Host, strconv.Itoa(int(endpoint.Port)))
}

// DecodeBroker reads a registration of any version since 1. The epoch is not in the
// document: it is the node's czxid.
func DecodeBroker(id cluster.BrokerID, data []byte) (cluster.Broker, error) {
	broker := cluster.Broker{ID: id, Epoch: cluster.UnknownBrokerEpoch}
	var doc struct {
		Version     int32             `json:"version"`
		Host        string            `json:"host"`
		Port        int32             `json:"port"`
		Endpoints   []string          `json:"endpoints"`
		Rack        string            `json:"rack"`
		ProtocolMap map[string]string `json:"listener_security_protocol_map"`
		UncleanStop *bool             `json:"unclean_stop"`
	}
	what := BrokerPath(id)
	if err := json.Unmarshal(data, &doc); err != nil {
		return broker, malformed(what, data, err)
	}
	broker.Rack = doc.Rack
	switch {
	case doc.UncleanStop == nil:
	case *doc.UncleanStop:
		broker.Stop = cluster.StopUnclean
	default:
		broker.Stop = cluster.StopClean
	}
	if doc.Version < 1 {
		return broker, malformed(what, data, "no version")
	}
	if doc.Version == 1 {
		broker.Endpoints = []cluster.Endpoint{{Listener: "PLAINTEXT", Protocol: "PLAINTEXT", Host: doc.Host, Port: doc.Port}}
		return broker, nil
	}
	for _, text := range doc.Endpoints {
		endpoint, err := ParseEndpoint(text)
		if err != nil {
			return broker, malformed(what, data, err)
		}
		if protocol, ok := doc.ProtocolMap[endpoint.Listener]; ok {
			endpoint.Protocol = protocol
		}
		broker.Endpoints = append(broker.Endpoints, endpoint)
	}
	return broker, nil
}

// ParseEndpoint reads LISTENER://host:port with an optionally bracketed IPv6 host; the
// protocol is the listener's name until a map says otherwise.
func ParseEndpoint(text string) (cluster.Endpoint, error) {
	listener, address, ok := strings.Cut(text, "://")
	if !ok || listener == "" {
		return cluster.Endpoint{}, fmt.Errorf("endpoint %q is not LISTENER://host:port", text)
	}
	colon := strings.LastIndexByte(address, ':')
	if colon < 0 {
		return cluster.Endpoint{}, fmt.Errorf("endpoint %q has no port", text)
	}
	port, err := strconv.ParseInt(address[colon+1:], 10, 32)
	if err != nil || port < 0 || port > 65535 {
		return cluster.Endpoint{}, fmt.Errorf("endpoint %q has a bad port", text)
	}
	host := address[:colon]
	if bare, ok := strings.CutPrefix(host, "["); ok {
		host, ok = strings.CutSuffix(bare, "]")
		if !ok {
			return cluster.Endpoint{}, fmt.Errorf("endpoint %q has an unclosed bracket", text)
		}
	}
	return cluster.Endpoint{Listener: listener, Protocol: listener, Host: host, Port: int32(port)}, nil
}

// --- /controller, /controller_epoch ---

type controllerDocument struct {
	Version              int32  `json:"version"`
	BrokerID             int32  `json:"brokerid"`
	Timestamp            string `json:"timestamp"`
	KraftControllerEpoch int32  `json:"kraftControllerEpoch"`
}

func encodeController(id cluster.BrokerID, nowMs int64) []byte {
	return mustMarshal(controllerDocument{2, int32(id), strconv.FormatInt(nowMs, 10), -1})
}

func decodeController(data []byte) (id cluster.BrokerID, kraftEpoch int32, err error) {
	var doc struct {
		BrokerID             *int32 `json:"brokerid"`
		KraftControllerEpoch *int32 `json:"kraftControllerEpoch"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return cluster.NoBroker, -1, malformed(PathController, data, err)
	}
	if doc.BrokerID == nil {
		return cluster.NoBroker, -1, malformed(PathController, data, "no brokerid")
	}
	kraftEpoch = -1
	if doc.KraftControllerEpoch != nil {
		kraftEpoch = *doc.KraftControllerEpoch
	}
	return cluster.BrokerID(*doc.BrokerID), kraftEpoch, nil
}

func decodeControllerEpoch(data []byte) (cluster.ControllerEpoch, error) {
	epoch, err := strconv.ParseInt(string(bytes.TrimSpace(data)), 10, 32)
	if err != nil || epoch < 0 {
		return 0, malformed(PathControllerEpoch, data, "not a decimal number")
	}
	return cluster.ControllerEpoch(epoch), nil
}

// --- /brokers/topics/T ---

// Assignment is where the replicas of one partition are to be. Adding and Removing are
// subsets of Replicas and non-empty only during a reassignment (KIP-455).
type Assignment struct {
	Replicas []cluster.BrokerID
	Adding   []cluster.BrokerID
	Removing []cluster.BrokerID
}

// Reassigning reports whether a reassignment is in progress.
func (a *Assignment) Reassigning() bool { return len(a.Adding) > 0 || len(a.Removing) > 0 }

// Target is the replica list that a reassignment leads to.
func (a *Assignment) Target() []cluster.BrokerID { return without(a.Replicas, a.Removing) }

// Origin is the replica list that a reassignment started from.
func (a *Assignment) Origin() []cluster.BrokerID { return without(a.Replicas, a.Adding) }

func without(list, removed []cluster.BrokerID) []cluster.BrokerID {
	out := make([]cluster.BrokerID, 0, len(list))
	for _, id := range list {
		if !slices.Contains(removed, id) {
			out = append(out, id)
		}
	}
	return out
}

// TopicAssignment is the content of a topic's node.
type TopicAssignment struct {
	ID         cluster.TopicID // zero if the topic was made before topic ids (IBP < 2.8)
	Partitions map[int32]Assignment
}

type replicaMap map[string][]cluster.BrokerID

type topicDocument struct {
	Removing   replicaMap `json:"removing_replicas"`
	Partitions replicaMap `json:"partitions"`
	TopicID    string     `json:"topic_id,omitempty"`
	Adding     replicaMap `json:"adding_replicas"`
	Version    int32      `json:"version"`
}

// EncodeTopic is the version 3 document of a topic.
func EncodeTopic(topic *TopicAssignment) []byte {
	doc := topicDocument{Removing: replicaMap{}, Partitions: replicaMap{}, Adding: replicaMap{}, Version: 3}
	if !topic.ID.IsZero() {
		doc.TopicID = topic.ID.String()
	}
	for partition, assignment := range topic.Partitions {
		key := strconv.Itoa(int(partition))
		doc.Partitions[key] = assignment.Replicas
		if len(assignment.Adding) > 0 {
			doc.Adding[key] = assignment.Adding
		}
		if len(assignment.Removing) > 0 {
			doc.Removing[key] = assignment.Removing
		}
	}
	return mustMarshal(doc)
}

// DecodeTopic reads versions 1 to 3.
func DecodeTopic(topic string, data []byte) (TopicAssignment, error) {
	var doc topicDocument
	if err := json.Unmarshal(data, &doc); err != nil {
		return TopicAssignment{}, malformed(TopicPath(topic), data, err)
	}
	out := TopicAssignment{Partitions: make(map[int32]Assignment, len(doc.Partitions))}
	if doc.TopicID != "" {
		id, err := cluster.ParseTopicID(doc.TopicID)
		if err != nil {
			return out, malformed(TopicPath(topic), data, err)
		}
		out.ID = id
	}
	for key, replicas := range doc.Partitions {
		partition, err := strconv.ParseInt(key, 10, 32)
		if err != nil || partition < 0 || strconv.FormatInt(partition, 10) != key {
			return out, malformed(TopicPath(topic), data, "partition "+strconv.Quote(key))
		}
		out.Partitions[int32(partition)] = Assignment{Replicas: replicas, Adding: doc.Adding[key], Removing: doc.Removing[key]}
	}
	return out, nil
}

// --- /brokers/topics/T/partitions/P/state ---

// EncodePartitionState is the version 1 document of a partition's leadership, written by
// hand because a wave of elections writes thousands. The partition epoch is not in it: it
// is the node's data version.
func EncodePartitionState(state *cluster.PartitionState) []byte {
	out := make([]byte, 0, 136+4*len(state.ISR))
	out = append(out, `{"controller_epoch":`...)
	out = strconv.AppendInt(out, int64(state.ControllerEpoch), 10)
	out = append(out, `,"leader":`...)
	out = strconv.AppendInt(out, int64(state.Leader), 10)
	out = append(out, `,"version":1,"leader_epoch":`...)
	out = strconv.AppendInt(out, int64(state.LeaderEpoch), 10)
	if state.Recovery == cluster.Recovering {
		out = append(out, `,"leader_recovery_state":1`...)
	}
	if state.AsOf > 0 { // our own: Kafka's readers pass over what they do not know
		out = append(out, `,"as_of_broker_epoch":`...)
		out = strconv.AppendInt(out, int64(state.AsOf), 10)
	}
	out = append(out, `,"isr":[`...)
	for i, id := range state.ISR {
		if i > 0 {
			out = append(out, ',')
		}
		out = strconv.AppendInt(out, int64(id), 10)
	}
	return append(out, "]}"...)
}

// DecodePartitionState reads a state node with its data version.
func DecodePartitionState(tp cluster.TopicPartition, data []byte, version int32) (cluster.PartitionState, error) {
	var doc struct {
		Leader          *int32             `json:"leader"`
		LeaderEpoch     *int32             `json:"leader_epoch"`
		ControllerEpoch *int32             `json:"controller_epoch"`
		ISR             []cluster.BrokerID `json:"isr"`
		Recovery        int8               `json:"leader_recovery_state"`
		AsOf            int64              `json:"as_of_broker_epoch"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return cluster.PartitionState{}, malformed(StatePath(tp), data, err)
	}
	if doc.Leader == nil || doc.LeaderEpoch == nil || doc.ControllerEpoch == nil || doc.ISR == nil {
		return cluster.PartitionState{}, malformed(StatePath(tp), data, "leader, leader_epoch, controller_epoch or isr is missing")
	}
	if doc.Recovery != int8(cluster.Recovered) && doc.Recovery != int8(cluster.Recovering) {
		return cluster.PartitionState{}, malformed(StatePath(tp), data, "leader_recovery_state is neither 0 nor 1")
	}
	return cluster.PartitionState{
		Leader:          cluster.BrokerID(*doc.Leader),
		LeaderEpoch:     cluster.LeaderEpoch(*doc.LeaderEpoch),
		ISR:             doc.ISR,
		Recovery:        cluster.LeaderRecoveryState(doc.Recovery),
		ControllerEpoch: cluster.ControllerEpoch(*doc.ControllerEpoch),
		PartitionEpoch:  cluster.PartitionEpoch(version),
		AsOf:            cluster.BrokerEpoch(max(doc.AsOf, 0)),
	}, nil
}

// --- /config/<type>/<entity>, /config/changes ---

type configDocument struct {
	Version int32             `json:"version"`
	Config  map[string]string `json:"config"`
}

// EncodeConfig is the document of an entity's overrides.
func EncodeConfig(config map[string]string) []byte {
	if config == nil {
		config = map[string]string{}
	}
	return mustMarshal(configDocument{1, config})
}

// DecodeConfig reads overrides; null data is an empty map.
func DecodeConfig(path string, data []byte) (map[string]string, error) {
	if len(data) == 0 {
		return map[string]string{}, nil
	}
	var doc configDocument
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, malformed(path, data, err)
	}
	if doc.Config == nil {
		return nil, malformed(path, data, "no config")
	}
	return doc.Config, nil
}

func encodeConfigChange(entityPath string) []byte {
	return mustMarshal(struct {
		Version    int32  `json:"version"`
		EntityPath string `json:"entity_path"`
	}{2, entityPath})
}

// decodeConfigChange returns the entity path, e.g. "topics/foo", of a version 1 or 2 note.
func decodeConfigChange(data []byte) (string, error) {
	var doc struct {
		Version    int32  `json:"version"`
		EntityPath string `json:"entity_path"`
		EntityType string `json:"entity_type"`
		EntityName string `json:"entity_name"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return "", malformed(PathConfigChanges, data, err)
	}
	switch {
	case doc.Version == 2 && doc.EntityPath != "":
		return doc.EntityPath, nil
	case doc.Version == 1 && doc.EntityType != "" && doc.EntityName != "":
		return doc.EntityType + "/" + doc.EntityName, nil
	}
	return "", malformed(PathConfigChanges, data, "neither version 1 nor 2")
}

// --- notifications and requests by znode ---

type partitionDocument struct {
	Topic     string             `json:"topic"`
	Partition int32              `json:"partition"`
	Replicas  []cluster.BrokerID `json:"replicas,omitempty"`
}

type partitionsDocument struct {
	Version    int32               `json:"version"`
	Partitions []partitionDocument `json:"partitions"`
}

// DecodePartitionList reads the partitions of an ISR change notification or of a preferred
// replica election.
func DecodePartitionList(path string, data []byte) ([]cluster.TopicPartition, error) {
	var doc partitionsDocument
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, malformed(path, data, err)
	}
	out := make([]cluster.TopicPartition, 0, len(doc.Partitions))
	for _, p := range doc.Partitions {
		out = append(out, cluster.TopicPartition{Topic: p.Topic, Partition: p.Partition})
	}
	return out, nil
}

// DecodeReassignments reads /admin/reassign_partitions.
func DecodeReassignments(data []byte) (map[cluster.TopicPartition][]cluster.BrokerID, error) {
	var doc partitionsDocument
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, malformed(PathReassignPartitions, data, err)
	}
	out := make(map[cluster.TopicPartition][]cluster.BrokerID, len(doc.Partitions))
	for _, p := range doc.Partitions {
		out[cluster.TopicPartition{Topic: p.Topic, Partition: p.Partition}] = p.Replicas
	}
	return out, nil
}

// EncodeReassignments writes /admin/reassign_partitions, sorted.
func EncodeReassignments(reassignments map[cluster.TopicPartition][]cluster.BrokerID) []byte {
	doc := partitionsDocument{Version: 1, Partitions: []partitionDocument{}}
	for tp, replicas := range reassignments {
		doc.Partitions = append(doc.Partitions, partitionDocument{tp.Topic, tp.Partition, replicas})
	}
	sort.Slice(doc.Partitions, func(i, j int) bool {
		a, b := doc.Partitions[i], doc.Partitions[j]
		return cluster.TopicPartition{Topic: a.Topic, Partition: a.Partition}.Less(cluster.TopicPartition{Topic: b.Topic, Partition: b.Partition})
	})
	return mustMarshal(doc)
}

// LogDirEventFailure is the only log directory event that Kafka knows.
const LogDirEventFailure = 1

func encodeLogDirEvent(broker cluster.BrokerID) []byte {
	return mustMarshal(struct {
		Version int32 `json:"version"`
		Broker  int32 `json:"broker"`
		Event   int32 `json:"event"`
	}{1, int32(broker), LogDirEventFailure})
}

// DecodeLogDirEvent returns the broker whose log directory failed.
func DecodeLogDirEvent(data []byte) (cluster.BrokerID, error) {
	var doc struct {
		Broker *int32 `json:"broker"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return cluster.NoBroker, malformed(PathLogDirEvents, data, err)
	}
	if doc.Broker == nil {
		return cluster.NoBroker, malformed(PathLogDirEvents, data, "no broker")
	}
	return cluster.BrokerID(*doc.Broker), nil
}

// --- /latest_producer_id_block ---

// ProducerIDBlockSize is how many producer ids one allocation hands out.
const ProducerIDBlockSize = 1000

// EncodeProducerIDBlock is the document of a block that begins at start.
func EncodeProducerIDBlock(broker cluster.BrokerID, start int64) []byte {
	return mustMarshal(struct {
		Version int32  `json:"version"`
		Broker  int32  `json:"broker"`
		Start   string `json:"block_start"`
		End     string `json:"block_end"`
	}{1, int32(broker), strconv.FormatInt(start, 10), strconv.FormatInt(start+ProducerIDBlockSize-1, 10)})
}

// NextProducerID returns the first id after the block that the node describes.
func NextProducerID(data []byte) (int64, error) {
	if len(data) == 0 {
		return 0, nil
	}
	var doc struct {
		End string `json:"block_end"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return 0, malformed(PathProducerIDBlock, data, err)
	}
	end, err := strconv.ParseInt(doc.End, 10, 64)
	if err != nil || end < 0 {
		return 0, malformed(PathProducerIDBlock, data, "bad block_end")
	}
	if end > math.MaxInt64-ProducerIDBlockSize {
		return 0, fmt.Errorf("%s: all producer ids are used up (block_end %d)", PathProducerIDBlock, end)
	}
	return end + 1, nil
}

// --- /feature ---

// Feature is the content of /feature. Max levels of finalized features by name; a
// ZooKeeper-mode cluster has none.
type Feature struct {
	Enabled  bool
	Features map[string]int16
}

type featureLevel struct {
	Max int16 `json:"max_version_level"`
}

type featureDocument struct {
	Version  int32                    `json:"version"`
	Status   *int32                   `json:"status"`
	Features *map[string]featureLevel `json:"features"`
}

func encodeFeature(feature *Feature) []byte {
	status := int32(0)
	if feature.Enabled {
		status = 1
	}
	levels := make(map[string]featureLevel, len(feature.Features))
	for name, level := range feature.Features {
		levels[name] = featureLevel{level}
	}
	return mustMarshal(featureDocument{2, &status, &levels})
}

// DecodeFeature reads versions 1 and 2.
func DecodeFeature(data []byte) (Feature, error) {
	var doc featureDocument
	if err := json.Unmarshal(data, &doc); err != nil {
		return Feature{}, malformed(PathFeature, data, err)
	}
	if doc.Status == nil || doc.Features == nil {
		return Feature{}, malformed(PathFeature, data, "status or features is missing")
	}
	out := Feature{Enabled: *doc.Status == 1, Features: map[string]int16{}}
	for name, level := range *doc.Features {
		if level.Max < 1 {
			return out, malformed(PathFeature, data, "level below 1 of "+name)
		}
		out.Features[name] = level.Max
	}
	return out, nil
}
