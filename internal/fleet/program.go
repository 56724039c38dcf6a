package fleet

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// Program is a kind of server that can run a node from the node's own zoo.cfg or
// server.properties: understudy, or another implementation of the same keys and files.
type Program struct {
	Name string
	// Command is the program and its arguments; role is "coordinator" or "broker".
	Command func(role, config string) []string
	// Await returns when the server at an address serves; nil: it prints the ready line.
	Await func(ctx context.Context, role, addr string) error
	// Terminated is the exit status of a clean shutdown by SIGTERM.
	Terminated int
}

// Understudy is the program of this project; logLevel "" leaves its default.
func Understudy(binary, logLevel string) *Program {
	return &Program{Name: "understudy", Command: func(role, config string) []string {
		command := []string{binary, role, "--config", config, "--log-format", "json"}
		if logLevel != "" {
			command = append(command, "--log-level", logLevel)
		}
		return command
	}}
}

// Program is what runs the node.
func (n *Node) Program() *Program {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.program
}

// Use has the node's next start run another program in the same directory.
func (n *Node) Use(program *Program) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.program = program
}

// askEvery is the pace at which a starting server is asked whether it serves.
const askEvery = 50 * time.Millisecond

// AwaitServing asks a server by its own protocol until it answers: a broker for its versions,
// which it gives once it processes requests, and a coordinator for its mode, which it has
// once it is part of a quorum.
func AwaitServing(ctx context.Context, role, addr string) error {
	ask := brokerServes
	if role == "coordinator" {
		ask = coordinatorServes
	}
	for {
		err := ask(addr)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s at %s does not serve: %w", role, addr, err)
		case <-time.After(askEvery):
		}
	}
}

func coordinatorServes(addr string) error {
	answer, err := FourLetterWord(addr, "srvr")
	if err != nil {
		return err
	}
	if !strings.Contains(answer, "Mode: ") {
		return fmt.Errorf("it answers %q", answer)
	}
	return nil
}

// brokerServes sends ApiVersions version 0, which every broker answers.
func brokerServes(addr string) error {
	conn, err := net.DialTimeout("tcp", addr, 2*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	request := []byte{0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff} // key, version, correlation id, no client id
	if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(request))), request...)); err != nil {
		return err
	}
	var head [10]byte // size, correlation id, error code
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return err
	}
	if !bytes.Equal(head[4:], []byte{0, 0, 0, 1, 0, 0}) {
		return fmt.Errorf("it answers % x", head)
	}
	return nil
}
