package registry

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"understudy/internal/streaming/cluster"
)

func ids(list ...cluster.BrokerID) []cluster.BrokerID { return list }

// sameJSON compares documents as Kafka does: the order of keys means nothing.
func sameJSON(t *testing.T, got []byte, want string) {
	t.Helper()
	var a, b any
	if err := json.Unmarshal(got, &a); err != nil {
		t.Fatalf("%s: %v", got, err)
	}
	if err := json.Unmarshal([]byte(want), &b); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestDocumentsAreKafkas compares what we write with what Kafka 3.9 writes.
func TestDocumentsAreKafkas(t *testing.T) {
	id, err := cluster.ParseTopicID("pI6pNSVbQVSmVvX3AvxGGw")
	if err != nil {
		t.Fatal(err)
	}
	broker := cluster.Broker{ID: 1, Rack: "r1", Endpoints: []cluster.Endpoint{
		{Listener: "INTERNAL", Protocol: "SASL_SSL", Host: "::1", Port: 9093},
		{Listener: "PLAINTEXT", Protocol: "PLAINTEXT", Host: "h1", Port: 9092},
	}}
	tests := []struct {
		name string
		got  []byte
		want string
	}{
		{"broker", EncodeBroker(&broker, 1700000000000), `{"features":{},"listener_security_protocol_map":{"PLAINTEXT":"PLAINTEXT","INTERNAL":"SASL_SSL"},` +
			`"endpoints":["INTERNAL://[::1]:9093","PLAINTEXT://h1:9092"],"jmx_port":-1,"port":9092,"host":"h1","version":5,"timestamp":"1700000000000","rack":"r1"}`},
		{"broker without a plaintext listener", EncodeBroker(&cluster.Broker{Endpoints: broker.Endpoints[:1]}, 5),
			`{"features":{},"listener_security_protocol_map":{"INTERNAL":"SASL_SSL"},"endpoints":["INTERNAL://[::1]:9093"],"jmx_port":-1,"port":-1,"host":null,"version":5,"timestamp":"5"}`},
		{"cluster id", encodeClusterID("abc"), `{"version":"1","id":"abc"}`},
		{"controller", encodeController(3, 17), `{"version":2,"brokerid":3,"timestamp":"17","kraftControllerEpoch":-1}`},
		{"topic", EncodeTopic(&TopicAssignment{ID: id, Partitions: map[int32]Assignment{
			0: {Replicas: ids(4, 2, 1), Adding: ids(4), Removing: ids(1)}, 1: {Replicas: ids(2, 3)},
		}}), `{"version":3,"topic_id":"pI6pNSVbQVSmVvX3AvxGGw","partitions":{"0":[4,2,1],"1":[2,3]},"adding_replicas":{"0":[4]},"removing_replicas":{"0":[1]}}`},
		{"state", EncodePartitionState(&cluster.PartitionState{Leader: 1, LeaderEpoch: 5, ControllerEpoch: 17, ISR: ids(3, 1)}),
			`{"version":1,"leader":1,"leader_epoch":5,"controller_epoch":17,"isr":[3,1]}`},
		{"state, as of a registration", EncodePartitionState(&cluster.PartitionState{Leader: 1, LeaderEpoch: 5, ControllerEpoch: 17, ISR: ids(3, 1), AsOf: 4711}),
			`{"version":1,"leader":1,"leader_epoch":5,"controller_epoch":17,"as_of_broker_epoch":4711,"isr":[3,1]}`},
		{"state, recovering", EncodePartitionState(&cluster.PartitionState{Leader: -1, ISR: ids(3), Recovery: cluster.Recovering}),
			`{"version":1,"leader":-1,"leader_epoch":0,"controller_epoch":0,"isr":[3],"leader_recovery_state":1}`},
		{"empty configuration", EncodeConfig(nil), `{"version":1,"config":{}}`},
		{"change", encodeConfigChange("brokers/<default>"), `{"version":2,"entity_path":"brokers/<default>"}`},
		{"producer ids", EncodeProducerIDBlock(2, 1000), `{"version":1,"broker":2,"block_start":"1000","block_end":"1999"}`},
		{"feature", encodeFeature(&Feature{Enabled: true}), `{"version":2,"status":1,"features":{}}`},
		{"log directory", encodeLogDirEvent(4), `{"version":1,"broker":4,"event":1}`},
		{"reassignment", EncodeReassignments(map[cluster.TopicPartition][]cluster.BrokerID{{Topic: "t", Partition: 1}: ids(1, 2)}),
			`{"version":1,"partitions":[{"topic":"t","partition":1,"replicas":[1,2]}]}`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { sameJSON(t, test.got, test.want) })
	}
}

func TestOldDocumentsAreUnderstood(t *testing.T) {
	broker, err := DecodeBroker(7, []byte(`{"version":1,"host":"old","port":9092,"jmx_port":-1}`))
	want := []cluster.Endpoint{{Listener: "PLAINTEXT", Protocol: "PLAINTEXT", Host: "old", Port: 9092}}
	if err != nil || !reflect.DeepEqual(broker.Endpoints, want) {
		t.Errorf("broker version 1: %+v, %v", broker, err)
	}
	broker, err = DecodeBroker(7, []byte(`{"version":3,"jmx_port":1,"endpoints":["SSL://[fe80::1]:93"],"unknown":[1]}`))
	want = []cluster.Endpoint{{Listener: "SSL", Protocol: "SSL", Host: "fe80::1", Port: 93}}
	if err != nil || !reflect.DeepEqual(broker.Endpoints, want) {
		t.Errorf("broker version 3: %+v, %v", broker, err)
	}
	topic, err := DecodeTopic("t", []byte(`{"version":1,"partitions":{"0":[1]}}`))
	if first := topic.Partitions[0]; err != nil || !topic.ID.IsZero() || len(topic.Partitions) != 1 || first.Reassigning() {
		t.Errorf("topic version 1: %+v, %v", topic, err)
	}
	path, err := decodeConfigChange([]byte(`{"version":1,"entity_type":"topics","entity_name":"foo"}`))
	if err != nil || path != "topics/foo" {
		t.Errorf("change version 1: %q, %v", path, err)
	}
	if id, epoch, err := decodeController([]byte(`{"version":1,"brokerid":4,"timestamp":"1"}`)); id != 4 || epoch != -1 || err != nil {
		t.Errorf("controller version 1: %d, %d, %v", id, epoch, err)
	}
	feature, err := DecodeFeature([]byte(`{"version":1,"status":1,"features":{"f":{"min_version_level":1,"max_version_level":3}}}`))
	if err != nil || feature.Features["f"] != 3 {
		t.Errorf("feature version 1: %+v, %v", feature, err)
	}
	if next, err := NextProducerID(nil); next != 0 || err != nil {
		t.Errorf("first block: %d, %v", next, err)
	}
}

func TestMalformedDocumentsAreNamed(t *testing.T) {
	tp := cluster.TopicPartition{Topic: "t"}
	errs := map[string]error{}
	_, errs["state without isr"] = DecodePartitionState(tp, []byte(`{"version":1,"leader":1,"leader_epoch":5,"controller_epoch":17}`), 0)
	_, errs["state"] = DecodePartitionState(tp, nil, 0)
	_, errs["topic"] = DecodeTopic("t", []byte(`{"partitions":{"01":[1]}}`))
	_, errs["topic id"] = DecodeTopic("t", []byte(`{"partitions":{},"topic_id":"x"}`))
	_, errs["broker"] = DecodeBroker(1, []byte(`{"endpoints":[]}`))
	_, errs["endpoint"] = DecodeBroker(1, []byte(`{"version":5,"endpoints":["PLAINTEXT://h"]}`))
	_, errs["config"] = DecodeConfig("/config/topics/t", []byte(`{"version":1}`))
	_, errs["epoch"] = decodeControllerEpoch([]byte("one"))
	_, errs["block"] = NextProducerID([]byte(`{"block_end":5}`))
	_, errs["feature"] = DecodeFeature([]byte(`{"features":{}}`))
	for name, err := range errs {
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAssignment(t *testing.T) {
	a := Assignment{Replicas: ids(4, 2, 1), Adding: ids(4), Removing: ids(1)}
	if !reflect.DeepEqual(a.Target(), ids(4, 2)) || !reflect.DeepEqual(a.Origin(), ids(2, 1)) || !a.Reassigning() {
		t.Errorf("target %v, origin %v", a.Target(), a.Origin())
	}
}

// FuzzDecode feeds every decoder: none may panic, and what is understood must survive being
// written and read again.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"version":3,"topic_id":"pI6pNSVbQVSmVvX3AvxGGw","partitions":{"0":[4,2,1]},"adding_replicas":{"0":[4]},"removing_replicas":{}}`,
		`{"version":1,"leader":1,"leader_epoch":5,"controller_epoch":17,"isr":[3,1],"leader_recovery_state":1}`,
		`{"features":{},"listener_security_protocol_map":{"A":"SSL"},"endpoints":["A://[::1]:1"],"jmx_port":-1,"port":-1,"host":null,"version":5,"timestamp":"1"}`,
		`{"version":1,"config":{"a":"b"}}`, `{"version":2,"entity_path":"topics/foo"}`, `{"version":1,"broker":2,"block_start":"0","block_end":"999"}`,
		`{"version":2,"status":1,"features":{"f":{"max_version_level":3}}}`, `{"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[1,2]}]}`,
		`{"version":"1","id":"x"}`, `{"version":2,"brokerid":3,"timestamp":"17","kraftControllerEpoch":-1}`, "17", "null", "",
	} {
		f.Add([]byte(seed))
	}
	tp := cluster.TopicPartition{Topic: "t", Partition: 1}
	f.Fuzz(func(t *testing.T, data []byte) {
		if topic, err := DecodeTopic("t", data); err == nil {
			again, err := DecodeTopic("t", EncodeTopic(&topic))
			if err != nil || len(again.Partitions) != len(topic.Partitions) || again.ID != topic.ID {
				t.Errorf("topic %+v became %+v, %v", topic, again, err)
			}
		}
		if state, err := DecodePartitionState(tp, data, 4); err == nil {
			again, err := DecodePartitionState(tp, EncodePartitionState(&state), 4)
			if err != nil || !reflect.DeepEqual(state, again) {
				t.Errorf("state %+v became %+v, %v", state, again, err)
			}
		}
		if broker, err := DecodeBroker(1, data); err == nil {
			again, err := DecodeBroker(1, EncodeBroker(&broker, 0))
			if err != nil || len(again.Endpoints) != len(broker.Endpoints) {
				t.Errorf("broker %+v became %+v, %v", broker, again, err)
			}
		}
		if config, err := DecodeConfig("/config/topics/t", data); err == nil {
			again, err := DecodeConfig("/config/topics/t", EncodeConfig(config))
			if err != nil || !reflect.DeepEqual(config, again) {
				t.Errorf("configuration %v became %v, %v", config, again, err)
			}
		}
		if feature, err := DecodeFeature(data); err == nil {
			if again, err := DecodeFeature(encodeFeature(&feature)); err != nil || !reflect.DeepEqual(feature, again) {
				t.Errorf("feature %+v became %+v, %v", feature, again, err)
			}
		}
		if next, err := NextProducerID(data); err == nil && next < 0 {
			t.Errorf("producer id %d", next)
		}
		_, _ = decodeClusterID(data)
		_, _, _ = decodeController(data)
		_, _ = decodeControllerEpoch(data)
		_, _ = decodeConfigChange(data)
		_, _ = DecodePartitionList("/x", data)
		_, _ = DecodeReassignments(data)
		_, _ = DecodeLogDirEvent(data)
	})
}

// FuzzLoadSession reads any file as a saved session: it is used only if it is this broker's.
func FuzzLoadSession(f *testing.F) {
	f.Add([]byte(`{"version":1,"servers":"h:1","clusterId":"c","brokerId":1,"id":7,"password":"AAAA"}`))
	f.Add([]byte(`{"version":`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(dir, "session")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		saved, ok, err := LoadSession(path, "h:1", "c", 1)
		if ok && (err != nil || saved.ID == 0 || saved.BrokerID != 1 || saved.ClusterID != "c") {
			t.Fatalf("%+v, %v", saved, err)
		}
	})
}
