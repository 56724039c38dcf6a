package replication

import (
	"slices"

	"understudy/internal/streaming/cluster"
)

// nearReaderLocked says which other replica the consumer should read a partition from, nil if it is
// to stay here. Racks and who lives are those of the metadata, as clients see them: a
// broker without the consumer's listener could not be named to it.
func (op *fetchOp) nearReaderLocked(h *hosted, offset cluster.Offset) *cluster.BrokerID {
	rack := op.request.NearRack
	if rack == "" || op.isFollower() || !h.replica.IsLeader() {
		return nil
	}
	image := op.m.config.Metadata.Image()
	state, known := image.Partition(h.tp)
	if !known {
		return nil
	}
	id, found := h.replica.NearReader(offset, func(id cluster.BrokerID) bool {
		broker, alive := image.Broker(id)
		return alive && broker.Rack == rack && slices.Contains(state.Replicas, id) &&
			slices.ContainsFunc(broker.Endpoints, func(e cluster.Endpoint) bool { return e.Listener == op.request.Listener })
	})
	if !found {
		return nil
	}
	return &id
}
