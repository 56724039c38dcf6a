package config

import (
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Coordinator is a checked zoo.cfg as plain values.
type Coordinator struct {
	Values map[string]string // every key given, as written

	DataDir    string
	DataLogDir string // == DataDir unless given

	ClientHost string // "" binds every interface
	ClientPort int    // -1: no client port configured

	TickTime             time.Duration
	InitLimit, SyncLimit int // ticks
	MinSessionTimeout    time.Duration
	MaxSessionTimeout    time.Duration
	MaxClientConnections int // per client IP; 0 = unlimited

	MyID    uint64            // 1 when standalone without a server line
	Members map[uint64]Member // empty or one: standalone

	FourLetterWhitelist []string // "*" = all
	SnapshotCount       int
	ContainerCheck      time.Duration
	SuperDigest         string // user:hash, "" for nobody
}

// Member is one server.N line.
type Member struct {
	Host         string
	QuorumPort   int // raft's port with us
	ElectionPort int // kept, unused
	Observer     bool
	ClientHost   string
	ClientPort   int // -1: not given in the line
}

// LoadCoordinator reads a zoo.cfg (none if path is "") with overrides ("key=value") over
// it, and dataDir/myid. Errors and warnings as with LoadBroker.
func LoadCoordinator(path string, overrides []string, strict bool) (*Coordinator, []Warning, error) {
	values, err := load(path, overrides)
	if err != nil {
		return nil, nil, err
	}
	return ParseCoordinator(values, strict)
}

// ParseCoordinator checks the keys of a zoo.cfg. It reads dataDir/myid where the members
// need it.
func ParseCoordinator(values map[string]string, strict bool) (*Coordinator, []Warning, error) {
	c := &Coordinator{Members: map[uint64]Member{}}
	s := newSettings(coordinatorKeys, bare(values), strict, "ZooKeeper", func(s *settings, name, value string) bool {
		return otherCoordinatorKey(s, c, name, value)
	})
	c.Values = s.values
	s.directories(c)
	s.clientPort(c)
	s.times(c)
	s.members(c, values["myid"])
	c.MaxClientConnections = s.int("maxClientCnxns")
	c.FourLetterWhitelist = s.list("4lw.commands.whitelist")
	c.SnapshotCount = s.int("snapCount")
	c.ContainerCheck = time.Duration(s.int("znode.container.checkIntervalMs")) * time.Millisecond
	c.SuperDigest = s.str("DigestAuthenticationProvider.superDigest")
	return c, s.warnings, s.problems.err()
}

// bare drops what is no key of ZooKeeper's, and the prefix of system properties: people
// write both NAME and zookeeper.NAME.
func bare(values map[string]string) map[string]string {
	bare := make(map[string]string, len(values))
	for name, value := range values {
		if name != "myid" { // ours: --override myid=N spares the file
			bare[strings.TrimPrefix(name, "zookeeper.")] = value
		}
	}
	return bare
}

func otherCoordinatorKey(s *settings, c *Coordinator, name, value string) bool {
	if suffix, found := strings.CutPrefix(name, "server."); found {
		id, err := strconv.ParseUint(suffix, 10, 31)
		if err != nil || id == 0 {
			s.problems.add(name, value, "the name of a member is server.N with N from 1 up", "write server.1=host:2888:3888")
			return true
		}
		member, reason := parseMember(value)
		if reason != "" {
			s.problems.add(name, value, reason, "write host:quorumPort:electionPort, optionally ;clientPort")
			return true
		}
		c.Members[id] = member
		return true
	}
	for _, family := range coordinatorPrefixes {
		if strings.HasPrefix(name, family.prefix) {
			if family.support == security {
				s.refuseSecurity(name, "[hidden]", family.text)
			} else {
				s.warnings = append(s.warnings, Warning{name, value, "known to ZooKeeper, no effect here: it " + family.text})
			}
			return true
		}
	}
	return false
}

// parseMember reads host:quorumPort:electionPort[:role][;[host:]clientPort].
func parseMember(text string) (member Member, reason string) {
	member.ClientPort = -1
	servers, client, hasClient := strings.Cut(strings.TrimSpace(text), ";")
	if strings.ContainsRune(servers, '|') {
		return member, "has several addresses, and one is supported"
	}
	var host, rest string
	if strings.HasPrefix(servers, "[") {
		end := strings.IndexByte(servers, ']')
		if end < 0 {
			return member, "has unbalanced brackets"
		}
		host, rest = servers[1:end], strings.TrimPrefix(servers[end+1:], ":")
	} else {
		host, rest, _ = strings.Cut(servers, ":")
	}
	fields := strings.Split(rest, ":")
	if host == "" || len(fields) < 2 || len(fields) > 3 {
		return member, "is not host:quorumPort:electionPort"
	}
	member.Host = host
	var ok bool
	if member.QuorumPort, ok = parsePort(fields[0]); !ok || member.QuorumPort == 0 {
		return member, "has no quorum port from 1 to 65535"
	}
	if member.ElectionPort, ok = parsePort(fields[1]); !ok {
		return member, "has no election port from 0 to 65535"
	}
	if len(fields) == 3 {
		switch fields[2] {
		case "participant":
		case "observer":
			member.Observer = true
		default:
			return member, "has a role that is neither participant nor observer"
		}
	}
	if hasClient {
		separator := strings.LastIndexByte(client, ':')
		if separator >= 0 {
			member.ClientHost = strings.Trim(client[:separator], "[]")
		}
		if member.ClientPort, ok = parsePort(client[separator+1:]); !ok {
			return member, "has no client port from 0 to 65535"
		}
	}
	return member, ""
}

func parsePort(text string) (int, bool) {
	port, err := strconv.ParseUint(strings.TrimSpace(text), 10, 16)
	return int(port), err == nil
}

func (s *settings) directories(c *Coordinator) {
	c.DataDir = s.str("dataDir")
	s.require(c.DataDir != "", "dataDir", "is not set", "name the directory for the data")
	if c.DataLogDir = s.str("dataLogDir"); c.DataLogDir == "" {
		c.DataLogDir = c.DataDir
	}
}

func (s *settings) clientPort(c *Coordinator) {
	c.ClientPort = -1
	if _, given := s.text("clientPort"); given {
		c.ClientPort = s.int("clientPort")
	}
	c.ClientHost = strings.Trim(s.str("clientPortAddress"), "[]")
	s.require(c.ClientHost == "" || c.ClientPort >= 0, "clientPortAddress", "is set without clientPort", "set clientPort, for example 2181")
}

func (s *settings) times(c *Coordinator) {
	c.TickTime = s.ms("tickTime")
	c.InitLimit, c.SyncLimit = s.int("initLimit"), s.int("syncLimit")
	c.MinSessionTimeout, c.MaxSessionTimeout = 2*c.TickTime, 20*c.TickTime
	if s.whole("minSessionTimeout") >= 0 {
		c.MinSessionTimeout = s.ms("minSessionTimeout")
	}
	if s.whole("maxSessionTimeout") >= 0 {
		c.MaxSessionTimeout = s.ms("maxSessionTimeout")
	}
	s.require(c.MinSessionTimeout <= c.MaxSessionTimeout, "minSessionTimeout", "is above maxSessionTimeout",
		"give at most "+strconv.FormatInt(c.MaxSessionTimeout.Milliseconds(), 10))
}

// members checks the server.N lines and finds out which of them this is.
func (s *settings) members(c *Coordinator, myid string) {
	if len(c.Members) <= 1 {
		c.MyID = 1
		for id := range c.Members {
			c.MyID = id
		}
		s.adoptClientPort(c)
		return
	}
	for _, name := range []string{"initLimit", "syncLimit"} {
		_, given := s.text(name)
		s.require(given, name, "is not set, and an ensemble needs it", "set it, for example "+name+"=10")
	}
	s.uniqueMembers(c)
	if c.DataDir == "" {
		return
	}
	source := "--override myid"
	if myid == "" {
		source = filepath.Join(c.DataDir, "myid")
		data, err := os.ReadFile(source)
		if err != nil {
			s.problems.add("myid", source, "cannot be read, and an ensemble's members need it", "write this member's number N of server.N into it")
			return
		}
		myid = strings.TrimSpace(string(data))
	}
	id, err := strconv.ParseUint(myid, 10, 31)
	if _, member := c.Members[id]; err != nil || !member {
		s.problems.add("myid", myid, "there is no server."+myid+" (from "+source+")", "write the N of this member's server.N line")
		return
	}
	c.MyID = id
	s.adoptClientPort(c)
}

func (s *settings) uniqueMembers(c *Coordinator) {
	seen := map[string]uint64{}
	for _, id := range slices.Sorted(maps.Keys(c.Members)) {
		member := c.Members[id]
		name := "server." + strconv.FormatUint(id, 10)
		address := net.JoinHostPort(member.Host, strconv.Itoa(member.QuorumPort))
		if other, double := seen[address]; double {
			s.problems.add(name, address, "has the address of server."+strconv.FormatUint(other, 10), "give each member an address of its own")
		}
		seen[address] = id
		if member.Observer {
			s.problems.add(name, address, "is an observer, and observers are not supported yet", "make it a participant or remove the line")
		}
	}
}

// adoptClientPort takes the client address from this member's own server line, which must
// agree with clientPort where both are given.
func (s *settings) adoptClientPort(c *Coordinator) {
	member, found := c.Members[c.MyID]
	if !found || member.ClientPort < 0 {
		return
	}
	if c.ClientPort >= 0 && c.ClientPort != member.ClientPort {
		s.problems.add("clientPort", s.str("clientPort"), "differs from this member's server line", "remove one of them")
		return
	}
	c.ClientPort = member.ClientPort
	if member.ClientHost != "" {
		c.ClientHost = member.ClientHost
	}
}
