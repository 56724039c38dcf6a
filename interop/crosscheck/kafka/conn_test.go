package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	keyProduce            = 0
	keyStopReplica        = 5
	keyControlledShutdown = 7
	keyApiVersions        = 18
)

// conn is a raw connection to a broker: what it sends need not be a request.
type conn struct {
	net.Conn
	correlation int32
}

func dial(addr string) (*conn, error) {
	socket, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: socket}, nil
}

func (c *conn) close() { c.Conn.Close() }

// conn returns the connection of a session to a broker, a new one if need be.
func (s *side) conn(key connKey) (*conn, error) {
	if c := s.conns[key]; c != nil {
		return c, nil
	}
	c, err := dial(s.fleet.Brokers[key.broker-1].Addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	s.conns[key] = c
	return c, nil
}

// frame encodes a request with its header and size.
func frame(request kmsg.Request, correlation int32, clientID *string) []byte {
	key, version := request.Key(), request.GetVersion()
	out := make([]byte, 4, 128)
	out = binary.BigEndian.AppendUint16(out, uint16(key))
	out = binary.BigEndian.AppendUint16(out, uint16(version))
	out = binary.BigEndian.AppendUint32(out, uint32(correlation))
	if key != keyControlledShutdown || version > 0 {
		if clientID == nil {
			out = binary.BigEndian.AppendUint16(out, 0xffff)
		} else {
			out = binary.BigEndian.AppendUint16(out, uint16(len(*clientID)))
			out = append(out, *clientID...)
		}
		if request.IsFlexible() {
			out = append(out, 0)
		}
	}
	start := len(out)
	out = request.AppendTo(out)
	if key == keyStopReplica && version >= 4 {
		// kmsg has isKRaftController and the controller epoch the wrong way round.
		fields := out[start+4 : start+9]
		flag := fields[4]
		copy(fields[1:], fields[:4])
		fields[0] = flag
	}
	return sized(out)
}

// sized enters the size of a frame that begins with four bytes for it.
func sized(out []byte) []byte {
	binary.BigEndian.PutUint32(out, uint32(len(out)-4))
	return out
}

// outcome is what came of a request.
type outcome struct {
	kind     string // answered, closed, silent
	body     []byte // of an answer, after its correlation id
	response kmsg.Response
	err      error // the answer cannot be decoded
}

const (
	answered = "answered"
	closed   = "closed"
	silent   = "silent"
)

// receive waits for the answer to a request of a key and version.
func (c *conn) receive(key, version int16, correlation int32, wait time.Duration) outcome {
	_ = c.SetReadDeadline(time.Now().Add(wait))
	var head [8]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return outcome{kind: silent}
		}
		return outcome{kind: closed}
	}
	size := binary.BigEndian.Uint32(head[:])
	if size < 4 || size > 64<<20 {
		return outcome{kind: answered, err: fmt.Errorf("an answer of %d bytes", size)}
	}
	body := make([]byte, size-4)
	if _, err := io.ReadFull(c, body); err != nil {
		return outcome{kind: closed}
	}
	o := outcome{kind: answered, body: body}
	if got := int32(binary.BigEndian.Uint32(head[4:])); got != correlation {
		o.err = fmt.Errorf("correlation id %d in the answer to %d", got, correlation)
		return o
	}
	request := kmsg.RequestForKey(key)
	if request == nil {
		return o
	}
	request.SetVersion(version)
	o.response = request.ResponseKind()
	if o.response.IsFlexible() && key != keyApiVersions {
		if len(body) == 0 || body[0] != 0 {
			o.err = errors.New("tagged fields in the response header")
			return o
		}
		body = body[1:]
	}
	if key == keyApiVersions && version > 4 {
		o.response.SetVersion(0)
	}
	o.err = o.response.ReadFrom(body)
	return o
}

// ask sends a request and waits for its answer: for what is not compared.
func (s *side) ask(broker int, request kmsg.Request) (kmsg.Response, error) {
	key := connKey{broker, -1}
	c, err := s.conn(key)
	if err != nil {
		return nil, err
	}
	c.correlation++
	client := "crosscheck-settling"
	if _, err := c.Write(frame(request, c.correlation, &client)); err != nil {
		delete(s.conns, key)
		return nil, err
	}
	o := c.receive(request.Key(), request.GetVersion(), c.correlation, patience)
	if o.kind != answered || o.err != nil {
		delete(s.conns, key)
		return nil, fmt.Errorf("%s: %s, %w", s.name, o.kind, o.err)
	}
	return o.response, nil
}
