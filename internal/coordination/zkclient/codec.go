package zkclient

import (
	"fmt"

	"understudy/internal/coordination/jute"
)

// frame appends a record with its length in front.
func frame(dst []byte, record func([]byte) []byte) []byte {
	start := len(dst)
	return jute.EndFrame(record(jute.BeginFrame(dst)), start)
}

func appendHeader(dst []byte, xid int32, op jute.OpCode) []byte {
	return jute.AppendInt32(jute.AppendInt32(dst, xid), int32(op))
}

func appendPing(dst []byte) []byte {
	start := len(dst)
	return jute.EndFrame(appendHeader(jute.BeginFrame(dst), jute.XidPing, jute.OpPing), start)
}

func appendSetWatches(dst []byte, w *jute.SetWatches) []byte {
	start := len(dst)
	dst = appendHeader(jute.BeginFrame(dst), jute.XidSetWatches, jute.OpSetWatches)
	return jute.EndFrame(w.AppendOneShot(dst), start)
}

// appendRequest appends op's frame.
func appendRequest(dst []byte, xid int32, op *Op, chroot string) []byte {
	start := len(dst)
	dst = appendHeader(jute.BeginFrame(dst), xid, op.Code)
	return jute.EndFrame(appendBody(dst, op, chroot), start)
}

func appendBody(dst []byte, op *Op, chroot string) []byte {
	switch op.Code {
	case jute.OpCloseSession:
		return dst
	case jute.OpMulti:
		for i := range op.Ops {
			h := jute.MultiHeader{Type: op.Ops[i].Code, Err: -1}
			dst = appendBody(h.Append(dst), &op.Ops[i], chroot)
		}
		return jute.MultiEnd.Append(dst)
	}
	dst = appendPath(dst, chroot, op.Path)
	switch op.Code {
	case jute.OpCreate:
		dst = jute.AppendBuffer(dst, op.Data)
		acl := op.ACL
		if acl == nil {
			acl = jute.OpenACL
		}
		dst = jute.AppendACLs(dst, acl)
		dst = jute.AppendInt32(dst, int32(op.Flags))
	case jute.OpDelete, jute.OpCheck:
		dst = jute.AppendInt32(dst, op.Version)
	case jute.OpSetData:
		dst = jute.AppendInt32(jute.AppendBuffer(dst, op.Data), op.Version)
	case jute.OpExists, jute.OpGetData, jute.OpGetChildren2:
		dst = jute.AppendBool(dst, op.Watch)
	}
	return dst
}

// appendPath is AppendString(fullPath(chroot, path)) without making that string.
func appendPath(dst []byte, chroot, path string) []byte {
	if chroot != "" && path == "/" {
		path = ""
	}
	dst = jute.AppendInt32(dst, int32(len(chroot)+len(path)))
	return append(append(dst, chroot...), path...)
}

func decodeEvent(d *jute.Decoder, zxid jute.Zxid) (Event, error) {
	var w jute.WatcherEvent
	w.Decode(d)
	return Event{Type: w.Type, Path: w.Path, Zxid: zxid}, d.Err()
}

// decodeResult reads what follows the reply header. The result keeps d's memory.
func decodeResult(d *jute.Decoder, code jute.Code, op *Op, chroot string, r *Result) error {
	switch {
	case code != jute.OK:
		r.Err = code // and no body
		return d.Err()
	case op.Code == jute.OpMulti:
		return decodeMulti(d, op, chroot, r)
	}
	return decodeBody(d, op, chroot, r)
}

func decodeBody(d *jute.Decoder, op *Op, chroot string, r *Result) (err error) {
	switch op.Code {
	case jute.OpCreate, jute.OpSync:
		path := d.String()
		if err := d.Err(); err != nil {
			return err
		}
		r.Path, err = stripChroot(chroot, path)
		return err
	case jute.OpExists, jute.OpSetData:
		r.Stat.Decode(d)
	case jute.OpGetData:
		r.Data = d.BufferView()
		r.Stat.Decode(d)
	case jute.OpGetChildren2:
		r.Children = d.Strings()
		r.Stat.Decode(d)
	}
	return d.Err()
}

// decodeMulti reads one result for each op. A failed multi has only error entries: 0 for
// what came before the op that failed, its code, and RuntimeInconsistency behind.
func decodeMulti(d *jute.Decoder, op *Op, chroot string, r *Result) error {
	r.Results = make([]Result, len(op.Ops))
	for i := range op.Ops {
		var h jute.MultiHeader
		h.Decode(d)
		if err := d.Err(); err != nil {
			return err
		}
		switch {
		case h.Done:
			return fmt.Errorf("multi of %d ops has %d results", len(op.Ops), i)
		case h.Type == jute.OpError:
			var e jute.ErrorResponse
			e.Decode(d)
			r.Results[i].Err = e.Err.Err()
			if r.Err == nil && e.Err != jute.OK && e.Err != jute.RuntimeInconsistency {
				r.Err = e.Err
			}
		case h.Type != op.Ops[i].Code:
			return fmt.Errorf("multi: result %d is of op %d, asked was op %d", i, h.Type, op.Ops[i].Code)
		default:
			if err := decodeBody(d, &op.Ops[i], chroot, &r.Results[i]); err != nil {
				return err
			}
		}
	}
	var end jute.MultiHeader
	end.Decode(d)
	if d.Err() == nil && !end.Done {
		return fmt.Errorf("multi of %d ops has more results", len(op.Ops))
	}
	return d.Err()
}
