package shrink

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func numbers(n int) []int {
	items := make([]int, n)
	for i := range items {
		items[i] = i
	}
	return items
}

func TestMinimiseFindsTheCulprits(t *testing.T) {
	for _, culprits := range [][]int{{}, {0}, {99}, {17}, {3, 96}, {0, 99}, {10, 11, 12}, {1, 33, 50, 77}} {
		runs := 0
		got := Minimise(numbers(100), func(some []int) bool {
			runs++
			return containsAll(some, culprits)
		})
		if !slices.Equal(got, culprits) {
			t.Errorf("culprits %v: got %v", culprits, got)
		}
		if runs > 400 {
			t.Errorf("culprits %v: %d runs", culprits, runs)
		}
	}
}

func containsAll(some, wanted []int) bool {
	return !slices.ContainsFunc(wanted, func(n int) bool { return !slices.Contains(some, n) })
}

func TestMinimiseKeepsWhatDoesNotFail(t *testing.T) {
	items := numbers(5)
	if got := Minimise(items, func([]int) bool { return false }); !slices.Equal(got, items) {
		t.Errorf("got %v", got)
	}
	if got := Minimise(nil, func([]int) bool { return true }); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

// TestMinimiseIsOneMinimal tries predicates that are not monotonic, as a simulation's are.
func TestMinimiseIsOneMinimal(t *testing.T) {
	for seed := range uint64(200) {
		chance := rand.New(rand.NewPCG(seed, 1))
		modulus, least := 2+chance.IntN(5), chance.IntN(60)
		fails := func(some []int) bool {
			sum := 0
			for _, n := range some {
				sum += n
			}
			return sum >= least && sum%modulus == 0
		}
		items := numbers(1 + chance.IntN(40))
		whole := fails(items)
		original := slices.Clone(items)
		got := Minimise(items, fails)
		if !slices.Equal(items, original) {
			t.Fatalf("seed %d: the argument was changed", seed)
		}
		if whole != fails(got) {
			t.Fatalf("seed %d: %v fails %v, %v fails %v", seed, original, whole, got, fails(got))
		}
		for i := range got {
			if whole && fails(slices.Delete(slices.Clone(got), i, i+1)) {
				t.Errorf("seed %d: %v fails without %d, too", seed, got, got[i])
			}
		}
	}
}
