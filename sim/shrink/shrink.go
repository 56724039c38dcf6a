// Package shrink makes a failing schedule short: the simulators draw their faults and their
// workload as a list before a run begins, and what fails with the whole list mostly fails with
// a small part of it.
package shrink

import "slices"

// Minimise returns a subsequence of items with which fails still reports true and from which
// no single item can be left out (a 1-minimal one: Zeller and Hildebrandt, "Simplifying and
// Isolating Failure-Inducing Input", ddmin). It returns items itself if the whole does not
// fail. fails must depend on its argument alone; it may keep the slice.
func Minimise[T any](items []T, fails func([]T) bool) []T {
	if !fails(slices.Clone(items)) {
		return items
	}
	items = slices.Clone(items)
	for pieces := 2; len(items) > 0; {
		pieces = min(pieces, len(items))
		smaller, found := withoutOnePiece(items, pieces, fails)
		switch {
		case found:
			items = smaller
			pieces = max(pieces-1, 2)
		case pieces == len(items):
			return items
		default:
			pieces *= 2
		}
	}
	return items
}

// withoutOnePiece cuts items into so many pieces and looks for one that can be left out. The
// late ones are tried first: what comes after the failure matters to nobody.
func withoutOnePiece[T any](items []T, pieces int, fails func([]T) bool) (rest []T, found bool) {
	for i := pieces - 1; i >= 0; i-- {
		from, to := i*len(items)/pieces, (i+1)*len(items)/pieces
		rest := slices.Concat(items[:from], items[to:])
		if fails(slices.Clone(rest)) {
			return rest, true
		}
	}
	return nil, false
}
