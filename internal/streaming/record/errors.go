package record

import (
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
)

// ErrIncomplete says that the bytes end before the batch does: more must be read, or, at
// the end of a log or of a fetch response, the rest is to be dropped. It carries no Kafka
// code of its own.
var ErrIncomplete = errors.New("record: batch is incomplete")

// Error is a refused batch: the Kafka error it is answered with, and what is wrong.
// errors.Is(err, kerr.CorruptMessage) and the like look through it.
type Error struct {
	Code   *kerr.Error // CorruptMessage, InvalidRecord, UnsupportedForMessageFormat, …
	Reason string
}

func (e *Error) Error() string { return "record: " + e.Reason + " (" + e.Code.Message + ")" }

// Unwrap gives the Kafka error.
func (e *Error) Unwrap() error { return e.Code }

func corrupt(format string, args ...any) error {
	return &Error{Code: kerr.CorruptMessage, Reason: fmt.Sprintf(format, args...)}
}

func invalid(format string, args ...any) error {
	return &Error{Code: kerr.InvalidRecord, Reason: fmt.Sprintf(format, args...)}
}
