package commitlog

import (
	"slices"
	"sort"
	"sync"

	"understudy/internal/streaming/cluster"
)

type epochEntry struct {
	epoch cluster.LeaderEpoch
	start cluster.Offset
}

// epochCache maps leader epochs to the offsets where they start (KIP-101, KIP-279;
// LeaderEpochFileCache). Epochs strictly increase and offsets never decrease.
//
// The checkpoint file may lag behind: what it lacks is rebuilt from the batches past the
// recovery point, and an epoch without a batch that is lost with it is harmless. So a
// change of leadership does not wait for the file (Kafka does two fsyncs here).
type epochCache struct {
	sync.RWMutex
	entries []epochEntry
	dirty   bool // entries differ from the checkpoint file
}

// assign notes that an epoch starts at an offset; entries it contradicts go.
func (c *epochCache) assign(epoch cluster.LeaderEpoch, start cluster.Offset) (changed bool) {
	if epoch < 0 || start < 0 {
		return false
	}
	c.Lock()
	defer c.Unlock()
	if n := len(c.entries); n > 0 {
		if last := c.entries[n-1]; last.epoch == epoch && last.start <= start {
			return false
		}
	}
	keep := len(c.entries)
	for keep > 0 && (c.entries[keep-1].epoch >= epoch || c.entries[keep-1].start >= start) {
		keep--
	}
	c.entries = append(c.entries[:keep], epochEntry{epoch, start})
	c.dirty = true
	return true
}

// learn notes that a batch of an epoch stands at an offset, which may lie below what is known;
// entries it contradicts go.
func (c *epochCache) learn(epoch cluster.LeaderEpoch, offset cluster.Offset) (changed bool) {
	if epoch < 0 {
		return false
	}
	c.Lock()
	defer c.Unlock()
	at := sort.Search(len(c.entries), func(i int) bool { return c.entries[i].epoch >= epoch })
	if at < len(c.entries) && c.entries[at].epoch == epoch {
		if c.entries[at].start <= offset {
			return false
		}
		c.entries[at].start = offset
	} else {
		c.entries = slices.Insert(c.entries, at, epochEntry{epoch, offset})
	}
	keep := at
	for keep > 0 && c.entries[keep-1].start >= offset {
		keep--
	}
	c.entries = slices.Delete(c.entries, keep, at)
	c.dirty = true
	return true
}

func (c *epochCache) list() []epochEntry {
	c.RLock()
	defer c.RUnlock()
	return slices.Clone(c.entries)
}

func (c *epochCache) latest() cluster.LeaderEpoch {
	c.RLock()
	defer c.RUnlock()
	if n := len(c.entries); n > 0 {
		return c.entries[n-1].epoch
	}
	return cluster.NoLeaderEpoch
}

// endOffsetFor answers where an epoch ends, given the log's end; see replication.md 5.
func (c *epochCache) endOffsetFor(epoch cluster.LeaderEpoch, end cluster.Offset) (cluster.LeaderEpoch, cluster.Offset) {
	c.RLock()
	defer c.RUnlock()
	n := len(c.entries)
	if epoch == cluster.NoLeaderEpoch || n == 0 || epoch > c.entries[n-1].epoch {
		return cluster.NoLeaderEpoch, cluster.NoOffset
	}
	if epoch == c.entries[n-1].epoch {
		return epoch, end
	}
	above := sort.Search(n, func(i int) bool { return c.entries[i].epoch > epoch })
	if above == 0 { // below all that is known: it ends where the first begins
		return epoch, c.entries[0].start
	}
	return c.entries[above-1].epoch, c.entries[above].start
}

// forOffset is the epoch that an offset was written in.
func (c *epochCache) forOffset(offset cluster.Offset) cluster.LeaderEpoch {
	c.RLock()
	defer c.RUnlock()
	after := sort.Search(len(c.entries), func(i int) bool { return c.entries[i].start > offset })
	if after == 0 {
		return cluster.NoLeaderEpoch
	}
	return c.entries[after-1].epoch
}

// truncateFromEnd drops the entries that start at or after the new end.
func (c *epochCache) truncateFromEnd(end cluster.Offset) (changed bool) {
	c.Lock()
	defer c.Unlock()
	keep := len(c.entries)
	for keep > 0 && c.entries[keep-1].start >= end {
		keep--
	}
	changed = keep < len(c.entries)
	c.entries = c.entries[:keep]
	c.dirty = c.dirty || changed
	return changed
}

// truncateFromStart drops the entries below the new start; the one in force there is
// rewritten to begin at it.
func (c *epochCache) truncateFromStart(start cluster.Offset) (changed bool) {
	c.Lock()
	defer c.Unlock()
	after := sort.Search(len(c.entries), func(i int) bool { return c.entries[i].start > start })
	if after == 0 || after == 1 && c.entries[0].start == start {
		return false
	}
	c.entries = slices.Delete(c.entries, 0, after-1)
	c.entries[0].start = start
	c.dirty = true
	return true
}

func (c *epochCache) clear() {
	c.Lock()
	defer c.Unlock()
	c.dirty = c.dirty || len(c.entries) > 0
	c.entries = nil
}

// takeDirty returns the content for the checkpoint file if it has to be written.
func (c *epochCache) takeDirty() (data []byte, dirty bool) {
	c.Lock()
	defer c.Unlock()
	if !c.dirty {
		return nil, false
	}
	c.dirty = false
	return encodeEpochs(c.entries), true
}

func (c *epochCache) markDirty() {
	c.Lock()
	defer c.Unlock()
	c.dirty = true
}
