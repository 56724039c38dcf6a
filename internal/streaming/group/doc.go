// Package group is the group coordinator: it owns the partitions of __consumer_offsets that
// this broker leads, and the groups that belong to them. What a group does is decided by
// package classic; here are the locks, the timers, the loading and the writing.
//
// # Shards
//
// A partition that this broker leads is a shard, made by OnElection with the partition's
// leader epoch. It is read from start to end in the background (groups answer
// COORDINATOR_LOAD_IN_PROGRESS meanwhile) and serves until OnResignation, which answers
// everything that waits with NOT_COORDINATOR. The next coordinator finds all that was
// acknowledged in the partition, because an answer that depends on a record leaves after the
// record is acknowledged by every in-sync replica.
//
// A shard's lock guards its groups. No callback runs and nothing is appended under it: what
// an event asks for goes into the shard's outbox, and whoever finds the outbox unattended
// empties it, in order, without the lock. So the writes of a group reach the log in the
// order of its events, requests that arrive while an append is being handed over share the
// next one, and a callback may call back in.
//
// There is no goroutine per group or shard: one timer for each shard with a deadline ahead,
// one goroutine for the expiry of offsets, and one for each partition being loaded (loadersMax
// at a time).
package group
