package zookeeper

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"strings"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/znode"
)

// users are the identities that clients claim.
var users = []string{"alice:secret", "bob:secret"}

// generator makes steps. It knows no answers, only what would be worth asking: few names, so that requests meet each
// other's nodes, and now and then a new top node, so that full and empty corners alternate.
type generator struct {
	rng      *rand.Rand
	chapter  int   // which top node
	zxids    int64 // about how many there have been
	ensemble bool
}

// generate makes steps with so many operations.
func generate(seed int64, operations int, ensemble bool) (steps []step) {
	g := &generator{rng: rand.New(rand.NewSource(seed)), ensemble: ensemble}
	for slot := range slots {
		steps = append(steps, g.connect(slot))
	}
	for done, next := 0, 0; done < operations; {
		if done >= next {
			next = done + 500
			g.chapter++
			steps = append(steps, step{kind: walks}, g.begin())
		}
		st := g.step()
		done += st.operations()
		steps = append(steps, st)
		if st.endsSession() {
			steps = append(steps, g.connect(st.slot))
		}
	}
	return append(steps, step{kind: walks})
}

func (g *generator) oneIn(n int) bool { return g.rng.Intn(n) == 0 }

func pick[T any](g *generator, from ...T) T { return from[g.rng.Intn(len(from))] }

// begin makes the chapter's top node, and every other time a quota for it, as zkCli's setquota does.
func (g *generator) begin() step {
	paths := []string{g.top()}
	if g.chapter%2 == 0 {
		quota := quotaRoot + g.top()
		paths = append(paths, quota, quota+"/zookeeper_limits", quota+"/zookeeper_stats")
		if g.oneIn(2) {
			paths = append(paths, quota+"/a", quota+"/a/zookeeper_limits", quota+"/a/zookeeper_stats")
		}
	}
	st := step{kind: sends}
	for _, path := range paths {
		r := jute.CreateRequest{Path: path, Data: g.dataFor(path), ACL: jute.OpenACL}
		st.requests = append(st.requests, request{xid: 1, op: jute.OpCreate, body: r.Append(nil), text: path})
	}
	return st
}

func (g *generator) top() string { return fmt.Sprintf("/%c", 'c'+g.chapter%20) }

func (g *generator) step() step {
	slot := g.rng.Intn(slots)
	switch g.rng.Intn(400) {
	case 0, 1, 2, 3:
		return g.connect(slot)
	case 4:
		return step{slot: slot, kind: drops}
	case 5:
		return g.broken(slot)
	case 6:
		return g.stray(slot)
	case 7, 8, 9:
		word := pick(g, slices.Sorted(maps.Keys(words))...)
		if g.ensemble {
			word = pick(g, "ruok", "isro", "wchc", "wchp", "crst") // the others depend on who leads
		}
		return step{slot: slot, kind: asks, word: word}
	case 10, 11:
		return step{slot: slot, kind: sends, requests: []request{g.last()}}
	case 12:
		if g.oneIn(8) {
			return step{slot: slot, kind: expires, silent: g.oneIn(3)}
		}
	}
	st := step{slot: slot, kind: sends}
	count := 1
	if g.oneIn(6) {
		count += g.rng.Intn(8)
	}
	for range count {
		r := g.request()
		st.requests = append(st.requests, r)
		if r.op == jute.OpSetACL {
			break // Apache's server may judge what comes right behind it by the ACL before
		}
	}
	return st
}

// connect makes a handshake of any kind. The client's own identity and watches come with it, as they do from Java.
func (g *generator) connect(slot int) step {
	h := hello{session: newSession, timeout: longTimeout, readOnly: pick(g, []byte{0}, []byte{0}, []byte{1}, []byte{2}, nil, []byte{0, 1, 2, 3})}
	var requests []request
	if slot < len(users) {
		requests = append(requests, authRequest("digest", users[slot]))
	}
	switch g.rng.Intn(10) {
	case 0, 1, 2:
		h.session = slot
		h.stay = g.oneIn(3)
		h.seen = pick(g, seenNothing, seenAll, seenAll)
	case 3:
		h.session = g.rng.Intn(slots)
		h.seen = pick(g, seenNothing, seenAll)
	case 4:
		h.session = pick(g, slot, slot, noSession)
		h.password = pick(g, wrongPassword, shortPassword, nullPassword)
		h.stay = h.session == slot && g.oneIn(2)
	case 5:
		if g.oneIn(4) {
			h.seen = seenFuture
		}
		h.password = pick(g, wrongPassword, shortPassword, nullPassword)
	case 6: // over at once: what a server makes of the timeout must not end it
		h.timeout = pick[int32](g, 0, -1, 1, 999, 1000, 1001, 5000, longTimeout+1, 1<<31-1, -1<<31)
		requests = append(requests, request{xid: 5, op: jute.OpCloseSession, closes: true})
	}
	if g.oneIn(2) {
		requests = append(slices.Clip(requests), g.setWatches())
		if n := len(requests); n > 1 && requests[n-2].op == jute.OpCloseSession {
			requests[n-1], requests[n-2] = requests[n-2], requests[n-1]
		}
	}
	g.zxids++
	return step{slot: slot, kind: connects, hello: h, requests: requests}
}

func authRequest(scheme, data string) request {
	packet := jute.AuthPacket{Scheme: scheme, Auth: []byte(data)}
	return request{xid: jute.XidAuth, op: jute.OpAuth, body: packet.Append(nil), text: scheme + " " + data}
}

// last is a request after which the server closes the connection, with one exception.
func (g *generator) last() request {
	r := request{xid: g.xid(), closes: true}
	switch g.rng.Intn(8) {
	case 0:
		r = authRequest(pick(g, "nonsense", "", "world", "auth", "sasl", "super", "x509", "ensemble", "DIGEST"), "alice:secret")
		r.closes = true
	case 1:
		r.op, r.text = pick(g, jute.OpCode(0), 10, 13, 23, 99, 108, 1000, -1, -2, -12, 1<<31-1), "no such request"
	case 2:
		r.op, r.body, r.text = jute.OpSASL, []byte{0xff, 0xff, 0xff, 0xff}, "null token"
	case 3: // but not this one
		return authRequest(pick(g, "digest", "ip"), pick(g, "alice:secret", "", "no colon", ":", "alice:", "x:y:z", "\x00", "ä:ö"))
	default:
		r.op, r.body = jute.OpCloseSession, pick(g, nil, nil, []byte{1, 2, 3})
	}
	return r
}

// broken makes bytes that are no proper frame of a request.
func (g *generator) broken(slot int) step {
	st := step{slot: slot, kind: breaks}
	header := (&jute.RequestHeader{Xid: 9, Type: jute.OpGetData}).Append(nil)
	switch g.rng.Intn(6) {
	case 0:
		st.bytes = binary.BigEndian.AppendUint32(nil, pick[uint32](g, 0xffffffff, 0x80000000, 0x7fffffff, jute.DefaultMaxBuffer+1))
	case 1:
		st.bytes = appendFrame(nil, header[:g.rng.Intn(8)])
	case 2:
		st.bytes, st.openEnd = appendFrame(nil, header)[:1+g.rng.Intn(11)], true
	case 3:
		st.bytes, st.openEnd = append(binary.BigEndian.AppendUint32(nil, 1000), header...), true
	case 4: // as large as can be
		return step{slot: slot, kind: sends, requests: []request{{xid: 1, op: jute.OpPing, body: make([]byte, jute.DefaultMaxBuffer-len(header))}}}
	case 5:
		st.bytes = appendFrame(nil, append(header, make([]byte, jute.DefaultMaxBuffer+1-len(header))...))
	}
	return st
}

// stray makes bytes for the begin of a connection. None is a proper handshake: that would leave a session behind.
func (g *generator) stray(slot int) step {
	st := step{slot: slot, kind: strays}
	r := jute.ConnectRequest{TimeoutMs: longTimeout, Password: make([]byte, 16)}
	whole := appendFrame(nil, r.Append(nil))
	switch g.rng.Intn(6) {
	case 0:
		st.bytes = appendFrame(nil, (&jute.RequestHeader{Xid: 1, Type: jute.OpGetData}).Append(nil))
	case 1:
		st.bytes, st.openEnd = whole[:1+g.rng.Intn(len(whole)-1)], true
	case 2:
		short := r.Append(nil)
		st.bytes = appendFrame(nil, short[:g.rng.Intn(24)])
	case 3:
		st.bytes = binary.BigEndian.AppendUint32(nil, pick[uint32](g, 0xffffffff, 0x80000000, 0x7fffffff, jute.DefaultMaxBuffer+1))
	case 4:
		st.bytes, st.openEnd = []byte{}, true
	case 5: // a password longer than the frame
		bad := r.Append(nil)
		binary.BigEndian.PutUint32(bad[24:], pick[uint32](g, 17, 1000, 0xfffffffe, 0x7fffffff))
		st.bytes = appendFrame(nil, bad)
	}
	return st
}

func (g *generator) xid() int32 {
	if g.oneIn(20) {
		return pick[int32](g, 0, -2, -3, -4, -8, -9, 1<<31-1, -1<<31)
	}
	return int32(1 + g.rng.Intn(1000))
}

// request makes a request that is answered and leaves the connection open.
func (g *generator) request() request {
	op := pick(g, common...)
	r := request{xid: g.xid(), op: op}
	switch op {
	case jute.OpMulti:
		r.body, r.text = g.multi(g.rng.Intn(6), writesOfMulti)
		g.zxids++
	case jute.OpMultiRead:
		r.body, r.text = g.multi(g.rng.Intn(4), readsOfMulti)
	case jute.OpSetWatches, jute.OpSetWatches2:
		return g.setWatches()
	default:
		r.body, r.text = g.record(op)
	}
	if g.oneIn(30) && !(g.ensemble && slices.Contains(written, op)) && !strings.Contains(r.text, quotaRoot) {
		before := len(r.body)
		r.body = g.damage(r.body)
		r.text += fmt.Sprintf(" damaged, %d bytes before", before)
	}
	return r
}

// common is the mixture of requests.
var common = slices.Concat(
	slices.Repeat([]jute.OpCode{jute.OpCreate, jute.OpCreate2, jute.OpDelete, jute.OpSetData}, 6),
	slices.Repeat([]jute.OpCode{jute.OpExists, jute.OpGetData, jute.OpGetChildren, jute.OpGetChildren2, jute.OpMulti}, 4),
	slices.Repeat([]jute.OpCode{jute.OpSetACL, jute.OpGetACL, jute.OpAddWatch, jute.OpRemoveWatches, jute.OpMultiRead, jute.OpCreateContainer}, 2),
	[]jute.OpCode{
		jute.OpSync, jute.OpPing, jute.OpCheckWatches, jute.OpCreateTTL, jute.OpGetEphemerals, jute.OpGetAllChildrenNum,
		jute.OpWhoAmI, jute.OpSetWatches, jute.OpSetWatches2, jute.OpReconfig,
	},
)

// written are the operations that take part in the log. One that does not decode takes no zxid, and Apache's ensembles never
// recover from that: their members wait for the zxid after the one that they have got twice.
var written = []jute.OpCode{
	jute.OpCreate, jute.OpCreate2, jute.OpCreateContainer, jute.OpCreateTTL, jute.OpDelete, jute.OpSetData, jute.OpSetACL, jute.OpMulti,
	jute.OpReconfig,
}

var (
	writesOfMulti = []jute.OpCode{
		jute.OpCreate, jute.OpCreate, jute.OpCreate, jute.OpCreate2, jute.OpCreate2, jute.OpCreateContainer, jute.OpDelete, jute.OpDelete,
		jute.OpSetData, jute.OpSetData, jute.OpSetData, jute.OpCheck, jute.OpCheck,
	}
	readsOfMulti = []jute.OpCode{jute.OpGetData, jute.OpGetChildren}
)

// multi makes the body of a multi of either kind; now and then with what does not belong there.
func (g *generator) multi(count int, ops []jute.OpCode) (body []byte, text string) {
	for range count {
		op := pick(g, ops...)
		if g.oneIn(60) {
			op = pick(g, jute.OpGetData, jute.OpSetData, jute.OpMulti, jute.OpSetACL, jute.OpSync, jute.OpExists, jute.OpCreateTTL, jute.OpCode(77))
		}
		header := jute.MultiHeader{Type: op, Err: -1}
		var record []byte
		var what string
		if op == jute.OpMulti {
			record, what = g.multi(2, ops)
		} else {
			record, what = g.record(op)
		}
		body = append(header.Append(body), record...)
		text += fmt.Sprintf("[%v %s] ", op, what)
	}
	return jute.MultiEnd.Append(body), text
}

// damage cuts a body short, lengthens it, or changes what may be a length.
func (g *generator) damage(body []byte) []byte {
	body = slices.Clone(body)
	switch at := g.rng.Intn(len(body) + 1); g.rng.Intn(4) {
	case 0:
		return body[:at]
	case 1:
		return append(body, 1, 2, 3)
	case 2:
		if at+4 <= len(body) {
			binary.BigEndian.PutUint32(body[at:], pick[uint32](g, 0xffffffff, 0xfffffffe, 0x80000000, 0x7fffffff, 0, 1, 1<<20, 1<<24))
		}
	default:
		if len(body) >= 4 { // the first length
			binary.BigEndian.PutUint32(body, pick[uint32](g, 0xffffffff, 0xfffffffe, 0x80000000, 0x7fffffff, 0, 1))
		}
	}
	return body
}

// record makes the body of any single operation.
func (g *generator) record(op jute.OpCode) (body []byte, text string) {
	path := g.path()
	switch op {
	case jute.OpCreate, jute.OpCreate2, jute.OpCreateContainer, jute.OpCreateTTL:
		return g.create(op, path)
	case jute.OpDelete, jute.OpCheck:
		r := jute.PathVersionRequest{Path: path, Version: g.version()}
		g.zxids++
		return r.Append(nil), fmt.Sprintf("%q version %d", path, r.Version)
	case jute.OpSetData:
		r := jute.SetDataRequest{Path: path, Data: g.dataFor(path), Version: g.version()}
		g.zxids++
		return r.Append(nil), fmt.Sprintf("%q version %d%s", path, r.Version, showData(r.Data))
	case jute.OpSetACL:
		r := jute.SetACLRequest{Path: path, ACL: g.acl(), Version: g.version()}
		g.zxids++
		return r.Append(nil), fmt.Sprintf("%q version %d %q", path, r.Version, r.ACL)
	case jute.OpAddWatch:
		r := jute.AddWatchRequest{Path: path, Mode: jute.AddWatchMode(g.rng.Intn(6)/2 - g.rng.Intn(20)/19)}
		return r.Append(nil), fmt.Sprintf("%q mode %d", path, r.Mode)
	case jute.OpCheckWatches, jute.OpRemoveWatches:
		r := jute.WatcherRequest{Path: path, Type: jute.WatcherType(g.rng.Intn(8) - g.rng.Intn(2))}
		return r.Append(nil), fmt.Sprintf("%q type %d", path, r.Type)
	case jute.OpGetACL, jute.OpGetAllChildrenNum, jute.OpSync:
		return (&jute.PathRequest{Path: path}).Append(nil), fmt.Sprintf("%q", path)
	case jute.OpGetEphemerals:
		path = pick(g, "", "/", g.top(), path)
		return (&jute.PathRequest{Path: path}).Append(nil), fmt.Sprintf("%q", path)
	case jute.OpReconfig:
		r := jute.ReconfigRequest{Joining: "x", CurrentConfigID: -1}
		g.zxids++
		return r.Append(nil), ""
	case jute.OpPing, jute.OpWhoAmI:
		return nil, ""
	}
	r := jute.PathWatchRequest{Path: path, Watch: g.oneIn(2)}
	return r.Append(nil), fmt.Sprintf("%q watch %v", path, r.Watch)
}

func (g *generator) create(op jute.OpCode, path string) (body []byte, text string) {
	r := jute.CreateRequest{Path: path, Data: g.dataFor(path), ACL: g.acl(), Flags: pick[jute.CreateFlags](g, 0, 0, 0, 0, 1, 1, 2, 3)}
	switch {
	case g.oneIn(20):
		r.Flags = jute.CreateFlags(g.rng.Intn(10) - 1)
	case op == jute.OpCreateContainer:
		r.Flags = jute.FlagContainer
	case op == jute.OpCreateTTL:
		r.Flags = pick(g, jute.FlagPersistentTTL, jute.FlagPersistentSequentialTTL)
	}
	if r.Flags.Sequential() && g.oneIn(3) {
		r.Path = pick(g, path+"/", path+"s-")
	}
	g.zxids++
	body, text = r.Append(nil), fmt.Sprintf("%q flags %d %q%s", r.Path, r.Flags, r.ACL, showData(r.Data))
	if op == jute.OpCreateTTL {
		ttl := pick[int64](g, 100_000_000, 0, -1, 1, 0xffffffffff, 0x10000000000)
		if !r.Flags.TTL() {
			ttl = 1 // with less Apache makes a node that nobody wants, and we refuse
		}
		body = jute.AppendInt64(body, ttl)
	}
	return body, text
}

// setWatches restores watches, from about now or from any time before.
func (g *generator) setWatches() request {
	lists := make([][]string, 5)
	for i := range lists {
		if lists[i] = []string{}; g.oneIn(20) {
			lists[i] = nil
		}
		for range g.rng.Intn(3) {
			lists[i] = append(lists[i], g.path())
		}
	}
	since := max(0, g.zxids-int64(g.rng.Intn(40)))
	if g.oneIn(3) {
		since = g.rng.Int63n(g.zxids + 10)
	}
	watches := jute.SetWatches{RelativeZxid: jute.Zxid(since), Data: lists[0], Exist: lists[1], Child: lists[2],
		Persistent: lists[3], PersistentRecursive: lists[4]}
	r := request{xid: pick(g, jute.XidSetWatches, g.xid()), relative: true, text: fmt.Sprintf("%+v", watches)}
	if g.oneIn(2) {
		r.op, r.body = jute.OpSetWatches2, watches.Append(nil)
	} else {
		r.op, r.body = jute.OpSetWatches, watches.AppendOneShot(nil)
	}
	return r
}

// oddPaths are paths that somebody may get wrong.
var oddPaths = []string{
	"", "/", "//", "a", "/a/", "//a", "/a//b", "/.", "/..", "/a/.", "/a/..", "/a/./b", "/./a", "/.a", "/..a", "/a.b", "a/b",
	"/zookeeper", "/zookeeper/quota", "/zookeeper/config", "/zookeeper/none", "/zookeeper/", "/Zookeeper",
	"/nul\x00", "/a\x00/b", "/\x01", "/\x1f", "/\x7f", "/ ", "/\t", "/\u0080", "/\u009f", "/\u00a0", "/\ud7ff", "/\ue000", "/\uf8ff", "/\uf900",
	"/\uffef", "/\ufff0", "/\uffff", "/ä", "/日本", "/%2e", "/a b", "/" + longName, "\\a",
}

var longName = strings.Repeat("long", 100)

func (g *generator) path() string {
	path := g.anyPath()
	if g.ensemble && path == "/zookeeper/config" {
		path += "s" // Apache's ensembles show their members there
	}
	return path
}

func (g *generator) anyPath() string {
	switch g.rng.Intn(24) {
	case 0:
		return pick(g, oddPaths...)
	case 1:
		return g.top() + pick(g, oddPaths...)
	case 2:
		return pick(g, "/a", "/b", "/a/b", "/b/a")
	case 3:
		return pick(g, g.top(), g.quota())
	}
	path := g.top()
	for range 1 + g.rng.Intn(3) {
		path += "/" + string(rune('a'+g.rng.Intn(3)))
	}
	if g.oneIn(12) {
		path += fmt.Sprintf("%s%010d", pick(g, "", "/", "s-"), g.rng.Intn(10))
	}
	return path
}

const quotaRoot = "/zookeeper/quota"

// quota is a node of a quota.
func (g *generator) quota() string {
	return quotaRoot + g.top() + pick(g, "", "", "/a", "/b/a") + pick(g, "", "/zookeeper_limits", "/zookeeper_stats")
}

// dataFor is data for a node. Apache's server ends when a quota's nodes hold anything else than this.
func (g *generator) dataFor(path string) []byte {
	if strings.HasPrefix(path, quotaRoot) {
		return []byte(pick(g, "count=0,bytes=0", "count=5,bytes=-1", "bytes=3", "count=1,bytes=2=;countHardLimit=4;byteHardLimit=-1"))
	}
	return g.data()
}

func (g *generator) data() []byte {
	switch g.rng.Intn(60) {
	case 0, 1, 2, 3:
		return nil
	case 4, 5, 6, 7:
		return []byte{}
	case 8:
		return []byte(strings.Repeat("large", g.rng.Intn(4000)))
	}
	return []byte(strings.Repeat("d", g.rng.Intn(9)))
}

func (g *generator) version() int32 {
	switch g.rng.Intn(30) {
	case 0:
		return pick[int32](g, -2, -1<<31, 1<<31-1, 1000)
	case 1, 2, 3, 4, 5, 6, 7:
		return int32(g.rng.Intn(4))
	}
	return jute.AnyVersion
}

func (g *generator) acl() []jute.ACL {
	alice, bob := znode.DigestID(users[0]), znode.DigestID(users[1])
	perms := int32(g.rng.Intn(32))
	entry := func(scheme, id string) []jute.ACL {
		return []jute.ACL{{Perms: 31, ID: jute.ID{Scheme: scheme, ID: id}}}
	}
	switch g.rng.Intn(60) {
	case 0:
		if !g.ensemble { // see written: in a multi it takes no zxid
			return nil
		}
		return []jute.ACL{}
	case 1:
		return []jute.ACL{}
	case 2:
		return entry(pick(g, "nonsense", "", "sasl", "x509", "super", "Digest"), "x")
	case 3, 4:
		return []jute.ACL{{Perms: perms, ID: jute.ID{Scheme: "auth", ID: pick(g, "", "x")}}, jute.ReadOnlyACL[0]}
	case 5, 6:
		return []jute.ACL{{Perms: perms, ID: bob}, {Perms: 31, ID: alice}, {Perms: perms, ID: bob}}
	case 7:
		ips := []string{"127.0.0.1", "127.0.0.0/8", "10.0.0.0/8", "1.2.3", "::1", "::1/64", "1.2.3.4/40", "0.0.0.0/0", "127.0.0.1/33", "127.0.0.1/-1",
			"127.0.0.1/", "/8", "", "127.0.0.1/8/8", "localhost", "::ffff:127.0.0.1", "0127.0.0.1", "1.2.3.4.5"}
		return append(entry("ip", pick(g, ips...)), jute.ACL{Perms: 31, ID: alice})
	case 8:
		return append(entry("digest", pick(g, "a:b", "a", "a:", "a:b:", ":b", "a:b:c", "", ":", "::")), jute.OpenACL[0])
	case 9:
		return entry("world", pick(g, "me", "", "anyone", "Anyone"))
	case 10, 11:
		return []jute.ACL{{Perms: perms, ID: jute.ID{Scheme: "world", ID: "anyone"}}, {Perms: 31, ID: pick(g, alice, bob)}}
	case 12:
		return []jute.ACL{{Perms: pick[int32](g, 0, -1, 32, 1<<30), ID: jute.ID{Scheme: "world", ID: "anyone"}}, {Perms: 31, ID: alice}}
	}
	return jute.OpenACL
}
