package verify

import "testing"

// An ensemble whose servers are killed one after the other, the leader among them.
func TestZooKeeperUnderKills(t *testing.T) {
	t.Parallel()
	for _, kind := range []kind{apache, ours} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			f := servers(t, kind, 3, nil, nil)
			start(t, f.Coordinators...)
			r := launch(t, "zookeeper", f.ZooKeeperConnect(), "--duration", "10m", "--session-timeout", "2s", "--settle", "20s", "--out", t.TempDir())
			r.strike(t, f.Coordinators...)
			r.finish(t)
			r.expect(t, 0)
		})
	}
}
