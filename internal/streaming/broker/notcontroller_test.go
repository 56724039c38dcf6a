package broker

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/metadata"
)

// TestNotTheController asks a broker that does not control the cluster; Apache's answers were
// seen by interop/crosscheck/kafka.
func TestNotTheController(t *testing.T) {
	c := newTestCluster(t, 2, nil)
	client := c.client()
	c.await("a controller", func(image *metadata.Image) bool { return image.ControllerID() > 0 })
	other := 3 - int(c.brokers[1].metadata.Image().ControllerID())
	const code, words = 41, "This is not the correct controller for this cluster."
	name, twice := "t", []int32{1, 1}
	for _, test := range []struct {
		name    string
		version int16
		request kmsg.Request
		want    string // the answer, as fmt shows what of it counts
		shown   func(kmsg.Response) string
	}{
		{"controlled shutdown", 3, &kmsg.ControlledShutdownRequest{BrokerID: 1}, fmt.Sprint(kerr.StaleControllerEpoch.Code), func(r kmsg.Response) string {
			return fmt.Sprint(r.(*kmsg.ControlledShutdownResponse).ErrorCode)
		}},
		{"a topic without a name is deleted", 6, &kmsg.DeleteTopicsRequest{Topics: []kmsg.DeleteTopicsRequestTopic{{}, {Topic: &name}}}, fmt.Sprint(code, code), func(r kmsg.Response) string {
			topics := r.(*kmsg.DeleteTopicsResponse).Topics
			return fmt.Sprint(topics[0].ErrorCode, topics[1].ErrorCode)
		}},
		{"create partitions", 3, &kmsg.CreatePartitionsRequest{Topics: []kmsg.CreatePartitionsRequestTopic{{Topic: name}}}, fmt.Sprint(code, true), func(r kmsg.Response) string {
			topic := r.(*kmsg.CreatePartitionsResponse).Topics[0]
			return fmt.Sprint(topic.ErrorCode, topic.ErrorMessage == nil)
		}},
		{"elect leaders", 2, &kmsg.ElectLeadersRequest{Topics: []kmsg.ElectLeadersRequestTopic{{Topic: name, Partitions: twice}}}, fmt.Sprint(0, 1, code), func(r kmsg.Response) string {
			partitions := r.(*kmsg.ElectLeadersResponse).Topics[0].Partitions
			return fmt.Sprint(r.(*kmsg.ElectLeadersResponse).ErrorCode, len(partitions), partitions[0].ErrorCode)
		}},
		{"alter reassignments", 0, &kmsg.AlterPartitionAssignmentsRequest{}, fmt.Sprint(code, words), func(r kmsg.Response) string {
			answer := r.(*kmsg.AlterPartitionAssignmentsResponse)
			return fmt.Sprint(answer.ErrorCode, *answer.ErrorMessage)
		}},
		{"list reassignments", 0, &kmsg.ListPartitionReassignmentsRequest{}, fmt.Sprint(code, words), func(r kmsg.Response) string {
			answer := r.(*kmsg.ListPartitionReassignmentsResponse)
			return fmt.Sprint(answer.ErrorCode, *answer.ErrorMessage)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.request.SetVersion(test.version)
			response, err := client.Broker(other).Request(t.Context(), pinned{test.request})
			if err != nil {
				t.Fatal(err)
			}
			if got := test.shown(response); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
