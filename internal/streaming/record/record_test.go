package record

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand"
	"runtime"
	"testing"

	"understudy/internal/streaming/cluster"

	"github.com/twmb/franz-go/pkg/kerr"
)

type input struct {
	delta      int32
	timestamp  int64
	key, value []byte
	headers    []Header
}

func build(t testing.TB, options BuilderOptions, inputs []input) Batch {
	t.Helper()
	builder := NewBuilder(options)
	for _, in := range inputs {
		builder.AppendAt(in.delta, in.timestamp, in.key, in.value, in.headers...)
	}
	batch, err := builder.Build()
	if err != nil {
		t.Fatal(err)
	}
	return batch
}

var samples = []input{
	{0, 1_700_000_000_000, []byte("key"), []byte("value"), nil},
	{1, 1_700_000_000_500, nil, nil, []Header{{"h", []byte("x")}, {"", nil}}},
	{5, 1_699_999_999_000, []byte{}, bytes.Repeat([]byte("abc"), 100_000), nil},
}

// What is built is read again, in every codec.
func TestRoundTrip(t *testing.T) {
	for codec := None; codec <= Zstd; codec++ {
		t.Run(codec.String(), func(t *testing.T) {
			options := DefaultOptions()
			options.Codec, options.BaseOffset, options.LeaderEpoch = codec, 100, 7
			options.ProducerID, options.ProducerEpoch, options.BaseSequence = 5, 2, maxSequenceNumber
			batch := build(t, options, samples)
			cut, rest, err := Next(append(bytes.Clone(batch), 1, 2, 3))
			if err != nil || len(rest) != 3 || !bytes.Equal(cut, batch) {
				t.Fatalf("cut off: %v, %d left", err, len(rest))
			}
			if err := errors.Join(batch.Check(), batch.CheckFraming()); err != nil {
				t.Fatal(err)
			}
			if batch.BaseOffset() != 100 || batch.LastOffset() != 105 || batch.NextOffset() != 106 || batch.LeaderEpoch() != 7 ||
				batch.Count() != 3 || batch.ProducerID() != 5 || batch.ProducerEpoch() != 2 || batch.BaseSequence() != maxSequenceNumber ||
				batch.LastSequence() != 4 || batch.Codec() != codec || batch.MaxTimestamp() != 1_700_000_000_500 {
				t.Fatalf("header fields of %x", batch[:HeaderSize])
			}
			i := 0
			for r, err := range batch.Records(1 << 20) {
				if err != nil {
					t.Fatal(err)
				}
				want := samples[i]
				if r.Offset != 100+cluster.Offset(want.delta) || r.TimestampMs != want.timestamp ||
					!sameBytes(r.Key, want.key) || !sameBytes(r.Value, want.value) || len(r.Headers) != len(want.headers) {
					t.Fatalf("record %d is %+v", i, r)
				}
				for j, header := range want.headers {
					if r.Headers[j].Key != header.Key || !sameBytes(r.Headers[j].Value, header.Value) {
						t.Fatalf("header %d is %+v", j, r.Headers[j])
					}
				}
				i++
			}
			if i != len(samples) {
				t.Fatalf("%d records", i)
			}
			for _, err := range batch.Records(1000) {
				if codec == None {
					break // nothing is inflated, so nothing is bounded
				}
				if !errors.Is(err, kerr.InvalidRecord) {
					t.Fatalf("records beyond the limit: %v", err)
				}
			}
			other, err := batch.Recompress((codec+1)%5, 0, 1<<20)
			if err != nil || other.Check() != nil || other.Codec() != (codec+1)%5 {
				t.Fatalf("recompressed: %v", err)
			}
		})
	}
}

func sameBytes(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

func TestPatching(t *testing.T) {
	batch := build(t, DefaultOptions(), samples)
	batch.SetBaseOffset(9)
	batch.SetLeaderEpoch(3)
	if err := batch.Check(); err != nil {
		t.Fatalf("offset and epoch are outside the checksum: %v", err)
	}
	batch.SetLogAppendTime(42)
	if err := batch.Check(); err != nil || batch.TimestampType() != LogAppendTime || batch.MaxTimestamp() != 42 {
		t.Fatalf("append time: %v", err)
	}
	for r := range batch.Records(1 << 20) {
		if r.TimestampMs != 42 {
			t.Fatalf("timestamp %d", r.TimestampMs)
		}
	}
	batch.SetProducer(1, 2, 3)
	if err := batch.Check(); err != nil || batch.ProducerID() != 1 || batch.LastSequence() != 8 {
		t.Fatalf("producer: %v", err)
	}
}

func TestRefused(t *testing.T) {
	cases := map[string]struct {
		damage func(Batch)
		check  func(Batch) error
		code   error
	}{
		"payload bit":        {func(b Batch) { b[len(b)-1] ^= 4 }, Batch.Check, kerr.CorruptMessage},
		"negative offset":    {func(b Batch) { b.SetBaseOffset(-1) }, Batch.Check, kerr.CorruptMessage},
		"count over offsets": {func(b Batch) { b[recordCountAt+3] = 90; b.RenewCRC() }, Batch.Check, kerr.CorruptMessage},
		"unknown codec":      {func(b Batch) { b[attributesAt+1] |= 7; b.RenewCRC() }, Batch.Check, kerr.CorruptMessage},
		"count":              {func(b Batch) { b[recordCountAt+3] = 2; b.RenewCRC() }, Batch.CheckFraming, kerr.InvalidRecord},
		"record length":      {func(b Batch) { b[HeaderSize] = 0x7f; b.RenewCRC() }, Batch.CheckFraming, kerr.InvalidRecord},
		"holes":              {func(b Batch) {}, Batch.CheckProduced, kerr.InvalidRecord},
		"append time":        {func(b Batch) { b.SetLogAppendTime(1) }, Batch.CheckProduced, kerr.InvalidRecord},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			batch := build(t, DefaultOptions(), samples)
			c.damage(batch)
			if err := c.check(batch); !errors.Is(err, c.code) {
				t.Fatalf("error %v, want %v", err, c.code)
			}
		})
	}
	if err := build(t, DefaultOptions(), samples[:2]).CheckProduced(); err != nil {
		t.Fatal(err)
	}
	old := build(t, DefaultOptions(), samples)
	for magic, code := range map[byte]error{0: kerr.UnsupportedForMessageFormat, 1: kerr.UnsupportedForMessageFormat, 3: kerr.CorruptMessage} {
		old[magicAt] = magic
		if _, _, err := Next(old); !errors.Is(err, code) {
			t.Fatalf("magic %d: %v", magic, err)
		}
	}
	if _, _, err := Next([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0}); !errors.Is(err, kerr.CorruptMessage) {
		t.Fatalf("negative length: %v", err)
	}
	if _, _, err := Next([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff}); !errors.Is(err, ErrIncomplete) {
		t.Fatalf("2 GiB announced: %v", err)
	}
}

func TestMarkers(t *testing.T) {
	batch := BuildMarker(Marker{Type: Commit, CoordinatorEpoch: 12}, 77, 3, 5, 1000)
	if err := batch.Check(); err != nil || !batch.Control() || !batch.Transactional() || batch.BaseSequence() != NoSequence {
		t.Fatalf("marker batch: %v", err)
	}
	marker, ok, err := batch.Marker()
	if err != nil || !ok || marker != (Marker{Commit, 12}) {
		t.Fatalf("%+v %v %v", marker, ok, err)
	}
}

func TestSequences(t *testing.T) {
	const top = maxSequenceNumber
	for _, c := range [][3]int32{{0, 1, 1}, {top, 1, 0}, {top - 1, 3, 1}, {5, 0, 5}, {top, top, top - 1}} {
		if got := AddSequence(c[0], c[1]); got != c[2] {
			t.Errorf("%d + %d = %d, want %d", c[0], c[1], got, c[2])
		}
		if got := SubtractSequence(c[2], c[1]); got != c[0] {
			t.Errorf("%d - %d = %d, want %d", c[2], c[1], got, c[0])
		}
	}
}

// A bare snappy block, as some clients send it, and a stream written by snappy-java.
func TestSnappyVariants(t *testing.T) {
	bare, err := hex.DecodeString("0b2868656c6c6f20776f726c64") // "hello world" as one literal
	if err != nil {
		t.Fatal(err)
	}
	if out, err := Snappy.Decompress(nil, bare, 100); err != nil || string(out) != "hello world" {
		t.Fatalf("bare: %q %v", out, err)
	}
	framed := append(bytes.Clone(xerialMagic), 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, byte(len(bare)))
	framed = append(framed, bare...)
	if out, err := Snappy.Decompress([]byte("> "), framed, 100); err != nil || string(out) != "> hello world" {
		t.Fatalf("framed: %q %v", out, err)
	}
	if _, err := Snappy.Decompress(nil, framed, 10); !errors.Is(err, kerr.InvalidRecord) {
		t.Fatalf("beyond the limit: %v", err)
	}
	if _, err := Snappy.Decompress(nil, []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0}, 1<<33); !errors.Is(err, kerr.CorruptMessage) {
		t.Fatalf("4 GiB announced: %v", err)
	}
}

func FuzzBatch(f *testing.F) {
	for codec := None; codec <= Zstd; codec++ {
		options := DefaultOptions()
		options.Codec = codec
		f.Add([]byte(build(f, options, samples[:2])))
	}
	f.Add([]byte(BuildMarker(Marker{Type: Abort}, 1, 1, 1, 1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		for batch, err := range All(data) {
			if err != nil {
				return
			}
			_ = batch.Check()
			_ = batch.CheckProduced()
			framing := batch.CheckFraming()
			count, failed := int32(0), false
			for _, err := range batch.Records(1 << 16) {
				if err != nil {
					failed = true
					break
				}
				count++
			}
			if !failed && batch.Count() >= 0 && count != batch.Count() {
				t.Fatalf("%d records of %d without an error", count, batch.Count())
			}
			if framing != nil && !failed && batch.Count() >= 0 {
				t.Fatalf("all records were read where the framing is wrong: %v", framing)
			}
			_, _, _ = batch.Marker()
		}
	})
}

func FuzzDecompress(f *testing.F) {
	random := rand.New(rand.NewSource(1))
	text := make([]byte, 5000)
	for i := range text {
		text[i] = byte('a' + random.Intn(4))
	}
	for codec := Gzip; codec <= Zstd; codec++ {
		out, err := codec.Compress(nil, text, 0)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(int8(codec), out)
		bomb, err := codec.Compress(nil, make([]byte, 512<<10), 0)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(int8(codec), bomb)
	}
	f.Fuzz(func(t *testing.T, codec int8, data []byte) {
		// A zstd frame may name a window of 32 MiB, which the decoder makes, and some more, before
		// it looks at the rest; whatever the input says, that is the bound.
		const limit, memoryMax = 1 << 16, 64 << 20
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		out, err := Codec(codec).Decompress(nil, data, limit)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > memoryMax {
			t.Fatalf("%d bytes were allocated for %d, to be at most %d", used, len(data), limit)
		}
		if err == nil && len(out) > limit {
			t.Fatalf("%d bytes, over the limit", len(out))
		}
		if c := Codec(codec); c.known() {
			packed, err := c.Compress(nil, data, 0)
			if err != nil {
				t.Fatal(err)
			}
			if back, err := c.Decompress(nil, packed, len(data)); err != nil || !bytes.Equal(back, data) {
				t.Fatalf("%s does not come back: %v", c, err)
			}
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	builder := NewBuilder(DefaultOptions())
	for range 1000 {
		builder.Append(1, nil, make([]byte, 100))
	}
	batch, err := builder.Build()
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(batch)))
	for b.Loop() {
		if err := errors.Join(batch.Check(), batch.CheckFraming()); err != nil {
			b.Fatal(err)
		}
	}
}
