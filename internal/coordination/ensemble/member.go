package ensemble

import (
	"context"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/znode"
)

// Member is one running member of the ensemble.
type Member struct{}

// Start opens the data directory, recovers the tree from snapshot and log, and joins the
// others. It returns as soon as the state is recovered; Serving tells when there is a leader.
func Start(ctx context.Context, config Config) (*Member, error) { return nil, nil }

// Submit hands a request to the log: FIFO per calling goroutine, applied exactly once. The
// outcome arrives at Observer.Applied with token, or at Observer.Dropped if it will never be
// known. Submit waits while too much is pending; it must not be called from Observer methods.
func (m *Member) Submit(req znode.Request, token any) {}

// View calls f with the tree under its read lock: no entry is applied while f runs. f must not
// wait, and must not call View again.
func (m *Member) View(f func(*znode.Machine)) {}

// Barrier is sync: f(true) is called by the apply loop, without the tree's lock, once
// everything that was committed anywhere before this call has been applied here; f(false) if
// the member stops or the quorum is lost. f must not wait.
func (m *Member) Barrier(token any, f func(ok bool)) {}

// Touch reports a sign of life of a session connected here. It is cheap.
func (m *Member) Touch(session jute.SessionID) {}

// ConnectionLost reports that the peer of a connection ended it (EOF or RST, never our own
// close), for a session that asked for fast expiry.
func (m *Member) ConnectionLost(session jute.SessionID, generation uint64) {}

// SetObserver sets the observer if Config had none, under the tree's write lock.
func (m *Member) SetObserver(o Observer) {}

// Status returns a picture of the member.
func (m *Member) Status() Status { return Status{} }

// Serving says whether clients may be served: there is a leader, and what was committed when
// this member found it has been applied here.
func (m *Member) Serving() bool { return false }

// OnServing registers f, which is called with each change of Serving, in order, and with the
// present value at once.
func (m *Member) OnServing(f func(bool)) {}

// Done is closed when the member has stopped, by Stop or because its disk failed; Err then
// tells why (nil after Stop).
func (m *Member) Done() <-chan struct{} { return nil }

// Err is the reason of the end, once Done is closed.
func (m *Member) Err() error { return nil }

// Addr is the raft listener's address, "" when standalone.
func (m *Member) Addr() string { return "" }

// Stop ends the member: the leader hands over first. It returns within ctx.
func (m *Member) Stop(ctx context.Context) error { return nil }
