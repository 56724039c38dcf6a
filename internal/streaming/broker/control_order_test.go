package broker

import "testing"

func TestControlOrder(t *testing.T) {
	var order controlOrder
	for i, step := range []struct {
		epoch      int32
		connection uint64
		late       bool
	}{
		{3, 10, false}, {3, 10, false}, {3, 12, false}, {3, 10, true}, {3, 12, false},
		{2, 11, false}, // a controller that was replaced: refused for that
		{4, 11, false}, // the next controller, whose connection is older
		{3, 20, false}, {4, 11, false}, {4, 13, false}, {4, 11, true},
	} {
		if late := order.late(step.epoch, step.connection); late != step.late {
			t.Fatalf("step %d, %+v: late %v", i, step, late)
		}
	}
}
