package main

import (
	"errors"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/commitlog"
	"understudy/internal/streaming/record"
	"understudy/internal/vfs"
)

var (
	errBadSync  = errors.New("input/output error") // of an fsync
	errDiskFull = errors.New("no space left on device")
)

// diskFault is what is wrong with a broker's disk.
type diskFault struct {
	badSync   bool          // the next fsync of a log fails
	fullUntil time.Duration // nothing can be written until then
	met       bool          // an operation has failed of it
}

// outcome is what an operation comes to.
func (b *broker) outcome(op vfs.Operation, name string) error {
	f := &b.diskFault
	switch {
	case f.badSync && op == vfs.OpSync && strings.HasSuffix(name, ".log"):
		f.badSync, f.met = false, true
		b.w.trace("disk", "broker %d: fsync of %s fails", b.id, name)
		return errBadSync
	case b.w.now < f.fullUntil && (op == vfs.OpWrite || op == vfs.OpCreate) && b.inStep:
		f.met = true
		if op == vfs.OpWrite && b.w.look(2) == 0 {
			return &vfs.ShortWrite{Bytes: b.w.look(40), Err: errDiskFull}
		}
		return errDiskFull
	}
	return nil
}

// dirFailed: the log has given its directory up, the only one. The broker ends, in a while,
// and must not acknowledge anything any more.
func (b *broker) dirFailed(dir string, err error) {
	w := b.w
	if !b.diskFault.met {
		w.fail("disk", "broker %d gave up %s without a fault: %v", b.id, dir, err)
	}
	if b.failed {
		return
	}
	w.trace("disk", "broker %d gives up: %v", b.id, err)
	b.failed = true
	lost := errors.Is(err, errBadSync) // what was not synced by then may be gone
	incarnation := b.incarnation
	w.after(w.between(0, 200*time.Millisecond), func() {
		if b.incarnation == incarnation && b.up {
			b.kill(lost)
		}
	})
}

// damage spoils a file of a broker that is down: a bit, or a stretch that was meant for
// another place. partition.metadata is spared: another topic id in it is another topic's log to
// everybody (INCONSISTENT_TOPIC_ID, as in Kafka) until an operator removes the file.
func (b *broker) damage(chance *rand.Rand) {
	files := b.files("/logs")
	files = slices.DeleteFunc(files, func(name string) bool {
		return path.Base(path.Dir(name)) == "logs" && !strings.Contains(name, "checkpoint") || path.Base(name) == "partition.metadata"
	})
	if len(files) == 0 {
		return
	}
	name := files[chance.IntN(len(files))]
	if logs := slices.DeleteFunc(slices.Clone(files), func(name string) bool { return !strings.HasSuffix(name, ".log") }); len(logs) > 0 && chance.IntN(3) > 0 {
		name = logs[chance.IntN(len(logs))]
	}
	file, err := b.disk.Open(name)
	if err != nil {
		return
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return
	}
	at := chance.Int64N(info.Size())
	stretch := make([]byte, 1)
	if chance.IntN(3) == 0 {
		stretch = make([]byte, min(info.Size()-at, 60))
		_, _ = file.ReadAt(stretch, chance.Int64N(info.Size()-int64(len(stretch))+1))
	} else {
		if strings.HasSuffix(name, ".log") {
			at = covered(file, info.Size(), at)
		}
		_, _ = file.ReadAt(stretch, at)
		stretch[0] ^= 1 << chance.IntN(8)
	}
	_, _ = file.WriteAt(stretch, at)
	b.w.trace("damage", "broker %d: %d bytes at %d of %s", b.id, len(stretch), at, name)
	b.harmed, b.stray = true, false
}

// covered moves a position out of those fields of a batch that Kafka's checksum does not cover:
// base offset and leader epoch. Nothing finds a flipped bit there as long as it makes sense.
func covered(file vfs.File, size, at int64) int64 {
	data := make([]byte, size)
	_, _ = file.ReadAt(data, 0)
	start := int64(0)
	for batch, err := range record.All(data) {
		if err != nil {
			return at
		}
		end := start + int64(len(batch))
		if within := at - start; at < end && (within < 8 || within >= 12 && within < 16) {
			return min(start+30, size-1)
		}
		start = end
	}
	return at
}

// files lists all files below a directory.
func (b *broker) files(dir string) (names []string) {
	entries, err := b.disk.List(dir)
	if err != nil {
		return nil
	}
	for _, entry := range entries {
		name := path.Join(dir, entry.Name())
		if entry.IsDir() {
			names = append(names, b.files(name)...)
		} else {
			names = append(names, name)
		}
	}
	return names
}

// mend lets the broker look for damage and ask the others for what is missing, and finds out
// whether all is well again. A log that was left behind by a reassignment (while the broker was
// down) nobody mends, and nobody reads.
func (b *broker) mend() {
	if !b.harmed || !b.registered || b.failed {
		return
	}
	b.logs.Scrub()
	b.rep.Repair(b.askRecords)
	if damaged := b.logs.Damaged(); len(damaged) > 0 {
		b.stray = !slices.ContainsFunc(damaged, func(log *commitlog.Log) bool {
			p := b.w.check.live[log.TopicPartition()]
			return p != nil && slices.Contains(p.replicas, b.id)
		})
		return
	}
	for _, p := range b.w.check.parts {
		log := p.logOf(b)
		if log == nil {
			continue
		}
		m := newMirror()
		m.led, m.hw = p.mirror(b.id).led, p.mirror(b.id).hw
		p.mirrors[b.id] = m
		b.w.check.refresh(p, b, log)
		m.ledEnd = len(m.entries)
		if len(m.entries) < int(log.EndOffset()) {
			return
		}
	}
	b.w.trace("disk", "broker %d is whole again", b.id)
	b.harmed = false
}

// askRecords stands for a fetch on a connection of the repairer; it takes no time, but may fail.
func (b *broker) askRecords(source cluster.BrokerID, request *kmsg.FetchRequest) (answer *kmsg.FetchResponse, err error) {
	n, other := b.w.network, b.w.brokers[source-1]
	here, there := node(b.id), node(source)
	if !other.listening() || other.paused || n.cut[[2]node{here, there}] || n.cut[[2]node{there, here}] {
		return nil, errTimeout
	}
	err = errTimeout
	other.serve(request, here, func(response kmsg.Response, failed error) {
		answer, err = responseOf[*kmsg.FetchResponse](served{response, failed}, nil)
	})
	return answer, err
}
