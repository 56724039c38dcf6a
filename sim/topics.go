package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/registry"
)

// The disposable topic: an administrator creates it, gives it more partitions, deletes it, and
// creates it again, while there are faults. Its clients go on through all of that.

const disposablePartitions = 3 // at most

func disposableAt(partition int) cluster.TopicPartition {
	return cluster.TopicPartition{Topic: disposable, Partition: int32(partition)}
}

// changeTopic does what can be done to the topic next.
func (w *world) changeTopic(chance *rand.Rand) {
	p := w.check.live[disposableAt(0)]
	switch {
	case p == nil:
		w.createTopic(disposable, 1+chance.IntN(disposablePartitions-1))
	case p.doomed, !w.controllerKnows(p): // on its way out; or in, and the controller refuses
	case chance.IntN(3) == 0:
		w.growTopic()
	default:
		w.trace("delete", "topic %s", disposable)
		if err := w.coordinator.as(w.admin).MarkTopicsDeleted(context.Background(), []string{disposable})[0]; err != nil {
			panic(err)
		}
	}
	for number := range disposablePartitions {
		if tp := disposableAt(number); w.check.live[tp] != nil {
			w.serve(tp, chance.Uint64())
		}
	}
}

// controllerKnows says whether a broker that is the controller answers for a topic.
func (w *world) controllerKnows(p *partitionTruth) bool {
	return slices.ContainsFunc(w.brokers, func(b *broker) bool {
		if b.control == nil || b.control.core == nil {
			return false
		}
		name, found := b.meta.Image().TopicName(p.id)
		return found && name == p.tp.Topic
	})
}

// growTopic adds a partition, as CreatePartitions does.
func (w *world) growTopic() {
	ctx, reg := context.Background(), w.coordinator.as(w.admin)
	found, err := reg.TopicAssignments(ctx, []string{disposable}, false)
	if err != nil {
		panic(err)
	}
	assignment := found[disposable]
	count := len(assignment.Partitions)
	if count == disposablePartitions || slices.ContainsFunc(w.check.parts, func(p *partitionTruth) bool { return p.tp.Topic == disposable && !p.gone && p.moving }) {
		return // as a broker refuses it while there is a reassignment
	}
	w.trace("grow", "topic %s to %d partitions", disposable, count+1)
	assignment.Partitions[int32(count)] = registry.Assignment{Replicas: w.replicasFor(w.topics + count)}
	if err := reg.SetTopicAssignment(ctx, disposable, &assignment); err != nil {
		panic(err)
	}
}

// serve gives a partition its clients, and these something to send until the faults are over.
func (w *world) serve(tp cluster.TopicPartition, seed uint64) {
	if w.served[tp] {
		return
	}
	w.served[tp] = true
	first := len(w.clients)
	w.addClients(tp)
	chance := rand.New(rand.NewPCG(seed, 2))
	for _, c := range w.clients[first:] {
		if !c.producer {
			continue
		}
		var offer func()
		offer = func() {
			if !w.calm {
				c.offer(1+chance.IntN(3), chance)
				w.after(time.Duration(20+chance.IntN(200))*time.Millisecond, offer)
			}
		}
		w.after(0, offer)
	}
}
