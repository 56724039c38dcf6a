package broker

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestOddRequests has what interop/crosscheck/kafka once found answered otherwise by Apache's broker.
func TestOddRequests(t *testing.T) {
	c := newTestCluster(t, 1, nil)
	client := c.client()
	name, empty, value := "nowhere", "", "604800000"
	ask := func(version int16, request kmsg.Request) kmsg.Response {
		t.Helper()
		request.SetVersion(version)
		response, err := client.Broker(1).Request(t.Context(), pinned{request})
		if err != nil {
			t.Fatal(err)
		}
		return response
	}
	deleted := ask(6, &kmsg.DeleteTopicsRequest{Topics: []kmsg.DeleteTopicsRequestTopic{{Topic: &name}, {Topic: &name, TopicID: [16]byte{9}}}}).(*kmsg.DeleteTopicsResponse)
	if got := fmt.Sprint(deleted.Topics[0].ErrorCode, deleted.Topics[1].ErrorCode); got != "42 42" {
		t.Errorf("a topic by name and id spoils the request: error codes %s, want 42 42", got)
	}
	metadata := ask(10, &kmsg.MetadataRequest{IncludeTopicAuthorizedOperations: true, Topics: []kmsg.MetadataRequestTopic{{Topic: &empty}}}).(*kmsg.MetadataResponse)
	if got := metadata.Topics[0].AuthorizedOperations; got != topicOperations {
		t.Errorf("authorized operations %d of a topic without a name, want %d", got, topicOperations)
	}
	ask(1, &kmsg.IncrementalAlterConfigsRequest{Resources: []kmsg.IncrementalAlterConfigsRequestResource{{
		ResourceType: kmsg.ConfigResourceTypeBroker, Configs: []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: "log.retention.ms", Value: &value}},
	}}})
	var configs []kmsg.DescribeConfigsResponseResourceConfig
	for deadline := time.Now().Add(20 * time.Second); len(configs) == 0 && time.Now().Before(deadline); { // it comes by way of the ensemble
		described := ask(3, &kmsg.DescribeConfigsRequest{IncludeSynonyms: true, Resources: []kmsg.DescribeConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeBroker}}})
		configs = described.(*kmsg.DescribeConfigsResponse).Resources[0].Configs
	}
	if len(configs) != 1 || len(configs[0].ConfigSynonyms) != 1 {
		t.Errorf("a default of the cluster is described as %+v", configs)
	}
}
