// Package classic is one classic consumer group (Kafka's GroupMetadata and what
// GroupCoordinator does with it): members, generations and rebalances, and the group's
// committed offsets. It is deterministic: an event and the time go in; answers, and records
// to write, come out in an Effects. Timers are a value too: Wake says when Tick wants to be
// called. There is no clock, goroutine, input or output in here, and no map order shows.
//
// # Events
//
// Join, Sync, Heartbeat, Leave, Commit, Fetch, DeleteOffsets, Delete and Tick are called by
// the owner of the group, one at a time. A request that has to wait (Join, Sync, Commit, …)
// carries a Token, which comes back in exactly one Reply, in this call or a later one. What
// must be durable before it is answered comes out as a Write; the owner appends its records
// in the order of the writes and calls Complete with the outcome, again as an event.
//
// # States
//
//	Empty ⇄ PreparingRebalance → CompletingRebalance → Stable → PreparingRebalance …, Dead
//
// The join phase (PreparingRebalance) ends when every member has asked to join, or when the
// longest rebalance timeout is over; it starts a generation. The sync phase
// (CompletingRebalance) ends when the leader's assignment is durable.
//
// Where Kafka drops a request without an answer (a Join or Sync that a later one of the same
// member replaces) this package answers REBALANCE_IN_PROGRESS: our connections answer in
// order, and a request without an answer would hold up all that follow.
package classic
