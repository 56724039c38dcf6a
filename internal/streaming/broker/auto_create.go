package broker

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/controller"
	"understudy/internal/streaming/metadata"
	"understudy/internal/streaming/registry"
)

const (
	// autoCreateWait is how long somebody who asked for a missing topic is kept waiting for
	// its leaders; after that the answer is the one that Kafka gives at once.
	autoCreateWait = 900 * time.Millisecond
	// autoCreateMax bounds the requests that wait for topics; more are answered at once.
	autoCreateMax = 256
)

// autoCreator creates topics that somebody asked for: user topics on a Metadata request, and
// internal ones. Requests for one topic at the same time lead to one creation.
type autoCreator struct {
	b     *Broker
	never bool // topics are not created here: all are answered at once
	mu    struct {
		sync.Mutex
		waiting  int
		inFlight map[string]*creation
	}
}

// creation is one topic being written; err is set before done is closed.
type creation struct {
	done chan struct{}
	err  error
}

func newAutoCreator(b *Broker) *autoCreator {
	a := &autoCreator{b: b}
	a.mu.inFlight = map[string]*creation{}
	return a
}

// create makes topics with the broker's defaults (internal ones with theirs) and calls
// answer, once, on a goroutine of its own, when this broker knows their leaders or has
// waited long enough. errs holds the topics that cannot be created.
func (a *autoCreator) create(topics []string, answer func(errs map[string]error)) {
	if a.never {
		answer(nil)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.waiting >= autoCreateMax {
		go answer(nil)
		return
	}
	a.mu.waiting++
	go func() {
		errs := a.createAndWait(topics)
		a.mu.Lock()
		a.mu.waiting--
		a.mu.Unlock()
		answer(errs)
	}()
}

func (a *autoCreator) createAndWait(topics []string) map[string]error {
	ctx, cancel := context.WithTimeout(context.Background(), autoCreateWait)
	defer cancel()
	errs := map[string]error{}
	for _, topic := range topics {
		switch err := a.createOne(ctx, topic); {
		case err == nil:
		case errors.Is(err, context.DeadlineExceeded):
			errs[topic] = kerr.LeaderNotAvailable
		default:
			errs[topic] = err
		}
	}
	_, _ = a.b.metadata.WaitFor(ctx, func(image *metadata.Image) bool {
		for _, topic := range topics {
			if errs[topic] == nil && !allLed(image, topic) {
				return false
			}
		}
		return true
	})
	image := a.b.metadata.Image()
	for _, topic := range topics {
		if errs[topic] == nil && image.Topic(topic) == nil {
			errs[topic] = kerr.LeaderNotAvailable // written, and the controller is on it
		}
	}
	return errs
}

// createOne writes a topic, or waits for who is writing it.
func (a *autoCreator) createOne(ctx context.Context, topic string) error {
	a.mu.Lock()
	running := a.mu.inFlight[topic]
	first := running == nil
	if first {
		running = &creation{done: make(chan struct{})}
		a.mu.inFlight[topic] = running
	}
	a.mu.Unlock()
	if first {
		running.err = a.write(ctx, topic)
		a.mu.Lock()
		delete(a.mu.inFlight, topic)
		a.mu.Unlock()
		close(running.done)
	}
	select {
	case <-running.done:
		return running.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// write enters the topic in the registry; one that is there already is success.
func (a *autoCreator) write(ctx context.Context, topic string) error {
	partitions, factor, config := a.b.config.NumPartitions, a.b.config.DefaultReplicationFactor, map[string]string(nil)
	if topic == "__consumer_offsets" {
		partitions, factor, config = a.b.config.OffsetsTopicPartitions, a.b.config.OffsetsTopicReplicationFactor, a.b.offsetsTopicConfig()
	}
	if existing, err := a.b.existingTopics(ctx); err != nil {
		return err
	} else if len(controller.CollidingTopics(topic, existing)) > 0 {
		return kerr.InvalidTopicException
	}
	placed, err := place(a.b.metadata.Image().Brokers(), partitions, factor)
	if err != nil {
		return err
	}
	assignment := registry.TopicAssignment{ID: cluster.NewTopicID(), Partitions: placed}
	err = a.b.registry.CreateTopics(ctx, []registry.NewTopic{{Name: topic, Assignment: assignment, Config: config}})[0]
	if errors.Is(err, registry.ErrNodeExists) {
		return nil
	}
	if err == nil {
		a.b.logger.Info("topic created automatically", "topic", topic, "partitions", partitions, "replicationFactor", factor)
	}
	return err
}

// offsetsTopicConfig is what Kafka gives __consumer_offsets (GroupCoordinator.offsetsTopicConfigs).
func (b *Broker) offsetsTopicConfig() map[string]string {
	return map[string]string{
		"cleanup.policy":   "compact",
		"segment.bytes":    strconv.Itoa(int(b.config.OffsetsTopicSegmentBytes)),
		"compression.type": "producer",
	}
}

// place assigns replicas to live brokers at random.
func place(live []cluster.Broker, partitions int32, factor int16) (map[int32]registry.Assignment, error) {
	placement := controller.Placement{
		Brokers: live, Partitions: partitions, Factor: factor, FixedStart: -1,
		Random: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
	}
	replicas, err := placement.Place()
	if err != nil {
		return nil, err
	}
	out := make(map[int32]registry.Assignment, len(replicas))
	for number := range replicas {
		out[int32(number)] = registry.Assignment{Replicas: replicas[number]}
	}
	return out, nil
}

// allLed reports whether every partition of a topic is known and has a live leader.
func allLed(image *metadata.Image, name string) bool {
	topic := image.Topic(name)
	return topic != nil && len(topic.Partitions) > 0 && !slices.ContainsFunc(topic.Partitions, func(p *metadata.Partition) bool {
		return p == nil || !image.Alive(p.Leader)
	})
}

// metadataChanged is where those who follow the metadata cache's changes are told.
func (b *Broker) metadataChanged(change metadata.Change) {
	b.coordinatorsMetadataChanged(change)
}
