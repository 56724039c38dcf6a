// Package zkserver is the coordinator's client port: it speaks ZooKeeper's protocol with clients and translates between
// them and an ensemble member, which owns the tree.
//
// # The path of a request
//
// Each connection has two goroutines. The reader takes frames off the socket and deals with each as it comes: a write is
// put into the connection's queue and submitted to the ensemble; a read is answered at once under the tree's read lock,
// unless own writes are unfinished, then it goes into the queue behind them. The ensemble's apply loop calls Applied with
// every change: it queues the events for the watchers, then answers the write at the head of the queue, then performs the
// reads behind it up to the next write. So a read sees exactly the state at its place in the session's order.
//
// Whoever answers only appends to the connection's output. The reader writes it to the socket when it has run out of
// input; for what the apply loop has added, the second goroutine, the writer, does. One write takes all there is.
//
// # Order of events and replies
//
// A client registers its watch when the reply comes, so an event must not overtake the reply of the read that set the
// watch; and a client must not see data newer than an event it has not got. Reading, registering the watch and appending
// the reply are one step under the tree's read lock; Applied appends events under the write lock, before that change's
// own reply. Bytes appended to the output are never reordered.
//
// # Locks
//
// The tree's lock (the member's) is outermost, then conn.mu, then Server.watches.mu. Server.mu is a leaf, taken with none of
// the latter two held below it. No socket is written under any of them.
//
// # Bounds
//
// A frame is at most MaxFrameBytes. A reader stops reading while its connection has pendingMax unfinished requests or
// outputSoftBytes unsent. A connection to which the apply loop has added outputHardBytes that nobody takes is closed.
package zkserver
