// Package zookeeper judges the coordinator by other people's clients: kazoo, go-zookeeper, ZooKeeper's own zkCli and
// Curator, against an ensemble member and its client port in this process. With UNDERSTUDY_ZOOKEEPER=host:port
// they run against that server instead, for example Apache's, to see that a test asks for what ZooKeeper does.
package zookeeper

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"understudy/internal/coordination/ensemble"
	"understudy/internal/coordination/zkserver"
)

// patience bounds every wait; nothing is expected to take nearly as long.
const patience = 2 * time.Minute

// server starts a coordinator of one member and returns its client address.
func server(t *testing.T) string {
	t.Helper()
	if addr := os.Getenv("UNDERSTUDY_ZOOKEEPER"); addr != "" {
		return addr
	}
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))
	member, err := ensemble.Start(t.Context(), ensemble.Config{Dir: t.TempDir(), ContainerCheckInterval: time.Second, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	s, err := zkserver.New(zkserver.Config{Member: member, MaxClientConnections: -1, FourLetterWhitelist: []string{"*"}, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(ln)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := member.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// report runs a program that prints "ok NAME" or "FAIL NAME" with reasons below, and makes each a subtest. The last line
// must be "done": a program that ends early has failed.
func report(t *testing.T, command *exec.Cmd) {
	t.Helper()
	var stderr strings.Builder
	command.Stderr = &stderr
	output, err := command.Output()
	text := strings.TrimSpace(string(output))
	if err != nil || !strings.HasSuffix(text, "done") {
		t.Errorf("%v: %v\n%s\n%s", command.Args[0], err, text, stderr.String())
	}
	var failed, reasons string
	flush := func() {
		if failed != "" {
			t.Run(failed, func(t *testing.T) { t.Error(reasons) })
		}
		failed, reasons = "", ""
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if name, ok := strings.CutPrefix(line, "ok "); ok {
			flush()
			t.Run(name, func(*testing.T) {})
		} else if name, ok := strings.CutPrefix(line, "FAIL "); ok {
			flush()
			failed = name
		} else if failed != "" && line != "done" {
			reasons += line + "\n"
		}
	}
	flush()
}
