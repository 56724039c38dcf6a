package zkclient

import (
	"fmt"

	"understudy/internal/coordination/jute"
)

// For a stand-in of the client that reaches a znode.Machine without a connection.

// AppendBody appends the body of op's request.
func (op *Op) AppendBody(dst []byte) []byte { return appendBody(dst, op, "") }

// DecodeReply is the Result of op for a reply's code and body. It keeps body's memory.
func (op *Op) DecodeReply(code jute.Code, body []byte) Result {
	var result Result
	d := jute.NewDecoder(body)
	if err := decodeResult(&d, code, op, "", &result); err != nil {
		result.Err = fmt.Errorf("decode the reply to %s: %w", op.Path, err)
	}
	return result
}
