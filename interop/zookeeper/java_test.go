package zookeeper

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"understudy/interop/foreign"
)

// TestZKCli runs a session of ZooKeeper's command line and compares what it prints with what it printed against Apache's
// server (testdata/zkcli.txt; delete the file and set UNDERSTUDY_ZOOKEEPER to record it again).
func TestZKCli(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	command := foreign.ZKCli(ctx, t, server(t))
	command.Stdin = strings.NewReader(zkCommands)
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	got := normalized(string(output))
	file := filepath.Join("testdata", "zkcli.txt")
	want, err := os.ReadFile(file)
	if os.IsNotExist(err) && os.Getenv("UNDERSTUDY_ZOOKEEPER") != "" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	w, g := strings.Split(string(want), "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		if i >= len(w) || i >= len(g) || w[i] != g[i] {
			t.Fatalf("line %d differs.\nApache's server:\n%s\nours:\n%s", i+1, strings.Join(w[min(i, len(w)):min(i+8, len(w))], "\n"), strings.Join(g[min(i, len(g)):min(i+8, len(g))], "\n"))
		}
	}
}

const zkCommands = `create /cli one
create /cli two
create -s /cli/seq- x
create -e /cli/eph x
create -c /cli/container
create -s -e /cli/es- x
get -s /cli
set -v 0 /cli three
set -v 0 /cli four
stat /cli
ls -s /cli
ls -R /cli
getAllChildrenNumber /cli
getEphemerals /cli/eph
addauth digest user:pass
whoami
create /cli/private secret auth::cdrwa
getAcl -s /cli/private
setAcl /cli/private world:anyone:r
getAcl /cli/private
addWatch -m PERSISTENT_RECURSIVE /cli
create /cli/watched
set /cli/watched x
delete /cli/watched
removewatches /cli
setquota -n 100 /cli
delquota /cli
sync /cli
config
get /none
delete /cli
deleteall /cli
ls /cli
version
close
quit
`

// normalized leaves out what differs from run to run, and the lines that the client prints on its own behalf.
func normalized(text string) string {
	var out []string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \n")
		line = times.ReplaceAllString(line, "$1 (time)")
		line = zxids.ReplaceAllString(line, "${1}0x(zxid)")
		line = owner.ReplaceAllString(line, "${1}0x(session)")
		line = prompt.ReplaceAllString(line, "")
		line = event.ReplaceAllString(line, "$1")
		switch {
		case line == "", strings.Contains(line, "JLine"), strings.Contains(line, "Connecting to"), strings.Contains(line, " INFO "),
			strings.Contains(line, " WARN "), strings.HasPrefix(line, "Welcome"), strings.HasPrefix(line, "ZooKeeper CLI version"),
			// Sent by one thread while the other prints.
			strings.HasPrefix(line, "WATCHER::"), strings.HasPrefix(line, "WatchedEvent"):
			continue
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n") + "\n"
}

var (
	times  = regexp.MustCompile(`^([cm]time =) .*`)
	zxids  = regexp.MustCompile(`([cmp]Z?xid = |Zxid: ?)0x[0-9a-f]+`)
	owner  = regexp.MustCompile(`(ephemeralOwner = )0x[0-9a-f]{3,}`)
	prompt = regexp.MustCompile(`^(\[zk: [^]]*\] )+`)
	event  = regexp.MustCompile(`(WatchedEvent .*) zxid: -?\d+`)
)

// TestCurator runs Curator's recipes: locks, latches, caches on persistent recursive watches, containers.
func TestCurator(t *testing.T) {
	source, err := filepath.Abs("testdata/CuratorRecipes.java")
	if err != nil {
		t.Fatal(err)
	}
	classes := foreign.CompileJava(t, foreign.Curator, source)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	report(t, exec.CommandContext(ctx, "java", "-Xmx256m", "-XX:TieredStopAtLevel=1",
		"-cp", foreign.ClassPath(t, foreign.Curator)+string(os.PathListSeparator)+classes, "CuratorRecipes", server(t)))
}
