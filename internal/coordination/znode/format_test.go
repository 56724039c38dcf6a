package znode

import (
	"bytes"
	"encoding/hex"
	"testing"

	"understudy/internal/coordination/jute"
)

// What is on disk must stay readable: these are version 1 of both formats. A change of either needs a new version.
const (
	batchVersion1 = "0100000199c82cc000038080808080808080104d05013f00ffffffffffffffff02090a04626f64790206646967657374" +
		"22616c6963653a6159586c4c4f70456f6f61563163524176554c31667039517437453d0664696765737420626f623a66" +
		"79566d4643775662544a59727a6e6f5375316b6f7159455946303d014d004000000000000000021502800701c8010270" +
		"7709070008022f63000000"
	snapshotVersion1 = "75737a6e6f64650a00000001000000a8f61c683401848080801001020305010100000000000001e05dac021030313233" +
		"34353637383961626364656602010000000103028380808010000000097a6f6f6b65657065720102000000000006636f" +
		"6e6669670601010205776f726c6406616e796f6e65000000000001000571756f74610000000001650882808080108080" +
		"e682b9660100000000000001046461746101633483808080108080e682b9660284808080108080e682b9660000000000" +
		"c10b217ddb3e1df9"
)

func TestBatchFormatIsStable(t *testing.T) {
	want := exampleBatch()
	encoded, err := hex.DecodeString(batchVersion1)
	if err != nil {
		t.Fatal(err)
	}
	if got := want.Append(nil); !bytes.Equal(got, encoded) {
		t.Errorf("a batch is now written as\n%x", got)
	}
	if _, err := DecodeBatch(encoded); err != nil {
		t.Error(err)
	}
}

func TestSnapshotFormatIsStable(t *testing.T) {
	m := New()
	m.Apply(1, &Batch{TimeMs: 1_760_000_000_000, Origin: 2, Incarnation: 3, FirstSequence: 1, Requests: []Request{
		{Kind: KindCreateSession, Session: 0x0100_0000_0000_0001, TimeoutMs: 6000, GraceMs: 150, Password: []byte("0123456789abcdef"), Owner: 2},
		{Kind: KindOp, Session: 0x0100_0000_0000_0001, Generation: 1, Op: jute.OpCreate, Body: createBody("/e", "data", jute.FlagEphemeral)},
		{Kind: KindOp, Session: 0x0100_0000_0000_0001, Generation: 1, Op: jute.OpCreateContainer, Body: createBody("/c", "", jute.FlagContainer)},
		{Kind: KindOp, Session: 0x0100_0000_0000_0001, Generation: 1, Op: jute.OpSetData,
			Body: (&jute.SetDataRequest{Path: "/c", Data: nil, Version: 0}).Append(nil)},
	}}, nil)
	var got bytes.Buffer
	s := m.Freeze()
	defer s.Close()
	if _, err := s.WriteTo(&got); err != nil {
		t.Fatal(err)
	}
	encoded, err := hex.DecodeString(snapshotVersion1)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), encoded) {
		t.Errorf("a snapshot is now written as\n%x", got.Bytes())
	}
	again, err := Restore(bytes.NewReader(encoded))
	if err != nil || again.Checksum() != m.Checksum() {
		t.Error("a snapshot of version 1 is not read as what was written", err)
	}
}
