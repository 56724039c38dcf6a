package kafka

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// run is one sequence of requests to both sides.
type run struct {
	t        *testing.T
	seed     uint64
	pair     *pair
	bindings *bindings
	gen      *generator
	step     int
	asked    map[string]int  // by name and version
	codes    map[string]int  // by name and error code in Apache's answers
	seen     map[string]int  // differences by their kind, so that one is shown once
	excused  map[string]int  // by the accepted difference's row
	loose    map[string]bool // topics whose leader epochs differ
	places   [2]*strings.Replacer
}

// step is one request of a run.
type step struct {
	broker, session int
	clientID        *string
	request         kmsg.Request
	oneWay          bool                // no answer is expected; the connection must live on or end on both sides
	raw             func([]byte) []byte // makes a frame malformed
	key, version    int16               // what the answer is decoded as, if raw changes that
	note            string
}

func newRun(t *testing.T, p *pair, seed uint64, brokers int) *run {
	r := &run{
		t: t, seed: seed, pair: p, bindings: newBindings(), gen: newGenerator(seed, brokers),
		asked: map[string]int{}, codes: map[string]int{}, seen: map[string]int{}, excused: map[string]int{}, loose: map[string]bool{},
	}
	t.Cleanup(r.summary)
	for i, s := range []*side{p.reference, p.candidate} {
		pairs := []string{s.fleet.ZooKeeperConnect(), "<zookeeper>"}
		for _, node := range s.fleet.Brokers {
			pairs = append(pairs, node.Addr, fmt.Sprintf("<broker %d>", node.ID), node.Dir(), fmt.Sprintf("<directory %d>", node.ID))
		}
		r.places[i] = strings.NewReplacer(pairs...)
	}
	r.bindBrokers()
	return r
}

// bindBrokers pairs the brokers' ports and epochs.
func (r *run) bindBrokers() {
	for id := 1; id <= r.gen.brokers; id++ {
		r.bindBroker(id)
	}
	r.bindController()
}

func (r *run) bindBroker(id int) {
	read := func(s *side) int64 {
		_, stat, err := s.zk.Get(fmt.Sprintf("/brokers/ids/%d", id))
		if err != nil {
			r.t.Fatal(err)
		}
		return stat.Czxid
	}
	portOf := func(s *side) int32 {
		_, text, _ := strings.Cut(s.fleet.Brokers[id-1].Addr, ":")
		number, _ := strconv.Atoi(text)
		return int32(number)
	}
	reference, candidate := read(r.pair.reference), read(r.pair.candidate)
	r.bindings.bind(brokerEpoch, reference, candidate)
	r.bindings.bind(port, portOf(r.pair.reference), portOf(r.pair.candidate))
	r.gen.brokerEpochs[int32(id)], r.gen.ports[int32(id)] = reference, portOf(r.pair.reference)
}

// bindController learns the controller's epoch.
func (r *run) bindController() {
	data, _, err := r.pair.reference.zk.Get("/controller_epoch")
	if err != nil {
		r.t.Fatal(err)
	}
	epoch, err := strconv.Atoi(string(data))
	if err != nil {
		r.t.Fatal(err)
	}
	r.gen.controllerEpoch = int32(epoch)
}

// sent is a request under way to both sides.
type sent struct {
	step     step
	number   int
	frames   [2][]byte
	conns    [2]*conn
	numbers  [2]int32
	outcomes [2]outcome
	wait     sync.WaitGroup
}

// answerWithin bounds the wait for an answer: silence where the other side answers is a
// difference.
const answerWithin = 30 * time.Second

// start sends a request to both sides.
func (r *run) start(s step) *sent {
	r.t.Helper()
	r.step++
	if os.Getenv("UNDERSTUDY_CROSSCHECK_TRACE") != "" {
		r.t.Logf("step %d, session %d: %s", r.step, s.session, clip(show(s.request), 600))
	}
	key := connKey{s.broker, s.session}
	if s.raw == nil {
		s.key, s.version = s.request.Key(), s.request.GetVersion()
	}
	r.asked[fmt.Sprintf("%s v%d", kmsg.NameForKey(s.key), s.version)]++
	x := &sent{step: s, number: r.step}
	for i, side := range []*side{r.pair.reference, r.pair.candidate} {
		c, err := side.conn(key)
		if err != nil {
			r.t.Fatal(err)
		}
		c.correlation++
		x.conns[i], x.numbers[i] = c, c.correlation
		if i == 1 {
			s.request = r.translated(s.request)
		}
		x.frames[i] = frame(s.request, c.correlation, s.clientID)
		if s.raw != nil {
			x.frames[i] = s.raw(x.frames[i])
		}
	}
	for i, side := range []*side{r.pair.reference, r.pair.candidate} {
		x.wait.Go(func() { x.outcomes[i] = side.exchange(x, i, key) })
	}
	return x
}

func (s *side) exchange(x *sent, i int, key connKey) outcome {
	c := x.conns[i]
	if _, err := c.Write(x.frames[i]); err != nil {
		return outcome{kind: closed}
	}
	if x.step.oneWay { // whatever is answered next must be the answer to this
		c.correlation++
		client := "crosscheck"
		if _, err := c.Write(frame(kmsg.NewPtrApiVersionsRequest(), c.correlation, &client)); err != nil {
			return outcome{kind: closed}
		}
		return c.receive(keyApiVersions, 0, c.correlation, answerWithin)
	}
	return c.receive(x.step.key, x.step.version, x.numbers[i], answerWithin)
}

// translated is the request in the candidate's values; the reference's stays as it is.
func (r *run) translated(request kmsg.Request) kmsg.Request {
	copied := deepCopy(reflect.ValueOf(request)).Interface().(kmsg.Request)
	copied.SetVersion(request.GetVersion())
	r.bindings.translate(reflect.ValueOf(copied), "", kmsg.NameForKey(request.Key()))
	if produce, ok := copied.(*kmsg.ProduceRequest); ok {
		r.bindings.translateProduce(produce)
	}
	return copied
}

func deepCopy(v reflect.Value) reflect.Value {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return v
		}
		out := reflect.New(v.Type().Elem())
		out.Elem().Set(deepCopy(v.Elem()))
		return out
	case reflect.Slice:
		if v.IsNil() {
			return v
		}
		out := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		for i := range v.Len() {
			out.Index(i).Set(deepCopy(v.Index(i)))
		}
		return out
	case reflect.Struct:
		out := reflect.New(v.Type()).Elem()
		out.Set(v)
		for i := range v.NumField() {
			if out.Field(i).CanSet() && v.Type().Field(i).Name != "UnknownTags" {
				out.Field(i).Set(deepCopy(v.Field(i)))
			}
		}
		return out
	}
	return v
}

// finish waits for both answers and compares them. It returns the reference's, nil if there
// is none.
func (r *run) finish(x *sent) kmsg.Response {
	r.t.Helper()
	x.wait.Wait()
	key := connKey{x.step.broker, x.step.session}
	for i, side := range []*side{r.pair.reference, r.pair.candidate} {
		if x.outcomes[0].kind != answered || x.outcomes[1].kind != answered {
			x.conns[i].close()
			delete(side.conns, key)
		}
	}
	c := &comparison{bindings: r.bindings, request: x.step.request, places: &r.places, loose: r.loose}
	name := kmsg.NameForKey(x.step.key)
	if x.step.oneWay {
		name += " without an answer, then ApiVersions"
	}
	c.outcomes(name, x.outcomes[0], x.outcomes[1])
	r.report(x, c.found)
	if x.outcomes[0].kind != answered || x.outcomes[0].err != nil || x.step.oneWay {
		return nil
	}
	r.count(x)
	return x.outcomes[0].response
}

// do is start and finish.
func (r *run) do(s step) kmsg.Response {
	r.t.Helper()
	return r.finish(r.start(s))
}

// report tells of differences that are not accepted.
func (r *run) report(x *sent, found []difference) {
	r.t.Helper()
	found = slices.DeleteFunc(found, func(d difference) bool {
		for i := range accepted {
			if accepted[i].covers(x, d) {
				r.excused[accepted[i].row]++
				return true
			}
		}
		return false
	})
	if len(found) == 0 {
		return
	}
	kind := fmt.Sprintf("%s %s", found[0].place(), clip(found[0].reference+"|"+found[0].candidate, 60))
	if r.seen[kind]++; r.seen[kind] > shownOfAKind {
		r.t.Fail()
		return
	}
	var text strings.Builder
	for i, d := range found {
		if i == 12 {
			fmt.Fprintf(&text, "\n  and %d more", len(found)-i)
			break
		}
		fmt.Fprintf(&text, "\n  %s", d)
	}
	r.t.Errorf("seed %d, step %d%s: %s version %d to broker %d:%s\n  request: %s\n  Apache's answer:     %s\n  understudy's answer: %s",
		r.seed, x.number, x.step.note, kmsg.NameForKey(x.step.key), x.step.version, x.step.broker, &text,
		clip(show(x.step.request), 1500), answerText(x.outcomes[0]), answerText(x.outcomes[1]))
}

// shownOfAKind bounds how often one difference is shown.
const shownOfAKind = 1

func clip(text string, most int) string {
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

func answerText(o outcome) string {
	if o.kind != answered || o.response == nil || o.err != nil {
		return clip(describe(o), 700)
	}
	return clip(show(o.response), 900)
}

func (r *run) summary() {
	steps := 0
	for _, count := range r.asked {
		steps += count
	}
	r.t.Logf("seed %d: %d requests of %d types and versions", r.seed, steps, len(r.asked))
	for _, row := range slices.Sorted(maps.Keys(r.excused)) {
		r.t.Logf("accepted %d times: %s", r.excused[row], row)
	}
	for _, kind := range slices.Sorted(maps.Keys(r.seen)) {
		r.t.Logf("differs %d times: %s", r.seen[kind], kind)
	}
}

// observe lets the generator learn from the reference's answer, and waits until what was
// begun has come to its end on both sides.
func (r *run) observe(request kmsg.Request, response kmsg.Response) {
	switch answer := response.(type) {
	case *kmsg.FetchResponse:
		r.gen.fetched(request.(*kmsg.FetchRequest), answer)
	case *kmsg.InitProducerIDResponse:
		r.gen.initialized(answer)
	case *kmsg.JoinGroupResponse:
		r.gen.joined(request.(*kmsg.JoinGroupRequest), answer)
	case *kmsg.CreateTopicsResponse:
		if !request.(*kmsg.CreateTopicsRequest).ValidateOnly {
			r.created(answer)
		}
	case *kmsg.DeleteTopicsResponse:
		for i := range answer.Topics {
			if answer.Topics[i].ErrorCode == 0 && answer.Topics[i].Topic != nil {
				r.deleted(*answer.Topics[i].Topic)
			}
		}
	case *kmsg.ElectLeadersResponse:
		for i := range answer.Topics {
			if r.gen.cluster() && slices.ContainsFunc(answer.Topics[i].Partitions, func(p kmsg.ElectLeadersResponseTopicPartition) bool { return p.ErrorCode == 0 }) {
				r.calmTopic(answer.Topics[i].Topic)
			}
		}
	case *kmsg.AlterPartitionAssignmentsResponse:
		for i := range answer.Topics {
			for _, partition := range answer.Topics[i].Partitions {
				if partition.ErrorCode == 0 {
					r.settled(answer.Topics[i].Topic, partition.Partition)
				}
			}
		}
	case *kmsg.CreatePartitionsResponse:
		asked := request.(*kmsg.CreatePartitionsRequest)
		for i := range answer.Topics {
			if known := r.gen.topicNamed(answer.Topics[i].Topic); known != nil && answer.Topics[i].ErrorCode == 0 && !asked.ValidateOnly {
				r.refresh(known.name)
			}
		}
	}
}

func (r *run) created(answer *kmsg.CreateTopicsResponse) {
	for i := range answer.Topics {
		if code := answer.Topics[i].ErrorCode; code == 0 || code == 7 { // it times out and is created nevertheless
			r.refresh(answer.Topics[i].Topic)
		}
	}
}

// refresh waits until both sides show a topic with leaders everywhere, and learns its id.
func (r *run) refresh(name string) {
	r.t.Helper()
	var found [2]kmsg.MetadataResponseTopic
	for i, side := range []*side{r.pair.reference, r.pair.candidate} {
		err := side.await("topic "+name, func() bool {
			response, err := side.ask(int(r.gen.live[0]), metadataOf(name))
			if err != nil {
				return false
			}
			found[i] = response.(*kmsg.MetadataResponse).Topics[0]
			return found[i].ErrorCode == 0 && !slices.ContainsFunc(found[i].Partitions, func(p kmsg.MetadataResponseTopicPartition) bool { return p.ErrorCode != 0 })
		})
		if err != nil {
			r.t.Fatal(err)
		}
	}
	if !r.bindings.bind(topicID, found[0].TopicID, found[1].TopicID) {
		r.t.Errorf("seed %d, step %d: the topic id of %s has changed on one side only", r.seed, r.step, name)
	}
	known := r.gen.topicNamed(name)
	if known == nil {
		known = &topicState{name: name, internal: found[0].IsInternal}
		r.gen.topics = append(r.gen.topics, known)
	}
	known.id, known.partitions, known.width = found[0].TopicID, int32(len(found[0].Partitions)), len(found[0].Partitions[0].Replicas)
	if r.gen.cluster() {
		r.calmTopic(name)
	}
}

// settled waits until the metadata of both sides show a partition's present leader epoch.
func (r *run) settled(topic string, number int32) {
	r.t.Helper()
	if r.gen.cluster() {
		r.calmTopic(topic)
		return
	}
	for _, side := range []*side{r.pair.reference, r.pair.candidate} {
		err := side.await("the leader epoch of "+topic, func() bool {
			data, _, err := side.zk.Get(fmt.Sprintf("/brokers/topics/%s/partitions/%d/state", topic, number))
			var state struct {
				Epoch int32 `json:"leader_epoch"`
			}
			if err != nil || json.Unmarshal(data, &state) != nil {
				return false
			}
			response, err := side.ask(1, metadataOf(topic))
			return err == nil && slices.ContainsFunc(response.(*kmsg.MetadataResponse).Topics[0].Partitions, func(p kmsg.MetadataResponseTopicPartition) bool {
				return p.Partition == number && p.LeaderEpoch == state.Epoch
			})
		})
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

func metadataOf(name string) kmsg.Request {
	request := kmsg.NewPtrMetadataRequest()
	request.Version, request.AllowAutoTopicCreation = 12, false
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = &name
	request.Topics = append(request.Topics, topic)
	return request
}

// deleted waits until a topic is gone on both sides.
func (r *run) deleted(name string) {
	r.t.Helper()
	if known := r.gen.topicNamed(name); known != nil {
		r.gen.deletedID = known.id
		r.gen.topics = slices.DeleteFunc(r.gen.topics, func(topic *topicState) bool { return topic == known })
	}
	for _, side := range []*side{r.pair.reference, r.pair.candidate} {
		err := side.await("the deletion of "+name, func() bool {
			return !side.exists("/admin/delete_topics/"+name) && !side.exists("/brokers/topics/"+name) &&
				!slices.ContainsFunc(r.gen.live, func(id int32) bool { return side.hosts(int(id), name) })
		})
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

// hosts reports whether a broker's metadata still have a topic.
func (s *side) hosts(broker int, topic string) bool {
	response, err := s.ask(broker, metadataOf(topic))
	return err != nil || response.(*kmsg.MetadataResponse).Topics[0].ErrorCode != kerr.UnknownTopicOrPartition.Code
}

// count counts what Apache's broker answered, by error code.
func (r *run) count(x *sent) {
	name, codes := kmsg.NameForKey(x.step.key), map[int16]bool{}
	codesIn(reflect.ValueOf(x.outcomes[0].response), codes)
	for code := range codes {
		r.codes[fmt.Sprintf("%s %d", name, code)]++
	}
	if r.fromFollower(x) {
		r.codes["Fetch by a consumer from a follower"]++
	}
	if preferred(x.outcomes[0].response) {
		r.codes["Fetch with a preferred replica"]++
	}
}

// preferred reports whether an answer sends a consumer to another replica.
func preferred(response kmsg.Response) bool {
	fetched, ok := response.(*kmsg.FetchResponse)
	return ok && slices.ContainsFunc(fetched.Topics, func(topic kmsg.FetchResponseTopic) bool {
		return slices.ContainsFunc(topic.Partitions, func(p kmsg.FetchResponseTopicPartition) bool { return p.PreferredReadReplica >= 0 })
	})
}

func codesIn(v reflect.Value, codes map[int16]bool) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			codesIn(v.Elem(), codes)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if code := v.Field(i); v.Type().Field(i).Name == "ErrorCode" {
				codes[int16(code.Int())] = true
			} else {
				codesIn(code, codes)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			codesIn(v.Index(i), codes)
		}
	}
}

// fromFollower reports whether a broker gave a consumer records of a partition that another one leads.
func (r *run) fromFollower(x *sent) bool {
	answer, ok := x.outcomes[0].response.(*kmsg.FetchResponse)
	if !ok || !r.gen.cluster() {
		return false
	}
	for i := range answer.Topics {
		for _, topic := range r.gen.topics {
			if topic.name != answer.Topics[i].Topic && (topic.id != answer.Topics[i].TopicID || answer.Version < 13) {
				continue
			}
			for j := range answer.Topics[i].Partitions {
				p := &answer.Topics[i].Partitions[j]
				if p.ErrorCode == 0 && len(p.RecordBatches) > 0 && r.pair.reference.states(topic.name)[p.Partition].Leader != int32(x.step.broker) {
					return true
				}
			}
		}
	}
	return false
}

// seeds are fixed ones, so that a run of the tests depends on nothing but the code, or the one
// that is asked for; "fresh" asks for one that nobody has tried.
func seeds(t *testing.T) []uint64 {
	switch text := os.Getenv("UNDERSTUDY_CROSSCHECK_SEED"); text {
	case "":
		return []uint64{4, 103}
	case "fresh":
		return []uint64{uint64(time.Now().UnixNano())}
	default:
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return []uint64{seed}
	}
}

// rounds is how often each type and version is asked.
func rounds(t *testing.T, usual int) int {
	text := os.Getenv("UNDERSTUDY_CROSSCHECK_ROUNDS")
	if text == "" {
		return usual
	}
	count, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return count
}
