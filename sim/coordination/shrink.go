package coordination

import (
	"time"

	"understudy/sim/shrink"
)

// Shrink cuts a failing seed's schedule to a minimal one that breaks the same invariant. It
// gives up looking for a shorter one at the deadline. The failure is nil if the seed does not
// fail.
func Shrink(seed uint64, scale float64, deadline time.Time) ([]Item, *Failure) {
	whole := Schedule(seed, scale)
	failure := Run(seed, Options{Scale: scale}).Failure
	if failure == nil {
		return nil, nil
	}
	short := shrink.Minimise(whole, func(items []Item) bool {
		if time.Now().After(deadline) && len(items) < len(whole) {
			return false
		}
		if items == nil {
			items = []Item{}
		}
		again := Run(seed, Options{Scale: scale, Schedule: items}).Failure
		return again != nil && again.Invariant == failure.Invariant
	})
	return short, Run(seed, Options{Scale: scale, Schedule: short}).Failure
}
