package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// kmsg's decoders (up to v1.15.0) go on after the input has ended: a number of tagged fields
// is counted down whatever follows it, so twenty bytes can keep a goroutine busy for a
// minute; and an array gets its memory by the number announced, at a hundred bytes for
// each byte that has come. So a message's structure is walked first: every count and
// length is met by bytes that are there. What passes, kmsg decodes in time and memory
// proportional to its size.

// schema is the structure of a request and its response in all versions: fields separated
// by spaces, each perhaps with the versions that have it (@3- or @0-7):
//
//	1 2 4 8 16          a number of so many bytes, or a UUID
//	s s?  b b?          string, bytes; ? can be null
//	[ … ]               array
//	{? … }              structure that can be absent
//	t                   tagged fields, in the flexible versions
//	t( 0: … 1: … )      likewise, where some tags are known
//
// Whether lengths are compact depends on whether the version is flexible.
type schema struct {
	request, response string
	plans             [2][schemaVersions]atomic.Pointer[plan]
}

// schemaVersions is more than any message has.
const schemaVersions = 32

// plan is the structure of a message in one version.
type plan []step

type step struct {
	kind  stepKind
	least int  // string, bytes: the lowest length that is allowed; below 0 it is null
	size  int  // fixed: of all numbers in a row; array: the least that an element takes
	body  plan // array, structure
	tags  []knownTag
}

type knownTag struct {
	tag  uint32
	body plan
}

type stepKind uint8

const (
	stepFixed stepKind = iota
	stepString
	stepBytes
	stepCompact // string or bytes with a compact length
	stepArray
	stepCompactArray
	stepStructure
	stepTags
)

// structureError says where a message is not what its schema says.
type structureError struct {
	position, left int
	what           string
}

func (e *structureError) Error() string {
	return fmt.Sprintf("malformed at byte %d of the body, %d bytes before its end: %s", e.position, e.left, e.what)
}

// checkRequest walks over a request's body.
func checkRequest(request kmsg.Request, body []byte) error {
	return check(request.Key(), 0, request.GetVersion(), request.IsFlexible(), body)
}

// checkResponse walks over a response's body.
func checkResponse(response kmsg.Response, body []byte) error {
	return check(response.Key(), 1, response.GetVersion(), response.IsFlexible(), body)
}

func check(key int16, direction int, version int16, flexible bool, body []byte) error {
	p, err := planFor(key, direction, version, flexible)
	if err != nil {
		return err
	}
	w := walker{body: body}
	return w.walk(*p)
}

func planFor(key int16, direction int, version int16, flexible bool) (*plan, error) {
	if key < 0 || int(key) >= len(schemas) || version < 0 || version >= schemaVersions {
		return nil, errors.New("its structure is not known")
	}
	s := &schemas[key]
	cached := &s.plans[direction][version]
	if p := cached.Load(); p != nil {
		return p, nil
	}
	text := [2]string{s.request, s.response}[direction]
	if text == "" {
		return nil, errors.New("its structure is not known")
	}
	c := compiler{tokens: strings.Fields(text), version: int(version), flexible: flexible}
	p := c.fields("")
	cached.Store(&p)
	return &p, nil
}

// compiler makes a plan of a schema. Schemas are derived by a test that compiles each of
// them in each version, so a mistake in one is a panic.
type compiler struct {
	tokens   []string
	version  int
	flexible bool
}

func (c *compiler) next() (token string, present bool) {
	token = c.tokens[0]
	c.tokens = c.tokens[1:]
	token, versions, limited := strings.Cut(token, "@")
	if !limited {
		return token, true
	}
	low, high, _ := strings.Cut(versions, "-")
	return token, c.version >= number(low, 0) && c.version <= number(high, math.MaxInt)
}

func number(text string, otherwise int) int {
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	return n
}

// fields compiles up to the closing token.
func (c *compiler) fields(closing string) (p plan) {
	for len(c.tokens) > 0 {
		if c.tokens[0] == closing {
			c.tokens = c.tokens[1:]
			return p
		}
		s, present := c.field()
		switch {
		case !present:
		case s.kind == stepFixed && len(p) > 0 && p[len(p)-1].kind == stepFixed:
			p[len(p)-1].size += s.size
		default:
			p = append(p, s)
		}
	}
	if closing != "" {
		panic("wire: a schema lacks " + closing)
	}
	return p
}

func (c *compiler) field() (s step, present bool) {
	token, present := c.next()
	switch token {
	case "s", "s?", "b", "b?":
		s = step{kind: stepString}
		if token[0] == 'b' {
			s.kind, s.least = stepBytes, -1 // kmsg takes null for empty where it must not be null
		}
		if len(token) > 1 {
			s.least = math.MinInt
		}
		if c.flexible {
			s.kind = stepCompact
		}
	case "[":
		s = step{kind: stepArray, body: c.fields("]")}
		if s.size = leastSize(s.body); s.size == 0 {
			s.size = 1 // never met; kmsg counts on a byte for each
		}
		if c.flexible {
			s.kind = stepCompactArray
		}
	case "{?":
		s = step{kind: stepStructure, body: c.fields("}")}
	case "t":
		return step{kind: stepTags}, c.flexible
	case "t(":
		s = step{kind: stepTags}
		for c.tokens[0] != ")" {
			tag := number(strings.TrimSuffix(c.tokens[0], ":"), 0)
			c.tokens = c.tokens[1:]
			s.tags = append(s.tags, knownTag{uint32(tag), c.tagged()})
		}
		c.tokens = c.tokens[1:]
		return s, c.flexible
	default:
		s = step{kind: stepFixed, size: number(token, 0)}
	}
	return s, present
}

// tagged compiles the fields of one tag: up to the next tag or the end of the section.
func (c *compiler) tagged() (p plan) {
	for c.tokens[0] != ")" && !strings.HasSuffix(c.tokens[0], ":") {
		if s, present := c.field(); present {
			p = append(p, s)
		}
	}
	return p
}

// leastSize is the fewest bytes that a plan's fields take.
func leastSize(p plan) (size int) {
	for _, s := range p {
		switch s.kind {
		case stepFixed:
			size += s.size
		case stepString:
			size += 2
		case stepBytes, stepArray:
			size += 4
		case stepCompact, stepCompactArray, stepStructure, stepTags:
			size++
		}
	}
	return size
}

// walker passes over a message without keeping anything of it. Its time is proportional to
// the bytes it passes: every turn of a loop consumes one.
type walker struct {
	body []byte
	at   int
}

func (w *walker) malformed(what string, args ...any) error {
	return &structureError{position: w.at, left: len(w.body) - w.at, what: fmt.Sprintf(what, args...)}
}

func (w *walker) left() int { return len(w.body) - w.at }

func (w *walker) skip(n int) error {
	if n > w.left() {
		return w.malformed("%d bytes are missing", n-w.left())
	}
	w.at += n
	return nil
}

func (w *walker) uvarint() (uint32, error) {
	if w.at < len(w.body) && w.body[w.at] < 0x80 { // nearly always
		w.at++
		return uint32(w.body[w.at-1]), nil
	}
	n, size := binary.Uvarint(w.body[w.at:])
	if size <= 0 || size > 5 || n > math.MaxUint32 {
		return 0, w.malformed("no varint of 32 bits")
	}
	w.at += size
	return uint32(n), nil
}

func (w *walker) int32() (int, error) {
	if w.left() < 4 {
		return 0, w.malformed("a length of four bytes is missing")
	}
	w.at += 4
	return int(int32(binary.BigEndian.Uint32(w.body[w.at-4:]))), nil
}

func (w *walker) int16() (int, error) {
	if w.left() < 2 {
		return 0, w.malformed("a length of two bytes is missing")
	}
	w.at += 2
	return int(int16(binary.BigEndian.Uint16(w.body[w.at-2:]))), nil
}

func (w *walker) compact() (int, error) {
	n, err := w.uvarint()
	return int(n) - 1, err
}

func (w *walker) walk(p plan) error {
	for i := range p {
		if err := w.step(&p[i]); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) step(s *step) error {
	switch s.kind {
	case stepFixed:
		return w.skip(s.size)
	case stepString:
		n, err := w.int16()
		return w.content(s, n, err)
	case stepBytes:
		n, err := w.int32()
		return w.content(s, n, err)
	case stepCompact:
		n, err := w.compact()
		return w.content(s, n, err)
	case stepArray:
		n, err := w.int32()
		return w.elements(s, n, err)
	case stepCompactArray:
		n, err := w.compact()
		return w.elements(s, n, err)
	case stepStructure:
		if err := w.skip(1); err != nil || w.body[w.at-1] == 0xff {
			return err
		}
		return w.walk(s.body)
	case stepTags:
		return w.section(s)
	}
	panic("wire: a step of unknown kind")
}

// content passes over n bytes of a string.
func (w *walker) content(s *step, n int, err error) error {
	switch {
	case err != nil:
		return err
	case n > w.left():
		return w.malformed("%d bytes are announced", n)
	case n < s.least:
		return w.malformed("length %d of what cannot be null", n)
	}
	w.at += max(n, 0)
	return nil
}

// elements passes over the n elements of an array.
func (w *walker) elements(s *step, n int, err error) error {
	if err != nil {
		return err
	}
	if n > w.left()/s.size {
		return w.malformed("%d elements of at least %d bytes are announced", n, s.size)
	}
	if len(s.body) == 1 && s.body[0].kind == stepFixed {
		w.at += max(n, 0) * s.size
		return nil
	}
	for range n {
		if err := w.walk(s.body); err != nil {
			return err
		}
	}
	return nil
}

// section passes over tagged fields. A known one is looked into, within its own bytes.
func (w *walker) section(s *step) error {
	count, err := w.uvarint()
	if err != nil || count == 0 {
		return err
	}
	if int64(count) > int64(w.left()/2) {
		return w.malformed("%d tagged fields are announced", count)
	}
	for range count {
		tag, err := w.uvarint()
		if err != nil {
			return err
		}
		size, err := w.uvarint()
		if err != nil {
			return err
		}
		if int64(size) > int64(w.left()) {
			return w.malformed("%d bytes are announced for tag %d", size, tag)
		}
		end := w.at + int(size)
		for i := range s.tags {
			if s.tags[i].tag == tag {
				within := walker{body: w.body[:end], at: w.at}
				if err := within.walk(s.tags[i].body); err != nil {
					return err
				}
			}
		}
		w.at = end
	}
	return nil
}
