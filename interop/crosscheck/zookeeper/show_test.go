package zookeeper

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"understudy/internal/coordination/jute"
)

// names turns what must differ between two servers into what must not: zxids become distances from the run's first,
// session ids become the number of the session.
type names struct {
	base     jute.Zxid
	sessions map[jute.SessionID]string
}

func (n *names) zxid(z jute.Zxid) string {
	if z <= 0 {
		return fmt.Sprint(int64(z))
	}
	return fmt.Sprintf("z%+d", z-n.base)
}

func (n *names) session(id jute.SessionID) string {
	if id == 0 {
		return "none"
	}
	if name, known := n.sessions[id]; known {
		return name
	}
	return fmt.Sprintf("unknown session 0x%x", uint64(id))
}

// name gives a new session its name.
func (n *names) name(id jute.SessionID) {
	if _, known := n.sessions[id]; !known {
		n.sessions[id] = fmt.Sprintf("session %d", len(n.sessions))
	}
}

func (n *names) event(h jute.ReplyHeader, d *jute.Decoder) string {
	var e jute.WatcherEvent
	e.Decode(d)
	return fmt.Sprintf("event %v %s state %d zxid %s err %d", e.Type, text(e.Path), e.State, n.zxid(h.Zxid), int32(h.Err)) + leftover(d)
}

// reply shows a reply in full but for times, and with lists that have no defined order sorted.
func (n *names) reply(op jute.OpCode, h jute.ReplyHeader, d *jute.Decoder) string {
	shown := fmt.Sprintf("reply xid %d zxid %s err %d", h.Xid, n.zxid(h.Zxid), int32(h.Err))
	if len(d.Rest()) > 0 {
		shown += n.body(op, d)
	}
	return shown + leftover(d)
}

// text shows a string. Bytes that are no UTF-8 become some number of U+FFFD in Java, and are kept here: how many does not
// matter.
func text(s string) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	for strings.Contains(s, "\ufffd\ufffd") {
		s = strings.ReplaceAll(s, "\ufffd\ufffd", "\ufffd")
	}
	return fmt.Sprintf("%q", s)
}

func leftover(d *jute.Decoder) string {
	switch {
	case d.Err() != nil:
		return " " + d.Err().Error()
	case len(d.Rest()) > 0:
		return " and " + hexText(d.Rest())
	}
	return ""
}

func (n *names) body(op jute.OpCode, d *jute.Decoder) string {
	switch op {
	case jute.OpCreate, jute.OpSync:
		return " " + text(d.String())
	case jute.OpCreate2, jute.OpCreateContainer, jute.OpCreateTTL:
		return " " + text(d.String()) + n.stat(d)
	case jute.OpExists, jute.OpSetData, jute.OpSetACL:
		return n.stat(d)
	case jute.OpGetData, jute.OpReconfig:
		return showData(d.Buffer()) + n.stat(d)
	case jute.OpGetChildren, jute.OpGetEphemerals:
		return sortedStrings(d)
	case jute.OpGetChildren2:
		return sortedStrings(d) + n.stat(d)
	case jute.OpGetACL:
		return showACLs(d) + n.stat(d)
	case jute.OpGetAllChildrenNum, jute.OpAddWatch:
		return fmt.Sprint(" ", d.Int32())
	case jute.OpWhoAmI:
		var r jute.WhoAmIResponse
		r.Decode(d)
		slices.SortFunc(r.Clients, func(a, b jute.ClientInfo) int { return strings.Compare(a.Scheme+a.User, b.Scheme+b.User) })
		return fmt.Sprintf(" %q", r.Clients)
	case jute.OpMulti, jute.OpMultiRead:
		return n.multi(d)
	}
	return ""
}

func (n *names) multi(d *jute.Decoder) string {
	var b strings.Builder
	jute.EachMulti(d, func(h jute.MultiHeader) bool {
		fmt.Fprintf(&b, " {%d %d", h.Type, int32(h.Err))
		switch h.Type {
		case jute.OpError:
			fmt.Fprintf(&b, " error %d", d.Int32())
		case jute.OpDelete, jute.OpCheck:
		default:
			b.WriteString(n.body(h.Type, d))
		}
		b.WriteString("}")
		return true
	})
	return b.String()
}

// stat shows a Stat without the times, of which it says what holds whatever the clock says.
func (n *names) stat(d *jute.Decoder) string {
	var s jute.Stat
	s.Decode(d)
	times := fmt.Sprintf("set %v %v", s.Ctime != 0, s.Mtime != 0)
	switch {
	case s.Mtime < s.Ctime:
		times += ", in the wrong order"
	case s.Version == 0 && s.Ctime != s.Mtime:
		times += ", not at once"
	}
	return fmt.Sprintf(" stat{c %s m %s p %s versions %d %d %d owner %s data %d children %d times %s}",
		n.zxid(s.Czxid), n.zxid(s.Mzxid), n.zxid(s.Pzxid), s.Version, s.Cversion, s.Aversion,
		n.session(s.EphemeralOwner), s.DataLength, s.NumChildren, times)
}

func sortedStrings(d *jute.Decoder) string {
	list := d.Strings()
	if list == nil {
		return " null"
	}
	for i := range list {
		list[i] = text(list[i])
	}
	slices.Sort(list)
	return fmt.Sprintf(" %s", list)
}

func showACLs(d *jute.Decoder) string {
	list := jute.DecodeACLs(d)
	if list == nil {
		return " null"
	}
	shown := make([]string, len(list))
	for i, acl := range list {
		shown[i] = fmt.Sprintf("%d %s %s", acl.Perms, text(acl.ID.Scheme), text(acl.ID.ID))
	}
	slices.Sort(shown)
	return fmt.Sprintf(" %s", shown)
}

func showData(data []byte) string {
	switch {
	case data == nil:
		return " null"
	case len(data) > 100:
		return fmt.Sprintf(" %d bytes, sha256 %x", len(data), sha256.Sum256(data))
	}
	return fmt.Sprintf(" %q", data)
}
