package seam

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-zookeeper/zk"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	controlTopic   = "alpha"
	controlTopicID = "AAAAAAAAAAAAAAAAAAAAKg"
)

// TestControlRequests puts brokers that only listen under each kind of controller, lets the same
// things happen, and compares what the controllers send them byte for byte. Port numbers and
// broker epochs differ from run to run and are made the same before; lists whose order says
// nothing are sorted.
func TestControlRequests(t *testing.T) {
	theirs := listen(t, apache)
	own := listen(t, ours)
	if len(theirs) != len(own) {
		t.Fatalf("%d steps under Apache's controller, %d under ours", len(theirs), len(own))
	}
	for i, step := range theirs {
		if step.name == controlledShutdown {
			step.sameStops(t, &own[i])
		}
		if difference := step.differs(own[i]); difference != "" {
			t.Errorf("%s:\n%s", step.name, difference)
		}
	}
}

const controlledShutdown = "controlled shutdown"

// controlStep is what the listening broker was told in one step.
type controlStep struct {
	name     string
	requests []kmsg.Request
}

// sameStops compares which replicas the step stops, and takes these requests out. Here we differ
// on purpose: Apache's controller stops a leaving broker's followers before it takes them out of
// the in-sync sets, and again after that, and acks=all waits in between; ours stops them after
// that, and tells the epoch that is current then.
func (s *controlStep) sameStops(t *testing.T, other *controlStep) {
	t.Helper()
	stops := func(step *controlStep) map[string]bool {
		stopped := map[string]bool{}
		step.requests = slices.DeleteFunc(step.requests, func(request kmsg.Request) bool {
			stop, ok := request.(*kmsg.StopReplicaRequest)
			if ok {
				for _, topic := range stop.Topics {
					for _, p := range topic.PartitionStates {
						stopped[fmt.Sprintf("%s-%d delete %v", topic.Topic, p.Partition, p.Delete)] = true
					}
				}
			}
			return ok
		})
		return stopped
	}
	if theirs, own := stops(s), stops(other); !maps.Equal(theirs, own) || len(own) == 0 {
		t.Errorf("%s: Apache's controller stops %v, ours %v", s.name, theirs, own)
	}
}

// encoded is a request's body as it stands on the wire.
func encoded(request kmsg.Request) []byte { return appendControl(nil, request) }

func (s controlStep) differs(other controlStep) string {
	same := slices.EqualFunc(s.requests, other.requests, func(a, b kmsg.Request) bool {
		return a.Key() == b.Key() && bytes.Equal(encoded(a), encoded(b))
	})
	if same {
		return ""
	}
	return fmt.Sprintf("Apache's controller:\n%sours:\n%s", s, other)
}

func (s controlStep) String() string {
	var text strings.Builder
	for _, request := range s.requests {
		fmt.Fprintf(&text, "  %s\n", describeControl(request))
	}
	return text.String()
}

// describeControl is a request in short, for messages.
func describeControl(request kmsg.Request) string {
	text := fmt.Sprintf("%s v%d", kmsg.NameForKey(request.Key()), request.GetVersion())
	switch request := request.(type) {
	case *kmsg.LeaderAndISRRequest:
		text += fmt.Sprintf(" controller %d/%d broker epoch %d type %d", request.ControllerID, request.ControllerEpoch, request.BrokerEpoch, request.Type)
		for _, topic := range request.TopicStates {
			for _, p := range topic.PartitionStates {
				text += fmt.Sprintf("\n    %s-%d leader %d/%d/%d isr %v epoch %d replicas %v+%v-%v new %v recovery %d", topic.Topic, p.Partition,
					p.Leader, p.LeaderEpoch, p.ControllerEpoch, p.ISR, p.ZKVersion, p.Replicas, p.AddingReplicas, p.RemovingReplicas, p.IsNew, p.LeaderRecoveryState)
			}
		}
		for _, leader := range request.LiveLeaders {
			text += fmt.Sprintf("\n    leader %d %s:%d", leader.BrokerID, leader.Host, leader.Port)
		}
	case *kmsg.UpdateMetadataRequest:
		text += fmt.Sprintf(" controller %d/%d broker epoch %d", request.ControllerID, request.ControllerEpoch, request.BrokerEpoch)
		for _, topic := range request.TopicStates {
			for _, p := range topic.PartitionStates {
				text += fmt.Sprintf("\n    %s-%d leader %d/%d/%d isr %v epoch %d replicas %v offline %v", topic.Topic, p.Partition,
					p.Leader, p.LeaderEpoch, p.ControllerEpoch, p.ISR, p.ZKVersion, p.Replicas, p.OfflineReplicas)
			}
		}
		for _, broker := range request.LiveBrokers {
			text += fmt.Sprintf("\n    broker %d", broker.ID)
			for _, e := range broker.Endpoints {
				text += fmt.Sprintf(" %s://%s:%d/%d", e.ListenerName, e.Host, e.Port, e.SecurityProtocol)
			}
		}
	case *kmsg.StopReplicaRequest:
		text += fmt.Sprintf(" controller %d/%d broker epoch %d", request.ControllerID, request.ControllerEpoch, request.BrokerEpoch)
		for _, topic := range request.Topics {
			for _, p := range topic.PartitionStates {
				text += fmt.Sprintf("\n    %s-%d epoch %d delete %v", topic.Topic, p.Partition, p.LeaderEpoch, p.Delete)
			}
		}
	}
	return text
}

// listen plays the steps under one kind of controller, broker 1. Brokers 8 and 9 listen; 8 also
// marks the end of each step by a change of its listeners, which the controller tells everyone.
func listen(t *testing.T, controller kind) []controlStep {
	s := setUp(t, cast{coordinator: ours, coordinators: 1, brokers: []kind{controller}, properties: map[string]string{
		"replica.lag.time.max.ms": "600000", "auto.leader.rebalance.enable": "false",
	}})
	s.open(t, 1)
	marker, spy := newSpy(t, s, 8), newSpy(t, s, 9)
	marker.register(t)
	marker.awaitRequest(t)
	var steps []controlStep
	step := func(name string, act func()) {
		act()
		steps = append(steps, controlStep{name, spy.upTo(t, marker.mark(t))})
	}
	step("registration", func() {
		spy.register(t)
		spy.awaitRequest(t) // the controller is through with the marker, and watches its node
	})
	step("creation", func() {
		s.create(t, "/config/topics/"+controlTopic, `{"version":1,"config":{}}`)
		s.create(t, "/brokers/topics/"+controlTopic, assignment(`"0":[9,1],"1":[1,9],"2":[9],"3":[1]`))
		s.awaitNode(t, "/brokers/topics/"+controlTopic+"/partitions/3/state", true)
	})
	step("growth", func() {
		if _, err := s.zk.Set("/brokers/topics/"+controlTopic, []byte(assignment(`"0":[9,1],"1":[1,9],"2":[9],"3":[1],"4":[1,9]`)), -1); err != nil {
			t.Fatal(err)
		}
		s.awaitNode(t, "/brokers/topics/"+controlTopic+"/partitions/4/state", true)
	})
	step(controlledShutdown, func() { spy.shutDown(t) })
	step("end", func() {
		spy.deregister(t)
		s.awaitISR(t, "/brokers/topics/"+controlTopic+"/partitions/2/state", -1)
	})
	step("return", func() {
		spy.register(t)
		s.awaitISR(t, "/brokers/topics/"+controlTopic+"/partitions/2/state", 9)
	})
	step("another term of the controller", func() {
		if err := s.zk.Delete("/controller", -1); err != nil {
			t.Fatal(err)
		}
		spy.awaitRequest(t) // as above
	})
	step("deletion", func() {
		s.create(t, "/admin/delete_topics/"+controlTopic, "")
		s.awaitNode(t, "/brokers/topics/"+controlTopic, false)
	})
	return steps
}

func assignment(partitions string) string {
	return `{"partitions":{` + partitions + `},"topic_id":"` + controlTopicID + `","adding_replicas":{},"removing_replicas":{},"version":3}`
}

func (s *stage) create(t *testing.T, path, data string) {
	t.Helper()
	if _, err := s.zk.Create(path, []byte(data), 0, zk.WorldACL(zk.PermAll)); err != nil {
		t.Fatalf("create %s: %v", path, err)
	}
}

func (s *stage) awaitNode(t *testing.T, path string, want bool) {
	t.Helper()
	until(t, path, func() string {
		if exists, _, err := s.zk.Exists(path); err != nil || exists != want {
			return fmt.Sprintf("exists: %v, %v", exists, err)
		}
		return ""
	})
}

// awaitISR waits until a state node names a leader.
func (s *stage) awaitISR(t *testing.T, path string, leader int) {
	t.Helper()
	until(t, path, func() string {
		data, _, err := s.zk.Get(path)
		if err != nil {
			return err.Error()
		}
		var state struct{ Leader int }
		if err := json.Unmarshal(data, &state); err != nil || state.Leader != leader {
			return string(data)
		}
		return ""
	})
}

// spy is a broker that accepts every control request and remembers it.
type spy struct {
	stage    *stage
	id       int
	listener net.Listener
	epoch    int64
	marks    int

	mu       sync.Mutex
	requests []kmsg.Request
	failed   error
}

func newSpy(t *testing.T, s *stage, id int) *spy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	p := &spy{stage: s, id: id, listener: listener}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			go p.serve(conn)
		}
	}()
	return p
}

func (p *spy) port() int32 { return int32(p.listener.Addr().(*net.TCPAddr).Port) }

func (p *spy) node() []byte {
	return fmt.Appendf(nil, `{"features":{},"listener_security_protocol_map":{"PLAINTEXT":"PLAINTEXT","MARK":"PLAINTEXT"},`+
		`"endpoints":["PLAINTEXT://127.0.0.1:%d","MARK://127.0.0.1:%d"],"jmx_port":-1,"port":%d,"host":"127.0.0.1","version":5,"timestamp":"1700000000000"}`,
		p.port(), 50000+p.marks, p.port())
}

func (p *spy) path() string { return fmt.Sprintf("/brokers/ids/%d", p.id) }

// register does as a broker does: two operations, and the node's czxid is the epoch.
func (p *spy) register(t *testing.T) {
	t.Helper()
	results, err := p.stage.zk.Multi(
		&zk.CreateRequest{Path: p.path(), Flags: zk.FlagEphemeral, Acl: zk.WorldACL(zk.PermAll)},
		&zk.SetDataRequest{Path: p.path(), Data: p.node(), Version: 0},
	)
	if err != nil {
		t.Fatalf("register broker %d: %v", p.id, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.epoch = results[1].Stat.Czxid
}

func (p *spy) deregister(t *testing.T) {
	t.Helper()
	if err := p.stage.zk.Delete(p.path(), -1); err != nil {
		t.Fatal(err)
	}
}

func (p *spy) awaitRequest(t *testing.T) {
	t.Helper()
	until(t, "a request", func() string {
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.requests) == 0 {
			return "none yet"
		}
		return ""
	})
}

// mark changes the listeners and returns the new mark.
func (p *spy) mark(t *testing.T) int {
	t.Helper()
	p.marks++
	if _, err := p.stage.zk.Set(p.path(), p.node(), -1); err != nil {
		t.Fatal(err)
	}
	return p.marks
}

// upTo takes what came before the UpdateMetadata that tells of a mark.
func (p *spy) upTo(t *testing.T, mark int) []kmsg.Request {
	t.Helper()
	var taken []kmsg.Request
	until(t, fmt.Sprintf("mark %d at broker %d", mark, p.id), func() string {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.failed != nil {
			t.Fatal(p.failed)
		}
		if _, err := p.stage.zk.Sync("/"); err != nil {
			t.Fatal(err)
		}
		exists, _, err := p.stage.zk.Exists(p.path())
		if err != nil {
			t.Fatal(err)
		}
		for i, request := range p.requests {
			if marked(request, mark) {
				taken, p.requests = p.requests[:i], p.requests[i+1:]
				return ""
			}
		}
		if !exists { // nobody tells a broker that is gone
			taken, p.requests = p.requests, nil
			return ""
		}
		return fmt.Sprintf("not among %d requests", len(p.requests))
	})
	p.sameEpochs(taken)
	return taken
}

func marked(request kmsg.Request, mark int) bool {
	update, ok := request.(*kmsg.UpdateMetadataRequest)
	return ok && slices.ContainsFunc(update.LiveBrokers, func(broker kmsg.UpdateMetadataRequestLiveBroker) bool {
		return broker.ID == 8 && slices.ContainsFunc(broker.Endpoints, func(e kmsg.UpdateMetadataRequestLiveBrokerEndpoint) bool {
			return e.Port == int32(50000+mark)
		})
	})
}

// serve answers a controller's requests until the connection ends.
func (p *spy) serve(conn net.Conn) {
	for {
		var size [4]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		frame := make([]byte, binary.BigEndian.Uint32(size[:]))
		if _, err := io.ReadFull(conn, frame); err != nil {
			return
		}
		request, err := readControl(frame)
		if err != nil {
			p.mu.Lock()
			p.failed = err
			p.mu.Unlock()
			return
		}
		if request == nil {
			return // a follower's fetch: there are no records here
		}
		p.remember(request)
		answer := append(slices.Clone(frame[4:8]), 0) // correlation id, no tags
		answer = accept(request).AppendTo(answer)
		if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(answer))), answer...)); err != nil {
			return
		}
	}
}

// readControl decodes a control request, and demands that encoding it again gives the same
// bytes; nil for other requests.
func readControl(frame []byte) (kmsg.Request, error) {
	switch binary.BigEndian.Uint16(frame) {
	case 4, 5, 6: // LeaderAndIsr, StopReplica, UpdateMetadata
	default:
		return nil, nil
	}
	request := kmsg.RequestForKey(int16(binary.BigEndian.Uint16(frame)))
	request.SetVersion(int16(binary.BigEndian.Uint16(frame[2:])))
	body := frame[8+2+int(binary.BigEndian.Uint16(frame[8:]))+1:]
	if err := request.ReadFrom(exchangeEpoch(request, slices.Clone(body), false)); err != nil {
		return nil, fmt.Errorf("%s version %d: %w", kmsg.NameForKey(request.Key()), request.GetVersion(), err)
	}
	if again := appendControl(nil, request); !bytes.Equal(again, body) {
		return nil, fmt.Errorf("%s version %d: read % x, encoded again % x", kmsg.NameForKey(request.Key()), request.GetVersion(), body, again)
	}
	return request, nil
}

func appendControl(dst []byte, request kmsg.Request) []byte {
	return append(dst, exchangeEpoch(request, request.AppendTo(nil), true)...)
}

// exchangeEpoch moves the flag of StopReplica version 4 to where Kafka has it and kmsg has not:
// before the controller epoch.
func exchangeEpoch(request kmsg.Request, body []byte, toKafka bool) []byte {
	if _, ok := request.(*kmsg.StopReplicaRequest); ok && request.GetVersion() >= 4 {
		fields := slices.Clone(body[4:9])
		if toKafka {
			copy(body[4:], append(fields[4:], fields[:4]...))
		} else {
			copy(body[4:], append(fields[1:], fields[0]))
		}
	}
	return body
}

// accept is the answer without an error.
func accept(request kmsg.Request) kmsg.Response {
	response := request.ResponseKind()
	switch request := request.(type) {
	case *kmsg.LeaderAndISRRequest:
		answer := response.(*kmsg.LeaderAndISRResponse)
		for _, topic := range request.TopicStates {
			told := kmsg.NewLeaderAndISRResponseTopic()
			told.TopicID = topic.TopicID
			for _, partition := range topic.PartitionStates {
				told.Partitions = append(told.Partitions, kmsg.LeaderAndISRResponseTopicPartition{Partition: partition.Partition})
			}
			answer.Topics = append(answer.Topics, told)
		}
	case *kmsg.StopReplicaRequest:
		answer := response.(*kmsg.StopReplicaResponse)
		for _, topic := range request.Topics {
			for _, partition := range topic.PartitionStates {
				answer.Partitions = append(answer.Partitions, kmsg.StopReplicaResponsePartition{Topic: topic.Topic, Partition: partition.Partition})
			}
		}
	}
	return response
}

// sameEpochs makes the epoch of the present registration the same in every run. The first
// request may come before register has returned, so this is done at the end of a step.
func (p *spy) sameEpochs(requests []kmsg.Request) {
	for _, request := range requests {
		var epoch *int64
		switch request := request.(type) {
		case *kmsg.LeaderAndISRRequest:
			epoch = &request.BrokerEpoch
		case *kmsg.StopReplicaRequest:
			epoch = &request.BrokerEpoch
		case *kmsg.UpdateMetadataRequest:
			epoch = &request.BrokerEpoch
		}
		if *epoch == p.epoch {
			*epoch = 1
		}
	}
}

// remember keeps a request with what else differs between two runs made the same.
func (p *spy) remember(request kmsg.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch request := request.(type) {
	case *kmsg.LeaderAndISRRequest:
		for i := range request.LiveLeaders {
			request.LiveLeaders[i].Port = request.LiveLeaders[i].BrokerID
		}
		for _, topic := range request.TopicStates {
			slices.SortFunc(topic.PartitionStates, func(a, b kmsg.LeaderAndISRRequestTopicPartition) int { return cmp.Compare(a.Partition, b.Partition) })
		}
		slices.SortFunc(request.LiveLeaders, func(a, b kmsg.LeaderAndISRRequestLiveLeader) int { return cmp.Compare(a.BrokerID, b.BrokerID) })
	case *kmsg.StopReplicaRequest:
		for _, topic := range request.Topics {
			slices.SortFunc(topic.PartitionStates, func(a, b kmsg.StopReplicaRequestTopicPartitionState) int {
				return cmp.Compare(a.Partition, b.Partition)
			})
		}
	case *kmsg.UpdateMetadataRequest:
		for _, broker := range request.LiveBrokers {
			for i := range broker.Endpoints {
				if broker.Endpoints[i].ListenerName != "MARK" {
					broker.Endpoints[i].Port = broker.ID
				}
			}
			slices.SortFunc(broker.Endpoints, func(a, b kmsg.UpdateMetadataRequestLiveBrokerEndpoint) int {
				return cmp.Compare(a.ListenerName, b.ListenerName)
			})
		}
		slices.SortFunc(request.LiveBrokers, func(a, b kmsg.UpdateMetadataRequestLiveBroker) int { return cmp.Compare(a.ID, b.ID) })
		for _, topic := range request.TopicStates {
			slices.SortFunc(topic.PartitionStates, func(a, b kmsg.UpdateMetadataRequestTopicPartition) int { return cmp.Compare(a.Partition, b.Partition) })
		}
	}
	p.requests = append(p.requests, request)
}

// shutDown asks the controller, broker 1, for a controlled shutdown.
func (p *spy) shutDown(t *testing.T) {
	t.Helper()
	conn, err := net.Dial("tcp", p.stage.broker(1).Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request := kmsg.NewPtrControlledShutdownRequest()
	request.SetVersion(3)
	request.BrokerID, request.BrokerEpoch = int32(p.id), p.epoch
	frame := []byte{0, 7, 0, 3, 0, 0, 0, 5, 0, 1, '9', 0} // key, version, correlation id, client id, no tags
	frame = request.AppendTo(frame)
	if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)); err != nil {
		t.Fatal(err)
	}
	var head [11]byte // size, correlation id, no tags, error code
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(head[4:], []byte{0, 0, 0, 5, 0, 0, 0}) {
		t.Fatalf("the controlled shutdown is answered % x", head)
	}
}
