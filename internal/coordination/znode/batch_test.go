package znode

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"understudy/internal/coordination/jute"
)

func exampleBatch() Batch {
	return Batch{
		TimeMs: 1_760_000_000_000, Origin: 3, Incarnation: 1 << 60, FirstSequence: 77,
		Requests: []Request{
			{Kind: KindOp, Session: -1, Generation: 2, Xid: -5, Op: jute.OpSetData, Body: []byte("body"), Auth: []jute.ID{alice, bob}},
			{Kind: KindOp, Session: 1 << 62, Xid: 1, Op: -11, Auth: []jute.ID{alice, bob}},
			{Kind: KindCreateSession, TimeoutMs: -1, GraceMs: 100, Password: []byte("pw"), Owner: 9},
			{Kind: KindDeleteContainer, Path: "/c"},
			{},
		},
	}
}

func TestBatchComesBack(t *testing.T) {
	b := exampleBatch()
	encoded := b.Append(nil)
	got, err := DecodeBatch(encoded)
	if err != nil || !reflect.DeepEqual(got, b) {
		t.Fatalf("%+v, %v; want %+v", got, err, b)
	}
	if &got.Requests[0].Auth[0] != &got.Requests[1].Auth[0] {
		t.Error("the same identities are decoded twice")
	}
	for cut := range encoded {
		if _, err := DecodeBatch(encoded[:cut]); err == nil {
			t.Errorf("cut at %d of %d decodes", cut, len(encoded))
		}
	}
	if _, err := DecodeBatch(append(encoded, 0)); err == nil {
		t.Error("a byte too many decodes")
	}
	if !StampTime(encoded, 42) || StampTime([]byte{1}, 42) {
		t.Error("StampTime")
	}
	if got, _ = DecodeBatch(encoded); got.TimeMs != 42 || got.Origin != 3 {
		t.Errorf("%+v", got)
	}
	encoded[0] = 2
	if _, err := DecodeBatch(encoded); !errors.Is(err, ErrBatchVersion) {
		t.Error(err)
	}
}

// FuzzDecodeBatch: what decodes comes back the same, and Apply is total.
func FuzzDecodeBatch(f *testing.F) {
	b := exampleBatch()
	f.Add(b.Append(nil))
	create := Batch{Requests: []Request{
		{Kind: KindCreateSession, Session: 1},
		write(jute.OpCreate, createBody("/a", "x", jute.FlagEphemeral)),
		write(jute.OpMulti, jute.MultiEnd.Append(append((&jute.MultiHeader{Type: jute.OpDelete}).Append(nil), deleteBody("/a")...))),
		{Kind: KindExpire, Session: 1, Generation: 1},
	}}
	f.Add(create.Append(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := DecodeBatch(data)
		if err != nil {
			return
		}
		again := Batch{Requests: make([]Request, 2, 5)}
		again.Requests[0].Path = "used before"
		err = again.Decode(b.Append(nil))
		if err != nil || !reflect.DeepEqual(again, b) {
			t.Fatalf("%+v came back as %+v, %v", b, again, err)
		}
		results := 0
		m := New()
		m.Apply(1, &b, func(int, *Result) { results++ })
		if results != len(b.Requests) {
			t.Fatalf("%d results of %d requests", results, len(b.Requests))
		}
		restored(t, m)
	})
}

// FuzzApply sends arbitrary bodies of arbitrary operations and compares with a machine restored half-way.
func FuzzApply(f *testing.F) {
	f.Add(int32(jute.OpCreate), createBody("/a", "x", jute.FlagEphemeral), int32(jute.OpDelete), deleteBody("/a"))
	f.Add(int32(jute.OpMulti), jute.MultiEnd.Append(nil), int32(jute.OpSetACL), deleteBody("/a"))
	f.Fuzz(func(t *testing.T, op1 int32, body1 []byte, op2 int32, body2 []byte) {
		m := withSession(t)
		apply(m, write(jute.OpCode(op1), body1, alice))
		other := restored(t, m)
		for _, each := range []*Machine{m, other} {
			apply(each, write(jute.OpCode(op2), body2))
			each.HandleRead(jute.OpCode(op1), body1, nil, 1)
			each.HandleRead(jute.OpCode(op2), body2, nil, 1)
		}
		if m.Checksum() != other.Checksum() {
			t.Fatal("members differ")
		}
	})
}

// FuzzRestore reads arbitrary bytes, as blocks with a right checksum too, so that the fuzzer gets past it.
func FuzzRestore(f *testing.F) {
	m := New()
	apply(m, Request{Kind: KindCreateSession, Session: 1, Password: []byte("pw")})
	apply(m, write(jute.OpCreate, createBody("/a", "x", jute.FlagEphemeral)))
	var whole bytes.Buffer
	s := m.Freeze()
	defer s.Close()
	_, _ = s.WriteTo(&whole)
	f.Add(whole.Bytes())
	f.Add(whole.Bytes()[20 : whole.Len()-12])
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = Restore(bytes.NewReader(data))
		framed := bytes.NewBuffer(append([]byte(snapshotMagic), 0, 0, 0, snapshotVersion))
		w := &blockWriter{w: framed}
		if len(data) == 0 || len(data) > blockBytesMax {
			return
		}
		w.block(data)
		w.write(make([]byte, 4))
		w.write(checksumOf(data))
		m, err := Restore(framed)
		if err == nil {
			restored(t, m)
		}
	})
}
