package classic

import (
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Token is the caller's own handle on a request; it comes back in one Reply.
type Token any

// Reply answers the request of a Token. Body is the result type of the event: JoinResult,
// SyncResult, CommitResult, DeleteResult or OffsetDeleteResult.
type Reply struct {
	To   Token
	Body any
}

// Write is a set of records that become durable together. The owner appends writes in
// order and calls Complete once for each.
type Write struct {
	Records []Record
	// Acknowledged writes go out with offsets.commit.required.acks; the others (expiry's
	// tombstones, which are written again if lost) wait for the leader alone.
	Acknowledged bool
	complete     func(now time.Time, err error, out *Effects)
}

// Complete is the event that a write is durable (err nil) or has failed.
func (w *Write) Complete(now time.Time, err error, out *Effects) {
	if w.complete != nil {
		w.complete(now, err, out)
	}
}

// Effects is what an event asks of the owner.
type Effects struct {
	Replies []Reply
	Writes  []Write
}

func (e *Effects) reply(to Token, body any) {
	if to != nil {
		e.Replies = append(e.Replies, Reply{to, body})
	}
}

func (e *Effects) write(w Write) { e.Writes = append(e.Writes, w) }

// codeOf takes the protocol code out of an append's error; an error without one becomes
// UNKNOWN_SERVER_ERROR.
func codeOf(err error) *kerr.Error {
	var code *kerr.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &code):
		return code
	default:
		return kerr.UnknownServerError
	}
}

// groupWriteError turns the outcome of writing a group's metadata into what its members are
// told (GroupMetadataManager.storeGroup).
func groupWriteError(err error) *kerr.Error {
	switch code := codeOf(err); code {
	case kerr.UnknownTopicOrPartition, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend:
		return kerr.CoordinatorNotAvailable
	case kerr.NotLeaderForPartition, kerr.KafkaStorageError:
		return kerr.NotCoordinator
	case kerr.RequestTimedOut:
		return kerr.RebalanceInProgress
	case kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidFetchSize:
		return kerr.UnknownServerError
	default:
		return code
	}
}

// commitWriteError does the same for offsets (GroupMetadataManager.storeOffsets).
func commitWriteError(err error) *kerr.Error {
	switch code := codeOf(err); code {
	case kerr.UnknownTopicOrPartition, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend:
		return kerr.CoordinatorNotAvailable
	case kerr.NotLeaderForPartition, kerr.KafkaStorageError:
		return kerr.NotCoordinator
	case kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidFetchSize:
		return kerr.InvalidCommitOffsetSize
	default:
		return code
	}
}
