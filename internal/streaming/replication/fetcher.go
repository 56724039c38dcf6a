package replication

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/wire"
)

// Versions of the follower's requests at inter.broker.protocol.version 3.9; like Kafka we do
// not negotiate between brokers.
const (
	fetchVersion          = 17
	fetchVersionWithoutID = 12
	listOffsetsVersion    = 9
)

const (
	// preemptGrace is how long a fetch under way may go on when partitions want to join it.
	// The leader holds a fetch for up to half a second when nothing happens, and a partition
	// whose leader has just changed must not wait for that: acks=all would wait with it.
	preemptGrace = 3 * time.Millisecond
	// backoffMax bounds the growing delays of partitions and connections that fail.
	backoffMax = 200 * time.Millisecond
	// idleBeforeRetiring is how long a fetcher without partitions keeps its connection.
	idleBeforeRetiring = time.Second
)

type fetcherKey struct {
	leader cluster.BrokerID
	number int
}

// fetcher fetches from one leader, in one incremental session (KIP-227) on one connection, one
// request at a time. Its goroutine alone talks to the leader; partitions come and go under mu.
type fetcher struct {
	m      *Manager
	key    fetcherKey
	logger *slog.Logger
	wake   chan struct{} // capacity 1: partitions were added or removed

	mu    sync.Mutex
	parts map[cluster.TopicPartition]*fetchState
	byID  map[partitionID]*fetchState
	// changed lists the partitions whose place in the session may have to change with the
	// next request; forgotten what the leader is to forget of partitions no longer here.
	changed   []*fetchState
	forgotten []forgottenPartition
	delayed   []*fetchState
	unsynced  []*fetchState // durable partitions to be fsynced before the next request
	nameless  int           // partitions without a topic id: they force version 12
	urgent    bool          // a partition is ready that the request under way does not have
	address   string        // the leader's, from LeaderAndIsr; for when the metadata cache lags

	// Of the goroutine alone.

	client       *wire.Client
	sessionID    int32
	sessionEpoch int32 // 0: the next request is a full one
	version      int16
	failures     int // in a row
}

type partitionID struct {
	topic     cluster.TopicID
	partition int32
}

type forgottenPartition struct {
	tp cluster.TopicPartition
	id cluster.TopicID
}

// fetchState is one partition in a fetcher; guarded by fetcher.mu.
type fetchState struct {
	host    *hosted
	topicID cluster.TopicID
	epoch   cluster.LeaderEpoch
	next    position
	sent    position // what the session has
	session bool     // it is in the session
	listed  bool     // in fetcher.changed
	removed bool
	backoff time.Duration
	retryAt time.Time // zero: ready
}

// position is what a fetch says about a partition.
type position struct {
	offset    cluster.Offset
	lastEpoch cluster.LeaderEpoch
	logStart  cluster.Offset
}

// followOrder asks for a partition to be fetched.
type followOrder struct {
	host    *hosted
	leader  cluster.BrokerID
	epoch   cluster.LeaderEpoch
	topicID cluster.TopicID
	address string
}

func hostPort(host string, port int32) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// fetcherNumber spreads partitions over a leader's fetchers as Kafka does
// (AbstractFetcherManager.getFetcherId).
func fetcherNumber(tp cluster.TopicPartition, count int) int {
	hash := 31*cluster.JavaStringHash(tp.Topic) + tp.Partition
	if hash == -1<<31 {
		return 0
	}
	return int(max(hash, -hash)) % count
}

// follow hands partitions to their fetchers, starting those that are missing.
func (m *Manager) follow(orders []followOrder) {
	m.fetchers.Lock()
	defer m.fetchers.Unlock()
	if m.fetchers.closed {
		return
	}
	for _, order := range orders {
		key := fetcherKey{order.leader, fetcherNumber(order.host.tp, m.config.NumFetchers)}
		f := m.fetchers.byKey[key]
		if f == nil {
			f = &fetcher{
				m: m, key: key, wake: make(chan struct{}, 1),
				parts: map[cluster.TopicPartition]*fetchState{}, byID: map[partitionID]*fetchState{},
				logger: m.logger.With("leader", key.leader, "fetcher", key.number),
			}
			m.fetchers.byKey[key] = f
			if m.stepped == nil {
				m.start(f.run)
			}
		}
		order.host.fetcher = f
		f.add(order)
	}
}

// stopFetching takes a partition from its fetcher, if it has one. A response that is being
// worked off may still be appended; a change of role excludes that by the role lock.
func (m *Manager) stopFetching(h *hosted) {
	m.fetchers.Lock()
	defer m.fetchers.Unlock()
	if h.fetcher != nil {
		h.fetcher.remove(h.tp)
		h.fetcher = nil
	}
}

// fetchWithID and fetchWithoutID change how a partition is named to its leader.
func (m *Manager) fetchWithID(h *hosted, id cluster.TopicID) {
	m.fetchers.Lock()
	defer m.fetchers.Unlock()
	if h.fetcher != nil {
		h.fetcher.rename(h.tp, id)
	}
}

func (m *Manager) fetchWithoutID(h *hosted) { m.fetchWithID(h, cluster.TopicID{}) }

// retire ends a fetcher that has nothing to fetch; false if it got something meanwhile.
func (m *Manager) retire(f *fetcher) bool {
	m.fetchers.Lock()
	defer m.fetchers.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.parts) > 0 {
		return false
	}
	delete(m.fetchers.byKey, f.key)
	return true
}

func (f *fetcher) add(order followOrder) {
	log := order.host.log
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removeLocked(order.host.tp)
	state := &fetchState{
		host: order.host, topicID: order.topicID, epoch: order.epoch,
		next: position{offset: log.EndOffset(), lastEpoch: log.LatestEpoch(), logStart: log.StartOffset()},
	}
	f.parts[order.host.tp] = state
	f.nameLocked(state)
	f.listLocked(state)
	f.noteUnsyncedLocked(state)
	f.urgent = true
	if order.address != "" {
		f.address = order.address
	}
	f.wakeUp()
}

func (f *fetcher) nameLocked(state *fetchState) {
	if state.topicID.IsZero() {
		f.nameless++
	} else {
		f.byID[partitionID{state.topicID, state.host.tp.Partition}] = state
	}
}

func (f *fetcher) listLocked(state *fetchState) {
	if !state.listed {
		state.listed = true
		f.changed = append(f.changed, state)
	}
}

func (f *fetcher) remove(tp cluster.TopicPartition) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removeLocked(tp)
	f.wakeUp()
}

func (f *fetcher) removeLocked(tp cluster.TopicPartition) {
	state := f.parts[tp]
	if state == nil {
		return
	}
	state.removed = true
	delete(f.parts, tp)
	if state.topicID.IsZero() {
		f.nameless--
	} else {
		delete(f.byID, partitionID{state.topicID, tp.Partition})
	}
	if state.session {
		f.forgotten = append(f.forgotten, forgottenPartition{tp, state.topicID})
	}
	f.undelayLocked(state)
}

func (f *fetcher) undelayLocked(state *fetchState) {
	for i, other := range f.delayed {
		if other == state {
			f.delayed[i] = f.delayed[len(f.delayed)-1]
			f.delayed = f.delayed[:len(f.delayed)-1]
			return
		}
	}
}

func (f *fetcher) rename(tp cluster.TopicPartition, id cluster.TopicID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.parts[tp]
	if old == nil || old.topicID == id {
		return
	}
	f.removeLocked(tp)
	state := &fetchState{host: old.host, topicID: id, epoch: old.epoch, next: old.next}
	f.parts[tp] = state
	f.nameLocked(state)
	f.listLocked(state)
	f.urgent = true
	f.wakeUp()
}

func (f *fetcher) wakeUp() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// run is the fetcher's goroutine: build, send, work off, again at once. The next request
// carries the new offsets, so a record needs one round trip to be known to be replicated.
func (f *fetcher) run(ctx context.Context) {
	defer f.disconnect()
	for ctx.Err() == nil {
		if !f.anyReady() {
			if f.idle(ctx) {
				return
			}
			continue
		}
		if f.client == nil && !f.connect(ctx) {
			f.pause(ctx)
			continue
		}
		response, err := f.exchange(ctx, f.buildSynced())
		switch {
		case errors.Is(err, errPreempted):
			f.disconnect()
		case err != nil:
			if ctx.Err() == nil {
				f.fail("fetch failed", err)
				f.pause(ctx)
			}
		default:
			if err := f.process(ctx, response); err != nil {
				f.fail("fetch failed", err)
				f.pause(ctx)
			}
		}
	}
}

// anyReady puts partitions whose delay is over back, and says whether there is one to fetch.
func (f *fetcher) anyReady() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.undelayDueLocked(f.m.clock())
	return len(f.parts) > len(f.delayed)
}

func (f *fetcher) undelayDueLocked(now time.Time) {
	kept := f.delayed[:0]
	for _, state := range f.delayed {
		if state.retryAt.After(now) {
			kept = append(kept, state)
			continue
		}
		state.retryAt = time.Time{}
		f.listLocked(state)
		f.noteUnsyncedLocked(state)
		f.urgent = true
	}
	clear(f.delayed[len(kept):])
	f.delayed = kept
}

// untilRetry is when the first delayed partition is ready again; an hour if none is delayed.
func (f *fetcher) untilRetry() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	wait := time.Hour
	for _, state := range f.delayed {
		wait = min(wait, state.retryAt.Sub(f.m.clock()))
	}
	return max(wait, 0)
}

// idle waits for a partition to fetch. It returns true when the fetcher is to end.
func (f *fetcher) idle(ctx context.Context) (ended bool) {
	wait := f.untilRetry()
	f.mu.Lock()
	empty := len(f.parts) == 0
	f.mu.Unlock()
	if empty {
		wait = idleBeforeRetiring
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-f.wake:
		return false
	case <-timer.C:
		return empty && f.m.retire(f)
	case <-ctx.Done():
		return true
	}
}

// pause follows a failure of the connection, at first for 10 ms. A partition that comes or
// goes does not cut it short: the leader would be as dead for it.
func (f *fetcher) pause(ctx context.Context) {
	timer := time.NewTimer(min(f.m.config.FetchBackoff<<min(f.failures-1, 10), backoffMax))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// fail gives up the connection. Only the first failure of a row is worth a line.
func (f *fetcher) fail(what string, err error) {
	f.failures++
	if f.failures == 1 {
		f.logger.Warn(what, "err", err)
	} else {
		f.logger.Debug(what, "err", err, "failures", f.failures)
	}
	f.disconnect()
}

func (f *fetcher) connect(ctx context.Context) bool {
	address := f.leaderAddress()
	if address == "" {
		f.fail("leader not known", fmt.Errorf("broker %d has no listener %s in the metadata", f.key.leader, f.m.config.InterBrokerListener))
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, f.m.config.SocketTimeout)
	defer cancel()
	client, err := wire.Dial(ctx, address, wire.ClientOptions{
		ClientID:    fmt.Sprintf("broker-%d-fetcher-%d", f.m.config.Self, f.key.number),
		DialContext: f.m.config.Dial,
		ReuseBuffer: true, // one fetch in flight, and its records are appended before the next
	})
	if err != nil {
		f.fail("leader not reached", err)
		return false
	}
	f.client = client
	return true
}

func (f *fetcher) leaderAddress() string {
	if endpoint, found := f.m.config.Metadata.Image().Endpoint(f.key.leader, f.m.config.InterBrokerListener); found {
		return hostPort(endpoint.Host, endpoint.Port)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.address
}

// disconnect leaves the session's id in place: the next full fetch asks the leader to close
// that session and to open another.
func (f *fetcher) disconnect() {
	if f.client != nil {
		f.client.Close()
		f.client = nil
	}
	f.sessionEpoch = 0
}

var errPreempted = errors.New("partitions were added that could not wait")

type fetchOutcome struct {
	response kmsg.Response
	err      error
}

// exchange sends a request and waits for the answer, or until partitions want in that the
// request does not have.
func (f *fetcher) exchange(ctx context.Context, request *kmsg.FetchRequest) (*kmsg.FetchResponse, error) {
	answered := make(chan fetchOutcome, 1)
	f.client.Start(request, func(response kmsg.Response, err error) { answered <- fetchOutcome{response, err} })
	deadline := time.NewTimer(f.m.config.SocketTimeout + f.m.config.FetchMaxWait)
	defer deadline.Stop()
	var grace <-chan time.Time
	retry := time.NewTimer(f.untilRetry())
	defer retry.Stop()
	for {
		select {
		case outcome := <-answered:
			if outcome.err != nil {
				return nil, outcome.err
			}
			return outcome.response.(*kmsg.FetchResponse), nil
		case <-f.wake:
		case <-retry.C:
			f.anyReady()
		case <-grace:
			return nil, errPreempted
		case <-deadline.C:
			return nil, fmt.Errorf("broker %d did not answer a fetch within %v", f.key.leader, f.m.config.SocketTimeout)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		f.mu.Lock()
		if f.urgent && grace == nil {
			grace = time.After(preemptGrace)
		}
		f.mu.Unlock()
	}
}

// buildLocked makes the next request: everything that is ready if a session is to be opened, else
// what has changed.
func (f *fetcher) buildLocked() *kmsg.FetchRequest {
	request := kmsg.NewPtrFetchRequest()
	version := int16(fetchVersion)
	if f.nameless > 0 {
		version = fetchVersionWithoutID
	}
	if version != f.version {
		f.version, f.sessionEpoch = version, 0
	}
	request.SetVersion(version)
	config := &f.m.config
	request.ReplicaID = int32(config.Self)
	request.ReplicaState.ID = int32(config.Self)
	request.ReplicaState.Epoch = int64(config.Epoch())
	request.MaxWaitMillis = int32(config.FetchMaxWait.Milliseconds())
	request.MinBytes = config.FetchMinBytes
	request.MaxBytes = config.FetchResponseMaxBytes
	request.SessionID, request.SessionEpoch = f.sessionID, f.sessionEpoch

	builder := fetchBuilder{f: f, request: request}
	if f.sessionEpoch == 0 {
		for _, state := range f.everythingLocked() {
			state.session = false
			if state.retryAt.IsZero() {
				builder.add(state)
			}
		}
	} else {
		for _, forgotten := range f.forgotten {
			// A leader adds first and forgets second (FetchSession.update): what comes back
			// with this very request, in a newer leader epoch, would be forgotten for good.
			if again := f.parts[forgotten.tp]; again != nil && again.topicID == forgotten.id && again.retryAt.IsZero() {
				continue
			}
			builder.forget(forgotten.tp, forgotten.id)
		}
		for _, state := range f.changed {
			switch {
			case state.removed:
			case !state.retryAt.IsZero():
				if state.session {
					state.session = false
					builder.forget(state.host.tp, state.topicID)
				}
			case !state.session || state.sent != state.next:
				builder.add(state)
			}
		}
	}
	for _, state := range f.changed {
		state.listed = false
	}
	clear(f.changed)
	f.changed, f.forgotten = f.changed[:0], f.forgotten[:0]
	f.urgent = false
	return request
}

// everythingLocked lists the partitions; in order where a run must be repeatable.
func (f *fetcher) everythingLocked() []*fetchState {
	all := slices.Collect(maps.Values(f.parts))
	if f.m.stepped != nil {
		slices.SortFunc(all, func(a, b *fetchState) int { return comparePartitions(a.host.tp, b.host.tp) })
	}
	return all
}

// fetchBuilder groups partitions by topic.
type fetchBuilder struct {
	f       *fetcher
	request *kmsg.FetchRequest
	topics  map[string]int // index into request.Topics
}

func (b *fetchBuilder) add(state *fetchState) {
	tp := state.host.tp
	at, found := b.topics[tp.Topic]
	if !found {
		if b.topics == nil {
			b.topics = map[string]int{}
		}
		at = len(b.request.Topics)
		b.topics[tp.Topic] = at
		topic := kmsg.NewFetchRequestTopic()
		topic.Topic, topic.TopicID = tp.Topic, state.topicID
		b.request.Topics = append(b.request.Topics, topic)
	}
	part := kmsg.NewFetchRequestTopicPartition()
	part.Partition = tp.Partition
	part.CurrentLeaderEpoch = int32(state.epoch)
	part.FetchOffset = int64(state.next.offset)
	part.LastFetchedEpoch = int32(state.next.lastEpoch)
	part.LogStartOffset = int64(state.next.logStart)
	part.PartitionMaxBytes = b.f.m.config.FetchMaxBytes
	topic := &b.request.Topics[at]
	topic.Partitions = append(topic.Partitions, part)
	state.sent, state.session = state.next, true
}

func (b *fetchBuilder) forget(tp cluster.TopicPartition, id cluster.TopicID) {
	for i := range b.request.ForgottenTopics {
		if topic := &b.request.ForgottenTopics[i]; topic.Topic == tp.Topic && cluster.TopicID(topic.TopicID) == id {
			topic.Partitions = append(topic.Partitions, tp.Partition)
			return
		}
	}
	topic := kmsg.NewFetchRequestForgottenTopic()
	topic.Topic, topic.TopicID = tp.Topic, id
	topic.Partitions = []int32{tp.Partition}
	b.request.ForgottenTopics = append(b.request.ForgottenTopics, topic)
}

// process works off a response. An error gives up the connection.
func (f *fetcher) process(ctx context.Context, response *kmsg.FetchResponse) error {
	if code := response.ErrorCode; code != 0 {
		f.sessionID, f.sessionEpoch = 0, 0
		return kerr.ErrorForCode(code)
	}
	f.failures = 0
	switch {
	case response.SessionID == 0: // the leader keeps no session for us
		f.sessionID, f.sessionEpoch = 0, 0
	case f.sessionEpoch == 1<<31-1:
		f.sessionID, f.sessionEpoch = response.SessionID, 1
	default:
		f.sessionID, f.sessionEpoch = response.SessionID, f.sessionEpoch+1
	}
	for i := range response.Topics {
		topic := &response.Topics[i]
		for p := range topic.Partitions {
			part := &topic.Partitions[p]
			if state := f.find(topic, part.Partition); state != nil {
				f.processPart(ctx, state, part)
			}
		}
	}
	return nil
}

func (f *fetcher) find(topic *kmsg.FetchResponseTopic, partition int32) *fetchState {
	f.mu.Lock()
	defer f.mu.Unlock()
	var state *fetchState
	if f.version >= 13 {
		state = f.byID[partitionID{topic.TopicID, partition}]
	} else {
		state = f.parts[cluster.TopicPartition{Topic: topic.Topic, Partition: partition}]
	}
	// What has changed since the request was built gets no answer from this response.
	if state == nil || !state.session || state.sent != state.next {
		return nil
	}
	return state
}

func (f *fetcher) processPart(ctx context.Context, state *fetchState, part *kmsg.FetchResponseTopicPartition) {
	next := state.next
	err := kerr.ErrorForCode(part.ErrorCode)
	switch {
	case err == nil && part.DivergingEpoch.Epoch >= 0:
		next, err = f.m.truncateDiverging(state, part.DivergingEpoch.Epoch, part.DivergingEpoch.EndOffset)
	case err == nil:
		next, err = f.m.appendFetched(state, part)
	case errors.Is(err, kerr.OffsetOutOfRange):
		next, err = f.resolveOutOfRange(ctx, state)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if state.removed {
		return
	}
	if err != nil {
		f.partFailedLocked(state, err)
		return
	}
	state.backoff = 0
	if state.next != next {
		state.next = next
		f.listLocked(state)
		f.noteUnsyncedLocked(state)
	}
}

// errUnfollowed says that the replica's role or epoch is no longer the fetcher's.
var errUnfollowed = errors.New("the partition is no longer followed in this epoch")

// errBroken ends the fetching of a partition until its leader epoch grows.
var errBroken = errors.New("the partition cannot be fetched in this leader epoch")

// partFailedLocked either delays a partition or gives it up until the next LeaderAndIsr.
func (f *fetcher) partFailedLocked(state *fetchState, err error) {
	tp := state.host.tp
	if errors.Is(err, errUnfollowed) || errors.Is(err, errBroken) ||
		errors.Is(err, kerr.FencedLeaderEpoch) || errors.Is(err, kerr.KafkaStorageError) && state.host.log.Failed() != nil {
		f.logger.Info("fetching stopped", "topic", tp.Topic, "partition", tp.Partition, "leaderEpoch", state.epoch, "err", err)
		f.removeLocked(tp)
		return
	}
	if state.backoff == 0 {
		state.backoff = f.m.config.FetchBackoff
		level := slog.LevelDebug
		if errors.Is(err, kerr.CorruptMessage) { // nothing of it was appended
			level = slog.LevelWarn
		}
		f.logger.Log(context.Background(), level, "fetching delayed", "topic", tp.Topic, "partition", tp.Partition, "leaderEpoch", state.epoch, "err", err)
	} else {
		state.backoff = min(2*state.backoff, backoffMax)
	}
	state.retryAt = f.m.clock().Add(state.backoff)
	f.delayed = append(f.delayed, state)
	f.listLocked(state)
}

// resolveOutOfRange finds the offset to go on from when the leader does not have ours.
func (f *fetcher) resolveOutOfRange(ctx context.Context, state *fetchState) (position, error) {
	latest, err := f.listOffset(ctx, state, timestampLatest)
	if err != nil {
		return position{}, err
	}
	if latest < state.host.log.EndOffset() {
		return f.m.truncateFollower(state, latest, false)
	}
	earliest, err := f.listOffset(ctx, state, timestampEarliest)
	if err != nil {
		return position{}, err
	}
	if earliest > state.host.log.EndOffset() {
		return f.m.truncateFollower(state, earliest, true)
	}
	next := positionOf(state.host)
	next.offset = max(earliest, next.offset)
	return next, nil
}

// listOffset asks the leader on the fetcher's connection; no fetch is under way then.
func (f *fetcher) listOffset(ctx context.Context, state *fetchState, timestamp int64) (cluster.Offset, error) {
	request := kmsg.NewPtrListOffsetsRequest()
	request.SetVersion(listOffsetsVersion)
	request.ReplicaID = int32(f.m.config.Self)
	part := kmsg.NewListOffsetsRequestTopicPartition()
	part.Partition = state.host.tp.Partition
	part.CurrentLeaderEpoch = int32(state.epoch)
	part.Timestamp = timestamp
	topic := kmsg.NewListOffsetsRequestTopic()
	topic.Topic, topic.Partitions = state.host.tp.Topic, []kmsg.ListOffsetsRequestTopicPartition{part}
	request.Topics = []kmsg.ListOffsetsRequestTopic{topic}

	ctx, cancel := context.WithTimeout(ctx, f.m.config.SocketTimeout)
	defer cancel()
	response, err := f.askOffsets(ctx, request)
	if err != nil {
		return 0, err
	}
	if len(response.Topics) != 1 || len(response.Topics[0].Partitions) != 1 {
		return 0, errors.New("the leader's ListOffsets answer is not for the partition asked about")
	}
	found := &response.Topics[0].Partitions[0]
	return cluster.Offset(found.Offset), kerr.ErrorForCode(found.ErrorCode)
}

func (f *fetcher) askOffsets(ctx context.Context, request *kmsg.ListOffsetsRequest) (*kmsg.ListOffsetsResponse, error) {
	if f.m.stepped != nil {
		return f.m.stepped.ListOffsets(f.key.leader, request)
	}
	answer, err := f.client.Do(ctx, request)
	if err != nil {
		return nil, err
	}
	return answer.(*kmsg.ListOffsetsResponse), nil
}
