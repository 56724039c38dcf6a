// Package registry is the streaming half's view of the cluster state that lives in znodes:
// every path and every JSON document that a Kafka 3.9 broker in ZooKeeper mode reads or
// writes, typed, and the guarded writes among them (broker registration, controller
// election, writes fenced by the controller epoch, configuration changes).
//
// It owns no state of its own beyond the client it talks through. Decoders are lenient, as
// Kafka's are: unknown keys are ignored, older versions of a document are understood.
// Encoders write exactly what Kafka 3.9 writes (versions, strings against numbers); the
// order of keys is ours, since Kafka's own comes out of a hash map.
//
// Reads and writes of many nodes go out pipelined in one batch (Execute). A request that
// comes back with a lost connection is sent again until its context ends, so every write
// here may be executed twice; where that matters the method reads again and compares.
//
// Paths, schemas and guards: Kafka 3.9 core/src/main/scala/kafka/zk/{ZkData,KafkaZkClient}.scala.
package registry
