package zkserver

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"testing/iotest"
	"time"

	"understudy/internal/coordination/jute"
)

// FuzzFrames compares the reader with a dumb one, however the bytes arrive.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02ab\x00\x00\x00\x00\x00\x00\x00\x01c"), uint8(1))
	f.Add([]byte("\x7f\xff\xff\xffabc"), uint8(0))
	f.Add(append([]byte{0, 0, 8, 0}, make([]byte, 0x810)...), uint8(2))
	f.Fuzz(func(t *testing.T, data []byte, how uint8) {
		const limit = 1 << 12
		var r io.Reader = bytes.NewReader(data)
		switch how % 4 {
		case 1:
			r = iotest.OneByteReader(r)
		case 2:
			r = iotest.HalfReader(r)
		case 3:
			r = iotest.DataErrReader(r)
		}
		in := frameReader{r: r, limit: limit}
		rest := data
		for {
			frame, err := in.next(func() {})
			if len(rest) < 4 {
				if err == nil {
					t.Fatal("a frame without a length")
				}
				return
			}
			n := binary.BigEndian.Uint32(rest)
			switch {
			case n > limit:
				if !errors.Is(err, errFrameLength) {
					t.Fatalf("frame of %d bytes: %v", n, err)
				}
				return
			case int(n) > len(rest)-4:
				if err == nil {
					t.Fatal("more than there is")
				}
				return
			case err != nil || !bytes.Equal(frame, rest[4:4+n]):
				t.Fatalf("frame of %d bytes: %d bytes, %v", n, len(frame), err)
			}
			rest = rest[4+n:]
			if len(in.buf) > 2*inputBytesKept+limit {
				t.Fatalf("buffer of %d bytes", len(in.buf))
			}
		}
	})
}

// FuzzConnection sends anything, as a handshake and in a session; the server goes on.
func FuzzConnection(f *testing.F) {
	request := jute.ConnectRequest{TimeoutMs: 4000, Password: make([]byte, 16), HasReadOnly: true, HasFastExpiry: true, GraceMs: 50}
	handshake := request.Append(nil)
	framed := func(b []byte) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...) }
	f.Add(framed(handshake), false)
	for _, op := range []jute.OpCode{1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 14, 15, 17, 18, 19, 21, 22, 100, 101, 102, 103, 104, 105, 106, 107, -11} {
		f.Add(framed(requestXid(1, op, create("/a", "x", 0))), true)
		f.Add(framed(requestXid(1, op, multi(part{jute.OpCreate, create("/a", "x", 0)}))), true)
	}
	s, _, _ := start(f, Config{SuperDigest: "x"})
	f.Fuzz(func(t *testing.T, data []byte, session bool) {
		conn, err := s.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if session {
			_, _ = conn.Write(framed(handshake))
		}
		go func() {
			_, _ = conn.Write(data)
			_ = conn.(*pipeEnd).closeWrite()
		}()
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Fatalf("the server did not close: %v", err)
		}
		good, err := s.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer good.Close()
		r := &raw{t: t, conn: good}
		r.handshake(jute.ConnectRequest{TimeoutMs: 4000, Password: make([]byte, 16)})
		if p := r.do(jute.OpExists, read("/", false)); p.Err != jute.OK {
			t.Fatalf("%+v", p)
		}
		if p := r.do(jute.OpCloseSession, nil); p.Err != jute.OK {
			t.Fatalf("%+v", p)
		}
	})
}

// closeWrite ends one direction, as a TCP client's FIN does.
func (p *pipeEnd) closeWrite() error {
	p.out.close(false)
	return nil
}

func TestPipe(t *testing.T) {
	a, b := newPipe()
	_ = a.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := a.Read(make([]byte, 1)); err == nil {
		t.Error("the deadline has passed")
	}
	_ = a.SetReadDeadline(time.Time{})
	sent := bytes.Repeat([]byte("0123456789abcdef"), 100_000)
	go func() {
		_, _ = b.Write(sent)
		b.Close()
	}()
	got, err := io.ReadAll(a)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes, %v", len(got), len(sent), err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("writing to a closed peer: %v", err)
	}
	a.Close()
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("reading from a closed end: %v", err)
	}
}
