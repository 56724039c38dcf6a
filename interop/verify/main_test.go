// Package verify points `understudy verify` at Apache's servers and at ours, kills some of them
// meanwhile, and demands that it finds nothing where nothing is wrong; and it plays the outage in
// which Apache Kafka's ZooKeeper mode loses acknowledged records, which must be found there and
// must not happen here.
package verify

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"understudy/internal/fleet"
	"understudy/interop/foreign"
)

// patience bounds every wait; nothing is expected to take nearly as long.
const patience = 2 * time.Minute

// program is the understudy binary under test.
var program string

func TestMain(m *testing.M) {
	os.Exit(fleet.WhileBuilt(func(binary, _ string) int {
		program = binary
		return m.Run()
	}))
}

// rounds is how often every server is killed: once, or UNDERSTUDY_VERIFY_ROUNDS times.
func rounds(t *testing.T) int {
	t.Helper()
	text := os.Getenv("UNDERSTUDY_VERIFY_ROUNDS")
	if text == "" {
		return 1
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("UNDERSTUDY_VERIFY_ROUNDS=%s: give a number of rounds", text)
	}
	return n
}

// limited returns a context that ends with the test's patience.
func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// kind is whose servers play.
type kind string

const (
	ours   kind = "understudy"
	apache kind = "Apache"
)

// servers configures a fleet of one kind; nothing runs yet.
func servers(t *testing.T, kind kind, coordinators int, broker, coordinator map[string]string) *fleet.Fleet {
	t.Helper()
	options := fleet.Options{
		Binary: program, Dir: t.TempDir(), Coordinators: coordinators, BrokerProperties: broker, CoordinatorProperties: coordinator, StartTimeout: patience,
	}
	if kind == apache {
		originals := foreign.Apache(t)
		choose := func(int) *fleet.Program { return originals }
		options.CoordinatorProgram, options.BrokerProgram = choose, choose
	}
	f, err := fleet.New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.KillAll()
		if t.Failed() {
			showLogs(t, append(f.Coordinators, f.Brokers...))
		}
	})
	return f
}

func showLogs(t *testing.T, nodes []*fleet.Node) {
	for _, node := range nodes {
		if text, err := os.ReadFile(node.LogFile()); err == nil {
			t.Logf("the end of the log of %s:\n%s", node.Name, text[max(0, len(text)-3000):])
		}
	}
}

func start(t *testing.T, nodes ...*fleet.Node) {
	t.Helper()
	errs := make([]error, len(nodes))
	var wait sync.WaitGroup
	for i, node := range nodes {
		wait.Go(func() { errs[i] = restart(limited(t), node) })
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// restart starts a server. An Apache broker exits while the node of its former session still
// exists, or when a busy machine lets its new session expire; an operator would start it until
// it holds.
func restart(ctx context.Context, node *fleet.Node) error {
	for {
		err := node.Start(ctx)
		if err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), "NodeExists") && !strings.Contains(err.Error(), "SessionExpiredException") {
			return err
		}
	}
}

// run is a verify under way.
type run struct {
	command *exec.Cmd
	stdout  bytes.Buffer
	stderr  progress
	ended   chan struct{}
	began   time.Time
}

// progress keeps what verify says on stderr.
type progress struct {
	mu      sync.Mutex
	text    strings.Builder
	atWork  chan struct{} // closed when the clients have begun
	noticed bool
}

func (p *progress) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text.Write(text)
	if !p.noticed && strings.Contains(p.text.String(), "at work") {
		p.noticed = true
		close(p.atWork)
	}
	return len(text), nil
}

func (p *progress) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// launch starts `understudy verify` with arguments.
func launch(t *testing.T, args ...string) *run {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rounds(t))*patience)
	t.Cleanup(cancel)
	r := &run{command: exec.CommandContext(ctx, program, append([]string{"verify"}, args...)...), ended: make(chan struct{}), began: time.Now()}
	r.stderr.atWork = make(chan struct{})
	r.command.Stdout, r.command.Stderr = &r.stdout, &r.stderr
	if err := r.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = r.command.Wait() // the status is in ProcessState
		close(r.ended)
	}()
	return r
}

// expect waits for the end and demands an exit status; it returns the report.
func (r *run) expect(t *testing.T, status int) string {
	t.Helper()
	<-r.ended
	t.Logf("verify took %v and reported:\n%s", time.Since(r.began).Round(time.Millisecond), &r.stdout)
	if got := r.command.ProcessState.ExitCode(); got != status {
		t.Fatalf("exit status %d, want %d; stderr:\n%s", got, status, &r.stderr)
	}
	return r.stdout.String()
}

// killPause is how long the servers work between two kills.
const killPause = time.Second

// strike kills each server in turn with kill -9 and starts it again, while verify runs; from
// the second round on it ends with all of them at once.
func (r *run) strike(t *testing.T, nodes ...*fleet.Node) {
	t.Helper()
	for range rounds(t) {
		for _, node := range nodes {
			r.kill(t, node)
		}
		if rounds(t) > 1 {
			r.kill(t, nodes...)
		}
	}
}

// work lets the clients work for a while, counted from when they have begun.
func (r *run) work(t *testing.T) {
	t.Helper()
	select {
	case <-r.stderr.atWork:
		select {
		case <-time.After(killPause):
			return
		case <-r.ended:
		}
	case <-r.ended:
	}
	t.Fatalf("verify ended too early; stderr:\n%s\n%s", &r.stderr, &r.stdout)
}

// kill kills servers at the same moment and starts them again.
func (r *run) kill(t *testing.T, nodes ...*fleet.Node) {
	t.Helper()
	r.work(t)
	for _, node := range nodes {
		if process := node.Process(); process != nil {
			_ = process.KillAsync() // already gone is what we want
		}
	}
	for _, node := range nodes {
		node.Kill()
	}
	start(t, nodes...)
}

// finish tells verify that the faults are over, so that its duration need not be guessed: it
// ends its work as after a Ctrl-C and judges what there is.
func (r *run) finish(t *testing.T) {
	t.Helper()
	r.work(t)
	if err := r.command.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
}

// serving awaits a broker that prints no ready line.
func serving(addr string) func(context.Context) error {
	return func(ctx context.Context) error { return fleet.AwaitServing(ctx, "broker", addr) }
}

// freePorts finds free loopback ports. All are held until the last is found, so that they differ.
func freePorts(t *testing.T, count int) []int {
	t.Helper()
	ports := make([]int, count)
	for i := range ports {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		ports[i] = listener.Addr().(*net.TCPAddr).Port
	}
	return ports
}
