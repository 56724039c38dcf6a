// Package commitlog keeps partitions' logs on disk in exactly the files that Apache Kafka
// 3.9 keeps: segments with offset, time and transaction indexes, producer snapshots, the
// leader epoch checkpoint, partition.metadata, and per log directory meta.properties, the
// offset checkpoints, the lock and the clean-shutdown mark. A directory written by one
// starts under the other. One file is ours alone, and passed over by Apache's broker:
// leader-epoch-begin (EpochBegin).
//
// # What it owns
//
// A Manager owns the log directories: their locks, identity, checkpoints and background
// work (retention, flushing, deletion). A Log owns one partition's replica on disk: its
// bytes, its offsets, the leader epoch cache, and the producers' sequence state. It knows
// nothing of leaders, followers and in-sync replicas: the caller decides who may append,
// and tells the log the high watermark.
//
// # Concurrency
//
// All methods may be called concurrently. Within a Log, one writer at a time holds the
// writer lock through its file write; readers never take that lock, they read the
// published state (segments, sizes, end offset) under a lock held for nanoseconds. Locks
// nest in this order: Manager.mu, Log.writer, Log.published, then the file cache's and
// the checkpoints' own.
//
// A partition that is idle costs its Log value (some KiB) and no goroutine, timer or open
// file: files are opened on use and the least recently used are closed.
//
// # Durability
//
// An append is in the page cache when it returns; it survives kill -9, not a power
// failure. A background flush moves the recovery point and a producer snapshot together
// every Config.FlushBytes, so that a restart after a crash checks little. Log.SyncTo waits
// for an fsync, shared by all who wait; with Log.SyncInTurn the logs of a directory take turns,
// so that each fsync covers more. After a failed write or fsync the directory's logs
// accept nothing more (KAFKA_STORAGE_ERROR) until the server is started anew: what the
// page cache holds after a failed fsync is not known.
//
// # Differences from Kafka that files do not show
//
// A producer snapshot holds an entry for each of a producer's last five batches, oldest
// first, where Kafka writes one: Kafka's reader lets the last one win, ours gets the whole
// window back. Index files are not preallocated. A mid-segment snapshot may exist, named
// by its offset like any other.
package commitlog
