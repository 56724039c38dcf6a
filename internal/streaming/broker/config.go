package broker

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"understudy/internal/config"
	"understudy/internal/vfs"
)

// defaultFastExpiryGrace is how long the broker's session outlives its last connection,
// where the ensemble can do that.
const defaultFastExpiryGrace = 100 * time.Millisecond

// Config is what a Broker is made of: Kafka's keys as plain fields, checked and with their
// defaults filled in (config.Broker), and what has no key.
type Config struct {
	*config.Broker

	// SessionFile keeps the ZooKeeper session's id and password for the next incarnation
	// (mode 0600). "" puts it beside the first log directory, or, where that cannot be
	// written to, into it: Apache's broker ignores files there that it does not know.
	SessionFile string
	// FastExpiryGrace is asked of the ensemble; 0 is the default, negative does not ask.
	FastExpiryGrace time.Duration
	// DialZooKeeper opens connections to the ensemble; nil: TCP.
	DialZooKeeper func(ctx context.Context, addr string) (net.Conn, error)
	// FS is the file system of the log directories; nil: the operating system's.
	FS     vfs.FS
	Logger *slog.Logger
}

func (c *Config) fastExpiryGrace() time.Duration {
	switch {
	case c.FastExpiryGrace < 0:
		return 0
	case c.FastExpiryGrace == 0:
		return defaultFastExpiryGrace
	}
	return c.FastExpiryGrace
}

// sessionFiles are the places for the session file, the preferred one first.
func (c *Config) sessionFiles() []string {
	if c.SessionFile != "" {
		return []string{c.SessionFile}
	}
	dir := filepath.Clean(c.LogDirs[0])
	return []string{
		filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+".zksession"),
		filepath.Join(dir, ".zksession"),
	}
}
