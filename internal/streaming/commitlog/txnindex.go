package commitlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"understudy/internal/streaming/cluster"
)

// A .txnindex entry: int16 version 0, int64 producerId, int64 firstOffset, int64
// lastOffset (of the abort marker), int64 lastStableOffset at that time. Only aborted
// transactions are in it, and the file exists only if there is one.
const (
	txnIndexVersion   = 0
	txnIndexEntrySize = 34
)

type abortedEntry struct {
	producerID  int64
	first, last cluster.Offset
	lastStable  cluster.Offset
}

func (e abortedEntry) append(out []byte) []byte {
	out = binary.BigEndian.AppendUint16(out, txnIndexVersion)
	out = binary.BigEndian.AppendUint64(out, uint64(e.producerID))
	out = binary.BigEndian.AppendUint64(out, uint64(e.first))
	out = binary.BigEndian.AppendUint64(out, uint64(e.last))
	return binary.BigEndian.AppendUint64(out, uint64(e.lastStable))
}

var errTxnIndexSize = errors.New("its size is no multiple of its entries'")

func decodeTxnIndex(data []byte, base cluster.Offset) ([]abortedEntry, error) {
	if len(data)%txnIndexEntrySize != 0 {
		return nil, errTxnIndexSize
	}
	entries := make([]abortedEntry, 0, len(data)/txnIndexEntrySize)
	for ; len(data) > 0; data = data[txnIndexEntrySize:] {
		if version := binary.BigEndian.Uint16(data); version != txnIndexVersion {
			return nil, fmt.Errorf("an entry's version is %d, not %d", version, txnIndexVersion)
		}
		entry := abortedEntry{
			producerID: int64(binary.BigEndian.Uint64(data[2:])),
			first:      cluster.Offset(binary.BigEndian.Uint64(data[10:])),
			last:       cluster.Offset(binary.BigEndian.Uint64(data[18:])),
			lastStable: cluster.Offset(binary.BigEndian.Uint64(data[26:])),
		}
		if entry.last < base {
			return nil, fmt.Errorf("an entry ends at %d, before the segment's base %d", entry.last, base)
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

// txnIndexFile is the segment's .txnindex. Transactions are rare next to batches, so it is
// opened for each use and not kept in the cache.
func (s *segment) txnIndexPath() string {
	file := cachedFile{dir: s.log.dir, base: s.base, suffix: txnIndexSuffix}
	return file.path()
}

func (s *segment) appendTxnIndex(files *fileCache, ended completed) error {
	file, err := files.fs.OpenFile(s.txnIndexPath())
	if err != nil {
		return err
	}
	entry := abortedEntry{ended.producerID, ended.first, ended.last, ended.lastStable}
	_, err = file.Write(entry.append(nil))
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", s.txnIndexPath(), err)
	}
	s.hasTxnIndex.Store(true)
	return nil
}

func (s *segment) readTxnIndex(files *fileCache) ([]abortedEntry, error) {
	if !s.hasTxnIndex.Load() {
		return nil, nil
	}
	data, err := readWholeFile(files.fs, s.txnIndexPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	entries, err := decodeTxnIndex(data, s.base)
	if err != nil {
		return nil, &CorruptionError{Path: s.txnIndexPath(), Cause: err}
	}
	return entries, nil
}

// truncateTxnIndex drops the transactions that end at or above an offset.
func (s *segment) truncateTxnIndex(files *fileCache, offset cluster.Offset) error {
	entries, err := s.readTxnIndex(files)
	if err != nil || entries == nil {
		return err
	}
	var data []byte
	for _, entry := range entries {
		if entry.last < offset {
			data = entry.append(data)
		}
	}
	return writeFile(files.fs, s.txnIndexPath(), data, false)
}

func (s *segment) syncTxnIndex(files *fileCache) error {
	if !s.hasTxnIndex.Load() {
		return nil
	}
	file, err := files.fs.OpenFile(s.txnIndexPath())
	if err != nil {
		return err
	}
	err = file.Sync()
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	return err
}

// AbortedTransaction is a transaction to be left out by read_committed consumers.
type AbortedTransaction struct {
	ProducerID  int64
	FirstOffset cluster.Offset
}

// AbortedTransactions lists those that overlap [from, upTo).
func (l *Log) AbortedTransactions(from, upTo cluster.Offset) ([]AbortedTransaction, error) {
	now := l.view()
	var found []AbortedTransaction
	for _, s := range now.segments[now.floor(from):] {
		entries, err := s.readTxnIndex(l.files)
		if err != nil {
			return nil, fmt.Errorf("commitlog: aborted transactions of %s: %w", l.tp, err)
		}
		for _, entry := range entries {
			if entry.last >= from && entry.first < upTo {
				found = append(found, AbortedTransaction{entry.producerID, entry.first})
			}
			if entry.lastStable >= upTo {
				return found, nil
			}
		}
	}
	return found, nil
}
