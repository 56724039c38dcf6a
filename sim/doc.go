// Command sim runs whole clusters, seeded, on one thread and in virtual time: brokers made of
// the real replication, partition, commitlog, metadata and controller packages, over disks in
// memory, a coordinator that is a real znode.Machine with sessions and watches, a network,
// producers and readers. After every step invariants are checked. The same seed gives the
// same run, to the last event.
//
//	go run ./sim -seeds 1000        many runs from a fresh starting seed
//	go run ./sim -seed N            one run with its trace
//	go test ./sim                   a few hundred, and every seed that ever failed
//	go test -tags mutation ./sim    planted bugs, and which invariant finds them
//
// # What is real
//
// Everything that decides: replication.Manager (appends, fetches, roles, fetchers, ISR changes
// and the right to lead; package replication's Stepped moves it without goroutines),
// partition.Replica, commitlog over vfs.Mem with its recovery, metadata.Cache,
// controller.Core, registry (documents, fences, elections, registration), znode.Machine with
// encoded log entries, watch.Table.
//
// # What is a model
//
// The ensemble is one machine that applies each request at once (raft, forwarding and the
// members' own failures are not simulated here), and a second one that gets the same entries,
// encoded, and now and then a snapshot. The shell of the controller, of the broker's session
// and of the connections is written here after the real ones. Clients are small: an
// idempotent producer with five batches in flight that retries for ever, a reader. Fetch
// sessions are not simulated: every fetch is a full one.
//
// # Fault model
//
// Network. Messages travel on connections: in order, delayed each by chance, some for long. A
// connection breaks by chance and loses what is under way from that message on; what had been
// sent on it before may still arrive, after what its successor carries. A request without an
// answer is sent again on a new connection, so it may be carried out twice and late (but not by
// the coordinator, where a session moves with its connection). Links
// are cut one way or both for a while. Nobody forges or alters a message.
//
// Processes. A broker is killed at any step, also between two operations on its disk in the
// middle of a step; its files then are as they were written (the page cache survives). It is
// paused and goes on later with everything that came meanwhile. It is started again.
//
// Disks. Power loss, also between two disk operations: what was not synced is gone, or some
// of it, or pages of it are zeros; names not synced are gone. acks=all means, as in Kafka, in
// the page cache of every in-sync replica, so a power loss hits a broker only while another
// member of the ISR has everything and is up, and the broker stays down until the ISR is
// without it. (Beyond that Kafka's defaults lose data. The simulator would say so.)
//
// Clocks. Each broker's wall clock is off by up to minutes and fast or slow by up to 5 %.
//
// Sessions expire when the coordinator has not heard of a broker for the timeout, at once
// after a kill (fast expiry) or late, and by chance without any reason.
//
// Not simulated: bit flips and misdirected writes, failed fsync, full disks, groups,
// transactions, compaction and retention, topic deletion, reassignment.
//
// # Invariants
//
// See the names in check.go.
package main
