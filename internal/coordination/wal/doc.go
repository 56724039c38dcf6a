// Package wal keeps one member's raft log and snapshots on disk, durable and checked.
//
// It implements raft.Storage for reading (called by the raft loop) and has one writer (the log
// goroutine), which appends what raft asks for in groups: Append writes any number of raft's
// storage requests as one frame and syncs once. An entry becomes readable here only after that
// sync. A failed write or sync is final: every later Append returns the same error, because
// nobody can know what the disk holds after it.
//
// # Files
//
//	DIR/understudy-coordinator.json   identity: format version, member, members, incarnation
//	DIR/.lock                         fcntl lock, held while the log is open
//	DIR/log/SEQUENCE.wal              segments
//	DIR/snapshot/INDEX.snapshot       the tree at exactly that index
//	DIR/**/*.tmp                      unfinished; removed at start
//
// All integers are little-endian.
//
//	segment  = magic "USTDYWAL" | version u32 | crc u32               16 bytes
//	           frame*
//	frame    = mark u32 | sequence u64 | bytes u32 | crc u32          20 bytes, then
//	           record*                                                "bytes" of them
//	record   = bytes u32 | crc u32 | type u8 | payload                bytes = 1 + len(payload)
//
//	type 1 entry       index u64 | term u64 | raft entry type u8 | data
//	type 2 hard state  term u64 | vote u64 | commit u64
//	type 3 base        index u64 | term u64   of the entry before the next one (not kept itself)
//	type 4 reset       index u64 | term u64   everything before was replaced by this snapshot
//
//	snapshot = magic "USTDYSNP" | version u32 | index u64 | term u64  28 bytes
//	           body | body bytes u64 | crc u32 of all before
//
// crc is CRC-32C; a frame's covers its header, a record's its type and payload.
//
// # Torn or corrupt
//
// A frame is written only after the one before it is durable. So a bad frame that has a valid
// one behind it was once whole, and its damage is corruption: Open refuses with file and
// offset. A bad frame at the very end of the last segment is a torn write if it is short or
// holds a sector of zeros (what a crash leaves); it was never acknowledged, is cut off and
// reported. Any other damage at the end is corruption too: guessing would lose a write that
// may have been acknowledged.
//
// A frame with the missing number that stands further behind was written to a wrong place, which
// is corruption, too. What Open finds it makes durable before it counts: a process that was killed
// may have written and not synced it.
//
// A later entry with an index that exists replaces it and all that follow, as raft has it.
package wal
