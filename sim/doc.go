// Command sim runs whole clusters, seeded, on one thread and in virtual time. It has two
// worlds: this package is the streaming one, brokers and their clients over a coordinator that
// is a single machine; package sim/coordination is the ensemble. After every step invariants
// are checked. The same seed gives the same run, to the last event.
//
//	go run ./sim -seeds 1000          many runs of both worlds from a fresh starting seed
//	go run ./sim -seed N              one run with its trace (-world coordination: of the other world)
//	go run ./sim -seed N -shrink      the shortest schedule found that breaks the same invariant, with its trace
//	go test ./sim                     120 fresh seeds of this world (10 with -short) and some of the
//	                                  other, for at most 25 s each, and every seed that ever failed
//	go test -tags mutation -run TestMutations ./sim   planted bugs, and which invariant finds them
//
// A run's faults and workload are drawn as a list before it begins (schedule.go); what is left
// to chance while it runs (delays, broken connections, which broker is asked) comes from the
// seed, too.
//
// # What is real
//
// Everything that decides, and the handlers in front of it: broker.NewStepped (Produce, Fetch
// with its sessions, ListOffsets, OffsetForLeaderEpoch, Metadata, the control requests, and all
// requests of groups, encoded and decoded on their way), replication.Manager (appends, fetches,
// roles, fetchers, ISR changes, the right to lead, mending; package replication's Stepped moves
// it without goroutines), group.Coordinator in its stepped form with classic.Group,
// partition.Replica, commitlog over vfs.Mem with its recovery, metadata.Cache, controller.Core,
// registry (documents, fences, elections, registration), znode.Machine with encoded log
// entries, watch.Table.
//
// # What is a model
//
// The ensemble is one machine that applies each request at once (see sim/coordination for raft,
// forwarding and the members' own failures), and a second one that gets the same entries,
// encoded, and now and then a snapshot. The shells of the controller, of the broker's session
// and of the connections are written here after the real ones. Clients are small: an
// idempotent producer with five batches in flight that retries for ever (every other one's
// sequence wraps soon), a reader (from leaders
// and followers, with fetch sessions), members of a consumer group, and somebody who keeps
// offsets in a group without being a member. Requests that a broker makes in the middle of a
// step (a fetcher's ListOffsets, the repairer's fetches) take no time, but may fail.
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
// paused and goes on later with everything that came meanwhile. It is started again. In some runs
// a partition's leaders are killed one after the other, soon after each has become one. Members of
// groups halt, with a word or without, and come back; static ones as themselves.
//
// Disks.
//
//   - Power loss, also between two disk operations: what was not synced is gone, or some of it,
//     or pages of it are zeros; names not synced are gone. acks=all means, as in Kafka, in the
//     page cache of every in-sync replica, so without flush.messages=1 a power loss hits a
//     broker only while another member of the ISR has everything and is up, and the broker
//     stays down until the ISR is without it. (Beyond that Kafka's defaults lose data. The
//     simulator would say so.) With flush.messages=1 (config.durable) any broker may lose its
//     power at any time, and all at once: then nothing that was acknowledged may be lost.
//   - A failed fsync: once, for one log. The broker gives its directory up, must not acknowledge
//     anything from then on, ends soon, and what was not synced may be gone: as with a power
//     loss.
//   - A full disk: writes fail for a while, some after a part of their bytes. The broker gives
//     its directory up and ends. Nothing that was written is lost.
//   - Damage, to one broker's files at a time and while others in its ISRs have everything: a flipped bit,
//     or up to 60 bytes that were meant for another place (a misdirected write), in a log, an
//     index, a snapshot or a checkpoint. What is damaged must not reach a reader as valid data,
//     must not be replicated, and must be found and made whole from the others' copies; until
//     then the broker need not have what was damaged. No single bit is flipped in a batch's base
//     offset or leader epoch, which Kafka's checksum does not cover: see docs/bugs.md.
//
// Clocks. Each broker's wall clock is off by up to minutes and fast or slow by up to 5 %.
//
// Sessions expire when the coordinator has not heard of a broker for the timeout, at once
// after a kill (fast expiry) or late, and by chance without any reason.
//
// Topics. In every third run a topic is created, given more partitions, deleted, and created
// again under its name while there are faults, with clients that go on through all of that.
//
// Not simulated: transactions, compaction and retention, changes of configuration, and a power
// loss of everybody without flush.messages (which costs what no disk has, and must not cost
// more).
//
// # Invariants
//
// See the names in check.go.
package main
