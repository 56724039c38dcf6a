package commitlog

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"understudy/internal/streaming/cluster"
)

// File and directory names, as Kafka has them (LocalLog, LogFileUtils).
const (
	logSuffix       = ".log"
	indexSuffix     = ".index"
	timeIndexSuffix = ".timeindex"
	txnIndexSuffix  = ".txnindex"
	snapshotSuffix  = ".snapshot"
	deletedSuffix   = ".deleted"
	damagedSuffix   = ".damaged"
	cleanedSuffix   = ".cleaned"
	swapSuffix      = ".swap"

	deleteDirSuffix = "-delete"
	futureDirSuffix = "-future"
	strayDirSuffix  = "-stray"

	epochCheckpointName     = "leader-epoch-checkpoint"
	epochBeginName          = "leader-epoch-begin" // ours: see EpochBegin
	partitionMetadataName   = "partition.metadata"
	lockName                = ".lock"
	metaPropertiesName      = "meta.properties"
	cleanShutdownName       = ".kafka_cleanshutdown"
	recoveryPointName       = "recovery-point-offset-checkpoint"
	logStartName            = "log-start-offset-checkpoint"
	highWatermarkName       = "replication-offset-checkpoint"
	remoteIndexCacheDirName = "remote-log-index-cache"
	clusterMetadataDirName  = "__cluster_metadata-0"

	offsetDigits = 20
)

// offsetName is an offset as files are named by it: 20 digits.
func offsetName(offset cluster.Offset, suffix string) string {
	return fmt.Sprintf("%0*d%s", offsetDigits, int64(offset), suffix)
}

// parseOffsetName reads a name that offsetName made.
func parseOffsetName(name, suffix string) (cluster.Offset, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != offsetDigits {
		return 0, false
	}
	offset, err := strconv.ParseUint(digits, 10, 63)
	return cluster.Offset(offset), err == nil
}

// dirKind says what a directory inside a log directory is.
type dirKind int8

const (
	dirForeign   dirKind = iota // nothing Kafka would put there
	dirPartition                // a partition's log
	dirDelete                   // scheduled for deletion
	dirOther                    // Kafka's, but not for us: future and stray logs, KRaft's metadata
)

var markedDir = regexp.MustCompile(`^(\S+)-(\S+)\.(\S+)(-delete|-future|-stray)$`)

// parseDirName tells what a directory is, and for partitions which one.
func parseDirName(name string) (cluster.TopicPartition, dirKind) {
	if name == remoteIndexCacheDirName || name == clusterMetadataDirName {
		return cluster.TopicPartition{}, dirOther
	}
	if marked := markedDir.FindStringSubmatch(name); marked != nil {
		if marked[4] == deleteDirSuffix {
			return cluster.TopicPartition{}, dirDelete
		}
		return cluster.TopicPartition{}, dirOther
	}
	dash := strings.LastIndexByte(name, '-')
	if dash <= 0 {
		return cluster.TopicPartition{}, dirForeign
	}
	partition, err := strconv.ParseUint(name[dash+1:], 10, 31)
	if err != nil || !legalTopic(name[:dash]) {
		return cluster.TopicPartition{}, dirForeign
	}
	return cluster.TopicPartition{Topic: name[:dash], Partition: int32(partition)}, dirPartition
}

var topicPattern = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

func legalTopic(name string) bool {
	return topicPattern.MatchString(name) && name != "." && name != ".."
}

const dirNameLengthMax = 255

// deleteDirName is what a partition's directory is renamed to for deletion; long topic
// names are cut so that the file system accepts the result.
func deleteDirName(tp cluster.TopicPartition) string {
	var unique [16]byte
	_, _ = rand.Read(unique[:]) // never fails
	suffix := fmt.Sprintf("-%d.%s%s", tp.Partition, hex.EncodeToString(unique[:]), deleteDirSuffix)
	topic := tp.Topic
	if excess := len(topic) + len(suffix) - dirNameLengthMax; excess > 0 {
		topic = topic[:len(topic)-excess]
	}
	return topic + suffix
}
