package wire

import (
	"encoding/binary"
	"net"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Request is one request as a handler gets it. The handler, or whoever it hands the request
// to, calls exactly one of Reply, ReplyRaw, NoReply and CloseConnection, exactly once, from
// any goroutine. After that the request and the byte fields of Body must not be used any
// more: the buffer below them serves the next request.
type Request struct {
	Key, Version  int16
	CorrelationID int32
	ClientID      string // "" if none was given
	Body          kmsg.Request
	Listener      string // the listener's name
	RemoteAddr    net.Addr
	Connection    uint64 // on which it came: they are numbered as they are accepted

	conn    *conn
	carried *carried // instead of conn, see Server.Carry
	frame   *[]byte  // the frame below Body; pooled if large
	bytes   int      // of the frame, for the bound on what is in flight

	// Guarded by conn.mu.
	finished bool
	answer   answer
	onClose  func()
}

// RawResponse is a response body that writes itself, so that records can go from the page
// cache to the socket.
type RawResponse interface {
	// Size is the number of bytes that WriteTo will write after the prefix.
	Size() int
	// WriteTo writes the prefix (the frame's size and header), then the body. It is called
	// at most once, from the connection's writing goroutine. Any error, and any number of
	// bytes other than promised, ends the connection.
	WriteTo(conn net.Conn, prefix []byte) (int64, error)
	// Release is called exactly once, when the response has been written or never will be.
	Release()
}

// answer is what goes out for a request: encoded bytes, a frame's prefix and a raw body, or
// nothing.
type answer struct {
	encoded *[]byte
	raw     RawResponse
}

// Reply answers with a message. Its version is set to the request's.
func (r *Request) Reply(response kmsg.Response) {
	response.SetVersion(r.Version)
	r.replyAs(response)
}

func (r *Request) replyAs(response kmsg.Response) {
	buffer := getBuffer(0)
	out := append((*buffer)[:0], 0, 0, 0, 0)
	out = appendResponseHeader(out, r.Key, response.IsFlexible(), r.CorrelationID)
	out = response.AppendTo(out)
	binary.BigEndian.PutUint32(out, uint32(len(out)-4))
	*buffer = out
	r.finish(answer{encoded: buffer})
}

// ReplyRaw answers with a body that writes itself.
func (r *Request) ReplyRaw(response RawResponse) {
	buffer := getBuffer(0)
	out := append((*buffer)[:0], 0, 0, 0, 0)
	out = appendResponseHeader(out, r.Key, r.Body.IsFlexible(), r.CorrelationID)
	binary.BigEndian.PutUint32(out, uint32(len(out)-4+response.Size()))
	*buffer = out
	r.finish(answer{encoded: buffer, raw: response})
}

// NoReply ends a request that gets no answer (Produce with acks=0).
func (r *Request) NoReply() { r.finish(answer{}) }

func (r *Request) finish(a answer) {
	if r.carried != nil {
		r.carried.finish(r, a)
		return
	}
	r.conn.finish(r, a)
}

// CloseConnection ends a request, and the connection with it; answers that have not been
// written yet are lost.
func (r *Request) CloseConnection() {
	if r.carried != nil {
		r.carried.close(r)
		return
	}
	r.conn.close(errHandlerClosed)
}

// OnClose has f called if the connection ends before the request is answered, or at once if
// it has ended. The request must still be answered; f is there to hasten that.
func (r *Request) OnClose(f func()) {
	if r.carried != nil {
		r.carried.onClose(r, f)
		return
	}
	c := r.conn
	c.mu.Lock()
	dead := c.mu.err != nil
	if !dead && !r.finished {
		r.onClose = f
	}
	c.mu.Unlock()
	if dead {
		f()
	}
}

// bufferPool holds buffers for responses and for large request frames.
var bufferPool = sync.Pool{New: func() any { return new([]byte) }}

// pooledBytesMax keeps the odd huge frame from living on in the pool.
const pooledBytesMax = 2 << 20

func getBuffer(size int) *[]byte {
	buffer := bufferPool.Get().(*[]byte)
	if cap(*buffer) < size {
		*buffer = make([]byte, 0, size)
	}
	return buffer
}

func putBuffer(buffer *[]byte) {
	if buffer != nil && cap(*buffer) <= pooledBytesMax {
		*buffer = (*buffer)[:0]
		bufferPool.Put(buffer)
	}
}
