package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"understudy/internal/coordination/zkclient"
	"understudy/internal/streaming/cluster"
)

func sortBrokers(brokers []cluster.Broker) {
	slices.SortFunc(brokers, func(a, b cluster.Broker) int { return int(a.ID) - int(b.ID) })
}

// Controller reads who the controller is, NoBroker if nobody; watch sets the data or exists
// watch on /controller.
func (r *Registry) Controller(ctx context.Context, watch bool) (cluster.BrokerID, error) {
	id, _, _, err := r.controller(ctx, watch)
	return id, err
}

func (r *Registry) controller(ctx context.Context, watch bool) (id cluster.BrokerID, version, kraftEpoch int32, err error) {
	for {
		result := r.do(ctx, zkclient.GetData(PathController, watch))
		if result.Err == nil {
			id, kraftEpoch, err = decodeController(result.Data)
			return id, result.Stat.Version, kraftEpoch, err
		}
		if !errors.Is(result.Err, ErrNoNode) {
			return cluster.NoBroker, 0, -1, fmt.Errorf("read %s: %w", PathController, result.Err)
		}
		if !watch {
			return cluster.NoBroker, 0, -1, nil
		}
		// A getData of a missing node leaves no watch; an exists does.
		result = r.do(ctx, zkclient.Exists(PathController, true))
		if errors.Is(result.Err, ErrNoNode) {
			return cluster.NoBroker, 0, -1, nil
		}
		if result.Err != nil {
			return cluster.NoBroker, 0, -1, fmt.Errorf("watch %s: %w", PathController, result.Err)
		}
	}
}

// ElectController tries to become controller. won tells whether it did; otherwise current
// is the controller found instead, NoBroker if that is not known either (the caller tries
// again when its watch on /controller fires).
func (r *Registry) ElectController(ctx context.Context, self cluster.BrokerID, nowMs int64) (fence Fence, won bool, current cluster.BrokerID, err error) {
	current, err = r.Controller(ctx, true)
	if err != nil || current != cluster.NoBroker {
		return Fence{}, false, current, err
	}
	epoch, version, err := r.controllerEpoch(ctx)
	if err != nil {
		return Fence{}, false, cluster.NoBroker, err
	}
	next := epoch + 1
	result := r.do(ctx, zkclient.Multi(
		zkclient.CreateEphemeral(PathController, encodeController(self, nowMs)),
		zkclient.SetData(PathControllerEpoch, fmt.Appendf(nil, "%d", next), version)))
	switch {
	case result.Err == nil:
		return Fence{next, result.Results[1].Stat.Version}, true, self, nil
	case errors.Is(result.Err, ErrNodeExists), errors.Is(result.Err, ErrBadVersion):
		return r.checkElection(ctx, self, next)
	}
	return Fence{}, false, cluster.NoBroker, fmt.Errorf("elect the controller: %w", result.Err)
}

// checkElection tells a lost race from an own success whose reply was lost with a
// connection: then the controller is us and the epoch is the one we wrote.
func (r *Registry) checkElection(ctx context.Context, self cluster.BrokerID, wanted cluster.ControllerEpoch) (Fence, bool, cluster.BrokerID, error) {
	current, err := r.Controller(ctx, true)
	if err != nil || current != self {
		return Fence{}, false, current, err
	}
	epoch, version, err := r.controllerEpoch(ctx)
	if err != nil || epoch != wanted {
		return Fence{}, false, current, err
	}
	return Fence{epoch, version}, true, self, nil
}

func (r *Registry) controllerEpoch(ctx context.Context) (cluster.ControllerEpoch, int32, error) {
	for {
		result := r.do(ctx, zkclient.GetData(PathControllerEpoch, false))
		if result.Err == nil {
			epoch, err := decodeControllerEpoch(result.Data)
			return epoch, result.Stat.Version, err
		}
		if !errors.Is(result.Err, ErrNoNode) {
			return 0, 0, fmt.Errorf("read %s: %w", PathControllerEpoch, result.Err)
		}
		err := r.do(ctx, zkclient.Create(PathControllerEpoch, []byte("0"), zkclient.Persistent)).Err
		if err != nil && !errors.Is(err, ErrNodeExists) {
			return 0, 0, fmt.Errorf("create %s: %w", PathControllerEpoch, err)
		}
	}
}

// ResignController deletes /controller if it is still the caller's, so that another broker
// is elected (KafkaController.triggerControllerMove).
func (r *Registry) ResignController(ctx context.Context, fence Fence) error {
	result := r.Execute(ctx, &fence, []Op{{Kind: OpDelete, Path: PathController, Version: AnyVersion}})[0]
	if result.Err == nil || errors.Is(result.Err, ErrNoNode) || errors.Is(result.Err, ErrControllerMoved) {
		return nil
	}
	return fmt.Errorf("delete %s: %w", PathController, result.Err)
}

// OwnsController reports whether /controller belongs to the present session.
func (r *Registry) OwnsController(ctx context.Context) (bool, error) {
	result := r.do(ctx, zkclient.Exists(PathController, false))
	if errors.Is(result.Err, ErrNoNode) {
		return false, nil
	}
	if result.Err != nil {
		return false, fmt.Errorf("read %s: %w", PathController, result.Err)
	}
	return result.Stat.EphemeralOwner == r.store.Load().Session().ID, nil
}

// SetupFeature brings /feature to what a controller at protocol 3.3 or later keeps there,
// preserving finalized features, and sets the caller's watch on it. It is not fenced, as in
// Kafka.
func (r *Registry) SetupFeature(ctx context.Context) error {
	for {
		result := r.do(ctx, zkclient.GetData(PathFeature, false))
		var err error
		switch {
		case errors.Is(result.Err, ErrNoNode):
			err = r.do(ctx, zkclient.Create(PathFeature, encodeFeature(&Feature{Enabled: true}), zkclient.Persistent)).Err
		case result.Err != nil:
			return fmt.Errorf("read %s: %w", PathFeature, result.Err)
		default:
			feature, decodeErr := DecodeFeature(result.Data)
			if decodeErr != nil {
				return decodeErr
			}
			if feature.Enabled {
				return nil
			}
			feature.Enabled = true
			err = r.do(ctx, zkclient.SetData(PathFeature, encodeFeature(&feature), result.Stat.Version)).Err
		}
		if err == nil {
			return nil
		}
		if !errors.Is(err, ErrNodeExists) && !errors.Is(err, ErrBadVersion) {
			return fmt.Errorf("write %s: %w", PathFeature, err)
		}
	}
}

// Feature reads /feature and its version, the epoch of the finalized features; -1 if there
// is none. watch sets a data or exists watch.
func (r *Registry) Feature(ctx context.Context, watch bool) (Feature, int32, error) {
	results := r.Execute(ctx, nil, []Op{{Kind: OpExists, Path: PathFeature, Watch: watch}, {Kind: OpGet, Path: PathFeature}})
	if errors.Is(results[1].Err, ErrNoNode) {
		return Feature{}, -1, nil
	}
	if results[1].Err != nil {
		return Feature{}, -1, fmt.Errorf("read %s: %w", PathFeature, results[1].Err)
	}
	feature, err := DecodeFeature(results[1].Data)
	return feature, results[1].Version, err
}

// AllocateProducerIDs takes the next block of producer ids, ProducerIDBlockSize long.
func (r *Registry) AllocateProducerIDs(ctx context.Context, broker cluster.BrokerID) (start int64, err error) {
	for {
		result := r.do(ctx, zkclient.GetData(PathProducerIDBlock, false))
		if errors.Is(result.Err, ErrNoNode) {
			if err := r.createRecursive(ctx, PathProducerIDBlock, nil); err != nil && !errors.Is(err, ErrNodeExists) {
				return 0, fmt.Errorf("create %s: %w", PathProducerIDBlock, err)
			}
			continue
		}
		if result.Err != nil {
			return 0, fmt.Errorf("read %s: %w", PathProducerIDBlock, result.Err)
		}
		start, err := NextProducerID(result.Data)
		if err != nil {
			return 0, err
		}
		// A repeated write whose first reply was lost fails with a bad version and
		// wastes one block: never hands one out twice.
		err = r.do(ctx, zkclient.SetData(PathProducerIDBlock, EncodeProducerIDBlock(broker, start), result.Stat.Version)).Err
		if err == nil {
			return start, nil
		}
		if !errors.Is(err, ErrBadVersion) {
			return 0, fmt.Errorf("write %s: %w", PathProducerIDBlock, err)
		}
	}
}
