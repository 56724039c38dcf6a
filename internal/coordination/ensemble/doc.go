// Package ensemble runs one member of the coordinator: it owns raft, the log on disk, the
// apply loop, the lock around the tree, the streams among the members and the decision when a
// session is over. The znode package says what an entry means; this package says in which
// order entries exist, and when they are safe.
//
// # Goroutines, and what each owns
//
//	raft loop     the RawNode, the leader's intake, the forwarding cursor; never waits for
//	              disk or network (run.go)
//	log writer    the write-ahead log: takes everything that queued up during the last fsync,
//	              writes it, syncs once, and only then hands raft its answers (storage.go)
//	apply loop    the tree in write mode; calls the Observer; barriers (apply.go)
//	snapshotter   one snapshot at a time, from a frozen tree (snapshot.go)
//	per peer      one dialler and writer; one reader per accepted stream (transport.go)
//	sessions      the leader's expiry clock, the members' liveness reports (expiry.go)
//
// NewStepped makes a member that has none of these goroutines: its owner lets each do one piece
// of its work at a time, in any order, with a clock, streams and a disk of its own. sim/coordination
// runs whole ensembles of them on one thread.
//
// # Exactly once
//
// raft drops proposals silently around a change of leader, and a lost write 5 before a
// committed write 6 would break a session's order. So raft's own forwarding is off. A member
// numbers its requests (member, incarnation, sequence), sends them to the leader in order over
// its own stream, and keeps them until it has applied them itself. Whatever could have been
// lost in between (a new leader or term, a new stream, a refusal) makes it send again from the
// oldest one not applied; Apply takes only the next sequence and ignores the rest.
//
// # Locks
//
// treeMu (the tree, written by the apply loop alone) is taken before forward.mu and before
// sessions.mu; neither of those two is held while taking another.
package ensemble
