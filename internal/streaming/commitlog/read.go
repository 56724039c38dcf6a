package commitlog

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/record"

	"github.com/twmb/franz-go/pkg/kerr"
)

// positionHints remembers where some of the last reads ended: the next read of the same
// follower or consumer begins there, and needs no index. A hint is exact: the first batch
// at or after its offset begins at its position, or will when it is written.
type positionHints struct {
	sync.Mutex
	truncations uint64 // hints found before the last truncation are not taken
	ring        [8]positionHint
	next        uint8
}

type positionHint struct {
	offset   cluster.Offset
	segment  *segment // nil: empty
	position int64
}

func (h *positionHints) generation() uint64 {
	h.Lock()
	defer h.Unlock()
	return h.truncations
}

func (h *positionHints) get(s *segment, offset cluster.Offset) (position int64, ok bool) {
	h.Lock()
	defer h.Unlock()
	for i := range h.ring {
		if hint := &h.ring[i]; hint.segment == s && hint.offset == offset {
			return hint.position, true
		}
	}
	return 0, false
}

func (h *positionHints) put(generation uint64, hint positionHint) {
	h.Lock()
	defer h.Unlock()
	if generation != h.truncations {
		return
	}
	for i := range h.ring {
		if h.ring[i].segment == hint.segment && h.ring[i].offset == hint.offset {
			return
		}
	}
	h.ring[h.next] = hint
	h.next = (h.next + 1) % uint8(len(h.ring))
}

// clear is for truncation and deletion of segments.
func (h *positionHints) clear() {
	h.Lock()
	defer h.Unlock()
	h.truncations++
	h.ring = [len(h.ring)]positionHint{}
}

// Read finds the batch that holds from and returns a slice of whole batches from there: at
// most maxBytes (of one segment), and nothing at or above upTo. minOne returns the first
// batch even if it alone exceeds maxBytes. An empty slice means that there is nothing
// between from and upTo; OFFSET_OUT_OF_RANGE that from is below the start or above the end.
func (l *Log) Read(from cluster.Offset, maxBytes int, upTo cluster.Offset, minOne bool) (*Slice, error) {
	// A segment may be deleted between finding it and opening it: look again, then.
	const attempts = 3
	var err error
	for range attempts {
		var slice *Slice
		if slice, err = l.readOnce(from, maxBytes, upTo, minOne); err == nil {
			return slice, nil
		}
		if !errors.Is(err, errForgotten) {
			break
		}
		l.awaitWriter()
	}
	if errors.Is(err, kerr.CorruptMessage) || errors.Is(err, kerr.OffsetOutOfRange) || errors.Is(err, kerr.KafkaStorageError) {
		return nil, err
	}
	return nil, l.storageError(err)
}

// awaitWriter waits until a change of segments that is under way has been published.
func (l *Log) awaitWriter() {
	l.writer.Lock()
	defer l.writer.Unlock()
}

// readOnce reads from what is published now. Where a look at a segment finds something
// wrong, the segment is examined, and looked at again knowing what of it is damaged.
func (l *Log) readOnce(from cluster.Offset, maxBytes int, upTo cluster.Offset, minOne bool) (*Slice, error) {
	slice, err := l.readPublished(from, maxBytes, upTo, minOne)
	if err == nil {
		return slice, nil
	}
	err = l.examining(func() error {
		again := err
		if again == nil {
			slice, again = l.readPublished(from, maxBytes, upTo, minOne)
		}
		err = nil
		return again
	})
	return slice, err
}

func (l *Log) readPublished(from cluster.Offset, maxBytes int, upTo cluster.Offset, minOne bool) (*Slice, error) {
	if err := l.Failed(); err != nil {
		return nil, err
	}
	generation := l.hints.generation()
	now := l.view()
	if from < now.start || from > now.end {
		return nil, fmt.Errorf("commitlog: %s has offsets %d to %d, not %d: %w", l.tp, now.start, now.end, from, kerr.OffsetOutOfRange)
	}
	upTo = min(upTo, now.end)
	if from >= upTo {
		return emptySlice(from), nil
	}
	for i := now.floor(from); i < len(now.segments); i++ {
		s, limit := now.segments[i], now.limit(i)
		if limit == 0 {
			continue
		}
		reader := segmentReader{log: l, segment: s, limit: limit, end: now.endOf(i), generation: generation}
		if err := reader.avoidDamage(from); err != nil {
			return nil, err
		}
		slice, err := reader.read(from, maxBytes, upTo, minOne)
		if slice != nil || err != nil {
			return slice, err
		}
	}
	return emptySlice(from), nil
}

// segmentReader serves one read from one segment.
type segmentReader struct {
	log        *Log
	segment    *segment
	limit      int64          // valid bytes
	end        cluster.Offset // where the segment ends
	generation uint64
	damaged    []Damage
	anchor     int64 // where the walk to the first batch began
}

// avoidDamage lets the read end before the first damaged stretch that it would come to, and
// refuses one that begins in it.
func (r *segmentReader) avoidDamage(from cluster.Offset) error {
	r.damaged = r.segment.integrity.damages()
	for _, d := range r.damaged {
		if d.First <= from && from < d.Next {
			return r.log.damageError(d)
		}
	}
	for _, d := range r.damaged {
		if d.First > from {
			r.limit, r.end = min(r.limit, d.From), min(r.end, d.First)
			break
		}
	}
	return nil
}

// extent is a run of whole batches.
type extent struct {
	start, end  int64
	first, next cluster.Offset
}

// read returns nil if the segment has nothing at or after from.
func (r *segmentReader) read(from cluster.Offset, maxBytes int, upTo cluster.Offset, minOne bool) (*Slice, error) {
	file, err := r.log.files.acquire(&r.segment.log)
	if err != nil {
		return nil, err
	}
	buffer := scanBuffers.Get().(*[]byte)
	defer scanBuffers.Put(buffer)
	scanner := &headerScanner{file: file, path: r.segment.log.path, limit: r.limit, chunk: *buffer, damaged: r.damaged}
	found, ok, err := r.locate(scanner, from, int64(max(maxBytes, 0)), upTo, minOne)
	if err == nil && ok {
		err = r.verify(scanner, found.end)
	}
	if err != nil || !ok || found.start == found.end {
		r.log.files.release(&r.segment.log)
		if err != nil || !ok {
			return nil, err
		}
		return emptySlice(from), nil
	}
	r.log.hints.put(r.generation, positionHint{found.next, r.segment, found.end})
	return &Slice{
		first: found.first, next: found.next,
		position: found.start, size: int(found.end - found.start),
		file: file, cached: &r.segment.log, files: r.log.files,
	}, nil
}

// verify checks what is to be served, and the batch behind it: where to read on is known by
// that one's offset.
func (r *segmentReader) verify(scanner *headerScanner, to int64) error {
	if r.segment.integrity.whole.Load() {
		return nil
	}
	if to < r.limit {
		_, size, err := scanner.at(to)
		if err != nil {
			return err
		}
		to += size
	}
	return r.log.verify(r.segment, r.anchor, to, r.end)
}

func (r *segmentReader) locate(scanner *headerScanner, from cluster.Offset, maxBytes int64, upTo cluster.Offset, minOne bool) (found extent, ok bool, err error) {
	start, first, ok, err := r.begin(scanner, from)
	if err != nil || !ok {
		return extent{}, ok, err
	}
	if first >= upTo {
		return extent{start: start, end: start}, true, nil
	}
	bound, next := r.limit, r.end
	if upTo < r.end {
		if bound, err = r.position(scanner, upTo); err != nil {
			return extent{}, false, err
		}
		next = upTo
	}
	if bound-start > maxBytes {
		if bound, next, err = r.cut(scanner, start, maxBytes, minOne, bound); err != nil {
			return extent{}, false, err
		}
	}
	return extent{start: start, end: bound, first: first, next: next}, true, nil
}

// begin finds the batch that holds from, or the first after it; ok is false if the segment
// has none.
func (r *segmentReader) begin(scanner *headerScanner, from cluster.Offset) (position int64, first cluster.Offset, ok bool, err error) {
	if position, ok := r.log.hints.get(r.segment, from); ok {
		if r.anchor = position; position < r.limit {
			return position, from, true, nil
		}
		return 0, 0, false, nil
	}
	entry, err := r.segment.lookupOffset(r.log.files, from)
	if err != nil {
		return 0, 0, false, err
	}
	r.anchor = min(entry.position, r.limit)
	passed := false
	batch, ok, err := scanner.find(r.anchor, func(header record.Batch) bool {
		passed = passed || header.BaseOffset() <= from
		return header.LastOffset() >= from
	})
	if err == nil && !passed && r.anchor > 0 { // also if it points behind everything
		err = suspect(r.segment, "its index points to byte %d for offset %d", r.anchor, from)
	}
	// The walk has passed over damaged stretches that lie before what it found.
	for _, d := range r.damaged {
		if d.To <= batch.position {
			r.anchor = max(r.anchor, d.To)
		}
	}
	return batch.position, batch.base, ok, err
}

func (r *segmentReader) find(scanner *headerScanner, offset cluster.Offset) (located, bool, error) {
	entry, err := r.segment.lookupOffset(r.log.files, offset)
	if err != nil {
		return located{}, false, err
	}
	return scanner.find(min(entry.position, r.limit), func(header record.Batch) bool { return header.LastOffset() >= offset })
}

// position is where the batch that holds an offset begins: the bytes before it are wholly
// below the offset.
func (r *segmentReader) position(scanner *headerScanner, offset cluster.Offset) (int64, error) {
	if position, ok := r.log.hints.get(r.segment, offset); ok {
		return min(position, r.limit), nil
	}
	batch, _, err := r.find(scanner, offset)
	return batch.position, err
}

// cut ends a run that is longer than maxBytes behind the last batch that fits, or behind
// the first one for minOne.
func (r *segmentReader) cut(scanner *headerScanner, start, maxBytes int64, minOne bool, bound int64) (end int64, next cluster.Offset, err error) {
	position := start
	if entry, err := r.segment.lookupPosition(r.log.files, start+maxBytes); err != nil {
		return 0, 0, err
	} else if entry.position > start {
		position = entry.position
	}
	for {
		header, size, err := scanner.at(position)
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = scanner.corrupt(position, io.ErrUnexpectedEOF)
			}
			return 0, 0, err
		}
		fits := position+size <= start+maxBytes && position+size <= bound
		if !fits && !(position == start && minOne) {
			return position, header.BaseOffset(), nil
		}
		position += size
		if !fits {
			return position, header.NextOffset(), nil
		}
	}
}
