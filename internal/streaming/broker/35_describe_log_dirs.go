package broker

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"understudy/internal/streaming/cluster"
	"understudy/internal/streaming/commitlog"
	"understudy/internal/streaming/wire"
)

// DescribeLogDirs (key 35), versions 0 to 4: what lies in each log directory. A null list
// means all partitions. v2 flexible; v3 an error of the whole; v4 the volume's size.

func (b *Broker) registerDescribeLogDirs() { b.server.Handle(35, 0, 4, b.handleDescribeLogDirs) }

func (b *Broker) handleDescribeLogDirs(request *wire.Request) {
	body := request.Body.(*kmsg.DescribeLogDirsRequest)
	var wanted map[cluster.TopicPartition]bool
	if body.Topics != nil {
		wanted = map[cluster.TopicPartition]bool{}
		for i := range body.Topics {
			for _, number := range body.Topics[i].Partitions {
				wanted[cluster.TopicPartition{Topic: body.Topics[i].Topic, Partition: number}] = true
			}
		}
	}
	go func() { // it asks the file system
		response := respond[*kmsg.DescribeLogDirsResponse](request)
		logs := b.logs.All()
		for _, dir := range b.config.LogDirs {
			response.Dirs = append(response.Dirs, b.describeLogDir(dir, logs, wanted))
		}
		request.Reply(response)
	}()
}

// describeLogDir tells of the wanted logs (nil: all) of one directory.
func (b *Broker) describeLogDir(dir string, logs []*commitlog.Log, wanted map[cluster.TopicPartition]bool) kmsg.DescribeLogDirsResponseDir {
	answer := kmsg.NewDescribeLogDirsResponseDir()
	answer.Dir = dir
	if absolute, err := filepath.Abs(dir); err == nil {
		answer.Dir = absolute
	}
	b.failed.Lock()
	failed := b.failed.dirs[dir]
	b.failed.Unlock()
	if failed {
		answer.ErrorCode = kerr.KafkaStorageError.Code
		return answer
	}
	answer.TotalBytes, answer.UsableBytes = volumeSize(dir)
	byTopic := map[string]*kmsg.DescribeLogDirsResponseDirTopic{}
	for _, log := range logs {
		tp := log.TopicPartition()
		if log.Dir() != dir || wanted != nil && !wanted[tp] {
			continue
		}
		topic := byTopic[tp.Topic]
		if topic == nil {
			topic = &kmsg.DescribeLogDirsResponseDirTopic{Topic: tp.Topic}
			byTopic[tp.Topic] = topic
		}
		partition := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
		partition.Partition, partition.Size = tp.Partition, log.Size()
		partition.OffsetLag = max(int64(log.HighWatermark()-log.EndOffset()), 0)
		topic.Partitions = append(topic.Partitions, partition)
	}
	for _, topic := range byTopic {
		slices.SortFunc(topic.Partitions, func(a, b kmsg.DescribeLogDirsResponseDirTopicPartition) int {
			return int(a.Partition) - int(b.Partition)
		})
		answer.Topics = append(answer.Topics, *topic)
	}
	slices.SortFunc(answer.Topics, func(a, b kmsg.DescribeLogDirsResponseDirTopic) int { return strings.Compare(a.Topic, b.Topic) })
	return answer
}
