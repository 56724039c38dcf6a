package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// shutdownBound is how long a server may take to shut down before it ends regardless.
const shutdownBound = 30 * time.Second

// logging holds the flags that every server has.
type logging struct {
	format string
	level  string
}

func (l *logging) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.format, "log-format", "text", "text or json")
	cmd.Flags().StringVar(&l.level, "log-level", "info", "debug, info, warn or error")
}

// logger writes to stderr, in UTC.
func (l *logging) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.level)); err != nil {
		return nil, fmt.Errorf("--log-level %s: give debug, info, warn or error", l.level)
	}
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: inUTC}
	switch l.format {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, options)), nil
	}
	return nil, fmt.Errorf("--log-format %s: give text or json", l.format)
}

func inUTC(_ []string, attribute slog.Attr) slog.Attr {
	if attribute.Value.Kind() == slog.KindTime {
		return slog.String(attribute.Key, attribute.Value.Time().UTC().Format(time.RFC3339Nano))
	}
	return attribute
}

// service is what runs until a signal.
type service interface {
	// Done is closed when the server ended by itself; Err then tells why.
	Done() <-chan struct{}
	Err() error
	Stop(ctx context.Context) error
}

// signals returns a channel that gets the first SIGINT or SIGTERM; a second one ends the
// program at once. Called before anything is started, so that no signal is missed.
func signals() <-chan os.Signal {
	raw := make(chan os.Signal, 2)
	signal.Notify(raw, os.Interrupt, syscall.SIGTERM)
	first := make(chan os.Signal, 1)
	go func() {
		second := awaitSecond(raw, first)
		fmt.Fprintf(os.Stderr, "understudy: a second %v: ending at once, not cleanly\n", second)
		os.Exit(1)
	}()
	return first
}

// sameWish is how soon a signal is the first one over again: timeout(1) and many wrappers send
// it to the process and to its group, and a terminal's Ctrl-C reaches those who pass it on, too.
const sameWish = 50 * time.Millisecond

// awaitSecond passes the first signal on and returns the second.
func awaitSecond(raw <-chan os.Signal, first chan<- os.Signal) os.Signal {
	first <- <-raw
	began := time.Now()
	for {
		if second := <-raw; time.Since(began) >= sameWish {
			return second
		}
	}
}

// serve waits for a signal and shuts the server down within the bound.
func serve(logger *slog.Logger, stop <-chan os.Signal, s service) error {
	select {
	case <-s.Done():
		return s.Err()
	case received := <-stop:
		logger.Info("shutting down", "signal", received.String(), "bound", shutdownBound)
	}
	return stopWithin(logger, shutdownBound, s)
}

// overtime is what a shutdown that was cut short gets to return in.
const overtime = 2 * time.Second

// stopWithin bounds a shutdown even if a server does not heed the bound itself.
func stopWithin(logger *slog.Logger, bound time.Duration, s service) error {
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- s.Stop(ctx) }()
	select {
	case err := <-stopped:
		if err != nil {
			return fmt.Errorf("the shutdown was not clean: %w", err)
		}
	case <-time.After(bound + overtime):
		return fmt.Errorf("the shutdown was not clean: it did not end within %v", bound+overtime)
	}
	logger.Info("shut down")
	return nil
}

// interruptible returns a context for starting up that the first signal ends; the signal
// stays in the channel's place for serve.
func interruptible(ctx context.Context, stop <-chan os.Signal) (context.Context, <-chan os.Signal, context.CancelFunc) {
	starting, cancel := context.WithCancel(ctx)
	again := make(chan os.Signal, 1)
	go func() {
		received := <-stop
		again <- received
		cancel()
	}()
	return starting, again, cancel
}

// oneLine folds an error into one line: joined errors put a line break between them.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}
