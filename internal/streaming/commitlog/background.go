package commitlog

import (
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"understudy/internal/streaming/cluster"
)

const (
	tickInterval               = time.Second
	highWatermarkInterval      = 5 * time.Second // replica.high.watermark.checkpoint.interval.ms
	recoveryPointWriteInterval = time.Second     // at most, after flushes
)

// enqueue asks the background for a chore. The set of logs bounds the queue.
func (m *Manager) enqueue(l *Log, what chore) {
	m.work.Lock()
	m.work.chores[l] |= what
	m.work.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// runFlusher carries out what logs ask of the background.
func (m *Manager) runFlusher() {
	for {
		select {
		case <-m.stop:
			return
		case <-m.wake:
		}
		m.runChores()
	}
}

// Background does what is due now, for a manager without goroutines (Config.Stepped).
func (m *Manager) Background() {
	m.runChores()
	m.tick(&m.stepped)
}

// tidyingHands is how many logs have their small files written at once. Each file is fsynced,
// and a file system commits concurrent fsyncs together: one after the other, the files of a
// thousand new partitions are two thousand commits that everybody's creations wait for.
const tidyingHands = 32

// runChores writes small files and flushes logs. Flushes of different logs follow each other:
// they compete for the same disk.
func (m *Manager) runChores() {
	m.work.Lock()
	chores := m.work.chores
	m.work.chores = make(map[*Log]chore)
	m.work.Unlock()
	logs := slices.SortedFunc(maps.Keys(chores), func(a, b *Log) int { return comparePartitions(a.tp, b.tp) })
	m.tidyAll(slices.DeleteFunc(slices.Clone(logs), func(l *Log) bool { // small files first: they are quick
		return chores[l]&choreFiles == 0 || l.Failed() != nil
	}))
	for _, l := range logs {
		if m.stopping() {
			return
		}
		if l.Failed() == nil && chores[l]&(choreFlush|choreSecure) != 0 {
			_ = l.Flush() // the failure is recorded and told
		}
	}
	for _, l := range logs {
		if chores[l]&choreSecure != 0 {
			_ = m.CheckpointHighWatermarks(nil)
			return
		}
	}
}

func (m *Manager) tidyAll(logs []*Log) {
	var group errgroup.Group
	group.SetLimit(tidyingHands)
	for _, l := range logs {
		if m.stopping() {
			break // a clean close does all of it
		}
		if m.config.Stepped {
			l.tidy()
			continue
		}
		group.Go(func() error {
			l.tidy() // a failure is recorded and told
			return nil
		})
	}
	_ = group.Wait()
}

func (m *Manager) stopping() bool {
	select {
	case <-m.stop:
		return true
	default:
		return false
	}
}

// tidy writes the small files; a deletion waits for it.
func (l *Log) tidy() {
	l.flushing.Lock()
	defer l.flushing.Unlock()
	if l.Failed() != nil {
		return
	}
	if err := l.writeSmallFiles(false); err != nil {
		_ = l.fail(err)
	}
}

// runTicker does what is due by the clock.
func (m *Manager) runTicker() {
	ticker := time.NewTicker(tickInterval)
	defer ticker.Stop()
	due := schedule{next: make(map[string]time.Time)}
	for {
		select {
		case <-m.stop:
			return
		case <-ticker.C:
			m.tick(&due)
		}
	}
}

// schedule tells when something was last done. The first time is one interval from the
// first look.
type schedule struct{ next map[string]time.Time }

func (s *schedule) due(name string, now time.Time, interval time.Duration) bool {
	next, known := s.next[name]
	if known && now.Before(next) {
		return false
	}
	s.next[name] = now.Add(interval)
	return known
}

func (m *Manager) tick(due *schedule) {
	now := m.config.Now()
	if due.due("recovery points", now, recoveryPointWriteInterval) {
		_ = m.writeCheckpoints(func(d *logDirectory) []*offsetCheckpoint { return []*offsetCheckpoint{&d.recoveryPoints} })
	}
	if due.due("start offsets", now, m.config.CheckpointInterval) {
		_ = m.writeCheckpoints(func(d *logDirectory) []*offsetCheckpoint { return []*offsetCheckpoint{&d.starts} })
	}
	if due.due("high watermarks", now, highWatermarkInterval) {
		_ = m.CheckpointHighWatermarks(nil)
	}
	if due.due("retention", now, m.config.RetentionCheckInterval) {
		m.RunRetention()
	}
	if due.due("producers", now, m.config.ProducerExpirationCheck) {
		for _, l := range m.All() {
			l.expireProducers(now.UnixMilli())
		}
	}
	m.flushByTime(now.UnixMilli())
	for _, d := range m.dirs {
		if d.failure() == nil {
			d.remover.run(now.UnixMilli())
		}
	}
}

// RunRetention applies retention to all logs now; the background does so by itself.
func (m *Manager) RunRetention() {
	nowMs := m.nowMs()
	for _, l := range m.All() {
		if err := l.deleteOld(nowMs); err != nil {
			m.logger.Warn("retention failed", "topic", l.tp.Topic, "partition", l.tp.Partition, "error", err)
		}
	}
}

// flushByTime serves flush.ms and flush.messages where a topic sets them; flush.messages=1 is
// for whoever acknowledges (SyncTo).
func (m *Manager) flushByTime(nowMs int64) {
	for _, l := range m.All() {
		config := l.config.Load()
		if config.FlushMs == DefaultLogConfig().FlushMs && config.FlushMessages == DefaultLogConfig().FlushMessages {
			continue
		}
		l.writer.Lock()
		late := l.writer.unflushed > 0 && nowMs-l.writer.unflushedMs >= config.FlushMs
		many := config.FlushMessages > 1 && l.published.end-l.writer.recoveryPoint >= cluster.Offset(config.FlushMessages)
		ask := (late || many) && !l.writer.flushAsked
		l.writer.flushAsked = l.writer.flushAsked || ask
		l.writer.Unlock()
		if ask {
			m.enqueue(l, choreFlush)
		}
	}
}

func (l *Log) expireProducers(nowMs int64) {
	l.writer.Lock()
	defer l.writer.Unlock()
	l.writer.producers.expire(nowMs, l.expiration.Milliseconds())
}
