// Package broker is one Kafka broker: it owns the listeners, the ZooKeeper session and the
// registration, wires the parts together (log, replication, metadata, controller, group
// coordinator), and answers requests.
//
// # Requests
//
// There is one file per API key, named NN_name.go. Its header says which versions it serves
// and what is particular about them; its register method hands the range and the handler to
// the wire server, so ApiVersions cannot promise what is not there. Handlers validate and
// translate; they own no state. They are called in order per connection, on its reading
// goroutine, and must not wait: an answer that takes time is given from a callback.
//
// # Life
//
// Start takes its steps in the order that Kafka 3.9 does (KafkaServer.startup), because peers
// rely on it: log directories are locked and recovered before an old session is closed, ports
// are bound before the broker registers, and requests are read only when everything that they
// could reach is there. Shutdown hands leadership over first and gives up the session last.
package broker
