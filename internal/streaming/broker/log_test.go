package broker

import (
	"bufio"
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

// lockedBuffer is written to by many goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// A line about another broker must not say "broker" twice: whoever reads it as JSON gets
// either.
func TestLogLinesDoNotRepeatKeys(t *testing.T) {
	var out lockedBuffer
	c := newTestCluster(t, 0, nil)
	c.logger = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c.start(1)
	c.start(2)
	c.awaitAlive(2)
	c.createTopic("lines", 4, 2, nil)
	c.shutdown(2)
	c.shutdown(1)
	lines := bufio.NewScanner(bytes.NewReader(out.b.Bytes()))
	aboutAnother := false
	for lines.Scan() {
		line := lines.Text()
		for _, key := range []string{" node=", " broker=", " topic=", " error="} {
			if strings.Count(line, key) > 1 {
				t.Errorf("%q stands twice in %s", key, line)
			}
		}
		aboutAnother = aboutAnother || strings.Contains(line, `msg="broker lost" node=1 broker=2 `)
	}
	if !aboutAnother {
		t.Error("broker 1 did not tell of the loss of broker 2")
	}
}
