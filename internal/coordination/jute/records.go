package jute

import "fmt"

// RequestHeader is in front of every request but the handshake.
type RequestHeader struct {
	Xid  int32
	Type OpCode
}

// Append encodes h.
func (h *RequestHeader) Append(dst []byte) []byte {
	return AppendInt32(AppendInt32(dst, h.Xid), int32(h.Type))
}

// Decode reads h.
func (h *RequestHeader) Decode(d *Decoder) { h.Xid, h.Type = d.Int32(), OpCode(d.Int32()) }

// ReplyHeader is in front of every reply but the handshake's; with an error it is the whole frame.
type ReplyHeader struct {
	Xid  int32
	Zxid Zxid
	Err  Code
}

// Append encodes h.
func (h *ReplyHeader) Append(dst []byte) []byte {
	return AppendInt32(AppendInt64(AppendInt32(dst, h.Xid), int64(h.Zxid)), int32(h.Err))
}

// Decode reads h.
func (h *ReplyHeader) Decode(d *Decoder) {
	h.Xid, h.Zxid, h.Err = d.Int32(), Zxid(d.Int64()), Code(d.Int32())
}

// WatcherEvent is the body of a notification.
type WatcherEvent struct {
	Type  EventType
	State int32
	Path  string
}

// Append encodes e.
func (e *WatcherEvent) Append(dst []byte) []byte {
	return AppendString(AppendInt32(AppendInt32(dst, int32(e.Type)), e.State), e.Path)
}

// Decode reads e.
func (e *WatcherEvent) Decode(d *Decoder) {
	e.Type, e.State, e.Path = EventType(d.Int32()), d.Int32(), d.String()
}

// ID is an identity: of a connection, or the one an ACL entry names.
type ID struct {
	Scheme string
	ID     string
}

// Append encodes i.
func (i *ID) Append(dst []byte) []byte { return AppendString(AppendString(dst, i.Scheme), i.ID) }

// Decode reads i.
func (i *ID) Decode(d *Decoder) { i.Scheme, i.ID = d.String(), d.String() }

// ACL is one entry of a node's access list.
type ACL struct {
	Perms int32
	ID    ID
}

const aclBytesMin = 12

// Append encodes a.
func (a *ACL) Append(dst []byte) []byte { return a.ID.Append(AppendInt32(dst, a.Perms)) }

// Decode reads a.
func (a *ACL) Decode(d *Decoder) {
	a.Perms = d.Int32()
	a.ID.Decode(d)
}

// AppendACLs appends a vector of ACL; nil is null.
func AppendACLs(dst []byte, list []ACL) []byte {
	if list == nil {
		return AppendInt32(dst, -1)
	}
	dst = AppendInt32(dst, int32(len(list)))
	for i := range list {
		dst = list[i].Append(dst)
	}
	return dst
}

// DecodeACLs reads a vector of ACL; null is nil.
func DecodeACLs(d *Decoder) []ACL {
	n := d.Count(aclBytesMin)
	if n < 0 {
		return nil
	}
	list := make([]ACL, n) // bounded: n elements of aclBytesMin are in the input
	for i := range list {
		list[i].Decode(d)
	}
	if d.err != nil {
		return nil
	}
	return list
}

// StatBytes is the size of an encoded Stat.
const StatBytes = 68

// Stat is what a client sees of a node besides its data.
type Stat struct {
	Czxid          Zxid
	Mzxid          Zxid
	Ctime          int64 // ms
	Mtime          int64 // ms
	Version        int32
	Cversion       int32 // creates + deletes of children
	Aversion       int32
	EphemeralOwner SessionID
	DataLength     int32
	NumChildren    int32
	Pzxid          Zxid // last create or delete of a child
}

// Append encodes s.
func (s *Stat) Append(dst []byte) []byte {
	dst = AppendInt64(dst, int64(s.Czxid))
	dst = AppendInt64(dst, int64(s.Mzxid))
	dst = AppendInt64(dst, s.Ctime)
	dst = AppendInt64(dst, s.Mtime)
	dst = AppendInt32(dst, s.Version)
	dst = AppendInt32(dst, s.Cversion)
	dst = AppendInt32(dst, s.Aversion)
	dst = AppendInt64(dst, int64(s.EphemeralOwner))
	dst = AppendInt32(dst, s.DataLength)
	dst = AppendInt32(dst, s.NumChildren)
	return AppendInt64(dst, int64(s.Pzxid))
}

// Decode reads s.
func (s *Stat) Decode(d *Decoder) {
	s.Czxid, s.Mzxid = Zxid(d.Int64()), Zxid(d.Int64())
	s.Ctime, s.Mtime = d.Int64(), d.Int64()
	s.Version, s.Cversion, s.Aversion = d.Int32(), d.Int32(), d.Int32()
	s.EphemeralOwner = SessionID(d.Int64())
	s.DataLength, s.NumChildren = d.Int32(), d.Int32()
	s.Pzxid = Zxid(d.Int64())
}

// CreateRequest is the body of create, create2 and createContainer.
type CreateRequest struct {
	Path  string
	Data  []byte
	ACL   []ACL
	Flags CreateFlags
}

// Append encodes r.
func (r *CreateRequest) Append(dst []byte) []byte {
	dst = AppendBuffer(AppendString(dst, r.Path), r.Data)
	return AppendInt32(AppendACLs(dst, r.ACL), int32(r.Flags))
}

// Decode reads r. Data aliases the input.
func (r *CreateRequest) Decode(d *Decoder) {
	r.Path, r.Data = d.String(), d.BufferView()
	r.ACL, r.Flags = DecodeACLs(d), CreateFlags(d.Int32())
}

// CreateTTLRequest is the body of createTTL.
type CreateTTLRequest struct {
	CreateRequest
	TTLMs int64
}

// Append encodes r.
func (r *CreateTTLRequest) Append(dst []byte) []byte {
	return AppendInt64(r.CreateRequest.Append(dst), r.TTLMs)
}

// Decode reads r. Data aliases the input.
func (r *CreateTTLRequest) Decode(d *Decoder) {
	r.CreateRequest.Decode(d)
	r.TTLMs = d.Int64()
}

// PathResponse is the reply of create and of sync.
type PathResponse struct{ Path string }

// Append encodes r.
func (r *PathResponse) Append(dst []byte) []byte { return AppendString(dst, r.Path) }

// Decode reads r.
func (r *PathResponse) Decode(d *Decoder) { r.Path = d.String() }

// Create2Response is the reply of create2, createContainer and createTTL.
type Create2Response struct {
	Path string
	Stat Stat
}

// Append encodes r.
func (r *Create2Response) Append(dst []byte) []byte { return r.Stat.Append(AppendString(dst, r.Path)) }

// Decode reads r.
func (r *Create2Response) Decode(d *Decoder) {
	r.Path = d.String()
	r.Stat.Decode(d)
}

// PathVersionRequest is the body of delete and of check.
type PathVersionRequest struct {
	Path    string
	Version int32
}

// Append encodes r.
func (r *PathVersionRequest) Append(dst []byte) []byte {
	return AppendInt32(AppendString(dst, r.Path), r.Version)
}

// Decode reads r.
func (r *PathVersionRequest) Decode(d *Decoder) { r.Path, r.Version = d.String(), d.Int32() }

// PathWatchRequest is the body of exists, getData, getChildren and getChildren2. The reply of exists is a Stat.
type PathWatchRequest struct {
	Path  string
	Watch bool
}

// Append encodes r.
func (r *PathWatchRequest) Append(dst []byte) []byte {
	return AppendBool(AppendString(dst, r.Path), r.Watch)
}

// Decode reads r.
func (r *PathWatchRequest) Decode(d *Decoder) { r.Path, r.Watch = d.String(), d.Bool() }

// PathRequest is the body of getACL, sync, getEphemerals (a prefix), getAllChildrenNumber and deleteContainer.
type PathRequest struct{ Path string }

// Append encodes r.
func (r *PathRequest) Append(dst []byte) []byte { return AppendString(dst, r.Path) }

// Decode reads r.
func (r *PathRequest) Decode(d *Decoder) { r.Path = d.String() }

// GetDataResponse is the reply of getData.
type GetDataResponse struct {
	Data []byte
	Stat Stat
}

// Append encodes r.
func (r *GetDataResponse) Append(dst []byte) []byte { return r.Stat.Append(AppendBuffer(dst, r.Data)) }

// Decode reads r. Data aliases the input.
func (r *GetDataResponse) Decode(d *Decoder) {
	r.Data = d.BufferView()
	r.Stat.Decode(d)
}

// SetDataRequest is the body of setData; the reply is a Stat.
type SetDataRequest struct {
	Path    string
	Data    []byte
	Version int32
}

// Append encodes r.
func (r *SetDataRequest) Append(dst []byte) []byte {
	return AppendInt32(AppendBuffer(AppendString(dst, r.Path), r.Data), r.Version)
}

// Decode reads r. Data aliases the input.
func (r *SetDataRequest) Decode(d *Decoder) {
	r.Path, r.Data, r.Version = d.String(), d.BufferView(), d.Int32()
}

// GetACLResponse is the reply of getACL.
type GetACLResponse struct {
	ACL  []ACL
	Stat Stat
}

// Append encodes r.
func (r *GetACLResponse) Append(dst []byte) []byte { return r.Stat.Append(AppendACLs(dst, r.ACL)) }

// Decode reads r.
func (r *GetACLResponse) Decode(d *Decoder) {
	r.ACL = DecodeACLs(d)
	r.Stat.Decode(d)
}

// SetACLRequest is the body of setACL; the reply is a Stat.
type SetACLRequest struct {
	Path    string
	ACL     []ACL
	Version int32 // of the ACL (Stat.Aversion)
}

// Append encodes r.
func (r *SetACLRequest) Append(dst []byte) []byte {
	return AppendInt32(AppendACLs(AppendString(dst, r.Path), r.ACL), r.Version)
}

// Decode reads r.
func (r *SetACLRequest) Decode(d *Decoder) {
	r.Path, r.ACL, r.Version = d.String(), DecodeACLs(d), d.Int32()
}

// StringsResponse is the reply of getChildren and of getEphemerals.
type StringsResponse struct{ Strings []string }

// Append encodes r.
func (r *StringsResponse) Append(dst []byte) []byte { return AppendStrings(dst, r.Strings) }

// Decode reads r.
func (r *StringsResponse) Decode(d *Decoder) { r.Strings = d.Strings() }

// GetChildren2Response is the reply of getChildren2.
type GetChildren2Response struct {
	Children []string
	Stat     Stat
}

// Append encodes r.
func (r *GetChildren2Response) Append(dst []byte) []byte {
	return r.Stat.Append(AppendStrings(dst, r.Children))
}

// Decode reads r.
func (r *GetChildren2Response) Decode(d *Decoder) {
	r.Children = d.Strings()
	r.Stat.Decode(d)
}

// CountResponse is the reply of getAllChildrenNumber.
type CountResponse struct{ Count int32 }

// Append encodes r.
func (r *CountResponse) Append(dst []byte) []byte { return AppendInt32(dst, r.Count) }

// Decode reads r.
func (r *CountResponse) Decode(d *Decoder) { r.Count = d.Int32() }

// ErrorResponse is the body of a failed entry of a multi, and the reply of addWatch.
type ErrorResponse struct{ Err Code }

// Append encodes r.
func (r *ErrorResponse) Append(dst []byte) []byte { return AppendInt32(dst, int32(r.Err)) }

// Decode reads r.
func (r *ErrorResponse) Decode(d *Decoder) { r.Err = Code(d.Int32()) }

// MultiHeader is in front of each entry of a multi and of its reply; Done marks the end.
type MultiHeader struct {
	Type OpCode
	Done bool
	Err  Code
}

// MultiEnd is the header after the last entry, in both directions.
var MultiEnd = MultiHeader{Type: OpError, Done: true, Err: SystemError}

// MultiHeaderBytes is the size of an encoded MultiHeader.
const MultiHeaderBytes = 9

// Append encodes h.
func (h *MultiHeader) Append(dst []byte) []byte {
	return AppendInt32(AppendBool(AppendInt32(dst, int32(h.Type)), h.Done), int32(h.Err))
}

// Decode reads h.
func (h *MultiHeader) Decode(d *Decoder) {
	h.Type, h.Done, h.Err = OpCode(d.Int32()), d.Bool(), Code(d.Int32())
}

// AuthPacket is the body of auth.
type AuthPacket struct {
	Type   int32
	Scheme string
	Auth   []byte
}

// Append encodes r.
func (r *AuthPacket) Append(dst []byte) []byte {
	return AppendBuffer(AppendString(AppendInt32(dst, r.Type), r.Scheme), r.Auth)
}

// Decode reads r.
func (r *AuthPacket) Decode(d *Decoder) { r.Type, r.Scheme, r.Auth = d.Int32(), d.String(), d.Buffer() }

// SetWatches is the body of setWatches2; setWatches leaves out the two persistent lists.
type SetWatches struct {
	RelativeZxid        Zxid
	Data, Exist, Child  []string
	Persistent          []string
	PersistentRecursive []string
}

// Append encodes r as setWatches2.
func (r *SetWatches) Append(dst []byte) []byte {
	dst = r.AppendOneShot(dst)
	return AppendStrings(AppendStrings(dst, r.Persistent), r.PersistentRecursive)
}

// AppendOneShot encodes r as setWatches, without the persistent lists.
func (r *SetWatches) AppendOneShot(dst []byte) []byte {
	dst = AppendInt64(dst, int64(r.RelativeZxid))
	return AppendStrings(AppendStrings(AppendStrings(dst, r.Data), r.Exist), r.Child)
}

// Decode reads r as setWatches2.
func (r *SetWatches) Decode(d *Decoder) {
	r.DecodeOneShot(d)
	r.Persistent, r.PersistentRecursive = d.Strings(), d.Strings()
}

// DecodeOneShot reads r as setWatches.
func (r *SetWatches) DecodeOneShot(d *Decoder) {
	*r = SetWatches{RelativeZxid: Zxid(d.Int64()), Data: d.Strings(), Exist: d.Strings(), Child: d.Strings()}
}

// WatcherRequest is the body of checkWatches and of removeWatches.
type WatcherRequest struct {
	Path string
	Type WatcherType
}

// Append encodes r.
func (r *WatcherRequest) Append(dst []byte) []byte {
	return AppendInt32(AppendString(dst, r.Path), int32(r.Type))
}

// Decode reads r.
func (r *WatcherRequest) Decode(d *Decoder) { r.Path, r.Type = d.String(), WatcherType(d.Int32()) }

// AddWatchRequest is the body of addWatch; the reply is an ErrorResponse.
type AddWatchRequest struct {
	Path string
	Mode AddWatchMode
}

// Append encodes r.
func (r *AddWatchRequest) Append(dst []byte) []byte {
	return AppendInt32(AppendString(dst, r.Path), int32(r.Mode))
}

// Decode reads r.
func (r *AddWatchRequest) Decode(d *Decoder) { r.Path, r.Mode = d.String(), AddWatchMode(d.Int32()) }

// WhoAmIResponse is the reply of whoAmI. Of a digest identity only the user is shown.
type WhoAmIResponse struct{ Clients []ClientInfo }

// ClientInfo is one identity in a WhoAmIResponse.
type ClientInfo struct{ Scheme, User string }

// Append encodes r.
func (r *WhoAmIResponse) Append(dst []byte) []byte {
	if r.Clients == nil {
		return AppendInt32(dst, -1)
	}
	dst = AppendInt32(dst, int32(len(r.Clients)))
	for _, c := range r.Clients {
		dst = AppendString(AppendString(dst, c.Scheme), c.User)
	}
	return dst
}

// Decode reads r.
func (r *WhoAmIResponse) Decode(d *Decoder) {
	n := d.Count(8)
	if n < 0 {
		r.Clients = nil
		return
	}
	r.Clients = make([]ClientInfo, n) // bounded: n elements of 8 bytes are in the input
	for i := range r.Clients {
		r.Clients[i] = ClientInfo{Scheme: d.String(), User: d.String()}
	}
}

// ReconfigRequest is the body of reconfig; the reply is a GetDataResponse.
type ReconfigRequest struct {
	Joining, Leaving, NewMembers string
	CurrentConfigID              int64
}

// Append encodes r.
func (r *ReconfigRequest) Append(dst []byte) []byte {
	dst = AppendString(AppendString(AppendString(dst, r.Joining), r.Leaving), r.NewMembers)
	return AppendInt64(dst, r.CurrentConfigID)
}

// Decode reads r.
func (r *ReconfigRequest) Decode(d *Decoder) {
	r.Joining, r.Leaving, r.NewMembers, r.CurrentConfigID = d.String(), d.String(), d.String(), d.Int64()
}

// EachMulti walks the entries of a multi request or reply body: visit gets each header and reads its record from d.
// It ends at the end mark, at the first error of the decoder or when visit returns false.
func EachMulti(d *Decoder, visit func(h MultiHeader) bool) {
	for {
		var h MultiHeader
		h.Decode(d)
		if d.err != nil || h.Done || !visit(h) {
			return
		}
	}
}

// String names the operation for logs.
func (op OpCode) String() string {
	if name, known := opNames[op]; known {
		return name
	}
	return fmt.Sprintf("op %d", int32(op))
}

var opNames = map[OpCode]string{
	OpNotification: "notification", OpCreate: "create", OpDelete: "delete", OpExists: "exists", OpGetData: "getData",
	OpSetData: "setData", OpGetACL: "getACL", OpSetACL: "setACL", OpGetChildren: "getChildren", OpSync: "sync",
	OpPing: "ping", OpGetChildren2: "getChildren2", OpCheck: "check", OpMulti: "multi", OpCreate2: "create2",
	OpReconfig: "reconfig", OpCheckWatches: "checkWatches", OpRemoveWatches: "removeWatches",
	OpCreateContainer: "createContainer", OpDeleteContainer: "deleteContainer", OpCreateTTL: "createTTL",
	OpMultiRead: "multiRead", OpAuth: "auth", OpSetWatches: "setWatches", OpSASL: "sasl",
	OpGetEphemerals: "getEphemerals", OpGetAllChildrenNum: "getAllChildrenNumber", OpSetWatches2: "setWatches2",
	OpAddWatch: "addWatch", OpWhoAmI: "whoAmI", OpCreateSession: "createSession", OpCloseSession: "closeSession",
	OpError: "error",
}
