// Package wire moves Kafka messages over connections: frames, request and response headers,
// and the two ends of a connection.
//
// The messages themselves are kmsg's; StopReplica version 4 is put right here (see
// message.go). The package knows nothing of what the messages mean, ApiVersions apart, whose
// framing has rules of its own.
//
// # Client
//
// A Client is one connection to one broker. Requests are pipelined, and answered in the order
// in which they were started; Closed fires as soon as the peer goes.
//
// # Server
//
// A Server reads each connection in a goroutine of its own, decodes, and calls the handler of
// the request's key: so the requests of one connection are handled in order. A handler may
// answer later, from any goroutine; answers leave in the order of the requests, many in one
// write. What one connection may have in flight is bounded: a client that sends more is not
// read until it has been answered.
//
// Nothing is ever allocated by a length that was not checked against what really came in:
// frames grow as their bytes arrive, and a message's structure is walked over before kmsg
// decodes it (structure.go).
package wire
