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
// names only what changed and an answer holds only what is news.

const (
	initialSessionEpoch = 0  // a full fetch that asks for a session
	finalSessionEpoch   = -1 // a full fetch that ends one, or wants none
	// sessionEvictAfter is the idle time from which a session makes room for a new one.
	sessionEvictAfter = 2 * time.Minute
)

// fetchPartition is one partition as a client fetches it, and what it was told last.
type fetchPartition struct {
	part replication.FetchPart // TP.Topic is "" while the topic id is not known
	// sent: the high watermark and log start that the client knows; NoOffset says that the
	// next answer must include the partition.
	sentHighWatermark, sentLogStart cluster.Offset
	place                           *list.Element // in the session's order
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
	partitions map[fetchKey]*fetchPartition
	order      *list.List // of *fetchPartition: who had data goes to the end
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
	defer t.mu.Unlock()
	if session := t.byID[id]; session != nil {
		t.removeLocked(session)
	}
}

func (t *fetchSessions) removeLocked(session *fetchSession) {
	delete(t.byID, session.id)
	t.used.Remove(session.place)
}

// add makes a session, or returns nil if there is no room: the client then goes on without.
func (t *fetchSessions) add(follower, byID bool, now time.Time) *fetchSession {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.byID) >= t.slots && !t.evictLocked(follower, now) {
		return nil
	}
	session := &fetchSession{
		byID: byID, follower: follower, lastUsed: now, epoch: 1,
		partitions: map[fetchKey]*fetchPartition{}, order: list.New(),
	}
	for session.id == 0 || t.byID[session.id] != nil {
		session.id = rand.Int32()
	}
	session.place = t.used.PushBack(session)
	t.byID[session.id] = session
	return session
}

// evictLocked makes room: the session that was idle for longest, if that is long enough, or
// for a follower any consumer's.
func (t *fetchSessions) evictLocked(forFollower bool, now time.Time) bool {
	oldest := t.used.Front()
	if oldest == nil {
		return false
	}
	if session := oldest.Value.(*fetchSession); now.Sub(session.lastUsed) > sessionEvictAfter {
		t.removeLocked(session)
		return true
	}
	for element := oldest; forFollower && element != nil; element = element.Next() {
		if session := element.Value.(*fetchSession); !session.follower {
			t.removeLocked(session)
			return true
		}
	}
	return false
}

// fetchContext is what one request fetches: everything it names, or everything that its
// session holds. incremental answers leave out what is no news.
type fetchContext struct {
	session     *fetchSession // nil: none
	incremental bool
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
	session.mu.Lock()
	defer session.mu.Unlock()
	switch {
	case session.epoch != body.SessionEpoch:
		return nil, kerr.InvalidFetchSessionEpoch
	case session.byID != byID:
		return nil, kerr.FetchSessionTopicIDError
	}
	session.update(body)
	if session.order.Len() == 0 {
		t.remove(session.id)
		return &fetchContext{}, nil
	}
	if session.epoch++; session.epoch <= 0 {
		session.epoch = 1
	}
	context := &fetchContext{session: session, incremental: true, partitions: make([]*fetchPartition, 0, session.order.Len())}
	for element := session.order.Front(); element != nil; element = element.Next() {
		context.partitions = append(context.partitions, element.Value.(*fetchPartition))
	}
	return context, nil
}

func (t *fetchSessions) openFull(version int16, body *kmsg.FetchRequest, follower, byID bool, now time.Time) *fetchContext {
	if version >= 7 && body.SessionID != 0 {
		t.remove(body.SessionID)
	}
	context := &fetchContext{}
	for i := range body.Topics {
		for j := range body.Topics[i].Partitions {
			context.partitions = append(context.partitions, newFetchPartition(&body.Topics[i], &body.Topics[i].Partitions[j]))
		}
	}
	if version >= 7 && body.SessionEpoch == initialSessionEpoch && len(context.partitions) > 0 {
		context.session = t.add(follower, byID, now)
	}
	if context.session != nil {
		context.session.mu.Lock()
		for _, partition := range context.partitions {
			context.session.put(partition)
		}
		context.session.mu.Unlock()
	}
	return context
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
	p.part.CurrentLeaderEpoch = cluster.LeaderEpoch(asked.CurrentLeaderEpoch)
	p.part.FetchOffset = cluster.Offset(asked.FetchOffset)
	p.part.LastFetchedEpoch = cluster.LeaderEpoch(asked.LastFetchedEpoch)
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
		s.order.Remove(old.place)
	}
	partition.place = s.order.PushBack(partition)
	s.partitions[key] = partition
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
				s.order.Remove(known.place)
				delete(s.partitions, key)
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
		if result.Awaited && c.incremental {
			return false // a LeaderAndIsr under way will cure it: the next request asks again
		}
		partition.sentHighWatermark = cluster.NoOffset // the next good one must be sent
		return true
	}
	hasData := result.Slice != nil && result.Slice.Size() > 0
	changed := partition.sentHighWatermark != result.HighWatermark || partition.sentLogStart != result.LogStartOffset
	partition.sentHighWatermark, partition.sentLogStart = result.HighWatermark, result.LogStartOffset
	if hasData && c.session.partitions[partition.key()] == partition {
		c.session.order.MoveToBack(partition.place)
	}
	return !c.incremental || hasData || changed || result.Diverging != nil
}
