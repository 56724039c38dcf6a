package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	legacy "math/rand"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/coordination/jute"
	"understudy/internal/coordination/zkclient"
	streaming "understudy/internal/streaming/broker"
	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/commitlog"
	"understudy/internal/streaming/group"
	"understudy/internal/streaming/group/classic"
	"understudy/internal/streaming/metadata"
	"understudy/internal/streaming/registry"
	"understudy/internal/streaming/replication"
	"understudy/internal/vfs"
)

// topic is the one that lasts; disposable is deleted and created again.
const (
	topic      = "t"
	disposable = "d"
)

func tpOf(partition int) cluster.TopicPartition {
	return cluster.TopicPartition{Topic: topic, Partition: int32(partition)}
}

// broker is one broker: a machine with a disk and a clock, and now and then a process.
type broker struct {
	w           *world
	id          cluster.BrokerID
	disk        *vfs.Mem
	clockOffset time.Duration
	clockRate   float64

	incarnation int
	up          bool
	registered  bool // it has a registration and listens
	startedAt   time.Duration
	paused      bool
	pausedAt    time.Duration
	deferred    []func()
	inStep      bool
	dying       bool                // killed in the middle of a step
	deathDisk   *vfs.Mem            // the disk at that moment
	diskOps     int                 // since the start of the process
	dieAt       int                 // number of the disk operation before which it dies; 0: none
	dieByPower  bool                //
	wiped       bool                // lost power and was not taken out of all ISRs yet
	powerLost   cluster.BrokerEpoch // of the last incarnation that lost its power; unknown: none
	formerEpoch cluster.BrokerEpoch // of the last incarnation before this one that was registered
	savedOnDisk jute.SessionID

	harmed    bool      // its files have been damaged, and are not whole again
	stray     bool      // and all that is damaged is in logs that are not assigned to it any more
	diskFault diskFault // of the present process
	failed    bool      // it has given its log directory up

	logs    *commitlog.Manager
	serving *streaming.Stepped
	rep     *replication.Stepped
	groups  *group.Stepped
	meta    *metadata.Cache
	session jute.SessionID
	old     []jute.SessionID
	epoch   cluster.BrokerEpoch
	zk      *link
	links   map[cluster.BrokerID]*link // fetching
	alter   map[cluster.BrokerID]*link
	control *controllerShell
	expired bool // the session is known to be gone
	confirm bool // a confirmation of the session is under way

	// What the checker knows of its right to lead.
	lostEpoch   cluster.BrokerEpoch // of the last incarnation whose session was known to be lost
	named       map[cluster.TopicPartition]cluster.BrokerEpoch
	lossSeen    bool
	unconfirmed bool            // it was paused, and its session is not confirmed since
	stepNo      uint64          // of the step under way
	aborted     map[uint64]bool // steps in whose middle it died: nothing of theirs left the machine
}

func newBroker(w *world, id cluster.BrokerID) *broker {
	skew := 3 * time.Minute
	if w.config.retention > 0 {
		skew = 100 * time.Millisecond // or offsets would expire at once
	}
	return &broker{
		w: w, id: id, disk: vfs.NewMem(), aborted: map[uint64]bool{}, powerLost: cluster.UnknownBrokerEpoch, formerEpoch: cluster.UnknownBrokerEpoch, epoch: cluster.UnknownBrokerEpoch,
		clockOffset: w.between(-skew, skew), clockRate: 0.95 + 0.1*w.chance.Float64(),
	}
}

// clock is the broker's wall clock.
func (b *broker) clock() time.Time {
	return time.Unix(1_700_000_000, 0).Add(b.clockOffset + time.Duration(float64(b.w.now)*b.clockRate))
}

// listening says whether a connection is accepted: Kafka, and we, open the port late.
func (b *broker) listening() bool { return b.up && b.rep != nil && b.registered }

// step runs something in the process, and what follows from it.
func (b *broker) step(do func()) {
	switch {
	case !b.up:
		return
	case b.paused:
		b.deferred = append(b.deferred, do)
		return
	case b.inStep:
		do()
		return
	}
	b.inStep = true
	b.w.serial++
	b.stepNo = b.w.serial
	do()
	if !b.dying {
		b.pump()
	}
	b.inStep = false
	if b.dying {
		b.aborted[b.stepNo] = true
		b.finishDeath()
		return
	}
	b.w.check.afterStep(b)
}

// script sees every disk operation of the process.
func (b *broker) script(incarnation int) func(vfs.Operation, string) error {
	return func(op vfs.Operation, path string) error {
		if b.incarnation != incarnation {
			return nil
		}
		b.diskOps++
		if b.dieAt > 0 && b.diskOps >= b.dieAt && !b.dying && b.inStep {
			b.w.trace("kill", "broker %d dies before %s %s (power %v)", b.id, op, path, b.dieByPower)
			b.dying = true
			b.dieByPower = b.dieByPower && b.w.check.mayLosePower(b)
			b.deathDisk = b.diskAfter(b.dieByPower)
		}
		return b.outcome(op, path)
	}
}

// diskAfter is the disk as the next process finds it.
func (b *broker) diskAfter(power bool) *vfs.Mem {
	if !power {
		return b.disk.Clone()
	}
	return b.disk.Crash(legacy.New(legacy.NewSource(int64(b.w.chance.Uint64() >> 1))))
}

// kill ends the process between two steps.
func (b *broker) kill(power bool) {
	if !b.up {
		return
	}
	b.w.trace("kill", "broker %d (power %v)", b.id, power)
	b.dieByPower = power
	b.deathDisk = b.diskAfter(power)
	b.finishDeath()
}

func (b *broker) finishDeath() {
	b.disk = b.deathDisk
	b.deathDisk = nil
	b.up, b.dying, b.paused, b.registered = false, false, false, false
	b.deferred = nil
	b.incarnation++
	b.rep, b.logs, b.control, b.serving, b.groups = nil, nil, nil, nil, nil
	b.wiped = b.wiped || b.dieByPower && !b.w.config.durable
	if b.dieByPower {
		b.powerLost = max(b.epoch, b.formerEpoch)
	}
	b.w.check.died(b)
	if b.dieByPower && !b.w.config.durable {
		for _, other := range b.w.brokers {
			other.dieAt = 0
		}
	}
	if s := b.w.coordinator.sessions[b.session]; s != nil && s.broker == b && (b.dieByPower || !b.w.oneIn(3)) {
		s.doomed = b.w.now + b.w.between(50*time.Millisecond, 300*time.Millisecond)
	}
	b.awaitStart()
}

// awaitStart starts the broker again, after a power loss not before every leader has dropped it
// from its ISR. A partition without a leader may be waiting for it.
func (b *broker) awaitStart() {
	incarnation := b.incarnation
	b.w.after(b.w.between(10*time.Millisecond, 1500*time.Millisecond), func() {
		if b.up || b.incarnation != incarnation {
			return
		}
		if b.wiped && b.w.check.counted(b.id, true) {
			b.awaitStart()
			return
		}
		b.start()
	})
}

func (b *broker) topicConfig() commitlog.LogConfig {
	config := commitlog.DefaultLogConfig()
	config.MinInsyncReplicas = int32(b.w.config.minISR)
	config.SegmentBytes = b.w.config.segmentBytes
	config.IndexIntervalBytes = 200
	config.RetentionMs = -1
	if b.w.config.durable {
		config.FlushMessages = 1
	}
	return config
}

// start begins a process: recover the logs, take a session, register.
func (b *broker) start() {
	w := b.w
	b.up, b.dying, b.registered, b.expired, b.confirm = true, false, false, false, false
	b.unconfirmed = false
	b.lossSeen, b.named = false, map[cluster.TopicPartition]cluster.BrokerEpoch{}
	b.startedAt = w.now
	b.diskOps, b.dieAt, b.dieByPower = 0, 0, false
	b.diskFault, b.failed = diskFault{}, false
	b.formerEpoch = max(b.epoch, b.formerEpoch)
	b.epoch = cluster.UnknownBrokerEpoch
	w.trace("start", "broker %d", b.id)
	logs, err := commitlog.Open(commitlog.Config{
		Dirs: []string{"/logs"}, FS: vfs.WithFaults(b.disk, b.script(b.incarnation)), ClusterID: "sim", BrokerID: b.id,
		RecoveryThreads: 1, FlushBytes: w.config.flushBytes, Stepped: true, Now: b.clock, Logger: w.logger.With("broker", int(b.id)),
		OnDirFailure: b.dirFailed,
	})
	if err != nil {
		w.fail("recovery", "broker %d cannot open its logs: %v", b.id, err)
	}
	b.logs, b.meta = logs, metadata.New()
	b.links, b.alter = map[cluster.BrokerID]*link{}, map[cluster.BrokerID]*link{}
	b.serving = streaming.NewStepped(streaming.SteppedConfig{
		ID: b.id, Epoch: func() cluster.BrokerEpoch { return b.epoch }, Metadata: b.meta, Stepping: replication.Stepping{Clock: b.clock, ListOffsets: b.askOffsets},
		Replication: b.replicationConfig(logs), Groups: b.groupConfig(), OffsetsPartitions: 1, FetchMaxBytes: 5000, FetchSessions: 8,
		UUID: func() (uuid [16]byte) {
			w.uuids++
			binary.BigEndian.PutUint64(uuid[:], w.uuids)
			return uuid
		},
		Logger: w.logger.With("broker", int(b.id)),
	})
	b.rep, b.groups = b.serving.Replicas, b.serving.Groups
	b.zk = w.network.link(node(b.id), coordinatorNode)
	b.control = newControllerShell(b)
	b.old = nil
	if b.savedOnDisk != 0 {
		b.old = append(b.old, b.savedOnDisk)
	}
	b.session = 0
	b.w.check.started(b)
	b.every(90*time.Millisecond, b.tick)
	b.every(15*time.Millisecond, func() {
		b.rep.Expire()
		b.groups.Load()
		b.groups.Tick()
	})
	b.every(w.between(300*time.Millisecond, 1200*time.Millisecond), b.logs.Background)
	b.every(w.config.sessionTimeout/4, b.ping)
	b.every(w.between(500*time.Millisecond, time.Second), b.groups.ExpireOffsets)
	if w.config.disk {
		b.every(100*time.Millisecond, b.mend)
	}
	if w.config.durable {
		b.every(w.between(time.Millisecond, 60*time.Millisecond), b.rep.Sync)
	}
	b.beginSession()
}

func (b *broker) replicationConfig(logs *commitlog.Manager) replication.Config {
	return replication.Config{
		Logs:              logs,
		TopicConfig:       func(string) (commitlog.LogConfig, error) { return b.topicConfig(), nil },
		ConfirmSession:    func(context.Context) error { return nil }, // turns pause detection on; asked for in pump
		ReplicaLagTimeMax: b.w.config.lagTime, FetchMaxWait: 100 * time.Millisecond, SocketTimeout: 500 * time.Millisecond,
		PauseLimit: 300 * time.Millisecond, Logger: b.w.logger.With("broker", int(b.id)),
		FetchMaxBytes: 700, FetchResponseMaxBytes: 1500,
	}
}

func (b *broker) groupConfig() group.Config {
	return group.Config{
		Settings: classic.Settings{
			MinSessionTimeout: 200 * time.Millisecond, InitialRebalanceDelay: 60 * time.Millisecond, OffsetsRetention: time.Hour, MaxOffsetMetadata: 100,
		},
		CommitTimeout: 500 * time.Millisecond, LoadBufferBytes: 500, MessageMaxBytes: 2000, Logger: b.w.logger.With("broker", int(b.id)),
	}
}

// serve carries out a request as the broker's handlers do. done runs once, when it is answered.
func (b *broker) serve(request kmsg.Request, client node, done func(kmsg.Response, error)) {
	b.serveOn(0, request, client, done)
}

// serveOn is serve for a request that comes on a connection whose number matters.
func (b *broker) serveOn(connection uint64, request kmsg.Request, client node, done func(kmsg.Response, error)) {
	b.serving.Serve(request, fmt.Sprintf("client-%d", client), connection, func(response kmsg.Response, err error) {
		if !b.dying { // nothing of this step leaves the machine
			done(response, err)
		}
	})
}

// topicIDOf is the id of the topic whose replica the broker has.
func (b *broker) topicIDOf(tp cluster.TopicPartition) (id cluster.TopicID) {
	if log := b.logs.Get(tp); log != nil {
		id = log.TopicID()
	}
	return id
}

// every runs something in this process again and again.
func (b *broker) every(interval time.Duration, do func()) {
	var again func()
	again = func() {
		do()
		b.w.inProcess(b, interval+b.w.between(0, interval/8), again)
	}
	b.w.inProcess(b, interval, again)
}

func (b *broker) tick() { b.rep.Tick() }

// beginSession connects, closes the session of the incarnation before, and registers.
func (b *broker) beginSession() {
	type begun struct{ id jute.SessionID }
	b.zk.call(400*time.Millisecond, func(reply func(any)) {
		c := b.w.coordinator
		for _, old := range b.old {
			if s := c.sessions[old]; s != nil && !b.w.oneIn(4) {
				c.expire(s, "closed by the next incarnation")
			}
		}
		reply(begun{c.newSession(b)})
	}, func(answer any, err error) {
		if err != nil {
			b.w.inProcess(b, 20*time.Millisecond, b.beginSession)
			return
		}
		b.session = answer.(begun).id
		b.savedOnDisk = b.session
		b.old = append(b.old, b.session)
		b.register()
	})
}

// register enters the broker under /brokers/ids and goes on to the controller election.
func (b *broker) register() {
	session := b.session
	type registration struct {
		epoch cluster.BrokerEpoch
		err   error
	}
	broker := cluster.Broker{Stop: b.lastStop(), ID: b.id, Endpoints: []cluster.Endpoint{{Listener: "PLAINTEXT", Protocol: "PLAINTEXT", Host: fmt.Sprintf("b%d", b.id), Port: 9092}}}
	previous := append([]jute.SessionID(nil), b.old...)
	nowMs := b.clock().UnixMilli()
	b.zk.call(400*time.Millisecond, func(reply func(any)) {
		reg := b.w.coordinator.as(session)
		if err := reg.EnsurePaths(context.Background()); err != nil {
			reply(registration{err: err})
			return
		}
		epoch, err := reg.RegisterBroker(context.Background(), registry.Registration{Broker: broker, NowMs: nowMs, Previous: previous})
		reply(registration{epoch, err})
	}, func(answer any, err error) {
		if b.session != session {
			return
		}
		if err == nil {
			err = answer.(registration).err
		}
		switch {
		case err == nil:
			b.epoch = answer.(registration).epoch
			b.registered = true
			b.w.trace("registered", "broker %d epoch %d session 0x%x", b.id, b.epoch, b.session)
			b.expired = false
			b.control.renewed()
		case isExpired(err):
			b.beginSession()
		default:
			b.w.inProcess(b, 50*time.Millisecond, func() {
				if b.session == session {
					b.register()
				}
			})
		}
	})
}

// lastStop is what the registration says of the end of the process before.
func (b *broker) lastStop() cluster.StopKind {
	if b.logs.UncleanStop() {
		return cluster.StopUnclean
	}
	return cluster.StopClean
}

func isExpired(err error) bool { return errors.Is(err, zkclient.ErrSessionExpired) }

// ping keeps the session, and learns of its end.
func (b *broker) ping() {
	session := b.session
	if session == 0 || b.expired {
		return
	}
	b.zk.call(b.w.config.sessionTimeout/2, func(reply func(any)) {
		c := b.w.coordinator
		c.as(session)
		reply(c.sessions[session] != nil)
	}, func(answer any, err error) {
		if err == nil && !answer.(bool) {
			b.onExpired(session)
		}
		if err == nil && answer.(bool) {
			if s := b.w.coordinator.sessions[session]; s != nil {
				b.w.coordinator.deliver(s, b.zk)
			}
		}
	})
}

// onExpired is what a broker does when it hears that its session is gone (broker/session.go).
func (b *broker) onExpired(session jute.SessionID) {
	if b.session != session || b.expired {
		return
	}
	b.w.trace("expired", "broker %d learns that session 0x%x is gone", b.id, session)
	b.expired = true
	b.lossSeen, b.lostEpoch = true, max(b.lostEpoch, b.epoch)
	b.rep.SuspendLeadership("session expired")
	b.control.expired()
	b.beginSession()
}

// onWatch takes a watch event, in order.
func (b *broker) onWatch(session jute.SessionID, event zkclient.Event) {
	if session == b.session && !b.expired {
		b.control.onWatch(event)
	}
}

// pump carries what the process wants to send now.
func (b *broker) pump() {
	if b.rep == nil || !b.registered {
		return
	}
	b.control.pump()
	for _, fetch := range b.rep.NextFetches() {
		b.fetch(fetch)
	}
	if request := b.rep.NextAlterPartition(); request != nil {
		b.alterPartition(request)
	}
	if pause, waits := b.rep.Unconfirmed(); waits && !b.confirm {
		b.confirmSession(pause)
	}
}

// confirmSession asks whether the registration stands, after a pause (sessionKeeper.confirm).
func (b *broker) confirmSession(pause uint64) {
	b.confirm = true
	session, epoch := b.session, b.epoch
	b.zk.call(300*time.Millisecond, func(reply func(any)) {
		result := store{b.w.coordinator, session}.Do(context.Background(), zkclient.Exists(registry.BrokerPath(b.id), false))
		if result.Err == nil && cluster.BrokerEpoch(result.Stat.Czxid) != epoch {
			result.Err = jute.NoNode
		}
		if result.Err == nil {
			b.w.coordinator.as(session)
		}
		reply(result.Err)
	}, func(answer any, err error) {
		if err == nil && answer != nil {
			err = answer.(error)
		}
		if err == nil && session == b.session && !b.expired {
			b.confirm = false
			b.rep.Confirmed(pause)
			b.unconfirmed = false
			return
		}
		b.w.inProcess(b, 50*time.Millisecond, func() { b.confirm = false })
	})
}

func (b *broker) linkTo(links map[cluster.BrokerID]*link, to cluster.BrokerID) *link {
	if links[to] == nil {
		links[to] = b.w.network.link(node(b.id), node(to))
	}
	return links[to]
}

// fetch carries a fetcher's request.
func (b *broker) fetch(fetch replication.SteppedFetch) {
	if int(fetch.Leader) > len(b.w.brokers) || fetch.Leader < 1 {
		b.w.inProcess(b, time.Millisecond, func() { b.rep.Fetched(fetch, nil, errRefused) })
		return
	}
	leader, request := b.w.brokers[fetch.Leader-1], requestOnWire(fetch.Request)
	b.linkTo(b.links, fetch.Leader).call(500*time.Millisecond, func(reply func(any)) {
		leader.serve(request, node(b.id), func(response kmsg.Response, err error) { reply(served{response, err}) })
	}, func(answer any, err error) {
		response, err := responseOf[*kmsg.FetchResponse](answer, err)
		b.rep.Fetched(fetch, response, err)
	})
}

// served is what a broker answers.
type served struct {
	response kmsg.Response
	err      error // the connection was closed
}

func responseOf[R kmsg.Response](answer any, err error) (response R, _ error) {
	if err != nil {
		return response, err
	}
	got := answer.(served)
	if got.err != nil {
		return response, got.err
	}
	return got.response.(R), nil
}

// askOffsets stands for a ListOffsets on a fetcher's connection; it takes no time, but may
// fail.
func (b *broker) askOffsets(leader cluster.BrokerID, request *kmsg.ListOffsetsRequest) (answer *kmsg.ListOffsetsResponse, err error) {
	n, other := b.w.network, b.w.brokers[leader-1]
	here, there := node(b.id), node(leader)
	if !other.listening() || other.paused || n.cut[[2]node{here, there}] || n.cut[[2]node{there, here}] {
		return nil, errTimeout
	}
	other.serve(request, here, func(response kmsg.Response, failed error) {
		answer, err = responseOf[*kmsg.ListOffsetsResponse](served{response, failed}, nil)
	})
	return answer, err
}

// alterPartition carries an ISR change to whom this broker takes for the controller.
func (b *broker) alterPartition(request *kmsg.AlterPartitionRequest) {
	controller := b.meta.Image().ControllerID()
	request = requestOnWire(request)
	failed := func() { b.rep.AlterPartitionAnswered(nil, errRefused) }
	if controller < 1 {
		b.w.inProcess(b, 10*time.Millisecond, failed)
		return
	}
	to := b.w.brokers[controller-1]
	b.linkTo(b.alter, controller).call(300*time.Millisecond, func(reply func(any)) {
		to.control.request(request, func(response kmsg.Response) { reply(responseOnWire(response)) })
	}, func(answer any, err error) {
		response, _ := answer.(*kmsg.AlterPartitionResponse)
		b.rep.AlterPartitionAnswered(response, err)
	})
}

// serveControl carries out a request of the controller.
func (b *broker) serveControl(request kmsg.Request, from cluster.BrokerID, connection uint64, reply func(any)) {
	b.serveOn(connection, request, node(from), func(response kmsg.Response, err error) {
		if named, ok := request.(*kmsg.LeaderAndISRRequest); ok && err == nil && response.(*kmsg.LeaderAndISRResponse).ErrorCode == 0 {
			b.noteNamed(named)
		}
		reply(served{response, err})
	})
}

// noteNamed remembers, for the checker, to which incarnation the controller gave leaderships.
func (b *broker) noteNamed(request *kmsg.LeaderAndISRRequest) {
	for _, t := range request.TopicStates {
		for _, state := range t.PartitionStates {
			if cluster.BrokerID(state.Leader) == b.id {
				tp := cluster.TopicPartition{Topic: t.Topic, Partition: state.Partition}
				b.named[tp] = max(b.named[tp], cluster.BrokerEpoch(request.BrokerEpoch))
			}
		}
	}
}
