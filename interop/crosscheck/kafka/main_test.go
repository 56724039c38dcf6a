// Package kafka cross-checks the broker: generated requests of every type and version that it
// advertises go, the same ones in the same order from several connections, to an Apache Kafka
// 3.9 broker in ZooKeeper mode and to understudy with the same server.properties, and every
// field of the answers is compared.
//
// What a run decides (ids, ports, times) is mapped, not ignored: the first time an id is seen
// at one place of both answers the two are bound to each other, and from then on each stands
// for the other everywhere, in what is asked, too. Differences that are meant to be are in
// accepted, each with the row of docs/compatibility.md that gives its reason.
//
// A run is decided by its seed. A failure prints the seed, the step, the request and both
// answers; UNDERSTUDY_CROSSCHECK_SEED=N repeats it (=fresh
// tries a new one) and UNDERSTUDY_CROSSCHECK_ROUNDS=N makes it
// longer.
package kafka

import (
	"os"
	"testing"
	"time"

	"understudy/internal/fleet"
)

// patience bounds every wait; nothing is expected to take nearly as long.
const patience = 2 * time.Minute

// program is the understudy binary under test.
var program string

func TestMain(m *testing.M) {
	os.Exit(fleet.WhileBuilt(func(binary, _ string) int {
		program = binary
		return m.Run()
	}))
}
