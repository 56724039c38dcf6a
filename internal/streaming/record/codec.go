package record

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kerr"
)

// Codec is a compression type, numbered as in a batch's attributes.
type Codec int8

const (
	None   Codec = 0
	Gzip   Codec = 1
	Snappy Codec = 2
	LZ4    Codec = 3
	Zstd   Codec = 4
)

var codecNames = [...]string{"none", "gzip", "snappy", "lz4", "zstd"}

func (c Codec) known() bool { return c >= None && c <= Zstd }

// String is the name that configurations use.
func (c Codec) String() string {
	if !c.known() {
		return fmt.Sprintf("codec(%d)", int8(c))
	}
	return codecNames[c]
}

// ParseCodec reads a value of the key compression.type other than "producer".
func ParseCodec(name string) (Codec, error) {
	if name == "uncompressed" {
		return None, nil
	}
	for i, known := range codecNames {
		if name == known {
			return Codec(i), nil
		}
	}
	return None, fmt.Errorf("compression type %q is none of uncompressed, gzip, snappy, lz4, zstd", name)
}

// Decompress appends the content of src to dst. What would exceed limit bytes is refused:
// the format does not bound how far a few bytes may inflate.
func (c Codec) Decompress(dst, src []byte, limit int) ([]byte, error) {
	var err error
	switch c {
	case None:
		if len(src) > limit {
			return dst, tooLarge(limit)
		}
		return append(dst, src...), nil
	case Gzip:
		dst, err = decompressGzip(dst, src, limit)
	case Snappy:
		dst, err = decompressSnappy(dst, src, limit)
	case LZ4:
		dst, err = decompressLZ4(dst, src, limit)
	case Zstd:
		dst, err = decompressZstd(dst, src, limit)
	default:
		return dst, corrupt("compression codec %d is unknown", int8(c))
	}
	if err != nil && !errors.Is(err, kerr.InvalidRecord) {
		return dst, corrupt("%s records do not decompress: %v", c, err)
	}
	return dst, err
}

func tooLarge(limit int) error {
	return invalid("records decompress to more than %d bytes", limit)
}

// Compress appends src, compressed, to dst. Level 0 means the codec's own default.
func (c Codec) Compress(dst, src []byte, level int) ([]byte, error) {
	switch c {
	case None:
		return append(dst, src...), nil
	case Gzip:
		if level == 0 {
			level = gzip.DefaultCompression
		}
		out := appendWriter{dst}
		writer, err := gzip.NewWriterLevel(&out, level)
		if err != nil {
			return dst, fmt.Errorf("gzip: %w", err)
		}
		return out.finish(writer, src)
	case Snappy:
		return compressSnappy(dst, src), nil
	case LZ4:
		out := appendWriter{dst}
		writer := lz4.NewWriter(&out)
		err := writer.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false), lz4.ConcurrencyOption(1))
		if err != nil {
			return dst, fmt.Errorf("lz4: %w", err)
		}
		return out.finish(writer, src)
	case Zstd:
		encoder := zstdEncoders.Get().(*zstd.Encoder)
		defer zstdEncoders.Put(encoder)
		return encoder.EncodeAll(src, dst), nil
	}
	return dst, fmt.Errorf("compression codec %d is unknown", int8(c))
}

// appendWriter is an io.Writer that grows a slice.
type appendWriter struct{ data []byte }

func (w *appendWriter) Write(p []byte) (int, error) {
	w.data = append(w.data, p...)
	return len(p), nil
}

func (w *appendWriter) finish(compressor io.WriteCloser, src []byte) ([]byte, error) {
	if _, err := compressor.Write(src); err != nil {
		return w.data, err
	}
	err := compressor.Close()
	return w.data, err
}

// Decoders are costly to make and hold no state between uses, so they are pooled; this is
// the package's only shared state and no result depends on it.
var (
	gzipReaders  sync.Pool
	lz4Readers   = sync.Pool{New: func() any { return lz4.NewReader(nil) }}
	zstdDecoders = sync.Pool{New: func() any {
		decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		if err != nil {
			panic(fmt.Sprintf("record: zstd decoder: %v", err)) // only for bad options
		}
		return decoder
	}}
	zstdEncoders = sync.Pool{New: func() any {
		encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
		if err != nil {
			panic(fmt.Sprintf("record: zstd encoder: %v", err))
		}
		return encoder
	}}
)

func decompressGzip(dst, src []byte, limit int) ([]byte, error) {
	reader, _ := gzipReaders.Get().(*gzip.Reader)
	var err error
	if reader == nil {
		reader, err = gzip.NewReader(bytes.NewReader(src))
	} else {
		err = reader.Reset(bytes.NewReader(src))
	}
	if err != nil {
		return dst, err
	}
	defer gzipReaders.Put(reader)
	return readBounded(dst, reader, limit)
}

func decompressLZ4(dst, src []byte, limit int) ([]byte, error) {
	reader := lz4Readers.Get().(*lz4.Reader)
	defer lz4Readers.Put(reader)
	reader.Reset(bytes.NewReader(src))
	return readBounded(dst, reader, limit)
}

func decompressZstd(dst, src []byte, limit int) ([]byte, error) {
	decoder := zstdDecoders.Get().(*zstd.Decoder)
	defer zstdDecoders.Put(decoder)
	if err := decoder.Reset(bytes.NewReader(src)); err != nil {
		return dst, err
	}
	defer func() { _ = decoder.Reset(nil) }() // lets go of src
	return readBounded(dst, decoder, limit)
}

// readBounded appends what reader gives to dst, growing as data really arrives.
func readBounded(dst []byte, reader io.Reader, limit int) ([]byte, error) {
	start := len(dst)
	for {
		if len(dst) == cap(dst) {
			dst = append(dst, 0)[:len(dst)]
		}
		n, err := reader.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if len(dst)-start > limit {
			return dst[:start], tooLarge(limit)
		}
		if err == io.EOF {
			return dst, nil
		}
		if err != nil {
			return dst[:start], err
		}
	}
}
