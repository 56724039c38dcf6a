package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"understudy/internal/coordination/jute"
	"understudy/internal/fleet"
)

type coordinatorOptions struct {
	members  []int
	sessions []int
	inFlight int           // over all sessions
	during   time.Duration // of each row
	peer     bool
	profile  string
}

func coordinatorCommand() *cobra.Command {
	var options coordinatorOptions
	cmd := &cobra.Command{
		Use:   "coordinator",
		Short: "Measure what a write and a read of a znode cost the coordinators",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return coordinate(cmd.Context(), &options) },
	}
	cmd.Flags().IntSliceVar(&options.members, "members", []int{1, 3}, "members of the ensemble")
	cmd.Flags().IntSliceVar(&options.sessions, "sessions", []int{1, 64}, "client sessions, spread over the members")
	cmd.Flags().IntVar(&options.inFlight, "in-flight", 128, "requests without an answer, over all sessions")
	cmd.Flags().DurationVar(&options.during, "during", 4*time.Second, "how long each row is measured")
	cmd.Flags().BoolVar(&options.peer, "peer", false, "measure Apache ZooKeeper, too (needs java and mvn)")
	cmd.Flags().StringVar(&options.profile, "profile", "", "write understudy's processor profiles into this folder")
	return cmd
}

// znodeBytes is the size of the data written and read.
const znodeBytes = 100

func coordinate(ctx context.Context, options *coordinatorOptions) error {
	r, err := openRun(ctx, options.peer, options.profile)
	if err != nil {
		return err
	}
	defer r.close()
	fmt.Printf("%d B of data, %d requests in flight over all sessions, %v per row; CPU is user and system time of all members;\n", znodeBytes, options.inFlight, options.during)
	fmt.Printf("durability: every write fsynced by a majority (both programs' default)\n\n")
	fmt.Printf("%-56s %12s %22s %16s\n", "operation, members, sessions", "CPU µs each", "ops per CPU second", "ops per second")
	for _, members := range options.members {
		err := r.each("coordinator", func(dir string, program *fleet.Program) error {
			return coordinateOn(ctx, options, dir, program, members)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func coordinateOn(ctx context.Context, options *coordinatorOptions, dir string, program *fleet.Program, members int) error {
	f, err := newFleet(dir, program, members, 1)
	if err != nil {
		return err
	}
	f.Brokers = nil // coordinators alone
	defer f.KillAll()
	if err := f.Start(ctx); err != nil {
		return err
	}
	name := "Apache ZooKeeper"
	if program.Name == "understudy" {
		name = program.Name
	}
	for _, sessions := range options.sessions {
		load, err := connectSessions(f, sessions)
		if err != nil {
			return err
		}
		for _, operation := range []string{"setData", "getData"} {
			if _, err := load.run(ctx, operation, options.during/2, options.inFlight); err != nil { // warms up
				return err
			}
			var done int64
			cpu, wall, err := costOf(f, func() (err error) {
				done, err = load.run(ctx, operation, options.during, options.inFlight)
				return err
			})
			if err != nil {
				return err
			}
			count := float64(done)
			fmt.Printf("%-56s %12.1f %22.0f %16.0f\n", fmt.Sprintf("%s, %d, %d, %s", operation, members, sessions, name),
				float64(cpu.Microseconds())/count, count/cpu.Seconds(), count/wall.Seconds())
		}
		load.close()
	}
	bounded, cancel := stopping(ctx)
	defer cancel()
	return f.Stop(bounded)
}

// sessionLoad is a set of sessions, each with a znode of its own.
type sessionLoad struct{ sessions []*rawSession }

// rawSession is a connection that has a session and sends requests encoded beforehand.
type rawSession struct {
	conn   net.Conn
	reader *bufio.Reader
	buffer []byte
	path   string
}

func connectSessions(f *fleet.Fleet, count int) (*sessionLoad, error) {
	load := &sessionLoad{}
	for i := range count {
		s, err := connectSession(f.Coordinators[i%len(f.Coordinators)].Addr, fmt.Sprintf("/bench-%d-%d", count, i))
		if err != nil {
			load.close()
			return nil, err
		}
		load.sessions = append(load.sessions, s)
	}
	return load, nil
}

func connectSession(addr, path string) (*rawSession, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &rawSession{conn: conn, reader: bufio.NewReaderSize(conn, 64<<10), path: path}
	connect := jute.ConnectRequest{TimeoutMs: 60000, Password: make([]byte, 16), HasReadOnly: true}
	if err := s.exchange(connect.Append(nil)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	create := jute.CreateRequest{Path: path, Data: make([]byte, znodeBytes), ACL: []jute.ACL{{Perms: 31, ID: jute.ID{Scheme: "world", ID: "anyone"}}}}
	header := jute.RequestHeader{Xid: 1, Type: jute.OpCreate}
	if err := s.exchange(create.Append(header.Append(nil))); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return s, replyError(s.buffer)
}

// exchange sends one request and reads its answer.
func (s *rawSession) exchange(request []byte) error {
	if _, err := s.conn.Write(sized(request)); err != nil {
		return err
	}
	var err error
	s.buffer, err = readAnswer(s.reader, s.buffer)
	return err
}

func sized(request []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(request))), request...)
}

func replyError(reply []byte) error {
	decoder := jute.NewDecoder(reply)
	var header jute.ReplyHeader
	header.Decode(&decoder)
	if err := decoder.Err(); err != nil {
		return err
	}
	if header.Err != jute.OK {
		return header.Err
	}
	return nil
}

func (l *sessionLoad) close() {
	for _, s := range l.sessions {
		s.conn.Close()
	}
}

// run carries out operations over all sessions for a time, and counts them.
func (l *sessionLoad) run(ctx context.Context, operation string, during time.Duration, inFlight int) (int64, error) {
	var started atomic.Int64
	var wait sync.WaitGroup
	end := time.Now().Add(during)
	errs := make([]error, len(l.sessions))
	for i, s := range l.sessions {
		wait.Go(func() {
			errs[i] = s.run(ctx, s.request(operation), max(1, inFlight/len(l.sessions)), func() bool {
				count := started.Add(1)
				return count%16 != 0 || time.Now().Before(end)
			})
		})
	}
	wait.Wait()
	return started.Load(), errors.Join(errs...)
}

func (s *rawSession) request(operation string) []byte {
	header := jute.RequestHeader{Xid: 2, Type: jute.OpGetData}
	if operation == "setData" {
		header.Type = jute.OpSetData
		request := jute.SetDataRequest{Path: s.path, Data: bytes.Repeat([]byte{'x'}, znodeBytes), Version: -1}
		return sized(request.Append(header.Append(nil)))
	}
	return sized(append(jute.AppendString(header.Append(nil), s.path), 0)) // no watch
}

// run sends the request again and again, with a bounded number in flight, while more says
// so. Requests that may go at once go in one write.
func (s *rawSession) run(ctx context.Context, request []byte, inFlight int, more func() bool) error {
	defer context.AfterFunc(ctx, func() { s.conn.Close() })()
	due := make(chan struct{}, inFlight)
	var reading sync.WaitGroup
	var readErr error
	reading.Go(func() {
		for range due {
			if readErr = s.readReply(); readErr != nil {
				s.conn.Close()
				for range due {
				}
			}
		}
	})
	writer := bufio.NewWriterSize(s.conn, 64<<10)
	var writeErr error
	for writeErr == nil && more() {
		select {
		case due <- struct{}{}:
		default:
			writeErr = writer.Flush()
			due <- struct{}{}
		}
		_, _ = writer.Write(request) // Flush tells
	}
	writeErr = errors.Join(writeErr, writer.Flush())
	close(due)
	reading.Wait()
	return errors.Join(readErr, writeErr, context.Cause(ctx))
}

func (s *rawSession) readReply() error {
	var err error
	if s.buffer, err = readAnswer(s.reader, s.buffer); err != nil {
		return err
	}
	return replyError(s.buffer)
}
