package zkserver

import (
	"fmt"
	"maps"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"
	"time"

	"understudy/internal/coordination/ensemble"
	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/znode"
)

// word is one four-letter word: what it answers, and whether it does so without a quorum.
type word struct {
	answer  func(s *Server, b *strings.Builder)
	anytime bool
}

var words map[string]word

func init() { // refers to functions that refer to it
	words = map[string]word{
		"ruok": {answer: func(_ *Server, b *strings.Builder) { b.WriteString("imok") }, anytime: true},
		"isro": {answer: (*Server).wordISRO, anytime: true},
		"srvr": {answer: (*Server).wordSRVR},
		"stat": {answer: (*Server).wordSTAT},
		"mntr": {answer: (*Server).wordMNTR},
		"conf": {answer: (*Server).wordCONF},
		"cons": {answer: (*Server).wordCONS},
		"crst": {answer: (*Server).wordCRST},
		"srst": {answer: (*Server).wordSRST},
		"dump": {answer: (*Server).wordDUMP},
		"envi": {answer: (*Server).wordENVI, anytime: true},
		"wchs": {answer: (*Server).wordWCHS},
		"wchc": {answer: (*Server).wordWCHC},
		"wchp": {answer: (*Server).wordWCHP},
		"dirs": {answer: (*Server).wordDIRS},
		"hash": {answer: (*Server).wordHASH},
		"gtmk": {answer: func(_ *Server, b *strings.Builder) { b.WriteString("306") }, anytime: true},
	}
}

const (
	telnetClose = "\xff\xf4\xff\xfd"
	notServing  = "This ZooKeeper instance is not currently serving requests"
)

// fourLetters answers a connection whose first four bytes are a word; false if they are not.
func (c *conn) fourLetters(first string) bool {
	w, known := words[first]
	if !known && first != telnetClose {
		return false
	}
	var b strings.Builder
	switch {
	case first == telnetClose:
	case !c.server.whitelisted(first):
		fmt.Fprintf(&b, "%s is not executed because it is not in the whitelist.\n", first)
	case !w.anytime && !c.server.member.Serving():
		b.WriteString(notServing + "\n")
	default:
		w.answer(c.server, &b)
	}
	c.mu.Lock()
	c.mu.out = append(c.mu.out, b.String()...)
	c.mu.last = true
	c.mu.Unlock()
	return true
}

func (s *Server) whitelisted(name string) bool {
	return slices.ContainsFunc(s.config.FourLetterWhitelist, func(w string) bool { return w == "*" || w == name })
}

func (s *Server) wordISRO(b *strings.Builder) {
	if s.member.Serving() {
		b.WriteString("rw")
	} else {
		b.WriteString("null")
	}
}

// overview is what srvr, stat and mntr show of the tree.
type overview struct {
	zxid                        jute.Zxid
	nodes, ephemerals, sessions int
	dataBytes                   int64
}

func (s *Server) overview() (o overview) {
	s.member.View(func(m *znode.Machine) {
		o = overview{
			zxid: m.LastZxid(), nodes: m.NodeCount(), ephemerals: m.EphemeralCount(),
			sessions: m.SessionCount(), dataBytes: m.ApproximateDataSize(),
		}
	})
	return o
}

func (s *Server) wordSRVR(b *strings.Builder) {
	fmt.Fprintf(b, "Zookeeper version: %s\n", s.config.Version)
	s.writeServer(b)
}

func (s *Server) wordSTAT(b *strings.Builder) {
	fmt.Fprintf(b, "Zookeeper version: %s\nClients:\n", s.config.Version)
	for _, c := range s.connections() {
		c.mu.Lock()
		fmt.Fprintf(b, " %s[1](queued=%d,recved=%d,sent=%d)\n", c.remote, c.mu.queue.len(), c.mu.stats.received, c.mu.stats.sent)
		c.mu.Unlock()
	}
	b.WriteString("\n")
	s.writeServer(b)
}

func (s *Server) writeServer(b *strings.Builder) {
	o := s.overview()
	received, sent, latency := s.stats.snapshot()
	fmt.Fprintf(b, "Latency min/avg/max: %d/%s/%d\n", latency.min, latency.average(), latency.max)
	fmt.Fprintf(b, "Received: %d\nSent: %d\nConnections: %d\nOutstanding: %d\n", received, sent, len(s.connections()), s.outstanding())
	status := s.member.Status()
	fmt.Fprintf(b, "Zxid: 0x%x\nMode: %s\nNode count: %d\n", uint64(o.zxid), status.Mode, o.nodes)
	if status.Mode == ensemble.ModeLeader {
		b.WriteString("Proposal sizes last/min/max: -1/-1/-1\n")
	}
}

func (s *Server) outstanding() int {
	n := 0
	for _, c := range s.connections() {
		c.mu.Lock()
		n += c.mu.queue.len()
		c.mu.Unlock()
	}
	return n
}

func (s *Server) wordMNTR(b *strings.Builder) {
	o := s.overview()
	received, sent, latency := s.stats.snapshot()
	status := s.member.Status()
	line := func(key string, value any) { fmt.Fprintf(b, "zk_%s\t%v\n", key, value) }
	line("version", s.config.Version)
	line("server_state", status.Mode)
	if status.Mode != ensemble.ModeStandalone {
		line("peer_state", peerState(status.Mode))
	}
	s.watches.Lock()
	watches := s.watches.table.Count()
	s.watches.Unlock()
	line("avg_latency", latency.average())
	line("max_latency", latency.max)
	line("min_latency", latency.min)
	line("packets_received", received)
	line("packets_sent", sent)
	line("num_alive_connections", len(s.connections()))
	line("outstanding_requests", s.outstanding())
	line("uptime", time.Since(s.start).Milliseconds())
	line("znode_count", o.nodes)
	line("watch_count", watches)
	line("ephemerals_count", o.ephemerals)
	line("approximate_data_size", o.dataBytes)
	line("global_sessions", o.sessions)
	line("local_sessions", 0)
	line("open_file_descriptor_count", openDescriptors())
	line("max_file_descriptor_count", maxDescriptors())
	line("auth_failed_count", s.stats.authFailed.Load())
	line("connection_rejected", s.stats.rejected.Load())
	line("commit_count", status.Requests)
	line("cnt_fsynctime", status.Syncs)
	line("outstanding_changes_queued", status.Pending)
	if status.Mode != ensemble.ModeStandalone {
		line("quorum_size", status.Members)
	}
	if status.Mode == ensemble.ModeLeader {
		line("learners", status.Followers)
		line("synced_followers", status.SyncedFollowers)
		line("synced_non_voting_followers", 0)
		line("synced_observers", 0)
		line("pending_syncs", 0)
	}
}

func peerState(mode ensemble.Mode) string {
	switch mode {
	case ensemble.ModeLeader:
		return "leading - broadcast"
	case ensemble.ModeFollower:
		return "following - broadcast"
	}
	return "looking"
}

func openDescriptors() int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(list)
}

func (s *Server) wordCONF(b *strings.Builder) {
	_, port, err := net.SplitHostPort(s.config.ClientAddr)
	if err != nil {
		port = "-1"
	}
	directory := filepath.Join(s.config.DataDir, "version-2")
	bytes := directoryBytes(s.config.DataDir)
	status := s.member.Status()
	id := uint64(status.ID)
	if status.Mode == ensemble.ModeStandalone {
		id = 0 // as upstream, although session ids say 1
	}
	fmt.Fprintf(b, "clientPort=%s\nsecureClientPort=-1\ndataDir=%s\ndataDirSize=%d\ndataLogDir=%s\ndataLogSize=%d\n",
		port, directory, bytes, directory, bytes)
	fmt.Fprintf(b, "tickTime=%d\nmaxClientCnxns=%d\nminSessionTimeout=%d\nmaxSessionTimeout=%d\nclientPortListenBacklog=-1\nserverId=%d\n",
		s.config.TickTime.Milliseconds(), max(s.config.MaxClientConnections, 0),
		s.config.MinSessionTimeout.Milliseconds(), s.config.MaxSessionTimeout.Milliseconds(), id)
}

func directoryBytes(directory string) (n int64) {
	if directory == "" {
		return 0
	}
	_ = filepath.Walk(directory, func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
		return nil // what vanishes meanwhile does not count
	})
	return n
}

func (s *Server) wordDIRS(b *strings.Builder) {
	bytes := directoryBytes(s.config.DataDir)
	fmt.Fprintf(b, "datadir_size: %d\nlogdir_size: %d\n", bytes, bytes)
}

func (s *Server) wordCONS(b *strings.Builder) {
	for _, c := range s.connections() {
		c.writeCons(b)
	}
	b.WriteString("\n")
}

func (c *conn) writeCons(b *strings.Builder) {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := &c.mu.stats
	fmt.Fprintf(b, " %s[1](queued=%d,recved=%d,sent=%d", c.remote, c.mu.queue.len(), st.received, st.sent)
	if c.mu.session != 0 {
		fmt.Fprintf(b, ",sid=%s,lop=%s,est=%d,to=%d", sessionText(c.mu.session), st.lastOp, c.opened.UnixMilli(), c.mu.timeoutMs)
		if st.lastCxid >= 0 {
			fmt.Fprintf(b, ",lcxid=0x%x", st.lastCxid)
		}
		fmt.Fprintf(b, ",lzxid=0x%x,lresp=%d,llat=%d,minlat=%d,avglat=%s,maxlat=%d", uint64(st.lastZxid),
			st.lastResponse.UnixMilli(), st.lastLatency, st.latency.min, wholeAverage(st.latency), st.latency.max)
	}
	b.WriteString(")\n")
}

// wholeAverage is how cons prints it: without decimals.
func wholeAverage(l latencies) string {
	if l.count == 0 {
		return "0"
	}
	return fmt.Sprint(l.total / l.count)
}

func (s *Server) wordCRST(b *strings.Builder) {
	for _, c := range s.connections() {
		c.mu.Lock()
		c.mu.stats.reset()
		c.mu.Unlock()
	}
	b.WriteString("Connection stats reset.\n")
}

func (s *Server) wordSRST(b *strings.Builder) {
	s.stats.reset()
	b.WriteString("Server stats reset.\n")
}

// owner is a session in dump.
type owner struct {
	id        jute.SessionID
	timeoutMs int32
	paths     []string
}

func (s *Server) wordDUMP(b *strings.Builder) {
	var sessions []owner
	withEphemerals := 0
	s.member.View(func(m *znode.Machine) {
		m.Sessions(func(info znode.SessionInfo) bool {
			o := owner{id: info.ID, timeoutMs: info.TimeoutMs}
			if info.Ephemerals > 0 {
				o.paths = m.Ephemerals(info.ID, "")
				withEphemerals++
			}
			sessions = append(sessions, o)
			return true
		})
	})
	b.WriteString("SessionTracker dump:\n")
	if mode := s.member.Status().Mode; mode == ensemble.ModeFollower || mode == ensemble.ModeLooking {
		fmt.Fprintf(b, "Global Sessions(%d):\n", len(sessions))
		for _, o := range sessions {
			fmt.Fprintf(b, "%s\t%dms\n", sessionText(o.id), o.timeoutMs)
		}
	} else {
		s.writeSessionSets(b, sessions)
	}
	fmt.Fprintf(b, "ephemeral nodes dump:\nSessions with Ephemerals (%d):\n", withEphemerals)
	for _, o := range sessions {
		if len(o.paths) > 0 {
			fmt.Fprintf(b, "%s:\n", sessionText(o.id))
			for _, path := range o.paths {
				fmt.Fprintf(b, "\t%s\n", path)
			}
		}
	}
	connections := s.connections()
	fmt.Fprintf(b, "Connections dump:\nConnections Sets (1)/(%d):\n%d expire at %s:\n", len(connections), len(connections), javaDate(time.Now()))
	for _, c := range connections {
		c.mu.Lock()
		fmt.Fprintf(b, "\tip: %s sessionId: %s\n", c.remote, sessionText(c.mu.session))
		c.mu.Unlock()
	}
}

// writeSessionSets is the leader's form, in sets that expire together. When that is is known to the member's expirer
// alone; the latest possible moment is shown.
func (s *Server) writeSessionSets(b *strings.Builder, sessions []owner) {
	sets := make(map[int32][]owner)
	for _, o := range sessions {
		sets[o.timeoutMs] = append(sets[o.timeoutMs], o)
	}
	fmt.Fprintf(b, "Session Sets (%d)/(%d):\n", len(sets), len(sessions))
	for _, timeoutMs := range slices.Sorted(maps.Keys(sets)) {
		set := sets[timeoutMs]
		fmt.Fprintf(b, "%d expire at %s:\n", len(set), javaDate(time.Now().Add(time.Duration(timeoutMs)*time.Millisecond)))
		for _, o := range set {
			fmt.Fprintf(b, "\t%s\n", sessionText(o.id))
		}
	}
}

func javaDate(t time.Time) string { return t.Format("Mon Jan 02 15:04:05 MST 2006") }

func (s *Server) wordENVI(b *strings.Builder) {
	host, _ := os.Hostname()
	home, _ := os.UserHomeDir()
	directory, _ := os.Getwd()
	name := ""
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	mb := func(n uint64) string { return fmt.Sprintf("%dMB", n>>20) }
	b.WriteString("Environment:\n")
	for _, pair := range [][2]string{
		{"zookeeper.version", s.config.Version}, {"host.name", host},
		{"java.version", runtime.Version()}, {"java.vendor", "understudy, in Go"}, {"java.home", ""},
		{"java.class.path", ""}, {"java.library.path", ""}, {"java.io.tmpdir", os.TempDir()}, {"java.compiler", "<NA>"},
		{"os.name", runtime.GOOS}, {"os.arch", runtime.GOARCH}, {"os.version", ""},
		{"user.name", name}, {"user.home", home}, {"user.dir", directory},
		{"os.memory.free", mb(memory.HeapIdle)}, {"os.memory.max", mb(memory.Sys)}, {"os.memory.total", mb(memory.HeapSys)},
	} {
		fmt.Fprintf(b, "%s=%s\n", pair[0], pair[1])
	}
}

func (s *Server) wordWCHS(b *strings.Builder) {
	s.watches.Lock()
	summary := s.watches.table.Summary()
	s.watches.Unlock()
	fmt.Fprintf(b, "%d connections watching %d paths\nTotal watches:%d\n", summary.Watchers, summary.Paths, summary.Watches)
}

// dataWatches groups the watches of the data manager, either way round, sorted.
func (s *Server) dataWatches(byPath bool) (keys []string, values map[string][]string) {
	type registered struct {
		path string
		c    *conn
	}
	var all []registered
	s.watches.Lock()
	s.watches.table.DataWatches(func(path string, c *conn) { all = append(all, registered{path, c}) })
	s.watches.Unlock()
	values = make(map[string][]string)
	for _, r := range all {
		r.c.mu.Lock()
		session := sessionText(r.c.mu.session)
		r.c.mu.Unlock()
		if byPath {
			values[r.path] = append(values[r.path], session)
		} else {
			values[session] = append(values[session], r.path)
		}
	}
	for _, list := range values {
		sort.Strings(list)
	}
	return slices.Sorted(maps.Keys(values)), values
}

func (s *Server) wordWCHC(b *strings.Builder) { s.writeWatches(b, false) }
func (s *Server) wordWCHP(b *strings.Builder) { s.writeWatches(b, true) }

func (s *Server) writeWatches(b *strings.Builder, byPath bool) {
	keys, values := s.dataWatches(byPath)
	for _, key := range keys {
		fmt.Fprintln(b, key)
		for _, value := range values[key] {
			fmt.Fprintf(b, "\t%s\n", value)
		}
	}
	b.WriteString("\n")
}

// wordHASH shows this moment's checksum of the state: members with the same zxid must show the same.
func (s *Server) wordHASH(b *strings.Builder) {
	s.member.View(func(m *znode.Machine) { fmt.Fprintf(b, "%x: %x\n", uint64(m.LastZxid()), m.Checksum()) })
}
