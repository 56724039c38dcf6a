package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/record"
)

// The load generator speaks the protocol with requests that were encoded before the clock
// starts, so that on a small machine the servers, not the client, use the processors, and
// both kinds of server get the same bytes.

// Versions of the generator's requests: both servers know them, and topics have names.
const (
	rawProduceVersion = 9
	rawFetchVersion   = 12
)

// batchOf builds a batch of records of a size, close to batchBytes before compression. The
// values are words, so that a codec finds about what it finds in logs.
func batchOf(random *rand.Rand, recordBytes, batchBytes int, codec record.Codec) (batch []byte, records int, err error) {
	options := record.DefaultOptions()
	options.Codec = codec
	builder := record.NewBuilder(options)
	now := time.Now().UnixMilli()
	const perRecord = 12 // what the format adds to each value
	records = max(1, batchBytes/(recordBytes+perRecord))
	value := make([]byte, 0, recordBytes+16)
	for range records {
		for value = value[:0]; len(value) < recordBytes; {
			value = append(value, words[random.IntN(len(words))]...)
			value = strconv.AppendInt(value, random.Int64N(100000), 10)
		}
		builder.Append(now, nil, value[:recordBytes])
	}
	batch, err = builder.Build()
	return batch, records, err
}

var words = []string{"leader=", " epoch=", " offset=", " partition ", " topic curtain", " the understudy ", " waits in the wings ", " zxid=0x"}

// frame encodes a request with its size and header. All have the same correlation id: the
// answers come in order.
func frame(request kmsg.Request) []byte {
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("bench")).AppendRequest(nil, request, 0)
}

// producing is one load: every frame is one batch for one partition; a connection sends its
// frames in turn.
type producing struct {
	inFlight int   // requests of one connection without an answer
	total    int64 // how many frames to send, over all connections
	sent     atomic.Int64
}

// run sends over one connection until the total is reached and every answer is in.
func (p *producing) run(ctx context.Context, addr string, frames [][]byte) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	due := make(chan struct{}, p.inFlight-1) // one more is with the reader
	var reading sync.WaitGroup
	var readErr, writeErr error
	reading.Go(func() {
		if readErr = readAcknowledgements(conn, due); readErr != nil {
			conn.Close() // ends the writer, too
			for range due {
			}
		}
	})
	for i := 0; p.sent.Add(1) <= p.total && writeErr == nil; i++ {
		due <- struct{}{}
		_, writeErr = conn.Write(frames[i%len(frames)])
	}
	close(due)
	if writeErr != nil {
		conn.Close()
	}
	reading.Wait()
	return errors.Join(writeErr, readErr, context.Cause(ctx))
}

// readAcknowledgements reads an answer for each request that is due.
func readAcknowledgements(conn net.Conn, due <-chan struct{}) error {
	reader := bufio.NewReader(conn)
	var buffer []byte
	var err error
	for range due {
		if buffer, err = readAnswer(reader, buffer); err != nil {
			return err
		}
		response := kmsg.NewPtrProduceResponse()
		response.SetVersion(rawProduceVersion)
		if err := response.ReadFrom(buffer[5:]); err != nil { // after correlation id and no tags
			return err
		}
		for _, topic := range response.Topics {
			for _, partition := range topic.Partitions {
				if err := kerr.ErrorForCode(partition.ErrorCode); err != nil {
					return fmt.Errorf("produce to %s-%d: %w", topic.Topic, partition.Partition, err)
				}
			}
		}
	}
	return nil
}

func readAnswer(reader *bufio.Reader, buffer []byte) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(reader, size[:]); err != nil {
		return nil, err
	}
	length := int(binary.BigEndian.Uint32(size[:]))
	if length < 5 || length > 1<<30 {
		return nil, fmt.Errorf("an answer of %d bytes", length)
	}
	if cap(buffer) < length {
		buffer = make([]byte, length)
	}
	buffer = buffer[:length]
	_, err := io.ReadFull(reader, buffer)
	return buffer, err
}

// consuming reads a topic's partitions that one broker leads from their beginning to given ends.
type consuming struct {
	topic        string
	partitionMax int32 // bytes of one partition per answer
	partitions   []int32
	next, end    []int64 // by index of partitions
	bytes        int64   // of batches read
}

// run fetches all that is left at once, again and again, as a consumer does without a session.
func (c *consuming) run(ctx context.Context, addr string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	reader := bufio.NewReaderSize(conn, 64<<10)
	var buffer []byte
	for {
		request := c.request()
		if request == nil {
			return nil
		}
		if _, err := conn.Write(frame(request)); err != nil {
			return err
		}
		if buffer, err = readAnswer(reader, buffer); err != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		response := kmsg.NewPtrFetchResponse()
		response.SetVersion(rawFetchVersion)
		if err := response.ReadFrom(buffer[5:]); err != nil {
			return err
		}
		if err := c.take(response); err != nil {
			return err
		}
	}
}

func (c *consuming) request() *kmsg.FetchRequest {
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic = c.topic
	for i, partition := range c.partitions {
		if c.next[i] < c.end[i] {
			asked := kmsg.NewFetchRequestTopicPartition()
			asked.Partition, asked.FetchOffset, asked.PartitionMaxBytes = partition, c.next[i], c.partitionMax
			topic.Partitions = append(topic.Partitions, asked)
		}
	}
	if len(topic.Partitions) == 0 {
		return nil
	}
	request := kmsg.NewPtrFetchRequest()
	request.SetVersion(rawFetchVersion)
	request.MinBytes, request.MaxBytes, request.MaxWaitMillis = 1, 50<<20, 500
	request.SessionEpoch = -1
	request.Topics = []kmsg.FetchRequestTopic{topic}
	return request
}

func (c *consuming) take(response *kmsg.FetchResponse) error {
	if err := kerr.ErrorForCode(response.ErrorCode); err != nil {
		return err
	}
	for _, topic := range response.Topics {
		for _, partition := range topic.Partitions {
			if err := kerr.ErrorForCode(partition.ErrorCode); err != nil {
				return fmt.Errorf("fetch from %s-%d: %w", c.topic, partition.Partition, err)
			}
			i := slices.Index(c.partitions, partition.Partition)
			for rest := partition.RecordBatches; len(rest) > 0; {
				batch, after, err := record.Next(rest)
				if err != nil {
					break // the last batch may be cut short
				}
				c.next[i] = int64(batch.NextOffset())
				c.bytes += int64(len(batch))
				rest = after
			}
		}
	}
	return nil
}
