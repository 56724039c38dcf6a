package commitlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"sync"
	"sync/atomic"

	"understudy/internal/streaming/cluster"
	"understudy/internal/vfs"

	"github.com/twmb/franz-go/pkg/kerr"
)

// logDirectory is one entry of log.dirs.
type logDirectory struct {
	path   string
	fs     vfs.FS
	logger *slog.Logger
	lock   io.Closer

	meta    metaProperties
	hasMeta bool

	broken    atomic.Pointer[error]
	onFailure func(dir string, err error)

	recoveryPoints offsetCheckpoint
	starts         offsetCheckpoint
	highWatermarks offsetCheckpoint
	remover        remover
	turns          syncTurns

	cleanShutdown bool                              // the mark was there at start
	found         map[cluster.TopicPartition]string // partition directories found at start
	logs          int                               // hosted logs; under Manager.mu
	deletions     atomic.Bool                       // logs were deleted since the names were synced
}

// openDirectory locks a log directory and reads what describes it. On error nothing stays
// locked.
func openDirectory(fsys vfs.FS, path string, logger *slog.Logger, onFailure func(string, error)) (*logDirectory, error) {
	d := &logDirectory{path: path, fs: fsys, logger: logger.With("dir", path), onFailure: onFailure, found: make(map[cluster.TopicPartition]string)}
	if err := d.make(); err != nil {
		return nil, fmt.Errorf("log directory %s cannot be made: %w", path, err)
	}
	lock, err := fsys.Lock(filepath.Join(path, lockName))
	if errors.Is(err, vfs.ErrLocked) {
		return nil, fmt.Errorf("log directory %s is in use by another broker (%w): stop it, or choose another log.dirs", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("log directory %s: %w", path, err)
	}
	d.lock = lock
	if err := d.read(); err != nil {
		_ = lock.Close()
		return nil, err
	}
	return d, nil
}

func (d *logDirectory) make() error {
	if info, err := d.fs.Stat(d.path); err == nil {
		if !info.IsDir() {
			return errors.New("there is a file of that name")
		}
		return nil
	}
	if err := d.fs.MkdirAll(d.path); err != nil {
		return err
	}
	return d.fs.SyncDir(filepath.Dir(d.path))
}

func (d *logDirectory) read() error {
	data, err := readWholeFile(d.fs, filepath.Join(d.path, metaPropertiesName))
	switch {
	case err == nil:
		if d.meta, err = decodeMetaProperties(data); err != nil {
			return fmt.Errorf("%s is refused: %w", filepath.Join(d.path, metaPropertiesName), err)
		}
		d.hasMeta = true
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	for _, checkpoint := range []struct {
		of   *offsetCheckpoint
		name string
	}{{&d.recoveryPoints, recoveryPointName}, {&d.starts, logStartName}, {&d.highWatermarks, highWatermarkName}} {
		path := filepath.Join(d.path, checkpoint.name)
		offsets, err := readOffsets(d.fs, path)
		if errors.Is(err, ErrCorrupt) {
			// All three are derived: without them more is recovered, and a follower learns the
			// rest from its leader.
			d.logger.Error("checkpoint is damaged: it is kept aside, and everything is recovered as without it", "path", path, "error", err)
			offsets, err = offsetsByPartition{}, d.fs.Rename(path, path+damagedSuffix)
		}
		if err != nil {
			return err
		}
		checkpoint.of.fs, checkpoint.of.path, checkpoint.of.offsets = d.fs, path, offsets
		checkpoint.of.written = maps.Clone(offsets)
	}
	_, err = d.fs.Stat(filepath.Join(d.path, cleanShutdownName))
	d.cleanShutdown = err == nil
	return d.list()
}

// list finds the partitions, and schedules what is left over from deletions.
func (d *logDirectory) list() error {
	entries, err := d.fs.List(d.path)
	if err != nil {
		return err
	}
	d.remover.fs, d.remover.logger = d.fs, d.logger
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		path := filepath.Join(d.path, entry.Name())
		switch tp, kind := parseDirName(entry.Name()); kind {
		case dirPartition:
			d.found[tp] = path
		case dirDelete:
			d.remover.later(path, 0)
		case dirOther:
			d.logger.Warn("directory left alone: it belongs to a feature that is not supported", "path", path)
		case dirForeign:
			return fmt.Errorf("log directory %s holds %q, which is no partition's directory: move it elsewhere, or choose another log.dirs", d.path, entry.Name())
		}
	}
	return nil
}

// removeCleanMark makes a crash from now on be seen as one.
func (d *logDirectory) removeCleanMark() error {
	if !d.cleanShutdown {
		return nil
	}
	if err := d.fs.Remove(filepath.Join(d.path, cleanShutdownName)); err != nil {
		return err
	}
	return d.fs.SyncDir(d.path)
}

// bind checks the directory's identity, and gives it one if it has none.
func (d *logDirectory) bind(identity metaProperties) error {
	if err := d.checkIdentity(identity); err != nil || d.hasMeta {
		return err
	}
	if err := replaceFile(d.fs, filepath.Join(d.path, metaPropertiesName), identity.encode(), true); err != nil {
		return fmt.Errorf("log directory %s: write %s: %w", d.path, metaPropertiesName, err)
	}
	d.meta, d.hasMeta = identity, true
	return nil
}

func (d *logDirectory) checkIdentity(identity metaProperties) error {
	if !d.hasMeta {
		return nil
	}
	path := filepath.Join(d.path, metaPropertiesName)
	if identity.clusterID != "" && d.meta.clusterID != "" && d.meta.clusterID != identity.clusterID {
		return fmt.Errorf("log directory %s belongs to cluster %s, not to %s: choose another log.dirs or zookeeper.connect (see %s)",
			d.path, d.meta.clusterID, identity.clusterID, path)
	}
	if identity.brokerID != cluster.NoBroker && d.meta.brokerID != cluster.NoBroker && d.meta.brokerID != identity.brokerID {
		return fmt.Errorf("log directory %s belongs to broker %d, not to %d: set broker.id=%d or choose another log.dirs (see %s)",
			d.path, d.meta.brokerID, identity.brokerID, d.meta.brokerID, path)
	}
	return nil
}

func (d *logDirectory) failure() error {
	if broken := d.broken.Load(); broken != nil {
		return *broken
	}
	return nil
}

// fail marks the directory failed for good and returns the error to answer with.
func (d *logDirectory) fail(cause error) error {
	err := fmt.Errorf("commitlog: log directory %s failed: %w: %w", d.path, cause, kerr.KafkaStorageError)
	if d.broken.CompareAndSwap(nil, &err) {
		d.logger.Error("log directory failed: its partitions are offline until the broker is started anew", "error", cause)
		if d.onFailure != nil {
			d.onFailure(d.path, err)
		}
	}
	return d.failure()
}

// offsetCheckpoint is a checkpoint file and what it is to hold.
type offsetCheckpoint struct {
	fs   vfs.FS
	path string

	writing sync.Mutex // one write of the file at a time; taken before mu
	mu      sync.Mutex
	offsets offsetsByPartition
	written offsetsByPartition // what the file on disk says
	dirty   bool
}

func (c *offsetCheckpoint) get(tp cluster.TopicPartition) (cluster.Offset, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	offset, ok := c.offsets[tp]
	return offset, ok
}

func (c *offsetCheckpoint) set(tp cluster.TopicPartition, offset cluster.Offset) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known, ok := c.offsets[tp]; !ok || known != offset {
		c.offsets[tp], c.dirty = offset, true
	}
}

func (c *offsetCheckpoint) remove(tp cluster.TopicPartition) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.offsets[tp]; ok {
		delete(c.offsets, tp)
		c.dirty = true
	}
}

// retain drops the partitions that are not hosted any more.
func (c *offsetCheckpoint) retain(hosted func(cluster.TopicPartition) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := len(c.offsets)
	maps.DeleteFunc(c.offsets, func(tp cluster.TopicPartition, _ cluster.Offset) bool { return !hosted(tp) })
	c.dirty = c.dirty || len(c.offsets) != before
}

// write puts the file on disk if it is behind, or in any case.
func (c *offsetCheckpoint) write(always bool) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	if !c.dirty && !always {
		c.mu.Unlock()
		return nil
	}
	data, content := encodeOffsets(c.offsets), maps.Clone(c.offsets)
	c.dirty = false
	c.mu.Unlock()
	if err := replaceFile(c.fs, c.path, data, true); err != nil {
		c.mu.Lock()
		c.dirty = true
		c.mu.Unlock()
		return fmt.Errorf("write %s: %w", c.path, err)
	}
	c.mu.Lock()
	c.written = content
	c.mu.Unlock()
	return nil
}

// mentions says whether a start after a crash would find an offset.
func (c *offsetCheckpoint) mentions(tp cluster.TopicPartition) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, found := c.written[tp]
	return found
}

// disown sees to it that the checkpoint files have nothing left of an earlier log of that
// name. A start after a crash would take it for the new one's: trust what was never synced,
// or drop what lies below the other's start.
func (d *logDirectory) disown(tp cluster.TopicPartition) error {
	for _, checkpoint := range []*offsetCheckpoint{&d.recoveryPoints, &d.starts, &d.highWatermarks} {
		checkpoint.remove(tp) // still there if the log was deleted by the process before
		if checkpoint.mentions(tp) {
			if err := checkpoint.write(true); err != nil {
				return err
			}
		}
	}
	return nil
}

// onDisk is the offset that a start after a crash would find.
func (c *offsetCheckpoint) onDisk(tp cluster.TopicPartition) cluster.Offset {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.written[tp]
}

// remover deletes files and directories some time later.
type remover struct {
	fs     vfs.FS
	logger *slog.Logger
	nowMs  func() int64

	mu    sync.Mutex
	queue []removal
}

type removal struct {
	path  string
	dueMs int64
}

func (r *remover) later(path string, delayMs int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	due := int64(0)
	if delayMs > 0 {
		due = r.nowMs() + delayMs
	}
	r.queue = append(r.queue, removal{path, due})
}

// run deletes what is due; all deletes everything.
func (r *remover) run(nowMs int64) {
	r.mu.Lock()
	var due []string
	kept := r.queue[:0]
	for _, entry := range r.queue {
		if entry.dueMs <= nowMs {
			due = append(due, entry.path)
		} else {
			kept = append(kept, entry)
		}
	}
	r.queue = kept
	r.mu.Unlock()
	for _, path := range due {
		if err := r.fs.RemoveAll(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.logger.Warn("deletion failed", "path", path, "error", err)
		}
	}
}
