package main

import (
	"context"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/group"
	"understudy/internal/streaming/registry"
)

// begin builds the cluster, creates the topic, and lets the faults come.
func (w *world) begin() {
	for id := range w.config.brokers {
		w.brokers = append(w.brokers, newBroker(w, cluster.BrokerID(id+1)))
	}
	w.openAdmin()
	w.createTopic(topic, w.config.partitions)
	for _, b := range w.brokers {
		w.after(w.between(0, 300*time.Millisecond), b.start)
	}
	w.after(0, w.coordinator.tick)
	for p := range w.config.partitions {
		w.addClients(tpOf(p))
	}
	if w.config.members > 0 {
		w.createTopic(group.Topic, 1)
		for i := range w.config.members {
			m := newMember(w, i, i < w.config.static)
			w.members = append(w.members, m)
			w.after(w.between(0, time.Second), m.start)
		}
		w.after(time.Second, newKeeper(w).act)
	}
	for _, a := range w.schedule {
		w.at(a.at, func() { w.perform(a) })
	}
}

const clientsEach = 3 // of a partition: two producers, a reader

func (c *config) clients() int   { return clientsEach * c.partitions }
func (c *config) producers() int { return (clientsEach - 1) * c.partitions }

// producerAt is the place of a producer among the clients.
func (w *world) producerAt(producer int) int {
	return producer/(clientsEach-1)*clientsEach + producer%(clientsEach-1)
}

// addClients adds two producers and a reader.
func (w *world) addClients(tp cluster.TopicPartition) {
	for _, producer := range []bool{true, true, false} {
		c := newClient(w, len(w.clients), tp, producer)
		w.clients = append(w.clients, c)
		c.begin()
	}
}

// openAdmin gives the administrator a session.
func (w *world) openAdmin() {
	w.admin = w.coordinator.newSession(&broker{w: w, id: 0})
	w.coordinator.sessions[w.admin].timeout = time.Hour
	if err := w.coordinator.as(w.admin).EnsurePaths(context.Background()); err != nil {
		panic(err)
	}
}

// createTopic writes what an administrator would.
func (w *world) createTopic(name string, partitions int) {
	w.topics++
	assignment := registry.TopicAssignment{ID: cluster.TopicID{1, 2, 3, 4, 14: byte(w.topics >> 8), 15: byte(w.topics)}, Partitions: map[int32]registry.Assignment{}}
	for p := range partitions {
		assignment.Partitions[int32(p)] = registry.Assignment{Replicas: w.replicasFor(w.topics + p)}
	}
	if err := w.coordinator.as(w.admin).CreateTopics(context.Background(), []registry.NewTopic{{Name: name, Assignment: assignment}})[0]; err != nil {
		w.trace("create", "topic %s: %v", name, err)
	}
}

func (w *world) replicasFor(first int) (replicas []cluster.BrokerID) {
	for r := range w.config.factor {
		replicas = append(replicas, cluster.BrokerID((first+r)%w.config.brokers+1))
	}
	return replicas
}

func (b *broker) pause(d time.Duration) {
	w := b.w
	if !b.up || b.paused {
		return
	}
	w.trace("pause", "broker %d for %v", b.id, d)
	b.paused, b.pausedAt = true, w.now
	incarnation := b.incarnation
	w.after(d, func() {
		if b.incarnation != incarnation || !b.paused {
			return
		}
		w.trace("resume", "broker %d", b.id)
		b.paused = false
		if time.Duration(float64(w.now-b.pausedAt)*b.clockRate) >= 300*time.Millisecond && b.registered {
			b.unconfirmed = true
		}
		deferred := b.deferred
		b.deferred = nil
		for _, do := range deferred {
			w.inProcess(b, 0, do)
		}
	})
}

func (w *world) cut(cuts [][2]node, d time.Duration) {
	w.trace("cut", "%v for %v", cuts, d)
	for _, cut := range cuts {
		w.network.cut[cut] = true
	}
	w.after(d, func() {
		for _, cut := range cuts {
			delete(w.network.cut, cut)
		}
	})
}

func (w *world) meddle() {
	w.trace("meddle", "somebody deletes /controller")
	w.coordinator.as(w.admin).Execute(context.Background(), nil, []registry.Op{{Kind: registry.OpDelete, Path: registry.PathController, Version: registry.AnyVersion}})
}

// heal ends all faults.
func (w *world) heal() {
	w.trace("heal", "no more faults")
	w.calm = true
	clear(w.network.cut)
	for _, b := range w.brokers {
		b.dieAt = 0
		b.diskFault.badSync, b.diskFault.fullUntil = false, 0
	}
	for _, m := range w.members {
		if !m.alive {
			m.start()
		}
	}
}

// move asks for a partition's replicas in another order or at other brokers.
func (w *world) move(p *partitionTruth, chance *rand.Rand) {
	var replicas []int32
	for _, at := range chance.Perm(len(w.brokers))[:w.config.factor] {
		replicas = append(replicas, int32(at+1))
	}
	for _, b := range w.brokers {
		if b.control == nil || b.control.core == nil || b.paused {
			continue
		}
		request := kmsg.NewPtrAlterPartitionAssignmentsRequest()
		asked := kmsg.NewAlterPartitionAssignmentsRequestTopic()
		asked.Topic = p.tp.Topic
		part := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
		part.Partition, part.Replicas = p.tp.Partition, replicas
		asked.Partitions = append(asked.Partitions, part)
		request.Topics = append(request.Topics, asked)
		w.trace("move", "%v to %v", p, replicas)
		b.step(func() { b.control.request(request, func(kmsg.Response) {}) })
		return
	}
}

// stop is a controlled shutdown: leadership moves away, the logs are closed, the session ends.
func (b *broker) stop(attempts int) {
	w := b.w
	controller := b.meta.Image().ControllerID()
	leave := func() {
		w.trace("stop", "broker %d", b.id)
		_ = b.logs.Close(true)
		if s := w.coordinator.sessions[b.session]; s != nil {
			w.coordinator.expire(s, "closed")
		}
		b.kill(false)
	}
	if controller < 1 || attempts == 0 {
		leave()
		return
	}
	request := kmsg.NewPtrControlledShutdownRequest()
	request.Version = 3
	request.BrokerID, request.BrokerEpoch = int32(b.id), int64(b.epoch)
	to := w.brokers[controller-1]
	b.step(func() {
		b.linkTo(b.alter, controller).call(500*time.Millisecond, func(reply func(any)) {
			to.control.request(request, func(response kmsg.Response) { reply(responseOnWire(response)) })
		}, func(answer any, err error) {
			response, _ := answer.(*kmsg.ControlledShutdownResponse)
			if err != nil || response.ErrorCode != 0 || len(response.PartitionsRemaining) > 0 {
				w.inProcess(b, 50*time.Millisecond, func() { w.after(0, func() { b.stopAgain(attempts - 1) }) })
				return
			}
			incarnation := b.incarnation
			w.after(0, func() {
				if b.incarnation == incarnation && b.up && !b.paused {
					leave()
				}
			})
		})
	})
}

func (b *broker) stopAgain(attempts int) {
	if b.registered && !b.paused {
		b.stop(attempts)
	}
}

func ownerOf(value string) int {
	owner, _, _ := strings.Cut(value, "/")
	n, _ := strconv.Atoi(owner)
	return n
}

func serialOf(value string) int {
	_, serial, _ := strings.Cut(value, "/")
	n, _ := strconv.Atoi(serial)
	return n
}
