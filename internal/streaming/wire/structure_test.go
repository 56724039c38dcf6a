package wire

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// eachMessage calls f for every request and response in every version.
func eachMessage(f func(request kmsg.Request, response kmsg.Response)) {
	for key := int16(0); key <= kmsg.MaxKey; key++ {
		template := kmsg.RequestForKey(key)
		if template == nil {
			continue
		}
		for version := range template.MaxVersion() + 1 {
			request := kmsg.RequestForKey(key)
			request.SetVersion(version)
			f(request, request.ResponseKind())
		}
	}
}

// fill puts something into every field of a message.
func fill(v reflect.Value, random *rand.Rand) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), random)
	case reflect.Struct:
		for i := range v.NumField() {
			if field := v.Type().Field(i); field.IsExported() && field.Name != "Version" && field.Name != "UnknownTags" {
				fill(v.Field(i), random)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1+random.IntN(2), 2))
		for i := range v.Len() {
			fill(v.Index(i), random)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), random)
		}
	case reflect.String:
		v.SetString("text"[:random.IntN(5)])
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(1)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		v.SetUint(uint64(random.IntN(100)))
	default:
		v.SetInt(int64(random.IntN(100)))
	}
}

// What kmsg encodes passes, all of it is walked over, and any shorter piece is refused.
func TestEveryMessagePassesItsCheck(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	messages := 0
	verify := func(name string, version int16, encoded []byte, check func([]byte) error) {
		messages++
		if err := check(encoded); err != nil {
			t.Errorf("%s version %d: %v", name, version, err)
		}
		for _, size := range []int{len(encoded) - 1, len(encoded) / 2, random.IntN(len(encoded) + 1)} {
			if size >= 0 && size < len(encoded) && check(encoded[:size]) == nil {
				t.Errorf("%s version %d: %d bytes of %d pass", name, version, size, len(encoded))
			}
		}
	}
	eachMessage(func(request kmsg.Request, response kmsg.Response) {
		name := kmsg.NameForKey(request.Key())
		fill(reflect.ValueOf(request).Elem(), random)
		verify(name+" request", request.GetVersion(), request.AppendTo(nil), func(body []byte) error { return checkRequest(request, body) })
		fill(reflect.ValueOf(response).Elem(), random)
		verify(name+" response", request.GetVersion(), response.AppendTo(nil), func(body []byte) error { return checkResponse(response, body) })
	})
	if messages < 600 {
		t.Errorf("only %d messages were checked", messages)
	}
}

// Each turn of the walker's loops consumes input: no array has elements of no bytes.
func TestNoArrayElementIsEmpty(t *testing.T) {
	var look func(p plan, name string, version int16)
	look = func(p plan, name string, version int16) {
		for _, s := range p {
			if (s.kind == stepArray || s.kind == stepCompactArray) && leastSize(s.body) == 0 {
				t.Errorf("%s version %d has an array of nothing", name, version)
			}
			look(s.body, name, version)
			for _, tag := range s.tags {
				look(tag.body, name, version)
			}
		}
	}
	eachMessage(func(request kmsg.Request, _ kmsg.Response) {
		for direction := range 2 {
			p, err := planFor(request.Key(), direction, request.GetVersion(), request.IsFlexible())
			if err != nil {
				t.Fatal(err)
			}
			look(*p, kmsg.NameForKey(request.Key()), request.GetVersion())
		}
	})
}

func TestMalformedMessagesAreRefused(t *testing.T) {
	// Metadata version 9: an array of topics, two flags, one more, tagged fields.
	for name, c := range map[string]struct {
		body []byte
		want string
	}{
		"tags that do not follow": {[]byte{0, 1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f}, "malformed at byte 9 of the body, 0 bytes before its end: 4294967295 tagged fields are announced"},
		"elements that do not":    {append([]byte{40}, make([]byte, 50)...), "malformed at byte 1 of the body, 50 bytes before its end: 39 elements of at least 2 bytes are announced"},
		"a tag's bytes":           {[]byte{0, 1, 1, 1, 1, 7, 3, 0, 0}, "malformed at byte 7 of the body, 2 bytes before its end: 3 bytes are announced for tag 7"},
		"a long varint":           {[]byte{0x80, 0x80, 0x80, 0x80, 0x10, 0}, "malformed at byte 0 of the body, 6 bytes before its end: no varint of 32 bits"},
	} {
		request := kmsg.NewPtrMetadataRequest()
		request.SetVersion(9)
		err := readBody(request, c.body)
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The twenty bytes that kept a goroutine busy for a minute: the connection is closed, and the
// log says of which request, and where in it.
func TestMalformedRequestClosesItsConnection(t *testing.T) {
	var log lockedBuffer
	addr := startServer(t, ServerOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))}, func(s *Server) {
		s.Handle(3, 0, 12, func(r *Request) { r.Reply(echoTopic(r)) })
	})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	frame := []byte{0, 0, 0, 20, 0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f}
	if _, err := conn.Write(frame); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Fatalf("read %d bytes, %v; want the connection closed", n, err)
	}
	want := "request with API key 3 version 9: malformed at byte 9 of the body, 0 bytes before its end: 4294967295 tagged fields are announced"
	if !strings.Contains(log.String(), want) {
		t.Errorf("the log lacks %q:\n%s", want, log.String())
	}
}

type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// allocatedBy returns what f allocates.
func allocatedBy(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A byte of input costs at most so many bytes of memory: the worst is an array of
// structures whose strings and arrays are all empty.
const (
	allocatedPerByte = 400
	allocatedFree    = 256 << 10 // what other goroutines may allocate meanwhile, plans
)

func FuzzRequest(f *testing.F) {
	random := rand.New(rand.NewPCG(3, 4))
	eachMessage(func(request kmsg.Request, _ kmsg.Response) {
		if version := request.GetVersion(); version%3 == 0 || version == request.MaxVersion() {
			fill(reflect.ValueOf(request).Elem(), random)
			f.Add(request.Key(), version, request.AppendTo(nil))
		}
	})
	f.Add(int16(3), int16(9), []byte{0, 1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, key, version int16, body []byte) {
		request := kmsg.RequestForKey(key)
		if request == nil || version < 0 || version > request.MaxVersion() {
			return
		}
		request.SetVersion(version)
		fuzzMessage(t, request, body, func(into kmsg.Request, body []byte) error { return readBody(into, body) },
			func(dst []byte, from kmsg.Request) []byte { return appendBody(dst, from) })
	})
}

func FuzzResponse(f *testing.F) {
	random := rand.New(rand.NewPCG(5, 6))
	eachMessage(func(request kmsg.Request, response kmsg.Response) {
		if version := request.GetVersion(); version%3 == 0 || version == request.MaxVersion() {
			fill(reflect.ValueOf(response).Elem(), random)
			f.Add(request.Key(), version, appendResponseHeader(nil, request.Key(), request.IsFlexible(), 0)[4:], response.AppendTo(nil))
		}
	})
	f.Fuzz(func(t *testing.T, key, version int16, header, body []byte) {
		request := kmsg.RequestForKey(key)
		if request == nil || version < 0 || version > request.MaxVersion() {
			return
		}
		request.SetVersion(version)
		fuzzMessage(t, request.ResponseKind(), append(bytes.Clone(header), body...), func(into kmsg.Response, rest []byte) error { return readResponse(into, rest) },
			func(dst []byte, from kmsg.Response) []byte {
				dst = appendResponseHeader(dst, from.Key(), from.IsFlexible(), 0)
				return from.AppendTo(dst[4:])
			})
	})
}

// fuzzMessage decodes a body, within the bound on memory; what can be decoded can be encoded
// and decoded again to the same.
func fuzzMessage[M any](t *testing.T, message M, body []byte, decode func(M, []byte) error, encode func([]byte, M) []byte) {
	var err error
	input := bytes.Clone(body) // StopReplica's is changed in place
	if used := allocatedBy(func() { err = decode(message, input) }); used > allocatedFree+allocatedPerByte*uint64(len(body)) {
		t.Fatalf("%d bytes are allocated for a message of %d", used, len(body))
	}
	if err != nil {
		var malformed *structureError
		if !errors.As(err, &malformed) && !errors.Is(err, errShort) {
			t.Fatalf("passed the check, and then: %v", err)
		}
		return
	}
	again := encode(nil, message)
	if err := decode(message, bytes.Clone(again)); err != nil {
		t.Fatalf("decoding what was encoded: %v", err)
	}
	if once := encode(nil, message); !bytes.Equal(once, again) {
		t.Fatalf("encoded again:\n%x\nnot\n%x", once, again)
	}
}

func FuzzServerDecode(f *testing.F) {
	f.Add(appendRequest(nil, metadataRequest("t"), 1, "c")[4:])
	stop := kmsg.NewPtrStopReplicaRequest()
	stop.SetVersion(4)
	f.Add(appendRequest(nil, stop, 1, "c")[4:])
	f.Add([]byte{0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f})
	server := NewServer(ServerOptions{})
	for key := range int16(68) {
		if template := kmsg.RequestForKey(key); template != nil {
			server.Handle(key, 0, template.MaxVersion(), func(*Request) {})
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		c := &conn{server: server, wake: make(chan struct{}, 1)}
		c.mu.room.L = &c.mu
		request := &Request{conn: c}
		if err := c.decode(request, bytes.Clone(frame), ""); err != nil || request.Body == nil {
			return
		}
		again := appendRequest(nil, request.Body, request.CorrelationID, request.ClientID)
		second := &Request{conn: c}
		if err := c.decode(second, again[4:], ""); err != nil {
			t.Fatalf("decoding what was encoded: %v", err)
		}
	})
}

func benchmarkRequest(b *testing.B, request kmsg.Request) {
	body := request.AppendTo(nil)
	into := kmsg.RequestForKey(request.Key())
	into.SetVersion(request.GetVersion())
	b.Run("check", func(b *testing.B) {
		for b.Loop() {
			if err := checkRequest(into, body); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := readBody(into, body); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkReadProduce(b *testing.B) {
	request := kmsg.NewPtrProduceRequest()
	request.SetVersion(9)
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic = "orders"
	partition := kmsg.NewProduceRequestTopicPartition()
	partition.Records = make([]byte, 1000)
	topic.Partitions = append(topic.Partitions, partition)
	request.Topics = append(request.Topics, topic)
	benchmarkRequest(b, request)
}

func BenchmarkReadFetch(b *testing.B) {
	request := kmsg.NewPtrFetchRequest()
	request.SetVersion(12)
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic = "orders"
	for i := range int32(100) {
		partition := kmsg.NewFetchRequestTopicPartition()
		partition.Partition = i
		topic.Partitions = append(topic.Partitions, partition)
	}
	request.Topics = append(request.Topics, topic)
	benchmarkRequest(b, request)
}
