package jute

import "strconv"

// Code is ZooKeeper's error code, and an error: compare with errors.Is(err, jute.NoNode). OK is 0 and not an error;
// Err turns it into nil.
type Code int32

// The codes a server may send, and the few that only clients make. There are no others: the Java client throws on an
// unknown one.
const (
	OK                           Code = 0
	SystemError                  Code = -1
	RuntimeInconsistency         Code = -2
	DataInconsistency            Code = -3
	ConnectionLoss               Code = -4
	MarshallingError             Code = -5
	Unimplemented                Code = -6
	OperationTimeout             Code = -7
	BadArguments                 Code = -8
	UnknownSession               Code = -12
	NewConfigNoQuorum            Code = -13
	ReconfigInProgress           Code = -14
	APIError                     Code = -100
	NoNode                       Code = -101
	NoAuth                       Code = -102
	BadVersion                   Code = -103
	NoChildrenForEphemerals      Code = -108
	NodeExists                   Code = -110
	NotEmpty                     Code = -111
	SessionExpired               Code = -112
	InvalidACL                   Code = -114
	AuthFailed                   Code = -115
	SessionMoved                 Code = -118
	NotReadOnly                  Code = -119
	EphemeralOnLocalSession      Code = -120
	NoWatcher                    Code = -121
	RequestTimeout               Code = -122
	ReconfigDisabled             Code = -123
	SessionClosedRequireSASLAuth Code = -124
	QuotaExceeded                Code = -125
	ThrottledOp                  Code = -127
)

var codeNames = map[Code]string{
	OK: "ok", SystemError: "system error", RuntimeInconsistency: "runtime inconsistency",
	DataInconsistency: "data inconsistency", ConnectionLoss: "connection loss",
	MarshallingError: "marshalling error", Unimplemented: "unimplemented", OperationTimeout: "operation timeout",
	BadArguments: "bad arguments", UnknownSession: "unknown session", NewConfigNoQuorum: "new config has no quorum",
	ReconfigInProgress: "reconfig in progress", APIError: "API error", NoNode: "no node", NoAuth: "not authorized",
	BadVersion: "bad version", NoChildrenForEphemerals: "no children for ephemerals", NodeExists: "node exists",
	NotEmpty: "not empty", SessionExpired: "session expired", InvalidACL: "invalid ACL",
	AuthFailed: "authentication failed", SessionMoved: "session moved", NotReadOnly: "server is read-only",
	EphemeralOnLocalSession: "ephemeral on local session", NoWatcher: "no watcher",
	RequestTimeout: "request timeout", ReconfigDisabled: "reconfig disabled",
	SessionClosedRequireSASLAuth: "session closed: SASL required", QuotaExceeded: "quota exceeded",
	ThrottledOp: "throttled",
}

// Error names the code and gives its number, as both are looked for in logs.
func (c Code) Error() string {
	name, known := codeNames[c]
	if !known {
		name = "unknown code"
	}
	return "zookeeper: " + name + " (" + itoa(int64(c)) + ")"
}

// Err is nil for OK and the code itself otherwise.
func (c Code) Err() error {
	if c == OK {
		return nil
	}
	return c
}

func itoa(v int64) string { return strconv.FormatInt(v, 10) }
