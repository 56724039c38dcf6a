package broker

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/metadata"
)

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

// A stranger that is refused for its epochs does not pass for the controller's new connection.
func TestRefusedRequestsAreNotTheControllers(t *testing.T) {
	c := newTestCluster(t, 1, nil)
	b := c.brokers[1]
	c.await("a controller", func(image *metadata.Image) bool { return image.ControllerID() == 1 })
	newest := func() uint64 {
		b.control.mu.Lock()
		defer b.control.mu.Unlock()
		return b.control.connection
	}
	before := newest()
	request := kmsg.NewPtrUpdateMetadataRequest()
	request.Version, request.ControllerID, request.ControllerEpoch, request.BrokerEpoch = 8, 1, int32(b.metadata.Image().ControllerEpoch()), 0
	response, err := c.client().Broker(1).Request(t.Context(), pinned{request})
	if err != nil || response.(*kmsg.UpdateMetadataResponse).ErrorCode != kerr.StaleBrokerEpoch.Code {
		t.Fatal(response, err)
	}
	if after := newest(); after != before {
		t.Errorf("the controller's connection is number %d, and was %d", after, before)
	}
}
