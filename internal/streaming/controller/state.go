package controller

import (
	"slices"
	"sort"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/registry"
)

// status is where a partition stands in Kafka's partition state machine; a partition that
// does not exist has no entry.
type status uint8

const (
	statusNew     status = iota // no state node yet: no replica was alive
	statusOnline                // has a leader that was alive when it was chosen
	statusOffline               // has a state node and no live leader
)

// partition is what the controller knows of one partition. state is the content and version
// of its state node as last read or written; known is false while there is none.
type partition struct {
	tp         cluster.TopicPartition
	topic      *topic
	assignment registry.Assignment
	state      cluster.PartitionState
	known      bool
	// bounced are members of the ISR that have registered since state was written; set at a
	// failover alone, until its elections are over. See failover.go.
	bounced []cluster.BrokerID
	inquiry *inquiry // while only replicas could lead that may have lost records
	status  status
}

func (p *partition) has(id cluster.BrokerID) bool {
	return slices.Contains(p.assignment.Replicas, id)
}

// topic is a topic and the progress of its deletion, nil unless it is to be deleted.
type topic struct {
	name       string
	id         cluster.TopicID
	partitions []*partition // ascending
	deletion   *deletion
}

func (t *topic) partition(number int32) *partition {
	i := sort.Search(len(t.partitions), func(i int) bool { return t.partitions[i].tp.Partition >= number })
	if i < len(t.partitions) && t.partitions[i].tp.Partition == number {
		return t.partitions[i]
	}
	return nil
}

func (t *topic) add(p *partition) {
	p.topic = t
	t.partitions = append(t.partitions, p)
	sort.Slice(t.partitions, func(i, j int) bool { return t.partitions[i].tp.Partition < t.partitions[j].tp.Partition })
}

func (t *topic) assignmentDocument() registry.TopicAssignment {
	doc := registry.TopicAssignment{ID: t.id, Partitions: make(map[int32]registry.Assignment, len(t.partitions))}
	for _, p := range t.partitions {
		doc.Partitions[p.tp.Partition] = p.assignment
	}
	return doc
}

// broker is a registered broker. It is *live* unless it is shutting down, by its own request
// or (suspected) on our evidence: only live brokers are elected and enter an ISR. Requests
// go to all registered ones.
type broker struct {
	cluster.Broker
	shuttingDown bool
	suspected    bool
	offline      map[cluster.TopicPartition]struct{} // replicas on a failed log directory
}

func (b *broker) live() bool { return !b.shuttingDown && !b.suspected }

// model is the cluster as the controller knows it. topicNames and brokerIDs are the sorted
// keys, so that no map order reaches an effect.
type model struct {
	brokers   map[cluster.BrokerID]*broker
	topics    map[string]*topic
	names     []string           // sorted; nil: to be rebuilt
	ids       []cluster.BrokerID // sorted; nil: to be rebuilt
	byTopicID map[cluster.TopicID]*topic
}

func newModel() model {
	return model{
		brokers:   map[cluster.BrokerID]*broker{},
		topics:    map[string]*topic{},
		byTopicID: map[cluster.TopicID]*topic{},
	}
}

func (m *model) brokerIDs() []cluster.BrokerID {
	if m.ids == nil {
		m.ids = make([]cluster.BrokerID, 0, len(m.brokers))
		for id := range m.brokers {
			m.ids = append(m.ids, id)
		}
		slices.Sort(m.ids)
	}
	return m.ids
}

func (m *model) topicNames() []string {
	if m.names == nil {
		m.names = make([]string, 0, len(m.topics))
		for name := range m.topics {
			m.names = append(m.names, name)
		}
		sort.Strings(m.names)
	}
	return m.names
}

func (m *model) addBroker(info cluster.Broker) {
	m.brokers[info.ID] = &broker{Broker: info, offline: map[cluster.TopicPartition]struct{}{}}
	m.ids = nil
}

func (m *model) removeBroker(id cluster.BrokerID) {
	delete(m.brokers, id)
	m.ids = nil
}

func (m *model) addTopic(name string, document registry.TopicAssignment) *topic {
	t := &topic{name: name, id: document.ID}
	for number, assignment := range document.Partitions {
		t.partitions = append(t.partitions, &partition{
			tp: cluster.TopicPartition{Topic: name, Partition: number}, topic: t, assignment: assignment,
		})
	}
	sort.Slice(t.partitions, func(i, j int) bool { return t.partitions[i].tp.Partition < t.partitions[j].tp.Partition })
	m.topics[name] = t
	m.setTopicID(t, document.ID)
	m.names = nil
	return t
}

func (m *model) setTopicID(t *topic, id cluster.TopicID) {
	t.id = id
	if !id.IsZero() {
		m.byTopicID[id] = t
	}
}

func (m *model) removeTopic(name string) {
	if t := m.topics[name]; t != nil {
		delete(m.byTopicID, t.id)
		delete(m.topics, name)
		m.names = nil
	}
}

func (m *model) partition(tp cluster.TopicPartition) *partition {
	if t := m.topics[tp.Topic]; t != nil {
		return t.partition(tp.Partition)
	}
	return nil
}

// registered reports whether the broker has its node, shutting down or not.
func (m *model) registered(id cluster.BrokerID) bool { return m.brokers[id] != nil }

// live reports whether the broker is registered and not leaving.
func (m *model) live(id cluster.BrokerID) bool {
	b := m.brokers[id]
	return b != nil && b.live()
}

// online reports whether the replica can serve: its broker is live and its log directory is
// not known to have failed.
func (m *model) online(tp cluster.TopicPartition) func(cluster.BrokerID) bool {
	return func(id cluster.BrokerID) bool { return m.live(id) && !m.logFailed(id, tp) }
}

func (m *model) logFailed(id cluster.BrokerID, tp cluster.TopicPartition) bool {
	b := m.brokers[id]
	if b == nil {
		return false
	}
	_, failed := b.offline[tp]
	return failed
}

// eachPartition visits all partitions in order of topic and number.
func (m *model) eachPartition(visit func(*partition)) {
	for _, name := range m.topicNames() {
		for _, p := range m.topics[name].partitions {
			visit(p)
		}
	}
}

// partitionsOn returns the partitions with a replica on one of the brokers, those of topics
// being deleted left out.
func (m *model) partitionsOn(ids ...cluster.BrokerID) []*partition {
	var out []*partition
	m.eachPartition(func(p *partition) {
		if p.topic.deletion == nil && slices.ContainsFunc(ids, p.has) {
			out = append(out, p)
		}
	})
	return out
}
