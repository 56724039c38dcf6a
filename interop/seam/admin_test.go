package seam

import (
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestAdministrationUnderApacheController(t *testing.T) {
	administer(t, cast{coordinator: ours, coordinators: 1, brokers: []kind{apache, ours, ours}, replicas: 2})
}

func TestAdministrationUnderOurController(t *testing.T) {
	administer(t, cast{coordinator: ours, coordinators: 1, brokers: []kind{ours, apache, apache}, replicas: 2})
}

// administer moves every partition under load from broker to broker, changes configurations
// through brokers of each kind, reads from followers, deletes records and adds partitions.
// Broker 1 is the controller.
func administer(t *testing.T, cast cast) {
	cast.properties = map[string]string{"replica.selector.class": rackSelector}
	s := setUp(t, cast)
	s.setRacks(t)
	s.open(t, 1)
	s.begin(t, 2)
	for range 2 {
		s.rotate(t)
		s.settle(t)
	}
	for _, node := range s.Brokers {
		retention := fmt.Sprint(86400000 + node.ID)
		s.alter(t, node.ID, kmsg.ConfigResourceTypeTopic, topic, "retention.ms", retention)
		s.expectConfig(t, kmsg.ConfigResourceTypeTopic, topic, "retention.ms", retention)
		size := fmt.Sprint(1000000 + node.ID)
		s.alter(t, node.ID, kmsg.ConfigResourceTypeBroker, "", "message.max.bytes", size)
		s.expectConfig(t, kmsg.ConfigResourceTypeTopic, topic, "max.message.bytes", size)
	}
	s.sameDescription(t)
	s.finish(t)
	s.readInRacks(t)
	s.javaReadsInRack(t, 3)
	s.deleteRecords(t)
	s.grow(t)
	s.deleteTopic(t)
}

// rotate gives each partition the next brokers in the circle as replicas.
func (s *stage) rotate(t *testing.T) {
	t.Helper()
	metadata, err := s.admin.Metadata(limited(t), topic)
	if err != nil {
		t.Fatal(err)
	}
	var wanted kadm.AlterPartitionAssignmentsReq
	target := map[int32][]int32{}
	for _, partition := range metadata.Topics[topic].Partitions {
		for _, id := range partition.Replicas {
			target[partition.Partition] = append(target[partition.Partition], id%int32(len(s.Brokers))+1)
		}
		wanted.Assign(topic, partition.Partition, target[partition.Partition])
	}
	if answers, err := s.admin.AlterPartitionAssignments(limited(t), wanted); err != nil || answers.Error() != nil {
		t.Fatal(err, answers.Error())
	}
	until(t, "the reassignment", func() string {
		going, err := s.admin.ListPartitionReassignments(limited(t), nil)
		if err != nil || len(going) > 0 {
			return fmt.Sprintf("going on: %v, %v", going, err)
		}
		metadata, err := s.admin.Metadata(limited(t), topic)
		if err != nil {
			return err.Error()
		}
		for _, partition := range metadata.Topics[topic].Partitions {
			if !slices.Equal(partition.Replicas, target[partition.Partition]) {
				return fmt.Sprintf("partition %d has %v, wanted %v", partition.Partition, partition.Replicas, target[partition.Partition])
			}
		}
		return ""
	})
}

// alter changes a configuration through one broker.
func (s *stage) alter(t *testing.T, through int, kind kmsg.ConfigResourceType, name, key, value string) {
	t.Helper()
	request := kmsg.NewPtrIncrementalAlterConfigsRequest()
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kind, name
	config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	config.Name, config.Op, config.Value = key, kmsg.IncrementalAlterConfigOpSet, &value
	resource.Configs = append(resource.Configs, config)
	request.Resources = append(request.Resources, resource)
	answer := s.ask(t, through, request).(*kmsg.IncrementalAlterConfigsResponse).Resources[0]
	if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
		t.Fatalf("set %s=%s of %q through broker %d (%s): %v", key, value, name, through, s.kinds[through], err)
	}
}

// expectConfig waits until every broker says the same of a configuration.
func (s *stage) expectConfig(t *testing.T, kind kmsg.ConfigResourceType, name, key, value string) {
	t.Helper()
	until(t, key+"="+value, func() string {
		for _, node := range s.Brokers {
			request := kmsg.NewPtrDescribeConfigsRequest()
			resource := kmsg.NewDescribeConfigsRequestResource()
			resource.ResourceType, resource.ResourceName, resource.ConfigNames = kind, name, []string{key}
			request.Resources = append(request.Resources, resource)
			answer := s.ask(t, node.ID, request).(*kmsg.DescribeConfigsResponse).Resources[0]
			if len(answer.Configs) != 1 || answer.Configs[0].Value == nil || *answer.Configs[0].Value != value {
				return fmt.Sprintf("broker %d (%s) answers %v with error code %d", node.ID, s.kinds[node.ID], answer.Configs, answer.ErrorCode)
			}
		}
		return ""
	})
}

// ask sends a request to one broker.
func (s *stage) ask(t *testing.T, broker int, request kmsg.Request) kmsg.Response {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(s.broker(broker).Addr))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	response, err := client.Broker(broker).RetriableRequest(limited(t), request)
	if err != nil {
		t.Fatalf("%s to broker %d (%s): %v", kmsg.NameForKey(request.Key()), broker, s.kinds[broker], err)
	}
	return response
}

// grow adds partitions and waits until every broker knows them and all are in sync.
func (s *stage) grow(t *testing.T) {
	t.Helper()
	const more = partitions + 6
	if answers, err := s.admin.UpdatePartitions(limited(t), more, topic); err != nil || answers.Error() != nil {
		t.Fatal(err, answers.Error())
	}
	until(t, "the new partitions", func() string {
		for _, node := range s.Brokers {
			request := kmsg.NewPtrMetadataRequest()
			name := topic
			request.Topics = append(request.Topics, kmsg.MetadataRequestTopic{Topic: &name})
			known := s.ask(t, node.ID, request).(*kmsg.MetadataResponse).Topics[0]
			if len(known.Partitions) != more {
				return fmt.Sprintf("broker %d (%s) knows %d", node.ID, s.kinds[node.ID], len(known.Partitions))
			}
			for _, p := range known.Partitions {
				if p.ErrorCode != 0 || len(p.ISR) != len(p.Replicas) {
					return fmt.Sprintf("broker %d (%s): partition %d is in sync on %v of %v, error code %d", node.ID, s.kinds[node.ID], p.Partition, p.ISR, p.Replicas, p.ErrorCode)
				}
			}
		}
		return ""
	})
}
