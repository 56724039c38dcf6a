package commitlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand"
	"path/filepath"
	"slices"
	"testing"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/record"
	"understudy/internal/vfs"
)

// modelBatch is what the dumb twin of a log remembers of a batch.
type modelBatch struct {
	first, last cluster.Offset
	epoch       cluster.LeaderEpoch
	producer    int64
	sequence    int32
	values      []string
}

// model is a log as a list.
type model struct {
	start, end cluster.Offset
	batches    []modelBatch
	synced     cluster.Offset // survives a power failure
}

func (m *model) values(from, upTo cluster.Offset) []string {
	var values []string
	for _, b := range m.batches {
		for i, value := range b.values {
			if at := b.first + cluster.Offset(i); at >= from && at < upTo {
				values = append(values, fmt.Sprintf("%d=%s", at, value))
			}
		}
	}
	return values
}

func (m *model) truncate(offset cluster.Offset) {
	for len(m.batches) > 0 && m.batches[len(m.batches)-1].last >= offset {
		offset = min(offset, m.batches[len(m.batches)-1].first)
		m.batches = m.batches[:len(m.batches)-1]
	}
	m.end = min(m.end, offset)
	m.synced = min(m.synced, m.end)
}

// window lists a producer's last five batches.
func (m *model) window(producer int64) []modelBatch {
	var found []modelBatch
	for _, b := range m.batches {
		if b.producer == producer {
			found = append(found, b)
		}
	}
	return found[max(0, len(found)-windowSize):]
}

func (m *model) epochEnd(epoch cluster.LeaderEpoch) (cluster.Offset, bool) {
	for i, b := range m.batches {
		if b.epoch > epoch {
			return b.first, i > 0 && m.batches[i-1].epoch == epoch
		}
	}
	n := len(m.batches)
	return m.end, n > 0 && m.batches[n-1].epoch == epoch
}

// TestLogAgainstModel drives a log with random appends, flushes, truncations, clean
// restarts, kill -9 and power failures, and compares it with the model after each.
func TestLogAgainstModel(t *testing.T) {
	seeds := int64(60)
	if testing.Short() {
		seeds = 15
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			driver := &modelDriver{t: t, random: rand.New(rand.NewSource(seed)), mem: vfs.NewMem(), sequences: map[int64]int32{}}
			driver.run(150)
		})
	}
}

type modelDriver struct {
	t         *testing.T
	random    *rand.Rand
	mem       *vfs.Mem
	manager   *Manager
	log       *Log
	model     model
	epoch     cluster.LeaderEpoch
	sequences map[int64]int32
	counter   int
	step      string
}

func (d *modelDriver) config() LogConfig {
	config := DefaultLogConfig()
	config.SegmentBytes = 2500
	config.IndexIntervalBytes = 200
	config.SegmentIndexBytes = 1000
	return config
}

func (d *modelDriver) open() {
	d.t.Helper()
	config := testConfig(d.mem, testDir)
	config.FlushBytes = 4000
	config.OpenFilesMax = 3
	manager, err := Open(config)
	if err != nil {
		d.t.Fatalf("%s: %v", d.step, err)
	}
	d.manager = manager
	if d.log, err = manager.GetOrCreate(testPartition, cluster.TopicID{1}, d.config(), true); err != nil {
		d.t.Fatalf("%s: %v", d.step, err)
	}
}

func (d *modelDriver) run(steps int) {
	d.step = "open"
	d.open()
	defer func() { _ = d.manager.Close(false) }()
	for i := range steps {
		switch roll := d.random.Intn(100); {
		case roll < 60:
			d.step = fmt.Sprint(i, " append")
			d.appendLeader()
		case roll < 70:
			d.step = fmt.Sprint(i, " retry")
			d.retry()
		case roll < 75:
			d.step = fmt.Sprint(i, " flush")
			d.flush()
		case roll < 80:
			d.step = fmt.Sprint(i, " sync")
			d.sync()
		case roll < 86:
			d.truncate(i)
		case roll < 90:
			d.step = fmt.Sprint(i, " epoch")
			d.epoch++
		case roll < 92:
			d.step = fmt.Sprint(i, " clean restart")
			if err := d.manager.Close(true); err != nil {
				d.t.Fatalf("%s: %v", d.step, err)
			}
			d.model.synced = d.model.end
			d.open()
		case roll < 96:
			d.step = fmt.Sprint(i, " kill -9")
			d.restart(d.mem.Clone())
		default:
			d.step = fmt.Sprint(i, " power failure")
			d.powerFailure()
		}
		d.compare()
	}
}

// restart abandons the running manager and opens another file system in its place.
func (d *modelDriver) restart(mem *vfs.Mem) {
	_ = d.manager.Close(false)
	d.mem = mem
	d.open()
}

func (d *modelDriver) appendLeader() {
	producer := int64(d.random.Intn(4)) - 1
	var values []string
	for range 1 + d.random.Intn(3) {
		d.counter++
		values = append(values, fmt.Sprint("value-", d.counter))
	}
	options := record.DefaultOptions()
	sequence := int32(-1)
	if producer >= 0 {
		sequence = d.sequences[producer]
		options = idempotent(producer, 0, sequence)
	}
	info, err := d.log.AppendLeader(batchOf(d.t, options, 1000+int64(d.random.Intn(50)), values...), AppendOptions{LeaderEpoch: d.epoch})
	if err != nil {
		d.t.Fatalf("%s: %v", d.step, err)
	}
	if info.First != d.model.end || info.Duplicate {
		d.t.Fatalf("%s: %+v, end %d", d.step, info, d.model.end)
	}
	if producer >= 0 {
		d.sequences[producer] += int32(len(values))
	}
	d.model.batches = append(d.model.batches, modelBatch{info.First, info.Last, d.epoch, producer, sequence, values})
	d.model.end = info.Last + 1
}

func (d *modelDriver) retry() {
	for producer := range int64(3) {
		for _, b := range d.model.window(producer) {
			info, err := d.log.AppendLeader(batchOf(d.t, idempotent(producer, 0, b.sequence), 1, b.values...), AppendOptions{LeaderEpoch: d.epoch})
			if err != nil || !info.Duplicate || info.First != b.first || info.Last != b.last {
				d.t.Fatalf("%s: of %+v: %+v %v", d.step, b, info, err)
			}
		}
	}
}

func (d *modelDriver) flush() {
	if err := d.log.Flush(); err != nil {
		d.t.Fatalf("%s: %v", d.step, err)
	}
	d.model.synced = d.model.end
}

func (d *modelDriver) sync() {
	if err := d.log.SyncTo(d.model.end); err != nil {
		d.t.Fatalf("%s: %v", d.step, err)
	}
	if d.log.SyncedOffset() < d.model.end {
		d.t.Fatalf("%s: synced to %d of %d", d.step, d.log.SyncedOffset(), d.model.end)
	}
	d.model.synced = d.model.end
}

func (d *modelDriver) truncate(i int) {
	offset := d.model.end - cluster.Offset(d.random.Intn(30))
	offset = max(offset, 0)
	d.step = fmt.Sprint(i, " truncate to ", offset)
	if err := d.log.TruncateTo(offset); err != nil {
		d.t.Fatalf("%s: %v", d.step, err)
	}
	d.model.truncate(offset)
	d.epoch++
	d.resumeSequences()
}

// resumeSequences makes the producers go on behind what the log has of them; one whose
// batches are all gone begins anew.
func (d *modelDriver) resumeSequences() {
	for producer := range int64(3) {
		d.sequences[producer] = 0
		if window := d.model.window(producer); len(window) > 0 {
			last := window[len(window)-1]
			d.sequences[producer] = last.sequence + int32(len(last.values))
		}
	}
}

func (d *modelDriver) powerFailure() {
	if d.log.EndOffset() != d.model.end {
		d.t.Fatalf("%s: end %d, want %d", d.step, d.log.EndOffset(), d.model.end)
	}
	d.restart(d.mem.Crash(d.random))
	end := d.log.EndOffset()
	if end < d.model.synced {
		d.t.Fatalf("%s: log ends at %d; %d was synced", d.step, end, d.model.synced)
	}
	d.adoptUnsynced(end)
	if d.random.Intn(2) == 0 {
		d.flush()
	}
	d.epoch++
	d.resumeSequences()
}

// adoptUnsynced takes over what the log holds above what was synced. It may be anything
// that was ever written there, also batches that were truncated since: the truncation was
// not synced either. Epochs and producers must fit it.
func (d *modelDriver) adoptUnsynced(end cluster.Offset) {
	d.model.truncate(d.model.synced)
	for at := d.model.end; at < end; {
		slice, err := d.log.Read(at, 1<<20, end, true)
		if err != nil {
			d.t.Fatalf("%s: %v", d.step, err)
		}
		data, err := slice.ReadAll()
		if err != nil {
			d.t.Fatalf("%s: %v", d.step, err)
		}
		for batch := range record.All(data) {
			found := modelBatch{batch.BaseOffset(), batch.LastOffset(), batch.LeaderEpoch(), batch.ProducerID(), batch.BaseSequence(), nil}
			for r, err := range batch.Records(1 << 20) {
				if err != nil {
					d.t.Fatalf("%s: %v", d.step, err)
				}
				found.values = append(found.values, string(r.Value))
			}
			if batch.BaseOffset() < d.model.end {
				d.t.Fatalf("%s: a batch goes back to %d", d.step, batch.BaseOffset())
			}
			d.model.batches = append(d.model.batches, found)
		}
		at = slice.NextOffset()
		_ = slice.Close()
	}
	d.model.end = end
}

func (d *modelDriver) compare() {
	t, m, l := d.t, &d.model, d.log
	t.Helper()
	if l.StartOffset() != m.start || l.EndOffset() != m.end {
		t.Fatalf("%s: log has %d to %d, model %d to %d", d.step, l.StartOffset(), l.EndOffset(), m.start, m.end)
	}
	from := cluster.Offset(0)
	if m.end > 0 {
		from = cluster.Offset(d.random.Int63n(int64(m.end)))
	}
	upTo := m.end
	if d.random.Intn(2) == 0 && len(m.batches) > 0 { // at a batch's boundary, as high watermarks are
		upTo = m.batches[d.random.Intn(len(m.batches))].first
	}
	if got, want := readValues(t, l, from, upTo, 1+d.random.Intn(1000)), m.values(from, upTo); !slices.Equal(got, want) {
		t.Fatalf("%s: from %d to %d\n got %v\nwant %v", d.step, from, upTo, got, want)
	}
	for epoch := range d.epoch + 1 {
		want, written := m.epochEnd(epoch)
		if !written {
			continue
		}
		if found, end := l.EndOffsetForEpoch(epoch); found != epoch || end != want {
			t.Fatalf("%s: epoch %d ends at %d (%d), want %d; cache %v", d.step, epoch, end, found, want, l.epochs.entries)
		}
	}
	for _, state := range l.Producers() {
		window := m.window(state.ProducerID)
		if len(window) == 0 {
			t.Fatalf("%s: producer %d is known and has no batches", d.step, state.ProducerID)
		}
		last := window[len(window)-1]
		if state.LastSequence != last.sequence+int32(len(last.values))-1 {
			t.Fatalf("%s: producer %d has sequence %d, want that of %+v", d.step, state.ProducerID, state.LastSequence, last)
		}
	}
}

// TestEveryWriteFails fails each write, sync and rename in turn: what was acknowledged
// before stays, the error is told, and nothing is acknowledged after.
func TestEveryWriteFails(t *testing.T) {
	boom := errors.New("no such luck")
	for failing := 0; ; failing++ {
		mem := vfs.NewMem()
		armed, count := false, 0
		fsys := vfs.WithFaults(mem, func(op vfs.Operation, path string) error {
			if !armed || op != vfs.OpWrite && op != vfs.OpSync && op != vfs.OpRename && op != vfs.OpSyncDir && op != vfs.OpTruncate {
				return nil
			}
			count++
			if count == failing+1 {
				if op == vfs.OpWrite {
					return &vfs.ShortWrite{Bytes: 7, Err: boom}
				}
				return boom
			}
			return nil
		})
		var told []string
		config := testConfig(fsys, testDir)
		config.OnDirFailure = func(dir string, err error) { told = append(told, dir) }
		m := openManager(t, config)
		logConfig := DefaultLogConfig()
		logConfig.SegmentBytes = 300
		logConfig.IndexIntervalBytes = 50
		l := openLog(t, m, logConfig)
		// The background writes partition.metadata; keep it out of the count.
		m.stopBackground()
		armed = true
		var acknowledged []string
		var failure error
		for i := range 12 {
			value := fmt.Sprint("v", i)
			info, err := l.AppendLeader(batchOf(t, record.DefaultOptions(), 1, value), AppendOptions{})
			if err == nil && i%4 == 3 {
				err = l.SyncTo(info.Last + 1)
			}
			if err == nil && i%5 == 4 {
				err = l.Flush()
			}
			if failure != nil && err == nil {
				t.Fatalf("fault %d: append %d was acknowledged after %v", failing, i, failure)
			}
			if err != nil && failure == nil {
				failure = err
			}
			if err == nil {
				acknowledged = append(acknowledged, fmt.Sprintf("%d=%s", info.First, value))
			}
		}
		armed = false
		_ = m.Close(true)
		if failure == nil {
			if count > failing {
				t.Fatalf("fault %d of %d went unnoticed", failing, count)
			}
			return
		}
		if len(told) != 1 {
			t.Fatalf("fault %d: told %v", failing, told)
		}
		if _, err := mem.Stat(filepath.Join(testDir, cleanShutdownName)); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("fault %d: a failed directory has the mark of a clean shutdown", failing)
		}
		m = openManager(t, testConfig(mem.Clone(), testDir))
		got := readValues(t, m.Get(testPartition), 0, m.Get(testPartition).EndOffset(), 1<<20)
		if len(got) < len(acknowledged) || !slices.Equal(got[:len(acknowledged)], acknowledged) {
			t.Fatalf("fault %d: acknowledged %v, found %v", failing, acknowledged, got)
		}
	}
}

// stopBackground ends the manager's goroutines early.
func (m *Manager) stopBackground() {
	close(m.stop)
	m.stopped.Wait()
	m.stop = make(chan struct{})
}

// TestDamage damages a log's files in many ways; opening it either repairs or names it, and
// never serves a batch that is not whole.
func TestDamage(t *testing.T) {
	random := rand.New(rand.NewSource(11))
	for round := range 120 {
		mem := vfs.NewMem()
		m := openManager(t, testConfig(mem, testDir))
		config := DefaultLogConfig()
		config.SegmentBytes = 1500
		config.IndexIntervalBytes = 100
		l := openLog(t, m, config)
		for i := range 60 {
			mustAppend(t, l, batchOf(t, idempotent(5, 0, int32(i)), int64(i), fmt.Sprint("v", i)))
		}
		if round%2 == 0 {
			if err := l.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Close(round%3 == 0); err != nil {
			t.Fatal(err)
		}
		damaged := damage(t, mem, random)
		m, err := Open(testConfig(mem, testDir))
		if err != nil {
			t.Fatalf("round %d, %s: %v", round, damaged, err)
		}
		l = m.Get(testPartition)
		for at := l.StartOffset(); at < l.EndOffset(); {
			slice, err := l.Read(at, 200, l.EndOffset(), true)
			if err != nil {
				if errors.Is(err, ErrCorrupt) {
					break // below the recovery point, found and named when read
				}
				t.Fatalf("round %d, %s: %v", round, damaged, err)
			}
			if slice.Size() == 0 {
				t.Fatalf("round %d, %s: nothing at %d of %d", round, damaged, at, l.EndOffset())
			}
			at = slice.NextOffset()
			_ = slice.Close()
		}
		if err := m.Close(true); err != nil {
			t.Fatalf("round %d, %s: %v", round, damaged, err)
		}
	}
}

func damage(t *testing.T, mem *vfs.Mem, random *rand.Rand) string {
	dir := filepath.Join(testDir, testPartition.String())
	entries, err := mem.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	entry := entries[random.Intn(len(entries))]
	path := filepath.Join(dir, entry.Name())
	info, err := entry.Info()
	if err != nil {
		t.Fatal(err)
	}
	file, err := mem.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	isLog := filepath.Ext(path) == logSuffix
	switch kind := random.Intn(4); {
	case kind == 0 && !isLog:
		_ = mem.Remove(path)
		return "removed " + path
	case kind == 1:
		_ = file.Truncate(info.Size() / 2)
		return "halved " + path
	case kind == 2:
		_, _ = file.WriteAt(make([]byte, 50), info.Size())
		return "zeros behind " + path
	default:
		if info.Size() == 0 {
			return "nothing"
		}
		var b [1]byte
		at := random.Int63n(info.Size())
		if _, err := file.ReadAt(b[:], at); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		b[0] ^= 1 << random.Intn(8)
		_, _ = file.WriteAt(b[:], at)
		return fmt.Sprintf("bit flipped at %d of %s", at, path)
	}
}
