package kafka

import (
	"math"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// What members of groups and those who look at groups ask for.

func (g *generator) findCoordinator() kmsg.Request {
	request := kmsg.NewPtrFindCoordinatorRequest()
	request.CoordinatorType = pick[int8](g, 0, 0, 0, 0, 2, 3, -1)
	request.CoordinatorKey = g.group()
	request.CoordinatorKeys = few(g, 3, g.group)
	return request
}

// joinGroup joins a group that has no members, or is refused; who joins others has a script.
func (g *generator) joinGroup() kmsg.Request {
	request := kmsg.NewPtrJoinGroupRequest()
	request.Group = g.newName("group")
	request.SessionTimeoutMillis = 600_000
	request.RebalanceTimeoutMillis = pick[int32](g, 600_000, 300_000)
	request.ProtocolType = "consumer"
	request.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: subscription("crosscheck-0")}, {Name: "roundrobin", Metadata: subscription("crosscheck-1")}}
	request.Reason = g.nullable("because")
	refused := func() { request.Group = "refused" } // it stays behind with Apache, empty
	switch g.rng.IntN(14) {
	case 0:
		request.Group = ""
	case 1:
		request.SessionTimeoutMillis = pick[int32](g, 5999, 1_800_001, 0, -1, math.MaxInt32)
	case 2:
		request.Protocols = nil
		refused()
	case 3:
		request.ProtocolType = ""
		refused()
	case 4:
		request.MemberID = "nobody"
	case 5:
		request.Group, request.MemberID = g.knownGroup().name, "nobody"
		if g.bool() {
			request.ProtocolType = "connect"
		}
	case 6, 7:
		instance := g.newName("instance")
		request.InstanceID = &instance
	case 8:
		request.InstanceID = kmsg.StringPtr(pick(g, "", "not valid!", strings.Repeat("i", 250), "."))
	case 9:
		request.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "", Metadata: []byte{}}}
	}
	return request
}

// subscription is the metadata of a consumer that wants the topics (ConsumerProtocol).
func subscription(topics ...string) []byte {
	out := []byte{0, 1, 0, 0, 0, byte(len(topics))}
	for _, topic := range topics {
		out = append(out, 0, byte(len(topic)))
		out = append(out, topic...)
	}
	return append(out, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0)
}

// joined follows the groups.
func (g *generator) joined(request *kmsg.JoinGroupRequest, response *kmsg.JoinGroupResponse) {
	if response.ErrorCode != 0 && response.ErrorCode != 79 {
		return
	}
	group := g.groupNamed(request.Group)
	if group == nil {
		group = &groupState{name: request.Group}
		g.groups = append(g.groups, group)
	}
	known := false
	for _, member := range group.members {
		known = known || member == response.MemberID
	}
	if !known {
		group.members = append(group.members, response.MemberID)
	}
	if request.InstanceID != nil {
		group.instances = append(group.instances, *request.InstanceID)
	}
	if response.ErrorCode == 0 {
		group.generation = response.Generation
		if response.Protocol != nil {
			group.protocol = *response.Protocol
		}
	}
}

func (g *generator) syncGroup() kmsg.Request {
	request := kmsg.NewPtrSyncGroupRequest()
	request.Group = g.group()
	request.Generation, request.MemberID, request.InstanceID = g.generation(request.Group), g.member(request.Group), g.instance(request.Group)
	if !g.chance(4) {
		request.ProtocolType = kmsg.StringPtr(pick(g, "consumer", "consumer", "consumer", "connect", ""))
		request.Protocol = kmsg.StringPtr(pick(g, "range", "range", "range", "roundrobin", "", "other"))
	}
	request.GroupAssignment = few(g, 3, func() kmsg.SyncGroupRequestGroupAssignment {
		return kmsg.SyncGroupRequestGroupAssignment{MemberID: g.member(request.Group), MemberAssignment: g.bytes(8)}
	})
	if len(request.GroupAssignment) > 1 { // whose the last word is with duplicates is chance in a hash table
		request.GroupAssignment = request.GroupAssignment[:1]
	}
	return request
}

func (g *generator) heartbeat() kmsg.Request {
	request := kmsg.NewPtrHeartbeatRequest()
	request.Group = g.group()
	request.Generation, request.MemberID, request.InstanceID = g.generation(request.Group), g.member(request.Group), g.instance(request.Group)
	return request
}

func (g *generator) leaveGroup() kmsg.Request {
	request := kmsg.NewPtrLeaveGroupRequest()
	request.Group = g.group()
	request.MemberID = g.member(request.Group)
	if g.chance(2) {
		request.MemberID = "nobody"
	}
	request.Members = few(g, 3, func() kmsg.LeaveGroupRequestMember {
		member := kmsg.NewLeaveGroupRequestMember()
		member.MemberID, member.InstanceID, member.Reason = g.member(request.Group), g.instance(request.Group), g.nullable("enough")
		return member
	})
	return request
}

func (g *generator) describeGroups() kmsg.Request {
	request := kmsg.NewPtrDescribeGroupsRequest()
	request.Groups = few(g, 4, g.group)
	request.IncludeAuthorizedOperations = g.bool()
	return request
}

func (g *generator) listGroups() kmsg.Request {
	request := kmsg.NewPtrListGroupsRequest()
	request.StatesFilter = few(g, 3, func() string {
		return pick(g, "Stable", "Empty", "Dead", "PreparingRebalance", "CompletingRebalance", "stable", "Nonsense", "")
	})
	request.TypesFilter = few(g, 2, func() string { return pick(g, "classic", "Classic", "consumer", "share", "nonsense", "") })
	if g.chance(2) {
		request.TypesFilter = nil
	}
	if g.chance(2) {
		request.StatesFilter = nil
	}
	return request
}

func (g *generator) deleteGroups() kmsg.Request {
	request := kmsg.NewPtrDeleteGroupsRequest()
	request.Groups = few(g, 3, func() string {
		if g.chance(3) {
			return g.group()
		}
		return "no-such-group"
	})
	return request
}

func (g *generator) offsetCommit() kmsg.Request {
	request := kmsg.NewPtrOffsetCommitRequest()
	request.Group = g.group()
	if g.chance(3) { // who commits on his own
		request.Group = pick(g, "lonely", "lonelier")
		request.Generation, request.MemberID = -1, ""
	} else {
		request.Generation, request.MemberID, request.InstanceID = g.generation(request.Group), g.member(request.Group), g.instance(request.Group)
	}
	request.RetentionTimeMillis = pick[int64](g, -1, 3_600_000, 86_400_000)
	if request.Group == "" {
		request.Group = "no-such-group"
	}
	request.Topics = few(g, 3, func() kmsg.OffsetCommitRequestTopic {
		topic := kmsg.NewOffsetCommitRequestTopic()
		topic.Topic = g.topic()
		topic.Partitions = several(g, 3, func() kmsg.OffsetCommitRequestTopicPartition {
			partition := kmsg.NewOffsetCommitRequestTopicPartition()
			partition.Partition, partition.Offset, partition.LeaderEpoch = g.partition(topic.Topic), g.offset(), g.epoch()
			partition.Timestamp = pick[int64](g, -1, firstTime)
			partition.Metadata = pick(g, nil, kmsg.StringPtr(""), kmsg.StringPtr("note"), kmsg.StringPtr(strings.Repeat("m", 4096)), kmsg.StringPtr(strings.Repeat("m", 4097)))
			return partition
		})
		return topic
	})
	return request
}

func (g *generator) committer() string {
	if g.chance(3) {
		return pick(g, "lonely", "lonelier")
	}
	return g.group()
}

func (g *generator) offsetFetch() kmsg.Request {
	request := kmsg.NewPtrOffsetFetchRequest()
	request.Group = g.committer()
	defer func() {
		if g.version >= 8 && len(request.Groups) == 0 { // Apache's broker never answers that
			request.Groups = []kmsg.OffsetFetchRequestGroup{kmsg.NewOffsetFetchRequestGroup()}
		}
	}()
	request.RequireStable = g.bool()
	request.Topics = few(g, 3, func() kmsg.OffsetFetchRequestTopic {
		topic := kmsg.NewOffsetFetchRequestTopic()
		topic.Topic = g.topic()
		topic.Partitions = g.partitions(topic.Topic)
		return topic
	})
	if g.version >= 2 && g.chance(3) {
		request.Topics = nil
	}
	request.Groups = few(g, 3, func() kmsg.OffsetFetchRequestGroup {
		group := kmsg.NewOffsetFetchRequestGroup()
		group.Group = g.committer()
		if g.chance(4) {
			group.MemberID, group.MemberEpoch = kmsg.StringPtr(g.member(group.Group)), pick[int32](g, -1, 0, 1)
		}
		if g.chance(3) {
			return group // all that it has
		}
		group.Topics = few(g, 3, func() kmsg.OffsetFetchRequestGroupTopic {
			topic := kmsg.NewOffsetFetchRequestGroupTopic()
			topic.Topic = g.topic()
			topic.Partitions = g.partitions(topic.Topic)
			return topic
		})
		return group
	})
	return request
}

func (g *generator) offsetDelete() kmsg.Request {
	request := kmsg.NewPtrOffsetDeleteRequest()
	request.Group = g.committer()
	request.Topics = some(g, func() kmsg.OffsetDeleteRequestTopic {
		topic := kmsg.NewOffsetDeleteRequestTopic()
		topic.Topic = g.topic()
		topic.Partitions = some(g, func() kmsg.OffsetDeleteRequestTopicPartition {
			return kmsg.OffsetDeleteRequestTopicPartition{Partition: g.partition(topic.Topic)}
		})
		return topic
	})
	return request
}

func (g *generator) consumerGroupHeartbeat() kmsg.Request {
	request := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	request.Group = g.group()
	request.MemberID, request.MemberEpoch = g.member(request.Group), pick[int32](g, 0, -1, 1)
	request.SubscribedTopicNames = []string{g.topic()}
	request.RebalanceTimeoutMillis = 60_000
	return request
}

func (g *generator) consumerGroupDescribe() kmsg.Request {
	request := kmsg.NewPtrConsumerGroupDescribeRequest()
	request.Groups = few(g, 3, g.group)
	return request
}
