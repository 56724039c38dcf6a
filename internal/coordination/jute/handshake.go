package jute

import "encoding/binary"

// The optional tail of the handshake, ours alone: it follows the readOnly byte, where ZooKeeper's server and clients
// do not look. It is answered only to who asked (the C client and ClickHouse check the reply's length).
//
//	int magic "USFE" | byte version | int graceMs
const (
	fastExpiryMagic   = 0x55534645
	fastExpiryVersion = 1
	fastExpiryBytes   = 9
)

// ConnectRequest is the first frame of a client; it has no header.
type ConnectRequest struct {
	ProtocolVersion int32
	LastZxidSeen    Zxid
	TimeoutMs       int32
	SessionID       SessionID
	Password        []byte
	HasReadOnly     bool // old clients and go-zookeeper leave the byte out, and must not get one back
	ReadOnly        bool
	HasFastExpiry   bool // implies HasReadOnly
	GraceMs         int32
}

// ConnectResponse is the first frame of a server. A rejected session has TimeoutMs 0, SessionID 0 and 16 zero bytes.
type ConnectResponse struct {
	ProtocolVersion int32
	TimeoutMs       int32
	SessionID       SessionID
	Password        []byte
	HasReadOnly     bool
	ReadOnly        bool
	HasFastExpiry   bool
	GraceMs         int32
}

// Append encodes r.
func (r *ConnectRequest) Append(dst []byte) []byte {
	dst = AppendInt32(dst, r.ProtocolVersion)
	dst = AppendInt64(dst, int64(r.LastZxidSeen))
	dst = AppendInt32(dst, r.TimeoutMs)
	dst = AppendInt64(dst, int64(r.SessionID))
	dst = AppendBuffer(dst, r.Password)
	return appendHandshakeTail(dst, r.HasReadOnly, r.ReadOnly, r.HasFastExpiry, r.GraceMs)
}

// Decode reads r.
func (r *ConnectRequest) Decode(d *Decoder) {
	r.ProtocolVersion = d.Int32()
	r.LastZxidSeen = Zxid(d.Int64())
	r.TimeoutMs = d.Int32()
	r.SessionID = SessionID(d.Int64())
	r.Password = d.Buffer()
	r.HasReadOnly, r.ReadOnly, r.HasFastExpiry, r.GraceMs = decodeHandshakeTail(d)
}

// Append encodes r.
func (r *ConnectResponse) Append(dst []byte) []byte {
	dst = AppendInt32(dst, r.ProtocolVersion)
	dst = AppendInt32(dst, r.TimeoutMs)
	dst = AppendInt64(dst, int64(r.SessionID))
	dst = AppendBuffer(dst, r.Password)
	return appendHandshakeTail(dst, r.HasReadOnly, r.ReadOnly, r.HasFastExpiry, r.GraceMs)
}

// Decode reads r.
func (r *ConnectResponse) Decode(d *Decoder) {
	r.ProtocolVersion = d.Int32()
	r.TimeoutMs = d.Int32()
	r.SessionID = SessionID(d.Int64())
	r.Password = d.Buffer()
	r.HasReadOnly, r.ReadOnly, r.HasFastExpiry, r.GraceMs = decodeHandshakeTail(d)
}

func appendHandshakeTail(dst []byte, hasReadOnly, readOnly, hasFastExpiry bool, graceMs int32) []byte {
	if !hasReadOnly && !hasFastExpiry {
		return dst
	}
	dst = AppendBool(dst, readOnly)
	if hasFastExpiry {
		dst = AppendInt32(dst, fastExpiryMagic)
		dst = append(dst, fastExpiryVersion)
		dst = AppendInt32(dst, graceMs)
	}
	return dst
}

// decodeHandshakeTail reads what may follow the password. Anything that is not our tail is somebody else's and ignored.
func decodeHandshakeTail(d *Decoder) (hasReadOnly, readOnly, hasFastExpiry bool, graceMs int32) {
	if d.err != nil || len(d.buf) == 0 {
		return
	}
	hasReadOnly, readOnly = true, d.Bool()
	if tail := d.buf; len(tail) >= fastExpiryBytes &&
		binary.BigEndian.Uint32(tail) == fastExpiryMagic && tail[4] == fastExpiryVersion {
		hasFastExpiry, graceMs = true, int32(binary.BigEndian.Uint32(tail[5:]))
	}
	return
}
