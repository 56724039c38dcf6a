// Package fleet runs understudy's servers as processes of their own on this machine: it writes
// their configuration, starts them, waits for their ready lines, reads their logs, and kills,
// pauses, stops and restarts them. The demo, the benchmarks and the interoperability tests
// share it. It only ever signals processes that it started.
package fleet

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ReadyPrefix begins the one line that every server prints on stdout when it serves.
const ReadyPrefix = "understudy ready:"

// LogLine is one structured line that a server wrote on stderr (JSON format).
type LogLine struct {
	Process string
	Time    time.Time // the server's own time stamp
	Level   string
	Message string
	Fields  map[string]any
}

// Text returns a field as text, "" if it is absent.
func (l LogLine) Text(key string) string {
	value, ok := l.Fields[key]
	if !ok {
		return ""
	}
	if number, ok := value.(float64); ok {
		return fmt.Sprintf("%.0f", number)
	}
	return fmt.Sprint(value)
}

// ProcessSpec says what to run.
type ProcessSpec struct {
	Name    string   // for messages and log lines
	Command []string // the program and its arguments
	Dir     string   // working directory
	Env     []string // added to this process's environment
	LogFile string   // stderr is appended here; "" keeps nothing
	OnLog   func(LogLine)
	// Await returns when the server serves, for programs that do not print our ready line.
	// Its context ends with the process.
	Await func(context.Context) error
	// Terminated is the exit status of a clean shutdown by SIGTERM: 143 for a JVM.
	Terminated int
}

// Process is one running server.
type Process struct {
	Name  string
	Ready string // the rest of the ready line

	spec    ProcessSpec
	command *exec.Cmd
	exited  chan struct{} // closed when the process is gone and its output is read
	exit    error         // set before exited is closed
}

// Start runs a server and waits until it is ready, for the process to end, or for the
// context; in the last two cases nothing is left running.
func Start(ctx context.Context, spec ProcessSpec) (*Process, error) {
	command := exec.Command(spec.Command[0], spec.Command[1:]...)
	command.Dir, command.Env = spec.Dir, append(os.Environ(), spec.Env...)
	stdout, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stderr, err := command.StderrPipe()
	if err != nil {
		return nil, err
	}
	var logFile *os.File
	if spec.LogFile != "" {
		if logFile, err = os.OpenFile(spec.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err != nil {
			return nil, err
		}
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	p := &Process{Name: spec.Name, spec: spec, command: command, exited: make(chan struct{})}
	ready := make(chan string, 1)
	tail := &lastLines{}
	var readers sync.WaitGroup
	readers.Go(func() { readStdout(stdout, ready) })
	readers.Go(func() { readLog(stderr, spec, logFile, tail) })
	go func() {
		readers.Wait()
		p.exit = command.Wait()
		if logFile != nil {
			logFile.Close()
		}
		close(p.exited)
	}()
	awaiting, cancel := context.WithCancel(ctx)
	defer cancel()
	if spec.Await != nil {
		go func() {
			if spec.Await(awaiting) == nil {
				ready <- ""
			}
		}()
	}
	select {
	case p.Ready = <-ready:
		return p, nil
	case <-p.exited:
		return nil, fmt.Errorf("%s ended before it was ready: %w; its last lines:\n%s", spec.Name, errOr(p.exit, "exit status 0"), tail)
	case <-ctx.Done():
		p.Kill()
		return nil, fmt.Errorf("%s was not ready in time: %w; its last lines:\n%s", spec.Name, ctx.Err(), tail)
	}
}

func errOr(err error, text string) error {
	if err != nil {
		return err
	}
	return errors.New(text)
}

func readStdout(stdout io.Reader, ready chan<- string) {
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), ReadyPrefix); ok {
			select {
			case ready <- strings.TrimSpace(rest):
			default:
			}
		}
	}
	_, _ = io.Copy(io.Discard, stdout) // a line too long for the scanner must not block the server
}

func readLog(stderr io.Reader, spec ProcessSpec, logFile *os.File, tail *lastLines) {
	lines := bufio.NewScanner(stderr)
	lines.Buffer(make([]byte, 64<<10), 1<<20)
	for lines.Scan() {
		line := lines.Bytes()
		if logFile != nil {
			_, _ = logFile.Write(append(line[:len(line):len(line)], '\n')) // a diagnostic copy: losing it changes no result
		}
		tail.add(string(line))
		if spec.OnLog != nil {
			if parsed, ok := parseLog(spec.Name, line); ok {
				spec.OnLog(parsed)
			}
		}
	}
	_, _ = io.Copy(io.Discard, stderr)
}

func parseLog(process string, line []byte) (LogLine, bool) {
	var fields map[string]any
	if json.Unmarshal(line, &fields) != nil {
		return LogLine{}, false
	}
	parsed := LogLine{Process: process, Fields: fields}
	if text, ok := fields["time"].(string); ok {
		parsed.Time, _ = time.Parse(time.RFC3339Nano, text) // a zero time marks a line without one
	}
	parsed.Level, _ = fields["level"].(string)
	parsed.Message, _ = fields["msg"].(string)
	return parsed, parsed.Message != ""
}

// lastLines keeps the end of a server's log for error messages.
type lastLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *lastLines) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) == 15 {
		l.lines = append(l.lines[:0], l.lines[1:]...)
	}
	l.lines = append(l.lines, line)
}

func (l *lastLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

// PID is the process id.
func (p *Process) PID() int { return p.command.Process.Pid }

// Exited is closed when the process is gone.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// ExitError is nil after exit status 0. Valid once Exited is closed.
func (p *Process) ExitError() error { return p.exit }

// Kill ends the process with SIGKILL and waits until it is gone.
func (p *Process) Kill() {
	_ = p.command.Process.Kill() // already gone is what we want
	<-p.exited
}

// KillAsync sends SIGKILL and does not wait: for faults that must strike several processes at
// the same moment, and for measurements that begin with the signal.
func (p *Process) KillAsync() error { return p.command.Process.Kill() }

// Signal sends a signal, for example syscall.SIGSTOP.
func (p *Process) Signal(signal syscall.Signal) error { return p.command.Process.Signal(signal) }

// Stop asks the process to shut down (SIGTERM), waits, and kills it when the context ends.
// An exit status other than that of a clean shutdown is an error.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.Name, err)
	}
	select {
	case <-p.exited:
		if p.exit != nil && p.command.ProcessState.ExitCode() != p.spec.Terminated {
			return fmt.Errorf("%s did not shut down cleanly: %w", p.Name, p.exit)
		}
		return nil
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("%s did not shut down in time and was killed: %w", p.Name, ctx.Err())
	}
}

// Field returns a key=value field of the ready line, "" if it is absent.
func (p *Process) Field(key string) string {
	for field := range strings.FieldsSeq(p.Ready) {
		if value, ok := strings.CutPrefix(field, key+"="); ok {
			return value
		}
	}
	return ""
}

// FourLetterWord asks a coordinator one of ZooKeeper's four-letter words.
func FourLetterWord(addr, word string) (string, error) {
	conn, err := net.DialTimeout("tcp", addr, 2*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, word); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	return string(answer), err
}
