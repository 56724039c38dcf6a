// Package zookeeper judges a ZooKeeper ensemble, ours or Apache's, by what its clients saw.
//
// Record runs concurrent clients against the servers and returns a history; Check says what in
// a history must not be. The clients are this package's own: one goroutine each, which sends a
// burst of requests and reads frames until all are answered, so that the order of replies and
// events in the history is their order on the wire. Nothing is repeated and nothing hidden: a
// request whose reply did not come stays open in the history, a reconnection is an entry.
//
// # What is written
//
// Under a znode of its own the run has directories of objects (d0, d1, …). An object is three
// znodes, a, b and c with the object's number behind; every operation, multi included, stays
// within one object, so objects can be judged one by one. Beside them are parents of sequential
// znodes (s0, …) and the ephemerals (e).
//
// Every value is written once in a run: what a read returns names the write.
package zookeeper
