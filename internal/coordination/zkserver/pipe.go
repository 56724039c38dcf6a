package zkserver

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// pipeBytesMax is how much one direction of a pipe holds before the writer waits. net.Pipe holds nothing: every write
// would wait for the other side's goroutine.
const pipeBytesMax = 256 << 10

// newPipe makes a connection in memory.
func newPipe() (client, server net.Conn) {
	up, down := newStream(), newStream()
	return &pipeEnd{in: down, out: up}, &pipeEnd{in: up, out: down}
}

// pipeEnd is one end.
type pipeEnd struct{ in, out *stream }

func (p *pipeEnd) Read(b []byte) (int, error)  { return p.in.read(b) }
func (p *pipeEnd) Write(b []byte) (int, error) { return p.out.write(b) }

// Close ends both directions. What was written before can still be read by the other end.
func (p *pipeEnd) Close() error {
	p.out.close(false)
	p.in.close(true)
	return nil
}

func (p *pipeEnd) LocalAddr() net.Addr  { return pipeAddr{} }
func (p *pipeEnd) RemoteAddr() net.Addr { return pipeAddr{} }

func (p *pipeEnd) SetDeadline(t time.Time) error {
	p.in.setDeadline(&p.in.readDeadline, t)
	p.out.setDeadline(&p.out.writeDeadline, t)
	return nil
}

func (p *pipeEnd) SetReadDeadline(t time.Time) error {
	p.in.setDeadline(&p.in.readDeadline, t)
	return nil
}

func (p *pipeEnd) SetWriteDeadline(t time.Time) error {
	p.out.setDeadline(&p.out.writeDeadline, t)
	return nil
}

// pipeAddr reads as the local host, so that an ip ACL finds what it would find over the loopback.
type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "127.0.0.1:0" }

// stream is one direction.
type stream struct {
	mu                          sync.Mutex
	changed                     *sync.Cond
	buf                         []byte
	start                       int
	closed                      bool // by the writer: io.EOF once the buffer is empty
	dropped                     bool // by the reader: nobody wants it any more
	readDeadline, writeDeadline deadline
}

type deadline struct {
	timer  *time.Timer
	passed bool
	count  int
}

func newStream() *stream {
	s := &stream{}
	s.changed = sync.NewCond(&s.mu)
	return s
}

func (s *stream) read(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.dropped:
			return 0, net.ErrClosed
		case s.start < len(s.buf):
			n := copy(b, s.buf[s.start:])
			if s.start += n; s.start == len(s.buf) {
				s.buf, s.start = s.buf[:0], 0
			}
			s.changed.Broadcast()
			return n, nil
		case s.closed:
			return 0, io.EOF
		case s.readDeadline.passed:
			return 0, os.ErrDeadlineExceeded
		}
		s.changed.Wait()
	}
}

func (s *stream) write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	written := 0
	for {
		switch {
		case s.closed:
			return written, net.ErrClosed
		case s.dropped:
			return written, io.ErrClosedPipe
		case len(b) == 0:
			return written, nil
		case s.writeDeadline.passed:
			return written, os.ErrDeadlineExceeded
		}
		if room := pipeBytesMax - (len(s.buf) - s.start); room > 0 {
			if s.start > 0 {
				s.buf, s.start = s.buf[:copy(s.buf, s.buf[s.start:])], 0
			}
			n := min(room, len(b))
			s.buf = append(s.buf, b[:n]...)
			b, written = b[n:], written+n
			s.changed.Broadcast()
			continue
		}
		s.changed.Wait()
	}
}

func (s *stream) close(byReader bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if byReader {
		s.dropped = true
		s.buf = nil
		s.start = 0
	} else {
		s.closed = true
	}
	s.changed.Broadcast()
}

func (s *stream) setDeadline(d *deadline, t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
	d.passed = false
	d.count++
	if t.IsZero() {
		return
	}
	this := d.count
	d.timer = time.AfterFunc(time.Until(t), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if d.count == this {
			d.passed = true
			s.changed.Broadcast()
		}
	})
}
