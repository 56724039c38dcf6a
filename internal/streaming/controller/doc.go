// Package controller is the broker that decides for the cluster: it holds the ephemeral
// /controller, elects partition leaders, and tells the brokers.
//
// Two layers:
//
//   - Core is deterministic: no clock, network, goroutine or map order. Step takes an event
//     and the time and returns Effects: znode operations to execute in one pipelined batch,
//     requests to send to brokers, replies to give, lines to log. The results of the
//     operations go back through Complete, which returns the next Effects; no other event
//     may come in between. So the whole controller is tested as a function.
//   - Controller is the thin shell: one goroutine that owns the core, executes its batches
//     through the registry (every write fenced by the controller epoch), and one channel
//     per broker that sends requests in order and watches the connection.
//
// The cost of a wave of elections is bytes, not round trips: decisions come from cached
// state, all conditional writes of a chunk are in flight together, and only what conflicts
// is read again.
//
// Evidence (ours alone): when the connection to a broker closes and dialling it again is
// refused twice, the broker is treated as one that is shutting down: leaders are elected
// away and it leaves the ISRs, without waiting for its session. If the same incarnation
// answers after all, that is undone.
//
// Reference: Kafka 3.9 core/src/main/scala/kafka/controller.
package controller
