package ensemble

import (
	"context"
	"fmt"
	"log/slog"

	"go.etcd.io/raft/v3/tracker"
)

type trackerProgress = tracker.Progress

const trackerReplicate = tracker.StateReplicate

// raftLogger carries raft's own log lines: its ordinary talk at debug. What raft calls fatal
// or a panic becomes a raftFailure, which stops the member (see loop.recoverRaft).
type raftLogger struct{ logger *slog.Logger }

func (r raftLogger) log(level slog.Level, format string, v []any) {
	if r.logger.Enabled(context.Background(), level) {
		r.logger.Log(context.Background(), level, "raft: "+fmt.Sprintf(format, v...))
	}
}

func (r raftLogger) Debug(v ...any)                   { r.log(slog.LevelDebug, "%s", []any{fmt.Sprint(v...)}) }
func (r raftLogger) Debugf(format string, v ...any)   { r.log(slog.LevelDebug, format, v) }
func (r raftLogger) Info(v ...any)                    { r.log(slog.LevelDebug, "%s", []any{fmt.Sprint(v...)}) }
func (r raftLogger) Infof(format string, v ...any)    { r.log(slog.LevelDebug, format, v) }
func (r raftLogger) Warning(v ...any)                 { r.log(slog.LevelInfo, "%s", []any{fmt.Sprint(v...)}) }
func (r raftLogger) Warningf(format string, v ...any) { r.log(slog.LevelInfo, format, v) }
func (r raftLogger) Error(v ...any)                   { r.log(slog.LevelError, "%s", []any{fmt.Sprint(v...)}) }
func (r raftLogger) Errorf(format string, v ...any)   { r.log(slog.LevelError, format, v) }
func (r raftLogger) Fatal(v ...any)                   { panic(raftFailure{fmt.Sprint(v...)}) }
func (r raftLogger) Fatalf(format string, v ...any)   { panic(raftFailure{fmt.Sprintf(format, v...)}) }
func (r raftLogger) Panic(v ...any)                   { panic(raftFailure{fmt.Sprint(v...)}) }
func (r raftLogger) Panicf(format string, v ...any)   { panic(raftFailure{fmt.Sprintf(format, v...)}) }
