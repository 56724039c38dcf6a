package coordination

import (
	"errors"
	"time"
)

// pair is a direction between two members.
type pair [2]int

// network carries frames between members.
type network struct {
	w       *world
	cut     map[pair]time.Duration // until when
	streams map[pair]*stream       // the present one of each direction
	numbers map[pair]uint64
}

func newNetwork(w *world) *network {
	return &network{w: w, cut: map[pair]time.Duration{}, streams: map[pair]*stream{}, numbers: map[pair]uint64{}}
}

// stream is one connection, which carries frames one way.
type stream struct {
	from, to         *member
	fromLife, toLife int
	last             time.Duration // arrival of the last frame
	broken           bool
	late             bool // what is under way on it although it broke still arrives
	toldFrom, toldTo bool // that it is over
	fromUp           bool
}

func (n *network) isCut(from, to *member) bool { return n.w.now < n.cut[pair{from.index, to.index}] }

func (n *network) cutFor(from, to *member, length time.Duration) {
	key := pair{from.index, to.index}
	n.cut[key] = min(max(n.cut[key], n.w.now+length), n.w.config.duration)
	from.disturbed()
	to.disturbed()
	n.w.at(n.cut[key], func() { from.disturbed(); to.disturbed() })
	// A stream whose bytes are not acknowledged ends some time, as a rule after the cut.
	if s := n.streams[key]; s != nil {
		n.w.after(n.w.between(200*time.Millisecond, 4*time.Second), func() {
			if n.isCut(from, to) {
				n.breakStream(s)
			}
		})
	}
}

func (n *network) healAll() { clear(n.cut) }

// delay draws how long a frame takes.
func (n *network) delay() time.Duration {
	w := n.w
	if !w.calm && (w.oneIn(w.config.slowOneIn) || w.now < w.slowTo && w.oneIn(3)) {
		return w.between(time.Millisecond, w.config.slowMax)
	}
	return w.between(50*time.Microsecond, 2*time.Millisecond)
}

// dial tries to get a stream, again and again.
func (n *network) dial(from, to *member, life int, wait time.Duration) {
	w := n.w
	if from.life != life || !from.up {
		return
	}
	key := pair{from.index, to.index}
	if s := n.streams[key]; s != nil && (!s.broken || s.fromLife == life && !s.toldFrom) {
		return // it stands, or this end does not know yet that it does not
	}
	again := func(after time.Duration) {
		w.after(after, func() { n.dial(from, to, life, min(max(2*wait, 5*time.Millisecond), 250*time.Millisecond)) })
	}
	w.after(n.delay(), func() {
		switch {
		case from.life != life:
		case n.isCut(from, to) || n.isCut(to, from) || to.up && to.paused || from.paused:
			again(w.between(100*time.Millisecond, time.Second)) // no answer
		case !to.up:
			from.step("refused", func() { from.stepped.Refused(to.id) })
			again(wait)
		case n.streams[key] != nil && (!n.streams[key].broken || n.streams[key].fromLife == life && !n.streams[key].toldFrom):
		default:
			n.connect(from, to)
		}
	})
}

// connect is the exchange of hellos.
func (n *network) connect(from, to *member) {
	w := n.w
	key := pair{from.index, to.index}
	n.numbers[key]++
	number := n.numbers[key]
	s := &stream{from: from, to: to, fromLife: from.life, toLife: to.life, last: w.now}
	n.streams[key] = s
	w.trace("stream", "%s to %s: number %d", from.name, to.name, number)
	incarnation := from.stepped.Incarnation()
	to.step("stream in", func() { to.stepped.PeerStreamUp(from.id, incarnation) })
	if back := n.streams[pair{to.index, from.index}]; back == nil || back.broken {
		n.dial(to, from, to.life, 0) // it is there: do not wait with our own stream
	}
	w.after(n.delay(), func() {
		if s.broken || from.life != s.fromLife || to.life != s.toLife || !to.up {
			return
		}
		incarnation := to.stepped.Incarnation()
		from.step("stream out", func() {
			s.fromUp = true
			from.stepped.StreamUp(to.id, incarnation, number)
		})
	})
}

// breakStream ends a stream; both ends notice, each in its time.
func (n *network) breakStream(s *stream) {
	if s.broken {
		return
	}
	w := n.w
	s.broken, s.late = true, w.oneIn(2)
	w.trace("stream", "%s to %s breaks", s.from.name, s.to.name)
	s.from.disturbed()
	s.to.disturbed()
	w.after(n.notice(s.from, s.to), func() { n.tellFrom(s) })
	w.after(n.notice(s.to, s.from), func() { n.tellTo(s) })
}

// notice draws when an end of a stream learns that it is over.
func (n *network) notice(who, other *member) time.Duration {
	if n.isCut(who, other) || n.isCut(other, who) {
		return n.w.between(100*time.Millisecond, 2*time.Second)
	}
	return n.delay()
}

func (n *network) tellFrom(s *stream) {
	if s.toldFrom {
		return
	}
	s.toldFrom = true
	if s.from.life != s.fromLife || !s.from.up {
		return
	}
	if s.fromUp {
		s.from.step("stream out ends", func() { s.from.stepped.StreamDown(s.to.id) })
	}
	n.dial(s.from, s.to, s.fromLife, 0)
}

func (n *network) tellTo(s *stream) {
	if s.toldTo {
		return
	}
	s.toldTo = true
	if s.to.life == s.toLife {
		s.to.step("stream in ends", func() { s.to.stepped.PeerStreamDown(s.from.id) })
	}
}

// memberDied breaks all streams of a process that ended. Without power nobody says goodbye: it
// shows when the machine is back, or by silence.
func (n *network) memberDied(m *member, power bool) {
	for _, other := range n.w.members {
		for _, key := range []pair{{m.index, other.index}, {other.index, m.index}} {
			s := n.streams[key]
			if s == nil || s.broken {
				continue
			}
			s.broken, s.late = true, n.w.oneIn(2)
			silence := time.Duration(0)
			if power && n.w.oneIn(2) {
				silence = n.w.between(0, 2*time.Second)
			}
			n.w.after(silence+n.notice(other, m), func() { n.tellFrom(s); n.tellTo(s) })
		}
	}
}

// send carries a frame; false if there is no stream.
func (n *network) send(from, to *member, frame []byte, label string) bool {
	w := n.w
	s := n.streams[pair{from.index, to.index}]
	if s == nil || !s.fromUp || s.toldFrom || s.fromLife != from.life {
		return false
	}
	if s.broken {
		return true // it does not know yet
	}
	copies := 1
	if !w.calm {
		switch {
		case w.oneIn(w.config.dropOneIn):
			copies = 0
		case w.oneIn(w.config.doubleOneIn):
			copies = 2
		}
	}
	for range copies {
		s.last = max(w.now+n.delay(), s.last+time.Microsecond)
		w.at(s.last, func() { n.arrive(s, frame, label) })
	}
	return true
}

func (n *network) arrive(s *stream, frame []byte, label string) {
	w := n.w
	if s.to.life != s.toLife || s.broken && (!s.late || s.toldTo) {
		return
	}
	if n.isCut(s.from, s.to) && !s.broken {
		// Held back until the cut ends, in order.
		until := n.cut[pair{s.from.index, s.to.index}]
		s.last = max(s.last+time.Microsecond, until)
		w.at(max(until, w.now+time.Microsecond), func() { n.arrive(s, frame, label) })
		return
	}
	if s.to.paused {
		s.to.backlog = append(s.to.backlog, func() { n.arrive(s, frame, label) })
		return
	}
	if !s.to.stepped.Room() {
		w.after(time.Millisecond, func() { n.arrive(s, frame, label) })
		return
	}
	w.trace("frame", "%s to %s: %s, %d bytes", s.from.name, s.to.name, label, len(frame))
	s.to.step("frame", func() {
		if err := s.to.stepped.Receive(s.from.id, frame); err != nil {
			w.fail("panic", "%s refuses a frame %s of %s: %v", s.to.name, label, s.from.name, err)
		}
	})
}

var errSnapshotLost = errors.New("the connection broke")

// sendSnapshot carries a snapshot on a connection of its own.
func (n *network) sendSnapshot(from, to *member, frame, file []byte, done func(error)) {
	w := n.w
	w.counts["snapshots sent"]++
	fromLife, toLife := from.life, to.life
	answered := false
	answer := func(err error) {
		if answered {
			return
		}
		answered = true
		w.after(n.delay(), func() {
			if from.life == fromLife {
				from.step("snapshot answered", func() { done(err) })
			}
		})
	}
	travel := w.between(time.Millisecond, 30*time.Millisecond)
	if !w.calm && w.oneIn(4) {
		travel = w.between(0, time.Second) // long enough for others to overtake it
	}
	w.after(travel, func() {
		if to.life != toLife || !to.up || n.isCut(from, to) || n.isCut(to, from) || !w.calm && w.oneIn(8) {
			answer(errSnapshotLost)
			return
		}
		to.atDeath = append(to.atDeath, func() { answer(errSnapshotLost) })
		w.trace("snapshot", "%s to %s: %d bytes", from.name, to.name, len(file))
		to.step("snapshot", func() { to.stepped.ReceiveSnapshot(from.id, frame, file, answer) })
	})
}
