package kafka

import (
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// api is a type of request and a version of it.
type api struct{ key, version int16 }

// served are all types and versions that our broker advertises.
func (r *run) served() []api {
	response, err := r.pair.candidate.ask(1, kmsg.NewPtrApiVersionsRequest())
	if err != nil {
		r.t.Fatal(err)
	}
	var out []api
	for _, entry := range response.(*kmsg.ApiVersionsResponse).ApiKeys {
		for version := entry.MinVersion; version <= entry.MaxVersion; version++ {
			out = append(out, api{entry.ApiKey, version})
		}
	}
	return out
}

// TestOneBroker asks a cluster of one broker everything, in every version.
func TestOneBroker(t *testing.T) {
	p := startPair(t, 1, nil)
	for i, seed := range seeds(t) {
		r := newRun(t, p, seed, 1)
		r.gen.fresh = 1_000_000 * i
		r.prepare()
		r.groups()
		if i == 0 {
			r.frames()
			r.automatic()
		}
		r.everything(rounds(t, 5))
	}
}

// prepare makes what requests need to find: topics, the offsets topic and producers.
func (r *run) prepare() {
	create := kmsg.NewPtrCreateTopicsRequest()
	create.Version, create.TimeoutMillis = 7, 60_000
	for i := range 4 {
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = r.gen.newName("crosscheck"), int32(1+i), 1
		create.Topics = append(create.Topics, topic)
	}
	r.ask(create)
	r.pair.reference.ask(1, coordinatorOf("g"))
	r.pair.candidate.ask(1, coordinatorOf("g"))
	r.refresh("__consumer_offsets")
	r.awaitWarm(1)
	for range 2 {
		request := kmsg.NewPtrInitProducerIDRequest()
		request.Version = 4
		r.ask(request)
	}
}

func coordinatorOf(group string) kmsg.Request {
	request := kmsg.NewPtrFindCoordinatorRequest()
	request.CoordinatorKey = group
	return request
}

// ask does a step on a session by chance, and follows up on it.
func (r *run) ask(request kmsg.Request) {
	client := pick(r.gen, "crosscheck", "crosscheck", "", "__admin_client")
	s := step{broker: r.gen.target, session: r.gen.rng.IntN(3), clientID: &client, request: request}
	if r.gen.chance(12) {
		s.clientID = nil
	}
	if r.gen.asController {
		r.gen.asController = false
		r.pair.controllers++
		s.session = 1000 + r.pair.controllers // a controller has one connection, the newest: docs/compatibility.md
	}
	if produce, ok := request.(*kmsg.ProduceRequest); ok && produce.Acks == 0 {
		s.oneWay = true
	}
	r.followUp(s, r.do(s))
}

// followUp learns from an answer, and waits until what was begun is at its end.
func (r *run) followUp(s step, response kmsg.Response) kmsg.Response {
	r.t.Helper()
	if response != nil {
		r.observe(s.request, response)
	}
	if produce, ok := s.request.(*kmsg.ProduceRequest); ok && r.gen.cluster() {
		for i := range produce.Topics {
			if r.gen.topicNamed(produce.Topics[i].Topic) != nil {
				r.calmTopic(produce.Topics[i].Topic)
			}
		}
	}
	return response
}

// apart are the types of request to which other brokers mean nothing.
var apart = map[int16]bool{17: true, 36: true, 29: true, 30: true, 31: true, 38: true, 39: true, 40: true, 41: true, 48: true, 50: true, 57: true, 66: true, 68: true, 69: true}

// everything asks each type and version so many times, in an order by chance.
func (r *run) everything(rounds int) {
	served := r.served()
	for _, one := range served {
		if generators[one.key] == nil {
			r.t.Errorf("nothing generates %s", kmsg.NameForKey(one.key))
		}
	}
	for range rounds {
		order := slices.Clone(served)
		r.gen.rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, one := range order {
			r.gen.version = one.version
			if r.gen.cluster() {
				if apart[one.key] {
					continue
				}
				r.gen.target = int(pick(r.gen, r.gen.live...))
			}
			if request := generators[one.key](r.gen); request != nil {
				request.SetVersion(one.version)
				r.ask(request)
			}
		}
	}
}
