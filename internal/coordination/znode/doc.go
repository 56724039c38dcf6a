// Package znode is the coordinator's replicated state machine: the tree of znodes with their ACLs, the sessions and
// their ephemerals, the zxid, and the table that makes forwarded writes happen exactly once.
//
// A Machine takes one Batch per log entry (Apply) and gives one Result per request: the reply for the client and the
// events for whoever watches; who that is belongs to package watch and to each member alone. All validation of a write
// happens in Apply, in ZooKeeper's order of checks; whatever could differ between members (time, session ids,
// passwords) is in the entry. Apply is total: any batch, of whatever origin, has a result.
//
// The package is deterministic: no clock, no goroutine, no randomness, no I/O, no map order that shows. Members that
// have applied the same entries have equal Checksums, whether or not they were restored from a snapshot in between.
//
// Concurrency: Apply and Freeze need the write lock of whoever owns the Machine; every method that is a read (HandleRead,
// Session, …) needs the read lock and may run beside other reads. A Snapshot may be written without any lock while
// Apply goes on.
//
// Times are milliseconds since 1970, as on the wire.
package znode
