package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestLoadCoordinator(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "zoo.cfg")
	text := "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir=" + dir + "\nclientPort=2181\n4lw.commands.whitelist=ruok, srvr\n" +
		"server.1=one:2888:3888\nserver.2=[fe80::2]:2888:3888:participant;2181\nserver.3=three:2888:3888;0.0.0.0:2182\nautopurge.purgeInterval=1\n"
	for name, content := range map[string]string{path: text, filepath.Join(dir, "myid"): "2\n"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, warnings, err := LoadCoordinator(path, nil, true)
	if err != nil {
		t.Fatal(err)
	}
	want := Member{Host: "fe80::2", QuorumPort: 2888, ElectionPort: 3888, ClientPort: 2181}
	if c.MyID != 2 || c.Members[2] != want || len(c.Members) != 3 || c.ClientPort != 2181 || c.MinSessionTimeout != 4*time.Second ||
		c.MaxSessionTimeout != 40*time.Second || !reflect.DeepEqual(c.FourLetterWhitelist, []string{"ruok", "srvr"}) || c.DataLogDir != dir {
		t.Errorf("got %+v", c)
	}
	if len(warnings) != 1 || warnings[0].Key != "autopurge.purgeInterval" {
		t.Errorf("got %v", warnings)
	}
	if c, _, err := LoadCoordinator(path, []string{"myid=3", "clientPort=2182"}, true); err != nil || c.MyID != 3 || c.ClientHost != "0.0.0.0" {
		t.Errorf("got %+v %v", c, err)
	}
}

func TestStandaloneCoordinator(t *testing.T) {
	c, _, err := ParseCoordinator(map[string]string{"dataDir": "/d", "clientPort": "2181", "clientPortAddress": "127.0.0.1"}, true)
	if err != nil || c.MyID != 1 || len(c.Members) != 0 || c.TickTime != 3*time.Second || c.ClientHost != "127.0.0.1" || c.MaxClientConnections != 60 {
		t.Errorf("got %+v %v", c, err)
	}
}

func TestBadCoordinatorValues(t *testing.T) {
	three := "server.1=a:1:2 server.2=b:1:2 server.3=c:1:2 initLimit=5 syncLimit=5 myid=1 "
	for _, c := range []struct{ lines, want string }{
		{"clientPort=70000", "clientPort=70000: must be at most 65535; give a value from 0 to 65535"},
		{"tickTime=0", "tickTime=0: must be at least 1; give 1 or more"},
		{"tickTime=2s", "tickTime=2s: not a whole number; give digits only, without a unit"},
		{"minSessionTimeout=5000 maxSessionTimeout=4000", "minSessionTimeout=5000: is above maxSessionTimeout; give at most 4000"},
		{"clientPortAddress=h", "clientPortAddress=h: is set without clientPort; set clientPort, for example 2181"},
		{"server.1=a", "server.1=a: is not host:quorumPort:electionPort; write host:quorumPort:electionPort, optionally ;clientPort"},
		{"server.1=a:1:2|b:1:2", "server.1=a:1:2|b:1:2: has several addresses, and one is supported; write host:quorumPort:electionPort, optionally ;clientPort"},
		{"server.x=a:1:2", "server.x=a:1:2: the name of a member is server.N with N from 1 up; write server.1=host:2888:3888"},
		{three + "myid=4", "myid=4: there is no server.4 (from --override myid); write the N of this member's server.N line"},
		{three + "server.3=a:1:9", "server.3=a:1: has the address of server.1; give each member an address of its own"},
		{three + "server.3=c:1:2:observer", "server.3=c:1: is an observer, and observers are not supported yet; make it a participant or remove the line"},
		{"server.1=a:1:2 server.2=b:1:2 myid=1", "initLimit: is not set, and an ensemble needs it; set it, for example initLimit=10"},
		{"secureClientPort=2281", "secureClientPort=2281: a security setting that is not enforced yet (it opens a port with TLS); remove it to run without this protection"},
		{"ssl.keyStore.location=/k", "ssl.keyStore.location=[hidden]: a security setting that is not enforced yet (it encrypts and authenticates connections); remove it to run without this protection"},
		{"quorum.auth.enableSasl=true", "quorum.auth.enableSasl=[hidden]: a security setting that is not enforced yet (it authenticates members); remove it to run without this protection"},
		{"snapCoumt=5", "snapCoumt=5: no such key; did you mean snapCount?; correct or remove it, or start without --strict"},
		{"zookeeper.snapCount=5 metricsProvider.httpPort=7000", ""},
	} {
		values := map[string]string{"dataDir": "/d"}
		for _, pair := range strings.Fields(c.lines) {
			name, value, _ := strings.Cut(pair, "=")
			values[name] = value
		}
		_, _, err := ParseCoordinator(values, true)
		if got := textOf(err); got != c.want {
			t.Errorf("%s\n got  %s\n want %s", c.lines, got, c.want)
		}
	}
	if _, _, err := ParseCoordinator(map[string]string{}, true); textOf(err) != "dataDir: is not set; name the directory for the data" {
		t.Error(err)
	}
}

func TestSuperUserAndContainers(t *testing.T) {
	values := map[string]string{
		"dataDir": t.TempDir(), "clientPort": "2181", "zookeeper.DigestAuthenticationProvider.superDigest": "super:D/InIHSb7yEEbrWz8b9l71RjZJU=", "znode.container.checkIntervalMs": "5",
	}
	c, warnings, err := ParseCoordinator(values, true)
	if err != nil || len(warnings) != 0 || c.SuperDigest != "super:D/InIHSb7yEEbrWz8b9l71RjZJU=" || c.ContainerCheck != 5*time.Millisecond {
		t.Errorf("%+v, warnings %v, %v", c, warnings, err)
	}
}
