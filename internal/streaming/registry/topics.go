package registry

import (
	"context"
	"errors"
	"fmt"

	"understudy/internal/coordination/zkclient"
	"understudy/internal/streaming/cluster"
)

// Topics lists all topics, sorted; watch sets the child watch on /brokers/topics.
func (r *Registry) Topics(ctx context.Context, watch bool) ([]string, error) {
	result := r.Execute(ctx, nil, []Op{{Kind: OpChildren, Path: PathTopics, Watch: watch}})[0]
	if result.Err != nil {
		return nil, fmt.Errorf("list %s: %w", PathTopics, result.Err)
	}
	return result.Children, nil
}

// TopicAssignments reads the nodes of topics in one batch; watch sets a data watch on each.
// A topic that does not exist is left out; one that does not decode is left out and logged.
func (r *Registry) TopicAssignments(ctx context.Context, topics []string, watch bool) (map[string]TopicAssignment, error) {
	ops := make([]Op, len(topics))
	for i, topic := range topics {
		ops[i] = Op{Kind: OpGet, Path: TopicPath(topic), Watch: watch}
	}
	out := make(map[string]TopicAssignment, len(topics))
	for i, result := range r.Execute(ctx, nil, ops) {
		if errors.Is(result.Err, ErrNoNode) {
			continue
		}
		if result.Err != nil {
			return nil, fmt.Errorf("read %s: %w", ops[i].Path, result.Err)
		}
		assignment, err := DecodeTopic(topics[i], result.Data)
		if err != nil {
			r.logger.Error("ignoring an unreadable topic", "topic", topics[i], "error", err)
			continue
		}
		out[topics[i]] = assignment
	}
	return out, nil
}

// NewTopic is a topic to be created.
type NewTopic struct {
	Name       string
	Assignment TopicAssignment
	Config     map[string]string
}

// CreateTopics writes the configuration and the assignment of topics, each topic in one
// multi, all topics in one batch, and returns an error for each (ErrNodeExists if the topic
// is there, ErrBeingDeleted as long as the mark of an earlier topic's deletion is). The
// controller finds them by its watch. The configuration is written even when empty, and without
// a change notification, as in Kafka.
//
// The mark goes last in a deletion, and what goes before it may be done twice, by the same
// controller or the next. A topic created in between would be deleted, too (in Kafka it is). So
// the multi makes the mark and takes it away: it fails if there is one.
func (r *Registry) CreateTopics(ctx context.Context, topics []NewTopic) []error {
	errs := make([]error, len(topics))
	ops := make([]zkclient.Op, len(topics))
	build := func(i int, configExists bool) zkclient.Op {
		path, config := TopicConfigPath(topics[i].Name), EncodeConfig(topics[i].Config)
		write := zkclient.Create(path, config, zkclient.Persistent)
		if configExists {
			write = zkclient.SetData(path, config, AnyVersion)
		}
		mark := DeleteTopicPath(topics[i].Name)
		return zkclient.Multi(zkclient.Create(mark, nil, zkclient.Persistent), zkclient.Delete(mark, AnyVersion),
			write, zkclient.Create(TopicPath(topics[i].Name), EncodeTopic(&topics[i].Assignment), zkclient.Persistent))
	}
	for i := range topics {
		ops[i] = build(i, false)
	}
	for i, result := range r.doAll(ctx, ops) {
		// A configuration left over from an earlier topic of the name is replaced.
		const mark, config = 0, 2
		existed := func(op int) bool {
			return errors.Is(result.Err, ErrNodeExists) && len(result.Results) > op && errors.Is(result.Results[op].Err, ErrNodeExists)
		}
		if existed(config) {
			result = r.do(ctx, build(i, true))
		}
		marked := existed(mark)
		if errors.Is(result.Err, ErrNodeExists) && r.isOurs(ctx, &topics[i]) {
			result.Err, marked = nil, false // written, and the reply lost with its connection
		}
		if marked {
			result.Err = ErrBeingDeleted
		}
		if result.Err != nil {
			errs[i] = fmt.Errorf("create topic %s: %w", topics[i].Name, result.Err)
		}
	}
	return errs
}

// isOurs tells by the random topic id whether a topic is the one we tried to create.
func (r *Registry) isOurs(ctx context.Context, topic *NewTopic) bool {
	found, err := r.TopicAssignments(ctx, []string{topic.Name}, false)
	return err == nil && !topic.Assignment.ID.IsZero() && found[topic.Name].ID == topic.Assignment.ID
}

// SetTopicAssignment rewrites a topic's node unfenced, as CreatePartitions does in Kafka.
func (r *Registry) SetTopicAssignment(ctx context.Context, topic string, assignment *TopicAssignment) error {
	err := r.do(ctx, zkclient.SetData(TopicPath(topic), EncodeTopic(assignment), AnyVersion)).Err
	if err != nil {
		return fmt.Errorf("write %s: %w", TopicPath(topic), err)
	}
	return nil
}

// MarkTopicsDeleted asks the controller to delete topics; one that is marked already is fine.
func (r *Registry) MarkTopicsDeleted(ctx context.Context, topics []string) []error {
	ops := make([]Op, len(topics))
	for i, topic := range topics {
		ops[i] = Op{Kind: OpCreate, Path: DeleteTopicPath(topic)}
	}
	errs := make([]error, len(topics))
	for i, result := range r.Execute(ctx, nil, ops) {
		if result.Err != nil && !errors.Is(result.Err, ErrNodeExists) {
			errs[i] = fmt.Errorf("mark topic %s for deletion: %w", topics[i], result.Err)
		}
	}
	return errs
}

// TopicsMarkedDeleted lists the topics that wait for their deletion.
func (r *Registry) TopicsMarkedDeleted(ctx context.Context) ([]string, error) {
	result := r.Execute(ctx, nil, []Op{{Kind: OpChildren, Path: PathDeleteTopics}})[0]
	if result.Err != nil {
		return nil, fmt.Errorf("list %s: %w", PathDeleteTopics, result.Err)
	}
	return result.Children, nil
}

// PartitionStates reads state nodes in one batch. A partition without one is left out.
func (r *Registry) PartitionStates(ctx context.Context, partitions []cluster.TopicPartition) (map[cluster.TopicPartition]cluster.PartitionState, error) {
	ops := make([]Op, len(partitions))
	for i, tp := range partitions {
		ops[i] = Op{Kind: OpGet, Path: StatePath(tp)}
	}
	out := make(map[cluster.TopicPartition]cluster.PartitionState, len(partitions))
	for i, result := range r.Execute(ctx, nil, ops) {
		if errors.Is(result.Err, ErrNoNode) {
			continue
		}
		if result.Err != nil {
			return nil, fmt.Errorf("read %s: %w", ops[i].Path, result.Err)
		}
		state, err := DecodePartitionState(partitions[i], result.Data, result.Version)
		if err != nil {
			r.logger.Error("ignoring an unreadable partition state", "partition", partitions[i], "error", err)
			continue
		}
		out[partitions[i]] = state
	}
	return out, nil
}
