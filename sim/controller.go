package main

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/zkclient"
	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/controller"
	"understudy/internal/streaming/registry"
)

// controllerShell drives a controller.Core as controller/shell.go does: one event at a time,
// none while results of operations are owed.
type controllerShell struct {
	b         *broker
	core      *controller.Core
	fence     registry.Fence
	queue     []queued
	waiting   map[controller.Event]bool // those in queue that are there once
	busy      bool
	elections int // the latest look at /controller
	term      int // changes when the core comes or goes
	channels  map[cluster.BrokerID]*channel
	standing  bool // in elections: the session is alive and registered
	current   *queued
	// unheard is an election that was won under a session and not heard of: the registry
	// finds that out when it repeats the operation (checkElection).
	unheard        *registry.Fence
	unheardSession jute.SessionID
	// believed are the incarnations of brokers, by epoch, for which the operations under way
	// were decided.
	believed map[cluster.BrokerID]cluster.BrokerEpoch
}

type queued struct {
	event   controller.Event
	elect   bool
	request kmsg.Request
	reply   func(kmsg.Response)
	term    int // 0: any
}

func newControllerShell(b *broker) *controllerShell {
	return &controllerShell{b: b, channels: map[cluster.BrokerID]*channel{}, waiting: map[controller.Event]bool{}, term: 1}
}

func (s *controllerShell) once(event controller.Event) {
	if !s.waiting[event] {
		s.waiting[event] = true
		s.queue = append(s.queue, queued{event: event})
	}
}

func (s *controllerShell) wantElection() {
	for i := range s.queue {
		if s.queue[i].elect {
			return
		}
	}
	s.queue = append(s.queue, queued{elect: true})
}

// renewed: the broker is registered under a new session.
func (s *controllerShell) renewed() {
	s.resign("new session")
	s.standing = true
	s.wantElection()
}

func (s *controllerShell) expired() {
	s.standing = false
	s.resign("session expired")
	s.elections++ // whatever is under way is void
	s.busy = false
}

func (s *controllerShell) onWatch(event zkclient.Event) {
	if event.Path == registry.PathController {
		s.wantElection()
	} else if translated := controller.Translate(event); translated != nil {
		s.once(translated)
	}
}

// request is a request to the controller; others than the active one refuse.
func (s *controllerShell) request(request kmsg.Request, reply func(kmsg.Response)) {
	if s.core == nil {
		reply(controller.NotController(request))
		return
	}
	s.queue = append(s.queue, queued{event: controller.Requested(request), request: request, reply: reply})
}

// pump takes events until the core waits for results.
func (s *controllerShell) pump() {
	for !s.busy && len(s.queue) > 0 && !s.b.dying {
		next := s.queue[0]
		s.queue = s.queue[1:]
		switch {
		case next.elect:
			s.elect()
		case next.reply == nil && next.term == 0:
			delete(s.waiting, next.event)
			fallthrough
		default:
			if s.core == nil || next.term != 0 && next.term != s.term {
				if next.reply != nil {
					next.reply(controller.NotController(next.request))
				}
				continue
			}
			s.current = &next
			s.perform(s.core.Step(next.event, s.b.clock()))
		}
	}
}

type electionOutcome struct {
	fence   registry.Fence
	won     bool
	current cluster.BrokerID
	owned   bool
	err     error
}

// elect finds out who the controller is and stands if nobody is.
func (s *controllerShell) elect() {
	if !s.standing {
		return
	}
	b := s.b
	session, term := b.session, s.term
	active := s.core != nil
	fence := s.fence
	nowMs := b.clock().UnixMilli()
	s.busy = true
	s.elections++
	mine := s.elections
	b.zk.call(400*time.Millisecond, func(reply func(any)) {
		reg := b.w.coordinator.as(session)
		ctx := context.Background()
		var out electionOutcome
		out.current, out.err = reg.Controller(ctx, true)
		switch {
		case out.err != nil:
		case out.current == b.id && !active && s.unheard != nil && s.unheardSession == session:
			out.fence, out.won = *s.unheard, true
		case out.current == b.id && !active:
			if out.owned, out.err = reg.OwnsController(ctx); out.err == nil && out.owned {
				out.err = reg.ResignController(ctx, fence)
			}
		case out.current == cluster.NoBroker && !active:
			out.fence, out.won, out.current, out.err = reg.ElectController(ctx, b.id, nowMs)
			if out.won {
				b.w.check.controllerElected(b, out.fence)
				s.unheard, s.unheardSession = &out.fence, session
			}
		}
		reply(out)
	}, func(answer any, err error) {
		if mine != s.elections {
			return
		}
		s.busy = false
		if s.term != term || b.session != session {
			return
		}
		out, _ := answer.(electionOutcome)
		if err == nil {
			err = out.err
		}
		switch {
		case err != nil && isExpired(err):
			b.onExpired(session)
		case err != nil:
			b.w.inProcess(b, 50*time.Millisecond, s.wantElection)
		case s.core != nil && out.current == b.id:
		case s.core != nil:
			s.resign("another controller, or none, is registered")
			s.wantElection()
		case out.won:
			s.unheard = nil
			s.take(out.fence)
		}
	})
}

func (s *controllerShell) take(fence registry.Fence) {
	b := s.b
	b.w.trace("controller", "broker %d elected, epoch %d", b.id, fence.Epoch)
	s.fence = fence
	s.term++
	ids := byte(0)
	s.core = controller.NewCore(controller.CoreConfig{
		Self: b.id, Epoch: fence.Epoch, Listener: "PLAINTEXT",
		Settings: controller.Settings{LeaderImbalancePercent: 10, DeleteTopics: true, UncleanStopPatience: 3 * time.Second},
		NewTopicID: func() cluster.TopicID {
			ids++
			return cluster.TopicID{9, byte(fence.Epoch), ids}
		},
	})
	term := s.term
	var rebalance func()
	rebalance = func() {
		if s.term == term && s.core != nil {
			s.queue = append(s.queue, queued{event: controller.RebalanceTicked(), term: term})
			b.w.inProcess(b, b.w.between(time.Second, 3*time.Second), rebalance)
		}
	}
	b.w.inProcess(b, b.w.between(time.Second, 3*time.Second), rebalance)
	s.current = &queued{}
	s.perform(s.core.Step(controller.Elected(), b.clock()))
}

// perform carries out effects; their operations go to the coordinator in several messages, so
// that others' come between.
func (s *controllerShell) perform(effects controller.Effects) {
	b := s.b
	for _, line := range effects.Logs {
		b.w.logger.With("broker", int(b.id)).Log(context.Background(), line.Level, line.Message, line.Args...)
	}
	for _, change := range effects.Channels {
		s.changeChannel(change)
	}
	for _, send := range effects.Sends {
		if ch := s.channels[send.To]; ch != nil {
			ch.queue = append(ch.queue, send.Request)
			ch.pump()
		}
	}
	for _, response := range effects.Replies {
		s.answer(response)
	}
	if effects.WakeAfter > 0 {
		term := s.term
		b.w.inProcess(b, effects.WakeAfter, func() {
			if s.term == term && s.core != nil {
				s.queue = append(s.queue, queued{event: controller.InquiryTicked(), term: term})
			}
		})
	}
	if effects.Resign != nil {
		s.abdicate(effects.Resign)
		return
	}
	if len(effects.Ops) == 0 {
		if s.current != nil && s.current.reply != nil {
			s.answer(controller.NotController(s.current.request))
		}
		s.current = nil
		return
	}
	s.busy = true
	s.believed = map[cluster.BrokerID]cluster.BrokerEpoch{}
	for id, ch := range s.channels {
		s.believed[id] = ch.epoch
	}
	s.execute(effects.Ops, nil)
}

func (s *controllerShell) answer(response kmsg.Response) {
	if s.current != nil && s.current.reply != nil {
		reply := s.current.reply
		s.current.reply = nil
		reply(response)
	}
}

// execute sends the next few operations; one whose answer is lost is sent again, as the
// registry does.
func (s *controllerShell) execute(ops []registry.Op, results []registry.OpResult) {
	b, term, session, fence, believed := s.b, s.term, s.b.session, s.fence, s.believed
	if len(ops) == len(results) {
		s.busy = false
		s.perform(s.core.Complete(results, b.clock()))
		return
	}
	count := min(len(ops)-len(results), 1+b.w.chance.IntN(4))
	now := ops[len(results) : len(results)+count]
	b.zk.call(300*time.Millisecond, func(reply func(any)) {
		b.w.check.writer, b.w.check.believed = &fence, believed
		reply(b.w.coordinator.as(session).Execute(context.Background(), &fence, now))
		b.w.check.writer = nil
	}, func(answer any, err error) {
		if s.term != term {
			return
		}
		if err != nil {
			b.w.inProcess(b, 5*time.Millisecond, func() {
				if s.term == term {
					s.execute(ops, results)
				}
			})
			return
		}
		s.execute(ops, append(results, answer.([]registry.OpResult)...))
	})
}

func (s *controllerShell) abdicate(reason error) {
	b, fence, session := s.b, s.fence, s.b.session
	s.resign(reason.Error())
	if isExpired(reason) {
		b.onExpired(session)
		return
	}
	if !errors.Is(reason, registry.ErrControllerMoved) {
		b.zk.call(300*time.Millisecond, func(reply func(any)) {
			reply(b.w.coordinator.as(session).ResignController(context.Background(), fence))
		}, func(any, error) {})
	}
	b.w.inProcess(b, 100*time.Millisecond, s.wantElection)
}

func (s *controllerShell) resign(reason string) {
	if s.core == nil {
		return
	}
	s.b.w.trace("controller", "broker %d resigns epoch %d: %s", s.b.id, s.fence.Epoch, reason)
	s.core = nil
	s.term++
	s.busy = false
	if s.current != nil && s.current.reply != nil {
		s.answer(controller.NotController(s.current.request))
	}
	s.current = nil
	s.channels = map[cluster.BrokerID]*channel{}
}

// channel is the controller's way to one incarnation of a broker (controller/channel.go).
type channel struct {
	s        *controllerShell
	to       cluster.BrokerID
	epoch    cluster.BrokerEpoch
	term     int
	link     *link
	queue    []kmsg.Request
	busy     bool
	refusals int
	reported bool
	reached  bool
}

func (s *controllerShell) changeChannel(change controller.ChannelChange) {
	id := change.Broker.ID
	delete(s.channels, id)
	if !change.Remove {
		s.channels[id] = &channel{s: s, to: id, epoch: change.Broker.Epoch, term: s.term, link: s.b.w.network.link(node(s.b.id), node(id))}
		s.channels[id].probe()
	}
}

func (ch *channel) gone() bool { return ch.s.channels[ch.to] != ch || ch.s.term != ch.term }

func (ch *channel) post(event controller.Event) {
	if event != nil {
		ch.s.queue = append(ch.s.queue, queued{event: event, term: ch.term})
	}
}

// probe looks at the connection while nothing is sent: a real channel sees it close.
func (ch *channel) probe() {
	b := ch.s.b
	b.w.inProcess(b, 25*time.Millisecond, func() {
		if ch.gone() {
			return
		}
		if !ch.busy {
			ch.attempt(nil)
		}
		ch.probe()
	})
}

func (ch *channel) pump() {
	if !ch.busy && len(ch.queue) > 0 && !ch.gone() {
		ch.attempt(ch.queue[0])
	}
}

// attempt sends a request, or only tries the connection.
func (ch *channel) attempt(request kmsg.Request) {
	b := ch.s.b
	other := b.w.brokers[ch.to-1]
	ch.busy = true
	var carried kmsg.Request
	if request != nil {
		carried = requestOnWire(request)
	}
	ch.link.call(400*time.Millisecond, func(reply func(any)) {
		if request == nil {
			reply(nil)
			return
		}
		other.serveControl(carried, b.id, ch.link.serving, reply)
	}, func(answer any, err error) {
		ch.busy = false
		if ch.gone() {
			return
		}
		var response kmsg.Response
		if request != nil {
			response, err = responseOf[kmsg.Response](answer, err)
		}
		if err != nil {
			ch.failed(err)
			return
		}
		ch.refusals, ch.reached = 0, true
		if request != nil {
			ch.queue = ch.queue[1:]
			ch.answered(request, response)
		}
		ch.pump()
	})
}

func (ch *channel) failed(err error) {
	b := ch.s.b
	if errors.Is(err, errRefused) {
		ch.refusals++
		if ch.refusals >= 2 && !ch.reported && ch.reached {
			ch.reported = true
			ch.post(controller.BrokerRefused(ch.to, ch.epoch))
		}
	} else {
		ch.refusals = 0
	}
	b.w.inProcess(b, 10*time.Millisecond, ch.pump)
}

func (ch *channel) answered(request kmsg.Request, response kmsg.Response) {
	var code int16
	switch response := response.(type) {
	case *kmsg.LeaderAndISRResponse:
		code = response.ErrorCode
	case *kmsg.UpdateMetadataResponse:
		code = response.ErrorCode
	case *kmsg.StopReplicaResponse:
		code = response.ErrorCode
	}
	ch.post(controller.Answered(ch.to, ch.epoch, request, response))
	if ch.reported && code != kerr.StaleBrokerEpoch.Code {
		ch.reported = false
		ch.post(controller.BrokerAnswered(ch.to, ch.epoch))
	}
}
