package commitlog

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"strings"
	"sync"

	"understudy/internal/streaming/cluster"
)

// EpochBegin says where in this log a leader epoch began that this broker led: at Start, right
// behind a record of epoch Before. It is noted before records are committed that earlier leaders
// had left (partition.Replica.Unnoted), and tells the controller, after unclean stops, which logs
// have what that leader had. It says nothing of the log as it is now, so it stays true whatever
// becomes of the log: no truncation and no recovery touches it.
//
// The file leader-epoch-begin holds the latest one. The epoch cache's checkpoint would not do: it
// is made to agree with the records, and an epoch without a record is dropped from it. Apache's
// brokers do not look at files of other names. It is one line, with a checksum over what is before
// it:
//
//	<format version 0> <Epoch> <Before> <Start> <CRC-32C, 8 hexadecimal digits> \n
type EpochBegin struct {
	Epoch, Before cluster.LeaderEpoch
	Start         cluster.Offset
}

// epochBegin is a log's; the mutex keeps the writes of the file in the order of their epochs. It
// is taken before Log.flushing.
type epochBegin struct {
	sync.Mutex
	read   bool
	latest EpochBegin // Epoch is NoLeaderEpoch: none
}

var noEpochBegin = EpochBegin{cluster.NoLeaderEpoch, cluster.NoLeaderEpoch, cluster.NoOffset}

const epochBeginVersion = 0

func (b EpochBegin) encode() []byte {
	text := fmt.Appendf(nil, "%d %d %d %d ", epochBeginVersion, b.Epoch, b.Before, b.Start)
	return fmt.Appendf(text, "%08x\n", crc32.Checksum(text, castagnoli))
}

func decodeEpochBegin(data []byte) (EpochBegin, error) {
	text := string(data)
	const sumSize = 9 // with the line's end
	if len(text) < sumSize || !strings.HasSuffix(text, "\n") {
		return noEpochBegin, errors.New("it is not a whole line")
	}
	content := text[:len(text)-sumSize]
	if sum := fmt.Sprintf("%08x\n", crc32.Checksum([]byte(content), castagnoli)); sum != text[len(content):] {
		return noEpochBegin, fmt.Errorf("checksum is %q where the line has %q", strings.TrimSpace(sum), strings.TrimSpace(text[len(content):]))
	}
	var version int
	found := noEpochBegin
	if _, err := fmt.Sscanf(content, "%d %d %d %d ", &version, &found.Epoch, &found.Before, &found.Start); err != nil || version != epochBeginVersion {
		return noEpochBegin, fmt.Errorf("%q is not of format version %d", content, epochBeginVersion)
	}
	if found.Epoch < 0 || found.Before < cluster.NoLeaderEpoch || found.Before >= found.Epoch || found.Start < 0 {
		return noEpochBegin, fmt.Errorf("epoch %d at %d behind epoch %d cannot be", found.Epoch, found.Start, found.Before)
	}
	return found, nil
}

// EpochBegin is what NoteEpochBegin was told last, in whatever process; ok is false if nothing is
// known.
func (l *Log) EpochBegin() (begin EpochBegin, ok bool) {
	l.begin.Lock()
	defer l.begin.Unlock()
	l.readEpochBeginLocked()
	return l.begin.latest, l.begin.latest.Epoch != cluster.NoLeaderEpoch
}

func (l *Log) readEpochBeginLocked() {
	if l.begin.read {
		return
	}
	path := l.filePath(epochBeginName)
	data, err := readWholeFile(l.files.fs, path)
	l.begin.latest = noEpochBegin
	if err == nil {
		l.begin.latest, err = decodeEpochBegin(data)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.dir.logger.Warn("where a leader epoch began cannot be read: it is not known", "path", path, "error", err)
	}
	l.begin.read = true
}

// NoteEpochBegin writes it down, for a process that is killed, and with durable for a loss of
// power, too. Otherwise it is no safer from that than records are, for whose sake it is noted.
func (l *Log) NoteEpochBegin(begin EpochBegin, durable bool) error {
	l.begin.Lock()
	defer l.begin.Unlock()
	if err := l.Failed(); err != nil { // a deletion waits for the lock: nothing is written into the next log of this name
		return err
	}
	l.readEpochBeginLocked()
	if begin.Epoch <= l.begin.latest.Epoch {
		return nil // a later one has come first
	}
	path := l.filePath(epochBeginName)
	write := func() error {
		if durable {
			return replaceFile(l.files.fs, path, begin.encode(), true)
		}
		temporary := path + ".tmp"
		if err := writeFile(l.files.fs, temporary, begin.encode(), false); err != nil {
			return err
		}
		return l.files.fs.Rename(temporary, path)
	}
	if err := write(); err != nil {
		return l.fail(fmt.Errorf("write %s: %w", path, err))
	}
	l.begin.latest = begin
	return nil
}
