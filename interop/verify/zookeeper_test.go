package verify

import (
	"testing"
	"time"
)

// An ensemble whose servers are killed one after the other, the leader among them.
func TestZooKeeperUnderKills(t *testing.T) {
	t.Parallel()
	for _, kind := range []kind{apache, ours} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			f := servers(t, kind, 3, nil, nil)
			start(t, f.Coordinators...)
			r := launch(t, "zookeeper", f.ZooKeeperConnect(), "--duration", "6s", "--session-timeout", "2s", "--settle", "20s", "--out", t.TempDir())
			r.strike(t, time.Second, f.Coordinators...)
			r.expect(t, 0)
		})
	}
}
