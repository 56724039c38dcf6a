package commitlog

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"understudy/internal/streaming/cluster"
)

// The scrubber reads segments that nobody writes any more, again and again at a modest rate,
// so that a bit that flips is found while the other replicas still have a good copy, and not
// when they are gone.

// scrubPiece is how much is read at a time.
const scrubPiece = 256 << 10

// scrubRest is how long the scrubber rests when it has nothing to read.
const scrubRest = 10 * time.Second

func (m *Manager) runScrubber() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	m.stopped.Go(func() {
		<-m.stop
		cancel()
	})
	pace := func(bytes int64) bool {
		wait := scrubRest
		if bytes > 0 {
			wait = time.Duration(float64(bytes) / float64(m.config.ScrubBytesPerSecond) * float64(time.Second))
		}
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for {
		read := int64(0)
		for _, l := range m.All() {
			l.scrub(func(bytes int64) bool {
				read += bytes
				return pace(bytes)
			})
			if m.stopping() {
				return
			}
		}
		if read == 0 && !pace(0) {
			return
		}
	}
}

// Scrub reads all segments but the active ones once, at any rate. The background does so by
// itself.
func (m *Manager) Scrub() {
	for _, l := range m.All() {
		l.scrub(func(int64) bool { return true })
	}
}

// scrub reads the log's inactive segments and has those examined that something is wrong
// with. pace is told how much was read and says whether to go on.
func (l *Log) scrub(pace func(bytes int64) bool) {
	segments := l.view().segments
	for _, s := range segments[:len(segments)-1] {
		if l.Failed() != nil {
			return
		}
		if err := l.scrubSegment(s, pace); err != nil {
			if errors.Is(err, errScrubStopped) {
				return
			}
			if l.suspected(err) != nil {
				err = l.examine(s)
			}
			if err != nil && !isForgotten(err) {
				l.dir.logger.Warn("segment not read for its integrity", "path", s.log.path(), "error", err)
			}
		}
	}
}

var errScrubStopped = errors.New("the scrubber was stopped")

// scrubSegment checks what stands between the damages already known, a piece at a time: a
// piece ends with the batch in which it has become large enough.
func (l *Log) scrubSegment(s *segment, pace func(bytes int64) bool) error {
	next := s.base
	limit := s.size.Load()
	damaged := s.integrity.damages()
	for position := int64(0); position < limit; {
		to, after, err := l.scrubPiece(s, position, limit, next, damaged)
		if err != nil {
			return err
		}
		if !pace(to - position) {
			return errScrubStopped
		}
		position, next = to, after
	}
	return nil
}

func (l *Log) scrubPiece(s *segment, from, limit int64, expected cluster.Offset, damaged []Damage) (to int64, next cluster.Offset, err error) {
	file, err := l.files.acquire(&s.log)
	if err != nil {
		return 0, 0, err
	}
	defer l.files.release(&s.log)
	buffer := recoveryBuffers.Get().(*[]byte)
	defer recoveryBuffers.Put(buffer)
	reader := &batchReader{file: file, path: s.log.path, limit: limit, buffer: *buffer}
	position, first := from, expected
	for position < limit && position-from < scrubPiece {
		if at := slices.IndexFunc(damaged, func(d Damage) bool { return d.From == position }); at >= 0 {
			position, expected = damaged[at].To, damaged[at].Next
			continue
		}
		header, size, err := reader.check(position)
		if err != nil {
			return 0, 0, err
		}
		if err := l.fits(s, header, position, expected, math.MaxInt64); err != nil {
			return 0, 0, err
		}
		expected = header.NextOffset()
		position += size
	}
	s.integrity.note(stretch{from, position, first, expected})
	return position, expected, nil
}
