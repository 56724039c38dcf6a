package replication

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/commitlog"
	"understudy/internal/streaming/partition"
)

// CheckControl is the common validation of control requests, for the broker's UpdateMetadata:
// nil, STALE_BROKER_EPOCH or STALE_CONTROLLER_EPOCH. A controller epoch that passes is
// remembered.
func (m *Manager) CheckControl(brokerEpoch cluster.BrokerEpoch, controllerEpoch cluster.ControllerEpoch) error {
	m.control.Lock()
	defer m.control.Unlock()
	return m.checkControlLocked(brokerEpoch, controllerEpoch)
}

// checkControlLocked lets a broker epoch pass that is larger than ours: the controller may
// learn the czxid of a registration before the broker itself does.
func (m *Manager) checkControlLocked(brokerEpoch cluster.BrokerEpoch, controllerEpoch cluster.ControllerEpoch) error {
	if brokerEpoch != cluster.UnknownBrokerEpoch && brokerEpoch < m.config.Epoch() {
		return kerr.StaleBrokerEpoch
	}
	if controllerEpoch < m.control.controllerEpoch {
		return kerr.StaleControllerEpoch
	}
	m.control.controllerEpoch = controllerEpoch
	return nil
}

// transition is one partition of a LeaderAndIsr on its way.
type transition struct {
	host       *hosted
	assignment partition.Assignment
	code       *int16 // the partition's error code in the response
}

// LeaderAndISR carries out the controller's request. Requests of the three control APIs are
// serialised inside; the caller keeps their order of arrival.
//
// New leaders first: clients wait for them, and followers for them. No fsync and, for a
// partition that has a log, no read from the ensemble stands in their way.
func (m *Manager) LeaderAndISR(request *kmsg.LeaderAndISRRequest) *kmsg.LeaderAndISRResponse {
	m.control.Lock()
	defer m.control.Unlock()
	response := request.ResponseKind().(*kmsg.LeaderAndISRResponse)
	brokerEpoch := cluster.BrokerEpoch(request.BrokerEpoch)
	if request.Version < 2 {
		brokerEpoch = cluster.UnknownBrokerEpoch
	}
	if err := m.checkControlLocked(brokerEpoch, cluster.ControllerEpoch(request.ControllerEpoch)); err != nil {
		m.logger.Warn("leader and isr refused", "controller", request.ControllerID, "controllerEpoch", request.ControllerEpoch,
			"brokerEpoch", request.BrokerEpoch, "err", err)
		response.ErrorCode = errorCode(err)
		return response
	}
	work := &roleWork{m: m, request: request, brokerEpoch: brokerEpoch, configs: map[string]topicConfig{}, effects: takeEffects()}
	work.readConfigs()
	work.judgeAll(response)
	work.makeLeaders()
	work.makeFollowers()
	m.run(work.effects)
	m.completeStrangers()
	m.noteLeaderships(work.unnoted)
	work.retryUnread()
	for _, notify := range work.notifications {
		notify()
	}
	if len(work.leaders)+len(work.followers) > 0 {
		m.logger.Info("leadership changed", "leading", len(work.leaders), "following", len(work.followers),
			"controllerEpoch", request.ControllerEpoch)
	}
	return response
}

// roleWork is one LeaderAndIsr being carried out, under Manager.control.
type roleWork struct {
	m             *Manager
	request       *kmsg.LeaderAndISRRequest
	brokerEpoch   cluster.BrokerEpoch
	configs       map[string]topicConfig // of the topics that are new here
	leaders       []transition
	followers     []transition
	unnoted       []leadership
	effects       *effects
	notifications []func()
}

type topicConfig struct {
	config commitlog.LogConfig
	err    error
}

// roleRetry is when partitions are tried again whose topic's configuration could not be read.
const roleRetry = 100 * time.Millisecond

// retryUnread tries the partitions again whose topic's configuration could not be read. The
// controller would not: it takes no notice of these errors, and Apache's broker stays without
// a role until the next LeaderAndIsr. The rules of epochs make a late attempt harmless: a
// newer role, controller or registration refuses it.
func (w *roleWork) retryUnread() {
	again := *w.request
	again.TopicStates, again.PartitionStates = nil, nil
	unread := func(topic string) bool { return w.configs[topic].err != nil }
	for _, topic := range w.request.TopicStates {
		if unread(topic.Topic) {
			again.TopicStates = append(again.TopicStates, topic)
		}
	}
	for _, state := range w.request.PartitionStates {
		if unread(state.Topic) {
			again.PartitionStates = append(again.PartitionStates, state)
		}
	}
	if len(again.TopicStates)+len(again.PartitionStates) == 0 || w.m.right.closed.Load() {
		return
	}
	w.m.start(func(ctx context.Context) {
		select {
		case <-time.After(roleRetry):
			w.m.LeaderAndISR(&again)
		case <-ctx.Done():
		}
	})
}

// configReaders bounds the reads of topic configurations that are under way at once.
const configReaders = 16

// readConfigs reads the configurations of the topics that are new here, several at a time: a
// broker that comes back is told of all its partitions in one request.
func (w *roleWork) readConfigs() {
	topics := map[string]struct{}{}
	note := func(topic string, number int32) {
		if w.m.host(cluster.TopicPartition{Topic: topic, Partition: number}) == nil {
			topics[topic] = struct{}{}
		}
	}
	for i := range w.request.PartitionStates {
		note(w.request.PartitionStates[i].Topic, w.request.PartitionStates[i].Partition)
	}
	for i := range w.request.TopicStates {
		topic := &w.request.TopicStates[i]
		for p := range topic.PartitionStates {
			note(topic.Topic, topic.PartitionStates[p].Partition)
		}
	}
	var group errgroup.Group
	group.SetLimit(configReaders)
	var mu sync.Mutex
	for topic := range topics {
		group.Go(func() error {
			config, err := w.m.config.TopicConfig(topic)
			mu.Lock()
			defer mu.Unlock()
			w.configs[topic] = topicConfig{config, err}
			return nil
		})
	}
	_ = group.Wait()
}

// judgeAll sorts the partitions into new leaders, new followers and refusals.
func (w *roleWork) judgeAll(response *kmsg.LeaderAndISRResponse) {
	byID := w.request.Version >= 5
	count := len(w.request.PartitionStates)
	for i := range w.request.TopicStates {
		count += len(w.request.TopicStates[i].PartitionStates)
	}
	// Capacities are final: transitions keep pointers to the codes.
	if !byID {
		response.Partitions = make([]kmsg.LeaderAndISRResponseTopicPartition, 0, count)
	}
	add := func(topic string, partition int32) *int16 {
		entry := kmsg.NewLeaderAndISRResponseTopicPartition()
		entry.Topic, entry.Partition = topic, partition
		response.Partitions = append(response.Partitions, entry)
		return &response.Partitions[len(response.Partitions)-1].ErrorCode
	}
	for i := range w.request.PartitionStates {
		state := &w.request.PartitionStates[i]
		w.judge(state.Topic, cluster.TopicID{}, state, add(state.Topic, state.Partition))
	}
	for i := range w.request.TopicStates {
		topic := &w.request.TopicStates[i]
		if !byID {
			for p := range topic.PartitionStates {
				state := &topic.PartitionStates[p]
				w.judge(topic.Topic, cluster.TopicID{}, state, add(topic.Topic, state.Partition))
			}
			continue
		}
		answer := kmsg.NewLeaderAndISRResponseTopic()
		answer.TopicID = topic.TopicID
		answer.Partitions = make([]kmsg.LeaderAndISRResponseTopicPartition, len(topic.PartitionStates))
		for p := range topic.PartitionStates {
			state := &topic.PartitionStates[p]
			answer.Partitions[p].Partition = state.Partition
			w.judge(topic.Topic, topic.TopicID, state, &answer.Partitions[p].ErrorCode)
		}
		response.Topics = append(response.Topics, answer)
	}
}

func (w *roleWork) judge(topic string, id cluster.TopicID, state *kmsg.LeaderAndISRRequestTopicPartition, code *int16) {
	err := w.judgePartition(topic, id, state, code)
	*code = errorCode(err)
	if err != nil && !errors.Is(err, kerr.StaleControllerEpoch) {
		w.m.logger.Warn("role refused", "topic", topic, "partition", state.Partition, "leader", state.Leader,
			"leaderEpoch", state.LeaderEpoch, "err", err)
	}
}

func (w *roleWork) judgePartition(topic string, id cluster.TopicID, state *kmsg.LeaderAndISRRequestTopicPartition, code *int16) error {
	m := w.m
	tp := cluster.TopicPartition{Topic: topic, Partition: state.Partition}
	next := transition{assignment: assignmentOf(state), code: code}
	next.host = m.host(tp)
	current, role, logID := cluster.NoLeaderEpoch, partition.Unassigned, cluster.TopicID{}
	if h := next.host; h != nil {
		h.mu.Lock()
		current, role, logID = h.replica.LeaderEpoch(), h.replica.Role(), h.topicID
		err := h.usableLocked()
		h.mu.Unlock()
		if err != nil {
			return err
		}
	} else if log := m.config.Logs.Get(tp); log != nil {
		logID = log.TopicID()
	}
	verdict, err := partition.Judge(m.config.Self, current, role, logID, id, &next.assignment)
	if next.host != nil && next.assignment.Leader == m.config.Self && next.assignment.LeaderEpoch >= current &&
		(err == nil || errors.Is(err, kerr.StaleControllerEpoch)) {
		m.confirmByController(next.host, w.brokerEpoch)
	}
	switch verdict {
	case partition.Refuse:
		return err
	case partition.AssignTopicID:
		return m.identify(next.host, id)
	case partition.DropTopicID:
		m.fetchWithoutID(next.host)
		return nil
	}
	if next.host == nil {
		if next.host, err = w.hostNew(tp, id, state.IsNew); err != nil {
			return err
		}
		m.confirmByController(next.host, w.brokerEpoch)
	} else if logID.IsZero() && !id.IsZero() {
		if err := m.identify(next.host, id); err != nil {
			return err
		}
	}
	if verdict == partition.BecomeLeader {
		w.leaders = append(w.leaders, next)
	} else {
		w.followers = append(w.followers, next)
	}
	return nil
}

func assignmentOf(state *kmsg.LeaderAndISRRequestTopicPartition) partition.Assignment {
	return partition.Assignment{
		PartitionState: cluster.PartitionState{
			Leader: cluster.BrokerID(state.Leader), LeaderEpoch: cluster.LeaderEpoch(state.LeaderEpoch), ISR: brokerIDs(state.ISR),
			Recovery:        cluster.LeaderRecoveryState(state.LeaderRecoveryState),
			ControllerEpoch: cluster.ControllerEpoch(state.ControllerEpoch), PartitionEpoch: cluster.PartitionEpoch(state.ZKVersion),
		},
		Replicas: brokerIDs(state.Replicas), Adding: brokerIDs(state.AddingReplicas), Removing: brokerIDs(state.RemovingReplicas),
	}
}

func brokerIDs(ids []int32) []cluster.BrokerID {
	converted := make([]cluster.BrokerID, len(ids))
	for i, id := range ids {
		converted[i] = cluster.BrokerID(id)
	}
	return converted
}

// hostNew opens or creates the log and puts the partition into the map, without a role.
func (w *roleWork) hostNew(tp cluster.TopicPartition, id cluster.TopicID, isNew bool) (*hosted, error) {
	m := w.m
	read := w.configs[tp.Topic]
	if read.err != nil {
		return nil, read.err
	}
	log, err := m.config.Logs.GetOrCreate(tp, id, read.config, isNew)
	if err != nil {
		return nil, err
	}
	log.SetConfig(read.config)
	if !id.IsZero() {
		if err := log.SetTopicID(id); err != nil {
			return nil, err
		}
	}
	// The log's own high watermark is the checkpointed one within the log's bounds.
	h := &hosted{tp: tp, log: log, minISR: int(read.config.MinInsyncReplicas), topicID: log.TopicID()}
	h.replica = partition.New(&m.settings, log.HighWatermark(), log.ProvenOffset())
	m.setDurableLocked(h, read.config.FlushMessages)
	h.offline = log.Failed()
	m.hosts.Lock()
	m.hosts.byTP[tp] = h
	m.hosts.Unlock()
	return h, nil
}

// identify gives a partition its topic id, in the log and for fetching.
func (m *Manager) identify(h *hosted, id cluster.TopicID) error {
	if err := h.log.SetTopicID(id); err != nil {
		return err
	}
	h.mu.Lock()
	h.topicID = id
	h.mu.Unlock()
	m.fetchWithID(h, id)
	return nil
}

func (w *roleWork) makeLeaders() {
	for i := range w.leaders {
		w.m.stopFetching(w.leaders[i].host)
	}
	for i := range w.leaders {
		w.makeLeader(&w.leaders[i])
	}
}

func (w *roleWork) makeLeader(t *transition) {
	m, h := w.m, t.host
	h.role.Lock()
	defer h.role.Unlock()
	end := h.log.EndOffset()
	h.mu.Lock()
	defer h.mu.Unlock()
	env := m.environment(h)
	wasLeader := h.replica.IsLeader()
	taken, _ := h.replica.MakeLeader(&t.assignment, h.log.StartOffset(), end, &env)
	if !taken {
		return
	}
	// Even an epoch without a record is noted: it tells later leaders where logs part.
	if err := h.log.AssignEpoch(t.assignment.LeaderEpoch, end); err != nil {
		*t.code = errorCode(err)
		m.offlineLocked(h, err, w.effects)
		return
	}
	h.replica.Synced(h.log.SyncedOffset(), &env)
	m.syncSoonLocked(h)
	w.unnoted = h.appendUnnotedLocked(w.unnoted)
	h.highWatermarkMovedLocked(w.effects)
	h.secureIfAloneLocked()
	h.wakeAllLocked(w.effects)
	w.notify(h, t.assignment.LeaderEpoch, true)
	m.logger.Debug("became leader", "topic", h.tp.Topic, "partition", h.tp.Partition, "leaderEpoch", t.assignment.LeaderEpoch,
		"partitionEpoch", t.assignment.PartitionEpoch, "isr", t.assignment.ISR, "logEnd", end, "wasLeader", wasLeader)
}

// makeFollowers follows new leaders. A leader that is not alive, and so also "no leader", is
// not followed: the replica keeps the role, the epoch and the fetcher it has, as in Kafka.
func (w *roleWork) makeFollowers() {
	var fetches []followOrder
	for i := range w.followers {
		t := &w.followers[i]
		if !w.leaderKnown(t.assignment.Leader) {
			w.m.logger.Debug("leader not alive, role kept", "topic", t.host.tp.Topic, "partition", t.host.tp.Partition,
				"leader", t.assignment.Leader, "leaderEpoch", t.assignment.LeaderEpoch)
			continue
		}
		if order, ok := w.makeFollower(t); ok {
			fetches = append(fetches, order)
		}
	}
	w.m.follow(fetches)
}

// leaderKnown looks at the metadata cache, and at the leaders that the request itself brings
// with their addresses: a controller may send LeaderAndIsr before UpdateMetadata.
func (w *roleWork) leaderKnown(leader cluster.BrokerID) bool {
	if leader == cluster.NoBroker {
		return false
	}
	if w.m.alive(leader) {
		return true
	}
	for i := range w.request.LiveLeaders {
		if cluster.BrokerID(w.request.LiveLeaders[i].BrokerID) == leader {
			return true
		}
	}
	return false
}

func (w *roleWork) makeFollower(t *transition) (followOrder, bool) {
	m, h := w.m, t.host
	m.stopFetching(h)
	h.role.Lock()
	defer h.role.Unlock()
	h.mu.Lock()
	wasLeader := h.replica.IsLeader()
	taken := h.replica.MakeFollower(&t.assignment)
	if taken {
		h.takeReleasedLocked(w.effects)
		h.wakeAllLocked(w.effects)
	}
	topicID, highWatermark := h.topicID, h.replica.HighWatermark()
	h.mu.Unlock()
	if !taken {
		return followOrder{}, false
	}
	// Without an epoch cache there is nothing to compare with the leader's: only what is
	// known to be committed is kept. Otherwise the leader's answers tell where to cut.
	if h.log.LatestEpoch() == cluster.NoLeaderEpoch && h.log.EndOffset() > highWatermark {
		if err := h.log.TruncateTo(highWatermark); err != nil {
			*t.code = errorCode(err)
			m.storageMayHaveFailed(h, err, w.effects)
			return followOrder{}, false
		}
	}
	if wasLeader {
		w.notify(h, t.assignment.LeaderEpoch, false)
	}
	m.logger.Debug("became follower", "topic", h.tp.Topic, "partition", h.tp.Partition, "leader", t.assignment.Leader,
		"leaderEpoch", t.assignment.LeaderEpoch, "logEnd", h.log.EndOffset(), "highWatermark", highWatermark)
	if m.leaving.Load() && !slices.Contains(t.assignment.ISR, m.config.Self) {
		return followOrder{}, false
	}
	return followOrder{
		host: h, leader: t.assignment.Leader, epoch: t.assignment.LeaderEpoch, topicID: topicID,
		address: w.addressOf(t.assignment.Leader),
	}, true
}

// addressOf is the leader's address as the request gives it, "" if it does not.
func (w *roleWork) addressOf(leader cluster.BrokerID) string {
	for i := range w.request.LiveLeaders {
		if live := &w.request.LiveLeaders[i]; cluster.BrokerID(live.BrokerID) == leader {
			return hostPort(live.Host, live.Port)
		}
	}
	return ""
}

func (w *roleWork) notify(h *hosted, epoch cluster.LeaderEpoch, leader bool) {
	if change := w.m.roleChange(h.tp.Topic); change != nil {
		partition := h.tp.Partition
		w.notifications = append(w.notifications, func() { change(partition, epoch, leader) })
	}
}

// errorCode is the one place where this package's errors become codes.
func errorCode(err error) int16 {
	if err == nil {
		return 0
	}
	if coded, ok := errors.AsType[*kerr.Error](err); ok {
		return coded.Code
	}
	return kerr.UnknownServerError.Code
}
