// Package coordination simulates ensembles of coordinators and their clients: seeded, on one
// thread, in virtual time. The same seed gives the same run, to the last frame.
//
//	go run ./sim -world coordination -seeds 1000   many runs from a fresh starting seed
//	go run ./sim -world coordination -seed N       one run with its trace
//	go test ./sim/coordination                     fresh seeds, and every seed that ever failed
//	go test -tags mutation -run TestMutations ./sim/coordination   planted bugs, and which
//	                                               invariant finds them
//
// # What is real
//
// Everything a member consists of but its sockets and goroutines: ensemble.Stepped (etcd's
// RawNode, elections, exactly-once forwarding, barriers, serving, the apply loop, snapshots, the
// sessions' clock and the reports to it, the frames between members, encoded and decoded), wal
// over a file system in memory, znode.Machine, zkserver.Stepped (handshake, the order of reads,
// writes, events and replies, setWatches, sync), watch.Table.
//
// The parts of a member that have goroutines of their own in production (raft loop, log writer,
// apply loop, session clock, snapshots, the reader and the writer of each connection) are stepped
// one by one, each after a delay of its own; the log writer and the snapshots can be left between
// any two operations on the disk while the others go on.
//
// # What is a model
//
// The connections between members, and between clients and members: dialling, the hello, how
// and when an end is noticed. The clients: they keep watches as Java's client does, pipeline,
// ping at a third of the timeout, move to another member when a connection ends or is silent
// for two thirds, and set their watches again there. raft's election timeouts, which it draws
// from crypto/rand, are a hash of member, incarnation, term, leader and role in the same range
// (10 to 19 ticks); pre-vote, check-quorum and the leader's lease are raft's own, in ticks of the
// member's clock.
//
// # Fault model
//
// Network between members. A stream delivers in order, each frame after a delay, some after a
// long one. Frames are dropped and doubled by chance where a seed says so (production's streams
// do neither; the code promises to bear it). Streams break: what was under way is lost, or still
// arrives, even after what the next stream carries. Links are cut one way or both ways, members
// cut off altogether; a stream over a cut link holds its frames until the cut ends, or breaks.
// A dialler is refused by a dead member, and gets no answer from one that is paused or cut off.
// Snapshots travel on connections of their own. Nobody forges or alters a frame.
//
// Network to clients. Connections deliver in order and break: either end notices by an end of
// file, a reset, or only by silence. They stall in both directions and go on.
//
// Processes. A member is killed at any step and between any two operations on its disk, the ones
// of recovery included; its files are then as they were written. It is paused, and goes on later
// with what came meanwhile. It is stopped properly, with a handover. All members lose power at
// once.
//
// Disks. Power loss, also between any two operations: what was not synced is gone, or a part of it
// is there (a prefix, with pages of zeros in it); names that were not synced are gone. An fsync
// fails; the disk is full, in the middle of a write, for a while. Slow fsyncs. One member of an
// ensemble of three or more is damaged for good: bits are flipped in a file of it, or a write
// goes to another place of the same file. It may refuse to work from then on; what it must not do
// is to go on as if nothing were missing. Not modelled: a write that the disk acknowledged and
// dropped, damage of more members than the ensemble can lose.
//
// Clocks. Each member's monotonic clock is fast or slow by up to 3 %, its wall clock off by up to
// minutes, and set forwards and backwards during the run.
//
// Clients. Fall silent for a while or for ever, close their sessions, end their connections
// without a word (with and without fast expiry). Strangers ask for their sessions.
//
// # Invariants
//
// They are checked at every step that can break them. Two things stand for the truth: the
// canonical log (the first member to apply an entry tells it; every other one must have applied
// the same), with a machine that applies it from the beginning, never from a snapshot; and a
// small model of the tree that knows nothing of package znode. Clients are judged by the bytes
// they got. The names:
//
//	one-leader-per-term       two members led in one term
//	one-vote-per-term         a member voted twice in one term, restarts included
//	log-matching              two members applied different entries at one index
//	identical-state           a member's Checksum differs from the canonical one at that index
//	identical-result          ... or a request's code, zxid, reply or events
//	snapshot-state            the state after restoring a snapshot differs from the log's
//	durable-before-answer     a member acknowledged an entry or a vote that it has not stored
//	majority-durable          an entry counts as committed that no majority's disks hold, synced
//	log-kept                  a member came back without what it had acknowledged
//	hard-state-kept           ... or without its term or vote
//	start-refused             a member does not start, or not from its own state, though its disk was
//	                          not damaged
//	stopped-by-itself         a member stopped though its disk did not fail
//	acknowledged-lost         a client's write was answered and is not in the log as answered
//	applied-twice             a request took effect twice
//	zxid-epoch                a leader's zxids are not of an epoch of its own
//	fifo                      a session's writes were applied out of order, or with one left out
//	tree-model                the tree is not what the writes make of it, or one was refused for no reason
//	linearizable-writes       a write was ordered before one acknowledged before it was sent
//	sync-read                 a read behind a sync does not see what was acknowledged before it,
//	                          or a member serves clients before it has caught up
//	read-content              a read's answer is not the state at its zxid
//	zxid-monotone             a session saw a zxid go back
//	reply-order               an answer came out of turn
//	watch-order               a client saw a state newer than an event it had not been sent
//	watch-spurious            an event without a watch or a change, or a one-shot watch fired twice
//	watch-lost                setWatches kept silent about a change
//	expiry-by-leader-only     somebody else than raft's leader ended a session
//	session-expired-early     a session ended though its client kept in touch, undisturbed
//	session-lives-on          a silent session outlived its timeout, with everything well
//	session-stolen            somebody without its password got a session
//	ended-session-acts        a session did something after its end
//	ended-session-served      a client is still served long after its session ended
//	connection-lost-stale     the loss of a connection was held against the session's next one
//	stamp-backwards           a leader stamped an entry with a time before the last one's
//	no-progress               with everything well again, clients wait for ever
//	no-convergence            ... or members do not come to the same state
//	panic                     the code panicked
package coordination
