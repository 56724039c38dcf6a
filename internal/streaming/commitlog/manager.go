package commitlog

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"understudy/internal/streaming/cluster"
	"understudy/internal/vfs"

	"github.com/twmb/franz-go/pkg/kerr"
	"golang.org/x/sync/errgroup"
)

// Manager owns the log directories of a broker.
type Manager struct {
	config Config
	files  *fileCache
	dirs   []*logDirectory
	logger *slog.Logger

	mu struct {
		sync.RWMutex
		logs     map[cluster.TopicPartition]*Log
		identity metaProperties
		closed   bool
	}

	work struct {
		sync.Mutex
		chores map[*Log]chore
	}
	wake    chan struct{} // has room for one: there is work
	stop    chan struct{}
	stopped sync.WaitGroup

	stepped schedule // of Background
}

// Open locks the directories, checks their identity and loads their logs, recovering them
// in parallel after an unclean stop. Errors name the directory and what to do.
func Open(config Config) (*Manager, error) {
	setDefaults(&config)
	if len(config.Dirs) == 0 {
		return nil, errors.New("log.dirs names no directory")
	}
	m := &Manager{
		config:  config,
		files:   newFileCache(config.FS, config.OpenFilesMax),
		logger:  config.Logger,
		wake:    make(chan struct{}, 1),
		stop:    make(chan struct{}),
		stepped: schedule{next: make(map[string]time.Time)},
	}
	m.mu.logs = make(map[cluster.TopicPartition]*Log)
	m.work.chores = make(map[*Log]chore)
	if err := m.open(); err != nil {
		m.unlock()
		return nil, err
	}
	if !config.Stepped {
		m.stopped.Go(m.runTicker)
		m.stopped.Go(m.runFlusher)
		if config.ScrubBytesPerSecond > 0 {
			m.stopped.Go(m.runScrubber)
		}
	}
	return m, nil
}

func setDefaults(config *Config) {
	if config.FS == nil {
		config.FS = vfs.OS()
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	config.RecoveryThreads = cmp.Or(config.RecoveryThreads, runtime.GOMAXPROCS(0))
	config.FlushBytes = cmp.Or(config.FlushBytes, defaultFlushBytes)
	config.RetentionCheckInterval = cmp.Or(config.RetentionCheckInterval, defaultRetentionCheckInterval)
	config.CheckpointInterval = cmp.Or(config.CheckpointInterval, defaultCheckpointInterval)
	config.ProducerExpiration = cmp.Or(config.ProducerExpiration, defaultProducerExpiration)
	config.ProducerExpirationCheck = cmp.Or(config.ProducerExpirationCheck, defaultProducerExpirationCheck)
	config.OpenFilesMax = cmp.Or(config.OpenFilesMax, defaultOpenFilesMax)
}

func (m *Manager) nowMs() int64 { return m.config.Now().UnixMilli() }

func (m *Manager) open() error {
	for _, path := range m.config.Dirs {
		path = filepath.Clean(path)
		d, err := openDirectory(m.config.FS, path, m.logger, m.config.OnDirFailure)
		if err != nil {
			return err
		}
		d.remover.nowMs = m.nowMs
		m.dirs = append(m.dirs, d)
	}
	if err := m.identify(); err != nil {
		return err
	}
	for _, d := range m.dirs {
		if err := m.loadAll(d); err != nil {
			return err
		}
	}
	return nil
}

// identify makes sure that the directories agree on whose they are.
func (m *Manager) identify() error {
	identity := metaProperties{m.config.ClusterID, m.config.BrokerID}
	for _, d := range m.dirs {
		if err := d.checkIdentity(identity); err != nil {
			return err
		}
		if d.hasMeta {
			identity.clusterID = cmp.Or(identity.clusterID, d.meta.clusterID)
			if identity.brokerID == cluster.NoBroker {
				identity.brokerID = d.meta.brokerID
			}
		}
	}
	m.mu.identity = identity
	if m.config.ClusterID == "" || identity.brokerID == cluster.NoBroker {
		return nil
	}
	return m.bindAll(identity)
}

func (m *Manager) bindAll(identity metaProperties) error {
	for _, d := range m.dirs {
		if err := d.bind(identity); err != nil {
			return err
		}
	}
	return nil
}

// BindCluster checks meta.properties against the cluster's id and writes those that are
// missing. It is for Config.ClusterID "" and may be called again with the same id.
func (m *Manager) BindCluster(clusterID string, brokerID cluster.BrokerID) error {
	identity := metaProperties{clusterID, brokerID}
	for _, d := range m.dirs { // all are checked before any is written
		if err := d.checkIdentity(identity); err != nil {
			return err
		}
	}
	if err := m.bindAll(identity); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.identity = identity
	return nil
}

// ClusterID is what meta.properties says, or "".
func (m *Manager) ClusterID() string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.mu.identity.clusterID
}

// UncleanStop reports whether the last process did not close these logs cleanly, so that what
// was not synced may be missing, or whether a log has lost its tail anyhow.
func (m *Manager) UncleanStop() bool {
	for _, d := range m.dirs {
		if !d.cleanShutdown {
			return true
		}
	}
	return slices.ContainsFunc(m.All(), (*Log).LostTail)
}

// BrokerID is what the configuration or meta.properties says, or cluster.NoBroker.
func (m *Manager) BrokerID() cluster.BrokerID {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.mu.identity.brokerID
}

// loadAll loads the logs of a directory with several threads. The clean-shutdown mark goes
// before anything is changed: should we crash meanwhile, everything is checked again.
func (m *Manager) loadAll(d *logDirectory) error {
	if err := d.removeCleanMark(); err != nil {
		return fmt.Errorf("log directory %s: %w", d.path, err)
	}
	began := m.config.Now()
	var group errgroup.Group
	group.SetLimit(max(m.config.RecoveryThreads, 1))
	for _, tp := range slices.SortedFunc(maps.Keys(d.found), comparePartitions) { // in order, so that a simulation can be repeated
		path := d.found[tp]
		if m.mu.logs[tp] != nil {
			return fmt.Errorf("partition %s is in two log directories, %s and %s: remove one of them", tp, m.mu.logs[tp].path, path)
		}
		l := m.newLog(d, tp)
		m.mu.logs[tp] = l
		d.logs++
		group.Go(func() error {
			recoveryPoint, _ := d.recoveryPoints.get(tp)
			start, _ := d.starts.get(tp)
			highWatermark, _ := d.highWatermarks.get(tp)
			if err := l.load(d.cleanShutdown, recoveryPoint, start, highWatermark); err != nil {
				return fmt.Errorf("log %s cannot be loaded: %w", l.path, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if d.logs > 0 {
		m.logger.Info("logs loaded", "dir", d.path, "logs", d.logs, "clean", d.cleanShutdown, "took", m.config.Now().Sub(began))
	}
	return nil
}

func (m *Manager) newLog(d *logDirectory, tp cluster.TopicPartition) *Log {
	l := &Log{
		tp: tp, dir: d, path: filepath.Join(d.path, tp.String()), files: m.files,
		now: m.config.Now, background: m.enqueue,
		expiration: m.config.ProducerExpiration, flushBytes: m.config.FlushBytes,
	}
	config := DefaultLogConfig()
	l.config.Store(&config)
	l.synced.turn.L = &l.synced.Mutex
	return l
}

// Get returns a partition's log, or nil if there is none here.
func (m *Manager) Get(tp cluster.TopicPartition) *Log {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.mu.logs[tp]
}

// GetOrCreate returns the log, making it in the directory with the fewest logs if it is
// missing. isNew says that the controller created the partition just now: without it
// nothing is created while a directory is offline, where the log may be.
func (m *Manager) GetOrCreate(tp cluster.TopicPartition, topicID cluster.TopicID, config LogConfig, isNew bool) (*Log, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.mu.logs[tp]
	if l == nil {
		var err error
		if l, err = m.createLocked(tp, isNew); err != nil {
			return nil, err
		}
	}
	if err := l.SetTopicID(topicID); err != nil {
		return nil, err
	}
	l.SetConfig(config)
	return l, nil
}

func (m *Manager) createLocked(tp cluster.TopicPartition, isNew bool) (*Log, error) {
	if m.mu.closed {
		return nil, fmt.Errorf("commitlog: create %s: the logs are closed: %w", tp, kerr.KafkaStorageError)
	}
	if !legalTopic(tp.Topic) || tp.Partition < 0 {
		return nil, fmt.Errorf("commitlog: %s is no legal partition name: %w", tp, kerr.InvalidTopicException)
	}
	var best *logDirectory
	for _, d := range m.dirs {
		if err := d.failure(); err != nil {
			if !isNew {
				return nil, fmt.Errorf("commitlog: create %s: it may be in a failed directory: %w", tp, err)
			}
			continue
		}
		if best == nil || d.logs < best.logs {
			best = d
		}
	}
	if best == nil {
		return nil, fmt.Errorf("commitlog: create %s: no log directory is usable: %w", tp, kerr.KafkaStorageError)
	}
	l := m.newLog(best, tp)
	if err := best.disown(tp); err != nil {
		return nil, best.fail(err)
	}
	if err := m.config.FS.MkdirAll(l.path); err != nil {
		return nil, best.fail(err)
	}
	if err := l.load(false, 0, 0, 0); err != nil {
		return nil, best.fail(err)
	}
	l.writer.blank = !isNew
	m.mu.logs[tp] = l
	best.logs++
	return l, nil
}

// Delete renames the log's directory for deletion; its files go after file.delete.delay.ms.
// Slices in use stay readable. Nil if there is no such log.
func (m *Manager) Delete(tp cluster.TopicPartition) error {
	m.mu.Lock()
	l := m.mu.logs[tp]
	delete(m.mu.logs, tp)
	if l != nil {
		l.dir.logs--
	}
	m.mu.Unlock()
	if l == nil {
		return nil
	}
	d := l.dir
	l.shut()
	for _, checkpoint := range []*offsetCheckpoint{&d.recoveryPoints, &d.starts, &d.highWatermarks} {
		checkpoint.remove(tp)
	}
	if err := d.failure(); err != nil {
		return err
	}
	target := filepath.Join(d.path, deleteDirName(tp))
	if err := m.config.FS.Rename(l.path, target); err != nil {
		return d.fail(err)
	}
	d.deletions.Store(true)
	d.remover.later(target, l.Config().FileDeleteDelayMs)
	m.logger.Info("log deleted", "topic", tp.Topic, "partition", tp.Partition, "dir", d.path)
	return nil
}

// SecureDeletions makes what Delete did survive a power loss. A log that comes back under its name
// stands in the way of the next topic of that name.
func (m *Manager) SecureDeletions() error {
	var failures error
	for _, d := range m.dirs {
		if !d.deletions.Swap(false) || d.failure() != nil {
			continue
		}
		if err := d.fs.SyncDir(d.path); err != nil {
			failures = errors.Join(failures, d.fail(err))
		}
	}
	return failures
}

// shut makes the log refuse everything, waits for what is under way, and lets go of its
// files.
func (l *Log) shut() {
	l.closed.Store(true)
	l.begin.Lock()
	defer l.begin.Unlock()
	l.flushing.Lock()
	defer l.flushing.Unlock()
	l.writer.Lock()
	defer l.writer.Unlock()
	for _, s := range l.published.segments {
		s.forget(l.files)
	}
	l.synced.Lock()
	l.synced.turn.Broadcast()
	l.synced.Unlock()
}

// All returns the logs in order of topic and partition.
func (m *Manager) All() []*Log {
	m.mu.RLock()
	logs := slices.Collect(maps.Values(m.mu.logs))
	m.mu.RUnlock()
	slices.SortFunc(logs, func(a, b *Log) int { return comparePartitions(a.tp, b.tp) })
	return logs
}

// Damaged returns the logs that have damaged stretches.
func (m *Manager) Damaged() (logs []*Log) {
	for _, l := range m.All() {
		if len(l.Damages()) > 0 {
			logs = append(logs, l)
		}
	}
	return logs
}

// CheckpointHighWatermarks writes replication-offset-checkpoint. Partitions that each does
// not yield keep their log's high watermark; each may be nil. The manager does the same
// with each log's own high watermark every five seconds and at Close, so calling it is
// optional.
func (m *Manager) CheckpointHighWatermarks(each func(yield func(cluster.TopicPartition, cluster.Offset))) error {
	for _, l := range m.All() {
		l.dir.highWatermarks.set(l.tp, l.HighWatermark())
	}
	if each != nil {
		each(func(tp cluster.TopicPartition, offset cluster.Offset) {
			if l := m.Get(tp); l != nil {
				l.dir.highWatermarks.set(tp, offset)
			}
		})
	}
	return m.writeCheckpoints(func(d *logDirectory) []*offsetCheckpoint { return []*offsetCheckpoint{&d.highWatermarks} })
}

func (m *Manager) writeCheckpoints(of func(*logDirectory) []*offsetCheckpoint) error {
	var failures []error
	for _, d := range m.dirs {
		if d.failure() != nil {
			continue
		}
		for _, checkpoint := range of(d) {
			if err := checkpoint.write(false); err != nil {
				failures = append(failures, d.fail(err))
			}
		}
	}
	return errors.Join(failures...)
}

// CheckpointedHighWatermark is what the checkpoint says, or 0.
func (m *Manager) CheckpointedHighWatermark(tp cluster.TopicPartition) cluster.Offset {
	for _, d := range m.dirs {
		if offset, ok := d.highWatermarks.get(tp); ok {
			return offset
		}
	}
	return 0
}

// Close stops the background work and closes all logs. clean flushes them and leaves the
// clean-shutdown mark; otherwise the directories look as after a crash.
func (m *Manager) Close(clean bool) error {
	m.mu.Lock()
	if m.mu.closed {
		m.mu.Unlock()
		return nil
	}
	m.mu.closed = true
	m.mu.Unlock()
	close(m.stop)
	m.stopped.Wait()
	var failure error
	if clean {
		failure = m.closeClean()
	}
	for _, l := range m.All() {
		l.shut()
	}
	m.unlock()
	return failure
}

// closingThreads is how many logs are flushed at once by a clean close. They wait for the
// disk, not for the processor, and file systems commit concurrent fsyncs together.
const closingThreads = 32

func (m *Manager) closeClean() error {
	var failures struct {
		sync.Mutex
		errs []error
	}
	var group errgroup.Group
	group.SetLimit(closingThreads)
	for _, l := range m.All() {
		group.Go(func() error {
			if err := l.closeClean(); err != nil {
				failures.Lock()
				failures.errs = append(failures.errs, err)
				failures.Unlock()
			}
			return nil
		})
	}
	_ = group.Wait()
	failures.errs = append(failures.errs, m.CheckpointHighWatermarks(nil), m.writeAllCheckpoints())
	for _, d := range m.dirs {
		if d.failure() != nil {
			continue
		}
		// ZooKeeper mode writes no broker epoch; only the file's presence is looked at.
		path := filepath.Join(d.path, cleanShutdownName)
		err := writeFile(d.fs, path, []byte(`{"version":0,"brokerEpoch":-1}`), true)
		if err == nil {
			err = d.fs.SyncDir(d.path)
		}
		failures.errs = append(failures.errs, err)
	}
	return errors.Join(failures.errs...)
}

func (l *Log) closeClean() error {
	if err := l.Failed(); err != nil {
		return err
	}
	l.flushing.Lock()
	defer l.flushing.Unlock()
	return l.flush(true)
}

func (m *Manager) writeAllCheckpoints() error {
	hosted := func(d *logDirectory) func(cluster.TopicPartition) bool {
		return func(tp cluster.TopicPartition) bool {
			l := m.Get(tp)
			return l != nil && l.dir == d
		}
	}
	return m.writeCheckpoints(func(d *logDirectory) []*offsetCheckpoint {
		checkpoints := []*offsetCheckpoint{&d.recoveryPoints, &d.starts, &d.highWatermarks}
		for _, checkpoint := range checkpoints {
			checkpoint.retain(hosted(d))
		}
		return checkpoints
	})
}

func (m *Manager) unlock() {
	for _, d := range m.dirs {
		_ = d.lock.Close()
	}
}
