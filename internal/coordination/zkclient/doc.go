// Package zkclient is a ZooKeeper client: what brokers, the command line and
// the console use to reach an ensemble, ours or Apache's.
//
// One Client is one session. Requests are pipelined over one connection and
// answered in the order in which they were started; many queued requests leave
// in one write. The client keeps the session alive, re-attaches it to the next
// server when a connection is lost, and puts its one-shot watches back.
//
// # Callbacks
//
// Watch events (Config.OnEvent), changes of state (Config.OnState) and the
// completions of Start are delivered one at a time by a single goroutine, the
// client's event goroutine, in the order in which they came over the wire: an
// event is delivered before the replies that followed it, a loss of the
// connection before the results of the requests that were lost with it.
// Therefore a callback must not wait for the client: Do, DoAll and Close panic
// when they are called from one (they could never return). Use Start there, or
// hand over to a goroutine of your own.
//
// # Lost connections
//
// A request whose reply did not come before the connection was lost has the
// result ErrConnectionLoss: it may or may not have been applied, and the client
// never repeats it. All requests that were started before the loss and not yet
// answered share that fate, sent or not, so that a later one of them is never
// executed without the earlier ones. A request started while there is no
// connection waits for the next one.
//
// # Expiry
//
// Only the ensemble can say that a session has expired; then the state is
// Expired and the client is finished, and its owner makes a new one. A client
// that is cut off cannot know: when the time it was promised (Session.Grace, or
// Session.Timeout without fast expiry) has passed without a connection the state
// is Doubtful, in which the owner must act as if the session were gone, until
// Connected or Expired follows.
package zkclient
