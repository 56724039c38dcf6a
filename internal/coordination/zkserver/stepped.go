package zkserver

import (
	"errors"
	"io"
	"net"
	"time"

	"understudy/internal/coordination/jute"
)

// Stepped is a server without goroutines and sockets, for one goroutine: its connections move
// when their methods are called. Frames in, replies and events out, and their order are those
// of any Server.
type Stepped struct{ *Server }

// NewStepped makes a server for a member that is stepped, too. now is the wall clock that
// session ids are taken from, random what makes them and the passwords.
func NewStepped(config Config, now func() time.Time, random io.Reader) (*Stepped, error) {
	config.MaxClientConnections = -1
	s, err := New(config)
	if err != nil {
		return nil, err
	}
	s.now, s.random = now, random
	return &Stepped{s}, nil
}

// SteppedConn is one client connection of a Stepped.
type SteppedConn struct {
	c         *conn
	reading   func() (waits bool, err error) // what the reader does next
	arrived   [][]byte                       // not read from the socket yet
	frames    [][]byte                       // read from it with one call, and not taken yet
	peerEnd   error                          // what the peer ended the connection with, behind them
	handshake *handshake
	since     time.Time
	patience  time.Duration // how long the present wait may take; 0: for ever
	waitsFor  waitsFor
	over      bool
}

// Connect opens a connection. write is given what goes out, frame after frame, and may refuse;
// closed is called once when the server closes the connection.
func (s *Stepped) Connect(write func([]byte) error, closed func()) *SteppedConn {
	c := newConn(s.Server, &steppedSocket{write: write, closed: closed})
	c.stepped = true
	sc := &SteppedConn{c: c}
	sc.reading = sc.meet
	sc.over = !s.admit(c)
	return sc
}

// Input is a frame that has arrived, without its length.
func (sc *SteppedConn) Input(frame []byte) { sc.arrived = append(sc.arrived, frame) }

// PeerEnds says that after the frames so far the peer's end of the connection came: io.EOF, or
// syscall.ECONNRESET.
func (sc *SteppedConn) PeerEnds(err error) { sc.peerEnd = err }

// Closed says whether the server has closed the connection.
func (sc *SteppedConn) Closed() bool {
	select {
	case <-sc.c.done:
		return true
	default:
		return false
	}
}

// Session is the session that the connection has, 0 before the handshake is through.
func (sc *SteppedConn) Session() jute.SessionID {
	sc.c.mu.Lock()
	defer sc.c.mu.Unlock()
	return sc.c.mu.session
}

// Read is the reader's turn: it goes on until it has to wait for input, for the ensemble or for
// time to pass.
func (sc *SteppedConn) Read(now time.Time) {
	for !sc.over {
		if sc.Closed() {
			sc.end(net.ErrClosed)
			return
		}
		waits, err := sc.reading()
		switch {
		case err != nil:
			sc.end(err)
		case !waits:
			sc.since, sc.patience = time.Time{}, 0
		default:
			sc.wait(now)
			return
		}
	}
}

// wait looks whether the present wait has taken too long.
func (sc *SteppedConn) wait(now time.Time) {
	if sc.since.IsZero() {
		sc.since = now
	}
	if sc.patience > 0 && now.Sub(sc.since) >= sc.patience {
		sc.end(errNoOutcome)
	}
}

func (sc *SteppedConn) end(err error) {
	sc.over = true
	sc.c.ended(err)
}

// next takes a frame, as frameReader does: when those of the last read are through it reads
// again, and before that, what was answered goes out.
func (sc *SteppedConn) next() (frame []byte, err error) {
	if len(sc.frames) == 0 {
		sc.c.idle()
		sc.frames, sc.arrived = sc.arrived, nil
	}
	if len(sc.frames) == 0 {
		return nil, sc.peerEnd
	}
	frame = sc.frames[0]
	sc.frames = sc.frames[1:]
	return frame, nil
}

func (sc *SteppedConn) meet() (waits bool, err error) {
	frame, err := sc.next()
	if frame == nil || err != nil {
		return err == nil, err
	}
	if sc.handshake, err = sc.c.meet(frame); err != nil {
		return false, err
	}
	sc.reading, sc.waitsFor = sc.serving, forServing
	return false, nil
}

func (sc *SteppedConn) serving() (waits bool, err error) {
	s := sc.c.server
	sc.patience = s.holdServing
	s.mu.Lock()
	serving := s.mu.serving
	s.mu.Unlock()
	if serving {
		sc.reading = sc.caughtUp
	}
	return !serving, nil
}

func (sc *SteppedConn) caughtUp() (waits bool, err error) {
	sc.patience = sc.c.server.holdZxid
	if _, yes := sc.c.caughtUp(sc.handshake.request.LastZxidSeen); !yes {
		return true, nil
	}
	sc.patience = sc.c.attachBegins(sc.handshake)
	limit := sc.patience
	sc.waitsFor = forOutcome
	sc.reading = func() (bool, error) {
		sc.patience = limit
		return sc.attaching()
	}
	return false, nil
}

func (sc *SteppedConn) attaching() (waits bool, err error) {
	select {
	case <-sc.c.ready:
	default:
		return true, nil
	}
	if err := sc.c.attachEnds(); err != nil {
		return false, err
	}
	sc.reading, sc.waitsFor = sc.request, forInput
	return false, nil
}

func (sc *SteppedConn) request() (waits bool, err error) {
	frame, err := sc.next()
	if frame == nil || err != nil {
		return err == nil, err
	}
	err = sc.c.take(frame)
	if errors.Is(err, errSyncing) {
		sc.reading, sc.waitsFor = sc.syncing, forSync
		return false, nil
	}
	return false, err
}

func (sc *SteppedConn) syncing() (waits bool, err error) {
	select {
	case ok := <-sc.c.synced:
		sc.reading, sc.waitsFor = sc.request, forInput
		return false, sc.c.syncEnds(ok)
	default:
		return true, nil
	}
}

// Woken says whether Read would go on now: there is input, or what it waits for has come.
func (sc *SteppedConn) Woken() bool {
	switch {
	case sc.over:
		return false
	case sc.Closed():
		return true
	case sc.waitsFor == forInput:
		return len(sc.frames) > 0 || len(sc.arrived) > 0 || sc.peerEnd != nil
	case sc.waitsFor == forOutcome:
		select {
		case <-sc.c.ready:
			return true
		default:
			return false
		}
	case sc.waitsFor == forSync:
		return len(sc.c.synced) > 0
	}
	return false
}

// Polls says whether Read is to be called again after some milliseconds: the handshake waits
// for a leader, or for the member to catch up, or for no longer than so long.
func (sc *SteppedConn) Polls() bool {
	return !sc.over && (sc.waitsFor == forServing || sc.waitsFor == forOutcome)
}

// waitsFor is what a connection's reader waits for.
type waitsFor uint8

const (
	forInput   waitsFor = iota
	forServing          // or for the member to have applied what the client has seen
	forOutcome          // of the handshake
	forSync
)

// WriterWoken says whether the writer has something to do; Write is its turn.
func (sc *SteppedConn) WriterWoken() bool { return len(sc.c.wake) > 0 && !sc.Closed() }

// Write sends what the apply loop has appended.
func (sc *SteppedConn) Write() {
	select {
	case <-sc.c.wake:
		sc.c.flush()
	default:
	}
}

// steppedSocket is the server's end of a connection that somebody else carries.
type steppedSocket struct {
	write  func([]byte) error
	closed func()
}

func (s *steppedSocket) Read([]byte) (int, error) { return 0, net.ErrClosed }

func (s *steppedSocket) Write(b []byte) (int, error) {
	if err := s.write(b); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (s *steppedSocket) Close() error {
	s.closed()
	return nil
}

func (s *steppedSocket) LocalAddr() net.Addr              { return pipeAddr{} }
func (s *steppedSocket) RemoteAddr() net.Addr             { return pipeAddr{} }
func (s *steppedSocket) SetDeadline(time.Time) error      { return nil }
func (s *steppedSocket) SetReadDeadline(time.Time) error  { return nil }
func (s *steppedSocket) SetWriteDeadline(time.Time) error { return nil }
