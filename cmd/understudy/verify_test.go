package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// What has been told by the exit status 1 and what by 2: a script must be able to rely on it.
func TestVerifyExitStatuses(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	header := `{"history":"zookeeper","version":1}` + "\n"
	attached := `{"kind":"attached","client":0,"n":0,"session":1,"timeout_ms":4000}` + "\n"
	right := write("right", header+attached)
	wrong := write("wrong", header+attached+`{"kind":"protocol","client":0,"n":1,"session":1,"text":"a reply out of turn"}`+"\n")
	torn := write("torn", header+`{"kind":`)
	for _, test := range []struct {
		name string
		args []string
		want exitStatus // 0: no error
	}{
		{"nothing wrong in a history", []string{"zookeeper", "--phase", "check", "--history", right}, 0},
		{"something wrong in a history", []string{"zookeeper", "--phase", "check", "--history", wrong, "-o", "json"}, statusViolated},
		{"a torn history", []string{"zookeeper", "--phase", "check", "--history", torn}, statusNotRun},
		{"a history of the other kind", []string{"kafka", "127.0.0.1:1", "--phase", "check", "--history", right}, statusNotRun},
		{"no such history", []string{"kafka", "127.0.0.1:1", "--phase", "check", "--history", filepath.Join(dir, "none")}, statusNotRun},
		{"no servers", []string{"kafka"}, statusNotRun},
		{"no such flag", []string{"zookeeper", "127.0.0.1:1", "--nonsense"}, statusNotRun},
		{"no such phase", []string{"kafka", "127.0.0.1:1", "--phase", "later"}, statusNotRun},
		{"a phase without a history", []string{"kafka", "127.0.0.1:1", "--phase", "write"}, statusNotRun},
		{"no clients", []string{"zookeeper", "127.0.0.1:1", "--clients", "0"}, statusNotRun},
		{"no directory for the history", []string{"zookeeper", "127.0.0.1:1", "--out", right}, statusNotRun},
		{"no such output", []string{"zookeeper", "127.0.0.1:1", "-o", "xml"}, statusNotRun},
	} {
		t.Run(test.name, func(t *testing.T) {
			cmd := command()
			cmd.SetArgs(append([]string{"verify"}, test.args...))
			err := cmd.ExecuteContext(t.Context())
			var got exitStatus
			if err != nil && !errors.As(err, &got) || got != test.want {
				t.Fatalf("%v, want %v", err, test.want)
			}
		})
	}
}
