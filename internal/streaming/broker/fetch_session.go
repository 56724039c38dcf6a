package broker

import (
	"container/list"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/replication"
)

// Fetch sessions (KIP-227): the broker remembers what a client fetches, so that a request
// names only what changed and an answer holds only what is news. Partitions without news
// fall quiet (replication.Standing): a request costs what its busy partitions cost.

const (
	initialSessionEpoch = 0  // a full fetch that asks for a session
	finalSessionEpoch   = -1 // a full fetch that ends one, or wants none
	// reviewEvery and reviewCount make sessions look at quiet partitions in turn, for what stirs
	// nobody: a log start that retention has moved.
	reviewEvery = 500 * time.Millisecond
	reviewCount = 16
	// sessionEvictAfter is the idle time from which a session makes room for a new one.
	sessionEvictAfter = 2 * time.Minute
)

// fetchPartition is one partition as a client fetches it, and what it was told last.
type fetchPartition struct {
	part replication.FetchPart // TP.Topic is "" while the topic id is not known
	// sent: the high watermark and log start that the client knows; NoOffset says that the
	// next answer must include the partition.
	sentHighWatermark, sentLogStart cluster.Offset

	standing replication.StandingPart // meaningful in a session
	index    int                      // in the session's all
	place    *list.Element            // in the session's busy; nil: it is quiet, or was stirred since
}

type fetchKey struct {
	topic     string          // version 12 and older
	id        cluster.TopicID // version 13 and newer
	partition int32
}

// fetchSession is one session. mu guards everything below it; requests of one session come
// one after the other from a client that keeps to the protocol, but nothing makes them.
type fetchSession struct {
	id       int32
	byID     bool // topics are named by id
	follower bool
	place    *list.Element // in the table's order of use
	lastUsed time.Time

	mu         sync.Mutex
	epoch      int32 // that the next request must carry
	replica    int64 // the follower's broker epoch in the last request
	partitions map[fetchKey]*fetchPartition
	all        []*fetchPartition // the same, in no order
	busy       *list.List        // of *fetchPartition, those not quiet: who had data goes to the end
	standing   replication.Standing
	reviewed   time.Time
	reviewAt   int // in all
}

// fetchSessions is the table of sessions, bounded by max.incremental.fetch.session.cache.slots.
type fetchSessions struct {
	slots int
	mu    sync.Mutex
	byID  map[int32]*fetchSession
	used  *list.List // of *fetchSession, least recently used first
}

func newFetchSessions(slots int) *fetchSessions {
	return &fetchSessions{slots: slots, byID: map[int32]*fetchSession{}, used: list.New()}
}

// find returns a session and marks it as used.
func (t *fetchSessions) find(id int32, now time.Time) *fetchSession {
	t.mu.Lock()
	defer t.mu.Unlock()
	session := t.byID[id]
	if session != nil {
		session.lastUsed = now
		t.used.MoveToBack(session.place)
	}
	return session
}

func (t *fetchSessions) remove(id int32) {
	t.mu.Lock()
	session := t.byID[id]
	if session != nil {
		t.removeLocked(session)
	}
	t.mu.Unlock()
	session.end()
}

// end takes a session that was removed out of the partitions' lists. nil has nothing there.
func (s *fetchSession) end() {
	if s == nil {
		return
	}
	s.standing.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, partition := range s.all {
		partition.standing.Forget()
	}
}

func (t *fetchSessions) removeLocked(session *fetchSession) {
	delete(t.byID, session.id)
	t.used.Remove(session.place)
}

// add makes a session, or returns nil if there is no room: the client then goes on without.
func (t *fetchSessions) add(follower, byID bool, now time.Time) *fetchSession {
	var evicted *fetchSession
	defer func() { evicted.end() }() // after the lock
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.byID) >= t.slots {
		if evicted = t.evictLocked(follower, now); evicted == nil {
			return nil
		}
	}
	session := &fetchSession{
		byID: byID, follower: follower, lastUsed: now, epoch: 1,
		partitions: map[fetchKey]*fetchPartition{}, busy: list.New(), reviewed: now,
	}
	for session.id == 0 || t.byID[session.id] != nil {
		session.id = rand.Int32()
	}
	session.place = t.used.PushBack(session)
	t.byID[session.id] = session
	return session
}

// evictLocked makes room: the session that was idle for longest, if that is long enough, or
// for a follower any consumer's. It returns the session removed, or nil.
func (t *fetchSessions) evictLocked(forFollower bool, now time.Time) *fetchSession {
	oldest := t.used.Front()
	if oldest == nil {
		return nil
	}
	if session := oldest.Value.(*fetchSession); now.Sub(session.lastUsed) > sessionEvictAfter {
		t.removeLocked(session)
		return session
	}
	for element := oldest; forFollower && element != nil; element = element.Next() {
		if session := element.Value.(*fetchSession); !session.follower {
			t.removeLocked(session)
			return session
		}
	}
	return nil
}

// fetchContext is what one request fetches: everything it names, or what of its session is not
// quiet. incremental answers leave out what is no news.
type fetchContext struct {
	session     *fetchSession // nil: none
	incremental bool
	follower    bool // who asks is one
	partitions  []*fetchPartition
}

// sessionID is what the answer carries.
func (c *fetchContext) sessionID() int32 {
	if c.session == nil {
		return 0
	}
	return c.session.id
}

// open finds or makes the context of a request (FetchManager.newContext). The error is for
// the whole request.
func (t *fetchSessions) open(version int16, body *kmsg.FetchRequest, follower bool, now time.Time) (*fetchContext, error) {
	byID := version >= 13
	if version < 7 || body.SessionEpoch == finalSessionEpoch || body.SessionEpoch == initialSessionEpoch {
		return t.openFull(version, body, follower, byID, now), nil
	}
	session := t.find(body.SessionID, now)
	if session == nil {
		return nil, kerr.FetchSessionIDNotFound
	}
	context, err := session.open(body, byID, now)
	if err == nil {
		context.follower = follower
	}
	if err == nil && context.session == nil {
		t.remove(session.id)
	}
	return context, err
}

// open takes an incremental request in. The context has no session if nothing is left in it.
func (s *fetchSession) open(body *kmsg.FetchRequest, byID bool, now time.Time) (*fetchContext, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.epoch != body.SessionEpoch:
		return nil, kerr.InvalidFetchSessionEpoch
	case s.byID != byID:
		return nil, kerr.FetchSessionTopicIDError
	}
	s.gather(now)
	s.update(body)
	if len(s.all) == 0 {
		return &fetchContext{}, nil
	}
	if s.epoch++; s.epoch <= 0 {
		s.epoch = 1
	}
	if epoch := body.ReplicaState.Epoch; epoch != s.replica { // the leader is to learn it everywhere
		s.replica = epoch
		for _, partition := range s.all {
			s.enlist(partition)
		}
	}
	context := &fetchContext{session: s, incremental: true, partitions: make([]*fetchPartition, 0, s.busy.Len())}
	for element := s.busy.Front(); element != nil; element = element.Next() {
		context.partitions = append(context.partitions, element.Value.(*fetchPartition))
	}
	return context, nil
}

// gather brings busy up to date: what fell quiet leaves, what was stirred comes, and so do a
// few of the quiet whose turn it is.
func (s *fetchSession) gather(now time.Time) {
	for element := s.busy.Front(); element != nil; {
		next := element.Next()
		if partition := element.Value.(*fetchPartition); partition.standing.Quiet() {
			s.busy.Remove(element)
			partition.place = nil
		}
		element = next
	}
	for _, stirred := range s.standing.TakeStirred() {
		s.enlist(stirred.Owner.(*fetchPartition))
	}
	if now.Sub(s.reviewed) < reviewEvery {
		return
	}
	s.reviewed = now
	for range min(reviewCount, len(s.all)) {
		s.reviewAt = (s.reviewAt + 1) % len(s.all)
		s.enlist(s.all[s.reviewAt])
	}
}

// enlist makes the next request fetch a partition of the session.
func (s *fetchSession) enlist(partition *fetchPartition) {
	if partition.place == nil && partition.index >= 0 {
		partition.place = s.busy.PushBack(partition)
	}
}

func (t *fetchSessions) openFull(version int16, body *kmsg.FetchRequest, follower, byID bool, now time.Time) *fetchContext {
	if version >= 7 && body.SessionID != 0 {
		t.remove(body.SessionID)
	}
	context := &fetchContext{}
	body.Topics = mergeFetched(body.Topics)
	for i := range body.Topics {
		for j := range body.Topics[i].Partitions {
			context.partitions = append(context.partitions, newFetchPartition(&body.Topics[i], &body.Topics[i].Partitions[j]))
		}
	}
	if version >= 7 && body.SessionEpoch == initialSessionEpoch {
		context.session = t.add(follower, byID, now)
	}
	if context.session != nil {
		context.session.mu.Lock()
		context.session.replica = body.ReplicaState.Epoch
		for _, partition := range context.partitions {
			context.session.put(partition)
		}
		context.session.mu.Unlock()
	}
	return context
}

// mergeFetched: see merged.
func mergeFetched(topics []kmsg.FetchRequestTopic) []kmsg.FetchRequestTopic {
	return merged(topics, func(topic *kmsg.FetchRequestTopic) (topicKey, *[]kmsg.FetchRequestTopicPartition) {
		return topicKey{topic.Topic, topic.TopicID}, &topic.Partitions
	}, func(partition *kmsg.FetchRequestTopicPartition) int32 { return partition.Partition })
}

func newFetchPartition(topic *kmsg.FetchRequestTopic, asked *kmsg.FetchRequestTopicPartition) *fetchPartition {
	p := &fetchPartition{sentHighWatermark: cluster.NoOffset, sentLogStart: cluster.NoOffset}
	p.part.TP = cluster.TopicPartition{Topic: topic.Topic, Partition: asked.Partition}
	p.part.TopicID = topic.TopicID
	p.set(asked)
	return p
}

// set takes over what a request says about the partition.
func (p *fetchPartition) set(asked *kmsg.FetchRequestTopicPartition) {
	// Any negative epoch is none here (FetchRequest.optionalEpoch).
	p.part.CurrentLeaderEpoch = max(cluster.LeaderEpoch(asked.CurrentLeaderEpoch), cluster.NoLeaderEpoch)
	p.part.FetchOffset = cluster.Offset(asked.FetchOffset)
	p.part.LastFetchedEpoch = max(cluster.LeaderEpoch(asked.LastFetchedEpoch), cluster.NoLeaderEpoch)
	p.part.LogStartOffset = cluster.Offset(asked.LogStartOffset)
	p.part.MaxBytes = asked.PartitionMaxBytes
}

func (p *fetchPartition) key() fetchKey {
	if !p.part.TopicID.IsZero() {
		return fetchKey{id: p.part.TopicID, partition: p.part.TP.Partition}
	}
	return fetchKey{topic: p.part.TP.Topic, partition: p.part.TP.Partition}
}

// put adds a partition at the end; one named twice counts once.
func (s *fetchSession) put(partition *fetchPartition) {
	key := partition.key()
	if old := s.partitions[key]; old != nil {
		s.drop(key, old)
	}
	partition.standing.Session, partition.standing.Owner = &s.standing, partition
	partition.index = len(s.all)
	s.all = append(s.all, partition)
	s.partitions[key] = partition
	s.enlist(partition)
}

// drop takes a partition out of the session.
func (s *fetchSession) drop(key fetchKey, partition *fetchPartition) {
	delete(s.partitions, key)
	last := len(s.all) - 1
	s.all[partition.index] = s.all[last]
	s.all[partition.index].index = partition.index
	s.all[last] = nil
	s.all = s.all[:last]
	if partition.place != nil {
		s.busy.Remove(partition.place)
		partition.place = nil
	}
	partition.index = -1
	partition.standing.Forget()
}

// update carries out an incremental request.
func (s *fetchSession) update(body *kmsg.FetchRequest) {
	for i := range body.Topics {
		topic := &body.Topics[i]
		for j := range topic.Partitions {
			asked := &topic.Partitions[j]
			key := fetchKey{topic: topic.Topic, id: topic.TopicID, partition: asked.Partition}
			if known := s.partitions[key]; known != nil {
				known.set(asked)
				s.enlist(known)
			} else {
				s.put(newFetchPartition(topic, asked))
			}
		}
	}
	for i := range body.ForgottenTopics {
		topic := &body.ForgottenTopics[i]
		for _, number := range topic.Partitions {
			key := fetchKey{topic: topic.Topic, id: topic.TopicID, partition: number}
			if known := s.partitions[key]; known != nil {
				s.drop(key, known)
			}
		}
	}
}

// news reports whether an answer must include a partition's result, and remembers what the
// client then knows (CachedPartition.maybeUpdateResponseData).
func (c *fetchContext) news(partition *fetchPartition, result *replication.FetchResult) bool {
	if c.session == nil {
		return true
	}
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	if result.Err != nil {
		if result.Awaited && c.incremental && c.follower && c.session.follower {
			return false // a LeaderAndIsr under way will cure it: the next request asks again
		}
		partition.sentHighWatermark = cluster.NoOffset // the next good one must be sent
		return true
	}
	hasData := result.Slice != nil && result.Slice.Size() > 0
	changed := partition.sentHighWatermark != result.HighWatermark || partition.sentLogStart != result.LogStartOffset
	partition.sentHighWatermark, partition.sentLogStart = result.HighWatermark, result.LogStartOffset
	if hasData && partition.place != nil {
		c.session.busy.MoveToBack(partition.place)
	}
	return !c.incremental || hasData || changed || result.Diverging != nil || result.NearReader != nil
}
