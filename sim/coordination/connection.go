package coordination

import (
	"encoding/binary"
	"io"
	"slices"
	"syscall"
	"time"

	"understudy/internal/coordination/zkserver"
)

// connection is one between a client and a member.
type connection struct {
	w      *world
	number int
	c      *client
	m      *member
	life   int                   // of the member's process
	server *zkserver.SteppedConn // nil until accepted

	toServer, toClient time.Duration // arrival of the last thing each way
	serverGone         bool          // the server's end is closed, or will be with what is under way
	clientGone         bool
	stallTo            time.Duration
	disturbedAt        time.Duration
	attachedAt         time.Duration // when the client got the handshake's answer; 0: not yet
	partial            []byte        // of a frame to the client
}

// connect begins a connection; the client hears of it only by what comes on it, or by its end.
func (w *world) connect(c *client, m *member) *connection {
	w.counts["connections"]++
	k := &connection{w: w, number: w.counts["connections"], c: c, m: m, life: m.life, disturbedAt: w.now}
	k.toServer = w.now + w.network.delay()
	w.at(k.toServer, func() {
		if m.life != k.life || !m.up {
			k.serverGone = true
			k.tellClient()
			return
		}
		m.step("accept", func() {
			if k.clientGone {
				return
			}
			k.server = m.server.Connect(k.write, k.serverCloses)
			m.conns = append(m.conns, k)
		})
	})
	return k
}

// delay draws how long something takes on this connection.
func (k *connection) delay() time.Duration {
	d := k.w.network.delay()
	if k.w.now < k.stallTo {
		d += k.stallTo - k.w.now
	}
	return d
}

// send carries a frame's content to the server.
func (k *connection) send(frame []byte) {
	k.toServer = max(k.w.now+k.delay(), k.toServer+time.Microsecond)
	k.w.at(k.toServer, func() {
		if k.m.life != k.life {
			return
		}
		k.m.step("input", func() {
			if k.server != nil && !k.serverGone {
				k.server.Input(frame)
			}
		})
	})
}

// write is the server's: what it sends goes to the client.
func (k *connection) write(b []byte) error {
	if k.clientGone && k.w.oneIn(2) {
		return syscall.EPIPE
	}
	data := slices.Clone(b)
	k.toClient = max(k.w.now+k.delay(), k.toClient+time.Microsecond)
	k.w.at(k.toClient, func() {
		if !k.clientGone {
			k.take(data)
		}
	})
	return nil
}

// take cuts what arrived into frames for the client.
func (k *connection) take(data []byte) {
	k.partial = append(k.partial, data...)
	for len(k.partial) >= 4 && !k.clientGone {
		n := int(binary.BigEndian.Uint32(k.partial))
		if len(k.partial) < 4+n {
			return
		}
		frame := k.partial[4 : 4+n]
		k.partial = k.partial[4+n:]
		k.c.deliver(k, frame)
	}
}

// serverCloses is the server's end of the connection.
func (k *connection) serverCloses() {
	k.serverGone = true
	k.m.conns = slices.DeleteFunc(slices.Clone(k.m.conns), func(other *connection) bool { return other == k })
	k.tellClient()
}

// tellClient has the client notice the end, behind all that was sent before.
func (k *connection) tellClient() {
	k.toClient = max(k.w.now+k.delay(), k.toClient+time.Microsecond)
	k.w.at(k.toClient, func() {
		if !k.clientGone {
			k.clientGone = true
			k.c.disconnected(k)
		}
	})
}

// processDied is the end of the server's process.
func (k *connection) processDied(power bool) {
	k.serverGone = true
	if power && k.w.oneIn(2) {
		return // nobody says so
	}
	k.tellClient()
}

// The ways in which a client ends a connection.
const (
	endWithEOF = iota
	endWithReset
	endInSilence
)

// drop is the client's end of the connection. how says what the server notices.
func (k *connection) drop(how int) {
	if k.clientGone {
		return
	}
	k.clientGone = true
	if how == endInSilence {
		return
	}
	err := io.EOF
	if how == endWithReset {
		err = syscall.ECONNRESET
	}
	k.toServer = max(k.w.now+k.delay(), k.toServer+time.Microsecond)
	k.w.at(k.toServer, func() {
		if k.m.life != k.life {
			return
		}
		k.m.step("peer ends", func() {
			if k.server != nil && !k.serverGone {
				k.server.PeerEnds(err)
			}
		})
	})
}

// settle plans the turns of the connection's reader and writer.
func (k *connection) settle() {
	if k.server == nil {
		return
	}
	w, part := k.w, partConn+3*k.number
	if k.server.Woken() {
		k.m.plan(part, w.between(0, 300*time.Microsecond), func() { k.server.Read(k.m.monotonic()) })
	}
	if k.server.WriterWoken() {
		k.m.plan(part+1, w.between(0, 300*time.Microsecond), func() { k.server.Write() })
	}
	if k.server.Polls() {
		k.m.plan(part+2, 5*time.Millisecond, func() { k.server.Read(k.m.monotonic()) })
	}
}
