package replication

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/commitlog"
	"understudy/internal/streaming/wire"
)

// A log that has damaged batches (commitlog.Damage) is mended in place, with the batches of
// another replica: a committed batch has the same offsets, the same leader epoch and the same
// bytes in every replica, so nothing has to be truncated, the in-sync set stays as it is, and
// it does not matter who leads. The repairer reads them as a consumer does, from the leader
// or from any other replica: only what is committed is ever taken.

const (
	repairPoll    = time.Second // damage that no reader has met, but the scrubber, is looked for so often
	repairBackoff = time.Second
	repairTimeout = 10 * time.Second
	// repairFetchVersion names topics, and lets followers be read from.
	repairFetchVersion = 12
)

// damageMet asks the repairer to look at once.
func (m *Manager) damageMet() {
	select {
	case m.repairs <- struct{}{}:
	default:
	}
}

// repair is the repairer's goroutine.
func (m *Manager) repair(ctx context.Context) {
	reported := map[commitlog.Damage]bool{}
	for {
		wait := repairPoll
		if !m.repairAll(ctx, reported) {
			wait = repairBackoff
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-m.repairs:
			if wait == repairBackoff { // readers retry faster than a source comes back
				select {
				case <-timer.C:
				case <-ctx.Done():
				}
			}
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// repairAll tries to mend every damaged log; false if one stays damaged.
func (m *Manager) repairAll(ctx context.Context, reported map[commitlog.Damage]bool) (mended bool) {
	mended = true
	for _, log := range m.config.Logs.Damaged() {
		h := m.host(log.TopicPartition())
		if h == nil || h.log != log {
			continue
		}
		for _, damage := range log.Damages() {
			err := m.repairDamage(ctx, h, damage)
			if err == nil {
				continue
			}
			mended = false
			key := damage
			key.Cause = nil
			if !reported[key] && ctx.Err() == nil {
				reported[key] = true
				m.logger.Error("damaged batches not replaced yet: no other replica gives a copy", "topic", h.tp.Topic, "partition", h.tp.Partition,
					"path", damage.Path, "position", damage.From, "offset", damage.First, "next", damage.Next, "err", err)
			}
		}
	}
	return mended
}

var errNoSource = errors.New("no other replica is alive")

// repairDamage takes a copy from the first replica that has one that fits.
func (m *Manager) repairDamage(ctx context.Context, h *hosted, damage commitlog.Damage) error {
	failures := errNoSource
	for _, source := range m.repairSources(h) {
		data, err := m.copyOf(ctx, source, h.tp, damage)
		if err == nil {
			err = h.log.Repair(damage, data)
		}
		if err != nil {
			failures = errors.Join(failures, fmt.Errorf("broker %d: %w", source, err))
			continue
		}
		effects := takeEffects()
		h.mu.Lock()
		h.wakeAllLocked(effects)
		h.mu.Unlock()
		m.run(effects)
		return nil
	}
	return failures
}

// repairSources are the other replicas that are alive, the leader first.
func (m *Manager) repairSources(h *hosted) []cluster.BrokerID {
	h.mu.Lock()
	leader, replicas := h.replica.Leader(), slices.Clone(h.replica.Replicas())
	h.mu.Unlock()
	sources := slices.DeleteFunc(replicas, func(id cluster.BrokerID) bool { return id == m.config.Self || !m.alive(id) })
	slices.SortStableFunc(sources, func(a, b cluster.BrokerID) int {
		switch {
		case a == leader && b != leader:
			return -1
		case b == leader && a != leader:
			return 1
		}
		return 0
	})
	return sources
}

// copyOf reads the batches of a damaged stretch from another broker.
func (m *Manager) copyOf(ctx context.Context, source cluster.BrokerID, tp cluster.TopicPartition, damage commitlog.Damage) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, repairTimeout)
	defer cancel()
	ask, hangUp, err := m.repairSource(ctx, source)
	if err != nil {
		return nil, err
	}
	defer hangUp()
	size := damage.To - damage.From
	var data []byte
	for next := damage.First; int64(len(data)) < size; {
		answer, err := ask(repairRequest(tp, next, size-int64(len(data))))
		if err != nil {
			return nil, err
		}
		records, err := repairRecords(answer)
		if err != nil {
			return nil, err
		}
		after, whole := commitlog.WholeBatches(records)
		if whole == 0 {
			return nil, fmt.Errorf("it has nothing committed at offset %d", next)
		}
		data, next = append(data, records[:whole]...), after
	}
	return data, nil
}

// repairSource connects to a broker.
func (m *Manager) repairSource(ctx context.Context, source cluster.BrokerID) (ask func(*kmsg.FetchRequest) (*kmsg.FetchResponse, error), hangUp func(), err error) {
	if m.repairFetch != nil {
		return func(request *kmsg.FetchRequest) (*kmsg.FetchResponse, error) { return m.repairFetch(source, request) }, func() {}, nil
	}
	endpoint, found := m.config.Metadata.Image().Endpoint(source, m.config.InterBrokerListener)
	if !found {
		return nil, nil, errors.New("its address is not known")
	}
	client, err := wire.Dial(ctx, hostPort(endpoint.Host, endpoint.Port), wire.ClientOptions{
		ClientID: fmt.Sprintf("broker-%d-repair", m.config.Self), DialContext: m.config.Dial,
	})
	if err != nil {
		return nil, nil, err
	}
	return func(request *kmsg.FetchRequest) (*kmsg.FetchResponse, error) {
		answer, err := client.Do(ctx, request)
		if err != nil {
			return nil, err
		}
		return answer.(*kmsg.FetchResponse), nil
	}, client.Close, nil
}

// RepairFetch stands for a request on a connection of the repairer.
type RepairFetch func(source cluster.BrokerID, request *kmsg.FetchRequest) (*kmsg.FetchResponse, error)

// Repair does the repairer's work, once.
func (s *Stepped) Repair(fetch RepairFetch) {
	s.repairFetch = fetch
	s.repairAll(context.Background(), map[commitlog.Damage]bool{})
}

func repairRequest(tp cluster.TopicPartition, from cluster.Offset, size int64) *kmsg.FetchRequest {
	request := kmsg.NewPtrFetchRequest()
	request.SetVersion(repairFetchVersion)
	request.ReplicaID = int32(ConsumerReplica)
	request.MaxBytes = 1 << 30
	request.SessionEpoch = -1
	part := kmsg.NewFetchRequestTopicPartition()
	part.Partition = tp.Partition
	part.CurrentLeaderEpoch, part.LastFetchedEpoch = -1, -1
	part.FetchOffset, part.LogStartOffset = int64(from), -1
	part.PartitionMaxBytes = int32(min(size, 8<<20))
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic = tp.Topic
	topic.Partitions = append(topic.Partitions, part)
	request.Topics = append(request.Topics, topic)
	return request
}

func repairRecords(response *kmsg.FetchResponse) ([]byte, error) {
	if err := kerr.ErrorForCode(response.ErrorCode); err != nil {
		return nil, err
	}
	if len(response.Topics) != 1 || len(response.Topics[0].Partitions) != 1 {
		return nil, errors.New("its answer is not for the partition asked about")
	}
	part := &response.Topics[0].Partitions[0]
	return part.RecordBatches, kerr.ErrorForCode(part.ErrorCode)
}

// damageCode is what a reader is answered who has come upon damage: while there are other
// replicas it is worth coming again, to another leader or to a mended log; without them the
// records are gone, which the reader is told as by Kafka, whose consumers find out themselves.
func (m *Manager) damageCode(h *hosted) error {
	m.damageMet()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.replica.Replicas()) > 1 {
		return kerr.KafkaStorageError
	}
	return kerr.CorruptMessage
}
