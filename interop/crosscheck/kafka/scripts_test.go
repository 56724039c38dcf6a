package kafka

import (
	"encoding/binary"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// What takes several requests in an order: groups of several members, and frames that are no
// requests.

// member is a session's place in a group.
type member struct {
	session    int
	id         string
	instance   *string
	generation int32
}

// groups takes groups of two members through their life, in every version of JoinGroup.
func (r *run) groups() {
	for version := int16(0); version <= 9; version++ {
		r.gen.version = version
		r.rebalance(version, false)
		if version >= 5 {
			r.rebalance(version, true)
		}
	}
}

// rebalance is two members that join, share, rejoin and leave. Sessions 10 and 11 are theirs.
func (r *run) rebalance(version int16, static bool) {
	group := r.gen.newName("pair")
	members := [2]member{{session: 10}, {session: 11}}
	if static {
		for i := range members {
			name := r.gen.newName("static")
			members[i].instance = &name
		}
	}
	first, second := &members[0], &members[1]
	enter := func(m *member) step {
		if version >= 4 && !static { // the first answer is the id to come back with
			r.take(m, r.do(r.join(group, m, version)))
		}
		return r.join(group, m, version)
	}
	r.take(first, r.do(enter(first)))
	if version == 4 {
		r.leavePending(group, version)
	}
	joining := r.start(enter(second)) // waits for the first to rejoin
	r.awaitJoinPhase(group)
	r.heartbeatOf(group, first, version)
	rejoining := r.start(r.join(group, first, version))
	r.take(second, r.finish(joining))
	r.take(first, r.finish(rejoining))
	syncing := r.start(r.sync(group, second, nil, version))
	r.do(r.sync(group, first, members[:], version))
	r.finish(syncing)
	for i := range members {
		r.heartbeatOf(group, &members[i], version)
	}
	r.lookAt(group)
	r.commitOf(group, first)
	stale := *second
	stale.generation++
	r.commitOf(group, &stale)
	if static { // who comes again under a static name replaces its former self
		again := member{session: 12, instance: second.instance}
		r.take(&again, r.do(r.join(group, &again, version)))
		r.heartbeatOf(group, second, version)
		r.lookAt(group)
		*second = again
	}
	r.leave(group, second, version)
	r.heartbeatOf(group, first, version)
	r.lookAt(group)
	r.leave(group, first, version)
	r.lookAt(group)
	remove := kmsg.NewPtrDeleteGroupsRequest()
	remove.Version, remove.Groups = 2, []string{group}
	r.do(step{broker: r.home(group), session: 0, request: remove, note: " (" + group + ")"})
	r.lookAt(group)
}

// awaitJoinPhase waits until both sides have taken in who joined.
func (r *run) awaitJoinPhase(group string) {
	r.t.Helper()
	describe := kmsg.NewPtrDescribeGroupsRequest()
	describe.Version, describe.Groups = 5, []string{group}
	for _, side := range []*side{r.pair.reference, r.pair.candidate} {
		err := side.await("the join phase of "+group, func() bool {
			response, err := side.ask(r.home(group), describe)
			return err == nil && response.(*kmsg.DescribeGroupsResponse).Groups[0].State == "PreparingRebalance"
		})
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *run) take(m *member, response kmsg.Response) {
	if answer, ok := response.(*kmsg.JoinGroupResponse); ok {
		m.id, m.generation = answer.MemberID, answer.Generation
	}
}

var crosscheckClient = "crosscheck"

func (r *run) join(group string, m *member, version int16) step {
	request := kmsg.NewPtrJoinGroupRequest()
	request.Version, request.Group, request.MemberID, request.InstanceID = version, group, m.id, m.instance
	request.SessionTimeoutMillis, request.RebalanceTimeoutMillis, request.ProtocolType = 600_000, 600_000, "consumer"
	request.Protocols = []kmsg.JoinGroupRequestProtocol{
		{Name: "range", Metadata: subscription("crosscheck-1")}, {Name: fmt.Sprint("own-", m.session), Metadata: []byte{1}},
	}
	return step{broker: r.home(group), session: m.session, clientID: &crosscheckClient, request: request, note: fmt.Sprintf(" (member %d of %s)", m.session, group)}
}

func (r *run) sync(group string, m *member, all []member, version int16) step {
	request := kmsg.NewPtrSyncGroupRequest()
	request.Version, request.Group, request.MemberID, request.InstanceID, request.Generation = min(version, 5), group, m.id, m.instance, m.generation
	request.ProtocolType, request.Protocol = kmsg.StringPtr("consumer"), kmsg.StringPtr("range")
	for i := range all {
		request.GroupAssignment = append(request.GroupAssignment, kmsg.SyncGroupRequestGroupAssignment{MemberID: all[i].id, MemberAssignment: []byte{byte(i), 7}})
	}
	return step{broker: r.home(group), session: m.session, clientID: &crosscheckClient, request: request, note: fmt.Sprintf(" (member %d of %s)", m.session, group)}
}

// heartbeatOf returns the reference's error code.
func (r *run) heartbeatOf(group string, m *member, version int16) int16 {
	request := kmsg.NewPtrHeartbeatRequest()
	request.Version, request.Group, request.MemberID, request.InstanceID, request.Generation = min(version, 4), group, m.id, m.instance, m.generation
	answer, _ := r.do(step{broker: r.home(group), session: 0, request: request, note: fmt.Sprintf(" (member %d of %s)", m.session, group)}).(*kmsg.HeartbeatResponse)
	if answer == nil {
		r.t.Fatal("no answer to a heartbeat")
	}
	return answer.ErrorCode
}

func (r *run) commitOf(group string, m *member) {
	request := kmsg.NewPtrOffsetCommitRequest()
	request.Version, request.Group, request.MemberID, request.InstanceID, request.Generation = 8, group, m.id, m.instance, m.generation
	partition := kmsg.NewOffsetCommitRequestTopicPartition()
	partition.Offset, partition.Metadata = 5, kmsg.StringPtr("there")
	request.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: r.gen.topics[0].name, Partitions: []kmsg.OffsetCommitRequestTopicPartition{partition}}}
	r.do(step{broker: r.home(group), session: m.session, request: request, note: " (" + group + ")"})
	fetch := kmsg.NewPtrOffsetFetchRequest()
	fetch.Version, fetch.Group = 7, group
	r.do(step{broker: r.home(group), session: m.session, request: fetch, note: " (" + group + ")"})
}

func (r *run) leave(group string, m *member, version int16) {
	request := kmsg.NewPtrLeaveGroupRequest()
	request.Version, request.Group, request.MemberID = min(version, 5), group, m.id
	request.Members = []kmsg.LeaveGroupRequestMember{{MemberID: m.id, InstanceID: m.instance}}
	r.do(step{broker: r.home(group), session: 0, request: request, note: fmt.Sprintf(" (member %d of %s)", m.session, group)})
}

// leavePending has somebody leave who was given an id and never joined with it.
func (r *run) leavePending(group string, version int16) {
	m := member{session: 12}
	r.take(&m, r.do(r.join(group, &m, version)))
	r.leave(group, &m, version)
}

func (r *run) lookAt(group string) {
	describe := kmsg.NewPtrDescribeGroupsRequest()
	describe.Version, describe.Groups = 5, []string{group}
	r.do(step{broker: r.home(group), session: 0, request: describe, note: " (" + group + ")"})
}

// automatic has topics created because somebody asks for them. Apache's broker says that it is at it before it has
// leaders, and ours waits for them (docs/compatibility.md); so what is compared is who is refused, and what there is then.
func (r *run) automatic() {
	create := kmsg.NewPtrCreateTopicsRequest()
	create.Version, create.TimeoutMillis = 7, 60_000
	taken := kmsg.NewCreateTopicsRequestTopic()
	taken.Topic, taken.NumPartitions, taken.ReplicationFactor = "asked.for_and_taken", 1, 1
	create.Topics = append(create.Topics, taken)
	r.ask(create)
	for version := int16(0); version <= 12; version++ {
		request := metadataOf(r.gen.newName("asked-for")).(*kmsg.MetadataRequest)
		request.Version, request.AllowAutoTopicCreation = version, true
		for _, side := range []*side{r.pair.reference, r.pair.candidate} {
			response, err := side.ask(1, request)
			if err != nil {
				r.t.Fatal(err)
			}
			if code := response.(*kmsg.MetadataResponse).Topics[0].ErrorCode; code != 0 && code != kerr.LeaderNotAvailable.Code {
				r.t.Errorf("%s creates %s with error %d", side.name, *request.Topics[0].Topic, code)
			}
		}
		r.refresh(*request.Topics[0].Topic)
		for _, name := range append([]string{*request.Topics[0].Topic, "asked_for.and.taken", "asked.for.and.taken"}, badNames...) {
			if len(name) == 249 { // which is a name
				continue
			}
			request := metadataOf(name).(*kmsg.MetadataRequest)
			request.Version, request.AllowAutoTopicCreation = version, true
			r.ask(request)
		}
	}
}

// frames sends what is no request: each on a connection of its own.
func (r *run) frames() {
	session := 100
	send := func(note string, key, version int16, request kmsg.Request, raw func([]byte) []byte) {
		session++
		r.do(step{broker: 1, session: session, clientID: &crosscheckClient, request: request, raw: raw, key: key, version: version, note: " (" + note + ")"})
	}
	newMetadata := func(version int16) kmsg.Request {
		request := metadataOf("crosscheck-1")
		request.SetVersion(version)
		return request
	}
	header := func(key, version int16) func([]byte) []byte {
		return func(frame []byte) []byte {
			binary.BigEndian.PutUint16(frame[4:], uint16(key))
			binary.BigEndian.PutUint16(frame[6:], uint16(version))
			return frame
		}
	}
	for _, key := range []int16{52, 53, 54, 55, 59, 62, 63, 64, 70, 71, 72, 74, 75, 76, 80, 200, -1} {
		send("a key that is not served", 3, 1, newMetadata(1), header(key, 0))
	}
	for _, entry := range r.served() {
		if last := entry.version; !r.serves(api{entry.key, last + 1}) && entry.key != keyApiVersions {
			send("a version too new", 3, 1, newMetadata(1), header(entry.key, last+1))
		}
	}
	send("a negative version", 3, 1, newMetadata(1), header(3, -1))
	for _, version := range []int16{5, 99, 32767} {
		request := kmsg.NewPtrApiVersionsRequest()
		request.Version = 4
		send("an ApiVersions version that is not served", keyApiVersions, version, request, header(keyApiVersions, version))
	}
	for _, version := range []int16{1, 9, 12} {
		send("garbage after the body", 3, version, newMetadata(version), func(frame []byte) []byte { return sized(append(frame, 1, 2, 3)) })
		for cut := 1; cut < 12; cut += 3 {
			send(fmt.Sprint(cut, " bytes are missing"), 3, version, newMetadata(version), func(frame []byte) []byte { return sized(frame[:len(frame)-cut]) })
		}
	}
	send("only a header", 3, 1, newMetadata(1), func(frame []byte) []byte { return sized(frame[:12]) })
	send("half a header", 3, 1, newMetadata(1), func(frame []byte) []byte { return sized(frame[:9]) })
	send("an empty frame", 3, 1, newMetadata(1), func(frame []byte) []byte { return []byte{0, 0, 0, 0} })
	send("a negative size", 3, 1, newMetadata(1), func(frame []byte) []byte { frame[0] = 0xff; return frame })
	send("a huge size", 3, 1, newMetadata(1), func(frame []byte) []byte { frame[0] = 0x7f; return frame })
	send("a huge list", 3, 1, newMetadata(1), func(frame []byte) []byte {
		at := 4 + 8 + 2 + len(crosscheckClient)
		binary.BigEndian.PutUint32(frame[at:], 0x7fffffff)
		return frame
	})
	send("a list of -2", 3, 1, newMetadata(1), func(frame []byte) []byte {
		at := 4 + 8 + 2 + len(crosscheckClient)
		binary.BigEndian.PutUint32(frame[at:], 0xfffffffe)
		return frame
	})
	send("a client id of -2", 3, 1, newMetadata(1), func(frame []byte) []byte { frame[12], frame[13] = 0xff, 0xfe; return frame })
	send("HTTP", 3, 1, newMetadata(1), func([]byte) []byte { return []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n") })
}

func (r *run) serves(one api) bool {
	for _, entry := range r.served() {
		if entry == one {
			return true
		}
	}
	return false
}
