// Package replication hosts this broker's replicas: it owns the set of hosted partitions,
// carries out what the controller says about them (LeaderAndIsr, StopReplica), appends for
// producers, reads for consumers and followers, keeps followers fetching, and asks the
// controller for ISR changes (AlterPartition).
//
// The rules of one replica are in package partition, which is deterministic; this package is
// the shell around it: locks, logs, sockets and time.
//
// # Who owns what
//
// Each hosted partition has a small mutex over its partition.Replica and the list of fetches
// that wait for it, and a role lock: appends hold it shared from the leadership check to the
// end of the append, a change of role holds it exclusively. So a batch is never stamped with
// an epoch that is over. Lock order: Manager.control → hosted.role → hosted.mu; the locks of
// the log, of the fetchers, of the timing wheel and of the AlterPartition sender come last.
// No callback (done, OnRoleChange) runs under any of them but control.
//
// # Goroutines
//
// One for the timing wheel, one for the ticker (pause detection, ISR timer, high watermark
// checkpoint), one for the AlterPartition channel, and one per (leader, fetcher number). None
// per partition, per waiting fetch or per waiting append: those are entries in a wheel and
// in their partition's list, completed by whoever makes the change they wait for.
//
// # A leader's right
//
// Manager.SuspendLeadership (the session is known to be gone) or a gap in the ticker (the
// process was paused) takes away the right to acknowledge: appends are refused, and an
// acknowledgement whose time comes leaves as NOT_LEADER_OR_FOLLOWER. The right comes back for
// all partitions by ResumeLeadership, or partition by partition with a LeaderAndIsr that was
// sent to a newer incarnation of this broker than the suspended one.
//
// Errors in results are *kerr.Error values (or wrap one); nil is success.
package replication
