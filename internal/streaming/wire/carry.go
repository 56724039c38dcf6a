package wire

import (
	"bytes"
	"fmt"
	"net"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Outcome is what became of a carried request.
type Outcome struct {
	Response kmsg.Response // nil: there is none (Produce with acks=0), or the connection was closed
	Closed   bool          // the handler closed the connection
}

// Carry hands a request to its handler without a connection: for those who carry requests by
// other means than sockets (the simulator). The request is encoded and decoded on its way, and
// so is the answer. done is called once, possibly before Carry returns; it runs where the
// handler answers. connection is what Request.Connection is to be. hangUp tells the handler that
// nobody waits any more; the answer still comes.
func (s *Server) Carry(request kmsg.Request, clientID, listener string, connection uint64, done func(Outcome)) (hangUp func(), err error) {
	api := s.apis[request.Key()]
	if api == nil || request.GetVersion() < api.Min || request.GetVersion() > api.Max {
		return nil, fmt.Errorf("%s version %d is not served", kmsg.NameForKey(request.Key()), request.GetVersion())
	}
	body := api.body(request.GetVersion())
	if err := readBody(body, appendBody(nil, request)); err != nil {
		return nil, err
	}
	c := &carried{done: done}
	r := &Request{Key: request.Key(), Version: request.GetVersion(), ClientID: clientID, Body: body, Listener: listener, Connection: connection, carried: c}
	api.handle(r)
	return func() { c.hangUp(r) }, nil
}

// carried stands for the connection of one request.
type carried struct {
	done func(Outcome)
	mu   sync.Mutex // guards the request's finished and onClose
	gone bool       // hangUp was called
}

// end notes that the request is over.
func (c *carried) end(r *Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.finished {
		panic(fmt.Sprintf("wire: %s answered twice", kmsg.NameForKey(r.Key)))
	}
	r.finished = true
	r.onClose = nil
}

func (c *carried) close(r *Request) {
	c.end(r)
	c.done(Outcome{Closed: true})
}

func (c *carried) finish(r *Request, a answer) {
	c.end(r)
	if a.encoded == nil {
		c.done(Outcome{})
		return
	}
	frame := gathered{}
	if a.raw != nil {
		if _, err := a.raw.WriteTo(&frame, *a.encoded); err != nil {
			panic(fmt.Sprintf("wire: a carried answer to %s cannot be read: %v", kmsg.NameForKey(r.Key), err))
		}
		a.raw.Release()
	} else {
		frame.Buffer.Write(*a.encoded)
	}
	putBuffer(a.encoded)
	response := r.Body.ResponseKind()
	const prefix = 8 // size and correlation id
	if err := readResponse(response, frame.Bytes()[prefix:]); err != nil {
		panic(fmt.Sprintf("wire: the answer to %s version %d does not decode: %v", kmsg.NameForKey(r.Key), r.Version, err))
	}
	c.done(Outcome{Response: response})
}

func (c *carried) onClose(r *Request, f func()) {
	c.mu.Lock()
	gone := c.gone
	if !gone && !r.finished {
		r.onClose = f
	}
	c.mu.Unlock()
	if gone {
		f()
	}
}

func (c *carried) hangUp(r *Request) {
	c.mu.Lock()
	told := r.onClose
	c.gone, r.onClose = true, nil
	c.mu.Unlock()
	if told != nil {
		told()
	}
}

// gathered collects what would go to a socket.
type gathered struct {
	net.Conn // nil: an answer is only written
	bytes.Buffer
}

func (g *gathered) Read(p []byte) (int, error)  { return g.Buffer.Read(p) }
func (g *gathered) Write(p []byte) (int, error) { return g.Buffer.Write(p) }
